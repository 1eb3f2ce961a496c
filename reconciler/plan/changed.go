package plan

// This file says what has changed between the dataset of a release and that of a pull request.

import (
	"cmp"
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// maxChangedClasses is how many classes are listed with their change.
const maxChangedClasses = 4

// changedData says what is different in the proposal's dataset, as its data run has read it, from what main's release
// was trained on. It is zero if both have the same files, or if those of the release are not known.
func (m *maker) changedData(r *progress) delivery.Fact {
	if r.Baseline == nil {
		return delivery.Fact{}
	}
	release, ok := m.w.Evidence.BySpec[r.Baseline.Spec]
	if !ok {
		return delivery.Fact{}
	}
	before, now := release.Training.Data, r.data
	if before.Content == "" || before.Content == now.Content {
		return delivery.Fact{}
	}
	v := values{Dataset: r.model.Dataset.String(), Version: r.Baseline.Version, Facts: countChanges(before, now)}
	if from := release.Training.Input.Spec.Dataset; from != v.Dataset {
		v.FromDataset = from
	}
	return fact(code.DataChanged, v)
}

// countChanges returns how many images and objects of a dataset there are more or fewer, the largest changes of classes
// first.
func countChanges(before, now delivery.DataResult) (list []delivery.Fact) {
	if images := minus(now.Images, before.Images); len(images) > 0 {
		list = append(list, fact(code.DataImages, values{Counts: images}))
	}
	objects := minus(now.Truths, before.Truths)
	if len(objects) == 0 {
		return list
	}
	classes := slices.SortedFunc(maps.Keys(objects), func(a, b string) int {
		return cmp.Or(cmp.Compare(max(objects[b], -objects[b]), max(objects[a], -objects[a])), cmp.Compare(a, b))
	})
	v := values{Names: classes[:min(len(classes), maxChangedClasses)], Count: len(classes), Counts: map[string]int{}}
	for _, class := range v.Names {
		v.Counts[class] = objects[class]
	}
	return append(list, fact(code.DataObjects, v))
}

// minus returns the differences of counts that are not 0.
func minus(a, b map[string]int) map[string]int {
	difference := maps.Clone(a)
	if difference == nil {
		difference = map[string]int{}
	}
	for name, n := range b {
		difference[name] -= n
	}
	maps.DeleteFunc(difference, func(_ string, n int) bool { return n == 0 })
	return difference
}
