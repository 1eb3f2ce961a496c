package words

import (
	"fmt"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// Step writes a step as aob plan shows it: + makes, - ends, ~ changes something.
func Step(step plan.Step) string {
	switch s := step.(type) {
	case plan.StartRun:
		return fmt.Sprintf("+ run %s %s (%s)", s.Spec.Kind, s.Spec.Key.Short(), s.Spec.Note)
	case plan.EndRun:
		return fmt.Sprintf("- run %s %s: %s", s.Kind, s.Run.Short(), Text(s.Why))
	case plan.KeepNeed:
		switch by := PRs(s.Need.PRs); {
		case !s.Need.Since.IsZero():
			return fmt.Sprintf("~ run %s %s: nothing needs it since %s", s.Kind, s.Run.Short(),
				s.Need.Since.Format("15:04:05"))
		case by == "":
			return fmt.Sprintf("~ run %s %s: needed, by no pull request", s.Kind, s.Run.Short())
		default:
			return fmt.Sprintf("~ run %s %s: needed by %s", s.Kind, s.Run.Short(), by)
		}
	case plan.Sign:
		return fmt.Sprintf("+ sign %s for %s", statement(s), s.Bundle.Short())
	case plan.CommitRelease:
		files := delivery.Each(s.Releases, func(r delivery.Release) string {
			return fmt.Sprintf("models/%s.release.yaml (version %d)", r.Name, r.Version)
		})
		return fmt.Sprintf("~ commit %s to %s", strings.Join(files, ", "), s.PR.HeadRef)
	case plan.Propose:
		return fmt.Sprintf("+ pull request %s: %s", s.Branch, Text(s.Title))
	case plan.Publish:
		d, as := s.Desired, ""
		if s.Variant != "" {
			as = " as " + s.Variant
		}
		if s.Devices == 0 {
			return fmt.Sprintf("~ fleet %s: %s version %d%s, for future devices", d.Ring, d.Model, d.Release.Version,
				as)
		}
		return fmt.Sprintf("~ fleet %s: %s version %d%s for %d of %d devices", d.Ring, d.Model, d.Release.Version, as,
			s.Wave, s.Devices)
	case plan.AskBench:
		return fmt.Sprintf("+ ask device %s of fleet %s to measure %s on %s", s.Request.Device, s.Request.Ring,
			s.Request.Bundle.Short(), s.Request.Profile)
	case plan.KeepClock:
		return fmt.Sprintf("~ fleet %s: remember the wave", s.Fleet)
	}
	return fmt.Sprintf("~ %s", step.Key())
}

// statement names a statement that is to be signed.
func statement(s plan.Sign) string {
	switch s.Type {
	case delivery.TrainingType:
		return "training of " + s.Of
	case delivery.VariantType:
		return "variant of " + s.Of
	case delivery.BenchType:
		return "bench of " + s.Of
	case delivery.ThresholdsType:
		return "thresholds of " + s.Of
	case delivery.ScoresType:
		return "scores on " + s.Of
	case delivery.VerdictType:
		return "verdict of gate " + s.Of
	case delivery.AbortType:
		return "abort of " + s.Of
	}
	switch p := s.Predicate.(type) {
	case delivery.ReleaseStatement:
		return fmt.Sprintf("release of %s version %d", s.Of, p.Version)
	case delivery.Acceptance:
		return fmt.Sprintf("acceptance of %s version %d", s.Of, p.Version)
	}
	return "statement about " + s.Of
}

// Plan writes a plan as a diff, as aob plan does. Whatever text from outside says, it stays on its line.
func Plan(p plan.Plan) string {
	var b strings.Builder
	checks := func(list ...plan.Check) {
		for _, c := range list {
			fmt.Fprintf(&b, "    %-8s %s: %s\n", c.State, delivery.Terminal(c.Context),
				delivery.Terminal(Join(c.Facts)))
		}
	}
	for _, r := range p.Proposals {
		fmt.Fprintf(&b, "#%d %s %.12s\n", r.PR.Number, delivery.Terminal(r.PR.Title), r.PR.Head)
		checks(r.Checks...)
	}
	if p.Main.Commit != "" {
		fmt.Fprintf(&b, "%s %.12s\n", delivery.Terminal(p.Main.Branch), p.Main.Commit)
		checks(p.Main.Checks...)
	}
	for _, f := range p.Fleets {
		fmt.Fprintf(&b, "fleet %s\n", delivery.Terminal(f.Fleet))
		checks(plan.Check{Context: delivery.ContextRollout + f.Fleet, State: f.State, Facts: f.Facts})
	}
	if len(p.Steps) == 0 {
		b.WriteString("nothing to do\n")
		return b.String()
	}
	lines := delivery.Each(p.Steps, func(s plan.Step) string { return delivery.Terminal(Step(s)) })
	slices.Sort(lines)
	b.WriteString(strings.Join(lines, "\n") + "\n")
	return b.String()
}
