package reconciler

// This file keeps what runs have cost, and tells the plan what instances cost.

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/turn"
)

// spendEvery is how much longer a run must have worked before its cost is stored again.
const spendEvery = delivery.Duration(time.Minute)

const spendTrouble = "what a run has cost cannot be read in the ledger, and does not count"

// addMoney adds to a world what runs have cost, what instances cost, and who gave a go.
func (r *Reconciler) addMoney(ctx context.Context, w *plan.World, approvals []ledger.Approval) {
	if r.observed.spent == nil {
		list, err := r.Ledger.Spends(ctx)
		if r.turn.Note(spendTrouble, err); !delivery.Usable(err) {
			r.turn.In(time.Second, "the ledger is read again")
			w.SpentUnknown = true
			return
		}
		r.observed.spent = map[delivery.Digest]delivery.Spend{}
		for _, s := range list {
			r.observed.spent[s.Run] = s
		}
	}
	for _, key := range slices.Sorted(maps.Keys(r.observed.spent)) {
		w.Spent = append(w.Spent, r.observed.spent[key])
	}
	w.Goers = map[int]map[string]string{}
	for _, a := range approvals {
		if w.Goers[a.PR] == nil {
			w.Goers[a.PR] = map[string]string{}
		}
		w.Goers[a.PR][a.Code] = a.Author
	}
	if r.Prices == nil {
		return
	}
	w.Prices, w.NoPrice = map[string]delivery.Price{}, map[string]string{}
	for _, instance := range plan.Instances(*w) {
		price, err := r.Prices(instance)
		if err != nil {
			w.NoPrice[instance] = err.Error()
			continue
		}
		w.Prices[instance] = price
	}
}

// keepSpends stores what runs have cost.
func (r *Reconciler) keepSpends(ctx context.Context, w *plan.World) error {
	for _, key := range slices.Sorted(maps.Keys(w.Runs)) {
		s := w.Runs[key].Spend(w.At)
		if s.Run == "" || r.observed.spent == nil {
			continue
		}
		before, known := r.observed.spent[key]
		if known && before.Phase == s.Phase && s.Took-before.Took < spendEvery {
			continue
		}
		if err := r.Ledger.PutSpend(ctx, s); err != nil {
			r.turn.Note(turn.LedgerReads, err)
			return err
		}
		r.observed.spent[key] = s
	}
	return nil
}
