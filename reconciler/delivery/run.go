package delivery

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// RunKind is a kind of run.
type RunKind string

// The kinds of runs.
const (
	RunData    RunKind = "data"    // check a dataset, compute its digest, prepare the trainer's input
	RunTrain   RunKind = "train"   // train, check the ONNX file, pack the bundle
	RunEval    RunKind = "eval"    // run a bundle over an eval set and score it
	RunCompare RunKind = "compare" // compare two bundles by a paired bootstrap
	// RunThresholds determines a bundle's score thresholds on the validation split and packs the same model with them.
	RunThresholds RunKind = "thresholds"
	// RunVariant makes a variant of a trained model, compares it with the model, and packs it as a bundle of its own.
	RunVariant RunKind = "variant"
)

// A RunSpec is all that a runner needs besides the server's configuration. Exactly one of
// the parts is set, depending on Kind.
type RunSpec struct {
	Key   Digest   `json:"key"` // see keys.go
	Kind  RunKind  `json:"kind"`
	Note  string   `json:"note"` // for display: what first needed the run; not part of the key
	Limit Duration `json:"limit"`
	Quote *Quote   `json:"quote,omitempty"` // of a run that costs money

	Data    *DataRun    `json:"data,omitempty"`
	Train   *TrainRun   `json:"train,omitempty"`
	Eval    *EvalRun    `json:"eval,omitempty"`
	Compare *CompareRun `json:"compare,omitempty"`

	Thresholds *ThresholdRun `json:"thresholds,omitempty"`
	Variant    *VariantRun   `json:"variant,omitempty"`
}

// Training returns the training that a run does, or whose model it makes a variant of; nil for other runs.
func (r RunSpec) Training() *TrainRun {
	if r.Variant != nil {
		return &r.Variant.Train
	}
	return r.Train
}

// A DataRun computes a dataset's digest, checks it, also against the eval sets that its
// models are measured on, and prepares the training input.
type DataRun struct {
	Dataset  Dataset   `json:"dataset"`
	Classes  Classes   `json:"classes"`
	EvalSets []EvalSet `json:"evalSets"` // sorted by String, without duplicates
	// Before is the dataset of main's version of the model, to compare with; nil if it is the same, or there is none.
	Before *Dataset `json:"before,omitempty"`
	// Scenes is the pattern that finds site and time in the paths of images, see ScenePattern.
	Scenes string `json:"scenes,omitempty"`
}

// DataResult is the result of a data run.
type DataResult struct {
	Content Digest `json:"content"` // of the sorted list of files with their SHA-256
	// of the training input: images and annotations of train and valid, with the model's classes, without leaks
	Training Digest         `json:"training"`
	Prepared string         `json:"prepared"` // folder of the training input, relative to the run's folder
	Images   map[string]int `json:"images"`   // number by split, without those left out
	Truths   map[string]int `json:"truths"`   // annotations by class, of the train split
	LeftOut  int            `json:"leftOut"`  // training images that are also in an eval set
	// in the order of DataRun, then the dataset's test split if there is one
	EvalSets []EvalSetContent `json:"evalSets"`
	// the dataset's validation split, on which seeds, thresholds and experiments are measured
	Valid          EvalSetContent `json:"valid"`
	TrainingImages Digest         `json:"seen"` // of the list of images that the trainer gets, a TrainingImages
	Findings       []Finding      `json:"findings"`

	// Folders has a digest by dataset that tells whether the dataset has changed since: one of the names, sizes and
	// times of all files if they are read where they are, or else of what the source says of its version.
	Folders map[string]Digest `json:"folders,omitempty"`
}

// Failed reports whether a finding is an error.
func (r DataResult) Failed() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Level == LevelError })
}

