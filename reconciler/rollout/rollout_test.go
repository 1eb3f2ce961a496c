package rollout_test

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/rollout"
)

var (
	noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC) // a Tuesday
	v1   = delivery.Target{Version: 1, Bundle: delivery.Sum([]byte("one"))}
	v2   = delivery.Target{Version: 2, Bundle: delivery.Sum([]byte("two"))}
	v3   = delivery.Target{Version: 3, Bundle: delivery.Sum([]byte("three"))}
)

func fleet(waves ...string) delivery.Fleet {
	f := delivery.Fleet{Name: "north", Runs: "pallets", Soak: delivery.Duration(30 * time.Minute)}
	for _, text := range waves {
		var w delivery.Wave
		if err := w.UnmarshalText([]byte(text)); err != nil {
			panic(err)
		}
		f.Waves = append(f.Waves, w)
	}
	return f
}

// device is a device of fleet north whose report was received at noon.
func device(id string, phase delivery.DevicePhase, bundle delivery.Target) delivery.Device {
	return delivery.Device{
		Report: delivery.Report{Device: id, Ring: "north", Phase: phase, Bundle: bundle.Bundle, Release: bundle.Version,
			Desired: 100},
		LastHeard: noon,
	}
}

func broken(id string, target, runs delivery.Target, why string) delivery.Device {
	d := device(id, delivery.DeviceFailed, runs)
	d.Report.Failed, d.Report.Why = target.Bundle, why
	return d
}

func all(n int, phase delivery.DevicePhase, bundle delivery.Target) []delivery.Device {
	var list []delivery.Device
	for i := range n {
		list = append(list, device(fmt.Sprintf("d%02d", i), phase, bundle))
	}
	return list
}

// inWave counts the devices that get the target.
func inWave(d rollout.Decision, devices []delivery.Device) int {
	n := 0
	for _, x := range devices {
		if d.Desired.InWave(x.Report.Device) {
			n++
		}
	}
	return n
}

// obey makes each device run the release that the document gives it, healthily.
func obey(doc delivery.Desired, devices []delivery.Device, at time.Time) {
	for i := range devices {
		r := &devices[i].Report
		devices[i].LastHeard = at
		switch want := doc.Release; {
		case doc.InWave(r.Device):
			r.Phase, r.Bundle = delivery.DeviceHealthy, want.Bundle
		case doc.Previous != nil:
			r.Phase, r.Bundle = delivery.DeviceHealthy, doc.Previous.Bundle
		}
	}
}

func TestWavesInOrder(t *testing.T) {
	in := rollout.Input{Fleet: fleet("1", "25%", "100%"), Target: v2, Previous: &v1,
		Devices: all(12, delivery.DeviceHealthy, v1), At: noon}
	var reached []int
	for range 5 {
		d := rollout.Next(in)
		if d.Desired == nil || d.Abort != nil {
			t.Fatalf("unexpected: %s", d)
		}
		reached = append(reached, inWave(d, in.Devices))
		if again := rollout.Next(in); gocmp.Diff(d, again) != "" {
			t.Fatalf("not deterministic:  %s", gocmp.Diff(d, again))
		}
		in.State = d.State
		in.Published = d.Desired
		in.At = in.At.Add(time.Minute)
		obey(*d.Desired, in.Devices, in.At)
		if d.Done {
			break
		}
	}
	if diff := gocmp.Diff([]int{1, 3, 12, 12}, reached); diff != "" {
		t.Errorf("devices in the wave, turn by turn (-want +got):\n%s", diff)
	}
	if s := in.State.Standing(); s.Bundle != v2.Bundle || s.HealthySince.IsZero() {
		t.Errorf("standing after the end: %+v", s)
	}
}

