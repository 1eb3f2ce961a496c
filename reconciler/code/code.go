// Package code lists the facts that AOB states about its decisions: the code of each, and its sentence. Packages plan,
// gate and explain return codes and values, and package words writes the sentences. A code keeps its name and its
// meaning, because programs that read JSON compare it.
//
// A sentence is a template: {model} stands for a value, and a part in brackets is left out if one of its values is
// missing. Package words describes the syntax. A sentence begins in lower case and has no full stop, because other
// sentences may follow it. A forge cuts a long status, so a sentence says first what is wrong, then where, and then
// what to do.
package code

import "github.com/autonomos/aob/reconciler/delivery"

// Sentences has the template of each code.
var Sentences = map[delivery.Code]string{}

func fact(code delivery.Code, sentence string) delivery.Code {
	if _, ok := Sentences[code]; ok {
		panic("two facts have the code " + code)
	}
	Sentences[code] = sentence
	return code
}

// Parts that several sentences have.
const (
	progress = "[, about {lasts} left][, {cost} of {ceiling}]{retry}" // what is left, and tries
	queued   = "in the queue: place {count} of {total}; this server "
	approval = "needs approval: somebody with write permission must "
	version  = "{model} version {version}"
	andMore  = "{text}[ (and {count} more)]"
	lostGate = " gate {gate} on {branch} without a pull request; restore the gate, or change it in a pull request"
	wentBack = "main went back from {from} to {commit} without a revert, by a restored backup of the forge or a push " +
		"by force. If that was not meant, "
	changeGate = "[first change gates/{gate}.yaml on {branch} in a pull request of its own|" + // main's comes first
		"change gates/{gate}.yaml]"
	rebase     = "rebase onto {branch} (git rebase {branch}): "
	entry      = "models/{model}.quarantine.yaml: entry {count}, bundle {bundle},"
	inFile     = "[ (in {file})]"
	fleetRuns  = "{fromModel}[ version {fromVersion}]"
	fleetGates = "{gateOrGates} {gates} of {fromModel}"
	devices    = " ({facts}[; and {moreFacts} more])" // some of a fleet's devices, with their reasons
	elsewhere  = "check {text} shows the bounds"      // if several checks bound one figure
	compared   = "{subject} {value}, {fromModel} {baseline}[ over {fourNames}]: {diff+}"
	seed       = "seed {seed}: mAP {value} on validation, bundle {bundle}"
	document   = "document {count} says version {version} of {model} for "
)

// Of merge queues.
var QueueUnjudged = fact("queue.unjudged", "nobody has judged what the merge queue puts together here[: {names}]; "+
	"rebase the pull request when the others are merged")

// Of what the facts inside are.
var (
	Plain        = fact("plain", "{text}")    // a text from outside
	Several      = fact("several", "{facts}") // facts that hold together
	OfModel      = fact("of.model", "{model}: {facts}")
	OfStage      = fact("of.stage", "{stage}: {facts}")
	OfSeed       = fact("of.seed", "seed {seed}: {facts}")
	OfFleet      = fact("of.fleet", "fleet {fleet}: {facts}")
	OfGate       = fact("of.gate", "gate {gate}: {facts}")
	OfVariant    = fact("of.variant", "variant {name}: {facts}")
	OfProfile    = fact("of.profile", "on {name}: {facts}")
	OfVersion    = fact("of.version", "version {version}: {facts}")
	OfBaseline   = fact("of.baseline", "release: {facts}")
	OfValidation = fact("of.validation", "validation: {facts}")
	OfComparison = fact("of.comparison", "comparing: {facts}")
	OfThresholds = fact("of.thresholds", "thresholds: {facts}")
	OfDraft      = fact("of.draft", "draft: {facts}")
	OfRollback   = fact("of.rollback", "does not block a version released before: {facts}")
)

// Runs.
var (
	RunReading     = fact("run.reading", "reading the result")
	RunFailed      = fact("run.failed", "{text}")
	RunEnding      = fact("run.ending", "is being stopped ({text}); afterwards it goes on where it stopped")
	RunTraining    = fact("run.training", "epoch {count}/{total}[, {metric} {rounded} on validation]"+progress)
	RunEvaluating  = fact("run.evaluating", "image {count}/{total}"+progress)
	RunInstalling  = fact("run.installing", "installing {name}: {count} of {total} packages{retry}")
	RunPreparing   = fact("run.preparing", "installing {name}: {stage}{retry}")
	RunAtStage     = fact("run.atStage", "{stage}"+progress)
	RunRunning     = fact("run.running", "running"+progress)
	RunStarting    = fact("run.starting", "starting")
	RunRestarting  = fact("run.restarting", "its last attempt ended without a result; starting again")
	RunResuming    = fact("run.resuming", "goes on where it stopped")
	RunQueued      = fact("run.queued", queued+"runs {limit} at a time")
	TrainingQueued = fact("training.queued", queued+"trains {limit model} at a time")
	RunCost        = fact("run.cost", "the checks of dataset {dataset}, the training of {model} with {text} "+
		"({counts.epochs epoch} at {counts.pixels} pixels, {counts.seeds seed}, on {by}, at most {lasts}), and its "+
		"evaluation by the gates")
	ApprovalByComment  = fact("approval.byComment", approval+"comment {ask}")
	ApprovalBySocket   = fact("approval.bySocket", approval+"run aob pr ask {pr} '{ask}'")
	ApprovalByReaction = fact("approval.byReaction", approval+"react with 👍 to AOB's comment that asks for it")
)

// What trainings cost that cost money.
var (
	CostQuote = fact("cost.quote", "trains on {by} for at most {lasts}, {cost} to {costHigh}, never more than "+
		"{ceiling}[ for each of {counts.seeds seed}] ({text})")
	// What a go is given for: a price that moves asks nobody again.
	CostGo = fact("cost.go", "the training of {model} on {by}, for {ceiling} at most"+
		"[ for each of {counts.seeds seed}]")
	CostNoAccount = fact("cost.noAccount", "this server trains on its own machine alone, so nothing starts on {by}: "+
		"take machine.terraform out of models/{model}.yaml, or give the server an account (aws.train in its "+
		"configuration, docs/aws.md)")
	CostNotListed = fact("cost.notListed", "this server starts {anyName}, not {by}: change train.machine.instance in "+
		"models/{model}.yaml, or add it to aws.instances in the server's configuration")
	CostUnknown = fact("cost.unknown", "what {by} costs is not known, so nothing starts[: {text}]")
	CostOverMax = fact("cost.overMax", "its training costs at least {cost}, and at most {ceiling} are allowed: raise "+
		"train.machine.maxCost in models/{model}.yaml, or train less")
	CostOverDay = fact("cost.overDay", "waits until {at}: {cost} of this day's {ceiling} are spent or agreed, and it "+
		"may cost {costHigh}; aws.day in the server's configuration is the limit")
	CostOverMonth = fact("cost.overMonth", "waits until {at}: {cost} of this month's {ceiling} are spent or agreed, "+
		"and it may cost {costHigh}; aws.month in the server's configuration is the limit")
	CostLedger = fact("cost.ledger", "what was spent before cannot be read, so nothing starts that costs money; aob "+
		"status says why")
	CostNoQuote = fact("cost.noQuote", "a training on {by} costs money, and only a pull request can ask for the go: "+
		"open one, or train on train-local")
)

