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
	Reason   string         `json:"reason"` // one line, for a status
	Checks   []CheckVerdict `json:"checks"`
	Classes  []string       `json:"classes"` // that comparisons ran over
	Inputs   []Digest       `json:"inputs"`  // the score and compare keys that were read
	Key      Digest         `json:"key"`
}

// A CheckVerdict is the answer to one check, or to one class of it.
type CheckVerdict struct {
	Check    string   `json:"check"`           // as "mAP >= 0.48" or "mAP drop <= 0.01"
	Metric   string   `json:"metric"`          // mAP, AP50, AP75, AP, size
	Class    string   `json:"class,omitempty"` // for AP
	Outcome  Outcome  `json:"outcome"`
	Reason   string   `json:"reason"` // a sentence with the numbers
	Value    *float64 `json:"value,omitempty"`
	Baseline *float64 `json:"baseline,omitempty"`
	Diff     *float64 `json:"diff,omitempty"`
	Low      *float64 `json:"low,omitempty"` // one-sided bounds at the check's confidence
	High     *float64 `json:"high,omitempty"`
	Limit    *float64 `json:"limit,omitempty"`
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
