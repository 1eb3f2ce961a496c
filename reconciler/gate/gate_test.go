package gate

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// around is a bootstrap of 1,001 samples that spread evenly by width to each
// side of a value.
func around(value, width float64) delivery.Samples {
	s := make(delivery.Samples, 1001)
	for i := range s {
		s[i] = value + width*float64(i-500)/500
	}
	return s
}

// row is one class in one column of a table.
func row(value, width float64) delivery.Row {
	return delivery.Row{Value: value, Resamples: around(value, width)}
}

// scored is a candidate with one width of doubt for everything. Its means are mAP, whatever the classes are.
func scored(mAP, width float64, classes map[string]float64) Measured {
	s := delivery.ScoreSet{Protocol: "p", Images: 72, Truths: map[string]int{}, Table: delivery.Table{
		Images: delivery.Row{Value: 72}, Overall: map[string]float64{"AP": mAP, "AP50": mAP}}}
	s.Table.Columns = map[string][]delivery.Row{}
	for _, c := range slices.Sorted(maps.Keys(classes)) {
		s.Classes, s.Truths[c] = append(s.Classes, c), 100
		for _, column := range []string{"AP", "AP50"} {
			s.Table.Columns[column] = append(s.Table.Columns[column], row(classes[c], width))
		}
	}
	s.Table.Classes = s.Classes
	return Measured{Key: delivery.DigestOf("score", []any{mAP, width, classes}), Scores: s}
}

// against compares a candidate with a baseline, with one width of doubt for
// every difference.
func against(in Input, baseline Measured, width float64) Input {
	in.Baseline, in.CompareKey = &baseline, "compare"
	c := delivery.CompareResult{Images: 72, Truths: in.Candidate.Scores.Truths}
	shared := func(t delivery.Table) delivery.Table {
		out := delivery.Table{Images: t.Images, Overall: t.Overall, Columns: map[string][]delivery.Row{}}
		for i, class := range t.Classes {
			if !slices.Contains(in.Candidate.Scores.Classes, class) ||
				!slices.Contains(baseline.Scores.Classes, class) {
				continue
			}
			out.Classes = append(out.Classes, class)
			for column, rows := range t.Columns {
				out.Columns[column] = append(out.Columns[column], rows[i])
			}
		}
		return out
	}
	c.Candidate, c.Baseline = shared(in.Candidate.Scores.Table).Values(), shared(baseline.Scores.Table).Values()
	c.Classes = c.Candidate.Classes
	c.Difference = delivery.Table{Classes: c.Classes, Columns: map[string][]delivery.Row{}}
	for _, column := range []string{"AP", "AP50"} {
		for i := range c.Classes {
			d := c.Candidate.Columns[column][i].Value - c.Baseline.Columns[column][i].Value
			c.Difference.Columns[column] = append(c.Difference.Columns[column], row(d, width))
		}
	}
	in.Compare = &c
	return in
}

// judge lets a gate of some checks judge a model that has all of its classes, those that are scored.
func judge(in Input, checks ...delivery.GateCheck) delivery.Verdict {
	g := delivery.Gate{Checks: checks, Classes: in.Candidate.Scores.Classes}
	for _, c := range checks {
		for _, class := range c.Classes.Names {
			if !slices.Contains(g.Classes, class) {
				g.Classes = append(slices.Clone(g.Classes), class)
			}
		}
	}
	if in.Classes == nil {
		in.Classes = g.Classes
	}
	return Judge("g", g, in)
}

func minimum(metric string, v float64) delivery.GateCheck {
	return delivery.GateCheck{Metric: metric, Min: &v, Confidence: 0.95, Support: 1, Unsure: "review"}
}

func maxDrop(metric string, v float64) delivery.GateCheck {
	return delivery.GateCheck{Metric: metric, MaxDrop: &v, Against: "release", Confidence: 0.95, Support: 1,
		Unsure: "review"}
}

func with(c delivery.GateCheck, change func(*delivery.GateCheck)) delivery.GateCheck {
	change(&c)
	return c
}

func all(c *delivery.GateCheck) { c.Classes = delivery.Selection{All: true} }

