package store_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/autonomos/aob/reconciler/store"
	"github.com/autonomos/aob/reconciler/work"
)

// Every store keeps the same promises. A new one has its entry here.
func TestStores(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) work.Store{
		"folder": func(t *testing.T) work.Store {
			return store.Folder(filepath.Join(t.TempDir(), "not", "there", "yet"))
		},
		"memory": func(*testing.T) work.Store { return &memory{} },
	} {
		t.Run(name, func(t *testing.T) { conform(t, open) })
	}
}

// A memory is a store that is no folder, as one on another machine.
type memory struct {
	mu    sync.Mutex
	files map[string][]byte
}

type reader struct{ *bytes.Reader }

func (reader) Close() error { return nil }

func (m *memory) Open(name string) (io.ReadSeekCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return reader{bytes.NewReader(data)}, nil
}

func (m *memory) Put(name, path string) error {
	files := map[string][]byte{}
	err := filepath.WalkDir(path, func(at string, e fs.DirEntry, err error) error {
		switch {
		case err != nil || e.IsDir():
			return err
		case !e.Type().IsRegular():
			return errors.New("no regular file")
		}
		files[name+filepath.ToSlash(at[len(path):])], err = os.ReadFile(at)
		return err
	})
	if err != nil {
		return err
	}
	if !fs.ValidPath(name) || name == "." {
		return fs.ErrInvalid
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for old, data := range m.files {
		if old != name && !strings.HasPrefix(old, name+"/") {
			files[old] = data
		}
	}
	m.files = files
	return nil
}

func (m *memory) Local(name, dir string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	err := fs.ErrNotExist
	for file, data := range m.files {
		if rest, ok := strings.CutPrefix(file, name+"/"); ok {
			at := filepath.Join(dir, rest)
			if err = errors.Join(os.MkdirAll(filepath.Dir(at), 0o700), os.WriteFile(at, data, 0o600)); err != nil {
				break
			}
		}
	}
	return dir, err
}

func read(s work.Store, name string) (string, error) {
	f, err := s.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	return string(data), err
}

// file makes a file.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// folder makes a folder of files.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		at := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o700), os.WriteFile(at, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func put(t *testing.T, s work.Store, name, path string) {
	t.Helper()
	if err := s.Put(name, path); err != nil {
		t.Fatal(err)
	}
}

