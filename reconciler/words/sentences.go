package words

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A sentence writes a fact's values. It begins in lower case and has no full stop, as others may follow it. A status is
// short, so it says first what is wrong, then where, and then what to do.
type sentence func(v delivery.Values) string

// fixed is a sentence without values.
func fixed(text string) sentence { return func(delivery.Values) string { return text } }

// about writes the facts that are inside another one, behind what they are about.
func about(format string, args func(v delivery.Values) []any) sentence {
	return func(v delivery.Values) string { return fmt.Sprintf(format, args(v)...) + ": " + inner(v) }
}

func inner(v delivery.Values) string { return Join(v.Facts) }

var sentences map[delivery.Code]sentence

func init() { // as sentences write the facts inside of facts
	sentences = map[delivery.Code]sentence{}
	for _, part := range areas() {
		maps.Copy(sentences, part)
	}
}

// areas are the sentences by what they are about.
func areas() []map[delivery.Code]sentence {
	return []map[delivery.Code]sentence{parts, checks, runs, training, gates, models, releases, mains, pulls, fleets,
		rollouts, steps, notices, proposals, chains}
}

// What the facts inside are about.
var parts = map[delivery.Code]sentence{
	code.Plain:        func(v delivery.Values) string { return v.Text },
	code.Several:      inner,
	code.OfModel:      about("%s", func(v delivery.Values) []any { return []any{v.Model} }),
	code.OfStage:      about("%s", func(v delivery.Values) []any { return []any{v.Stage} }),
	code.OfSeed:       about("seed %d", func(v delivery.Values) []any { return []any{v.Seed} }),
	code.OfFleet:      about("fleet %s", func(v delivery.Values) []any { return []any{v.Fleet} }),
	code.OfGate:       about("gate %s", func(v delivery.Values) []any { return []any{v.Gate} }),
	code.OfVersion:    about("version %d", ofVersion),
	code.OfBaseline:   func(v delivery.Values) string { return "release: " + inner(v) },
	code.OfValidation: func(v delivery.Values) string { return "validation: " + inner(v) },
	code.OfComparison: func(v delivery.Values) string { return "comparing: " + inner(v) },
	code.OfThresholds: func(v delivery.Values) string { return "thresholds: " + inner(v) },
	code.OfDraft:      func(v delivery.Values) string { return "draft: " + inner(v) },
	code.OfRollback:   func(v delivery.Values) string { return "rollback, for information: " + inner(v) },
}

// Runs, and what lets them start.
var runs = map[delivery.Code]sentence{
	code.RunReading: fixed("reading the result"),
	code.RunFailed:  func(v delivery.Values) string { return v.Text },
	code.RunEnding: func(v delivery.Values) string {
		return fmt.Sprintf("ending (%s); it starts again afterwards, where it stopped", v.Text)
	},
	code.RunTraining: func(v delivery.Values) string {
		text := fmt.Sprintf("epoch %d/%d", v.Count, v.Total)
		if v.Metric != "" {
			text += fmt.Sprintf(", %s %.3f on validation", v.Metric, v.Value)
		}
		return text + progress(v)
	},
	code.RunEvaluating: func(v delivery.Values) string {
		return fmt.Sprintf("image %d/%d", v.Count, v.Total) + progress(v)
	},
	code.RunAtStage:    func(v delivery.Values) string { return v.Stage + progress(v) },
	code.RunRunning:    func(v delivery.Values) string { return "running" + progress(v) },
	code.RunStarting:   fixed("starting"),
	code.RunRestarting: fixed("its process died; starting again"),
	code.RunResuming:   fixed("continues where it was stopped"),
	code.RunQueued: func(v delivery.Values) string {
		return fmt.Sprintf("in the queue: place %d of %d; this server runs %d at once", v.Count, v.Total, v.Limit)
	},
	code.TrainingQueued: func(v delivery.Values) string {
		return fmt.Sprintf("in the queue: place %d of %d; this server trains %s at once", v.Count, v.Total,
			delivery.Count(v.Limit, "model"))
	},
	code.RunCost: func(v delivery.Values) string {
		return fmt.Sprintf("the checks of dataset %s, the training of %s with %s (%s at %d pixels, %s, by %s, at most "+
			"%s), and its evaluation by the gates", v.Dataset, v.Model, v.Text, delivery.Count(v.Counts["epochs"],
			"epoch"),
			v.Counts["pixels"], delivery.Count(v.Counts["seeds"], "seed"), v.By, v.Lasts)
	},
	code.ApprovalByComment: func(v delivery.Values) string {
		return "waits for approval: somebody with write permission comments " + v.Ask
	},
	code.ApprovalBySocket: func(v delivery.Values) string {
		return fmt.Sprintf("waits for approval: somebody with write permission runs aob pr ask %s '%s'", pulls1(v),
			v.Ask)
	},
	code.ApprovalByReaction: fixed("waits for approval: somebody with write permission reacts with 👍 to the comment " +
		"in which AOB asks whether this may run"),

	code.RunReplaced: func(v delivery.Values) string { return PRs(v.PRs) + " asks for other work now" },
	code.RunUnneeded: fixed("nothing asks for it any more"),
	code.RunOfNoPull: fixed("no open pull request needs it"),
	code.PullsClosed: func(v delivery.Values) string {
		return fmt.Sprintf("%s is not open for %s any more", PRs(v.PRs), v.Branch)
	},
}

