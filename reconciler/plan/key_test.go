package plan_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/plan"
)

// A keyed is everything that a training's key may depend on.
type keyed struct {
	yaml    string
	seed    int64
	trainer delivery.Trainer
	dataKey delivery.Digest
	data    delivery.DataResult
	weights map[string]delivery.Weights
	change  func(*delivery.TrainRun) // what is not computed from these
}

func (k keyed) key(t *testing.T) delivery.Digest {
	t.Helper()
	in, complaints := intent.Parse([]intent.File{{Path: "models/m.yaml", Data: []byte(k.yaml),
		Size: int64(len(k.yaml))}}, intent.Options{Trainers: trainers})
	if len(complaints) > 0 {
		t.Fatal(delivery.Complaints(complaints))
	}
	mdl := in.Models.Of("m")
	server := plan.Server{Trainers: map[string]delivery.Trainer{mdl.Train.With: k.trainer}, Weights: k.weights}
	input, why := server.TrainInput(mdl, k.seed, k.dataKey, k.data)
	if !why.IsZero() {
		t.Fatal(why)
	}
	if k.change != nil {
		k.change(&input)
	}
	return delivery.TrainKey(input)
}

// The same work has one key, and is done once. Each input that changes the result changes the key, and nothing else.
func TestTrainKey(t *testing.T) {
	sum := func(text string) delivery.Digest { return delivery.Sum([]byte(text)) }
	const file = `apiVersion: aob/v1
kind: Model
name: m
dataset: {dir: shapes/v3}
classes: {circle: [circle, ring], square: [square]}
train:
  with: tiny@1
  resolution: 160
  epochs: 8
  batch: {effective: 8}
  optimizer: {lr: 0.004}
  args: {channels: 8, hflip: 0.5}
thresholds: {default: bestF1}
`
	base := func() keyed {
		return keyed{yaml: file, seed: 1, dataKey: sum("data run"), data: delivery.DataResult{Training: sum("images")},
			trainer: delivery.Trainer{Files: sum("files"), Accelerator: "cpu", Runs: &delivery.Environment{
				Lock: sum("lock"), Python: "cpython-3.11", Platform: "linux-x86_64"}}}
	}
	replaced := func(old, with string) func(*keyed) {
		return func(k *keyed) {
			if !strings.Contains(k.yaml, old) {
				t.Fatalf("nothing to replace: %q", old)
			}
			k.yaml = strings.Replace(k.yaml, old, with, 1)
		}
	}
	run := func(change func(*delivery.TrainRun)) func(*keyed) { return func(k *keyed) { k.change = change } }
	weights := func(name, licence, content string) func(*keyed) {
		return func(k *keyed) {
			replaced("with: tiny@1", "with: tiny@1\n  from: "+name)(k)
			k.weights = map[string]delivery.Weights{name: {SHA256: sum(content), Licence: licence}}
		}
	}
	parent := func(from, bundle, checkpoint string) func(*keyed) {
		return func(k *keyed) {
			replaced("with: tiny@1", "with: tiny@1\n  from: "+from)(k)
			k.change = func(r *delivery.TrainRun) { r.Parent, r.Checkpoint = sum(bundle), sum(checkpoint) }
		}
	}
	first := base().key(t)
	if again := base().key(t); again != first {
		t.Fatalf("the same twice: %s and %s", first, again)
	}
	for name, change := range map[string]func(*keyed){
		"a comment":                 replaced("kind: Model", "kind: Model # as before"),
		"the order of keys":         replaced("  resolution: 160\n  epochs: 8\n", "  epochs: 8\n  resolution: 160\n"),
		"the order of args":         replaced("{channels: 8, hflip: 0.5}", "{hflip: 0.5, channels: 8}"),
		"how a number is written":   replaced("lr: 0.004", "lr: 4.0e-3"),
		"a default that is given":   replaced("epochs: 8", "epochs: 8\n  precision: fp32\n  from: none"),
		"a threshold":               replaced("bestF1", "0.4"),
		"a variant":                 replaced("bestF1}", "bestF1}\nvariants: [fp32, fp16]"),
		"the limit":                 replaced("epochs: 8", "epochs: 8\n  machine: {limit: 2h}"),
		"other seeds beside":        replaced("epochs: 8", "epochs: 8\n  seeds: [1, 2]"),
		"the dataset's name":        replaced("shapes/v3", "shapes/v3-again"), // a zip that was exported again
		"the labels of a class":     replaced("[circle, ring]", "[circle]"),   // with the same training images
		"a data run of an upgrade":  func(k *keyed) { k.dataKey = sum("data/6") },
		"another version's lock":    func(*keyed) {}, // see TestInstallVersions: this one's files stay the same
		"licences of what it uses":  run(func(r *delivery.TrainRun) { r.Licences = []delivery.Licensed{{}} }),
		"what the data run counted": func(k *keyed) { k.data.LeftOut, k.data.Content = 3, sum("zip") },
	} {
		k := base()
		change(&k)
		if got := k.key(t); got != first {
			t.Errorf("%s: the key is another one", name)
		}
	}
	keys := map[delivery.Digest]string{first: "the training as it was"}
	differs := func(name string, change func(*keyed)) {
		t.Helper()
		k := base()
		change(&k)
		got := k.key(t)
		if other, taken := keys[got]; taken {
			t.Errorf("%s has the key of %s", name, other)
		}
		keys[got] = name
	}
	differs("the trainer's files", func(k *keyed) { k.trainer.Files = sum("other files") })
	differs("the lock", func(k *keyed) { k.trainer.Runs.Lock = sum("other lock") })
	differs("Python", func(k *keyed) { k.trainer.Runs.Python = "cpython-3.12" })
	differs("the platform", func(k *keyed) { k.trainer.Runs.Platform = "linux-aarch64" })
	image := func(content string) func(*keyed) {
		return func(k *keyed) {
			k.trainer.Runs = &delivery.Environment{Image: sum(content), Platform: "linux/amd64"}
		}
	}
	differs("a container in place of packages", image("image"))
	differs("another image", image("other image"))
	differs("another platform of an image", func(k *keyed) {
		image("image")(k)
		k.trainer.Runs.Platform = "linux/arm64"
	})
	differs("the server's own Python", func(k *keyed) { k.trainer.Runs = nil })
	differs("the accelerator", func(k *keyed) { k.trainer.Accelerator = "cuda" })
	differs("the seed", func(k *keyed) { k.seed = 2 })
	differs("the dataset's content", func(k *keyed) { k.data.Training = sum("other images") })
	differs("a class's name", replaced("circle: [circle, ring]", "disc: [circle, ring]"))
	differs("the order of classes", replaced("{circle: [circle, ring], square: [square]}",
		"{square: [square], circle: [circle, ring]}"))
	for i, change := range [][2]string{{"resolution: 160", "resolution: 192"}, {"epochs: 8", "epochs: 9"},
		{"effective: 8", "effective: 16"}, {"effective: 8", "effective: 8, step: 4"}, {"lr: 0.004", "lr: 0.005"},
		{"lr: 0.004", "lr: 0.004, warmup: 2"}, {"channels: 8", "channels: 16"}, {", hflip: 0.5", ""},
		{"epochs: 8", "epochs: 8\n  precision: amp"}, {"epochs: 8", "epochs: 8\n  earlyStopping: {patience: 3}"}} {
		differs(fmt.Sprintf("%d: %s", i, change[1]), replaced(change[0], change[1]))
	}
	differs("base weights", weights("w", "MIT", "weights"))
	differs("other base weights", weights("w", "MIT", "other weights"))
	differs("the licence of base weights", weights("w", "Apache-2.0", "weights"))
	differs("a parent", parent("release", "bundle", "checkpoint"))
	differs("a parent's checkpoint", parent("release", "bundle", "other checkpoint"))
	for name, same := range map[string][2]func(*keyed){
		"the name of base weights": {weights("w", "MIT", "weights"), weights("v", "MIT", "weights")},
		"how a parent is named": {parent("release", "bundle", "checkpoint"), parent("m@3", "with thresholds",
			"checkpoint")},
	} {
		a, b := base(), base()
		same[0](&a)
		same[1](&b)
		if a.key(t) != b.key(t) {
			t.Errorf("%s changes the key", name)
		}
	}
}

