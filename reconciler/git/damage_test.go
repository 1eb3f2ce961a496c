package git

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// write writes a file of the repository.
func (r *repo) write(name, text string) {
	r.t.Helper()
	path := filepath.Join(r.dir, filepath.FromSlash(name))
	must(0, os.MkdirAll(filepath.Dir(path), 0o700))
	os.Chmod(path, 0o600)
	must(0, os.WriteFile(path, []byte(text), 0o600))
}

func wantBlocked(t *testing.T, err error, parts ...string) {
	t.Helper()
	if !isBlocked(err) {
		t.Fatalf("got %v, want Blocked", err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("got %q, want %q in it", err, part)
		}
	}
}

// TestDamagedRefIsNotMissing damages main's file as power cuts do. An older value in
// packed-refs must not be used, and other branches must be read.
func TestDamagedRefIsNotMissing(t *testing.T) {
	for name, text := range map[string]string{
		"empty":          "",
		"line ends":      "\n\n",
		"zero bytes":     strings.Repeat("\x00", 41),
		"cut short":      "1234567890",
		"text":           "hello, world\n",
		"too long":       strings.Repeat("1", 41) + "\n",
		"hash of zeros":  strings.Repeat("0", 40) + "\n",
		"SHA-256":        strings.Repeat("1", 64) + "\n",
		"much too long":  strings.Repeat("1", 1<<20),
		"symref to none": "ref: refs/heads/nowhere\n",
		"symref to self": "ref: refs/heads/main\n",
		"symref outside": "ref: ../../secret\n",
		"symref, empty":  "ref: \n",
		"lost commit":    strings.Repeat("12345678", 5) + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t)
			old := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
			r.git("pack-refs", "--all")
			last := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "2"})
			side := r.commit("refs/heads/side", map[string]string{"models/a.yaml": "3"}, old)
			r.git("pack-refs", "--no-prune")
			r.write("packed-refs", "# pack-refs with: peeled fully-peeled sorted \n"+old+" refs/heads/main\n")
			m := open(t, t.TempDir(), Remote{URL: r.dir})
			observe(t, m)
			r.write("refs/heads/main", text)
			refs, changed := observe(t, m)
			if at, there := refs["refs/heads/main"]; there || !changed {
				t.Fatalf("main is at %s, changed %v", at, changed)
			}
			if refs["refs/heads/side"] != side {
				t.Errorf("the other branch: got %v", refs)
			}
			err := m.Missing("refs/heads/main")
			wantBlocked(t, err, "refs/heads/main")
			if _, ok := m.Unreadable()["refs/heads/main"]; !ok || len(m.Unreadable()) != 1 {
				t.Errorf("unreadable: got %v", m.Unreadable())
			}
			if name != "lost commit" && !strings.Contains(err.Error(), filepath.Join(r.dir, "refs/heads/main")) {
				t.Errorf("%q does not contain the file", err)
			}
			if _, err := m.At(t.Context(), "refs/heads/main"); err == nil && name != "lost commit" {
				t.Error("At: no error")
			}
			if refs, changed := observe(t, m); changed || len(refs) != 1 {
				t.Errorf("again: got %v, %v", refs, changed)
			}
			// A mirror that has never read the ref returns the same error.
			fresh := open(t, t.TempDir(), Remote{URL: r.dir})
			observe(t, fresh)
			wantBlocked(t, fresh.Missing("refs/heads/main"), "refs/heads/main")
			// Following the hint repairs it.
			r.write("refs/heads/main", last+"\n")
			if refs, changed := observe(t, m); !changed || refs["refs/heads/main"] != last || len(m.Unreadable()) != 0 {
				t.Errorf("repaired: got %v, %v, %v", refs, changed, m.Unreadable())
			}
			if err := m.Missing("refs/heads/main"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDamagedBranches checks that several damaged branches do not prevent main from being read.
func TestDamagedBranches(t *testing.T) {
	r := newRepo(t)
	main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	good := r.commit("refs/heads/good", map[string]string{"models/a.yaml": "2"}, main)
	bad := r.commit("refs/heads/bad", map[string]string{"models/a.yaml": "3"}, main)
	m := open(t, t.TempDir(), Remote{URL: r.dir})
	observe(t, m)
	r.write("refs/heads/bad", "")
	r.write("refs/heads/broken", strings.Repeat("12345678", 5))
	r.write("refs/heads/in/a/folder", "\x00")
	must(0, os.Symlink("/no/such/file", filepath.Join(r.dir, "refs/heads/link")))
	refs, _ := observe(t, m)
	if refs["refs/heads/main"] != main || refs["refs/heads/good"] != good || len(refs) != 2 {
		t.Errorf("got %v", refs)
	}
	for _, name := range []string{"bad", "broken", "in/a/folder", "link"} {
		if b, ok := m.Unreadable()["refs/heads/"+name]; !ok || !strings.Contains(b.What, name) || b.Do == "" {
			t.Errorf("%s: got %v", name, b)
		}
	}
	r.git("update-ref", "-d", "refs/heads/broken")
	r.write("refs/heads/bad", bad)
	observe(t, m)
	if got := len(m.Unreadable()); got != 2 {
		t.Errorf("%d are unreadable: %v", got, m.Unreadable())
	}
}

// TestDamagedPackedRefs checks that no ref of a damaged packed-refs file is used, as in git,
// and that loose refs are read.
func TestDamagedPackedRefs(t *testing.T) {
	for name, damage := range map[string]func(string) string{
		"cut in a line": func(s string) string { return s[:len(s)-7] },
		"no last end":   func(s string) string { return strings.TrimSuffix(s, "\n") },
		"zero bytes":    func(s string) string { return s[:len(s)-30] + strings.Repeat("\x00", 30) },
		"all zeros":     func(s string) string { return strings.Repeat("\x00", len(s)) },
		"a bad hash": func(s string) string {
			return strings.Replace(s, " refs/heads/side", "x refs/heads/side", 1)
		},
		"CRLF": func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
		"text": func(string) string { return "<html>login</html>\n" },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t)
			main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
			r.commit("refs/heads/side", map[string]string{"models/a.yaml": "2"}, main)
			r.git("pack-refs", "--all")
			loose := r.commit("refs/heads/loose", map[string]string{"models/a.yaml": "3"}, main)
			r.write("packed-refs", damage(string(must(os.ReadFile(filepath.Join(r.dir, "packed-refs"))))))
			m := open(t, t.TempDir(), Remote{URL: r.dir})
			refs, _ := observe(t, m)
			if len(refs) != 1 || refs["refs/heads/loose"] != loose {
				t.Errorf("got %v", refs)
			}
			wantBlocked(t, m.Missing("refs/heads/main"), filepath.Join(r.dir, "packed-refs"), "line")
			if len(m.Unreadable()) == 0 {
				t.Error("nothing is unreadable")
			}
			// A loose main is read in spite of the damaged packed-refs.
			r.write("refs/heads/main", main+"\n")
			if refs, _ := observe(t, m); refs["refs/heads/main"] != main {
				t.Errorf("loose main: got %v", refs)
			}
		})
	}
}