func TestNext(t *testing.T) {
	paused := func(f delivery.Fleet) delivery.Fleet { f.Paused = true; return f }
	tolerant := func(f delivery.Fleet, p delivery.Share) delivery.Fleet {
		f.Budget.Failures = &delivery.Failures{Tolerable: p}
		return f
	}
	night := func(f delivery.Fleet) delivery.Fleet {
		f.Window = &delivery.Window{From: "01:00", To: "05:00", Zone: "Europe/Berlin"}
		return f
	}
	after := func(f delivery.Fleet) delivery.Fleet {
		f.After = &delivery.After{Fleet: "staging", Healthy: delivery.Duration(24 * time.Hour)}
		return f
	}
	heardAgo := func(d delivery.Device, ago time.Duration) delivery.Device { d.LastHeard = noon.Add(-ago); return d }
	since := func(s rollout.State, version int64) rollout.State { s.Since = version; return s }
	held := func(d delivery.Device, why string) delivery.Device { d.Report.Blocked = why; return d }
	skewed := func(d delivery.Device, skew time.Duration) delivery.Device { d.Skew = skew; return d }
	twice := func(d delivery.Device) delivery.Device { d.TwoPlacesAt = noon; return d }
	ignored := func(d delivery.Device) delivery.Device { d.Ignored = "never offered"; return d }
	begun := rollout.State{Target: v2, Base: &v1, Began: noon, Started: noon}
	last := begun
	last.Wave, last.Share = 1, 1
	done := last
	done.Done, done.Healthy = true, noon
	doc := func(release delivery.Target, previous *delivery.Target, share float64) *delivery.Desired {
		return &delivery.Desired{Ring: "north", Model: "pallets", Version: 7, Release: release, Previous: previous,
			Share: share,
			Salt:  rollout.Salt("north", release.Bundle), Expires: noon}
	}

	for _, c := range []struct {
		name string
		in   rollout.Input

		release  int // version published; 0: nothing is
		previous int // published for the others; 0: none
		devices  int // of in.Devices that get the release
		done     bool
		abort    string // part of the reason
		hold     string // part of it
		wake     time.Time
	}{
		{name: "no device", in: rollout.Input{Fleet: fleet("1", "100%"), Target: v1},
			release: 1, hold: "devices.none"},
		{name: "no device known: a lost registry takes the release from no device",
			in: rollout.Input{Fleet: fleet("1", "100%"),
				Target: v2, Previous: &v1},
			release: 2, previous: 0, hold: "devices.none"},
		{name: "first release", in: rollout.Input{Fleet: fleet("1", "100%"), Target: v1,
			Devices: all(3, delivery.DeviceIdle, delivery.Target{})},
			release: 1, devices: 1, hold: "devices.awaited{count=1}", wake: noon.Add(rollout.DefaultDeadline +
				time.Second)},
		{name: "fewer devices than the wave", in: rollout.Input{Fleet: fleet("5", "100%"), Target: v2, Previous: &v1,
			Devices: all(3, delivery.DeviceHealthy, v1)},
			release: 2, previous: 1, devices: 3, hold: "devices.awaited{count=3}"},
		{name: "devices of another ring are ignored", in: rollout.Input{Fleet: fleet("100%"), Target: v1,
			Devices: []delivery.Device{{Report: delivery.Report{Device: "x", Ring: "south"}, LastHeard: noon}}},
			release: 1, devices: 1, hold: "devices.none"},
		{name: "all healthy in the first decision is done", in: rollout.Input{Fleet: fleet("1", "100%"), Target: v2,
			Previous: &v1, Devices: all(3, delivery.DeviceHealthy, v2)},
			release: 2, previous: 1, devices: 3, done: true},
		{name: "a failure aborts", in: rollout.Input{Fleet: fleet("100%"), Target: v2, State: begun,
			Devices: append(all(2, delivery.DeviceHealthy, v2), broken("x", v2, v1, "golden differs"))},
			release: 1, devices: 3, abort: `{device=x [device.says{text="golden differs"}]}`},
		{name: "a failure of the first release: devices keep what they run", in: rollout.Input{Fleet: fleet("100%"),
			Target: v1, Devices: []delivery.Device{broken("x", v1, delivery.Target{}, "no")}},
			release: 1, devices: 0, abort: "{device=x [device.says{text=no}]}"},
		{name: "a failure of another bundle does not count", in: rollout.Input{Fleet: fleet("100%"), Target: v2,
			State:   begun,
			Devices: []delivery.Device{broken("x", v3, v1, "no")}},
			release: 2, previous: 1, devices: 1, hold: "devices.awaited{count=1}"},
		{name: "a failure from before the abort was lifted does not count", in: rollout.Input{Fleet: fleet("100%"),
			Target:    v2,
			Published: &delivery.Desired{Version: 100, Release: v1, Share: 1},
			Devices:   []delivery.Device{broken("x", v2, v1, "no")}},
			release: 2, previous: 1, devices: 1, hold: "devices.awaited{count=1}"},
		{name: "tolerated", in: rollout.Input{Fleet: tolerant(fleet("100%"), 0.25), Target: v2, State: begun,
			Devices: append(all(3, delivery.DeviceHealthy, v2), broken("x", v2, v1, "no"))},
			release: 2, previous: 1, devices: 4, done: true},
		{name: "one more than tolerated", in: rollout.Input{Fleet: tolerant(fleet("100%"), 0.24), Target: v2,
			State: begun, Devices: append(all(3, delivery.DeviceHealthy, v2), broken("x", v2, v1, "no"))},
			release: 1, devices: 4, abort: "devices.failed{count=1 "},
		{name: "a wave without a healthy device never passes", in: rollout.Input{Fleet: tolerant(fleet("100%"), 1),
			Target: v2,
			State:  begun, Devices: []delivery.Device{broken("x", v2, v1, "no")}},
			release: 2, previous: 1, devices: 1, hold: "devices.noneHealthy"},
		{name: "silence aborts", in: rollout.Input{Fleet: fleet("100%"), Target: v2, State: begun,
			At: noon.Add(16 * time.Minute), Devices: []delivery.Device{
				device("x", delivery.DeviceSoaking, v2)}},
			release: 1, devices: 1,
			abort: "devices.silent{count=1 [of.device{device=x [device.silent{at=2026-11-24T12:00:00Z}]}]}"},
		{name: "silence since before the wave does not abort", in: rollout.Input{Fleet: fleet("100%"), Target: v2,
			State: begun, At: noon.Add(16 * time.Minute), Devices: []delivery.Device{
				heardAgo(device("gone", delivery.DeviceHealthy, v1), time.Hour),
				heardAgo(device("x", delivery.DeviceHealthy, v2),
					-16*time.Minute)}},
			release: 2, previous: 1, devices: 2, done: true},
		{name: "silence of a device that never received the document does not abort",
			in: rollout.Input{Fleet: fleet("1", "100%"),
				Target: v2, State: since(begun, 100), At: noon.Add(16 * time.Minute), Devices: []delivery.Device{
					device("ghost", delivery.DeviceHealthy, v1), heardAgo(device("x", delivery.DeviceHealthy, v1),
						-16*time.Minute)}},
			release: 2, previous: 1, devices: 1, hold: "devices.awaited{count=1}"},
		{name: "silence of a device that could not download does not abort",
			in: rollout.Input{Fleet: fleet("1", "100%"),
				Target: v2, State: begun, At: noon.Add(16 * time.Minute), Devices: []delivery.Device{
					held(device("x", delivery.DeviceDownloading, v1),
						"cannot download: the answer is another content")}},
			release: 2, previous: 1, devices: 1,
			hold: `devices.held{count=1` +
				` [of.device{device=x [device.says{text="cannot download: the answer is another content"}]}]}`},
		{name: "a device that cannot download holds the wave without limit", in: rollout.Input{Fleet: fleet("100%"),
			Target: v2, State: begun, At: noon.Add(48 * time.Hour), Devices: []delivery.Device{
				heardAgo(held(device("x", delivery.DeviceDownloading, v1), "cannot download: 403"), -48*time.Hour),
				heardAgo(device("y", delivery.DeviceHealthy, v2), -48*time.Hour)}},
			release: 2, previous: 1, devices: 2,
			hold: `devices.held{count=1 [of.device{device=x [device.says{text="cannot download: 403"}]}]}`},
		{name: "a clock that is ahead holds the wave", in: rollout.Input{Fleet: fleet("100%"), Target: v2, State: begun,
			Devices: []delivery.Device{
				skewed(held(device("x", delivery.DeviceHealthy, v1), "the document expired"), 72*time.Hour)}},
			release: 2, previous: 1, devices: 1,
			hold: `{device=x [device.says{text="the document expired"} device.clockAhead{lasts=72h}]}`},
		{name: "a device that reports and does not install is held, not failed", in: rollout.Input{Fleet: fleet("100%"),
			Target: v2, State: begun, At: noon.Add(46 * time.Minute), Devices: []delivery.Device{
				heardAgo(device("x", delivery.DeviceDownloading, v1), -46*time.Minute)}},
			release: 2, previous: 1, devices: 1,
			hold: "{device=x [device.stuck{stage=downloading at=2026-11-24T12:00:00Z}]}"},
		{name: "two installations under one name are not healthy", in: rollout.Input{Fleet: fleet("100%"), Target: v2,
			State: begun, Devices: []delivery.Device{
				twice(device("x", delivery.DeviceHealthy, v2)), device("y", delivery.DeviceHealthy, v2)}},
			release: 2, previous: 1, devices: 2, hold: "{device=x [device.twice]}"},
		{name: "a bundle that the ring was never offered is not healthy", in: rollout.Input{Fleet: fleet("100%"),
			Target: v2, State: begun, Devices: []delivery.Device{
				ignored(device("x", delivery.DeviceHealthy, v2)), device("y", delivery.DeviceHealthy, v2)}},
			release: 2, previous: 1, devices: 2, hold: `{device=x [device.ignored{text="never offered"}]}`},
		{name: "a failure of a bundle that the ring was never offered does not count",
			in: rollout.Input{Fleet: fleet("100%"), Target: v2, State: begun,
				Devices: []delivery.Device{
					ignored(broken("x", v2, v1, "no")), device("y", delivery.DeviceHealthy, v2)}},
			release: 2, previous: 1, devices: 2, hold: `{device=x [device.ignored{text="never offered"}]}`},
		{name: "a failure while the server's store is damaged does not count", in: rollout.Input{Fleet: fleet("100%"),
			Target: v2, State: begun, Untrusted: delivery.Fact{Code: code.FailureChecked}, Devices: []delivery.Device{
				broken("x", v2, v1, "not an ONNX file"), device("y", delivery.DeviceHealthy, v2)}},
			release: 2, previous: 1, devices: 2,
			hold: `{device=x [device.says{text="not an ONNX file"} device.checked]}`},
		{name: "all away", in: rollout.Input{Fleet: fleet("1", "100%"), Target: v2, Previous: &v1,
			Devices: []delivery.Device{heardAgo(device("x", delivery.DeviceHealthy, v1), time.Hour)}},
			release: 2, previous: 1, hold: "devices.noneHeard{total=1 lasts=15m}"},
		{name: "paused before it began", in: rollout.Input{Fleet: paused(fleet("100%")), Target: v2,
			Published: doc(v1, nil, 1), Devices: all(3, delivery.DeviceHealthy, v1)},
			release: 1, devices: 3, hold: "rollout.paused{fleet=north}"},
		{name: "paused before the first release", in: rollout.Input{Fleet: paused(fleet("100%")), Target: v1},
			hold: "rollout.paused"},
		{name: "paused between waves", in: rollout.Input{Fleet: paused(fleet("3", "100%")), Target: v2, State: begun,
			Devices: all(3, delivery.DeviceHealthy, v2)},
			release: 2, previous: 1, devices: 3, hold: "rollout.paused"},
		{name: "paused, and a device fails", in: rollout.Input{Fleet: paused(fleet("3", "100%")), Target: v2,
			State: begun, Devices: []delivery.Device{broken("x", v2, v1, "no")}},
			release: 1, devices: 1, abort: "{device=x [device.says{text=no}]}"},
		{name: "window closed", in: rollout.Input{Fleet: night(fleet("100%")), Target: v2, Published: doc(v1, nil, 1),
			Devices: all(1, delivery.DeviceHealthy, v1)},
			release: 1, devices: 1,
			hold: "rollout.windowClosed{at=2026-11-25T00:00:00Z}", wake: time.Date(2026, 11, 25, 0, 0, 0, 0,
				time.UTC)},
		{name: "window open", in: rollout.Input{Fleet: night(fleet("100%")), Target: v2, At: time.Date(2026, 11, 24, 3,
			59, 0, 0, time.UTC), Published: doc(v1, nil, 1), Devices: all(1, delivery.DeviceHealthy, v1)},
			release: 2, previous: 1, devices: 1, hold: "devices.awaited{count=1}"},
		{name: "another fleet goes first", in: rollout.Input{Fleet: after(fleet("100%")), Target: v2,
			Published: doc(v1, nil, 1), After: rollout.AfterState{Bundle: v1.Bundle,
				HealthySince: noon.Add(-48 * time.Hour)}},
			release: 1, hold: "rollout.fleetAwaited{version=2 fleet=staging lasts=24h}"},
		{name: "another fleet is not done soaking", in: rollout.Input{Fleet: after(fleet("100%")), Target: v2,
			Published: doc(v1, nil, 1), After: rollout.AfterState{Bundle: v2.Bundle,
				HealthySince: noon.Add(-time.Hour)}},
			release: 1,
			hold:    "rollout.fleetAwaitedUntil{fleet=staging at=2026-11-25T11:00:00Z lasts=24h}",
			wake:    noon.Add(23 * time.Hour)},
		{name: "another fleet is done", in: rollout.Input{Fleet: after(fleet("100%")), Target: v2,
			Published: doc(v1, nil, 1), After: rollout.AfterState{Bundle: v2.Bundle,
				HealthySince: noon.Add(-24 * time.Hour)}, Devices: all(2, delivery.DeviceHealthy, v1)},
			release: 2, previous: 1, devices: 2, hold: "devices.awaited{count=2}"},
		{name: "rollback", in: rollout.Input{Fleet: after(night(fleet("1", "100%"))), Target: v1, Rollback: true,
			State: done, Published: doc(v2, &v1, 1), Devices: all(3, delivery.DeviceHealthy, v2)},
			release: 1, devices: 3, hold: "devices.awaited{count=3}"},
		{name: "rollback is done", in: rollout.Input{Fleet: fleet("1", "100%"), Target: v1,
			State: rollout.State{Target: v1, Rollback: true, Share: 1}, Devices: all(3, delivery.DeviceHealthy, v1)},
			release: 1, devices: 3, done: true},
		{name: "a failing rollback is not aborted", in: rollout.Input{Fleet: fleet("1", "100%"), Target: v1,
			State: rollout.State{Target: v1, Rollback: true, Share: 1}, Devices: append(all(2, delivery.DeviceHealthy,
				v1), broken("x", v1, v2, "disk"))},
			release: 1, devices: 3, hold: "{device=x [device.says{text=disk}]}"},
		{name: "paused holds a rollback too", in: rollout.Input{Fleet: paused(fleet("1", "100%")), Target: v1,
			Rollback: true, State: done, Published: doc(v2, &v1, 1), Devices: all(3, delivery.DeviceHealthy, v2)},
			release: 2, previous: 1, devices: 3, hold: "rollout.paused"},
		{name: "back to the completed release in the middle of a rollout",
			in: rollout.Input{Fleet: night(fleet("1", "100%")), Target: v1, State: begun, Published: doc(v2, &v1,
				0.1), Devices: all(3, delivery.DeviceHealthy, v1)},
			release: 1, devices: 3, done: true},
		{name: "a rollout stays a rollout when its canary has run the bundle",
			in: rollout.Input{Fleet: fleet("3", "100%"), Target: v2, Rollback: true, State: begun,
				Devices: all(4, delivery.DeviceHealthy, v1)},
			release: 2, previous: 1, devices: 3, hold: "devices.awaited{count=3}"},
		{name: "superseded in the middle: the others stay on the completed release",
			in: rollout.Input{Fleet: fleet("1", "100%"), Target: v3, Previous: &v2, State: begun,
				Published: doc(v2, &v1, 0.1), Devices: all(4, delivery.DeviceHealthy, v1)},
			release: 3, previous: 1, devices: 1, hold: "devices.awaited{count=1}"},
		{name: "after a completed rollout", in: rollout.Input{Fleet: fleet("1", "100%"), Target: v3, Previous: &v2,
			State: done, Published: doc(v2, &v1, 1), Devices: all(4, delivery.DeviceHealthy, v2)},
			release: 3, previous: 2, devices: 1, hold: "devices.awaited{count=1}"},
		{name: "state lost in the middle", in: rollout.Input{Fleet: fleet("1", "50%", "100%"), Target: v2,
			Previous: &v1, Published: doc(v2, &v1, 0.9999), Devices: all(4, delivery.DeviceHealthy, v1)},
			release: 2, previous: 1, devices: 4, hold: "devices.awaited{count=4}"},
		{name: "state and registry lost at the end", in: rollout.Input{Fleet: fleet("1", "100%"), Target: v2,
			Previous: &v1, Published: doc(v2, &v1, 1)},
			release: 2, previous: 1, hold: "devices.none"},
		{name: "aborted before", in: rollout.Input{Fleet: fleet("1", "100%"), Target: v2, Previous: &v1,
			Aborted: []delivery.Digest{v2.Bundle}, State: begun, Devices: all(4, delivery.DeviceHealthy, v2)},
			release: 1, devices: 4},
		{name: "aborted, and the release before it too", in: rollout.Input{Fleet: fleet("1", "100%"), Target: v3,
			Previous: &v2, Aborted: []delivery.Digest{v2.Bundle, v3.Bundle}, Devices: all(4, delivery.DeviceIdle, v1)},
			release: 3, devices: 0},
		{name: "a new digest after an abort", in: rollout.Input{Fleet: fleet("1", "100%"), Target: v3, Previous: &v2,
			Aborted: []delivery.Digest{v2.Bundle}, State: rollout.State{Base: &v1}, Published: doc(v1, nil, 1),
			Devices: all(4, delivery.DeviceHealthy, v1)},
			release: 3, previous: 1, devices: 1, hold: "devices.awaited{count=1}"},
		{name: "a device fails after the rollout is done", in: rollout.Input{Fleet: fleet("1", "100%"), Target: v2,
			State:   done,
			Devices: []delivery.Device{broken("x", v2, v1, "crash loop")}},
			release: 2, previous: 1, devices: 1, done: true},
		{name: "a window with an unknown zone", in: rollout.Input{Fleet: func() delivery.Fleet {
			f := night(fleet("100%"))
			f.Window.Zone = "Mars/Olympus"
			return f
		}(), Target: v1}, hold: "Mars/Olympus"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.in.At.IsZero() {
				c.in.At = noon
			}
			d := rollout.Next(c.in)
			if again := rollout.Next(c.in); gocmp.Diff(d, again) != "" {
				t.Errorf("not deterministic:  %s", gocmp.Diff(d, again))
			}
			release, previous, reached := 0, 0, 0
			if d.Desired != nil {
				release, reached = d.Desired.Release.Version, inWave(d, c.in.Devices)
				if d.Desired.Previous != nil {
					previous = d.Desired.Previous.Version
				}
				if d.Desired.Version != 0 || !d.Desired.Expires.IsZero() {
					t.Errorf("Next set the version or the expiry: %+v", d.Desired)
				}
			}
			if release != c.release || previous != c.previous || reached != c.devices {
				t.Errorf("publishes version %d to %d devices and %d to the others, want %d to %d and %d", release,
					reached, previous, c.release, c.devices, c.previous)
			}
			if d.Done != c.done {
				t.Errorf("done is %v", d.Done)
			}
			if (d.Abort != nil) != (c.abort != "") || !strings.Contains(d.Because.String(), c.abort) ||
				d.Abort != nil && d.Abort.Bundle != c.in.Target.Bundle {
				t.Errorf("abort is %+v, as %s, want %s", d.Abort, d.Because, c.abort)
			}
			if hold := fmt.Sprint(d.Hold); (d.Hold != nil) != (c.hold != "") || !strings.Contains(hold, c.hold) {
				t.Errorf("hold is %s, want %s", hold, c.hold)
			}
			if !c.wake.IsZero() && !d.Wake.Equal(c.wake) {
				t.Errorf("wake is %v, want %v", d.Wake, c.wake)
			}
			if t.Failed() {
				t.Logf("decision: %s", d)
			}
		})
	}
}

