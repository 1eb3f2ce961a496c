package intent_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
)

// described is the shortest description of a trainer x with all defaults.
const described = `apiVersion: aob/v1
kind: Trainer
name: x
versions: ["1"]
architectures: [x-small, x-large]
defaults: {resolution: 640, epochs: 10, batch: {effective: 8}, optimizer: {lr: 0.1}}
resolution: {min: 320, max: 960, multipleOf: 64}
`

// A server's own trainer gives the defaults of the models that name it, and bounds them.
func TestTrainerOfAServer(t *testing.T) {
	trainers, err := intent.LoadTrainers(fstest.MapFS{
		"x/trainer.yaml": {Data: []byte(strings.Replace(described, `["1"]`, `["1", "3"]`, 1))},
		"bare/trainer.yaml": {Data: []byte(
			"apiVersion: aob/v1\nkind: Trainer\nname: bare\nversions: [\"1\"]\narchitectures: [b]\n")},
		"README.md": {}, "_cache/x": {}, ".git/x": {},
	})
	if err != nil {
		t.Fatal(err)
	}
	for train, want := range map[string]string{
		"{with: x@1}": "",
		"{with: x@3, architecture: x-large, resolution: 704, epochs: 3}": "",
		"{with: x@2}":                        `train.with: unknown trainer "x@2"; did you mean x@1? known: bare@1, `,
		"{with: x}":                          `train.with: want a trainer and its version, NAME@VERSION, got "x"`,
		"{with: x@1, architecture: tiny}":    `train.architecture: want x-small or x-large, got "tiny"`,
		"{with: x@1, resolution: 1024}":      "train.resolution: want 320 to 960, got 1024",
		"{with: x@1, resolution: 650}":       "train.resolution: want a multiple of 64, got 650",
		"{with: x@1, precision: amp}":        `train.precision: want fp32, got "amp"`,
		"{with: x@1, precision: bf16}":       `train.precision: "bf16" is not supported yet; want fp32 or amp`,
		"{with: x@1, from: release}":         `train.from: want none: trainer x@1 starts from nothing else; got`,
		"{with: x@1, from: m@3}":             `train.from: want none: trainer x@1 starts from nothing else; got`,
		"{with: x@1, from: coco}":            `train.from: want none: trainer x@1 starts from nothing else; got`,
		"{with: x@1, from: https://host/a}":  `train.from: want none, release, a version as in pallets@12, or the`,
		"{with: x@1, args: {a: 1}}":          `train.args.a: unknown argument "a"; none is known`,
		"{with: bare@1, resolution: 64}":     "train.epochs: missing; add it, since the trainer has no default for it",
		"{with: import}":                     `train.with: want a trainer and its version, NAME@VERSION, got "import"`,
		"{with: x@1, batch: {effective: 0}}": "train.batch.effective: want 1 to 4096, got 0",
	} {
		in, complaints := intent.Parse([]intent.File{file("models/m.yaml",
			"apiVersion: aob/v1\nkind: Model\nname: m\ndataset: {dir: d}\nclasses: [a]\ntrain: "+train+"\n")},
			intent.Options{Trainers: trainers})
		var got []string
		for _, c := range complaints {
			got = append(got, c.Path+": "+c.Text)
		}
		if text := strings.Join(got, "\n"); (text == "") != (want == "") || !strings.Contains(text, want) {
			t.Errorf("%s: got %q, want %q", train, text, want)
		}
		if train == "{with: x@1}" {
			m := in.Models.Of("m").Train
			if m.Architecture != "x-small" || m.Resolution != 640 || m.Epochs != 10 || m.Batch.Effective != 8 ||
				m.Batch.Step != 8 || m.Optimizer.LR != 0.1 || m.Optimizer.Warmup != 0 {
				t.Errorf("the trainer's defaults are not filled in: %+v", m)
			}
		}
	}
}

