package artifact_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"oras.land/oras-go/v2/content/oci"

	"github.com/autonomos/aob/reconciler/artifact"
)

// What is added is in the log until it is folded. Other stores of the folder see it, and other tools after Fold.
func TestLog(t *testing.T) {
	dir, one, _ := layout(t)
	index, log := filepath.Join(dir, "index.json"), filepath.Join(dir, "index.log")
	s, other := open(t, dir), open(t, dir)
	before := tree(t, dir)["index.json"]
	for i := range 3 {
		envelope := fmt.Append(nil, "envelope ", i)
		if _, err := s.Attach(t.Context(), one, "application/vnd.test.log", envelope); err != nil {
			t.Fatal(err)
		}
		for _, s := range []*artifact.Store{s, other} {
			if got, err := attached(t, s, one, "application/vnd.test.log"); err != nil || len(got) != i+1 {
				t.Errorf("after %d: got %q, %v", i+1, got, err)
			}
		}
	}
	if after := tree(t, dir)["index.json"]; after != before {
		t.Error("index.json was written for each entry")
	}
	left, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Fold(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(log); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the log is there after Fold: %v", err)
	}
	tool, err := oci.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	desc, err := tool.Resolve(t.Context(), string(one))
	if err != nil {
		t.Fatal(err)
	}
	if list, err := tool.Predecessors(t.Context(), desc); err != nil || len(list) != 5 {
		t.Errorf("another tool sees %d referrers, want 5: %v", len(list), err)
	}
	// A process that ends while it folds leaves the log.
	replace(t, log, left)
	folded := tree(t, dir)["index.json"]
	for _, s := range []*artifact.Store{s, other, open(t, dir)} {
		if got, err := attached(t, s, one, "application/vnd.test.log"); err != nil || len(got) != 3 {
			t.Errorf("after a crash: got %q, %v", got, err)
		}
	}
	if tree(t, dir)["index.json"] != folded {
		t.Error("entries of a log that was left are in index.json twice")
	}
	if _, err := os.Stat(index); err != nil {
		t.Error(err)
	}
}

// The beginning of a line is left by a writer that was killed. The next writer replaces it.
func TestLogWithPartOfALine(t *testing.T) {
	dir, one, _ := layout(t)
	log := filepath.Join(dir, "index.log")
	s, other := open(t, dir), open(t, dir)
	if _, err := s.Attach(t.Context(), one, "application/vnd.test.log", []byte("whole")); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []int{1, 10, len(whole) - 1} {
		replace(t, log, append(slices.Clip(whole), whole[:part]...))
		for _, s := range []*artifact.Store{s, other} {
			if got, err := attached(t, s, one, "application/vnd.test.log"); err != nil || len(got) != 1 {
				t.Errorf("with %d bytes of a line: got %q, %v", part, got, err)
			}
		}
	}
	if _, err := other.Attach(t.Context(), one, "application/vnd.test.log", []byte("next")); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*artifact.Store{s, other, open(t, dir)} {
		if got, err := attached(t, s, one, "application/vnd.test.log"); err != nil || len(got) != 2 {
			t.Errorf("after the next writer: got %q, %v", got, err)
		}
	}
}

func TestDamagedLogHasAHint(t *testing.T) {
	dir, one, _ := layout(t)
	log := filepath.Join(dir, "index.log")
	if _, err := open(t, dir).Attach(t.Context(), one, "application/vnd.test.log", []byte("one")); err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"another digit": strings.Replace(string(line), "sha256:", "sha256:f", 1),
		"no checksum":   string(line[17:]),
		"an empty line": "\n" + string(line),
	} {
		replace(t, log, []byte(text))
		if _, err := artifact.Open(dir); err == nil || !strings.Contains(err.Error(), "index.log: damaged") ||
			!strings.Contains(err.Error(), "remove index.json") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "index.json")); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	if got, err := attached(t, s, one, "application/vnd.test.log"); err != nil || len(got) != 1 {
		t.Errorf("after following the hint: %q, %v", got, err)
	}
	if _, err := os.Stat(log); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the damaged log is still there: %v", err)
	}
}

// A long log is folded without a call.
func TestLongLogIsFolded(t *testing.T) {
	dir, one, _ := layout(t)
	s := open(t, dir)
	for i := range 200 {
		envelope := fmt.Append(nil, "envelope ", i)
		if _, err := s.Attach(t.Context(), one, "application/vnd.test.log", envelope); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "index.log"))
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(data), "\n"); lines > 100 {
		t.Errorf("the log has %d entries of 200", lines)
	}
	if got, err := attached(t, open(t, dir), one, "application/vnd.test.log"); err != nil || len(got) != 200 {
		t.Errorf("%d are attached, want 200: %v", len(got), err)
	}
}