// TestLooseRefsAsInGit compares the parsing of loose refs with git's.
func TestLooseRefsAsInGit(t *testing.T) {
	r := newRepo(t)
	main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	m := open(t, t.TempDir(), Remote{URL: r.dir})
	for _, text := range []string{
		main, main + "\n", main + "  \n\n", strings.ToUpper(main) + "\n", main + " and more\n", main + "\tx", main +
			"x", " " + main,
		"ref: refs/heads/main\n", "ref:refs/heads/main", "ref:  refs/heads/main  \n", "Ref: refs/heads/main",
		"ref: refs/heads/none",
		main[:39], "", "\n", strings.Repeat("0", 40),
	} {
		r.write("refs/heads/x", text)
		want := r.try("rev-parse", "--verify", "--quiet", "refs/heads/x")
		if strings.Trim(want, "0") == "" {
			want = "" // git prints a hash of zeros and treats the ref as broken
		}
		refs, _ := observe(t, m)
		if got := refs["refs/heads/x"]; got != want {
			t.Errorf("%q: got %q, git returns %q; %v", text, got, want, m.Unreadable())
		}
		if _, bad := m.Unreadable()["refs/heads/x"]; bad != (want == "") {
			t.Errorf("%q: unreadable is %v", text, bad)
		}
	}
}

