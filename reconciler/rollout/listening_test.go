package rollout_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/rollout"
)

// While a server is stopped or suspended it receives no report. Silence counts from when it listens again.
func TestSilenceCountsFromWhenTheServerListens(t *testing.T) {
	const deadline = rollout.DefaultDeadline
	begun := rollout.State{Target: v2, Base: &v1, Began: noon, Started: noon}
	last := begun
	last.Wave, last.Share = 1, 1
	back := noon.Add(20 * time.Minute)
	heardAt := func(d delivery.Device, at time.Time) delivery.Device { d.LastHeard = at; return d }
	soaking := device("x", delivery.DeviceSoaking, v2)
	x, y := device("x", delivery.DeviceHealthy, v2), device("y", delivery.DeviceHealthy, v2)
	only := []delivery.Device{soaking}
	for _, c := range []struct {
		name      string
		state     rollout.State
		listening time.Time
		at        time.Time
		devices   []delivery.Device
		abort     bool
		done      bool
		hold      string
		wake      time.Time
	}{
		{name: "a server that was always listening", state: begun, at: back, devices: only, abort: true},
		{name: "the first decision after a restart", state: begun, listening: back, at: back,
			devices: []delivery.Device{soaking},
			hold:    "devices.awaited{count=1}", wake: noon.Add(30 * time.Minute)}, // the end of the soak
		{name: "not listening yet", state: begun, listening: back.Add(time.Second), at: back, devices: only,
			hold: "devices.awaited{count=1}"},
		{name: "at the deadline after the restart", state: begun, listening: back, at: back.Add(deadline),
			devices: only,
			hold:    "devices.awaited{count=1}", wake: back.Add(deadline + time.Second)},
		{name: "after that deadline", state: begun, listening: back, at: back.Add(deadline + 2*time.Second),
			devices: []delivery.Device{soaking}, abort: true},
		{name: "a failure counts at once", state: begun, listening: back, at: back,
			devices: []delivery.Device{broken("x", v2, v1, "golden differs")}, abort: true},
		{name: "heard again", state: begun, listening: back, at: back.Add(time.Minute),
			devices: []delivery.Device{heardAt(soaking, back.Add(time.Minute))}, hold: "devices.awaited{count=1}"},
		{name: "a long outage of the server holds no device", state: begun,
			listening: noon.Add(3 * time.Hour), at: noon.Add(3 * time.Hour),
			devices: []delivery.Device{heardAt(soaking, noon.Add(3*time.Hour))}, hold: "devices.awaited{count=1}"},
		{name: "a healthy report of one device does not settle the others", state: last,
			listening: back, at: back.Add(time.Minute), devices: []delivery.Device{x,
				heardAt(y, back.Add(time.Minute))},
			hold: "devices.awaited{count=1}"},
		{name: "the others are away after the deadline", state: last, listening: back, at: back.Add(deadline +
			time.Minute),
			devices: []delivery.Device{x, heardAt(y, back.Add(deadline))},
			done:    true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := rollout.Next(rollout.Input{Fleet: fleet("1", "100%"), Target: v2, State: c.state, Devices: c.devices,
				At: c.at, Listening: c.listening})
			if (d.Abort != nil) != c.abort || d.Done != c.done || !strings.Contains(fmt.Sprint(d.Hold), c.hold) {
				t.Errorf("abort %v, done %v, hold %s; want %v, %v, %s",
					d.Abort != nil, d.Done, d.Hold, c.abort, c.done, c.hold)
			}
			if !c.wake.IsZero() && !d.Wake.Equal(c.wake) {
				t.Errorf("wake is %v, want %v", d.Wake, c.wake)
			}
		})
	}
}

