package explain

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// maxDevices is how many devices a chain lists; the rest are counted.
const maxDevices = 20

// A chain is a Chain that is being built.
type chain struct {
	Report
	Chain
}

func (c *chain) add(l Link) { c.Links = append(c.Links, l) }

// pr explains a pull request: an open one by its report, a merged one by the releases that it brought to main.
func (r Report) pr(number int) (Chain, error) {
	is := func(p plan.ProposalReport) bool { return p.PR.Number == number }
	if p, open := delivery.Find(r.Plan.Proposals, is); open {
		return r.proposal(PR, strconv.Itoa(number), p), nil
	}
	found := r.Merged(number)
	if len(found) == 0 {
		return Chain{}, Unknown{PR, strconv.Itoa(number), "aob pr list shows the open ones; what a merged one " +
			"released, aob explain commit SHA tells by its commit on main"}
	}
	c := Chain{Facts: facts(fact(code.ChainMerged, values{Branch: r.branch(), Commit: found[0].Commit,
		By:   found[0].Author,
		Text: found[0].Subject}))}
	if found[0].Model != "" {
		c = r.releases(found)
	}
	c.Kind, c.ID = PR, strconv.Itoa(number)
	c.Facts = facts(fact(code.ChainPullClosed, values{PRs: []int{number}, Facts: c.Facts}))
	return c, nil
}

// Merged returns what a merged pull request released. If it released nothing, it is the merge itself, of no model. It
// is empty if main has no merge of that number.
func (r Report) Merged(number int) []ModelVersion {
	found := slices.DeleteFunc(r.allVersions(), func(v ModelVersion) bool {
		return v.Commit != r.Heads[number] && (!Mentions(v.Subject, number) || v.Release == nil)
	})
	// After a move to a forge, numbers of the local one come again there. Those of the forge count.
	if here := slices.DeleteFunc(slices.Clone(found), func(v ModelVersion) bool {
		return v.Commit != r.Heads[number] && local.MatchString(v.Subject)
	}); len(here) > 0 {
		found = here
	}
	if len(found) == 0 && r.Merge != nil {
		found = []ModelVersion{{Version: *r.Merge}}
	}
	return found
}

// Mentions reports whether a commit's subject names a pull request, as merge commits of forges do.
func Mentions(subject string, number int) bool {
	return slices.Contains(delivery.Pulls(subject), number)
}

// local is how the local forge begins the subject of a merge.
var local = regexp.MustCompile(`^Merge [0-9]{1,9}: `)

// A ModelVersion is a version of a model.
type ModelVersion struct {
	Model string
	Version
}

// allVersions lists all versions, by model, newest first.
func (r Report) allVersions() []ModelVersion {
	models := slices.AppendSeq(slices.Collect(maps.Keys(r.Versions)), maps.Keys(r.World.Main.History))
	slices.Sort(models)
	var list []ModelVersion
	for _, model := range slices.Compact(models) {
		for _, v := range r.versions(model) {
			list = append(list, ModelVersion{model, v})
		}
	}
	return list
}

// commit explains a commit: the head of a pull request, or one that changed a release on main.
func (r Report) commit(id string) (Chain, error) {
	if !isHash(id) || len(id) < 4 || len(id) > 64 {
		return Chain{}, Unknown{Commit, id, "want a commit's hash, or at least its first four digits"}
	}
	matches := map[string]bool{}
	match := func(commit string) bool {
		if !strings.HasPrefix(commit, id) {
			return false
		}
		matches[commit] = true
		return true
	}
	var proposal *plan.ProposalReport
	for i, p := range r.Plan.Proposals {
		if match(p.PR.Head) {
			proposal = &r.Plan.Proposals[i]
		}
	}
	changed := slices.DeleteFunc(r.allVersions(), func(v ModelVersion) bool { return !match(v.Commit) })
	for _, model := range r.accepted() {
		for _, a := range r.World.Evidence.Accepted[model] {
			known := func(v ModelVersion) bool { return v.Commit == a.Commit && v.Model == model }
			if match(a.Commit) && !slices.ContainsFunc(changed, known) {
				release := released(model, a)
				changed = append(changed, ModelVersion{model, Version{Commit: a.Commit, Release: &release}})
			}
		}
	}
	head := r.World.Main.Commit
	isHead := head != "" && match(head)
	if len(matches) > 1 {
		list := slices.Sorted(maps.Keys(matches))
		return Chain{}, Unknown{Commit, id, "several commits begin so: " + strings.Join(list[:min(5, len(list))], ", ")}
	}
	switch {
	case proposal != nil:
		return r.proposal(Commit, proposal.PR.Head, *proposal), nil
	case len(changed) > 0:
		c := r.releases(changed)
		c.Kind, c.ID = Commit, changed[0].Commit
		return c, nil
	case isHead:
		return r.main(), nil
	}
	return Chain{}, Unknown{Commit, id, "known are the heads of open pull requests, and the commits of " +
		cmp.Or(r.branch(), "main") + " that changed a release"}
}

// main explains main's head if it changed no release.
func (r Report) main() Chain {
	c := &chain{Report: r, Chain: Chain{Kind: Commit, ID: r.World.Main.Commit,
		Facts: facts(fact(code.ChainHead, values{Branch: r.branch(), Facts: facts(r.World.MainUnknown())}))}}
	for _, m := range r.Plan.Main.Models {
		l := link("model", m.Model, m.Fact)
		if m.Accepted != nil {
			l = l.from(m.Accepted.Spec, m.Accepted.Bundle)
		}
		c.add(l)
	}
	return c.Chain
}