// TestSymbolicMain has main as a symbolic ref to another branch.
func TestSymbolicMain(t *testing.T) {
	both(t, func(t *testing.T, r *repo, remote Remote) {
		trunk := r.commit("refs/heads/trunk", map[string]string{"models/a.yaml": "1"})
		r.git("symbolic-ref", "refs/heads/main", "refs/heads/trunk")
		m := open(t, t.TempDir(), remote)
		if refs, _ := observe(t, m); refs["refs/heads/main"] != trunk || refs["refs/heads/trunk"] != trunk {
			t.Errorf("got %v", refs)
		}
		r.git("pack-refs", "--all")
		next := r.commit("refs/heads/trunk", map[string]string{"models/a.yaml": "2"})
		if refs, _ := observe(t, m); refs["refs/heads/main"] != next {
			t.Errorf("after a push: got %v", refs)
		}
		c := must(m.Commit([]string{next}, map[string][]byte{"models/a.yaml": []byte("3")}, committed, "x"))
		if err := m.Push(t.Context(), c, "refs/heads/main", next); err != nil {
			t.Error(err)
		}
		if got := r.git("rev-parse", "trunk"); got != c {
			t.Errorf("trunk is at %s, want %s", got, c)
		}
	})
	// Old versions of git wrote symbolic links.
	r := newRepo(t)
	trunk := r.commit("refs/heads/trunk", map[string]string{"models/a.yaml": "1"})
	must(0, os.Symlink("refs/heads/trunk", filepath.Join(r.dir, "refs/heads/main")))
	m := open(t, t.TempDir(), Remote{URL: r.dir})
	if refs, _ := observe(t, m); refs["refs/heads/main"] != trunk || r.git("rev-parse", "main") != trunk {
		t.Errorf("a symbolic link: got %v", refs)
	}
}

// TestMissingMain checks that the error lists the branch of HEAD or the existing branches.
func TestMissingMain(t *testing.T) {
	both(t, func(t *testing.T, r *repo, remote Remote) {
		m := open(t, t.TempDir(), remote)
		observe(t, m)
		if err := m.Missing("refs/heads/main"); err != nil {
			t.Errorf("an empty repository: %v", err)
		}
		r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
		observe(t, m)
		r.git("branch", "-m", "main", "trunk")
		observe(t, m)
		wantBlocked(t, m.Missing("refs/heads/main"), "no branch main", "HEAD names trunk", "main: trunk")
		r.git("symbolic-ref", "HEAD", "refs/heads/main")
		r.git("branch", "again", "trunk")
		observe(t, m)
		wantBlocked(t, m.Missing("refs/heads/main"), "no branch main", "trunk", "again")
	})
}

// TestUnsupportedRepositories checks the errors of repositories that aob does not support.
func TestUnsupportedRepositories(t *testing.T) {
	fill := func(r *repo) { r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"}) }
	for _, tt := range []struct {
		name string
		make func(t *testing.T, r *repo) // fills or replaces r.dir
		http bool                        // the error also occurs over HTTP
		want string
	}{
		{"SHA-256", func(t *testing.T, r *repo) {
			must(0, os.RemoveAll(r.dir))
			must(0, os.MkdirAll(r.dir, 0o700))
			r.git("init", "-q", "--bare", "-b", "main", "--object-format=sha256")
			fill(r)
		}, true, "SHA-256"},
		{"empty SHA-256", func(t *testing.T, r *repo) {
			must(0, os.RemoveAll(r.dir))
			must(0, os.MkdirAll(r.dir, 0o700))
			r.git("init", "-q", "--bare", "-b", "main", "--object-format=sha256")
		}, false, "SHA-256"}, // over HTTP, git does not tell the format of an empty repository
		{"shallow", func(t *testing.T, r *repo) {
			from := newRepo(t)
			fill(from)
			fill(from)
			must(0, os.RemoveAll(r.dir))
			from.git("clone", "-q", "--bare", "--depth", "1", "file://"+from.dir, r.dir)
		}, true, "shallow"},
		{"partial clone", func(t *testing.T, r *repo) {
			from := newRepo(t)
			fill(from)
			must(0, os.RemoveAll(r.dir))
			from.git("clone", "-q", "--bare", "--filter=blob:none", "file://"+from.dir, r.dir)
		}, false, "partial clone"},
		{"HEAD is empty", func(t *testing.T, r *repo) { fill(r); r.write("HEAD", "") }, false, "HEAD"},
		{"HEAD is gone", func(t *testing.T, r *repo) { fill(r); os.Remove(filepath.Join(r.dir, "HEAD")) }, false,
			"has no HEAD"},
		{"no refs", func(t *testing.T, r *repo) { fill(r); os.RemoveAll(filepath.Join(r.dir, "refs")) }, false,
			"has no refs"},
		{"no objects", func(t *testing.T, r *repo) { fill(r); os.RemoveAll(filepath.Join(r.dir, "objects")) }, false,
			"has no objects"},
		{"config is zeros", func(t *testing.T, r *repo) { fill(r); r.write("config", strings.Repeat("\x00", 60)) },
			false, "config"},
		{"a reftable", func(t *testing.T, r *repo) {
			fill(r)
			r.write("config", "[core]\n\trepositoryformatversion = 1\n[extensions]\n\trefstorage = reftable\n")
		}, false, "reftable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRepo(t)
			tt.make(t, r)
			m := open(t, t.TempDir(), Remote{URL: r.dir})
			_, _, err := m.Observe(t.Context())
			wantBlocked(t, err, tt.want)
			if !tt.http {
				return
			}
			r.git("config", "http.receivepack", "true")
			m = open(t, t.TempDir(), serve(t, r).remote())
			_, _, err = m.Observe(t.Context())
			wantBlocked(t, err, tt.want)
		})
	}
}

