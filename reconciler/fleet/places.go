package fleet

import (
	"crypto/rand"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// maxPlaces is how many installations under one name are told apart.
const maxPlaces = 4

// place notes from which installation a report comes, and gives it a new receipt.
// An installation returns the receipt of its last report. One that lost its state,
// or came back from a copy, is a new place, and the old one never speaks again.
// Where an old one does speak again, two installations take turns.
func place(d *delivery.Device, r delivery.Report, now time.Time) (receipt string) {
	if r.Installation == "" {
		return "" // an agent that knows nothing of receipts
	}
	receipt = rand.Text()
	mine := delivery.Place{Installation: r.Installation, Boot: r.Boot, Receipt: receipt, Seen: now}
	places := slices.Clone(d.Places)
	at := slices.IndexFunc(places, func(p delivery.Place) bool {
		return r.Receipt != "" && p.Receipt == r.Receipt && p.Installation == r.Installation
	})
	if at > 0 { // another one spoke in between
		d.Twice = now
	}
	if at >= 0 {
		places = slices.Delete(places, at, at+1)
	}
	places = slices.Insert(places, 0, mine)
	d.Places = places[:min(len(places), maxPlaces)]
	return receipt
}

// sameReport reports whether a report is one that was heard before, sent again.
func sameReport(a, b delivery.Report) bool {
	a.Sent, b.Sent = time.Time{}, time.Time{}
	return string(delivery.Canonical(a)) == string(delivery.Canonical(b))
}
