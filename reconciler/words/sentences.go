package words

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

var sentences map[delivery.Code]sentence

func init() { // not at the declaration: sentences contain the sentences of other facts
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
	code.Plain:        text("{text}"),
	code.Several:      text("{facts}"),
	code.OfModel:      text("{model}: {facts}"),
	code.OfStage:      text("{stage}: {facts}"),
	code.OfSeed:       text("seed {seed}: {facts}"),
	code.OfFleet:      text("fleet {fleet}: {facts}"),
	code.OfGate:       text("gate {gate}: {facts}"),
	code.OfVersion:    text("version {version}: {facts}"),
	code.OfBaseline:   text("release: {facts}"),
	code.OfValidation: text("validation: {facts}"),
	code.OfComparison: text("comparing: {facts}"),
	code.OfThresholds: text("thresholds: {facts}"),
	code.OfDraft:      text("draft: {facts}"),
	code.OfRollback:   text("does not block a rollback: {facts}"),
}

const (
	// progress is how long a run takes yet, and how often it was started.
	progress = "[, about {lasts} left]{retry}"
	queued   = "in the queue: place {count} of {total}; this server "
	approval = "needs approval: somebody with write permission must "
)

// Runs, and what lets them start.
var runs = map[delivery.Code]sentence{
	code.RunReading:     text("reading the result"),
	code.RunFailed:      text("{text}"),
	code.RunEnding:      text("is being stopped ({text}); afterwards it goes on where it stopped"),
	code.RunTraining:    text("epoch {count}/{total}[, {metric} {rounded} on validation]" + progress),
	code.RunEvaluating:  text("image {count}/{total}" + progress),
	code.RunAtStage:     text("{stage}" + progress),
	code.RunRunning:     text("running" + progress),
	code.RunStarting:    text("starting"),
	code.RunRestarting:  text("its process died; starting again"),
	code.RunResuming:    text("goes on where it stopped"),
	code.RunQueued:      text(queued + "runs {limit} at a time"),
	code.TrainingQueued: text(queued + "trains {limit model} at a time"),
	code.RunCost: text("the checks of dataset {dataset}, the training of {model} with {text} ({counts.epochs " +
		"epoch} at {counts.pixels} pixels, {counts.seeds seed}, on {by}, at most {lasts}), and its evaluation " +
		"by the gates"),
	code.ApprovalByComment:  text(approval + "comment {ask}"),
	code.ApprovalBySocket:   text(approval + "run aob pr ask {pr} '{ask}'"),
	code.ApprovalByReaction: text(approval + "react with 👍 to AOB's comment that asks for it"),

	code.RunReplaced: text("replaced by other work of {prs}"),
	code.RunUnneeded: text("main, experiments and comparisons no longer need it"),
	code.RunOfNoPull: text("no open pull request needs it"),
	code.PullsClosed: text("closed, or no longer for {branch}: {prs}"),
}

