package reconciler

// Stories of a forge with a page of deployments.

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// simDeployments is a forge's page of deployments.
type simDeployments struct {
	*sim
	shown []delivery.Deployment
	fails int // so many calls fail, after they had their effect
}

func (d *simDeployments) Deploy(_ context.Context, now delivery.Deployment) error {
	defer d.effect()()
	d.shown = append(d.shown, now)
	if d.fails > 0 {
		d.fails--
		return errors.New("the answer is lost")
	}
	return nil
}

// states are the deployments in short, without repeats.
func (d *simDeployments) states() (list []string) {
	for _, s := range d.shown {
		if text := s.Fleet + " " + s.Release() + " " + string(s.State); !slices.Contains(list, text) {
			list = append(list, text)
		}
	}
	return list
}

// Each release of a fleet is a deployment from its merge to its end, also if AOB is killed in between, and a call whose
// answer is lost is repeated.
func TestWavesAreDeployments(t *testing.T) {
	s, _ := begun(t)
	d := &simDeployments{sim: s, fails: 1}
	with := func(r *Reconciler) { r.Deployments, r.Server.URL = d, "https://aob.example.com" }
	s.restart(with)
	s.quality[8], s.quality[9] = 0.6, 0.6
	s.propose("first", 8)
	s.settle()
	merge := s.merge("first")
	for i := 0; i < 100 && len(d.shown) == 0; i++ {
		s.turn()
		s.now = s.now.Add(time.Second)
	}
	s.restart(with)
	s.settle()
	s.quiet()
	said := len(d.shown)
	for range 20 {
		s.wake()
		s.turn()
	}
	if len(d.shown) != said {
		t.Errorf("%d more calls without news: %+v", len(d.shown)-said, d.shown[said:])
	}
	want := []string{"demo shapes version 1 running", "demo shapes version 1 done"}
	if !slices.Equal(d.states(), want) {
		t.Errorf("got %q, want %q", d.states(), want)
	}
	for _, s := range d.shown {
		if s.Commit != merge || s.URL != "https://aob.example.com" || s.Description == "" || s.Bundle == "" {
			t.Errorf("got %+v", s)
		}
	}
	s.released("second", 9)
	s.settle()
	if got := d.states(); got[len(got)-1] != "demo shapes version 2 done" {
		t.Errorf("got %q", got)
	}
}
