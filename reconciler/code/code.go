// Package code lists the codes of facts: what AOB decides and reports, without words. Package words has a sentence for
// each. A code keeps its name and its meaning: programs that read JSON compare it.
package code

import "github.com/autonomos/aob/reconciler/delivery"

// Of what the facts inside are.
const (
	Plain        delivery.Code = "plain"   // a text from outside, or a sentence of a part that has no codes yet
	Several      delivery.Code = "several" // facts that hold together
	OfModel      delivery.Code = "of.model"
	OfStage      delivery.Code = "of.stage"
	OfSeed       delivery.Code = "of.seed"
	OfFleet      delivery.Code = "of.fleet"
	OfGate       delivery.Code = "of.gate"
	OfVersion    delivery.Code = "of.version"
	OfBaseline   delivery.Code = "of.baseline"
	OfValidation delivery.Code = "of.validation"
	OfComparison delivery.Code = "of.comparison"
	OfThresholds delivery.Code = "of.thresholds"
	OfDraft      delivery.Code = "of.draft"
	OfRollback   delivery.Code = "of.rollback"
)

// Runs.
const (
	RunReading         delivery.Code = "run.reading"
	RunFailed          delivery.Code = "run.failed"
	RunEnding          delivery.Code = "run.ending"
	RunTraining        delivery.Code = "run.training"
	RunEvaluating      delivery.Code = "run.evaluating"
	RunAtStage         delivery.Code = "run.atStage"
	RunRunning         delivery.Code = "run.running"
	RunStarting        delivery.Code = "run.starting"
	RunRestarting      delivery.Code = "run.restarting"
	RunResuming        delivery.Code = "run.resuming"
	RunQueued          delivery.Code = "run.queued"
	TrainingQueued     delivery.Code = "training.queued"
	RunCost            delivery.Code = "run.cost"
	ApprovalByComment  delivery.Code = "approval.byComment"
	ApprovalBySocket   delivery.Code = "approval.bySocket"
	ApprovalByReaction delivery.Code = "approval.byReaction"
)

// Why runs end.
const (
	RunReplaced delivery.Code = "end.replaced"
	RunUnneeded delivery.Code = "end.unneeded"
	RunOfNoPull delivery.Code = "end.ofNoPull"
	PullsClosed delivery.Code = "end.pullsClosed"
)

// The dataset.
const (
	DataUnreadable delivery.Code = "data.unreadable"
	DataReady      delivery.Code = "data.ready"
	Finding        delivery.Code = "data.finding"
)

// Training.
const (
	SeedsTrained           delivery.Code = "train.seeds"
	Trained                delivery.Code = "train.done"
	TrainedBest            delivery.Code = "train.best"
	TrainedBefore          delivery.Code = "train.before"
	TrainedSigning         delivery.Code = "train.signing"
	TrainedSame            delivery.Code = "train.same"
	SeedBestSigning        delivery.Code = "train.bestSigning"
	TrainedBundleGone      delivery.Code = "train.bundleGone"
	TrainerUnknown         delivery.Code = "train.noTrainer"
	TrainResultUnreadable  delivery.Code = "train.unreadable"
	TrainDataReading       delivery.Code = "train.dataReading"
	ThresholdsNoValidation delivery.Code = "thresholds.noValidation"
	ThresholdsBundleGone   delivery.Code = "thresholds.bundleGone"
	ThresholdsUnreadable   delivery.Code = "thresholds.unreadable"
	ThresholdsSigning      delivery.Code = "thresholds.signing"
	Thresholds             delivery.Code = "thresholds.found"
)

// Evaluation.
const (
	BundleGone        delivery.Code = "eval.bundleGone"
	ScoresUnreadable  delivery.Code = "eval.unreadable"
	ScoredSigning     delivery.Code = "eval.signing"
	CompareUnreadable delivery.Code = "compare.unreadable"
	Evaluated         delivery.Code = "eval.done"
	EvaluatedBoth     delivery.Code = "eval.compared"
	EvalSetUnread     delivery.Code = "eval.setUnread"
	EvalAwaited       delivery.Code = "eval.awaited"
	NoValidation      delivery.Code = "validation.none"
	Validated         delivery.Code = "validation.done"
	DraftValidated    delivery.Code = "draft.validated"
	DraftCompared     delivery.Code = "draft.compared"
	DraftGateWaits    delivery.Code = "draft.gateWaits"
	TrialProgress     delivery.Code = "trial.progress"
)