// EvalSetContent is the content of an eval set, by digest.
type EvalSetContent struct {
	EvalSet EvalSet  `json:"evalSet"`
	Images  Digest   `json:"images"`           // of the images' bytes, in id order
	Truths  Digest   `json:"truths"`           // of all annotations and categories, with their own labels
	Labels  []string `json:"labels"`           // with objects that count, sorted
	Count   int      `json:"count"`            // images
	Groups  int      `json:"groups,omitempty"` // if its images are grouped

	// LeaveOut is the digest of a list of images that are not measured: for a validation split those that are also in
	// an eval set. The list is the Train part of a [TrainingImages].
	LeaveOut Digest `json:"without,omitempty"`
}

// Digest returns one digest of images and annotations.
func (e EvalSetContent) Digest() Digest { return DigestOf("evalset", []Digest{e.Images, e.Truths}) }

// The levels of a finding.
const (
	LevelError   = "error"
	LevelWarning = "warning"
)

// A Finding is a problem of a dataset.
type Finding struct {
	Level string `json:"level"`
	Code  string `json:"code"`  // as in missing-file, unknown-category, leak
	Where string `json:"where"` // as in train/_annotations.coco.json: annotations[12]
	Text  string `json:"text"`
	Count int    `json:"count"` // how many have this code; Where and Text are of the first

	// More lists the next ones of this code as WHERE: TEXT, at most [MaxMore].
	More []string `json:"more,omitempty"`
	// Places lists where the next ones are if all have the same text, at most [MaxMore]. Then More is empty.
	Places []string `json:"places,omitempty"`
}

// MaxMore is the maximal length of Finding.More and of Finding.Places.
const MaxMore = 19

// Place returns where the finding is. Of many with the same text it names the first and says how many more there are.
func (f Finding) Place() string {
	if len(f.Places) == 0 {
		return f.Where
	}
	const shown = 3
	list := strings.Join(f.Places[:min(shown, len(f.Places))], "; ")
	if f.Count-1 > shown {
		list += "; …"
	}
	return fmt.Sprintf("%s and %d more (%s)", f.Where, f.Count-1, list)
}

// Lines returns the finding as lines of text: the first, those in More, and how many are not listed. Many with the same
// text are one line.
func (f Finding) Lines() []string {
	lines := append([]string{f.Place() + ": " + f.Text}, f.More...)
	if len(f.Places) > 0 {
		return lines
	}
	if rest := f.Count - len(lines); rest > 0 {
		lines = append(lines, fmt.Sprintf("and %d more like these", rest))
	}
	return lines
}

// TrainingImages lists the images that a training used, each as sha256:HEX of its bytes,
// or as source:NAME for images of Roboflow. The list is stored under its digest as long
// as the model is, since later eval sets may contain these images.
type TrainingImages struct {
	Train []string `json:"train"` // sorted, without duplicates
	Valid []string `json:"valid"`

	// Looks has hashes of what the images of a source name look like: other images may have the same name. "" is an
	// image without texture.
	Looks map[string][]string `json:"looks,omitempty"`
}

// A TrainRun trains one seed of a spec.
type TrainRun struct {
	Spec     Spec   `json:"spec"`
	Seed     int64  `json:"seed"`
	Data     Digest `json:"data"`     // key of the data run that prepared the training input
	Training Digest `json:"training"` // DataResult.Training
	Trainer  Digest `json:"trainer"`  // of the trainer's files

	// Environment is what the trainer's program runs in; nil for the server's own Python.
	Environment *Environment `json:"environment,omitempty"`

	// Weights are the base weights that it starts from, and Parent is the bundle whose checkpoint it starts from. At
	// most one of them is set.
	Weights    *Weights `json:"weights,omitempty"`
	Parent     Digest   `json:"parent,omitempty"`
	Checkpoint Digest   `json:"checkpoint,omitempty"` // TrainResult.Checkpoint of the parent
	// Licences lists what the model is made of that has a licence, also what the parent is made of.
	Licences []Licensed `json:"licences,omitempty"`

	Accelerator string   `json:"accelerator"` // as Trainer.Accelerator
	Machine     string   `json:"machine"`     // the Terraform module
	Limit       Duration `json:"limit"`
}