// progress says how long a run takes yet, and how often it was begun.
func progress(v delivery.Values) string {
	text := ""
	if v.Lasts > 0 {
		text += fmt.Sprintf(", about %s left", v.Lasts)
	}
	switch {
	case v.Attempt > 1 && v.Text != "":
		text += fmt.Sprintf(" (attempt %d, after: %s)", v.Attempt, v.Text)
	case v.Attempt > 1:
		text += fmt.Sprintf(" (attempt %d)", v.Attempt)
	}
	return text
}

// Data, training and evaluation.
var training = map[delivery.Code]sentence{
	code.DataUnreadable: unreadable("the result of the dataset's check"),
	code.DataReady: func(v delivery.Values) string {
		text := fmt.Sprintf("%s %s: %d images to train on, %d to validate", v.Dataset, v.Bundle.Short(),
			v.Counts["train"], v.Counts["valid"])
		if n := v.Counts["leftOut"]; n > 0 {
			text += fmt.Sprintf("; %d left out, as they are in an eval set", n)
		}
		return text
	},
	code.Finding: func(v delivery.Values) string {
		text := v.File + ": " + v.Text
		if v.Count > 0 {
			text += fmt.Sprintf(" (and %s)", delivery.Count(v.Count, "more finding"))
		}
		return text
	},
	code.SeedsTrained: func(v delivery.Values) string {
		return fmt.Sprintf("%d of %d seeds trained", v.Count, v.Total)
	},
	code.Trained: func(v delivery.Values) string {
		return fmt.Sprintf("bundle %s, %.1fMB", v.Bundle.Short(), float64(v.Bytes)/1e6)
	},
	code.TrainedBest: func(v delivery.Values) string {
		return fmt.Sprintf("bundle %s, %.1fMB, seed %d, the best of %d on validation: mAP %.4f (all seeds: %.4f to "+
			"%.4f)",
			v.Bundle.Short(), float64(v.Bytes)/1e6, v.Seed, v.Total, v.Value, v.Low, v.High)
	},
	code.TrainedBefore: func(v delivery.Values) string {
		return fmt.Sprintf("version %d was trained before: bundle %s", v.Version, v.Bundle.Short())
	},
	code.TrainedSigning: fixed("trained; signing"),
	code.TrainedSame: func(v delivery.Values) string {
		return fmt.Sprintf("bundle %s was trained from the same content; signing", v.Bundle.Short())
	},
	code.SeedBestSigning: func(v delivery.Values) string {
		return fmt.Sprintf("seed %d is the best of %d on validation; signing", v.Seed, v.Total)
	},
	code.TrainedBundleGone: func(v delivery.Values) string {
		return fmt.Sprintf("bundle %s of this spec is gone from the registry; restore it, or change the spec to train "+
			"again", v.Bundle.Short())
	},
	code.TrainerUnknown:         func(v delivery.Values) string { return "this server has no trainer " + v.Text },
	code.TrainResultUnreadable:  unreadable("the training's result"),
	code.TrainDataReading:       fixed("trained; reading what it was trained on"),
	code.ThresholdsNoValidation: fixed("thresholds: the dataset has no validation split to find them on"),
	code.ThresholdsBundleGone: func(v delivery.Values) string {
		return fmt.Sprintf("bundle %s with these thresholds is gone from the registry; restore it", v.Bundle.Short())
	},
	code.ThresholdsUnreadable: unreadable("the result of the search for thresholds"),
	code.ThresholdsSigning:    fixed("thresholds found; signing"),
	code.Thresholds: func(v delivery.Values) string {
		var list []string
		for _, class := range slices.Sorted(maps.Keys(v.Scores)) {
			if len(list) == 4 && len(v.Scores) > 5 {
				list = append(list, fmt.Sprintf("%d more", len(v.Scores)-4))
				break
			}
			list = append(list, fmt.Sprintf("%s from %.3g", class, v.Scores[class]))
		}
		return "thresholds " + strings.Join(list, ", ")
	},

	code.BundleGone: func(v delivery.Values) string {
		return fmt.Sprintf("bundle %s is gone from the registry; restore it", v.Bundle.Short())
	},
	code.ScoresUnreadable:  unreadable("the result of the evaluation"),
	code.ScoredSigning:     fixed("evaluated; signing"),
	code.CompareUnreadable: unreadable("the result of the comparison"),
	code.Evaluated: func(v delivery.Values) string {
		return fmt.Sprintf("mAP %.4f on %d images", v.Value, v.Images)
	},
	code.EvaluatedBoth: func(v delivery.Values) string {
		return fmt.Sprintf("mAP %.4f on %d images, release %.4f", v.Value, v.Images, v.Baseline)
	},
	code.EvalSetUnread: func(v delivery.Values) string {
		return fmt.Sprintf("the eval set of gate %s is not read yet", v.Gate)
	},
	code.EvalAwaited:  fixed("waiting for the evaluation"),
	code.NoValidation: fixed("the dataset has no validation split to evaluate it on"),
	code.Validated: func(v delivery.Values) string {
		return fmt.Sprintf("mAP %.4f on %d validation images", v.Value, v.Images)
	},
	code.DraftValidated: func(v delivery.Values) string {
		return fmt.Sprintf("mAP %.4f on %d validation images; gates judge it when the pull request is ready for review",
			v.Value, v.Images)
	},
	code.DraftCompared: func(v delivery.Values) string {
		return fmt.Sprintf("mAP %.4f on %d validation images, %+.4f to the release's %.4f (at worst %+.4f, at best "+
			"%+.4f, each 95%% sure); gates judge it when the pull request is ready for review",
			v.Value, v.Images, v.Diff, v.Baseline, v.Low, v.High)
	},
	code.DraftGateWaits: fixed("draft: it judges when the pull request is ready for review"),
	code.TrialProgress: func(v delivery.Values) string {
		text := fmt.Sprintf("%d of %s trained", v.Counts["trained"], delivery.Count(v.Counts["total"], "model"))
		if n := v.Counts["failed"]; n > 0 {
			text += fmt.Sprintf(", %s failed", delivery.Count(n, "variant"))
		}
		return text
	},
}

