package terraform

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/trainer"
)

// The test binary is also the aob program that the module calls, and the runner
// that the tests kill.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		var err error
		switch os.Args[1] {
		case "launch":
			err = Launch(os.Args[2])
		case "train":
			err = trainAsRunner(os.Args[2])
		case "train-on-aws":
			err = trainOnAWS(context.Background(), os.Args[2])
		default:
			os.Exit(run(m))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(run(m))
}

// run runs the tests, more of them at once than there are processors: most of them wait for processes.
func run(m *testing.M) int {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if err := f.Value.Set(strconv.Itoa(4 + runtime.GOMAXPROCS(0))); err != nil {
			panic(err)
		}
	}
	defer func() {
		for _, dir := range mirrors {
			os.RemoveAll(dir)
		}
	}()
	return m.Run()
}

// A job is what a runner process of the tests is told.
type job struct {
	Terraform, Dir, Python, Script string
	Epochs                         int
	Seconds                        float64
}

func trainAsRunner(file string) error {
	var j job
	if err := durable.ReadJSON(file, &j); err != nil {
		return err
	}
	aob, err := os.Executable()
	if err != nil {
		return err
	}
	t := &Trainer{Terraform: j.Terraform, Module: os.DirFS(moduleDir), AOB: aob, Machine: Local{AOB: aob}}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	trained, err := t.Train(ctx, trainer.Request{
		Dir: j.Dir, Python: j.Python, Script: j.Script, Heartbeat: 30 * time.Second, Grace: 10 * time.Second,
		RunJSON: task(map[string]any{"output": filepath.Join(j.Dir, outputDir), "epochs": j.Epochs,
			"seconds": j.Seconds}),
		Stage: func(s string) error { _, err := fmt.Println(s); return err },
	})
	if err == nil {
		fmt.Println("trained", trained.Attempts)
	}
	return err
}

// task returns a request's RunJSON, with the output where it is on the trainer's machine.
func task(run map[string]any) func(func(string) string) any {
	return func(place func(string) string) any {
		run := maps.Clone(run)
		run["output"] = place(run["output"].(string))
		return run
	}
}

const moduleDir = "../../infra/terraform/train-local"

// setup returns a trainer with the real terraform, and a request for the trainer
// of testdata in a new folder.
func setup(t *testing.T, run map[string]any) (*Trainer, trainer.Request) {
	t.Helper()
	terraform := program(t)
	python, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		t.Skip("no python3 on PATH: install it to run this test")
	}
	aob, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("testdata/train.py")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run["output"] = filepath.Join(dir, outputDir)
	if run["epochs"] == nil {
		run["epochs"] = 5
	}
	t.Cleanup(func() { noStrays(t, dir) })
	local := &Trainer{Terraform: terraform, Module: os.DirFS(moduleDir), AOB: aob, Machine: Local{AOB: aob}}
	return local, trainer.Request{
		Dir: dir, RunJSON: task(run), Python: strings.TrimSpace(string(python)), Script: script,
		Heartbeat: 20 * time.Second, Grace: 10 * time.Second,
	}
}

