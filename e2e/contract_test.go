package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/intent"
	trainers "github.com/autonomos/aob/reconciler/trainer"
)

// TestTrainerContract runs each built-in trainer as trainers/tiny/README.md says that trainers are run. It needs no
// server. A trainer with packages of its own takes minutes, and is run where AOB_RFDETR=1 (make test-rfdetr).
func TestTrainerContract(t *testing.T) {
	n := findPrograms(t)
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../trainers")
	if err != nil {
		t.Fatal(err)
	}
	environments := trainers.Environments{Dir: filepath.Join(cache, "aob"), Python: python}
	installed, err := intent.LoadTrainers(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	environments.Fill(t.Context(), installed)
	small := map[string]map[string]any{
		"tiny@1": {"resolution": 64, "batch": map[string]any{"effective": 2, "step": 2},
			"args": map[string]any{"channels": 4}},
		"rfdetr@1.11.2": {"architecture": "rf-detr-nano", "resolution": 64,
			"batch": map[string]any{"effective": 2, "step": 2}},
	}
	data := t.TempDir()
	writeFiles(t, data, colors(t))
	fixture, err := os.ReadFile(filepath.Join("..", "reconciler", "detect", "testdata", "detector.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	weights := filepath.Join(data, "weights")
	writeFiles(t, data, map[string][]byte{"weights": fixture})
	start := map[string]any{"file": weights, "sha256": delivery.Sum(fixture).Hex()}
	for _, with := range slices.Sorted(maps.Keys(installed)) {
		name, _, _ := strings.Cut(with, "@")
		t.Run(name, func(t *testing.T) {
			one := installed[with]
			c := &contract{T: t, trainer: one, with: with, folder: filepath.Join(root, name), python: python,
				data: data, epochs: []int{1, 2, 3}, train: small[with], offline: withoutNetwork(),
				detector: detect.Detector{Library: n.library, Binary: filepath.Join(n.bin, "aob-detect")}}
			if !slices.Contains(one.From, delivery.StartNone) { // it trains nothing
				c.weights, c.epochs, c.train = start, nil, map[string]any{"from": "base", "epochs": 1}
			}
			if one.Environment != nil {
				if os.Getenv("AOB_RFDETR") == "" {
					t.Skip("takes minutes: AOB_RFDETR=1 runs it")
				}
				made, ok := environments.Find(*one.Runs)
				if !ok {
					t.Skipf("its packages are missing: bin/aob trainer install %s", with)
				}
				c.python = made.Python
			}
			c.run()
		})
	}
}

// withoutNetwork returns the command that takes the network away from another one; none where the machine forbids that.
func withoutNetwork() []string {
	command := []string{"unshare", "--user", "--map-root-user", "--net"}
	if exec.Command(command[0], append(command[1:], "true")...).Run() != nil {
		return nil
	}
	return command
}

// A contract is one trainer whose contract is tested.
type contract struct {
	*testing.T
	trainer  intent.Trainer
	with     string
	folder   string // of its files
	python   string
	data     string         // the dataset
	train    map[string]any // what makes a training small
	epochs   []int          // of a training; nil if it trains nothing
	weights  map[string]any // what it starts from; nil for nothing
	offline  []string
	detector detect.Detector
}

func (c *contract) run() {
	defer c.unchanged(c.files(c.folder))
	dir := c.TempDir()
	c.Run("refusals", func(t *testing.T) { c.in(t).refusals(filepath.Join(t.TempDir(), "out")) })
	done := filepath.Join(dir, "done")
	if !c.Run("a whole run", func(t *testing.T) { c.in(t).whole(done) }) {
		return
	}
	c.Run("a start after the end", func(t *testing.T) { c.in(t).again(done) })
	c.Run("variants", func(t *testing.T) { c.in(t).variants(dir, done) })
	if c.epochs == nil {
		return
	}
	c.Run("killed and stopped", func(t *testing.T) { c.in(t).killed(filepath.Join(dir, "killed"), done) })
	if slices.Contains(c.trainer.From, delivery.StartRelease) {
		c.Run("from a checkpoint", func(t *testing.T) { c.in(t).child(filepath.Join(dir, "child"), done) })
	}
}

// unchanged checks that the trainer has not written into its own folder.
func (c *contract) unchanged(before map[string]string) {
	if after := c.files(c.folder); !maps.Equal(before, after) {
		c.Errorf("the trainer changed its own folder, of which AOB takes a digest: %v, was %v", after, before)
	}
}

func (c *contract) in(t *testing.T) *contract {
	inner := *c
	inner.T = t
	return &inner
}

// document is the run.json of a small training.
func (c *contract) document(output string) map[string]any {
	train := map[string]any{"with": c.with, "architecture": c.trainer.Architectures[0], "from": "none",
		"epochs": len(c.epochs), "precision": "fp32", "earlyStopping": map[string]any{"patience": 0},
		"optimizer": map[string]any{"name": "adamw", "lr": 0.001, "warmup": 0, "schedule": "cosine"}}
	maps.Copy(train, c.train)
	d := map[string]any{"key": "sha256:" + strings.Repeat("0", 64), "seed": 7, "dataset": c.data, "output": output,
		"spec": map[string]any{"classes": []string{"blue", "red"}, "train": train}} // not in the order of the dataset
	if c.weights != nil {
		d["weights"] = c.weights
	}
	return d
}

// command is the trainer as a process, without a network where possible.
func (c *contract) command(document any) (*exec.Cmd, *bytes.Buffer) {
	c.Helper()
	file := filepath.Join(c.TempDir(), "run.json")
	data, err := json.Marshal(document)
	if err == nil {
		err = os.WriteFile(file, data, 0o600)
	}
	if err != nil {
		c.Fatal(err)
	}
	argv := append(slices.Clone(c.offline), c.python, filepath.Join(c.folder, "train.py"), file)
	ctx, cancel := context.WithCancel(context.Background())
	c.Cleanup(cancel)
	if end, ok := c.Deadline(); ok { // of all tests: how long a training takes depends on what else the machine does
		ctx, cancel = context.WithDeadline(ctx, end.Add(-time.Minute))
		c.Cleanup(cancel)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = c.TempDir()
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + cmd.Dir, "LANG=C.UTF-8", "OMP_NUM_THREADS=1"}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	return cmd, &errs
}

// start runs the trainer to its end, and returns its exit status and standard error.
func (c *contract) start(document any) (int, string) {
	c.Helper()
	cmd, errs := c.command(document)
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		c.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), errs.String()
}

// files lists the files of a folder, with sizes and times.
func (c *contract) files(dir string) map[string]string {
	c.Helper()
	list := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			list[strings.TrimPrefix(path, dir)] = fmt.Sprint(info.Size(), info.ModTime())
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.Fatal(err)
	}
	return list
}

func (c *contract) status(output string) delivery.RunStatus {
	c.Helper()
	data, err := os.ReadFile(filepath.Join(output, "status.json"))
	if err != nil {
		c.Fatal(err)
	}
	s, err := delivery.ParseRunStatus(data, delivery.Mask{})
	if err != nil {
		c.Fatal(err)
	}
	return s
}

// metrics lists the epochs in metrics.jsonl.
func (c *contract) metrics(output string) (list []int) {
	c.Helper()
	data, err := os.ReadFile(filepath.Join(output, "metrics.jsonl"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		var row struct{ Epoch int }
		if err := json.Unmarshal(line, &row); err != nil {
			c.Fatalf("metrics.jsonl: %q: %v", line, err)
		}
		list = append(list, row.Epoch)
	}
	return list
}

// refusals: what a trainer cannot do is one line that names it, before anything is written.
func (c *contract) refusals(output string) {
	spec := func(d map[string]any) map[string]any { return d["spec"].(map[string]any) }
	train := func(d map[string]any) map[string]any { return spec(d)["train"].(map[string]any) }
	for want, change := range map[string]func(map[string]any){
		"seed":            func(d map[string]any) { d["seed"] = -1 },
		"surprise":        func(d map[string]any) { d["surprise"] = 1 },
		"classes":         func(d map[string]any) { spec(d)["classes"] = []string{} },
		"with":            func(d map[string]any) { train(d)["with"] = "other@9" },
		"epochs":          func(d map[string]any) { train(d)["epochs"] = 0 },
		"nothingLikeThis": func(d map[string]any) { train(d)["args"] = map[string]any{"nothingLikeThis": 1} },
		"from": func(d map[string]any) { // without a file to start from
			train(d)["from"] = "release"
			delete(d, "weights")
		},
	} {
		d := c.document(output)
		change(d)
		code, said := c.start(d)
		if code != 1 || !strings.HasPrefix(said, "error: ") || strings.Count(said, "\n") != 1 ||
			!strings.Contains(said, want) {
			c.Errorf("%s: exit status %d, %q", want, code, said)
		}
		if left := c.files(output); len(left) > 0 {
			c.Errorf("%s: it wrote %v", want, left)
		}
	}
}

// whole: a run to its end leaves what AOB reads, and a model that it takes.
func (c *contract) whole(output string) {
	if code, said := c.start(c.document(output)); code != 0 {
		c.Fatalf("exit status %d: %s", code, said)
	}
	if s := c.status(output); s.Phase != "done" || s.Epoch != len(c.epochs) || s.Epochs != len(c.epochs) ||
		time.Since(s.Heartbeat) > time.Hour {
		c.Errorf("the last status is %+v", s)
	}
	if got := c.metrics(output); !slices.Equal(got, c.epochs) {
		c.Errorf("metrics.jsonl has the epochs %v", got)
	}
	names := []string{"model.onnx", "train.json", "log.txt"}
	if slices.Contains(c.trainer.From, delivery.StartRelease) {
		names = append(names, "checkpoint")
	}
	for _, name := range names {
		info, err := os.Lstat(filepath.Join(output, name))
		if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
			c.Errorf("%s: %v", name, err)
		}
	}
	about, err := os.ReadFile(filepath.Join(output, "train.json"))
	if err != nil || !json.Valid(about) || len(about) > 64<<10 {
		c.Errorf("train.json has %d bytes of %.60q, %v", len(about), about, err)
	}
	signature, golden, err := c.detector.Inspect(c.Context(), filepath.Join(output, "model.onnx"))
	if err != nil {
		c.Fatal(err)
	}
	if _, err := golden.MarshalBinary(); err != nil {
		c.Error(err)
	}
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join("..", "schemas", "signature.json"))
	if err != nil {
		c.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(delivery.Canonical(signature)))
	if err == nil {
		err = schema.Validate(document)
	}
	if err != nil {
		c.Errorf("the signature of its model is not as schemas/signature.json says: %v", err)
	}
	for _, class := range []string{"red", "blue"} {
		if !slices.Contains(signature.Slots, class) {
			c.Errorf("the model has no class %s: %q", class, signature.Slots)
		}
	}
}

