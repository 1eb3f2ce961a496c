package main

// This file begins with a dataset of the user's own.

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
)

// ownData is what aob init found in a dataset, and what it made for it.
type ownData struct {
	Model   string   `json:"model"`
	Branch  string   `json:"branch"` // that proposes it
	Gate    string   `json:"gate"`
	Owner   string   `json:"owner"`
	Classes []string `json:"classes"`
	// Labels are the dataset's labels of the classes.
	Labels delivery.Labels `json:"labels,omitempty"`
	Splits []ownSplit      `json:"splits"`
	Needs  string          `json:"needs,omitempty"` // the trainer whose packages the first model needs
	// Installed says that these packages are there.
	Installed bool `json:"installed,omitempty"`
	// Warnings say what makes the gate's decisions hard.
	Warnings []string `json:"warnings,omitempty"`
}

// An ownSplit is one split of a dataset.
type ownSplit struct {
	Name    string         `json:"name"`
	Images  int            `json:"images"`
	Objects map[string]int `json:"objects"` // by class
}

const firstModel = "first-model" // the branch that proposes it

// ownGate is a gate that a first model can meet.
const ownGate = `# A gate: what a model must reach before it may be released.
apiVersion: aob/v1
kind: Gate
name: %s
covers: [%[1]s]
owners: [%s]  # who may accept an unsure check
evaluate: {}
checks:
  # The first model only has to find something. Raise this when you know what it can do.
  - {metric: mAP, min: 0.001}
  # Later models may not be clearly worse than the release.
  - {metric: mAP, maxDrop: 0.05}
  # A release needs a check that passes, and a small test split decides nothing on mAP. This one needs no images.
  # RF-DETR has 100 to 150 MB.
  - {metric: size, max: 200MB}
`

const ownModel = `# A model: what to train, on what, and how. Merging a change to it ships the change.
apiVersion: aob/v1
kind: Model
name: %s
dataset: {dir: %[1]s}
classes: %s
train:
  with: tiny@1      # a small detector that trains on a CPU
  resolution: 224   # pixels on the long side of what the network sees
  epochs: %d
  batch: {effective: 8}
  seeds: [1]
  machine: {limit: 2h}
`

// ownRFDETR is a first model of RF-DETR.
const ownRFDETR = `# A model: what to train, on what, and how. Merging a change to it ships the change.
apiVersion: aob/v1
kind: Model
name: %s
dataset: {dir: %[1]s}
classes: %s
train:
  with: %s
  architecture: %s
  resolution: %d    # pixels on each side, a multiple of 32
  epochs: 50
  batch: {effective: 16, step: 8}   # where memory is short, a smaller step
  optimizer: {lr: 1e-4, warmup: 1}
  precision: amp
  earlyStopping: {patience: 10}
  seeds: [1]
  machine: {limit: 8h}
`

// An rfdetrSize is a size of the newest RF-DETR that this version of AOB has.
type rfdetrSize struct {
	with, architecture string
	resolution         int
}

// sizeOfRFDETR finds a size by its name, as small or rf-detr-small; none for an empty name.
func sizeOfRFDETR(name string) (size rfdetrSize, err error) {
	if name == "" {
		return size, nil
	}
	trainers, err := loadTrainers("")
	if err != nil {
		return size, err
	}
	for _, with := range slices.Sorted(maps.Keys(trainers)) {
		t := trainers[with]
		for architecture, s := range t.Sizes {
			if t.Name == "rfdetr" && architecture == "rf-detr-"+strings.TrimPrefix(name, "rf-detr-") {
				size = rfdetrSize{with, architecture, s.Resolution}
			}
		}
	}
	if size.with == "" {
		return size, hinted{fmt.Errorf("RF-DETR has no size %q", name),
			"want nano, small, medium or large, as in --rfdetr=nano"}
	}
	return size, nil
}

const ownFleet = `# A fleet: which devices run which model. One device gets a release first, and then all.
apiVersion: aob/v1
kind: Fleet
name: demo
runs: %s
match: {site: demo}
waves: [1, 100%%]
soak: 3s
advance: all-healthy
`

// readOwn reads the user's dataset, before anything is written.
func (b *builder) readOwn() (err error) {
	if b.dataset, err = filepath.Abs(b.dataset); err != nil {
		return err
	}
	name := b.name
	if name == "" {
		name = nameFrom(filepath.Base(b.dataset))
	}
	if folder, err := filepath.EvalSymlinks(b.dataset); err == nil {
		b.dataset = folder // the server follows no link
	}
	if name == "" || name != nameFrom(name) {
		return delivery.Blockedf("name it with --name, in lower-case letters, digits and hyphens, as in --name pallets",
			"%q is no name for a model", name)
	}
	u, err := user.Current()
	if err != nil {
		return fmt.Errorf("the gate needs an owner: %w", err)
	}
	b.Own = &ownData{Model: name, Branch: firstModel, Gate: name, Owner: u.Username, Needs: b.size.with}
	if b.size.with != "" {
		b.Own.Installed = packagesInstalled(b.ctx, b.python, b.size.with)
	}
	return b.inspect()
}

