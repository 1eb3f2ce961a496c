package intent

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
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
	unique(d, t.Precisions, "precisions")
	unique(d, t.Variants, "variants")
	unique(d, t.From, "from")
	for _, name := range slices.Sorted(maps.Keys(t.Licences)) {
		if at := member("licences", name); d.valid(at, "architectures") && !slices.Contains(t.Architectures, name) {
			d.complain(at, "%s", unknown("architecture", name, t.Architectures))
		}
	}
	if e := t.Environment; e != nil && d.valid("environment") && minor(e.Python.Min) > minor(e.Python.Max) {
		d.complain("environment.python.max", "want at least min, %s, got %s", e.Python.Min, e.Python.Max)
	}
	for _, name := range slices.Sorted(maps.Keys(t.Sizes)) {
		at := member("sizes", name)
		if d.valid(at, "architectures") && !slices.Contains(t.Architectures, name) {
			d.complain(at, "%s", unknown("architecture", name, t.Architectures))
		}
		if at += ".resolution"; d.valid(at, "resolution") {
			if want := wantResolution(t, t.Sizes[name].Resolution); want != "" {
				d.complain(at, "want %s, as in resolution:, got %d", want, t.Sizes[name].Resolution)
			}
		}
	}
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

// minor returns N of a version 3.N of Python.
func minor(version string) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(version, "3."))
	return n
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
		switch hidden := hidden(name); {
		case strings.HasPrefix(name, ".."):
			return nil, fmt.Errorf("%q: the name begins with two dots; rename it, or move it elsewhere", name)
		case e.Type()&fs.ModeSymlink != 0 && !hidden:
			return nil, fmt.Errorf("%q is a symbolic link; put the trainer's folder itself there", name)
		case !e.IsDir() || hidden:
			continue
		}
		described, err := loadTrainer(files, name)
		if err != nil {
			return nil, err
		}
		for _, v := range described.Versions {
			t, err := loadVersion(files, described, v)
			if err != nil {
				return nil, err
			}
			trainers[t.Name+"@"+v] = t
		}
	}
	return trainers, nil
}

// loadTrainer reads the description of a trainer, and checks that its folders of versions are versions.
func loadTrainer(files fs.FS, folder string) (t delivery.Trainer, err error) {
	at := path.Join(folder, TrainerFile)
	data, err := readBounded(files, at, MaxFileSize)
	if errors.Is(err, fs.ErrNotExist) {
		return t, delivery.Complaints{{File: at,
			Text: "missing; every trainer needs one, and aob schema trainer " +
				"shows its fields"}}
	}
	if err != nil {
		return t, err
	}
	t, complaints := ParseTrainer(at, folder, data)
	if len(complaints) > 0 {
		return t, delivery.Complaints(complaints)
	}
	folders, err := fs.ReadDir(files, path.Join(folder, VersionsFolder))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	for _, e := range folders {
		if hidden(e.Name()) || e.Type().IsRegular() {
			continue
		}
		if !slices.Contains(t.Versions, e.Name()) {
			return t, delivery.Complaints{{File: path.Join(folder, VersionsFolder, e.Name()), Text: "is not one of " +
				"the versions in " + at + "; add it to versions: there, or remove it here"}}
		}
	}
	return t, err
}