// Data, training and evaluation.
var training = map[delivery.Code]sentence{
	code.DataUnreadable: text("the result of the dataset's check cannot be read: {text}"),
	code.DataReady: text("{dataset} {bundle}: {counts.train} images to train on, {counts.valid} to validate[; " +
		"{counts.leftOut} left out, as they are in an eval set]"),
	code.Finding:      text("{file}: {text}[ (and {count more finding})]"),
	code.SeedsTrained: text("{count} of {total} seeds trained"),
	code.Trained:      text("bundle {bundle}, {MB}MB"),
	code.TrainedBest: text("bundle {bundle}, {MB}MB, seed {seed}, the best of {total} on validation: mAP {value} " +
		"(all seeds: {low} to {high})"),
	code.TrainedBefore:   text("not trained again: version {version} is bundle {bundle}"),
	code.TrainedSigning:  text("trained; signing"),
	code.TrainedSame:     text("not trained again: bundle {bundle} was trained from the same content; signing"),
	code.SeedBestSigning: text("seed {seed} is the best of {total} on validation; signing"),
	code.TrainedBundleGone: text("bundle {bundle} of this model file is gone from the registry; restore it " +
		"from a backup, or change the file to train again"),
	code.TrainerUnknown: text("this server has no trainer {text}; name another one in train.with, or have the " +
		"server's operator add it"),
	code.TrainResultUnreadable: text("the training's result cannot be read: {text}"),
	code.TrainDataReading:      text("trained; reading what it was trained on"),
	code.ThresholdsNoValidation: text("the dataset has no validation split to find thresholds on; add one, or " +
		"remove thresholds:"),
	code.ThresholdsBundleGone: text("bundle {bundle} with these thresholds is gone from the registry; restore " +
		"it from a backup"),
	code.ThresholdsUnreadable: text("the result of the search for thresholds cannot be read: {text}"),
	code.ThresholdsSigning:    text("thresholds found; signing"),
	code.Thresholds: func(v *delivery.Values) string {
		var list []string
		for _, class := range slices.Sorted(maps.Keys(v.Scores)) {
			list = append(list, fmt.Sprintf("%s from %.3g", class, v.Scores[class]))
		}
		if len(list) > 5 {
			list = append(list[:4], fmt.Sprintf("%d more", len(list)-4))
		}
		return "thresholds " + strings.Join(list, ", ")
	},

	code.BundleGone:        text("bundle {bundle} is gone from the registry; restore it from a backup"),
	code.ScoresUnreadable:  text("the result of the evaluation cannot be read: {text}"),
	code.ScoredSigning:     text("evaluated; signing"),
	code.CompareUnreadable: text("the result of the comparison cannot be read: {text}"),
	code.Evaluated:         text("mAP {value} on {images} images"),
	code.EvaluatedBoth:     text("mAP {value} on {images} images, release {baseline}"),
	code.EvalSetUnread:     text("the eval set of gate {gate} is not read yet"),
	code.EvalAwaited:       text("waiting for the evaluation"),
	code.NoValidation:      text("the dataset has no validation split to evaluate it on; add one"),
	code.Validated:         text("mAP {value} on {images} validation images"),
	code.DraftValidated: text("mAP {value} on {images} validation images; gates judge it when the pull request is " +
		"ready for review"),
	code.DraftCompared: text("mAP {value} on {images} validation images, release {baseline}: {diff+} (at " +
		"worst {low+}, at best {high+}, each 95% sure); gates judge it when the pull request is ready for review"),
	code.DraftGateWaits: text("draft: the gate judges when the pull request is ready for review"),
	code.TrialProgress:  text("{counts.trained} of {counts.total model} trained[, {counts.failed variant} failed]"),
}

// Gates, and their owners.
var gates = map[delivery.Code]sentence{
	code.GateSays: text("gate {gate} says {outcome}: {facts}"),
	code.GateNotJudged: text("gate {gate} has not judged this release, and no scores of it are stored for " +
		"that gate; release it by a pull request, which the gate judges"),
	code.NothingJudged: text("no check of any gate applied and passed, so nothing shows that the model is " +
		"good; add a check with a lower bound (min:) to a gate"),
	code.NoGate: func(v *delivery.Values) string {
		return fmt.Sprintf("no gate covers %s; add one under gates/ with covers: [%s]", v.Model, v.Model)
	},
	code.NoGateLeft: text("no gate would cover {model} any more, and a model without a gate is not released; keep " +
		"one under gates/ that covers it"),
	code.NoGateOnMain:    text("no gate on {branch} covers it; add it to covers: of a gate in a pull request"),
	code.VerdictAccepted: text("accepted by {by}: {text}; the gate says: {facts}"),
	code.VerdictUnownable: text("unsure: {facts}; the gate has no owners, so nobody can accept that: push a " +
		"better model, or first add owners: to the gate"),
	code.VerdictUnsure:  text("unsure: {facts}"),
	code.AcceptBySocket: text("{anyName} may run aob pr ask {pr} '/aob accept {ask} because …'"),
	code.AcceptByComment: text("{anyName} may comment /aob accept {ask} because …; AOB may then ask for a 👍 " +
		"to confirm it"),
	code.AcceptByReaction: text("AOB has asked {allNames} in a comment to confirm it, and waits for a 👍 on " +
		"that comment"),
	code.AcceptReader: text("{by} owns the gate but has no write permission, so the comment does not count; give " +
		"{by} the role Write"),
	code.AcceptNotOwner: text("{by} does not own the gate, so the comment does not count"),
	code.AcceptUnknown:  text("{by} accepted {ask}, but no verdict has that code; copy the code from AOB's comment"),
	code.AcceptStale: text("{by} accepted {ask}, which is an earlier verdict; AOB's comment has the code of " +
		"this one"),
	code.OwnerInvalid: text("the owner {by} is {text}"),
	code.OwnerWarning: text("warning: {by}, an owner of gate {gate}, is {text}"),
}

