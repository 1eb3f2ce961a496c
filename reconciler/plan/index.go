package plan

// This file finds signed statements without a walk over all of them. An index is kept from plan to plan, and what it
// has is made again only if what it was made of has changed.

import (
	"maps"
	"reflect"
	"slices"
	"unsafe"

	"github.com/autonomos/aob/reconciler/delivery"
)

// An index finds the statements of one evidence. Each part is made when it is first needed.
type index struct {
	releases []delivery.ReleaseStatement // that are indexed
	about    map[delivery.Digest][]*delivery.ReleaseStatement
	of       map[string][]*delivery.ReleaseStatement // by model

	renamed  *renamedModels
	verdicts map[delivery.Digest]delivery.Verdict // that are indexed
	judged   map[judgedOn][]delivery.Digest       // the keys of verdicts, sorted

	made      *madeBundles
	accepted  map[string][]delivery.Acceptance
	acceptOf  map[delivery.Digest][]delivery.Acceptance // by bundle, also of their variants
	version   int                                       // of the evidence of which looks were made
	looksOver delivery.Named[delivery.Model]            // the models of main at that time
	looks     map[lookKey]map[delivery.Digest]int       // the look number of each bundle
	probes    map[delivery.Digest]map[delivery.Digest]bool
	awaited   []awaited // by trees, the newest last
}

// An awaited is the result of AwaitedModels for a tree. Most trees have the gates and the names of models of another.
type awaited struct {
	gates  delivery.Named[delivery.Gate]
	models delivery.Named[delivery.Model]
	facts  []delivery.Fact
}

// awaitedModels is [AwaitedModels].
func (m *maker) awaitedModels(in delivery.Intent) []delivery.Fact {
	x := m.w.Evidence.lookup()
	for _, a := range x.awaited {
		if a.gates.Same(in.Gates) && a.models.Shares(in.Models) &&
			len(a.models.Changed(in.Models, func(string) bool { return true })) == 0 {
			return a.facts
		}
	}
	if len(x.awaited) == 8 {
		x.awaited = x.awaited[1:]
	}
	a := awaited{in.Gates, in.Models, AwaitedModels(in)}
	x.awaited = append(x.awaited, a)
	return a.facts
}

// renamedModels are the models of main that have a former name, sorted.
type renamedModels struct {
	version  int // of the evidence that was searched
	models   delivery.Named[delivery.Model]
	releases delivery.Named[delivery.Release]
	list     []string
}

// renamedModels returns the models of main that have a former name, sorted.
func (w World) renamedModels() []string {
	x, in := w.Evidence.lookup(), w.Main.Intent
	in.Models, in.Releases = in.Models.ReadAll(), in.Releases.ReadAll()
	if r := x.renamed; r != nil && r.version == w.Evidence.Version && r.models.Same(in.Models) &&
		r.releases.Same(in.Releases) {
		return r.list
	}
	r := &renamedModels{version: w.Evidence.Version, models: in.Models, releases: in.Releases}
	for model := range in.Models.All() {
		if w.formerName(model) != "" {
			r.list = append(r.list, model)
		}
	}
	x.renamed = r
	return r.list
}

// judgedOn is what verdicts are about: a model, on an eval set.
type judgedOn struct {
	model   string
	evalSet delivery.Digest
}

// verdictsOn returns the verdicts on a model on an eval set, by their keys.
func (e Evidence) verdictsOn(on judgedOn) []delivery.Verdict {
	x := e.lookup()
	if x.judged == nil || !sameMap(x.verdicts, e.Verdicts) {
		x.verdicts, x.judged = e.Verdicts, map[judgedOn][]delivery.Digest{}
		for key, v := range e.Verdicts {
			on := judgedOn{v.Model, v.EvalSet}
			x.judged[on] = append(x.judged[on], key)
		}
		for _, keys := range x.judged {
			slices.Sort(keys)
		}
	}
	return delivery.Each(x.judged[on], func(key delivery.Digest) delivery.Verdict { return e.Verdicts[key] })
}

// madeBundles says how bundles were made.
type madeBundles struct {
	runs     map[delivery.Digest]Trained
	resolved map[delivery.Digest]delivery.Resolved
	variants map[delivery.Digest][]delivery.MadeVariant

	trained     map[delivery.Digest]Trained
	withPoints  map[delivery.Digest]delivery.Digest // the bundle to which thresholds were added
	variantsAre map[delivery.Digest]delivery.MadeVariant
}

// sameMap reports whether two variables are one map. Evidence never changes a map that it has given out.
func sameMap[M ~map[K]V, K comparable, V any](a, b M) bool {
	return reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer()
}

// lookup returns the index of the evidence.
func (e Evidence) lookup() *index {
	if e.index == nil {
		return &index{}
	}
	return e.index
}

