package dataset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A sourceKit lets the suite make datasets for a source.
type sourceKit struct {
	source Source
	secret func(name string) (string, error)

	// put makes a dataset of files by their paths, at the same place each time, and
	// returns the location of its name and the path below it ("" if it has none).
	put func(t *testing.T, files map[string]string) (location, path string)

	// hostile makes datasets that must be refused, by what is wrong with them: as files
	// that leave the dataset, links, and names that come twice.
	hostile map[string]func(t *testing.T) (location, path string)

	inPlace bool    // Open returns a folder, and nothing is fetched
	shared  *Shared // where machines share what they have fetched
}

// Every source keeps the same promises. A new one has its entry here.
func TestSources(t *testing.T) {
	for name, kit := range map[string]func(t *testing.T) sourceKit{
		"dir":            dirKit,
		"stored":         storedKit,
		"archive zip":    archiveKit(packZip),
		"archive tar":    archiveKit(packTar),
		"archive tar.gz": archiveKit(packTarGz),
		"roboflow":       roboflowKit,
	} {
		t.Run(name, func(t *testing.T) { conform(t, name, kit) })
	}
	t.Run("stored and shared", func(t *testing.T) { conform(t, "stored", sharedKits(t, storedKit)) }) // needs versitygw
	t.Run("s3", func(t *testing.T) {                                                                  // needs moto
		objects, archive := s3Kits(t)
		t.Run("objects", func(t *testing.T) { conform(t, "s3", objects) })
		t.Run("archive", func(t *testing.T) { conform(t, "s3", archive) })
	})
}

