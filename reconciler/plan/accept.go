package plan

// This file lets an owner of a gate settle what the gate cannot tell. An accept
// is bound to the verdict's key: other content, another baseline, other labels or
// another gate are another verdict. A fail cannot be accepted.

import (
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// An AcceptComment is a comment that accepts an unsure verdict, with a reason.
type AcceptComment struct {
	Code    string
	By      string
	Teams   map[string]bool // of the repository: whether By belongs to them
	Because string
	Reader  bool // By may not write to the repository, so it does not count
	At      time.Time
	How     string // how it is known to be By's own word
}

// AcceptCode is what a comment must name to accept a verdict. It is long for the same reason as [ApprovalCode]: who
// makes the models must not find two verdicts with one code, a good one to get accepted and a bad one to push
// afterwards.
func AcceptCode(v delivery.Verdict) string { return v.Key.Hex()[:32] }

// owners says who may settle a gate's doubts: main's word where main has the
// gate, so that a pull request appoints nobody to judge it.
func (m *maker) owners(j judged) []string {
	if onMain, ok := m.w.Main.Intent.Gates[j.name]; ok {
		return onMain.Owners
	}
	return j.gate.Owners
}

// Owns reports whether somebody accepts as one of these owners.
func (a AcceptComment) Owns(owners []string) bool { return a.owner(owners) >= 0 }

// owner finds as which owner somebody accepts; -1 for none. The name of a team is
// the team's: whoever only has it as a user does not count.
func (a AcceptComment) owner(owners []string) int {
	return slices.IndexFunc(owners, func(o string) bool {
		for team, in := range a.Teams {
			if strings.EqualFold(o, team) {
				return in
			}
		}
		return strings.EqualFold(o, a.By)
	})
}

// refused explains why accept comments were ignored. Comments about other gates or models are skipped.
func (m *maker) refused(list []AcceptComment, owners []string, v delivery.Verdict) []delivery.Fact {
	var why []delivery.Fact
	for _, a := range list {
		var f delivery.Fact
		var of *delivery.Verdict
		for _, other := range m.w.Evidence.Verdicts {
			if AcceptCode(other) == a.Code {
				of = &other
			}
		}
		switch {
		case a.Code == AcceptCode(v) && a.Reader:
			f = fact(code.AcceptReader, values{By: a.By})
		case a.Code == AcceptCode(v):
			f = fact(code.AcceptNotOwner, values{By: a.By})
		case of == nil:
			f = fact(code.AcceptUnknown, values{By: a.By, Ask: a.Code})
		case of.Gate == v.Gate && of.Model == v.Model:
			f = fact(code.AcceptStale, values{By: a.By, Ask: a.Code})
		}
		if !f.IsZero() && !slices.ContainsFunc(why, f.Is) {
			why = append(why, f)
		}
	}
	return why
}

// acceptOf finds what settles an unsure verdict: a comment of an owner, or a
// release statement of the model that holds one already, where it is signed.
func (m *maker) acceptOf(r *progress, j judged, v delivery.Verdict) (accept *delivery.Accept, signed bool) {
	if v.Outcome != delivery.Unsure {
		return nil, false
	}
	owners := m.owners(j)
	for _, s := range m.w.Evidence.Releases {
		if !slices.Contains(r.names, s.Model) && s.Model != r.Model {
			continue
		}
		for _, g := range s.Gates {
			if g.Accept != nil && g.Accept.Verdict == v.Key && g.Settled(owners) {
				return g.Accept, true
			}
		}
	}
	for _, a := range r.proposal.Accepts { // oldest first: the first word stands
		as := a.owner(owners)
		if as >= 0 && a.Code == AcceptCode(v) && a.Because != "" && a.How != "" && !a.Reader {
			return &delivery.Accept{Verdict: v.Key, By: a.By, As: owners[as], Because: a.Because, At: a.At, How: a.How},
				false
		}
	}
	return nil, false
}

// A Doubt is a gate's unsure verdict: what an owner must settle, or has.
type Doubt struct {
	Gate   string
	Owners []string // who may settle it
	Code   string   // what they must name
	Reason delivery.Fact
	Accept *delivery.Accept // nil until one has
	Signed bool             // a release statement holds the accept
	Ask    delivery.Fact    // what an owner does to settle it

	// Refused says why accept comments do not count.
	Refused []delivery.Fact
}

// Fact says how it is settled, or was.
func (d Doubt) Fact() delivery.Fact {
	switch {
	case d.Accept != nil:
		return accepted(*d.Accept, d.Reason)
	case len(d.Owners) == 0:
		return d.Reason.In(code.VerdictUnownable, values{})
	}
	return fact(code.VerdictUnsure, values{Facts: []delivery.Fact{d.Reason, d.Ask}})
}

// OfGate is that with the gate's name.
func (d Doubt) OfGate() delivery.Fact { return d.Fact().In(code.OfGate, values{Gate: d.Gate}) }

// accepted says who has settled a verdict, and what the gate says.
func accepted(a delivery.Accept, reason delivery.Fact) delivery.Fact {
	return reason.In(code.VerdictAccepted, values{By: a.By, Text: a.Because})
}

// toAccept says what settles a doubt now.
func (m *maker) toAccept(d Doubt, p Proposal) delivery.Fact {
	switch who := p.Waits[d.Code]; {
	case m.w.Server.Socket:
		return fact(code.AcceptBySocket, values{Names: d.Owners, PRs: []int{p.Number}, Ask: d.Code})
	case len(who) > 0:
		return fact(code.AcceptByReaction, values{Names: who})
	}
	return fact(code.AcceptByComment, values{Names: d.Owners, Ask: d.Code})
}