// A variant has one key, and is made once. What it is made of and by counts, and nothing else.
func TestVariantKey(t *testing.T) {
	sum := func(text string) delivery.Digest { return delivery.Sum([]byte(text)) }
	base := func() delivery.VariantRun {
		return delivery.VariantRun{Variant: "int8", Bundle: sum("bundle"), Model: sum("model"),
			Checkpoint: sum("checkpoint"), Train: delivery.TrainRun{Seed: 1, Data: sum("data run"),
				Training: sum("images"), Trainer: sum("files"), Accelerator: "cpu", Machine: "train-local",
				Environment: &delivery.Environment{Lock: sum("lock"), Python: "cpython-3.11"},
				Spec:        delivery.Spec{Dataset: "dir:shapes", Train: delivery.Train{Epochs: 8}}}}
	}
	first := delivery.VariantKey(base())
	for name, change := range map[string]func(*delivery.VariantRun){
		"the bundle's thresholds":  func(r *delivery.VariantRun) { r.Bundle = sum("other") },
		"a data run of an upgrade": func(r *delivery.VariantRun) { r.Train.Data = sum("data/6") },
		"the limit":                func(r *delivery.VariantRun) { r.Train.Limit = 1 },
		"the dataset's name":       func(r *delivery.VariantRun) { r.Train.Spec.Dataset = "dir:again" },
	} {
		r := base()
		change(&r)
		if delivery.VariantKey(r) != first {
			t.Errorf("%s: the key is another one", name)
		}
	}
	keys := map[delivery.Digest]string{first: "the variant as it was"}
	for name, change := range map[string]func(*delivery.VariantRun){
		"its kind":                func(r *delivery.VariantRun) { r.Variant = "fp16" },
		"the model":               func(r *delivery.VariantRun) { r.Model = sum("other") },
		"the checkpoint":          func(r *delivery.VariantRun) { r.Checkpoint = sum("other") },
		"the images":              func(r *delivery.VariantRun) { r.Train.Training = sum("other") },
		"the seed":                func(r *delivery.VariantRun) { r.Train.Seed = 2 },
		"the trainer's files":     func(r *delivery.VariantRun) { r.Train.Trainer = sum("other") },
		"the lock":                func(r *delivery.VariantRun) { r.Train.Environment.Lock = sum("other") },
		"Python":                  func(r *delivery.VariantRun) { r.Train.Environment.Python = "cpython-3.12" },
		"the server's own Python": func(r *delivery.VariantRun) { r.Train.Environment = nil },
	} {
		r := base()
		change(&r)
		key := delivery.VariantKey(r)
		if other, taken := keys[key]; taken {
			t.Errorf("%s has the key of %s", name, other)
		}
		keys[key] = name
	}
}
