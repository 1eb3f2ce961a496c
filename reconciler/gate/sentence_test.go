package gate

// Every sentence of "How a check decides" (the design, section 3), with what the
// verdict says.

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// at adds what is counted at thresholds: for each class the same, so that recall, precision and false positives per
// image come out, with a width of doubt that all three share.
func at(in Input, recall, precision, false_ float64, width float64) Input {
	t := &in.Candidate.Scores.Table
	n := float64(len(t.Classes))
	wrong := false_ * 72
	found := wrong * precision / (1 - precision)
	truths := found / recall
	for range t.Classes {
		t.Columns["truths"] = append(t.Columns["truths"], row(truths/n, 0))
		t.Columns["found"] = append(t.Columns["found"], row(found/n, width*truths/n))
		t.Columns["false"] = append(t.Columns["false"], row(wrong/n, width*72/n))
	}
	return in
}

func threshold(c *delivery.GateCheck) { c.At = "threshold" }

func maximum(v string) delivery.GateCheck {
	q := delivery.Quantity(v)
	return delivery.GateCheck{Metric: "falsePositivesPerImage", Max: &q, At: "threshold", Confidence: 0.95, Support: 1,
		Unsure: "review"}
}

// missing tells why a comparison's AP50 fell.
func missing(in Input) Input {
	i := slices.Index(in.Compare.Classes, "b")
	in.Compare.Candidate.Columns["AP50"][i].Value, in.Compare.Baseline.Columns["AP50"][i].Value = 0.3, 0.5
	in.Compare.Shifts = map[string][]delivery.ErrorShift{
		"":  {{Type: "Miss", AP50: 0.15, Count: 5}, {Type: "Bkg", AP50: 0.02, Count: 3}},
		"a": {{Type: "Bkg", AP50: 0.02, Count: 3}},
		"b": {{Type: "Miss", AP50: 0.19, Count: 4}, {Type: "Loc", AP50: -0.01}},
	}
	return in
}