// A model in a pull request.
var models = map[delivery.Code]sentence{
	code.ModelRemoved: text("removed; nothing to train[. If it was renamed to {anyName}, write was: {model} there]"),
	code.ModelRenamedOnMain: text("{branch} renamed {fromModel} to {model}[ (commit {commit})]; rebase onto " +
		"{branch}, and change models/{model}.yaml instead"),
	code.ModelRemovedOnMain: text("{branch} removed models/{model}.yaml[ (commit {commit})]; rebase onto {branch}, " +
		"and add the model again if you still want it"),
	code.ModelChangedOnMain: text("{branch} changed models/{model}.yaml after this branch was made, and the branch " +
		"has a release file for the older version of it; rebase onto {branch}"),
	code.ClassMissing: text("gate {gate} requires class {class}, and models/{model}.yaml does not have it; " +
		"add it, or " + changeGate + ": remove {class} from classes:, or say under labels: what this model " +
		"calls it, as in labels: {labels}"),
	code.ClassTwice: text("gate {gate} takes classes {allNames} of models/{model}.yaml for class {class}, and " +
		"only one can be that; rename the right one to {class}, or " + changeGate + ": change its labels:"),
	code.WasForgotten: text("models/{model}.yaml: keep was: {fromModel} until {branch} has released {model}; " +
		"AOB remembers the former name from then on"),
	code.WasOfOldModel: text("models/{model}.yaml: was: {fromModel}, but {branch} has a model {model} already, so " +
		"nothing is renamed to it; remove was:"),
	code.WasUnknown: text("models/{model}.yaml: was: {fromModel}, but {branch} has no such model, and never had a " +
		"release of one; its models are {fewNames}. Write the name that the model has there, or remove was:"),
	code.WasStays: text("models/{model}.yaml: was: {fromModel}, but {fromModel} is the former name of {name}, " +
		"and models/{name}.yaml stays; remove was:, or remove models/{name}.yaml with its release file"),
	code.WasUnreleased: text("models/{model}.yaml: was: {fromModel}, but {fromModel} never had a release " +
		"under that name; it was renamed from {name}, so write was: {name}"),
	code.ReleaseFileRemoved: text("its release file is removed and its model file stays; nothing to train"),
	code.ReleaseFileGone: text("its release file is removed, but fleets would go on with version {version}; name the " +
		"version that is to run (aob rollback {model} VERSION), or remove the model"),
	code.MainUnread: text("a file of {branch} cannot be read: {facts}; correct it on {branch} first, as all its " +
		"gates judge every pull request"),
	code.Waits:         text("waiting: {facts}"),
	code.StageAwaited:  text("waiting for the stages before it"),
	code.Merged:        text("merged"),
	code.MergedVersion: text("merged: version {version}"),
	code.MergedBut:     text("merged; on the target branch: {facts}"),
}

// changeGate says that a gate has to be changed. One of main is changed before the model.
const changeGate = "[first change gates/{gate}.yaml on {branch} in a pull request of its own|change gates/{gate}.yaml]"

