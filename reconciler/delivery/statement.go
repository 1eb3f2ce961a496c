package delivery

import (
	"encoding/json"
	"reflect"
	"slices"
	"time"
)

// A Statement is an in-toto Statement v1 about a bundle. It is signed in a DSSE envelope
// and attached to the bundle as an OCI referrer.
type Statement struct {
	Type          string          `json:"_type"` // StatementType
	Subject       []Subject       `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
}

// A Subject is what a statement is about.
type Subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"` // {"sha256": hex}
}

// An Attached is what is attached to a bundle: a signed envelope, as a referrer of an artifact type.
type Attached struct {
	Bundle, Referrer Digest
	Type             string
	At               int // its place among all that is attached to any bundle
}

// The types of statements and payloads.
const (
	StatementType    = "https://in-toto.io/Statement/v1"
	StatementPayload = "application/vnd.in-toto+json"

	TrainingType   = "https://aob.dev/training/v1"
	ScoresType     = "https://aob.dev/scores/v2" // 2: has the resamples of each class, as a Table
	VerdictType    = "https://aob.dev/verdict/v1"
	ReleaseType    = "https://aob.dev/release/v1"
	AcceptanceType = "https://aob.dev/acceptance/v1"
	AbortType      = "https://aob.dev/abort/v1"
	ThresholdsType = "https://aob.dev/thresholds/v1"
	VariantType    = "https://aob.dev/variant/v1"
	BenchType      = "https://aob.dev/bench/v1"
)

// Training says how a bundle was trained.
type Training struct {
	Run    Digest      `json:"run"`  // the run key
	Spec   Digest      `json:"spec"` // the spec digest it was resolved for
	Input  TrainRun    `json:"input"`
	Data   DataResult  `json:"data"`
	Result TrainResult `json:"result"`
	// Seeds lists all seeds of a spec with several. Result is that of the best one on the validation split.
	Seeds []SeedScore `json:"seeds,omitempty"`
}

// A SeedScore is the score of one seed of a spec on the validation split.
type SeedScore struct {
	Seed   int64   `json:"seed"`
	Bundle Digest  `json:"bundle"`
	Score  Digest  `json:"score"` // the score key
	MAP    float64 `json:"mAP"`
}

// Resolved states the thresholds of a bundle, and the run that determined them.
type Resolved struct {
	Key    Digest          `json:"key"` // of the thresholds run
	Input  ThresholdRun    `json:"input"`
	Result ThresholdResult `json:"result"`
}

// Scores are the scores of a bundle on one eval set.
type Scores struct {
	Key     Digest         `json:"key"` // the score key
	Input   EvalRun        `json:"input"`
	Content EvalSetContent `json:"content"`
	Scores  ScoreSet       `json:"scores"`
}

// A ReleaseStatement is signed when the status aob/release becomes success for a spec and bundle.
type ReleaseStatement struct {
	Model        string       `json:"model"`
	Version      int          `json:"version"`
	Spec         Digest       `json:"spec"`
	Bundle       Digest       `json:"bundle"`
	RenamedFrom  string       `json:"was,omitempty"`      // the model's former name, if its pull request renames it
	Baseline     Digest       `json:"baseline,omitempty"` // the release that it was compared with; empty for the first
	Gates        []GateJudged `json:"gates"`
	File         Release      `json:"file"`         // what the release file must contain
	TargetCommit string       `json:"targetCommit"` // the commit of the gates and the baseline
	// Variants are those that passed every gate, as File lists them.
	Variants []JudgedVariant `json:"variants,omitempty"`
}

// GateJudged is one gate's verdict in a release statement.
type GateJudged struct {
	Name    string  `json:"name"`
	Spec    Digest  `json:"spec"`
	Verdict Verdict `json:"verdict"`
	Accept  *Accept `json:"accept,omitempty"` // if the verdict is unsure
}

// Accept is an owner's acceptance of an unsure verdict. It applies to the verdict's key,
// and so only to the content that the verdict was computed from.
type Accept struct {
	Verdict Digest    `json:"verdict"` // Verdict.Key
	By      string    `json:"by"`
	As      string    `json:"as"` // the owner in the gate: By, or a team that By is in
	Because string    `json:"because"`
	At      time.Time `json:"at"`
	How     string    `json:"how,omitempty"` // Comment.VerifiedBy of the comment
}

// Settled reports whether the gate allows the release: it passed, does not apply, or is unsure and was accepted by one
// of owners. owners are the gate's owners now; a gate's digest does not cover them.
func (j GateJudged) Settled(owners []string) bool {
	switch j.Verdict.Outcome {
	case Pass, NotApplicable:
		return true
	case Unsure:
		return j.Accept != nil && j.Accept.Verdict == j.Verdict.Key && slices.Contains(owners, j.Accept.As)
	}
	return false
}

// An Acceptance states that main has accepted a release. It is signed once. Later changes
// of gates, files or keys do not revoke it.
type Acceptance struct {
	Model       string `json:"model"`
	Version     int    `json:"version"`
	Spec        Digest `json:"spec"`
	Bundle      Digest `json:"bundle"`
	Commit      string `json:"commit"`        // the commit of main at that time
	RenamedFrom string `json:"was,omitempty"` // the model's name before this version, if it was another
	// Variants are those of the release file that main accepted, besides FP32.
	Variants []AcceptedVariant `json:"variants,omitempty"`
}

// An AcceptedVariant is the bundle of a variant that main has accepted with a release.
type AcceptedVariant struct {
	Variant string `json:"variant"`
	Bundle  Digest `json:"bundle"`
}

// As returns the bundle of one variant of the release. It reports false if the release has no such variant.
func (a Acceptance) As(variant string) (bundle Digest, ok bool) {
	if variant == FP32 {
		return a.Bundle, true
	}
	v, ok := Find(a.Variants, func(v AcceptedVariant) bool { return v.Variant == variant })
	return v.Bundle, ok
}

// Variant returns which variant of the release a bundle is. It reports false if the bundle is none of them.
func (a Acceptance) Variant(bundle Digest) (variant string, ok bool) {
	if bundle == a.Bundle {
		return FP32, true
	}
	v, ok := Find(a.Variants, func(v AcceptedVariant) bool { return v.Bundle == bundle })
	return v.Variant, ok
}

// An Abort states that a fleet went back from a release to the one before.
type Abort struct {
	Fleet  string    `json:"fleet"`
	Model  string    `json:"model"`
	Bundle Digest    `json:"bundle"`
	Why    string    `json:"why"`
	At     time.Time `json:"at"`
	Lifts  int       `json:"lifts,omitempty"` // Quarantine.Lifts on main at that time; only a later lift ends the abort
}

// SameRelease reports whether two release files have the same content. The formatting of the YAML does not count.
func SameRelease(a, b Release) bool {
	switch { // most pairs differ in these, and encoding takes a thousand times as long
	case a.Version != b.Version, a.Bundle != b.Bundle, a.Name != b.Name, a.Spec != b.Spec,
		len(a.Measured) != len(b.Measured), len(a.Variants) != len(b.Variants):
		return false
	case reflect.DeepEqual(a, b):
		return true
	}
	return string(Canonical(a)) == string(Canonical(b)) // an empty list and none are the same
}
