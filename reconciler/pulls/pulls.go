// Package pulls reads the open pull requests: what their heads ask for, what merging them
// would yield, what their authors may do, and what became of those that are not open any
// more.
//
// A turn reads for a bounded time, and the next turns go on. What people without write
// permission make it read has a budget. A pull request that cannot be read keeps no
// other from being read, and is itself named as unreadable.
//
// The ledger keeps which pull requests were open, because a merge takes one out of the
// forge's list before AOB could say what became of it, and which ones AOB has opened
// itself, because one that people have closed is not opened again.
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
	// Ahead says what the commits do that a head has and a branch does not have.
	Ahead(head, branch string) (git.Ahead, error)
	// Moved names files that a commit has removed since base, and another one has changed.
	Moved(base, removed, changed string) ([]string, error)
}

// A Ledger keeps which pull requests were open and which ones are AOB's own.
type Ledger interface {
	Records(ctx context.Context, prefix string) (map[string]ledger.Record, error)
	PutRecord(ctx context.Context, key, content string, at time.Time) error
}

// Answers is what the forge has answered about pull requests, as [poll.Forge] keeps it.
type Answers interface {
	List() poll.Pulls
	Author(user string) (may delivery.Permission, known bool)
	Orders(pr int) poll.Orders
	Ends(gone map[int]delivery.PullRequest) map[int]delivery.PullRequest
	Lost(own poll.Own) bool
}

// A Forge has an address: the numbers of pull requests mean nothing at another one.
type Forge interface{ Address() string }

// Trouble is the trouble that a pull request cannot be read.
const Trouble = "pull request %d cannot be read"

// badLasts is how long a head that cannot be read is not read again.
const badLasts = 5 * time.Minute

// maxKept is how many merges, and how many measured heads, are kept.
const maxKept = 10_000

// Now is what a turn knows when it reads pull requests.
type Now struct {
	Main      string            // main's commit
	Refs      map[string]string // of the repository
	Approvals []ledger.Approval
	Last      plan.Plan // of the turn before
	Stale     bool      // main or the list of pull requests is old: nothing is read
}

// A Reader reads pull requests. It belongs to the loop's goroutine.
type Reader struct {
	repo    Repo
	ledger  Ledger
	forge   Forge
	answers Answers
	turn    *turn.Turn
	commits *commits.Reader
	branch  string // main

	now     Now
	until   time.Time            // what was not read before is read until then
	late    map[int]int          // by pull request: turns whose time it took and that did not read it whole
	bad     map[string]failure   // heads that cannot be read
	extents map[[2]string]extent // how much a head changes, by head and main
	merges  map[[3]string]merge  // what merging yields, by main, merge base and head
	open    map[int]openPull     // pull requests whose final status was not posted; nil until read
	opened  map[string]poll.Own  // AOB's own pull requests, by the branch that plans name; nil until read
	heads   map[int]string       // of pull requests that changed gates and were merged; nil until read
}

// A failure is why a head cannot be read, and when that was found.
type failure struct {
	err error
	at  time.Time
}

// New returns a reader of the pull requests to a branch.
func New(repo Repo, book Ledger, forge Forge, answers Answers, t *turn.Turn, reader *commits.Reader,
	branch string) *Reader {
	return &Reader{repo: repo, ledger: book, forge: forge, answers: answers, turn: t, commits: reader, branch: branch,
		late: map[int]int{}, bad: map[string]failure{}, extents: map[[2]string]extent{}, merges: map[[3]string]merge{}}
}

// ReadTime is how much of a turn goes into reading heads that were not read before. What is left is read by the next
// turns, so that no pull request, and no number of them, keeps fleets waiting.
const ReadTime = 150 * time.Millisecond

// errLate is what reading a head ends with when the turn's time for that is over.
var errLate = delivery.Wait{For: time.Second, What: "reads the files of this pull request; others are read too"}

// inTime reports whether there is time left for what was not read before.
func (r *Reader) inTime() bool { return !r.turn.Now().After(r.until) }

// inTurns returns the pull requests of people who may write, in the order in which their heads are read, and those of
// the others, which are read after them. One that took the time of a turn comes after the others.
func (r *Reader) inTurns(prs []delivery.PullRequest) (writers, strangers []int) {
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

// isReported reports whether a pull request was judged at its head before: that stands while it is read again.
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

// Read reads the open pull requests, those whose authors may write first. One that cannot be read keeps no other from
// being read.
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
		if !pr.Merged {
			pr.Head = poll.Head(pr, now.Refs)
		}
		p := plan.Proposal{PullRequest: pr, Stale: now.Stale}
		heads[pr.Head] = true
		if now.Stale {
			r.commits.Keep(pr.Head)
			proposals[i] = p
			return
		}
		if pr.Base == r.branch {
			began := r.inTime()
			switch late := r.proposal(&p, &left); {
			case !late:
				delete(r.late, pr.Number)
			default:
				if began { // it took the rest of the time
					r.late[pr.Number]++
				}
				r.turn.Soon("pull requests are still to be read")
				p.Stale = r.isReported(pr)
			}
		}
		if r.open != nil {
			r.wasOpen(ctx, p)
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
	writers, strangers := r.inTurns(prs)
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

// proposal reads one pull request's trees and what its author may do. What cannot be read becomes a complaint; what is
// not known yet makes it wait. It is late where there was no time left to read it.
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
		case tooLarge: // it is read once its author is known to have write permission
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
		if p.Head == "" { // its ref is damaged: nobody knows whose it is, so its runs go on
			what, p.Pending = p.Unreadable, plain(p.Unreadable)
		}
		p.Complaints = []delivery.Complaint{{Text: what}}
	}
	if !known && p.Pending.IsZero() && !p.Landed {
		p.Pending = delivery.Fact{Code: code.PermissionAwaited, Values: delivery.Values{By: p.Author}}
	}
	for _, g := range r.now.Approvals {
		if g.PR == p.Number {
			p.Gos = append(p.Gos, g.Code)
		}
	}
	orders := r.answers.Orders(p.Number)
	for _, code := range orders.Approved {
		if !slices.Contains(p.Gos, code) {
			p.Gos = append(p.Gos, code)
		}
	}
	p.Accepts, p.Waits, p.Refused = orders.Accepts, orders.Waits, orders.Refused
	return late
}

// isSettled reports whether an error stays until the commit is another.
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