// An Environment identifies what a trainer's program runs in: Python packages, or the image of a container.
type Environment struct {
	Lock     Digest `json:"lock"`     // of the version's requirements.txt
	Python   string `json:"python"`   // the interpreter, as in cpython-3.11: packages are made for one minor version
	Platform string `json:"platform"` // as in linux-x86_64, and linux/amd64 for an image

	Image Digest `json:"image,omitempty"` // of the container's image; Lock and Python are empty then
}

// Weights are base weights, as the server's configuration has them.
type Weights struct {
	SHA256  Digest `json:"sha256"` // of their file
	Licence string `json:"licence"`
}

// A Licensed is a part of a model that has a licence.
type Licensed struct {
	Part    string `json:"part"`    // as in "architecture rf-detr-xlarge"
	Licence string `json:"licence"` // its SPDX name
}

// TrainResult is the result of a training.
type TrainResult struct {
	Bundle   Digest          `json:"bundle"`
	Model    Digest          `json:"model"` // of model.onnx
	Size     int64           `json:"size"`  // of its ONNX file, bytes
	Attempts int             `json:"attempts"`
	Trainer  json.RawMessage `json:"trainer"` // train.json, for display only
	// Checkpoint is the digest of the checkpoint that later trainings may start from. It is stored under
	// [CheckpointName]. Empty for trainers that start from none.
	Checkpoint Digest `json:"checkpoint,omitempty"`
}

// CheckpointName returns the name of the folder in which a checkpoint is stored, and of its file there.
func CheckpointName(checkpoint Digest) (folder, file string) {
	return "checkpoints/" + checkpoint.Hex(), "checkpoint"
}

// An EvalRun computes a bundle's scores on an eval set.
type EvalRun struct {
	Bundle    Digest  `json:"bundle"`
	Model     Digest  `json:"model"`     // of the variant's ONNX file
	Signature Digest  `json:"signature"` // of the bundle's signature
	EvalSet   EvalSet `json:"evalSet"`
	Classes   Classes `json:"classes"` // which labels and classes of the bundle count as which class; see Gate.LabelMap
	Images    Digest  `json:"images"`
	Truths    Digest  `json:"truths"`   // with their own labels, before Classes is applied
	Protocol  Digest  `json:"protocol"` // of the coco.Protocol
	Detect    Digest  `json:"detect"`   // the detect key, by which stored detections are found

	// Resamples is the least number of resamples; 0 is the number for bounds at 95 % over all classes.
	Resamples int `json:"resamples,omitempty"`
	// Thresholds are the bundle's score thresholds by class. Without them recall, precision and
	// falsePositivesPerImage are not measured.
	Thresholds map[string]float64 `json:"thresholds,omitempty"`
	// Measures lists the Metric.OnDemand metrics that gates need, sorted.
	Measures []string `json:"measures,omitempty"`
	// TrainingImages are digests of lists of images that are not measured: the [TrainingImages] of the bundle and of
	// all bundles that it was fine-tuned from, and EvalSetContent.LeaveOut.
	TrainingImages []Digest `json:"seen,omitempty"`
}

// A ScoreSet holds the scores of one bundle on one eval set.
type ScoreSet struct {
	Detections Digest `json:"detections"` // of the stored detections
	Protocol   Digest `json:"protocol"`
	Images     int    `json:"images"`            // that were measured
	LeftOut    int    `json:"leftOut,omitempty"` // images that were not, because the bundle was trained on them
	// number of groups that the bootstrap draws; 0 if the eval set has no groups
	Groups int `json:"groups,omitempty"`
	// COCO's metrics over all measured classes, for display: mAP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100
	Values  map[string]float64 `json:"values"`
	Truths  map[string]int     `json:"truths"`  // number of annotations by class
	Classes []string           `json:"classes"` // that both the model and the eval set have, in the model's order
	Table   Table              `json:"table"`   // all figures are computed from it
}

// AtThreshold reports whether the model was measured at score thresholds.
func (s ScoreSet) AtThreshold() bool { return len(s.Table.Columns[ColumnFound]) > 0 }