// Gates and their owners.
const (
	GateSays         delivery.Code = "gate.says"
	GateNotJudged    delivery.Code = "gate.notJudged"
	NothingJudged    delivery.Code = "gate.nothingJudged"
	NoGate           delivery.Code = "gate.none"
	NoGateLeft       delivery.Code = "gate.noneLeft"
	NoGateOnMain     delivery.Code = "gate.noneOnMain"
	VerdictAccepted  delivery.Code = "verdict.accepted"
	VerdictUnownable delivery.Code = "verdict.unownable"
	VerdictUnsure    delivery.Code = "verdict.unsure"
	AcceptBySocket   delivery.Code = "accept.bySocket"
	AcceptByComment  delivery.Code = "accept.byComment"
	AcceptByReaction delivery.Code = "accept.byReaction"
	AcceptReader     delivery.Code = "accept.reader"
	AcceptNotOwner   delivery.Code = "accept.notOwner"
	AcceptUnknown    delivery.Code = "accept.unknown"
	AcceptStale      delivery.Code = "accept.stale"
	OwnerInvalid     delivery.Code = "owner.invalid"
	OwnerWarning     delivery.Code = "owner.warning"
)

// A model in a pull request.
const (
	ModelRemoved       delivery.Code = "model.removed"
	ModelRenamedOnMain delivery.Code = "model.renamedOnMain"
	ModelRemovedOnMain delivery.Code = "model.removedOnMain"
	ModelChangedOnMain delivery.Code = "model.changedOnMain"
	ClassMissing       delivery.Code = "model.classMissing"
	ClassTwice         delivery.Code = "model.classTwice"
	WasForgotten       delivery.Code = "model.wasForgotten"
	WasOfOldModel      delivery.Code = "model.wasOfOldModel"
	WasUnknown         delivery.Code = "model.wasUnknown"
	WasStays           delivery.Code = "model.wasStays"
	WasUnreleased      delivery.Code = "model.wasUnreleased"
	ReleaseFileRemoved delivery.Code = "model.releaseFileRemoved"
	ReleaseFileGone    delivery.Code = "model.releaseFileGone"
	MainUnread         delivery.Code = "model.mainUnread"
	Waits              delivery.Code = "model.waits"
	StageAwaited       delivery.Code = "model.stageAwaited"
	Merged             delivery.Code = "model.merged"
	MergedVersion      delivery.Code = "model.mergedVersion"
	MergedBut          delivery.Code = "model.mergedBut"
)

// Its release.
const (
	AlreadyReleased     delivery.Code = "release.already"
	ReleasedBefore      delivery.Code = "release.before"
	ReleaseSigning      delivery.Code = "release.signing"
	ReleaseCommitting   delivery.Code = "release.committing"
	ReleaseReady        delivery.Code = "release.ready"
	ReleaseFileMoved    delivery.Code = "release.fileMoved"
	ReleaseFileUnsigned delivery.Code = "release.fileUnsigned"
	ReleaseFileEdited   delivery.Code = "release.fileEdited"
	ReleaseBundleGone   delivery.Code = "release.bundleGone"
	RollsBack           delivery.Code = "release.rollsBack"
	FleetGatesSigning   delivery.Code = "release.fleetGatesSigning"
	BundleQuarantined   delivery.Code = "quarantine.bundle"
	WeightsQuarantined  delivery.Code = "quarantine.weights"
	QuarantineBlocks    delivery.Code = "quarantine.blocks"
)

