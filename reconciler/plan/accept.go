package plan

// This file lets an owner of a gate accept an unsure verdict. An accept names the verdict's key, so it does not hold
// for other content, another baseline, other labels or another gate. A failed verdict cannot be accepted.

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
	How     string // the evidence that By wrote the comment
}

// AcceptCode is what a comment must name to accept a verdict. It is as long as [ApprovalCode] for the same reason: the
// author of a pull request must not be able to find two verdicts with the same code, a good one to be accepted and a
// bad one to push afterwards.
func AcceptCode(v delivery.Verdict) string { return v.Key.Hex()[:32] }

// owners returns who may accept verdicts of a gate. Where main has the gate, main's list counts, so that a pull request
// cannot name its own owners.
func (m *maker) owners(j judged) []string {
	if onMain, ok := m.w.Main.Intent.Gates.Get(j.name); ok {
		return onMain.Owners
	}
	return j.gate.Owners
}

// Owns reports whether somebody accepts as one of these owners.
func (a AcceptComment) Owns(owners []string) bool { return a.owner(owners) >= 0 }

// owner returns the index of the owner as which the author of the comment accepts; -1 for none. A team's name means the
// team: a user with the same name does not count.
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

// refused explains why accept comments do not count. Comments about other gates or models are skipped.
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
			f = fact(code.AcceptUnknown, values{By: a.By, Command: a.Code})
		case of.Gate == v.Gate && of.Model == v.Model:
			f = fact(code.AcceptStale, values{By: a.By, Command: a.Code})
		}
		if !f.IsZero() && !slices.ContainsFunc(why, f.Is) {
			why = append(why, f)
		}
	}
	return why
}

// acceptOf finds the accept of an unsure verdict: in a signed release statement of the model, or in an owner's comment.
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
	for _, a := range r.proposal.Accepts { // oldest first: the first accept counts
		as := a.owner(owners)
		if as >= 0 && a.Code == AcceptCode(v) && a.Because != "" && a.How != "" && !a.Reader {
			return &delivery.Accept{Verdict: v.Key, By: a.By, As: owners[as], Because: a.Because, At: a.At, How: a.How},
				false
		}
	}
	return nil, false
}

// An UnsureVerdict is an unsure verdict of a gate, and its accept if there is one.
type UnsureVerdict struct {
	Gate   string
	Owners []string // who may settle it
	Code   string   // the code that an accept must name
	Reason delivery.Fact
	Accept *delivery.Accept // nil until one has
	Signed bool             // the accept is in a release statement
	HowTo  delivery.Fact    // how an owner accepts it

	// Refused says why accept comments do not count.
	Refused []delivery.Fact
}

// Fact says who accepted the verdict, or how it can be accepted.
func (d UnsureVerdict) Fact() delivery.Fact {
	switch {
	case d.Accept != nil:
		return accepted(*d.Accept, d.Reason)
	case len(d.Owners) == 0:
		return d.Reason.In(code.VerdictUnownable, values{})
	}
	return fact(code.VerdictUnsure, values{Facts: []delivery.Fact{d.Reason, d.HowTo}})
}

// OfGate is Fact with the gate's name.
func (d UnsureVerdict) OfGate() delivery.Fact { return d.Fact().In(code.OfGate, values{Gate: d.Gate}) }

// accepted says who has accepted a verdict, and the gate's reason.
func accepted(a delivery.Accept, reason delivery.Fact) delivery.Fact {
	return reason.In(code.VerdictAccepted, values{By: a.By, Text: a.Because})
}

// howToAccept says how an owner can accept an unsure verdict.
func (m *maker) howToAccept(d UnsureVerdict, p Proposal) delivery.Fact {
	switch who := p.Waits[d.Code]; {
	case m.w.Server.Socket:
		return fact(code.AcceptBySocket, values{Names: d.Owners, PRs: []int{p.Number}, Command: d.Code})
	case len(who) > 0:
		return fact(code.AcceptByReaction, values{Names: who})
	}
	return fact(code.AcceptByComment, values{Names: d.Owners, Command: d.Code})
}
