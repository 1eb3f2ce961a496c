package rollout

import (
	"fmt"
	"strings"
	"time"
)

// String returns the facts, what is published and when to decide again.
func (d Decision) String() string {
	var b strings.Builder
	for i, f := range d.Facts {
		fmt.Fprintf(&b, "%s%s", strings.Repeat("\n", min(i, 1)), f)
	}
	if p := d.Desired; p != nil {
		fmt.Fprintf(&b, "\n  publish: version %d to %.4g of %s", p.Release.Version, p.Share, p.Ring)
		if p.Previous != nil {
			fmt.Fprintf(&b, ", version %d to the others", p.Previous.Version)
		}
	}
	if !d.Wake.IsZero() {
		b.WriteString("\n  decide again: " + d.Wake.UTC().Format(time.RFC3339))
	}
	return b.String()
}