// How one check decides, sentence by sentence of the design's section 3.
func TestJudge(t *testing.T) {
	half := map[string]float64{"a": 0.5, "b": 0.5}
	size := delivery.Quantity("2MB")
	candidate := func(mAP, width float64) Input {
		return Input{Model: "m", Candidate: scored(mAP, width, half), Size: 1_500_000}
	}
	grouped := func(in Input, groups int) Input {
		in.Candidate.Scores.Groups = groups
		if in.Compare != nil {
			in.Compare.Groups = groups
		}
		return in
	}
	for _, c := range []struct {
		name   string
		check  delivery.GateCheck
		in     Input
		want   delivery.Outcome
		reason string // a fact
	}{
		{"min: pass at the bound", minimum("mAP", 0.5), candidate(0.5, 0.1), delivery.Pass,
			"check.reached{metric=mAP images=72 bound=0.5000 confidence=0.9500 value=0.5000 low=0.4098 high=0.5902}"},
		{"min: pass above it, whatever the doubt", minimum("mAP", 0.4), candidate(0.5, 0.4), delivery.Pass,
			"check.reached{metric=mAP images=72 bound=0.4000 confidence=0.9500 value=0.5000 low=0.1392 high=0.8608}"},
		{"min: fail where the upper bound is below", minimum("mAP", 0.6), candidate(0.5, 0.05), delivery.Fail,
			"check.below{metric=mAP images=72 bound=0.6000 confidence=0.9500 value=0.5000 low=0.4549 high=0.5451}"},
		{"min: else unsure", minimum("mAP", 0.52), candidate(0.5, 0.05), delivery.Unsure,
			"check.maybeReached{metric=mAP images=72 bound=0.5200 confidence=0.9500 value=0.5000 low=0.4549 " +
				"high=0.5451 [bound.settles{count=367 diff=0.0451}]}"},
		{"unsure: fail", with(minimum("mAP", 0.52), func(c *delivery.GateCheck) { c.Unsure = "fail" }),
			candidate(0.5, 0.05), delivery.Fail, "check.maybeReached{metric=mAP images=72 bound=0.5200 " +
				"confidence=0.9500 value=0.5000 low=0.4549 high=0.5451 [bound.settles{count=367 diff=0.0451}]}"},
		{"min: nothing measured is unsure", minimum("AP75", 0.1), candidate(0.5, 0.05), delivery.Unsure,
			"check.of{metric=AP75 [check.noTruths]}"},
		{"size: pass", delivery.GateCheck{Metric: "size", Max: &size}, candidate(0.5, 0), delivery.Pass,
			"check.sizeWithin{bytes=1500000 bound=2000000.0000}"},
		{"size: fail", delivery.GateCheck{Metric: "size", Max: &size}, Input{Candidate: scored(0.5, 0, half),
			Size: 2_000_001}, delivery.Fail, "check.sizeAbove{bytes=2000001 bound=2000000.0000}"},

		{"maxDrop: a first model", maxDrop("mAP", 0.01), candidate(0.5, 0.05), delivery.NotApplicable,
			"check.of{metric=mAP [baseline.none{fromModel=release}]}"},
		{"maxDrop: the release itself", maxDrop("mAP", 0.01), Input{Candidate: scored(0.5, 0.1, half),
			SameBundle: true}, delivery.Pass, "check.of{metric=mAP [baseline.same{fromModel=release}]}"},
		{"maxDrop: pass where the lower bound holds", maxDrop("mAP", 0.01), against(candidate(0.6, 0),
			scored(0.5, 0, half), 0.05), delivery.Pass, "drop.allowed{fromModel=release metric=mAP bound=-0.0100 " +
			"confidence=0.9500 value=0.6000 baseline=0.5000 diff=0.1000 low=0.0549 high=0.1451}"},
		{"maxDrop: equal and certain", maxDrop("mAP", 0.01), against(candidate(0.5, 0), scored(0.5, 0, half), 0.005),
			delivery.Pass, "drop.allowed{fromModel=release metric=mAP bound=-0.0100 confidence=0.9500 value=0.5000 " +
				"baseline=0.5000 low=-0.0045 high=0.0045}"},
		{"maxDrop: fail where the upper bound is below", maxDrop("mAP", 0.01), against(candidate(0.4, 0),
			scored(0.5, 0, half), 0.05), delivery.Fail, "drop.found{fromModel=release metric=mAP bound=-0.0100 " +
			"confidence=0.9500 value=0.4000 baseline=0.5000 diff=-0.1000 low=-0.1451 high=-0.0549}"},
		{"maxDrop: else unsure, with what would settle it", maxDrop("mAP", 0.01), against(candidate(0.5, 0),
			scored(0.5, 0, half), 0.05), delivery.Unsure, "drop.unsure{fromModel=release metric=mAP bound=-0.0100 " +
			"confidence=0.9500 value=0.5000 baseline=0.5000 low=-0.0451 high=0.0451 [bound.settles{count=1465 " +
			"diff=0.0451}]}"},

		{"class: all pass", with(minimum("AP", 0.5), all), candidate(0.5, 0.1), delivery.Pass,
			"check.reached{class=a metric=AP images=72 bound=0.5000 confidence=0.9750 value=0.5000 low=0.4048 " +
				"high=0.5952}"},
		{"class: one fails", with(minimum("AP", 0.45), all),
			Input{Candidate: scored(0.5, 0.01, map[string]float64{"a": 0.6, "b": 0.4})}, delivery.Fail,
			"check.below{class=b metric=AP images=72 bound=0.4500 confidence=0.9750 value=0.4000 low=0.3905 " +
				"high=0.4095}"},
		{"class: an exception", with(minimum("AP", 0.45), func(c *delivery.GateCheck) {
			all(c)
			c.Except = []string{"b"}
		}), Input{Candidate: scored(0.5, 0.01, map[string]float64{"a": 0.6, "b": 0.4})}, delivery.Pass,
			"check.reached{class=a metric=AP images=72 bound=0.4500 confidence=0.9500 value=0.6000 low=0.5910 " +
				"high=0.6090}"},
		{"class: below support is unsure", with(minimum("AP", 0.1), func(c *delivery.GateCheck) {
			all(c)
			c.Support = 101
		}), candidate(0.5, 0.1), delivery.Unsure, "check.of{class=a metric=AP [check.fewTruths{count=100 limit=101}]}"},
		{"class: one that the eval set lacks", with(minimum("AP", 0.1), func(c *delivery.GateCheck) {
			c.Classes.Names = []string{"z"}
		}), candidate(0.5, 0.1), delivery.Unsure, "check.of{class=z metric=AP [check.fewTruths{limit=1}]}"},
		{"class: a first model", with(maxDrop("AP", 0.05), all), candidate(0.5, 0.1), delivery.NotApplicable,
			"check.of{metric=AP [baseline.none{fromModel=release}]}"},
		{"class: drops over shared classes only", with(maxDrop("AP", 0.05), all), against(candidate(0.5, 0),
			scored(0.5, 0, map[string]float64{"a": 0.5, "z": 0.9}), 0.01), delivery.Pass,
			"drop.allowed{fromModel=release class=a metric=AP bound=-0.0500 confidence=0.9500 value=0.5000 " +
				"baseline=0.5000 low=-0.0090 high=0.0090}"},
		{"class: one drops", with(maxDrop("AP", 0.05), all),
			against(Input{Candidate: scored(0.5, 0, map[string]float64{"a": 0.5, "b": 0.3})}, scored(0.5, 0, half),
				0.05), delivery.Fail, "drop.found{fromModel=release class=b metric=AP bound=-0.0500 " +
				"confidence=0.9750 value=0.3000 baseline=0.5000 diff=-0.2000 low=-0.2451 high=-0.1524}"},
		{"groups: fewer than 20 are unsure, also above a floor", minimum("mAP", 0.4), grouped(candidate(0.5, 0), 19),
			delivery.Unsure, "check.of{metric=mAP [check.fewGroups{count=19 limit=20}]}"},
		{"groups: fewer than 20 are unsure, also where nothing dropped", maxDrop("mAP", 0.01),
			grouped(against(candidate(0.6, 0), scored(0.5, 0, half), 0), 19), delivery.Unsure,
			"check.of{metric=mAP [check.fewGroups{count=19 limit=20}]}"},
		{"groups: fewer than 20 are unsure, class by class", with(maxDrop("AP", 0.01), all),
			grouped(against(candidate(0.6, 0), scored(0.5, 0, half), 0), 19), delivery.Unsure,
			"check.of{class=a metric=AP [check.fewGroups{count=19 limit=20}]}"},
		{"groups: 20 are enough", maxDrop("mAP", 0.01), grouped(against(candidate(0.6, 0), scored(0.5, 0, half), 0.05),
			20), delivery.Pass, "drop.allowed{fromModel=release metric=mAP bound=-0.0100 confidence=0.9500 " +
			"value=0.6000 baseline=0.5000 diff=0.1000 low=0.0549 high=0.1451}"},
		{"groups: of the release itself nothing is asked", maxDrop("mAP", 0.01),
			grouped(Input{Candidate: scored(0.5, 0.1, half), SameBundle: true}, 3), delivery.Pass,
			"check.of{metric=mAP [baseline.same{fromModel=release}]}"},

		{"an unknown metric never passes", minimum("F7", 0.1), candidate(0.5, 0), delivery.Unsure,
			"check.of{metric=F7 [check.noTruths]}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := judge(c.in, c.check)
			if v.Outcome != c.want || v.Because[0].String() != c.reason {
				t.Errorf("%s: %s\nwant %s with %q\nchecks: %+v", v.Outcome, v.Because[0], c.want, c.reason, v.Checks)
			}
			for _, cv := range v.Checks {
				if len(cv.Because) == 0 {
					t.Error("a check without a reason")
				}
			}
		})
	}
}

