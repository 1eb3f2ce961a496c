package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/rollout"
)

// A Step is one thing to do. Its key is the same across restarts, and doing it
// twice is the same as doing it once.
type Step interface {
	Key() string
	String() string // as shown by aob plan
}

// StartRun starts a run, or starts it again after it died.
type StartRun struct {
	Spec delivery.RunSpec
	PRs  []int // who waits for it
}

func (s StartRun) Key() string { return "run/" + string(s.Spec.Key) }
func (s StartRun) String() string {
	return fmt.Sprintf("+ run %s %s (%s)", s.Spec.Kind, s.Spec.Key.Short(), s.Spec.Note)
}

// EndRun ends a run that nothing waits for.
type EndRun struct {
	Run  delivery.Digest
	Kind delivery.RunKind
	Why  string
}

func (s EndRun) Key() string    { return "end/" + string(s.Run) }
func (s EndRun) String() string { return fmt.Sprintf("- run %s %s: %s", s.Kind, s.Run.Short(), s.Why) }

// KeepNeed records who needs a run, so that it is known after a restart.
type KeepNeed struct {
	Run  delivery.Digest
	Kind delivery.RunKind
	Need delivery.RunNeed
}

func (s KeepNeed) Key() string {
	return "need/" + string(s.Run) + "/" + string(delivery.DigestOf("need", s.Need))
}
func (s KeepNeed) String() string {
	by := numbers(s.Need.PRs)
	switch {
	case !s.Need.Since.IsZero():
		return fmt.Sprintf("~ run %s %s: nothing needs it since %s", s.Kind, s.Run.Short(),
			s.Need.Since.Format("15:04:05"))
	case by == "":
		return fmt.Sprintf("~ run %s %s: needed, by no pull request", s.Kind, s.Run.Short())
	}
	return fmt.Sprintf("~ run %s %s: needed by %s", s.Kind, s.Run.Short(), by)
}

// Sign attaches a signed statement to a bundle.
type Sign struct {
	Bundle    delivery.Digest
	Type      string // predicate type
	Predicate any
	What      string
}

func (s Sign) Key() string {
	return "sign/" + string(delivery.DigestOf(s.Type, []any{s.Bundle, s.Predicate}))
}
func (s Sign) String() string { return fmt.Sprintf("+ sign %s for %s", s.What, s.Bundle.Short()) }

// CommitRelease writes release files to a pull request's branch, if its head is
// still the expected one.
type CommitRelease struct {
	PR       delivery.PullRequest
	Releases []delivery.Release // by model's name
}

func (s CommitRelease) Key() string {
	return "commit/" + string(delivery.DigestOf("commit", []any{s.PR.HeadRef, s.PR.Fork, s.PR.Head, s.Releases}))
}
func (s CommitRelease) String() string {
	names := make([]string, len(s.Releases))
	for i, r := range s.Releases {
		names[i] = fmt.Sprintf("models/%s.release.yaml (version %d)", r.Name, r.Version)
	}
	return fmt.Sprintf("~ commit %s to %s", strings.Join(names, ", "), s.PR.HeadRef)
}

// Propose opens a pull request of AOB's own, found again by its branch.
type Propose struct {
	Branch string // without refs/heads/
	Base   string // commit of main that it starts from
	Title  string // of the pull request and of its commit
	Body   string // of the pull request, in Markdown
	// Message is what the commit says below its title.
	Message string
	// Restore maps a path to the commit whose content it gets back; "" removes it.
	Restore map[string]string
	// Quarantine is appended to the model's file, where set.
	Quarantine *delivery.Quarantine
}

// proposalText returns what a pull request of AOB's own says, and its commit. The
// words are text from outside, which format repeats.
func proposalText(format string, words ...string) (body, message string) {
	var markdown, commit []any
	for _, w := range words {
		markdown, commit = append(markdown, delivery.Markdown(w)), append(commit, delivery.CommitText(w))
	}
	return fmt.Sprintf(format, markdown...), fmt.Sprintf(format, commit...)
}

func (s Propose) Key() string { return "propose/" + s.Branch }
func (s Propose) String() string {
	return fmt.Sprintf("+ pull request %s: %s", s.Branch, s.Title)
}

// Publish signs and publishes what a ring of devices must run.
type Publish struct {
	Desired delivery.Desired // the publisher numbers it
	Wave    int              // devices that get its release, of those that were heard
	Devices int              // of the fleet
}

func (s Publish) Key() string { return "publish/" + string(delivery.DigestOf("desired", s.Desired)) }
func (s Publish) String() string {
	d := s.Desired
	if s.Devices == 0 {
		return fmt.Sprintf("~ fleet %s: %s version %d, for devices that are to come", d.Ring, d.Model,
			d.Release.Version)
	}
	return fmt.Sprintf("~ fleet %s: %s version %d for %d of %d devices", d.Ring, d.Model, d.Release.Version, s.Wave,
		s.Devices)
}

// KeepClock remembers where a rollout stands.
type KeepClock struct {
	Fleet string
	State rollout.State
}

func (s KeepClock) Key() string {
	return "clock/" + s.Fleet + "/" + string(delivery.DigestOf("clock", s.State))
}
func (s KeepClock) String() string { return fmt.Sprintf("~ fleet %s: remember the wave", s.Fleet) }

// String prints a plan as a diff, as aob plan does. Whatever text from outside says, it stays on its line.
func (p Plan) String() string {
	var b strings.Builder
	checks := func(list []delivery.Check) {
		for _, c := range list {
			fmt.Fprintf(&b, "    %-8s %s: %s\n", c.State, delivery.Terminal(c.Context),
				delivery.Terminal(c.Description))
		}
	}
	for _, r := range p.Proposals {
		fmt.Fprintf(&b, "#%d %s %.12s\n", r.PR.Number, delivery.Terminal(r.PR.Title), r.PR.Head)
		checks(r.Checks)
	}
	if p.Main.Commit != "" {
		fmt.Fprintf(&b, "%s %.12s\n", delivery.Terminal(p.Main.Branch), p.Main.Commit)
		checks(p.Main.Checks)
	}
	for _, f := range p.Fleets {
		fmt.Fprintf(&b, "fleet %s\n", delivery.Terminal(f.Fleet))
		checks([]delivery.Check{{Context: delivery.ContextRollout + f.Fleet, State: f.State, Description: f.Text}})
	}
	if len(p.Steps) == 0 {
		b.WriteString("nothing to do\n")
		return b.String()
	}
	lines := make([]string, len(p.Steps))
	for i, s := range p.Steps {
		lines[i] = delivery.Terminal(s.String())
	}
	slices.Sort(lines)
	b.WriteString(strings.Join(lines, "\n") + "\n")
	return b.String()
}
