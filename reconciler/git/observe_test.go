package git

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

func TestObserve(t *testing.T) {
	both(t, func(t *testing.T, r *repo, remote Remote) {
		m := open(t, t.TempDir(), remote)
		if refs, changed := observe(t, m); len(refs) != 0 || !changed {
			t.Fatalf("empty repository: got %v, %v", refs, changed)
		}
		step := func(what string, want map[string]string) {
			t.Helper()
			refs, changed := observe(t, m)
			if !changed || !maps.Equal(refs, want) {
				t.Fatalf("%s: got %v, %v; want %v", what, refs, changed, want)
			}
			for ref, commit := range refs {
				if err := m.Has(commit); err != nil {
					t.Errorf("%s: %s: %v", what, ref, err)
				}
				if _, err := m.Files(commit); err != nil {
					t.Errorf("%s: %s: %v", what, ref, err)
				}
			}
			if refs, changed := observe(t, m); changed || !maps.Equal(refs, want) {
				t.Fatalf("%s, again: got %v, %v", what, refs, changed)
			}
		}
		one := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
		step("a first commit", map[string]string{"refs/heads/main": one})
		two := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "2"})
		step("a second", map[string]string{"refs/heads/main": two})
		side := r.commit("refs/heads/side", map[string]string{"models/b.yaml": "1"}, two)
		fork := r.commit("refs/pull/7/head", map[string]string{"models/c.yaml": "1"}, one)
		r.git("update-ref", "refs/pull/7/merge", side)
		r.git("update-ref", "refs/tags/v1", side)
		want := map[string]string{"refs/heads/main": two, "refs/heads/side": side, "refs/pull/7/head": fork}
		step("a branch and a pull request", want)
		forced := r.commit("refs/heads/side", map[string]string{"models/b.yaml": "3"}, one)
		want["refs/heads/side"] = forced
		step("a forced push", want)
		r.git("pack-refs", "--all")
		r.git("repack", "-adq")
		if _, changed := observe(t, m); changed {
			t.Error("packing is reported as a change")
		}
		for _, commit := range []string{forced, fork, two} {
			if _, err := m.Files(commit); err != nil {
				t.Errorf("after packing: %v", err)
			}
		}
		r.git("update-ref", "-d", "refs/heads/side")
		delete(want, "refs/heads/side")
		step("a branch removed", want)
		r.git("update-ref", "refs/heads/back", one)
		want["refs/heads/back"] = one
		step("a branch on an old commit", want)
		if !maps.Equal(m.Refs(), want) {
			t.Errorf("Refs: got %v", m.Refs())
		}
		var wait delivery.Wait
		if err := m.Has(strings.Repeat("1", 40)); !errors.As(err, &wait) {
			t.Errorf("an unknown commit: got %v, want Wait", err)
		}
		if err := m.Has("main"); err == nil || errors.As(err, &wait) {
			t.Errorf("not a hash: got %v", err)
		}
	})
}

func TestReopen(t *testing.T) {
	r := newRepo(t)
	s := serve(t, r)
	s.token = "let-me-in"
	one := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	dir := t.TempDir()
	m := open(t, dir, s.remote())
	observe(t, m)
	var blocked delivery.Blocked
	if _, err := Open(dir, s.remote()); !errors.As(err, &blocked) {
		t.Errorf("a second Open: got %v, want Blocked", err)
	}
	m.Close()

	s.before = func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "later", http.StatusBadGateway)
		return true
	}
	m = open(t, dir, s.remote())
	if refs := m.Refs(); refs["refs/heads/main"] != one {
		t.Errorf("while the forge is down: got %v", refs)
	}
	if files, err := m.Files(one); err != nil || len(files) != 1 {
		t.Errorf("while the forge is down: got %v, %v", files, err)
	}
	var wait delivery.Wait
	if _, _, err := m.Observe(t.Context()); !errors.As(err, &wait) {
		t.Errorf("502: got %v, want Wait", err)
	}
	s.before = nil
	if _, changed := observe(t, m); !changed {
		t.Error("the first Observe did not report a change")
	}
	m.Close()
	if data := must(os.ReadFile(filepath.Join(dir, "config"))); bytes.Contains(data, []byte("let-me-in")) {
		t.Error("the token is in the mirror's config")
	}

	other := newRepo(t)
	that := other.commit("refs/heads/main", map[string]string{"models/z.yaml": "1"})
	m = open(t, dir, serve(t, other).remote())
	if refs := m.Refs(); len(refs) != 0 {
		t.Errorf("another remote: got %v", refs)
	}
	if refs, _ := observe(t, m); refs["refs/heads/main"] != that {
		t.Errorf("another remote: got %v", refs)
	}
	m.Close()

	home := t.TempDir()
	must(0, os.WriteFile(filepath.Join(home, "thesis.txt"), []byte("years of work"), 0o600))
	if _, err := Open(home, s.remote()); !errors.As(err, &blocked) {
		t.Errorf("a folder with other files: got %v, want Blocked", err)
	}
	if _, err := os.Stat(filepath.Join(home, "thesis.txt")); err != nil {
		t.Error("the file was removed")
	}
}

