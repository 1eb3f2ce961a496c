package delivery

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// RunKind is what a run does.
type RunKind string

// The kinds of runs.
const (
	RunData    RunKind = "data"    // digest and check a dataset, prepare what the trainer gets
	RunTrain   RunKind = "train"   // train, inspect the ONNX file, pack the bundle
	RunEval    RunKind = "eval"    // run a bundle over an eval set and score it
	RunCompare RunKind = "compare" // paired bootstrap of two scored bundles
	// RunThresholds finds a bundle's score thresholds on the validation split and
	// packs the same model with them. It trains nothing.
	RunThresholds RunKind = "thresholds"
)

// A RunSpec is one piece of slow work, complete: a runner needs nothing else
// but the server's configuration. Exactly one of the parts is set, by Kind.
type RunSpec struct {
	Key   Digest   `json:"key"` // of the content; see keys.go
	Kind  RunKind  `json:"kind"`
	Note  string   `json:"note"` // for people: what asked first; not part of the key
	Limit Duration `json:"limit"`

	Data    *DataRun    `json:"data,omitempty"`
	Train   *TrainRun   `json:"train,omitempty"`
	Eval    *EvalRun    `json:"eval,omitempty"`
	Compare *CompareRun `json:"compare,omitempty"`

	Thresholds *ThresholdRun `json:"thresholds,omitempty"`
}

// DataRun asks for a dataset's digest, its checks against the eval sets it will
// be judged on, and the training input made of it.
type DataRun struct {
	Dataset  Dataset   `json:"dataset"`
	Classes  Classes   `json:"classes"`
	EvalSets []EvalSet `json:"evalSets"` // sorted by String, no doubles
}

// DataResult is what a data run found.
type DataResult struct {
	Content Digest `json:"content"` // sorted file list with per-file SHA-256
	// what the trainer gets: images and truths of train and valid, classes mapped, leaks left out
	Training Digest           `json:"training"`
	Prepared string           `json:"prepared"` // folder of the training input, relative to the run's folder
	Images   map[string]int   `json:"images"`   // by split, those left out not counted
	Truths   map[string]int   `json:"truths"`   // by class, of the train split
	LeftOut  int              `json:"leftOut"`  // training images that stand in an eval set
	EvalSets []EvalSetContent `json:"evalSets"` // in the order asked, then the dataset's own test split if it has one
	// the dataset's validation split, on which seeds, thresholds and experiments are judged
	Valid          EvalSetContent `json:"valid"`
	TrainingImages Digest         `json:"seen"` // of the list of images that the trainer gets; see TrainingImages
	Findings       []Finding      `json:"findings"`
}

// Failed reports whether a finding is an error.
func (r DataResult) Failed() bool {
	for _, f := range r.Findings {
		if f.Level == LevelError {
			return true
		}
	}
	return false
}

// EvalSetContent is what an eval set holds, by digest.
type EvalSetContent struct {
	EvalSet EvalSet  `json:"evalSet"`
	Images  Digest   `json:"images"` // of the images' bytes, in id order
	Truths  Digest   `json:"truths"` // of all annotations and categories, by their own labels
	Labels  []string `json:"labels"` // that its truths have, sorted
	Count   int      `json:"count"`

	// Without names a list of images that are left out of it, as the train part of
	// [TrainingImages]: of a validation split those that stand in an eval set.
	LeaveOut Digest `json:"without,omitempty"`
}

// Digest names images and truths together.
func (e EvalSetContent) Digest() Digest {
	return DigestOf("evalset", []Digest{e.Images, e.Truths})
}

// The levels of a finding.
const (
	LevelError   = "error"
	LevelWarning = "warning"
)

// A Finding is something wrong in a dataset.
type Finding struct {
	Level string `json:"level"`
	Code  string `json:"code"`  // as missing-file, unknown-category, leak
	Where string `json:"where"` // as train/_annotations.coco.json: annotations[12]
	Text  string `json:"text"`
	Count int    `json:"count"` // how many of this code; Where and Text show the first

	// More are the next of this code, at most [MaxMore], each as WHERE: TEXT.
	More []string `json:"more,omitempty"`
}

// MaxMore is how many a finding lists after its first.
const MaxMore = 19

// Lines are the finding in words: its first, those after it, and how many are not
// listed.
func (f Finding) Lines() []string {
	lines := append([]string{f.Where + ": " + f.Text}, f.More...)
	if rest := f.Count - len(lines); rest > 0 {
		lines = append(lines, fmt.Sprintf("and %d more like these", rest))
	}
	return lines
}

// TrainingImages lists the images that a trainer got, by what makes two files the
// same image: sha256:HEX of their bytes, or source:NAME of Roboflow's. It is kept
// under its digest for as long as the model is, since a later eval set may hold
// what an earlier training saw.
type TrainingImages struct {
	Train []string `json:"train"` // sorted, each once
	Valid []string `json:"valid"`
}

