package gate

// Every sentence of "How a check decides" (the design, section 3), with what the
// verdict says.

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/code"
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

// facts are what decided a verdict.
func facts(v delivery.Verdict) string { return strings.Trim(fmt.Sprint(v.Because), "[]") }

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
			"drop.allowed{fromModel=release metric=mAP bound=-0.0200 confidence=0.9500 value=0.5000 baseline=0.5000 " +
				"low=-0.0090 high=0.0090}"},
		{"or over groups where given; fewer than 20 groups is unsure",
			maxDrop("mAP", 0.02), groups(against(candidate(0.5, 0.3), release(0.5), 0.01), 19), delivery.Unsure,
			"check.of{metric=mAP [check.fewGroups{count=19 limit=20}]}"},
		{"an image without a group is one",
			maxDrop("mAP", 0.02), images(against(candidate(0.5, 0.3), release(0.5), 0.01), 19), delivery.Unsure,
			"check.of{metric=mAP [check.fewImages{count=19 limit=20}]}"},
		{"and 20 are enough",
			maxDrop("mAP", 0.02), images(against(candidate(0.5, 0.3), release(0.5), 0.01), 20), delivery.Pass,
			"drop.allowed{fromModel=release metric=mAP bound=-0.0200 confidence=0.9500 value=0.5000 baseline=0.5000 " +
				"low=-0.0090 high=0.0090}"},
		{"bounds are one-sided at confidence",
			with(maxDrop("mAP", 0.008), func(c *delivery.GateCheck) { c.Confidence = 0.8 }), against(candidate(0.5, 0),
				release(0.5), 0.01), delivery.Pass,
			"drop.allowed{fromModel=release metric=mAP bound=-0.0080 confidence=0.8000 value=0.5000 baseline=0.5000 " +
				"low=-0.0060 high=0.0060}"},
		{"maxDrop: pass if the lower bound of the difference >= -maxDrop",
			maxDrop("mAP", 0.05), against(candidate(0.48, 0), release(0.5), 0.03), delivery.Pass,
			"drop.allowed{fromModel=release metric=mAP bound=-0.0500 confidence=0.9500 value=0.4800 baseline=0.5000 " +
				"diff=-0.0200 low=-0.0471 high=0.0071}"},
		{"fail if its upper bound < -maxDrop",
			maxDrop("mAP", 0.05), against(candidate(0.4, 0), release(0.5), 0.03), delivery.Fail,
			"drop.found{fromModel=release metric=mAP bound=-0.0500 confidence=0.9500 value=0.4000 baseline=0.5000 " +
				"diff=-0.1000 low=-0.1271 high=-0.0729}"},
		{"a bound on the line is within it",
			maxDrop("mAP", 0), against(candidate(0.5, 0), release(0.5), 0), delivery.Pass,
			"drop.allowed{fromModel=release metric=mAP confidence=0.9500 value=0.5000 baseline=0.5000}"},
		{"else unsure, with the ±and how many images in all would settle it",
			maxDrop("mAP", 0.02), against(candidate(0.49, 0), release(0.5), 0.05), delivery.Unsure,
			"drop.unsure{fromModel=release metric=mAP bound=-0.0200 confidence=0.9500 value=0.4900 baseline=0.5000 " +
				"diff=-0.0100 low=-0.0551 high=0.0351 [bound.settles{count=1465 diff=0.0451}]}"},
		{"or that no number of images would",
			maxDrop("mAP", 0.01), against(candidate(0.49, 0), release(0.5), 0.05), delivery.Unsure,
			"drop.unsure{fromModel=release metric=mAP bound=-0.0100 confidence=0.9500 value=0.4900 baseline=0.5000 " +
				"diff=-0.0100 low=-0.0551 high=0.0351 [bound.hardlySettles{diff=0.0451}]}"},
		{"min: pass if the value is at or above it",
			minimum("mAP", 0.5), candidate(0.5, 0.2), delivery.Pass,
			"check.reached{metric=mAP images=72 bound=0.5000 confidence=0.9500 value=0.5000 low=0.3196 high=0.6804}"},
		{"fail if its upper bound is below",
			minimum("mAP", 0.6), candidate(0.5, 0.05), delivery.Fail,
			"check.below{metric=mAP images=72 bound=0.6000 confidence=0.9500 value=0.5000 low=0.4549 high=0.5451}"},
		{"else unsure",
			minimum("mAP", 0.52), candidate(0.5, 0.05), delivery.Unsure,
			"check.maybeReached{metric=mAP images=72 bound=0.5200 confidence=0.9500 value=0.5000 low=0.4549 " +
				"high=0.5451 [bound.settles{count=367 diff=0.0451}]}"},
		{"Over several classes the bounds are Holm-adjusted",
			with(maxDrop("AP", 0.047), all), against(candidate(0.5, 0), release(0.5), 0.05), delivery.Unsure,
			"drop.unsure{fromModel=release class=a metric=AP bound=-0.0470 confidence=0.9750 value=0.5000 " +
				"baseline=0.5000 low=-0.0476 high=0.0476 [bound.settles{count=74 diff=0.0476}]} " +
				"verdict.moreChecks{outcome=unsure count=1}"},
		{"as one of them alone would pass",
			with(maxDrop("AP", 0.047), func(c *delivery.GateCheck) { c.Classes.Names = []string{"a"} }),
			against(candidate(0.5, 0), release(0.5), 0.05), delivery.Pass,
			"drop.allowed{fromModel=release class=a metric=AP bound=-0.0470 confidence=0.9500 value=0.5000 " +
				"baseline=0.5000 low=-0.0451 high=0.0451}"},
		{"and so for those that fail",
			with(maxDrop("AP", 0.054), all),
			against(Input{Candidate: scored(0.4, 0, map[string]float64{"a": 0.4, "b": 0.4})}, release(0.5), 0.05),
			delivery.Unsure,
			"drop.unsure{fromModel=release class=a metric=AP bound=-0.0540 confidence=0.9750 value=0.4000 " +
				"baseline=0.5000 diff=-0.1000 low=-0.1476 high=-0.0524 [bound.settles{count=78 diff=0.0476}]} " +
				"verdict.moreChecks{outcome=unsure count=1}"},
		{"as one of them alone would fail",
			with(maxDrop("AP", 0.054), func(c *delivery.GateCheck) { c.Classes.Names = []string{"a"} }),
			against(Input{Candidate: scored(0.4, 0, map[string]float64{"a": 0.4})}, release(0.5), 0.05), delivery.Fail,
			"drop.found{fromModel=release class=a metric=AP bound=-0.0540 confidence=0.9500 value=0.4000 " +
				"baseline=0.5000 diff=-0.1000 low=-0.1451 high=-0.0549}"},
		{"a bound that takes more resamples than there are decides nothing",
			with(maxDrop("AP", 0.5), all), few(against(candidate(0.5, 0), release(0.5), 0.05), 30), delivery.Unsure,
			"drop.unsure{fromModel=release class=a metric=AP bound=-0.5000 confidence=0.9750 value=0.5000 " +
				"baseline=0.5000 low=-0.0000 high=0.0000 [bound.unresolved{count=30 limit=1000 confidence=0.9750}]} " +
				"verdict.moreChecks{outcome=unsure count=1}"},
		{"nor the other way",
			with(maxDrop("AP", -0.5), all), few(against(candidate(0.5, 0), release(0.5), 0.05), 30), delivery.Unsure,
			"drop.unsure{fromModel=release class=a metric=AP bound=0.5000 confidence=0.9750 value=0.5000 " +
				"baseline=0.5000 low=-0.0000 high=0.0000 [bound.unresolved{count=30 limit=1000 confidence=0.9750}]} " +
				"verdict.moreChecks{outcome=unsure count=1}"},
		{"nor of a floor",
			minimum("mAP", 0.6), func() Input {
				in := candidate(0.5, 0)
				for i := range in.Candidate.Scores.Classes {
					in.Candidate.Scores.Table.Columns["AP"][i].Resamples = around(0.5, 0)[:9]
				}
				return in
			}(), delivery.Unsure,
			"check.maybeReached{metric=mAP images=72 bound=0.6000 confidence=0.9500 value=0.5000 low=0.5000 " +
				"high=0.5000 [bound.unresolved{count=9 limit=1000 confidence=0.9500}]}"},
		{"below support truths is unsure",
			with(minimum("AP", 0.1), func(c *delivery.GateCheck) { all(c); c.Support = 101 }), candidate(0.5, 0.1),
			delivery.Unsure,
			"check.of{class=a metric=AP [check.fewTruths{count=100 limit=101}]} verdict.moreChecks{outcome=unsure " +
				"count=1}"},
		{"as many are enough",
			with(minimum("AP", 0.1), func(c *delivery.GateCheck) { all(c); c.Support = 100 }), candidate(0.5, 0.1),
			delivery.Pass,
			"check.reached{class=a metric=AP images=72 bound=0.1000 confidence=0.9750 value=0.5000 low=0.4048 " +
				"high=0.5952} verdict.passedChecks{total=2 counts=map[pass:2]}"},
		{"of a comparison, those on the images that are compared",
			with(maxDrop("AP", 0.05), func(c *delivery.GateCheck) { all(c); c.Support = 100 }), func() Input {
				in := against(candidate(0.5, 0), release(0.5), 0.01)
				in.Compare.Truths = map[string]int{"a": 99, "b": 100}
				return in
			}(), delivery.Unsure,
			"check.of{class=a metric=AP [check.fewTruths{count=99 limit=100}]}"},
		{"Comparisons run over the classes that both models and the eval set have",
			with(maxDrop("AP", 0.05), all), against(candidate(0.5, 0), scored(0.5, 0.05, map[string]float64{"a": 0.5,
				"z": 0.9}), 0.01), delivery.Pass,
			"drop.allowed{fromModel=release class=a metric=AP bound=-0.0500 confidence=0.9500 value=0.5000 " +
				"baseline=0.5000 low=-0.0090 high=0.0090}"},
		{"and say over which, where the model has more",
			maxDrop("mAP", 0.05), against(candidate(0.5, 0), scored(0.5, 0.05, map[string]float64{"a": 0.5}), 0.01),
			delivery.Pass,
			"drop.allowed{fromModel=release metric=mAP names=[\"a\"] bound=-0.0500 confidence=0.9500 value=0.5000 " +
				"baseline=0.5000 low=-0.0090 high=0.0090}"},
		{"a class by name that they do not share",
			with(maxDrop("AP", 0.05), func(c *delivery.GateCheck) { c.Classes.Names = []string{"b"} }),
			against(candidate(0.5, 0), scored(0.5, 0.05, map[string]float64{"a": 0.5}), 0.01), delivery.Unsure,
			"check.of{class=b metric=AP [check.notShared{fromModel=release}]}"},
		{"a class that the model does not have",
			with(minimum("AP", 0.05), func(c *delivery.GateCheck) { c.Classes.Names = []string{"z"} }),
			candidate(0.5, 0), delivery.Fail,
			"check.classMissing{model=m gate=g class=z}"},
		{"a class without a truth has its own line",
			minimum("mAP", 0.1), func() Input {
				in := candidate(0.5, 0)
				in.Candidate.Scores.Truths["b"] = 0
				return in
			}(), delivery.Unsure,
			"check.of{metric=mAP [check.noTruthOfClass{class=b}]}"},
		{"which unsure: may ignore",
			with(minimum("mAP", 0.1), func(c *delivery.GateCheck) { c.Unsure = "ignore" }), func() Input {
				in := candidate(0.5, 0)
				in.Candidate.Scores.Truths["b"] = 0
				return in
			}(), delivery.Pass,
			"check.reached{metric=mAP images=72 bound=0.1000 confidence=0.9500 value=0.5000 low=0.5000 high=0.5000} " +
				"verdict.passedChecks{total=2 counts=map[ignored:1 pass:1]}"},
		{"and one without a truth of a size in figures of that size",
			minimum("APsmall", 0.1), func() Input {
				in := candidate(0.5, 0)
				in.Candidate.Scores.Table.Columns["APsmall"] = []delivery.Row{row(0.5, 0), {Value: math.NaN()}}
				return in
			}(), delivery.Unsure,
			"check.of{metric=APsmall [check.noTruthOfClass{class=b}]}"},
		{"unless the check leaves the class out",
			with(minimum("mAP", 0.1), func(c *delivery.GateCheck) { c.Except = []string{"b"} }), func() Input {
				in := candidate(0.5, 0)
				in.Candidate.Scores.Truths["b"] = 0
				return in
			}(), delivery.Pass,
			"check.reached{metric=mAP images=72 bound=0.1000 confidence=0.9500 value=0.5000 low=0.5000 high=0.5000}"},
		{"and over images that neither model trained on",
			maxDrop("mAP", 0.05), func() Input {
				in := against(candidate(0.5, 0), release(0.5), 0.01)
				in.Compare.Images, in.Compare.LeftOut = 70, 2
				return in
			}(), delivery.Pass,
			"drop.allowed{fromModel=release metric=mAP bound=-0.0500 confidence=0.9500 value=0.5000 baseline=0.5000 " +
				"low=-0.0090 high=0.0090} verdict.imagesLeftOut{count=2 total=72 images=70}"},
		{"or than the other one",
			maxDrop("mAP", 0.05), func() Input {
				in := against(candidate(0.5, 0), release(0.5), 0.01)
				in.Compare.Images, in.Compare.LeftOut = 71, 1
				return in
			}(), delivery.Pass,
			"drop.allowed{fromModel=release metric=mAP bound=-0.0500 confidence=0.9500 value=0.5000 baseline=0.5000 " +
				"low=-0.0090 high=0.0090} verdict.imagesLeftOut{count=1 total=72 images=71}"},
		{"of which fewer than 20 are left, whatever the model's own",
			maxDrop("mAP", 0.05), func() Input {
				in := against(candidate(0.5, 0), release(0.5), 0.01)
				in.Compare.Images, in.Compare.LeftOut = 19, 53
				return in
			}(), delivery.Unsure,
			"check.of{metric=mAP [check.fewImages{count=19 limit=20}]} verdict.imagesLeftOut{count=53 total=72 " +
				"images=19}"},
		{"what was not compared is no answer",
			maxDrop("mAP", 0.05), func() Input {
				in := against(candidate(0.5, 0), release(0.5), 0.01)
				in.Compare = nil
				return in
			}(), delivery.Unsure,
			"check.of{metric=mAP [baseline.notCompared{fromModel=release}]}"},
		{"unsure: fail",
			unsure("fail"), candidate(0.5, 0.05), delivery.Fail,
			"check.maybeReached{metric=mAP images=72 bound=0.5200 confidence=0.9500 value=0.5000 low=0.4549 " +
				"high=0.5451 [bound.settles{count=367 diff=0.0451}]} check.takenAsFail"},
		{"unsure: review",
			unsure("review"), candidate(0.5, 0.05), delivery.Unsure,
			"check.maybeReached{metric=mAP images=72 bound=0.5200 confidence=0.9500 value=0.5000 low=0.4549 " +
				"high=0.5451 [bound.settles{count=367 diff=0.0451}]}"},
		{"unsure: ignore, which is no pass",
			unsure("ignore"), candidate(0.5, 0.05), delivery.NotApplicable,
			"verdict.nothingApplies"},
		{"a first model: no baseline, so no-regression is not-applicable",
			maxDrop("mAP", 0.05), candidate(0.5, 0.05), delivery.NotApplicable,
			"check.of{metric=mAP [baseline.none{fromModel=release}]}"},
		{"what was lost, in TIDE's words",
			maxDrop("mAP", 0.05), missing(against(candidate(0.4, 0), release(0.5), 0.03)), delivery.Fail,
			"drop.found{fromModel=release metric=mAP bound=-0.0500 confidence=0.9500 value=0.4000 baseline=0.5000 " +
				"diff=-0.1000 low=-0.1271 high=-0.0729} loss.error{class=b count=4 error=Miss diff=-0.1000}"},
		{"and by a class",
			with(maxDrop("AP", 0.05), func(c *delivery.GateCheck) { c.Classes.Names = []string{"b"} }),
			missing(against(Input{Candidate: scored(0.4, 0, map[string]float64{"a": 0.5, "b": 0.3})}, release(0.5),
				0.03)), delivery.Fail,
			"drop.found{fromModel=release class=b metric=AP bound=-0.0500 confidence=0.9500 value=0.3000 " +
				"baseline=0.5000 diff=-0.2000 low=-0.2271 high=-0.1729} loss.error{class=b count=4 error=Miss " +
				"diff=-0.2000}"},

		{"F1 at threshold: a floor",
			with(minimum("F1", 0.9), threshold), at(candidate(0.5, 0), 0.9, 0.8, 0.3, 0.01), delivery.Fail,
			"check.below{metric=F1 images=72 bound=0.9000 confidence=0.9500 value=0.8471 low=0.8449 high=0.8492}"},
		{"recall at threshold: a floor",
			with(minimum("recall", 0.92), threshold), at(candidate(0.5, 0), 0.9, 0.8, 0.3, 0.01), delivery.Fail,
			"check.below{metric=recall images=72 bound=0.9200 confidence=0.9500 value=0.9000 low=0.8910 high=0.9090}"},
		{"by class",
			with(minimum("precision", 0.75), func(c *delivery.GateCheck) {
				threshold(c)
				c.Classes.Names = []string{"b"}
			}), at(candidate(0.5, 0), 0.9, 0.8, 0.3, 0.01), delivery.Pass,
			"check.reached{class=b metric=precision images=72 bound=0.7500 confidence=0.9500 value=0.8000 low=0.7968 " +
				"high=0.8032}"},
		{"max: pass at or below it",
			maximum("0.3"), at(candidate(0.5, 0), 0.9, 0.8, 0.3, 0.01), delivery.Pass,
			"check.within{metric=falsePositivesPerImage images=72 bound=0.3000 confidence=0.9500 value=0.3000 " +
				"low=0.2910 high=0.3090}"},
		{"fail where its lower bound is above",
			maximum("0.2"), at(candidate(0.5, 0), 0.9, 0.8, 0.3, 0.01), delivery.Fail,
			"check.above{metric=falsePositivesPerImage images=72 bound=0.2000 confidence=0.9500 value=0.3000 " +
				"low=0.2910 high=0.3090}"},
		{"else unsure",
			maximum("0.295"), at(candidate(0.5, 0), 0.9, 0.8, 0.3, 0.01), delivery.Unsure,
			"check.maybeWithin{metric=falsePositivesPerImage images=72 bound=0.2950 confidence=0.9500 value=0.3000 " +
				"low=0.2910 high=0.3090 [bound.settles{count=235 diff=0.0090}]}"},
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
			"check.maybeWithin{metric=falsePositivesPerImage images=72 bound=0.2000 confidence=0.9500 value=0.3000 " +
				"low=0.3000 high=0.3000 [bound.unresolved{count=9 limit=1000 confidence=0.9500}]}"},
		{"a model without thresholds fails",
			with(minimum("recall", 0.92), threshold), candidate(0.5, 0), delivery.Fail,
			"check.of{metric=recall [check.noThresholds]}"},
		{"a release without thresholds is nothing to compare with",
			with(maxDrop("recall", 0.02), threshold), against(at(candidate(0.5, 0), 0.9, 0.8, 0.3, 0.01), release(0.5),
				0.01), delivery.NotApplicable,
			"check.of{metric=recall [baseline.noThresholds{fromModel=release}]}"},

		{"against: a version that stays the measure",
			toAnchor, anchored(candidate(0.5, 0), Anchor{Measured: old, Compare: &drift, CompareKey: "k"}),
			delivery.Fail,
			"drop.found{fromModel=m@3 metric=mAP bound=-0.0500 confidence=0.9500 value=0.5000 baseline=0.6000 " +
				"diff=-0.1000 low=-0.1180 high=-0.0820}"},
		{"which was not compared yet",
			toAnchor, candidate(0.5, 0), delivery.Unsure,
			"check.of{metric=mAP [baseline.notCompared{fromModel=m@3}]}"},
		{"which was never accepted",
			toAnchor, anchored(candidate(0.5, 0), Anchor{Missing: fact(code.VersionUnknown,
				delivery.Values{Text: "m@3"})}),
			delivery.Fail,
			"check.of{metric=mAP [baseline.versionUnknown{text=m@3}]}"},
		{"which it is itself",
			toAnchor, anchored(candidate(0.5, 0), Anchor{SameBundle: true}), delivery.Pass,
			"check.of{metric=mAP [baseline.same{fromModel=m@3}]}"},
		{"which was scored by another protocol",
			toAnchor, anchored(candidate(0.5, 0), Anchor{Measured: func() Measured {
				m := old
				m.Scores.Protocol = "q"
				return m
			}(), Compare: &drift, CompareKey: "k"}), delivery.Fail,
			"check.of{metric=mAP [baseline.otherProtocol{fromModel=m@3}]}"},
		{"size: at most",
			delivery.GateCheck{Metric: "size", Max: &limit}, Input{Candidate: scored(0.5, 0, half), Size: 2_000_000},
			delivery.Pass,
			"check.sizeWithin{bytes=2000000 bound=2000000.0000}"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			v := judge(c.in, c.check)
			if v.Outcome != c.want || facts(v) != c.text {
				t.Errorf("%s: %s\nwant %s: %s", v.Outcome, facts(v), c.want, c.text)
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
	if f := eleventh.Because[0]; eleventh.Outcome != delivery.Unsure || f.Code != code.TooManyLooks || f.Count != 11 ||
		f.Limit != 10 {
		t.Errorf("the eleventh: %s: %s", eleventh.Outcome, f)
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
			"check.below{metric=mAP images=72 bound=0.6500 confidence=0.9500 value=0.6000 low=0.5910 high=0.6090}"},
		{"which may be below", minimum("mAP", 0.65), in(0.1), delivery.Unsure,
			"check.maybeReached{metric=mAP images=72 bound=0.6500 confidence=0.9500 value=0.6000 low=0.5098 " +
				"high=0.6902 [bound.settles{count=235 diff=0.0902}]}"},
		{"and is not", minimum("mAP", 0.6), in(0.01), delivery.Pass, "check.reached{metric=mAP images=72 " +
			"bound=0.6000 confidence=0.9500 value=0.6000 low=0.5910 high=0.6090}"},
		{"AP50 too", minimum("AP50", 0.65), in(0.01), delivery.Fail,
			"check.below{metric=AP50 images=72 bound=0.6500 confidence=0.9500 value=0.6000 low=0.5910 high=0.6090}"},
		{"a share of truths", with(minimum("recall", 0.6), threshold), in(0.01), delivery.Fail,
			"check.below{metric=recall images=72 bound=0.6000 confidence=0.9500 value=0.5500 low=0.5410 high=0.5590}"},
		{"a share of what is found", with(minimum("precision", 0.8), threshold), in(0.01), delivery.Fail,
			"check.below{metric=precision images=72 bound=0.8000 confidence=0.9500 value=0.6044 low=0.6005 " +
				"high=0.6083}"},
		{"false positives", maximum("1"), in(0.01), delivery.Pass, "check.within{metric=falsePositivesPerImage " +
			"images=72 bound=1.0000 confidence=0.9500 value=1.0000 low=1.0000 high=1.0000}"},
		{"a drop", maxDrop("mAP", 0.02), in(0.01), delivery.Fail,
			"drop.found{fromModel=release metric=mAP bound=-0.0200 confidence=0.9500 value=0.6000 baseline=0.6600 " +
				"diff=-0.0600 low=-0.0690 high=-0.0510}"},
		{"a drop of a share", with(maxDrop("recall", 0.02), threshold), in(0.01), delivery.Fail,
			"drop.found{fromModel=release metric=recall bound=-0.0200 confidence=0.9500 value=0.5500 baseline=0.6500 " +
				"diff=-0.1000 low=-0.1180 high=-0.0820}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.in.Classes = c.in.Candidate.Scores.Classes
			g := delivery.Gate{Checks: []delivery.GateCheck{c.check}, Classes: []string{"a", "b"}}
			v := Judge("g", g, c.in)
			if v.Outcome != c.want || facts(v) != c.text {
				t.Errorf("%s: %s\nwant %s: %s", v.Outcome, facts(v), c.want, c.text)
			}
			if !slices.Equal(v.Classes, []string{"a", "b"}) {
				t.Errorf("judged over %v", v.Classes)
			}
			for _, l := range v.Lost {
				if l.Class == "c" {
					t.Errorf("a loss of another class: %v", l)
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
	if v := trained(5, nil); v.Outcome != delivery.Pass || len(v.Because) != 2 ||
		v.Because[1].Code != code.ImagesLeftOut || v.Because[1].Images != 95 || v.Because[1].Total != 100 {
		t.Errorf("5 of 100: %s: %s", v.Outcome, facts(v))
	}
	if v := trained(6, nil); v.Outcome != delivery.Unsure || v.Because[0].Code != code.TrainedOnEvalSet ||
		v.Because[0].Count != 6 || v.Because[0].Total != 100 {
		t.Errorf("6 of 100: %s: %s", v.Outcome, facts(v))
	}
	if v := trained(6, func(in *Input) {
		in.Candidate.Scores.Table = scored(0.1, 0, map[string]float64{"a": 0.1}).Scores.Table
	}); v.Outcome != delivery.Fail {
		t.Errorf("a fail is one, however much is left out: %s", v.Outcome)
	}
	if v := trained(6, func(in *Input) { in.SameBundle = true }); v.Outcome != delivery.Pass {
		t.Errorf("the release itself: %s: %s", v.Outcome, facts(v))
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
			list = append(list, fmt.Sprintf("%s %s %.2f, was %.2f: %+.4f, at best %+.4f: %s %s %.3f %d", l.Metric,
				l.Class,
				l.Value, l.Baseline, l.Diff, l.AtBest, l.Error, l.ErrorClass, l.ErrorAP50, l.Errors))
		}
		return list
	}
	// c is 0.0095 worse and 0.009 is what one class alone would show.
	want := []string{
		"falsePositivesPerImage  3.00, was 0.50: +2.5000, at best +2.4902:   0.000 0",
		"AP b 0.30, was 0.50: -0.2000, at best -0.1903: Miss b -0.200 4",
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
