package coco

import (
	"cmp"
	"slices"
)

// A diagnosing classifies the detections of one image after the other, all classes together.
type diagnosing struct {
	m          *Matched
	truth      *Truth
	detections []Detection
	classes    []classErrors // as Matched.classes
	truths     []wanted      // annotations of the current image, without crowds
	list       []judged      // detections on the current image
}

// classErrors are the detections and errors of one class.
type classErrors struct {
	own    []judged // its detections
	moved  []judged // detections of other classes that become its own when Cls errors are corrected
	missed int
}

// A wanted is an annotation that is not a crowd.
type wanted struct {
	target
	class int32
	found bool
	best  int // index into list of the Loc or Cls error on it with the highest score; -1 for none
}

// A judged is a detection with its error.
type judged struct {
	score       float64
	box         Box
	image, item int32 // indexes into Matched.images and detections
	class       int32
	other       int32     // class of the annotation of a Cls error
	kind        ErrorType // noError: a true positive
	right       bool      // becomes a true positive when corrected; else it is removed
}

const noError = errorTypes

// images classifies the detections on all images.
func (d *diagnosing) images() {
	images, categories, ids := len(d.m.images), len(d.m.classes), d.m.ids
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
		distribute(c.items, spare, categories, cell.ofCategory)
		distribute(spare, c.items, images, cell.ofImage)
		return c.items
	}
	t, v := byImage(truths), byImage(dets)
	w := &matcher{m: d.m, truth: d.truth, detections: d.detections}
	for i := range int32(images) {
		nt, nd := leading(t, cell.ofImage, i), leading(v, cell.ofImage, i)
		d.image(w, t[:nt], v[:nd], i)
		t, v = t[nt:], v[nd:]
	}
}

// image classifies the detections on one image. Both lists are sorted by class.
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
		nt, nd := leading(truths, cell.ofCategory, k), leading(dets, cell.ofCategory, k)
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
			if w.raw[i].found&b == 0 {
				v.kind = Bkg // a false positive; classify needs the matches of all classes
			}
			d.list = append(d.list, v)
		}
		truths, dets = truths[nt:], dets[nd:]
	}
	for i := range d.list {
		if d.list[i].kind != noError {
			d.classify(i)
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

// classify sets the error type of a false positive in the list.
func (d *diagnosing) classify(i int) {
	v := &d.list[i]
	area := float64(v.box.W * v.box.H)
	// The highest IoU with annotations of its class, of other classes, and with matched ones of its class.
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
	var on *wanted // what it would match when corrected
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
	if on.best < 0 || byScore(*v, d.list[on.best]) < 0 {
		on.best = i
	}
}

// byScore orders detections as Match does: by descending score, then by image and order in the file.
func byScore(a, b judged) int {
	return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.image, b.image), cmp.Compare(a.item, b.item))
}

// diagnosis counts the errors and computes the cost of each type.
func (d *diagnosing) diagnosis(points []OperatingPoint) *Diagnosis {
	out := &Diagnosis{PerClass: make([]ClassErrors, len(d.classes)), Confusions: []Confusion{}}
	none := make([]ErrorCost, errorTypes)
	for e := range errorTypes {
		none[e].Type = e
	}
	out.Errors = slices.Clone(none)
	pairs := map[[2]int32]int{}
	for k := range d.classes {
		c, category := &d.classes[k], d.m.category[k]
		v := ClassErrors{CategoryID: category.ID, Name: category.Name, Truths: d.m.classes[k].truths[0],
			Errors: slices.Clone(none)}
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

// costs computes AP50 without corrections, and with each type of error corrected.
func (d *diagnosing) costs(out *Diagnosis) {
	const asIs = errorTypes
	var tables [errorTypes + 1][]float64 // by recall and class, in the summation order of Result
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

// A correction computes one class's curve with errors corrected. It reuses its buffers.
type correction struct {
	sweep
	list  []judged // classErrors.own and moved
	class int32
}

func (w *correction) merge(c *classErrors, class int) {
	w.class = int32(class)
	w.list = append(append(w.list[:0], c.own...), c.moved...)
	slices.SortFunc(w.list, byScore)
}

// correct sets q to the precision at each recall when the errors of one type are corrected; noError corrects none.
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
		if v.kind == noError || v.kind == e { // the latter only if it is right
			tp++
			w.curve.tp, w.curve.n = append(w.curve.tp, tp), append(w.curve.n, n)
		}
	}
	clear(w.q[:])
	if truths > 0 { // otherwise all annotations are missed
		recallCounts(truths, &w.need)
		w.curve.interpolate(&w.need, &w.q)
	}
}
