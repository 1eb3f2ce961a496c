package history

import (
	"context"
	"encoding/json"
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

// quarantineKey is where the ledger keeps what main has quarantined. An earlier version of AOB kept it under
// oldQuarantineKey, which is also the key of the last good commit of a target branch called held.
const (
	quarantineKey    = "quarantine/held"
	oldQuarantineKey = lastGoodKey + "held"
)

// A quarantineLog is what main's quarantine files have contained, up to a commit.
type quarantineLog struct {
	Commit  string                 `json:"commit"`
	Entries map[string][]plan.Held `json:"entries"`
}

// Quarantined returns what main has quarantined, from its line of first parents: so a file that was removed, a merge
// that took the wrong side and several commits in one push are all found. The ledger keeps the entries too: where main
// was moved back, or to a line that does not show them, they hold all the same. What a line that AOB never saw has
// quarantined is not known.
//
// What cannot be read is named in main: what was known before, and what main's tree says, hold meanwhile.
func (h *History) Quarantined(ctx context.Context, main plan.Main) map[string][]plan.Held {
	if main.Commit == "" {
		return nil
	}
	entries, bad, err := h.readQuarantine(ctx, main.Commit)
	switch {
	case err != nil:
		main.Unread[""] = err.Error()
		known := map[string][]plan.Held{}
		if h.quarantine != nil {
			known = maps.Clone(h.quarantine.Entries)
		}
		for model, q := range main.Intent.Quarantines {
			known[model] = plan.Hold(known[model], main.Commit, q)
		}
		entries = known
		h.turn.Note(quarantineTrouble, err)
	case len(bad) > 0:
		for _, one := range bad {
			main.Unread[one.What] = one.Why
		}
		h.turn.Note(quarantineTrouble, bad)
	default:
		h.turn.Note(quarantineTrouble, nil)
		return entries
	}
	h.turn.In(retryAfter, "main's quarantine is read again")
	return entries
}

// readQuarantine follows main's quarantine files to its newest commit. What was followed
// before is not read again. Models of which a file cannot be read are named; they are read again the next time.
func (h *History) readQuarantine(ctx context.Context, main string) (map[string][]plan.Held, delivery.Unreadable,
	error) {
	if h.quarantine == nil {
		kept, err := h.ledger.Records(ctx, quarantineKey)
		if err != nil {
			return nil, nil, err
		}
		text, old := kept[quarantineKey].Content, ""
		if text == "" {
			if kept, err = h.ledger.Records(ctx, oldQuarantineKey); err != nil {
				return nil, nil, err
			}
			if old = kept[oldQuarantineKey].Content; strings.HasPrefix(old, "{") {
				text = old
			}
		}
		h.quarantine = &quarantineLog{}
		if text != "" {
			if err := json.Unmarshal([]byte(text), h.quarantine); err != nil {
				h.turn.Log.Warn("what main has quarantined cannot be read from the ledger; reading main's history",
					"error", err.Error())
				h.quarantine = &quarantineLog{}
			}
		}
		if old == "" { // else it is written to the new place
			h.quarantined = delivery.DigestOf("held", h.quarantine.Entries)
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
	now := quarantineLog{Commit: main, Entries: map[string][]plan.Held{}}
	if reached {
		now.Entries = maps.Clone(before.Entries)
	}
	var bad delivery.Unreadable
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

// follow takes in what one commit did to the quarantine files, and names the models of which it cannot be read.
func (h *History) follow(entries map[string][]plan.Held, c git.LineChange) (bad delivery.Unreadable) {
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
				continue // it cannot be read, so it neither adds nor lifts anything
			}
		}
		entries[model] = plan.Hold(entries[model], c.Commit, q)
	}
	return bad
}

// rejoin adds what main had quarantined before it was moved to a line that does not go on from
// there.
func (h *History) rejoin(now *quarantineLog, before map[string][]plan.Held) error {
	t, err := h.commits.Tree(now.Commit)
	if err != nil {
		return err
	}
	for model, list := range before {
		var line delivery.Quarantine
		for _, e := range now.Entries[model] {
			line.Entries = append(line.Entries, e.Quarantined)
		}
		joined := plan.Hold(list, now.Commit, line)
		now.Entries[model] = plan.Hold(joined, now.Commit, t.Intent.Quarantines[model])
	}
	return nil
}

// KeepQuarantine writes what main has quarantined to the ledger, where that changed.
func (h *History) KeepQuarantine(ctx context.Context) error {
	if h.quarantine == nil {
		return nil
	}
	digest := delivery.DigestOf("held", h.quarantine.Entries)
	if digest == h.quarantined || len(h.quarantine.Entries) == 0 {
		return nil
	}
	text, err := json.Marshal(h.quarantine)
	if err != nil {
		return err
	}
	if err := h.ledger.PutRecord(ctx, quarantineKey, string(text), h.turn.Now()); err != nil {
		return fmt.Errorf("remember what main has quarantined: %w", err)
	}
	h.quarantined = digest
	return nil
}