// unreadable is the sentence of a result that cannot be read.
func unreadable(what string) sentence {
	return func(v delivery.Values) string { return what + " cannot be read: " + v.Text }
}

// Gates, and their owners.
var gates = map[delivery.Code]sentence{
	code.GateSays: func(v delivery.Values) string {
		return fmt.Sprintf("gate %s says %s: %s", v.Gate, v.Outcome, inner(v))
	},
	code.GateNotJudged: func(v delivery.Values) string {
		return fmt.Sprintf("gate %s has not judged it, and its scores are not stored; open a pull request", v.Gate)
	},
	code.NothingJudged: fixed("no check of any gate applies and passes, so nothing was judged; give a gate a lower " +
		"bound (min)"),
	code.NoGate: func(v delivery.Values) string {
		return fmt.Sprintf("no gate covers %s; add one under gates/ with covers: [%s]", v.Model, v.Model)
	},
	code.NoGateLeft: func(v delivery.Values) string {
		return fmt.Sprintf("no gate would cover %s any more, and a model without a gate is not released; keep one "+
			"under gates/ that covers it", v.Model)
	},
	code.NoGateOnMain: func(v delivery.Values) string { return fmt.Sprintf("no gate on %s covers it", v.Branch) },
	code.VerdictAccepted: func(v delivery.Values) string {
		return fmt.Sprintf("accepted by %s: %s; the gate says: %s", v.By, v.Text, inner(v))
	},
	code.VerdictUnownable: func(v delivery.Values) string {
		return fmt.Sprintf("unsure: %s; nobody can accept it, as the gate has no owners", inner(v))
	},
	code.VerdictUnsure: func(v delivery.Values) string { return "unsure: " + inner(v) },
	code.AcceptBySocket: func(v delivery.Values) string {
		return fmt.Sprintf("%s may run aob pr ask %s '/aob accept %s because …'", either(v.Names), pulls1(v), v.Ask)
	},
	code.AcceptByComment: func(v delivery.Values) string {
		return fmt.Sprintf("%s may comment /aob accept %s because …; AOB may ask back for a 👍", either(v.Names), v.Ask)
	},
	code.AcceptByReaction: func(v delivery.Values) string {
		return fmt.Sprintf("AOB has asked %s to confirm it in a comment, and waits for a 👍 to that comment",
			strings.Join(v.Names, " and "))
	},
	code.AcceptReader: func(v delivery.Values) string {
		return fmt.Sprintf("%s owns the gate but has no write permission, so the comment does not count; give %s the "+
			"role Write", v.By, v.By)
	},
	code.AcceptNotOwner: func(v delivery.Values) string {
		return v.By + " is no owner of the gate, so the comment does not count"
	},
	code.AcceptUnknown: func(v delivery.Values) string {
		return fmt.Sprintf("%s accepted %s, and no verdict has that code", v.By, v.Ask)
	},
	code.AcceptStale: func(v delivery.Values) string {
		return fmt.Sprintf("%s accepted %s, which is the verdict on other content", v.By, v.Ask)
	},
	code.OwnerInvalid: func(v delivery.Values) string { return fmt.Sprintf("the owner %s is %s", v.By, v.Text) },
	code.OwnerWarning: func(v delivery.Values) string {
		return fmt.Sprintf("warning: %s, an owner of gate %s, is %s", v.By, v.Gate, v.Text)
	},
}

