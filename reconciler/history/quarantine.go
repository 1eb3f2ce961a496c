package history

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/commits"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/plan"
)

// quarantineKey is the ledger's key of the quarantineLog. An earlier version of AOB used oldQuarantineKey, which is
// also the key of the last good commit of a target branch called held.
const (
	quarantineKey    = "quarantine/held"
	oldQuarantineKey = lastGoodKey + "held"
)

// A quarantineLog contains all entries that main's quarantine files have had, up to a commit.
type quarantineLog struct {
	Commit  string                            `json:"commit"`
	Entries map[string][]plan.QuarantineEntry `json:"entries"`
}

// Quarantined returns what main has quarantined, from its line of first parents, so that entries are also found if a
// file was removed, a merge took the wrong side, or one push had several commits. The ledger stores the entries: they
// remain if main is moved back, or to a line that does not contain them.
//
// If something cannot be read, main says so, and the entries that were known before and those in main's tree are
// returned.
func (h *History) Quarantined(ctx context.Context, main plan.Main) map[string][]plan.QuarantineEntry {
	if main.Commit == "" {
		return nil
	}
	entries, bad, err := h.readQuarantine(ctx, main.Commit)
	if err != nil {
		main.Unread[""] = err.Error()
		entries = map[string][]plan.QuarantineEntry{}
		if h.quarantine != nil {
			entries = maps.Clone(h.quarantine.Entries)
		}
		for model, q := range main.Intent.Quarantines.All() {
			entries[model] = plan.FollowQuarantine(entries[model], main.Commit, q)
		}
		h.turn.Note(quarantineTrouble, err)
	} else {
		for _, one := range bad {
			main.Unread[one.What] = one.Why
		}
		h.noteUnread(quarantineTrouble, bad)
	}
	if err != nil || len(bad) > 0 {
		h.turn.In(retryAfter, "main's quarantine is read again")
	}
	return entries
}

// readQuarantine reads the commits of main that were not read before. bad contains the models with a file that cannot
// be read; the next call reads them again.
func (h *History) readQuarantine(ctx context.Context, main string) (entries map[string][]plan.QuarantineEntry,
	bad delivery.Unreadable, err error) {
	if h.quarantine == nil {
		stored, found, err := readRecord[quarantineLog](ctx, h, quarantineKey)
		old := false
		if err == nil && !found {
			stored, old, err = readRecord[quarantineLog](ctx, h, oldQuarantineKey)
		}
		if err != nil {
			return nil, nil, err
		}
		h.quarantine = &stored
		if !old { // else KeepQuarantine writes it to the new key
			h.quarantined = delivery.DigestOf("held", stored.Entries)
		}
	}
	before := h.quarantine
	if before.Commit == main {
		return before.Entries, nil, nil
	}
	changes, reached, err := h.repo.Line(main, before.Commit, "models", math.MaxInt)
	if err != nil {
		return nil, nil, err
	}
	now := quarantineLog{Commit: main, Entries: map[string][]plan.QuarantineEntry{}}
	if reached {
		now.Entries = maps.Clone(before.Entries)
	}
	for _, c := range slices.Backward(changes) {
		bad = append(bad, h.follow(now.Entries, c)...)
	}
	if !reached {
		if err := h.rejoin(&now, before.Entries); err != nil {
			return nil, nil, err
		}
	}
	if len(bad) == 0 {
		h.quarantine = &now
	}
	return now.Entries, bad, nil
}

// follow adds the changes of one commit to entries. bad contains the models with a file that cannot be read.
func (h *History) follow(entries map[string][]plan.QuarantineEntry, c git.LineChange) (bad delivery.Unreadable) {
	for name, blob := range c.Files {
		model, ok := strings.CutSuffix(name, ".quarantine.yaml")
		if !ok {
			continue
		}
		var q delivery.Quarantine
		if blob != "" {
			data, err := h.repo.Blob(blob, intent.MaxFileSize)
			if errors.Is(err, git.ErrTooBig) {
				continue
			}
			if err != nil {
				bad = append(bad, delivery.Unread{What: model, Why: fmt.Sprintf("models/%s at commit %.12s: %s", name,
					c.Commit, err)})
				continue
			}
			if q, ok = commits.Document("models/"+name, data).Value.(delivery.Quarantine); !ok {
				continue // an invalid file neither adds nor removes entries
			}
		}
		entries[model] = plan.FollowQuarantine(entries[model], c.Commit, q)
	}
	return bad
}

// rejoin adds the entries that main had before it was moved to a line of commits that does not contain the old one.
func (h *History) rejoin(now *quarantineLog, before map[string][]plan.QuarantineEntry) error {
	t, err := h.commits.Tree(now.Commit)
	if err != nil {
		return err
	}
	for model, list := range before {
		var line delivery.Quarantine
		for _, e := range now.Entries[model] {
			line.Entries = append(line.Entries, e.Quarantined)
		}
		joined := plan.FollowQuarantine(list, now.Commit, line)
		now.Entries[model] = plan.FollowQuarantine(joined, now.Commit, t.Intent.Quarantines.Of(model))
	}
	return nil
}

// KeepQuarantine writes the entries to the ledger if they have changed.
func (h *History) KeepQuarantine(ctx context.Context) error {
	if h.quarantine == nil {
		return nil
	}
	digest := delivery.DigestOf("held", h.quarantine.Entries)
	if digest == h.quarantined || len(h.quarantine.Entries) == 0 {
		return nil
	}
	err := h.writeRecord(ctx, quarantineKey, h.quarantine)
	if err == nil {
		h.quarantined = digest
	}
	return err
}