// Twenty equal classes do not raise twenty alarms: with Holm's adjustment no
// class fails that a bound at the plain confidence would have failed.
// A licence that the gate does not allow fails, however good the model is.
func TestLicence(t *testing.T) {
	in := Input{Model: "m", Classes: []string{"a"}, Candidate: scored(0.9, 0.01, map[string]float64{"a": 0.9})}
	g := delivery.Gate{Name: "g", Classes: []string{"a"}, Checks: []delivery.GateCheck{minimum("mAP", 0.5)}}
	free := delivery.Licensed{Part: "architecture small", Licence: "Apache-2.0"}
	own := delivery.Licensed{Part: "architecture xlarge", Licence: "PML-1.0"}
	for _, c := range []struct {
		parts   []delivery.Licensed
		allowed []string
		want    delivery.Outcome
	}{
		{nil, nil, delivery.Pass},
		{[]delivery.Licensed{free}, nil, delivery.Pass},
		{[]delivery.Licensed{free, own}, nil, delivery.Fail},
		{[]delivery.Licensed{free, own}, []string{"Apache-2.0", "PML-1.0"}, delivery.Pass},
		{[]delivery.Licensed{free, own}, []string{"PML-1.0"}, delivery.Fail}, // a list is the whole list
	} {
		in.Licences, g.Licence = c.parts, c.allowed
		v := Judge("g", g, in)
		if v.Outcome != c.want {
			t.Errorf("%v with %v allowed: %s, want %s", c.parts, c.allowed, v.Outcome, c.want)
		}
		if c.want == delivery.Fail && v.Because[0].Code != code.CheckLicence {
			t.Errorf("%v: because %v", c.parts, v.Because)
		}
	}
	if with := (delivery.Gate{Licence: []string{"MIT"}}); with.Digest() == (delivery.Gate{}).Digest() {
		t.Error("licence: does not change the gate")
	}
}

