package reconciler

// What must never happen, whatever the order of events: nothing is trained or said twice, nothing is green without
// evidence, fleets run what main has accepted, and no gate is lowered. These checks look at trees, signed statements
// and devices. They repeat no rule of package plan: what a gate decides, who may approve a run, and what a quarantine
// means over a history are cases of plan/testdata and of stories.

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/rollout"
)

// tree parses what a commit asks for.
func (s *sim) tree(commit string) (delivery.Intent, []delivery.Complaint) {
	return s.treeOf(s.repo.commits[commit].files)
}

// treeOf parses files, given as paths and blobs.
func (s *sim) treeOf(files map[string]string) (delivery.Intent, []delivery.Complaint) {
	var sources []intent.File
	for _, path := range slices.Sorted(maps.Keys(files)) {
		blob := files[path]
		sources = append(sources, intent.File{Path: path, Hash: blob, Size: int64(len(s.repo.blobs[blob])),
			Data: s.repo.blobs[blob]})
	}
	return parsed.Parse(sources)
}

func (s *sim) main() string { return s.repo.refs[git.Branch+"main"] }

// accepted reports whether there is an acceptance of a release.
func (s *sim) accepted(model string, r delivery.Release) bool {
	return slices.ContainsFunc(s.signed.index.Accepted[model], func(a delivery.Acceptance) bool {
		return a.Bundle == r.Bundle && a.Spec == r.Spec && a.Version == r.Version
	})
}

// held reports whether main's own quarantine files forbid a bundle.
func (s *sim) held(bundle delivery.Digest) bool { return s.heldIn(s.main())[bundle] }

// quarantines returns whether any commit of main has an entry about a bundle, and whether one lifts it.
func (s *sim) quarantines(bundle delivery.Digest) (held, lifted bool) {
	for _, c := range s.repo.ancestors(s.main()) {
		for path, blob := range s.repo.commits[c].files {
			if !strings.HasSuffix(path, ".quarantine.yaml") {
				continue
			}
			entries, known := s.repo.entries[blob]
			if !known {
				file := intent.File{Path: path, Data: s.repo.blobs[blob]}
				q, _ := intent.ParseFile(file, intent.Options{}).Value.(delivery.Quarantine)
				if entries = q.Entries; s.repo.entries == nil {
					s.repo.entries = map[string][]delivery.Quarantined{}
				}
				s.repo.entries[blob] = entries
			}
			for _, e := range entries {
				if e.Digest == bundle {
					held, lifted = true, lifted || e.Lifted != ""
				}
			}
		}
	}
	return held, lifted
}

// asKnown lets main be where the loop can know that it is, for a rule about what the loop
// does: it has read nothing since git went down.
func (s *sim) asKnown() (back func()) {
	main := git.Branch + "main"
	now, known := s.repo.refs[main], s.repo.observed[main]
	if !s.repo.down || known == "" {
		return func() {}
	}
	s.repo.refs[main] = known
	return func() { s.repo.refs[main] = now }
}

// checkPlan fails unless a plan that keeps parts of the one before is the plan from nothing, whatever has changed.
func (s *sim) checkPlan() {
	w := s.loop.observed.world
	if w.At.Equal(s.planned) {
		return
	}
	s.planned = w.At
	if got, want := s.memory.Make(w), plan.Make(w); !reflect.DeepEqual(got, want) {
		s.fail("the plan with parts of the one before:\n%s\nfrom nothing:\n%s", got, want)
	}
}

