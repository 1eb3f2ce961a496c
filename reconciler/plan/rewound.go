package plan

import (
	"fmt"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// RewoundLasts is how long it is said that main went back without a revert, where main
// never contains again what it was.
const RewoundLasts = 7 * 24 * time.Hour

// String says what happened, what may be behind it, and what to do about it.
func (r Rewound) String() string {
	do := fmt.Sprintf("push %.12s to main again", r.From)
	if !r.Ahead {
		do = fmt.Sprintf("merge %.12s into main: main has other commits by now", r.From)
	}
	return fmt.Sprintf("main went back from %.12s to %.12s without a revert: was the forge restored from a backup, "+
		"or main pushed by force? If it was not meant, %s", r.From, r.To, do)
}

// sayRewound says on main's commit that main went back.
func (m *maker) sayRewound(main *MainReport) {
	if len(m.w.Main.Rewound) == 0 {
		return
	}
	var words []string
	for _, r := range m.w.Main.Rewound {
		words = append(words, r.String())
	}
	text := strings.Join(words, "; ")
	for i, c := range main.Checks {
		if c.Context == delivery.ContextRelease || len(main.Checks) == 1 {
			main.Checks[i].Description = text + "; " + c.Description
		}
	}
}