func TestHowACheckDecides(t *testing.T) {
	half := map[string]float64{"a": 0.5, "b": 0.5}
	candidate := func(mAP, width float64) Input {
		return Input{Model: "m", Classes: []string{"a", "b"}, Candidate: scored(mAP, width, half), Bundle: "b2",
			EvalSet: "set"}
	}
	release := func(mAP float64) Measured { return scored(mAP, 0.05, half) }
	groups := func(in Input, n int) Input {
		in.Candidate.Scores.Groups = n
		if in.Compare != nil {
			in.Compare.Groups = n
		}
		return in
	}
	images := func(in Input, n int) Input {
		in.Candidate.Scores.Images = n
		if in.Compare != nil {
			in.Compare.Images = n
		}
		return in
	}
	few := func(in Input, n int) Input { // resamples
		for i := range in.Compare.Classes {
			in.Compare.Difference.Columns["AP"][i].Resamples = around(0, 0.001)[:n]
		}
		return in
	}
	anchored := func(in Input, a Anchor) Input {
		in.Anchors = map[string]Anchor{"m@3": a}
		return in
	}
	old, limit := release(0.6), delivery.Quantity("2MB")
	drift := *against(candidate(0.5, 0), old, 0.02).Compare
	toAnchor := with(maxDrop("mAP", 0.05), func(c *delivery.GateCheck) { c.Against = "m@3" })
	unsure := func(policy string) delivery.GateCheck {
		return with(minimum("mAP", 0.52), func(c *delivery.GateCheck) { c.Unsure = policy })
	}
	for _, c := range []struct {
		sentence string
		check    delivery.GateCheck
		in       Input
		want     delivery.Outcome
		text     string
	}{
		{"Intervals come from a paired bootstrap over images",
			maxDrop("mAP", 0.02), against(candidate(0.5, 0.3), release(0.5), 0.01), delivery.Pass,
			"mAP 0.5000, release 0.5000: +0.0000, at worst -0.0090 >= -0.02"},
		{"or over groups where given; fewer than 20 groups is unsure",
			maxDrop("mAP", 0.02), groups(against(candidate(0.5, 0.3), release(0.5), 0.01), 19), delivery.Unsure,
			"mAP: the eval set has 19 groups of images, and an interval needs 20"},
		{"an image without a group is one",
			maxDrop("mAP", 0.02), images(against(candidate(0.5, 0.3), release(0.5), 0.01), 19), delivery.Unsure,
			"mAP: the eval set has 19 images, and an interval needs 20"},
		{"and 20 are enough",
			maxDrop("mAP", 0.02), images(against(candidate(0.5, 0.3), release(0.5), 0.01), 20), delivery.Pass,
			"mAP 0.5000, release 0.5000: +0.0000, at worst -0.0090 >= -0.02"},
		{"bounds are one-sided at confidence",
			with(maxDrop("mAP", 0.008), func(c *delivery.GateCheck) { c.Confidence = 0.8 }), against(candidate(0.5, 0),
				release(0.5), 0.01), delivery.Pass,
			"mAP 0.5000, release 0.5000: +0.0000, at worst -0.0060 >= -0.008"},
		{"maxDrop: pass if the lower bound of the difference >= -maxDrop",
			maxDrop("mAP", 0.05), against(candidate(0.48, 0), release(0.5), 0.03), delivery.Pass,
			"mAP 0.4800, release 0.5000: -0.0200, at worst -0.0471 >= -0.05"},
		{"fail if its upper bound < -maxDrop",
			maxDrop("mAP", 0.05), against(candidate(0.4, 0), release(0.5), 0.03), delivery.Fail,
			"mAP 0.4000, release 0.5000: -0.1000, at best -0.0729 < -0.05 (95% sure)"},
		{"a bound on the line is within it",
			maxDrop("mAP", 0), against(candidate(0.5, 0), release(0.5), 0), delivery.Pass,
			"mAP 0.5000, release 0.5000: +0.0000, at worst +0.0000 >= 0"},
		{"else unsure, with the ±and how many images in all would settle it",
			maxDrop("mAP", 0.02), against(candidate(0.49, 0), release(0.5), 0.05), delivery.Unsure,
			"mAP 0.4900, release 0.5000: -0.0100, at worst -0.0551, at best +0.0351 (each 95% sure), too wide to " +
				"tell a drop of 0.02 (±0.0451; about 1465 images in all would settle it)"},
		{"or that no number of images would",
			maxDrop("mAP", 0.01), against(candidate(0.49, 0), release(0.5), 0.05), delivery.Unsure,
			"mAP 0.4900, release 0.5000: -0.0100, at worst -0.0551, at best +0.0351 (each 95% sure), too wide to " +
				"tell a drop of 0.01 (±0.0451; more images would hardly settle it)"},
		{"min: pass if the value is at or above it",
			minimum("mAP", 0.5), candidate(0.5, 0.2), delivery.Pass,
			"mAP 0.5000 >= 0.5"},
		{"fail if its upper bound is below",
			minimum("mAP", 0.6), candidate(0.5, 0.05), delivery.Fail,
			"mAP 0.5000 < 0.6 (at most 0.5451, 95% sure, 72 images)"},
		{"else unsure",
			minimum("mAP", 0.52), candidate(0.5, 0.05), delivery.Unsure,
			"mAP 0.5000 < 0.52, but 72 images cannot rule out that it reaches it: at most 0.5451, 95% sure (±0.0451; " +
				"about 367 images in all would settle it)"},
		{"Over several classes the bounds are Holm-adjusted",
			with(maxDrop("AP", 0.047), all), against(candidate(0.5, 0), release(0.5), 0.05), delivery.Unsure,
			"AP of a 0.5000, release 0.5000: +0.0000, at worst -0.0476, at best +0.0476 (each 97.5% sure), too wide " +
				"to tell a drop of 0.047 (±0.0476; about 74 images in all would settle it) (and 1 more)"},
		{"as one of them alone would pass",
			with(maxDrop("AP", 0.047), func(c *delivery.GateCheck) { c.Classes.Names = []string{"a"} }),
			against(candidate(0.5, 0), release(0.5), 0.05), delivery.Pass,
			"AP of a 0.5000, release 0.5000: +0.0000, at worst -0.0451 >= -0.047"},
		{"and so for those that fail",
			with(maxDrop("AP", 0.054), all),
			against(Input{Candidate: scored(0.4, 0, map[string]float64{"a": 0.4, "b": 0.4})}, release(0.5), 0.05),
			delivery.Unsure,
			"AP of a 0.4000, release 0.5000: -0.1000, at worst -0.1476, at best -0.0524 (each 97.5% sure), too wide " +
				"to tell a drop of 0.054 (±0.0476; about 78 images in all would settle it) (and 1 more)"},
		{"as one of them alone would fail",
			with(maxDrop("AP", 0.054), func(c *delivery.GateCheck) { c.Classes.Names = []string{"a"} }),
			against(Input{Candidate: scored(0.4, 0, map[string]float64{"a": 0.4})}, release(0.5), 0.05), delivery.Fail,
			"AP of a 0.4000, release 0.5000: -0.1000, at best -0.0549 < -0.054 (95% sure)"},
		{"a bound that takes more resamples than there are decides nothing",
			with(maxDrop("AP", 0.5), all), few(against(candidate(0.5, 0), release(0.5), 0.05), 30), delivery.Unsure,
			"AP of a 0.5000, release 0.5000: +0.0000, at worst -0.0000, at best +0.0000 (each 97.5% sure), too " +
				"wide to tell a drop of 0.5 (a " +
				"bound that is 97.5% sure takes 1000 resamples, and there are 30) (and 1 more)"},
		{"nor the other way",
			with(maxDrop("AP", -0.5), all), few(against(candidate(0.5, 0), release(0.5), 0.05), 30), delivery.Unsure,
			"AP of a 0.5000, release 0.5000: +0.0000, at worst -0.0000, at best +0.0000 (each 97.5% sure), too " +
				"wide to tell a drop of -0.5 (a " +
				"bound that is 97.5% sure takes 1000 resamples, and there are 30) (and 1 more)"},
		{"nor of a floor",
			minimum("mAP", 0.6), func() Input {
				in := candidate(0.5, 0)
				for i := range in.Candidate.Scores.Classes {
					in.Candidate.Scores.Table.Columns["AP"][i].Resamples = around(0.5, 0)[:9]
				}
				return in
			}(), delivery.Unsure,
			"mAP 0.5000 < 0.6, but 72 images cannot rule out that it reaches it: at most 0.5000, 95% sure (a bound " +
				"that is 95% sure takes 1000 resamples, and there are 9)"},
		{"below support truths is unsure",
			with(minimum("AP", 0.1), func(c *delivery.GateCheck) { all(c); c.Support = 101 }), candidate(0.5, 0.1),
			delivery.Unsure,
			"AP of a: 100 truths, the check asks for 101 (and 1 more)"},
		{"as many are enough",
			with(minimum("AP", 0.1), func(c *delivery.GateCheck) { all(c); c.Support = 100 }), candidate(0.5, 0.1),
			delivery.Pass,
			"AP of a 0.5000 >= 0.1; passed 2 of 2 checks"},
		{"of a comparison, those on the images that are compared",
			with(maxDrop("AP", 0.05), func(c *delivery.GateCheck) { all(c); c.Support = 100 }), func() Input {
				in := against(candidate(0.5, 0), release(0.5), 0.01)
				in.Compare.Truths = map[string]int{"a": 99, "b": 100}
				return in
			}(), delivery.Unsure,
			"AP of a: 99 truths, the check asks for 100"},
		{"Comparisons run over the classes that both models and the eval set have",
			with(maxDrop("AP", 0.05), all), against(candidate(0.5, 0), scored(0.5, 0.05, map[string]float64{"a": 0.5,
				"z": 0.9}), 0.01), delivery.Pass,
			"AP of a 0.5000, release 0.5000: +0.0000, at worst -0.0090 >= -0.05"},
		{"and say over which, where the model has more",
			maxDrop("mAP", 0.05), against(candidate(0.5, 0), scored(0.5, 0.05, map[string]float64{"a": 0.5}), 0.01),
			delivery.Pass,
			"mAP 0.5000, release 0.5000 over a: +0.0000, at worst -0.0090 >= -0.05"},
		{"a class by name that they do not share",
			with(maxDrop("AP", 0.05), func(c *delivery.GateCheck) { c.Classes.Names = []string{"b"} }),
			against(candidate(0.5, 0), scored(0.5, 0.05, map[string]float64{"a": 0.5}), 0.01), delivery.Unsure,
			"AP of b: model, release and eval set do not share it"},
		{"a class that the model does not have",
			with(minimum("AP", 0.05), func(c *delivery.GateCheck) { c.Classes.Names = []string{"z"} }),
			candidate(0.5, 0), delivery.Fail,
			"the model has no class z, which gate g holds it to; add z to classes: in models/m.yaml, or take it out " +
				"of classes: in gates/g.yaml in an earlier pull request"},
		{"a class without a truth has its own line",
			minimum("mAP", 0.1), func() Input {
				in := candidate(0.5, 0)
				in.Candidate.Scores.Truths["b"] = 0
				return in
			}(), delivery.Unsure,
			"mAP: the eval set has no truth of class b that counts"},
		{"which unsure: may ignore",
			with(minimum("mAP", 0.1), func(c *delivery.GateCheck) { c.Unsure = "ignore" }), func() Input {
				in := candidate(0.5, 0)
				in.Candidate.Scores.Truths["b"] = 0
				return in
			}(), delivery.Pass,
			"mAP 0.5000 >= 0.1; passed 1 of 2 checks, 1 ignored"},
		{"and one without a truth of a size in figures of that size",
			minimum("APsmall", 0.1), func() Input {
				in := candidate(0.5, 0)
				in.Candidate.Scores.Table.Columns["APsmall"] = []delivery.Row{row(0.5, 0), {Value: math.NaN()}}
				return in
			}(), delivery.Unsure,
			"APsmall: the eval set has no truth of class b that counts"},
		{"unless the check leaves the class out",
			with(minimum("mAP", 0.1), func(c *delivery.GateCheck) { c.Except = []string{"b"} }), func() Input {
				in := candidate(0.5, 0)
				in.Candidate.Scores.Truths["b"] = 0
				return in
			}(), delivery.Pass,
			"mAP 0.5000 >= 0.1"},
		{"and over images that neither model trained on",
			maxDrop("mAP", 0.05), func() Input {
				in := against(candidate(0.5, 0), release(0.5), 0.01)
				in.Compare.Images, in.Compare.LeftOut = 70, 2
				return in
			}(), delivery.Pass,
			"mAP 0.5000, release 0.5000: +0.0000, at worst -0.0090 >= -0.05; over 70 of 72 images, as a model was " +
				"trained on the other 2"},
		{"or than the other one",
			maxDrop("mAP", 0.05), func() Input {
				in := against(candidate(0.5, 0), release(0.5), 0.01)
				in.Compare.Images, in.Compare.LeftOut = 71, 1
				return in
			}(), delivery.Pass,
			"mAP 0.5000, release 0.5000: +0.0000, at worst -0.0090 >= -0.05; over 71 of 72 images, as a model was " +
				"trained on the other one"},
		{"of which fewer than 20 are left, whatever the model's own",
			maxDrop("mAP", 0.05), func() Input {
				in := against(candidate(0.5, 0), release(0.5), 0.01)
				in.Compare.Images, in.Compare.LeftOut = 19, 53
				return in
			}(), delivery.Unsure,
			"mAP: the eval set has 19 images, and an interval needs 20; over 19 of 72 images, as a model was trained " +
				"on the other 53"},
		{"what was not compared is no answer",
			maxDrop("mAP", 0.05), func() Input {
				in := against(candidate(0.5, 0), release(0.5), 0.01)
				in.Compare = nil
				return in
			}(), delivery.Unsure,
			"mAP: not compared with the release"},
		{"unsure: fail",
			unsure("fail"), candidate(0.5, 0.05), delivery.Fail,
			"mAP 0.5000 < 0.52, but 72 images cannot rule out that it reaches it: at most 0.5451, 95% sure (±0.0451; " +
				"about 367 images in all would settle it); the gate takes that for a fail"},
		{"unsure: review",
			unsure("review"), candidate(0.5, 0.05), delivery.Unsure,
			"mAP 0.5000 < 0.52, but 72 images cannot rule out that it reaches it: at most 0.5451, 95% sure (±0.0451; " +
				"about 367 images in all would settle it)"},
		{"unsure: ignore, which is no pass",
			unsure("ignore"), candidate(0.5, 0.05), delivery.NotApplicable,
			"nothing to judge: every check is ignored or does not apply"},
		{"a first model: no baseline, so no-regression is not-applicable",
			maxDrop("mAP", 0.05), candidate(0.5, 0.05), delivery.NotApplicable,
			"mAP: no release to compare with"},
		{"what was lost, in TIDE's words",
			maxDrop("mAP", 0.05), missing(against(candidate(0.4, 0), release(0.5), 0.03)), delivery.Fail,
			"mAP 0.4000, release 0.5000: -0.1000, at best -0.0729 < -0.05 (95% sure); -10.0 AP50, mostly missed b " +
				"(4 more)"},
		{"and by a class",
			with(maxDrop("AP", 0.05), func(c *delivery.GateCheck) { c.Classes.Names = []string{"b"} }),
			missing(against(Input{Candidate: scored(0.4, 0, map[string]float64{"a": 0.5, "b": 0.3})}, release(0.5),
				0.03)), delivery.Fail,
			"AP of b 0.3000, release 0.5000: -0.2000, at best -0.1729 < -0.05 (95% sure); -20.0 AP50, mostly missed " +
				"b (4 more)"},

		{"F1 at threshold: a floor",
			with(minimum("F1", 0.9), threshold), at(candidate(0.5, 0), 0.9, 0.8, 0.3, 0.01), delivery.Fail,
			"F1 0.8471 < 0.9 (at most 0.8492, 95% sure, 72 images)"},
		{"recall at threshold: a floor",
			with(minimum("recall", 0.92), threshold), at(candidate(0.5, 0), 0.9, 0.8, 0.3, 0.01), delivery.Fail,
			"recall 0.9000 < 0.92 (at most 0.9090, 95% sure, 72 images)"},
		{"by class",
			with(minimum("precision", 0.75), func(c *delivery.GateCheck) {
				threshold(c)
				c.Classes.Names = []string{"b"}
			}), at(candidate(0.5, 0), 0.9, 0.8, 0.3, 0.01), delivery.Pass,
			"precision of b 0.8000 >= 0.75"},
		{"max: pass at or below it",
			maximum("0.3"), at(candidate(0.5, 0), 0.9, 0.8, 0.3, 0.01), delivery.Pass,
			"falsePositivesPerImage 0.3000 <= 0.3"},
		{"fail where its lower bound is above",
			maximum("0.2"), at(candidate(0.5, 0), 0.9, 0.8, 0.3, 0.01), delivery.Fail,
			"falsePositivesPerImage 0.3000 > 0.2 (at least 0.2910, 95% sure, 72 images)"},
		{"else unsure",
			maximum("0.295"), at(candidate(0.5, 0), 0.9, 0.8, 0.3, 0.01), delivery.Unsure,
			"falsePositivesPerImage 0.3000 > 0.295, but 72 images cannot rule out that it is as low: at least " +
				"0.2910, 95% sure (±0.0090; about 235 images in all would settle it)"},
		{"a bound of a ceiling that takes more resamples than there are decides nothing",
			maximum("0.2"), func() Input {
				in := at(candidate(0.5, 0), 0.9, 0.8, 0.3, 0)
				for _, rows := range in.Candidate.Scores.Table.Columns {
					for i := range rows {
						rows[i].Resamples = rows[i].Resamples[:9]
					}
				}
				return in
			}(), delivery.Unsure,
			"falsePositivesPerImage 0.3000 > 0.2, but 72 images cannot rule out that it is as low: at least 0.3000, " +
				"95% sure (a bound that is 95% sure takes 1000 resamples, and there are 9)"},
		{"a model without thresholds fails",
			with(minimum("recall", 0.92), threshold), candidate(0.5, 0), delivery.Fail,
			"recall: the model has no thresholds; add thresholds: {default: bestF1} to it"},
		{"a release without thresholds is nothing to compare with",
			with(maxDrop("recall", 0.02), threshold), against(at(candidate(0.5, 0), 0.9, 0.8, 0.3, 0.01), release(0.5),
				0.01), delivery.NotApplicable,
			"recall: the release has no thresholds to compare with"},

		{"against: a version that stays the measure",
			toAnchor, anchored(candidate(0.5, 0), Anchor{Measured: old, Compare: &drift, CompareKey: "k"}),
			delivery.Fail,
			"mAP 0.5000, m@3 0.6000: -0.1000, at best -0.0820 < -0.05 (95% sure)"},
		{"which was not compared yet",
			toAnchor, candidate(0.5, 0), delivery.Unsure,
			"mAP: not compared with m@3"},
		{"which was never accepted",
			toAnchor, anchored(candidate(0.5, 0), Anchor{Missing: "m@3 is no version that main accepted"}),
			delivery.Fail,
			"mAP: m@3 is no version that main accepted"},
		{"which it is itself",
			toAnchor, anchored(candidate(0.5, 0), Anchor{SameBundle: true}), delivery.Pass,
			"mAP: it is m@3 itself"},
		{"which was scored by another protocol",
			toAnchor, anchored(candidate(0.5, 0), Anchor{Measured: func() Measured {
				m := old
				m.Scores.Protocol = "q"
				return m
			}(), Compare: &drift, CompareKey: "k"}), delivery.Fail,
			"mAP: it and m@3 were scored by different protocols; their numbers cannot be compared"},
		{"size: at most",
			delivery.GateCheck{Metric: "size", Max: &limit}, Input{Candidate: scored(0.5, 0, half), Size: 2_000_000},
			delivery.Pass,
			"size 2.0MB <= 2MB"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			v := judge(c.in, c.check)
			if v.Outcome != c.want || v.Reason != c.text {
				t.Errorf("%s: %s\nwant %s: %s", v.Outcome, v.Reason, c.want, c.text)
			}
		})
	}
}

