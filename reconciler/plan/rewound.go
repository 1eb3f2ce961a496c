package plan

import (
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// RewoundLasts is how long it is said that main went back without a revert, where main
// never contains again what it was.
const RewoundLasts = 7 * 24 * time.Hour

// Fact says what happened. Where main has other commits by now, another thing is to be done about it.
func (r Rewound) Fact() delivery.Fact {
	v := values{From: r.From, Commit: r.To}
	if r.Ahead {
		return fact(code.MainRewound, v)
	}
	return fact(code.MainRewoundMoved, v)
}

// sayRewound says on main's commit that main went back.
func (m *maker) sayRewound(main *MainReport) {
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
