package edge

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

var (
	noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	one  = delivery.Target{Version: 1, Bundle: delivery.Sum([]byte("1"))}
	two  = delivery.Target{Version: 2, Bundle: delivery.Sum([]byte("2"))}
	tri  = delivery.Target{Version: 3, Bundle: delivery.Sum([]byte("3"))}
)

func doc(version int64, release delivery.Target, previous *delivery.Target, share float64) *delivery.Desired {
	return &delivery.Desired{Ring: "north", Version: version, Release: release, Previous: previous, Share: share,
		Soak: delivery.Duration(time.Minute), Expires: noon.Add(time.Hour)}
}

func TestMake(t *testing.T) {
	good := func(targets ...delivery.Target) (list []delivery.Digest) {
		for _, t := range targets {
			list = append(list, t.Bundle)
		}
		return list
	}
	onOne := State{Slot: "a", Bundle: one.Bundle, Release: 1, Good: good(one)}
	onTwo := State{Slot: "b", Bundle: two.Bundle, Release: 2, Tries: 1, Good: good(one)} // soaking
	both := map[string]Slot{"a": {Bundle: one.Bundle}, "b": {Bundle: two.Bundle}}
	with := func(s State, change func(*State)) State { s = s.clone(); change(&s); return s }

	for _, c := range []struct {
		name  string
		w     World
		want  Step
		phase delivery.DevicePhase
		until time.Time
	}{
		{"a new device", World{}, Step{Do: Idle}, delivery.DeviceIdle, time.Time{}},
		{"a first document", World{Desired: doc(1, one, nil, 1)}, Step{Fetch, "a", one}, delivery.DeviceDownloading,
			time.Time{}},
		{"not in the wave, no previous release", World{Desired: doc(1, one, nil, 0)}, Step{Do: Idle},
			delivery.DeviceIdle, time.Time{}},
		{"not in the wave", World{Desired: doc(1, two, &one, 0)}, Step{Fetch, "a", one}, delivery.DeviceDownloading,
			time.Time{}},
		{"for other devices", World{Desired: &delivery.Desired{Release: one, Share: 1,
			Match: map[string]string{"site": "south"}, Expires: noon.Add(1)},
			Labels: map[string]string{"site": "north"}},
			Step{Do: Idle}, delivery.DeviceIdle, time.Time{}},
		{"downloaded", World{Desired: doc(1, one, nil, 1), Slots: map[string]Slot{"a": {Bundle: one.Bundle}}},
			Step{Switch, "a", one}, delivery.DeviceStarting, time.Time{}},
		{"the download is delayed after a failure", World{Desired: doc(1, one, nil, 1),
			Fetch: Fetching{Bundle: one.Bundle,
				NotBefore: noon.Add(time.Minute)}}, Step{Do: Idle}, delivery.DeviceDownloading, noon.Add(time.Minute)},
		{"a failed download of another bundle delays nothing", World{Desired: doc(1, one, nil, 1),
			Fetch: Fetching{Bundle: two.Bundle,
				NotBefore: noon.Add(time.Minute)}}, Step{Fetch, "a", one}, delivery.DeviceDownloading, time.Time{}},
		{"offline start", World{State: onOne, Slots: both}, Step{Start, "a", one}, delivery.DeviceStarting,
			time.Time{}},
		{"the wanted bundle serves", World{State: onOne, Slots: both, Serving: true, Desired: doc(1, one, nil, 1)},
			Step{Do: Idle},
			delivery.DeviceHealthy, time.Time{}},
		{"a release that a slot has", World{State: onOne, Slots: both, Serving: true, Desired: doc(2, two, &one, 1)},
			Step{Switch, "b", two}, delivery.DeviceStarting, time.Time{}},
		{"a release that no slot has", World{State: onOne, Slots: both, Serving: true, Desired: doc(2, tri, &one, 1)},
			Step{Fetch, "b", tri}, delivery.DeviceDownloading, time.Time{}},
		{"expired", World{State: onOne, Slots: both, Serving: true, Desired: doc(2, two, &one, 1),
			At: noon.Add(time.Hour)}, Step{Do: Idle}, delivery.DeviceHealthy, time.Time{}},
		{"expired, and the detector is to be started", World{State: onOne, Slots: both, Desired: doc(2, one, nil, 1),
			At: noon.Add(time.Hour)}, Step{Start, "a", one}, delivery.DeviceStarting, time.Time{}},
		{"the same bundle under another version", World{State: onOne, Slots: both, Serving: true,
			Desired: doc(2, delivery.Target{Version: 9, Bundle: one.Bundle}, nil, 1)},
			Step{Do: Relabel, Target: delivery.Target{Version: 9, Bundle: one.Bundle}}, delivery.DeviceHealthy,
			time.Time{}},
		{"soaking", World{State: onTwo, Slots: both, Serving: true, Desired: doc(2, two, nil, 1),
			Soaked: 20 * time.Second}, Step{Do: Idle}, delivery.DeviceSoaking, time.Time{}},
		{"soaked", World{State: onTwo, Slots: both, Serving: true, Desired: doc(2, two, nil, 1), Soaked: time.Minute},
			Step{Do: MarkGood}, delivery.DeviceSoaking, time.Time{}},
		{"rollback during the soak", World{State: onTwo, Slots: both, Serving: true, Desired: doc(3, one, nil, 1)},
			Step{Switch, "a", one}, delivery.DeviceStarting, time.Time{}},
		{"next release during the soak: the good bundle is kept", World{State: onTwo, Slots: both, Serving: true,
			Desired: doc(3, tri, nil, 1)}, Step{Switch, "a", delivery.Target{Bundle: one.Bundle}},
			delivery.DeviceDownloading, time.Time{}},
		{"next release during the soak, no good bundle", World{State: with(onTwo, func(s *State) { s.Good = nil }),
			Slots:   both,
			Serving: true, Desired: doc(3, tri, nil, 1)}, Step{Fetch, "a", tri}, delivery.DeviceDownloading,
			time.Time{}},
		{"it crashed in its soak", World{State: onTwo, Slots: map[string]Slot{"a": both["a"], "b": {Bundle: two.Bundle,
			Crashes: 1}}, Trouble: "crashed", Desired: doc(2, two, nil, 1)},
			Step{FallBack, "a", delivery.Target{Bundle: one.Bundle}}, delivery.DeviceStarting, time.Time{}},
		{"it crashed in its soak, no good bundle", World{State: with(onTwo, func(s *State) { s.Good = nil }),
			Slots: map[string]Slot{"b": {Bundle: two.Bundle, Crashes: 1}}, Desired: doc(2, two, nil, 1)},
			Step{Do: GiveUp}, delivery.DeviceIdle, time.Time{}},
		{"the device went down in its soak", World{State: onTwo, Slots: both, Desired: doc(2, two, nil, 1)},
			Step{Start, "b", two}, delivery.DeviceStarting, time.Time{}},
		{"the device went down three times", World{State: with(onTwo, func(s *State) { s.Tries = 3 }), Slots: both,
			Desired: doc(2, two, nil,
				1)}, Step{FallBack, "a", delivery.Target{Bundle: one.Bundle}}, delivery.DeviceStarting, time.Time{}},
		{"the third start is in progress", World{State: with(onTwo, func(s *State) { s.Tries = 3 }), Slots: both,
			Desired: doc(2, two, nil, 1), Starting: true}, Step{Start, "b", two}, delivery.DeviceStarting, time.Time{}},
		{"it failed under this document", World{State: with(onOne, func(s *State) {
			s.recordFailure(two.Bundle, 2, "x")
		}),
			Slots:   both,
			Serving: true, Desired: doc(2, two, nil, 1)}, Step{Do: Idle}, delivery.DeviceFailed, time.Time{}},
		{"it failed under an earlier document", World{State: with(onOne, func(s *State) {
			s.recordFailure(two.Bundle, 2, "x")
		}), Slots: both, Serving: true, Desired: doc(3, two, nil, 1)}, Step{Switch, "b", two}, delivery.DeviceStarting,
			time.Time{}},
		{"first crash of a good bundle", World{State: onOne, Slots: map[string]Slot{"a": {Bundle: one.Bundle,
			Crashes:   1,
			NotBefore: noon.Add(1)}}}, Step{Start, "a", one}, delivery.DeviceStarting, time.Time{}},
		{"second crash of the only good bundle", World{State: onOne, Slots: map[string]Slot{"a": {Bundle: one.Bundle,
			Crashes: 2, NotBefore: noon.Add(time.Second)}}}, Step{Do: Idle}, delivery.DeviceStarting,
			noon.Add(time.Second)},
		{"second crash of a good bundle, another one is good", World{State: with(onOne, func(s *State) {
			s.Good = good(two, one)
		}), Slots: map[string]Slot{"a": {Bundle: one.Bundle, Crashes: 2, NotBefore: noon.Add(time.Second)},
			"b": {Bundle: two.Bundle}}},
			Step{FallBack, "b", delivery.Target{Bundle: two.Bundle}}, delivery.DeviceStarting, time.Time{}},
		{"two good bundles that crash: no fallback to one that crashes too",
			World{State: with(onOne, func(s *State) { s.Good = good(two, one) }),
				Slots: map[string]Slot{"a": {Bundle: one.Bundle, Crashes: 2}, "b": {Bundle: two.Bundle, Crashes: 2,
					NotBefore: noon.Add(time.Second)}}},
			Step{Start, "a", one}, delivery.DeviceStarting, time.Time{}},
		{"the fallback does not start", World{State: onTwo, Slots: map[string]Slot{"a": {Bundle: one.Bundle, Crashes: 1,
			NotBefore: noon.Add(time.Second)}, "b": {Bundle: two.Bundle, Crashes: 1}}, Trouble: "x"}, Step{Do: Idle},
			delivery.DeviceStarting, noon.Add(time.Second)},
		{"its files are missing", World{State: onOne, Slots: map[string]Slot{"b": both["b"]}, Desired: doc(1, one, nil,
			1)}, Step{Do: Forget}, delivery.DeviceIdle, time.Time{}},
		{"no pointer, and a slot has a good bundle", World{State: State{Good: good(one)},
			Slots: map[string]Slot{"a": both["a"]}, Desired: doc(1, two, nil, 1)}, Step{Fetch, "b", two},
			delivery.DeviceDownloading, time.Time{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.w.At.IsZero() {
				c.w.At = noon
			}
			p := Make(c.w)
			if p.Step != c.want || p.Phase != c.phase || !p.Until.Equal(c.until) {
				t.Errorf("got %+v\nwant %+v, phase %s, until %v", p, c.want, c.phase, c.until)
			}
		})
	}
}

