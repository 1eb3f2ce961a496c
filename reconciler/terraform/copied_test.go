package terraform

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/trainer"
)

// Ending an attempt in a copy of a state folder leaves the original's trainer alone.
// In a folder that was moved it ends the trainer.
func TestCopiedAttemptLeavesTheOriginalsTrainerAlone(t *testing.T) {
	run := filepath.Join(t.TempDir(), "run")
	a, err := begin(run, 1, launch{Argv: []string{"/bin/sleep"}, Dir: run})
	if err != nil {
		t.Fatal(err)
	}
	sleeper := exec.Command("/bin/sleep", "1000")
	sleeper.Env = []string{markVariable + "=" + a.dir}
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = sleeper.Wait(); close(ended) }()
	defer func() { _ = sleeper.Process.Kill(); <-ended }()
	process, err := durable.FindProcess(sleeper.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	copyDir := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copyDir, os.DirFS(run)); err != nil {
		t.Fatal(err)
	}
	list, err := attempts(copyDir)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if err := (&Trainer{Machine: Local{}}).settle(t.Context(), trainer.Request{Dir: copyDir}, list[0], ""); err != nil {
		t.Fatal(err)
	}
	if !process.Alive() {
		t.Fatal("the original's trainer was ended from a copy")
	}
	moved := filepath.Join(t.TempDir(), "moved")
	if err := os.Rename(run, moved); err != nil {
		t.Fatal(err)
	}
	if list, err = attempts(moved); err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if err := (&Trainer{Machine: Local{}}).settle(t.Context(), trainer.Request{Dir: moved}, list[0], ""); err != nil {
		t.Fatal(err)
	}
	<-ended
}
