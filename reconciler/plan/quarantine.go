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

// A quarantineBlock is what keeps a bundle from being released.
type quarantineBlock struct {
	file string // where it can be lifted
	why  delivery.Fact
}

// blocks says why a pull request cannot release the bundle, and where the quarantine can be lifted.
func (q quarantineBlock) blocks() delivery.Fact {
	return q.why.In(code.QuarantineBlocks, values{File: q.file})
}

// A QuarantineEntry is one that a quarantine file of main has had.
type QuarantineEntry struct {
	delivery.Quarantined
	Lost string // the commit of main from which on its tree lacks the entry; empty while it is there
}

// FollowQuarantine follows the entries of a model's quarantine file to the file's next content, which a commit of main
// brought. An entry stays until it is lifted, also where the file lost it. A lost entry ends when the file says that
// the same bundle is lifted.
func FollowQuarantine(entries []QuarantineEntry, commit string, next delivery.Quarantine) []QuarantineEntry {
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
	list := make([]QuarantineEntry, len(entries))
	there := make([]bool, len(entries))
	// Entries that say the very same come first, so that two about one bundle are
	// not taken for each other.
	for _, same := range []func(a, b delivery.Quarantined) bool{
		func(a, b delivery.Quarantined) bool { return a == b },
		func(a, b delivery.Quarantined) bool { a.Lifted, b.Lifted = "", ""; return a == b },
	} {
		for i, h := range entries {
			if there[i] {
				continue
			}
			if j := find(func(e delivery.Quarantined) bool { return same(h.Quarantined, e) }); j >= 0 {
				list[i], there[i] = QuarantineEntry{Quarantined: next.Entries[j]}, true
			}
		}
	}
	for i, h := range entries {
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
			list = append(list, QuarantineEntry{Quarantined: e})
		}
	}
	return list
}

// QuarantineOf returns what a tree's quarantine files hold, without any history.
func QuarantineOf(i delivery.Intent) map[string][]QuarantineEntry {
	entries := map[string][]QuarantineEntry{}
	for model, q := range i.Quarantines {
		entries[model] = FollowQuarantine(nil, "", q)
	}
	return entries
}

// quarantined says what keeps a bundle from shipping as a model, under any of its names:
// its own quarantine, or that of a bundle with the same weights. What main accepted
// of the model before stays a way back, unless it is forbidden itself.
func (m *maker) quarantined(names []string, bundle delivery.Digest) (quarantineBlock, bool) {
	accepted := slices.ContainsFunc(names, func(name string) bool {
		return slices.ContainsFunc(m.w.Evidence.Accepted[name], func(a delivery.Acceptance) bool {
			return a.Bundle == bundle
		})
	})
	for _, model := range slices.Sorted(maps.Keys(m.w.Main.Quarantine)) {
		file := "models/" + model + ".quarantine.yaml"
		for _, e := range m.w.Main.Quarantine[model] {
			switch {
			case e.Lifted != "":
			case e.Digest == bundle:
				return quarantineBlock{file, fact(code.BundleQuarantined, values{Bundle: bundle, Text: e.Why})}, true
			case !accepted && m.weights(bundle) != "" && m.weights(e.Digest) == m.weights(bundle):
				return quarantineBlock{file, fact(code.WeightsQuarantined,
					values{Bundle: bundle, FromBundle: e.Digest, Text: e.Why})}, true
			}
		}
	}
	return quarantineBlock{}, false
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
func forbidden(entries map[string][]QuarantineEntry) []delivery.Digest {
	var list []delivery.Digest
	for _, model := range slices.Sorted(maps.Keys(entries)) {
		for _, e := range entries[model] {
			if e.Lifted == "" && !slices.Contains(list, e.Digest) {
				list = append(list, e.Digest)
			}
		}
	}
	return list
}

// quarantineAfter is what main will hold once a proposal is merged.
func (m *maker) quarantineAfter(p Proposal) map[string][]QuarantineEntry {
	entries := map[string][]QuarantineEntry{}
	for model, list := range m.w.Main.Quarantine {
		entries[model] = FollowQuarantine(list, p.Head, p.Merged.Quarantines[model])
	}
	for model, q := range p.Merged.Quarantines {
		if _, known := entries[model]; !known {
			entries[model] = FollowQuarantine(nil, p.Head, q)
		}
	}
	return entries
}

// lifts counts how often a bundle was lifted in a model's quarantine file, under any
// of its names.
func (m *maker) lifts(model string, bundle delivery.Digest) int {
	n := 0
	for _, name := range m.w.names(model) {
		for _, e := range m.w.Main.Quarantine[name] {
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
		before := FollowQuarantine(nil, "", from.Quarantines[model])
		for i, e := range FollowQuarantine(before, "later", to.Quarantines[model])[:len(before)] {
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
	for _, model := range slices.Sorted(maps.Keys(m.w.Main.Quarantine)) {
		for _, e := range m.w.Main.Quarantine[model] {
			if e.Lost != "" && e.Lifted == "" {
				list = append(list, fact(code.QuarantineEntryLost,
					values{Model: model, Bundle: e.Digest, Commit: e.Lost}))
			}
		}
	}
	return list
}