// hidden reports whether a file or folder is not part of a trainer.
func hidden(name string) bool { return strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") }

// loadVersion reads what one version of a trainer has of its own: the schema of its arguments and its lock file.
func loadVersion(files fs.FS, described delivery.Trainer, version string) (t Trainer, err error) {
	t.Trainer = described
	own := path.Join(t.Name, VersionsFolder, version)
	schema := path.Join(own, ArgsFile)
	data, err := readBounded(files, schema, maxArgsSchema)
	if errors.Is(err, fs.ErrNotExist) {
		schema = path.Join(t.Name, ArgsFile)
		data, err = readBounded(files, schema, maxArgsSchema)
	}
	if errors.Is(err, fs.ErrNotExist) {
		data, err = []byte(`{"type": "object", "additionalProperties": false}`), nil
	}
	if err != nil {
		return t, err
	}
	if t.args, err = ParseArgsSchema(data); err != nil {
		return t, fmt.Errorf("%s/%w", path.Dir(schema), err)
	}
	defaults := path.Join(own, DefaultsFile)
	if data, err = readBounded(files, defaults, maxArgsSchema); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return t, err
	}
	if t.Values, err = ParseDefaults(data); err != nil {
		return t, fmt.Errorf("%s: %w", defaults, err)
	}
	maps.Copy(t.Values, t.args.Defaults())
	lock := path.Join(own, LockFile)
	data, err = readBounded(files, lock, maxLock)
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case missing && t.Environment == nil:
		return t, nil
	case missing:
		return t, delivery.Complaints{{File: lock, Text: "missing; environment: in trainer.yaml needs the packages " +
			"of each version, as uv pip compile --universal --generate-hashes writes them"}}
	case err != nil:
		return t, err
	case t.Environment == nil:
		return t, delivery.Complaints{{File: lock, Text: "is not used without environment: in trainer.yaml; add it " +
			"there, as in environment: {disk: 8GiB}, or remove this file"}}
	}
	var complaints []delivery.Complaint
	if t.Lock, complaints = ParseLock(lock, data); len(complaints) > 0 {
		return t, delivery.Complaints(complaints)
	}
	return t, nil
}

// readBounded reads a regular file of at most limit bytes. No folder of its path may be a symbolic link.
func readBounded(files fs.FS, name string, limit int64) ([]byte, error) {
	for parent := path.Dir(name); parent != "."; parent = path.Dir(parent) {
		if info, err := fs.Lstat(files, parent); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			return nil, fmt.Errorf("%s is a symbolic link or not a regular file; put the file itself there", parent)
		}
	}
	info, err := fs.Lstat(files, name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is a symbolic link or not a regular file; put the file itself there", name)
	case info.Size() > limit:
		return nil, fmt.Errorf("%s: is too large; want at most %d KiB", name, limit>>10)
	}
	return fs.ReadFile(files, name)
}

// train fills in the trainer's defaults and checks the trainer's limits.
func (d *document) train(t *delivery.Train) {
	d.unversioned()
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
	if d.valid("train.precision") && !slices.Contains(trainer.Precisions, t.Precision) {
		d.complain("train.precision", "want %s, got %s", or(trainer.Precisions), quote(t.Precision))
	}
	if from := t.Start(); d.valid("train.from") && !slices.Contains(trainer.From, from) {
		d.complain("train.from", "want %s: trainer %s starts from nothing else; got %s",
			or(delivery.Each(trainer.From, startNames)), t.With, quote(t.From))
	}
	if known := d.options.Weights; known != nil && d.valid("train.from") && t.Start() == delivery.StartWeights &&
		!slices.Contains(known, t.From) {
		d.complain("train.from", "%s; the server's configuration names them under weights:",
			unknown("weights", t.From, append(slices.Clone(known), slices.DeleteFunc(slices.Clone(trainer.From),
				func(from string) bool { return from == delivery.StartWeights })...)))
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

// unversioned adds the versions of a trainer to the complaint about a train.with that has the trainer's name alone.
func (d *document) unversioned() {
	given, ok := d.spots["train.with"]
	i := slices.IndexFunc(d.list, func(c delivery.Complaint) bool { return c.Path == "train.with" })
	if !ok || i < 0 {
		return
	}
	var versions []string
	for _, with := range slices.Sorted(maps.Keys(d.options.Trainers)) {
		if strings.HasPrefix(with, given.value.Value+"@") {
			versions = append(versions, with)
		}
	}
	if len(versions) > 0 {
		d.list[i].Text += "; write " + or(versions)
	}
}

// startNames describes a kind of start for a complaint.
func startNames(start string) string {
	switch start {
	case delivery.StartWeights:
		return "the name of weights in the server's configuration"
	case delivery.StartRelease:
		return "release, MODEL@VERSION"
	}
	return start
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
