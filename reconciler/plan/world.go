package plan

import (
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/rollout"
)

// A World is everything that a plan depends on, as seen at one moment.
type World struct {
	At        time.Time
	Main      Main
	Proposals []Proposal
	// ProposalsKnown is false while the forge has not answered: then the list is
	// the last one known, and nothing may be ended for not being in it.
	ProposalsKnown bool
	Runs           map[delivery.Digest]delivery.RunState // by key
	Evidence       Evidence
	Devices        map[string][]delivery.Device // by ring
	Listening      map[string]time.Time         // by ring: since when its devices reach the server without a break
	// by bundle: how the server's own store was found; nil where nobody checks it
	Stored    map[delivery.Digest]Stored
	Clocks    map[string]rollout.State    // by fleet
	Published map[string]delivery.Desired // by ring: what devices read now; see [Restored] for one of version 0
	Opened    map[string]bool             // branches of AOB's own pull requests: opened once, whatever became of them
	Trials    []Trial                     // experiments, oldest first
	Wanted    []delivery.CompareRun       // comparisons that somebody waits for
	PowerOf   []string                    // gates that somebody asks about
	Nobodies  map[string]string           // owners of gates that cannot own one, and why
	Server    Server
}

// Main is the branch that says what must run.
type Main struct {
	Branch     string
	Commit     string
	Intent     delivery.Intent
	Complaints []delivery.Complaint
	// Quarantine is what main's quarantine files have said, by model: every entry that main
	// has had, also those that its tree lost. See [FollowQuarantine]. Nil is what the tree says.
	Quarantine map[string][]QuarantineEntry
	// Repointed is what made fleets run another model than they were last told to, by
	// fleet, newest first. It holds the fleets that [NeedsRepoints] names.
	Repointed map[string][]Repoint
	// Lost is what main's gates asked for and no longer ask, where no pull request
	// showed that. The newest is first.
	Lost []LostGate
	// History is what main's release files have said, by model, newest first. It
	// holds the models that [NeedsHistory] names, and may hold more.
	History map[string][]Past
	// Rewound says when main went back, newest first: it does not contain what it was before.
	Rewound []Rewound
	// Unread says why what main's files of a model have said cannot be read, by model; "" stands for all of them.
	Unread map[string]string
	// UnreadFleets says why a fleet's part of Repointed cannot be read.
	UnreadFleets map[string]string
}

// Rewound is a move of main that no commit on main asks for: a forge that was
// restored from a backup, or a push by force.
type Rewound struct {
	From string // the commit that main was at
	To   string // the first one that does not contain it
	At   time.Time
	// Ahead is true where From contains what main is now, so that pushing From loses nothing.
	Ahead bool `json:"-"`
}

// Past is what a model's release file said from one commit of main on.
type Past struct {
	Commit  string
	Release *delivery.Release // nil: the file was removed, or did not parse
	Spec    delivery.Digest   // of the model file beside it; empty where there was none
	Side    bool              // from a branch that was merged: main itself has never been there
	Order   int               // of the commit in main's history, across models: 0 is the newest
}

// Stored is what a check of a bundle's bytes in the server's own store found.
type Stored struct {
	At   time.Time // when it was checked
	Lost []string  // files that are gone or damaged; none: all bytes match their digests
}

// A Proposal is an open pull request with its trees.
type Proposal struct {
	delivery.PullRequest
	Permission delivery.Permission // of the author, by the forge's API
	Approvals  []string            // codes that someone with write permission gave
	Accepts    []AcceptComment     // of unsure verdicts, oldest first, by whomever
	// Waits says by code whose agreement to a question of AOB's is missing; "" is that of anybody with write
	// permission.
	Waits map[string][]string
	// Refused are those who asked for a run and have no write permission.
	Refused []string
	Intent  delivery.Intent // at the head
	Base    delivery.Intent // at the newest best common ancestor with main
	// Merged is what merging it into main would yield: main's file where the head
	// has the merge base's, and the head's file where it has another one.
	Merged delivery.Intent
	// Bases lists all best common ancestors with main, newest first. An ordinary
	// history has one.
	Bases []string
	// BothChanged lists the files of gates, fleets and quarantines that main and the
	// head have changed since their base, each in its own way.
	BothChanged []string
	// Undone lists the files of gates, fleets, quarantines and releases that commits of
	// the head change on their way, and that merging it is not seen to change.
	Undone []string
	// Moved lists files that main or the head has removed or moved elsewhere and the
	// other one has changed, where intent files were added.
	Moved      []string
	Complaints []delivery.Complaint // about what merging it would yield
	// Pending says what must be known before it is judged; zero where all is known.
	Pending delivery.Fact
	// Stale: the list of pull requests is older than main's last move, so nothing is concluded about this one.
	Stale  bool
	Landed bool // main contains the head, or the forge says that it was merged
	// Made is the commit that AOB made for a pull request of its own; empty for those of people.
	Made string
	// Foreign lists the files of a pull request of AOB's own that are not as AOB committed them.
	Foreign []string
}