// The release of a model in a pull request.
var releases = map[delivery.Code]sentence{
	code.AlreadyReleased: text("version {version}, which is main's release already"),
	code.ReleasedBefore: text("version {version} was released with this content before; committing its release " +
		"file"),
	code.ReleaseSigning: text("every gate passed; signing version {version}"),
	code.ReleaseCommitting: text("every gate passed; AOB is committing version {version}: approve the pull " +
		"request after that commit"),
	code.ReleaseReady: text("version {version}, bundle {bundle}, mAP {score}[ (version {fromVersion}: " +
		"{baseline})]"),
	code.ReleaseFileMoved: text("{branch} changed models/{model}.release.yaml after this branch was made, and " +
		"merging would keep {branch}'s; rebase onto {branch}"),
	code.ReleaseFileUnsigned: text("models/{model}.release.yaml was not written by AOB: it names version {version}, " +
		"bundle {bundle}, and no signed release statement says so; remove the file from this branch, AOB writes it"),
	code.ReleaseFileEdited: text("models/{model}.release.yaml was edited: its figures for version {version}, bundle " +
		"{bundle}, differ from the signed release statement; remove the file from this branch, AOB writes it"),
	code.ReleaseBundleGone: text("bundle {bundle} of version {version} is gone from the registry; restore it " +
		"from a backup"),
	code.RollsBack:         text("rolls back to version {version}, released before; gates do not block a rollback"),
	code.FleetGatesSigning: text("every gate that its fleets bring passed; signing"),
	code.BundleQuarantined: text("bundle {bundle} is quarantined: {text}"),
	code.WeightsQuarantined: text("bundle {bundle} has the weights of bundle {fromBundle}, which is quarantined: " +
		"{text}"),
	code.QuarantineBlocks: text("{facts}; to let it run again, set lifted: on its entry in {file}, in a pull " +
		"request of its own"),
}

const (
	version  = "{model} version {version}"
	andMore  = "{text}[ (and {count} more)]"
	lostGate = " gate {gate} on {branch} without a pull request; restore the gate, or change it in a pull request"
	wentBack = "main went back from {from} to {commit} without a revert, by a restored backup of the forge or a push " +
		"by force. If that was not meant, "
)

// A model on main, and main.
var mains = map[delivery.Code]sentence{
	code.MainNoneReleased: text("no model is released yet"),
	code.MainNoRelease:    text("{model}: no release yet; its fleets wait"),
	code.MainFileRemoved:  text("{model}: no release file; its fleets stay with version {version}"),
	code.MainNewer: text(version + ": a newer aob has signed its verdicts, and this one cannot read them; " +
		"upgrade this server"),
	code.MainWaits:    text(version + " is waiting: {facts}"),
	code.MainRefused:  text(version + " refused: {facts}"),
	code.MainJudging:  text(version + ": {facts}"),
	code.MainAccepted: text(version),
	code.MainAcceptedBack: text(version + ", a rollback; today's gates would fail it, which blocks nothing: " +
		"{facts}"),
	code.MainAccepting: text("releasing " + version),
	code.MainEdited: text(version + ": models/{model}.release.yaml was edited: its figures differ from the signed " +
		"release statement; put back what AOB wrote"),
	code.SpecOther: text("models/{model}.yaml is not what version {version} was trained from; undo the " +
		"change, or make it in a pull request, which trains it"),
	code.StatementMissing: text("AOB has signed no release of bundle {bundle} with this model file; only a " +
		"pull request whose gates passed can release it"),
	code.BaselineMoved: text("it was judged against [bundle {fromBundle}|no release], and main's release is " +
		"[bundle {bundle}|no release] by now; make the change in a new pull request, so that the gates " +
		"compare it with that"),
	code.VersionTaken: text("main has released version {version} already, bundle {bundle}; make the change in " +
		"a new pull request"),

	code.IntentSummary:  text("{counts.models model}, {counts.gates gate}, {counts.fleets fleet}"),
	code.IntentInvalid:  text(andMore),
	code.FleetsStay:     text("fleets stay as they are: {facts}"),
	code.FleetsAllStay:  text("fleets stay as they are"),
	code.FleetsNoneStay: text("no fleet is affected, and nothing new is released"),
	code.FleetsSomeStay: func(v *delivery.Values) string {
		if len(v.Names) == 1 {
			return "fleet " + v.Names[0] + " stays as it is, and nothing new is released"
		}
		return "fleets " + strings.Join(v.Names, ", ") + " stay as they are, and nothing new is released"
	},
	code.QuarantineEntryLost: text("models/{model}.quarantine.yaml lost the entry of bundle {bundle} in commit " +
		"{commit}, so the bundle stays in quarantine; put the entry back, with lifted: if the bundle may run again"),
	code.GateLost:         text("commit {commit} removed" + lostGate),
	code.GateWeakened:     text("commit {commit} weakened" + lostGate),
	code.MainNotRead:      text("it has not been read yet"),
	code.MainRewound:      text(wentBack + "push {from} to main again"),
	code.MainRewoundMoved: text(wentBack + "merge {from} into main: main has other commits by now"),

	code.NewerSigned:      text("{text}; " + delivery.StartNewer),
	code.EvidenceUnread:   text("the signed statements about bundles cannot be read: {text}"),
	code.StatementUnread:  text("a signed statement about bundle {bundle} cannot be read: {text}"),
	code.HistoryUnread:    text("the history of {model} on {branch} cannot be read: {text}"),
	code.FleetGatesUnread: text("which gates judge what fleet {fleet} is to run cannot be read: {text}"),
	code.MainBroken:       text("a file of {branch} cannot be read: " + andMore),
	code.AbortUnread: text("whether the fleet rolled back from this release before cannot be read, so the " +
		"fleet does not get it"),
}

