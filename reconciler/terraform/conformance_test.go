package terraform

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trainer"
	"github.com/autonomos/aob/tools/podman/podmantest"
)

// A bench lets the suite train on a kind of machine.
type bench struct {
	trainer interface {
		Train(ctx context.Context, req trainer.Request) (trainer.Trained, error)
	}
	req trainer.Request // for the trainer of testdata, in a new folder

	environment func(t *testing.T) map[string]string // of the trainer that was launched last; nil: it gets no secrets
	kill        func(t *testing.T)                   // kills the trainer that runs, with no chance to say anything
	enough      func() error                         // ends an endless training
}

// Every machine keeps the promises of trainer.Request. A new one has its entry here.
func TestMachines(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	t.Parallel()
	for name, machine := range map[string]func(t *testing.T, run map[string]any) bench{
		"train-local":                localBench,
		"train-local in a container": containerBench,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conform(t, machine)
		})
	}
	t.Run("train-aws-ec2", func(t *testing.T) {
		slow(t)
		conform(t, ec2Bench(startRegion(t, nil)))
	})
}

// conform is the suite. start gives a bench for a run.json of the trainer in testdata.
func conform(t *testing.T, start func(t *testing.T, run map[string]any) bench) {
	t.Run("trains once", func(t *testing.T) {
		t.Parallel()
		b := start(t, map[string]any{})
		for range 2 {
			trained, err := b.trainer.Train(t.Context(), b.req)
			if err != nil || trained.Attempts != 1 || trained.Status.Phase != "done" {
				t.Fatalf("%+v, %v", trained, err)
			}
			if data, err := os.ReadFile(filepath.Join(trained.Output, "model.onnx")); string(data) != "weights" {
				t.Errorf("model.onnx is %q, %v", data, err)
			}
		}
	})

	t.Run("goes on after an interruption", func(t *testing.T) {
		t.Parallel()
		b := start(t, map[string]any{"epochs": endless})
		ctx, cancel := context.WithCancel(t.Context())
		b.req.Progress = func(s delivery.RunStatus) error {
			if s.Epoch > 2 {
				cancel()
			}
			return nil
		}
		if _, err := b.trainer.Train(ctx, b.req); !errors.Is(err, context.Canceled) {
			t.Fatalf("interrupted: %v", err)
		}
		first := 0
		b.req.Progress = func(s delivery.RunStatus) error {
			if first == 0 {
				first = s.Epoch
			}
			return nil
		}
		if err := b.enough(); err != nil {
			t.Fatal(err)
		}
		if trained, err := b.trainer.Train(t.Context(), b.req); err != nil || trained.Attempts != 2 || first < 2 {
			t.Errorf("%+v, %v, beginning at epoch %d; want a second attempt that goes on", trained, err, first)
		}
	})

	t.Run("a killed trainer may do better the next time", func(t *testing.T) {
		t.Parallel()
		b := start(t, map[string]any{"epochs": endless})
		done := false
		b.req.Progress = func(s delivery.RunStatus) error {
			if s.Epoch > 1 && !done {
				done = true
				b.kill(t)
			}
			return nil
		}
		_, err := b.trainer.Train(t.Context(), b.req)
		if _, blocked := errors.AsType[delivery.Blocked](err); err == nil || blocked {
			t.Fatalf("killed: %v, want an error after which it is tried again", err)
		}
		if err := b.enough(); err != nil {
			t.Fatal(err)
		}
		if trained, err := b.trainer.Train(t.Context(), b.req); err != nil || trained.Attempts != 2 {
			t.Errorf("%+v, %v", trained, err)
		}
	})

	t.Run("what fails by its own fault is for a person", func(t *testing.T) {
		t.Parallel()
		for _, mode := range []string{"fail", "refuse", "empty", "link"} {
			b := start(t, map[string]any{"mode": mode})
			_, err := b.trainer.Train(t.Context(), b.req)
			if _, blocked := errors.AsType[delivery.Blocked](err); !blocked {
				t.Errorf("%s: %v, want Blocked", mode, err)
			}
		}
	})

	t.Run("a limit ends it", func(t *testing.T) {
		t.Parallel()
		b := start(t, map[string]any{"mode": "hang"})
		b.req.Limit, b.req.Grace = time.Second, time.Second
		_, err := b.trainer.Train(t.Context(), b.req)
		if _, blocked := errors.AsType[delivery.Blocked](err); !blocked {
			t.Errorf("%v, want Blocked", err)
		}
	})

	t.Run("secrets are in the environment and in no file", func(t *testing.T) {
		t.Parallel()
		b := start(t, map[string]any{"mode": "quiet"})
		const canary = "canary-93c1"
		b.req.Secrets = map[string]string{"TRAIN_KEY": canary}
		_, err := b.trainer.Train(t.Context(), b.req)
		if b.environment == nil {
			if _, blocked := errors.AsType[delivery.Blocked](err); !blocked {
				t.Fatalf("%v, want Blocked", err)
			}
		} else if err != nil {
			t.Fatal(err)
		} else if env := b.environment(t); env["TRAIN_KEY"] != "a secret of 11" {
			t.Errorf("the trainer got %q", env)
		}
		err = filepath.WalkDir(b.req.Dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if bytes.Contains(data, []byte(canary)) {
				t.Errorf("%s holds the secret", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// containerBench trains in containers of podman, and checks that none is left.
func containerBench(t *testing.T, run map[string]any) bench {
	engine, image := podmantest.Prepare(t)
	b := localBench(t, run)
	b.req.Python, b.req.Container = "", &trainer.Container{Engine: engine, Image: image, Limits: podmantest.Limits}
	b.kill = func(t *testing.T) { // not the engine's client, which the trainer outlives
		list, err := attempts(b.req.Dir)
		if err != nil || len(list) == 0 {
			t.Fatalf("no attempt: %v", err)
		}
		name := trainer.Name(list[len(list)-1].dir)
		if out, err := exec.Command(engine, "kill", "--signal", "KILL", name).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	t.Cleanup(func() {
		out, err := exec.Command(engine, "ps", "--all", "--quiet", "--filter",
			"label="+trainer.LabelRuns+"="+filepath.Dir(b.req.Dir)).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("containers are left: %s, %v", out, err)
		}
	})
	return b
}

func localBench(t *testing.T, run map[string]any) bench {
	local, req := setup(t, run)
	last := func(t *testing.T) string {
		t.Helper()
		list, err := attempts(req.Dir)
		if err != nil || len(list) == 0 {
			t.Fatalf("no attempt: %v", err)
		}
		return list[len(list)-1].dir
	}
	return bench{trainer: local, req: req, enough: func() error { return enough(req) },
		environment: func(t *testing.T) (env map[string]string) {
			_, text, _ := strings.Cut(lines(t, filepath.Join(last(t), trainerLog))[0], " ")
			if err := json.Unmarshal([]byte(text), &env); err != nil {
				t.Fatal(err)
			}
			return env
		},
		kill: func(t *testing.T) {
			p, err := readProcess(last(t))
			if err == nil {
				err = p.Signal(syscall.SIGKILL)
			}
			if err != nil {
				t.Error(err)
			}
		}}
}
