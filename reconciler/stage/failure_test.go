package stage

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/run"
)

// There is no server that shows the log of a run, so its file is named where it has anything.
func TestFailureNamesTheLog(t *testing.T) {
	l := &Local{Runs: &run.Store{Dir: t.TempDir()}}
	spec := delivery.RunSpec{Kind: delivery.RunTrain, Key: delivery.Sum([]byte("a run"))}
	state := delivery.RunState{Error: "the trainer failed: out of memory"}
	if got := l.failure(spec, state).Error(); got != state.Error {
		t.Errorf("without a log: %s", got)
	}
	log := filepath.Join(l.Runs.Folder(spec.Kind, spec.Key), "output", "log.txt")
	for _, text := range []string{"", "a line\n"} {
		if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(log, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		want := state.Error
		if text != "" {
			want += "; its log is " + log
		}
		if got := l.failure(spec, state).Error(); got != want {
			t.Errorf("with %q in it: %s", text, got)
		}
	}
}
