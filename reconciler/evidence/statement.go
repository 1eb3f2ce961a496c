package evidence

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trust"
)

// A kind is one type of statement. Each has its own artifact type, so that a list of
// referrers shows the kinds without reading the statements.
type kind struct {
	predicateType string
	artifactType  string
	// decode reads a predicate, and returns a pointer to it. about is the bundle that the predicate names, or empty if
	// it names none.
	decode func(json.RawMessage) (value any, about delivery.Digest, err error)
}

var (
	training = kind{delivery.TrainingType, "application/vnd.aob.training.v1+json",
		decode(func(t delivery.Training) (delivery.Digest, error) {
			return t.Result.Bundle, required("run", t.Run, "spec", t.Spec, "result.bundle", t.Result.Bundle)
		})}
	scores = kind{delivery.ScoresType, "application/vnd.aob.scores.v2+json",
		decode(func(s delivery.Scores) (delivery.Digest, error) {
			return s.Input.Bundle, required("key", s.Key, "input.bundle", s.Input.Bundle)
		})}
	resolved = kind{delivery.ThresholdsType, "application/vnd.aob.thresholds.v1+json",
		decode(func(r delivery.Resolved) (delivery.Digest, error) {
			return r.Result.Bundle, required("key", r.Key, "input.valid.bundle", r.Input.Valid.Bundle, "result.bundle",
				r.Result.Bundle)
		})}
	variant = kind{delivery.VariantType, "application/vnd.aob.variant.v1+json",
		decode(func(v delivery.MadeVariant) (delivery.Digest, error) {
			return v.Result.Bundle, required("key", v.Key, "input.variant", v.Input.Variant, "input.bundle",
				v.Input.Bundle, "result.bundle", v.Result.Bundle)
		})}
	benched = kind{delivery.BenchType, "application/vnd.aob.bench.v1+json",
		decode(func(b delivery.Bench) (delivery.Digest, error) { return b.Bundle, b.Check() })}
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

	// snapshotKinds are the kinds that Load reads. Scores are read on demand.
	snapshotKinds = []kind{training, resolved, variant, benched, verdict, release, acceptance, abort}
	allKinds      = slices.Concat([]kind{scores}, snapshotKinds, paperKinds)
)

// decode adapts a function on a predicate type to kind.decode. Unknown fields are ignored:
// a newer version may have written them.
func decode[T any](about func(T) (delivery.Digest, error)) func(json.RawMessage) (any, delivery.Digest, error) {
	return func(data json.RawMessage) (any, delivery.Digest, error) {
		v := new(T)
		if err := json.Unmarshal(data, v); err != nil {
			return nil, "", err
		}
		bundle, err := about(*v)
		return v, bundle, err
	}
}

// required takes alternating names and values. It returns an error that names the first empty value.
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
	return kind{}, fmt.Errorf("unknown statement type %q", predicateType)
}

// ArtifactType returns the artifact type of the attachments with a type of statement; "" for an unknown type.
func ArtifactType(predicateType string) string {
	k, _ := kindOf(predicateType)
	return k.artifactType
}

// Read verifies and reads one statement about a bundle from its envelope. T is the type of the predicate.
func Read[T any](predicateType string, bundle delivery.Digest, envelope []byte, trusted []trust.PublicKey) (v T,
	err error) {
	k, err := kindOf(predicateType)
	if err != nil {
		return v, err
	}
	payload, _, err := trust.Verify(envelope, delivery.StatementPayload, trusted)
	if err != nil {
		return v, err
	}
	value, _, err := decodeStatement(k, bundle, payload)
	if err != nil {
		return v, err
	}
	p, ok := value.(*T)
	if !ok {
		return v, fmt.Errorf("a statement of type %s is no %T", predicateType, v)
	}
	return *p, nil
}

// encodeStatement encodes a statement canonically: equal statements about a bundle give equal bytes.
func encodeStatement(k kind, bundle delivery.Digest, predicate any) ([]byte, error) {
	plain, err := json.Marshal(predicate) // Canonical would panic on NaN; this returns an error
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

// decodeStatement decodes a verified payload. It must be a statement of this kind about this bundle only. value points
// to the decoded predicate.
func decodeStatement(k kind, bundle delivery.Digest, payload []byte) (value any, predicate []byte, err error) {
	var s delivery.Statement
	if err := json.Unmarshal(payload, &s); err != nil {
		return nil, nil, fmt.Errorf("not an in-toto statement: %w", err)
	}
	if s.Type != delivery.StatementType {
		return nil, nil, fmt.Errorf("want a statement of type %s, got %q", delivery.StatementType, s.Type)
	}
	if err := delivery.CheckNewer("this statement", s.PredicateType, k.predicateType); err != nil {
		return nil, nil, err
	}
	if s.PredicateType != k.predicateType {
		return nil, nil, fmt.Errorf("want a predicate of type %s, got %q", k.predicateType, s.PredicateType)
	}
	if len(s.Subject) != 1 || len(s.Subject[0].Digest) != 1 || s.Subject[0].Digest["sha256"] != bundle.Hex() {
		return nil, nil, fmt.Errorf("it is about %s, but attached to %s", subjects(s.Subject), bundle)
	}
	value, err = decodePredicate(k, bundle, s.Predicate)
	return value, s.Predicate, err
}

func decodePredicate(k kind, bundle delivery.Digest, predicate []byte) (any, error) {
	value, about, err := k.decode(predicate)
	if err != nil {
		return nil, fmt.Errorf("predicate: %w", err)
	}
	if about != "" && about != bundle {
		return nil, fmt.Errorf("its predicate is about %s, but it is attached to %s", about, bundle)
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