// A CompareRun compares two bundles on one eval set by a paired bootstrap.
type CompareRun struct {
	Candidate EvalRun `json:"candidate"`
	Baseline  EvalRun `json:"baseline"`
	Resamples int     `json:"resamples"`
	Seed      uint64  `json:"seed"`
}

// A CompareResult holds the scores of two models and their differences.
type CompareResult struct {
	Images  int            `json:"images"`            // that were measured
	LeftOut int            `json:"leftOut,omitempty"` // images that were not, because a model was trained on them
	Groups  int            `json:"groups,omitempty"`  // as ScoreSet.Groups
	Classes []string       `json:"classes"`           // that both models and the eval set have
	Truths  map[string]int `json:"truths,omitempty"`  // number of annotations by class, in the measured images
	// Candidate and Baseline have the values of both models, and the resamples of counts if both have thresholds.
	// Difference has the resamples of the candidate's values minus the baseline's.
	Candidate  Table `json:"candidate"`
	Baseline   Table `json:"baseline"`
	Difference Table `json:"difference"`
	// Shifts explains the change of AP50 by TIDE's error types, by class, and under "" for all classes; worst first.
	Shifts map[string][]ErrorShift `json:"shifts,omitempty"`
	// Pictures lists the pictures of the worst regressions, in order.
	Pictures []string `json:"pictures,omitempty"`
}

// An ErrorShift is the difference between two models in one of TIDE's error types.
type ErrorShift struct {
	Type  string  `json:"type"`  // Cls, Loc, Both, Dupe, Bkg, Miss
	AP50  float64 `json:"AP50"`  // loss of AP50 by this type, candidate minus baseline; above 0 is worse
	Count int     `json:"count"` // number of these errors, candidate minus baseline
}

// A ThresholdRun determines a bundle's score thresholds.
type ThresholdRun struct {
	Valid EvalRun    `json:"valid"` // the trained bundle on its dataset's validation split
	Ask   Thresholds `json:"ask"`
}

// A ThresholdResult is the result of a ThresholdRun.
type ThresholdResult struct {
	Bundle Digest                    `json:"bundle"` // the same model with the thresholds
	Size   int64                     `json:"size"`   // of its ONNX file, bytes
	Points map[string]OperatingPoint `json:"points"` // by class
}

// An OperatingPoint is a class's score threshold, and its precision and recall on the validation split.
type OperatingPoint struct {
	Score     float64 `json:"score"` // a detection counts from this score on
	Precision float64 `json:"precision"`
	Recall    float64 `json:"recall"`
	Truths    int     `json:"truths"`
	Note      string  `json:"note,omitempty"` // what was not possible, such as a precision that no score reaches
}

// A Difference is candidate minus baseline on the same images.
type Difference struct {
	Candidate float64 `json:"candidate"`
	Baseline  float64 `json:"baseline"`
	Value     float64 `json:"value"`
	Samples   Samples `json:"-"` // of Value
}

// Compared returns the difference of a metric over a list of classes; ok is false if one of the models has no value.
func (c CompareResult) Compared(metric string, classes []string) (d Difference, ok bool) {
	a, b := c.Candidate.Figure(metric, classes), c.Baseline.Figure(metric, classes)
	of := a.Minus(b)
	if of.Resamples == nil {
		of.Resamples = c.Difference.Figure(metric, classes).Resamples
	}
	d = Difference{Candidate: a.Value, Baseline: b.Value, Value: of.Value, Samples: of.Samples()}
	return d, d.Value == d.Value // not NaN
}

// RunPhase is the state of a run.
type RunPhase int

// The phases of a run.
const (
	RunUnknown RunPhase = iota // not started
	RunRunning                 // its lock is taken
	RunDied                    // its lock is free and its journal has no end record
	RunDone                    // ended with a result
	RunFailed                  // ended with an error that a retry will not resolve
	// ended on request, with no process left; it can be continued
	RunStopped
)

