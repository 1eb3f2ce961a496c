package evidence

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A kind is one sort of statement. Each hangs under its own artifact type, so
// that listing tells them apart without reading them.
type kind struct {
	predicateType string
	artifactType  string
	// decode reads a predicate and returns the bundle that it is about, empty
	// where it does not say.
	decode func(json.RawMessage) (value any, about delivery.Digest, err error)
}

var (
	training = kind{delivery.TrainingType, "application/vnd.aob.training.v1+json",
		decode(func(t delivery.Training) (delivery.Digest, error) {
			return t.Result.Bundle, required("run", t.Run, "spec", t.Spec, "result.bundle", t.Result.Bundle)
		})}
	scores = kind{delivery.ScoresType, "application/vnd.aob.scores.v1+json",
		decode(func(s delivery.Scores) (delivery.Digest, error) {
			return s.Input.Bundle, required("key", s.Key, "input.bundle", s.Input.Bundle)
		})}
	resolved = kind{delivery.ThresholdsType, "application/vnd.aob.thresholds.v1+json",
		decode(func(r delivery.Resolved) (delivery.Digest, error) {
			return r.Result.Bundle, required("key", r.Key, "input.valid.bundle", r.Input.Valid.Bundle, "result.bundle",
				r.Result.Bundle)
		})}
	verdict = kind{delivery.VerdictType, "application/vnd.aob.verdict.v1+json",
		decode(func(v delivery.Verdict) (delivery.Digest, error) {
			return v.Bundle, required("key", v.Key, "gate", v.Gate, "outcome", v.Outcome)
		})}
	release = kind{delivery.ReleaseType, "application/vnd.aob.release.v1+json",
		decode(func(r delivery.ReleaseStatement) (delivery.Digest, error) {
			return r.Bundle, required("model", r.Model, "spec", r.Spec, "bundle", r.Bundle)
		})}
	acceptance = kind{delivery.AcceptanceType, "application/vnd.aob.acceptance.v1+json",
		decode(func(a delivery.Acceptance) (delivery.Digest, error) {
			return a.Bundle, required("model", a.Model, "spec", a.Spec, "bundle", a.Bundle)
		})}
	abort = kind{delivery.AbortType, "application/vnd.aob.abort.v1+json",
		decode(func(a delivery.Abort) (delivery.Digest, error) {
			return a.Bundle, required("fleet", a.Fleet, "model", a.Model, "bundle", a.Bundle)
		})}

	// snapshotKinds are those that Load reads; scores are read on demand.
	snapshotKinds = []kind{training, resolved, verdict, release, acceptance, abort}
	allKinds      = append([]kind{scores}, snapshotKinds...)
)

// decode makes a kind's decode function out of one for its type. Fields that
// this version does not know are passed over: a newer one may have signed them.
func decode[T any](about func(T) (delivery.Digest, error)) func(json.RawMessage) (any, delivery.Digest, error) {
	return func(data json.RawMessage) (any, delivery.Digest, error) {
		var v T
		if err := json.Unmarshal(data, &v); err != nil {
			return nil, "", err
		}
		bundle, err := about(v)
		return v, bundle, err
	}
}

// required takes names and values in turns, and complains of empty values.
func required(fields ...any) error {
	for i := 0; i < len(fields); i += 2 {
		if fmt.Sprint(fields[i+1]) == "" {
			return fmt.Errorf("%s is empty", fields[i])
		}
	}
	return nil
}

func kindOf(predicateType string) (kind, error) {
	for _, k := range allKinds {
		if k.predicateType == predicateType {
			return k, nil
		}
	}
	return kind{}, fmt.Errorf("no statement of type %q is known", predicateType)
}

// encodeStatement writes the one form of a statement, so that saying the same
// of the same bundle is the same bytes.
func encodeStatement(k kind, bundle delivery.Digest, predicate any) ([]byte, error) {
	plain, err := json.Marshal(predicate) // a number that is none is an error here; Canonical would panic
	if err != nil {
		return nil, err
	}
	return delivery.Canonical(delivery.Statement{
		Type:          delivery.StatementType,
		Subject:       []delivery.Subject{{Name: "bundle", Digest: map[string]string{"sha256": bundle.Hex()}}},
		PredicateType: k.predicateType,
		Predicate:     plain,
	}), nil
}

// decodeStatement reads a verified payload: a statement of this kind about this
// bundle and nothing else.
func decodeStatement(k kind, bundle delivery.Digest, payload []byte) (any, error) {
	var s delivery.Statement
	if err := json.Unmarshal(payload, &s); err != nil {
		return nil, fmt.Errorf("not an in-toto statement: %w", err)
	}
	if s.Type != delivery.StatementType {
		return nil, fmt.Errorf("want a statement of type %s, got %q", delivery.StatementType, s.Type)
	}
	if err := delivery.CheckNewer("this statement", s.PredicateType, k.predicateType); err != nil {
		return nil, err
	}
	if s.PredicateType != k.predicateType {
		return nil, fmt.Errorf("want a predicate of type %s, got %q", k.predicateType, s.PredicateType)
	}
	if len(s.Subject) != 1 || len(s.Subject[0].Digest) != 1 || s.Subject[0].Digest["sha256"] != bundle.Hex() {
		return nil, fmt.Errorf("it is about %s, and hangs on %s", subjects(s.Subject), bundle)
	}
	value, about, err := k.decode(s.Predicate)
	if err != nil {
		return nil, fmt.Errorf("predicate: %w", err)
	}
	if about != "" && about != bundle {
		return nil, fmt.Errorf("its predicate is about %s, and it hangs on %s", about, bundle)
	}
	return value, nil
}

func subjects(list []delivery.Subject) string {
	var names []string
	for _, s := range list {
		for algorithm, hex := range s.Digest {
			names = append(names, algorithm+":"+hex)
		}
	}
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ", ")
}
