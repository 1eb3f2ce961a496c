package plan_test

import (
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/rollout"
)

func TestLostDocumentIsRestoredFromClockOrDevices(t *testing.T) {
	one := delivery.Target{Version: 1, Bundle: delivery.Sum([]byte("one"))}
	two := delivery.Target{Version: 2, Bundle: delivery.Sum([]byte("two"))}
	big := delivery.Target{Version: 1, Bundle: delivery.Sum([]byte("big"))}
	runs := func(list ...delivery.Target) map[string][]delivery.Device {
		var devices []delivery.Device
		for _, x := range list {
			devices = append(devices, delivery.Device{Report: delivery.Report{Bundle: x.Bundle, Release: x.Version}})
		}
		return map[string][]delivery.Device{"demo": devices}
	}
	for _, c := range []struct {
		name    string
		clock   rollout.State
		devices map[string][]delivery.Device
		model   string // "" is nothing known
		release delivery.Target
		share   float64
	}{
		{name: "nothing is known"},
		{name: "devices that run nothing", devices: runs(delivery.Target{}, delivery.Target{})},
		{name: "devices of main's model", devices: runs(one, one)},
		{name: "devices of another model", devices: runs(delivery.Target{}, big, big, one), model: "big", release: big,
			share: 1},
		{name: "devices of no model that main accepted", devices: runs(two)},
		{name: "a clock in the middle of a rollout", model: "big", release: big, share: 0.2,
			clock: rollout.State{Model: "big", Target: big, Base: &one, Share: 0.2}},
		{name: "a clock before devices", devices: runs(one, one), model: "big", release: big, share: 1,
			clock: rollout.State{Model: "big", Target: big, Share: 1}},
		{name: "a clock without a model", model: "big", release: big, share: 1,
			clock: rollout.State{Target: big, Share: 1}},
		{name: "a fleet that fell back", clock: rollout.State{Base: &big}, model: "big", release: big, share: 1},
		{name: "a fleet that fell back within main's model", clock: rollout.State{Base: &one}, model: "pallets",
			release: one, share: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := plan.World{Devices: c.devices, Clocks: map[string]rollout.State{"demo": c.clock}}
			w.Evidence.Accepted = map[string][]delivery.Acceptance{
				"pallets": {{Model: "pallets", Version: 1, Bundle: one.Bundle}},
				"big":     {{Model: "big", Version: 1, Bundle: big.Bundle}},
			}
			f := delivery.Fleet{Name: "demo", Runs: "pallets", Match: map[string]string{"site": "x"}}
			d, ok := plan.Restored(w, f)
			if ok != (c.model != "") {
				t.Fatalf("restored: %v, %+v", ok, d)
			}
			if ok && (d.Model != c.model || d.Share != c.share || d.Version != 0 || d.Release != c.release ||
				d.Match["site"] != "x") {
				t.Errorf("restored: %+v", d)
			}
		})
	}
}
