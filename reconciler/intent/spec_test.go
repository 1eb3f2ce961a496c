package intent_test

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/autonomos/aob"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
)

const written = `# A model.
apiVersion: aob/v1
kind: Model
name: m
dataset: {dir: shapes/v1}
classes: [circle, square]
train:
  with: tiny@1
  epochs: 12
  optimizer: {lr: 1e-4}
  seeds: [3]
  args: {channels: 16, ema: 0.5, scales: [1, 2], weights: {box: 1, class: 2}}
`

// anyArgs is the built-in trainer, taking any arguments.
func anyArgs(t *testing.T) intent.Options {
	t.Helper()
	described, err := fs.ReadFile(aob.Trainers, "trainers/tiny/trainer.yaml")
	if err != nil {
		t.Fatal(err)
	}
	trainers, err := intent.LoadTrainers(fstest.MapFS{"tiny/trainer.yaml": {Data: described},
		"tiny/schema.json": {Data: []byte(`{"type": "object"}`)}})
	if err != nil {
		t.Fatal(err)
	}
	return intent.Options{Trainers: trainers}
}

// builtIn are the trainers that AOB brings along.
func builtIn(t testing.TB) intent.Options {
	t.Helper()
	files, err := fs.Sub(aob.Trainers, "trainers")
	if err != nil {
		t.Fatal(err)
	}
	trainers, err := intent.LoadTrainers(files)
	if err != nil {
		t.Fatal(err)
	}
	return intent.Options{Trainers: trainers}
}

func parseModel(t *testing.T, text string) delivery.Model {
	t.Helper()
	in, complaints := intent.Parse([]intent.File{file("models/m.yaml", text)}, anyArgs(t))
	for _, c := range complaints {
		t.Error(c)
	}
	if t.Failed() {
		t.Fatalf("in\n%s", text)
	}
	return in.Models.Of("m")
}

// One model however it is written, and another one at the smallest change that
// counts.
func TestSpecDigest(t *testing.T) {
	replace := func(pairs ...string) string {
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(written, pairs[i]) {
				t.Fatalf("nothing to replace: %q", pairs[i])
			}
		}
		return strings.NewReplacer(pairs...).Replace(written)
	}
	want := parseModel(t, written).Spec().Digest()
	// A release names the spec of its model: the digest of a file that main has may never change.
	if want != "sha256:af6647d7877e1a86d793e58f2658945d2e259fdaaa033c396b2f8770e071a3da" {
		t.Errorf("the spec digest moved to %s", want)
	}
	for name, text := range map[string]string{
		"numbers in another form": replace("1e-4", "0.0001", "0.5", "5e-1", "[1, 2]", "[1.0, 2e0]", "channels: 16",
			"channels: 16.0"),
		"quoted text": replace("tiny@1", `"tiny@1"`, "circle", "'circle'"),
		"comments":    replace("# A model.", "# Another model."),
		"defaults written out": replace("epochs: 12", "epochs: 12\n  from: none\n  precision: fp32\n  batch: "+
			"{step: 16, effective: 16}\n  earlyStopping: {patience: 0}", "lr: 1e-4", "schedule: cosine, lr: 1e-4"),
		"variants written out":     written + "variants: [fp32]\n",
		"another machine's limits": replace("epochs: 12", "epochs: 12\n  machine: {terraform: train-local, limit: 3h}"),
		"labels written out":       replace("[circle, square]", "{circle: [circle], square: [square]}"),
		"order of keys": `train: {args: {weights: {class: 2, box: 1}, scales: [1, 2], ema: 0.5, channels: 16},
  seeds: [3], optimizer: {lr: 1e-4}, epochs: 12, with: tiny@1}
classes: [circle, square]
dataset: {dir: shapes/v1}
name: m
kind: Model
apiVersion: aob/v1
`,
		"JSON": `{"apiVersion": "aob/v1", "kind": "Model", "name": "m", "dataset": {"dir": "shapes/v1"},
"classes": ["circle", "square"],
"train": {"with": "tiny@1", "epochs": 12, "optimizer": {"lr": 0.0001}, "seeds": [3],
"args": {"channels": 16, "ema": 0.5, "scales": [1, 2], "weights": {"box": 1, "class": 2}}}}`,
	} {
		if got := parseModel(t, text).Spec().Digest(); got != want {
			t.Errorf("%s: the digest moved", name)
		}
	}
	for name, text := range map[string]string{
		"dataset":        replace("shapes/v1", "shapes/v2"),
		"order of class": replace("[circle, square]", "[square, circle]"),
		"label":          replace("[circle, square]", "{circle: [circle, disc], square: [square]}"),
		"epochs":         replace("12", "13"),
		"rate":           replace("1e-4", "2e-4"),
		"seed":           replace("[3]", "[4]"),
		"argument":       replace("channels: 16", "channels: 20"),
		"argument text":  replace("channels: 16", `channels: "16"`),
		"batch":          replace("epochs: 12", "epochs: 12\n  batch: {effective: 8}"),
	} {
		if got := parseModel(t, text).Spec().Digest(); got == want {
			t.Errorf("%s: another model, and the same digest", name)
		}
	}
	a := parseModel(t, replace("[circle, square]", "{circle: [a, b], square: [c]}"))
	b := parseModel(t, replace("[circle, square]", "{circle: [b, a], square: [c]}"))
	if a.Spec().Digest() != b.Spec().Digest() {
		t.Error("labels of a class are a set; their order moved the digest")
	}
}