// What runs have left in a cloud account.
var (
	OrphanEnded     = fact("orphan.ended", "ended {text}[ of run {name}], found {at}: {facts}")
	OrphanLeft      = fact("orphan.left", "{text}[ of run {name}] cannot be ended, found {at}: {facts}")
	OrphanExpired   = fact("orphan.expired", "it lived longer than its tag aob:expires allows")
	OrphanNoExpiry  = fact("orphan.noExpiry", "its tag aob:expires is missing or is no time")
	OrphanOfEnded   = fact("orphan.ofEnded", "its run has ended")
	OrphanOfUnknown = fact("orphan.ofUnknown", "this server has no such run")
)

// Why runs end.
var (
	RunReplaced = fact("end.replaced", "replaced by other work of {prs}")
	RunUnneeded = fact("end.unneeded", "main, experiments and comparisons no longer need it")
	RunOfNoPull = fact("end.ofNoPull", "no open pull request needs it")
	PullsClosed = fact("end.pullsClosed", "closed, or no longer for {branch}: {prs}")
)

// The dataset.
var (
	DataUnreadable = fact("data.unreadable", "the result of the dataset's check cannot be read: {text}")
	DataReady      = fact("data.ready", "{dataset} {bundle}: {counts.train} images to train on, {counts.valid} to "+
		"validate[; {counts.leftOut} left out, as they are in an eval set]")
	DataWarnings = fact("data.warnings", "{count warning}, shown with the pull request: {facts}") // in a status
	DataChanged  = fact("data.changed", "dataset [{fromDataset} -> {dataset}|{dataset} has changed since version "+
		"{version}]: [{facts}|other files, with as many images and objects as before]")
	DataImages   = fact("data.images", "{imageChanges}")
	DataObjects  = fact("data.objects", "{objectChanges}[, {moreNames more class} changed]")
	Finding      = fact("data.finding", "{file}: {text}[ (and {count more finding})]")
	DataNoTruths = fact("data.noTruths", "gate {gate}: its eval set {evalSet} has no object that counts of {anyName}, "+
		"and its check of {metric} needs some; put images with objects into it, or check only what needs none, as "+
		"falsePositivesPerImage")
	DataNoTruthOfClass = fact("data.noTruthOfClass", "gate {gate}: its eval set {evalSet} has no object that counts "+
		"of {anyName}, so no check of it can be decided")
	DataWeak = fact("data.weak", "gate {gate}: {images image} are too few for its check {text}: a model as "+
		"good as the release passes it in {count} of 100 cases, and about {limit image} would do (aob gate power "+
		"{gate})")
)

// Training.
var (
	SeedsTrained = fact("train.seeds", "{count} of {total} seeds trained")
	Trained      = fact("train.done", "bundle {bundle}, {MB}MB")
	TrainedBest  = fact("train.best", "bundle {bundle}, {MB}MB, seed {seed}, the best of {total} on validation: mAP "+
		"{value} (all seeds: {low} to {high})")
	TrainedBefore  = fact("train.before", "not trained again: version {version} is bundle {bundle}")
	TrainedSigning = fact("train.signing", "trained; signing")
	TrainedSame    = fact("train.same", "not trained again: bundle {bundle} was trained from the same content; "+
		"signing")
	SeedBestSigning   = fact("train.bestSigning", "seed {seed} is the best of {total} on validation; signing")
	TrainedBundleGone = fact("train.bundleGone", "bundle {bundle} of this model file is gone from the registry; "+
		"restore it from a backup, or change the file to train again")
	TrainerUnusable = fact("train.unusableTrainer", "this server cannot run trainer {name}: {text}")
	TrainerUnknown  = fact("train.noTrainer", "this server has no trainer {text}; name another one in train.with, or "+
		"have the server's operator add it")
	DefaultsMoved   = fact("train.defaultsMoved", "{fromModel} -> {model}: [{names}|no default of the trainer changed]")
	DefaultsUnknown = fact("train.defaultsUnknown", "{fromModel} -> {model}: this server no longer has trainer "+
		"{fromModel}, so which of its defaults changed is not known")
	WeightsUnknown = fact("train.noWeights", "this server has no weights {text}; name others in train.from, or have "+
		"the server's operator add them under weights: in its configuration")
	ParentMissing = fact("train.noParent", "train.from is release, and {branch} has no release of {model} to start "+
		"from; name base weights, or write none")
	ParentUnknown = fact("train.unknownParent", "train.from is {text}, which is no released version; name a released "+
		"one, base weights or none")
	ParentGone = fact("train.parentGone", "train.from is {text}, and no checkpoint of its bundle {bundle} was kept; "+
		"name base weights, or write none")
	ParentOther = fact("train.parentOther", "train.from is {text}, which is architecture {fromArchitecture} of "+
		"{fromModel}, and this model is {name} of {model}; a checkpoint fits its own architecture alone")
	TrainResultUnreadable  = fact("train.unreadable", "the training's result cannot be read: {text}")
	TrainDataReading       = fact("train.dataReading", "trained; reading what it was trained on")
	ThresholdsNoValidation = fact("thresholds.noValidation", "the dataset has no validation split to find thresholds "+
		"on; add one, or remove thresholds:")
	ThresholdsBundleGone = fact("thresholds.bundleGone", "bundle {bundle} with these thresholds is gone from the "+
		"registry; restore it from a backup")
	ThresholdsUnreadable = fact("thresholds.unreadable", "the result of the search for thresholds cannot be read: "+
		"{text}")
	VariantUnreadable = fact("variant.unreadable", "the result of the run that makes it cannot be read: {text}")
	VariantSigning    = fact("variant.signing", "made; signing")
	VariantFailed     = fact("variant.failed", "not released, because it cannot be made: {facts}")
	VariantGone       = fact("variant.gone", "not released: its bundle {bundle} is gone from the registry; restore it "+
		"from a backup")
	VariantAwaits    = fact("variant.awaits", "made; gates judge it when fp32 has passed them")
	VariantFails     = fact("variant.fails", "not released: gate {gate} says {outcome}: {facts}")
	VariantForbidden = fact("variant.forbidden", "not released: {facts}")
	VariantEmpty     = fact("variant.nothingPassed", "not released: no check of any gate passed for it")
	VariantPasses    = fact("variant.passes", "passes every gate; on this server it is {number} times as fast as fp32")
	VariantSlow      = fact("variant.slow", "passes every gate, but on this server it is not faster than fp32 by more "+
		"than the noise ({number} times as fast)")
	ThresholdsSigning = fact("thresholds.signing", "thresholds found; signing")
	Thresholds        = fact("thresholds.found", "thresholds {thresholds}")
)

