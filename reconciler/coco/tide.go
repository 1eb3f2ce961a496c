package coco

import (
	"cmp"
	"slices"
)

// diagnosing looks at all classes of an image together.
type diagnosing struct {
	m          *Matched
	truth      *Truth
	detections []Detection
	classes    []classErrors // as Matched.classes
	truths     []wanted      // of the current image, that count
	list       []judged      // the current image's detections
}

// classErrors is what was seen of one class.
type classErrors struct {
	own    []judged // its detections
	moved  []judged // those of other classes that correcting Cls gives to it
	missed int
}

// wanted is a truth that counts.
type wanted struct {
	target
	class int32
	found bool
	best  int // the surest Loc or Cls error on it, an index into list; -1 for none
}

// judged is what was made of one detection.
type judged struct {
	score       float64
	box         Box
	image, item int32 // indexes into Matched.images and detections
	class       int32
	other       int32     // class of the truth of a Cls error
	kind        ErrorType // noError: it is true
	right       bool      // corrected, it is true; else it is left out
}

const noError = errorTypes

// look judges the detections of one image after the other.
func (d *diagnosing) look() {
	images, categories := len(d.m.images), len(d.m.classes)
	ids := d.m.indexes()
	truths, dets := newCells(len(d.truth.Annotations)), newCells(len(d.detections))
	for i := range d.truth.Annotations {
		a := &d.truth.Annotations[i]
		truths.add(i, ids.categories[a.Category], ids.images[a.Image])
	}
	for i := range d.detections {
		v := &d.detections[i]
		if d.m.params.ScoreFloor > 0 && v.Score < d.m.params.ScoreFloor {
			continue
		}
		dets.add(i, ids.categories[v.Category], ids.images[v.Image])
	}
	byImage := func(c *cells) []cell {
		spare := make([]cell, len(c.items))
		distribute(c.items, spare, categories, func(v cell) int32 { return v.category })
		distribute(spare, c.items, images, func(v cell) int32 { return v.image })
		return c.items
	}
	t, v := byImage(truths), byImage(dets)
	w := &matcher{m: d.m, truth: d.truth, detections: d.detections}
	for i := range images {
		nt, nd := run(t, int32(i)), run(v, int32(i))
		d.image(w, t[:nt], v[:nd], int32(i))
		t, v = t[nt:], v[nd:]
	}
}

// image judges the detections of one image, both lists being sorted by class.
func (d *diagnosing) image(w *matcher, truths, dets []cell, image int32) {
	d.truths, d.list = d.truths[:0], d.list[:0]
	const b = 1 // bit(0, at50)
	for len(truths) > 0 || len(dets) > 0 {
		k := int32(len(d.classes))
		if len(truths) > 0 {
			k = truths[0].category
		}
		if len(dets) > 0 {
			k = min(k, dets[0].category)
		}
		nt, nd := ofClass(truths, k), ofClass(dets, k)
		w.raw = w.raw[:0]
		w.targets(&class{}, truths[:nt], image)
		w.image(dets[:nd], image)
		for i := range w.gts {
			if g := &w.gts[i]; !g.aside[0] {
				d.truths = append(d.truths, wanted{target: *g, class: k, found: g.taken&b != 0, best: -1})
			}
		}
		for i := range w.raw {
			if w.raw[i].aside&b != 0 {
				continue
			}
			item := dets[w.keys[i].index].item
			v := judged{score: w.raw[i].score, box: d.detections[item].Box, image: image, item: item, class: k,
				kind: noError}
			if d.m.params.ClipBoxes {
				v.box = clip(v.box, d.m.images[image])
			}
			if w.raw[i].found&b == 0 {
				v.kind = Bkg // false; why, is seen when all classes are matched
			}
			d.list = append(d.list, v)
		}
		truths, dets = truths[nt:], dets[nd:]
	}
	for i := range d.list {
		if d.list[i].kind != noError {
			d.blame(i)
		}
	}
	for i := range d.truths {
		switch t := &d.truths[i]; {
		case t.best >= 0:
			d.list[t.best].right = true
		case !t.found:
			d.classes[t.class].missed++
		}
	}
	for _, v := range d.list {
		c := &d.classes[v.class]
		c.own = append(c.own, v)
		if v.kind == Cls && v.right {
			d.classes[v.other].moved = append(d.classes[v.other].moved, v)
		}
	}
}

// ofClass counts the leading cells of one class.
func ofClass(cells []cell, k int32) int {
	n := 0
	for n < len(cells) && cells[n].category == k {
		n++
	}
	return n
}