// TestDamage damages a mirror as crashes and disk errors do. It must be cloned again.
func TestDamage(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	pack := func(dir, ext string) string { return must(filepath.Glob(filepath.Join(dir, "objects/pack/*."+ext)))[0] }
	rewrite := func(path string, change func([]byte) []byte) {
		data := must(os.ReadFile(path))
		os.Chmod(path, 0o600)
		must(0, os.WriteFile(path, change(data), 0o600))
	}
	for name, damage := range map[string]func(dir string){
		"pack cut short": func(dir string) {
			rewrite(pack(dir, "pack"), func(b []byte) []byte { return b[:len(b)/2] })
		},
		"pack empty": func(dir string) { rewrite(pack(dir, "pack"), func(b []byte) []byte { return nil }) },
		"pack with a flipped bit": func(dir string) {
			rewrite(pack(dir, "pack"), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		},
		"pack gone":  func(dir string) { os.Remove(pack(dir, "pack")) },
		"index gone": func(dir string) { os.Remove(pack(dir, "idx")) },
		"index cut short": func(dir string) {
			rewrite(pack(dir, "idx"), func(b []byte) []byte { return b[:len(b)/2] })
		},
		"refs cut short": func(dir string) {
			rewrite(filepath.Join(dir, "packed-refs"), func(b []byte) []byte { return b[:len(b)/2] })
		},
		"refs to nowhere": func(dir string) {
			rewrite(filepath.Join(dir, "packed-refs"), func(b []byte) []byte {
				return bytes.ReplaceAll(b, []byte("a"), []byte("b"))
			})
		},
		"leftovers": func(dir string) {
			os.WriteFile(filepath.Join(dir, "objects/pack/tmp_pack_1"), []byte("PACK"), 0o600)
		},
		"no objects at all": func(dir string) { os.RemoveAll(filepath.Join(dir, "objects")) },
		"another version": func(dir string) {
			rewrite(filepath.Join(dir, "config"), func(b []byte) []byte {
				return bytes.Replace(b, []byte("mirror = 1"), []byte("mirror = 9"), 1)
			})
		},
		"cut short in clear": func(dir string) {
			os.RemoveAll(filepath.Join(dir, "objects"))
			os.Remove(filepath.Join(dir, "HEAD"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t)
			remote := serve(t, r).remote()
			r.commit("refs/heads/main", map[string]string{"models/a.yaml": "one", "gates/g.yaml": "two"})
			head := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "three"})
			dir := t.TempDir()
			m := open(t, dir, remote)
			observe(t, m)
			m.Close()
			damage(dir)
			m = open(t, dir, remote)
			refs, _ := observe(t, m)
			if refs["refs/heads/main"] != head {
				t.Fatalf("got %v, want %s", refs, head)
			}
			files, err := m.Files(head)
			if err != nil || len(files) != 2 {
				t.Fatalf("got %v, %v", files, err)
			}
			for _, f := range files {
				if _, err := m.Blob(f.Hash, MaxBlob); err != nil {
					t.Error(err)
				}
			}
			if left := must(filepath.Glob(filepath.Join(dir, "objects/pack/tmp_*"))); len(left) > 0 {
				t.Errorf("temporary files: %v", left)
			}
		})
	}
}