func TestFirstWaveHasEveryProfile(t *testing.T) {
	f := fleet("1", "100%")
	f.Profiles = map[string]delivery.Profile{"agx-fp16": {Board: "agx"}, "nano-fp16": {Board: "nano"}}
	devices := all(20, delivery.DeviceHealthy, v1)
	for i := range devices {
		devices[i].Report.Labels = map[string]string{"board": []string{"nano", "agx"}[i/19]}
	}
	d := rollout.Next(rollout.Input{Fleet: f, Target: v2, Previous: &v1, Devices: devices, At: noon})
	boards := map[string]bool{}
	for _, x := range devices {
		if d.Desired.InWave(x.Report.Device) {
			boards[x.Report.Labels["board"]] = true
		}
	}
	if !boards["nano"] || !boards["agx"] {
		t.Errorf("the first wave has %v", boards)
	}
}

// boardFleet is a fleet of 100 devices of one board, whose first wave has one device, just after the rollout began.
func boardFleet(t *testing.T, f delivery.Fleet, board string, change func(salt string, devices []delivery.Device)) (
	rollout.Input, rollout.Decision) {
	t.Helper()
	devices := all(100, delivery.DeviceHealthy, v1)
	for i := range devices {
		devices[i].Report.Labels = map[string]string{"board": board}
	}
	in := rollout.Input{Fleet: f, Target: v2, Previous: &v1, At: noon, Devices: devices,
		Published: &delivery.Desired{Ring: "north", Version: 50, Release: v1, Share: 1}}
	if change != nil {
		change(rollout.Next(in).Desired.Salt, devices)
	}
	begun := rollout.Next(in)
	in.State, in.Published, in.At = begun.State, begun.Desired, noon.Add(time.Second)
	return in, begun
}

