package delivery

import (
	"encoding/json"
	"slices"
	"time"
)

// A Statement is an in-toto Statement v1: something said about a bundle. It
// travels in a signed DSSE envelope, attached to the bundle as a referrer.
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

// The types that in-toto, DSSE and OCI want.
const (
	StatementType    = "https://in-toto.io/Statement/v1"
	StatementPayload = "application/vnd.in-toto+json"

	TrainingType   = "https://aob.dev/training/v1"
	ScoresType     = "https://aob.dev/scores/v2" // 2: resamples by class, as a Table
	VerdictType    = "https://aob.dev/verdict/v1"
	ReleaseType    = "https://aob.dev/release/v1"
	AcceptanceType = "https://aob.dev/acceptance/v1"
	AbortType      = "https://aob.dev/abort/v1"
	ThresholdsType = "https://aob.dev/thresholds/v1"
)

// Training says how a bundle came to be.
type Training struct {
	Run    Digest      `json:"run"`  // the run key
	Spec   Digest      `json:"spec"` // the spec digest it was resolved for
	Input  TrainRun    `json:"input"`
	Data   DataResult  `json:"data"`
	Result TrainResult `json:"result"`
	// of a spec with several: all of them, the best on validation being Result
	Seeds []SeedScore `json:"seeds,omitempty"`
}

// A SeedScore is what one seed of a spec gave on the validation split.
type SeedScore struct {
	Seed   int64   `json:"seed"`
	Bundle Digest  `json:"bundle"`
	Score  Digest  `json:"score"` // the score key
	MAP    float64 `json:"mAP"`
}

// Resolved says which thresholds a bundle has, and where they come from.
type Resolved struct {
	Key    Digest          `json:"key"` // of the thresholds run
	Input  ThresholdRun    `json:"input"`
	Result ThresholdResult `json:"result"`
}

// Scores says what a bundle measured on one eval set.
type Scores struct {
	Key     Digest         `json:"key"` // the score key
	Input   EvalRun        `json:"input"`
	Content EvalSetContent `json:"content"`
	Scores  ScoreSet       `json:"scores"`
}

// ReleaseStatement is signed when aob/release turns green for a spec and bundle.
type ReleaseStatement struct {
	Model        string       `json:"model"`
	Version      int          `json:"version"`
	Spec         Digest       `json:"spec"`
	Bundle       Digest       `json:"bundle"`
	RenamedFrom  string       `json:"was,omitempty"`      // the model's former name, where its pull request renames it
	Baseline     Digest       `json:"baseline,omitempty"` // the release it was judged against; empty for a first
	Gates        []GateJudged `json:"gates"`
	File         Release      `json:"file"`         // what the release file must say
	TargetCommit string       `json:"targetCommit"` // whose gates and baseline these were
}

// Release content is compared by value: see SameRelease.

// GateJudged is one gate's answer in a release statement.
type GateJudged struct {
	Name    string  `json:"name"`
	Spec    Digest  `json:"spec"`
	Verdict Verdict `json:"verdict"`
	Accept  *Accept `json:"accept,omitempty"` // of an unsure verdict
}

// Accept is an owner's word that an unsure verdict is good enough. It is bound
// to the verdict's key, and so to all that the verdict read.
type Accept struct {
	Verdict Digest    `json:"verdict"` // Verdict.Key
	By      string    `json:"by"`
	As      string    `json:"as"` // the owner that By is or belongs to, as the gate names it
	Because string    `json:"because"`
	At      time.Time `json:"at"`
	How     string    `json:"how,omitempty"` // how it is known to be By's own word, as "over the server's socket"
}

// Settled reports whether the gate is in nobody's way: it passed, does not
// apply, or is unsure and was accepted by one of these owners. Who owns a gate is
// no part of its digest, so it is asked anew. A fail is never settled.
func (j GateJudged) Settled(owners []string) bool {
	switch j.Verdict.Outcome {
	case Pass, NotApplicable:
		return true
	case Unsure:
		return j.Accept != nil && j.Accept.Verdict == j.Verdict.Key && slices.Contains(owners, j.Accept.As)
	}
	return false
}

// Acceptance says that main took a release. It is signed once, and no later
// gate, edit or key takes it back.
type Acceptance struct {
	Model       string `json:"model"`
	Version     int    `json:"version"`
	Spec        Digest `json:"spec"`
	Bundle      Digest `json:"bundle"`
	Commit      string `json:"commit"`        // of main, when it was accepted
	RenamedFrom string `json:"was,omitempty"` // the model's name before this version, if another
}

// Abort says that a fleet fell back from a release.
type Abort struct {
	Fleet  string    `json:"fleet"`
	Model  string    `json:"model"`
	Bundle Digest    `json:"bundle"`
	Why    string    `json:"why"`
	At     time.Time `json:"at"`
	Lifts  int       `json:"lifts,omitempty"` // Quarantine.Lifts on main then: only a later lift ends it
}

// SameRelease reports whether two release files say the same. Files are
// compared as values, so that another way of writing YAML re-commits nothing.
func SameRelease(a, b Release) bool {
	return string(Canonical(a)) == string(Canonical(b))
}