// Evaluation.
var (
	BundleGone        = fact("eval.bundleGone", "bundle {bundle} is gone from the registry; restore it from a backup")
	ScoresUnreadable  = fact("eval.unreadable", "the result of the evaluation cannot be read: {text}")
	ScoredSigning     = fact("eval.signing", "evaluated; signing")
	CompareUnreadable = fact("compare.unreadable", "the result of the comparison cannot be read: {text}")
	Evaluated         = fact("eval.done", "mAP {value} on {images} images")
	EvaluatedBoth     = fact("eval.compared", "mAP {value} on {images} images, release {baseline}")
	EvaluatedNoTruths = fact("eval.noTruths", "false positives are counted on {images} images, which have no object "+
		"that "+
		"counts")
	EvalSetUnread  = fact("eval.setUnread", "the eval set of gate {gate} is not read yet")
	EvalAwaited    = fact("eval.awaited", "waiting for the evaluation")
	NoValidation   = fact("validation.none", "the dataset has no validation split to evaluate it on; add one")
	Validated      = fact("validation.done", "mAP {value} on {images} validation images")
	DraftValidated = fact("draft.validated", "mAP {value} on {images} validation images; gates judge it when the "+
		"pull request is ready for review")
	DraftCompared = fact("draft.compared", "mAP {value} on {images} validation images, release {baseline}: {diff+} "+
		"(at worst {low+}, at best {high+}, each 95% sure); gates judge it when the pull request is ready for review")
	DraftGateWaits = fact("draft.gateWaits", "draft: the gate judges when the pull request is ready for review")
	TrialProgress  = fact("trial.progress", "{counts.trained} of {counts.total model} trained[, {counts.failed "+
		"variant} failed]")
)

// Gates and their owners.
var (
	GateSays      = fact("gate.says", "gate {gate} says {outcome}: {facts}")
	GateNotJudged = fact("gate.notJudged", "gate {gate} has not judged this release, and no scores of it are stored "+
		"for that gate; release it by a pull request, which the gate judges")
	NothingJudged = fact("gate.nothingJudged", "no check of any gate applied and passed, so nothing shows that the "+
		"model is good; add a check with a lower bound (min:) to a gate")
	NothingPassed = fact("gate.nothingPassed", "unsure checks were accepted, but no check of any gate passed, so "+
		"nothing shows that the model is good; enlarge the eval set, or add a check that can pass, as of size, to a "+
		"gate in a pull request of its own")
	NoGate     = fact("gate.none", "no gate covers {model}; add one under gates/ with covers: {modelList}")
	NoGateLeft = fact("gate.noneLeft", "no gate would cover {model} any more, and a model without a gate is not "+
		"released; keep one under gates/ that covers it")
	NoGateOnMain = fact("gate.noneOnMain", "no gate on {branch} covers it; add it to covers: of a gate in a pull "+
		"request")
	VerdictAccepted  = fact("verdict.accepted", "accepted by {by}: {text}; the gate says: {facts}")
	VerdictUnownable = fact("verdict.unownable", "unsure, and the gate has no owners who may accept that: push a "+
		"better model, or first add owners: to the gate ({facts})")
	VerdictUnsure = fact("verdict.unsure", "unsure: {facts}")
	// The same in a status, which forges cut.
	VerdictUnsureStatus = fact("verdict.unsureStatus", "unsure: an owner may accept; see [aob pr show {pr}|the "+
		"comment]: {facts}")
	AcceptBySocket  = fact("accept.bySocket", "{anyName} may run aob pr ask {pr} '/aob accept {ask} because …'")
	AcceptByComment = fact("accept.byComment", "{anyName} may comment /aob accept {ask} because …; AOB may then ask "+
		"for a 👍 to confirm it")
	AcceptByReaction = fact("accept.byReaction", "AOB has asked {allNames} in a comment to confirm it, and waits for "+
		"a 👍 on that comment")
	AcceptReader = fact("accept.reader", "{by} owns the gate but has no write permission, so the comment does not "+
		"count; give {by} the role Write")
	AcceptNotOwner = fact("accept.notOwner", "{by} does not own the gate, so the comment does not count")
	AcceptUnknown  = fact("accept.unknown", "{by} accepted {ask}, but no verdict has that code; copy the code from "+
		"AOB's comment")
	AcceptStale = fact("accept.stale", "{by} accepted {ask}, which is an earlier verdict; AOB's comment has the code "+
		"of this one")
	GateAwaits = fact("gate.awaits", "gate {gate} covers {model}, and there is no models/{model}.yaml yet[ (and "+
		"{count} more such)]")
	OwnerInvalid = fact("owner.invalid", "the owner {by} is {text}")
	TrackUnknown = fact("track.unknown", "warning: model {model} is not copied to a tracker, because the server's "+
		"configuration has no tracker {text}[ (and {count} more such)]")
	OwnerWarning = fact("owner.warning", "warning: {by}, an owner of gate {gate}, is {text}")
)

// A model in a pull request.
var (
	ModelRemoved = fact("model.removed", "removed; nothing to train[. If it was renamed to {anyName}, write was: "+
		"{model} there]")
	ModelRenamedOnMain = fact("model.renamedOnMain", "{branch} renamed {fromModel} to {model}[ in {prs}][ (commit "+
		"{commit})]; rebase onto {branch}, and change models/{model}.yaml instead")
	ModelRemovedOnMain = fact("model.removedOnMain", "{branch} removed models/{model}.yaml[ in {prs}][ (commit "+
		"{commit})]; rebase onto {branch}, and add the model again if you still want it")
	ModelChangedOnMain = fact("model.changedOnMain", "{branch} changed models/{model}.yaml after this branch was "+
		"made, and the branch has a release file for the older version of it; rebase onto {branch}")
	ClassMissing = fact("model.classMissing", "gate {gate} requires class {class}, and models/{model}.yaml does not "+
		"have it; add it, or "+changeGate+": remove {class} from classes:, or say under labels: what this model "+
		"calls it, as in labels: {labels}")
	ClassTwice = fact("model.classTwice", "gate {gate} takes classes {allNames} of models/{model}.yaml for class "+
		"{class}, and only one can be that; rename the right one to {class}, or "+changeGate+": change its labels:")
	LicenceForbidden = fact("model.licence", "{text} is under the licence {licence}, and gate {gate} allows "+
		"{fewNames}; choose another in models/{model}.yaml, or "+changeGate+": add {licence} to licence:")
	WasForgotten = fact("model.wasForgotten", "models/{model}.yaml: keep was: {fromModel} until {branch} has "+
		"released {model}; AOB remembers the former name from then on")
	WasOfOldModel = fact("model.wasOfOldModel", "models/{model}.yaml: was: {fromModel}, but {branch} has a model "+
		"{model} already, so nothing is renamed to it; remove was:")
	WasUnknown = fact("model.wasUnknown", "models/{model}.yaml: was: {fromModel}, but {branch} has no such model, "+
		"and never had a release of one; its models are {fewNames}. Write the name that the model has there, or "+
		"remove was:")
	WasStays = fact("model.wasStays", "models/{model}.yaml: was: {fromModel}, but {fromModel} is the former name of "+
		"{name}, and models/{name}.yaml stays; remove was:, or remove models/{name}.yaml with its release file")
	WasUnreleased = fact("model.wasUnreleased", "models/{model}.yaml: was: {fromModel}, but {fromModel} never had a "+
		"release under that name; it was renamed from {name}, so write was: {name}")
	WasTaken = fact("model.wasTaken", "models/{model}.yaml: {model} is the former name of model {fromModel}, whose "+
		"releases and gates it stands for; choose another name[, or write was: {name} to rename {name} back]")
	ReleaseFileRemoved = fact("model.releaseFileRemoved", "its release file is removed and its model file stays; "+
		"nothing to train")
	ReleaseFileGone = fact("model.releaseFileGone", "its release file is removed, but fleets would keep "+
		"version {version}; put back the release file and the model file of the version that is to run, or remove the "+
		"model")
	MainUnread = fact("model.mainUnread", "a file of {branch} cannot be read: {facts}; correct it on {branch} first, "+
		"as all its gates judge every pull request")
	Waits         = fact("model.waits", "waiting: {facts}")
	StageAwaited  = fact("model.stageAwaited", "waiting for the stages before it")
	Merged        = fact("model.merged", "merged")
	MergedVersion = fact("model.mergedVersion", "merged: version {version}")
	MergedBut     = fact("model.mergedBut", "merged; on the target branch: {facts}")
)

