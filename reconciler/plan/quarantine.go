package plan

// This file keeps out what main forbids. A quarantine is of bundles, by digest:
// it holds under whatever name a model ships them. What holds the same weights, as
// with other thresholds, is no way around it.

import (
	"fmt"
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A hold is what keeps a bundle from being shipped.
type hold struct {
	file string // where it can be lifted
	why  string
}

func (h hold) String() string { return h.why + "; lift it in " + h.file + " in a PR of its own" }

// held says what keeps a bundle from shipping as a model, under any of its names:
// its own quarantine, or that of a bundle with the same weights. What main accepted
// of the model before stays a way back, unless it is forbidden itself.
func (m *maker) held(names []string, bundle delivery.Digest) (hold, bool) {
	accepted := slices.ContainsFunc(names, func(name string) bool {
		return slices.ContainsFunc(m.w.Evidence.Accepted[name], func(a delivery.Acceptance) bool { return a.Bundle == bundle })
	})
	for _, model := range slices.Sorted(maps.Keys(m.w.Main.Intent.Quarantines)) {
		q := m.w.Main.Intent.Quarantines[model]
		file := "models/" + model + ".quarantine.yaml"
		for _, e := range q.Entries {
			why, held := q.Holds(e.Digest)
			switch {
			case !held:
			case e.Digest == bundle:
				return hold{file, fmt.Sprintf("bundle %s is quarantined: %s", bundle.Short(), why)}, true
			case !accepted && m.weights(bundle) != "" && m.weights(e.Digest) == m.weights(bundle):
				return hold{file, fmt.Sprintf("bundle %s has the weights of bundle %s, which is quarantined: %s", bundle.Short(), e.Digest.Short(), why)}, true
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
	for _, r := range e.Resolved {
		if r.Result.Bundle == bundle {
			return r.Input.Valid.Model
		}
	}
	for _, t := range e.ByRun {
		if t.Bundle == bundle {
			return t.Training.Result.Model
		}
	}
	return ""
}

// forbids reports whether a tree holds a bundle in quarantine.
func forbids(i delivery.Intent, bundle delivery.Digest) bool {
	for _, q := range i.Quarantines {
		if _, held := q.Holds(bundle); held {
			return true
		}
	}
	return false
}

// forbidden lists the bundles that main holds in quarantine.
func (m *maker) forbidden() []delivery.Digest {
	var list []delivery.Digest
	for _, model := range slices.Sorted(maps.Keys(m.w.Main.Intent.Quarantines)) {
		q := m.w.Main.Intent.Quarantines[model]
		for _, e := range q.Entries {
			if _, held := q.Holds(e.Digest); held && !slices.Contains(list, e.Digest) {
				list = append(list, e.Digest)
			}
		}
	}
	return list
}

// lifts counts how often a bundle was lifted in a model's quarantine file, under any
// of its names.
func (m *maker) lifts(model string, bundle delivery.Digest) int {
	n := 0
	for _, name := range m.w.names(model) {
		n += m.w.Main.Intent.Quarantines[name].Lifts(bundle)
	}
	return n
}