// proposal explains an open pull request.
func (r Report) proposal(kind Kind, id string, p plan.ProposalReport) Chain {
	c := &chain{Report: r, Chain: Chain{Kind: kind, ID: id, Facts: facts(fact(code.ChainPull,
		values{PRs: []int{p.PR.Number}, Text: p.PR.Title, By: p.PR.Author}))}}
	l := link("commit", p.PR.Head, fact(code.ChainPullHead, values{Branch: p.PR.Base, Text: p.PR.HeadRef}))
	for _, check := range p.Checks {
		l.Details = append(l.Details, fact(code.ChainCheck, values{Stage: check.Context,
			Outcome: delivery.Outcome(check.State), Facts: check.Facts}))
	}
	for _, complaint := range p.Problem {
		l.Details = append(l.Details, fact(code.Plain, values{Text: complaint.String()}))
	}
	c.add(l)
	for _, m := range p.Models {
		c.change(p.PR.Number, m)
	}
	return c.Chain
}

// change explains one model that a pull request changes.
func (c *chain) change(number int, m plan.ModelReport) {
	spec, ok := c.proposedSpec(number, m.Model)
	if !ok {
		c.add(link("content", m.Model, fact(code.ChainContentRemoved, values{Model: m.Model})))
		return
	}
	digest := spec.Digest()
	c.content(m.Model, digest, spec)
	training, trained := c.origin(digest, m.Bundle)
	switch {
	case m.Data != nil:
		c.data(spec.Dataset, *m.Data)
	case trained:
		c.data(spec.Dataset, training.Data)
	}
	if trained {
		c.run(training)
	} else {
		c.training(spec)
	}
	if m.Bundle != "" {
		c.bundle(m.Bundle)
	}
	var measured []delivery.Measured
	if m.Release != nil {
		measured = m.Release.Measured
	}
	c.judged(m.Verdicts, measured)
	if m.Release != nil {
		if s, ok := c.statement(*m.Release); ok {
			c.release(s)
			c.acceptedBy(m.Model, *m.Release)
			return
		}
	}
	c.add(link("release", "", m.Summary()))
}

// releases explains the releases of main's commits.
func (r Report) releases(list []ModelVersion) Chain {
	c := &chain{Report: r}
	shown := map[string]bool{}
	for _, v := range list {
		if !shown[v.Commit] {
			shown[v.Commit] = true
			l := link("commit", v.Commit, c.authored(v.Version))
			l.At = v.At
			c.add(l)
		}
		if v.Release == nil {
			removed := values{Model: v.Model, File: "models/" + v.Model + ".release.yaml"}
			c.add(link("release", v.Model, fact(code.ChainFileRemoved, removed)))
			c.Facts = append(c.Facts, fact(code.ChainNoRelease, removed))
			continue
		}
		title := fact(code.ChainVersion, values{Model: v.Model, Version: v.Release.Version})
		key := fmt.Sprint(v.Model, v.Release.Version, v.Release.Bundle)
		if shown[key] {
			continue // the pull request's commit and its merge have the same release
		}
		shown[key] = true
		c.Facts = append(c.Facts, title)
		c.whole(v.Model, *v.Release)
		c.fleets(v.Release.Bundle)
	}
	return c.Chain
}

// authored says who wrote a commit.
func (r Report) authored(v Version) delivery.Fact {
	if v.Subject == "" {
		return fact(code.ChainOnBranch, values{Branch: r.branch()})
	}
	return fact(code.ChainAuthored, values{Text: v.Subject, By: v.Author})
}

// whole explains a release from its content to its acceptance.
func (c *chain) whole(model string, r delivery.Release) {
	training, trained := c.origin(r.Spec, r.Bundle)
	if trained {
		c.content(model, r.Spec, training.Input.Spec)
		c.data(training.Input.Spec.Dataset, training.Data)
		c.run(training)
	} else {
		c.add(link("content", string(r.Spec), fact(code.ChainNoTraining, values{Model: model, Bundle: r.Bundle})))
	}
	c.bundle(r.Bundle)
	s, ok := c.statement(r)
	if ok {
		verdict := func(g delivery.GateJudged) delivery.Verdict { return g.Verdict }
		c.judged(delivery.Each(s.Gates, verdict), s.File.Measured)
		c.release(s)
	} else {
		c.add(link("release", at(model, r.Version), fact(code.ChainUnsigned, values{})).from(r.Spec, r.Bundle))
	}
	c.acceptedBy(model, r)
}

// at names a version of a model as YAML files do.
func at(model string, version int) string { return fmt.Sprintf("%s@%d", model, version) }

// fleets adds the fleets and devices that run a release, as whatever variant. bundle is its FP32 bundle.
func (c *chain) fleets(bundle delivery.Digest) {
	of := func(b delivery.Digest) bool { return b == bundle || c.variantOf(b).Bundle == bundle }
	for _, fleet := range c.Plan.Fleets {
		if of(fleet.Target.Bundle) {
			c.add(link("fleet", fleet.Fleet, fleet.Facts...).from(fleet.Target.Bundle))
		}
	}
	var running []delivery.Device
	for _, ring := range slices.Sorted(maps.Keys(c.World.Devices)) {
		for _, d := range c.World.Devices[ring] {
			if of(d.Report.Bundle) {
				running = append(running, d)
			}
		}
	}
	slices.SortStableFunc(running, func(a, b delivery.Device) int {
		return cmp.Or(cmp.Compare(a.Report.Ring, b.Report.Ring), cmp.Compare(a.Report.Device, b.Report.Device))
	})
	for i, d := range running {
		if i == maxDevices {
			c.add(link("device", "", fact(code.ChainMoreDevices, values{Count: len(running) - i})))
			break
		}
		c.add(c.deviceLink(d))
	}
}