// byPosition returns the indexes of the devices, sorted by position.
func byPosition(salt string, devices []delivery.Device) []int {
	var order []int
	for i := range devices {
		order = append(order, i)
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Compare(delivery.WavePosition(salt, devices[a].Report.Device),
			delivery.WavePosition(salt, devices[b].Report.Device))
	})
	return order
}

func TestProfileAddsOneDevice(t *testing.T) {
	f := fleet("1", "10%", "100%")
	f.Profiles = map[string]delivery.Profile{"orin": {Board: "orin"}, "rare": {Board: "rare"}, "pi": {Board: "pi"}}
	label := func(d *delivery.Device, board string) { d.Report.Labels = map[string]string{"board": board} }

	t.Run("when the wave begins", func(t *testing.T) {
		in, d := boardFleet(t, f, "orin", func(salt string, devices []delivery.Device) {
			at := byPosition(salt, devices)
			label(&devices[at[98]], "pi")
			label(&devices[at[99]], "rare")
			label(&devices[at[60]], "rare")
		})
		at := byPosition(d.Desired.Salt, in.Devices)
		if n := inWave(d, in.Devices); n != 3 || !d.Desired.InWave(in.Devices[at[60]].Report.Device) {
			t.Errorf("the wave has %d devices, want one of each profile: %s", n, d)
		}
		if d.Wave.Devices != 3 {
			t.Errorf("%d devices are counted", d.Wave.Devices)
		}
		lost := in
		lost.State = rollout.State{}
		if again := rollout.Next(lost); gocmp.Diff(again.Desired, d.Desired) != "" {
			t.Errorf("without the state the document differs: %s", gocmp.Diff(d.Desired, again.Desired))
		}
		// No later wave drops a device.
		for range 6 {
			obey(*in.Published, in.Devices, in.At)
			next := rollout.Next(in)
			for _, x := range in.Devices {
				if in.Published.InWave(x.Report.Device) && !next.Desired.InWave(x.Report.Device) {
					t.Fatalf("%s lost the release: %s", x.Report.Device, next)
				}
			}
			in.State, in.Published, in.At = next.State, next.Desired, in.At.Add(time.Minute)
		}
		if !in.State.Done || len(in.Published.Also) > 0 {
			t.Errorf("the rollout ends with %+v", in.State)
		}
	})

	t.Run("a label that changes adds that device alone", func(t *testing.T) {
		for _, place := range []int{1, 50, 99} {
			in, d := boardFleet(t, f, "orin", nil)
			x := &in.Devices[byPosition(d.Desired.Salt, in.Devices)[place]]
			label(x, "rare")
			next := rollout.Next(in)
			if n := inWave(next, in.Devices); n != 2 || !next.Desired.InWave(x.Report.Device) {
				t.Errorf("place %d: the wave has %d devices: %s", place, n, next)
			}
			// More changes of its label add no other device.
			for _, board := range []string{"pi", "none", "rare", "orin", "pi"} {
				in.State, in.Published, in.At = next.State, next.Desired, in.At.Add(time.Second)
				label(x, board)
				next = rollout.Next(in)
			}
			if n := inWave(next, in.Devices); n != 2 {
				t.Errorf("place %d: the wave has %d devices after more labels: %s", place, n, next)
			}
		}
	})

	t.Run("a removed label adds the next device of the profile", func(t *testing.T) {
		in, d := boardFleet(t, f, "pi", func(salt string, devices []delivery.Device) {
			at := byPosition(salt, devices)
			label(&devices[at[8]], "orin")
			label(&devices[at[90]], "orin")
		})
		at := byPosition(d.Desired.Salt, in.Devices)
		if n := inWave(d, in.Devices); n != 2 {
			t.Fatalf("the wave has %d devices: %s", n, d)
		}
		label(&in.Devices[at[8]], "none")
		next := rollout.Next(in)
		if n := inWave(next, in.Devices); n != 3 || !next.Desired.InWave(in.Devices[at[90]].Report.Device) {
			t.Errorf("the wave has %d devices: %s", n, next)
		}
	})
}