func TestHolm(t *testing.T) {
	classes := map[string]float64{}
	for i := range 20 {
		classes[fmt.Sprintf("c%02d", i)] = 0.5
	}
	// Each class is just sure at 95 % to be below the floor by itself.
	in := Input{Candidate: scored(0.5, 0.1, classes)}
	floor := 0.592 // the 96 % quantile of 0.5 +- 0.1
	one := judge(in, with(minimum("AP", floor), func(c *delivery.GateCheck) { c.Classes.Names = []string{"c00"} }))
	if one.Outcome != delivery.Fail {
		t.Errorf("one class alone: %s: %s, want fail", one.Outcome, facts(one))
	}
	twenty := judge(in, with(minimum("AP", floor), all))
	if twenty.Outcome != delivery.Unsure {
		t.Errorf("twenty classes: %s: %s, want unsure", twenty.Outcome, facts(twenty))
	}
	// A class that is far below fails among twenty too.
	in.Candidate.Scores.Table.Columns["AP"][7] = row(0.1, 0.1)
	if v := judge(in, with(minimum("AP", floor), all)); v.Outcome != delivery.Fail ||
		v.Because[0].Class != "c07" {
		t.Errorf("one of twenty far below: %s: %s", v.Outcome, facts(v))
	}
}

// A verdict never passes on nothing, and numbers of two protocols do not meet.
func TestNeverVacuous(t *testing.T) {
	in := Input{Candidate: scored(0.5, 0, map[string]float64{"a": 0.5})}
	if v := judge(in); v.Outcome == delivery.Pass {
		t.Errorf("a gate without checks passed: %s", facts(v))
	}
	ignored := with(minimum("mAP", 0.6), func(c *delivery.GateCheck) { c.Unsure = "ignore" })
	in.Candidate.Scores.Table.Columns["AP"][0] = row(0.5, 0.2)
	if v := judge(in, ignored); v.Outcome != delivery.NotApplicable {
		t.Errorf("ignored alone: %s, want not-applicable", v.Outcome)
	}
	other := scored(0.5, 0, map[string]float64{"a": 0.5})
	other.Scores.Protocol = "q"
	if v := judge(against(in, other, 0), maxDrop("mAP", 0.5)); v.Outcome != delivery.Fail ||
		!v.Because[0].Has(code.OtherProtocol) {
		t.Errorf("two protocols: %s: %s", v.Outcome, facts(v))
	}
}

// What is measured on demand is asked for by name; other gates share their scores.
func TestMeasures(t *testing.T) {
	checks := []delivery.GateCheck{{Metric: "mAP"}, {Metric: "F1"}, {Metric: "recall"}, {Metric: "F1"}}
	if got := Measures(checks); !slices.Equal(got, []string{"F1"}) {
		t.Errorf("got %v", got)
	}
	if got := Measures(checks[:1]); got != nil {
		t.Errorf("a gate of usual metrics asks for %v", got)
	}
}
