package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// Files that others write may be long, or be folders, pipes, devices and links.
func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.WriteFile(at("file"), []byte("12345"), 0o600), os.Symlink("file", at("link")),
		syscall.Mkfifo(at("pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path  string
		limit int64
		want  string // of the error
	}{
		{at("file"), 5, ""},
		{at("link"), 5, ""},
		{at("file"), 4, "5 bytes, want at most 4"},
		{dir, 5, "not a file"},
		{at("pipe"), 5, "not a file"},
		{"/dev/zero", 5, "not a file"},
		{at("none"), 5, "no such file"},
	} {
		data, err := durable.ReadFile(c.path, c.limit)
		if c.want == "" && (err != nil || string(data) != "12345") ||
			c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s, at most %d bytes: %q, %v", c.path, c.limit, data, err)
		}
	}
	if data, err := durable.ReadNoFollow(at("file"), 5); err != nil || string(data) != "12345" {
		t.Errorf("without links: %q, %v", data, err)
	}
	if _, err := durable.ReadNoFollow(at("link"), 5); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a link: %v", err)
	}
}

// A folder appears whole or not at all, and what a crash left is removed.
func TestWriteFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "slot")
	if err := errors.Join(os.Mkdir(dir+".partial", 0o700), os.WriteFile(dir+".partial/old", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	full := errors.New("no space")
	err := durable.WriteFolder(dir, func(partial string) error {
		return errors.Join(os.WriteFile(filepath.Join(partial, "new"), nil, 0o600), full)
	})
	if left, _ := os.ReadDir(filepath.Dir(dir)); !errors.Is(err, full) || len(left) != 0 {
		t.Fatalf("%v, and %v is left", err, left)
	}
	if err := durable.WriteFolder(dir, func(partial string) error {
		return os.WriteFile(filepath.Join(partial, "new"), nil, 0o600)
	}); err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 || files[0].Name() != "new" {
		t.Errorf("%v, %v", files, err)
	}
}

func TestReadJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v.json")
	var v struct{ A int }
	if err := durable.ReadJSON(path, &v); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	v.A = 3
	if err := durable.WriteJSON(path, v); err != nil {
		t.Fatal(err)
	}
	v.A = 0
	if err := durable.ReadJSON(path, &v); err != nil || v.A != 3 {
		t.Errorf("%+v, %v", v, err)
	}
	if err := errors.Join(os.WriteFile(path, []byte("{"), 0o600), durable.ReadJSON(path, &v)); err == nil ||
		!strings.Contains(err.Error(), path) {
		t.Errorf("a damaged file: %v", err)
	}
}

func TestLastLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for text, want := range map[string]string{
		"":                                "",
		"\n\n":                            "",
		"one\ntwo \n\n":                   "two",
		strings.Repeat("é", 3000):         strings.Repeat("é", 148) + "…",
		strings.Repeat("x\n", 2000) + "z": "z",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := durable.LastLine(path, delivery.Mask{}); got != want {
			t.Errorf("%.20q: %q, want %q", text, got, want)
		}
	}
	mask := delivery.NewMask(slices.Values([]string{"hf_S3cr3t-value"}))
	for text, want := range map[string]string{
		"one\n401: ?token=hf_S3cr3t-value\n":                  "401: ?token=***",
		strings.Repeat("x", 293) + "hf_S3cr3t-value and more": strings.Repeat("x", 293) + "*** …",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := durable.LastLine(path, mask); got != want {
			t.Errorf("%.20q: %q, want %q", text, got, want)
		}
	}
	for end := range 20 { // the part that is read begins at each byte of a secret
		text := strings.Repeat("hf_S3cr3t-value ", 200) + strings.Repeat("x", end)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := durable.LastLine(path, mask); strings.ContainsAny(got, "Sval") || !strings.Contains(got, "*** ***") {
			t.Errorf("%d: %q", end, got)
		}
	}
	if got := durable.LastLine(path+"-none", delivery.Mask{}); got != "" {
		t.Errorf("no log: %q", got)
	}
}
