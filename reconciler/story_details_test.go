package reconciler

// Stories of a forge that shows check runs.

import (
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// details returns what a check run of a branch's head shows.
func (s *sim) details(branch, context string) delivery.CheckDetails {
	c := s.check(s.head(branch), context)
	if c.Details == nil {
		s.fail("%s of %s has no details: %+v", context, branch, c)
		return delivery.CheckDetails{}
	}
	return *c.Details
}

// A check run has the comment, the complaints on their lines and a button for what is waited for. Pressing it is an
// order as a comment is. A new head ends what the earlier one still shows.
func TestCheckRunsShowDetails(t *testing.T) {
	s, main := begun(t)
	s.restart(func(r *Reconciler) { r.CheckDetails = true })
	s.repo.commit("first", main, s.now, map[string]string{"models/shapes.yaml": model("shapes", 8) + "wrong: 1\n"})
	s.forge.open("first", "stranger")
	s.forge.permission["stranger"] = delivery.PermissionRead
	s.settle()
	if d := s.details("first", delivery.ContextIntent); len(d.Notes) != 1 || d.Notes[0].File != "models/shapes.yaml" ||
		d.Notes[0].Line == 0 {
		t.Errorf("a complaint: %+v", d)
	}
	s.repo.commit("first", s.head("first"), s.now, map[string]string{"models/shapes.yaml": model("shapes", 8)})
	s.settle()
	early := s.head("first")
	release := s.details("first", delivery.ContextRelease)
	if !strings.Contains(release.Summary, "needs approval") || len(release.Buttons) != 1 ||
		release.Buttons[0].Label != "Run" || !strings.HasPrefix(release.Buttons[0].Order, "/aob run ") {
		t.Errorf("what waits for approval: %+v", release)
	}
	s.quiet()

	s.repo.commit("first", early, s.now, map[string]string{"models/shapes.yaml": model("shapes", 9)})
	s.settle()
	for context, c := range s.forge.statuses[early] {
		if c.State == delivery.CheckPending {
			t.Errorf("%s of the earlier head still shows %+v", context, c)
		}
	}
	if c := s.check(early, delivery.ContextRelease); !strings.HasPrefix(c.Description, "superseded: ") {
		t.Errorf("the earlier head: %+v", c)
	}
	s.quality[9] = 0.6
	button := s.details("first", delivery.ContextRelease).Buttons[0]
	s.forge.comment(0, "maintainer", button.Order)
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	if d := s.details("first", delivery.ContextGate+"production"); !strings.Contains(d.Summary, "| check |") ||
		len(d.Buttons) != 0 {
		t.Errorf("the gate: %+v", d)
	}
	s.quiet()
}

// A failed run has a button that tries it again, once for each press of somebody with write permission.
func TestRunAgain(t *testing.T) {
	s, _ := begun(t)
	s.restart(func(r *Reconciler) { r.CheckDetails = true })
	s.quality[8] = 0.6
	s.propose("first", 8)
	s.untilTraining()
	fail := func() {
		t.Helper()
		run := s.runs.states[s.runs.running(delivery.RunTrain)]
		run.Phase, run.Error, run.Ended = delivery.RunFailed, "out of memory", s.now
		s.settle()
		s.want("first", delivery.CheckFailure, "out of memory")
	}
	fail()
	button := delivery.Button{}
	for _, b := range s.details("first", delivery.ContextRelease).Buttons {
		if b.Label == "Run again" {
			button = b
		}
	}
	if button.Order == "" {
		t.Fatal("there is no button")
	}
	s.now = s.now.Add(time.Minute)
	s.forge.permission["reader"] = delivery.PermissionRead
	s.forge.comment(0, "reader", button.Order)
	s.settle()
	s.want("first", delivery.CheckFailure, "out of memory")
	s.forge.comment(0, "maintainer", button.Order)
	s.now = s.now.Add(time.Second)
	s.wake()
	s.untilTraining()
	fail() // the same press tries it no second time
	s.quiet()
	s.now = s.now.Add(time.Minute)
	s.forge.comment(0, "maintainer", button.Order)
	s.now = s.now.Add(time.Second)
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	if len(s.details("first", delivery.ContextRelease).Buttons) != 0 {
		t.Error("the button stays")
	}
}
