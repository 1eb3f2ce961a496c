package plan

// This file says what runs have left in a cloud account.

import (
	"fmt"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// maxOrphans bounds what one pull request shows of what its runs have left.
const maxOrphans = 10

// orphansOf says what the runs of a pull request have left.
func (m *maker) orphansOf(p Proposal) (list []delivery.Fact) {
	for _, o := range m.w.Orphans {
		if o.Pull == p.Number && p.Number != 0 && len(list) < maxOrphans {
			list = append(list, OrphanFact(o))
		}
	}
	return list
}

// OrphanFact says what was found, and what has become of it.
func OrphanFact(o delivery.Orphan) delivery.Fact {
	v := values{At: o.At, Text: fmt.Sprintf("%s %s in %s", o.Kind, o.ID, o.Region)}
	if o.Run != "" {
		v.Names = []string{o.Run}
	}
	why := map[delivery.OrphanReason]delivery.Code{delivery.OrphanExpired: code.OrphanExpired,
		delivery.OrphanNoExpiry: code.OrphanNoExpiry, delivery.OrphanEnded: code.OrphanOfEnded,
		delivery.OrphanUnknown: code.OrphanOfUnknown}[o.Why]
	v.Facts = []delivery.Fact{fact(why, values{})}
	if o.Error != "" {
		v.Facts = append(v.Facts, fact(code.Plain, values{Text: o.Error}))
		return fact(code.OrphanLeft, v)
	}
	return fact(code.OrphanEnded, v)
}
