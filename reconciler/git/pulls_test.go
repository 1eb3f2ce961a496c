package git

import (
	"maps"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
)

// A forge's own names of pull requests' refs end where its refs are read.
func TestRenamedPulls(t *testing.T) {
	a, b, c := plumbing.NewHash("aa"), plumbing.NewHash("bb"), plumbing.NewHash("cc")
	got := renamedPulls(map[string]plumbing.Hash{"refs/heads/main": a, "refs/merge-requests/7/head": b,
		"refs/merge-requests/7/merge": c, "refs/pull/7/head": c}, "refs/merge-requests/")
	want := map[string]plumbing.Hash{"refs/heads/main": a, "refs/pull/7/head": b, "refs/pull/7/merge": c}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
