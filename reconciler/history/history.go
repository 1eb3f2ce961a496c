// Package history reads what main has held, whatever its tree says by now: the releases
// of models, the entries of quarantine files, gates that were removed or weakened where no
// pull request showed it, fleets that were made to run another model, and moves of main
// back to an older commit.
//
// All of it is read from main's commits, and each commit once. The ledger keeps what the
// history may not show any more, for example after main was moved to another line of
// commits. What cannot be read is named in the world: what was known before stands for
// it, and it is read again after a pause.
package history

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/commits"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/turn"
)

// A Repo is the mirror of the intent repository.
type Repo interface {
	commits.Repo
	// Missing says why a ref was not found; nil if it was, or if the repository is empty.
	Missing(ref string) error
	Has(commit string) error
	History(head, path string) ([]git.FileVersion, error)
	Line(head, stop, folder string, limit int) (changes []git.LineChange, reached bool, err error)
}

// A Ledger keeps what main's history may not show any more.
type Ledger interface {
	Records(ctx context.Context, prefix string) (map[string]ledger.Record, error)
	PutRecord(ctx context.Context, key, content string, at time.Time) error
}

// Troubles of what is read.
const (
	MainTrouble       = "main cannot be read"
	quarantineTrouble = "what main holds in quarantine cannot be read; nothing new is accepted meanwhile"
	releasesTrouble   = "the history of a model on main cannot be read; the model waits, and its fleets keep what " +
		"they run"
	fleetsTrouble = "the history of a fleet on main cannot be read; the fleet keeps what it runs"
)

// retryAfter is how long a history that cannot be read is not read again.
const retryAfter = 10 * time.Second

// maxSpecs is how many specs of main's past are kept.
const maxSpecs = 10_000

// A History is what main has held. It belongs to the loop's goroutine.
type History struct {
	repo    Repo
	ledger  Ledger
	turn    *turn.Turn
	commits *commits.Reader
	branch  string // main

	good        string          // the last commit of main that could be read
	rewound     []plan.Rewound  // when main went back, where that has to be shown
	rewoundRead bool            // rewound was read from the ledger
	quarantine  *quarantineLog  // nil until read
	quarantined delivery.Digest // of the entries that the ledger has
	lost        *lostGates      // nil until the ledger was read
	lostKept    string          // main's commit that the ledger has with the lost gates
	lostList    []plan.LostGate // as found for lostFor
	lostFor     delivery.Digest
	moves       map[string][]plan.Repoint     // of movesAt, by fleet and model
	movesAt     string                        // a commit of main
	releases    map[string][]plan.Past        // of models, as read last
	failed      map[string]failure            // of models whose history cannot be read
	specs       map[[2]string]delivery.Digest // of models in main's past, by commit and name
}

// A failure is why something could not be read, and when.
type failure struct {
	err error
	at  time.Time
}

// New returns the history of a branch.
func New(repo Repo, book Ledger, t *turn.Turn, reader *commits.Reader, branch string) *History {
	return &History{repo: repo, ledger: book, turn: t, commits: reader, branch: branch,
		releases: map[string][]plan.Past{}, failed: map[string]failure{}, specs: map[[2]string]delivery.Digest{}}
}

// lastGoodKey is where the ledger keeps the last commit of main that could be read.
const lastGoodKey = "main/"

// Main reads main's tree at a commit. While main cannot be read, or is gone (no commit), the last commit that could be
// read stands for it, and stale is true.
func (h *History) Main(ctx context.Context, commit string) (main plan.Main, stale bool, err error) {
	main = plan.Main{Branch: h.branch, History: map[string][]plan.Past{}, Unread: map[string]string{},
		UnreadFleets: map[string]string{}}
	if h.good == "" {
		if kept, err := h.ledger.Records(ctx, lastGoodKey+h.branch); err == nil {
			if good := kept[lastGoodKey+h.branch].Content; !strings.HasPrefix(good, "{") { // see oldQuarantineKey
				h.good = good
			}
		}
	}
	var tree commits.Tree
	if commit == "" {
		if err = h.repo.Missing(git.Branch + h.branch); err == nil && h.good == "" {
			return main, false, nil // there is nothing yet
		}
		if err == nil {
			err = delivery.Blockedf("push it again, or set main: in the configuration", "there is no branch %s",
				h.branch)
		}
	} else {
		tree, err = h.commits.Tree(commit)
	}
	if err == nil {
		h.turn.Note(MainTrouble, nil)
		main.Commit, main.Intent, main.Complaints = commit, tree.Intent, tree.Complaints
		main.Rewound = h.wentBack(ctx, h.good, commit)
		if commit != h.good {
			h.good = commit
			h.keep(ctx, lastGoodKey+h.branch, commit)
		}
		return main, false, nil
	}
	last := h.good
	if last == "" || last == commit {
		h.turn.Note(MainTrouble, err)
		return main, false, fmt.Errorf("read %s: %w", h.branch, err)
	}
	what := fmt.Sprintf("fleets go on with what %.12s says", last)
	if commit != "" {
		what = fmt.Sprintf("%s is at %.12s; %s", h.branch, commit, what)
	}
	h.turn.Note(MainTrouble, turn.Meanwhile(err, what))
	if tree, err = h.commits.Tree(last); err != nil {
		return main, false, fmt.Errorf("read %s at its last good commit %.12s: %w", h.branch, last, err)
	}
	main.Commit, main.Intent, main.Complaints = last, tree.Intent, tree.Complaints
	h.turn.In(time.Second, "main is read again")
	return main, true, nil
}

// keep writes to the ledger. Failing to is shown and stops nothing.
func (h *History) keep(ctx context.Context, key, content string) {
	h.turn.Note(turn.LedgerWrites, h.ledger.PutRecord(ctx, key, content, h.turn.Now()))
}