// Its release.
var (
	AlreadyReleased = fact("release.already", "version {version}, which is main's release already")
	ReleasedBefore  = fact("release.before", "version {version} was released with this content before; committing "+
		"its release file")
	ReleaseSigning    = fact("release.signing", "every gate passed; signing version {version}")
	ReleaseCommitting = fact("release.committing", "every gate passed; AOB is committing version {version}: approve "+
		"the pull request after that commit")
	ReleaseReady = fact("release.ready", "version {version}, bundle {bundle}, mAP {score}[ (version {fromVersion}: "+
		"{baseline})]")
	ReleaseFileMoved = fact("release.fileMoved", "{branch} changed models/{model}.release.yaml after this branch was "+
		"made, and merging would keep {branch}'s; rebase onto {branch}")
	ReleaseFileUnsigned = fact("release.fileUnsigned", "models/{model}.release.yaml was not written by AOB: it names "+
		"version {version}, bundle {bundle}, and no signed release statement says so; remove the file from this "+
		"branch, AOB writes it")
	ReleaseFileEdited = fact("release.fileEdited", "models/{model}.release.yaml was edited: its figures for version "+
		"{version}, bundle {bundle}, differ from the signed release statement; remove the file from this branch, AOB "+
		"writes it")
	ReleaseBundleGone = fact("release.bundleGone", "bundle {bundle} of version {version} is gone from the registry; "+
		"restore it from a backup")
	RollsBack = fact("release.rollsBack", "rolls back to version {version}, released before; gates do not block a "+
		"rollback")
	GoesOn = fact("release.goesOn", "goes on to version {version}, released before; gates do not block a version that "+
		"main has had")
	FleetGatesSigning  = fact("release.fleetGatesSigning", "every gate that its fleets bring passed; signing")
	BundleQuarantined  = fact("quarantine.bundle", "bundle {bundle} is quarantined: {text}")
	WeightsQuarantined = fact("quarantine.weights", "bundle {bundle} has the weights of bundle {fromBundle}, which "+
		"is quarantined: {text}")
	QuarantineBlocks = fact("quarantine.blocks", "{facts}; to let it run again, set lifted: on its entry in {file}, "+
		"in a pull request of its own")
)

// A model on main.
var (
	MainNoRelease    = fact("main.noRelease", "{model}: no release yet; its fleets wait")
	MainNoneReleased = fact("main.noneReleased", "no model is released yet")
	MainFileRemoved  = fact("main.fileRemoved", "{model}: no release file; its fleets stay with version {version}")
	MainNewer        = fact("main.newer", version+": a newer aob has signed its verdicts, and this one cannot read "+
		"them; upgrade this server")
	MainWaits   = fact("main.waits", version+" is waiting: {facts}")
	MainRefused = fact("main.refused", version+" refused: {facts}")
	MainEdited  = fact("main.edited", version+": models/{model}.release.yaml was edited: its figures differ from "+
		"the signed release statement; put back what AOB wrote")
	MainAccepted     = fact("main.accepted", version)
	MainAcceptedBack = fact("main.acceptedBack", version+", released before; today's gates would fail it, which "+
		"blocks nothing: {facts}")
	MainAccepting = fact("main.accepting", "releasing "+version)
	MainJudging   = fact("main.judging", version+": {facts}")
	SpecOther     = fact("main.specOther", "models/{model}.yaml is not what version {version} was trained from; undo "+
		"the change, or make it in a pull request, which trains it")
	StatementMissing = fact("main.statementMissing", "AOB has signed no release of bundle {bundle} with this model "+
		"file; only a pull request whose gates passed can release it")
	BaselineMoved = fact("main.baselineMoved", "it was judged against [bundle {fromBundle}|no release], and main's "+
		"release is [bundle {bundle}|no release] by now; make the change in a new pull request, so that the gates "+
		"compare it with that")
	VersionTaken = fact("main.versionTaken", "main has released version {version} already, bundle {bundle}; make the "+
		"change in a new pull request")
)

// Main.
var (
	IntentSummary       = fact("intent.summary", "{counts.models model}, {counts.gates gate}, {counts.fleets fleet}")
	IntentInvalid       = fact("intent.invalid", andMore)
	FleetsStay          = fact("intent.fleetsStay", "fleets stay as they are: {facts}")
	FleetsAllStay       = fact("intent.allStay", "fleets stay as they are")
	FleetsNoneStay      = fact("intent.noneStay", "no fleet is affected, and nothing new is released")
	FleetsSomeStay      = fact("intent.someStay", "{staying}, and nothing new is released")
	QuarantineEntryLost = fact("intent.entryLost", "models/{model}.quarantine.yaml lost the entry of bundle {bundle} "+
		"in commit {commit}, so the bundle stays in quarantine; put the entry back, with lifted: if the bundle may "+
		"run again")
	GateLost         = fact("intent.gateLost", "commit {commit} removed"+lostGate)
	GateWeakened     = fact("intent.gateWeakened", "commit {commit} weakened"+lostGate)
	MainNotRead      = fact("intent.notRead", "it has not been read yet")
	MainRewound      = fact("intent.rewound", wentBack+"push {from} to main again")
	MainRewoundMoved = fact("intent.rewoundMoved", wentBack+"merge {from} into main: main has other commits by now")
)

// What cannot be read.
var (
	NewerSigned      = fact("unread.newer", "{text}; "+delivery.StartNewer)
	EvidenceUnread   = fact("unread.evidence", "the signed statements about bundles cannot be read: {text}")
	StatementUnread  = fact("unread.statement", "a signed statement about bundle {bundle} cannot be read: {text}")
	HistoryUnread    = fact("unread.history", "the history of {model} on {branch} cannot be read: {text}")
	FleetGatesUnread = fact("unread.fleetGates", "which gates judge what fleet {fleet} is to run cannot be read: "+
		"{text}")
	MainBroken  = fact("unread.main", "a file of {branch} cannot be read: "+andMore)
	AbortUnread = fact("unread.abort", "whether the fleet rolled back from this release before cannot be read, so "+
		"the fleet does not get it")
)

