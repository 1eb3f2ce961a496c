package reconciler

import (
	"context"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// changedDatasets are the datasets whose files have changed.
type changedDatasets map[string]bool

func (c changedDatasets) Changed(_ context.Context, run delivery.DataRun, folders map[string]delivery.Digest) string {
	if name := run.Dataset.String(); c[name] && folders[name] != "" {
		return name
	}
	return ""
}

// A source that has another dataset at each look is not downloaded and trained on at each look.
func TestDatasetThatAlwaysChanges(t *testing.T) {
	s, _ := begun(t)
	s.restart(func(r *Reconciler) { r.Datasets = changedDatasets{"dir:shapes": true} })
	s.propose("first", 8)
	s.settle()
	key := delivery.Digest("")
	for k, run := range s.runs.states {
		if run.Spec.Kind == delivery.RunData {
			key = k
		}
	}
	repeats, end := 0, s.now.Add(24*time.Hour)
	for s.now.Before(end) {
		if err := s.loop.repeatChanged(t.Context(), func(do func() error) error { return do() }); err != nil {
			t.Fatal(err)
		}
		if s.runs.states[key] == nil {
			repeats++
		}
		s.now = s.now.Add(datasetPoll)
		s.loop.turn.Soon("the dataset has changed")
		s.settle()
	}
	if repeats < 5 || repeats > 20 {
		t.Errorf("it was checked %d times in a day", repeats)
	}
}

// A dataset that changes while the server runs is checked again, but not while a training reads it.
func TestDatasetChanges(t *testing.T) {
	s, _ := begun(t)
	changed := changedDatasets{}
	s.restart(func(r *Reconciler) { r.Datasets = changed })
	look := func() {
		t.Helper()
		if err := s.loop.repeatChanged(t.Context(), func(do func() error) error { return do() }); err != nil {
			t.Fatal(err)
		}
		s.loop.turn.Soon("a command asked for something")
	}
	s.propose("first", 8)
	s.untilTraining()
	data := s.runs.states[s.runs.running(delivery.RunTrain)].Spec.Train.Data
	began := s.runs.states[data].Started
	changed["dir:shapes"] = true
	s.turn()
	look()
	if s.runs.states[data] == nil {
		t.Fatal("the images were taken from under a training")
	}
	s.settle()
	look()
	if s.runs.states[data] != nil {
		t.Fatal("the change was not noticed")
	}
	clear(changed)
	s.settle()
	look()
	if again := s.runs.states[data]; again == nil || !again.Started.After(began) {
		t.Errorf("it was not checked again: %+v", again)
	}
	s.want("first", delivery.CheckSuccess, "version 1")
}
