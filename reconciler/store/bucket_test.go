package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/autonomos/aob/reconciler/cloud"
	"github.com/autonomos/aob/reconciler/store"
	"github.com/autonomos/aob/reconciler/work"
	"github.com/autonomos/aob/tools/versitygw/versitytest"
)

// The store in a bucket keeps the promises of all stores, in a bucket of versitygw.
func TestBucket(t *testing.T) {
	server := versitytest.Start(t)
	var buckets atomic.Int32
	conform(t, func(t *testing.T) work.Store { return bucketOf(t, server, fmt.Sprintf("runs-%d", buckets.Add(1))) })
}

func bucketOf(t *testing.T, server *versitytest.Server, name string) store.Bucket {
	server.Bucket(t, name)
	b, err := cloud.OpenBucket(t.Context(), cloud.Address{Bucket: name, Endpoint: server.URL,
		KeyID: versitytest.KeyID, Key: versitytest.Key})
	if err != nil {
		t.Fatal(err)
	}
	return store.Bucket{Objects: b, Prefix: "acme/"}
}

func keys(t *testing.T, b store.Bucket, prefix string) (list []string) {
	t.Helper()
	if err := b.Objects.List(t.Context(), prefix, func(key string, _ int64, _ string) error {
		list = append(list, key)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

// A part is sent once, however often it is stored, and is never written again. What lies in the bucket is compared with
// its digest when it is read.
func TestBucketKeepsParts(t *testing.T) {
	b := bucketOf(t, versitytest.Start(t), "parts")
	for _, name := range []string{"runs/a/model.onnx", "runs/b/model.onnx"} {
		put(t, b, name, file(t, "weights"))
	}
	put(t, b, "runs/c", folder(t, map[string]string{"model.onnx": "weights", "log.txt": "text"}))
	if got := keys(t, b, "acme/data/"); len(got) != 2 {
		t.Errorf("%d parts, want 2: %q", len(got), got)
	}
	sum := sha256.Sum256([]byte("weights"))
	at := "acme/data/" + hex.EncodeToString(sum[:])
	err := b.Objects.Write(t.Context(), at, strings.NewReader("weights"), 7, sum, true)
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("a part was written twice: %v", err)
	}
	if err := b.Objects.Write(t.Context(), "acme/other", strings.NewReader("WEIGHTS"), 7, sum, true); err == nil {
		t.Error("a part was written with other bytes than its digest says")
	}
	bad := []byte("damaged")
	if err := b.Objects.Write(t.Context(), at, bytes.NewReader(bad), 7, sha256.Sum256(bad), false); err != nil {
		t.Fatal(err)
	}
	if text, err := read(b, "runs/a/model.onnx"); err == nil || !strings.Contains(err.Error(), at) {
		t.Errorf("read %q, %v; want an error that names the object", text, err)
	}
	if _, err := b.Local("runs/c", filepath.Join(t.TempDir(), "c")); err == nil {
		t.Error("a damaged folder was copied")
	}
}

// A folder may be stored file by file, and a file or a folder of a folder has a name too.
func TestBucketFoldersAndFiles(t *testing.T) {
	b := bucketOf(t, versitytest.Start(t), "folders")
	put(t, b, "checkpoints/1/checkpoint", file(t, "weights"))
	put(t, b, "runs/a/output", folder(t, map[string]string{"x/1": "one", "x/2": "two", "y": "three"}))
	put(t, b, "runs/a/output/x/2", file(t, "new"))
	put(t, b, "runs/a=/b", file(t, "b"))
	put(t, b, "runs/a=", folder(t, map[string]string{"c=": "c"}))
	put(t, b, "runs/a=/b", file(t, "b"))
	for name, want := range map[string]map[string]string{"checkpoints/1": {"checkpoint": "weights"},
		"runs/a":          {"output/x/1": "one", "output/x/2": "new", "output/y": "three"},
		"runs/a/output/x": {"1": "one", "2": "new"}, "runs/a=": {"b": "b", "c=": "c"}} {
		dir, err := b.Local(name, filepath.Join(t.TempDir(), "copy"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := map[string]string{}
		_ = filepath.WalkDir(dir, func(at string, e fs.DirEntry, err error) error {
			if data, err := os.ReadFile(at); err == nil {
				got[at[len(dir)+1:]] = string(data)
			}
			return err
		})
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s has %v, want %v", name, got, want)
		}
	}
	if _, err := b.Open("runs/a/output"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder was opened as a file: %v", err)
	}
	if err := b.Put("runs/a/output", file(t, "x")); err == nil {
		t.Error("a file has replaced a folder")
	}
	put(t, b, "runs/a/output", folder(t, map[string]string{"y": "four"}))
	if text, err := read(b, "runs/a/output/x/2"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of the folder before: %q, %v", text, err)
	}
}

// objects is a bucket whose lists are what somebody else wrote.
type objects struct {
	mu   sync.Mutex
	list map[string]string
}

func (o *objects) List(context.Context, string, func(string, int64, string) error) error { return nil }

func (o *objects) Read(_ context.Context, key, _ string, offset int64) (io.ReadCloser, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if text, ok := o.list[key]; ok && offset <= int64(len(text)) {
		return io.NopCloser(bytes.NewReader([]byte(text[offset:]))), nil
	}
	return nil, fs.ErrNotExist
}

func (o *objects) Write(context.Context, string, io.ReadSeeker, int64, [32]byte, bool) error {
	return nil
}

func (o *objects) Remove(context.Context, string) error { return nil }

// A bucket that somebody else writes to leads nobody out of the folder, and takes no process down.
func TestHostileBucket(t *testing.T) {
	sum := sha256.Sum256([]byte("x"))
	part := hex.EncodeToString(sum[:])
	one := `{"size":1,"parts":["` + part + `"]}`
	for _, list := range []string{"", "{", "[]", "{}", `{"file":{},"files":{}}`, `{"files":{"../x":` + one + `}}`,
		`{"files":{"/etc/x":` + one + `}}`, `{"files":{"a":{"size":1,"parts":[]}}}`,
		`{"files":{"a":{"size":1,"parts":["../../x"]}}}`, `{"files":{"a":{"size":9,"parts":["` + part + `"]}}}`,
		`{"files":{"a":` + one + `,"a/b":` + one + `}}`} {
		b := store.Bucket{Objects: &objects{list: map[string]string{"names/a=": list, "data/" + part: "x"}}}
		dir := filepath.Join(t.TempDir(), "in", "dir")
		if _, err := b.Local("a", dir); err == nil {
			t.Errorf("copied %s", list)
		}
		if text, err := read(b, "a/a"); err == nil {
			t.Logf("%s has %q", list, text)
		}
		if _, err := os.Stat(filepath.Join(dir, "..", "x")); err == nil {
			t.Errorf("%s led out of the folder", list)
		}
	}
}