// TestPlanInvariants checks the invariants of plans on random devices on which anything may fail at any time.
func TestPlanInvariants(t *testing.T) {
	targets := []delivery.Target{one, two, tri}
	for seed := range uint64(1000) {
		rng := rand.New(rand.NewPCG(seed, 2))
		w := World{At: noon, Device: fmt.Sprint("d", seed), Slots: map[string]Slot{}, State: State{}.clone()}
		bad := map[delivery.Digest]bool{}
		var version int64
		for turn := range 200 {
			if rng.IntN(6) == 0 {
				version++
				previous := targets[rng.IntN(3)]
				w.Desired = doc(version, targets[rng.IntN(3)], &previous, float64(rng.IntN(3))/2)
				w.Desired.Expires = w.At.Add(time.Duration(rng.IntN(600)) * time.Second)
				bad = map[delivery.Digest]bool{}
			}
			w.At = w.At.Add(time.Duration(rng.IntN(20)) * time.Second)
			if w.Serving {
				w.Soaked += time.Duration(rng.IntN(40)) * time.Second
			}
			if w.Serving && rng.IntN(8) == 0 { // it crashes
				w.Serving, w.Trouble = false, "crash"
				s := w.Slots[w.State.Slot]
				s.Crashes++
				s.NotBefore = w.At.Add(time.Duration(rng.IntN(30)) * time.Second)
				w.Slots[w.State.Slot] = s
			}
			if rng.IntN(15) == 0 { // the agent is killed
				w.Serving, w.Trouble, w.Soaked = false, "", 0
				for k, s := range w.Slots {
					w.Slots[k] = Slot{Bundle: s.Bundle}
				}
			}
			p := Make(w)
			fail := func(format string, args ...any) {
				t.Helper()
				t.Fatalf("seed %d, turn %d: %s\nplan %+v\nworld %+v\ndesired %+v", seed, turn,
					fmt.Sprintf(format, args...), p, w, w.Desired)
			}
			installs := p.Do == Fetch || p.Do == Switch && w.Serving && !w.good(p.Target.Bundle)
			switch {
			case p.Slot != "" && p.Slot == w.State.Slot && p.Do != Start:
				fail("writes the serving slot")
			case p.Do == Fetch && w.Serving && !w.servingIsGood() && w.good(w.Slots[p.Slot].Bundle):
				fail("overwrites the only good bundle")
			case installs && !w.At.Before(w.Desired.Expires):
				fail("installs although the document has expired")
			case installs && bad[p.Target.Bundle]:
				fail("retries a bundle that failed under this document")
			case (p.Do == Switch || p.Do == FallBack) && w.Slots[p.Slot].Bundle != p.Target.Bundle:
				fail("switches to a bundle that the slot does not have")
			case p.Do == FallBack && !w.good(p.Target.Bundle):
				fail("falls back to a bundle that was never good")
			case p.Do == MarkGood && (!w.Serving || w.Soaked < time.Minute):
				fail("marks a bundle as good before the end of its soak")
			case p.Do == Idle && !p.Until.IsZero() && !p.Until.After(w.At):
				fail("idle until a time that has passed")
			case p.Phase == delivery.DeviceHealthy && (!w.Serving || !w.servingIsGood()):
				fail("phase is healthy, but no good bundle serves")
			case p.Phase == delivery.DeviceFailed && len(w.State.Failures) == 0:
				fail("phase is failed, but no failure is recorded")
			}
			apply(rng, &w, p, bad)
		}
	}
}