// TestAlternates reads objects of alternates.
func TestAlternates(t *testing.T) {
	one := newRepo(t)
	base := one.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	two := &repo{t, filepath.Join(t.TempDir(), "two.git")}
	one.git("clone", "-q", "--bare", "--shared", one.dir, two.dir)
	middle := two.commit("refs/heads/main", map[string]string{"models/a.yaml": "2"})
	three := &repo{t, filepath.Join(t.TempDir(), "three.git")}
	two.git("clone", "-q", "--bare", "--shared", two.dir, three.dir)
	relative := must(filepath.Rel(filepath.Join(three.dir, "objects"), filepath.Join(two.dir, "objects")))
	for name, text := range map[string]string{
		"absolute": filepath.Join(two.dir, "objects") + "\n",
		"relative": "# a comment\n\n" + relative + "\n",
		"quoted":   `"` + strings.Replace(filepath.Join(two.dir, "objects"), "two", `\164wo`, 1) + `"` + "\n",
		"no end":   filepath.Join(two.dir, "objects"),
		"twice": filepath.Join(two.dir, "objects") + "\n" + filepath.Join(one.dir, "objects") + "\n" +
			filepath.Join(three.dir, "objects") + "\n",
	} {
		for _, packed := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " ", packed), func(t *testing.T) {
				if packed {
					one.git("repack", "-adq")
				}
				three.write("objects/info/alternates", text)
				if got := three.try("log", "--format=%H", "main"); got != middle+"\n"+base {
					t.Fatalf("git does not read it: %q", got)
				}
				m := open(t, t.TempDir(), Remote{URL: three.dir})
				if refs, _ := observe(t, m); refs["refs/heads/main"] != middle {
					t.Fatalf("got %v, %v", refs, m.Unreadable())
				}
				if line, err := m.FirstParents(middle, 9); err != nil || !slices.Equal(line, []string{middle, base}) {
					t.Errorf("got %v, %v", line, err)
				}
				for _, c := range []string{middle, base} {
					files, err := m.Files(c)
					if err != nil || len(files) != 1 {
						t.Fatalf("got %v, %v", files, err)
					}
					if _, err := m.Blob(files[0].Hash, 9); err != nil {
						t.Error(err)
					}
				}
				c := must(m.Commit([]string{middle}, map[string][]byte{"models/a.yaml": []byte("3")}, committed, name+
					fmt.Sprint(packed)))
				if err := m.Push(t.Context(), c, "refs/heads/next", ""); err != nil {
					t.Fatal(err)
				}
				three.git("fsck", "--strict", "--no-dangling")
				three.git("update-ref", "-d", "refs/heads/next")
			})
		}
	}
	t.Run("lost", func(t *testing.T) {
		three.write("objects/info/alternates", "/no/such/folder\n")
		m := open(t, t.TempDir(), Remote{URL: three.dir})
		observe(t, m)
		wantBlocked(t, m.Missing("refs/heads/main"), "alternates", "/no/such/folder")
	})
	t.Run("endless", func(t *testing.T) {
		a := newRepo(t)
		head := a.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
		a.write("objects/info/alternates", filepath.Join(a.dir, "objects")+"\n")
		m := open(t, t.TempDir(), Remote{URL: a.dir})
		if refs, _ := observe(t, m); refs["refs/heads/main"] != head {
			t.Errorf("got %v", refs)
		}
	})
}