// again: a start after the end changes nothing, and neither does one of another run in the same folder.
func (c *contract) again(output string) {
	before := c.files(output)
	if code, said := c.start(c.document(output)); code != 0 {
		c.Errorf("the same run: exit status %d, %q", code, said)
	}
	other := c.document(output)
	other["seed"] = 8
	if code, said := c.start(other); code != 1 || !strings.HasPrefix(said, "error: ") {
		c.Errorf("another run: exit status %d, %q", code, said)
	}
	if after := c.files(output); !maps.Equal(before, after) {
		c.Errorf("the files are %v, and were %v", after, before)
	}
}

// killed: a run that is killed, and then stopped, goes on where it was, and gives the same model.
func (c *contract) killed(output, whole string) {
	for _, end := range []struct {
		signal syscall.Signal
		epochs int // that must be over before
	}{{syscall.SIGKILL, 1}, {syscall.SIGTERM, 1}} {
		cmd, errs := c.command(c.document(output))
		if err := cmd.Start(); err != nil {
			c.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		tick := time.NewTicker(20 * time.Millisecond)
		for len(c.metrics(output)) < end.epochs || !c.training(output) {
			select {
			case err := <-ended:
				c.Fatalf("it ended before it was to be stopped: %v: %s", err, errs)
			case <-tick.C:
			}
		}
		tick.Stop()
		if err := cmd.Process.Signal(end.signal); err != nil {
			c.Fatal(err)
		}
		<-ended
		how := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if stopped := how.ExitStatus() == 128+int(syscall.SIGTERM); end.signal == syscall.SIGTERM && !stopped {
			c.Errorf("after SIGTERM the exit status is %d: %s", how.ExitStatus(), errs)
		}
		if err := os.Remove(filepath.Join(output, "status.json")); err != nil { // as AOB does before each start
			c.Fatal(err)
		}
	}
	if code, said := c.start(c.document(output)); code != 0 {
		c.Fatalf("exit status %d: %s", code, said)
	}
	if got := c.metrics(output); !slices.Equal(got, c.epochs) || c.status(output).Phase != "done" {
		c.Errorf("metrics.jsonl has the epochs %v, and the status is %+v", got, c.status(output))
	}
	var models [2][]byte
	for i, dir := range []string{whole, output} {
		data, err := os.ReadFile(filepath.Join(dir, "model.onnx"))
		if err != nil {
			c.Fatal(err)
		}
		models[i] = data
	}
	if !bytes.Equal(models[0], models[1]) {
		c.Error("the model is not that of an uninterrupted run")
	}
}

// training reports whether the status says that the trainer trains.
func (c *contract) training(output string) bool {
	data, err := os.ReadFile(filepath.Join(output, "status.json"))
	if err != nil {
		return false
	}
	s, err := delivery.ParseRunStatus(data, delivery.Mask{})
	return err == nil && s.Phase == "training"
}

// child: a training starts from the checkpoint that another one left.
func (c *contract) child(output, parent string) {
	d := c.document(output)
	train := d["spec"].(map[string]any)["train"].(map[string]any)
	train["from"], train["epochs"] = "release", 1
	d["parent"] = map[string]any{"checkpoint": filepath.Join(parent, "checkpoint"), "bundle": "sha256:1"}
	before := c.files(parent)
	if code, said := c.start(d); code != 0 || c.status(output).Phase != "done" {
		c.Fatalf("exit status %d: %s", code, said)
	}
	if after := c.files(parent); !maps.Equal(before, after) {
		c.Errorf("it changed the run that it started from: %v, was %v", after, before)
	}
}

// variants: the variants that the trainer names are made of a model, the same each time, and no others.
func (c *contract) variants(dir, whole string) {
	model := filepath.Join(whole, "model.onnx")
	document := func(name, output, model string) map[string]any {
		d := c.document(filepath.Join(dir, output))
		if c.weights == nil { // a variant does not start from anything
			d["spec"].(map[string]any)["train"].(map[string]any)["from"] = "release"
		}
		d["variant"] = map[string]any{"name": name, "model": model, "checkpoint": filepath.Join(whole, "checkpoint")}
		return d
	}
	refuses := func(why string, d map[string]any) {
		if code, said := c.start(d); code != 1 || !strings.HasPrefix(said, "error: ") ||
			strings.Count(said, "\n") != 1 {
			c.Errorf("%s: exit status %d, %q", why, code, said)
		}
	}
	for _, name := range []string{"fp16", "int8", "fp32"} {
		if !slices.Contains(c.trainer.Variants, name) {
			refuses("a variant that it does not make", document(name, "no-"+name, model))
		}
	}
	want, _, err := c.detector.Inspect(c.Context(), model)
	if err != nil {
		c.Fatal(err)
	}
	size, before := fileSize(c.T, model), c.files(whole)
	for _, name := range c.trainer.Variants {
		var made [2][]byte
		for i, output := range []string{name, name + "-again"} {
			output := filepath.Join(dir, output)
			if code, said := c.start(document(name, filepath.Base(output), model)); code != 0 {
				c.Fatalf("%s: exit status %d: %s", name, code, said)
			}
			if s := c.status(output); s.Phase != "done" {
				c.Errorf("%s: the last status is %+v", name, s)
			}
			for _, file := range []string{"variant.json", "train.json"} {
				about, err := os.ReadFile(filepath.Join(output, file))
				if err != nil || !json.Valid(about) || len(about) > 64<<10 {
					c.Errorf("%s: %s has %d bytes of %.60q, %v", name, file, len(about), about, err)
				}
			}
			if made[i], err = os.ReadFile(filepath.Join(output, "model.onnx")); err != nil {
				c.Fatal(err)
			}
		}
		if !bytes.Equal(made[0], made[1]) {
			c.Errorf("%s: made twice, it is not the same", name)
		}
		if got := int64(len(made[0])); got > size*6/10 {
			c.Errorf("%s has %d bytes, and the model %d", name, got, size)
		}
		got, _, err := c.detector.Inspect(c.Context(), filepath.Join(dir, name, "model.onnx"))
		if err != nil {
			c.Fatal(err)
		}
		if got.Digest() != want.Digest() {
			c.Errorf("%s has another signature than the model: %+v, want %+v", name, got, want)
		}
		files := c.files(filepath.Join(dir, name))
		if code, said := c.start(document(name, name, model)); code != 0 {
			c.Errorf("%s, after the end: exit status %d, %q", name, code, said)
		}
		if after := c.files(filepath.Join(dir, name)); !maps.Equal(files, after) {
			c.Errorf("%s, after the end: the files are %v, and were %v", name, after, files)
		}
		refuses("no model", document(name, "bad-"+name, filepath.Join(c.folder, "train.py")))
	}
	if after := c.files(whole); !maps.Equal(before, after) {
		c.Errorf("it changed the run that it was made of: %v, was %v", after, before)
	}
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