// A model on main.
const (
	MainNoRelease    delivery.Code = "main.noRelease"
	MainNoneReleased delivery.Code = "main.noneReleased"
	MainFileRemoved  delivery.Code = "main.fileRemoved"
	MainNewer        delivery.Code = "main.newer"
	MainWaits        delivery.Code = "main.waits"
	MainRefused      delivery.Code = "main.refused"
	MainEdited       delivery.Code = "main.edited"
	MainAccepted     delivery.Code = "main.accepted"
	MainAcceptedBack delivery.Code = "main.acceptedBack"
	MainAccepting    delivery.Code = "main.accepting"
	MainJudging      delivery.Code = "main.judging"
	SpecOther        delivery.Code = "main.specOther"
	StatementMissing delivery.Code = "main.statementMissing"
	BaselineMoved    delivery.Code = "main.baselineMoved"
	VersionTaken     delivery.Code = "main.versionTaken"
)

// Main.
const (
	IntentSummary       delivery.Code = "intent.summary"
	IntentInvalid       delivery.Code = "intent.invalid"
	FleetsStay          delivery.Code = "intent.fleetsStay"
	FleetsAllStay       delivery.Code = "intent.allStay"
	FleetsNoneStay      delivery.Code = "intent.noneStay"
	FleetsSomeStay      delivery.Code = "intent.someStay"
	QuarantineEntryLost delivery.Code = "intent.entryLost"
	GateLost            delivery.Code = "intent.gateLost"
	GateWeakened        delivery.Code = "intent.gateWeakened"
	MainNotRead         delivery.Code = "intent.notRead"
	MainRewound         delivery.Code = "intent.rewound"
	MainRewoundMoved    delivery.Code = "intent.rewoundMoved"
)

// What cannot be read.
const (
	NewerSigned      delivery.Code = "unread.newer"
	EvidenceUnread   delivery.Code = "unread.evidence"
	StatementUnread  delivery.Code = "unread.statement"
	HistoryUnread    delivery.Code = "unread.history"
	FleetGatesUnread delivery.Code = "unread.fleetGates"
	MainBroken       delivery.Code = "unread.main"
	AbortUnread      delivery.Code = "unread.abort"
)

// A pull request.
const (
	TargetsOther        delivery.Code = "pull.targetsOther"
	ForeignChange       delivery.Code = "pull.foreign"
	BothChanged         delivery.Code = "pull.bothChanged"
	MovedFiles          delivery.Code = "pull.moved"
	UndoneChange        delivery.Code = "pull.undone"
	HistoryUnrelated    delivery.Code = "pull.unrelated"
	HistoryCrossed      delivery.Code = "pull.crossed"
	EntryRemoved        delivery.Code = "pull.entryRemoved"
	EntryWouldBeRemoved delivery.Code = "pull.entryWouldBeRemoved"
	BundleForbidden     delivery.Code = "pull.bundleForbidden"
	BundleLifted        delivery.Code = "pull.bundleLifted"
	QuarantineUnread    delivery.Code = "pull.quarantineUnread"
	NoModelChange       delivery.Code = "pull.noModelChange"
	GatesChanged        delivery.Code = "pull.gates"
	WouldFail           delivery.Code = "pull.wouldFail"
	TodayFails          delivery.Code = "pull.todayFails"
	JudgingCurrent      delivery.Code = "pull.judgingCurrent"
	FleetsChanged       delivery.Code = "pull.fleets"
	QuarantineChanged   delivery.Code = "pull.quarantine"
	MainMoved           delivery.Code = "pull.mainMoved"
)

