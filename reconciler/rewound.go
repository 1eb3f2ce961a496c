package reconciler

// This file notices that main went back: that it moved to a commit which does not contain where it was.

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// rewoundKey is where the ledger keeps that main went back.
const rewoundKey = "rewound/"

// rewound returns how main went back, where that has to be said. before is the commit that main was at when it was last
// read, and now is where it is.
func (r *Reconciler) rewound(ctx context.Context, before, now string) *plan.Rewound {
	key := rewoundKey + r.Main
	if !r.seen.rewoundRead {
		list, err := r.Ledger.Said(ctx, key)
		if r.troubles.note(ledgerTrouble, err); err != nil {
			return nil
		}
		var back plan.Rewound
		if json.Unmarshal([]byte(list[key].Content), &back) == nil && back.From != "" {
			r.seen.rewound = &back
		}
		r.seen.rewoundRead = true
	}
	keep := func(back *plan.Rewound) {
		content := ""
		if back != nil {
			content = string(delivery.Canonical(back))
		}
		r.seen.rewound = back
		r.troubles.note(ledgerWrites, r.Ledger.PutSaid(ctx, key, content, r.Now()))
	}
	if back := r.seen.rewound; back != nil && (r.contains(now, back.From) ||
		r.Now().Sub(back.At) >= plan.RewoundLasts) {
		keep(nil)
	}
	if r.seen.rewound == nil && before != "" && before != now && !r.contains(now, before) {
		back := &plan.Rewound{From: before, To: now, At: r.Now()}
		keep(back)
		r.Log.Warn(back.String())
	}
	return r.seen.rewound
}

// contains reports whether a commit has another one in its history. What cannot be read is taken for yes: damage is
// said elsewhere, and is no reason to say that main went back.
func (r *Reconciler) contains(commit, other string) bool {
	bases, err := r.mergeBases(other, commit)
	return err != nil || slices.Contains(bases, other)
}
