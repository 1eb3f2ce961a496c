package delivery

// A Trainer is a file trainers/NAME/trainer.yaml: the description of a program that trains models.
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

// TrainerDefaults are a trainer's defaults for keys of [Train].
type TrainerDefaults struct {
	Resolution int                     `json:"resolution,omitempty" check:"optional,min=32,max=2048"`
	Epochs     int                     `json:"epochs,omitempty" check:"optional,min=1,max=1000"`
	Batch      TrainerBatchDefaults    `json:"batch"`
	Optimizer  TrainerOptimizerDefault `json:"optimizer"`
}

// TrainerBatchDefaults are a trainer's defaults for keys of [Batch].
type TrainerBatchDefaults struct {
	Effective int `json:"effective,omitempty" check:"optional,min=1,max=4096"`
}

// TrainerOptimizerDefault are a trainer's defaults for keys of [Optimizer].
type TrainerOptimizerDefault struct {
	LR     float64 `json:"lr,omitempty" check:"optional,min=1e-9,max=10"`
	Warmup int     `json:"warmup" default:"0" check:"min=0,max=1000"`
}

// TrainerResolution is the range of a trainer's input sizes.
type TrainerResolution struct {
	Min        int `json:"min" default:"32" check:"min=32,max=2048"`
	Max        int `json:"max" default:"2048" check:"min=32,max=2048"`
	MultipleOf int `json:"multipleOf" default:"1" check:"min=1,max=2048"`
}
