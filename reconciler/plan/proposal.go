package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
)

// A ProposalReport is what to tell about one pull request.
type ProposalReport struct {
	PR      delivery.PullRequest
	Checks  []delivery.Check
	Models  []ModelReport
	Gates   []delivery.Verdict // of current releases, by gates that the PR adds or changes
	Powers  []gate.ModelPower  // how small a drop those gates can show
	Fleets  []string           // what the PR changes about fleets, a line each
	Held    []string           // what it forbids and lifts, a line each
	Problem []delivery.Complaint
	Runs    []delivery.Digest // of its content, in the order of the stages
	Has     bool              // main has all models of it already
	Kept    bool              // main contains it: what was said of it before stands
	// Elsewhere: it targets another branch than main, so nothing is judged; its check says so.
	Elsewhere bool
	Stale     bool              // nothing is concluded about it now; what was said before stands
	Asks      []string          // comments of someone with write permission that its runs wait for
	Costs     map[string]string // by the code of an ask: what it lets run
	Refused   []string          // who gave one of Asks and has no write permission
}

// Green reports whether aob/release succeeded.
func (r ProposalReport) Green() bool {
	for _, c := range r.Checks {
		if c.Context == delivery.ContextRelease {
			return c.State == delivery.CheckSuccess
		}
	}
	return false
}