// TestDamageWhileOpen truncates the packs of an open mirror.
func TestDamageWhileOpen(t *testing.T) {
	r := newRepo(t)
	dir := t.TempDir()
	m := open(t, dir, serve(t, r).remote())
	head := r.commit("refs/heads/main", map[string]string{"models/a.yaml": strings.Repeat("one\n", 1000)})
	observe(t, m)
	for _, path := range must(filepath.Glob(filepath.Join(dir, "objects/pack/*.pack"))) {
		if err := os.Truncate(path, 20); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Files(head); err == nil {
		t.Fatal("no error")
	}
	observe(t, m)
	if files, err := m.Files(head); err != nil || len(files) != 1 {
		t.Fatalf("after the next Observe: got %v, %v", files, err)
	}
}

// TestReadWhileFetching reads in several goroutines during fetches and merges of packs.
func TestReadWhileFetching(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	both(t, func(t *testing.T, r *repo, remote Remote) {
		m := open(t, t.TempDir(), remote)
		files := map[string]string{}
		for i := range 50 {
			files[fmt.Sprintf("models/m%02d.yaml", i)] = strings.Repeat("x", i+1)
		}
		r.commit("refs/heads/main", files)
		observe(t, m)
		var readers sync.WaitGroup
		stop := make(chan struct{})
		for range 6 {
			readers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					head := m.Refs()["refs/heads/main"]
					list, err := m.Files(head)
					if err != nil {
						t.Error(err)
						return
					}
					for _, f := range list {
						if data, err := m.Blob(f.Hash, MaxBlob); err != nil || int64(len(data)) != f.Size {
							t.Errorf("%s: %d bytes, %v", f.Path, len(data), err)
							return
						}
					}
					if _, err := m.History(head, "models/m01.yaml"); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for i := range 12 {
			r.commit("refs/heads/main", map[string]string{"models/m01.yaml": fmt.Sprint("version ", i)})
			if i == 8 {
				r.git("repack", "-adq")
				r.git("prune-packed")
			}
			if _, changed := observe(t, m); !changed {
				t.Error("Observe did not report a push")
			}
			m.mu.Lock()
			own := m.own
			m.mu.Unlock()
			if err := own.merge(&m.mu); err != nil {
				t.Error(err)
			}
		}
		close(stop)
		readers.Wait()
	})
}

// TestPacks adds one pack at a time, and checks that the number of packs stays small.
func TestPacks(t *testing.T) {
	m := open(t, t.TempDir(), Remote{URL: newRepo(t).dir})
	var parent []string
	tree := map[string]string{}
	for i := range 300 {
		name := fmt.Sprintf("models/m%d.yaml", i%50)
		tree[name] = strings.Repeat(fmt.Sprint(i, " "), 20)
		c, err := m.Commit(parent, map[string][]byte{name: []byte(tree[name])}, time.Unix(int64(i), 0), "c")
		if err != nil {
			t.Fatal(err)
		}
		parent = []string{c}
		if err := m.tidy(false); err != nil {
			t.Fatal(err)
		}
		if n := len(m.own.packs); n > maxPacks+1 {
			t.Fatalf("%d packs after %d fetches", n, i+1)
		}
	}
	files := len(must(filepath.Glob(filepath.Join(m.dir, "objects/pack/*"))))
	if files != 2*len(m.own.packs) {
		t.Errorf("%d files on disk for %d packs", files, len(m.own.packs))
	}
	check := func() {
		t.Helper()
		files, err := m.Files(parent[0])
		if err != nil || len(files) != len(tree) {
			t.Fatalf("got %d files, %v", len(files), err)
		}
		for _, f := range files {
			if data, err := m.Blob(f.Hash, MaxBlob); err != nil || string(data) != tree[f.Path] {
				t.Errorf("%s: %q, %v", f.Path, data, err)
			}
		}
		if line, err := m.FirstParents(parent[0], 1000); err != nil || len(line) != 300 {
			t.Errorf("%d commits, %v", len(line), err)
		}
	}
	check()
	if err := m.load(); err != nil {
		t.Fatal(err)
	}
	check()
}

func TestTooLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	zeros := strings.Repeat("\x00", 40<<20)
	for _, filter := range []string{"true", "false"} {
		t.Run("filter="+filter, func(t *testing.T) {
			both(t, func(t *testing.T, r *repo, remote Remote) {
				r.git("config", "uploadpack.allowFilter", filter)
				main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
				blob := r.gitIn(strings.NewReader(zeros), "hash-object", "-w", "--stdin")
				var b strings.Builder
				fmt.Fprintf(&b, "commit refs/pull/1/head\ncommitter A <a@example.com> 1700000000 +0000\ndata "+
					"1\nx\nfrom %s\nM 100644 %s models/big.yaml\n\n", main, blob)
				r.gitIn(strings.NewReader(b.String()), "fast-import", "--quiet")
				big := r.git("rev-parse", "refs/pull/1/head")
				fine := r.commit("refs/pull/2/head", map[string]string{"models/b.yaml": "2"}, main)
				m := open(t, t.TempDir(), remote)
				refs, _ := observe(t, m)
				if refs["refs/heads/main"] != main || refs["refs/pull/1/head"] != big ||
					refs["refs/pull/2/head"] != fine {
					t.Fatalf("got %v", refs)
				}
				for _, commit := range []string{main, fine} {
					if _, err := m.Files(commit); err != nil {
						t.Errorf("other commits: %v", err)
					}
				}
				files, err := m.Files(big)
				if filter == "false" && m.folder == nil {
					if _, ok := errors.AsType[delivery.Blocked](err); !ok || !strings.Contains(err.Error(), "40 MiB") {
						t.Errorf("got %v, want Blocked with the size", err)
					}
					if _, ok := errors.AsType[delivery.Blocked](m.Has(big)); !ok {
						t.Errorf("Has: got %v, want Blocked", m.Has(big))
					}
					next := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "2"})
					if refs, _ := observe(t, m); refs["refs/heads/main"] != next || m.Has(next) != nil {
						t.Error("main is not updated")
					}
					return
				}
				if err != nil || len(files) != 2 || files[1].Path != "models/big.yaml" || files[1].Size != -1 {
					t.Errorf("got %v, %v", files, err)
				}
				if _, err := m.Blob(blob, 1<<40); !errors.Is(err, ErrTooBig) {
					t.Errorf("Blob: got %v, want ErrTooBig", err)
				}
			})
		})
	}
}