// TestMissingObjects removes objects from a repository: after a power cut, there can be a ref
// whose objects were never written.
func TestMissingObjects(t *testing.T) {
	r := newRepo(t)
	r.git("config", "fastimport.unpackLimit", "1000")
	main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	bad := r.commit("refs/heads/bad", map[string]string{"models/b.yaml": "2"}, main)
	object := func(h string) string { return filepath.Join(r.dir, "objects", h[:2], h[2:]) }
	lose := func(h string) func() {
		text := must(os.ReadFile(object(h)))
		must(0, os.Remove(object(h)))
		return func() { must(0, os.WriteFile(object(h), text, 0o600)) }
	}
	restore := lose(bad)
	m := open(t, t.TempDir(), Remote{URL: r.dir})
	if refs, _ := observe(t, m); len(refs) != 1 || refs["refs/heads/main"] != main {
		t.Errorf("got %v", refs)
	}
	if b := m.Unreadable()["refs/heads/bad"]; !strings.Contains(b.What, bad[:10]) || !strings.Contains(b.What, "bad") {
		t.Errorf("got %v", b)
	}
	restore()
	if refs, changed := observe(t, m); !changed || refs["refs/heads/bad"] != bad {
		t.Errorf("after restoring the object: got %v, %v", refs, changed)
	}
	tree := r.git("rev-parse", bad+"^{tree}")
	defer lose(tree)()
	if _, err := m.Files(bad); !isBlocked(err) || !strings.Contains(err.Error(), tree[:10]) {
		t.Errorf("a missing tree: got %v", err)
	}
	if _, err := m.Files(main); err != nil {
		t.Errorf("main: %v", err)
	}
	// Content that does not match the hash is damage too.
	blob := r.git("rev-parse", main+":models/a.yaml")
	other := r.gitIn(strings.NewReader("something else"), "hash-object", "-w", "--stdin")
	os.Chmod(object(blob), 0o600)
	must(0, os.WriteFile(object(blob), must(os.ReadFile(object(other))), 0o600))
	if data, err := m.Blob(blob, 99); err == nil {
		t.Errorf("damaged content was read: %q", data)
	}
}

