package delivery

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// The types of the repository's files have their rules in struct tags. Package intent
// reads them to check files and to write the JSON Schema. Docs describes each key.
//
//	json     the YAML key
//	default  the value if the key is left out; without it and without
//	         "optional" in check, the key is required
//	check    comma-separated rules; on a list or a map they apply to each entry:
//	         optional       may be left out, and has no default
//	         required       may not be left out, although all keys in it may
//	         nonempty       a list or map with at least one entry
//	         min=N, max=N   the range, written like the values: 1, 10%, 720h
//	         oneof=a|b      the allowed values
//	         later          not supported yet; a complaint says so
//	         later=a*|b     the same for these values
//	         keys=FORM      the form of a map's keys
//	         FORM           the form of the text: name (lower-case letters, digits,
//	                        dashes), label, digest, dataset, time, zone, text, …

// APIVersion is the apiVersion of all files.
const APIVersion = "aob/v1"

// A Model is a file models/NAME.yaml: which model to deliver and how it is trained.
type Model struct {
	APIVersion  string     `json:"apiVersion" check:"oneof=aob/v1"`
	Kind        string     `json:"kind" check:"oneof=Model"`
	Name        string     `json:"name" check:"name"`
	RenamedFrom string     `json:"was,omitempty" check:"optional,name"`
	Dataset     Dataset    `json:"dataset" check:"required"`
	Classes     Classes    `json:"classes"`
	Scenes      string     `json:"scenes,omitempty" check:"optional,scenes"` // see ScenePattern; not part of the spec
	Train       Train      `json:"train"`
	Thresholds  Thresholds `json:"thresholds,omitempty" check:"optional,nonempty,keys=class"`
	Variants    []string   `json:"variants" default:"[fp32]" check:"nonempty,oneof=fp32|fp16|int8"`
	Track       Track      `json:"track,omitzero" check:"optional"`

	sealed      Digest   // see Sealed
	sealedSeeds []Digest // of SeedSpec, for each seed
}

// Track names the trackers that a model's runs and releases are copied to. It is not part of the spec.
type Track struct {
	MLflow string `json:"mlflow" check:"segment"`
}

// Tracker returns the tracker as KIND/NAME, such as mlflow/default; "" for none.
func (t Track) Tracker() string {
	if t.MLflow == "" {
		return ""
	}
	return "mlflow/" + t.MLflow
}

// A Class is a class that the model detects, and the labels of the dataset that count as it.
type Class struct {
	Name   string   `json:"name"`
	Labels []string `json:"labels"`
}

// Classes are a model's classes, in the order of the file. In YAML they are a list of
// names, or a map from name to labels.
type Classes []Class

// Names returns the classes' names in order.
func (c Classes) Names() []string {
	return Each(c, func(c Class) string { return c.Name })
}

// Called lists which of names, a model's classes, count as a class of c: its own name if it is among them, or else its
// labels that are not the name of another class.
func (c Classes) Called(class string, names []string) []string {
	if slices.Contains(names, class) {
		return []string{class}
	}
	known, _ := Find(c, func(o Class) bool { return o.Name == class })
	return slices.DeleteFunc(slices.Clone(known.Labels), func(label string) bool {
		return !slices.Contains(names, label) || slices.Contains(c.Names(), label)
	})
}

// Train says how a model is trained. Optional fields without a default here get the
// [Trainer]'s default when the file is read.
type Train struct {
	With          string         `json:"with" check:"trainer"`
	Architecture  string         `json:"architecture" check:"optional,label"`
	From          string         `json:"from" default:"none" check:"start"`
	Resolution    int            `json:"resolution" check:"optional,min=32,max=2048"`
	Epochs        int            `json:"epochs" check:"optional,min=1,max=1000"`
	Batch         Batch          `json:"batch"`
	Optimizer     Optimizer      `json:"optimizer"`
	Precision     string         `json:"precision" default:"fp32" check:"oneof=fp32|amp,later=fp16|bf16"`
	EarlyStopping EarlyStopping  `json:"earlyStopping"`
	Seeds         []int64        `json:"seeds" default:"[1]" check:"nonempty,min=0,max=9007199254740991"`
	Args          map[string]any `json:"args,omitempty" check:"optional"`
	Machine       Machine        `json:"machine,omitzero" check:"later=*"`
	Import        *Dataset       `json:"import,omitempty" check:"optional,later"`
}

