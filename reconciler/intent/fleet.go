package intent

import (
	"github.com/autonomos/aob/reconciler/delivery"
)

// fleet checks the rules between a fleet's fields.
func (d *document) fleet(f *delivery.Fleet, doc *Doc) {
	doc.refer(d, refRuns, f.Runs, "runs")
	if f.After != nil {
		doc.refer(d, refAfter, f.After.Fleet, "after.fleet")
	}
	if d.valid("waves") {
		d.waves(f.Waves)
	}
	if f.Bench != nil && len(f.Profiles) == 0 && !d.has("profiles") {
		d.complain("bench", "measures on the fleet's hardware profiles, and it has none; add them, as in "+
			"profiles: {orin-nano-fp16: {board: orin-nano}}")
	}
	if f.Window != nil {
		d.window(*f.Window)
	}
}

// waves checks that each wave is larger than the one before and that the last has all devices. A share after a number
// of devices counts as larger.
func (d *document) waves(waves []delivery.Wave) {
	for i := 1; i < len(waves); i++ {
		before, w := waves[i-1], waves[i]
		switch {
		case w.Devices > 0 && before.Devices == 0:
			d.complain(item("waves", i), "want numbers of devices before shares, got %s after %s", w, before)
		case w.Devices > 0 && w.Devices <= before.Devices, w.Devices == 0 && before.Devices == 0 &&
			w.Share <= before.Share:
			d.complain(item("waves", i), "want more than the wave before, %s, got %s", before, w)
		}
	}
	if n := len(waves); n > 0 && d.valid("waves") && waves[n-1].Share != 1 {
		d.complain(item("waves", n-1), "want 100%% as the last wave, got %s", waves[n-1])
	}
}

func (d *document) window(w delivery.Window) {
	unique(d, w.Days, "window.days")
	if d.valid("window.from", "window.to") && w.From == w.To {
		d.complain("window.to",
			"is the same time as from, %s; change it, or remove window: so that rollouts may advance at any time",
			w.From)
	}
	if d.options.Zone != nil && d.valid("window.zone") {
		if err := d.options.Zone(w.Zone); err != nil {
			d.complain("window.zone", "unknown time zone %s; want a name such as Europe/Berlin or UTC", quote(w.Zone))
		}
	}
}