// A pull request.
var (
	TargetsOther  = fact("pull.targetsOther", "it targets {fromBranch}; AOB judges pull requests that target {branch}")
	ForeignChange = fact("pull.foreign", "somebody else has pushed {fewFiles} to {branch}, the branch of this pull "+
		"request of AOB's own; make that change in a pull request of your own, and reset {branch} to commit {commit}")
	BothChanged = fact("pull.bothChanged", rebase+"{branch} has changed {fewFiles} too, and nobody can see what "+
		"merging makes of both changes")
	MovedFiles = fact("pull.moved", rebase+"{branch} and this branch have renamed and changed {fewFiles}, and git "+
		"may put the changes into a file of models/, gates/ or fleets/")
	UndoneChange = fact("pull.undone", rebase+"a commit of this branch changes {fewFiles} and a later one takes it "+
		"back; the diff with {branch} does not show that, and merging by rebase may bring the change back")
	HistoryUnrelated = fact("pull.unrelated", "start a new branch from {branch} and commit the change there: this "+
		"one's history has nothing in common with that of {branch}")
	HistoryCrossed = fact("pull.crossed", rebase+"this branch's history crosses that of {branch}, so nobody can "+
		"see what merging changes. They have {count} best common ancestors (git merge-base --all {branch} HEAD)")
	EntryRemoved = fact("pull.entryRemoved", entry+" was removed or changed; keep entries as they are, add new "+
		"ones below, and set lifted: to let a bundle run again")
	EntryWouldBeRemoved = fact("pull.entryWouldBeRemoved", entry+" is on {branch}, and merging this would remove "+
		"it; rebase onto {branch}")
	BundleForbidden = fact("pull.bundleForbidden", "bundle {bundle} of {model} may not run: {text}[; main runs it as "+
		"version {version}, so merging takes it off fleets: they go back to the version before, if there is one]")
	BundleVariantForbidden = fact("pull.bundleVariantForbidden", "bundle {bundle} may not run, which is {variant} of "+
		"{model} version {version}: {text}; fleets that run it go back to what they ran before, if there is anything")
	BundleLifted     = fact("pull.bundleLifted", "bundle {bundle} of {model} may run again: {text}")
	QuarantineUnread = fact("pull.quarantineUnread", "{file}: the old version of this file did not parse; check by "+
		"hand that no quarantined bundle was removed")
	NoModelChange = fact("pull.noModelChange", "no model change")
	GatesChanged  = fact("pull.gates", "gates: {gates}")
	WouldFail     = fact("pull.wouldFail", "would fail: {facts}")
	TodayFails    = fact("pull.todayFails", "today's gates would fail it, which does not block a version released "+
		"before: {facts}")
	JudgingCurrent    = fact("pull.judgingCurrent", "judging the current releases by the changed gates")
	FleetsChanged     = fact("pull.fleets", "fleets: {facts}")
	QuarantineChanged = fact("pull.quarantine", "quarantine: {facts}")
	MainMoved         = fact("pull.mainMoved", "{branch} has new commits, so rebase onto it before you merge")
	PermissionAwaited = fact("pull.permissionAwaited", "waiting for the forge to say which permission {by} has")
)

// Fleets.
var (
	FleetNew       = fact("fleet.new", "{fleet} is new and runs {model}[ version {version}][ as {variant}]")
	FleetChanged   = fact("fleet.changed", "{fleet}: waves {names}, soak {lasts}[, {paused}]")
	FleetRepointed = fact("fleet.repointed", "{fleet}: "+fleetRuns+"[ as {fromVariant}] -> {model}[ version "+
		"{version}][ as {variant}], waves {names}[, {paused}]")
	FleetRemoved = fact("fleet.removed", "{fleet} is removed; its devices keep what they run")
	FleetFollows = fact("fleet.follows", "{fleet} ([{variant}; ][its speed is not measured on {text}; ]"+
		"waves {names}; soak {lasts})")
	FleetPinned = fact("fleet.pinned", "{fleet} ([{variant}; ]stays at version {version})")
	FleetPaused = fact("fleet.paused", "{fleet} ([{variant}; ]paused)")
	FleetBrings = fact("fleet.brings", "fleet {fleet} runs "+fleetRuns+", so "+fleetGates+" judges {model} "+
		"as well, compared with what the fleet runs")
	FleetBringsUntil = fact("fleet.bringsUntil", "once fleet {fleet} runs {model}, later versions of {model} are "+
		"judged by [gate {names} alone|no gate]: gate {gates} does not cover {model}; to keep that gate, add {model} "+
		"to covers: in gates/{firstGate}.yaml")
	FleetRanBefore = fact("fleet.ranBefore", "fleet {fleet} has run bundle {bundle} before; gates do not block going "+
		"back to it")
	FleetKeeps = fact("fleet.keeps", "fleet {fleet} keeps "+fleetRuns+" until {model} has a release, which "+
		fleetGates+" will judge")
	FleetGoes = fact("fleet.goes", "fleet {fleet} goes from "+fleetRuns+" to {model} version {version}, which "+
		"passes "+fleetGates)
	FleetGoesBack   = fact("fleet.goesBack", "fleet {fleet} goes back to version {version}, which it has run before")
	FleetPinUnknown = fact("fleet.pinUnknown", "pinned to version {version} of {model}, which was never released; "+
		"name a released version")
	FleetPinQuarantined = fact("fleet.pinQuarantined", "pinned to version {version} of {model}: {facts}")
	FleetAwaitsRelease  = fact("fleet.awaitsRelease", "waiting for the first release of {model}[, which was "+
		"{fromModel}]")
	FleetStaysWith = fact("fleet.staysWith", "fleet {fleet} stays with "+fleetRuns+", and {model} version "+
		"{version} has to pass "+fleetGates+" first: {facts}")
	FleetLacks        = fact("fleet.lacks", "fleet {fleet} keeps what it runs: {facts}")
	FleetKeepsRelease = fact("fleet.keepsRelease", "fleet {fleet} [runs {fromModel} version {fromVersion}|keeps what "+
		"it runs][ as {fromVariant}]: {facts}")
	VariantUndeclared = fact("variant.undeclared", "{variant} is not under variants: in models/{model}.yaml; add it "+
		"there, or change variant: in fleets/{fleet}.yaml")
	VariantUnreleased = fact("variant.unreleased", "version {version} of {model} was released without {variant}; "+
		"release a version with it, or change variant: in fleets/{fleet}.yaml")
	VariantQuarantined = fact("variant.quarantined", "{variant} of {model} version {version} cannot run: {facts}; "+
		"release a version whose {variant} works, or change variant: in fleets/{fleet}.yaml")
	FleetBundleGone = fact("fleet.bundleGone", "bundle {bundle} of {model} version {version} is gone from the "+
		"registry; restore it from a backup")
	RingOfNoFleet = fact("fleet.ringOfNoFleet", "no fleet on {branch} has this name")
	StepFailed    = fact("step.failed", "{text}")
	StepBlocked   = fact("step.blocked", "{text}[; {ask}]")
	PushBlocked   = fact("step.pushBlocked", "the release file cannot be pushed: {ask} ({text})")
	DevicesKeep   = fact("fleet.devicesKeep", "the devices keep what they run")
	StoreLost     = fact("fleet.storeLost", "the server has lost {files} of the bundle, so devices cannot download "+
		"it; restore it from a backup")
)

