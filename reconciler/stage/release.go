package stage

// This file reads what the signed evidence says of a release.

import (
	"context"
	"fmt"
	"slices"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/evidence"
	"github.com/autonomos/aob/reconciler/trust"
)

// A Release is what the signed evidence says of one version of a model.
type Release struct {
	Statement delivery.ReleaseStatement
	Accepted  delivery.Acceptance
	Training  delivery.Training
	Resolved  *delivery.Resolved         // of the thresholds; nil for none
	Gates     map[string]delivery.Scores // of the bundle, by gate
	Classes   map[string][]string        // of each gate, as far as they were measured
	Valid     *delivery.Scores           // of the trained bundle on its validation split, if there are several seeds
}

// ReadRelease reads the evidence about a release. It counts only what the trusted keys signed.
func ReadRelease(ctx context.Context, from artifact.Source, model string, version int, bundle delivery.Digest,
	trusted []trust.PublicKey) (r Release, err error) {
	read := signed{ctx, from, trusted}
	is := fmt.Sprintf("%s@%d", model, version)
	if r.Statement, err = one(read, delivery.ReleaseType, bundle, "release "+is,
		func(s delivery.ReleaseStatement) bool { return s.Model == model && s.Version == version }); err != nil {
		return r, err
	}
	if r.Accepted, err = one(read, delivery.AcceptanceType, bundle, "acceptance of "+is,
		func(a delivery.Acceptance) bool { return a.Model == model && a.Version == version }); err != nil {
		return r, err
	}
	resolved, why, err := all[delivery.Resolved](read, delivery.ThresholdsType, bundle)
	if err != nil {
		return r, err
	}
	trained := func(t delivery.Training) bool { return t.Spec == r.Statement.Spec }
	if len(resolved) == 0 {
		if r.Training, err = one(read, delivery.TrainingType, bundle, "training of "+is, trained); err != nil {
			return r, orWhy(err, why)
		}
	}
	for _, t := range resolved {
		if r.Training, err = one(read, delivery.TrainingType, t.Input.Valid.Bundle, "training of "+is,
			trained); err == nil {
			r.Resolved = &t
			break
		}
	}
	if err != nil {
		return r, err
	}
	r.Gates, r.Classes = map[string]delivery.Scores{}, map[string][]string{}
	for _, m := range r.Statement.File.Measured {
		judged, ok := delivery.Find(r.Statement.Gates, func(g delivery.GateJudged) bool { return g.Name == m.Gate })
		if !ok {
			return r, fmt.Errorf("the statement of release %s has no verdict of gate %s", is, m.Gate)
		}
		r.Classes[m.Gate] = judged.Verdict.Classes
		if r.Gates[m.Gate], err = one(read, delivery.ScoresType, bundle, "scores of "+is+" for gate "+m.Gate,
			func(s delivery.Scores) bool { return slices.Contains(judged.Verdict.Inputs, s.Key) }); err != nil {
			return r, err
		}
	}
	for _, s := range r.Training.Seeds {
		if s.Bundle != r.Training.Result.Bundle {
			continue
		}
		valid, err := one(read, delivery.ScoresType, s.Bundle, "scores of "+is+" on its validation split",
			func(v delivery.Scores) bool { return v.Key == s.Score })
		if err != nil {
			return r, err
		}
		r.Valid = &valid
	}
	return r, nil
}

// signed reads statements that trusted keys have signed.
type signed struct {
	ctx     context.Context
	from    artifact.Source
	trusted []trust.PublicKey
}

// all reads the valid statements of a type about a bundle. why is the error of one that is not valid.
func all[T any](r signed, predicateType string, bundle delivery.Digest) (list []T, why, err error) {
	envelopes, err := artifact.Attachments(r.ctx, r.from, bundle, evidence.ArtifactType(predicateType))
	for _, envelope := range envelopes {
		v, bad := evidence.Read[T](predicateType, bundle, envelope, r.trusted)
		if bad != nil {
			why = bad
			continue
		}
		list = append(list, v)
	}
	return list, why, err
}

// one reads the first valid statement of a type about a bundle that fits. what names it in the error if there is none.
func one[T any](r signed, predicateType string, bundle delivery.Digest, what string, fits func(T) bool) (T, error) {
	list, why, err := all[T](r, predicateType, bundle)
	v, ok := delivery.Find(list, fits)
	if ok || err != nil {
		return v, err
	}
	if why != nil {
		return v, delivery.Blockedf("name the key that the server signed its evidence with: "+
			"keys/evidence.key.pub in its state folder", "a statement about the %s is not valid: %v", what, why)
	}
	return v, delivery.Blockedf("aob bundle show lists what is there; a registry must have the attachments of its "+
		"bundles", "there is no statement about the %s on bundle %s", what, bundle.Short())
}

// orWhy adds why another statement is not valid.
func orWhy(err, why error) error {
	if why == nil {
		return err
	}
	return fmt.Errorf("%w (a statement about thresholds is not valid: %w)", err, why)
}
