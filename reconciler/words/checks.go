package words

import (
	"fmt"
	"math"
	"strings"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
)

// What a gate's check says: a figure, its bound, and how sure that is.
var checks = map[delivery.Code]sentence{
	code.CheckReached: func(v delivery.Values) string {
		return fmt.Sprintf("%s %.4f >= %s", subject(v), v.Value, num(v.Bound))
	},
	code.CheckBelow: func(v delivery.Values) string {
		return fmt.Sprintf("%s %.4f < %s (at most %.4f, %s, %d images)", subject(v), v.Value, num(v.Bound), v.High,
			sure(v), v.Images)
	},
	code.CheckMaybeReached: func(v delivery.Values) string {
		return fmt.Sprintf("%s %.4f < %s, but %d images cannot rule out that it reaches it", subject(v), v.Value,
			num(v.Bound), v.Images) + doubt("at most", v.High, v)
	},
	code.CheckWithin: func(v delivery.Values) string {
		return fmt.Sprintf("%s %.4f <= %s", subject(v), v.Value, num(v.Bound))
	},
	code.CheckAbove: func(v delivery.Values) string {
		return fmt.Sprintf("%s %.4f > %s (at least %.4f, %s, %d images)", subject(v), v.Value, num(v.Bound), v.Low,
			sure(v), v.Images)
	},
	code.CheckMaybeWithin: func(v delivery.Values) string {
		return fmt.Sprintf("%s %.4f > %s, but %d images cannot rule out that it is as low", subject(v), v.Value,
			num(v.Bound), v.Images) + doubt("at least", v.Low, v)
	},
	code.SizeWithin: func(v delivery.Values) string {
		return fmt.Sprintf("size %.1fMB <= %s", float64(v.Bytes)/1e6, delivery.Bytes(v.Bound))
	},
	code.SizeAbove: func(v delivery.Values) string {
		return fmt.Sprintf("size %.1fMB > %s", float64(v.Bytes)/1e6, delivery.Bytes(v.Bound))
	},
	code.BoundInvalid: func(v delivery.Values) string { return v.Text },

	code.DropAllowed: func(v delivery.Values) string {
		return fmt.Sprintf("%s, at worst %+.4f >= %g", compared(v), v.Low, v.Bound)
	},
	code.DropFound: func(v delivery.Values) string {
		return fmt.Sprintf("%s, at best %+.4f < %g (%s)", compared(v), v.High, v.Bound, sure(v))
	},
	code.DropUnsure: func(v delivery.Values) string {
		return fmt.Sprintf("%s, at worst %+.4f, at best %+.4f (each %s), too wide to tell a drop of %s", compared(v),
			v.Low, v.High, sure(v), num(math.Abs(v.Bound))) + bracketed(v)
	},
	code.Unresolved: func(v delivery.Values) string {
		return fmt.Sprintf("a bound that is %s takes %d resamples, and there are %d", sure(v), v.Limit, v.Count)
	},
	code.Settles: func(v delivery.Values) string {
		return fmt.Sprintf("±%.4f; about %d images in all would settle it", v.Diff, v.Count)
	},
	code.HardlySettles: func(v delivery.Values) string {
		return fmt.Sprintf("±%.4f; more images would hardly settle it", v.Diff)
	},
	code.HalfWidth: func(v delivery.Values) string { return fmt.Sprintf("±%.4f", v.Diff) },
	code.ErrorShare: func(v delivery.Values) string {
		text := fmt.Sprintf("%+.1f AP50, mostly %s", v.Diff*100, errors(v.Error, v.Class))
		if v.Count > 0 {
			text += fmt.Sprintf(" (%d more)", v.Count)
		}
		return text
	},

	code.OfMetric:       func(v delivery.Values) string { return subject(v) + ": " + inner(v) },
	code.NoThresholds:   fixed("the model has no thresholds; add thresholds: {default: bestF1} to it"),
	code.NoClassToJudge: fixed("there is no class to judge"),
	code.NoTruthOfClass: func(v delivery.Values) string {
		return fmt.Sprintf("the eval set has no truth of class %s that counts", v.Class)
	},
	code.NoTruths:  fixed("the eval set has no truths for it"),
	code.Undefined: func(v delivery.Values) string { return v.Text },
	code.FewTruths: func(v delivery.Values) string {
		return fmt.Sprintf("%s, the check asks for %d", delivery.Count(v.Count, "truth"), v.Limit)
	},
	code.FewGroups: func(v delivery.Values) string {
		return fmt.Sprintf("the eval set has %s of images, and an interval needs %d", delivery.Count(v.Count, "group"),
			v.Limit)
	},
	code.FewImages: func(v delivery.Values) string {
		return fmt.Sprintf("the eval set has %s, and an interval needs %d", delivery.Count(v.Count, "image"), v.Limit)
	},
	code.NotShared: func(v delivery.Values) string {
		return fmt.Sprintf("model, %s and eval set have no class of it in common", v.FromModel)
	},
	code.NotCompared: func(v delivery.Values) string { return "not compared with " + the(v.FromModel) },
	code.IsBaseline:  func(v delivery.Values) string { return "it is " + the(v.FromModel) + " itself" },
	code.NoBaseline:  fixed("no release to compare with"),
	code.OtherProtocol: func(v delivery.Values) string {
		return fmt.Sprintf("it and %s were scored by different protocols; their numbers cannot be compared",
			v.FromModel)
	},
	code.BaselineNoThresholds: func(v delivery.Values) string {
		return the(v.FromModel) + " has no thresholds to compare with"
	},
	code.VersionUnknown: func(v delivery.Values) string {
		return fmt.Sprintf("%s is no version that main accepted; name one that it did in the gate", v.Text)
	},
	code.VersionBundleGone: func(v delivery.Values) string {
		return fmt.Sprintf("bundle %s of %s@%d is gone from the registry; restore it", v.Bundle.Short(), v.Model,
			v.Version)
	},
	code.CheckClassMissing: func(v delivery.Values) string {
		return fmt.Sprintf("the model has no class %[1]s, which gate %[2]s holds it to; add %[1]s to classes: in "+
			"models/%[3]s.yaml, or take it out of classes: in gates/%[2]s.yaml in an earlier pull request", v.Class,
			v.Gate, v.Model)
	},
	code.TooManyLooks: func(v delivery.Values) string {
		against := "this release"
		if v.FromBundle == "" {
			against = "no release"
		}
		return fmt.Sprintf("this is model %d that the eval set judges against %s, and the gate allows %d: the best of "+
			"many looks better than it is; freeze a new eval set (aob gate freeze)", v.Count, against, v.Limit)
	},
	code.TrainedOnEvalSet: func(v delivery.Values) string {
		return fmt.Sprintf("the model was trained on %d of the %d images of the eval set (%.1f%%), and at most %g%% "+
			"may be left out of it; train it again, without them", v.Count, v.Total, v.Value*100, v.Bound*100)
	},
	code.TakenAsFail:    fixed("the gate counts that as a fail"),
	code.NothingApplies: fixed("nothing to judge: every check is ignored or does not apply"),
	code.MoreChecks: func(v delivery.Values) string {
		is := map[delivery.Outcome][2]string{delivery.Fail: {"fails", "fail"}, delivery.Unsure: {"is unsure",
			"are unsure"},
			delivery.NotApplicable: {"does not apply", "do not apply"}}[v.Outcome]
		if v.Count == 1 {
			return "1 more check " + is[0]
		}
		return fmt.Sprintf("%d more checks %s", v.Count, is[1])
	},
	code.PassedChecks: func(v delivery.Values) string {
		text := fmt.Sprintf("passed %d of %d checks", v.Counts[string(delivery.Pass)], v.Total)
		for _, o := range []delivery.Outcome{delivery.NotApplicable, delivery.Ignored} {
			if n := v.Counts[string(o)]; n > 0 {
				text += fmt.Sprintf(", %d %s", n, strings.ReplaceAll(string(o), "-", " "))
			}
		}
		return text
	},
	code.ImagesLeftOut: func(v delivery.Values) string {
		other := "one"
		if v.Count > 1 {
			other = fmt.Sprint(v.Count)
		}
		return fmt.Sprintf("over %d of %d images, as a model was trained on the other %s", v.Images, v.Total, other)
	},
}

