package plan

import (
	"maps"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/rollout"
)

// A World is everything that a plan depends on, as observed in one turn.
type World struct {
	At        time.Time
	Main      Main
	Proposals []Proposal
	// ProposalsKnown is false while the list of pull requests is not up to date. Proposals is the last known list then,
	// and a missing pull request does not count as closed.
	ProposalsKnown bool
	Runs           map[delivery.Digest]delivery.RunState // by key
	Evidence       Evidence
	Devices        map[string][]delivery.Device // by ring
	Asked          []delivery.BenchAsked        // of bench devices, by ring and device
	Listening      map[string]time.Time         // by ring: since when its devices can reach the server without a break
	// by bundle: the last check of the server's own store; nil if nothing checks it
	Stored    map[delivery.Digest]Stored
	Clocks    map[string]rollout.State    // by fleet
	Published map[string]delivery.Desired // by ring; see [Restored] for documents of version 0
	Opened    map[string]bool             // branches of AOB's own pull requests, also of closed ones
	Trials    []Trial                     // experiments, oldest first
	Wanted    []delivery.CompareRun       // comparisons that people have requested
	PowerOf   []string                    // gates whose power people have requested
	Orphans   []delivery.Orphan           // that were found in a cloud account, the earliest first
	// Prices are those of the instances that [Instances] names, in the region of the budget, and NoPrice says why there
	// is none.
	Prices  map[string]delivery.Price
	NoPrice map[string]string
	// Spent is what runs have cost. Those in Runs are newer.
	Spent []delivery.Spend
	// SpentUnknown: the ledger cannot be read, so nothing starts that costs money.
	SpentUnknown bool
	// Goers are who gave a go, by pull request and code.
	Goers         map[int]map[string]string
	InvalidOwners map[string]string // invalid owners of gates, and why they are invalid
	Server        Server
}

// Main is the target branch.
type Main struct {
	Branch     string
	Commit     string
	Intent     delivery.Intent
	Complaints []delivery.Complaint
	// Quarantine has all entries that main's quarantine files have had, by model, also those that the tree has lost.
	// See [FollowQuarantine]. If it is nil, the entries of the tree count.
	Quarantine map[string][]QuarantineEntry
	// Repointed has the commits that changed which model a fleet runs, by fleet, newest first, for the fleets that
	// [NeedsRepoints] names.
	Repointed map[string][]Repoint
	// Lost has the gates that main removed or weakened although no pull request showed it, newest first.
	Lost []LostGate
	// History has the contents of main's release files, by model, newest first. It has the models that [NeedsHistory]
	// names, and may have more.
	History map[string][]Past
	// Rewound has the moves of main to a commit that does not contain the one before, newest first.
	Rewound []Rewound
	// Unread says by model why the history of its files cannot be read; "" stands for all models.
	Unread map[string]string
	// UnreadFleets says by fleet why its part of Repointed cannot be read.
	UnreadFleets map[string]string
}

// Rewound is a move of main to a commit that does not contain the one before, as after a forced push or a restored
// backup.
type Rewound struct {
	From string // main's commit before
	To   string // the first commit that does not contain From
	At   time.Time
	// Ahead is true if From contains main's present commit, so that pushing From loses nothing.
	Ahead bool `json:"-"`
}

// Past is a model's release file from one commit of main on.
type Past struct {
	Commit  string
	Release *delivery.Release // nil: the file was removed, or did not parse
	Spec    delivery.Digest   // of the model file in the same commit; empty for none
	Pull    int               // that removed the file, by the commit's subject; 0 if it is not known
	Side    bool              // the commit is from a merged branch, not one that main was at
	Order   int               // of the commit in main's history, across models: 0 is the newest
}

// Stored is the result of checking a bundle's files in the server's own store.
type Stored struct {
	At   time.Time // when it was checked
	Lost []string  // files that are gone or damaged; none: all bytes match their digests
}

// A Proposal is an open pull request with its trees.
type Proposal struct {
	delivery.PullRequest
	Permission delivery.Permission // of the author, by the forge's API
	Approvals  []string            // approval codes in comments of people with write permission
	Accepts    []AcceptComment     // of unsure verdicts, oldest first, by anybody
	// Waits says by code who has not yet confirmed a command by a reaction; "" stands for anybody with write
	// permission.
	Waits map[string][]string
	// Refused has the users who approved a run without write permission.
	Refused []string
	Intent  delivery.Intent // at the head
	Base    delivery.Intent // at the newest best common ancestor with main
	// Merged is the result of merging it into main: main's file if the head has not changed it since the base, else the
	// head's.
	Merged delivery.Intent
	// Bases lists all best common ancestors with main, newest first; usually one.
	Bases []string
	// BothChanged lists the files of gates, fleets and quarantines that main and the head have changed differently
	// since their base.
	BothChanged []string
	// Undone lists the files of gates, fleets, quarantines and releases that commits of the head change, while the
	// merge seems not to change them.
	Undone []string
	// Moved lists files that one side has removed or moved and the other has changed, if intent files were added.
	Moved      []string
	Complaints []delivery.Complaint // about the result of merging it
	// Pending says what must be known before it is judged; zero if nothing is missing.
	Pending delivery.Fact
	// Stale: the list of pull requests is older than main's last move, so nothing is decided about this one.
	Stale  bool
	Landed bool // main contains the head, or the forge says that it was merged
	// Made is AOB's commit in its own pull request; empty for those of people.
	Made string
	// Foreign lists the files in AOB's own pull request that differ from AOB's commit.
	Foreign []string
}