func conform(t *testing.T, open func(t *testing.T) work.Store) {
	t.Run("keeps and replaces a file", func(t *testing.T) {
		s := open(t)
		if _, err := s.Open("a/b.json"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("of an empty store: %v, want fs.ErrNotExist", err)
		}
		for _, text := range []string{"one", "", "three"} {
			path := file(t, text)
			put(t, s, "a/b.json", path)
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if got, err := read(s, "a/b.json"); err != nil || got != text {
				t.Errorf("got %q, %v; want %q", got, err, text)
			}
		}
		if _, err := s.Open("a/c.json"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("of another name: %v, want fs.ErrNotExist", err)
		}
		if err := s.Put("a/c.json", filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("of a missing file: %v, want fs.ErrNotExist", err)
		}
	})

	t.Run("keeps and replaces a folder", func(t *testing.T) {
		s := open(t)
		if _, err := s.Local("runs/a", t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("of an empty store: %v, want fs.ErrNotExist", err)
		}
		put(t, s, "runs/ab", folder(t, map[string]string{"other": "x"}))
		copied := t.TempDir()
		for _, files := range []map[string]string{{"train/1": "one", "train/2": "", "list": "two"}, {"list": "three"}} {
			dir := folder(t, files)
			put(t, s, "runs/a", dir)
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			local, err := s.Local("runs/a", copied)
			if err != nil {
				t.Fatal(err)
			}
			found := 0
			err = filepath.WalkDir(local, func(at string, e fs.DirEntry, err error) error {
				if err == nil && !e.IsDir() {
					found++
				}
				return err
			})
			if err != nil || found != len(files) {
				t.Errorf("%d files, %v; want %v", found, err, files)
			}
			for name, text := range files {
				if data, err := os.ReadFile(filepath.Join(local, name)); err != nil || string(data) != text {
					t.Errorf("%s is %q, %v", name, data, err)
				}
				if got, err := read(s, "runs/a/"+name); err != nil || got != text {
					t.Errorf("%s is %q, %v", name, got, err)
				}
			}
		}
	})

	t.Run("readers seek, and keep what they opened", func(t *testing.T) {
		s := open(t)
		put(t, s, "log", file(t, "0123456789"))
		f, err := s.Open("log")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		put(t, s, "log", file(t, "new"))
		if end, err := f.Seek(0, io.SeekEnd); err != nil || end != 10 {
			t.Errorf("the end is at %d, %v", end, err)
		}
		if _, err := f.Seek(7, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(f); err != nil || string(rest) != "789" {
			t.Errorf("after a seek: %q, %v", rest, err)
		}
	})

	t.Run("a reader sees one whole file", func(t *testing.T) {
		s := open(t)
		var writers sync.WaitGroup
		texts := []string{strings.Repeat("a", 1<<16), strings.Repeat("b", 1<<16)}
		paths := []string{file(t, texts[0]), file(t, texts[1])}
		put(t, s, "x", paths[0])
		for _, path := range paths {
			writers.Go(func() {
				for range 20 {
					if err := s.Put("x", path); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for range 50 {
			if got, err := read(s, "x"); err != nil || got != texts[0] && got != texts[1] {
				t.Errorf("half a file of %d bytes, %v", len(got), err)
			}
		}
		writers.Wait()
	})

	t.Run("names stay inside", func(t *testing.T) {
		s := open(t)
		path := file(t, "x")
		for _, name := range []string{"", ".", "..", "../x", "/etc/passwd", "a/../../x", "a//b", "a/./b"} {
			if err := s.Put(name, path); err == nil {
				t.Errorf("wrote %q", name)
			}
			if f, err := s.Open(name); err == nil {
				f.Close()
				t.Errorf("opened %q", name)
			}
			if _, err := s.Local(name, t.TempDir()); err == nil {
				t.Errorf("copied %q", name)
			}
		}
	})

	// A trainer writes into its output, and a log there may be a link to a secret.
	t.Run("stores no links", func(t *testing.T) {
		s := open(t)
		dir := folder(t, map[string]string{"a": "x"})
		if err := os.Symlink(file(t, "secret"), filepath.Join(dir, "log.txt")); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{filepath.Join(dir, "log.txt"), dir} {
			if err := s.Put("stored", path); err == nil {
				t.Errorf("stored %s", path)
			}
		}
		if _, err := s.Open("stored"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// Whoever can write into the folder, as a trainer into its output, leads nobody out of it.
func TestFolderFollowsNoLinks(t *testing.T) {
	dir := t.TempDir()
	secret := file(t, "s")
	for name, target := range map[string]string{"file": secret, "folder": filepath.Dir(secret)} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s := store.Folder(dir)
	for _, name := range []string{"file", "folder/file"} {
		if text, err := read(s, name); err == nil {
			t.Errorf("read %q through %s", text, name)
		}
		if err := s.Put(name, file(t, "x")); err == nil {
			t.Errorf("wrote through %s", name)
		}
	}
	if _, err := s.Local("folder", t.TempDir()); err == nil {
		t.Error("a link is a folder of the store")
	}
	if data, err := os.ReadFile(secret); err != nil || string(data) != "s" {
		t.Errorf("the file outside is %q, %v", data, err)
	}
}

// What a run has written in its place already stays there, and a file and a folder do not replace each other.
func TestFolderKeepsWhatIsInPlace(t *testing.T) {
	dir := folder(t, map[string]string{"runs/a/log.txt": "text", "runs/a/prepared/list": "x"})
	s := store.Folder(dir)
	for _, name := range []string{"runs/a/log.txt", "runs/a/prepared"} {
		at := filepath.Join(dir, name)
		before, err := os.Lstat(at)
		if err != nil {
			t.Fatal(err)
		}
		put(t, s, name, at)
		if after, err := os.Lstat(at); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s was replaced, %v", name, err)
		}
	}
	if err := s.Put("runs/a", file(t, "x")); err == nil {
		t.Error("a file has replaced a folder")
	}
	if err := s.Put("runs/a/log.txt", folder(t, nil)); err == nil {
		t.Error("a folder has replaced a file")
	}
}
