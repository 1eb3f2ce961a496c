package plan

// This file keeps out what main forbids. A quarantine is of bundles, by digest:
// it holds under whatever name a model ships them. What holds the same weights, as
// with other thresholds, is no way around it.

import (
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A hold is what keeps a bundle from being shipped.
type hold struct {
	file string // where it can be lifted
	why  delivery.Fact
}

// blocks says what a pull request cannot do because of the hold, and where it can be lifted.
func (h hold) blocks() delivery.Fact { return h.why.In(code.QuarantineBlocks, values{File: h.file}) }

// A Held entry is one that a quarantine file of main has had.
type Held struct {
	delivery.Quarantined
	Lost string // the commit of main from which on its tree lacks the entry; empty while it is there
}

// Hold follows the entries of a model's quarantine file to the next content of that
// file, which a commit of main brought. An entry stays until it is lifted, also
// where the file lost it. An entry that was lost ends when the file says of the same
// bundle that it is lifted.
func Hold(held []Held, commit string, next delivery.Quarantine) []Held {
	matched := make([]bool, len(next.Entries))
	find := func(same func(delivery.Quarantined) bool) int {
		i := -1
		for j, e := range next.Entries {
			if i < 0 && !matched[j] && same(e) {
				i = j
			}
		}
		if i >= 0 {
			matched[i] = true
		}
		return i
	}
	list := make([]Held, len(held))
	there := make([]bool, len(held))
	// Entries that say the very same come first, so that two about one bundle are
	// not taken for each other.
	for _, same := range []func(a, b delivery.Quarantined) bool{
		func(a, b delivery.Quarantined) bool { return a == b },
		func(a, b delivery.Quarantined) bool { a.Lifted, b.Lifted = "", ""; return a == b },
	} {
		for i, h := range held {
			if there[i] {
				continue
			}
			if j := find(func(e delivery.Quarantined) bool { return same(h.Quarantined, e) }); j >= 0 {
				list[i], there[i] = Held{Quarantined: next.Entries[j]}, true
			}
		}
	}
	for i, h := range held {
		if there[i] {
			continue
		}
		if list[i] = h; h.Lost == "" {
			list[i].Lost = commit
		}
		lifts := slices.IndexFunc(next.Entries, func(e delivery.Quarantined) bool {
			return e.Digest == h.Digest && e.Lifted != ""
		})
		if h.Lifted == "" && lifts >= 0 && !matched[lifts] {
			list[i].Lifted = next.Entries[lifts].Lifted
		}
	}
	for j, e := range next.Entries {
		if !matched[j] {
			list = append(list, Held{Quarantined: e})
		}
	}
	return list
}

// HeldBy returns what a tree's quarantine files hold, without any history.
func HeldBy(i delivery.Intent) map[string][]Held {
	held := map[string][]Held{}
	for model, q := range i.Quarantines {
		held[model] = Hold(nil, "", q)
	}
	return held
}

// held says what keeps a bundle from shipping as a model, under any of its names:
// its own quarantine, or that of a bundle with the same weights. What main accepted
// of the model before stays a way back, unless it is forbidden itself.
func (m *maker) held(names []string, bundle delivery.Digest) (hold, bool) {
	accepted := slices.ContainsFunc(names, func(name string) bool {
		return slices.ContainsFunc(m.w.Evidence.Accepted[name], func(a delivery.Acceptance) bool {
			return a.Bundle == bundle
		})
	})
	for _, model := range slices.Sorted(maps.Keys(m.w.Main.Held)) {
		file := "models/" + model + ".quarantine.yaml"
		for _, e := range m.w.Main.Held[model] {
			switch {
			case e.Lifted != "":
			case e.Digest == bundle:
				return hold{file, fact(code.BundleQuarantined, values{Bundle: bundle, Text: e.Why})}, true
			case !accepted && m.weights(bundle) != "" && m.weights(e.Digest) == m.weights(bundle):
				return hold{file, fact(code.WeightsQuarantined,
					values{Bundle: bundle, FromBundle: e.Digest, Text: e.Why})}, true
			}
		}
	}
	return hold{}, false
}

// weights remembers what [Evidence.weights] finds: of bundles that are gone it takes a
// search.
func (m *maker) weights(bundle delivery.Digest) delivery.Digest {
	w, ok := m.weighed[bundle]
	if !ok {
		if m.weighed == nil {
			m.weighed = map[delivery.Digest]delivery.Digest{}
		}
		w = m.w.Evidence.weights(bundle)
		m.weighed[bundle] = w
	}
	return w
}

// weights finds the digest of a bundle's ONNX file, also where the registry does
// not hold the bundle any more.
func (e Evidence) weights(bundle delivery.Digest) delivery.Digest {
	if b, ok := e.Bundles[bundle]; ok {
		return b.Model
	}
	t, _ := e.training(bundle)
	return t.Training.Result.Model
}

// forbidden lists the bundles of which an entry is not lifted.
func forbidden(held map[string][]Held) []delivery.Digest {
	var list []delivery.Digest
	for _, model := range slices.Sorted(maps.Keys(held)) {
		for _, e := range held[model] {
			if e.Lifted == "" && !slices.Contains(list, e.Digest) {
				list = append(list, e.Digest)
			}
		}
	}
	return list
}

// heldAfter is what main will hold once a proposal is merged.
func (m *maker) heldAfter(p Proposal) map[string][]Held {
	held := map[string][]Held{}
	for model, list := range m.w.Main.Held {
		held[model] = Hold(list, p.Head, p.Merged.Quarantines[model])
	}
	for model, q := range p.Merged.Quarantines {
		if _, known := held[model]; !known {
			held[model] = Hold(nil, p.Head, q)
		}
	}
	return held
}

// lifts counts how often a bundle was lifted in a model's quarantine file, under any
// of its names.
func (m *maker) lifts(model string, bundle delivery.Digest) int {
	n := 0
	for _, name := range m.w.names(model) {
		for _, e := range m.w.Main.Held[name] {
			if e.Digest == bundle && e.Lifted != "" {
				n++
			}
		}
	}
	return n
}

// shortened says where one tree's quarantine files lack an entry of another's, or
// take a lift back, also of a model that is removed or renamed: the file stays, as
// what it holds is forbidden under any name.
func shortened(from, to delivery.Intent) (where values, is bool) {
	for _, model := range slices.Sorted(maps.Keys(from.Quarantines)) {
		before := Hold(nil, "", from.Quarantines[model])
		for i, e := range Hold(before, "later", to.Quarantines[model])[:len(before)] {
			if e.Lost != "" || before[i].Lifted != "" && e.Lifted != before[i].Lifted {
				return values{Model: model, Count: i + 1, Bundle: e.Digest}, true
			}
		}
	}
	return values{}, false
}

// lostEntries says what main's quarantine files lost without a lift.
func (m *maker) lostEntries() []delivery.Fact {
	var list []delivery.Fact
	for _, model := range slices.Sorted(maps.Keys(m.w.Main.Held)) {
		for _, e := range m.w.Main.Held[model] {
			if e.Lost != "" && e.Lifted == "" {
				list = append(list, fact(code.QuarantineEntryLost,
					values{Model: model, Bundle: e.Digest, Commit: e.Lost}))
			}
		}
	}
	return list
}
