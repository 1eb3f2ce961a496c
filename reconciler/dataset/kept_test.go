package dataset

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/durable"
)

// Every version in the cache is listed, also one of a source that is configured no more, and removed once it is old.
func TestKept(t *testing.T) {
	c := Catalog{Cache: filepath.Join(t.TempDir(), "datasets")}
	if list, err := c.Kept(); err != nil || len(list) > 0 {
		t.Errorf("before the first: %v, %v", list, err)
	}
	old := time.Now().Add(-48 * time.Hour)
	put := func(folder string, used time.Time) {
		t.Helper()
		path := filepath.Join(c.Cache, folder)
		file := filepath.Join(path, useFile)
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := durable.WriteJSON(file, use{Dataset: folder, Bytes: 7}); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, used, used); err != nil {
			t.Fatal(err)
		}
	}
	put("s3/a", old)
	put("roboflow/b", time.Now())
	put("roboflow/.gone-c", old) // left by a process that was killed
	for _, folder := range []string{"blobs/ab", "s3/half", ".tmp"} {
		if err := os.MkdirAll(filepath.Join(c.Cache, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	listed := func() (folders []string) {
		t.Helper()
		list, err := c.Kept()
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range list {
			folders = append(folders, k.Folder)
			if k.Bytes != 7 || k.Dataset != k.Folder {
				t.Errorf("%+v", k)
			}
			if err := c.Remove(k, time.Now().Add(-24*time.Hour)); err != nil {
				t.Error(err)
			}
		}
		slices.Sort(folders)
		return folders
	}
	if got := listed(); !slices.Equal(got, []string{"roboflow/b", "s3/a"}) {
		t.Errorf("listed %q", got)
	}
	if got := listed(); !slices.Equal(got, []string{"roboflow/b"}) {
		t.Errorf("after the removal %q", got)
	}
	if _, err := os.Stat(filepath.Join(c.Cache, "roboflow", ".gone-c")); err == nil {
		t.Error("what a killed process left is there")
	}
}