const (
	rebase = "rebase onto {branch} (git rebase {branch}): "
	entry  = "models/{model}.quarantine.yaml: entry {count}, bundle {bundle},"
)

// A pull request as a whole.
var pulls = map[delivery.Code]sentence{
	code.TargetsOther: text("it targets {fromBranch}; AOB judges pull requests that target {branch}"),
	code.ForeignChange: text("somebody else has pushed {fewFiles} to {branch}, the branch of this pull " +
		"request of AOB's own; make that change in a pull request of your own, and reset {branch} to commit " +
		"{commit}"),
	code.BothChanged: text(rebase + "{branch} has changed {fewFiles} too, and nobody can see what merging makes of " +
		"both changes"),
	code.MovedFiles: text(rebase + "{branch} and this branch have renamed and changed {fewFiles}, and git may " +
		"put the changes into a file of models/, gates/ or fleets/"),
	code.UndoneChange: text(rebase + "a commit of this branch changes {fewFiles} and a later one takes it " +
		"back; the diff with {branch} does not show that, and merging by rebase may bring the change back"),
	code.HistoryUnrelated: text("start a new branch from {branch} and commit the change there: this one's history " +
		"has nothing in common with that of {branch}"),
	code.HistoryCrossed: text(rebase + "this branch's history crosses that of {branch}, so nobody can see what " +
		"merging changes. They have {count} best common ancestors (git merge-base --all {branch} HEAD)"),
	code.EntryRemoved: text(entry + " was removed or changed; keep entries as they are, add new ones below, and set " +
		"lifted: to let a bundle run again"),
	code.EntryWouldBeRemoved: text(entry + " is on {branch}, and merging this would remove it; rebase onto {branch}"),
	code.BundleForbidden: text("bundle {bundle} of {model} may not run: {text}[; main runs it as version {version}, " +
		"so merging takes it off fleets: they go back to the version before, if there is one]"),
	code.BundleLifted: text("bundle {bundle} of {model} may run again: {text}"),
	code.QuarantineUnread: text("{file}: the old version of this file did not parse; check by hand that no " +
		"quarantined bundle was removed"),
	code.NoModelChange:     text("no model change"),
	code.GatesChanged:      text("gates: {gates}"),
	code.WouldFail:         text("would fail: {facts}"),
	code.TodayFails:        text("today's gates would fail it, which does not block a rollback: {facts}"),
	code.JudgingCurrent:    text("judging the current releases by the changed gates"),
	code.FleetsChanged:     text("fleets: {facts}"),
	code.QuarantineChanged: text("quarantine: {facts}"),
	code.PermissionAwaited: text("waiting for the forge to say which permission {by} has"),
	code.MainMoved:         text("{branch} has new commits, so rebase onto it before you merge"),
}

const (
	fleetRuns  = "{fromModel}[ version {fromVersion}]"
	fleetGates = "{gateOrGates} {gates} of {fromModel}"
)

