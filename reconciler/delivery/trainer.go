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
	Precisions    []string          `json:"precisions" default:"[fp32]" check:"nonempty,oneof=fp32|amp"`
	Variants      []string          `json:"variants,omitempty" check:"optional,nonempty,oneof=fp16|int8"`
	From          []string          `json:"from" default:"[none]" check:"nonempty,oneof=none|weights|release"`
	Licences      map[string]string `json:"licences,omitempty" check:"optional,nonempty,keys=label,licence"`
	Secrets       []string          `json:"secrets,omitempty" check:"optional,nonempty,variable"`

	Sizes map[string]TrainerSize `json:"sizes,omitempty" check:"optional,nonempty,keys=label"`

	Environment *TrainerEnvironment `json:"environment,omitempty" check:"optional"`

	// Of one version of the trainer.
	Files    Digest         `json:"-"` // of its installed files, without those of other versions
	Lock     Digest         `json:"-"` // of versions/VERSION/requirements.txt, if the trainer has an environment
	Runs     *Environment   `json:"-"` // the environment that this server runs it in; nil for the server's own Python
	Unusable string         `json:"-"` // why this server cannot run it; "" if it can
	Values   map[string]any `json:"-"` // the defaults of its arguments, and of its package's other options, by name
}

// Licence returns the licence of an architecture.
func (t Trainer) Licence(architecture string) string {
	if l, ok := t.Licences[architecture]; ok {
		return l
	}
	return DefaultLicence
}

// DefaultLicence is the licence of an architecture for which trainer.yaml names none.
const DefaultLicence = "Apache-2.0"

// TrainerEnvironment says what the Python environment of a trainer needs, which AOB makes from the lock file of the
// version.
type TrainerEnvironment struct {
	Disk   Bytes         `json:"disk" check:"min=1MiB,max=1024GiB"`
	Python TrainerPython `json:"python"`
}

// TrainerPython is the range of Python versions that a trainer's packages are made for, both ends included.
type TrainerPython struct {
	Min string `json:"min" default:"\"3.10\"" check:"python"`
	Max string `json:"max" default:"\"3.14\"" check:"python"`
}

// TrainerDefaults are a trainer's defaults for keys of [Train].
type TrainerDefaults struct {
	Resolution int                     `json:"resolution,omitempty" check:"optional,min=32,max=2048"`
	Epochs     int                     `json:"epochs,omitempty" check:"optional,min=1,max=1000"`
	Batch      TrainerBatchDefaults    `json:"batch"`
	Optimizer  TrainerOptimizerDefault `json:"optimizer"`
}

// TrainerSize is what an architecture is made for. It is written into a new model's file, and fills in nothing: another
// default would change models that are there.
type TrainerSize struct {
	Resolution int `json:"resolution" check:"min=32,max=2048"`
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
