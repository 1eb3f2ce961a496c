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

// A Report is what one turn observed and planned, with main's history from the repository. It is only read.
type Report struct {
	World plan.World
	Plan  plan.Plan
	// Silent reports whether a device has not been heard from within the deadline.
	Silent func(delivery.Device) bool
	// Versions is the history of main's release files, by model, newest first. For other models World has what is
	// known.
	Versions map[string][]Version
	// Heads has the last known commit of closed pull requests, by number.
	Heads map[int]string
	// Merge is the commit of main that merged the pull request which is to be explained; nil if it is not known.
	Merge *Version
}

// A Version is a model's release file on main from one commit on.
type Version struct {
	Commit  string
	Subject string // the commit message's first line
	Author  string
	At      time.Time
	Release *delivery.Release // nil: the file was removed, or could not be read
}

// Explain returns the chain of one thing, or [Unknown].
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
	return delivery.Each(r.World.Main.History[model], func(past plan.Past) Version {
		return Version{Commit: past.Commit, Release: past.Release}
	})
}

// accepted returns the models that have accepted releases, sorted.
func (r Report) accepted() []string { return slices.Sorted(maps.Keys(r.World.Evidence.Accepted)) }

// resolved returns how a bundle's thresholds were found.
func (r Report) resolved(bundle delivery.Digest) (delivery.Resolved, bool) {
	for _, t := range r.World.Evidence.Resolved {
		if t.Result.Bundle == bundle {
			return t, true
		}
	}
	return delivery.Resolved{}, false
}

// trained returns the training that made a bundle.
func (r Report) trained(bundle delivery.Digest) (delivery.Training, bool) {
	runs := r.World.Evidence.ByRun
	for _, key := range slices.Sorted(maps.Keys(runs)) {
		if runs[key].Bundle == bundle {
			return runs[key].Training, true
		}
	}
	return delivery.Training{}, false
}

// origin returns the training behind a bundle of a spec. A bundle with added thresholds has the training of the bundle
// without them.
func (r Report) origin(spec, bundle delivery.Digest) (delivery.Training, bool) {
	if t, ok := r.resolved(bundle); ok {
		bundle = t.Input.Valid.Bundle
	}
	if t, ok := r.World.Evidence.BySpec[spec]; ok && t.Training.Result.Bundle == bundle {
		return t.Training, true
	}
	return r.trained(bundle)
}

// proposedSpec returns the spec that a pull request has for a model. It is false if the pull request removes the model.
func (r Report) proposedSpec(number int, model string) (delivery.Spec, bool) {
	p, _ := delivery.Find(r.World.Proposals, func(p plan.Proposal) bool { return p.Number == number })
	m, ok := p.Intent.Models.Get(model)
	return m.Spec(), ok
}

// statement returns the signed statement of a release.
func (r Report) statement(release delivery.Release) (delivery.ReleaseStatement, bool) {
	return delivery.Find(r.World.Evidence.Releases, func(s delivery.ReleaseStatement) bool {
		return s.Model == release.Name && s.Version == release.Version && s.Spec == release.Spec &&
			s.Bundle == release.Bundle
	})
}

func (r Report) acceptance(model string, release delivery.Release) (delivery.Acceptance, bool) {
	return delivery.Find(r.World.Evidence.Accepted[model], func(a delivery.Acceptance) bool {
		return a.Version == release.Version && a.Spec == release.Spec && a.Bundle == release.Bundle
	})
}

// variantOf returns the accepted release that has a bundle as a variant; zero if there is none.
func (r Report) variantOf(bundle delivery.Digest) delivery.Acceptance {
	for _, model := range r.accepted() {
		if a, ok := delivery.Find(r.World.Evidence.Accepted[model], func(a delivery.Acceptance) bool {
			variant, has := a.Variant(bundle)
			return has && variant != delivery.FP32
		}); ok {
			return a
		}
	}
	return delivery.Acceptance{}
}

// released returns an accepted release as a release file has it.
func released(model string, a delivery.Acceptance) delivery.Release {
	return delivery.Release{Name: model, Version: a.Version, Bundle: a.Bundle, Spec: a.Spec}
}