// TrainRun asks for one training.
type TrainRun struct {
	Spec     Spec   `json:"spec"`
	Seed     int64  `json:"seed"`
	Data     Digest `json:"data"`     // key of the data run whose prepared folder is used
	Training Digest `json:"training"` // DataResult.Training
	Trainer  Digest `json:"trainer"`  // of the trainer's files

	Accelerator string   `json:"accelerator"` // what the trainer computes on
	Parent      Digest   `json:"parent,omitempty"`
	Machine     string   `json:"machine"` // the Terraform module
	Limit       Duration `json:"limit"`
}

// TrainResult is what a training made.
type TrainResult struct {
	Bundle   Digest          `json:"bundle"`
	Model    Digest          `json:"model"` // of model.onnx
	Size     int64           `json:"size"`  // of the largest variant, bytes
	Attempts int             `json:"attempts"`
	Trainer  json.RawMessage `json:"trainer"` // train.json, information and never evidence
}

// EvalRun asks for a bundle's score on an eval set.
type EvalRun struct {
	Bundle    Digest  `json:"bundle"`
	Model     Digest  `json:"model"`     // of the variant's ONNX file
	Signature Digest  `json:"signature"` // of the bundle's signature
	EvalSet   EvalSet `json:"evalSet"`
	Classes   Classes `json:"classes"` // which of its labels, and of the bundle's classes, count, and as what
	Images    Digest  `json:"images"`
	Truths    Digest  `json:"truths"`   // before Classes are applied
	Protocol  Digest  `json:"protocol"` // of the evaluator's protocol
	Detect    Digest  `json:"detect"`   // the detect key: stored detections are reused

	// Resamples is how many the figures' bounds need at least; 0 is what a bound over
	// all classes at 95 % takes.
	Resamples int `json:"resamples,omitempty"`
	// Thresholds are the bundle's own, by class; recall, precision and
	// falsePositivesPerImage are measured where it has some.
	Thresholds map[string]float64 `json:"thresholds,omitempty"`
	// Measures are the metrics that are measured besides the usual ones: those of Metric.OnDemand that a gate asks for,
	// sorted.
	Measures []string `json:"measures,omitempty"`
	// TrainingImages are digests of [TrainingImages]: of what the bundle, and all that it was
	// fine-tuned from, was trained on, and EvalSetContent.Without. Those images are
	// left out.
	TrainingImages []Digest `json:"seen,omitempty"`
}

// A ScoreSet is what one bundle scored on one eval set.
type ScoreSet struct {
	Detections Digest `json:"detections"` // of the stored detections
	Protocol   Digest `json:"protocol"`
	Images     int    `json:"images"`            // that count
	LeftOut    int    `json:"leftOut,omitempty"` // that do not, as the bundle was trained on them
	// of images, where the eval set names a group: what the bootstrap draws
	Groups int `json:"groups,omitempty"`
	// COCO's numbers over all classes that were scored, to be shown: mAP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100
	Values  map[string]float64 `json:"values"`
	Truths  map[string]int     `json:"truths"`  // by class
	Classes []string           `json:"classes"` // that both the model and the eval set have, in the model's order
	Table   Table              `json:"table"`   // what every figure over any classes is computed from
}

// AtThreshold reports whether the model has thresholds, and was measured at them.
func (s ScoreSet) AtThreshold() bool { return len(s.Table.Columns[ColumnFound]) > 0 }

// CompareRun asks for the paired bootstrap of two scores on one eval set.
type CompareRun struct {
	Candidate EvalRun `json:"candidate"`
	Baseline  EvalRun `json:"baseline"`
	Resamples int     `json:"resamples"`
	Seed      uint64  `json:"seed"`
}

// A CompareResult holds two models beside each other, and candidate minus baseline.
type CompareResult struct {
	Images  int            `json:"images"`            // that count
	LeftOut int            `json:"leftOut,omitempty"` // that do not, as one of the two was trained on them
	Groups  int            `json:"groups,omitempty"`  // as ScoreSet.Groups
	Classes []string       `json:"classes"`           // that both models and the eval set have
	Truths  map[string]int `json:"truths,omitempty"`  // by class, in the images that count
	// Candidate and Baseline have the values of both, and the counts of their resamples where both have thresholds.
	// Difference has the resamples of the candidate's values minus the baseline's.
	Candidate  Table `json:"candidate"`
	Baseline   Table `json:"baseline"`
	Difference Table `json:"difference"`
	// Shifts say by class, and under "" for all, why AP50 moved: by TIDE's error
	// types, what the candidate loses to each more than the baseline does, worst first.
	Shifts map[string][]ErrorShift `json:"shifts,omitempty"`
	// Pictures lists what was drawn of the worst regressions, in order; empty for none.
	Pictures []string `json:"pictures,omitempty"`
}

// An ErrorShift is how one of TIDE's error types weighs on two models.
type ErrorShift struct {
	Type  string  `json:"type"`  // Cls, Loc, Both, Dupe, Bkg, Miss
	AP50  float64 `json:"AP50"`  // what it costs the candidate minus what it costs the baseline; above 0 is worse
	Count int     `json:"count"` // how many more of them the candidate has
}