// A device that joins a wave by its label, or returns to it, does not raise the number of tolerated failures.
func TestAddedDevicesDoNotRaiseTolerated(t *testing.T) {
	f := fleet("9", "100%")
	f.Profiles = map[string]delivery.Profile{"orin": {Board: "orin"}, "rare": {Board: "rare"}}
	f.Budget.Failures = &delivery.Failures{Tolerable: 0.1}
	in, d := boardFleet(t, f, "orin", nil)
	at := byPosition(d.Desired.Salt, in.Devices)
	in.Devices[at[99]].Report.Labels = map[string]string{"board": "rare"}
	d = rollout.Next(in)
	if n := inWave(d, in.Devices); n != 10 {
		t.Fatalf("the wave has %d devices: %s", n, d)
	}
	in.State, in.Published, in.At = d.State, d.Desired, noon.Add(time.Minute)
	x := &in.Devices[at[0]]
	labels := x.Report.Labels
	*x = broken(x.Report.Device, v2, v1, "golden differs")
	x.Report.Labels = labels
	if d = rollout.Next(in); d.Abort == nil {
		t.Errorf("1 failure of a wave of 9 is tolerated at 10%%: %s", d)
	}
}

func TestHasRun(t *testing.T) {
	ran := func(n, of int) []delivery.Device {
		devices := all(of, delivery.DeviceHealthy, v2)
		for i := range n {
			devices[i].Healthy = []delivery.Digest{v1.Bundle, v2.Bundle}
		}
		return devices
	}
	f := fleet("100%")
	for _, c := range []struct {
		n, of int
		want  bool
	}{{0, 0, false}, {0, 3, false}, {1, 3, false}, {2, 4, false}, {2, 3, true}, {3, 3, true}} {
		if got := rollout.HasRun(f, ran(c.n, c.of), v1.Bundle); got != c.want {
			t.Errorf("%d of %d devices ran it: got %v", c.n, c.of, got)
		}
	}
}