// A model in a pull request.
var models = map[delivery.Code]sentence{
	code.ModelRemoved: func(v delivery.Values) string {
		text := "removed; nothing to train"
		if len(v.Names) > 0 {
			text += fmt.Sprintf(" (if it goes on as %s, say so there: was: %s)", either(v.Names), v.Model)
		}
		return text
	},
	code.ModelRenamedOnMain: func(v delivery.Values) string {
		return fmt.Sprintf("%[1]s renamed %[2]s to %[3]s%[4]s; rebase onto %[1]s, and change models/%[3]s.yaml instead",
			v.Branch, v.FromModel, v.Model, inCommit(v))
	},
	code.ModelRemovedOnMain: func(v delivery.Values) string {
		return fmt.Sprintf("%[1]s removed models/%[2]s.yaml%[3]s; rebase onto %[1]s, and add the model again if you "+
			"still want it", v.Branch, v.Model, inCommit(v))
	},
	code.ModelChangedOnMain: func(v delivery.Values) string {
		return fmt.Sprintf("%[2]s changed models/%[1]s.yaml after this branch was made, and the branch has a release "+
			"file for the older version of it; rebase onto %[2]s", v.Model, v.Branch)
	},
	code.ClassMissing: func(v delivery.Values) string {
		called := "NAME" // what the model may call it
		if len(v.Names) > 0 {
			called = v.Names[0]
		}
		return fmt.Sprintf("models/%s.yaml has no class %s, which gate %s holds models to; add it, or %s: take %s out "+
			"of classes:, or list what this model calls it under labels:, as in labels: %s", v.Model, v.Class, v.Gate,
			changeGateFirst(v), v.Class, delivery.Labels{v.Class: append(slices.Clone(v.Labels), called)})
	},
	code.ClassTwice: func(v delivery.Values) string {
		return fmt.Sprintf("models/%s.yaml has classes %s, and gate %s takes each of them for class %s, which can be "+
			"only one; call one of them %s, or %s: change its labels:", v.Model, strings.Join(v.Names, " and "), v.Gate,
			v.Class, v.Class, changeGateFirst(v))
	},
	code.WasForgotten: func(v delivery.Values) string {
		return fmt.Sprintf("models/%s.yaml: keep was: %s until %s has accepted a release of %s; AOB remembers the "+
			"former name from then on", v.Model, v.FromModel, v.Branch, v.Model)
	},
	code.WasOfOldModel: func(v delivery.Values) string {
		return fmt.Sprintf("models/%s.yaml: was: %s, but %s has a model %s already, so nothing is renamed to it; "+
			"remove was:", v.Model, v.FromModel, v.Branch, v.Model)
	},
	code.WasUnknown: func(v delivery.Values) string {
		return fmt.Sprintf("models/%s.yaml: was: %s, but %s has no such model, and never had a release of one; its "+
			"models are %s. Write the name that the model has there, or remove was:", v.Model, v.FromModel, v.Branch,
			firstNames(v.Names))
	},
	code.WasStays: func(v delivery.Values) string {
		return fmt.Sprintf("models/%s.yaml: was: %s, but that is what models/%s.yaml was called before, and it stays; "+
			"remove was:, or remove models/%s.yaml with its release file", v.Model, v.FromModel, v.Names[0], v.Names[0])
	},
	code.WasUnreleased: func(v delivery.Values) string {
		return fmt.Sprintf("models/%s.yaml: %s has had no release since it was renamed, so AOB would forget what it "+
			"was; write was: %s, its name before that", v.Model, v.FromModel, v.Names[0])
	},
	code.ReleaseFileRemoved: fixed("its release file is removed and its spec stays; nothing to train"),
	code.ReleaseFileGone: func(v delivery.Values) string {
		return fmt.Sprintf("its release file is removed, but fleets would go on with version %d; name the version "+
			"that is to run (aob rollback %s VERSION), or remove the model", v.Version, v.Model)
	},
	code.MainUnread: func(v delivery.Values) string {
		return fmt.Sprintf("%s cannot be read: %s; correct it there first, as a pull request is judged by all gates "+
			"of %[1]s", v.Branch, inner(v))
	},
	code.Waits:        func(v delivery.Values) string { return "waits: " + inner(v) },
	code.StageAwaited: fixed("waiting"),
	code.Merged:       fixed("merged"),
	code.MergedVersion: func(v delivery.Values) string {
		return fmt.Sprintf("merged: version %d", v.Version)
	},
	code.MergedBut: func(v delivery.Values) string { return "merged; on the target branch: " + inner(v) },
}

// changeGateFirst says when a gate has to be changed: main's before the model.
func changeGateFirst(v delivery.Values) string {
	if v.Branch == "" {
		return fmt.Sprintf("change gates/%s.yaml", v.Gate)
	}
	return fmt.Sprintf("first change gates/%s.yaml on %s in a pull request of its own", v.Gate, v.Branch)
}