// The kinds of start of a training, as Trainer.From lists them.
const (
	StartNone    = "none"    // random weights
	StartWeights = "weights" // base weights of the server's configuration
	StartRelease = "release" // the checkpoint of an earlier training
)

// Start returns the kind of start that From names.
func (t Train) Start() string {
	switch {
	case t.From == StartNone:
		return StartNone
	case t.From == StartRelease, strings.Contains(t.From, "@"):
		return StartRelease
	}
	return StartWeights
}

// Batch is the batch size.
type Batch struct {
	Effective int `json:"effective" check:"optional,min=1,max=4096"`
	Step      int `json:"step" check:"optional,min=1,max=4096"`
}

// Optimizer says how weights are updated.
type Optimizer struct {
	Name     string  `json:"name" default:"adamw" check:"oneof=adamw"`
	LR       float64 `json:"lr" check:"optional,min=1e-9,max=10"`
	Warmup   int     `json:"warmup" check:"optional,min=0,max=1000"`
	Schedule string  `json:"schedule" default:"cosine" check:"oneof=cosine"`
}

// EarlyStopping says when to stop before the last epoch.
type EarlyStopping struct {
	Patience int `json:"patience" default:"0" check:"min=0,max=1000"`
}

// Machine says where a run takes place. It is not part of the spec.
type Machine struct {
	Terraform string   `json:"terraform" default:"train-local" check:"oneof=train-local|train-aws-ec2"`
	Instance  string   `json:"instance,omitempty" check:"optional,instance"`
	Spot      string   `json:"spot,omitempty" check:"optional,oneof=never|prefer|only"`
	Limit     Duration `json:"limit" default:"8h" check:"min=1m,max=168h"`
	MaxCost   Money    `json:"maxCost,omitzero" check:"optional,min=$0.01"` // of all seeds; 0 for none
}

// The modules that machines are made with.
const (
	TrainLocal  = "train-local"
	TrainAWSEC2 = "train-aws-ec2"
)

// The values of Machine.Spot; "" is SpotNever.
const (
	SpotNever  = "never"
	SpotPrefer = "prefer" // on demand where there is no spot capacity
	SpotOnly   = "only"
)

// A Spec is the identity of a model: dataset, classes, training, thresholds and variants,
// without the machine. Files with the same spec describe the same model.
type Spec struct {
	Dataset    string     `json:"dataset"`
	Classes    Classes    `json:"classes"`
	Train      Train      `json:"train"` // without the machine
	Thresholds Thresholds `json:"thresholds,omitempty"`
	Variants   []string   `json:"variants"`
}

// Spec returns the model's spec. Its defaults must be filled in.
func (m Model) Spec() Spec {
	train := m.Train
	train.Machine, train.Import = Machine{}, nil
	return Spec{Dataset: m.Dataset.String(), Classes: m.Classes, Train: train, Thresholds: m.Thresholds,
		Variants: m.Variants}
}

// Digest returns the spec digest.
func (s Spec) Digest() Digest { return DigestOf("spec", s) }

// SpecDigest returns the digest of the model's spec.
func (m Model) SpecDigest() Digest {
	if m.sealed != "" {
		return m.sealed
	}
	return m.Spec().Digest()
}