// Evidence is the content of the signed statements. Every entry has been verified.
type Evidence struct {
	BySpec   map[delivery.Digest]Trained           // by spec digest: the bundle that the spec got
	ByRun    map[delivery.Digest]Trained           // by run key
	Scores   map[delivery.Digest]delivery.Scores   // by score key, of the bundles in Scored
	Scored   map[delivery.Digest]bool              // bundles whose scores were read; nil means all
	Resolved map[delivery.Digest]delivery.Resolved // thresholds, by the key of their run
	// Variants has by trained bundle what was made of it; the first of a kind counts.
	Variants map[delivery.Digest][]delivery.MadeVariant
	Benches  map[delivery.Digest][]delivery.Bench // by bundle, oldest first
	Verdicts map[delivery.Digest]delivery.Verdict // by verdict key
	Releases []delivery.ReleaseStatement
	Accepted map[string][]delivery.Acceptance // by model
	Aborts   []delivery.Abort
	Bundles  map[delivery.Digest]Bundle // that the store holds
	// Unread are the statements whose files are gone or damaged.
	Unread []UnreadStatement
	// Stale says why the evidence could not be read now, so that it is what was read last; empty if it could.
	Stale string
	// Unknown is true if the evidence was never read.
	Unknown bool
	// Newer are statements of a newer aob that this one cannot read.
	Newer []delivery.NewerStatements
	// Version counts the changes since the server started. Two with the same version have the same content, except
	// Stale, Scores and Scored. 0: nobody counts, so any two may differ.
	Version int

	index *index // of a plan that is being made; nil: for each question one is made
}

// An UnreadStatement is a statement that cannot be read. The index tells which bundle it is about.
type UnreadStatement struct {
	Bundle delivery.Digest
	Type   string // as delivery.AbortType
	Why    string
}

// MainUnknown says why it is not known what main has accepted; zero if it is known. Nothing is judged then, and the
// fleets that it concerns stay as they are.
func (w World) MainUnknown() delivery.Fact {
	if n := len(w.Main.Complaints); n > 0 {
		return fact(code.MainBroken, values{Branch: w.Main.Branch, Text: w.Main.Complaints[0].String(), Count: n - 1})
	}
	return w.Evidence.newer()
}

// lastHeard returns when the server last had a report from a device of a ring; zero for never.
func (w World) lastHeard(ring string) (last time.Time) {
	for _, d := range w.Devices[ring] {
		if d.LastHeard.After(last) {
			last = d.LastHeard
		}
	}
	return last
}

// newer says which statements of a newer aob decide something. Types that this aob does not know are ignored.
func (e Evidence) newer() delivery.Fact {
	decide := slices.DeleteFunc(slices.Clone(e.Newer), func(u delivery.NewerStatements) bool { return u.Known == 0 })
	if len(decide) == 0 {
		return delivery.Fact{}
	}
	return fact(code.NewerSigned, values{Text: delivery.NewerSigned(decide)})
}

// ScoresOf reports whether scores are those of a bundle. Those of another one with the same ONNX file are, since they
// were measured on that file.
func (e Evidence) ScoresOf(bundle delivery.Digest, scores delivery.EvalRun) bool {
	info, ok := e.Bundles[bundle]
	return scores.Bundle == bundle || ok && scores.Model == info.Model && scores.Signature == info.Signature &&
		maps.Equal(scores.Thresholds, info.Thresholds)
}

// variantBundles lists the bundles of variants, also those with thresholds.
func (e Evidence) variantBundles() map[delivery.Digest]bool {
	all := map[delivery.Digest]bool{}
	for _, list := range e.Variants {
		for _, v := range list {
			all[v.Result.Bundle] = true
		}
	}
	for _, r := range e.Resolved {
		if all[r.Input.Valid.Bundle] {
			all[r.Result.Bundle] = true
		}
	}
	return all
}