// checkGreen is called when aob/release turns to success on a commit.
func (s *sim) checkGreen(commit string) {
	if s.large {
		return
	}
	landed := slices.Contains(s.repo.ancestors(s.main()), commit)
	defer s.asKnown()()
	if landed && commit != s.main() {
		return // the forge says that it is merged; nothing is left to merge
	}
	if commit == s.main() {
		s.checkMainGreen(commit)
		return
	}
	known := s.loop.observed.refs[git.Branch+"main"]
	bases, _ := s.repo.MergeBases(commit, known)
	if len(bases) != 1 {
		s.fail("green on %.8s, which has %d best common ancestors with main", commit, len(bases))
	}
	head, complaints := s.treeOf(s.merged(s.main(), commit)) // what merging yields
	base, broken := s.tree(s.main())
	if len(complaints) > 0 && len(broken) == 0 {
		s.fail("green on %.8s, and merging it yields what cannot be read: %s", commit, complaints[0])
	}
	s.checkFleetsAsk(commit, head, base)
	for name, mdl := range head.Models.All() {
		release, named := head.Releases.Get(name)
		was, before := base.Models.Get(name)
		wasRelease, wasNamed := base.Releases.Get(name)
		sameSpec := before && was.Spec().Digest() == mdl.Spec().Digest()
		switch {
		case sameSpec && named == wasNamed && delivery.SameRelease(release, wasRelease):
			continue // unchanged
		case sameSpec && !named:
			continue // no release is asked for any more
		case s.bothChanged(known, commit, "models/"+name+".yaml"):
			continue // git joins their lines, or refuses to merge
		case !named:
			s.fail("green on %.8s, which changes %s and holds no release file", commit, name)
		case release.Spec != mdl.Spec().Digest():
			s.fail("green on %.8s, whose release file of %s names another spec than the tree's", commit, name)
		case s.held(release.Bundle):
			s.fail("green on %.8s, whose release of %s is quarantined", commit, name)
		case s.accepted(name, release):
			continue // a rollback
		}
		s.checkEvidence(fmt.Sprintf("green on %.8s", commit), name, release, head, true)
	}
}

// bothChanged reports whether two commits have each changed a file since they parted.
func (s *sim) bothChanged(a, b, path string) bool {
	from := s.repo.commits[s.repo.mergeBase(a, b)].files[path]
	return s.repo.commits[a].files[path] != from && s.repo.commits[b].files[path] != from
}

// checkEvidence fails unless signed statements say that a bundle was made of exactly a release's spec, and that it
// passes every gate of main that covers the model, as that gate is on main now. A release that main accepts may be
// judged by its signed scores alone, if the gate has changed since the release was made.
func (s *sim) checkEvidence(what, name string, release delivery.Release, tree delivery.Intent, always bool) {
	ran, ok := s.signed.bundles[release.Bundle]
	ran.Spec.Classes = nil // the labels of a class may have other names
	if !ok || !slices.ContainsFunc(seedSpecs(tree.Models.Of(name)), func(spec delivery.Spec) bool {
		spec.Classes = nil
		return spec.Digest() == ran.Spec.Digest()
	}) {
		s.fail("%s: bundle %s of %s was not trained from the tree's spec", what, release.Bundle.Short(), name)
	}
	if !slices.ContainsFunc(s.signed.index.Releases, func(r delivery.ReleaseStatement) bool {
		return r.Model == name && r.Bundle == release.Bundle && r.Spec == release.Spec &&
			delivery.SameRelease(r.File, release)
	}) {
		s.fail("%s: no release statement says what the release file of %s says", what, name)
	}
	main, _ := s.tree(s.main())
	gates := main.Covering(name)
	if len(gates)+len(tree.Covering(name)) == 0 {
		s.fail("%s: no gate covers %s", what, name)
	}
	if _, there := main.Models.Get(name); !there && tree.Models.Of(name).RenamedFrom != "" {
		gates = append(gates, main.Covering(tree.Models.Of(name).RenamedFrom)...) // renaming leaves no gate behind
	}
	for _, g := range gates {
		s.checkPasses(what, main.Gates.Of(g), release.Bundle, always)
	}
}

// checkPasses fails unless a bundle has signed scores on a gate's eval set, and a signed verdict of that very gate that
// passes, or that is unsure and that an owner has accepted. Unless always is set, the bundle may have no verdict of it.
func (s *sim) checkPasses(what string, g delivery.Gate, bundle delivery.Digest, always bool) {
	if !slices.ContainsFunc(slices.Collect(maps.Values(s.signed.index.Scores)), func(sc delivery.Scores) bool {
		return sc.Input.Bundle == bundle && sc.Input.EvalSet == g.Evaluate
	}) {
		s.fail("%s: no signed scores of bundle %s on the eval set of gate %s", what, bundle.Short(), g.Name)
	}
	judged := always
	for _, st := range s.signed.statements {
		v, ok := st.predicate.(delivery.Verdict)
		if !ok || st.bundle != bundle || v.Bundle != bundle || v.GateSpec != g.Digest() {
			continue
		}
		if judged = true; v.Outcome == delivery.Pass || v.Outcome == delivery.NotApplicable ||
			v.Outcome == delivery.Unsure && s.saidByOwner(g, v) {
			return
		}
	}
	if judged {
		s.fail("%s: no signed verdict of gate %s passes bundle %s", what, g.Name, bundle.Short())
	}
}