// Evidence is what signed statements say. Every entry has been verified.
type Evidence struct {
	BySpec   map[delivery.Digest]Trained           // by spec digest: what it was resolved to, once
	ByRun    map[delivery.Digest]Trained           // by run key
	Scores   map[delivery.Digest]delivery.Scores   // by score key, of the bundles in Scored
	Scored   map[delivery.Digest]bool              // bundles whose scores were read; nil for all
	Resolved map[delivery.Digest]delivery.Resolved // thresholds, by the key of their run
	Verdicts map[delivery.Digest]delivery.Verdict  // by verdict key
	Releases []delivery.ReleaseStatement
	Accepted map[string][]delivery.Acceptance // by model
	Aborts   []delivery.Abort
	Bundles  map[delivery.Digest]Bundle // that the store holds
	// Unread are the statements whose bytes are gone or damaged. Nobody knows what they say.
	Unread []UnreadStatement
	// Stale says why it could not be read now: it is what was read last. Mostly empty.
	Stale string
	// Unknown says that it was never read: nothing is known.
	Unknown bool
	// Newer are statements that a newer aob signed, and this one cannot read.
	Newer []delivery.NewerStatements
}

// An UnreadStatement is one that cannot be read. How it is listed says what it is about.
type UnreadStatement struct {
	Bundle delivery.Digest
	Type   string // as delivery.AbortType
	Why    string
}

// Blind says why nobody can tell all that main has accepted; empty where that is known. Nothing is judged then, nothing
// is concluded from what is not seen, and the fleets that it is about stay as they are.
func (w World) Blind() delivery.Fact {
	if n := len(w.Main.Complaints); n > 0 {
		return fact(code.MainBroken, values{Branch: w.Main.Branch, Text: w.Main.Complaints[0].String(), Count: n - 1})
	}
	return w.Evidence.newer()
}

// heard is when any device of a ring was heard last; zero where there is none.
func (w World) heard(ring string) (last time.Time) {
	for _, d := range w.Devices[ring] {
		if d.LastHeard.After(last) {
			last = d.LastHeard
		}
	}
	return last
}

// newer says which statements that decide something a newer aob signed. A kind that this aob does not know decides
// nothing that it decides.
func (e Evidence) newer() delivery.Fact {
	decide := slices.DeleteFunc(slices.Clone(e.Newer), func(u delivery.NewerStatements) bool { return u.Known == 0 })
	if len(decide) == 0 {
		return delivery.Fact{}
	}
	return fact(code.NewerSigned, values{Text: delivery.NewerSigned(decide)})
}

// training finds how a bundle came to be: its own training, or that of the bundle
// which its thresholds were added to.
func (e Evidence) training(bundle delivery.Digest) (Trained, bool) {
	for _, r := range e.Resolved {
		if r.Result.Bundle == bundle {
			bundle = r.Input.Valid.Bundle
			break
		}
	}
	for _, t := range e.ByRun {
		if t.Bundle == bundle {
			return t, true
		}
	}
	return Trained{}, false
}

