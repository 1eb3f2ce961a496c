package artifact_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
)

// onnxBlob is the path of a model's blob.
func onnxBlob(dir, model string) string {
	return filepath.Join(dir, "blobs", "sha256", delivery.Sum([]byte(model)).Hex())
}

func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	one, two := push(t, s, "one"), push(t, s, "two")
	withThresholds, err := s.WithThresholds(t.Context(), two, map[string]float64{"pallet": 0.5})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []delivery.Digest{one, two} {
		if _, err := s.Attach(t.Context(), b, evidenceType, []byte("signed "+b)); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(b delivery.Digest) {
		t.Helper()
		if err := s.Remove(t.Context(), b, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Remove(t.Context(), one, time.Now().Add(-time.Hour)); err != nil || len(bundles(t, s)) != 3 {
		t.Fatalf("a bundle that was pushed since was removed: %v", err)
	}
	remove(one)
	remove(two) // the other one shares its files
	for _, s := range []*artifact.Store{s, open(t, dir)} {
		if got := bundles(t, s); len(got) != 1 || got[0] != withThresholds {
			t.Fatalf("bundles %v, want only %s", got, withThresholds)
		}
		for _, b := range []delivery.Digest{one, two} {
			if _, err := s.Describe(t.Context(), b); !errors.Is(err, fs.ErrNotExist) ||
				!strings.Contains(err.Error(), "nothing needed it") {
				t.Errorf("describe a removed bundle: %v", err)
			}
			signed, err := attached(t, s, b, evidenceType)
			if err != nil || len(signed) != 1 {
				t.Errorf("statements about a removed bundle: %q, %v", signed, err)
			}
		}
		if err := s.Check(t.Context(), withThresholds); err != nil {
			t.Errorf("a bundle that was not removed: %v", err)
		}
	}
	if there(onnxBlob(dir, "one")) || !there(onnxBlob(dir, "two")) {
		t.Error("want the file of the first model removed, and that of the second kept")
	}
	if _, err := s.Attach(t.Context(), one, evidenceType, []byte("later")); err != nil {
		t.Errorf("sign about a removed bundle: %v", err)
	}
	if again := push(t, s, "one"); again != one {
		t.Errorf("pushed again it is %s, want %s", again, one)
	}
	if err := s.Check(t.Context(), one); err != nil || len(bundles(t, s)) != 2 {
		t.Errorf("pushed again: %v", err)
	}
	remove(withThresholds)
	if there(onnxBlob(dir, "two")) {
		t.Error("nothing needs the file of the second model any more")
	}
}

// A process that is killed after a bundle counts as removed leaves files, which the next one removes.
func TestFinish(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	one := push(t, s, "one")
	push(t, s, "two")
	mark := filepath.Join(dir, "removed", one.Hex())
	if err := os.MkdirAll(filepath.Dir(mark), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mark, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := bundles(t, s); len(got) != 1 {
		t.Fatalf("bundles %v", got)
	}
	if err := s.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if there(onnxBlob(dir, "one")) || !there(onnxBlob(dir, "two")) {
		t.Error("want the file of the first model removed, and that of the second kept")
	}
}

func TestKept(t *testing.T) {
	s := open(t, t.TempDir())
	b := bundle(t, "one")
	run := delivery.Sum([]byte("run"))
	b.Provenance = map[string]string{"run": string(run)}
	one, err := s.Push(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.WithThresholds(t.Context(), one, map[string]float64{"pallet": 0.5}); err != nil {
		t.Fatal(err)
	}
	list, err := s.Kept(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	if want := int64(len("one") + len(b.Golden)); list[0].Bytes != want || list[1].Bytes != 0 {
		t.Errorf("%d and %d bytes, want %d and 0, as both share their files", list[0].Bytes, list[1].Bytes, want)
	}
	if list[0].Run != run || time.Since(list[0].Pushed) > time.Hour {
		t.Errorf("%+v", list[0])
	}
}

// churn pushes and removes the same few bundles, until it is killed.
func churn(dir string, out io.Writer) error {
	s, err := artifact.Open(dir)
	if err != nil {
		return err
	}
	ctx := context.Background()
	scratch, err := os.MkdirTemp("", "churn")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	for i := 0; ; i++ {
		path := filepath.Join(scratch, "trained.onnx")
		if err := os.WriteFile(path, []byte(numbered(i%3)), 0o644); err != nil {
			return err
		}
		digest, err := s.Push(ctx, artifact.Bundle{ModelPath: path, Signature: signature(),
			Golden: []byte("golden tensors"), Labels: []string{"pallet", "forklift"}})
		if err != nil {
			return err
		}
		if _, err := s.Attach(ctx, digest, evidenceType, []byte("first"+digest)); err != nil {
			return err
		}
		fmt.Fprintln(out, digest)
		list, err := s.Bundles(ctx)
		if err != nil {
			return err
		}
		if i%2 == 1 {
			if err := s.Remove(ctx, list[i%len(list)], time.Now().Add(time.Hour)); err != nil &&
				!errors.Is(err, fs.ErrNotExist) { // another process was first
				return err
			}
		}
	}
}

// Processes push and remove the same bundles, and are killed at any moment. A bundle that counts as there has all its
// files, and no statement is lost.
func TestKilledWhileRemoving(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	for round := range rounds {
		var cmds []*exec.Cmd
		for range 2 {
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), writerDir+"="+dir, writerChurn+"=1")
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			cmds = append(cmds, cmd)
			lines := bufio.NewScanner(out)
			for n := 0; n < 3+round && lines.Scan(); n++ {
			}
		}
		for _, cmd := range cmds {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatalf("a process ended by itself: %v", err)
			}
		}
		s := open(t, dir)
		if err := s.Finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, d := range bundles(t, s) {
			if err := s.Check(t.Context(), d); err != nil {
				t.Fatalf("round %d: bundle %s: %v", round, d.Short(), err)
			}
			if signed, err := attached(t, s, d, evidenceType); err != nil || len(signed) > 1 {
				t.Fatalf("round %d: %d statements, %v", round, len(signed), err)
			}
		}
	}
	s := open(t, dir)
	for i := range 3 {
		d := push(t, s, numbered(i))
		if err := s.Check(t.Context(), d); err != nil {
			t.Error(err)
		}
	}
}