// An outage of the server does not reset since when a fleet is healthy. No other fleet follows it before one of its
// devices is heard from.
func TestOutageKeepsHealthySince(t *testing.T) {
	in := rollout.Input{Fleet: fleet("100%"), Target: v2, At: noon.Add(time.Hour), Listening: noon.Add(time.Hour),
		State:   rollout.State{Target: v2, Base: &v1, Share: 1, Done: true, Healthy: noon},
		Devices: all(3, delivery.DeviceHealthy, v2)}
	d := rollout.Next(in)
	said := strings.Contains(d.String(), "devices.serverWasAway{at=2026-11-24T13:00:00Z}")
	if !d.State.Healthy.Equal(noon) || !said {
		t.Errorf("healthy since %v: %s", d.State.Healthy, d)
	}
	if want := in.Listening.Add(rollout.DefaultDeadline + time.Second); !d.Wake.Equal(want) {
		t.Errorf("wake is %v, want %v", d.Wake, want)
	}
	in.At = d.Wake
	if d = rollout.Next(in); !d.State.Healthy.IsZero() {
		t.Errorf("no device was heard from for the deadline, and the fleet still counts as healthy: %s", d)
	}
	follower := rollout.Input{Fleet: fleet("100%"), Target: v2, At: noon, Devices: all(2, delivery.DeviceHealthy, v1),
		Published: &delivery.Desired{Version: 7, Release: v1, Share: 1},
		After:     rollout.AfterState{Bundle: v2.Bundle, HealthySince: noon.Add(-48 * time.Hour), Unheard: true}}
	follower.Fleet.After = &delivery.After{Fleet: "staging", Healthy: delivery.Duration(24 * time.Hour)}
	const unheard = "rollout.fleetUnheard{fleet=staging lasts=15m}"
	if d := rollout.Next(follower); !strings.Contains(fmt.Sprint(d.Hold), unheard) {
		t.Errorf("the rollout began although no device of the fleet before it was heard from: %s", d)
	}
}

// Stored times in the future come from a clock that was set back. Such a device still becomes silent, and such a wave
// still ends.
func TestFutureTimesCountAsNow(t *testing.T) {
	ahead := noon.Add(365 * 24 * time.Hour)
	devices := []delivery.Device{device("x", delivery.DeviceSoaking, v2)}
	devices[0].LastHeard = ahead
	in := rollout.Input{Fleet: fleet("100%"), Target: v2, Devices: devices, At: noon, Listening: noon,
		State: rollout.State{Target: v2, Base: &v1, Share: 1, Began: ahead, Started: ahead}}
	d := rollout.Next(in)
	if d.Abort != nil || !d.State.Started.Equal(noon) {
		t.Fatalf("first decision: %s", d)
	}
	in.State, in.At = d.State, noon.Add(rollout.DefaultDeadline+2*time.Second)
	if d = rollout.Next(in); d.Abort == nil {
		t.Errorf("a silent device counts as heard: %s", d)
	}
	in.State.Done, in.State.Healthy = true, ahead
	in.At = noon
	if d = rollout.Next(in); d.State.Healthy.After(noon) {
		t.Errorf("healthy since %v, now %v", d.State.Healthy, noon)
	}
}

// If no device of a fleet is heard from, the network may be cut. That is no evidence about the release until a device
// is heard from again.
func TestSilenceOfAllIsNoEvidence(t *testing.T) {
	devices := []delivery.Device{device("x", delivery.DeviceSoaking, v2), device("y", delivery.DeviceSoaking, v2)}
	in := rollout.Input{Fleet: fleet("100%"), Target: v2, Devices: devices, At: noon.Add(10 * rollout.DefaultDeadline),
		Heard: noon, State: rollout.State{Target: v2, Base: &v1, Share: 1, Began: noon, Started: noon}}
	d := rollout.Next(in)
	if d.Abort != nil || !strings.Contains(fmt.Sprint(d.Hold), "devices.allSilent{at=2026-11-24T12:00:00Z}") {
		t.Errorf("no device is heard from: %s", d)
	}
	if !d.Wake.IsZero() && !d.Wake.After(in.At) {
		t.Errorf("wake is %v, and now is %v", d.Wake, in.At)
	}
	// A device outside the wave reports again. The two others have not had time to report.
	in.Heard, in.Listening = in.At, in.At
	if d = rollout.Next(in); d.Abort != nil || !strings.Contains(fmt.Sprint(d.Hold), "devices.awaited{count=2}") {
		t.Errorf("the first report after an outage counts against the others: %s", d)
	}
	in.At = in.At.Add(rollout.DefaultDeadline + time.Second)
	in.Heard = in.At
	if d = rollout.Next(in); d.Abort == nil {
		t.Errorf("two devices are silent while others report, and nothing is aborted: %s", d)
	}
}