// conform is the suite. make gives a kit with a storage of its own.
func conform(t *testing.T, name string, make func(t *testing.T) sourceKit) {
	name, _, _ = strings.Cut(name, " ")
	good := map[string]string{"train/" + AnnotationsFile: `{"images":[]}`, "train/a.png": "a",
		"valid/" + AnnotationsFile: "{}", "valid/b c.png": "b", "notes/deep/down.txt": ""}
	type place struct{ location, path string }
	open := func(t *testing.T, kit sourceKit, cache string, at place) (*version, error) {
		c := Catalog{Sources: map[string]Source{name: kit.source}, Cache: cache, MaxBytes: 1 << 20, Secret: kit.secret,
			Shared: kit.shared, Locations: map[string]map[string]string{name: {"d": at.location}}}
		v, err := c.open(t.Context(), delivery.Dataset{Source: name, Path: strings.Trim("d/"+at.path, "/")})
		if err == nil {
			err = v.hash(t.Context(), names(v), nil)
		}
		return v, err
	}
	digest := func(t *testing.T, kit sourceKit, cache string, at place) delivery.Digest {
		t.Helper()
		v, err := open(t, kit, cache, at)
		if err != nil {
			t.Fatal(err)
		}
		return v.content()
	}
	put := func(t *testing.T, kit sourceKit, files map[string]string) place {
		t.Helper()
		location, path := kit.put(t, files)
		return place{location, path}
	}

	t.Run("the same bytes are the same dataset", func(t *testing.T) {
		kit, cache := make(t), t.TempDir()
		at := put(t, kit, good)
		got := digest(t, kit, cache, at)
		other := dirKit(t)
		if want := digest(t, other, cache, put(t, other, good)); got != want {
			t.Errorf("content %s, want that of a folder with the same files, %s", got, want)
		}
		if again := digest(t, kit, cache, at); again != got {
			t.Errorf("read again it is %s, want %s", again, got)
		}
		if again := digest(t, kit, t.TempDir(), at); again != got {
			t.Errorf("with an empty cache it is %s, want %s", again, got)
		}
	})

	t.Run("other bytes are another dataset", func(t *testing.T) {
		kit, cache := make(t), t.TempDir()
		at := put(t, kit, good)
		before := digest(t, kit, cache, at)
		old, err := open(t, kit, cache, at)
		if err != nil {
			t.Fatal(err)
		}
		changed := maps.Clone(good)
		changed["train/a.png"] = "A"
		if after := digest(t, kit, cache, put(t, kit, changed)); after == before {
			t.Error("a changed file leaves the content as it was")
		}
		if data, err := os.ReadFile(old.path("train/a.png")); !kit.inPlace && (err != nil || string(data) != "a") {
			t.Errorf("what was fetched before is %q, %v; want it as it was", data, err)
		}
	})

	t.Run("what is fetched is complete or not there", func(t *testing.T) {
		kit, cache := make(t), t.TempDir()
		if kit.inPlace {
			t.Skip("nothing is fetched")
		}
		location, path := kit.put(t, good)
		c := Catalog{Sources: map[string]Source{name: kit.source}, Cache: cache, Secret: kit.secret,
			Shared: kit.shared, Locations: map[string]map[string]string{name: {"d": location}}}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		d := delivery.Dataset{Source: name, Path: strings.Trim("d/"+path, "/")}
		if _, _, err := c.folder(ctx, d); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want that it was canceled", err)
		}
		c.MaxBytes = 3
		if _, _, err := c.folder(t.Context(), d); !isBlocked(err) || !strings.Contains(err.Error(), "larger") {
			t.Errorf("got %v, want that it is too large", err)
		}
		if left := filesBelow(t, cache); len(left) > 0 {
			t.Errorf("what failed has left %q", left)
		}
	})

	t.Run("a version costs what is new in it", func(t *testing.T) {
		kit, cache := make(t), t.TempDir()
		if kit.inPlace {
			t.Skip("nothing is fetched")
		}
		big := maps.Clone(good)
		for i := range 9 {
			big[fmt.Sprintf("train/%d.png", i)] = strings.Repeat(fmt.Sprint(i), 10_000)
		}
		digest(t, kit, cache, put(t, kit, big))
		before := diskUse(t, cache)
		big["train/9.png"] = strings.Repeat("9", 10_000)
		delete(big, "train/0.png")
		digest(t, kit, cache, put(t, kit, big))
		if more := diskUse(t, cache) - before; before < 90_000 || more > 20_000 {
			t.Errorf("a version of 90 KB with 10 KB that are new costs %d bytes, the first %d", more, before)
		}
	})

	t.Run("a file that was changed in the cache is found", func(t *testing.T) {
		kit, cache := make(t), t.TempDir()
		if kit.inPlace {
			t.Skip("nothing is fetched")
		}
		at := put(t, kit, good)
		v, err := open(t, kit, cache, at)
		if err != nil {
			t.Fatal(err)
		}
		want := v.content()
		for _, name := range []string{"train/a.png", "train/" + AnnotationsFile} {
			for what, change := range map[string]func(file string) error{
				"written":       func(file string) error { return overwrite(file, []byte("B"), false) },
				"written slyly": func(file string) error { return overwrite(file, []byte("B"), true) },
				"longer":        func(file string) error { return overwrite(file, []byte(`{"images":[]} `), false) },
				"removed":       os.Remove,
				"a link instead": func(file string) error {
					return errors.Join(os.Remove(file), os.Symlink("/etc/passwd", file))
				},
			} {
				if err := change(v.path(name)); err != nil {
					t.Fatal(err)
				}
				v2, err := open(t, kit, cache, at)
				if err != nil && !strings.Contains(err.Error(), "was changed in the server's cache") {
					t.Fatalf("%s %s: %v", name, what, err)
				}
				if err != nil { // found while it was read, and fetched the next time
					if v2, err = open(t, kit, cache, at); err != nil {
						t.Fatalf("%s %s: %v", name, what, err)
					}
				}
				if got := v2.content(); got != want {
					t.Errorf("%s %s: content %s, want %s", name, what, got, want)
				}
				v = v2
			}
		}
		// Another version must not get the damaged file either.
		if err := overwrite(v.path("train/a.png"), []byte("B"), true); err != nil {
			t.Fatal(err)
		}
		more := maps.Clone(good)
		more["train/c.png"] = "c"
		other, same := dirKit(t), digest(t, kit, cache, put(t, kit, more))
		if want := digest(t, other, cache, put(t, other, more)); same != want {
			t.Errorf("another version has content %s, want %s", same, want)
		}
	})

	t.Run("what a killed process has left is removed", func(t *testing.T) {
		kit, cache := make(t), t.TempDir()
		if kit.inPlace {
			t.Skip("nothing is fetched")
		}
		at := put(t, kit, good)
		want := digest(t, kit, cache, at)
		versions, err := filepath.Glob(filepath.Join(cache, "*", "*", manifestFile))
		if err != nil || len(versions) != 1 {
			t.Fatalf("%q, %v", versions, err)
		}
		dir := filepath.Dir(versions[0])
		part := filepath.Join(filepath.Dir(dir), partialPrefix+filepath.Base(dir))
		if err := os.Rename(dir, part); err != nil {
			t.Fatal(err)
		}
		writeAll(t, part, map[string]string{filesFolder + "/train/half.png": "h", "spool-1": "s"})
		writeAll(t, part+"-other", map[string]string{filesFolder + "/a": "a"})
		if got := digest(t, kit, cache, at); got != want {
			t.Errorf("content %s, want %s", got, want)
		}
		for _, path := range filesBelow(t, cache) {
			if strings.Contains(path, partialPrefix) || strings.Contains(path, "spool") {
				t.Errorf("%s is left", path)
			}
		}
	})

	t.Run("two processes fetch one version", func(t *testing.T) {
		kit, cache := make(t), t.TempDir()
		at := put(t, kit, good)
		var group errgroup.Group
		for range 8 {
			group.Go(func() error {
				v, err := open(t, kit, cache, at)
				if err == nil && len(v.files) != len(good) {
					err = fmt.Errorf("it has %d files, want %d", len(v.files), len(good))
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob(filepath.Join(cache, "*", partialPrefix+"*")); len(left) > 0 {
			t.Errorf("they left %q", left)
		}
	})

	t.Run("what is not there is said to a person", func(t *testing.T) {
		kit := make(t)
		at := put(t, kit, good)
		at.path = strings.Trim(at.path+"/nowhere", "/")
		if _, err := open(t, kit, t.TempDir(), at); !isBlocked(err) || strings.Contains(err.Error(), at.location) {
			t.Errorf("got %v, want Blocked without the location", err)
		}
	})

	for what, build := range make(t).hostile {
		t.Run("refuses "+what, func(t *testing.T) {
			kit := make(t)
			build = kit.hostile[what]
			location, path := build(t)
			outside := filepath.Join(t.TempDir(), "cache")
			_, err := open(t, kit, outside, place{location, path})
			if !isBlocked(err) {
				t.Errorf("got %v, want Blocked", err)
			}
			if left := filesBelow(t, filepath.Dir(outside)); len(left) > 0 {
				t.Errorf("it has left %q", left)
			}
		})
	}
}

func names(v *version) []string {
	var list []string
	for name := range v.files {
		list = append(list, name)
	}
	return list
}

func isBlocked(err error) bool {
	_, ok := errors.AsType[delivery.Blocked](err)
	return ok
}

func filesBelow(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			list = append(list, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return list
}

func writeAll(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644))
		if err != nil {
			t.Fatal(err)
		}
	}
}

// diskUse is the size of all files below a folder, each once however many links it has.
func diskUse(t *testing.T, dir string) (total int64) {
	t.Helper()
	seen := map[uint64]bool{}
	for _, path := range filesBelow(t, dir) {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if s := stampOf(info); !seen[s.Inode] {
			seen[s.Inode] = true
			total += s.Size
		}
	}
	return total
}

// overwrite writes a file in place, also a read-only one. A sly writer leaves size and time as they were.
func overwrite(file string, data []byte, sly bool) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if sly {
		data = append(data, strings.Repeat("B", int(info.Size()))...)[:info.Size()]
	}
	if err := errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, data, 0o600)); err != nil || !sly {
		return err
	}
	return os.Chtimes(file, info.ModTime(), info.ModTime())
}