// Holm's method steps down: the surest class is judged with all classes in mind, the
// next with those that are left, until one is not sure.
func TestHolmSteps(t *testing.T) {
	steps := func(c delivery.GateCheck, a, b float64) string {
		in := at(Input{Candidate: scored(0.5, 0.1, map[string]float64{"a": a, "b": b})}, 0.9, 0.8, 0.3, 0.1)
		for i, v := range []float64{a, b} {
			in.Candidate.Scores.Table.Columns["false"][i] = row(72*v, 72*0.1)
		}
		v := judge(in, with(c, all))
		return fmt.Sprint(v.Checks[0].Outcome, " ", v.Checks[1].Outcome)
	}
	ceiling, floor := maximum("0.5"), minimum("AP", 0.5)
	for _, c := range []struct {
		name  string
		check delivery.GateCheck
		a, b  float64
		want  string
	}{
		// 0.592 lies 0.092 beyond, which 95 % make of 0.0902 and 97.5 % of 0.0952.
		{"a ceiling: both are asked for 97.5%", ceiling, 0.592, 0.4, "unsure pass"},
		{"the other is sure, so 95% will do", ceiling, 0.592, 0.9, "fail fail"},
		{"in any order", ceiling, 0.9, 0.592, "fail fail"},
		{"a floor: both are asked for 97.5%", floor, 0.408, 0.6, "unsure pass"},
		{"the other is sure, so 95% will do", floor, 0.408, 0.1, "fail fail"},
		{"in any order", floor, 0.1, 0.408, "fail fail"},
	} {
		if got := steps(c.check, c.a, c.b); got != c.want {
			t.Errorf("%s: %.3f and %.3f are %s, want %s", c.name, c.a, c.b, got, c.want)
		}
	}
}

