package reconciler

// Fleets with variants in the small world: what people do with them, and what must hold.

import (
	"fmt"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
)

// What people do with variants. Each must really happen now and then.
const (
	variantShipped  = "a fleet gets a variant"
	variantMissing  = "a fleet asks for a variant that the release does not have"
	variantReversed = "a fleet goes from a variant back to FP32"
)

// withVariant is the file of fleet demo, which asks for a variant of a model.
func withVariant(variant string) string { return fleet("demo", "shapes", "variant: "+variant+"\n") }

// asksFor lets fleet demo ask for a variant, and sometimes fleet late too: by a push, or by a pull request that is
// merged when it may be.
func (s *sim) asksFor(a, b int) {
	variants := []string{delivery.INT8, delivery.FP16, delivery.INT8, delivery.FP32}
	files := map[string]string{"fleets/demo.yaml": withVariant(of(variants, a))}
	if b%3 == 0 {
		files["fleets/late.yaml"] = fleet("late", "shapes", "after: {fleet: demo, healthy: 1m}\nvariant: "+
			of(variants, b/3)+"\n")
	}
	if a%2 == 0 {
		s.pushMain(files)
		return
	}
	branch := fmt.Sprint("variant", len(s.repo.commits))
	s.change(branch, "dev", files)
	s.rest()
	s.mergeOne(s.forge.prs[s.forge.open(branch, "dev")], b, false)
	s.rest()
}

// shipsVariant releases a model with variants and lets fleet demo ask for one, in one pull request or in two.
func (s *sim) shipsVariant(a, b int) {
	list := of([]string{"[fp32, int8]", "[fp32, fp16, int8]", "[fp32, fp16]"}, a)
	files := map[string]string{"models/shapes.yaml": withLines(model("shapes", of(allEpochs, b)), "variants: "+list)}
	if a%2 == 0 {
		files["fleets/demo.yaml"] = withVariant(delivery.INT8)
	}
	branch := fmt.Sprint("variants", len(s.repo.commits))
	s.repo.commit(branch, s.main(), s.now, files)
	n := s.forge.open(branch, "dev")
	s.rest()
	s.mergeOne(s.forge.prs[n], b, false)
	s.rest()
	if a%2 == 1 {
		s.asksFor(b, a)
		s.rest()
	}
}

// everAsked lists the variants that a fleet's file on main has ever named.
func (s *sim) everAsked(name string) []string {
	var list []string
	for _, c := range s.repo.ancestors(s.main()) {
		blob := s.repo.commits[c].files["fleets/"+name+".yaml"]
		if blob == "" {
			continue
		}
		file := intent.File{Path: "fleets/" + name + ".yaml", Data: s.repo.blobs[blob]}
		if f, ok := intent.ParseFile(file, intent.Options{}).Value.(delivery.Fleet); ok {
			list = append(list, f.Ships())
		}
	}
	return list
}

// kindOf returns which variant a bundle is.
func (s *sim) kindOf(bundle delivery.Digest) string {
	if v := s.signed.variants[bundle]; v != "" {
		return v
	}
	return delivery.FP32
}

// releasesOf lists the accepted releases that a target is of: with its bundle, or with that as a variant which a
// signed release statement says has passed every gate.
func (s *sim) releasesOf(t delivery.Target) (list []delivery.Acceptance) {
	for _, all := range s.signed.index.Accepted { // under a former name too
		for _, a := range all {
			signed := a.Bundle == t.Bundle || slices.ContainsFunc(s.signed.index.Releases,
				func(r delivery.ReleaseStatement) bool {
					lists := func(v delivery.JudgedVariant) bool { return v.Bundle == t.Bundle }
					return r.Model == a.Model && r.Version == a.Version && r.Bundle == a.Bundle &&
						slices.ContainsFunc(r.Variants, lists)
				})
			if _, has := a.Variant(t.Bundle); has && signed && a.Version == t.Version {
				list = append(list, a)
			}
		}
	}
	return list
}

// heldToo reports whether main's own quarantine files forbid a bundle, or the release that it is a variant of.
func (s *sim) heldToo(t delivery.Target) bool {
	return s.held(t.Bundle) || slices.ContainsFunc(s.releasesOf(t), func(a delivery.Acceptance) bool {
		return s.held(a.Bundle)
	})
}

// checkVariants fails unless each variant that main accepts with a release is in the release file, and passes every
// gate of main that covers the model.
func (s *sim) checkVariants(what string, a delivery.Acceptance, release delivery.Release, main delivery.Intent) {
	for _, v := range a.Variants {
		if !slices.ContainsFunc(release.Variants, func(r delivery.ReleasedVariant) bool {
			return r.Variant == v.Variant && r.Bundle == v.Bundle
		}) {
			s.fail("%s with variant %s, which the release file does not name", what, v.Variant)
		}
		if s.kindOf(v.Bundle) != v.Variant || s.signed.bundles[v.Bundle].Spec.Digest() !=
			s.signed.bundles[a.Bundle].Spec.Digest() {
			s.fail("%s with variant %s, which bundle %s is not", what, v.Variant, v.Bundle.Short())
		}
		for _, g := range main.Covering(a.Model) {
			s.checkPasses(what+" as "+v.Variant, main.Gates.Of(g), v.Bundle, false)
		}
	}
}

// checkAsked fails where a fleet gets a variant that nobody has ever asked for.
func (s *sim) checkAsked(ring string, t delivery.Target) {
	asked := s.everAsked(ring)
	if kind := s.kindOf(t.Bundle); len(asked) > 0 && !slices.Contains(asked, kind) { // none: main is not there now
		s.fail("fleet %s gets version %d as %s, and its file never asked for that", ring, t.Version, kind)
	}
}

// checkFleetsAsk fails where a pull request is green that lets a fleet ask for a variant which the release that it
// leaves on main does not have.
func (s *sim) checkFleetsAsk(commit string, head, base delivery.Intent) {
	for name, f := range head.Fleets.All() {
		before, there := base.Fleets.Get(name)
		release, named := head.Releases.Get(f.Runs)
		if f.Ships() == delivery.FP32 || f.Version > 0 || !named || there && before.Runs == f.Runs &&
			before.Version == f.Version && before.Ships() == f.Ships() {
			continue
		}
		has := slices.ContainsFunc(release.Variants, func(v delivery.ReleasedVariant) bool {
			return v.Variant == f.Ships()
		})
		waits := s.held(release.Bundle) && slices.Contains(head.Models.Of(f.Runs).Variants, f.Ships())
		if !has && !waits {
			s.fail("green on %.8s, which lets fleet %s ask for %s, and version %d of %s has none", commit, name,
				f.Ships(), release.Version, f.Runs)
		}
	}
}

// owed returns the bundle that a fleet gets of an accepted release. It is empty where the release has no such variant,
// or that is in quarantine.
func (s *sim) owed(f delivery.Fleet, release delivery.Release) delivery.Digest {
	for _, a := range s.signed.index.Accepted[f.Runs] {
		if a.Version != release.Version || a.Bundle != release.Bundle {
			continue
		}
		if bundle, ok := a.As(f.Ships()); ok {
			if held, _ := s.quarantines(bundle); !held {
				return bundle
			}
		}
	}
	return ""
}
