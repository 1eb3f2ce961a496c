package run

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// A copy of a run's folder names the original's runner. Ending the run there signals
// nobody, also between the launch of an own runner and its first word.
func TestRunnerOfAnotherStateFolderIsNotSignalled(t *testing.T) {
	for _, c := range []struct {
		name, mine string
		signalled  bool
	}{{"its own", "original", true}, {"another's", "copy", false}} {
		t.Run(c.name, func(t *testing.T) {
			runner := exec.Command("/bin/sleep", "1000")
			if err := runner.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { _ = runner.Wait(); close(ended) }()
			defer func() { _ = runner.Process.Kill(); <-ended }()
			process, err := durable.FindProcess(runner.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			s := spec("wait")
			store := &Store{Dir: t.TempDir(), StateID: c.mine}
			dir := store.Folder(s.Kind, s.Key)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			data, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, specFile), data, 0o600); err != nil {
				t.Fatal(err)
			}
			j, err := openJournal(filepath.Join(dir, journalFile))
			if err != nil {
				t.Fatal(err)
			}
			if err := j.append(entry{Event: eventStart, Process: &process, State: "original"}); err != nil {
				t.Fatal(err)
			}
			if err := j.f.Close(); err != nil {
				t.Fatal(err)
			}
			// A runner was launched, and holds the lock; what it is has not been written yet.
			lock, err := durable.TryLock(filepath.Join(dir, lockFile))
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Unlock()
			if err := store.End(t.Context(), s.Key, "#3 is closed"); err != nil {
				t.Fatal(err)
			}
			if c.signalled {
				<-ended
			} else if !process.Alive() {
				t.Error("another state folder's runner was signalled")
			}
			if state, err := store.State(s.Key); err != nil || state.Phase != delivery.RunRunning ||
				state.EndReason == "" {
				t.Errorf("%+v, %v", state, err)
			}
		})
	}
}

// A runner writes down which state folder's server started it.
func TestRunBelongsToTheStateFolderThatStartedIt(t *testing.T) {
	b := newBench(t)
	b.StateID = "mine"
	s := spec("fast")
	if err := b.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	<-b.wake
	var h history
	if err := h.read(filepath.Join(b.Folder(s.Kind, s.Key), journalFile)); err != nil || h.state != "mine" ||
		h.at.Before(time.Now().Add(-time.Hour)) {
		t.Errorf("%+v, %v", h, err)
	}
}
