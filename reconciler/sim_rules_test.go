package reconciler

// What must never happen, whatever the order of events. These checks look at
// trees, signed statements and devices, and share no code with the decisions
// that they check: no plan, no words of a status.

import (
	"encoding/json"
	"fmt"
	"maps"
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

// A simHeld is what main's quarantine files have said of a bundle.
type simHeld struct {
	held  bool
	lifts int
}

// heldOn follows the quarantine files of all models along a commit's first parents: a
// bundle of which they do not speak any more is what it was.
func (s *sim) heldOn(commit string) map[delivery.Digest]simHeld {
	var line []string
	fold := map[delivery.Digest]simHeld{}
	for c := commit; c != ""; {
		if known, ok := s.repo.folds[c]; ok {
			fold = maps.Clone(known)
			break
		}
		line = append(line, c)
		parents := s.repo.commits[c].parents
		if c = ""; len(parents) > 0 {
			c = parents[0]
		}
	}
	for _, c := range slices.Backward(line) {
		now := map[delivery.Digest]simHeld{}
		for path, blob := range s.repo.commits[c].files {
			if !strings.HasSuffix(path, ".quarantine.yaml") {
				continue
			}
			data := s.repo.blobs[blob]
			q, _ := intent.ParseFile(intent.File{Path: path, Data: data}, intent.Options{}).Value.(delivery.Quarantine)
			for _, e := range q.Entries {
				h := now[e.Digest]
				if e.Lifted == "" {
					h.held = true
				} else {
					h.lifts++
				}
				now[e.Digest] = h
			}
		}
		for bundle, h := range now {
			h.lifts = max(h.lifts, fold[bundle].lifts)
			fold[bundle] = h
		}
		if s.repo.folds == nil {
			s.repo.folds = map[string]map[delivery.Digest]simHeld{}
		}
		s.repo.folds[c] = maps.Clone(fold)
	}
	return fold
}

// quarantined reports whether main forbids a bundle.
func (s *sim) quarantined(bundle delivery.Digest) bool { return s.heldOn(s.main())[bundle].held }

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

// checkGreen is called when aob/release turns to success on a commit.
func (s *sim) checkGreen(commit string) {
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
	for name, mdl := range head.Models {
		release, named := head.Releases[name]
		was, before := base.Models[name]
		wasRelease, wasNamed := base.Releases[name]
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
		case s.quarantined(release.Bundle):
			s.fail("green on %.8s, whose release of %s is quarantined", commit, name)
		case s.accepted(name, release):
			continue // a rollback
		}
		s.checkEvidence(fmt.Sprintf("green on %.8s", commit), name, release, head)
	}
}

// bothChanged reports whether two commits have each changed a file since they parted.
func (s *sim) bothChanged(a, b, path string) bool {
	from := s.repo.commits[s.repo.mergeBase(a, b)].files[path]
	return s.repo.commits[a].files[path] != from && s.repo.commits[b].files[path] != from
}

// checkEvidence fails unless signed statements say that a bundle was made of
// exactly a release's spec, and that all gates of main pass it.
func (s *sim) checkEvidence(what, name string, release delivery.Release, tree delivery.Intent) {
	ran, ok := s.signed.bundles[release.Bundle]
	if !ok || !slices.ContainsFunc(seedSpecs(tree.Models[name]), func(spec delivery.Spec) bool {
		return learns(spec) == learns(ran.Spec)
	}) {
		s.fail("%s: bundle %s of %s was not trained from the tree's spec", what, release.Bundle.Short(), name)
	}
	said := slices.DeleteFunc(slices.Clone(s.signed.index.Releases), func(r delivery.ReleaseStatement) bool {
		return r.Model != name || r.Bundle != release.Bundle || r.Spec != release.Spec ||
			!delivery.SameRelease(r.File, release)
	})
	if len(said) == 0 {
		s.fail("%s: no release statement says what the release file of %s says", what, name)
	}
	main, _ := s.tree(s.main())
	gates := main.Covering(name)
	if len(gates)+len(tree.Covering(name)) == 0 {
		s.fail("%s: no gate covers %s", what, name)
	}
	if _, there := main.Models[name]; !there && tree.Models[name].RenamedFrom != "" {
		gates = append(gates, main.Covering(tree.Models[name].RenamedFrom)...) // renaming leaves no gate behind
	}
	for _, g := range gates {
		s.checkSettled(what, main.Gates[g], said)
		s.checkPasses(what, main.Gates[g], release.Bundle, said[len(said)-1].Baseline)
	}
}