// Fleets.
const (
	FleetNew            delivery.Code = "fleet.new"
	FleetChanged        delivery.Code = "fleet.changed"
	FleetRepointed      delivery.Code = "fleet.repointed"
	FleetRemoved        delivery.Code = "fleet.removed"
	FleetFollows        delivery.Code = "fleet.follows"
	FleetPinned         delivery.Code = "fleet.pinned"
	FleetPaused         delivery.Code = "fleet.paused"
	FleetBrings         delivery.Code = "fleet.brings"
	FleetBringsUntil    delivery.Code = "fleet.bringsUntil"
	FleetRanBefore      delivery.Code = "fleet.ranBefore"
	FleetKeeps          delivery.Code = "fleet.keeps"
	FleetGoes           delivery.Code = "fleet.goes"
	FleetGoesBack       delivery.Code = "fleet.goesBack"
	FleetPinUnknown     delivery.Code = "fleet.pinUnknown"
	FleetPinQuarantined delivery.Code = "fleet.pinQuarantined"
	FleetAwaitsRelease  delivery.Code = "fleet.awaitsRelease"
	FleetStaysWith      delivery.Code = "fleet.staysWith"
	FleetBundleGone     delivery.Code = "fleet.bundleGone"
	RingOfNoFleet       delivery.Code = "fleet.ringOfNoFleet"
	StepFailed          delivery.Code = "step.failed"
	StepBlocked         delivery.Code = "step.blocked"
	PushBlocked         delivery.Code = "step.pushBlocked"
	DevicesKeep         delivery.Code = "fleet.devicesKeep"
	StoreLost           delivery.Code = "fleet.storeLost"
)

// AOB's own pull requests: titles, and why.
const (
	RestoreTitle           delivery.Code = "propose.restoreTitle"
	TakeBackTitle          delivery.Code = "propose.takeBackTitle"
	RestoreBody            delivery.Code = "propose.restoreBody"
	QuarantineRestoreTitle delivery.Code = "propose.quarantineRestoreTitle"
	QuarantineTitle        delivery.Code = "propose.quarantineTitle"
	QuarantineBody         delivery.Code = "propose.quarantineBody"
)

// Checks of gates.
const (
	CheckReached         delivery.Code = "check.reached"
	CheckBelow           delivery.Code = "check.below"
	CheckMaybeReached    delivery.Code = "check.maybeReached"
	CheckWithin          delivery.Code = "check.within"
	CheckAbove           delivery.Code = "check.above"
	CheckMaybeWithin     delivery.Code = "check.maybeWithin"
	SizeWithin           delivery.Code = "check.sizeWithin"
	SizeAbove            delivery.Code = "check.sizeAbove"
	BoundInvalid         delivery.Code = "check.boundInvalid"
	DropAllowed          delivery.Code = "drop.allowed"
	DropFound            delivery.Code = "drop.found"
	DropUnsure           delivery.Code = "drop.unsure"
	Unresolved           delivery.Code = "bound.unresolved"
	Settles              delivery.Code = "bound.settles"
	HardlySettles        delivery.Code = "bound.hardlySettles"
	HalfWidth            delivery.Code = "bound.halfWidth"
	ErrorShare           delivery.Code = "loss.error"
	OfMetric             delivery.Code = "check.of"
	NoThresholds         delivery.Code = "check.noThresholds"
	NoClassToJudge       delivery.Code = "check.noClass"
	NoTruthOfClass       delivery.Code = "check.noTruthOfClass"
	NoTruths             delivery.Code = "check.noTruths"
	Undefined            delivery.Code = "check.undefined"
	FewTruths            delivery.Code = "check.fewTruths"
	FewGroups            delivery.Code = "check.fewGroups"
	FewImages            delivery.Code = "check.fewImages"
	NotShared            delivery.Code = "check.notShared"
	NotCompared          delivery.Code = "baseline.notCompared"
	IsBaseline           delivery.Code = "baseline.same"
	NoBaseline           delivery.Code = "baseline.none"
	OtherProtocol        delivery.Code = "baseline.otherProtocol"
	BaselineNoThresholds delivery.Code = "baseline.noThresholds"
	VersionUnknown       delivery.Code = "baseline.versionUnknown"
	VersionBundleGone    delivery.Code = "baseline.versionBundleGone"
	CheckClassMissing    delivery.Code = "check.classMissing"
	TooManyLooks         delivery.Code = "check.tooManyLooks"
	TrainedOnEvalSet     delivery.Code = "check.trainedOnEvalSet"
	TakenAsFail          delivery.Code = "check.takenAsFail"
	NothingApplies       delivery.Code = "verdict.nothingApplies"
	MoreChecks           delivery.Code = "verdict.moreChecks"
	PassedChecks         delivery.Code = "verdict.passedChecks"
	ImagesLeftOut        delivery.Code = "verdict.imagesLeftOut"
)

