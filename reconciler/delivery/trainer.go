package delivery

// A Trainer describes a program that trains models: trainers/NAME/trainer.yaml,
// beside its train.py.
type Trainer struct {
	APIVersion    string            `json:"apiVersion" check:"oneof=aob/v1"`
	Kind          string            `json:"kind" check:"oneof=Trainer"`
	Name          string            `json:"name" check:"name"`
	Versions      []string          `json:"versions" check:"nonempty,version"`
	Architectures []string          `json:"architectures" check:"nonempty,label"`
	Accelerator   string            `json:"accelerator" default:"cpu" check:"oneof=cpu|cuda"`
	Defaults      TrainerDefaults   `json:"defaults"`
	Resolution    TrainerResolution `json:"resolution"`
	Secrets       []string          `json:"secrets,omitempty" check:"optional,nonempty,variable"`

	Files Digest `json:"-"` // of the trainer's files, as they are installed
}

// Docs says what each key is for.
func (Trainer) Docs() map[string]string {
	return map[string]string{
		"apiVersion": "The form of this file.",
		"kind":       "What this file describes.",
		"name":       "The trainer's name, the same as the folder's.",
		"versions": "The versions that models may ask for, as in train.with: NAME@VERSION. Make a new version when " +
			"the same settings would give another model.",
		"architectures": "The networks that it trains; the first is the default.",
		"accelerator":   "What it computes on. A training on another accelerator is another training.",
		"defaults":      "What holds where a model's train: leaves a key out. A key without a default must be given.",
		"resolution":    "Which input sizes it takes.",
		"secrets": "The names of secrets that a training gets as environment variables. The server's configuration " +
			"says in secrets: where their values are.",
	}
}

// TrainerDefaults are the keys of [Train] for which a trainer may have a default.
type TrainerDefaults struct {
	Resolution int                     `json:"resolution,omitempty" check:"optional,min=32,max=2048"`
	Epochs     int                     `json:"epochs,omitempty" check:"optional,min=1,max=1000"`
	Batch      TrainerBatchDefaults    `json:"batch"`
	Optimizer  TrainerOptimizerDefault `json:"optimizer"`
}

// Docs says what each key is for.
func (TrainerDefaults) Docs() map[string]string { return Train{}.Docs() }

// TrainerBatchDefaults are those of [Batch].
type TrainerBatchDefaults struct {
	Effective int `json:"effective,omitempty" check:"optional,min=1,max=4096"`
}

// Docs says what each key is for.
func (TrainerBatchDefaults) Docs() map[string]string { return Batch{}.Docs() }

// TrainerOptimizerDefault are those of [Optimizer].
type TrainerOptimizerDefault struct {
	LR     float64 `json:"lr,omitempty" check:"optional,min=1e-9,max=10"`
	Warmup int     `json:"warmup" default:"0" check:"min=0,max=1000"`
}

// Docs says what each key is for.
func (TrainerOptimizerDefault) Docs() map[string]string { return Optimizer{}.Docs() }

// TrainerResolution bounds the input size.
type TrainerResolution struct {
	Min        int `json:"min" default:"32" check:"min=32,max=2048"`
	Max        int `json:"max" default:"2048" check:"min=32,max=2048"`
	MultipleOf int `json:"multipleOf" default:"1" check:"min=1,max=2048"`
}

// Docs says what each key is for.
func (TrainerResolution) Docs() map[string]string {
	return map[string]string{
		"min":        "The smallest, in pixels.",
		"max":        "The largest, in pixels.",
		"multipleOf": "The size is a multiple of this.",
	}
}
