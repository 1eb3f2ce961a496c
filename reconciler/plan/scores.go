package plan

import (
	"maps"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// NeedsScores returns the bundles whose scores a plan of a world may need. Everything else of the world is there. They
// are what the specs of proposals and experiments were resolved to, seed by seed and with their thresholds, and the
// releases of their models, of what their gates compare with, and of the models whose release on main has still to be
// accepted.
func NeedsScores(w World) []delivery.Digest {
	e := w.Evidence
	wanted := map[delivery.Digest]bool{}
	model := func(m delivery.Model) {
		for _, spec := range slices.Concat(m.SeedDigests(), []delivery.Digest{m.SpecDigest()}) {
			wanted[e.BySpec[spec].Bundle] = true
		}
	}
	models := map[string]bool{}
	gates := func(in delivery.Intent, model string) {
		models[model] = true
		for _, g := range in.Covering(model) {
			for _, c := range in.Gates[g].Checks {
				if name, _, anchored := strings.Cut(c.Against, "@"); anchored {
					models[name] = true
				}
			}
		}
	}
	for _, p := range w.Proposals {
		for name, m := range p.Intent.Models {
			if base, ok := p.Base.Models[name]; ok && base.SpecDigest() == m.SpecDigest() &&
				p.Base.Releases[name].Bundle == p.Intent.Releases[name].Bundle {
				continue
			}
			gates(w.Main.Intent, name)
			gates(p.Intent, name)
			model(m)
			wanted[p.Intent.Releases[name].Bundle] = true
		}
		for name := range p.Base.Models {
			if _, kept := p.Intent.Models[name]; !kept { // it may go on under another name
				gates(w.Main.Intent, name)
			}
		}
		for name, g := range p.Intent.Gates {
			if base, ok := p.Base.Gates[name]; ok && base.Digest() == g.Digest() {
				continue
			}
			for _, model := range g.Covers {
				gates(p.Intent, model)
			}
		}
	}
	repointed := func(from, to string) {
		if from != to && from != "" && to != "" {
			gates(w.Main.Intent, from)
			gates(w.Main.Intent, to)
			model(w.Main.Intent.Models[to])
		}
	}
	for _, p := range w.Proposals {
		for name, f := range p.Merged.Fleets {
			was, there := w.Main.Intent.Fleets[name]
			repointed(w.Published[name].Model, f.Runs)
			repointed(was.Runs, f.Runs)
			for old, was := range w.Main.Intent.Fleets { // whose place a new one may take
				if _, kept := p.Merged.Fleets[old]; !there && !kept {
					repointed(was.Runs, f.Runs)
				}
			}
		}
	}
	for name, f := range w.Main.Intent.Fleets {
		repointed(w.Published[name].Model, f.Runs)
	}
	for _, name := range w.Asked {
		for _, model := range w.Main.Intent.Gates[name].Covers {
			models[model] = true
		}
	}
	for _, t := range w.Trials {
		models[t.Model] = true
		for _, v := range t.Variants {
			model(v.Model)
		}
	}
	for name, r := range w.Main.Intent.Releases {
		accepted := false
		for _, a := range e.Accepted[name] {
			accepted = accepted || (a.Bundle == r.Bundle && a.Spec == r.Spec && a.Version == r.Version)
		}
		if !accepted {
			gates(w.Main.Intent, name)
			wanted[r.Bundle] = true
		}
	}
	for model := range models {
		for _, name := range w.names(model) {
			for _, a := range e.Accepted[name] {
				wanted[a.Bundle] = true
			}
		}
	}
	for _, r := range e.Resolved {
		if wanted[r.Input.Valid.Bundle] {
			wanted[r.Result.Bundle] = true
		}
	}
	delete(wanted, "")
	return slices.Sorted(maps.Keys(wanted))
}
