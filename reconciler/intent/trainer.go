package intent

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// TrainerFile is the name of the file that describes a trainer, in its folder.
const TrainerFile = "trainer.yaml"

// Trainers are the trainers of a server by NAME@VERSION, as models name them.
type Trainers map[string]Trainer

// Descriptions returns the trainers' descriptions.
func (t Trainers) Descriptions() map[string]delivery.Trainer {
	list := make(map[string]delivery.Trainer, len(t))
	for with, one := range t {
		list[with] = one.Trainer
	}
	return list
}

// A Trainer is one version of a trainer: its description and the schema of its arguments.
type Trainer struct {
	delivery.Trainer
	args *ArgsSchema
}

// ParseTrainer reads a trainer.yaml as strictly as other files. folder is the name of its folder.
func ParseTrainer(file, folder string, data []byte) (delivery.Trainer, []delivery.Complaint) {
	d := &document{file: file}
	var t delivery.Trainer
	if d.open(File{Path: file, Size: int64(len(data)), Data: data}) {
		d.decode(&t)
		d.trainer(t, folder)
	}
	return t, d.complaints()
}

// trainer checks the rules between a trainer's fields.
func (d *document) trainer(t delivery.Trainer, folder string) {
	if d.valid("name") && t.Name != folder {
		d.complain("name", "want %s, the folder's name, got %s", quote(folder), quote(t.Name))
	}
	unique(d, t.Versions, "versions")
	unique(d, t.Architectures, "architectures")
	unique(d, t.Secrets, "secrets")
	if d.valid("resolution") && t.Resolution.Min > t.Resolution.Max {
		d.complain("resolution.max", "want at least min, %d, got %d", t.Resolution.Min, t.Resolution.Max)
	}
	if r := t.Defaults.Resolution; d.valid("resolution", "defaults.resolution") && r > 0 {
		if want := wantResolution(t, r); want != "" {
			d.complain("defaults.resolution", "want %s, as in resolution:, got %d", want, r)
		}
	}
	if d.valid("defaults") && t.Defaults.Epochs > 0 && t.Defaults.Optimizer.Warmup > t.Defaults.Epochs {
		d.complain("defaults.optimizer.warmup", "want at most %d, the number of epochs, got %d", t.Defaults.Epochs,
			t.Defaults.Optimizer.Warmup)
	}
}

// wantResolution describes the input sizes of a trainer if n is none of them; else it is empty.
func wantResolution(t delivery.Trainer, n int) string {
	switch r := t.Resolution; {
	case n < r.Min || n > r.Max:
		return fmt.Sprintf("%d to %d", r.Min, r.Max)
	case n%r.MultipleOf != 0:
		return fmt.Sprintf("a multiple of %d", r.MultipleOf)
	}
	return ""
}

// LoadTrainers reads the trainers in a folder: a folder for each, with a trainer.yaml and, if it takes arguments, a
// schema.json. Names that begin with one dot or an underscore are not read. A symbolic link is an error: it could lead
// to a file that the author of the trainer may not read, and complaints quote what they read.
func LoadTrainers(files fs.FS) (Trainers, error) {
	folders, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil, err
	}
	trainers := make(Trainers)
	for _, e := range folders {
		name := e.Name()
		switch hidden := strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_"); {
		case strings.HasPrefix(name, ".."):
			return nil, fmt.Errorf("%q: the name begins with two dots; rename it, or move it elsewhere", name)
		case e.Type()&fs.ModeSymlink != 0 && !hidden:
			return nil, fmt.Errorf("%q is a symbolic link; put the trainer's folder itself there", name)
		case !e.IsDir() || hidden:
			continue
		}
		t, err := loadTrainer(files, name)
		if err != nil {
			return nil, err
		}
		for _, v := range t.Versions {
			trainers[t.Name+"@"+v] = t
		}
	}
	return trainers, nil
}

func loadTrainer(files fs.FS, folder string) (Trainer, error) {
	at := path.Join(folder, TrainerFile)
	data, err := readBounded(files, at)
	if errors.Is(err, fs.ErrNotExist) {
		return Trainer{}, delivery.Complaints{{File: at,
			Text: "missing; every trainer needs one, and aob schema trainer " +
				"shows its fields"}}
	}
	if err != nil {
		return Trainer{}, err
	}
	described, complaints := ParseTrainer(at, folder, data)
	if len(complaints) > 0 {
		return Trainer{}, delivery.Complaints(complaints)
	}
	data, err = readBounded(files, path.Join(folder, ArgsFile))
	if errors.Is(err, fs.ErrNotExist) {
		data, err = []byte(`{"type": "object", "additionalProperties": false}`), nil
	}
	if err != nil {
		return Trainer{}, err
	}
	args, err := ParseArgsSchema(data)
	if err != nil {
		return Trainer{}, fmt.Errorf("%s/%w", folder, err)
	}
	return Trainer{described, args}, nil
}

// readBounded reads a regular file of at most MaxFileSize bytes.
func readBounded(files fs.FS, name string) ([]byte, error) {
	info, err := fs.Lstat(files, name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is a symbolic link or not a regular file; put the file itself there", name)
	case info.Size() > MaxFileSize:
		return nil, fmt.Errorf("%s: is too large; want at most %d KiB", name, MaxFileSize>>10)
	}
	return fs.ReadFile(files, name)
}

// train fills in the trainer's defaults and checks the trainer's limits.
func (d *document) train(t *delivery.Train) {
	if d.options.Trainers == nil || t.With == "" || !d.valid("train.with") {
		return
	}
	trainer, ok := d.options.Trainers[t.With]
	if !ok {
		if !d.options.accepted {
			d.complain("train.with", "%s", unknown("trainer", t.With, slices.Sorted(maps.Keys(d.options.Trainers))))
		}
		return
	}
	defaults := trainer.Defaults
	fill(d, "train.architecture", &t.Architecture, trainer.Architectures[0])
	fill(d, "train.resolution", &t.Resolution, defaults.Resolution)
	fill(d, "train.epochs", &t.Epochs, defaults.Epochs)
	fill(d, "train.batch.effective", &t.Batch.Effective, defaults.Batch.Effective)
	fill(d, "train.optimizer.lr", &t.Optimizer.LR, defaults.Optimizer.LR)
	if !d.has("train.optimizer.warmup") {
		t.Optimizer.Warmup = min(defaults.Optimizer.Warmup, t.Epochs)
	}
	if d.options.accepted {
		return
	}
	if d.valid("train.architecture") && !slices.Contains(trainer.Architectures, t.Architecture) {
		d.complain("train.architecture", "want %s, got %s", or(trainer.Architectures), quote(t.Architecture))
	}
	if want := wantResolution(trainer.Trainer, t.Resolution); want != "" && d.valid("train.resolution") {
		d.complain("train.resolution", "want %s, got %d", want, t.Resolution)
	}
	if !d.valid("train.args") {
		return
	}
	args := t.Args
	if args == nil {
		args = map[string]any{}
	}
	for _, p := range trainer.args.root.check(args, "args") {
		d.complain("train."+p.path, "%s", p.text)
	}
}

// fill sets a value that the file leaves out, and complains if there is no default.
func fill[T comparable](d *document, path string, value *T, standard T) {
	var none T
	switch {
	case d.has(path):
	case standard != none:
		*value = standard
	case !d.options.accepted:
		d.complain(path, "missing; add it, since the trainer has no default for it")
	}
}