// A ThresholdRun asks for a bundle's score thresholds.
type ThresholdRun struct {
	Valid EvalRun    `json:"valid"` // the trained bundle on its dataset's validation split
	Ask   Thresholds `json:"ask"`
}

// A ThresholdResult is what a thresholds run found and packed.
type ThresholdResult struct {
	Bundle Digest                    `json:"bundle"` // the same model with the thresholds
	Size   int64                     `json:"size"`   // of the largest variant, bytes
	Points map[string]OperatingPoint `json:"points"` // by class
}

// An OperatingPoint is a class's score threshold and what it gives on the
// validation split.
type OperatingPoint struct {
	Score     float64 `json:"score"` // a detection counts from this score on
	Precision float64 `json:"precision"`
	Recall    float64 `json:"recall"`
	Truths    int     `json:"truths"`
	Note      string  `json:"note,omitempty"` // what could not be had, as a precision that no score reaches
}

// A Difference is candidate minus baseline on the same images.
type Difference struct {
	Candidate float64 `json:"candidate"`
	Baseline  float64 `json:"baseline"`
	Value     float64 `json:"value"`
	Samples   Samples `json:"-"` // of Value
}

// Compared computes the difference of a metric over a list of classes; ok is false where there is nothing to compare.
func (c CompareResult) Compared(metric string, classes []string) (d Difference, ok bool) {
	a, b := c.Candidate.Figure(metric, classes), c.Baseline.Figure(metric, classes)
	of := a.Minus(b)
	if of.Resamples == nil {
		of.Resamples = c.Difference.Figure(metric, classes).Resamples
	}
	d = Difference{Candidate: a.Value, Baseline: b.Value, Value: of.Value, Samples: of.Samples()}
	return d, d.Value == d.Value // not NaN
}

// RunPhase is where a run stands, as the outside sees it.
type RunPhase int

// The phases of a run.
const (
	RunUnknown RunPhase = iota // never started
	RunRunning                 // its lock is held
	RunDied                    // its lock is free and its journal has no end
	RunDone                    // ended with a result
	RunFailed                  // ended with an error that a retry will not mend
	// ended on request, nothing of it is left running; started again, it goes on where it was
	RunStopped
)

func (p RunPhase) String() string {
	return [...]string{"unknown", "running", "died", "done", "failed", "stopped"}[p]
}

// MarshalText implements encoding.TextMarshaler.
func (p RunPhase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *RunPhase) UnmarshalText(text []byte) error {
	for q := RunUnknown; q <= RunStopped; q++ {
		if q.String() == string(text) {
			*p = q
			return nil
		}
	}
	*p = RunUnknown
	return nil
}

// A RunState is what reading a run's folder shows.
type RunState struct {
	Spec    RunSpec         `json:"spec"`
	Phase   RunPhase        `json:"phase"`
	Attempt int             `json:"attempt"`         // from 1
	Stops   int             `json:"stops,omitempty"` // attempts before this one that were asked to end; see Tries
	Stage   string          `json:"stage"`           // as apply, training, detect, score
	Status  RunStatus       `json:"status"`
	Started time.Time       `json:"started,omitzero"`
	Ended   time.Time       `json:"ended,omitzero"`
	Error   string          `json:"error,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`

	Need         RunNeed   `json:"need,omitzero"`
	EndReason    string    `json:"ending,omitempty"` // why the run was asked to end, while it has not ended
	EndRequested time.Time `json:"asked,omitzero"`   // when it was last asked to end
}

// Tries is which attempt this is, those not counted that were asked to end: they
// say nothing against the work.
func (r RunState) Tries() int { return r.Attempt - r.Stops }

// A RunNeed says who needs a run. It is kept with the run, so that a run whose
// pull request cannot be seen for a while is not taken for one that nobody needs.
type RunNeed struct {
	// PRs are the pull requests that need it, sorted; 0 stands for all others who do:
	// main, experiments and comparisons. Empty where nobody has recorded it yet.
	PRs []int `json:"prs"`
	// Since is when none of them needed it any more; zero while one does.
	Since time.Time `json:"since,omitzero"`
}

// Equal reports whether both say the same.
func (n RunNeed) Equal(o RunNeed) bool { return slices.Equal(n.PRs, o.PRs) && n.Since.Equal(o.Since) }

// RunStatus is status.json: how far a trainer is, by its own word. The file is
// replaced atomically, and is hostile input.
type RunStatus struct {
	Phase       string    `json:"phase"` // starting, training, exporting, done, failed
	Epoch       int       `json:"epoch"`
	Epochs      int       `json:"epochs"`
	Batch       int       `json:"batch"`
	Batches     int       `json:"batches"`
	Heartbeat   time.Time `json:"heartbeat"`
	Message     string    `json:"message,omitempty"`
	MAP         *float64  `json:"map,omitempty"` // best on validation so far
	SecondsLeft *float64  `json:"secondsLeft,omitempty"`
}
