package git

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Unchanged loose refs are not read again. Every way of changing one is detected.
func TestChangedLooseRefsAreReadAgain(t *testing.T) {
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	for name, move := range map[string]func(t *testing.T, file, to string){
		"in place": func(t *testing.T, file, to string) {
			if err := os.WriteFile(file, []byte(to+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		},
		"in place, twice in a second": func(t *testing.T, file, to string) {
			for _, text := range []string{"0123", to + "\n"} {
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		},
		"by another file of the same time and size": func(t *testing.T, file, to string) {
			other := filepath.Join(filepath.Dir(file), "x.lock")
			if err := os.WriteFile(other, []byte(to+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(other, old, old); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(other, file); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t)
			first := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
			side := r.commit("refs/heads/side", map[string]string{"models/a.yaml": "2"}, first)
			next := r.commit("refs/heads/next", map[string]string{"models/a.yaml": "3"}, first)
			file := filepath.Join(r.dir, "refs", "heads", "side")
			if err := os.Chtimes(file, old, old); err != nil {
				t.Fatal(err)
			}
			m := open(t, t.TempDir(), Remote{URL: r.dir})
			for range 2 {
				if refs, _ := observe(t, m); refs["refs/heads/side"] != side {
					t.Fatalf("side is at %s, want %s", refs["refs/heads/side"], side)
				}
			}
			if !m.refFiles["refs/heads/side"].unchanged(stat(t, file)) {
				t.Error("a file that has not changed for an hour is read again")
			}
			move(t, file, next)
			if refs, changed := observe(t, m); !changed || refs["refs/heads/side"] != next {
				t.Errorf("side is at %s, want %s", refs["refs/heads/side"], next)
			}
		})
	}
}

func stat(t *testing.T, file string) os.FileInfo {
	t.Helper()
	info, err := os.Lstat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info
}
