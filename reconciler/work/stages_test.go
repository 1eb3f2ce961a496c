package work

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/run"
	"github.com/autonomos/aob/reconciler/store"
)

// What a trainer tells of itself, and the error of any run, leave the runner without the run's secrets.
func TestSecretsAreMasked(t *testing.T) {
	s := &Stages{Files: store.Folder(t.TempDir()), Secrets: map[string]string{"HF_TOKEN": "hf_S3cr3t"}}
	path := filepath.Join(t.TempDir(), "train.json")
	if err := os.WriteFile(path, []byte(`{"argv": ["--token=hf_S3cr3t"], "epochs": 3}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := string(trainerInfo(path, s.mask())); got != `{"argv":["--token=***"],"epochs":3}` {
		t.Errorf("train.json: %s", got)
	}
	_, err := s.Work(t.Context(), &run.Run{Spec: delivery.RunSpec{Kind: "hf_S3cr3t"}})
	if err == nil || !strings.Contains(err.Error(), `no run of kind "***"`) {
		t.Errorf("error: %v", err)
	}
}