// Known values of the exact bound.
func TestNotRuledOut(t *testing.T) {
	for n, want := range map[int]float64{1: 0.95, 3: 0.6316, 5: 0.4507, 10: 0.2589, 20: 0.1391, 60: 0.0487,
		300: 0.00994} {
		if got := rollout.NotRuledOut(0, n); math.Abs(got-want) > 5e-5 ||
			math.Abs(got-(1-math.Pow(0.05, 1/float64(n)))) > 1e-9 {
			t.Errorf("0 of %d: got %v, want %v", n, got, want)
		}
	}
	if got := rollout.NotRuledOut(1, 10); math.Abs(got-0.3942) > 5e-5 { // the 95 % bound of Clopper and Pearson
		t.Errorf("1 of 10: got %v", got)
	}
	for _, c := range [][2]int{{0, 0}, {3, 3}, {5, 3}} {
		if got := rollout.NotRuledOut(c[0], c[1]); got != 1 {
			t.Errorf("%v: got %v, want 1", c, got)
		}
	}
}

// A device that is away when a rollout begins is not in the first wave, even if it returns during that wave.
func TestFirstWaveLeavesAwayDevicesOut(t *testing.T) {
	for n := 2; n <= 24; n += 2 {
		devices := all(n, delivery.DeviceHealthy, v1)
		for i := range n / 2 {
			devices[i].LastHeard = noon.Add(-24 * time.Hour)
		}
		in := rollout.Input{Fleet: fleet("1", "100%"), Target: v2, Previous: &v1, Devices: devices, At: noon}
		begun := rollout.Next(in)
		in.State, in.Published = begun.State, begun.Desired
		for i := range devices {
			devices[i].LastHeard = noon.Add(time.Minute) // all are back
		}
		in.At = noon.Add(time.Minute)
		d := rollout.Next(in)
		reached := 0
		for _, device := range devices {
			if d.Desired.InWave(device.Report.Device) {
				reached++
			}
		}
		if reached != 1 || d.Desired.Salt != begun.Desired.Salt {
			t.Errorf("%d devices: the wave of 1 reaches %d once all are back; salt %q, then %q", n, reached,
				begun.Desired.Salt, d.Desired.Salt)
		}
		in.State = rollout.State{} // the ledger is lost; the document says which devices are in the wave
		if again := rollout.Next(in); again.Desired.Salt != d.Desired.Salt || again.Desired.Share != d.Desired.Share {
			t.Errorf("%d devices: without the ledger salt %q and share %v, want %q and %v", n, again.Desired.Salt,
				again.Desired.Share, d.Desired.Salt, d.Desired.Share)
		}
	}
}

