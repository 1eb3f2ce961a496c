package terraform

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// sleeper makes an attempt whose trainer is argv.
func sleeper(t *testing.T, argv ...string) *attempt {
	t.Helper()
	run := t.TempDir()
	a, err := begin(run, 1, launch{Argv: argv, Dir: run, Grace: delivery.Duration(2 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := killMarked(a.dir, a.dir); err != nil {
			t.Error(err)
		}
	})
	return a
}

// aob runs "aob launch VERB" in the attempt's folder.
func aob(t *testing.T, a *attempt, verb string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "launch", verb)
	cmd.Dir, cmd.Env = a.dir, []string{}
	return cmd
}

func alive(t *testing.T, a *attempt) bool {
	t.Helper()
	yes, err := trainerAlive(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	return yes
}

func TestLaunchOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	t.Parallel()
	a := sleeper(t, "/bin/sleep", "1000")
	var first durable.Process
	for i := range 3 {
		if out, err := aob(t, a, "start").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		p, err := readProcess(a.dir)
		if err != nil || !p.Alive() || !alive(t, a) {
			t.Fatalf("launch %d: process %+v, %v, lock held %t", i, p, err, alive(t, a))
		}
		if i == 0 {
			first = p
		}
		if p != first {
			t.Fatalf("launched again: %+v, was %+v", p, first)
		}
	}
	if exists(filepath.Join(a.dir, exitFile)) {
		t.Error("exit.json is there while the trainer runs")
	}
	if out, err := aob(t, a, "stop").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if first.Alive() || alive(t, a) {
		t.Error("not stopped")
	}
	// Neither the fence nor the record lets it come back.
	if out, err := aob(t, a, "start").CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "the attempt has ended") {
		t.Errorf("launched after the end: %v: %s", err, out)
	}
	if err := os.Remove(filepath.Join(a.dir, fenceFile)); err != nil {
		t.Fatal(err)
	}
	if out, err := aob(t, a, "start").CombinedOutput(); err != nil || alive(t, a) {
		t.Errorf("a trainer that ended was launched again: %v: %s", err, out)
	}
}

func TestLaunchErrors(t *testing.T) {
	for want, a := range map[string]*attempt{
		"execute /nonexistent/python: no such file or directory": sleeper(t, "/nonexistent/python", "train.py"),
		"want argv and mark": sleeper(t),
	} {
		out, err := aob(t, a, "start").CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%v: %s, want %q", err, out, want)
		}
		if alive(t, a) {
			t.Error("left running")
		}
	}
	if err := Launch("dance"); err == nil {
		t.Error("an unknown verb was taken")
	}
}

// A process that got the id of the trainer's must be left alone.
func TestStopSparesOthers(t *testing.T) {
	other := exec.Command("/bin/sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	a := sleeper(t, "/bin/sleep", "1000")
	p, err := durable.FindProcess(other.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	p.Start--
	record, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(a.dir, processFile), record, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := aob(t, a, "stop").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("a process with the trainer's former id was ended: %v", err)
	}
}

// A launcher may be killed at any moment, or come late: after stop nothing runs,
// and nothing begins any more.
func TestLauncherKilledAtAnyMoment(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	t.Parallel()
	random := rand.New(rand.NewPCG(5, 6))
	for range 30 {
		a := sleeper(t, "/bin/sleep", "1000")
		start := aob(t, a, "start")
		if err := start.Start(); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Duration(random.Float64() * float64(30*time.Millisecond)))
		start.Process.Kill()
		late := aob(t, a, "start")
		if err := late.Start(); err != nil {
			t.Fatal(err)
		}
		if err := stopTrainer(a.dir); err != nil {
			t.Fatal(err)
		}
		start.Wait()
		late.Wait()
		// What was still on its way when stop returned finds the fence and ends.
		for {
			left, err := marked(a.dir)
			if err != nil {
				t.Fatal(err)
			}
			if len(left) == 0 {
				break
			}
			if alive(t, a) {
				if p, err := readProcess(a.dir); err != nil || p.Alive() {
					t.Fatalf("a trainer runs after stop: %+v, %v", p, err)
				}
			}
		}
		if alive(t, a) {
			t.Fatal("the lock is held after stop")
		}
	}
}

// A trainer whose runner died is watched on: it is launched once and loses
// nothing.
func TestAdoption(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	t.Parallel()
	trainer, req := setup(t, map[string]any{"epochs": endless})
	r := startRunner(t, trainer, req, endless)
	r.await(t, "training")
	r.kill(t)
	first := filepath.Join(req.Dir, "attempts", "1")
	before, err := readProcess(first)
	if err != nil || !before.Alive() {
		t.Fatalf("the trainer died with its runner: %+v, %v", before, err)
	}
	var stages []string
	req.Stage = func(s string) error { stages = append(stages, s); return nil }
	req.Progress = func(delivery.RunStatus) error { return enough(req) }
	trained, err := trainer.Train(t.Context(), req)
	if err != nil || trained.Attempts != 1 {
		t.Fatalf("trained %+v, %v: want it done in attempt 1", trained, err)
	}
	if got := strings.Join(stages, " "); got != "training destroy" {
		t.Errorf("stages %q, want it watched on", got)
	}
}

// An attempt whose apply was not seen to end is destroyed, never planned on.
func TestDeathDuringApply(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	t.Parallel()
	trainer, req := setup(t, map[string]any{})
	r := startRunner(t, trainer, req, endless)
	r.await(t, "training")
	r.kill(t)
	first := filepath.Join(req.Dir, "attempts", "1")
	if err := os.Remove(filepath.Join(first, appliedFile)); err != nil {
		t.Fatal(err)
	}
	// As a terraform that was killed leaves it.
	if err := os.WriteFile(filepath.Join(first, stackFolder, stateLockFile), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	old, err := readProcess(first)
	if err != nil || !old.Alive() {
		t.Fatal(old, err)
	}
	var stages []string
	req.Stage = func(s string) error { stages = append(stages, s); return nil }
	trained, err := trainer.Train(t.Context(), req)
	if err != nil || trained.Attempts != 2 {
		t.Fatalf("trained %+v, %v: want it done in attempt 2", trained, err)
	}
	if got := strings.Join(stages, " "); got != "clean plan apply training destroy" {
		t.Errorf("stages %q", got)
	}
	if old.Alive() {
		t.Error("the first attempt's trainer runs")
	}
	state, err := os.ReadFile(filepath.Join(first, stackFolder, stateFile))
	if err != nil || strings.Contains(string(state), "terraform_data") {
		t.Errorf("the first attempt was not destroyed: %v\n%s", err, state)
	}
}

func TestSignalOfAnEndedProcess(t *testing.T) {
	if err := (durable.Process{}).Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signalled no process: %v", err)
	}
}
