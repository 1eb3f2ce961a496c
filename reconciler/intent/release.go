package intent

import "github.com/autonomos/aob/reconciler/delivery"

// release checks the rules between a release's fields.
func (d *document) release(r *delivery.Release) {
	if !d.valid("measured") {
		return
	}
	for i := 1; i < len(r.Measured); i++ {
		if before := r.Measured[i-1].Gate; r.Measured[i].Gate <= before {
			d.complain(item("measured", i)+".gate",
				"want the gates in order and each once, got %s after %s; restore the file as AOB wrote it",
				quote(r.Measured[i].Gate), quote(before))
		}
	}
}