// A version has a schema and a lock file of its own.
func TestVersionsOfATrainer(t *testing.T) {
	const lock = "a==1.0 ; python_version < '3.12' \\\n    --hash=sha256:" +
		"7f83b1657ff1fc53b92dc18148a1d65dfc2d4b1fa3d677284addd200126d9069\n    # via b\nb[x]==2 --hash=sha256:" +
		"7f83b1657ff1fc53b92dc18148a1d65dfc2d4b1fa3d677284addd200126d9069\n"
	const schema = `{"type": "object", "additionalProperties": false, "properties": {"lr": {"type": ["number", "null"],
		"default": null}, "steps": {"type": "integer", "default": 4}, "name": {"type": "string"}}}`
	files := func() fstest.MapFS {
		return fstest.MapFS{
			"x/trainer.yaml": {Data: []byte(strings.Replace(described, `["1"]`, `["1", "2"]`, 1) +
				"environment: {disk: 8GiB, python: {max: \"3.13\"}}\nprecisions: [fp32, amp]\nfrom: [none, weights]\n" +
				"licences: {x-large: PML-1.0}\n")},
			"x/versions/1/requirements.txt": {Data: []byte(lock)}, "x/versions/1/schema.json": {Data: []byte(schema)},
			"x/versions/2/requirements.txt": {Data: []byte(lock + "# more\n")}, "x/versions/README.md": {},
			"x/schema.json": {Data: []byte(`{"type": "object"}`)},
			"x/versions/2/defaults.json": {Data: []byte(
				`{"a": {"grad_accum_steps": 4, "seed": null}, "b": {"seed": 3}}`)},
		}
	}
	trainers, err := intent.LoadTrainers(files())
	if err != nil {
		t.Fatal(err)
	}
	one, two := trainers["x@1"], trainers["x@2"]
	if two.Values["grad_accum_steps"] != 4.0 || two.Values["b.seed"] == nil || two.Values["seed"] != nil {
		t.Errorf("the package's defaults are %v", two.Values)
	}
	steps, lr := one.Values["steps"], one.Values["lr"]
	if _, hasLR := one.Values["lr"]; len(one.Values) != 2 || steps != 4.0 || lr != nil || !hasLR ||
		len(two.Values) != 3 {
		t.Errorf("defaults are %v and %v", one.Values, two.Values)
	}
	if one.Lock == "" || one.Lock == two.Lock || one.Environment.Python.Min != "3.10" ||
		one.Environment.Disk != 8<<30 || one.Licence("x-large") != "PML-1.0" || one.Licence("x-small") != "Apache-2.0" {
		t.Errorf("x@1 is %+v", one.Trainer)
	}
	for name, c := range map[string]struct {
		change func(fstest.MapFS)
		want   string
	}{
		"no lock": {func(f fstest.MapFS) { delete(f, "x/versions/2/requirements.txt") },
			"x/versions/2/requirements.txt: missing; environment: in trainer.yaml needs the packages of each version"},
		"a lock without environment": {func(f fstest.MapFS) { f["x/trainer.yaml"].Data = []byte(described) },
			`x/versions/2: is not one of the versions in x/trainer.yaml`},
		"no hash": {func(f fstest.MapFS) { f["x/versions/1/requirements.txt"].Data = []byte("\na==1.0\n") },
			"x/versions/1/requirements.txt:2:1: want a package with one version and hashes"},
		"an index with a password": {func(f fstest.MapFS) {
			f["x/versions/1/requirements.txt"].Data = []byte("--index-url https://me:hunter2@host/simple\n" + lock)
		}, "x/versions/1/requirements.txt:1:1: want a package with one version"},
		"an address": {func(f fstest.MapFS) {
			f["x/versions/1/requirements.txt"].Data = []byte("a @ https://me:hunter2@host/a.whl" +
				strings.TrimPrefix(lock, "a==1.0"))
		}, "x/versions/1/requirements.txt:1:1: want a package with one version"},
		"no package": {func(f fstest.MapFS) { f["x/versions/1/requirements.txt"].Data = []byte("# later\n") },
			"x/versions/1/requirements.txt: has no package"},
		"a folder that is a link": {func(f fstest.MapFS) {
			f["x/versions/1"] = &fstest.MapFile{Mode: os.ModeSymlink, Data: []byte("2")}
		}, "x/versions/1 is a symbolic link"},
		"defaults": {func(f fstest.MapFS) { f["x/versions/2/defaults.json"].Data = []byte(`{"a": 1}`) },
			"x/versions/2/defaults.json: want {GROUP: {OPTION: VALUE}}: "},
		"a schema": {func(f fstest.MapFS) { f["x/versions/1/schema.json"].Data = []byte(`{"type": "object",}`) },
			"x/versions/1/schema.json:1: "},
		"an unknown architecture": {func(f fstest.MapFS) {
			f["x/trainer.yaml"].Data = []byte(described + "licences: {x-huge: PML-1.0}\n")
		}, `licences.x-huge: unknown architecture "x-huge"; known: x-small, x-large`},
		"a size of an unknown architecture": {func(f fstest.MapFS) {
			f["x/trainer.yaml"].Data = []byte(described + "sizes: {x-huge: {resolution: 512}}\n")
		}, `sizes.x-huge: unknown architecture "x-huge"; known: x-small, x-large`},
		"a size that no model may have": {func(f fstest.MapFS) {
			f["x/trainer.yaml"].Data = []byte(described + "sizes: {x-small: {resolution: 500}}\n")
		}, "sizes.x-small.resolution: want a multiple of 64, as in resolution:, got 500"},
		"a size in a range that is none": {func(f fstest.MapFS) {
			f["x/trainer.yaml"].Data = []byte(strings.Replace(described, "multipleOf: 64", "multipleOf: 0", 1) +
				"sizes: {x-small: {resolution: 500}}\n")
		}, "resolution.multipleOf: want 1 to 2048, got 0"},
		"a range": {func(f fstest.MapFS) {
			f["x/trainer.yaml"].Data = []byte(described + "environment: {disk: 1GiB, python: {min: \"3.15\"}}\n")
		}, "environment.python.max: want at least min, 3.15, got 3.14"},
	} {
		f := files()
		c.change(f)
		_, err := intent.LoadTrainers(f)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}

// Nothing that a lock file holds may do worse than be refused.
func FuzzParseLock(f *testing.F) {
	f.Add([]byte("a==1 --hash=sha256:7f83b1657ff1fc53b92dc18148a1d65dfc2d4b1fa3d677284addd200126d9069"))
	f.Add([]byte("a==1 \\\n \\\n\\"))
	f.Add([]byte("--index-url https://me:secret@host"))
	f.Fuzz(func(t *testing.T, data []byte) {
		digest, complaints := intent.ParseLock("requirements.txt", data)
		if len(complaints) == 0 && (digest == "" || !strings.Contains(string(data), "--hash=sha256:")) {
			t.Errorf("taken without a hash: %q", data)
		}
	})
}

// A file that main accepted has the spec that it had, also where its trainer is gone.
func TestParseAccepted(t *testing.T) {
	trainers, err := intent.LoadTrainers(fstest.MapFS{"x/trainer.yaml": {Data: []byte(described)}})
	if err != nil {
		t.Fatal(err)
	}
	text := "apiVersion: aob/v1\nkind: Model\nname: m\ndataset: {dir: d}\nclasses: [a]\ntrain: {with: %}\n"
	cache := intent.NewCache(intent.Options{Trainers: trainers})
	f := file("models/m.yaml", strings.Replace(text, "%", "x@1", 1))
	now, complaints := cache.Parse([]intent.File{f})
	if len(complaints) > 0 {
		t.Fatal(complaints)
	}
	if got := cache.ParseAccepted(f).Value.(delivery.Model).SpecDigest(); got != now.Models.Of("m").SpecDigest() {
		t.Errorf("the spec of an accepted file is %s, want that of today, %s", got, now.Models.Of("m").SpecDigest())
	}
	gone := cache.ParseAccepted(file("models/m.yaml", strings.Replace(text, "%", "y@1", 1)))
	if m, ok := gone.Value.(delivery.Model); !ok || m.SpecDigest() == "" {
		t.Errorf("of a trainer that is gone: %v, %v", gone.Complaints(), gone.Value)
	}
}

// Each complaint about a trainer.yaml has its place.
func TestTrainerComplaints(t *testing.T) {
	change := func(old, with string) string {
		if !strings.Contains(described, old) {
			t.Fatalf("nothing to replace: %q", old)
		}
		return strings.Replace(described, old, with, 1)
	}
	for text, want := range map[string]string{
		"":                               "x/trainer.yaml: is empty",
		"a: &a [*a]":                     "x/trainer.yaml:1:4: a: anchors",
		strings.Repeat("a: [", 20_000):   "x/trainer.yaml: is too large",
		change("name: x", "name: y"):     `x/trainer.yaml:3:7: name: want "x", the folder's name, got "y"`,
		change(`["1"]`, "[1]"):           "x/trainer.yaml:4:12: versions[0]: want text, got 1; put it in quotes",
		change(`["1"]`, "[a, a]"):        "x/trainer.yaml:4:15: versions[1]: is the same as versions[0]",
		change(`["1"]`, "[]"):            "x/trainer.yaml:4:11: versions: is empty",
		change("epochs: 10", "epoch: 1"): "x/trainer.yaml:6:29: defaults.epoch: unknown key; did you mean epochs?",
		change("resolution: 640", "resolution: 641"): "x/trainer.yaml:6:24: defaults.resolution: want a " +
			"multiple of 64, as in resolution:, got 641",
		change("min: 320", "min: 1920"):        "x/trainer.yaml:7:30: resolution.max: want at least min, 1920, got 960",
		described + "accelerator: quantum\n":   `x/trainer.yaml:8:14: accelerator: want cpu or cuda, got "quantum"`,
		described + "secrets: [hunter2secret]": "x/trainer.yaml:8:11: secrets[0]: want the name of an environment",
	} {
		_, err := intent.LoadTrainers(fstest.MapFS{"x/trainer.yaml": {Data: []byte(text)}})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s\ngot  %v\nwant %s", text, err, want)
		}
	}
	if _, err := intent.LoadTrainers(fstest.MapFS{"x/train.py": {}}); err == nil ||
		!strings.Contains(err.Error(), "x/trainer.yaml: missing") {
		t.Errorf("without trainer.yaml: %v", err)
	}
}