// trainingImages lists the images that a bundle and the bundles it was fine-tuned from were trained on, by digests.
func (e Evidence) trainingImages(bundle delivery.Digest) []delivery.Digest {
	var list []delivery.Digest
	for range 100 { // a bound, in case signed statements form a circle
		t, ok := e.Training(bundle)
		if !ok {
			break
		}
		if t.Training.Data.TrainingImages != "" {
			list = append(list, t.Training.Data.TrainingImages)
		}
		if bundle = t.Training.Input.Parent; bundle == "" {
			break
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Trained is a bundle and its training.
type Trained struct {
	Bundle   delivery.Digest
	Training delivery.Training
}

// A Bundle is what a plan needs to know about a packed model.
type Bundle struct {
	Model      delivery.Digest // digest of the variant that is judged
	Signature  delivery.Digest
	Size       int64              // of its ONNX file, bytes
	Classes    []string           // that it detects, by the model's names
	Thresholds map[string]float64 // by class; nil for none
}

// Server is the server's version and configuration.
type Server struct {
	Trainers map[string]delivery.Trainer // by NAME@VERSION
	Weights  map[string]delivery.Weights // base weights, by the names that models use
	Protocol delivery.Digest             // of the evaluator
	Numerics string                      // of the detector
	Provider string                      // hardware that the detector uses
	DataTime delivery.Duration           // limit of a data run
	EvalTime delivery.Duration           // limit of an eval or compare run
	NextPoll delivery.Duration           // of devices
	Expiry   delivery.Duration           // of desired documents
	Deadline delivery.Duration           // after which a silent device has failed
	Seed     string                      // a secret for the salts of rollouts
	Socket   bool                        // a local forge: people use aob pr ask in place of comments
	Trackers []string                    // that models may name, as KIND/NAME
	URL      string                      // address for people, without a slash at the end; empty for none
	// Least is a version below that of every valid document. Older documents are published again: the state folder is
	// an old copy, and devices may have newer documents.
	Least int64
	// Budget is what trainings on machines that cost money may cost.
	Budget Budget
	// Runs is how many runs other than trainings may run at once; 0 is any number.
	Runs int
	// Trainings is how many trainings may run at once; 0 is any number. Those of pull requests start before those of
	// experiments.
	Trainings int
}

// NeedsRepoints returns the fleets that main changes to another model, with the model that they run by their published
// document.
func NeedsRepoints(w World) map[string]string {
	need := map[string]string{}
	for name, f := range w.Main.Intent.Fleets.All() {
		if d, ok := w.Published[name]; ok && d.Release.Bundle != "" && d.Model != f.Runs {
			need[name] = d.Model
		}
	}
	return need
}

// NeedsHistory lists the models whose history on main the plan reads: those in open proposals, aborts, quarantines and
// experiments, those whose release on main is not simply an accepted one with its spec, and those that fleets change to
// or from.
func NeedsHistory(w World) []string {
	need := map[string]bool{}
	for name, mdl := range w.Main.Intent.Models.All() {
		r, named := w.Main.Intent.Releases.Get(name)
		if !named {
			need[name] = len(w.Evidence.Accepted[name]) > 0
		} else if !w.Evidence.accepted(r) || mdl.SpecDigest() != r.Spec {
			need[name] = true
		}
	}
	for _, a := range w.Evidence.Aborts {
		need[a.Model] = true
	}
	for _, quarantines := range []map[string][]QuarantineEntry{w.Main.Quarantine, QuarantineOf(w.Main.Intent)} {
		for name, entries := range quarantines {
			need[name] = need[name] || len(entries) > 0
		}
	}
	for _, p := range w.Proposals {
		if p.PullRequest.Base != w.Main.Branch {
			continue
		}
		for _, name := range changedModels(p) {
			need[name], need[p.Merged.Models.Of(name).RenamedFrom] = true, true
		}
	}
	for _, t := range w.Trials {
		need[t.Model] = true
	}
	for _, d := range w.Published {
		need[d.Model] = need[d.Model] || w.Main.Intent.Fleets.Of(d.Ring).Runs != d.Model
	}
	for _, p := range w.Proposals {
		main, merged := w.Main.Intent.Fleets, p.Merged.Fleets
		for _, name := range main.Changed(merged, func(name string) bool {
			before, f := main.Of(name), merged.Of(name)
			return before.Runs == f.Runs && before.Version == f.Version && before.Ships() == f.Ships()
		}) {
			need[main.Of(name).Runs], need[merged.Of(name).Runs] = true, true
		}
	}
	delete(need, "")
	var names []string
	for name, yes := range need {
		if yes {
			names = append(names, w.names(name)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// accepted reports whether main has accepted the release of a release file.
func (e Evidence) accepted(r delivery.Release) bool {
	return slices.ContainsFunc(e.Accepted[r.Name], func(a delivery.Acceptance) bool {
		return a.Bundle == r.Bundle && a.Spec == r.Spec && a.Version == r.Version
	})
}

// statement finds the signed statement of a release file. If there are several, the one with the given baseline is
// preferred.
func (e Evidence) statement(r delivery.Release, baseline delivery.Digest) (found delivery.ReleaseStatement, ok bool) {
	for _, s := range e.releaseIndex().about[r.Bundle] {
		if names(*s, r) && delivery.SameRelease(s.File, r) && (!ok || s.Baseline == baseline) {
			found, ok = *s, true
		}
	}
	return found, ok
}

// names reports whether a statement is for the version and bundle of a release file. It is checked before the whole
// files are compared, which is slow.
func names(s delivery.ReleaseStatement, r delivery.Release) bool {
	return s.File.Version == r.Version && s.File.Bundle == r.Bundle && s.File.Name == r.Name
}
