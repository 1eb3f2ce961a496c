package work

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/run"
	"github.com/autonomos/aob/reconciler/store"
	"github.com/autonomos/aob/reconciler/trainer"
)

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

// Base weights are used if they are what the key names. Nothing that is shown names their file on the server.
func TestStartFromWeights(t *testing.T) {
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "w.pth"), "weights")
	right := delivery.Sum([]byte("weights"))
	s := &Stages{Weights: map[delivery.Digest]string{right: file, "sha256:gone": filepath.Join(dir, "gone.pth"),
		delivery.Sum([]byte("changed")): file}}
	ask := func(digest delivery.Digest) (*trainerWeights, error) {
		input := delivery.TrainRun{Weights: &delivery.Weights{SHA256: digest, Licence: "MIT"}}
		input.Spec.Train.From = "small"
		w, parent, err := s.start(&run.Run{Dir: dir}, input)
		if parent != nil {
			t.Errorf("a parent: %+v", parent)
		}
		return w, err
	}
	if w, err := ask(right); err != nil || *w != (trainerWeights{file, right.Hex()}) {
		t.Errorf("got %+v, %v", w, err)
	}
	for digest, want := range map[delivery.Digest]string{
		"sha256:gone":                   "the file of the weights small is missing; have the server's operator",
		delivery.Sum([]byte("changed")): "the file of the weights small was changed: its SHA-256 is " + right.Hex(),
		"sha256:dropped":                "the server no longer has the weights small with SHA-256 dropped",
	} {
		_, err := ask(digest)
		if _, blocked := errors.AsType[delivery.Blocked](err); !blocked || !strings.Contains(err.Error(), want) ||
			strings.Contains(err.Error(), dir) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// The checkpoint of a training is kept, and another training starts from it as long as it is there.
func TestStartFromRelease(t *testing.T) {
	dir := t.TempDir()
	s := &Stages{Files: store.Folder(filepath.Join(dir, "state")), Trainers: filepath.Join(dir, "trainers")}
	if err := os.Mkdir(string(s.Files.(store.Folder)), 0o700); err != nil {
		t.Fatal(err)
	}
	const described = "apiVersion: aob/v1\nkind: Trainer\nname: x\nversions: [\"1\"]\narchitectures: [a]\n"
	files := delivery.Digest("sha256:f1")
	input := delivery.TrainRun{Trainer: files}
	input.Spec.Train.With = "x@1"
	yaml := filepath.Join(trainer.Folder(s.Trainers, files, "x"), "trainer.yaml")
	output := filepath.Join(dir, "output")
	write(t, filepath.Join(output, "checkpoint"), "state")
	write(t, yaml, described)
	if got, err := s.keepCheckpoint(input, output); got != "" || err != nil {
		t.Errorf("of a trainer that starts from no checkpoint: %s, %v", got, err)
	}
	write(t, yaml, described+"from: [none, release]\n")
	checkpoint, err := s.keepCheckpoint(input, output)
	if err != nil || checkpoint != delivery.Sum([]byte("state")) {
		t.Fatalf("kept %s, %v", checkpoint, err)
	}
	if again, err := s.keepCheckpoint(input, output); err != nil || again != checkpoint {
		t.Errorf("again: %s, %v", again, err)
	}
	if err := os.RemoveAll(output); err != nil {
		t.Fatal(err)
	}
	if _, err := s.keepCheckpoint(input, output); err == nil || !strings.Contains(err.Error(), "left no checkpoint") {
		t.Errorf("without a checkpoint: %v", err)
	}
	child := delivery.TrainRun{Parent: "sha256:abcdef", Checkpoint: checkpoint}
	_, parent, err := s.start(&run.Run{Dir: dir}, child)
	if err != nil || parent.Bundle != child.Parent {
		t.Fatalf("got %+v, %v", parent, err)
	}
	if data, err := os.ReadFile(parent.Checkpoint); err != nil || string(data) != "state" {
		t.Errorf("the checkpoint is %q, %v", data, err)
	}
	folder, _ := delivery.CheckpointName(checkpoint)
	if err := os.WriteFile(parent.Checkpoint, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	checkGone(t, s, child, "was changed", folder)
	if err := os.RemoveAll(filepath.Dir(parent.Checkpoint)); err != nil {
		t.Fatal(err)
	}
	checkGone(t, s, child, "is missing", folder)
}

func checkGone(t *testing.T, s *Stages, child delivery.TrainRun, want, folder string) {
	t.Helper()
	_, _, err := s.start(&run.Run{Dir: t.TempDir()}, child)
	if _, blocked := errors.AsType[delivery.Blocked](err); !blocked || !strings.Contains(err.Error(), want) ||
		!strings.Contains(err.Error(), "restore the folder "+folder) {
		t.Errorf("got %v, want it to say that it %s", err, want)
	}
}
