package intent_test

import (
	"reflect"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
)

const editable = `# a model
apiVersion: aob/v1
kind: Model
name: pallets # its name
dataset: {dir: "shapes"}
classes: [pallet, 'fork lift']

train:
  with: tiny@1   # the CPU one
  epochs: 8
  optimizer: {lr: 1e-4, name: adamw}
  args:
    hflip: 0.5 # often
# the end
`

func TestSet(t *testing.T) {
	for _, c := range []struct{ sets, old, new string }{
		{"train.epochs=12", "  epochs: 8\n", "  epochs: 12\n"},
		{"train.optimizer.lr=2e-4", "{lr: 1e-4,", "{lr: 2e-4,"},
		{"train.args.hflip=0", "hflip: 0.5 # often", "hflip: 0 # often"},
		{"dataset.dir=gold", `{dir: "shapes"}`, "{dir: gold}"},
		{"classes=[pallet]", "[pallet, 'fork lift']", "[pallet]"},
		{"train.seeds=[1, 2]", "    hflip: 0.5 # often\n", "    hflip: 0.5 # often\n  seeds: [1, 2]\n"},
		{"train.optimizer.warmup=3", "name: adamw}", "name: adamw, warmup: 3}"},
		{"train.args.vflip=0.1", "hflip: 0.5 # often\n", "hflip: 0.5 # often\n    vflip: 0.1\n"},
		{"train.batch.effective=8", "    hflip: 0.5 # often\n", "    hflip: 0.5 # often\n  batch: {effective: 8}\n"},
		{"thresholds.default=bestF1", "    hflip: 0.5 # often\n",
			"    hflip: 0.5 # often\nthresholds: {default: bestF1}\n"},
		{"thresholds={default: {precision: 0.9}}", "    hflip: 0.5 # often\n",
			"    hflip: 0.5 # often\nthresholds: {default: {precision: 0.9}}\n"},
	} {
		path, value, _ := strings.Cut(c.sets, "=")
		got, err := intent.Set([]byte(editable), []intent.Assignment{{Path: path, Value: value}})
		if want := strings.Replace(editable, c.old, c.new, 1); err != nil || string(got) != want {
			t.Errorf("%s: %v\n%s", c.sets, err, got)
		}
	}
	for _, c := range []struct{ sets, file, want string }{
		{"train.epochs.more=1", editable, "train.epochs is not a map"},
		{"train..epochs=1", editable, "keys with dots"},
		{"train.epochs=a: b: c", editable, "one line"},
		{"train=8", editable, "several lines"},
		{"train.epochs=8", "[a]", "not a map"},
		{"train.epochs=8", "{a: &x 1, train: *x}", "not a map"},
	} {
		path, value, _ := strings.Cut(c.sets, "=")
		if got, err := intent.Set([]byte(c.file), []intent.Assignment{{Path: path, Value: value}}); err == nil ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q\n%s", c.sets, err, c.want, got)
		}
	}
}

// Whatever the file, Set changes what it was told to, or nothing.
func FuzzSet(f *testing.F) {
	f.Add(editable, "train.epochs", "12")
	f.Add("a: {b: [1, 'x]']}\n", "a.b", "[2]")
	f.Add("a: |\n  b\nc: 1", "d", "x")
	f.Fuzz(func(t *testing.T, file, path, value string) {
		got, err := intent.Set([]byte(file), []intent.Assignment{{Path: path, Value: value}})
		if err != nil {
			return
		}
		var v, have any
		if yaml.Unmarshal([]byte(value), &v) != nil || yaml.Unmarshal(got, &have) != nil {
			t.Fatalf("%q is no YAML any more", got)
		}
		for key := range strings.SplitSeq(path, ".") {
			m, ok := have.(map[string]any)
			if !ok {
				t.Fatalf("%q has no %s", got, path)
			}
			have = m[key]
		}
		if !reflect.DeepEqual(have, v) {
			t.Fatalf("%s is %v in %q, want %v", path, have, got, v)
		}
	})
}

func TestGrid(t *testing.T) {
	grid, err := intent.Grid([]string{"train.optimizer.lr=1e-4,2e-4", "train.seeds=1,2,3",
		"thresholds.default={precision: 0.9, x: 1},bestF1"})
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, row := range grid {
		var words []string
		for _, a := range row {
			words = append(words, a.String())
		}
		rows = append(rows, strings.Join(words, " "))
	}
	want := []string{
		"train.optimizer.lr=1e-4 train.seeds=[1, 2, 3] thresholds.default={precision: 0.9, x: 1}",
		"train.optimizer.lr=1e-4 train.seeds=[1, 2, 3] thresholds.default=bestF1",
		"train.optimizer.lr=2e-4 train.seeds=[1, 2, 3] thresholds.default={precision: 0.9, x: 1}",
		"train.optimizer.lr=2e-4 train.seeds=[1, 2, 3] thresholds.default=bestF1",
	}
	if !reflect.DeepEqual(rows, want) {
		t.Errorf("%s", strings.Join(rows, "\n"))
	}
	many := strings.Repeat("1,", 20) + "1"
	for _, wrong := range [][]string{{"train.epochs"}, {"=1"}, {"train.epochs="}, {"train.epochs=1,,2"}, {"a=1", "a=2"},
		{"a=" + many, "b=" + many}} {
		if _, err := intent.Grid(wrong); err == nil {
			t.Errorf("%v is a grid", wrong)
		}
	}
}

func TestSetClasses(t *testing.T) {
	labels := delivery.Labels{"a": {"a", "b c"}}
	for file, want := range map[string]string{
		"kind: Gate\nevaluate: {dataset: {dir: gold}} # gold\nchecks: []\n": "kind: Gate\nevaluate: {dataset: " +
			"{dir: gold}} # gold\nclasses: [a, \"no\"]\nlabels: {a: [a, b c]}\nchecks: []\n",
		"evaluate:\n  dataset: {dir: gold}\n\nlabels: {a: [x]}\n": "evaluate:\n  dataset: {dir: gold}\n" +
			"classes: [a, \"no\"]\n\nlabels: {a: [x]}\n",
		"classes: [z]\nevaluate: {}\n": "classes: [a, \"no\"]\nlabels: {a: [a, b c]}\nevaluate: {}\n",
	} {
		got, err := intent.SetClasses([]byte(file), []string{"a", "no"}, labels)
		if err != nil || string(got) != want {
			t.Errorf("%s\n%v\n%s", file, err, got)
		}
	}
}

func TestSetEvaluate(t *testing.T) {
	file := "kind: Gate\nevaluate: {dataset: {dir: gold/1}} # the gold set\nchecks: []\n"
	e := delivery.EvalSet{Dataset: delivery.Dataset{Source: "dir", Path: "gold/2"}, Split: "test", Group: "video",
		Content: delivery.Sum(nil)}
	got, err := intent.SetEvaluate([]byte(file), e)
	want := "kind: Gate\nevaluate: {dataset: {dir: gold/2}, split: test, group: video, content: \"" +
		string(delivery.Sum(nil)) + "\"} # the gold set\nchecks: []\n"
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s", err, got)
	}
}
