// Package pulls reads the open pull requests: the intent of their heads, the result of merging them, the permissions of
// their authors, and how those ended that are not open any more.
//
// A turn reads for a limited time, and the next turns continue. There is a budget for changes by people without write
// permission. A pull request that cannot be read is reported as unreadable, and others are read nevertheless.
//
// The ledger stores which pull requests were open, because a merged one is not in the
// forge's list any more when AOB posts its final status. It also stores which ones AOB
// has opened, because AOB does not open one again that people have closed.
package pulls

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/commits"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/poll"
	"github.com/autonomos/aob/reconciler/turn"
)

// A Repo is the mirror of the intent repository.
type Repo interface {
	commits.Repo
	Has(commit string) error
	// FirstParents returns a commit, its first parent, and so on, at most limit.
	FirstParents(commit string, limit int) ([]string, error)
	// Ahead returns the changes of the commits that a head has and a branch does not have.
	Ahead(head, branch string) (git.Ahead, error)
	// Moved returns files that one commit has removed since base and another one has changed.
	Moved(base, removed, changed string) ([]string, error)
}

// Answers are the forge's answers about pull requests; see [poll.Forge].
type Answers interface {
	List() poll.Pulls
	Author(user string) (may delivery.Permission, known bool)
	Orders(pr int) poll.Orders
	Ends(gone map[int]delivery.PullRequest) map[int]delivery.PullRequest
	Lost(own poll.Own) bool
}

// A Forge has an address, because each forge has its own numbers of pull requests.
type Forge interface{ Address() string }

// Trouble is the name of the trouble that a pull request cannot be read.
const Trouble = "pull request %d cannot be read"

const (
	badLasts = 5 * time.Minute // pause before a head that cannot be read is read again
	maxKept  = 10_000          // cached merges, and cached sizes of heads
)

// Now is what a turn knows when it reads pull requests.
type Now struct {
	Main      string            // main's commit
	Refs      map[string]string // of the repository
	Approvals []ledger.Approval
	Last      plan.Plan // of the previous turn
	Stale     bool      // main or the list of pull requests is old: nothing is read
}

// A Reader reads pull requests. Only the loop's goroutine may use it.
type Reader struct {
	repo    Repo
	ledger  ledger.RecordStore
	forge   Forge
	answers Answers
	turn    *turn.Turn
	commits *commits.Reader
	branch  string // main

	now     Now
	until   time.Time            // end of the time for reading
	late    map[int]int          // by pull request: how many turns did not have enough time for it
	bad     map[string]failure   // heads that cannot be read
	extents map[[2]string]extent // how much a head changes, by head and main
	merges  map[[3]string]merge  // by main, merge base and head
	open    map[int]openPull     // pull requests whose final status was not posted; nil until read
	opened  map[string]poll.Own  // AOB's pull requests, by the branch that plans name; nil until read
	heads   map[int]string       // of merged pull requests that changed gates; nil until read
}

// A failure is why a head cannot be read, and since when.
type failure struct {
	err error
	at  time.Time
}

// New returns a reader of the pull requests to a branch.
func New(repo Repo, book ledger.RecordStore, forge Forge, answers Answers, t *turn.Turn, reader *commits.Reader,
	branch string) *Reader {
	return &Reader{repo: repo, ledger: book, forge: forge, answers: answers, turn: t, commits: reader, branch: branch,
		late: map[int]int{}, bad: map[string]failure{}, extents: map[[2]string]extent{}, merges: map[[3]string]merge{}}
}

// ReadTime is how much time of a turn is used to read new heads. The next turns read the rest, so that fleets do not
// wait for large or many pull requests.
const ReadTime = 150 * time.Millisecond

// errLate means that the turn's time for reading is over.
var errLate = delivery.Wait{For: time.Second, What: "reads the files of this pull request; others are read too"}

// inTime reports whether there is time left to read something new.
func (r *Reader) inTime() bool { return !r.turn.Now().After(r.until) }

// byPermission returns the indexes of pull requests of people with write permission, those that needed fewest turns
// first, and the indexes of the others.
func (r *Reader) byPermission(prs []delivery.PullRequest) (writers, strangers []int) {
	for i, pr := range prs {
		if may, _ := r.answers.Author(pr.Author); pr.LimitPermission(may) == delivery.PermissionWrite {
			writers = append(writers, i)
		} else {
			strangers = append(strangers, i)
		}
	}
	slices.SortStableFunc(writers, func(a, b int) int {
		return cmp.Compare(r.late[prs[a].Number], r.late[prs[b].Number])
	})
	return writers, strangers
}

// headOf returns the head of a pull request.
func (r *Reader) headOf(pr delivery.PullRequest) string {
	if pr.Merged {
		return pr.Head
	}
	return poll.Head(pr, r.now.Refs)
}

// isReported reports whether the last plan has judged a pull request at its present head.
func (r *Reader) isReported(pr delivery.PullRequest) bool {
	return slices.ContainsFunc(r.now.Last.Proposals, func(p plan.ProposalReport) bool {
		return p.PR.Number == pr.Number && p.PR.Head == pr.Head && len(p.Checks) > 0
	})
}

// headTree parses what the head of a pull request asks for, if there is time.
func (r *Reader) headTree(commit string) (commits.Tree, error) {
	if r.commits.Has(commit) {
		return r.commits.Tree(commit)
	}
	if !r.inTime() {
		return commits.Tree{}, errLate
	}
	files, err := r.repo.Files(commit)
	if err == nil {
		if t, ok, err := r.commits.Quick(commit, files); ok || err != nil {
			return t, err
		}
		err = r.warm(files)
	}
	if err != nil {
		return commits.Tree{}, err
	}
	return r.commits.Tree(commit)
}