// Sealed returns the model with its digests stored, so that they are computed once. A sealed model must not be changed.
func (m Model) Sealed() Model {
	m.sealed = m.Spec().Digest()
	m.sealedSeeds = nil
	for _, seed := range m.Train.Seeds {
		m.sealedSeeds = append(m.sealedSeeds, m.SeedSpec(seed).Digest())
	}
	return m
}

// SeedSpec returns the spec of training one seed. It has no thresholds and no variants, so that specs which differ in
// them share the training.
func (m Model) SeedSpec(seed int64) Spec {
	spec := m.Spec()
	spec.Train.Seeds, spec.Thresholds, spec.Variants = []int64{seed}, nil, []string{FP32}
	return spec
}

// SeedDigests returns the digests of SeedSpec of all seeds, in the order of Train.Seeds.
func (m Model) SeedDigests() []Digest {
	if m.sealed != "" {
		return m.sealedSeeds
	}
	return m.Sealed().sealedSeeds
}

// DefaultThreshold is the key of [Thresholds] for the classes not named.
const DefaultThreshold = "default"

// Thresholds say how the score threshold of each class is determined.
type Thresholds map[string]Threshold

// For returns the threshold of a class, or the default; ok is false if there is neither.
func (t Thresholds) For(class string) (v Threshold, ok bool) {
	if v, ok = t[class]; !ok {
		v, ok = t[DefaultThreshold]
	}
	return v, ok
}

// A Threshold says how a class's score threshold is determined on the validation split.
// Exactly one field is set. In YAML it is bestF1, a score, {precision: p} or {recall: r}.
type Threshold struct {
	BestF1    bool     // the score with the highest F1
	Score     *float64 // this score
	Precision *float64 // the lowest score with at least this precision
	Recall    *float64 // the highest score with at least this recall
}

// bestF1 is how YAML and JSON write Threshold.BestF1.
const bestF1 = "bestF1"

// String returns the threshold as YAML.
func (t Threshold) String() string {
	switch {
	case t.BestF1:
		return bestF1
	case t.Score != nil:
		return fmt.Sprintf("%g", *t.Score)
	case t.Precision != nil:
		return fmt.Sprintf("{precision: %g}", *t.Precision)
	case t.Recall != nil:
		return fmt.Sprintf("{recall: %g}", *t.Recall)
	}
	return "none"
}

// MarshalJSON implements json.Marshaler, in the form of the YAML.
func (t Threshold) MarshalJSON() ([]byte, error) {
	switch {
	case t.BestF1:
		return json.Marshal(bestF1)
	case t.Score != nil:
		return json.Marshal(*t.Score)
	case t.Precision != nil:
		return json.Marshal(map[string]float64{"precision": *t.Precision})
	case t.Recall != nil:
		return json.Marshal(map[string]float64{"recall": *t.Recall})
	}
	return nil, fmt.Errorf("the threshold has no field set")
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *Threshold) UnmarshalJSON(data []byte) error {
	*t = Threshold{}
	var word string
	if json.Unmarshal(data, &word) == nil {
		if t.BestF1 = word == bestF1; !t.BestF1 {
			return fmt.Errorf("want bestF1, a score, {precision: 0.95} or {recall: 0.9}, got %q", word)
		}
		return nil
	}
	var share float64
	if json.Unmarshal(data, &share) == nil {
		t.Score = &share
		return checkShare(share)
	}
	var of map[string]float64
	if err := json.Unmarshal(data, &of); err != nil || len(of) != 1 {
		return fmt.Errorf("want bestF1, a score, {precision: 0.95} or {recall: 0.9}")
	}
	for key, share := range of {
		switch key {
		case "precision":
			t.Precision = &share
		case "recall":
			t.Recall = &share
		default:
			return fmt.Errorf("want precision or recall, got %q", key)
		}
		return checkShare(share)
	}
	return nil
}

func checkShare(v float64) error {
	if v < 0 || v > 1 {
		return fmt.Errorf("want 0 to 1, got %g", v)
	}
	return nil
}