// A verdict's key is of the gate and of all that it read: an accept of one verdict is
// of no other.
func TestVerdictKey(t *testing.T) {
	half := map[string]float64{"a": 0.5}
	key := func(change func(*delivery.Gate, *Input)) delivery.Digest {
		g := delivery.Gate{Name: "g", Owners: []string{"lead"}, Classes: []string{"a"},
			Checks: []delivery.GateCheck{minimum("mAP", 0.4),
				maxDrop("mAP", 0.1)}}
		in := against(Input{Candidate: scored(0.5, 0.01, half), Look: 1}, scored(0.5, 0.01, half), 0.01)
		in.Anchors = map[string]Anchor{"m@3": {Measured: scored(0.5, 0.01, half), Compare: in.Compare,
			CompareKey: "anchor"}}
		change(&g, &in)
		return Judge("g", g, in).Key
	}
	same := key(func(*delivery.Gate, *Input) {})
	for name, change := range map[string]func(*delivery.Gate, *Input){
		"the gate":             func(g *delivery.Gate, _ *Input) { g.Checks = g.Checks[:1] },
		"its eval set":         func(g *delivery.Gate, _ *Input) { g.Evaluate.Split = "valid" },
		"its labels":           func(g *delivery.Gate, _ *Input) { g.Labels = delivery.Labels{"a": {"b"}} },
		"its classes":          func(g *delivery.Gate, _ *Input) { g.Classes = nil },
		"the score":            func(_ *delivery.Gate, in *Input) { in.Candidate.Key = "other" },
		"the baseline's score": func(_ *delivery.Gate, in *Input) { in.Baseline.Key = "other" },
		"the comparison":       func(_ *delivery.Gate, in *Input) { in.CompareKey = "other" },
		"no baseline":          func(_ *delivery.Gate, in *Input) { in.Baseline, in.Compare = nil, nil },
		"an anchor's score": func(_ *delivery.Gate, in *Input) {
			a := in.Anchors["m@3"]
			a.Measured.Key = "other"
			in.Anchors["m@3"] = a
		},
		"an anchor's comparison": func(_ *delivery.Gate, in *Input) {
			a := in.Anchors["m@3"]
			a.CompareKey = "other"
			in.Anchors["m@3"] = a
		},

		"no anchor": func(_ *delivery.Gate, in *Input) { in.Anchors = nil },
	} {
		if key(change) == same {
			t.Errorf("%s: other, and the verdict has the same key", name)
		}
	}
	for name, change := range map[string]func(*delivery.Gate, *Input){
		"owners": func(g *delivery.Gate, _ *Input) { g.Owners = nil },
		"looks":  func(_ *delivery.Gate, in *Input) { in.Look = 7 },
	} {
		if key(change) != same {
			t.Errorf("%s are part of a verdict's key", name)
		}
	}
}