// Rollouts.
var (
	RolloutNotBegun = fact("rollout.notBegun", "version {version} has not started: {facts}")
	RolloutWave     = fact("rollout.wave", "version {version}, wave {count} of {total} ({wave}): {facts}")
	RolloutDone     = fact("rollout.done", "version {version} is rolled out: {facts}")
	RollingBack     = fact("rollout.goingBack", "rolling back to version {version}: {facts}")
	RolledBack      = fact("rollout.back", "rolled back to version {version}: {facts}")
	RolloutAborted  = fact("rollout.aborted", "[aborted: {facts}|version {version} is aborted]")
	DevicesGoBack   = fact("rollout.devicesGoBack", "the devices go back to version {version}")
	NothingBefore   = fact("rollout.nothingBefore", "there is no release to go back to, so the devices keep what "+
		"they run")
	RolloutPaused    = fact("rollout.paused", "paused: true in fleets/{fleet}.yaml; remove it to go on")
	WindowClosed     = fact("rollout.windowClosed", "outside the update window, which opens {at}")
	WindowUnreadable = fact("rollout.windowUnreadable", "window: in fleets/{fleet}.yaml is not valid: {text}")
	FleetAwaited     = fact("rollout.fleetAwaited", "waiting for fleet {fleet} to run version {version} healthily "+
		"for {lasts}")
	FleetAwaitedUntil = fact("rollout.fleetAwaitedUntil", "waiting until {at} for fleet {fleet} to be healthy for "+
		"{lasts}")
	FleetUnheard = fact("rollout.fleetUnheard", "waiting for fleet {fleet}: none of its devices was heard from for "+
		"{lasts}")
	SoakUntil   = fact("rollout.soakUntil", "the soak lasts until {at} at least")
	FailureRate = fact("rollout.failureRate", "{count} of {total device} failed, which does not rule out a failure "+
		"rate of up to {failureRate} %")
	NoDevice       = fact("devices.none", "no device has reported yet; aob-agent run --help shows how to start one")
	NoneHeard      = fact("devices.noneHeard", "waiting for a device: none of {total} was heard from for {lasts}")
	NoneHealthy    = fact("devices.noneHealthy", "no device is healthy, so the next wave does not start")
	DevicesHealthy = fact("devices.healthy", "{count} of {total device} healthy")
	DevicesSeen    = fact("devices.seen", "{count} of {total device} seen in the last {lasts}")
	DevicesAwaited = fact("devices.awaited", "waiting for {count device}")
	DevicesHeld    = fact("devices.held", "{count device} held: they report and do not install"+devices)
	DevicesFailed  = fact("devices.failed", "{count device} failed"+devices)
	DevicesSilent  = fact("devices.silent", "{count device} silent"+devices)
	DevicesAway    = fact("devices.away", "not heard from for long, so not counted: {names}[ and {moreNames} more]")
	ServerWasAway  = fact("devices.serverWasAway", "this server receives reports only since {at}; silent devices may "+
		"still report")
	FleetSilent = fact("devices.allSilent", "no device of the fleet has reported since {at}: check the network; "+
		"silence counts as a failure only after one of them reports again")
	OfDevice     = fact("of.device", "{device}: {facts}")
	DeviceSays   = fact("device.says", "{says}")
	DeviceSilent = fact("device.silent", "silent since {at}")
	DeviceStuck  = fact("device.stuck", "it reports, but has been {stage} since {at}")
	DeviceTwice  = fact("device.twice", "it reports from two places: two installations have this name; rename one of "+
		"them")
	ReportIgnored     = fact("device.ignored", "its report does not count: {text}")
	ClockAhead        = fact("device.clockAhead", "its clock is {lasts} ahead; set it")
	ClockBehind       = fact("device.clockBehind", "its clock is {lasts} behind; set it")
	FailureNotCounted = fact("device.doubted", "this failure does not count, as the server has lost {files} of "+
		"the bundle")
	FailureChecked = fact("device.checked", "this failure counts once the server has checked its own store")
)

// Notices about the server.
var (
	ServerReading = fact("notice.reading", "the repository has not been read yet; what follows is incomplete")
	ListMayBeOld  = fact("notice.listOld", "the list of pull requests may be out of date: the forge has not answered "+
		"since the last commit on main; until then no run is ended")
	SendingSlow = fact("notice.sendingSlow", "{count} statuses, comments or pushes wait to be sent, the first since "+
		"{at}: the forge or git takes long to answer")
	StoreFilesLost = fact("notice.storeLost", "the store has lost or damaged {files} of bundle {bundle}[ ({model} "+
		"version {version})]: copy the file from a backup, or from a device that holds the bundle (STATE/a/{digest} "+
		"or STATE/b/{digest}); the file's name in the store is its SHA-256. Until then devices cannot download it, "+
		"and reports that it failed do not count")
	NothingAccepted = fact("notice.nothingAccepted", "nothing new is released, and the fleets that it affects stay "+
		"as they are")
	NothingJudgedNow = fact("notice.nothingJudged", "until then nothing is judged, and fleets stay as they are")
)

// AOB's own pull requests: titles, and why.
var (
	RestoreTitle  = fact("propose.restoreTitle", "{model}: roll back to version {version}")
	TakeBackTitle = fact("propose.takeBackTitle", "{model}: withdraw version {version}")
	RestoreBody   = fact("propose.restoreBody", "{facts}.\n\nThe fleets keep the last accepted release. Merge this, "+
		"so that the files on main say what runs.")
	QuarantineRestoreTitle = fact("propose.quarantineRestoreTitle", "{model}: roll back to version {version}, as "+
		"fleet {fleet} did from version {fromVersion}")
	QuarantineTitle = fact("propose.quarantineTitle", "{model}: withdraw version {fromVersion}, as fleet {fleet} "+
		"rolled back from it")
	QuarantineVariantTitle = fact("propose.quarantineVariantTitle", "{model}: withdraw {variant} of version "+
		"{fromVersion}, as fleet {fleet} rolled back from it")
	QuarantineVariantBody = fact("propose.quarantineVariantBody", "Fleet {fleet}: {text}.\n\nThe devices run what "+
		"they ran before. Merge this, so that no fleet gets {variant} of {model} version {version}; its other "+
		"variants stay released. Fleets that ask for {variant} wait for a version whose {variant} works; to give "+
		"them another variant, change `variant` in their files. To let the bundle run again, set `lifted` on its "+
		"entry in a pull request of its own.")
	QuarantineBody = fact("propose.quarantineBody", "Fleet {fleet}: {text}.\n\nThe devices run the release before "+
		"it. Merge this, so that the files on main say so and the bundle stays in quarantine; to let it run again, "+
		"set `lifted` on its entry in a pull request of its own.")
)