// Every default is in the values, so that no reader needs to know one.
func TestDefaults(t *testing.T) {
	got := parseModel(t, model)
	want := delivery.Model{
		APIVersion: "aob/v1", Kind: "Model", Name: "m",
		Dataset: delivery.Dataset{Source: "dir", Path: "shapes"},
		Classes: delivery.Classes{{Name: "a", Labels: []string{"a"}}},
		Train: delivery.Train{
			With: "tiny@1", Architecture: "tiny", From: "none", Resolution: 256, Epochs: 30,
			Batch:     delivery.Batch{Effective: 16, Step: 16},
			Optimizer: delivery.Optimizer{Name: "adamw", LR: 0.002, Warmup: 1, Schedule: "cosine"},
			Precision: "fp32", Seeds: []int64{1},
			Machine: delivery.Machine{Terraform: "train-local", Limit: hours(8)},
		},
		Variants: []string{"fp32"},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(delivery.Model{})); diff != "" {
		t.Errorf("model (-want +got):\n%s", diff)
	}
	if got := parseModel(t, strings.Replace(model, "with: tiny@1", "with: tiny@1, batch: {effective: 6}",
		1)); got.Train.Batch.Step != 6 {
		t.Errorf("step is %d where only effective is given, want all of it, 6", got.Train.Batch.Step)
	}

	in, complaints := intent.Parse([]intent.File{
		file("models/m.yaml", model),
		file("gates/g.yaml", "apiVersion: aob/v1\nkind: Gate\nname: g\ncovers: [m]\nevaluate: {dataset: {dir: "+
			"d}}\nclasses: [a]\nchecks: [{metric: mAP, maxDrop: 0.1}]\n"),
		file("fleets/f.yaml", "apiVersion: aob/v1\nkind: Fleet\nname: f\nruns: m\nafter: {fleet: g}\nwindow: {from: "+
			"\"01:00\", to: \"02:00\"}\n"),
		file("fleets/g.yaml", "apiVersion: aob/v1\nkind: Fleet\nname: g\nruns: m\n"),
	}, builtIn(t))
	if len(complaints) > 0 {
		t.Fatal(complaints)
	}
	drop := 0.1
	gate := delivery.Gate{
		APIVersion: "aob/v1", Kind: "Gate", Name: "g", Covers: []string{"m"},
		Evaluate: delivery.EvalSet{Dataset: delivery.Dataset{Source: "dir", Path: "d"}, Split: "test"},
		Classes:  []string{"a"},
		Checks: []delivery.GateCheck{{Metric: "mAP", MaxDrop: &drop, Against: "release", Confidence: 0.95, Support: 1,
			Unsure: "review"}},
	}
	if diff := cmp.Diff(gate, in.Gates.Of("g"), cmpopts.IgnoreUnexported(delivery.Gate{})); diff != "" {
		t.Errorf("gate (-want +got):\n%s", diff)
	}
	fleet := delivery.Fleet{
		APIVersion: "aob/v1", Kind: "Fleet", Name: "f", Runs: "m", Variant: "fp32",
		Target: "cloud",
		After:  &delivery.After{Fleet: "g", Healthy: hours(1)},
		Waves:  []delivery.Wave{{Devices: 1}, {Share: 1}}, Soak: hours(0.5), Advance: "all-healthy",
		Window: &delivery.Window{Days: []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}, From: "01:00",
			To: "02:00", Zone: "UTC"},
	}
	if diff := cmp.Diff(fleet, in.Fleets.Of("f")); diff != "" {
		t.Errorf("fleet (-want +got):\n%s", diff)
	}
}

func hours(h float64) delivery.Duration { return delivery.Duration(h * 3600e9) }

// Defaults are made anew for each file; writing to one changes no other.
func TestDefaultsAreNotShared(t *testing.T) {
	a, b := parseModel(t, model), parseModel(t, model)
	a.Train.Seeds[0], a.Variants[0] = 99, "changed"
	if b.Train.Seeds[0] != 1 || b.Variants[0] != "fp32" {
		t.Errorf("another model's defaults changed too: %v %v", b.Train.Seeds, b.Variants)
	}
}