// A link could lead to a file that the trainer's author may not read; complaints quote what they read.
func TestTrainersFolderHasNoLinks(t *testing.T) {
	for name, c := range map[string]struct {
		change func(in string) error
		want   string
	}{
		"the description": {func(in string) error {
			return os.Symlink("../../key", filepath.Join(in, "x", "trainer.yaml"))
		}, "x/trainer.yaml is a symbolic link or not a regular file"},
		"the arguments": {func(in string) error {
			return errors.Join(os.WriteFile(filepath.Join(in, "x", "trainer.yaml"), []byte(described), 0o600),
				os.Symlink("../../key", filepath.Join(in, "x", "schema.json")))
		}, "x/schema.json is a symbolic link or not a regular file"},
		"the folder": {func(in string) error { return os.Symlink("x", filepath.Join(in, "a")) },
			`"a" is a symbolic link; put the trainer's folder itself there`},
		"a name with dots": {func(in string) error { return os.Mkdir(filepath.Join(in, "..x"), 0o700) },
			`"..x": the name begins with two dots; rename it, or move it elsewhere`},
	} {
		dir := t.TempDir()
		in := filepath.Join(dir, "trainers")
		err := errors.Join(os.MkdirAll(filepath.Join(in, "x"), 0o700),
			os.WriteFile(filepath.Join(dir, "key"), []byte("hunter2: a password\n"), 0o600), c.change(in))
		if err != nil {
			t.Fatal(err)
		}
		_, err = intent.LoadTrainers(os.DirFS(in))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}

// Nothing that a trainer.yaml holds may do worse than be refused.
func FuzzParseTrainer(f *testing.F) {
	f.Add([]byte(described))
	f.Add([]byte("resolution: {multipleOf: 0}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, complaints := intent.ParseTrainer("x/trainer.yaml", "x", data)
		if len(complaints) == 0 && (got.Name != "x" || len(got.Versions) == 0 || got.Resolution.MultipleOf < 1) {
			t.Errorf("taken without what a trainer must have: %+v", got)
		}
	})
}

// The names that a model may start from are listed as they are written.
func TestUnknownWeights(t *testing.T) {
	trainers, err := intent.LoadTrainers(fstest.MapFS{"x/trainer.yaml": {Data: []byte(described +
		"from: [none, weights, release]\n")}})
	if err != nil {
		t.Fatal(err)
	}
	for known, want := range map[string]string{"": "known: none, release;", "small": "known: small, none, release;"} {
		_, complaints := intent.Parse([]intent.File{file("models/m.yaml", "apiVersion: aob/v1\nkind: Model\nname: m\n"+
			"dataset: {dir: d}\nclasses: [a]\ntrain: {with: x@1, from: large}\n")},
			intent.Options{Trainers: trainers, Weights: strings.Fields(known + " ")})
		if len(complaints) != 1 || !strings.Contains(complaints[0].Text, want) {
			t.Errorf("%q: %v, want %s", known, complaints, want)
		}
	}
}
