package git

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/delivery"
)

func TestFiles(t *testing.T) {
	both(t, func(t *testing.T, r *repo, remote Remote) {
		blob := r.gitIn(strings.NewReader("text"), "hash-object", "-w", "--stdin")
		tree := r.gitIn(strings.NewReader("100644 blob "+blob+"\tin.yaml\n"), "mktree")
		models := r.gitIn(strings.NewReader(strings.Join([]string{
			"100644 blob " + blob + "\ta.yaml",
			"100755 blob " + blob + "\tb.yaml",
			"120000 blob " + blob + "\tlink.yaml",
			"160000 commit " + strings.Repeat("1", 40) + "\tsub",
			"040000 tree " + tree + "\tfolder",
			"100644 blob " + blob + "\tfolder-1.yaml",
		}, "\n")+"\n"), "mktree", "--missing")
		root := r.gitIn(strings.NewReader(strings.Join([]string{
			"040000 tree " + models + "\tmodels",
			"100644 blob " + blob + "\tgates",
			"120000 blob " + blob + "\tfleets",
			"100644 blob " + blob + "\tREADME.md",
			"040000 tree " + tree + "\tinfra",
		}, "\n")+"\n"), "mktree")
		head := r.git("commit-tree", root, "-m", "x")
		r.git("update-ref", "refs/heads/main", head)
		m := open(t, t.TempDir(), remote)
		observe(t, m)
		got, err := m.Files(head)
		if err != nil {
			t.Fatal(err)
		}
		want := []File{
			{"fleets", fs.ModeSymlink, blob, 0},
			{"gates", 0o644, blob, 4},
			{"models/a.yaml", 0o644, blob, 4},
			{"models/b.yaml", 0o755, blob, 4},
			{"models/folder-1.yaml", 0o644, blob, 4},
			{"models/folder/in.yaml", 0o644, blob, 4},
			{"models/link.yaml", fs.ModeSymlink, blob, 0},
			{"models/sub", fs.ModeDir, strings.Repeat("1", 40), 0},
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if data, err := m.Blob(blob, 4); err != nil || string(data) != "text" {
			t.Errorf("got %q, %v", data, err)
		}
		if _, err := m.Blob(blob, 3); !errors.Is(err, ErrTooBig) {
			t.Errorf("got %v, want ErrTooBig", err)
		}
		if _, err := m.Blob(tree, MaxBlob); err == nil {
			t.Error("a tree was read as a file")
		}
		if _, err := m.Files(blob); err == nil {
			t.Error("a blob was read as a commit")
		}
	})
}

// TestHostileTrees reads trees that git would not create.
func TestHostileTrees(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	both(t, testHostileTrees)
}

func testHostileTrees(t *testing.T, r *repo, remote Remote) {
	m := open(t, t.TempDir(), remote)
	blob := r.gitIn(strings.NewReader("text"), "hash-object", "-w", "--stdin")
	put := func(tree string) string {
		return r.gitIn(strings.NewReader(tree), "hash-object", "-w", "-t", "tree", "--literally", "--stdin")
	}
	line := func(mode, name, hash string) string {
		h, _ := parseHash(hash)
		return mode + " " + name + "\x00" + string(h[:])
	}
	commit := func(models string) string {
		head := r.git("commit-tree", put(line("40000", "models", models)), "-m", "x")
		r.git("update-ref", "refs/heads/main", head)
		observe(t, m)
		return head
	}
	inner := put(line("100644", "a.yaml", blob))
	head := commit(put(line("40000", "..", inner) + line("100644", ".git", blob) + line("100644", "a\nb", blob) +
		line("777", "odd", blob)))
	files, err := m.Files(head)
	if err != nil || len(files) != 4 {
		t.Errorf("got %v, %v", files, err)
	}
	for _, f := range files {
		if f.Mode != fs.ModeIrregular || f.Size != 0 {
			t.Errorf("%q is %v", f.Path, f.Mode)
		}
	}
	for name, tree := range map[string]string{
		"cut short": "100644 a.yaml\x00abc", "no mode": " a.yaml\x00" + strings.Repeat("x", 20),
		"no name": line("100644", "", blob),
		"letters": line("1x", "a", blob), "a file as a folder": line("40000", "sub", blob),
		"slash":        line("100644", "a/b", blob),
		"not in order": line("100644", "b.yaml", blob) + line("100644", "a.yaml", blob),
		"twice":        line("100644", "a.yaml", blob) + line("100644", "a.yaml", blob),
		"a file and a folder": line("100644", "a", blob) + line("100644", "a.yaml", blob) +
			line("40000", "a", inner),
		"a folder before its file": line("40000", "a", inner) + line("100644", "a", blob),
	} {
		if m.folder == nil {
			break // git upload-pack does not send these
		}
		head := commit(put(tree))
		if files, err := m.Files(head); !isBlocked(err) {
			t.Errorf("%s: got %v, %v, want Blocked", name, files, err)
		}
		m.History(head, "models/a.yaml")
	}
	if files, err := m.Files(commit(put(line("100644", "a.yaml", inner)))); err != nil || len(files) != 1 {
		t.Errorf("a folder as a file: got %v, %v", files, err)
	} else if _, err := m.Blob(files[0].Hash, MaxBlob); !isBlocked(err) {
		t.Errorf("a folder as a file: got %v, want Blocked", err)
	}
	// Ten levels of ten folders each contain the same file ten billion times.
	bomb := inner
	for range 10 {
		var b strings.Builder
		for i := range 10 {
			b.WriteString(line("40000", fmt.Sprint("d", i), bomb))
		}
		bomb = put(b.String())
	}
	if _, err := m.Files(commit(bomb)); !isBlocked(err) {
		t.Errorf("nested folders: got %v, want Blocked", err)
	}
	var many strings.Builder
	for i := range maxFiles + 1 {
		many.WriteString(line("100644", fmt.Sprintf("f%06d", i), blob))
	}
	if _, err := m.Files(commit(put(many.String()))); !isBlocked(err) {
		t.Errorf("many files: got %v, want Blocked", err)
	}
}

func isBlocked(err error) bool {
	_, ok := errors.AsType[delivery.Blocked](err)
	return ok
}

// TestTreesOutOfOrderAreRefused reads heads whose trees are not sorted. git merge of such a head drops changes of main,
// which no diff of the head shows.
func TestTreesOutOfOrderAreRefused(t *testing.T) {
	both(t, func(t *testing.T, r *repo, remote Remote) {
		m := open(t, t.TempDir(), remote)
		write := func(kind, text string, args ...string) string {
			return r.gitIn(strings.NewReader(text), append([]string{"hash-object", "-w", "-t", kind, "--stdin"},
				args...)...)
		}
		line := func(mode, name, hash string) string {
			h, _ := parseHash(hash)
			return mode + " " + name + "\x00" + string(h[:])
		}
		folder := func(text string) string { return write("tree", line("100644", "a.yaml", write("blob", text))) }
		fleets, gates, models, raised := folder("fleet"), folder("low"), folder("model"), folder("high")
		root := func(lines ...string) string { return write("tree", strings.Join(lines, ""), "--literally") }
		base := r.git("commit-tree", "-m", "base",
			root(line("40000", "fleets", fleets), line("40000", "gates", gates), line("40000", "models", models)))
		main := r.git("commit-tree", "-m", "raise", "-p", base,
			root(line("40000", "fleets", fleets), line("40000", "gates", raised), line("40000", "models", models)))
		lines := []string{line("40000", "fleets", fleets), line("40000", "gates", gates), line("40000", "models",
			models)}
		for _, order := range [][3]int{{0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
			head := r.git("commit-tree", "-m", "notes", "-p", base, root(lines[order[0]], lines[order[1]],
				lines[order[2]]))
			r.git("update-ref", "refs/heads/main", main)
			r.git("update-ref", "refs/heads/notes", head)
			observe(t, m)
			if files, err := m.Files(head); !isBlocked(err) {
				t.Errorf("order %v: got %v, %v, want Blocked", order, files, err)
			}
			if _, err := m.Files(main); err != nil {
				t.Errorf("main: %v", err)
			}
		}
	})
}

// A graph is a random history with merges and wrong dates.
type graph struct {
	names   []string            // of all files
	commits []string            // the commits, parents before children
	parents [][]int             // of each commit
	states  []map[string]string // the files of each commit
}

func randomGraph(r *repo, rnd *rand.Rand) graph {
	const n = 120
	g := graph{commits: make([]string, n), parents: make([][]int, n), states: make([]map[string]string, n),
		names: []string{"models/a.yaml", "models/b.yaml", "models/c.release.yaml", "gates/a.yaml", "gates/b.yaml",
			"README", "models/in/deep.yaml"}}
	var script strings.Builder
	for i := range n {
		if i > 0 {
			for range min(1+rnd.IntN(3)/2+rnd.IntN(8)/7, i) {
				if p := max(0, i-1-rnd.IntN(12)); !slices.Contains(g.parents[i], p) {
					g.parents[i] = append(g.parents[i], p)
				}
			}
		}
		fmt.Fprintf(&script, "commit refs/heads/n%d\nmark :%d\ncommitter A <a@example.com> %d +0000\ndata 1\nx\n", i, i+
			1, 1_700_000_000+60*(i+rnd.IntN(9)))
		now := map[string]string{}
		for j, p := range g.parents[i] {
			fmt.Fprintf(&script, "%s :%d\n", []string{"from", "merge"}[min(j, 1)], p+1)
			if j == 0 {
				maps.Copy(now, g.states[p])
			}
		}
		for range rnd.IntN(3) {
			name := g.names[rnd.IntN(len(g.names))]
			// There are few contents, so that files also return to earlier ones.
			if text := fmt.Sprint(rnd.IntN(4)); text != "0" {
				fmt.Fprintf(&script, "M 100644 inline %s\ndata %d\n%s\n", name, len(text), text)
				now[name] = text
			} else if now[name] != "" {
				fmt.Fprintf(&script, "D %s\n", name)
				delete(now, name)
			}
		}
		g.states[i] = now
		script.WriteByte('\n')
	}
	r.gitIn(strings.NewReader(script.String()), "fast-import", "--quiet")
	refs := map[string]string{}
	for line := range strings.Lines(r.git("for-each-ref", "--format=%(refname:lstrip=2) %(objectname)")) {
		name, commit, _ := strings.Cut(strings.TrimSpace(line), " ")
		refs[name] = commit
	}
	for i := range g.commits {
		g.commits[i] = refs[fmt.Sprint("n", i)]
	}
	return g
}

// versions returns the versions of a file in the history of a commit, by commit. line is its line of first parents.
func (g graph) versions(at int, name string, line []string) map[string]FileVersion {
	blob := func(text string) string {
		if text == "" {
			return ""
		}
		return plumbing.ComputeHash(plumbing.BlobObject, []byte(text)).String()
	}
	reach := map[int]bool{at: true}
	for i := at; i >= 0; i-- {
		for _, p := range g.parents[i] {
			reach[p] = reach[p] || reach[i]
		}
	}
	versions := map[string]FileVersion{}
	for i, reached := range reach {
		side := !slices.Contains(line, g.commits[i])
		v := FileVersion{Commit: g.commits[i], Blob: blob(g.states[i][name]), Side: side}
		before := ""
		if len(g.parents[i]) > 0 {
			v.Parent = g.commits[g.parents[i][0]]
			before = g.states[g.parents[i][0]][name]
		}
		if reached && g.states[i][name] != before {
			versions[v.Commit] = v
		}
	}
	return versions
}

// TestGraph compares the results for a random history with git's.
func TestGraph(t *testing.T) {
	r := newRepo(t)
	rnd := rand.New(rand.NewPCG(7, 7))
	g := randomGraph(r, rnd)
	m := open(t, t.TempDir(), serve(t, r).remote())
	observe(t, m)
	for _, at := range []int{0, 3, 40, 80, 119} {
		head := g.commits[at]
		line := strings.Fields(r.git("rev-list", "--first-parent", head))
		t.Run(fmt.Sprint("files of n", at), func(t *testing.T) {
			var want, got []string
			for line := range strings.Lines(r.git("ls-tree", "-r", "-l", head, "models", "gates", "fleets")) {
				f := strings.Fields(line)
				want = append(want, fmt.Sprintf("%s %s %s %s", f[0], f[2], f[3], f[4]))
			}
			for _, f := range must(m.Files(head)) {
				got = append(got, fmt.Sprintf("100644 %s %d %s", f.Hash, f.Size, f.Path))
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
		for _, name := range g.names {
			t.Run(fmt.Sprintf("history of %s at n%d", name, at), func(t *testing.T) {
				got, err := m.History(head, name)
				if name == "README" || name == "models/in/deep.yaml" {
					if err == nil {
						t.Error("no error")
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				byCommit := map[string]FileVersion{}
				for i, v := range got {
					if i > 0 && v.Order <= got[i-1].Order {
						t.Errorf("%+v after %+v", v, got[i-1])
					}
					v.Order = 0
					byCommit[v.Commit] = v
					for _, older := range got[i+1:] {
						if ancestor, _ := m.IsAncestor(v.Commit, older.Commit); ancestor {
							t.Errorf("%s comes before its descendant", v.Commit)
						}
					}
				}
				if d := cmp.Diff(g.versions(at, name, line), byCommit); d != "" || len(byCommit) != len(got) {
					t.Error(d)
				}
			})
		}
		t.Run(fmt.Sprint("first parents of n", at), func(t *testing.T) {
			if got, err := m.FirstParents(head, 1000); err != nil || !slices.Equal(got, line) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	for range 60 {
		a, b := g.commits[rnd.IntN(len(g.commits))], g.commits[rnd.IntN(len(g.commits))]
		t.Run(fmt.Sprintf("%.7s and %.7s", a, b), func(t *testing.T) {
			want := strings.Fields(r.try("merge-base", "--all", a, b))
			got, err := m.MergeBases(a, b)
			if err != nil || !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
				t.Errorf("merge bases: got %s, %v; want %v", got, err, want)
			}
			if back, _ := m.MergeBases(b, a); !slices.Equal(back, got) {
				t.Errorf("merge bases: %s, and in the other order %s", got, back)
			}
			ancestor, err := m.IsAncestor(a, b)
			if want := slices.Contains(want, a); err != nil || ancestor != want {
				t.Errorf("IsAncestor: got %v, %v", ancestor, err)
			}
		})
	}
	t.Run("at most two first parents", func(t *testing.T) {
		if got, err := m.FirstParents(g.commits[100], 2); err != nil || len(got) > 2 {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("no common history", func(t *testing.T) {
		one := r.commit("refs/heads/alone", map[string]string{"x": "y"})
		observe(t, m)
		if got, err := m.MergeBases(one, g.commits[50]); err != nil || len(got) != 0 {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// try runs git and returns its output. It ignores errors.
func (r *repo) try(args ...string) string {
	out, _ := exec.Command("git", append([]string{"-C", r.dir}, args...)...).Output()
	return strings.TrimSpace(string(out))
}

func TestPeople(t *testing.T) {
	r := newRepo(t)
	m := open(t, t.TempDir(), Remote{URL: r.dir})
	tree := r.gitIn(nil, "mktree")
	for _, tt := range []struct{ author, message, name, email, subject string }{
		{"Ada L. <ada@example.com> 1700000000 +0200", "  \n\nFirst line \nSecond\n\nBody", "Ada L.", "ada@example.com",
			"First line"},
		{"<> 1 +0000", "", "", "", ""},
		{"A <b> C <d@e> 99999999999999999999 +0000", "x", "A", "b> C <d@e", "x"},
		{"nobody", "\xff\xfe", "nobody", "", "\uFFFD"},
	} {
		raw := "tree " + tree + "\nauthor " + tt.author + "\ncommitter " + tt.author + "\n\n" + tt.message
		h := r.gitIn(strings.NewReader(raw), "hash-object", "-w", "-t", "commit", "--literally", "--stdin")
		subject, err := m.Subject(h)
		if err != nil || subject != tt.subject {
			t.Errorf("%q: subject %q, %v", raw, subject, err)
		}
		name, email, _, err := m.Author(h)
		if err != nil || name != tt.name || email != tt.email {
			t.Errorf("%q: author %q %q, %v", raw, name, email, err)
		}
		if _, err := m.FirstParents(h, 1); err != nil {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

func FuzzTree(f *testing.F) {
	f.Add([]byte("100644 a.yaml\x0012345678901234567890"), []byte("40000 a\x0012345678901234567890"))
	f.Add([]byte("100644 a"), []byte(" "))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		list, err := entries(a)
		if err == nil {
			for _, e := range list {
				e.fileMode()
			}
			if again, err := entries(encodeTree(slices.Clone(list))); err != nil || len(again) != len(list) {
				t.Errorf("encoded and parsed again: %v, %v", again, err)
			}
			if changes, err := diff(a, a); err != nil || len(changes) != 0 {
				t.Errorf("a tree differs from itself: %v, %v", changes, err)
			}
		}
		diff(a, b)
	})
}

func FuzzCommit(f *testing.F) {
	f.Add(
		[]byte("tree 1111111111111111111111111111111111111111\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx"))
	f.Add([]byte("tree \ncommitter <\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseCommit([20]byte{}, data)
		if err == nil && c.tree.IsZero() {
			t.Error("a commit without a tree")
		}
		parsePerson(data)
	})
}

func FuzzPack(f *testing.F) {
	w := writer{}
	w.object(3, []byte("one"))
	w.object(3, bytes.Repeat([]byte("one"), 100))
	w.object(3, append(bytes.Repeat([]byte("one"), 100), 'x'))
	data := must(encode(w.objects, 10))
	f.Add(data)
	f.Add(data[:len(data)-9])
	f.Fuzz(func(t *testing.T, data []byte) {
		checkPack(bytes.NewReader(data), pullBounds)
		s := newStore(t.TempDir(), false)
		must(0, mkdirs(s.dir))
		rec, err := s.receive(t.Context(), bytes.NewReader(data), branchBounds)
		if err == nil {
			if err := s.add(rec); err != nil {
				t.Error(err)
			}
		}
		s.close()
	})
}