var runPhases = []string{"unknown", "running", "died", "done", "failed", "stopped"}

func (p RunPhase) String() string { return runPhases[p] }

// MarshalText implements encoding.TextMarshaler.
func (p RunPhase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. Other text is RunUnknown.
func (p *RunPhase) UnmarshalText(text []byte) error {
	*p = RunPhase(max(0, slices.Index(runPhases, string(text))))
	return nil
}

// A RunState is the content of a run's folder.
type RunState struct {
	Spec    RunSpec   `json:"spec"`
	Phase   RunPhase  `json:"phase"`
	Attempt int       `json:"attempt"`         // from 1
	Stops   int       `json:"stops,omitempty"` // earlier attempts that ended on request; see Tries
	Stage   string    `json:"stage"`           // as in apply, training, detect, score
	Status  RunStatus `json:"status"`
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`
	Error   string    `json:"error,omitempty"`
	// Worked is how long attempts worked that have ended, and WorkingSince when the present one began. An attempt that
	// died works on until the next one cleans up after it.
	Worked       Duration        `json:"worked,omitempty"`
	WorkingSince time.Time       `json:"workingSince,omitzero"`
	Result       json.RawMessage `json:"result,omitempty"`

	Need         RunNeed   `json:"need,omitzero"`
	EndReason    string    `json:"ending,omitempty"` // why the run was requested to end, until it has ended
	EndRequested time.Time `json:"asked,omitzero"`   // when that was last requested
}

// StageEnvironment is the stage of a training that makes the environment of its trainer. In its status the batches are
// packages.
const StageEnvironment = "environment"

// stageTexts say for people what a run does in a stage. Those of Terraform have its own names: nobody should have to
// wonder what is destroyed.
var stageTexts = map[string]string{
	"check":          "checking the dataset",
	StageEnvironment: "preparing packages",
	"clean":          "clearing up after an earlier attempt",
	"plan":           "preparing",
	"upload":         "uploading",
	"apply":          "preparing",
	"download":       "downloading the result",
	"destroy":        "clearing up",
	"inspect":        "checking the model",
	"pack":           "packing the bundle",
	"detect":         "detecting",
	"score":          "scoring",
	"compare":        "comparing",
	"pictures":       "drawing pictures",
	"thresholds":     "finding thresholds",
}

// Doing says for people what a run does in a stage.
func (k RunKind) Doing(stage string) string {
	if k == RunVariant && stage == "training" {
		return "making it" // by the trainer's program, and nothing is trained
	}
	return cmp.Or(stageTexts[stage], stage)
}

// Tries counts the attempts up to this one, without those that ended on request.
func (r RunState) Tries() int { return r.Attempt - r.Stops }

// A RunNeed says who needs a run. It is stored with the run, so that a run is not stopped
// while its pull request cannot be read.
type RunNeed struct {
	// PRs are the pull requests that need it, sorted. 0 stands for everything else: main, experiments and comparisons.
	// It is empty if nothing has been recorded yet.
	PRs []int `json:"prs"`
	// Since is when the last of them stopped needing it; zero while one does.
	Since time.Time `json:"since,omitzero"`
}

// Equal reports whether n and o are equal.
func (n RunNeed) Equal(o RunNeed) bool { return slices.Equal(n.PRs, o.PRs) && n.Since.Equal(o.Since) }

// RunStatus is a status.json, in which a trainer reports its progress. The trainer replaces
// the file atomically. Its content is not trusted; see ParseRunStatus.
type RunStatus struct {
	Phase       string    `json:"phase"` // starting, training, exporting, done, failed
	Epoch       int       `json:"epoch"`
	Epochs      int       `json:"epochs"`
	Batch       int       `json:"batch"`
	Batches     int       `json:"batches"`
	Heartbeat   time.Time `json:"heartbeat"`
	Message     string    `json:"message,omitempty"`
	MAP         *float64  `json:"map,omitempty"` // the best on the validation split so far
	SecondsLeft *float64  `json:"secondsLeft,omitempty"`
}
