package plan

import (
	"fmt"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// RewoundLasts is how long it is said that main went back without a revert, where main
// never contains again what it was.
const RewoundLasts = 7 * 24 * time.Hour

// String says what happened, and what may be behind it.
func (r Rewound) String() string {
	return fmt.Sprintf("main went back from %.12s to %.12s without a revert: was the forge restored from a backup, "+
		"or main pushed by force? "+
		"If it was not meant, push %.12s to main again", r.From, r.To, r.From)
}

// sayRewound says on main's commit that main went back.
func (m *maker) sayRewound(main *MainReport) {
	if m.w.Main.Rewound == nil {
		return
	}
	text := m.w.Main.Rewound.String()
	for i, c := range main.Checks {
		if c.Context == delivery.ContextRelease || len(main.Checks) == 1 {
			main.Checks[i].Description = text + "; " + c.Description
		}
	}
}
