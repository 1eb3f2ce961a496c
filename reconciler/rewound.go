package reconciler

// This file notices that main went back: that it moved to a commit which does not contain where it was.

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/words"
)

// rewoundKey is where the ledger keeps that main went back.
const rewoundKey = "rewound/"

// maxRewound is how many moves back are kept and said, the newest ones.
const maxRewound = 5

// rewound returns when main went back, newest first, where that has to be said. before is the commit that main was at
// when it was last read, and now is where it is.
func (r *Reconciler) rewound(ctx context.Context, before, now string) []plan.Rewound {
	key := rewoundKey + r.Main
	if !r.seen.rewoundRead {
		list, err := r.Ledger.Records(ctx, key)
		if r.troubles.note(ledgerTrouble, err); err != nil {
			return nil
		}
		r.seen.rewound = readRewound(list[key].Content)
		r.seen.rewoundRead = true
	}
	list, changed := slices.Clone(r.seen.rewound), false
	if before != "" && before != now && r.lacksCommit(now, before) {
		back := plan.Rewound{From: before, To: now, At: r.Now()}
		// Where it was before another move back holds more than where it was now: that is what is missing.
		for i, older := range list {
			if r.containsCommit(older.From, before) {
				back.From = older.From
				list = slices.Delete(list, i, i+1)
				break
			}
		}
		list, changed = slices.Insert(list, 0, back), true
		r.Log.Warn(words.Text(back.Fact()))
	}
	all := len(list)
	list = slices.DeleteFunc(list, func(back plan.Rewound) bool {
		return r.containsCommit(now, back.From) || r.Now().Sub(back.At) >= plan.RewoundLasts
	})
	list = list[:min(len(list), maxRewound)]
	if changed || len(list) < all {
		content := ""
		if len(list) > 0 {
			content = string(delivery.Canonical(list))
		}
		r.seen.rewound = list
		r.troubles.note(ledgerWrites, r.Ledger.PutRecord(ctx, key, content, r.Now()))
	}
	for i := range list {
		list[i].Ahead = r.containsCommit(list[i].From, now)
	}
	return list
}

// readRewound reads what the ledger keeps. An earlier version of AOB kept one move and no list.
func readRewound(content string) []plan.Rewound {
	var list []plan.Rewound
	if json.Unmarshal([]byte(content), &list) != nil {
		var one plan.Rewound
		if json.Unmarshal([]byte(content), &one) == nil {
			list = []plan.Rewound{one}
		}
	}
	return slices.DeleteFunc(list, func(back plan.Rewound) bool { return back.From == "" })
}

// containsCommit reports whether a commit has another one in its history.
func (r *Reconciler) containsCommit(commit, other string) bool {
	bases, err := r.mergeBases(other, commit)
	return err == nil && slices.Contains(bases, other)
}

// lacksCommit reports whether a commit does not have another one in its history. It is false where that cannot be read:
// damage is said elsewhere, and is no reason to say that main went back.
func (r *Reconciler) lacksCommit(commit, other string) bool {
	bases, err := r.mergeBases(other, commit)
	return err == nil && !slices.Contains(bases, other)
}