// checkSettled fails where statements hold a gate's verdict only as one that is
// unsure, and no owner has said that very verdict's code, with a reason.
func (s *sim) checkSettled(what string, g delivery.Gate, said []delivery.ReleaseStatement) {
	unsure := delivery.Verdict{}
	for _, statement := range said {
		for _, j := range statement.Gates {
			switch {
			case j.Spec != g.Digest():
			case j.Verdict.Outcome != delivery.Unsure || s.saidByOwner(g, j.Verdict):
				return
			default:
				unsure = j.Verdict
			}
		}
	}
	if unsure.Key != "" {
		s.fail("%s: gate %s is unsure, and none of %s has accepted that", what, g.Name, strings.Join(g.Owners, ", "))
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
		spec.Thresholds, spec.Train.Seeds = nil, []int64{seed}
		list = append(list, spec)
	}
	return list
}

// learns is what a training of a spec learns: other words for the same labels are no
// other training.
func learns(spec delivery.Spec) delivery.Digest {
	spec.Classes = labelled(spec.Classes)
	return spec.Digest()
}

// checkPasses fails unless a bundle has signed scores on a gate's eval set, and has in truth all of the gate's classes
// and reaches its bounds over them, or an owner has settled what nobody can tell.
func (s *sim) checkPasses(what string, g delivery.Gate, bundle, baseline delivery.Digest) {
	if _, ok := s.scores(bundle, g.Evaluate); !ok {
		s.fail("%s: no signed scores of bundle %s on the eval set of gate %s", what, bundle.Short(), g.Name)
	}
	now, all := s.truly(g, bundle)
	if !all && bundle != baseline {
		s.fail("%s: bundle %s lacks a class of gate %s", what, bundle.Short(), g.Name)
	}
	before, whole := map[string]float64{}, false
	if baseline != "" && baseline != bundle {
		before, whole = s.truly(g, baseline)
	}
	for _, c := range g.Checks {
		of := func(ap map[string]float64) float64 {
			return mean(without(ap, c.Except))
		}
		switch {
		case c.At != "" || strings.Contains(c.Against, "@") || len(now) == 0:
			// Stories look at these.
		case c.Min != nil && c.Metric == "AP":
			for class, ap := range without(now, c.Except) {
				if (c.Classes.All || slices.Contains(c.Classes.Names, class)) && ap < *c.Min &&
					!s.excused(g, bundle, ap+0.005 >= *c.Min) {
					s.fail("%s: AP of %s %.4f is below %g of gate %s", what, class, ap, *c.Min, g.Name)
				}
			}
		case c.Min != nil:
			if v := of(now); v < *c.Min && !s.excused(g, bundle, v+0.005 >= *c.Min) {
				s.fail("%s: %s %.4f is below %g of gate %s", what, c.Metric, v, *c.Min, g.Name)
			}
		case c.MaxDrop != nil && whole && len(now) == len(before):
			if is, was := of(now), of(before); is < was-*c.MaxDrop {
				s.fail("%s: %s %.4f has dropped from %.4f, more than %g of gate %s", what, c.Metric, is, was,
					*c.MaxDrop, g.Name)
			}
		}
	}
}

func without(ap map[string]float64, classes []string) map[string]float64 {
	ap = maps.Clone(ap)
	maps.DeleteFunc(ap, func(class string, _ float64) bool { return slices.Contains(classes, class) })
	return ap
}

// truly is what a bundle is worth on a gate's eval set, by the gate's classes, and whether it has all of them.
func (s *sim) truly(g delivery.Gate, bundle delivery.Digest) (ap map[string]float64, all bool) {
	ap, all = map[string]float64{}, true
	names := s.signed.bundles[bundle].Spec.Classes.Names()
	for _, class := range g.Classes {
		labels := []string{class}
		if of, ok := g.Labels[class]; ok {
			labels = of
		}
		called := class
		for _, label := range labels {
			if !slices.Contains(names, called) {
				called = label
			}
		}
		all = all && slices.Contains(names, called)
		if v, ok := s.finds(bundle, called, labels); ok {
			ap[class] = v
		}
	}
	return ap, all
}

