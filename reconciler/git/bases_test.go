package git

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestAllMergeBases compares MergeBases with `git merge-base --all` on random histories:
// criss-cross merges, octopus merges, several roots, and wrong commit dates.
func TestAllMergeBases(t *testing.T) {
	for seed := range uint64(4) {
		r := newRepo(t)
		rnd := rand.New(rand.NewPCG(seed, 11))
		const n = 40
		var script strings.Builder
		for i := range n {
			fmt.Fprintf(&script, "commit refs/heads/n%d\nmark :%d\ncommitter A <a@example.com> %d +0000\ndata %d\n%d\n",
				i, i+1, 1_700_000_000+rnd.IntN(1000), len(fmt.Sprint(i)), i)
			var parents []int
			if i > 3 || i > 0 && rnd.IntN(2) == 0 { // else a root
				for range 1 + rnd.IntN(4)*rnd.IntN(2) {
					if p := max(0, i-1-rnd.IntN(6)); !slices.Contains(parents, p) {
						parents = append(parents, p)
					}
				}
			}
			for j, p := range parents {
				fmt.Fprintf(&script, "%s :%d\n", []string{"from", "merge"}[min(j, 1)], p+1)
			}
			script.WriteByte('\n')
		}
		r.gitIn(strings.NewReader(script.String()), "fast-import", "--quiet")
		m := open(t, t.TempDir(), Remote{URL: r.dir})
		refs, _ := observe(t, m)
		several, none := 0, 0
		for i := range n {
			for j := range 2 {
				a, b := refs[fmt.Sprintf("refs/heads/n%d", i)],
					refs[fmt.Sprintf("refs/heads/n%d", max(0, i-j-rnd.IntN(4)))]
				want := strings.Fields(r.try("merge-base", "--all", a, b))
				got, err := m.MergeBases(a, b)
				if err != nil || !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
					t.Fatalf("seed %d: %s and %s: got %v, %v; git returns %v", seed, a, b, got, err, want)
				}
				for k := range len(got) - 1 {
					if newest(m.commits[must(hash(got[k]))], m.commits[must(hash(got[k+1]))]) > 0 {
						t.Errorf("seed %d: %v is not sorted by time, newest first", seed, got)
					}
				}
				if len(want) > 1 {
					several++
				}
				if len(want) == 0 {
					none++
				}
			}
		}
		t.Logf("seed %d: %d pairs with several, %d with none", seed, several, none)
	}
}

// TestCrissCrossHistoryHasTwoBases uses the history of a pull request that reverts a merge
// into main: `git checkout M1; git merge -s ours b2`.
func TestCrissCrossHistoryHasTwoBases(t *testing.T) {
	both(t, func(t *testing.T, r *repo, remote Remote) {
		root := r.commit("refs/heads/main", map[string]string{"gates/g.yaml": "0.1"})
		b1 := r.commit("refs/heads/b1", map[string]string{"README.md": "1"}, root)
		m1 := r.commit("refs/heads/main", map[string]string{"README.md": "1"}, root, b1)
		b2 := r.commit("refs/heads/b2", map[string]string{"gates/g.yaml": "0.5"}, root)
		main := r.commit("refs/heads/main", map[string]string{"gates/g.yaml": "0.5"}, m1, b2)
		evil := r.commit("refs/heads/evil", map[string]string{"NOTES.md": "x"}, m1, b2)
		m := open(t, t.TempDir(), remote)
		observe(t, m)
		want := []string{b2, m1} // b2 is the newer one
		if got, err := m.MergeBases(evil, main); err != nil || !slices.Equal(got, want) {
			t.Errorf("got %v, %v; want %v", got, err, want)
		}
		if got, err := m.MergeBases(b2, main); err != nil || !slices.Equal(got, []string{b2}) {
			t.Errorf("an ancestor: got %v, %v", got, err)
		}
		if got, err := m.MergeBases(main, main); err != nil || !slices.Equal(got, []string{main}) {
			t.Errorf("the same commit: got %v, %v", got, err)
		}
	})
}
