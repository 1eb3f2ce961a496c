package delivery

// A Trainer is a file trainers/NAME/trainer.yaml: the description of a program that trains
// models.
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

	Files Digest `json:"-"` // the digest of the trainer's installed files
}

// Docs says what each key is for.
func (Trainer) Docs() map[string]string {
	return map[string]string{
		"apiVersion": "The version of this file's format.",
		"kind":       "What this file describes.",
		"name":       "The trainer's name, the same as the folder's.",
		"versions": "The versions that models may use, as in train.with: NAME@VERSION. Make a new version when the " +
			"same settings would give another model.",
		"architectures": "The network architectures that it trains; the first is the default.",
		"accelerator":   "The processor that it uses. Results of another accelerator are not reused.",
		"defaults":      "The values of keys that a model's train: leaves out. A key without a default is required.",
		"resolution":    "The input sizes that it supports.",
		"secrets": "The names of the secrets that a training gets as environment variables. Their values are " +
			"configured under secrets: in the server's configuration.",
	}
}

// TrainerDefaults are a trainer's defaults for keys of [Train].
type TrainerDefaults struct {
	Resolution int                     `json:"resolution,omitempty" check:"optional,min=32,max=2048"`
	Epochs     int                     `json:"epochs,omitempty" check:"optional,min=1,max=1000"`
	Batch      TrainerBatchDefaults    `json:"batch"`
	Optimizer  TrainerOptimizerDefault `json:"optimizer"`
}

// Docs says what each key is for.
func (TrainerDefaults) Docs() map[string]string { return Train{}.Docs() }

// TrainerBatchDefaults are a trainer's defaults for keys of [Batch].
type TrainerBatchDefaults struct {
	Effective int `json:"effective,omitempty" check:"optional,min=1,max=4096"`
}

// Docs says what each key is for.
func (TrainerBatchDefaults) Docs() map[string]string { return Batch{}.Docs() }

// TrainerOptimizerDefault are a trainer's defaults for keys of [Optimizer].
type TrainerOptimizerDefault struct {
	LR     float64 `json:"lr,omitempty" check:"optional,min=1e-9,max=10"`
	Warmup int     `json:"warmup" default:"0" check:"min=0,max=1000"`
}

// Docs says what each key is for.
func (TrainerOptimizerDefault) Docs() map[string]string { return Optimizer{}.Docs() }

// TrainerResolution is the range of a trainer's input sizes.
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