// blame says what is wrong with a false detection of the list.
func (d *diagnosing) blame(i int) {
	v := &d.list[i]
	area := float64(v.box.W * v.box.H)
	// the best overlaps with truths of its class, of others, and with found ones of its class
	var own, other, found float64
	var ownAt, otherAt *wanted
	for k := range d.truths {
		t := &d.truths[k]
		iou := overlap(v.box, area, &t.target)
		switch {
		case t.class != v.class && iou > other:
			other, otherAt = iou, t
		case t.class == v.class && iou > own:
			own, ownAt = iou, t
		}
		if t.class == v.class && t.found {
			found = max(found, iou)
		}
	}
	var on *wanted // what it would find, corrected
	switch {
	case own >= Background && own <= Foreground:
		v.kind, on = Loc, ownAt
	case other >= Foreground:
		v.kind, on, v.other = Cls, otherAt, otherAt.class
	case found >= Foreground:
		v.kind = Dupe
	case max(own, other) <= Background:
		v.kind = Bkg
	default:
		v.kind = Both
	}
	if on == nil || on.found {
		return
	}
	if on.best < 0 || bySureness(*v, d.list[on.best]) < 0 {
		on.best = i
	}
}

// bySureness orders detections as Match does: by falling score, then by image
// and place in the file.
func bySureness(a, b judged) int {
	return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.image, b.image), cmp.Compare(a.item, b.item))
}

// diagnosis counts the errors and asks what each type costs.
func (d *diagnosing) diagnosis(points []OperatingPoint) *Diagnosis {
	out := &Diagnosis{PerClass: make([]ClassErrors, len(d.classes)), Confusions: []Confusion{}}
	for e := range errorTypes {
		out.Errors = append(out.Errors, ErrorCost{Type: e})
	}
	pairs := map[[2]int32]int{}
	for k := range d.classes {
		c, category := &d.classes[k], d.m.category[k]
		v := ClassErrors{CategoryID: category.ID, Name: category.Name, Truths: d.m.classes[k].truths[0]}
		for e := range errorTypes {
			v.Errors = append(v.Errors, ErrorCost{Type: e})
		}
		v.Errors[Miss].Count = c.missed
		for i := range c.own {
			j := &c.own[i]
			if j.kind == noError {
				continue
			}
			v.Errors[j.kind].Count++
			if j.kind == Cls && points[k].F1 > 0 && j.score >= points[k].Score {
				pairs[[2]int32{j.other, int32(k)}]++
			}
		}
		for e := range errorTypes {
			out.Errors[e].Count += v.Errors[e].Count
		}
		out.PerClass[k] = v
	}
	d.costs(out)
	for pair, n := range pairs {
		of, as := d.m.category[pair[0]], d.m.category[pair[1]]
		out.Confusions = append(out.Confusions, Confusion{
			TruthID: of.ID, Truth: of.Name, DetectedID: as.ID, Detected: as.Name, Count: n,
			Truths: d.m.classes[pair[0]].truths[0],
		})
	}
	slices.SortFunc(out.Confusions, func(a, b Confusion) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.TruthID, b.TruthID), cmp.Compare(a.DetectedID,
			b.DetectedID))
	})
	return out
}

// costs computes AP50 as it is, and with each type of error corrected.
func (d *diagnosing) costs(out *Diagnosis) {
	const asIs = errorTypes
	var tables [errorTypes + 1][]float64 // recall by class, as Result adds up
	for i := range tables {
		tables[i] = slices.Repeat([]float64{-1}, recalls*len(d.classes))
	}
	inParallel(len(d.classes), func() func(int) {
		var w correction
		return func(k int) {
			truths := d.m.classes[k].truths[0]
			v := &out.PerClass[k]
			if v.AP50 = -1; truths == 0 {
				return
			}
			c := &d.classes[k]
			w.merge(c, k)
			var ap [errorTypes + 1]float64
			for e := Cls; e <= asIs; e++ {
				missed := 0
				if e == Miss {
					missed = c.missed
				}
				w.correct(e, truths-missed)
				for r, q := range w.q {
					tables[e][r*len(d.classes)+k] = q
				}
				ap[e] = mean(w.q[:])
			}
			v.AP50 = ap[asIs]
			for e := range errorTypes {
				v.Errors[e].DAP = ap[e] - ap[asIs]
			}
		}
	})
	out.AP50 = mean(tables[asIs])
	for e := range errorTypes {
		out.Errors[e].DAP = mean(tables[e]) - out.AP50
	}
}

// correction makes one class's curve with errors corrected; it keeps its
// working memory.
type correction struct {
	sweep
	list  []judged // the class's own detections and those that correcting Cls gives to it
	class int32
}

func (w *correction) merge(c *classErrors, class int) {
	w.class = int32(class)
	w.list = append(append(w.list[:0], c.own...), c.moved...)
	slices.SortFunc(w.list, bySureness)
}

// correct leaves in q what precision remains at each recall when errors of a
// type are corrected; noError corrects none.
func (w *correction) correct(e ErrorType, truths int) {
	w.curve.reset()
	var tp, n int32
	for i := range w.list {
		v := &w.list[i]
		moved := v.class != w.class
		if moved && e != Cls || !moved && e != noError && v.kind == e && !(e == Loc && v.right) {
			continue
		}
		n++
		if v.kind == noError || v.kind == e { // the latter only where it is right
			tp++
			w.curve.tp, w.curve.n = append(w.curve.tp, tp), append(w.curve.n, n)
		}
	}
	clear(w.q[:])
	if truths > 0 { // else all are missed, and nothing shows how precise the model is
		recallCounts(truths, &w.need)
		w.curve.interpolate(&w.need, &w.q)
	}
}
