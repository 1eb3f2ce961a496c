package reconciler

// This file remembers the entries of quarantine files that main has held, whatever its
// tree says by now.
//
// They are read from main's line of first parents. So a file that was removed, a
// merge that took the wrong side and several commits in one push are all found. The
// ledger keeps the entries too: where main was moved back, or onto a line that does
// not show them, they hold all the same. What a line that AOB never saw has held is
// not known.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/plan"
)

// heldKey is where the ledger keeps what main holds in quarantine. oldHeldKey is where an earlier version of AOB kept
// it, which is also the key of the last good commit of a target branch called held.
const (
	heldKey    = "quarantine/held"
	oldHeldKey = mainGood + "held"
)

// heldMain is what main's quarantine files had said by a commit.
type heldMain struct {
	Commit  string                 `json:"commit"`
	Entries map[string][]plan.Held `json:"entries"`
}

// heldNow returns what main holds in quarantine. What cannot be read of it is named in the world: what was known
// before, and what main's tree says, hold meanwhile.
func (r *Reconciler) heldNow(ctx context.Context, w *plan.World) map[string][]plan.Held {
	if w.Main.Commit == "" {
		return nil
	}
	entries, bad, err := r.held(ctx, w.Main.Commit)
	switch {
	case err != nil:
		w.Main.Unread[""] = err.Error()
		known := map[string][]plan.Held{}
		if r.seen.held != nil {
			known = maps.Clone(r.seen.held.Entries)
		}
		for model, q := range w.Main.Intent.Quarantines {
			known[model] = plan.Hold(known[model], w.Main.Commit, q)
		}
		entries = known
		r.troubles.note(heldTrouble, err)
	case len(bad) > 0:
		for _, one := range bad {
			w.Main.Unread[one.What] = one.Why
		}
		r.troubles.note(heldTrouble, bad)
	default:
		r.troubles.note(heldTrouble, nil)
		return entries
	}
	r.wakeAt(r.Now().Add(pastLasts))
	return entries
}

// held follows main's quarantine files to its newest commit. What was followed
// before is not read again. Models of which a file cannot be read are named; they are read again the next time.
func (r *Reconciler) held(ctx context.Context, main string) (map[string][]plan.Held, delivery.Unreadable, error) {
	if r.seen.held == nil {
		said, err := r.Ledger.Records(ctx, heldKey)
		if err != nil {
			return nil, nil, err
		}
		text, old := said[heldKey].Content, ""
		if text == "" {
			if said, err = r.Ledger.Records(ctx, oldHeldKey); err != nil {
				return nil, nil, err
			}
			if old = said[oldHeldKey].Content; strings.HasPrefix(old, "{") {
				text = old
			}
		}
		r.seen.held = &heldMain{}
		if text != "" {
			if err := json.Unmarshal([]byte(text), r.seen.held); err != nil {
				r.Log.Warn("what main held in quarantine cannot be read from the ledger; reading main's history",
					"error", err.Error())
				r.seen.held = &heldMain{}
			}
		}
		if old == "" { // else it is written to the new place
			r.seen.heldKept = delivery.DigestOf("held", r.seen.held.Entries)
		}
	}
	before := r.seen.held
	if before.Commit == main {
		return before.Entries, nil, nil
	}
	changes, reached, err := r.Repo.Line(main, before.Commit, "models", math.MaxInt)
	if err != nil {
		return nil, nil, err
	}
	now := heldMain{Commit: main, Entries: map[string][]plan.Held{}}
	if reached {
		now.Entries = maps.Clone(before.Entries)
	}
	var bad delivery.Unreadable
	for _, c := range slices.Backward(changes) {
		bad = append(bad, r.follow(now.Entries, c)...)
	}
	if !reached {
		if err := r.rejoin(&now, before.Entries); err != nil {
			return nil, nil, err
		}
	}
	if len(bad) == 0 {
		r.seen.held = &now
	}
	return now.Entries, bad, nil
}

// follow takes in what one commit did to the quarantine files, and names the models of which it cannot be read.
func (r *Reconciler) follow(entries map[string][]plan.Held, c git.LineChange) (bad delivery.Unreadable) {
	for name, blob := range c.Files {
		model, ok := strings.CutSuffix(name, ".quarantine.yaml")
		if !ok {
			continue
		}
		var q delivery.Quarantine
		if blob != "" {
			data, err := r.Repo.Blob(blob, intent.MaxFileSize)
			if errors.Is(err, git.ErrTooBig) {
				continue
			}
			if err != nil {
				bad = append(bad, delivery.Unread{What: model, Why: fmt.Sprintf("models/%s at commit %.12s: %s", name,
					c.Commit, err)})
				continue
			}
			doc := intent.ParseFile(intent.File{Path: "models/" + name, Size: int64(len(data)), Data: data},
				intent.Options{})
			if q, ok = doc.Quarantine(); !ok {
				continue // it cannot be read, so it neither adds nor lifts anything
			}
		}
		entries[model] = plan.Hold(entries[model], c.Commit, q)
	}
	return bad
}

// rejoin adds what main held before it was moved to a line that does not go on from
// there.
func (r *Reconciler) rejoin(now *heldMain, before map[string][]plan.Held) error {
	t, err := r.tree(now.Commit)
	if err != nil {
		return err
	}
	for model, list := range before {
		var line delivery.Quarantine
		for _, e := range now.Entries[model] {
			line.Entries = append(line.Entries, e.Quarantined)
		}
		joined := plan.Hold(list, now.Commit, line)
		now.Entries[model] = plan.Hold(joined, now.Commit, t.intent.Quarantines[model])
	}
	return nil
}

// keepHeld writes down what main holds, where that changed.
func (r *Reconciler) keepHeld(ctx context.Context) error {
	if r.seen.held == nil {
		return nil
	}
	digest := delivery.DigestOf("held", r.seen.held.Entries)
	if digest == r.seen.heldKept || len(r.seen.held.Entries) == 0 {
		return nil
	}
	text, err := json.Marshal(r.seen.held)
	if err != nil {
		return err
	}
	if err := r.Ledger.PutRecord(ctx, heldKey, string(text), r.Now()); err != nil {
		return fmt.Errorf("remember what main holds in quarantine: %w", err)
	}
	r.seen.heldKept = digest
	return nil
}
