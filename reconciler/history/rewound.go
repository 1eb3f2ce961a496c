package history

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/turn"
	"github.com/autonomos/aob/reconciler/words"
)

const (
	rewoundKey = "rewound/" // the ledger's key of moves back, without the branch
	maxRewound = 5          // stored and shown moves back, the newest ones
)

// wentBack returns the moves of main back that are shown, newest first: main moved to a commit that does not contain
// the one before. before is main's commit when it was last read, now is the present one.
func (h *History) wentBack(ctx context.Context, before, now string) []plan.Rewound {
	key := rewoundKey + h.branch
	if !h.rewoundRead {
		list, err := h.ledger.Records(ctx, key)
		if h.turn.Note(turn.LedgerReads, err); err != nil {
			return nil
		}
		h.rewound = readRewound(list[key].Content)
		h.rewoundRead = true
	}
	list, changed := slices.Clone(h.rewound), false
	if before != "" && before != now && h.lacks(now, before) {
		back := plan.Rewound{From: before, To: now, At: h.turn.Now()}
		// If an older move started at a commit that contains before, the two moves are shown as one.
		for i, older := range list {
			if h.contains(older.From, before) {
				back.From = older.From
				list = slices.Delete(list, i, i+1)
				break
			}
		}
		list, changed = slices.Insert(list, 0, back), true
		h.turn.Log.Warn(words.Text(back.Fact()))
	}
	all := len(list)
	list = slices.DeleteFunc(list, func(back plan.Rewound) bool {
		return h.contains(now, back.From) || h.turn.Now().Sub(back.At) >= plan.RewoundLasts
	})
	list = list[:min(len(list), maxRewound)]
	if changed || len(list) < all {
		content := ""
		if len(list) > 0 {
			content = string(delivery.Canonical(list))
		}
		h.rewound = list
		h.keep(ctx, key, content)
	}
	for i := range list {
		list[i].Ahead = h.contains(list[i].From, now)
	}
	return list
}

// readRewound parses the ledger's record. An earlier version of AOB stored one move and no list.
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

// contains reports whether a commit has another one in its history. It is false if that cannot be read.
func (h *History) contains(commit, other string) bool {
	yes, err := h.commits.Contains(commit, other)
	return err == nil && yes
}

// lacks reports whether a commit does not have another one in its history. It is false if that cannot be read: damage
// is shown elsewhere, and does not mean that main went back.
func (h *History) lacks(commit, other string) bool {
	yes, err := h.commits.Contains(commit, other)
	return err == nil && !yes
}
