package e2e

import (
	"archive/zip"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	trainers "github.com/autonomos/aob/reconciler/trainer"
)

// packagedTrainer needs a package, leaves a checkpoint, and says what it started from.
const packagedTrainer = `import json, os, shutil, sys
from datetime import datetime, timezone
from pathlib import Path

import alpha

run = json.loads(Path(sys.argv[1]).read_bytes())
train, output = run["spec"]["train"], Path(run["output"])
start = {"none": lambda: "nothing", "base": lambda: Path(run["weights"]["file"]).read_text(),
         "release": lambda: Path(run["parent"]["checkpoint"]).read_text()}[train["from"]]()
(output / "checkpoint").write_text(f"seed {run['seed']} from {start}")
shutil.copy(Path(__file__).parent / "detector.onnx", output / "model.onnx")
(output / "train.json").write_text(json.dumps({"alpha": alpha.version, "start": start, "python": sys.prefix}))
status = {"phase": "done", "epoch": 1, "epochs": 1, "heartbeat": datetime.now(timezone.utc).isoformat()}
(output / ".part").write_text(json.dumps(status))
os.replace(output / ".part", output / "status.json")
`

const packagedDescription = `apiVersion: aob/v1
kind: Trainer
name: packed
versions: ["1.2"]
architectures: [small, large]
defaults: {resolution: 640, epochs: 1, batch: {effective: 1}, optimizer: {lr: 0.01}}
environment: {disk: 10MiB, python: {min: "3.8"}}
from: [none, weights, release]
licences: {large: PML-1.0}
`

