package view

// This file says what the server has stored, and why it stays.

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/retention"
	"github.com/autonomos/aob/reconciler/web"
)

// A Shelf is all that the server has stored.
type Shelf interface {
	Look(ctx context.Context) ([]retention.Decision, error)
	Sweep(ctx context.Context, pause, limit time.Duration) (gone []retention.Decision, left int, err error)
	// Totals returns what there was of each kind when it was last listed.
	Totals() map[retention.Kind]retention.Total
	// Blocked returns since when nothing is removed, because it is not known what is needed; zero if it is known.
	Blocked() time.Time
}

// removeFor is how long one request removes things.
const removeFor = 20 * time.Second

// Retention returns what the server has stored, and what of it is not needed.
func (s *Source) Retention(ctx context.Context, ask web.RetentionAsk) (web.Retention, error) {
	list, err := s.Shelf.Look(ctx)
	if err != nil {
		return web.Retention{}, err
	}
	v := web.Retention{At: s.Now(), Kinds: kindsOf(list)}
	var items []web.Stored
	for _, d := range list {
		if (ask.Kind == "" || ask.Kind == string(d.Kind)) && (ask.All || !d.Keep) {
			items = append(items, stored(d))
		}
	}
	slices.SortFunc(items, func(a, b web.Stored) int { return cmp.Compare(storedKey(a), storedKey(b)) })
	v.Items, v.More, v.Next = web.Cut(items, ask.Page, storedKey)
	return v, nil
}

func storedKey(s web.Stored) string { return s.Kind + " " + s.ID }

// Remove removes what is not needed, for some seconds.
func (s *Source) Remove(ctx context.Context) (web.Retention, error) {
	gone, left, err := s.Shelf.Sweep(ctx, 0, removeFor)
	if err != nil {
		return web.Retention{}, err
	}
	v := web.Retention{At: s.Now(), Kinds: kindsOf(gone), Left: left}
	for _, d := range gone {
		v.Items = append(v.Items, stored(d))
	}
	v.Items, v.More, _ = web.Cut(v.Items, web.Page{Limit: web.MaxLimit}, storedKey)
	return v, nil
}

func stored(d retention.Decision) web.Stored {
	return web.Stored{Kind: string(d.Kind), ID: d.ID, Name: d.Name, Bytes: d.Bytes, At: d.At, Keep: d.Keep,
		Sentence: sentence(d.Why)}
}

// kindsOf adds decisions up.
func kindsOf(list []retention.Decision) []web.StoredKind {
	var kinds []web.StoredKind
	for _, kind := range retention.Kinds {
		k := web.StoredKind{Kind: string(kind), Why: []web.Reason{}}
		at := map[delivery.Code]int{}
		for _, d := range list {
			if d.Kind != kind {
				continue
			}
			amount := &k.Remove
			if d.Keep {
				amount = &k.Keep
				i, ok := at[d.Why.Code]
				if !ok {
					i = len(k.Why)
					at[d.Why.Code], k.Why = i, append(k.Why, web.Reason{Sentence: sentence(d.Why)})
				}
				k.Why[i].Count++
				k.Why[i].Bytes += d.Bytes
			}
			amount.Count++
			amount.Bytes += d.Bytes
		}
		if k.Keep.Count+k.Remove.Count == 0 {
			continue
		}
		slices.SortStableFunc(k.Why, func(a, b web.Reason) int {
			last := func(r web.Reason) int { // what holds everything up comes first
				if r.Facts[0].Code == code.KeptUnknown {
					return 0
				}
				return 1
			}
			return cmp.Or(last(a)-last(b), b.Count-a.Count)
		})
		kinds = append(kinds, k)
	}
	return kinds
}