// noStrays fails the test if a process that was launched for the run is left.
func noStrays(t *testing.T, dir string) {
	t.Helper()
	list, err := attempts(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		left, err := marked(a.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range left {
			cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
			t.Errorf("left running: %d %q", p.PID, cmd)
			p.Signal(syscall.SIGKILL)
		}
		if !a.settled {
			t.Errorf("%s is not settled", a.dir)
		}
	}
}

// endless is more epochs than any test waits for; enough ends them.
const endless = 1_000_000

func enough(req trainer.Request) error {
	return os.WriteFile(filepath.Join(req.Dir, outputDir, "enough"), nil, 0o600)
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func TestTrain(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	trainer, req := setup(t, map[string]any{})
	t.Setenv("AOB_SECRET", "hunter2")
	req.Env = []string{"OMP_NUM_THREADS=1"}
	var stages []string
	req.Stage = func(s string) error { stages = append(stages, s); return nil }
	var last delivery.RunStatus
	req.Progress = func(s delivery.RunStatus) error { last = s; return nil }

	trained, err := trainer.Train(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if trained.Attempts != 1 || trained.Status.Phase != "done" || trained.Output != filepath.Join(req.Dir, "output") {
		t.Errorf("trained = %+v", trained)
	}
	if last.Phase != "done" || last.Epoch != 5 {
		t.Errorf("last progress = %+v, want done at epoch 5", last)
	}
	if got, want := strings.Join(stages, " "), "plan apply training destroy"; got != want {
		t.Errorf("stages %q, want %q", got, want)
	}

	first := filepath.Join(req.Dir, "attempts", "1")
	var environment map[string]string
	_, text, _ := strings.Cut(lines(t, filepath.Join(first, trainerLog))[0], " ")
	if err := json.Unmarshal([]byte(text), &environment); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"PATH": path, "HOME": first, "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1",
		markVariable: first}
	for k, v := range want {
		if environment[k] != v {
			t.Errorf("trainer's %s = %q, want %q", k, environment[k], v)
		}
		delete(environment, k)
	}
	if len(environment) > 0 {
		t.Errorf("the trainer got more of the environment: %v", environment)
	}
	if info, err := os.Stat(filepath.Join(first, stackFolder, varsFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v %v, want mode 0600", varsFile, info.Mode(), err)
	}

	// Once done it is never trained again, and says the same.
	again, err := trainer.Train(t.Context(), req)
	if err != nil || again.Attempts != 1 || again.Status.Phase != "done" {
		t.Errorf("the second time: %+v, %v", again, err)
	}
	if n := len(lines(t, filepath.Join(trained.Output, "completions"))); n != 1 {
		t.Errorf("trained to completion %d times", n)
	}
}

// What a bad trainer gets: the error, whether another attempt is to be made, and
// nothing left running.
func TestTrainerMisbehaves(t *testing.T) {
	t.Parallel()
	tests := []struct {
		mode      string
		heartbeat time.Duration
		limit     time.Duration
		blocked   bool
		want      string
	}{
		{mode: "fail", blocked: true,
			want: "the trainer failed: loss is NaN[2J at epoch 1; fix the cause"},
		{mode: "refuse", blocked: true, want: "the trainer failed: error: run.json: seed: must be a whole number"},
		{mode: "crash", want: "ended unfinished with exit status 3 at epoch 0 of 5: Traceback: no module named torch"},
		{mode: "killed", want: "the trainer was killed at epoch 0 of 5; the machine may be short of memory"},
		{mode: "empty", blocked: true, want: "the trainer is done but wrote no model.onnx"},
		{mode: "hang", heartbeat: time.Second, want: "the trainer hangs: no heartbeat for"},
		{mode: "child", heartbeat: time.Second, want: "the trainer hangs: no heartbeat for"},
		{mode: "stubborn", heartbeat: time.Second, want: "the trainer hangs: no heartbeat for"},
		{mode: "corrupt", heartbeat: 5 * time.Second, want: "status.json: invalid character"},
		{mode: "hang", limit: time.Second, blocked: true, want: "the training took longer than its limit of 1s"},
	}
	for _, test := range tests {
		t.Run(test.mode, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			trainer, req := setup(t, map[string]any{"mode": test.mode})
			if test.heartbeat > 0 {
				req.Heartbeat = test.heartbeat
			}
			req.Limit, req.Grace = test.limit, time.Second
			_, err := trainer.Train(t.Context(), req)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v, want it to hold %q", err, test.want)
			}
			if _, blocked := errors.AsType[delivery.Blocked](err); blocked != test.blocked {
				t.Errorf("blocked = %t, want %t: %v", blocked, test.blocked, err)
			}
		})
	}
}

// What a trainer prints and reports is masked: a traceback often has an address with a token.
func TestSecretsAreMaskedInErrors(t *testing.T) {
	for mode, want := range map[string]string{
		"tells": "the trainer failed: 401 for https://hub/x?token=***",
		"leaks": "exit status 3 at epoch 0 of 5: Traceback: 401 for https://hub/x?token=***",
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			local, req := setup(t, map[string]any{"mode": mode})
			req.Secrets = map[string]string{"HF_TOKEN": "hf_S3cr3tS3cr3t"}
			_, err := local.Train(t.Context(), req)
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "S3cr3t") {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

// The limit counts what former attempts used up.
func TestLimitOverAttempts(t *testing.T) {
	t.Parallel()
	trainer, req := setup(t, map[string]any{"epochs": endless})
	ctx, cancel := context.WithCancel(t.Context())
	req.Progress = func(s delivery.RunStatus) error {
		if s.Epoch > 10 {
			cancel()
		}
		return nil
	}
	if _, err := trainer.Train(ctx, req); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	list, err := attempts(req.Dir)
	if err != nil || len(list) != 1 || list[0].spent < 300*time.Millisecond {
		t.Fatalf("attempts %+v, %v: want one that ran for at least 10 epochs of 30 ms", list[0], err)
	}
	req.Limit = list[0].spent
	req.Progress = nil
	if _, err := trainer.Train(t.Context(), req); err == nil ||
		!strings.Contains(err.Error(), "longer than its limit") {
		t.Fatalf("error %v, want the limit's", err)
	}
}

func TestInterruptedTrainingGoesOn(t *testing.T) {
	t.Parallel()
	trainer, req := setup(t, map[string]any{"epochs": endless})
	ctx, cancel := context.WithCancel(t.Context())
	req.Progress = func(s delivery.RunStatus) error {
		if s.Epoch >= 3 {
			cancel()
		}
		return nil
	}
	if _, err := trainer.Train(ctx, req); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want the context's", err)
	}
	output := filepath.Join(req.Dir, outputDir)
	if _, err := os.Stat(filepath.Join(output, "stopped")); err != nil {
		t.Errorf("the trainer was not given the time to write its checkpoint: %v", err)
	}
	noStrays(t, req.Dir)

	var first int
	req.Progress = func(s delivery.RunStatus) error {
		if first == 0 {
			first = s.Epoch
		}
		return enough(req)
	}
	trained, err := trainer.Train(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if trained.Attempts != 2 || first < 3 {
		t.Errorf("attempts %d, first epoch seen %d: want it resumed in attempt 2", trained.Attempts, first)
	}
}

func TestSignalledRunnerCleansUp(t *testing.T) {
	for _, stage := range []string{"plan", "apply", "training"} {
		t.Run(stage, func(t *testing.T) {
			t.Parallel()
			trainer, req := setup(t, map[string]any{})
			r := startRunner(t, trainer, req, endless)
			r.await(t, stage)
			if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			r.await(t, "destroy")
			for r.stages.Scan() {
			}
			if err := r.cmd.Wait(); err == nil ||
				!strings.Contains(r.errs.String(), "interrupted: terminated signal received") {
				t.Errorf("%v: %s", err, r.errs)
			}
		})
	}
}

// A context that has ended before is how a run is cleaned up that nobody wants
// any more: whatever an earlier runner left must be gone.
func TestEndedBeforeCleansUp(t *testing.T) {
	t.Parallel()
	trainer, req := setup(t, map[string]any{"epochs": endless})
	runner := startRunner(t, trainer, req, endless)
	runner.await(t, "training")
	runner.kill(t)
	if left, _ := marked(filepath.Join(req.Dir, "attempts", "1")); len(left) == 0 {
		t.Fatal("the trainer is gone with its runner: this test shows nothing")
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	because := errors.New("the pull request was closed")
	cancel(because)
	if _, err := trainer.Train(ctx, req); !errors.Is(err, because) {
		t.Fatalf("error %v, want the cause", err)
	}
	noStrays(t, req.Dir)
}

func TestStageErrorEndsTraining(t *testing.T) {
	for _, stage := range []string{"plan", "apply", "training", "destroy"} {
		t.Run(stage, func(t *testing.T) {
			t.Parallel()
			trainer, req := setup(t, map[string]any{"epochs": 3})
			full := &fs.PathError{Op: "write", Path: "journal.jsonl", Err: syscall.ENOSPC}
			req.Stage = func(s string) error {
				if s == stage {
					return full
				}
				return nil
			}
			if _, err := trainer.Train(t.Context(), req); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("error %v, want that of the disk", err)
			}
		})
	}
}

// An output folder that cannot be written stands for a full disk.
func TestUnwritableFolder(t *testing.T) {
	trainer, req := setup(t, map[string]any{})
	if err := os.WriteFile(filepath.Join(req.Dir, "attempts"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := trainer.Train(t.Context(), req)
	if err == nil || !strings.Contains(err.Error(), filepath.Join(req.Dir, "attempts")) {
		t.Fatalf("error %v, want one that names the folder", err)
	}
	if err := os.Remove(filepath.Join(req.Dir, "attempts")); err != nil {
		t.Fatal(err)
	}
}

func TestMissingPrograms(t *testing.T) {
	tests := []struct {
		name string
		edit func(*Trainer, *trainer.Request)
		want string
	}{
		{"terraform", func(t *Trainer, r *trainer.Request) { t.Terraform = "/nonexistent/terraform" },
			"no terraform program"},
		{"python", func(t *Trainer, r *trainer.Request) { r.Python = "python3" }, `no python at "python3"`},
		{"script", func(t *Trainer, r *trainer.Request) { r.Script = "/nonexistent/train.py" }, "no trainer at"},
		{"aob", func(t *Trainer, r *trainer.Request) { t.Machine = Local{} }, "no aob program at"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			trainer, req := setup(t, map[string]any{})
			test.edit(trainer, &req)
			_, err := trainer.Train(t.Context(), req)
			blocked, ok := errors.AsType[delivery.Blocked](err)
			if !ok || !strings.Contains(err.Error(), test.want) || blocked.Do == "" {
				t.Fatalf("error %v, want a Blocked one that holds %q and says what to do", err, test.want)
			}
			if list, _ := attempts(req.Dir); len(list) > 0 {
				t.Error("an attempt was begun")
			}
		})
	}
}

// A runner is a process of its own that trains, to be killed.
type runner struct {
	cmd    *exec.Cmd
	stages *bufio.Scanner
	errs   *bytes.Buffer
}

func startRunner(t *testing.T, trainer *Trainer, req trainer.Request, epochs int) *runner {
	t.Helper()
	data, err := json.Marshal(job{Terraform: trainer.Terraform, Dir: req.Dir, Python: req.Python, Script: req.Script,
		Epochs: epochs, Seconds: 0.03})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(req.Dir, "job.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	r := &runner{cmd: exec.Command(trainer.AOB, "train", file), errs: &bytes.Buffer{}}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stderr = r.errs
	r.stages = bufio.NewScanner(out)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *runner) await(t *testing.T, stage string) {
	t.Helper()
	for r.stages.Scan() {
		if r.stages.Text() == stage {
			return
		}
	}
	r.cmd.Wait()
	t.Fatalf("the runner ended before stage %s: %s", stage, r.errs)
}

func (r *runner) kill(t *testing.T) {
	t.Helper()
	if err := r.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	r.cmd.Wait()
}

// Whatever moment a runner or its terraform is killed at, the next runner goes
// on, the model is trained to its end once, no epoch is trained by two at a time,
// and no process stays.
func TestKilledAtAnyMoment(t *testing.T) {
	if testing.Short() {
		killAtAnyMoment(t, 0, 5)
		return
	}
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel() // most of it is waiting
			killAtAnyMoment(t, seed, 5)
		})
	}
}

func killAtAnyMoment(t *testing.T, seed uint64, kills int) {
	random := rand.New(rand.NewPCG(1, seed))
	const epochs = 40
	for done := 0; done < kills; {
		trainer, req := setup(t, map[string]any{})
		for {
			r := startRunner(t, trainer, req, epochs)
			ended := make(chan error, 1)
			go func() {
				for r.stages.Scan() {
				}
				ended <- r.cmd.Wait()
			}()
			// Between the start of the process and the end of its training.
			moment := time.Duration(random.Float64() * float64(1500*time.Millisecond))
			victim := random.IntN(3)
			if done >= kills {
				moment = time.Hour
			}
			select {
			case err := <-ended:
				if err == nil {
					goto trained
				}
				if !strings.Contains(r.errs.String(), "terraform") {
					t.Fatalf("the runner failed: %s", r.errs)
				}
				continue // its terraform was killed
			case <-time.After(moment):
			}
			done++
			if victim == 0 && killTerraform(t, r.cmd.Process.Pid) {
				err := <-ended
				if err == nil {
					goto trained
				}
				continue
			}
			r.cmd.Process.Kill()
			<-ended
		}
	trained:
		output := filepath.Join(req.Dir, outputDir)
		if n := len(lines(t, filepath.Join(output, "completions"))); n != 1 {
			t.Errorf("trained to completion %d times, want once", n)
		}
		last := 0
		for _, line := range lines(t, filepath.Join(output, "metrics.jsonl")) {
			var m struct{ Epoch int }
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatal(err)
			}
			// Killed between its checkpoint and its line, a trainer leaves one out.
			if m.Epoch != last+1 && m.Epoch != last+2 {
				t.Errorf("epoch %d comes after %d", m.Epoch, last)
			}
			last = m.Epoch
		}
		if last != epochs {
			t.Errorf("trained up to epoch %d, want %d", last, epochs)
		}
		noStrays(t, req.Dir)
	}
}

// killTerraform kills a child of the process that is terraform, if it has one.
func killTerraform(t *testing.T, parent int) bool {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		data, err := os.ReadFile(task)
		if err != nil {
			continue
		}
		for pid := range strings.FieldsSeq(string(data)) {
			n, err := strconv.Atoi(pid)
			if err != nil {
				t.Fatal(err)
			}
			if p, err := durable.FindProcess(n); err == nil && p.Signal(syscall.SIGKILL) == nil {
				return true
			}
		}
	}
	return false
}