// A trainer with packages of its own gets its environment from its first training. Later ones start from base weights,
// and from the checkpoint of the release, until that is gone. A model that was trained elsewhere is judged like others.
func TestTrainerWithPackages(t *testing.T) {
	n := findPrograms(t)
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	uv, err := trainers.Environments{Dir: filepath.Join(cache, "aob"), Python: python}.UV(t.Context(),
		func(trainers.Making) {})
	if err != nil {
		t.Skipf("uv cannot be installed here: %v", err)
	}
	w := newWorkshop(t, n, "packages", map[string]string{"README.md": "# What our devices run\n"})
	own := filepath.Join(w.dir, ".cache", "aob")
	folder := filepath.Dir(filepath.Dir(uv))
	if err := errors.Join(os.MkdirAll(own, 0o755), os.Mkdir(w.path("wheels"), 0o755),
		os.Symlink(folder, filepath.Join(own, filepath.Base(folder)))); err != nil {
		t.Fatal(err)
	}
	w.env = []string{"UV_OFFLINE=1", "UV_FIND_LINKS=" + w.path("wheels")}
	fixture, err := os.ReadFile(filepath.Join("..", "reconciler", "detect", "testdata", "detector.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	writeFiles(t, w.path("trainers", "packed"), map[string][]byte{"train.py": []byte(packagedTrainer),
		"trainer.yaml": []byte(packagedDescription), "detector.onnx": fixture,
		"versions/1.2/requirements.txt": []byte(alphaWheel(t, w.path("wheels")))})
	writeFiles(t, w.path("shapes"), colors(t))
	writeFiles(t, w.path("weights"), map[string][]byte{"base": []byte("base weights"), "onnx": fixture})
	if err := os.CopyFS(w.path("trainers", "import"), os.DirFS(filepath.Join("..", "trainers", "import"))); err != nil {
		t.Fatal(err)
	}
	w.start(t, func() string {
		return fmt.Sprintf(workshopConfiguration, w.address, w.counters, w.path("shapes"),
			filepath.Join(w.bin, "aob-detect"), w.library, w.terraform, python) + "trainers: trainers\n" +
			fmt.Sprintf("weights:\n  base: {file: weights/base, sha256: %x, licence: MIT}\n"+
				"  elsewhere: {file: weights/onnx, sha256: %x, licence: MIT}\n",
				sha256.Sum256([]byte("base weights")), sha256.Sum256(fixture))
	})
	with := func(train string) map[string]string {
		return map[string]string{"models/colors.yaml": "apiVersion: aob/v1\nkind: Model\nname: colors\n" +
			"dataset: {dir: shapes}\nclasses: [red, blue]\ntrain: {" + train + "}\n"}
	}
	model := func(seed int, train string) map[string]string {
		return with(fmt.Sprintf("with: packed@1.2, seeds: [%d], %s", seed, train))
	}
	first := model(1, "from: base")
	first["gates/any.yaml"] = `apiVersion: aob/v1
kind: Gate
name: any
covers: [colors]
classes: [red, blue]
evaluate: {dataset: {dir: shapes}, split: test}
checks:
  - {metric: size, max: 20MB}
`
	w.clone.push(t, "first", "colors: a first model", first)
	pr := w.green(t, "first")
	w.merge(t, pr)
	w.clone.push(t, "second", "colors: from the release", model(2, "from: release"))
	w.green(t, "second")
	checkpoint := delivery.Sum([]byte("seed 1 from base weights"))
	entries, err := os.ReadDir(filepath.Join(own, "environments"))
	if err != nil || len(entries) != 2 { // the lock beside it
		t.Errorf("the environments are %v, %v", entries, err)
	}
	kept, file := delivery.CheckpointName(checkpoint)
	if _, err := os.Stat(w.path("state", kept, file)); err != nil {
		t.Errorf("the first model's checkpoint: %v", err)
	}
	kept2, file := delivery.CheckpointName(delivery.Sum([]byte("seed 2 from seed 1 from base weights")))
	if _, err := os.Stat(w.path("state", kept2, file)); err != nil {
		t.Errorf("the second model did not start from the first: %v", err)
	}
	w.clone.push(t, "imported", "colors: as trained elsewhere", with("with: import@1, from: elsewhere"))
	if pr := w.green(t, "imported"); len(pr.Models) != 1 || pr.Models[0].Bundle == "" {
		t.Errorf("no bundle of the imported model: %+v", pr.Models)
	}
	for branch, c := range map[string]struct {
		files  map[string]string
		before func() error
		want   string
	}{
		"gone": {model(3, "from: release"), func() error { return os.RemoveAll(w.path("state", kept)) },
			"is missing; restore the folder " + kept},
		"changed": {model(4, "from: base"), func() error {
			return os.WriteFile(w.path("weights", "base"), []byte("others"), 0o600)
		}, "the file of the weights base was changed"},
		"unknown": {model(5, "from: other"), func() error { return nil }, "this server has no weights other"},
		"imported-slots": {with("with: import@1, from: elsewhere, args: {slots: [blue, red]}"),
			func() error { return nil }, "args.slots says"},
		"licence": {model(6, "architecture: large"), func() error { return nil },
			"architecture large is under the licence PML-1.0"},
	} {
		if err := c.before(); err != nil {
			t.Fatal(err)
		}
		w.clone.push(t, branch, "colors: "+branch, c.files)
		until(t, func() error {
			pr, err := w.pull(t.Context(), branch)
			if err == nil && (pr.State != delivery.CheckFailure || !strings.Contains(pr.Text, c.want)) {
				err = fmt.Errorf("%s is %s: %s; want %s", branch, pr.State, pr.Text, c.want)
			}
			return err
		})
	}
	w.close(t)
}

// alphaWheel writes a package of one module, and returns its lock file.
func alphaWheel(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "alpha-1.0-py3-none-any.whl")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	const info = "alpha-1.0.dist-info/"
	for _, file := range [][2]string{
		{"alpha.py", "version = 1\n"},
		{info + "METADATA", "Metadata-Version: 2.1\nName: alpha\nVersion: 1.0\n"},
		{info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		{info + "RECORD", "alpha.py,,\n" + info + "METADATA,,\n" + info + "WHEEL,,\n" + info + "RECORD,,\n"},
	} {
		out, err := z.Create(file[0])
		if err == nil {
			_, err = out.Write([]byte(file[1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("alpha==1.0 --hash=sha256:%x\n", sha256.Sum256(data))
}