// Checks of gates.
var (
	CheckReached = fact("check.reached", "{subject} {value} >= {bound}")
	CheckBelow   = fact("check.below", "{subject} {value} < {bound} (["+elsewhere+"|at most {high}, {sure}], "+
		"{images} images)")
	CheckMaybeReached = fact("check.maybeReached", "{subject} {value} < {bound}, but on {images} images that may be "+
		"chance[: at most {high}, {sure} ({facts})][; "+elsewhere+"]")
	CheckWithin = fact("check.within", "{subject} {value} <= {bound}")
	CheckAbove  = fact("check.above", "{subject} {value} > {bound} (["+elsewhere+"|at least {low}, {sure}], "+
		"{images} images)")
	CheckMaybeWithin = fact("check.maybeWithin", "{subject} {value} > {bound}, but on {images} images that may be "+
		"chance[: at least {low}, {sure} ({facts})][; "+elsewhere+"]")
	SizeWithin = fact("check.sizeWithin", "size {MB}MB <= {boundBytes}")
	SizeAbove  = fact("check.sizeAbove", "size {MB}MB > {boundBytes}")
	BenchFew   = fact("bench.few", "no data: at least {counts.repeats} repeats of {counts.images} images after "+
		"{counts.warmUp} to warm up are needed; measure again with these or more")
	BenchThrottled = fact("bench.throttled", "no data: the machine slowed itself down while it was measured "+
		"({fewNames}); cool it or choose a power mode that it can hold, and measure again")
	BenchNoisy = fact("bench.noisy", "no data: between the repeats, {metric} differs by {percent} % of its median, "+
		"and above {boundPercent} % it says nothing; end other programs on the machine, and measure again")
	BenchMissing = fact("bench.missing", "no data: bundle {bundle} was not measured on {name}; [device {device} of "+
		"fleet {fleet} is asked to|on a machine with that hardware and the server's keys, run {ask}]")
	BenchQueued = fact("bench.queued", "no data: device {device} of fleet {fleet} measures bundle {bundle} first, and "+
		"then this one on {name}")
	BenchSigning = fact("bench.signing", "measured on {name} by device {device} of fleet {fleet}; signing")
	BenchFailed  = fact("bench.failed", "no data: device {device} of fleet {fleet} could not measure bundle {bundle} "+
		"on {name}: {says}")
	BenchUnknown = fact("bench.unknown", "no data: what was measured on {name} is known to aob serve alone")
	BenchStale   = fact("bench.stale", "no data: bundle {bundle} was measured on {name} while the machine had other "+
		"settings or software than now; [device {device} of fleet {fleet} is asked to measure again|run {ask}]")
	LatencyWithin = fact("latency.within", "{metric} on {name} {ms} ms <= {boundMs} ms")
	LatencyAbove  = fact("latency.above", "{metric} on {name} {ms} ms > {boundMs} ms (at least {lowMs} ms in each "+
		"repeat)")
	LatencyMaybe = fact("latency.maybe", "{metric} on {name} {ms} ms, and the repeats, from {lowMs} to {highMs} ms, "+
		"are on both sides of {boundMs} ms")
	LatencyNoProfile = fact("latency.noProfile", "no fleet on the target branch that runs {model} has profiles, so "+
		"all of them is none; name some under profiles: in the fleet's file or in the check")
	LatencyOtherVariant = fact("latency.otherVariant", "on {name} the fleets run the variant {variant} of {model}, "+
		"and not this one")
	BoundInvalid = fact("check.boundInvalid", "{text}")
	DropAllowed  = fact("drop.allowed", compared+"[ >= {bound}; "+elsewhere+"|, at worst {low+} >= {bound}]")
	DropFound    = fact("drop.found", compared+"[ < {bound}; "+elsewhere+"|, at best {high+} < {bound} ({sure})]")
	DropUnsure   = fact("drop.unsure", compared+"[, and it may have dropped by more than {drop}; "+elsewhere+
		"|, at worst {low+}, at best {high+} (each {sure}), too wide to tell whether it dropped by more than {drop}]"+
		"[ ({facts})]")
	Unresolved     = fact("bound.unresolved", "a bound that is {sure} takes {limit} resamples, and there are {count}")
	Settles        = fact("bound.settles", "±{diff}; about {count} images in all would settle it")
	HardlySettles  = fact("bound.hardlySettles", "±{diff}; more images would hardly settle it")
	HalfWidth      = fact("bound.halfWidth", "±{diff}")
	ErrorShare     = fact("loss.error", "AP50 {diff+}, mostly {errors}[ ({count} more)]")
	OfMetric       = fact("check.of", "{subject}: {facts}")
	NoThresholds   = fact("check.noThresholds", "the model has no thresholds; add thresholds: {default: bestF1} to it")
	NoClassToJudge = fact("check.noClass", "the model has none of the classes that the check is about")
	NoTruthOfClass = fact("check.noTruthOfClass", "the eval set has no object of class {class} that counts")
	NoTruths       = fact("check.noTruths", "the eval set has no objects for it")
	Undefined      = fact("check.undefined", "{text}")
	FewTruths      = fact("check.fewTruths", "{count object}, the check asks for {limit}")
	FewGroups      = fact("check.fewGroups", "the eval set has {count group} of images[ with objects of class "+
		"{anyName} that count], and a confidence interval needs {limit}")
	FewImages = fact("check.fewImages", "the eval set has {count image}[ with objects of class {anyName} that count], "+
		"and a confidence interval needs {limit}")
	NotShared = fact("check.notShared", "the model, {fromModel} and the eval set have no class of the check in "+
		"common")
	NotCompared   = fact("baseline.notCompared", "not compared with {theBaseline}")
	IsBaseline    = fact("baseline.same", "the model is {theBaseline} itself")
	NoBaseline    = fact("baseline.none", "no release to compare with")
	OtherProtocol = fact("baseline.otherProtocol", "the model and {fromModel} were scored by different protocols, so "+
		"they are not compared")
	BaselineNoThresholds = fact("baseline.noThresholds", "{theBaseline} has no thresholds to compare with")
	VersionUnknown       = fact("baseline.versionUnknown", "{text} is no released version; name a released one in "+
		"the gate")
	VersionBundleGone = fact("baseline.versionBundleGone", "bundle {bundle} of {model}@{version} is gone from the "+
		"registry; restore it from a backup")
	CheckLicence      = fact("check.licence", "{text} is under {licence}, and the gate allows {fewNames}")
	CheckClassMissing = fact("check.classMissing", "gate {gate} requires class {class}, and the model does not have "+
		"it; add {class} to classes: in models/{model}.yaml, or first remove it from classes: in gates/{gate}.yaml "+
		"in a pull request of its own")
	TooManyLooks = fact("check.tooManyLooks", "this is model {count} that the eval set compares with {thisRelease}, "+
		"and the gate allows {limit} (looks): the best of many is partly luck; collect new test images, and freeze "+
		"them (aob gate freeze)")
	TrainedOnEvalSet = fact("check.trainedOnEvalSet", "the model was trained on {count} of the {total} images of the "+
		"eval set ({percent}%), and at most {boundPercent}% may be left out of it; train it again, without them")
	TakenAsFail    = fact("check.takenAsFail", "the gate counts that as a fail")
	NothingApplies = fact("verdict.nothingApplies", "nothing to judge: every check is ignored or does not apply to "+
		"this model")
	MoreChecks   = fact("verdict.moreChecks", "{count more check} {fail}")
	PassedChecks = fact("verdict.passedChecks", "passed {counts.pass} of {total} checks[, {counts.not-applicable} "+
		"not applicable][, {counts.ignored} ignored]")
	ImagesLeftOut = fact("verdict.imagesLeftOut", "on {images} of {total} images, as a model was trained on the "+
		"other {others}")
)

