package commits

import (
	"errors"
	"testing"

	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
)

const fleet = "apiVersion: aob/v1\nkind: Fleet\nname: demo\nruns: shapes\nwaves: [100%]\n"

// A fakeRepo has one file in each commit, and counts what is read.
type fakeRepo struct{ files, blobs, bases int }

func (r *fakeRepo) Files(commit string) ([]git.File, error) {
	if commit == "bad" {
		return nil, errors.New("damaged")
	}
	r.files++
	return []git.File{{Path: "fleets/demo.yaml", Hash: "blob", Size: int64(len(fleet))}}, nil
}

func (r *fakeRepo) Blob(string, int64) ([]byte, error) {
	r.blobs++
	return []byte(fleet), nil
}

func (r *fakeRepo) MergeBases(a, b string) ([]string, error) {
	r.bases++
	return []string{a}, nil
}

// A tree is read once while turns use it, and dropped after a turn that does not.
func TestTreesAreKeptWhileTheyAreUsed(t *testing.T) {
	repo := &fakeRepo{}
	r := New(repo, intent.NewCache(intent.Options{}))
	read := func(commit string, want int) {
		t.Helper()
		tree, err := r.Tree(commit)
		if err != nil || tree.Intent.Fleets.Of("demo").Runs != "shapes" {
			t.Fatalf("%s: %+v, %v", commit, tree, err)
		}
		if repo.files != want {
			t.Errorf("%s: %d trees were read, want %d", commit, repo.files, want)
		}
	}
	read("a", 1)
	read("b", 2)
	r.Sweep()
	read("a", 2)
	r.Keep("b")
	r.Sweep()
	read("a", 2)
	r.Sweep()
	if !r.Has("a") || r.Has("b") {
		t.Errorf("a is kept: %v, want true; b is kept: %v, want false", r.Has("a"), r.Has("b"))
	}
	if repo.blobs != 1 {
		t.Errorf("one content was parsed %d times", repo.blobs)
	}
	if _, err := r.Tree("bad"); err == nil || r.Has("bad") {
		t.Errorf("a tree that cannot be read: %v", err)
	}
}

// How two commits are related is found out once.
func TestMergeBasesAreFoundOnce(t *testing.T) {
	repo := &fakeRepo{}
	r := New(repo, intent.NewCache(intent.Options{}))
	for range 2 {
		if yes, err := r.Contains("new", "old"); err != nil || !yes {
			t.Errorf("new contains old: %v, %v", yes, err)
		}
	}
	if repo.bases != 1 || !r.HasBases("old", "new") || r.HasBases("new", "old") {
		t.Errorf("the repository was asked %d times", repo.bases)
	}
}

// A file that is not there is no error.
func TestFile(t *testing.T) {
	r := New(&fakeRepo{}, intent.NewCache(intent.Options{}))
	for _, c := range []struct {
		commit, path string
		want         string
		fails        bool
	}{
		{"a", "fleets/demo.yaml", fleet, false},
		{"a", "fleets/other.yaml", "", false},
		{"", "fleets/demo.yaml", "", false},
		{"bad", "fleets/demo.yaml", "", true},
	} {
		got, err := r.File(c.commit, c.path)
		if string(got) != c.want || (err != nil) != c.fails {
			t.Errorf("%s at %q: %q, %v", c.path, c.commit, got, err)
		}
	}
}