// TestMalformedCommits compares the parsing of commits that git would not create with git's.
// A commit that cannot be parsed gives a TreeError.
func TestMalformedCommits(t *testing.T) {
	r := newRepo(t)
	main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	other := r.commit("refs/heads/other", map[string]string{"models/a.yaml": "2"}, main)
	tree, second := r.git("rev-parse", main+"^{tree}"), r.git("rev-parse", other+"^{tree}")
	who := " a <a@x> 1764000000 +0000\n"
	for name, raw := range map[string]string{
		"no committer": "tree " + tree + "\nparent " + main + "\nauthor" + who + "\nx\n",
		"no author":    "tree " + tree + "\nparent " + main + "\ncommitter" + who + "\nx\n",
		"nobody":       "tree " + tree + "\n\nx\n",
		"no message":   "tree " + tree + "\nparent " + main + "\nauthor" + who + "committer" + who,
		"two trees": "tree " + tree + "\ntree " + second + "\nparent " + main + "\nauthor" + who +
			"committer" + who + "\nx\n",
		"late parent": "tree " + tree + "\nauthor" + who + "parent " + main + "\ncommitter" + who + "\nx\n",
		"second parent late": "tree " + tree + "\nparent " + main + "\nauthor" + who + "parent " + other +
			"\ncommitter" + who + "\nx\n",
		"parent in capitals": "tree " + tree + "\nparent " + strings.ToUpper(main) + "\nauthor" + who + "committer" +
			who + "\nx\n",
		"encoding first":       "encoding latin1\ntree " + tree + "\nauthor" + who + "committer" + who + "\nx\n",
		"parent first":         "parent " + main + "\ntree " + tree + "\nauthor" + who + "committer" + who + "\nx\n",
		"parent that is short": "tree " + tree + "\nparent 1234\nauthor" + who + "committer" + who + "\nx\n",
		"far future": "tree " + tree + "\nparent " + main +
			"\nauthor a <a@x> 99999999999999999999 +0000\ncommitter a <a@x> 99999999999999999999 +051800\n\nx\n",
		"negative": "tree " + tree + "\nparent " + main +
			"\nauthor a <a@x> -5 +0000\ncommitter a <a@x> -5 +0000\n\nx\n",
		"tree alone": "tree " + tree,
		"empty":      "",
	} {
		t.Run(name, func(t *testing.T) {
			h := r.gitIn(strings.NewReader(raw), "hash-object", "-t", "commit", "-w", "--stdin", "--literally")
			r.write("refs/heads/x", h)
			m := open(t, t.TempDir(), Remote{URL: r.dir})
			refs, _ := observe(t, m)
			if refs["refs/heads/main"] != main || refs["refs/heads/other"] != other {
				t.Fatalf("others: got %v, %v", refs, m.Unreadable())
			}
			if _, err := m.FirstParents(other, 9); err != nil {
				t.Errorf("others: %v", err)
			}
			want := strings.Fields(r.try("rev-list", "--parents", "-1", h))
			c, err := m.commit(must(hash(h)))
			if err != nil {
				if _, ok := errors.AsType[TreeError](err); !ok {
					t.Errorf("got %v, want a TreeError", err)
				}
				if len(want) > 0 {
					t.Errorf("git reads it as %v", want)
				}
				if refs["refs/heads/x"] != h {
					t.Errorf("the branch is missing in %v", refs)
				}
				return
			}
			got := []string{h}
			for _, p := range c.parents {
				got = append(got, p.String())
			}
			if !slices.Equal(got, want) {
				t.Errorf("parents: got %v, git returns %v", got, want)
			}
			if gitTree := r.try("rev-parse", "--verify", "--quiet", h+"^{tree}"); gitTree != c.tree.String() {
				t.Errorf("tree: got %s, git returns %s", c.tree, gitTree)
			}
			for _, read := range []func() error{
				func() error { _, err := m.Subject(h); return err },
				func() error { _, _, _, err := m.Author(h); return err },
				func() error { _, err := m.IsAncestor(main, h); return err },
				func() error { _, err := m.MergeBases(main, h); return err },
				func() error { _, err := m.FirstParents(h, 9); return err },
				func() error { _, err := m.Files(h); return err },
			} {
				if err := read(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestLargeCommit has a branch with a commit message of 36 MiB. Other branches must be read.
func TestLargeCommit(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	both(t, func(t *testing.T, r *repo, remote Remote) {
		main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
		tree := r.git("rev-parse", main+"^{tree}")
		raw := "tree " + tree + "\nparent " + main + "\nauthor a <a@x> 1 +0000\ncommitter a <a@x> 1 +0000\n\n" +
			strings.Repeat("x", 36<<20)
		h := r.gitIn(strings.NewReader(raw), "hash-object", "-t", "commit", "-w", "--stdin")
		r.git("update-ref", "refs/heads/x", h)
		good := r.commit("refs/heads/good", map[string]string{"models/a.yaml": "2"}, main)
		m := open(t, t.TempDir(), remote)
		refs, _ := observe(t, m)
		if refs["refs/heads/main"] != main || refs["refs/heads/good"] != good || refs["refs/heads/x"] != h {
			t.Fatalf("got %v, %v", refs, m.Unreadable())
		}
		_, err := m.Subject(h)
		if _, ok := errors.AsType[TreeError](err); !ok || !errors.Is(err, ErrTooBig) {
			t.Errorf("got %v, want a TreeError that is ErrTooBig", err)
		}
		if _, err := m.Files(good); err != nil {
			t.Error(err)
		}
	})
}

// TestSubjectAndAuthorInLatin1 reads a commit with an encoding header.
func TestSubjectAndAuthorInLatin1(t *testing.T) {
	r := newRepo(t)
	r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	tree := r.git("rev-parse", "main^{tree}")
	m := open(t, t.TempDir(), Remote{URL: r.dir})
	raw := "tree " + tree + "\nauthor Jos\xe9 <j@x> 1 +0000\ncommitter Jos\xe9 <j@x> 1 +0000\nencoding " +
		"ISO-8859-1\n\ncaf\xe9\n"
	h := r.gitIn(strings.NewReader(raw), "hash-object", "-t", "commit", "-w", "--stdin")
	if got, err := m.Subject(h); err != nil || got != "café" || got != r.git("log", "-1", "--format=%s", h) {
		t.Errorf("subject: got %q, %v", got, err)
	}
	if got, _, _, err := m.Author(h); err != nil || got != "José" {
		t.Errorf("author: got %q, %v", got, err)
	}
	long := "tree " + tree + "\nauthor a <a@x> 1 +0000\ncommitter a <a@x> 1 +0000\n\n" + strings.Repeat("é", 1<<20)
	h = r.gitIn(strings.NewReader(long), "hash-object", "-t", "commit", "-w", "--stdin")
	if got, err := m.Subject(h); err != nil || utf8.RuneCountInString(got) > maxSubject ||
		strings.Contains(got, "\uFFFD") {
		t.Errorf("a long subject: got %d bytes, %v", len(got), err)
	}
}

// TestTooManyFiles checks that the limits of files give a TreeError.
func TestTooManyFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	r := newRepo(t)
	main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	many := func(n int, text string) string {
		blob := r.gitIn(strings.NewReader(text), "hash-object", "-w", "--stdin")
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "100644 blob %s\tf%d.yaml\n", blob, i)
		}
		models := r.gitIn(strings.NewReader(b.String()), "mktree")
		root := r.gitIn(strings.NewReader("040000 tree "+models+"\tmodels\n"), "mktree")
		return r.git("commit-tree", root, "-p", main, "-m", "x")
	}
	deep := func(n int) string {
		blob := r.gitIn(strings.NewReader("x"), "hash-object", "-w", "--stdin")
		tree := r.gitIn(strings.NewReader("100644 blob "+blob+"\tx.yaml\n"), "mktree")
		for range n {
			tree = r.gitIn(strings.NewReader("040000 tree "+tree+"\tmodels\n"), "mktree")
		}
		return r.git("commit-tree", tree, "-p", main, "-m", "x")
	}
	for name, h := range map[string]string{
		"depth": deep(maxDepth + 3),
		"files": many(21_000, ""),
		"bytes": many(2_000, strings.Repeat("x", 60<<10)),
	} {
		r.git("update-ref", "refs/heads/"+name, h)
		m := open(t, t.TempDir(), Remote{URL: r.dir})
		observe(t, m)
		_, err := m.Files(h)
		if _, ok := errors.AsType[TreeError](err); !ok || !errors.Is(err, ErrTooBig) || !isBlocked(err) {
			t.Errorf("%s: got %v, want a TreeError that is ErrTooBig", name, err)
		}
		if _, err := m.Files(main); err != nil {
			t.Errorf("main: %v", err)
		}
	}
}

func FuzzRefFiles(f *testing.F) {
	h := strings.Repeat("1", 40)
	f.Add([]byte(h + "\n"))
	f.Add([]byte("ref: refs/heads/main\n"))
	f.Add([]byte("# pack-refs with: peeled\n" + h + " refs/tags/v1\n^" + h + "\n" + h + " refs/heads/main\n"))
	f.Add([]byte("\"/a\\142\\n\"\n../b\n#x\n"))
	f.Add([]byte("[extensions]\n\tobjectFormat = sha256 # x\n[a \"b\"] c = d\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if ref, err := parseLoose(data); err == nil && ref.hash.IsZero() == (ref.target == "") {
			t.Errorf("%q is parsed as %v", data, ref)
		} else if err == nil && ref.target != "" && (!strings.HasPrefix(ref.target, "refs/") ||
			strings.Contains(ref.target, "..")) {
			t.Errorf("%q has the target %q", data, ref.target)
		}
		refs, err := parsePacked(data)
		for name, h := range refs {
			if !strings.HasPrefix(name, "refs/") || strings.Contains(name, "..") || err == nil && h.IsZero() {
				t.Errorf("%q contains %q %s", data, name, h)
			}
		}
		for _, dir := range parseAlternates(data) {
			if dir == "" && !strings.Contains(string(data), `""`) {
				t.Errorf("%q contains an empty folder name", data)
			}
		}
		settings(data)
	})
}
