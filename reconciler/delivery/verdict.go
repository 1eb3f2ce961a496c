package delivery

// Outcome is how a check ended. There is no boolean: too little evidence is an
// answer of its own.
type Outcome string

// The outcomes.
const (
	Pass          Outcome = "pass"
	Fail          Outcome = "fail"
	Unsure        Outcome = "unsure"         // too little evidence; a person settles it
	Ignored       Outcome = "ignored"        // unsure, and the gate says that does not matter
	NotApplicable Outcome = "not-applicable" // nothing to judge, as no baseline
)

// A Verdict is a gate's answer about one model, with a reason for every check.
type Verdict struct {
	Gate     string         `json:"gate"`
	GateSpec Digest         `json:"gateSpec"` // Gate.Digest
	Model    string         `json:"model"`
	Outcome  Outcome        `json:"outcome"`
	Because  []Fact         `json:"because,omitempty"` // what decided it
	Reason   string         `json:"reason,omitempty"`  // that in words, as older versions of AOB signed it
	Checks   []CheckVerdict `json:"checks"`
	Classes  []string       `json:"classes"` // of the gate that were measured
	Inputs   []Digest       `json:"inputs"`  // the score and compare keys that were read
	Key      Digest         `json:"key"`

	Bundle   Digest `json:"bundle,omitempty"`
	Baseline Digest `json:"baseline,omitempty"` // the release's bundle; empty for a first model
	EvalSet  Digest `json:"evalSet,omitempty"`
	Images   int    `json:"images,omitempty"`  // that the figures are over
	LeftOut  int    `json:"leftOut,omitempty"` // of the eval set, as a model was trained on them
	// Look is which model this was that the eval set judged against the baseline,
	// from 1, and Looks how many the gate allows; 0 is not counted, or any number.
	// Look is no part of the key: the same content keeps the number it had first.
	Look  int `json:"look,omitempty"`
	Looks int `json:"looks,omitempty"`
	// Lost is what the candidate is worse at than the release beyond chance,
	// whether a check is about it or not.
	Lost []Loss `json:"lost,omitempty"`
}

// A CheckVerdict is the answer to one check, or to one class of it.
type CheckVerdict struct {
	Check string `json:"check"` // as "mAP >= 0.48" or "mAP drop <= 0.01"
	// mAP, AP50, AP75, AP, recall, precision, falsePositivesPerImage, size, looks
	Metric   string   `json:"metric"`
	Class    string   `json:"class,omitempty"`   // for AP, and for recall and the like where the check names classes
	Against  string   `json:"against,omitempty"` // of a drop: release, or NAME@VERSION
	Outcome  Outcome  `json:"outcome"`
	Because  []Fact   `json:"because,omitempty"`
	Reason   string   `json:"reason,omitempty"` // that in words, as older versions of AOB signed it
	Value    *float64 `json:"value,omitempty"`
	Baseline *float64 `json:"baseline,omitempty"`
	Diff     *float64 `json:"diff,omitempty"`
	Low      *float64 `json:"low,omitempty"` // one-sided bounds at the check's confidence
	High     *float64 `json:"high,omitempty"`
	Limit    *float64 `json:"limit,omitempty"`

	Confidence float64 `json:"confidence,omitempty"` // of the bound that decided, after adjustment
	// of an unsure one: about how many images would settle it; 0 for unknown
	Settle int `json:"settle,omitempty"`
}

// Subject says what a loss is about: AP of WBC.
func (l Loss) Subject() string {
	if l.Class != "" {
		return l.Metric + " of " + l.Class
	}
	return MetricOfFigure(l.Metric).String()
}

// Overall sums outcomes up: a fail outweighs an unsure, which outweighs a pass;
// without a single pass there is nothing to be green about.
func Overall(outcomes []Outcome) Outcome {
	passed := false
	result := NotApplicable
	for _, o := range outcomes {
		switch o {
		case Fail:
			return Fail
		case Unsure:
			result = Unsure
		case Pass:
			passed = true
		}
	}
	if result == NotApplicable && passed {
		return Pass
	}
	return result
}