// inspect reads what the dataset has, divides it if it is not, and checks it.
func (b *builder) inspect() error {
	switch info, err := os.Stat(b.dataset); {
	case err == nil && !info.IsDir():
		return delivery.Blockedf("name the folder of your dataset; unpack an archive first",
			"%s is a file, not a folder", b.dataset)
	case err != nil:
		return delivery.Blockedf("name the folder of your dataset", "there is no folder %s", b.dataset)
	}
	catalog, ref, err := dataset.Folder(b.dataset)
	if err != nil {
		return err
	}
	cache, err := os.UserCacheDir()
	if err == nil {
		catalog.Memory = filepath.Join(cache, "aob", "datasets") // aob data check uses it too
	}
	d, err := catalog.Describe(b.ctx, ref)
	if err != nil {
		return err
	}
	if b.say("%s: %s", b.dataset, d.Layout); d.Unsplit || len(d.Splits) < 3 {
		written := filepath.Join(b.dataset, dataset.SplitsFile)
		if _, err := os.Lstat(written); errors.Is(err, fs.ErrNotExist) {
			b.divided = written
		}
		shares := dataset.Shares(d.Images())
		progress, done := showProgress(b.messages)
		_, err := dataset.WriteSplits(b.ctx, b.dataset, shares, progress)
		if done(); err != nil {
			return err
		}
		b.say("%s: which image is in train (%d %%), valid (%d %%) and test (%d %%), as it was not divided", written,
			shares[0], shares[1], shares[2])
		if d, err = catalog.Describe(b.ctx, ref); err != nil {
			return err
		}
	}
	labels := delivery.Labels{}
	for _, split := range d.Splits {
		own := ownSplit{Name: split.Name, Images: split.Images, Objects: map[string]int{}}
		for label, n := range split.Boxes {
			class := delivery.ClassOf(label)
			own.Objects[class] += n
			if n > 0 && split.Name == "train" {
				labels[class] = append(labels[class], label)
				slices.Sort(labels[class])
			}
		}
		b.Own.Splits = append(b.Own.Splits, own)
	}
	if b.Own.Classes = slices.Sorted(maps.Keys(labels)); len(labels) == 0 {
		return delivery.Blockedf("label objects in it", "no object of the train split of %s is labelled", b.dataset)
	}
	if slices.ContainsFunc(b.Own.Classes, func(class string) bool {
		return !slices.Equal(labels[class], []string{class})
	}) {
		b.Own.Labels = labels
	}
	return b.check(catalog, ref, labels)
}

// check checks the dataset as the server would before a training.
func (b *builder) check(catalog dataset.Catalog, ref delivery.Dataset, labels delivery.Labels) error {
	run := delivery.DataRun{Dataset: ref}
	for _, class := range b.Own.Classes {
		run.Classes = append(run.Classes, delivery.Class{Name: class, Labels: labels[class]})
	}
	progress, done := showProgress(b.messages)
	result, err := catalog.Check(b.ctx, run, "", nil, progress)
	if done(); err != nil {
		return err
	}
	n := len(result.Findings)
	for _, f := range result.Findings {
		if f.Level == delivery.LevelError {
			text := fmt.Sprintf("%s cannot be trained on: %s: %s", b.dataset, f.Place(), f.Text)
			if n > 1 {
				text += fmt.Sprintf(" (and %s)", delivery.Count(n-1, "more finding"))
			}
			return delivery.Blockedf("aob data check "+b.dataset+" lists all that is wrong; correct it, and try again",
				"%s", text)
		}
	}
	if n > 0 {
		b.Own.Warnings = append(b.Own.Warnings, fmt.Sprintf("the dataset has %s; aob data check %s lists them",
			delivery.Count(n, "finding"), b.dataset))
	}
	return nil
}

// yaml returns the classes of the model: a list, or a map to labels that are no names of classes.
func (o *ownData) yaml() string {
	if o.Labels != nil {
		return o.Labels.String()
	}
	return delivery.FlowList(o.Classes)
}

// notOfName matches what a model's name does not have.
var notOfName = regexp.MustCompile(`[^a-z0-9]+`)

// nameFrom makes a model's name of a folder's.
func nameFrom(folder string) string {
	name := notOfName.ReplaceAllString(strings.ToLower(folder), "-")
	return strings.Trim(name[:min(len(name), 63)], "-")
}