// A rollback is published to all devices at once, so the release after it falls back to it, even if the rollback
// was not completed.
func TestReleaseAfterUnfinishedRollbackFallsBackToIt(t *testing.T) {
	in := rollout.Input{Fleet: fleet("1", "100%"), Target: v1, Rollback: true, Previous: &v2,
		Devices: all(3, delivery.DeviceHealthy, v2), At: noon}
	back := rollout.Next(in)
	if back.State.Done || back.Desired == nil || back.Desired.Release != v1 || back.Desired.Share != 1 {
		t.Fatalf("a rollback that is under way: %s", back)
	}
	in.Target, in.Rollback, in.Previous, in.State, in.Published = v3, false, &v1, back.State, back.Desired
	next := rollout.Next(in)
	if next.Desired == nil || next.Desired.Previous == nil || *next.Desired.Previous != v1 {
		t.Errorf("devices outside the first wave get %+v, want version 1: %s", next.Desired, next)
	}
}

// A fleet whose devices are all silent is not healthy, and the text says how many were heard.
func TestSilentFleetIsNotHealthy(t *testing.T) {
	in := rollout.Input{Fleet: fleet("1", "100%"), Target: v2, Deadline: 2 * time.Minute, At: noon.Add(8 * time.Minute),
		State:   rollout.State{Target: v2, Base: &v1, Wave: 1, Share: 1, Done: true, Healthy: noon},
		Devices: all(3, delivery.DeviceHealthy, v2)}
	d := rollout.Next(in)
	if d.Wave.Healthy != 0 || d.Abort != nil ||
		!strings.Contains(d.String(), "rollout.done{version=2 [devices.seen{total=3 lasts=2m}]}") ||
		!d.State.Standing().HealthySince.IsZero() {
		t.Errorf("got %+v: %s", d.Wave, d)
	}
	in.Devices[1].LastHeard = in.At
	if d = rollout.Next(in); d.Wave.Healthy != 1 ||
		!strings.Contains(d.String(), "[devices.healthy{count=1 total=1} devices.seen{count=1 total=3 lasts=2m}]") ||
		!strings.Contains(d.String(), `devices.away{names=["d00" "d02"] count=2}`) {
		t.Errorf("got %+v: %s", d.Wave, d)
	}
	if want := in.At.Add(2*time.Minute + time.Second); !d.Wake.Equal(want) {
		t.Errorf("wake is %v, want %v, when that device would be silent too", d.Wake, want)
	}
	in.State.Rollback = true
	in.Devices[1].LastHeard = noon
	if d = rollout.Next(in); !strings.Contains(d.String(), "rollout.back{version=2 [devices.seen{total=3 lasts=2m}]}") {
		t.Errorf("got %s", d)
	}
}

