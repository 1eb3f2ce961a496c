package coco

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
)

// indexes maps ids of images and categories to their index in order of id.
type indexes struct {
	images, categories map[int64]int32
}

// check returns an error if the ground truth is not valid.
func (t *Truth) check() (indexes, error) {
	ids := indexes{make(map[int64]int32, len(t.Images)), make(map[int64]int32, len(t.Categories))}
	for i, m := range t.Images {
		if _, again := ids.images[m.ID]; again {
			return ids, fmt.Errorf("coco: images[%d]: id %d is there twice", i, m.ID)
		}
		if m.Width < 0 || m.Height < 0 {
			return ids, fmt.Errorf("coco: images[%d]: want sizes from 0 up, got %d x %d", i, m.Width, m.Height)
		}
		ids.images[m.ID] = 0
	}
	for i, c := range t.Categories {
		if _, again := ids.categories[c.ID]; again {
			return ids, fmt.Errorf("coco: categories[%d]: id %d is there twice", i, c.ID)
		}
		ids.categories[c.ID] = 0
	}
	rank(ids.images)
	rank(ids.categories)
	used := make(map[int64]struct{}, len(t.Annotations))
	for i := range t.Annotations {
		a := &t.Annotations[i]
		text := a.fault()
		if _, again := used[a.ID]; again {
			text = fmt.Sprintf("id %d is there twice", a.ID)
		}
		if _, ok := ids.images[a.Image]; !ok {
			text = fmt.Sprintf("image %d is not among the images", a.Image)
		}
		if _, ok := ids.categories[a.Category]; !ok {
			text = fmt.Sprintf("category %d is not among the categories", a.Category)
		}
		if text != "" {
			return ids, fmt.Errorf("coco: annotations[%d]: %s", i, text)
		}
		used[a.ID] = struct{}{}
	}
	return ids, nil
}

// rank sets each key's value to its index in ascending order.
func rank(m map[int64]int32) {
	for i, k := range slices.Sorted(maps.Keys(m)) {
		m[k] = int32(i)
	}
}

// fault says which of the annotation's numbers is invalid; "" if none is.
func (a *Annotation) fault() string {
	if text := a.Box.fault(); text != "" {
		return "bbox: " + text
	}
	if !finite(a.Area) || a.Area < 0 {
		return fmt.Sprintf("area: want a finite number from 0 up, got %v", a.Area)
	}
	return ""
}

// fault says which of the detection's numbers is invalid; "" if none is.
func (d *Detection) fault() string {
	if !finite(d.Score) {
		return fmt.Sprintf("score: want a finite number, got %v", d.Score)
	}
	if text := d.Box.fault(); text != "" {
		return "bbox: " + text
	}
	return ""
}

// fault says what is invalid about the box; "" if nothing is.
func (b *Box) fault() string {
	// NaN fails these comparisons.
	if b.W >= 0 && b.H >= 0 && b.W <= maxPixels && b.H <= maxPixels &&
		b.X >= -maxPixels && b.X <= maxPixels && b.Y >= -maxPixels && b.Y <= maxPixels {
		return ""
	}
	for _, v := range [4]float64{b.X, b.Y, b.W, b.H} {
		if !finite(v) {
			return fmt.Sprintf("want finite numbers, got %v", v)
		}
	}
	if b.W < 0 || b.H < 0 {
		return fmt.Sprintf("want width and height from 0 up, got %v x %v", b.W, b.H)
	}
	return fmt.Sprintf("want pixels up to %v, got [%v, %v, %v, %v]", float64(maxPixels), b.X, b.Y, b.W, b.H)
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// OddArea says why an annotation's area cannot be that of an object in its box; "" if it can. Boxes may be rounded, and
// crowds have any area.
func (a *Annotation) OddArea() string {
	switch {
	case a.Crowd || a.Box.W < 1 || a.Box.H < 1:
	case a.Area > (a.Box.W+1)*(a.Box.H+1)*1.02:
		return "larger than the box"
	case a.Area < a.Box.W*a.Box.H/100:
		return "less than a hundredth of the box"
	}
	return ""
}

// Repeats returns the annotations that are the same as an earlier one, as indexes: same image, category, box and crowd.
func (t *Truth) Repeats() map[int]int {
	type object struct {
		image, category int64
		box             Box
		crowd           bool
	}
	first, out := map[object]int{}, map[int]int{}
	for i, a := range t.Annotations {
		key := object{a.Image, a.Category, a.Box, a.Crowd}
		if at, again := first[key]; again {
			out[i] = at
		} else {
			first[key] = i
		}
	}
	return out
}

// Labels returns the annotations whose box an earlier one of the image has with another category, as indexes, and for
// each of them the earlier ones, one of each category. It leaves out what Repeats returns.
func (t *Truth) Labels() map[int][]int {
	type place struct {
		image int64
		box   Box
		crowd bool
	}
	first, out := map[place][]int{}, map[int][]int{}
	for i, a := range t.Annotations {
		key := place{a.Image, a.Box, a.Crowd}
		if slices.ContainsFunc(first[key], func(at int) bool { return t.Annotations[at].Category == a.Category }) {
			continue
		}
		if len(first[key]) > 0 {
			out[i] = slices.Clone(first[key])
		}
		first[key] = append(first[key], i)
	}
	return out
}

// Notes says what makes the figures on a valid truth hard to read.
func (t *Truth) Notes() (notes []string) {
	if n := len(t.Repeats()); n > 0 {
		notes = append(notes, fmt.Sprintf("%d of %d truths are listed before with the same box and category; a model "+
			"that "+
			"finds such an object once misses the other", n, len(t.Annotations)))
	}
	odd, counts := map[string]int{}, false
	for i := range t.Annotations {
		odd[t.Annotations[i].OddArea()]++
		counts = counts || !t.Annotations[i].Crowd
	}
	if !counts {
		notes = append(notes, fmt.Sprintf("none of %s counts, so nothing is measured, and every "+
			"number is -1", delivery.Count(len(t.Annotations), "annotation")))
	}
	for _, what := range slices.Sorted(maps.Keys(odd)) {
		if what != "" {
			notes = append(notes, fmt.Sprintf("the area is %s in %d of %d truths; APs, APm, APl, ARs, ARm and ARl "+
				"use it",
				what, odd[what], len(t.Annotations)))
		}
	}
	return notes
}
