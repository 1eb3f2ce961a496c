package explain

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// maxDevices is how many devices a chain names; the rest are counted.
const maxDevices = 20

// pr explains a pull request: an open one by what the plan says of it, a merged
// one by the releases that it brought to main.
func (f Facts) pr(number int) (Chain, error) {
	for _, p := range f.Proposals {
		if p.PR.Number == number {
			return f.proposal(PR, strconv.Itoa(number), p), nil
		}
	}
	var found []namedVersion
	for _, v := range f.versions() {
		if v.Commit == f.Heads[number] || (mentions(v.Subject, number) && v.Release != nil) {
			found = append(found, v)
		}
	}
	if len(found) == 0 {
		return Chain{}, Unknown{PR, strconv.Itoa(number), "aob pr list shows the open ones; what a merged one " +
			"released, aob explain commit SHA tells by its commit on main"}
	}
	c := f.released(found)
	c.Kind, c.ID = PR, strconv.Itoa(number)
	c.Title = fmt.Sprintf("#%d, no longer open: %s", number, c.Title)
	return c.Chain, nil
}

// mentions reports whether a commit's subject names a pull request, as the merge
// commits of all forges do.
func mentions(subject string, number int) bool {
	for _, m := range reference.FindAllStringSubmatch(subject, -1) {
		if n, err := strconv.Atoi(m[1]); err == nil && n == number {
			return true
		}
	}
	return false
}

// reference is #12 as most forges write it, !12, or the Merge 12: of the local one.
var reference = regexp.MustCompile(`(?:[#!]|^Merge )([0-9]{1,9})\b`)

// namedVersion is a version with its model.
type namedVersion struct {
	model string
	Version
}

// versions lists all versions, by model, newest first.
func (f Facts) versions() []namedVersion {
	var list []namedVersion
	for _, model := range slices.Sorted(maps.Keys(f.Versions)) {
		for _, v := range f.Versions[model] {
			list = append(list, namedVersion{model, v})
		}
	}
	return list
}

// commit explains a commit: the head of a pull request, or one that changed
// what main releases.
func (f Facts) commit(id string) (Chain, error) {
	if !isHash(id) || len(id) < 4 || len(id) > 64 {
		return Chain{}, Unknown{Commit, id, "want a commit's hash, or at least its first four digits"}
	}
	full := map[string]bool{}
	look := func(commit string) bool {
		if !strings.HasPrefix(commit, id) {
			return false
		}
		full[commit] = true
		return true
	}
	var proposal *Proposal
	for i, p := range f.Proposals {
		if look(p.PR.Head) {
			proposal = &f.Proposals[i]
		}
	}
	var changed []namedVersion
	for _, v := range f.versions() {
		if look(v.Commit) {
			changed = append(changed, v)
		}
	}
	for _, model := range slices.Sorted(maps.Keys(f.Acceptances)) {
		for _, a := range f.Acceptances[model] {
			known := func(v namedVersion) bool { return v.Commit == a.Commit && v.model == model }
			if look(a.Commit) && !slices.ContainsFunc(changed, known) {
				r := delivery.Release{Name: model, Version: a.Version, Bundle: a.Bundle, Spec: a.Spec}
				changed = append(changed, namedVersion{model, Version{Commit: a.Commit, Release: &r}})
			}
		}
	}
	isHead := f.Head != "" && look(f.Head)
	if len(full) > 1 {
		list := slices.Sorted(maps.Keys(full))
		return Chain{}, Unknown{Commit, id, "several commits begin so: " + strings.Join(list[:min(5, len(list))], ", ")}
	}
	switch {
	case proposal != nil:
		return f.proposal(Commit, proposal.PR.Head, *proposal), nil
	case len(changed) > 0:
		c := f.released(changed)
		c.Kind, c.ID = Commit, changed[0].Commit
		return c.Chain, nil
	case isHead:
		return f.main(), nil
	}
	return Chain{}, Unknown{Commit, id, "known are the heads of open pull requests, and the commits of " +
		cmp.Or(f.Branch, "main") + " that changed a release"}
}

// main explains main's head where it changed no release itself.
func (f Facts) main() Chain {
	c := &chain{Facts: f, Chain: Chain{Kind: Commit, ID: f.Head, Title: fmt.Sprintf("head of %s; it changed no release",
		f.Branch)}}
	if f.Unread != "" {
		c.Title = fmt.Sprintf("head of %s: %s", f.Branch, f.Unread)
	}
	for _, m := range f.Models {
		l := Link{What: "model", ID: m.Name, Text: m.Text}
		if m.Accepted != nil {
			l.Inputs = []delivery.Digest{m.Accepted.Spec, m.Accepted.Bundle}
		}
		c.add(l)
	}
	return c.Chain
}

// chain is a chain that is being put together.
type chain struct {
	Facts
	Chain
}

func (c *chain) add(l Link) { c.Links = append(c.Links, l) }

// proposal explains an open pull request.
func (f Facts) proposal(kind Kind, id string, p Proposal) Chain {
	c := &chain{Facts: f, Chain: Chain{Kind: kind, ID: id, Title: fmt.Sprintf("#%d %s, by %s", p.PR.Number, p.PR.Title,
		p.PR.Author)}}
	l := Link{What: "commit", ID: p.PR.Head, Text: fmt.Sprintf("head of %s, for %s", p.PR.HeadRef, p.PR.Base)}
	for _, check := range p.Checks {
		l.Lines = append(l.Lines, fmt.Sprintf("%s %s: %s", check.State, check.Context, check.Description))
	}
	for _, complaint := range p.Complaints {
		l.Lines = append(l.Lines, complaint.String())
	}
	c.add(l)
	for _, m := range p.Models {
		c.change(m)
	}
	return c.Chain
}

