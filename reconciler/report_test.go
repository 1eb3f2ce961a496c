package reconciler

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Whatever is killed in a rollout, main's commit says in the end that it is over.
func TestRolloutIsToldWheneverKilled(t *testing.T) {
	for point := 1; ; point++ {
		s, _ := begun(t)
		s.propose("first", 8)
		s.settle()
		merged := s.merge("first")
		s.crashIn = point
		s.settle()
		if c := s.check(merged, delivery.ContextRollout+"demo"); c.State != delivery.CheckSuccess {
			t.Errorf("killed at effect %d: the rollout's check is %+v", point, c)
		}
		if s.crashIn > 0 {
			return // it was over before
		}
	}
}

// A ledger that is lost takes with it what was said. A rollout that was told of
// is told of again, also where it is over at the first look; a commit that moves
// no fleet still has no rollout on it.
func TestRolloutIsToldWithoutTheLedger(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.settle()
	merged := s.merge("first")
	s.settle()
	s.forge.statuses[merged][delivery.ContextRollout+"demo"] = delivery.Check{Context: delivery.ContextRollout + "demo",
		State: delivery.CheckPending}
	s.ledger = newSimLedger(s)
	s.restart()
	s.settle()
	if c := s.check(merged, delivery.ContextRollout+"demo"); c.State != delivery.CheckSuccess {
		t.Errorf("without the ledger the rollout's check is %+v", c)
	}
	words := s.repo.commit("main", merged, s.now, map[string]string{"models/README.md": "words"})
	s.settle()
	s.restart()
	s.settle()
	if c, told := s.forge.statuses[words][delivery.ContextRollout+"demo"]; told {
		t.Errorf("a commit that moves no fleet has %+v", c)
	}
}

// Progress that comes while other progress is being sent is said afterwards, also where nothing else happens.
func TestProgressBehindProgressIsSaid(t *testing.T) {
	s, main := begun(t)
	key := s.loop.statusKey(main, delivery.ContextTrain)
	s.loop.outbox.put(job{key: key, lane: "status/" + main, content: "pending waits",
		send: func(context.Context) error { return nil }})
	if j, _ := s.loop.outbox.begin(callJob); j == nil {
		t.Fatal("nothing is sent")
	}
	for text, wakes := range map[string]bool{"waits": false, "waits for a go": true} {
		s.loop.wakeNext = time.Time{}
		if err := s.loop.sayCheck(t.Context(), main, delivery.Check{Context: delivery.ContextTrain,
			State: delivery.CheckPending, Description: text}); err != nil {
			t.Fatal(err)
		}
		if woken := !s.loop.wakeNext.IsZero(); woken != wakes {
			t.Errorf("%q: the loop looks again: %v, want %v", text, woken, wakes)
		}
	}
}

// What a device says of itself stands in the rollout's status. A device that says something else each second makes no
// status each second; how the rollout stands is said at once.
func TestDevicesWordsAreSaidNowAndThen(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	context := delivery.ContextRollout + "demo"
	said := map[string]bool{}
	s.loop.Progress = 5 * time.Second
	device := &s.fleet.devices[0]
	for i := range 200 {
		device.Report.Phase, device.Report.Held = delivery.DeviceDownloading, fmt.Sprintf("word %d", i)
		device.Seen = s.now
		s.wake()
		s.turn()
		said[s.check(s.main(), context).Description] = true
	}
	if len(said) > 30 {
		t.Errorf("%d statuses in 200 seconds", len(said))
	}
}
