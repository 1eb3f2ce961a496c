package plan

import (
	"maps"
	"slices"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Only what has changed is counted, and the classes that have changed most stand first.
func TestCountChanges(t *testing.T) {
	data := func(images, truths map[string]int) delivery.DataResult {
		return delivery.DataResult{Images: images, Truths: truths}
	}
	type counts = map[string]int
	for name, c := range map[string]struct {
		before, now     delivery.DataResult
		images, objects counts
		names           []string
		changed         int // classes
	}{
		"nothing":   {before: data(counts{"train": 5}, counts{"a": 1}), now: data(counts{"train": 5}, counts{"a": 1})},
		"no counts": {},
		"a split and a class are new": {before: data(counts{"train": 5}, nil),
			now:    data(counts{"train": 5, "test": 2}, counts{"a": 3}),
			images: counts{"test": 2}, objects: counts{"a": 3}, names: []string{"a"}, changed: 1},
		"a split is gone": {before: data(counts{"train": 5, "valid": 2}, nil), now: data(counts{"train": 4}, nil),
			images: counts{"train": -1, "valid": -2}},
		"many classes": {before: data(nil, counts{"a": 1, "b": 9, "c": 1, "d": 7, "e": 2, "f": 4}),
			now:     data(nil, counts{"a": 2, "b": 1, "c": 9, "d": 4, "e": 2, "f": 5}),
			objects: counts{"b": -8, "c": 8, "d": -3, "a": 1}, names: []string{"b", "c", "d", "a"}, changed: 5},
	} {
		t.Run(name, func(t *testing.T) {
			var images, objects counts
			var names []string
			changed := 0
			for _, f := range countChanges(c.before, c.now) {
				if len(f.Names) == 0 {
					images = f.Counts
				} else {
					objects, names, changed = f.Counts, f.Names, f.Count
				}
			}
			if !maps.Equal(images, c.images) || !maps.Equal(objects, c.objects) || !slices.Equal(names, c.names) ||
				changed != c.changed {
				t.Errorf("images %v, objects %v of %v, %d classes", images, objects, names, changed)
			}
		})
	}
}

// A pull request that changes a release file alone changes its model, also where both trees share all models.
func TestReleaseFileAloneChangesItsModel(t *testing.T) {
	w := released(3, 3)
	base := w.Main.Intent
	head := base
	file := head.Releases.Of("m1")
	file.Version++
	head.Releases = head.Releases.With(delivery.NamedChange[delivery.Release]{Name: "m1", Value: file},
		delivery.NamedChange[delivery.Release]{Name: "m2", Gone: true},
		delivery.NamedChange[delivery.Release]{Name: "of no model", Value: file})
	if got := changedModels(Proposal{Base: base, Intent: head}); !slices.Equal(got, []string{"m1", "m2"}) {
		t.Errorf("got %v, want m1 and m2", got)
	}
}
