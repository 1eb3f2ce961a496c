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
		file := "models/" + model + ".quarantine.yaml"
		for _, e := range m.w.Main.Intent.Quarantines[model].Entries {
			switch {
			case e.Lifted != "":
			case e.Digest == bundle:
				return hold{file, fmt.Sprintf("bundle %s is quarantined: %s", bundle.Short(), e.Why)}, true
			case !accepted && m.weights(bundle) != "" && m.weights(e.Digest) == m.weights(bundle):
				return hold{file, fmt.Sprintf("bundle %s has the weights of bundle %s, which is quarantined: %s", bundle.Short(), e.Digest.Short(), e.Why)}, true
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

// forbidden lists the bundles that a tree holds in quarantine.
func forbidden(i delivery.Intent) []delivery.Digest {
	var list []delivery.Digest
	for _, model := range slices.Sorted(maps.Keys(i.Quarantines)) {
		for _, e := range i.Quarantines[model].Entries {
			if e.Lifted == "" && !slices.Contains(list, e.Digest) {
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