// Beyond its looks a gate is unsure, unless it fails; the number is no part of the
// verdict's key, and an owner's accept is for this model alone.
func TestLooks(t *testing.T) {
	half := map[string]float64{"a": 0.5}
	judge := func(look int, floor float64) delivery.Verdict {
		in := Input{Candidate: scored(0.5, 0.01, half), Look: look, BaselineBundle: "b1", Bundle: "b2",
			Classes: []string{"a"}}
		g := delivery.Gate{Looks: 10, Classes: in.Classes, Checks: []delivery.GateCheck{minimum("mAP", floor)}}
		return Judge("g", g, in)
	}
	tenth, eleventh := judge(10, 0.4), judge(11, 0.4)
	if tenth.Outcome != delivery.Pass || tenth.Look != 10 || tenth.Looks != 10 {
		t.Errorf("the tenth: %+v", tenth)
	}
	const want = "this is model 11 that the eval set judges against this release, and the gate allows 10: the best " +
		"of many looks better than it is; freeze a new eval set (aob gate freeze)"
	if eleventh.Outcome != delivery.Unsure || eleventh.Reason != want {
		t.Errorf("the eleventh: %s: %s", eleventh.Outcome, eleventh.Reason)
	}
	if tenth.Key != eleventh.Key {
		t.Error("the number of looks is part of the key")
	}
	if v := judge(11, 0.9); v.Outcome != delivery.Fail {
		t.Errorf("a fail is a fail, however often one looks: %s", v.Outcome)
	}
}

