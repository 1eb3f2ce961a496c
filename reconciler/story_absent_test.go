package reconciler

import (
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// aob serve is down for longer than the deadline while the first wave soaks. The devices do not count as silent for
// that time. One that stays silent afterwards does, unless all of them are.
func TestDevicesAreNotSilentAfterServerDowntime(t *testing.T) {
	const back, others, nobody = "the canary is heard", "the others are heard", "nobody is heard"
	for _, heard := range []string{back, others, nobody} {
		s := twoReleases(t)
		s.propose("third", 20)
		s.settle()
		bundle := s.signed.last()
		s.merge("third")
		for range 3 {
			s.turn() // version 3 is published to the first wave
		}
		d := s.fleet.published["demo"]
		canary := -1
		for i := range s.fleet.devices { // all report; the first wave soaks
			x := &s.fleet.devices[i]
			x.LastHeard, x.Report.Desired = s.now, d.Version
			if d.InWave(x.Report.Device) {
				canary = i
				x.Report.Phase, x.Report.Bundle, x.Report.Release = delivery.DeviceSoaking, d.Release.Bundle,
					d.Release.Version
			}
		}
		if canary < 0 {
			t.Fatal("nobody is in the first wave")
		}
		s.turn()
		deadline := time.Duration(s.server.Deadline)
		if deadline == 0 {
			deadline = 15 * time.Minute
		}
		s.now = s.now.Add(deadline + 5*time.Minute) // aob serve is stopped
		s.restart()
		aborted := func() bool {
			for _, st := range s.signed.statements {
				if a, ok := st.predicate.(delivery.Abort); ok && a.Bundle == bundle {
					return true
				}
			}
			return false
		}
		for range 5 {
			s.turn()
		}
		if aborted() {
			t.Fatal("the first turns after the server was away abort a good release")
		}
		if heard != back {
			s.now = s.now.Add(deadline)
			elsewhere := s.fleet.devices[canary] // of another fleet: it says nothing about this one's network
			elsewhere.Report.Ring, elsewhere.Report.Device, elsewhere.LastHeard = "elsewhere", "far", s.now
			s.fleet.devices = append(s.fleet.devices, elsewhere)
			for i := range s.fleet.devices {
				if heard == others && i != canary {
					s.fleet.devices[i].LastHeard = s.now
				}
			}
			s.wake()
			for range 5 {
				s.turn()
			}
			if got, want := aborted(), heard == others; got != want {
				t.Errorf("%s for a deadline: aborted %v, want %v", heard, got, want)
			}
			continue
		}
		s.fleet.devices[canary].Report.Phase, s.fleet.devices[canary].LastHeard = delivery.DeviceHealthy, s.now
		s.wake() // as its report does
		s.settle()
		if got := s.serving(); got != "3 3 3" || aborted() {
			t.Errorf("devices serve %s, aborted %v: %v", got, aborted(), s.loop.observed.plan.Fleets)
		}
	}
}
