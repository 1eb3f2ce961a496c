package fleet

import (
	"crypto/rand"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// maxPlaces is how many installations with the same name are remembered.
const maxPlaces = 4

// recordPlace records which installation sent a report, and returns a new receipt for it. An installation sends the
// receipt of its previous report. One that lost its state, or was restored from a copy, is a new place, and its old
// place never reports again. If an older place reports again, two installations use the same name.
func recordPlace(d *delivery.Device, r delivery.Report, now time.Time) (receipt string) {
	if r.Installation == "" {
		return "" // an old agent that sends no receipts
	}
	receipt = rand.Text()
	mine := delivery.Place{Installation: r.Installation, Boot: r.Boot, Receipt: receipt, LastHeard: now}
	places := slices.Clone(d.Places)
	at := slices.IndexFunc(places, func(p delivery.Place) bool {
		return r.Receipt != "" && p.Receipt == r.Receipt && p.Installation == r.Installation
	})
	if at > 0 { // another installation has reported since
		d.TwoPlacesAt = now
	}
	if at >= 0 {
		places = slices.Delete(places, at, at+1)
	}
	places = slices.Insert(places, 0, mine)
	d.Places = places[:min(len(places), maxPlaces)]
	return receipt
}

// sameReport reports whether two reports are the same one, sent twice.
func sameReport(a, b delivery.Report) bool {
	a.Sent, b.Sent = time.Time{}, time.Time{}
	return string(delivery.Canonical(a)) == string(delivery.Canonical(b))
}