// seedsOf lists what a model trains: its spec with one seed each, without what is
// resolved after training.
func seedsOf(mdl delivery.Model) []delivery.Digest {
	var list []delivery.Digest
	for _, spec := range seedSpecs(mdl) {
		list = append(list, spec.Digest())
	}
	return list
}

func seedSpecs(mdl delivery.Model) []delivery.Spec {
	var list []delivery.Spec
	for _, seed := range mdl.Train.Seeds {
		spec := mdl.Spec()
		spec.Thresholds, spec.Train.Seeds, spec.Variants = nil, []int64{seed}, []string{"fp32"}
		list = append(list, spec)
	}
	return list
}

// saidByOwner reports whether an owner of a gate has accepted a verdict in a comment.
func (s *sim) saidByOwner(g delivery.Gate, v delivery.Verdict) bool {
	return slices.ContainsFunc(s.forge.ever, func(c simCommand) bool {
		owns := slices.ContainsFunc(g.Owners, func(o string) bool {
			team := slices.ContainsFunc(slices.Collect(maps.Values(s.forge.teams)),
				func(of []string) bool { return slices.Contains(of, o) })
			return !team && strings.EqualFold(o, c.Author) || slices.Contains(s.forge.teams[c.Author], o)
		})
		return owns && strings.Contains(c.Body, "/aob accept "+plan.AcceptCode(v)+" because ")
	})
}

// checkHeard fails where the loop counts an accept as somebody's own word, and they have
// never said that: a comment of theirs was edited, or somebody else agreed.
func (s *sim) checkHeard() {
	for pr := range s.forge.prs {
		for _, a := range s.loop.answers.Orders(pr).Accepts {
			said := slices.ContainsFunc(s.forge.ever, func(c simCommand) bool {
				return strings.EqualFold(c.Author, a.By) && strings.Contains(c.Body, "/aob accept "+a.Code+" because ")
			})
			if a.How != "" && !said {
				s.fail("#%d: %q counts as what %s has said, who has not", pr, a.Code, a.By)
			}
		}
	}
}

// checkMainGreen is called when aob/release turns to success on main.
func (s *sim) checkMainGreen(commit string) {
	main, complaints := s.tree(commit)
	if len(complaints) > 0 {
		s.fail("main is green and cannot be read: %s", complaints[0])
	}
	for name, mdl := range main.Models.All() {
		release, named := main.Releases.Get(name)
		switch {
		case !named:
		case release.Spec != mdl.Spec().Digest():
			s.fail("main is green, and the release of %s has another spec than the tree's", name)
		case s.held(release.Bundle):
			s.fail("main is green, and its release of %s is quarantined", name)
		case !s.accepted(name, release):
			s.fail("main is green, and its release of %s was never accepted", name)
		}
	}
}

// checkAcceptance is called when main accepts a release.
func (s *sim) checkAcceptance(a delivery.Acceptance) {
	defer s.asKnown()()
	what := fmt.Sprintf("%s version %d accepted", a.Model, a.Version)
	main, complaints := s.tree(s.main())
	release, named := main.Releases.Get(a.Model)
	switch {
	case len(complaints) > 0 || !named || release.Bundle != a.Bundle || release.Version != a.Version ||
		release.Spec != a.Spec:
		s.fail("%s, which main does not name", what)
	case main.Models.Of(a.Model).Spec().Digest() != a.Spec:
		s.fail("%s, and main holds another spec", what)
	case s.held(a.Bundle):
		s.fail("%s, and it is quarantined", what)
	case a.Commit != s.main():
		s.fail("%s on %.8s, and main is at %.8s", what, a.Commit, s.main())
	}
	for _, other := range s.signed.index.Accepted[a.Model] {
		if other.Version == a.Version {
			s.fail("%s, which is accepted with bundle %s already", what, other.Bundle.Short())
		}
	}
	s.checkEvidence(what, a.Model, release, main, false)
	s.checkVariants(what, a, release, main)
	if len(main.Covering(a.Model)) == 0 {
		s.fail("%s, and no gate covers it on main", what)
	}
}