// Other classes of a model than the gate's never count: they lift no mean and no share over a bound, make up for no
// drop, and their false positives are not the gate's.
func TestOtherClassesNeverCount(t *testing.T) {
	now := map[string]float64{"a": 0.6, "b": 0.6, "c": 0.9}
	before := map[string]float64{"a": 0.66, "b": 0.66, "c": 0.78}
	in := func(width float64) Input {
		in := against(at(Input{Candidate: scored(0.7, width, now)}, 0.7, 0.85, 0.5, width), scored(0.7, width, before),
			width)
		for i, class := range in.Candidate.Scores.Classes {
			in.Candidate.Scores.Table.Columns["AP50"][i] = row(now[class], width)
		}
		counts := in.Candidate.Scores.Table.Columns
		for i, v := range [][3]float64{{100, 50, 36}, {100, 60, 36}, {100, 100, 0}} {
			counts["truths"][i], counts["found"][i] = row(v[0], 0), row(v[1], 100*width)
			counts["false"][i] = row(v[2], 0)
		}
		in.Baseline.Scores.Table.Columns["found"] = counts["found"] // it has thresholds
		in.Compare.Candidate.Columns["truths"] = counts["truths"]
		in.Compare.Candidate.Columns["found"], in.Compare.Candidate.Columns["false"] = counts["found"], counts["false"]
		old := in.Compare.Baseline.Columns
		old["truths"], old["false"] = counts["truths"], counts["false"]
		for i, v := range []float64{60, 70, 50} {
			r := row(v, 100*width)
			slices.Reverse(r.Resamples) // so that differences vary
			if i == 2 {
				r = row(v, 0)
			}
			old["found"] = append(old["found"], r)
		}
		return in
	}
	for _, c := range []struct {
		name  string
		check delivery.GateCheck
		in    Input
		want  delivery.Outcome
		text  string
	}{
		{"a mean", minimum("mAP", 0.65), in(0.01), delivery.Fail,
			"mAP 0.6000 < 0.65 (at most 0.6090, 95% sure, 72 images)"},
		{"which may be below", minimum("mAP", 0.65), in(0.1), delivery.Unsure,
			"mAP 0.6000 < 0.65, but 72 images cannot rule out that it reaches it: at most 0.6902, 95% sure (±0.0902; " +
				"about 235 images in all would settle it)"},
		{"and is not", minimum("mAP", 0.6), in(0.01), delivery.Pass, "mAP 0.6000 >= 0.6"},
		{"AP50 too", minimum("AP50", 0.65), in(0.01), delivery.Fail,
			"AP50 0.6000 < 0.65 (at most 0.6090, 95% sure, 72 images)"},
		{"a share of truths", with(minimum("recall", 0.6), threshold), in(0.01), delivery.Fail,
			"recall 0.5500 < 0.6 (at most 0.5590, 95% sure, 72 images)"},
		{"a share of what is found", with(minimum("precision", 0.8), threshold), in(0.01), delivery.Fail,
			"precision 0.6044 < 0.8 (at most 0.6083, 95% sure, 72 images)"},
		{"false positives", maximum("1"), in(0.01), delivery.Pass, "falsePositivesPerImage 1.0000 <= 1"},
		{"a drop", maxDrop("mAP", 0.02), in(0.01), delivery.Fail,
			"mAP 0.6000, release 0.6600: -0.0600, at best -0.0510 < -0.02 (95% sure)"},
		{"a drop of a share", with(maxDrop("recall", 0.02), threshold), in(0.01), delivery.Fail,
			"recall 0.5500, release 0.6500: -0.1000, at best -0.0820 < -0.02 (95% sure)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.in.Classes = c.in.Candidate.Scores.Classes
			g := delivery.Gate{Checks: []delivery.GateCheck{c.check}, Classes: []string{"a", "b"}}
			v := Judge("g", g, c.in)
			if v.Outcome != c.want || v.Reason != c.text {
				t.Errorf("%s: %s\nwant %s: %s", v.Outcome, v.Reason, c.want, c.text)
			}
			if !slices.Equal(v.Classes, []string{"a", "b"}) {
				t.Errorf("judged over %v", v.Classes)
			}
			for _, l := range v.Lost {
				if l.Class == "c" {
					t.Errorf("a loss of another class: %s", l)
				}
			}
		})
	}
}

