package reconciler

import (
	"slices"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// The network fails for two deadlines while the first wave soaks, and aob serve keeps running. When one of three
// devices reports first, the others do not count as silent yet. A device that stays silent from then on does.
func TestFirstReportAfterAnOutageFailsNoRelease(t *testing.T) {
	for _, c := range []struct {
		name    string
		canary  bool // is heard first
		silent  bool // the canary is not heard again
		restart bool // aob serve is started again as soon as the network is back
	}{
		{name: "another device is first"},
		{name: "the canary is first", canary: true},
		{name: "the server is started again", restart: true},
		{name: "the canary is dead", silent: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := twoReleases(t)
			s.propose("third", 20)
			s.settle()
			bundle := s.signed.last()
			s.merge("third")
			for range 3 {
				s.turn()
			}
			d := s.fleet.published["demo"]
			inWave := func(x delivery.Device) bool { return d.InWave(x.Report.Device) }
			canary := slices.IndexFunc(s.fleet.devices, inWave)
			for i := range s.fleet.devices {
				r := &s.fleet.devices[i].Report
				s.fleet.hears(i)
				if r.Desired = d.Version; i == canary {
					r.Phase, r.Bundle, r.Release = delivery.DeviceSoaking, d.Release.Bundle, d.Release.Version
				}
			}
			s.turn()
			aborted := func() bool {
				return slices.ContainsFunc(s.signed.statements, func(st simStatement) bool {
					a, ok := st.predicate.(delivery.Abort)
					return ok && a.Bundle == bundle
				})
			}
			pass := func(how time.Duration, hear bool) {
				for end := s.now.Add(how); s.now.Before(end); {
					s.now = s.now.Add(time.Minute)
					for i := range s.fleet.devices {
						if hear && i != canary {
							s.fleet.hears(i)
						}
					}
					s.wake()
					s.turn()
				}
			}
			deadline := time.Duration(s.server.Deadline)
			pass(2*deadline, false)
			if aborted() {
				t.Fatal("aborted while nobody is heard")
			}
			first := (canary + 1) % len(s.fleet.devices)
			if c.canary {
				first = canary
				s.fleet.devices[canary].Report.Phase = delivery.DeviceHealthy
			}
			s.fleet.hears(first)
			if c.restart {
				s.restart()
			}
			s.wake()
			pass(deadline/2, c.silent)
			if aborted() {
				t.Fatal("a good release is aborted, as the network is back and one device was heard first")
			}
			if c.silent {
				if pass(deadline, true); !aborted() {
					t.Error("the canary is silent for a deadline, the others are heard, and the release goes on")
				}
				return
			}
			for i := range s.fleet.devices {
				s.fleet.hears(i)
			}
			s.fleet.devices[canary].Report.Phase = delivery.DeviceHealthy
			s.wake()
			if s.settle(); aborted() || s.serving() != "3 3 3" {
				t.Errorf("in the end devices serve %s: %s", s.serving(), s.loop.observed.plan.Fleets[0].Facts)
			}
		})
	}
}