// headBases returns the best common ancestors of a head and main, if there is time.
func (r *Reader) headBases(head, main string) ([]string, error) {
	if !r.commits.HasBases(head, main) && !r.inTime() {
		return nil, errLate
	}
	return r.commits.MergeBases(head, main)
}

// warm parses files that were not parsed before, if there is time.
func (r *Reader) warm(files []git.File) error {
	all, err := r.commits.Warm(files, r.inTime)
	if err == nil && !all {
		err = errLate
	}
	return err
}

// Read reads the open pull requests, those of people with write permission first.
func (r *Reader) Read(ctx context.Context, now Now, prs []delivery.PullRequest) []plan.Proposal {
	var bad []string
	left := budget{small: smallsTree, large: strangersTree}
	proposals := make([]plan.Proposal, len(prs))
	r.now, r.until = now, r.turn.Now().Add(ReadTime)
	heads := map[string]bool{}
	open := map[int]bool{}
	read := func(i int) {
		pr := prs[i]
		open[pr.Number] = true
		pr.Head = r.headOf(pr)
		p := plan.Proposal{PullRequest: pr, Stale: now.Stale}
		heads[pr.Head] = true
		if now.Stale {
			r.commits.Keep(pr.Head)
			proposals[i] = p
			return
		}
		if pr.Base == r.branch {
			hadTime := r.inTime()
			if late := r.proposal(&p, &left); late {
				if hadTime { // it took the rest of the time
					r.late[pr.Number]++
				}
				r.turn.Soon("pull requests are still to be read")
				p.Stale = r.isReported(pr)
			} else {
				delete(r.late, pr.Number)
			}
		}
		if r.open != nil {
			r.storeOpen(ctx, p)
		}
		if !p.Pending.IsZero() && p.Unreadable == "" {
			r.turn.In(time.Second, "a pull request waits for an answer")
		}
		if p.Unreadable != "" {
			what := fmt.Sprintf(Trouble, pr.Number)
			bad = append(bad, what)
			r.turn.Note(what, errors.New(p.Unreadable))
		}
		proposals[i] = p
	}
	writers, strangers := r.byPermission(prs)
	for _, i := range writers {
		read(i)
	}
	if !now.Stale {
		r.smallestFirst(strangers, prs)
	}
	for _, i := range strangers {
		read(i)
	}
	maps.DeleteFunc(r.late, func(n, _ int) bool { return !open[n] })
	maps.DeleteFunc(r.bad, func(commit string, _ failure) bool { return !heads[commit] })
	if !now.Stale {
		r.turn.Keep(func(what string) bool {
			var n int
			_, err := fmt.Sscanf(what, Trouble, &n)
			return err == nil
		}, bad)
	}
	return proposals
}

// plain is the text of an error.
func plain(text string) delivery.Fact {
	return delivery.Fact{Code: code.Plain, Values: delivery.Values{Text: text}}
}

// proposal reads the trees of one pull request, the permission of its author and the orders in its comments. An error
// becomes a complaint, and a missing answer makes the pull request wait. late means that there was not enough time.
func (r *Reader) proposal(p *plan.Proposal, left *budget) (late bool) {
	permission, known := r.answers.Author(p.Author)
	p.Permission = p.LimitPermission(permission)
	if p.Unreadable == "" {
		err := r.readProposal(p, left)
		_, waits := errors.AsType[delivery.Wait](err)
		large, tooLarge := errors.AsType[tooLarge](err)
		late = err == error(errLate)
		switch {
		case err == nil:
		case tooLarge && known:
			p.Complaints = []delivery.Complaint{{Text: large.Error()}}
		case tooLarge: // it waits for the author's permission, see below
		case waits || !isSettled(err):
			p.Pending = plain(err.Error())
		default:
			p.Unreadable = err.Error()
		}
	}
	if p.Unreadable != "" {
		what := p.Unreadable
		if !strings.Contains(what, fmt.Sprintf("%.10s", p.Head)) { // a status shows some 140 characters
			what = fmt.Sprintf("commit %.10s cannot be read: %s", p.Head, what)
		}
		if p.Head == "" { // its ref is damaged; its runs must not be ended
			what, p.Pending = p.Unreadable, plain(p.Unreadable)
		}
		p.Complaints = []delivery.Complaint{{Text: what}}
	}
	if !known && p.Pending.IsZero() && !p.Landed {
		p.Pending = delivery.Fact{Code: code.PermissionAwaited, Values: delivery.Values{By: p.Author}}
	}
	orders := r.answers.Orders(p.Number)
	p.Approvals, p.Accepts, p.Waits, p.Refused = r.approved(p.Number), orders.Accepts, orders.Waits, orders.Refused
	return late
}

// isSettled reports whether an error remains until the head changes.
func isSettled(err error) bool {
	_, blocked := errors.AsType[delivery.Blocked](err)
	return blocked
}

func (r *Reader) readProposal(p *plan.Proposal, left *budget) error {
	if bad, ok := r.bad[p.Head]; ok && r.turn.Now().Sub(bad.at) < badLasts {
		return bad.err
	}
	err := r.repo.Has(p.Head)
	if err == nil && p.Permission != delivery.PermissionWrite {
		err = r.within(p, left)
	}
	if err == nil {
		var head commits.Tree
		if head, err = r.headTree(p.Head); err == nil {
			p.Intent = head.Intent
			err = r.merge(p, head)
		}
	}
	if err == nil {
		err = r.checkOwn(p)
	}
	if err != nil && isSettled(err) {
		r.bad[p.Head] = failure{err, r.turn.Now()}
	}
	return err
}