// own writes a gate on main, and a branch with a first model and a fleet.
func (b *builder) own() error {
	own := b.Own
	b.Dataset = b.dataset
	if err := b.configure(own.Model, b.dataset); err != nil {
		return err
	}
	model := fmt.Appendf(nil, ownModel, own.Model, own.yaml(), own.epochs())
	if b.size.with != "" {
		model = fmt.Appendf(nil, ownRFDETR, own.Model, own.yaml(), b.size.with, b.size.architecture, b.size.resolution)
	}
	gate := fmt.Appendf(nil, ownGate, own.Gate, delivery.YAMLScalar(own.Owner))
	if err := b.write("models/"+own.Model+".yaml", model); err != nil {
		return err
	}
	if err := b.write("gates/"+own.Gate+".yaml", gate); err != nil {
		return err
	}
	frozen, err := freeze(b.ctx, freezeRequest{name: own.Gate, config: b.Config, dir: b.Clone,
		dataset: "dir:" + own.Model, split: "test"})
	if err != nil {
		return err
	}
	own.Warnings = append(own.Warnings, frozenWarnings(frozen.Frozen)...)
	// Main gets the gate alone: it is there before its first model.
	path := filepath.Join(b.Clone, "models")
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	if err := b.commit("main", "A gate for "+own.Model); err != nil {
		return err
	}
	if err := b.git("-C", b.Clone, "checkout", "--quiet", "-b", own.Branch); err != nil {
		return err
	}
	if err := b.write("models/"+own.Model+".yaml", model); err != nil {
		return err
	}
	if err := b.write("fleets/demo.yaml", fmt.Appendf(nil, ownFleet, own.Model)); err != nil {
		return err
	}
	v, err := validate(b.Clone, b.Config, "")
	if err != nil {
		return err
	}
	if len(v.Complaints) > 0 {
		return delivery.Complaints(v.Complaints)
	}
	return b.commit(own.Branch, "A first model of "+own.Model)
}

// write writes a file of the clone, if it is one that AOB can read.
func (b *builder) write(name string, data []byte) error {
	if _, list := intent.Draft(intent.File{Path: name, Size: int64(len(data)), Data: data}); strings.HasPrefix(name,
		"gates/") && len(list) > 0 {
		return delivery.Complaints(list)
	}
	path := filepath.Join(b.Clone, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

// epochs returns how often a first model sees the images: a first answer within minutes counts for more than the best
// model.
func (o *ownData) epochs() int {
	train := 1
	for _, s := range o.Splits {
		if s.Name == "train" {
			train = max(1, s.Images)
		}
	}
	return min(max(3000/train, 1), 30)
}

// next says what was made, and what to do next.
func (t *terminal) next(w world) {
	aob := asTyped()
	if w.Own == nil {
		t.printf("\nnext: %s serve --config %s\n", aob, w.Config)
		return
	}
	rows := [][]cell{append(heading("CLASS"), splitHeads(w.Own.Splits)...)}
	for _, class := range w.Own.Classes {
		row := cells(class)
		for _, s := range w.Own.Splits {
			row = append(row, cell{text: fmt.Sprint(s.Objects[class])})
		}
		rows = append(rows, row)
	}
	t.printf("\n")
	t.table("  ", rows)
	t.printf("\nmain has the gate %s, which judges on the test split; you (%s) own it\n", w.Own.Gate, w.Own.Owner)
	t.printf("branch %s is pull request #1: a first model of these classes\n", w.Own.Branch)
	for _, text := range w.Own.Warnings {
		t.paragraph("", "warning: "+text)
	}
	socket := filepath.Join(filepath.Dir(w.Config), "state", "aob.sock")
	if w.Own.Needs != "" && !w.Own.Installed {
		t.printf("\nfirst: %s trainer install %s     6 GB, once; then no network is used\n", aob, w.Own.Needs)
	}
	t.printf("\nnext: %s doctor --config %s     is everything there?\n", aob, w.Config)
	t.printf("      %s serve --config %s      in another terminal; it trains and judges the first model\n", aob,
		w.Config)
	t.printf("      export AOB_SOCKET=%s\n", socket)
	t.printf("      %s status -w     how far it is\n", aob)
	t.printf("      %s pr show 1     what the gate says\n", aob)
	t.printf("      %s pr merge 1    releases it, once aob/release has passed\n", aob)
}

// asTyped is how the user called aob, as bin/aob.
func asTyped() string {
	if len(os.Args) == 0 {
		return "aob"
	}
	return os.Args[0]
}

func splitHeads(list []ownSplit) []cell {
	var names []string
	for _, s := range list {
		names = append(names, fmt.Sprintf("%s (%s)", strings.ToUpper(s.Name), delivery.Count(s.Images, "image")))
	}
	return heading(names...)
}
