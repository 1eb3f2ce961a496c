package gate

import (
	"fmt"
	"math"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// oneObject is a class with one object: 37 % of the resamples have none, and the others have the same value.
func oneObject(v float64) delivery.Row {
	r := row(v, 0)
	for i := range r.Resamples {
		if i%100 < 37 {
			r.Resamples[i] = math.NaN()
		}
	}
	return r
}

// What a model does on few images of a class decides nothing.
func TestRareClasses(t *testing.T) {
	// Class a stays as it is. The one object of b was found and is missed.
	input := func(units, groups int) Input {
		in := Input{Classes: []string{"a", "b"}, Candidate: scored(0.45, 0.01, map[string]float64{"a": 0.9, "b": 0})}
		base := scored(0.95, 0.01, map[string]float64{"a": 0.9, "b": 1})
		for _, column := range []string{"AP", "AP50"} {
			rows := in.Candidate.Scores.Table.Columns[column]
			rows[1] = oneObject(0)
			rows[0].Units, rows[1].Units = 72*units, units
		}
		in.Candidate.Scores.Truths["b"], in.Candidate.Scores.Groups = 1, groups
		in = against(in, base, 0.01)
		in.Compare.Groups = groups
		for _, column := range []string{"AP", "AP50"} {
			in.Compare.Difference.Columns[column][1] = oneObject(-1)
		}
		return in
	}
	for _, c := range []struct {
		name   string
		check  delivery.GateCheck
		in     Input
		want   delivery.Outcome // of the last figure
		reason string           // of it, if it is unsure
	}{
		{"a floor of a class", with(minimum("AP", 0.3), all), input(1, 0), delivery.Unsure,
			"[check.of{class=b metric=AP [check.fewImages{names=[\"b\"] count=1 limit=20}]}]"},
		{"a drop of a class", with(maxDrop("AP", 0.05), all), input(1, 0), delivery.Unsure,
			"[check.of{class=b metric=AP [check.fewImages{names=[\"b\"] count=1 limit=20}]}]"},
		{"in one group of many", with(maxDrop("AP", 0.05), all), input(1, 30), delivery.Unsure,
			"[check.of{class=b metric=AP [check.fewGroups{names=[\"b\"] count=1 limit=20}]}]"},
		{"19 images", with(maxDrop("AP", 0.05), all), input(19, 0), delivery.Unsure,
			"[check.of{class=b metric=AP [check.fewImages{names=[\"b\"] count=19 limit=20}]}]"},
		{"20 are enough", with(maxDrop("AP", 0.05), all), input(20, 0), delivery.Fail, ""},
		{"scores of an older version", with(maxDrop("AP", 0.05), all), input(0, 0), delivery.Fail, ""},

		{"a floor of the mean", minimum("mAP", 0.8), input(1, 0), delivery.Unsure,
			"[check.of{metric=mAP [check.fewImages{names=[\"b\"] count=1 limit=10}]}]"},
		{"that fails without the class, too", minimum("mAP", 0.92), input(1, 0), delivery.Fail, ""},
		{"a drop of the mean", maxDrop("mAP", 0.05), input(1, 0), delivery.Unsure,
			"[check.of{metric=mAP [check.fewImages{names=[\"b\"] count=1 limit=10}]}]"},
		{"in 9 images", maxDrop("mAP", 0.05), input(9, 0), delivery.Unsure,
			"[check.of{metric=mAP [check.fewImages{names=[\"b\"] count=9 limit=10}]}]"},
		{"10 are enough", maxDrop("mAP", 0.05), input(10, 0), delivery.Fail, ""},
		{"a mean over the class alone", with(maxDrop("mAP", 0.05), func(c *delivery.GateCheck) {
			c.Except = []string{"a"}
		}), input(1, 0), delivery.Unsure, "[check.of{metric=mAP [check.fewImages{names=[\"b\"] count=1 limit=20}]}]"},
		{"a mean without the class", with(maxDrop("mAP", 0.05), func(c *delivery.GateCheck) {
			c.Except = []string{"b"}
		}), input(1, 0), delivery.Pass, ""},
	} {
		v := judge(c.in, c.check)
		last := v.Checks[len(v.Checks)-1]
		if last.Outcome != c.want || c.want == delivery.Unsure && fmt.Sprint(last.Because) != c.reason {
			t.Errorf("%s: %s, %v; want %s, %s", c.name, last.Outcome, last.Because, c.want, c.reason)
		}
		if last.Outcome == delivery.Unsure && (last.Low != nil || last.High != nil) {
			t.Errorf("%s: shows bounds that mean nothing", c.name)
		}
	}
	for units, want := range map[int]int{1: 0, 20: 1} {
		n := 0
		for _, l := range judge(input(units, 0), minimum("mAP", 0.1)).Lost {
			if l.Class == "b" {
				n++
			}
		}
		if n != want {
			t.Errorf("%d losses of a class in %d images, want %d", n, units, want)
		}
	}
	g := delivery.Gate{Classes: []string{"a", "b"}, Checks: []delivery.GateCheck{with(maxDrop("AP", 0.2), all)}}
	if list := Powers(g, input(1, 0).Candidate.Scores, nil); len(list) != 1 || list[0].Class != "a" {
		t.Errorf("the power of a check that is unsure: %+v", list)
	}
}

// A rare class that a model finds by luck makes up for no loss.
func TestRareClassesHideNoLoss(t *testing.T) {
	in := Input{Classes: []string{"a", "b"}, Candidate: scored(0.9, 0.01, map[string]float64{"a": 0.8, "b": 1})}
	base := scored(0.45, 0.01, map[string]float64{"a": 0.9, "b": 0})
	for _, column := range []string{"AP", "AP50"} {
		rows := in.Candidate.Scores.Table.Columns[column]
		rows[0].Units, rows[1].Units = 70, 1
	}
	if got := judge(against(in, base, 0.01), maxDrop("mAP", 0.05)).Outcome; got != delivery.Unsure {
		t.Errorf("%s, want unsure", got)
	}
	// A floor passes on the value itself.
	if got := judge(in, minimum("mAP", 0.85)).Outcome; got != delivery.Pass {
		t.Errorf("%s, want pass", got)
	}
}