// Fleets.
var fleets = map[delivery.Code]sentence{
	code.FleetNew:       text("{fleet} is new and runs {model}[ version {version}]"),
	code.FleetChanged:   text("{fleet}: waves {names}, soak {lasts}[, {paused}]"),
	code.FleetRepointed: text("{fleet}: " + fleetRuns + " -> {model}[ version {version}], waves {names}[, {paused}]"),
	code.FleetRemoved:   text("{fleet} is removed; its devices keep what they run"),
	code.FleetFollows:   text("{fleet} (waves {names}; soak {lasts})"),
	code.FleetPinned:    text("{fleet} (stays at version {version})"),
	code.FleetPaused:    text("{fleet} (paused)"),
	code.FleetBrings: text("fleet {fleet} runs " + fleetRuns + ", so " + fleetGates + " judges {model} as well, " +
		"compared with what the fleet runs"),
	code.FleetBringsUntil: text("once fleet {fleet} runs {model}, later versions of {model} are judged by [gate " +
		"{names} alone|no gate]: gate {gates} does not cover {model}; to keep that gate, add {model} to covers: in " +
		"gates/{firstGate}.yaml"),
	code.FleetRanBefore: text("fleet {fleet} has run bundle {bundle} before; gates do not block going back to it"),
	code.FleetKeeps: text("fleet {fleet} keeps " + fleetRuns + " until {model} has a release, which " + fleetGates +
		" will judge"),
	code.FleetGoes: text("fleet {fleet} goes from " + fleetRuns + " to {model} version {version}, which passes " +
		fleetGates),
	code.FleetGoesBack: text("fleet {fleet} goes back to version {version}, which it has run before"),
	code.FleetPinUnknown: text("pinned to version {version} of {model}, which was never released; name a " +
		"released version"),
	code.FleetPinQuarantined: text("pinned to version {version} of {model}: {facts}"),
	code.FleetAwaitsRelease:  text("waiting for the first release of {model}[, which was {fromModel}]"),
	code.FleetStaysWith: text("fleet {fleet} stays with " + fleetRuns + ", and {model} version {version} has to pass " +
		fleetGates + " first: {facts}"),
	code.FleetBundleGone: text("bundle {bundle} of {model} version {version} is gone from the registry; " +
		"restore it from a backup"),
	code.RingOfNoFleet: text("no fleet on {branch} has this name"),
	code.DevicesKeep:   text("the devices keep what they run"),
	code.StoreLost: text("the server has lost {files} of the bundle, so devices cannot download it; restore " +
		"it from a backup"),
}

// Steps that were not taken.
var steps = map[delivery.Code]sentence{
	code.StepFailed:  text("{text}"),
	code.StepBlocked: text("{text}[; {ask}]"),
	// What to do comes first, as a forge cuts what is long.
	code.PushBlocked: text("the release file cannot be pushed: {ask} ({text})"),
}

// Notices about the server.
var notices = map[delivery.Code]sentence{
	code.ServerReading: text("the repository has not been read yet; what follows is incomplete"),
	code.ListMayBeOld: text("the list of pull requests may be out of date: the forge has not answered since " +
		"the last commit on main; until then no run is ended"),
	code.SendingSlow: text("{count} statuses, comments or pushes wait to be sent, the first since {at}: the forge or " +
		"git takes long to answer"),
	code.StoreFilesLost: text("the store has lost or damaged {files} of bundle {bundle}[ ({model} version " +
		"{version})]: copy the file from a backup, or from a device that holds the bundle (STATE/a/{digest} " +
		"or STATE/b/{digest}); the file's name in the store is its SHA-256. Until then devices cannot " +
		"download it, and reports that it failed do not count"),
	code.NothingAccepted:  text("nothing new is released, and the fleets that it affects stay as they are"),
	code.NothingJudgedNow: text("until then nothing is judged, and fleets stay as they are"),
}

// AOB's own pull requests.
var proposals = map[delivery.Code]sentence{
	code.TakeBackTitle:   text("{model}: withdraw version {version}"),
	code.RestoreTitle:    text("{model}: roll back to version {version}"),
	code.QuarantineTitle: text("{model}: withdraw version {fromVersion}, as fleet {fleet} rolled back from it"),
	code.QuarantineRestoreTitle: text("{model}: roll back to version {version}, as fleet {fleet} did from " +
		"version {fromVersion}"),
	code.RestoreBody: text("{facts}.\n\nThe fleets keep the last accepted release. Merge this, so that the " +
		"files on main say what runs."),
	code.QuarantineBody: text("Fleet {fleet}: {text}.\n\nThe devices run the release before it. Merge this, " +
		"so that the files on main say so and the bundle stays in quarantine; to let it run again, set " +
		"`lifted` on its entry in a pull request of its own."),
}