// changedModels names the models that a proposal changes: another spec, another
// release file, added or removed. Comments, order and machine limits change
// nothing.
func changedModels(p Proposal) []string {
	changed := map[string]bool{}
	for name, head := range p.Intent.Models {
		if sameBlob(p, "models/"+name+".yaml") && sameBlob(p, "models/"+name+".release.yaml") {
			continue
		}
		base, ok := p.Base.Models[name]
		changed[name] = !ok || base.SpecDigest() != head.SpecDigest() ||
			!sameFile(p.Base.Releases, p.Intent.Releases, name)
	}
	for name := range p.Base.Models {
		if _, ok := p.Intent.Models[name]; !ok {
			changed[name] = true
		}
	}
	var names []string
	for name, yes := range changed {
		if yes {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// sameBlob reports whether both trees are known to hold the same bytes at path.
func sameBlob(p Proposal, path string) bool {
	return p.Base.Files != nil && p.Intent.Files != nil && p.Base.Files[path] == p.Intent.Files[path]
}

func sameFile(base, head map[string]delivery.Release, name string) bool {
	b, inBase := base[name]
	h, inHead := head[name]
	return inBase == inHead && delivery.SameRelease(b, h)
}

// proposal decides about one pull request.
func (m *maker) proposal(p Proposal) ProposalReport {
	r := ProposalReport{PR: p.PullRequest, Problem: p.Complaints}
	if p.Stale {
		r.Stale = true
		m.stuck[p.Number] = true
		return r
	}
	if !m.targetsMain(p) {
		r.Problem, r.Elsewhere = nil, true
		r.Checks = []delivery.Check{{Context: delivery.ContextRelease, State: delivery.CheckPending,
			Description: fmt.Sprintf("it targets %s, and is judged when it targets %s", p.PullRequest.Base,
				m.w.Main.Branch)}}
		return r
	}
	if p.Pending != "" && len(p.Complaints) == 0 {
		r.Checks = []delivery.Check{{Context: delivery.ContextRelease, State: delivery.CheckPending,
			Description: p.Pending}}
		m.stuck[p.Number] = true // nobody can say yet which runs it needs
		return r
	}
	if why := foreign(p); why != "" {
		r.Checks = notIntent(why)
		m.isStuck(p)
		return r
	}
	if why := m.crossed(p); why != "" && p.Unreadable == "" {
		r.Checks = notIntent(why)
		m.isStuck(p)
		return r
	}
	if len(p.Complaints) > 0 {
		first := p.Complaints[0].String()
		if n := len(p.Complaints) - 1; n > 0 {
			first += fmt.Sprintf(" (and %d more)", n)
		}
		r.Checks = notIntent(first)
		m.isStuck(p)
		return r
	}
	if broken := m.shortenedQuarantine(p); broken != "" {
		r.Checks = notIntent(broken)
		m.isStuck(p)
		return r
	}
	intentOK := delivery.Check{Context: delivery.ContextIntent, State: delivery.CheckSuccess,
		Description: summary(p.Intent)}

	if r.Held = changedQuarantines(p); len(r.Held) > 0 {
		intentOK.Description += "; quarantine: " + strings.Join(r.Held, "; ")
	}

	intentOK.Description += m.nobodies(p.Intent)

	names := changedModels(p)
	for _, name := range names {
		r.Models = append(r.Models, m.model(p, name))
	}
	for _, name := range m.repointed(p, names) {
		r.Models = append(r.Models, m.repoint(p, name))
	}
	r.Has = len(r.Models) > 0 && !slices.ContainsFunc(r.Models, func(mr ModelReport) bool { return !mr.Has })
	r.Kept = p.Landed && len(r.Models) == 0
	r.Fleets = changedFleets(p)
	gates := changedGates(p)
	if len(gates) > 0 {
		r.Gates, r.Powers = m.judgeCurrent(p, gates)
	}

	r.Runs, r.Asks, r.Costs = m.runs[p.Number], m.asks[p.Number], m.costs[p.Number]

	if len(r.Asks) > 0 {
		r.Refused = p.Refused
	}

	r.Checks = append(r.Checks, intentOK)
	r.Checks = append(r.Checks, stageChecks(r.Models)...)
	r.Checks = append(r.Checks, m.releaseCheck(p, &r, gates))
	return r
}

// notIntent is what a pull request gets that nothing can be judged of.
func notIntent(why string) []delivery.Check {
	return []delivery.Check{
		{Context: delivery.ContextIntent, State: delivery.CheckFailure, Description: why},
		{Context: delivery.ContextRelease, State: delivery.CheckFailure, Description: "intent: " + why},
	}
}

// crossed says why nobody can tell what merging a proposal yields. With more than
// one best common ancestor, git compares with all of them: what the head leaves as
// one of them has it, the merge takes from main or from the head, and no diff shows
// which.
func (m *maker) crossed(p Proposal) string {
	switch {
	case len(p.BothChanged) > 0:
		return fmt.Sprintf("rebase onto %[1]s (git rebase %[1]s): %[1]s has changed %[2]s since, too, and nobody can "+
			"see what merging makes of both changes",
			m.w.Main.Branch, fewOf(p.BothChanged))
	case len(p.Moved) > 0:
		return fmt.Sprintf("rebase onto %[1]s (git rebase %[1]s): %[1]s and this branch have moved and changed %[2]s, "+
			"and git may put the changes into a file of models/, gates/ or fleets/", m.w.Main.Branch, fewOf(p.Moved))
	case len(p.Undone) > 0:
		return fmt.Sprintf(
			"rebase onto %[1]s (git rebase %[1]s): commits of this branch change %[2]s in a way that its "+
				"diff with %[1]s does not show, and merging by rebase may bring that back", m.w.Main.Branch,
			fewOf(p.Undone))
	case m.w.Main.Commit == "" || len(p.Bases) == 1:
		return ""
	case len(p.Bases) == 0:
		return fmt.Sprintf("start a new branch from %[1]s and commit the change there: this one's history has "+
			"nothing in common with %[1]s's", m.w.Main.Branch)
	}
	return fmt.Sprintf("its history crosses %[1]s's; rebase onto %[1]s (git rebase %[1]s). They have %[2]d best "+
		"common ancestors (git merge-base --all %[1]s HEAD), so nobody can see what merging changes",
		m.w.Main.Branch, len(p.Bases))
}

// foreign says where a pull request of AOB's own holds what others have pushed to its branch. It would ask for that in
// AOB's name.
func foreign(p Proposal) string {
	if len(p.Foreign) == 0 {
		return ""
	}
	return fmt.Sprintf("somebody else has changed %s in this pull request of AOB's own; bring that in a pull request "+
		"of your own, and put %s back to commit %.10s", fewOf(p.Foreign), p.HeadRef, p.Made)
}

// fewOf names the first of some files, and says how many more there are.
func fewOf(paths []string) string {
	if len(paths) == 1 {
		return paths[0]
	}
	return fmt.Sprintf("%s and %d more", paths[0], len(paths)-1)
}

func summary(i delivery.Intent) string {
	return fmt.Sprintf("%s, %s, %s", count(len(i.Models), "model"), count(len(i.Gates), "gate"),
		count(len(i.Fleets), "fleet"))
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// shortenedQuarantine says where a proposal takes back what stands in a quarantine
// file: of the commit where it left main, or of main itself. Entries are added, or
// lifted with a reason that stays to be read.
func (m *maker) shortenedQuarantine(p Proposal) string {
	if where := shortened(p.Base, p.Intent); where != "" {
		return where + " was removed or changed; leave entries as they are, add new ones below, and set lifted: to " +
			"let a bundle run again"
	}
	if where := shortened(m.w.Main.Intent, p.Merged); where != "" {
		return fmt.Sprintf("%[1]s is on %[2]s, and merging this would take it out; rebase onto %[2]s", where,
			m.w.Main.Branch)
	}
	return ""
}

// changedQuarantines says, a line each, what a proposal forbids and lifts.
func changedQuarantines(p Proposal) []string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(p.Intent.Quarantines)) {
		base, head := p.Base.Quarantines[name], p.Intent.Quarantines[name]
		var seen []delivery.Digest
		for _, e := range slices.Concat(base.Entries, head.Entries) {
			if slices.Contains(seen, e.Digest) {
				continue
			}
			seen = append(seen, e.Digest)
			_, before := base.Holds(e.Digest)
			why, after := head.Holds(e.Digest)
			switch {
			case after && !before:
				line := fmt.Sprintf("bundle %s of %s may not run: %s", e.Digest.Short(), name, why)
				if release, ok := p.Merged.Releases[name]; ok && release.Bundle == e.Digest {
					line += fmt.Sprintf("; main runs it as version %d, so merging takes it off fleets: they go back "+
						"to the version before, if there is one", release.Version)
				}
				lines = append(lines, line)
			case !after && (before || head.Lifts(e.Digest) > base.Lifts(e.Digest)): // fleets that fell back try again
				lines = append(lines, fmt.Sprintf("bundle %s of %s may run again: %s", e.Digest.Short(), name,
					lifted(head, e.Digest)))
			}
		}
	}
	// What cannot be read forbids something, and nobody can say what.
	for _, path := range slices.Sorted(maps.Keys(p.Base.Files)) {
		name, ok := strings.CutSuffix(strings.TrimPrefix(path, "models/"), ".quarantine.yaml")
		if _, read := p.Base.Quarantines[name]; ok && !read && !sameBlob(p, path) {
			lines = append(lines, path+" could not be read before; look by hand what it held, and that it still does")
		}
	}
	return lines
}

// lifted says why a bundle was lifted last.
func lifted(q delivery.Quarantine, bundle delivery.Digest) (why string) {
	for _, e := range q.Entries {
		if e.Digest == bundle && e.Lifted != "" {
			why = e.Lifted
		}
	}
	return why
}

// changedGates names the gates that a proposal adds or changes.
func changedGates(p Proposal) []string {
	var names []string
	for name, head := range p.Intent.Gates {
		if sameBlob(p, "gates/"+name+".yaml") {
			continue
		}
		if base, ok := p.Base.Gates[name]; !ok || base.Digest() != head.Digest() {
			names = append(names, name)
		}
	}
	for name := range p.Base.Gates {
		if _, ok := p.Intent.Gates[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// changedFleets says, a line each, what a proposal changes about fleets.
func changedFleets(p Proposal) []string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(p.Intent.Fleets)) {
		if sameBlob(p, "fleets/"+name+".yaml") {
			continue
		}
		head := p.Intent.Fleets[name]
		base, ok := p.Base.Fleets[name]
		switch {
		case !ok:
			lines = append(lines, fmt.Sprintf("%s is new and runs %s", name, runs(head)))
		case delivery.DigestOf("fleet", base) != delivery.DigestOf("fleet", head):
			line := fmt.Sprintf("%s: waves %s, soak %s", name, waves(head), head.Soak)
			if runs(base) != runs(head) {
				line = fmt.Sprintf("%s: %s -> %s", name, runs(base), runs(head)) + ", waves " + waves(head)
			}
			if head.Paused {
				line += ", paused"
			}
			lines = append(lines, line)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Base.Fleets)) {
		if _, ok := p.Intent.Fleets[name]; !ok {
			lines = append(lines, name+" is removed; its devices keep what they run")
		}
	}
	return lines
}

// fleetsOf says, a line each, which fleets follow a model's release, and how.
func fleetsOf(p Proposal, model string) []string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(p.Merged.Fleets)) {
		f := p.Merged.Fleets[name]
		if f.Runs != model {
			continue
		}
		line := fmt.Sprintf("%s (waves %s; soak %s)", name, waves(f), f.Soak)
		switch {
		case f.Version > 0:
			line = fmt.Sprintf("%s (stays at version %d)", name, f.Version)
		case f.Paused:
			line = name + " (paused)"
		}
		lines = append(lines, line)
	}
	return lines
}

func runs(f delivery.Fleet) string {
	if f.Version > 0 {
		return fmt.Sprintf("%s version %d", f.Runs, f.Version)
	}
	return f.Runs
}

func waves(f delivery.Fleet) string {
	words := make([]string, len(f.Waves))
	for i, w := range f.Waves {
		words[i] = w.String()
	}
	return strings.Join(words, ", ")
}

// stageChecks sums the stages of all changed models up, one check a context:
// the worst state, and every model's word.
func stageChecks(models []ModelReport) []delivery.Check {
	var order []string
	byContext := map[string][]Stage{}
	for _, mr := range models {
		for _, s := range mr.Stages {
			if len(models) > 1 {
				s.Text = mr.Model + ": " + s.Text
			}
			if byContext[s.Context] == nil {
				order = append(order, s.Context)
			}
			byContext[s.Context] = append(byContext[s.Context], s)
		}
	}
	checks := make([]delivery.Check, 0, len(order))
	for _, context := range order {
		stages := byContext[context]
		slices.SortStableFunc(stages, func(a, b Stage) int { return severity(b.State) - severity(a.State) })
		texts := make([]string, len(stages))
		for i, s := range stages {
			texts[i] = s.Text
		}
		checks = append(checks, delivery.Check{Context: context, State: stages[0].State,
			Description: strings.Join(texts, "; ")})
	}
	return checks
}

func severity(s delivery.CheckState) int {
	switch s {
	case delivery.CheckSuccess:
		return 0
	case delivery.CheckPending:
		return 1
	}
	return 2
}

// releaseCheck is the one check that branch protection requires. It is green
// only where nothing is to be released, or where the tree holds the release
// files that signed statements yield.
func (m *maker) releaseCheck(p Proposal, r *ProposalReport, gates []string) delivery.Check {
	check := delivery.Check{Context: delivery.ContextRelease}
	if len(r.Models) == 0 {
		check.State, check.Description = delivery.CheckSuccess, "no model change"
		switch {
		case len(gates) > 0:
			check.Description += "; gates: " + strings.Join(gates, ", ")
			if failing := failing(r.Gates); failing != "" {
				check.Description += "; would fail: " + failing
			}
			for _, v := range r.Gates {
				if v.Outcome == "" {
					check.State = delivery.CheckPending
					check.Description = "judging the current releases by the changed gates"
				}
			}
		case len(r.Fleets) > 0:
			check.Description += "; fleets: " + strings.Join(r.Fleets, "; ")
		}
		if len(r.Held) > 0 {
			check.Description += "; quarantine: " + strings.Join(r.Held, "; ")
		}
		return m.behind(check, p)
	}

	var done, waiting, failed []string
	var missing []delivery.Release
	for _, mr := range r.Models {
		switch mr.State {
		case delivery.CheckSuccess:
			done = append(done, mr.Text)
		case delivery.CheckPending:
			waiting = append(waiting, mr.Text)
		default:
			failed = append(failed, mr.Text)
		}
		if mr.Commit != nil {
			missing = append(missing, *mr.Commit)
		}
	}
	switch {
	case len(failed) > 0:
		check.State, check.Description = delivery.CheckFailure, strings.Join(failed, "; ")
	case len(waiting) > len(missing):
		check.State, check.Description = delivery.CheckPending, strings.Join(waiting, "; ")
	case len(missing) > 0:
		// Every model is ready; one commit brings all files, so that no head in
		// between holds half of them.
		m.step(CommitRelease{PR: p.PullRequest, Releases: missing})
		check.State, check.Description = delivery.CheckPending, strings.Join(waiting, "; ")
	default:
		check.State, check.Description = delivery.CheckSuccess, strings.Join(done, "; ")
	}
	return m.behind(check, p)
}

// behind says on a check that passed what aob pr merge would refuse on a local forge: other forges say it themselves.
func (m *maker) behind(check delivery.Check, p Proposal) delivery.Check {
	if m.w.Server.Socket && check.State == delivery.CheckSuccess && !p.Landed && len(p.Bases) == 1 &&
		p.Bases[0] != m.w.Main.Commit {
		check.Description += fmt.Sprintf("; %s has moved on, so rebase onto it before you merge", m.w.Main.Branch)
	}
	return check
}

func failing(verdicts []delivery.Verdict) string {
	var words []string
	for _, v := range verdicts {
		if v.Outcome == delivery.Fail {
			words = append(words, v.Model+": "+v.Reason)
		}
	}
	return strings.Join(words, "; ")
}

// nobodies warns of owners of gates that cannot own one. "" is none.
func (m *maker) nobodies(in delivery.Intent) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(in.Gates)) {
		for _, o := range in.Gates[name].Owners {
			if why := m.w.Nobodies[o]; why != "" {
				fmt.Fprintf(&b, "; warning: %s, an owner of gate %s, is %s", o, name, why)
			}
		}
	}
	return b.String()
}