// What a model was trained on is left out, and of that there must not be much: who
// chooses the training images would choose what the gate judges on.
func TestTrainedOnTheEvalSet(t *testing.T) {
	trained := func(leftOut int, change func(*Input)) delivery.Verdict {
		in := Input{Candidate: scored(0.5, 0.01, map[string]float64{"a": 0.5}), Bundle: "b2"}
		in.Candidate.Scores.Images, in.Candidate.Scores.LeftOut = 100-leftOut, leftOut
		if change != nil {
			change(&in)
		}
		return judge(in, minimum("mAP", 0.4))
	}
	if v := trained(5, nil); v.Outcome != delivery.Pass ||
		v.Reason != "mAP 0.5000 >= 0.4; over 95 of 100 images, as a model was trained on the other 5" {
		t.Errorf("5 of 100: %s: %s", v.Outcome, v.Reason)
	}
	const want = "the model was trained on 6 of the 100 images of the eval set (6.0%), and at most 5% may be left " +
		"out of it; train it anew, without them; over 94 of 100 images, as a model was trained on the other 6"
	if v := trained(6, nil); v.Outcome != delivery.Unsure || v.Reason != want {
		t.Errorf("6 of 100: %s: %s", v.Outcome, v.Reason)
	}
	if v := trained(6, func(in *Input) {
		in.Candidate.Scores.Table = scored(0.1, 0, map[string]float64{"a": 0.1}).Scores.Table
	}); v.Outcome != delivery.Fail {
		t.Errorf("a fail is one, however much is left out: %s", v.Outcome)
	}
	if v := trained(6, func(in *Input) { in.SameBundle = true }); v.Outcome != delivery.Pass {
		t.Errorf("the release itself: %s: %s", v.Outcome, v.Reason)
	}
}