func TestErrors(t *testing.T) {
	const token = "s3cr3t-t0k3n"
	r := newRepo(t)
	r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	s := serve(t, r)
	answer := func(code int, header ...string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, req *http.Request) bool {
			if len(header) == 2 {
				w.Header().Set(header[0], header[1])
			}
			_, password, _ := req.BasicAuth()
			http.Error(w, "you sent "+password, code)
			return true
		}
	}
	for _, tt := range []struct {
		name   string
		before func(http.ResponseWriter, *http.Request) bool
		want   string // part of the text
		kind   error
	}{
		{"401", answer(401), "check the token", delivery.Blocked{}},
		{"403", answer(403), "the role Write", delivery.Blocked{}},
		{"404", answer(404), "check the address", delivery.Blocked{}},
		{"redirect", answer(302, "Location", "https://elsewhere.example/x.git/info/refs"), "new address",
			delivery.Blocked{}},
		{"429", answer(429, "Retry-After", "77"), "again in 1m17s", delivery.Wait{}},
		{"503", answer(503, "Retry-After", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)), "again in 10m0s",
			delivery.Wait{}},
		{"500", answer(500), "again in 10s", delivery.Wait{}},
		{"418", answer(418), "418", nil},
		{"rubbish", answer(200), "", nil},
		{"cut short", func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			fmt.Fprint(w, "001e# service=git-upload-pack\n00000155")
			return true
		}, "", nil},
		{"hang up", func(w http.ResponseWriter, _ *http.Request) bool {
			c, _, _ := w.(http.Hijacker).Hijack()
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
			return true
		}, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			remote := s.remote()
			remote.Auth = func() (string, string) { return "robot", token }
			m := open(t, t.TempDir(), remote)
			s.before = tt.before
			_, _, err := m.Observe(t.Context())
			if err == nil {
				t.Fatal("no error")
			}
			err2 := m.Push(t.Context(), strings.Repeat("1", 40), "refs/heads/x", "")
			if err2 == nil {
				t.Fatal("no error from Push")
			}
			for _, err := range []error{err, err2} {
				if strings.Contains(err.Error(), token) {
					t.Errorf("the token is in %q", err)
				}
				if !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %q, want %q in it", err, tt.want)
				}
				_, blocked := errors.AsType[delivery.Blocked](err)
				_, wait := errors.AsType[delivery.Wait](err)
				if _, want := tt.kind.(delivery.Blocked); want != blocked {
					t.Errorf("%q: Blocked is %v", err, blocked)
				}
				if _, want := tt.kind.(delivery.Wait); want != wait {
					t.Errorf("%q: Wait is %v", err, wait)
				}
			}
		})
	}
	for _, url := range []string{"https://robot:" + token + "@example.com/x.git", "https://" + token +
		"@example.com/x.git", "ssh://git@example.com/x", "https://%zz" + token, t.TempDir(), "/no/such/folder"} {
		m, err := Open(t.TempDir(), Remote{URL: url})
		if err == nil {
			_, _, err = m.Observe(t.Context())
			m.Close()
		}
		if _, ok := errors.AsType[delivery.Blocked](err); !ok || strings.Contains(err.Error(), token) {
			t.Errorf("%s: got %v, want Blocked without the token", url, err)
		}
	}
}

// TestConnection checks that all polls use the same connection.
func TestConnection(t *testing.T) {
	r := newRepo(t)
	r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	s := serve(t, r)
	from := map[string]bool{}
	s.before = func(_ http.ResponseWriter, req *http.Request) bool { from[req.RemoteAddr] = true; return false }
	m := open(t, t.TempDir(), s.remote())
	for range 5 {
		observe(t, m)
	}
	if len(from) != 1 {
		t.Errorf("five polls used %d connections", len(from))
	}
}
