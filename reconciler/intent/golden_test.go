package intent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/autonomos/aob/reconciler/intent"
)

// options are the world that the golden cases are checked against.
func options(t testing.TB) intent.Options {
	t.Helper()
	trainers, err := intent.LoadTrainers(os.DirFS("testdata/trainers"))
	if err != nil {
		t.Fatal(err)
	}
	return intent.Options{
		Trainers: trainers,
		Datasets: map[string][]string{"dir": {"gold", "shapes", "v1.2"}},
		Zone: func(name string) error {
			_, err := time.LoadLocation(name)
			return err
		},
	}
}

// A golden case is files, and in the file "complaints" what must be said of
// them, one a line.
func golden(t testing.TB) map[string]*txtar.Archive {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatal("no golden cases", err)
	}
	cases := make(map[string]*txtar.Archive)
	for _, path := range paths {
		if cases[path], err = txtar.ParseFile(path); err != nil {
			t.Fatal(err)
		}
	}
	return cases
}

// split returns the intent files of a case and the wanted complaints.
func split(a *txtar.Archive) (files []intent.File, want *txtar.File) {
	for i, f := range a.Files {
		if f.Name == "complaints" {
			want = &a.Files[i]
			continue
		}
		files = append(files, intent.File{Path: f.Name, Size: int64(len(f.Data)), Data: f.Data})
	}
	return files, want
}

func TestGolden(t *testing.T) {
	for path, a := range golden(t) {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			files, want := split(a)
			if want == nil {
				t.Fatal("the case has no file complaints")
			}
			_, complaints := intent.Parse(files, options(t))
			var got strings.Builder
			for _, c := range complaints {
				got.WriteString(c.String() + "\n")
			}
			if *update {
				want.Data = []byte(got.String())
				if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(strings.Split(string(want.Data), "\n"), strings.Split(got.String(), "\n")); diff != "" {
				t.Errorf("complaints (-want +got); if they are meant: go test ./reconciler/intent -update\n%s", diff)
			}
		})
	}
}