// subject is the figure that a check is about: AP of person.
func subject(v delivery.Values) string {
	if v.Class == "" {
		return v.Metric
	}
	return v.Metric + " of " + v.Class
}

// compared is a figure beside that of the baseline.
func compared(v delivery.Values) string {
	over := ""
	if len(v.Names) > 0 {
		over = " over " + strings.Join(v.Names[:min(len(v.Names), 4)], ", ")
		if more := len(v.Names) - 4; more > 0 {
			over += fmt.Sprintf(" and %d more", more)
		}
	}
	return fmt.Sprintf("%s %.4f, %s %.4f%s: %+.4f", subject(v), v.Value, v.FromModel, v.Baseline, over, v.Diff)
}

// doubt is the bound that leaves a figure open, and what would settle it.
func doubt(side string, end float64, v delivery.Values) string {
	if len(v.Facts) == 0 {
		return ""
	}
	return fmt.Sprintf(": %s %.4f, %s", side, end, sure(v)) + bracketed(v)
}

func bracketed(v delivery.Values) string {
	if len(v.Facts) == 0 {
		return ""
	}
	return " (" + inner(v) + ")"
}

func sure(v delivery.Values) string { return fmt.Sprintf("%.4g%% sure", v.Confidence*100) }

// num prints a bound as people wrote it.
func num(v float64) string { return fmt.Sprintf("%g", v) }

// the names what something was compared with.
func the(baseline string) string {
	if baseline == "release" {
		return "the release"
	}
	return baseline
}

// errors names a type of detection errors of a class.
func errors(kind, class string) string {
	switch kind {
	case "Miss":
		return "missed " + class
	case "Loc":
		return class + " in the wrong place"
	case "Cls":
		return "others taken for " + class
	case "Both":
		return class + " of wrong class and place"
	case "Dupe":
		return class + " found twice"
	case "Bkg":
		return "false " + class
	}
	return kind + " of " + class
}

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
		text += "; " + checks[code.ErrorShare](delivery.Values{Error: l.Error, Class: l.ErrorClass, Diff: l.ErrorAP50,
			Count: l.Errors})
	case l.Why != "":
		text += "; " + l.Why
	}
	return text
}

// Power says how small a drop a check can show.
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
