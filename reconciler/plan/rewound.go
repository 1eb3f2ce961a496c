package plan

import (
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// RewoundLasts is how long the warning is shown that main went back, if main never contains its old commit again.
const RewoundLasts = 7 * 24 * time.Hour

// Fact describes the move. What to do depends on whether main has got other commits since.
func (r Rewound) Fact() delivery.Fact {
	v := values{From: r.From, Commit: r.To}
	if r.Ahead {
		return fact(code.MainRewound, v)
	}
	return fact(code.MainRewoundMoved, v)
}

// addRewound adds the warning that main went back to main's checks.
func (m *maker) addRewound(main *MainReport) {
	if len(m.w.Main.Rewound) == 0 {
		return
	}
	var list []delivery.Fact
	for _, r := range m.w.Main.Rewound {
		list = append(list, r.Fact())
	}
	for i, c := range main.Checks {
		if c.Context == delivery.ContextRelease || len(main.Checks) == 1 {
			main.Checks[i].Facts = slices.Concat(list, c.Facts)
		}
	}
}