// apply executes a step on the world as an agent would. Some steps fail at random.
func apply(rng *rand.Rand, w *World, p Plan, bad map[delivery.Digest]bool) {
	broken := rng.IntN(5) == 0
	s := w.State.clone()
	switch p.Do {
	case Fetch:
		w.Slots[p.Slot] = Slot{}
		if broken {
			s.recordFailure(p.Target.Bundle, w.version(), "download")
			bad[p.Target.Bundle] = true
		} else {
			w.Slots[p.Slot] = Slot{Bundle: p.Target.Bundle}
		}
	case Start:
		if !w.servingIsGood() {
			s.Tries++
		}
		if broken {
			slot := w.Slots[p.Slot]
			slot.Crashes++
			w.Slots[p.Slot] = slot
			w.Trouble = "start"
		} else {
			w.Serving, w.Soaked = true, 0
		}
	case Switch:
		if broken {
			s.recordFailure(p.Target.Bundle, w.version(), "start")
			bad[p.Target.Bundle] = true
		} else {
			s.serve(p.Slot, p.Target)
			w.Serving, w.Soaked = true, 0
			w.Slots[p.Slot] = Slot{Bundle: p.Target.Bundle}
		}
	case FallBack:
		if broken {
			slot := w.Slots[p.Slot]
			slot.Crashes++
			slot.NotBefore = w.At.Add(time.Second)
			w.Slots[p.Slot] = slot
		} else {
			s.recordFailure(s.Bundle, w.version(), p.Why)
			bad[s.failure("").Bundle] = true
			s.serve(p.Slot, p.Target)
			w.Serving, w.Soaked = true, 0
			w.Slots[p.Slot] = Slot{Bundle: p.Target.Bundle}
		}
	case GiveUp:
		s.recordFailure(s.Bundle, w.version(), p.Why)
		bad[s.failure("").Bundle] = true
		s.Slot, s.Bundle, s.Release, s.Tries = "", "", 0, 0
	case Forget:
		s.Slot, s.Bundle, s.Release, s.Tries = "", "", 0, 0
	case MarkGood:
		s.markGood()
	case Relabel:
		s.Release = p.Target.Version
	}
	w.State = s
}
