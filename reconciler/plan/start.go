package plan

// This file finds what a training starts from, and the licences of what a model is made of.

import (
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// trainInput returns the training of one seed, or says what is missing for it.
func (m *maker) trainInput(r *progress, seed int64) (input delivery.TrainRun, why delivery.Fact) {
	input, why = m.w.Server.TrainInput(r.model, seed, r.dataKey, r.data)
	if why.IsZero() && r.model.Train.Start() == delivery.StartRelease {
		why = m.fromRelease(r, &input)
	}
	return input, why
}

// fromRelease makes a training start from the checkpoint of a release, or says why that is not there.
func (m *maker) fromRelease(r *progress, input *delivery.TrainRun) (why delivery.Fact) {
	parent, why := m.parentOf(r)
	if !why.IsZero() {
		return why
	}
	input.Parent, input.Checkpoint = parent.Bundle, parent.Training.Result.Checkpoint
	for _, l := range parent.Training.Input.Licences {
		if !slices.Contains(input.Licences, l) {
			input.Licences = append(input.Licences, l)
		}
	}
	return delivery.Fact{}
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
	} else {
		input, _ := m.trainInput(r, 0)
		parts = input.Licences
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