// The devices of the first wave cannot be predicted, so nobody can choose to be among them.
func TestFirstWaveCannotBeChosen(t *testing.T) {
	in := rollout.Input{Fleet: fleet("1", "100%"), Target: v2, Previous: &v1, Devices: all(20, delivery.DeviceHealthy,
		v1), At: noon, Seed: "secret of the server"}
	first := map[string]bool{}
	salts := map[string]bool{}
	for i := range 20 {
		in.At = noon.Add(time.Duration(i) * time.Millisecond)
		d := rollout.Next(in)
		if again := rollout.Next(in); gocmp.Diff(d, again) != "" {
			t.Fatal("not deterministic")
		}
		salts[d.Desired.Salt] = true
		for _, x := range in.Devices {
			if d.Desired.InWave(x.Report.Device) {
				first[x.Report.Device] = true
			}
		}
		// It stays the same during the rollout.
		next := in
		next.State, next.Published, next.At = d.State, d.Desired, in.At.Add(time.Minute)
		if again := rollout.Next(next); again.Desired.Salt != d.Desired.Salt {
			t.Fatalf("the salt changes from %s to %s", d.Desired.Salt, again.Desired.Salt)
		}
	}
	if len(salts) != 20 || len(first) < 5 || salts[rollout.Salt("north", v2.Bundle)] {
		t.Errorf("%d salts and %d canaries in 20 rollouts", len(salts), len(first))
	}
}

// Renaming a model does not roll back its bundle.
func TestRenamedModelIsNotRolledBack(t *testing.T) {
	in := rollout.Input{Fleet: fleet("1", "100%"), Target: v2, At: noon, Devices: all(3, delivery.DeviceHealthy, v2),
		State: rollout.State{Target: v2, Model: "raccoon", Rollback: true, Share: 1, Done: true, Healthy: noon}}
	in.Fleet.Runs = "coon"
	d := rollout.Next(in)
	if !strings.Contains(d.String(), "rollout.done{version=2 [devices.healthy{count=3 total=3}]}") || d.State.Rollback {
		t.Errorf("got %s", d)
	}
}