// What got worse beyond chance is told whether a check is about it or not, of
// classes only what is left of it for their number.
func TestLost(t *testing.T) {
	was := map[string]float64{"a": 0.5, "b": 0.5, "c": 0.5}
	in := Input{Classes: []string{"a", "b", "c"}, Candidate: scored(0.5, 0.01, map[string]float64{"a": 0.51, "b": 0.3,
		"c": 0.4905})}
	in = missing(against(at(in, 0.9, 0.5, 3, 0.01), scored(0.5, 0.01, was), 0.01))
	counts, old := in.Candidate.Scores.Table.Columns, in.Compare.Baseline.Columns
	for _, column := range []string{"truths", "found", "false"} {
		in.Compare.Candidate.Columns[column] = counts[column]
		for _, r := range counts[column] {
			if column != "truths" { // fewer, and as large a share of what is detected
				r = row(r.Value/6, 0)
			}
			old[column] = append(old[column], r)
		}
	}
	lost := func(in Input) []string {
		var list []string
		for _, l := range judge(in, minimum("mAP", 0.1)).Lost {
			list = append(list, fmt.Sprintf("%s %s %.2f, was %.2f: %+.4f, at best %+.4f: %s", l.Metric, l.Class,
				l.Value, l.Baseline, l.Diff, l.AtBest, l.Why))
		}
		return list
	}
	// c is 0.0095 worse and 0.009 is what one class alone would show.
	want := []string{
		"falsePositivesPerImage  3.00, was 0.50: +2.5000, at best +2.4902: ",
		"AP b 0.30, was 0.50: -0.2000, at best -0.1903: -20.0 AP50, mostly missed b (4 more)",
	}
	if got := lost(in); !slices.Equal(got, want) {
		t.Errorf("lost\n%q, want\n%q", got, want)
	}
	in.SameBundle = true
	if got := lost(in); got != nil {
		t.Errorf("the release itself lost %q", got)
	}
}

func TestResamples(t *testing.T) {
	if n := Resamples([]delivery.GateCheck{maxDrop("mAP", 0.01), minimum("mAP", 0.1)}, 3); n != 1000 {
		t.Errorf("one figure: %d", n)
	}
	if n := Resamples([]delivery.GateCheck{minimum("mAP", 0.1)}, 80); n != 1600 { // which of 80 got lost
		t.Errorf("80 classes: %d", n)
	}
	wide := with(maxDrop("AP", 0.01), all)
	wide.Confidence = 0.99
	if n := Resamples([]delivery.GateCheck{wide}, 80); n != 8000 {
		t.Errorf("80 classes at 99%%: %d", n)
	}
	for _, c := range []delivery.GateCheck{minimum("AP", 0.1), maximum("0.5")} { // floors and ceilings are bounds, too
		all(&c)
		c.Confidence = 0.99
		if n := Resamples([]delivery.GateCheck{c}, 11); n != 1100 {
			t.Errorf("%s of 11 classes at 99%%: %d", c.Metric, n)
		}
	}
}

// No bound is beyond what its metric can be.
func TestRange(t *testing.T) {
	for _, c := range []struct {
		metric    string
		value     float64
		low, high float64
	}{
		{"mAP", 0.99, 0.9449, 1},
		{"AP/a", 0.01, 0, 0.0551},
		{"falsePositivesPerImage", 0.99, 0.9449, 1.0351},
		{"falsePositivesPerImage/a", 0.01, 0, 0.0551},
	} {
		low, high := delivery.MetricOfFigure(c.metric).Bound(around(c.value, 0.05), 0.95)
		if fmt.Sprintf("%.4f %.4f", low, high) != fmt.Sprintf("%.4f %.4f", c.low, c.high) {
			t.Errorf("%s %.2f: %.4f to %.4f, want %.4f to %.4f", c.metric, c.value, low, high, c.low, c.high)
		}
	}
}