func dirKit(t *testing.T) sourceKit {
	root := t.TempDir()
	link := func(target, name string) func(*testing.T) (string, string) {
		return func(t *testing.T) (string, string) {
			writeAll(t, root, map[string]string{"set/train/a.png": "a"})
			if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
			return root, "set"
		}
	}
	return sourceKit{source: Dir{}, inPlace: true,
		put: func(t *testing.T, files map[string]string) (string, string) {
			writeAll(t, filepath.Join(root, "set"), files)
			return root, "set"
		},
		hostile: map[string]func(*testing.T) (string, string){
			"a link to a file":   link("/etc/passwd", "set/train/b.png"),
			"a link to a folder": link("/etc", "set/valid"),
			"a link on the way": func(t *testing.T) (string, string) {
				link("set", "way")(t)
				return root, "way/train"
			},
			"a file as the dataset": func(t *testing.T) (string, string) {
				writeAll(t, root, map[string]string{"set/train/a.png": "a"})
				return root, "set/train/a.png"
			},
			"a relative location": func(*testing.T) (string, string) { return "data", "" },
		}}
}

// stored is a source whose files have to be fetched: lists of files by path.
type stored map[string][][2]string

func (s stored) Secrets(string) []string { return []string{"STORED_KEY"} }

func (s stored) Check(context.Context, Reference) (string, error) { return "stored", nil }