// seen lists what a bundle, and all that it was fine-tuned from, was trained on.
func (e Evidence) trainingImages(bundle delivery.Digest) []delivery.Digest {
	var list []delivery.Digest
	for range 100 { // nobody fine-tunes that often; signed statements that go round must not keep us
		t, ok := e.training(bundle)
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

// Trained is a bundle and how it came to be.
type Trained struct {
	Bundle   delivery.Digest
	Training delivery.Training
}

// A Bundle is what a plan needs to know of a packed model.
type Bundle struct {
	Model      delivery.Digest // of the variant that is judged
	Signature  delivery.Digest
	Size       int64              // of the largest variant, bytes
	Classes    []string           // that it detects, by its own names
	Thresholds map[string]float64 // its own, by class; nil for none
}

// Server is what the server's own version and configuration decide.
type Server struct {
	Trainers map[string]delivery.Trainer // by NAME@VERSION
	Protocol delivery.Digest             // of the evaluator
	Numerics string                      // of the detector
	Provider string                      // what the detector computes on
	DataTime delivery.Duration           // limit of a data run
	EvalTime delivery.Duration           // limit of an eval or compare run
	NextPoll delivery.Duration           // of devices
	Expiry   delivery.Duration           // of desired documents
	Deadline delivery.Duration           // after which a silent device has failed
	Seed     string                      // a secret from which the salts of rollouts are made
	Socket   bool                        // people ask by aob pr ask, and write no comments: a local forge
	URL      string                      // by which people reach it, without a slash at the end; empty for none
	// Least is what the version of every published document is above. Those that are not are published anew: the state
	// folder is an old copy, and devices may have seen newer ones.
	Least int64
	// Runs is how many runs that are no trainings may run at once; 0 is any number.
	Runs int
	// Trainings is how many may run at once; 0 is any number. Those of pull requests
	// go before those of experiments.
	Trainings int
}

// NeedsRepoints names the fleets that main lets run another model than they were last
// told to, and that model.
func NeedsRepoints(w World) map[string]string {
	need := map[string]string{}
	for name, f := range w.Main.Intent.Fleets {
		if d, ok := w.Published[name]; ok && d.Release.Bundle != "" && d.Model != f.Runs {
			need[name] = d.Model
		}
	}
	return need
}

// NeedsHistory names the models whose history on main a plan will read: those
// with an open proposal, and those whose release on main is not simply an
// accepted one with its spec.
func NeedsHistory(w World) []string {
	need := map[string]bool{}
	for name, mdl := range w.Main.Intent.Models {
		r, named := w.Main.Intent.Releases[name]
		if !named {
			need[name] = len(w.Evidence.Accepted[name]) > 0
		} else if !w.Evidence.accepted(r) || mdl.SpecDigest() != r.Spec {
			need[name] = true
		}
	}
	for _, a := range w.Evidence.Aborts {
		need[a.Model] = true
	}
	for _, held := range []map[string][]QuarantineEntry{w.Main.Quarantine, QuarantineOf(w.Main.Intent)} {
		for name, entries := range held {
			need[name] = need[name] || len(entries) > 0
		}
	}
	for _, p := range w.Proposals {
		if p.PullRequest.Base != w.Main.Branch {
			continue
		}
		for _, name := range changedModels(p) {
			need[name], need[p.Merged.Models[name].RenamedFrom] = true, true
		}
	}
	for _, t := range w.Trials {
		need[t.Model] = true
	}
	for _, d := range w.Published {
		need[d.Model] = need[d.Model] || w.Main.Intent.Fleets[d.Ring].Runs != d.Model
	}
	for _, p := range w.Proposals {
		for name, f := range p.Merged.Fleets {
			if was := w.Main.Intent.Fleets[name]; was.Runs != f.Runs || was.Version != f.Version {
				need[f.Runs], need[was.Runs] = true, true
			}
		}
		for name, was := range w.Main.Intent.Fleets {
			if _, kept := p.Merged.Fleets[name]; !kept {
				need[was.Runs] = true
			}
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

// accepted reports whether main has accepted what a release file names.
func (e Evidence) accepted(r delivery.Release) bool {
	for _, a := range e.Accepted[r.Name] {
		if a.Bundle == r.Bundle && a.Spec == r.Spec && a.Version == r.Version {
			return true
		}
	}
	return false
}

// statement finds the release statement that a release file says: the one that
// was judged against a baseline, where several say the same, or else any.
func (e Evidence) statement(r delivery.Release, baseline delivery.Digest) (found delivery.ReleaseStatement, ok bool) {
	for _, s := range e.Releases {
		if names(s, r) && delivery.SameRelease(s.File, r) && (!ok || s.Baseline == baseline) {
			found, ok = s, true
		}
	}
	return found, ok
}

// names reports whether a statement is about the version and bundle that a release
// file names. A plan asks it for every model and every statement there ever was, so
// it comes before the files are compared as a whole, which encodes both.
func names(s delivery.ReleaseStatement, r delivery.Release) bool {
	return s.File.Version == r.Version && s.File.Bundle == r.Bundle && s.File.Name == r.Name
}