// excused reports whether an owner of a gate has said in words that an unsure
// verdict about a bundle is good enough.
func (s *sim) excused(g delivery.Gate, bundle delivery.Digest, unsure bool) bool {
	return unsure && slices.ContainsFunc(s.signed.statements, func(st simStatement) bool {
		v, ok := st.predicate.(delivery.Verdict)
		return ok && v.Outcome == delivery.Unsure && v.GateSpec == g.Digest() && st.bundle == bundle &&
			s.saidByOwner(g, v)
	})
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

func (s *sim) scores(bundle delivery.Digest, e delivery.EvalSet) (delivery.Scores, bool) {
	for _, sc := range s.signed.index.Scores {
		if sc.Input.Bundle == bundle && sc.Input.EvalSet == e {
			return sc, true
		}
	}
	return delivery.Scores{}, false
}

// checkMainGreen is called when aob/release turns to success on main.
func (s *sim) checkMainGreen(commit string) {
	main, complaints := s.tree(commit)
	if len(complaints) > 0 {
		s.fail("main is green and cannot be read: %s", complaints[0])
	}
	for name, mdl := range main.Models {
		release, named := main.Releases[name]
		switch {
		case !named:
		case release.Spec != mdl.Spec().Digest():
			s.fail("main is green, and the release of %s has another spec than the tree's", name)
		case s.quarantined(release.Bundle):
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
	release, named := main.Releases[a.Model]
	switch {
	case len(complaints) > 0 || !named || release.Bundle != a.Bundle || release.Version != a.Version ||
		release.Spec != a.Spec:
		s.fail("%s, which main does not name", what)
	case main.Models[a.Model].Spec().Digest() != a.Spec:
		s.fail("%s, and main holds another spec", what)
	case s.quarantined(a.Bundle):
		s.fail("%s, and it is quarantined", what)
	case a.Commit != s.main():
		s.fail("%s on %.8s, and main is at %.8s", what, a.Commit, s.main())
	}
	for _, other := range s.signed.index.Accepted[a.Model] {
		if other.Version == a.Version {
			s.fail("%s, which is accepted with bundle %s already", what, other.Bundle.Short())
		}
	}
	s.checkEvidence(what, a.Model, release, main)
	if len(main.Covering(a.Model)) == 0 {
		s.fail("%s, and no gate covers it on main", what)
	}
}

// checkPublish is called when devices are told something new.
func (s *sim) checkPublish(d, old delivery.Desired) {
	defer s.asKnown()()
	check := func(t delivery.Target, to string) {
		named := slices.Clone(s.signed.index.Accepted[d.Model])
		for _, a := range s.signed.index.Accepted[d.Model] { // under its former name too
			named = append(named, s.signed.index.Accepted[a.RenamedFrom]...)
		}
		if d.Previous != nil && t == *d.Previous { // the fleet may have run another model
			for _, list := range s.signed.index.Accepted {
				named = append(named, list...)
			}
		}
		if !slices.ContainsFunc(named, func(a delivery.Acceptance) bool {
			return a.Bundle == t.Bundle && a.Version == t.Version
		}) {
			s.fail("fleet %s: version %d was never accepted, and is published to %s", d.Ring, t.Version, to)
		}
		if s.quarantined(t.Bundle) {
			s.fail("fleet %s: version %d is quarantined, and is published to %s", d.Ring, t.Version, to)
		}
		if s.aborted(d.Ring, t.Bundle) {
			s.fail("fleet %s: version %d is aborted there, and is published to %s", d.Ring, t.Version, to)
		}
	}
	s.checkCarries(d, old)
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

// checkCarries fails where a fleet is told to run another model, and that does not pass
// the gates which covered what it ran, when main last let it run that.
func (s *sim) checkCarries(d, old delivery.Desired) {
	if old.Release.Bundle == "" || d.Model == old.Model || d.Release.Bundle == old.Release.Bundle ||
		d.Model != "other" && old.Model != "other" {
		return
	}
	ran, all := 0, 0
	for _, device := range s.fleet.devices {
		if device.Report.Ring == d.Ring {
			all++
			if slices.Contains(device.Healthy, d.Release.Bundle) {
				ran++
			}
		}
	}
	if 2*ran > all {
		return // it has run that before
	}
	for c := s.main(); c != ""; {
		if tree, _ := s.tree(c); tree.Fleets[d.Ring].Runs == old.Model {
			for _, g := range tree.Covering(old.Model) {
				s.checkPasses(fmt.Sprintf("fleet %s goes from %s to %s", d.Ring, old.Model, d.Model), tree.Gates[g],
					d.Release.Bundle, old.Release.Bundle)
			}
			return
		}
		parents := s.repo.commits[c].parents
		if c = ""; len(parents) > 0 {
			c = parents[0]
		}
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
	after := s.heldIn(s.main())
	for bundle := range s.heldIn(before) {
		if !after[bundle] && s.heldOn(s.main())[bundle].held {
			s.fail("merging %.8s, which was green, took bundle %s out of quarantine without a lift", head,
				bundle.Short())
		}
	}
}

// heldIn lists the bundles that a commit's own tree holds in quarantine.
func (s *sim) heldIn(commit string) map[delivery.Digest]bool {
	held := map[delivery.Digest]bool{}
	tree, _ := s.tree(commit)
	for _, q := range tree.Quarantines {
		for _, e := range q.Entries {
			held[e.Digest] = held[e.Digest] || e.Lifted == ""
		}
	}
	maps.DeleteFunc(held, func(_ delivery.Digest, h bool) bool { return !h })
	return held
}

// aborted reports whether a fleet fell back from a bundle and nobody has lifted it.
func (s *sim) aborted(fleet string, bundle delivery.Digest) bool {
	lifts := s.heldOn(s.main())[bundle].lifts
	aborts := s.signed.index.Aborts
	var clock rollout.State // it keeps an abort until that is signed
	if json.Unmarshal(s.ledger.clocks[fleet], &clock) == nil && clock.Abort != nil {
		aborts = append(slices.Clone(aborts), *clock.Abort)
	}
	return slices.ContainsFunc(aborts, func(a delivery.Abort) bool {
		return a.Fleet == fleet && a.Bundle == bundle && a.Lifts >= lifts
	})
}

// checkLook fails where an eval set is opened for what is only an experiment or a
// draft.
func (s *sim) checkLook(bundle delivery.Digest) {
	for model := range s.signed.index.Accepted {
		for _, a := range s.signed.index.Accepted[model] {
			if a.Bundle == bundle {
				return
			}
		}
	}
	for n, p := range s.forge.prs {
		if !s.forge.ready[n] {
			continue
		}
		for _, commit := range s.forge.heads(p) {
			tree, _ := s.tree(commit)
			for _, mdl := range tree.Models {
				if slices.Contains(s.bundlesOf(mdl), bundle) {
					return
				}
			}
			for _, r := range tree.Releases {
				if r.Bundle == bundle {
					return
				}
			}
		}
	}
	s.fail("the eval set of a gate is opened for bundle %s, which no pull request that is ready and no release has",
		bundle.Short())
}

// checkStart is called when a run starts: somebody who may, asked for it.
func (s *sim) checkStart(spec delivery.RunSpec) {
	if spec.Kind == delivery.RunCompare || spec.Kind == delivery.RunEval || spec.Kind == delivery.RunThresholds {
		// They follow from a training, or judge what main has.
		if len(s.signed.bundles) == 0 {
			s.fail("run %s of kind %s starts before anything was trained", spec.Key.Short(), spec.Kind)
		}
		if spec.Eval != nil && spec.Eval.EvalSet.Split == "test" {
			s.checkLook(spec.Eval.Bundle)
		}
		return
	}
	for _, n := range slices.Sorted(maps.Keys(s.forge.prs)) {
		p := s.forge.prs[n]
		for _, commit := range s.forge.heads(p) {
			tree, _ := s.tree(commit)
			for _, mdl := range tree.Models {
				asked := spec.Kind == delivery.RunTrain && slices.Contains(seedsOf(mdl), spec.Train.Spec.Digest()) ||
					spec.Kind == delivery.RunData && spec.Data.Dataset == mdl.Dataset
				if asked && s.allowed(p, commit, mdl) {
					return
				}
			}
		}
	}
	for _, v := range s.tried {
		if spec.Kind == delivery.RunTrain && slices.Contains(seedsOf(v.Model), spec.Train.Spec.Digest()) ||
			spec.Kind == delivery.RunData && spec.Data.Dataset == v.Model.Dataset {
			return
		}
	}
	s.fail("a %s run starts, and nobody with write permission asked for it: %s", spec.Kind, spec.Note)
}

// allowed reports whether a pull request may run what a model costs at a commit: a go is for the model and for the
// gates that the pull request brings.
func (s *sim) allowed(p *simPR, commit string, mdl delivery.Model) bool {
	if s.forge.may(p.Author) == delivery.PermissionWrite {
		return true
	}
	head, _ := s.tree(commit)
	base, _ := s.tree(s.repo.mergeBase(commit, s.main()))
	main, _ := s.tree(s.main())
	var own []delivery.Gate
	for _, name := range head.Covering(mdl.Name) {
		g := head.Gates[name]
		if g.Digest() != base.Gates[name].Digest() && g.Digest() != main.Gates[name].Digest() {
			own = append(own, g)
		}
	}
	return slices.ContainsFunc(s.forge.commands, func(c simCommand) bool {
		return (c.pr == 0 || c.pr == p.Number) && strings.Contains(c.Body, plan.ApprovalCode(mdl, own...)) &&
			s.forge.may(c.Author) == delivery.PermissionWrite
	})
}