// change explains one model that a proposal changes, as far as it has come.
func (c *chain) change(m Change) {
	if m.Spec == nil {
		c.add(Link{What: "content", ID: m.Model, Text: "models/" + m.Model + ".yaml is removed"})
		return
	}
	spec := m.Spec.Digest()
	c.content(m.Model, spec, *m.Spec)
	training, trained := c.origin(spec, m.Bundle)
	switch {
	case m.Data != nil:
		c.data(m.Spec.Dataset, *m.Data)
	case trained:
		c.data(m.Spec.Dataset, training.Data)
	}
	if trained {
		c.run(training)
	} else {
		c.training(*m.Spec)
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
			c.accepted(m.Model, *m.Release)
			return
		}
	}
	c.add(Link{What: "release", Text: m.Text})
}

// released explains releases that main's commits named.
func (f Facts) released(list []namedVersion) *chain {
	c := &chain{Facts: f}
	var titles []string
	said := map[string]bool{}
	for _, v := range list {
		if !said[v.Commit] {
			said[v.Commit] = true
			c.add(Link{What: "commit", ID: v.Commit, Text: c.authored(v.Version), At: v.At})
		}
		if v.Release == nil {
			c.add(Link{What: "release", ID: v.model, Text: "models/" + v.model + ".release.yaml was removed"})
			titles = append(titles, v.model+" without release")
			continue
		}
		title := fmt.Sprintf("%s version %d", v.model, v.Release.Version)
		if said[title+string(v.Release.Bundle)] {
			continue // by the pull request's own commit too, besides its merge
		}
		said[title+string(v.Release.Bundle)] = true
		titles = append(titles, title)
		c.whole(v.model, *v.Release)
		c.fleets(v.Release.Bundle)
	}
	c.Title = strings.Join(titles, ", ")
	return c
}

// authored says who wrote a commit.
func (c *chain) authored(v Version) string {
	switch {
	case v.Subject != "" && v.Author != "":
		return v.Subject + ", by " + v.Author
	case v.Subject != "":
		return v.Subject
	}
	return "on " + c.Branch
}

// whole explains a release from its content to its acceptance.
func (c *chain) whole(model string, r delivery.Release) {
	training, trained := c.origin(r.Spec, r.Bundle)
	if trained {
		c.content(model, r.Spec, training.Input.Spec)
		c.data(training.Input.Spec.Dataset, training.Data)
		c.run(training)
	} else {
		c.add(Link{What: "content", ID: string(r.Spec), Text: "models/" + model +
			".yaml; no training statement says how bundle " + r.Bundle.Short() + " was made"})
	}
	c.bundle(r.Bundle)
	s, ok := c.statement(r)
	if !ok {
		c.add(Link{What: "release", ID: at(model, r.Version),
			Text: "no release statement names this bundle with this spec", Inputs: []delivery.Digest{r.Spec, r.Bundle}})
		c.accepted(model, r)
		return
	}
	verdicts := make([]delivery.Verdict, len(s.Gates))
	for i, g := range s.Gates {
		verdicts[i] = g.Verdict
	}
	c.judged(verdicts, s.File.Measured)
	c.release(s)
	c.accepted(model, r)
}

// at names a version of a model as intent does.
func at(model string, version int) string { return fmt.Sprintf("%s@%d", model, version) }

// statement finds what was signed for a release.
func (f Facts) statement(r delivery.Release) (delivery.ReleaseStatement, bool) {
	for _, s := range f.Statements {
		if s.Model == r.Name && s.Version == r.Version && s.Spec == r.Spec && s.Bundle == r.Bundle {
			return s, true
		}
	}
	return delivery.ReleaseStatement{}, false
}

func (f Facts) acceptance(model string, r delivery.Release) (delivery.Acceptance, bool) {
	for _, a := range f.Acceptances[model] {
		if a.Version == r.Version && a.Spec == r.Spec && a.Bundle == r.Bundle {
			return a, true
		}
	}
	return delivery.Acceptance{}, false
}

// fleets says which fleets and devices run a bundle, or are told to.
func (c *chain) fleets(bundle delivery.Digest) {
	for _, fleet := range c.Facts.Fleets {
		if fleet.Target.Bundle == bundle {
			c.add(Link{What: "fleet", ID: fleet.Name, Text: fleet.Text, Inputs: []delivery.Digest{bundle}})
		}
	}
	var running []delivery.Device
	for _, d := range c.Facts.Devices {
		if d.Report.Bundle == bundle {
			running = append(running, d)
		}
	}
	slices.SortStableFunc(running, func(a, b delivery.Device) int {
		return cmp.Or(cmp.Compare(a.Report.Ring, b.Report.Ring), cmp.Compare(a.Report.Device, b.Report.Device))
	})
	for i, d := range running {
		if i == maxDevices {
			c.add(Link{What: "device", Text: fmt.Sprintf("and %d more", len(running)-i)})
			break
		}
		c.add(c.standing(d))
	}
}
