package engine

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// An engine is removed if it was not used for long, and nothing is removed while one is built.
func TestCacheRemove(t *testing.T) {
	dir := t.TempDir()
	cache := Cache(filepath.Join(dir, "engines"))
	if list, err := cache.Kept(); err != nil || len(list) > 0 {
		t.Fatalf("a cache that is missing: %v, %v", list, err)
	}
	folder := filepath.Join(string(cache), "release", "gpu", "10.9", "key")
	put(t, filepath.Join(folder, planFile), []byte("plan"))
	put(t, filepath.Join(folder, entryFile), []byte("{}"))
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(folder, old, old); err != nil {
		t.Fatal(err)
	}
	list, err := cache.Kept()
	if err != nil || len(list) != 1 || list[0].Bytes != 6 || !list[0].Used.Equal(old) {
		t.Fatalf("%+v, %v", list, err)
	}
	lock, err := durable.TryLock(filepath.Join(string(cache), lockFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, waits := errors.AsType[delivery.Wait](cache.Remove(list[0], time.Now())); !waits {
		t.Error("removed during a build")
	}
	used(folder)
	if err := errors.Join(lock.Unlock(), cache.Remove(list[0], time.Now().Add(-time.Minute))); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(folder); err != nil {
		t.Error("one that was used meanwhile is gone")
	}
	left := filepath.Join(string(cache), goneFolder)
	put(t, filepath.Join(left, planFile), []byte("plan"))
	if err := cache.Finish(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("what a killed process has left is there")
	}
	if err := cache.Remove(list[0], time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(string(cache)); err != nil || len(entries) != 1 { // the lock
		t.Errorf("left: %v, %v", entries, err)
	}
}

func put(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
		t.Fatal(err)
	}
}