// checkPublish is called when devices are told something new.
func (s *sim) checkPublish(d, old delivery.Desired) {
	defer s.asKnown()()
	check := func(t delivery.Target, to string) {
		if len(s.releasesOf(t)) == 0 {
			s.fail("fleet %s: version %d was never accepted, and is published to %s", d.Ring, t.Version, to)
		}
		s.checkAsked(d.Ring, t)
		if s.heldToo(t) {
			s.fail("fleet %s: version %d is quarantined, and is published to %s", d.Ring, t.Version, to)
		}
		if _, lifted := s.quarantines(t.Bundle); !lifted && s.aborted(d.Ring, t.Bundle) {
			s.fail("fleet %s: version %d is aborted there, and is published to %s", d.Ring, t.Version, to)
		}
	}
	if d.Share > 0 {
		check(d.Release, "the wave")
	}
	if d.Previous != nil && d.Share < 1 {
		check(*d.Previous, "devices outside the wave")
	}
	d.Version, d.Expires = old.Version, old.Expires
	if old.Version > s.fleet.least && delivery.DigestOf("d", d) == delivery.DigestOf("d", old) &&
		s.now.Before(old.Expires.Add(-12*60*60*1e9)) {
		s.fail("fleet %s is told again what it has been told", d.Ring)
	}
}

// checkShown fails where merging what is green took a quarantine back, or changed a
// gate, and the pull request's diff did not show it.
func (s *sim) checkShown(before, head string) {
	now, was := s.repo.commits[s.main()].files, s.repo.commits[before].files
	bases, _ := s.repo.MergeBases(head, before)
	for path := range was {
		if now[path] == was[path] || !strings.HasPrefix(path, "gates/") &&
			!strings.HasSuffix(path, ".quarantine.yaml") {
			continue
		}
		for _, base := range bases {
			if s.repo.commits[base].files[path] == s.repo.commits[head].files[path] {
				s.fail("merging %.8s, which was green, changed %s, and its diff with %.8s does not show that", head,
					path, base)
			}
		}
	}
	for bundle := range s.heldIn(before) {
		if _, lifted := s.quarantines(bundle); !lifted && !s.held(bundle) {
			s.fail("merging %.8s, which was green, took bundle %s out of quarantine without a lift", head,
				bundle.Short())
		}
	}
}

// heldIn lists the bundles that a commit's own tree holds in quarantine.
func (s *sim) heldIn(commit string) map[delivery.Digest]bool {
	held := map[delivery.Digest]bool{}
	tree, _ := s.tree(commit)
	for _, q := range tree.Quarantines.All() {
		for _, e := range q.Entries {
			held[e.Digest] = held[e.Digest] || e.Lifted == ""
		}
	}
	maps.DeleteFunc(held, func(_ delivery.Digest, h bool) bool { return !h })
	return held
}

// aborted reports whether a fleet has fallen back from a bundle.
func (s *sim) aborted(fleet string, bundle delivery.Digest) bool {
	aborts := s.signed.index.Aborts
	var clock rollout.State // it keeps an abort until that is signed
	if json.Unmarshal(s.ledger.clocks[fleet], &clock) == nil && clock.Abort != nil {
		aborts = append(slices.Clone(aborts), *clock.Abort)
	}
	return slices.ContainsFunc(aborts, func(a delivery.Abort) bool { return a.Fleet == fleet && a.Bundle == bundle })
}

// checkStart is called when a run starts. If it trains, or makes a variant of what was trained, somebody with write
// permission has proposed a model of that spec, or tries it as an experiment, or has commented that something of its
// pull request may run.
func (s *sim) checkStart(spec delivery.RunSpec) {
	training := spec.Training()
	if training == nil {
		return
	}
	trains := func(mdl delivery.Model) bool { return slices.Contains(seedsOf(mdl), training.Spec.Digest()) }
	for n, p := range s.forge.prs {
		may := s.forge.may(p.Author) == delivery.PermissionWrite
		for _, c := range s.forge.ever {
			may = may || (c.pr == 0 || c.pr == n) && strings.HasPrefix(c.Body, "/aob run ") &&
				s.forge.may(c.Author) == delivery.PermissionWrite
		}
		for _, commit := range s.forge.heads(p) {
			tree, _ := s.tree(commit)
			if may && slices.ContainsFunc(tree.Models.Names(), func(name string) bool {
				return trains(tree.Models.Of(name))
			}) {
				return
			}
		}
	}
	if !slices.ContainsFunc(s.tried, func(v plan.Variant) bool { return trains(v.Model) }) {
		s.fail("a training starts, and nobody with write permission asked for it: %s", spec.Note)
	}
}
