package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/cloud"
	"github.com/autonomos/aob/reconciler/delivery"
)

func TestLivesOfRuns(t *testing.T) {
	hex := strings.Repeat("0123456789abcdef", 4)
	states := func(p delivery.RunPhase) []delivery.RunState {
		spec := delivery.RunSpec{Kind: delivery.RunTrain, Key: delivery.Digest("sha256:" + hex)}
		return []delivery.RunState{{Spec: spec, Phase: p}}
	}
	name := "train-" + hex[:32]
	for phase, want := range map[delivery.RunPhase]cloud.Life{delivery.RunUnknown: cloud.RunAlive,
		delivery.RunRunning: cloud.RunAlive, delivery.RunDied: cloud.RunAlive, delivery.RunDone: cloud.RunOver,
		delivery.RunFailed: cloud.RunOver, delivery.RunStopped: cloud.RunOver} {
		if got := lives(states(phase), nil)(name); got != want {
			t.Errorf("%s: %d, want %d", phase, got, want)
		}
	}
	if got := lives(nil, nil)(name); got != cloud.RunGone {
		t.Errorf("without the run: %d", got)
	}
	if got := lives(nil, errors.New("x"))(name); got != cloud.RunUnread {
		t.Errorf("while a run cannot be read: %d", got)
	}
}
