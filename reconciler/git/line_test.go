package git

import (
	"slices"
	"testing"
)

// Line follows first parents: it contains the change of a merge, and not the intermediate
// commits of the merged branch.
func TestLine(t *testing.T) {
	both(t, func(t *testing.T, r *repo, remote Remote) {
		root := r.commit("refs/heads/main", map[string]string{"gates/g.yaml": "1"})
		side := r.commit("refs/heads/side", map[string]string{"gates/g.yaml": "2"}, root)
		again := r.commit("refs/heads/side", map[string]string{"gates/g.yaml": "1", "gates/h.yaml": "1"}, side)
		note := r.commit("refs/heads/main", map[string]string{"README.md": "x"}, root)
		merge := r.commit("refs/heads/main", map[string]string{"gates/g.yaml": "1", "gates/h.yaml": "1"}, note, again)
		main := r.commit("refs/heads/main", map[string]string{"gates/g.yaml": ""}, merge)
		m := open(t, t.TempDir(), remote)
		observe(t, m)
		list, reached, err := m.Line(main, "", "gates", 100)
		if err != nil || reached || len(list) != 3 {
			t.Fatalf("got %v, %v, %v; want three changes", list, reached, err)
		}
		for i, want := range []string{main, merge, root} {
			if list[i].Commit != want {
				t.Errorf("change %d is of %s, want %s", i, list[i].Commit, want)
			}
		}
		if blob, removed := list[0].Files["g.yaml"]; !removed || blob != "" || list[0].Parent != merge {
			t.Errorf("the removal: %+v", list[0])
		}
		if list[1].Files["h.yaml"] == "" || len(list[1].Files) != 1 || !slices.Equal(list[1].Others, []string{again}) {
			t.Errorf("the merge: %+v", list[1])
		}
		if list, reached, err := m.Line(main, note, "gates", 100); err != nil || !reached || len(list) != 2 {
			t.Errorf("down to %s: %v, %v, %v", note, list, reached, err)
		}
		if list, reached, err := m.Line(main, again, "gates", 2); err != nil || reached || len(list) != 2 {
			t.Errorf("two commits: %v, %v, %v", list, reached, err)
		}
	})
}