// The chain from a commit to a device, as aob explain shows it.
var (
	ChainAccepted       = fact("chain.accepted", "{branch} released version {version}[: {facts}]")
	ChainAlsoMustNotRun = fact("chain.alsoMustNotRun", "another entry says that it must not run: {text}"+inFile)
	ChainAskedBy        = fact("chain.askedBy", "first asked for by {text}")
	ChainAtCommit       = fact("chain.atCommit", "at {commit}")
	ChainAuthored       = fact("chain.authored", "{text}[, by {by}]")
	ChainBaseline       = fact("chain.baseline", "[compared with bundle {bundle}|the first release]")
	ChainBundle         = fact("chain.bundle", "the packaged model, {MB} MB")
	ChainBundleFailed   = fact("chain.bundleFailed", "bundle {bundle} failed here[: {text}]")
	ChainBundleGone     = fact("chain.bundleGone", "the packaged model; the registry no longer holds it")
	ChainCheck          = fact("chain.check", "{outcome} {stage}: {facts}")
	ChainContent        = fact("chain.content", "models/{model}.yaml: dataset {dataset}; classes {names}")
	ChainContentRemoved = fact("chain.contentRemoved", "models/{model}.yaml is removed")
	ChainData           = fact("chain.data", "{dataset}[: {splits}][; {count} left out of training, as they are in "+
		"an eval set]")
	ChainDesiredAll     = fact("chain.desiredAll", document+"every device")
	ChainDesiredNothing = fact("chain.desiredNothing", "document {count} tells devices outside the wave nothing; "+
		"they keep what they run")
	ChainDesiredOther  = fact("chain.desiredOther", "the device acts on document {count}")
	ChainDesiredOthers = fact("chain.desiredOthers", document+"devices outside the wave")
	ChainDesiredWave   = fact("chain.desiredWave", document+"the wave")
	ChainDevice        = fact("chain.device", "runs {installed} in fleet {fleet}, {stage}[, slot {text}]")
	ChainDeviceRuns    = fact("chain.deviceRuns", "{text} runs "+version+"[ as {variant}]")
	ChainDeviceSilent  = fact("chain.deviceSilent", "it has been silent since this report")
	ChainFellBack      = fact("chain.fellBack", "fleet {fleet} rolled back from it: {text}")
	ChainFigure        = fact("chain.figure", "{metric} {value}[ on {images image}][ (at least {low}, at most "+
		"{high}, each {sure})][; version {fromVersion}: {baseline}]")
	ChainFileRemoved  = fact("chain.fileRemoved", "{file} was removed")
	ChainFinding      = fact("chain.finding", "{stage} {error}: {text}")
	ChainGateAccepted = fact("chain.gateAccepted", "gate {gate} was unsure, and {by} accepted it ({at}): {text}")
	ChainGatesAsOf    = fact("chain.gatesAsOf", "gates as of {branch} {commit}")
	ChainHead         = fact("chain.head", "head of {branch}[: {facts}|; it changed no release]")
	ChainLifted       = fact("chain.lifted", "was quarantined ({text}), and lifted: {ask}"+inFile)
	ChainMerged       = fact("chain.merged", "merged into {branch} as {commit} ({text})[ by {by}]; it released no "+
		"model")
	ChainMoreDevices   = fact("chain.moreDevices", "and {count} more")
	ChainMustNotRun    = fact("chain.mustNotRun", "must not run: {text}"+inFile)
	ChainNeverAccepted = fact("chain.neverAccepted", "{branch} never released this bundle")
	ChainNoRelease     = fact("chain.noRelease", "{model} without release")
	ChainNoTraining    = fact("chain.noTraining", "models/{model}.yaml; no signed statement says how bundle {bundle} "+
		"was trained")
	ChainNotAccepted = fact("chain.notAccepted", "{branch} has not released it")
	ChainNotOnMain   = fact("chain.notOnMain", "{model}: [its state on {branch} is unknown: {facts}|not on "+
		"{branch}]")
	ChainOnBranch       = fact("chain.onBranch", "on {branch}")
	ChainOtherEntry     = fact("chain.otherEntry", "another entry still quarantines it")
	ChainPull           = fact("chain.pull", "{prs} {text}, by {by}")
	ChainPullClosed     = fact("chain.pullClosed", "{prs}, no longer open: {facts}")
	ChainPullHead       = fact("chain.pullHead", "head of {text}, for {branch}")
	ChainScores         = fact("chain.scores", "on [{evalSet}, ]{images image}")
	ChainSeed           = fact("chain.seed", seed)
	ChainSeedBest       = fact("chain.seedBest", seed+", the best, which is the model")
	ChainSigned         = fact("chain.signed", "signed: every gate passed")
	ChainSignedAccepted = fact("chain.signedAccepted", "signed: every gate passed or was accepted")
	ChainThreshold      = fact("chain.threshold", "{class}: from score {fromScore}[, asked for {ask}]; precision "+
		"{scores.precision}, recall {scores.recall}[; {text}]")
	ChainVariant = fact("chain.variant", "variant {name} is bundle {bundle}, {MB}MB[, {number} times as fast as fp32 "+
		"on {text}]")
	ChainVariantReleased = fact("chain.variantReleased", "{variant} of "+version+", released with it")
	ChainThresholds      = fact("chain.thresholds", "found on {evalSet}, which is not trained on, and added to bundle "+
		"{bundle}")
	ChainTrain = fact("chain.train", "{text}, resolution {counts.pixels}, epochs {counts.epochs}, lr {number}, seed "+
		"{names}")
	ChainTrained = fact("chain.trained", "trained with {text}, seed {seed}, on {by}[, {attempts} attempts][, in "+
		"{lasted}]")
	ChainTraining       = fact("chain.training", "training: {stage}[, epoch {epoch} of {total}][, attempt {attempts}]")
	ChainUnsigned       = fact("chain.unsigned", "AOB has signed no release of this bundle with this model file")
	ChainVersion        = fact("chain.version", version)
	ChainVersionGone    = fact("chain.versionGone", "the release file was removed, or could not be read")
	ChainVersionRefused = fact("chain.versionRefused", "not released")
	ChainWas            = fact("chain.was", "until then it was {fromModel}")
)

// Why the server keeps what it has stored, or removes it.
var (
	KeptRelease   = fact("kept.release", "release {model} {version}, accepted on {branch}")
	KeptNamed     = fact("kept.named", "{file} on {branch} names it")
	KeptPull      = fact("kept.pull", "pull request {pr} is open")
	KeptTrial     = fact("kept.trial", "experiment {text} has it")
	KeptWanted    = fact("kept.wanted", "a comparison that somebody asked for needs it")
	KeptPinned    = fact("kept.pinned", "fleet {fleet} is pinned to version {version} of {model}")
	KeptPublished = fact("kept.published", "fleet {fleet} is told to run it")
	KeptDevice    = fact("kept.device", "device {device} of fleet {fleet} runs it")
	KeptBench     = fact("kept.bench", "device {device} of fleet {fleet} is asked to measure it")
	KeptCommit    = fact("kept.commit", "it is on the head of {branch}")
	KeptRollout   = fact("kept.rollout", "its commit shows the rollout of a fleet")
	KeptFleet     = fact("kept.fleet", "there is a fleet {fleet}")
	KeptTrainer   = fact("kept.trainer", "trainer {text} of this server runs in it")
	KeptGoing     = fact("kept.going", "it has not ended")
	KeptNeeded    = fact("kept.needed", "the last turn needs it")
	KeptFor       = fact("kept.for", "{text} needs it, and is kept")
	KeptYoung     = fact("kept.young", "younger than [{count day}|{lasts}]")
	KeptUnknown   = fact("kept.unknown", "nothing is removed now: {facts}")
	KeptUnread    = fact("kept.unread", "{text} cannot be read")
	GoneOld       = fact("gone.old", "nothing needs it, and it is older than [{count day}|{lasts}]")
	GoneLeft      = fact("gone.left", "a process that was killed has left it")
)