// firstNames lists the first of some names, and says how many more there are.
func firstNames(names []string) string {
	const most = 8
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

func inCommit(v delivery.Values) string {
	if v.Commit == "" {
		return ""
	}
	return fmt.Sprintf(" (commit %.12s)", v.Commit)
}

// The release of a model in a pull request.
var releases = map[delivery.Code]sentence{
	code.AlreadyReleased: func(v delivery.Values) string {
		return fmt.Sprintf("version %d, which is main's release already", v.Version)
	},
	code.ReleasedBefore: func(v delivery.Values) string {
		return fmt.Sprintf("version %d was released with this content before; committing its release file", v.Version)
	},
	code.ReleaseSigning: func(v delivery.Values) string {
		return fmt.Sprintf("every gate passed; signing version %d", v.Version)
	},
	code.ReleaseCommitting: func(v delivery.Values) string {
		return fmt.Sprintf("every gate passed; committing version %d; approve after AOB's release commit", v.Version)
	},
	code.ReleaseReady: func(v delivery.Values) string {
		text := fmt.Sprintf("version %d, bundle %s, mAP ", v.Version, v.Bundle.Short())
		switch {
		case v.Metric == "":
			return text + "unknown"
		case v.FromVersion > 0:
			return text + fmt.Sprintf("%.4f (version %d: %.4f)", v.Value, v.FromVersion, v.Baseline)
		}
		return text + fmt.Sprintf("%.4f", v.Value)
	},
	code.ReleaseFileMoved: func(v delivery.Values) string {
		return fmt.Sprintf("%[2]s changed models/%[1]s.release.yaml after this branch was made, and merging would "+
			"keep that one; rebase onto %[2]s", v.Model, v.Branch)
	},
	code.ReleaseFileUnsigned: func(v delivery.Values) string {
		return fmt.Sprintf("models/%s.release.yaml was not written by AOB: it names version %d, bundle %s, and no "+
			"signed release statement says so; remove the file from this branch, AOB writes it", v.Model, v.Version,
			v.Bundle.Short())
	},
	code.ReleaseFileEdited: func(v delivery.Values) string {
		return fmt.Sprintf("models/%s.release.yaml was edited: its figures for version %d, bundle %s, differ from the "+
			"signed release statement; remove the file from this branch, AOB writes it", v.Model, v.Version,
			v.Bundle.Short())
	},
	code.ReleaseBundleGone: func(v delivery.Values) string {
		return fmt.Sprintf("bundle %s of version %d is gone from the registry; restore it", v.Bundle.Short(), v.Version)
	},
	code.RollsBack: func(v delivery.Values) string {
		return fmt.Sprintf("rolls back to version %d, accepted before; gates do not block a rollback", v.Version)
	},
	code.FleetGatesSigning: fixed("every gate of its fleets passed; signing"),
	code.BundleQuarantined: func(v delivery.Values) string {
		return fmt.Sprintf("bundle %s is quarantined: %s", v.Bundle.Short(), v.Text)
	},
	code.WeightsQuarantined: func(v delivery.Values) string {
		return fmt.Sprintf("bundle %s has the weights of bundle %s, which is quarantined: %s", v.Bundle.Short(),
			v.FromBundle.Short(), v.Text)
	},
	code.QuarantineBlocks: func(v delivery.Values) string {
		return fmt.Sprintf("%s; lift it in %s in a pull request of its own", inner(v), v.File)
	},
}

// A model on main, and main.
var mains = map[delivery.Code]sentence{
	code.MainNoneReleased: fixed("no model is released yet"),
	code.MainNoRelease:    func(v delivery.Values) string { return v.Model + ": no release yet; its fleets wait" },
	code.MainFileRemoved: func(v delivery.Values) string {
		return fmt.Sprintf("%s: no release file; its fleets stay with version %d", v.Model, v.Version)
	},
	code.MainNewer: func(v delivery.Values) string {
		return version(v) + ": a newer aob has signed its verdicts, and this one cannot read them"
	},
	code.MainWaits:    func(v delivery.Values) string { return version(v) + " waits: " + inner(v) },
	code.MainRefused:  func(v delivery.Values) string { return version(v) + " refused: " + inner(v) },
	code.MainJudging:  func(v delivery.Values) string { return version(v) + ": " + inner(v) },
	code.MainAccepted: version,
	code.MainAcceptedBack: func(v delivery.Values) string {
		return version(v) + ", a rollback; today's gates would fail it: " + inner(v)
	},
	code.MainAccepting: func(v delivery.Values) string { return "accepting " + version(v) },
	code.MainEdited: func(v delivery.Values) string {
		return fmt.Sprintf("%s: models/%s.release.yaml was edited: its figures differ from the signed release "+
			"statement; put back what AOB wrote", version(v), v.Model)
	},
	code.SpecOther: func(v delivery.Values) string {
		return fmt.Sprintf("version %[2]d was not made from the spec in models/%[1]s.yaml; change the model in a pull "+
			"request", v.Model, v.Version)
	},
	code.StatementMissing: func(v delivery.Values) string {
		return fmt.Sprintf("no signed release statement names bundle %s with this spec; only a pull request whose "+
			"gates passed can release it", v.Bundle.Short())
	},
	code.BaselineMoved: func(v delivery.Values) string {
		return fmt.Sprintf("it was judged against %s, and main's release is %s; update the pull request, so that the "+
			"gates compare it with that", orNone(v.FromBundle), orNone(v.Bundle))
	},
	code.VersionTaken: func(v delivery.Values) string {
		return fmt.Sprintf("main has accepted version %d already, bundle %s; update the pull request", v.Version,
			v.Bundle.Short())
	},

	code.IntentSummary: func(v delivery.Values) string {
		return fmt.Sprintf("%s, %s, %s", delivery.Count(v.Counts["models"], "model"),
			delivery.Count(v.Counts["gates"], "gate"),
			delivery.Count(v.Counts["fleets"], "fleet"))
	},
	code.IntentInvalid:  andMore,
	code.FleetsStay:     func(v delivery.Values) string { return "fleets stay as they are: " + inner(v) },
	code.FleetsAllStay:  fixed("fleets stay as they are"),
	code.FleetsNoneStay: fixed("no fleet runs a model that it is about, and nothing new is accepted"),
	code.FleetsSomeStay: func(v delivery.Values) string {
		if len(v.Names) == 1 {
			return "fleet " + v.Names[0] + " stays as it is, and nothing new is accepted"
		}
		return "fleets " + strings.Join(v.Names, ", ") + " stay as they are, and nothing new is accepted"
	},
	code.QuarantineEntryLost: func(v delivery.Values) string {
		return fmt.Sprintf("models/%s.quarantine.yaml lost the entry of bundle %s in commit %.12s, so the bundle "+
			"stays in quarantine; put the entry back, with lifted: if the bundle may run again", v.Model,
			v.Bundle.Short(),
			v.Commit)
	},
	code.GateLost:     lostGate("removed"),
	code.GateWeakened: lostGate("weakened"),
	code.MainNotRead:  fixed("it has not been read yet"),
	code.MainRewound: func(v delivery.Values) string {
		return wentBack(v) + fmt.Sprintf("push %.12s to main again", v.From)
	},
	code.MainRewoundMoved: func(v delivery.Values) string {
		return wentBack(v) + fmt.Sprintf("merge %.12s into main: main has other commits by now", v.From)
	},

	code.NewerSigned: func(v delivery.Values) string { return v.Text + "; " + delivery.StartNewer },
	code.EvidenceUnread: func(v delivery.Values) string {
		return "the evidence about bundles cannot be read: " + v.Text
	},
	code.StatementUnread: func(v delivery.Values) string {
		return fmt.Sprintf("a statement about bundle %s cannot be read: %s", v.Bundle.Short(), v.Text)
	},
	code.HistoryUnread: func(v delivery.Values) string {
		return fmt.Sprintf("the history of %s on %s cannot be read: %s", v.Model, v.Branch, v.Text)
	},
	code.FleetGatesUnread: func(v delivery.Values) string {
		return fmt.Sprintf("which gates fleet %s brings cannot be read: %s", v.Fleet, v.Text)
	},
	code.MainBroken:  func(v delivery.Values) string { return v.Branch + " cannot be read: " + andMore(v) },
	code.AbortUnread: fixed("whether the fleet fell back from it cannot be read, so the fleet does not go there"),
}

func version(v delivery.Values) string { return fmt.Sprintf("%s version %d", v.Model, v.Version) }

func orNone(bundle delivery.Digest) string {
	if bundle == "" {
		return "no release"
	}
	return "bundle " + bundle.Short()
}

func andMore(v delivery.Values) string {
	if v.Count > 0 {
		return fmt.Sprintf("%s (and %d more)", v.Text, v.Count)
	}
	return v.Text
}

func lostGate(did string) sentence {
	return func(v delivery.Values) string {
		return fmt.Sprintf("commit %.12s %s gate %s on %s, and no pull request showed it; restore the gate, or change "+
			"it in a pull request", v.Commit, did, v.Gate, v.Branch)
	}
}

func wentBack(v delivery.Values) string {
	return fmt.Sprintf("main went back from %.12s to %.12s without a revert: was the forge restored from a backup, or "+
		"main pushed by force? If it was not meant, ", v.From, v.Commit)
}

// A pull request as a whole.
var pulls = map[delivery.Code]sentence{
	code.TargetsOther: func(v delivery.Values) string {
		return fmt.Sprintf("it targets %s, and is judged when it targets %s", v.From, v.Branch)
	},
	code.ForeignChange: func(v delivery.Values) string {
		return fmt.Sprintf("somebody else has changed %s in this pull request of AOB's own; make that change in a "+
			"pull request of your own, and reset %s to commit %.10s", fewOf(v.Files), v.Branch, v.Commit)
	},
	code.BothChanged: func(v delivery.Values) string {
		return fmt.Sprintf("rebase onto %[1]s (git rebase %[1]s): %[1]s has changed %[2]s too, and nobody can see "+
			"what merging makes of both changes", v.Branch, fewOf(v.Files))
	},
	code.MovedFiles: func(v delivery.Values) string {
		return fmt.Sprintf("rebase onto %[1]s (git rebase %[1]s): %[1]s and this branch have moved and changed %[2]s, "+
			"and git may put the changes into a file of models/, gates/ or fleets/", v.Branch, fewOf(v.Files))
	},
	code.UndoneChange: func(v delivery.Values) string {
		return fmt.Sprintf("rebase onto %[1]s (git rebase %[1]s): commits of this branch change %[2]s in a way that "+
			"its diff with %[1]s does not show, and merging by rebase may bring that back", v.Branch, fewOf(v.Files))
	},
	code.HistoryUnrelated: func(v delivery.Values) string {
		return fmt.Sprintf("start a new branch from %[1]s and commit the change there: this one's history has nothing "+
			"in common with that of %[1]s", v.Branch)
	},
	code.HistoryCrossed: func(v delivery.Values) string {
		return fmt.Sprintf("rebase onto %[1]s (git rebase %[1]s): this branch's history crosses that of %[1]s, so "+
			"nobody can see what merging changes. They have %[2]d best common ancestors (git merge-base --all %[1]s "+
			"HEAD)", v.Branch,
			v.Count)
	},
	code.EntryRemoved: func(v delivery.Values) string {
		return entry(v) + " was removed or changed; keep entries as they are, add new ones below, and set lifted: to " +
			"let a bundle run again"
	},
	code.EntryWouldBeRemoved: func(v delivery.Values) string {
		return fmt.Sprintf("%[1]s is on %[2]s, and merging this would remove it; rebase onto %[2]s", entry(v), v.Branch)
	},
	code.BundleForbidden: func(v delivery.Values) string {
		text := fmt.Sprintf("bundle %s of %s may not run: %s", v.Bundle.Short(), v.Model, v.Text)
		if v.Version > 0 {
			text += fmt.Sprintf("; main runs it as version %d, so merging takes it off fleets: they go back to the "+
				"version before, if there is one", v.Version)
		}
		return text
	},
	code.BundleLifted: func(v delivery.Values) string {
		return fmt.Sprintf("bundle %s of %s may run again: %s", v.Bundle.Short(), v.Model, v.Text)
	},
	code.QuarantineUnread: func(v delivery.Values) string {
		return v.File + ": the old version of this file did not parse; check by hand that no quarantined bundle was " +
			"removed"
	},
	code.NoModelChange:  fixed("no model change"),
	code.GatesChanged:   func(v delivery.Values) string { return "gates: " + strings.Join(v.Gates, ", ") },
	code.WouldFail:      func(v delivery.Values) string { return "would fail: " + inner(v) },
	code.TodayFails:     func(v delivery.Values) string { return "today's gates would fail it: " + inner(v) },
	code.JudgingCurrent: fixed("judging the current releases by the changed gates"),
	code.FleetsChanged:  func(v delivery.Values) string { return "fleets: " + inner(v) },
	code.QuarantineChanged: func(v delivery.Values) string {
		return "quarantine: " + inner(v)
	},
	code.PermissionAwaited: func(v delivery.Values) string {
		return fmt.Sprintf("waiting for the forge to say what %s may do", v.By)
	},
	code.MainMoved: func(v delivery.Values) string {
		return v.Branch + " has new commits, so rebase onto it before you merge"
	},
}

func entry(v delivery.Values) string {
	return fmt.Sprintf("models/%s.quarantine.yaml: entry %d, bundle %s,", v.Model, v.Count, v.Bundle.Short())
}

// fewOf names the first of some files, and says how many more there are.
func fewOf(paths []string) string {
	if len(paths) == 1 {
		return paths[0]
	}
	return fmt.Sprintf("%s and %d more", paths[0], len(paths)-1)
}

// Fleets.
var fleets = map[delivery.Code]sentence{
	code.FleetNew: func(v delivery.Values) string {
		return fmt.Sprintf("%s is new and runs %s", v.Fleet, modelAt(v.Model, v.Version))
	},
	code.FleetChanged: func(v delivery.Values) string {
		return fmt.Sprintf("%s: waves %s, soak %s", v.Fleet, strings.Join(v.Names, ", "), v.Lasts) + paused(v)
	},
	code.FleetRepointed: func(v delivery.Values) string {
		return fmt.Sprintf("%s: %s -> %s, waves %s", v.Fleet, modelAt(v.FromModel, v.FromVersion),
			modelAt(v.Model, v.Version), strings.Join(v.Names, ", ")) + paused(v)
	},
	code.FleetRemoved: func(v delivery.Values) string {
		return v.Fleet + " is removed; its devices keep what they run"
	},
	code.FleetFollows: func(v delivery.Values) string {
		return fmt.Sprintf("%s (waves %s; soak %s)", v.Fleet, strings.Join(v.Names, ", "), v.Lasts)
	},
	code.FleetPinned: func(v delivery.Values) string {
		return fmt.Sprintf("%s (stays at version %d)", v.Fleet, v.Version)
	},
	code.FleetPaused: func(v delivery.Values) string { return v.Fleet + " (paused)" },
	code.FleetBrings: func(v delivery.Values) string {
		return fmt.Sprintf("fleet %s runs %s, so %s judges %s as well, compared with what the fleet runs", v.Fleet,
			fleetRuns(v), fleetGates(v), v.Model)
	},
	code.FleetBringsUntil: func(v delivery.Values) string {
		rest := "no gate"
		if len(v.Names) > 0 {
			rest = "gate " + strings.Join(v.Names, ", ") + " alone"
		}
		return fmt.Sprintf("once fleet %[1]s runs %[2]s, later versions of %[2]s are judged by %[4]s: gate %[3]s does "+
			"not cover %[2]s; to keep that gate, add %[2]s to covers: in gates/%[5]s.yaml", v.Fleet, v.Model,
			strings.Join(v.Gates, ", "), rest, v.Gates[0])
	},
	code.FleetRanBefore: func(v delivery.Values) string {
		return fmt.Sprintf("fleet %s has run bundle %s before; gates do not block a way back", v.Fleet,
			v.Bundle.Short())
	},
	code.FleetKeeps: func(v delivery.Values) string {
		return fmt.Sprintf("fleet %s keeps %s until %s has a release, which %s will judge", v.Fleet, fleetRuns(v),
			v.Model, fleetGates(v))
	},
	code.FleetGoes: func(v delivery.Values) string {
		return fmt.Sprintf("fleet %s goes from %s to %s version %d, which passes %s", v.Fleet, fleetRuns(v), v.Model,
			v.Version, fleetGates(v))
	},
	code.FleetGoesBack: func(v delivery.Values) string {
		return fmt.Sprintf("fleet %s goes back to version %d, which it has run before", v.Fleet, v.Version)
	},
	code.FleetPinUnknown: func(v delivery.Values) string {
		return fmt.Sprintf("pinned to version %d of %s, which main never accepted", v.Version, v.Model)
	},
	code.FleetPinQuarantined: func(v delivery.Values) string {
		return fmt.Sprintf("pinned to version %d of %s: %s", v.Version, v.Model, inner(v))
	},
	code.FleetAwaitsRelease: func(v delivery.Values) string {
		text := "waits for the first release of " + v.Model
		if v.FromModel != "" {
			text += ", which was " + v.FromModel
		}
		return text
	},
	code.FleetStaysWith: func(v delivery.Values) string {
		return fmt.Sprintf("fleet %s stays with %s, and %s version %d has to pass %s first: %s", v.Fleet, fleetRuns(v),
			v.Model, v.Version, fleetGates(v), inner(v))
	},
	code.FleetBundleGone: func(v delivery.Values) string {
		return fmt.Sprintf("bundle %s of %s version %d is gone from the registry; restore it", v.Bundle.Short(),
			v.Model, v.Version)
	},
	code.RingOfNoFleet: func(v delivery.Values) string { return fmt.Sprintf("no fleet on %s has this name", v.Branch) },
	code.DevicesKeep:   fixed("the devices keep what they run"),
	code.StoreLost: func(v delivery.Values) string {
		return fmt.Sprintf("the server's store has lost %s of it, so devices cannot download it",
			strings.Join(v.Files, ", "))
	},
}

func modelAt(model string, version int) string {
	if version == 0 {
		return model
	}
	return fmt.Sprintf("%s version %d", model, version)
}

func fleetRuns(v delivery.Values) string { return modelAt(v.FromModel, v.FromVersion) }

func fleetGates(v delivery.Values) string {
	word := "gate"
	if len(v.Gates) > 1 {
		word = "gates"
	}
	return fmt.Sprintf("%s %s of %s", word, strings.Join(v.Gates, ", "), v.FromModel)
}

func paused(v delivery.Values) string {
	if v.Paused {
		return ", paused"
	}
	return ""
}

// Steps that were not taken.
var steps = map[delivery.Code]sentence{
	code.StepFailed: func(v delivery.Values) string { return v.Text },
	code.StepBlocked: func(v delivery.Values) string {
		if v.Ask == "" {
			return v.Text
		}
		return v.Text + "; " + v.Ask
	},
	// What to do comes first, as a forge cuts what is long.
	code.PushBlocked: func(v delivery.Values) string {
		return fmt.Sprintf("the release file cannot be pushed: %s (%s)", v.Ask, v.Text)
	},
}

// Notices about the server.
var notices = map[delivery.Code]sentence{
	code.ServerReading: fixed("the repository has not been read yet; what follows is not known yet"),
	code.ListMayBeOld: fixed("the list of pull requests may be old: the forge has not answered since main moved, " +
		"or at all; no run is ended for it"),
	code.SendingSlow: func(v delivery.Values) string {
		return fmt.Sprintf("%d statuses, comments or pushes wait to be sent, the first since %s: the forge or git "+
			"takes long to answer", v.Count, v.At.UTC().Format("2006-01-02 15:04:05 UTC"))
	},
	code.StoreFilesLost: func(v delivery.Values) string {
		release := ""
		if v.Model != "" {
			release = fmt.Sprintf(" (%s)", version(v))
		}
		return fmt.Sprintf("the store has lost or damaged %[1]s of bundle %[2]s%[3]s: copy the file from a backup, or "+
			"from a device that holds the bundle (STATE/a/%[4]s or STATE/b/%[4]s); the file's name in the store is "+
			"its SHA-256. Until then devices cannot download it, and no device is believed that says that it failed",
			strings.Join(v.Files, ", "), v.Bundle.Short(), release, v.Bundle.Hex())
	},
	code.NothingAccepted:  fixed("nothing new is accepted, and the fleets that it is about stay as they are"),
	code.NothingJudgedNow: fixed("until then nothing is judged, and fleets stay as they are"),
}

// AOB's own pull requests.
var proposals = map[delivery.Code]sentence{
	code.TakeBackTitle: func(v delivery.Values) string {
		return fmt.Sprintf("%s: take version %d back", v.Model, v.Version)
	},
	code.RestoreTitle: func(v delivery.Values) string {
		return fmt.Sprintf("%s: back to version %d", v.Model, v.Version)
	},
	code.QuarantineTitle: func(v delivery.Values) string {
		return fmt.Sprintf("%s: take version %d back, fleet %s fell back from it", v.Model, v.FromVersion, v.Fleet)
	},
	code.QuarantineRestoreTitle: func(v delivery.Values) string {
		return fmt.Sprintf("%s: back to version %d, fleet %s fell back from version %d", v.Model, v.Version, v.Fleet,
			v.FromVersion)
	},
	code.RestoreBody: func(v delivery.Values) string {
		return inner(v) + ".\n\nThe fleets stay with the last accepted release. Merging this makes the files say " +
			"what runs."
	},
	code.QuarantineBody: func(v delivery.Values) string {
		return fmt.Sprintf("Fleet %s: %s.\n\nThe devices run the release before it. Merging this makes the files say "+
			"so and keeps the bundle from coming back; to let it run again, set `lifted` on its entry in a pull "+
			"request of its own.", v.Fleet, v.Text)
	},
}

func either(names []string) string { return strings.Join(names, " or ") }

func pulls1(v delivery.Values) string { return fmt.Sprint(v.PRs[0]) }
