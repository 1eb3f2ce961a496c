package explain

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// A Report is what the loop observed and decided at one moment, and what the repository says of main's past. All of it
// is read and nothing changed.
type Report struct {
	World plan.World
	Plan  plan.Plan
	// Silent reports whether a device has not been heard from within the deadline.
	Silent func(delivery.Device) bool
	// Versions is what main's release files have said, by model, newest first. For a model that is not in it, World
	// says what is known.
	Versions map[string][]Version
	// Heads is the last commit of pull requests that are closed, by number, as far as that is known.
	Heads map[int]string
}

// A Version is what main's release file of a model said from one commit on.
type Version struct {
	Commit  string
	Subject string // the commit message's first line
	Author  string
	At      time.Time
	Release *delivery.Release // nil: the file was removed, or could not be read
}

// Explain tells how one thing came to be, or returns [Unknown].
func (r Report) Explain(kind Kind, id string) (Chain, error) {
	switch kind {
	case PR:
		n, err := strconv.Atoi(strings.TrimPrefix(id, "#"))
		if err != nil || n < 1 {
			return Chain{}, Unknown{kind, id, "a pull request is named by its number, as 12"}
		}
		return r.pr(n)
	case Commit:
		return r.commit(strings.ToLower(id))
	case Model:
		return r.model(id)
	case Device:
		return r.device(id)
	}
	return Chain{}, Unknown{kind, id, "what can be explained is a pr, a commit, a model or a device"}
}

func (r Report) branch() string { return r.World.Main.Branch }

// versions returns a model's versions, newest first.
func (r Report) versions(model string) []Version {
	if list, ok := r.Versions[model]; ok {
		return list
	}
	var list []Version
	for _, past := range r.World.Main.History[model] {
		list = append(list, Version{Commit: past.Commit, Release: past.Release})
	}
	return list
}

// accepted returns main's acceptances by model, sorted by its name.
func (r Report) accepted() []string { return slices.Sorted(maps.Keys(r.World.Evidence.Accepted)) }

// resolved finds how the thresholds of a bundle were found.
func (r Report) resolved(bundle delivery.Digest) (delivery.Resolved, bool) {
	for _, t := range r.World.Evidence.Resolved {
		if t.Result.Bundle == bundle {
			return t, true
		}
	}
	return delivery.Resolved{}, false
}

// trained finds the training that made a bundle.
func (r Report) trained(bundle delivery.Digest) (delivery.Training, bool) {
	runs := r.World.Evidence.ByRun
	for _, key := range slices.Sorted(maps.Keys(runs)) {
		if runs[key].Bundle == bundle {
			return runs[key].Training, true
		}
	}
	return delivery.Training{}, false
}

// origin finds how a bundle of a spec was made: what the spec was resolved to, where
// that is known, and from which bundle its thresholds were added.
func (r Report) origin(spec, bundle delivery.Digest) (delivery.Training, bool) {
	if t, ok := r.resolved(bundle); ok {
		bundle = t.Input.Valid.Bundle
	}
	if t, ok := r.World.Evidence.BySpec[spec]; ok && t.Training.Result.Bundle == bundle {
		return t.Training, true
	}
	return r.trained(bundle)
}

// asks returns what a pull request asks for of a model. It is false where it removes the model.
func (r Report) asks(number int, model string) (delivery.Spec, bool) {
	for _, p := range r.World.Proposals {
		if p.Number == number {
			m, ok := p.Intent.Models[model]
			return m.Spec(), ok
		}
	}
	return delivery.Spec{}, false
}

// statement finds what was signed for a release.
func (r Report) statement(release delivery.Release) (delivery.ReleaseStatement, bool) {
	for _, s := range r.World.Evidence.Releases {
		if s.Model == release.Name && s.Version == release.Version && s.Spec == release.Spec &&
			s.Bundle == release.Bundle {
			return s, true
		}
	}
	return delivery.ReleaseStatement{}, false
}

func (r Report) acceptance(model string, release delivery.Release) (delivery.Acceptance, bool) {
	for _, a := range r.World.Evidence.Accepted[model] {
		if a.Version == release.Version && a.Spec == release.Spec && a.Bundle == release.Bundle {
			return a, true
		}
	}
	return delivery.Acceptance{}, false
}

// released is what main accepted, as a release file says it.
func released(model string, a delivery.Acceptance) delivery.Release {
	return delivery.Release{Name: model, Version: a.Version, Bundle: a.Bundle, Spec: a.Spec}
}
