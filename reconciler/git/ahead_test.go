package git

import (
	"slices"
	"testing"
)

// Ahead returns the changes of each commit, also changes that a later commit reverts, and files that only a merge
// changes.
func TestAhead(t *testing.T) {
	both(t, func(t *testing.T, r *repo, remote Remote) {
		root := r.commit("refs/heads/main", map[string]string{"gates/g.yaml": "1", "gates/h.yaml": "1"})
		main := r.commit("refs/heads/main", map[string]string{"gates/h.yaml": "2"}, root)
		there := r.commit("refs/heads/back", map[string]string{"gates/g.yaml": "2", "README.md": "x"}, root)
		back := r.commit("refs/heads/back", map[string]string{"gates/g.yaml": "1"}, there)
		side := r.commit("refs/heads/merged", map[string]string{"fleets/f.yaml": "1"}, root)
		plain := r.commit("refs/heads/merged", map[string]string{"gates/h.yaml": "2"}, side, main)
		evil := r.commit("refs/heads/evil", map[string]string{"gates/h.yaml": "3"}, side, main)
		m := open(t, t.TempDir(), remote)
		observe(t, m)
		blob := func(commit, path string) string {
			t.Helper()
			files, err := m.Files(commit)
			if err != nil {
				t.Fatal(err)
			}
			return files[slices.IndexFunc(files, func(f File) bool { return f.Path == path })].Hash
		}
		one, two := blob(root, "gates/g.yaml"), blob(there, "gates/g.yaml")
		fleet := FileChange{Path: "fleets/f.yaml", To: blob(side, "fleets/f.yaml")}
		for _, c := range []struct {
			name, head string
			want       Ahead
		}{
			{"main itself", main, Ahead{}},
			{"changed and reverted", back, Ahead{Changes: []FileChange{{"gates/g.yaml", one, two},
				{"gates/g.yaml", two, one}}}},
			{"a merge that joins both sides", plain, Ahead{Merges: true, Changes: []FileChange{fleet}}},
			{"a merge with changes of its own", evil, Ahead{Merges: true, Changes: []FileChange{fleet},
				Resolved: []string{"gates/h.yaml"}}},
		} {
			a, err := m.Ahead(c.head, main)
			if err != nil || a.Merges != c.want.Merges || !slices.Equal(a.Changes, c.want.Changes) ||
				!slices.Equal(a.Resolved, c.want.Resolved) {
				t.Errorf("%s: %+v, error %v; want %+v", c.name, a, err, c.want)
			}
		}
	})
}

// Moved returns files in all folders that one side removes or moves and the other side changes.
func TestMoved(t *testing.T) {
	both(t, func(t *testing.T, r *repo, remote Remote) {
		base := r.commit("refs/heads/main", map[string]string{"docs/a/strict.yaml": "1", "docs/b.md": "1",
			"models/odd.txt": "1"})
		main := r.commit("refs/heads/main", map[string]string{"docs/a/strict.yaml": "", "gates/strict.yaml": "1",
			"models/odd.txt": ""}, base)
		head := r.commit("refs/heads/head", map[string]string{"docs/a/strict.yaml": "2", "models/odd.txt": "2",
			"docs/b.md": "2"}, base)
		m := open(t, t.TempDir(), remote)
		observe(t, m)
		list, err := m.Moved(base, main, head)
		if want := []string{"docs/a/strict.yaml", "models/odd.txt"}; err != nil || !slices.Equal(list, want) {
			t.Errorf("got %v, error %v, want %v", list, err, want)
		}
		if list, err = m.Moved(base, head, main); err != nil || len(list) > 0 {
			t.Errorf("the head removes nothing: %v, error %v", list, err)
		}
	})
}
