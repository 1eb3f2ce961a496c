package coco

// This file finds the images on which a model got worse.

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Mark is the result for a box.
type Mark int

// The marks. Of truths: Found, Missed. Of detections: Found, False.
const (
	Found Mark = iota
	Missed
	False
)

// A Drawn is a box with its mark.
type Drawn struct {
	Box   Box
	Class string
	Score float64 // of a detection
	Mark  Mark
}

// A Side is the result of one model on one image.
type Side struct {
	Found, Missed, False int
	Boxes                []Drawn // its detections, and the annotations that it misses
}

// A Regression is an image on which a candidate is worse than a baseline, or has errors if there is no baseline.
type Regression struct {
	Image     int64
	FileName  string // of the image; may be empty
	Lost      int    // number of annotations that only the baseline finds, and of false positives that it does not have
	Why       string // "misses 3 RBC that the baseline finds; 1 more false WBC"
	Truth     []Drawn
	Candidate Side
	Baseline  *Side
}

// Regressions lists the images on which a candidate is worse than a baseline, the worst first, and equal ones by id.
// The IoU threshold is .5. of and with are the models' score thresholds by class name; nil means each class's score of
// best F1. baseline may be nil.
func Regressions(truth *Truth, candidate, baseline []Detection, of, with map[string]float64, params Params) (
	[]Regression, error) {
	names := map[int64]string{}
	for _, c := range truth.Categories {
		names[c.ID] = c.Name
	}
	ofSides, err := sides(truth, candidate, of, names, params)
	if err != nil {
		return nil, err
	}
	var withSides map[int64]*side
	if baseline != nil {
		if withSides, err = sides(truth, baseline, with, names, params); err != nil {
			return nil, err
		}
	}
	var list []Regression
	for _, im := range truth.Images {
		a, r := ofSides[im.ID], Regression{Image: im.ID, FileName: im.FileName}
		missed, false_ := map[string]int{}, map[string]int{}
		for i, t := range a.truths {
			if !a.found[i] && (withSides == nil || withSides[im.ID].found[i]) {
				missed[names[t.Category]]++
				r.Lost++
			}
			mark := Found
			if !a.found[i] {
				mark = Missed
			}
			r.Truth = append(r.Truth, Drawn{Box: t.Box, Class: names[t.Category], Mark: mark})
		}
		for class, n := range a.wrong {
			if withSides != nil {
				n -= withSides[im.ID].wrong[class]
			}
			if n > 0 {
				false_[class] += n
				r.Lost += n
			}
		}
		if r.Lost == 0 {
			continue
		}
		r.Candidate = a.shown(names)
		finds, more := "", ""
		if withSides != nil {
			b := withSides[im.ID].shown(names)
			r.Baseline, finds, more = &b, " that the baseline finds", "more "
		}
		var why []string
		if len(missed) > 0 {
			why = append(why, "misses "+listed(missed, "")+finds)
		}
		if len(false_) > 0 {
			why = append(why, listed(false_, more+"false "))
		}
		r.Why = strings.Join(why, "; ")
		list = append(list, r)
	}
	slices.SortStableFunc(list, func(a, b Regression) int {
		return cmp.Or(b.Lost-a.Lost, cmp.Compare(a.Image, b.Image))
	})
	return list, nil
}

// listed returns the counts by class, the highest first.
func listed(n map[string]int, what string) string {
	classes := slices.SortedFunc(maps.Keys(n), func(a, b string) int {
		return cmp.Or(n[b]-n[a], strings.Compare(a, b))
	})
	return strings.Join(delivery.Each(classes, func(class string) string {
		return fmt.Sprintf("%d %s%s", n[class], what, class)
	}), ", ")
}

// A side is the matching of one model on one image.
type side struct {
	truths []Annotation // without crowds
	found  []bool
	dets   []Detection
	marks  []Mark
	wrong  map[string]int // false detections by class
}

func (s *side) shown(names map[int64]string) Side {
	var out Side
	for i, d := range s.dets {
		out.Boxes = append(out.Boxes, Drawn{Box: d.Box, Class: names[d.Category], Score: d.Score, Mark: s.marks[i]})
		if s.marks[i] == False {
			out.False++
		}
	}
	for i, t := range s.truths {
		if s.found[i] {
			out.Found++
			continue
		}
		out.Missed++
		out.Boxes = append(out.Boxes, Drawn{Box: t.Box, Class: names[t.Category], Mark: Missed})
	}
	return out
}

// sides matches a model's detections that reach its thresholds, by image.
func sides(truth *Truth, detections []Detection, scores map[string]float64, names map[int64]string, params Params) (
	map[int64]*side, error) {
	if scores == nil {
		m, err := Match(truth, detections, params)
		if err != nil {
			return nil, err
		}
		points, err := m.BestF1(Foreground)
		if err != nil {
			return nil, err
		}
		scores = map[string]float64{}
		for _, p := range points {
			if p.F1 > 0 {
				scores[p.Name] = p.Score
			}
		}
	}
	out := map[int64]*side{}
	for _, im := range truth.Images {
		out[im.ID] = &side{wrong: map[string]int{}}
	}
	crowds := map[int64][]Annotation{}
	for _, a := range truth.Annotations {
		s := out[a.Image]
		if a.Crowd {
			crowds[a.Image] = append(crowds[a.Image], a)
			continue
		}
		s.truths, s.found = append(s.truths, a), append(s.found, false)
	}
	kept := slices.Clone(detections)
	slices.SortStableFunc(kept, func(a, b Detection) int { return cmp.Compare(b.Score, a.Score) })
	for _, d := range kept {
		class := names[d.Category]
		s := out[d.Image]
		if score, ok := scores[class]; s == nil || !ok || d.Score < score {
			continue
		}
		iou := func(t Annotation) float64 {
			return overlap(d.Box, float64(d.Box.W*d.Box.H), &target{box: t.Box, area: float64(t.Box.W * t.Box.H),
				crowd: t.Crowd})
		}
		best, at := Foreground, -1
		for i, t := range s.truths {
			if t.Category == d.Category && !s.found[i] {
				if v := iou(t); v >= best {
					best, at = v, i
				}
			}
		}
		mark := Found
		switch {
		case at >= 0:
			s.found[at] = true
		case slices.ContainsFunc(crowds[d.Image], func(c Annotation) bool {
			return c.Category == d.Category && iou(c) >= Foreground
		}):
			continue // ignored
		default:
			mark = False
			s.wrong[class]++
		}
		s.dets, s.marks = append(s.dets, d), append(s.marks, mark)
	}
	return out, nil
}
