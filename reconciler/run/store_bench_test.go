package run

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// storeOf makes n ended runs.
func storeOf(b *testing.B, n int) *Store {
	b.Helper()
	s := &Store{Dir: b.TempDir()}
	for i := range n {
		spec := spec(fmt.Sprint("run ", i))
		dir := s.Folder(spec.Kind, spec.Key)
		if err := os.Mkdir(dir, 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, specFile), delivery.Canonical(spec), 0o600); err != nil {
			b.Fatal(err)
		}
		var journal []byte
		for _, e := range []entry{{Event: eventStart}, {Event: eventStage, Stage: "work"},
			{Event: eventDone, Result: spec.Key}} {
			e.At, e.Attempt = time.Now(), 1
			journal = append(append(journal, delivery.Canonical(e)...), '\n')
		}
		if err := os.WriteFile(filepath.Join(dir, journalFile), journal, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(s.Dir, old, old); err != nil {
		b.Fatal(err)
	}
	return s
}

// The loop's turn with 10,000 ended runs and none active.
func BenchmarkObserve(b *testing.B) {
	s := storeOf(b, 10_000)
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			if list, err := (&Store{Dir: s.Dir}).Observe(); err != nil || len(list) != 10_000 {
				b.Fatal(len(list), err)
			}
		}
	})
	if _, err := s.Observe(); err != nil {
		b.Fatal(err)
	}
	b.Run("nothing active", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Observe(); err != nil {
				b.Fatal(err)
			}
		}
	})
	active := spec("active")
	dir := s.Folder(active.Kind, active.Key)
	if err := os.Mkdir(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, specFile), delivery.Canonical(active), 0o600); err != nil {
		b.Fatal(err)
	}
	old := time.Now().Add(-30 * time.Second)
	if err := os.Chtimes(s.Dir, old, old); err != nil {
		b.Fatal(err)
	}
	b.Run("one active", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Observe(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
