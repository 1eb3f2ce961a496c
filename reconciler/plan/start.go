package plan

// This file finds what a training starts from, and the licences of what a model is made of.

import (
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A start is what a training starts from.
type start struct {
	weights    *delivery.Weights
	parent     delivery.Digest // bundle
	checkpoint delivery.Digest
	licences   []delivery.Licensed
}

// startOf finds what a model's training starts from, or says why it is not there.
func (m *maker) startOf(r *progress, trainer delivery.Trainer) (s start, why delivery.Fact) {
	train := r.model.Train
	s.licences = []delivery.Licensed{{Part: "architecture " + train.Architecture,
		Licence: trainer.Licence(train.Architecture)}}
	switch train.Start() {
	case delivery.StartWeights:
		weights, ok := m.w.Server.Weights[train.From]
		if !ok {
			return s, fact(code.WeightsUnknown, values{Text: train.From})
		}
		s.weights = &weights
		s.licences = append(s.licences, delivery.Licensed{Part: "weights " + train.From, Licence: weights.Licence})
	case delivery.StartRelease:
		parent, why := m.parentOf(r)
		if !why.IsZero() {
			return s, why
		}
		s.parent, s.checkpoint = parent.Bundle, parent.Training.Result.Checkpoint
		for _, l := range parent.Training.Input.Licences {
			if !slices.Contains(s.licences, l) {
				s.licences = append(s.licences, l)
			}
		}
	}
	return s, delivery.Fact{}
}

// parentOf finds the training whose checkpoint a model's training starts from: that of main's release, or of a version
// that main has accepted.
func (m *maker) parentOf(r *progress) (parent Trained, why delivery.Fact) {
	train := r.model.Train
	var bundle delivery.Digest
	if name, version, named := strings.Cut(train.From, "@"); named {
		if bundle, why = m.version(name, version); why.Code == code.VersionUnknown {
			why = fact(code.ParentUnknown, values{Text: train.From})
		}
	} else if release := m.baseline(r.names); release != nil {
		bundle = release.Bundle
	} else {
		why = fact(code.ParentMissing, values{Model: r.model.Name, Branch: m.w.Main.Branch})
	}
	if !why.IsZero() {
		return parent, why
	}
	parent, ok := m.w.Evidence.Training(bundle)
	if !ok || parent.Training.Result.Checkpoint == "" {
		return parent, fact(code.ParentGone, values{Text: train.From, Bundle: bundle})
	}
	theirs := parent.Training.Input.Spec.Train
	if nameOf(theirs.With) != nameOf(train.With) || theirs.Architecture != train.Architecture {
		return parent, fact(code.ParentOther, values{Text: train.From, FromModel: theirs.With, Model: train.With,
			Names: []string{train.Architecture}, Labels: []string{theirs.Architecture}})
	}
	return parent, delivery.Fact{}
}

// nameOf returns the name in NAME@VERSION.
func nameOf(with string) string {
	name, _, _ := strings.Cut(with, "@")
	return name
}

// wrongLicence says which part of a model a gate does not allow, before anything is trained. What is missing to know
// that is said when it is trained.
func (m *maker) wrongLicence(r *progress, gates []judged) delivery.Fact {
	var parts []delivery.Licensed
	if t, ok := m.w.Evidence.BySpec[r.Spec]; ok {
		parts = t.Training.Input.Licences
	} else if trainer, ok := m.w.Server.Trainers[r.model.Train.With]; ok {
		s, _ := m.startOf(r, trainer)
		parts = s.licences
	}
	for _, j := range gates {
		part, forbidden := j.gate.Forbidden(parts)
		if !forbidden {
			continue
		}
		v := values{Model: r.model.Name, Gate: j.name, Text: part.Part, Licence: part.Licence, Names: j.gate.Licences()}
		if !j.proposed {
			v.Branch = m.w.Main.Branch
		}
		return fact(code.LicenceForbidden, v)
	}
	return delivery.Fact{}
}