// releaseIndex indexes the release statements that are new.
func (e Evidence) releaseIndex() *index {
	x := e.lookup()
	n := len(x.releases)
	follows := n > 0 && len(e.Releases) >= n && unsafe.SliceData(x.releases) == unsafe.SliceData(e.Releases)
	if x.about == nil || !follows {
		n, x.about, x.of = 0, map[delivery.Digest][]*delivery.ReleaseStatement{},
			map[string][]*delivery.ReleaseStatement{}
	}
	for i := n; i < len(e.Releases); i++ {
		s := &e.Releases[i]
		x.of[s.Model] = append(x.of[s.Model], s)
		names := []delivery.Digest{s.Bundle, s.File.Bundle}
		for _, v := range s.Variants {
			names = append(names, v.Bundle)
		}
		slices.Sort(names)
		for _, bundle := range slices.Compact(names) {
			x.about[bundle] = append(x.about[bundle], s)
		}
	}
	x.releases = e.Releases
	return x
}

// release finds the first release statement that names a bundle, as the release or as a variant, and for which is
// returns true.
func (e Evidence) release(bundle delivery.Digest, is func(delivery.ReleaseStatement) bool) (
	found delivery.ReleaseStatement, ok bool) {
	for _, s := range e.releaseIndex().about[bundle] {
		if is(*s) {
			return *s, true
		}
	}
	return found, false
}

// releasesOf returns the release statements of a model.
func (e Evidence) releasesOf(model string) []*delivery.ReleaseStatement {
	return e.releaseIndex().of[model]
}

// madeIndex indexes how bundles were made.
func (e Evidence) madeIndex() *madeBundles {
	x := e.lookup()
	if m := x.made; m != nil && sameMap(m.runs, e.ByRun) && sameMap(m.resolved, e.Resolved) &&
		sameMap(m.variants, e.Variants) {
		return m
	}
	m := &madeBundles{runs: e.ByRun, resolved: e.Resolved, variants: e.Variants,
		trained:     make(map[delivery.Digest]Trained, len(e.ByRun)),
		withPoints:  make(map[delivery.Digest]delivery.Digest, len(e.Resolved)),
		variantsAre: map[delivery.Digest]delivery.MadeVariant{}}
	first := map[delivery.Digest]delivery.Digest{} // of several runs with one bundle, that with the first key counts
	for key, t := range e.ByRun {
		if at, there := first[t.Bundle]; !there || key < at {
			first[t.Bundle], m.trained[t.Bundle] = key, t
		}
	}
	clear(first)
	for key, r := range e.Resolved {
		if at, there := first[r.Result.Bundle]; !there || key < at {
			first[r.Result.Bundle], m.withPoints[r.Result.Bundle] = key, r.Input.Valid.Bundle
		}
	}
	for _, of := range slices.Sorted(maps.Keys(e.Variants)) {
		for _, v := range e.Variants[of] {
			if _, there := m.variantsAre[v.Result.Bundle]; !there {
				m.variantsAre[v.Result.Bundle] = v
			}
		}
	}
	x.made = m
	return m
}

// resolvedOf returns the bundle to which thresholds were added, or the bundle itself.
func (e Evidence) resolvedOf(bundle delivery.Digest) delivery.Digest {
	if of, ok := e.madeIndex().withPoints[bundle]; ok {
		return of
	}
	return bundle
}

// Training finds a bundle's training, or that of the bundle which its thresholds were added to, or which it is a
// variant of.
func (e Evidence) Training(bundle delivery.Digest) (Trained, bool) {
	bundle = e.resolvedOf(bundle)
	if v, ok := e.variantOf(bundle); ok {
		bundle = v.Input.Bundle
	}
	t, ok := e.madeIndex().trained[bundle]
	return t, ok
}

// variantOf finds how a variant was made.
func (e Evidence) variantOf(bundle delivery.Digest) (delivery.MadeVariant, bool) {
	v, ok := e.madeIndex().variantsAre[bundle]
	return v, ok
}

// acceptancesOf lists the releases that main has accepted with a bundle, as the release or as a variant of it.
func (e Evidence) acceptancesOf(bundle delivery.Digest) []delivery.Acceptance {
	x := e.lookup()
	if x.acceptOf == nil || !sameMap(x.accepted, e.Accepted) {
		x.accepted, x.acceptOf = e.Accepted, map[delivery.Digest][]delivery.Acceptance{}
		for _, model := range slices.Sorted(maps.Keys(e.Accepted)) {
			for _, a := range e.Accepted[model] {
				x.acceptOf[a.Bundle] = append(x.acceptOf[a.Bundle], a)
				for _, v := range a.Variants {
					x.acceptOf[v.Bundle] = append(x.acceptOf[v.Bundle], a)
				}
			}
		}
	}
	return x.acceptOf[bundle]
}
