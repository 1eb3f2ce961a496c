package words

import (
	"fmt"
	"strings"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
)

// What a gate's check says: a figure, its bound, and how sure that is.
var checks = map[delivery.Code]sentence{
	code.CheckReached: text("{subject} {value} >= {bound}"),
	code.CheckBelow:   text("{subject} {value} < {bound} (at most {high}, {sure}, {images} images)"),
	code.CheckMaybeReached: text("{subject} {value} < {bound}, but on {images} images that may be chance[: at " +
		"most {high}, {sure} ({facts})]"),
	code.CheckWithin: text("{subject} {value} <= {bound}"),
	code.CheckAbove:  text("{subject} {value} > {bound} (at least {low}, {sure}, {images} images)"),
	code.CheckMaybeWithin: text("{subject} {value} > {bound}, but on {images} images that may be chance[: at " +
		"least {low}, {sure} ({facts})]"),
	code.SizeWithin:   text("size {MB}MB <= {boundBytes}"),
	code.SizeAbove:    text("size {MB}MB > {boundBytes}"),
	code.BoundInvalid: text("{text}"),

	code.DropAllowed: text(compared + ", at worst {low+} >= {bound}"),
	code.DropFound:   text(compared + ", at best {high+} < {bound} ({sure})"),
	code.DropUnsure: text(compared + ", at worst {low+}, at best {high+} (each {sure}), too wide to tell " +
		"whether it dropped by more than {drop}[ ({facts})]"),
	code.Unresolved:    text("a bound that is {sure} takes {limit} resamples, and there are {count}"),
	code.Settles:       text("±{diff}; about {count} images in all would settle it"),
	code.HardlySettles: text("±{diff}; more images would hardly settle it"),
	code.HalfWidth:     text("±{diff}"),
	code.ErrorShare:    text("AP50 {diff+}, mostly {errors}[ ({count} more)]"),

	code.OfMetric:       text("{subject}: {facts}"),
	code.NoThresholds:   text("the model has no thresholds; add thresholds: {default: bestF1} to it"),
	code.NoClassToJudge: text("the model has none of the classes that the check is about"),
	code.NoTruthOfClass: text("the eval set has no object of class {class} that counts"),
	code.NoTruths:       text("the eval set has no objects for it"),
	code.Undefined:      text("{text}"),
	code.FewTruths:      text("{count object}, the check asks for {limit}"),
	code.FewGroups:      text("the eval set has {count group} of images, and a confidence interval needs {limit}"),
	code.FewImages:      text("the eval set has {count image}, and a confidence interval needs {limit}"),
	code.NotShared:      text("the model, {fromModel} and the eval set have no class of the check in common"),
	code.NotCompared:    text("not compared with {theBaseline}"),
	code.IsBaseline:     text("the model is {theBaseline} itself"),
	code.NoBaseline:     text("no release to compare with"),
	code.OtherProtocol: text("the model and {fromModel} were scored by different protocols, so they are not " +
		"compared"),
	code.BaselineNoThresholds: text("{theBaseline} has no thresholds to compare with"),
	code.VersionUnknown:       text("{text} is no released version; name a released one in the gate"),
	code.VersionBundleGone: text("bundle {bundle} of {model}@{version} is gone from the registry; restore it " +
		"from a backup"),
	code.CheckClassMissing: text("gate {gate} requires class {class}, and the model does not have it; add " +
		"{class} to classes: in models/{model}.yaml, or first remove it from classes: in gates/{gate}.yaml in " +
		"a pull request of its own"),
	code.TooManyLooks: text("this is model {count} that the eval set compares with {thisRelease}, and the " +
		"gate allows {limit} (looks): the best of many is partly luck; collect new test images, and freeze " +
		"them (aob gate freeze)"),
	code.TrainedOnEvalSet: func(v *delivery.Values) string {
		return fmt.Sprintf("the model was trained on %d of the %d images of the eval set (%.1f%%), and at most %g%% "+
			"may be left out of it; train it again, without them", v.Count, v.Total, v.Value*100, v.Bound*100)
	},
	code.TakenAsFail:    text("the gate counts that as a fail"),
	code.NothingApplies: text("nothing to judge: every check is ignored or does not apply to this model"),
	code.MoreChecks: func(v *delivery.Values) string {
		verb := map[delivery.Outcome]string{delivery.Fail: "fail", delivery.Unsure: "are unsure",
			delivery.NotApplicable: "do not apply"}
		if v.Count == 1 {
			verb = map[delivery.Outcome]string{delivery.Fail: "fails", delivery.Unsure: "is unsure",
				delivery.NotApplicable: "does not apply"}
		}
		return delivery.Count(v.Count, "more check") + " " + verb[v.Outcome]
	},
	code.PassedChecks: func(v *delivery.Values) string {
		text := fmt.Sprintf("passed %d of %d checks", v.Counts[string(delivery.Pass)], v.Total)
		for _, o := range []delivery.Outcome{delivery.NotApplicable, delivery.Ignored} {
			if n := v.Counts[string(o)]; n > 0 {
				text += fmt.Sprintf(", %d %s", n, strings.ReplaceAll(string(o), "-", " "))
			}
		}
		return text
	},
	code.ImagesLeftOut: func(v *delivery.Values) string {
		other := "one"
		if v.Count > 1 {
			other = fmt.Sprint(v.Count)
		}
		return fmt.Sprintf("on %d of %d images, as a model was trained on the other %s", v.Images, v.Total, other)
	},
}

// compared is a figure beside that of the baseline.
const compared = "{subject} {value}, {fromModel} {baseline}[ over {fourNames}]: {diff+}"

// Reason says what decided a check.
func Reason(c delivery.CheckVerdict) string {
	if len(c.Because) == 0 {
		return c.Reason // of an older version of AOB
	}
	return Join(c.Because)
}

// Loss says what got worse: AP of WBC 0.1244, was 0.2285: -0.1040, at best -0.0461.
func Loss(l delivery.Loss) string {
	text := fmt.Sprintf("%s %.4f, was %.4f: %+.4f, at best %+.4f", l.Subject(), l.Value, l.Baseline, l.Diff, l.AtBest)
	switch {
	case l.Error != "":
		text += "; " + checks[code.ErrorShare](&delivery.Values{Error: l.Error, Class: l.ErrorClass, Diff: l.ErrorAP50,
			Count: l.Errors})
	case l.Why != "":
		text += "; " + l.Why
	}
	return text
}

// PowerTitle introduces the smallest drops that a gate can detect.
func PowerTitle(m gate.ModelPower) string {
	images := delivery.Count(m.Images, "image")
	if m.Groups > 0 {
		images += " in " + delivery.Count(m.Groups, "group")
	}
	return fmt.Sprintf("what gate %s can detect for %s, on %s", m.Gate, m.Model, images)
}

// Power says how small a drop a check can detect.
func Power(p gate.Power) string {
	name := p.Check
	if p.Class != "" {
		name += ", " + p.Class
	}
	about := ""
	if p.AtMost {
		about = "at most "
	}
	if p.StdErr == 0 {
		return name + ": nothing varies between images, so any drop shows"
	}
	text := fmt.Sprintf("%s: the smallest drop that %s can show is %s%.4f; a model as good as the release passes "+
		"%.0f%% of the time", name, delivery.Count(p.Images, "image"), about, p.Smallest, 100*p.EqualPasses)
	if p.Smallest > p.MaxDrop {
		text += fmt.Sprintf(" and is unsure else; for a drop of %s it takes about %d images", num(p.MaxDrop), p.Need)
	}
	return text
}
