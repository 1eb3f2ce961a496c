package store_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/autonomos/aob/reconciler/store"
)

// A keeper is what callers need of a store, taken together.
type keeper interface {
	Open(name string) (io.ReadSeekCloser, error)
	Put(name string, data []byte) error
}

// Every store keeps the same promises. A new one has its entry here.
func TestStores(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) keeper{
		"folder": func(t *testing.T) keeper { return store.Folder(filepath.Join(t.TempDir(), "not", "there", "yet")) },
	} {
		t.Run(name, func(t *testing.T) { conform(t, open) })
	}
}

func read(s keeper, name string) (string, error) {
	f, err := s.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	return string(data), err
}

func conform(t *testing.T, open func(t *testing.T) keeper) {
	t.Run("keeps and replaces", func(t *testing.T) {
		s := open(t)
		if _, err := s.Open("a/b.json"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("of an empty store: %v, want fs.ErrNotExist", err)
		}
		for _, text := range []string{"one", "", "three"} {
			if err := s.Put("a/b.json", []byte(text)); err != nil {
				t.Fatal(err)
			}
			if got, err := read(s, "a/b.json"); err != nil || got != text {
				t.Errorf("got %q, %v; want %q", got, err, text)
			}
		}
		if _, err := s.Open("a/c.json"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("of another name: %v, want fs.ErrNotExist", err)
		}
	})

	t.Run("readers seek, and keep what they opened", func(t *testing.T) {
		s := open(t)
		if err := s.Put("log", []byte("0123456789")); err != nil {
			t.Fatal(err)
		}
		f, err := s.Open("log")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := s.Put("log", []byte("new")); err != nil {
			t.Fatal(err)
		}
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
		if err := s.Put("x", []byte(texts[0])); err != nil {
			t.Fatal(err)
		}
		for _, text := range texts {
			writers.Go(func() {
				for range 20 {
					if err := s.Put("x", []byte(text)); err != nil {
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
		for _, name := range []string{"", ".", "..", "../x", "/etc/passwd", "a/../../x", "a//b", "a/./b"} {
			if err := s.Put(name, nil); err == nil {
				t.Errorf("wrote %q", name)
			}
			if f, err := s.Open(name); err == nil {
				f.Close()
				t.Errorf("opened %q", name)
			}
		}
	})
}

// Whoever can write into the folder, as a trainer into its output, leads nobody out of it.
func TestFolderFollowsNoLinks(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"file": secret, "folder": filepath.Dir(secret)} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s := store.Folder(dir)
	for _, name := range []string{"file", "folder/secret"} {
		if text, err := read(s, name); err == nil {
			t.Errorf("read %q through %s", text, name)
		}
		if err := s.Put(name, []byte("x")); err == nil {
			t.Errorf("wrote through %s", name)
		}
	}
	if data, err := os.ReadFile(secret); err != nil || string(data) != "s" {
		t.Errorf("the file outside is %q, %v", data, err)
	}
}