// The chain from a commit to a device, as aob explain shows it.
const (
	ChainAccepted       delivery.Code = "chain.accepted"
	ChainAlsoMustNotRun delivery.Code = "chain.alsoMustNotRun"
	ChainAskedBy        delivery.Code = "chain.askedBy"
	ChainAtCommit       delivery.Code = "chain.atCommit"
	ChainAuthored       delivery.Code = "chain.authored"
	ChainBaseline       delivery.Code = "chain.baseline"
	ChainBundle         delivery.Code = "chain.bundle"
	ChainBundleFailed   delivery.Code = "chain.bundleFailed"
	ChainBundleGone     delivery.Code = "chain.bundleGone"
	ChainCheck          delivery.Code = "chain.check"
	ChainContent        delivery.Code = "chain.content"
	ChainContentRemoved delivery.Code = "chain.contentRemoved"
	ChainData           delivery.Code = "chain.data"
	ChainDesiredAll     delivery.Code = "chain.desiredAll"
	ChainDesiredNothing delivery.Code = "chain.desiredNothing"
	ChainDesiredOther   delivery.Code = "chain.desiredOther"
	ChainDesiredOthers  delivery.Code = "chain.desiredOthers"
	ChainDesiredWave    delivery.Code = "chain.desiredWave"
	ChainDevice         delivery.Code = "chain.device"
	ChainDeviceRuns     delivery.Code = "chain.deviceRuns"
	ChainDeviceSilent   delivery.Code = "chain.deviceSilent"
	ChainFellBack       delivery.Code = "chain.fellBack"
	ChainFigure         delivery.Code = "chain.figure"
	ChainFileRemoved    delivery.Code = "chain.fileRemoved"
	ChainFinding        delivery.Code = "chain.finding"
	ChainGateAccepted   delivery.Code = "chain.gateAccepted"
	ChainGatesAsOf      delivery.Code = "chain.gatesAsOf"
	ChainHead           delivery.Code = "chain.head"
	ChainLifted         delivery.Code = "chain.lifted"
	ChainMoreDevices    delivery.Code = "chain.moreDevices"
	ChainMustNotRun     delivery.Code = "chain.mustNotRun"
	ChainNeverAccepted  delivery.Code = "chain.neverAccepted"
	ChainNoRelease      delivery.Code = "chain.noRelease"
	ChainNoTraining     delivery.Code = "chain.noTraining"
	ChainNotAccepted    delivery.Code = "chain.notAccepted"
	ChainNotOnMain      delivery.Code = "chain.notOnMain"
	ChainOnBranch       delivery.Code = "chain.onBranch"
	ChainOtherEntry     delivery.Code = "chain.otherEntry"
	ChainPull           delivery.Code = "chain.pull"
	ChainPullClosed     delivery.Code = "chain.pullClosed"
	ChainPullHead       delivery.Code = "chain.pullHead"
	ChainScores         delivery.Code = "chain.scores"
	ChainSeed           delivery.Code = "chain.seed"
	ChainSeedBest       delivery.Code = "chain.seedBest"
	ChainSigned         delivery.Code = "chain.signed"
	ChainSignedAccepted delivery.Code = "chain.signedAccepted"
	ChainThreshold      delivery.Code = "chain.threshold"
	ChainThresholds     delivery.Code = "chain.thresholds"
	ChainTrain          delivery.Code = "chain.train"
	ChainTrained        delivery.Code = "chain.trained"
	ChainTraining       delivery.Code = "chain.training"
	ChainUnsigned       delivery.Code = "chain.unsigned"
	ChainVersion        delivery.Code = "chain.version"
	ChainVersionGone    delivery.Code = "chain.versionGone"
	ChainVersionRefused delivery.Code = "chain.versionRefused"
	ChainWas            delivery.Code = "chain.was"
)
