// Package history reads the history of main: the releases of models, the entries of quarantine
// files, gates that were removed or weakened without a pull request that showed it, fleets
// that were changed to run another model, and moves of main back to an older commit.
//
// Each commit is read once. The ledger stores what the history may not contain any more, for example after main was
// moved to another line of commits. If something cannot be read, the world says so and contains what was known before,
// and it is read again after a pause.
package history

import (
	"context"
	"encoding/json"
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
	// Missing returns why a ref was not found. It returns nil if it was found, or if the repository is empty.
	Missing(ref string) error
	Subject(commit string) (string, error)
	Has(commit string) error
	History(head, path string) ([]git.FileVersion, error)
	Line(head, stop, folder string, limit int) (changes []git.LineChange, reached bool, err error)
}

// Names of troubles.
const (
	MainTrouble       = "main cannot be read"
	quarantineTrouble = "what main holds in quarantine cannot be read; nothing new is accepted meanwhile"
	fleetsTrouble     = "the history of a fleet on main cannot be read; the fleet keeps what it runs"
	releasesTrouble   = "the history of a model on main cannot be read; the model waits, and its fleets keep what " +
		"they run"
)

// retryAfter is the pause before something that cannot be read is read again.
const retryAfter = 10 * time.Second

// A History reads the history of main. Only the loop's goroutine may use it.
type History struct {
	repo    Repo
	ledger  ledger.RecordStore
	turn    *turn.Turn
	commits *commits.Reader
	branch  string // main

	good        string          // the last commit of main that could be read
	rewound     []plan.Rewound  // moves of main back that are shown
	rewoundRead bool            // rewound was read from the ledger
	quarantine  *quarantineLog  // nil until read
	quarantined delivery.Digest // of the entries in the ledger
	lost        *lostGates      // nil until read from the ledger
	lostStored  delivery.Digest // of the lost gates in the ledger
	lostList    []plan.LostGate // the result for lostFor
	lostFor     delivery.Digest
	moves       map[string][]plan.Repoint // of movesAt, by fleet and model
	movesAt     string                    // a commit of main
	releases    map[string]*modelPast     // of the models that the last plan needed
	failed      map[string]failure        // models whose history cannot be read
}

// A failure is why something could not be read, and when.
type failure struct {
	err error
	at  time.Time
}

// New returns the history of a branch.
func New(repo Repo, book ledger.RecordStore, t *turn.Turn, reader *commits.Reader, branch string) *History {
	return &History{repo: repo, ledger: book, turn: t, commits: reader, branch: branch,
		releases: map[string]*modelPast{}, failed: map[string]failure{}}
}

// lastGoodKey is the ledger's key of the last commit of main that could be read, without the branch.
const lastGoodKey = "main/"

// Main reads main's tree at a commit. If main cannot be read or does not exist (no commit), Main returns the last
// commit that could be read, and stale is true.
func (h *History) Main(ctx context.Context, commit string) (main plan.Main, stale bool, err error) {
	main = plan.Main{Branch: h.branch, History: map[string][]plan.Past{}, Unread: map[string]string{},
		UnreadFleets: map[string]string{}}
	if h.good == "" {
		records, err := h.ledger.Records(ctx, lastGoodKey+h.branch)
		if good := records[lastGoodKey+h.branch].Content; err == nil && !isJSON(good) { // see oldQuarantineKey
			h.good = good
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

// isJSON reports whether a record is a JSON object, and not a commit.
func isJSON(content string) bool { return strings.HasPrefix(content, "{") }

// readRecord reads a JSON object from the ledger. A damaged one is logged and treated as missing, so that main's
// history is read instead.
func readRecord[T any](ctx context.Context, h *History, key string) (value T, found bool, err error) {
	records, err := h.ledger.Records(ctx, key)
	content := records[key].Content
	if err != nil || content == "" || strings.HasPrefix(key, lastGoodKey) && !isJSON(content) { // see oldQuarantineKey
		return value, false, err
	}
	if err := json.Unmarshal([]byte(content), &value); err != nil {
		h.turn.Log.Warn("a record of the ledger is damaged; reading main's history instead", "key", key, "error",
			err.Error())
		return *new(T), false, nil
	}
	return value, true, nil
}

// writeRecord writes a JSON object to the ledger.
func (h *History) writeRecord(ctx context.Context, key string, value any) error {
	content, err := json.Marshal(value)
	if err == nil {
		err = h.ledger.PutRecord(ctx, key, string(content), h.turn.Now())
	}
	if err != nil {
		return fmt.Errorf("store %s in the ledger: %w", key, err)
	}
	return nil
}

// noteUnread begins the trouble that some histories cannot be read, or ends it.
func (h *History) noteUnread(trouble string, bad delivery.Unreadable) {
	if len(bad) == 0 {
		h.turn.Note(trouble, nil)
		return
	}
	h.turn.Note(trouble, bad)
}

// keep writes to the ledger. An error becomes a trouble.
func (h *History) keep(ctx context.Context, key, content string) {
	h.turn.Note(turn.LedgerWrites, h.ledger.PutRecord(ctx, key, content, h.turn.Now()))
}
