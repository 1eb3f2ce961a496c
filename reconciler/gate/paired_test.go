package gate

import (
	"testing"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// world is 60 images with two truths of each of the classes a and b.
func world() *coco.Truth {
	truth := &coco.Truth{Categories: []coco.Category{{ID: 1, Name: "a"}, {ID: 2, Name: "b"}}}
	for i := range int64(60) {
		truth.Images = append(truth.Images, coco.Image{ID: i, Width: 1000, Height: 1000})
		for k := range int64(4) {
			truth.Annotations = append(truth.Annotations, coco.Annotation{ID: 4*i + k + 1, Image: i, Category: 1 + k/2,
				Box: coco.Box{X: 100 * float64(k), W: 50, H: 50}, Area: 2500})
		}
	}
	return truth
}

// matched finds the truths of which found is true, by image and place: 0 and 1 are of class a, 2 and 3 of b.
func matched(t *testing.T, truth *coco.Truth, found func(image, place int) bool) *coco.Matched {
	var list []coco.Detection
	for _, a := range truth.Annotations {
		if found(int(a.Image), int(a.Box.X/100)) {
			list = append(list, coco.Detection{Image: a.Image, Category: a.Category, Box: a.Box,
				Score: 0.9 - 0.001*float64(a.ID)})
		}
	}
	m, err := coco.Match(truth, list, coco.Params{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Two classes that trade places make up for each other in a mean over both, which hardly varies. A gate that holds
// models to one of them is as unsure as without the other.
func TestClassesThatTradePlaces(t *testing.T) {
	truth := world()
	// One truth of each class and image is found by both models. Of the other, the release finds those of a in even
	// images and those of b in odd ones, and the candidate the reverse.
	share := func(image, place int, release bool) bool {
		return place%2 == 0 || (image%2 == 0) == (release == (place < 2))
	}
	candidate := matched(t, truth, func(image, place int) bool { return share(image, place, false) })
	release := matched(t, truth, func(image, place int) bool { return share(image, place, true) })
	truths := map[string]int{"a": 120, "b": 120}
	c, err := coco.Compare(candidate, release, coco.CompareParams{})
	if err != nil {
		t.Fatal(err)
	}
	table, _, err := coco.Interval(candidate, coco.CompareParams{})
	if err != nil {
		t.Fatal(err)
	}
	scores := delivery.ScoreSet{Images: 60, Truths: truths, Classes: []string{"a", "b"}, Table: table}
	in := Input{Model: "m", Classes: scores.Classes, Candidate: Measured{Scores: scores}, BaselineBundle: "b1",
		Baseline: &Measured{Scores: delivery.ScoreSet{Truths: truths}},
		Compare: &delivery.CompareResult{Images: 60, Classes: scores.Classes, Truths: truths,
			Candidate: c.TableA.Values(), Baseline: c.TableB.Values(), Difference: c.TableA.Minus(c.TableB)}}
	judge := func(check delivery.GateCheck, classes ...string) delivery.Verdict {
		return Judge("g", delivery.Gate{Classes: classes, Checks: []delivery.GateCheck{check}}, in)
	}
	drop := judge(maxDrop("mAP", 0.02), "a")
	if drop.Outcome != delivery.Unsure || facts(drop) != "drop.unsure{fromModel=release metric=mAP bound=-0.0200 "+
		"confidence=0.9500 value=0.7525 baseline=0.7525 low=-0.1099 high=0.1079 "+
		"[bound.settles{count=1780 diff=0.1089}]}" {
		t.Errorf("%s: %s", drop.Outcome, facts(drop))
	}
	// It is what a check of the class alone says.
	one := judge(with(maxDrop("AP", 0.02), all), "a").Checks[0]
	if *one.Low != *drop.Checks[0].Low || *one.High != *drop.Checks[0].High {
		t.Errorf("AP of a lies within %v and %v, and the mean over a within %v and %v", *one.Low, *one.High,
			*drop.Checks[0].Low, *drop.Checks[0].High)
	}
	if both := judge(maxDrop("mAP", 0.02), "a", "b"); both.Outcome != delivery.Pass {
		t.Errorf("over both classes nothing varies: %s: %s", both.Outcome, facts(both))
	}
}

// A floor of a mean over the gate's classes has the bound of those, however sure a mean with other classes is.
func TestFloorOfTheGatesClasses(t *testing.T) {
	truth := world()
	// One truth of a is found in even images, and of b all but one in each of them.
	m := matched(t, truth, func(image, place int) bool { return (image%2 == 0 && place%2 == 0) == (place < 2) })
	table, _, err := coco.Interval(m, coco.CompareParams{})
	if err != nil {
		t.Fatal(err)
	}
	in := Input{Model: "m", Classes: []string{"a", "b"}, Candidate: Measured{Scores: delivery.ScoreSet{Images: 60,
		Truths: map[string]int{"a": 120, "b": 120}, Classes: []string{"a", "b"}, Table: table}}}
	v := Judge("g", delivery.Gate{Classes: []string{"a"}, Checks: []delivery.GateCheck{minimum("mAP", 0.28)}}, in)
	if v.Outcome != delivery.Unsure || facts(v) != "check.maybeReached{metric=mAP images=60 bound=0.2800 "+
		"confidence=0.9500 value=0.2574 low=0.2125 high=0.3115 [bound.settles{count=345 diff=0.0541}]}" {
		t.Errorf("%s: %s", v.Outcome, facts(v))
	}
}
