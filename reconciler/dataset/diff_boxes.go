package dataset

import (
	"cmp"
	"math"
	"slices"
)

// This file finds what has become of the boxes of an image.

// overlap returns the intersection over union of two boxes.
func overlap(a, b [4]float64) float64 {
	w := min(a[0]+a[2], b[0]+b[2]) - max(a[0], b[0])
	h := min(a[1]+a[3], b[1]+b[3]) - max(a[1], b[1])
	if w <= 0 || h <= 0 {
		return 0
	}
	return w * h / (a[2]*a[3] + b[2]*b[3] - w*h)
}

// rounding is how many pixels an edge may move and be where it was: tools round in different ways.
const rounding = 0.5

// minOverlap is the least intersection over union of a box before and now.
const minOverlap = 0.5

// maxPairedBoxes is how many boxes of an image are compared each with each.
const maxPairedBoxes = 2000

// boxChanges lists what has become of the boxes of an image. Equal boxes are the same; then those that overlap, of one
// label first; then those with the id of before, where the ids of equal boxes are those of before too.
func boxChanges(before, now *compared) []BoxChange {
	list := []BoxChange{}
	type key struct {
		label string
		box   [4]float64
	}
	open := map[key][]int{}
	usedA, usedB := make([]bool, len(before.boxes)), make([]bool, len(now.boxes))
	for i, box := range before.boxes {
		k := key{box.Label, box.Box}
		open[k] = append(open[k], i)
	}
	sameIDs := true
	for i, box := range now.boxes {
		k := key{box.Label, box.Box}
		if len(open[k]) == 0 {
			continue
		}
		was := before.boxes[open[k][0]]
		usedA[open[k][0]], usedB[i] = true, true
		open[k] = open[k][1:]
		sameIDs = sameIDs && was.id == box.id
		if was.Crowd != box.Crowd || math.Abs(was.area-box.area) > 0.01*max(was.area, box.area) {
			list = append(list, box.changed(Other, was))
		}
	}
	type match struct {
		a, b  int
		other bool
		iou   float64
	}
	var matches []match
	if len(before.boxes) <= maxPairedBoxes && len(now.boxes) <= maxPairedBoxes {
		for i, was := range before.boxes {
			for k, box := range now.boxes {
				if iou := overlap(was.Box, box.Box); !usedA[i] && !usedB[k] && iou >= minOverlap {
					matches = append(matches, match{i, k, was.Label != box.Label, iou})
				}
			}
		}
	}
	slices.SortStableFunc(matches, func(x, y match) int {
		// A label that is corrected leaves the box as it is, so an equal box goes before one of the same label.
		exactX, exactY := x.iou == 1, y.iou == 1
		return cmp.Or(compareBool(exactY, exactX), compareBool(x.other, y.other), cmp.Compare(y.iou, x.iou))
	})
	take := func(i, k int) {
		usedA[i], usedB[k] = true, true
		was, box := before.boxes[i], now.boxes[k]
		change := Moved
		if was.Label != box.Label {
			change = Relabelled
		}
		if c := box.changed(change, was); change != Moved || c.Pixels >= rounding {
			list = append(list, c)
		}
	}
	for _, m := range matches {
		if !usedA[m.a] && !usedB[m.b] {
			take(m.a, m.b)
		}
	}
	byID := map[int64]int{}
	for i, was := range before.boxes {
		if !usedA[i] && sameIDs && before.split == now.split {
			byID[was.id] = i
		}
	}
	for k, box := range now.boxes {
		if i, ok := byID[box.id]; ok && !usedB[k] && !usedA[i] && before.boxes[i].Label == box.Label {
			take(i, k)
		}
	}
	for i, was := range before.boxes {
		if !usedA[i] {
			list = append(list, BoxChange{Change: Removed, Label: was.Label, Before: &before.boxes[i].own})
		}
	}
	for k, box := range now.boxes {
		if !usedB[k] {
			list = append(list, BoxChange{Change: Added, Label: box.Label, Now: &now.boxes[k].own})
		}
	}
	return list
}

func compareBool(a, b bool) int {
	if a == b {
		return 0
	}
	if a {
		return 1
	}
	return -1
}

func (b listedBox) changed(change string, was listedBox) BoxChange {
	c := BoxChange{Change: change, Label: b.Label, Before: &was.own, Now: &b.own, IoU: overlap(was.Box, b.Box)}
	if was.Label != b.Label {
		c.Was = was.Label
	}
	edges := func(v [4]float64) [4]float64 { return [4]float64{v[0], v[1], v[0] + v[2], v[1] + v[3]} }
	x, y := edges(was.Box), edges(b.Box)
	for i := range x {
		c.Pixels = max(c.Pixels, math.Abs(x[i]-y[i]))
	}
	return c
}
