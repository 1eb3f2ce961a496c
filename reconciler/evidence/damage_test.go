package evidence_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/evidence"
	"github.com/autonomos/aob/reconciler/trust"
)

func TestDamagedStatementIsReadAgainAfterRepair(t *testing.T) {
	dir := t.TempDir()
	blobs, b := bundlesIn(t, dir, 1)
	store := evidence.New(blobs, key(t), nil)
	before := blobFiles(t, dir)
	if err := sign(store, t.Context(), training(b[0], "run")); err != nil {
		t.Fatal(err)
	}
	if blobFiles(t, dir) == before {
		t.Fatal("nothing was written")
	}
	var envelope string
	for path, data := range tree(t, dir) {
		if strings.Contains(data, "payloadType") {
			envelope = path
		}
	}
	good := tree(t, dir)[envelope]
	replace(t, filepath.Join(dir, envelope), good[1:])
	got := load(t, store)
	if len(got.Trainings) != 0 || len(got.Skipped) != 1 || !strings.Contains(got.Skipped[0].Why, "damaged") {
		t.Fatalf("damaged: %+v", got)
	}
	if len(got.Unread) != 1 || got.Unread[0].Bundle != b[0] || got.Unread[0].Type != delivery.TrainingType {
		t.Errorf("the statement is not listed as unread: %+v", got.Unread)
	}
	if load(t, store) != got {
		t.Error("Load makes a new snapshot although nothing changed")
	}
	replace(t, filepath.Join(dir, envelope), good)
	if got := load(t, store); len(got.Trainings) != 1 || len(got.Skipped) != 0 {
		t.Errorf("repaired: %+v", got)
	}
}

// The test flips one bit at a time in every file. Each statement must then be unchanged or
// skipped, or reading must fail. No statement may have another content.
func TestFlippedBitsAreDetected(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	dir := t.TempDir()
	blobs, b := bundlesIn(t, dir, 1)
	k := key(t)
	signAll(t, evidence.New(blobs, k, nil), b[0])
	if err := blobs.Fold(t.Context()); err != nil { // as Open does; package artifact's tests flip bits in the log too
		t.Fatal(err)
	}
	want := load(t, evidence.New(blobs, nil, public(k)))
	wantScores, _, err := evidence.New(blobs, nil, public(k)).Scores(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	for name, good := range tree(t, dir) {
		for i := 0; i < len(good); i += 11 { // package artifact's tests flip bits in every byte
			bad := []byte(good)
			bad[i] ^= 1 << (i % 8)
			replace(t, filepath.Join(dir, name), string(bad))
			if problem := compare(t, dir, k, b, want, wantScores); problem != "" {
				t.Fatalf("%s, byte %d, %q for %q: %s", name, i, bad[i], good[i], problem)
			}
		}
		replace(t, filepath.Join(dir, name), good)
	}
}

// compare reads the evidence and returns a difference that is neither skipped nor an error, or "".
func compare(t *testing.T, dir string, k *trust.Key, b []delivery.Digest, want *evidence.Snapshot,
	wantScores map[delivery.Digest]delivery.Scores) string {
	blobs, err := artifact.Open(dir)
	if err != nil {
		return ""
	}
	store := evidence.New(blobs, nil, public(k))
	got, err := store.Load(t.Context())
	if err != nil {
		return ""
	}
	if len(got.Skipped) == 0 {
		if diff := cmp.Diff(want, got, ignored); diff != "" {
			return diff
		}
	}
	// All statements are either valid or skipped.
	found := len(got.Trainings) + len(got.Resolved) + len(got.Verdicts) + len(got.ReleasesOf) + len(got.AcceptancesOf) +
		len(got.AbortsOf) + len(got.VariantsOf) + len(got.BenchesOf)
	if found+len(got.Skipped) != 8 {
		return fmt.Sprintf("%d statements and %d skipped, want 8 together", found, len(got.Skipped))
	}
	scores, skipped, err := store.Scores(t.Context(), b)
	if err != nil || len(skipped) == 1 && len(scores) == 0 {
		return ""
	}
	return cmp.Diff(wantScores, scores)
}

func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, path))
		found[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// replace replaces a file, which may be read-only.
func replace(t *testing.T, path, data string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", []byte(data), 0o644), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}