func (s stored) Open(_ context.Context, ref Reference) (Version, error) {
	if key, err := ref.Secret("STORED_KEY"); err != nil || key != "open sesame" {
		return Version{}, errors.Join(errors.New("no key"), err)
	}
	if _, err := ref.Secret("OTHER_KEY"); err == nil {
		return Version{}, errors.New("a source reads a secret that it does not name")
	}
	files, ok := s[ref.Path]
	if !ok {
		return Version{}, delivery.Blockedf("check the name", "there is nothing of that name")
	}
	var id strings.Builder
	for _, f := range files {
		id.WriteString(string(delivery.DigestOf("file", f)))
	}
	return Version{ID: id.String(), Fetch: func(ctx context.Context, to *Writer) error {
		for _, f := range files {
			if err := errors.Join(ctx.Err(), to.Add(f[0], strings.NewReader(f[1]))); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

func storedKit(*testing.T) sourceKit {
	s := stored{}
	holds := func(names ...string) func(*testing.T) (string, string) {
		return func(*testing.T) (string, string) {
			s["bad"] = [][2]string{{"train/a.png", "a"}}
			for _, name := range names {
				s["bad"] = append(s["bad"], [2]string{name, "x"})
			}
			return "stored:here", "bad"
		}
	}
	return sourceKit{source: s, secret: func(string) (string, error) { return "open sesame", nil },
		put: func(_ *testing.T, files map[string]string) (string, string) {
			s["set"] = nil
			for name, text := range files {
				s["set"] = append(s["set"], [2]string{name, text})
			}
			return "stored:here", "set"
		},
		hostile: map[string]func(*testing.T) (string, string){
			"a path that leaves":   holds("../out"),
			"an absolute path":     holds("/tmp/out"),
			"a path inside out":    holds("train/../../out"),
			"a path with no name":  holds(""),
			"the dataset itself":   holds("."),
			"a Windows path":       holds(`..\out`),
			"one file twice":       holds("train/a.png"),
			"a file as a folder":   holds("train/a.png/b.png"),
			"names by case alone":  holds("train/A.png"),
			"folders by case":      holds("Train/b.png"),
			"accents in two forms": holds("caf\u00e9.png", "cafe\u0301.png"),
			"a zero in a name":     holds("a\x00.png"),
			"a name in Latin-1":    holds("caf\xe9.png"),
			"a name without end":   holds(strings.Repeat("a", 300)),
			"too many folders":     holds(strings.Repeat("a/", 40) + "b.png"),
			"too much of one file": holdsMuch(s),
		}}
}

func holdsMuch(s stored) func(*testing.T) (string, string) {
	return func(*testing.T) (string, string) {
		s["bad"] = [][2]string{{"train/a.png", strings.Repeat("a", 2<<20)}}
		return "stored:here", "bad"
	}
}
