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
	if d.sound("waves") {
		d.waves(f.Waves)
	}
	if f.Window != nil {
		d.window(*f.Window)
	}
}

// waves checks that each wave is wider than the one before and the last is
// everyone. A share after a number of devices is taken to be wider.
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
	if n := len(waves); n > 0 && d.sound("waves") && waves[n-1].Share != 1 {
		d.complain(item("waves", n-1), "want 100%% as the last wave, got %s", waves[n-1])
	}
}

func (d *document) window(w delivery.Window) {
	unique(d, w.Days, "window.days")
	if d.sound("window.from", "window.to") && w.From == w.To {
		d.complain("window.to", "want another time than from, %s; without a window a rollout may always move on",
			w.From)
	}
	if d.options.Zone != nil && d.sound("window.zone") {
		if err := d.options.Zone(w.Zone); err != nil {
			d.complain("window.zone", "unknown time zone %s; want a name as Europe/Berlin or UTC", quote(w.Zone))
		}
	}
}
