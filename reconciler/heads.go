package reconciler

// This file reads the heads of pull requests, within a part of each turn. What was not read in time is read by the next
// turns.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/plan"
)

// headsTime is how much of a turn goes into reading heads that were not read before. What is left is read by the next
// turns, so that no pull request, and no number of them, keeps fleets waiting.
const headsTime = 150 * time.Millisecond

// errLate is what reading a head ends with when the turn's time for that is over.
var errLate = delivery.Wait{For: time.Second, What: "reads the files of this pull request; others are read too"}

// inTime reports whether there is time left for what was not read before.
func (r *Reconciler) inTime() bool { return !r.Now().After(r.seen.until) }

// inTurns returns the pull requests of people who may write, in the order in which their heads are read, and those of
// the others, which are read after them. One that took the time of a turn comes after the others.
func (r *Reconciler) inTurns(prs []delivery.PullRequest) (writers, strangers []int) {
	for i, pr := range prs {
		if may, _ := r.forgeNow.author(pr.Author); pr.May(may) == delivery.PermissionWrite {
			writers = append(writers, i)
		} else {
			strangers = append(strangers, i)
		}
	}
	slices.SortStableFunc(writers, func(a, b int) int {
		return cmp.Compare(r.seen.late[prs[a].Number], r.seen.late[prs[b].Number])
	})
	return writers, strangers
}

// isReported reports whether a pull request was judged at its head before: that stands while it is read again.
func (r *Reconciler) isReported(pr delivery.PullRequest) bool {
	return slices.ContainsFunc(r.seen.plan.Proposals, func(p plan.ProposalReport) bool {
		return p.PR.Number == pr.Number && p.PR.Head == pr.Head && len(p.Checks) > 0
	})
}

// headTree parses what the head of a pull request asks for, if there is time.
func (r *Reconciler) headTree(commit string) (tree, error) {
	if t, ok := r.seen.trees[commit]; ok {
		return t, nil
	}
	if !r.inTime() {
		return tree{}, errLate
	}
	files, err := r.Repo.Files(commit)
	if err == nil {
		err = r.warm(files)
	}
	if err != nil {
		return tree{}, err
	}
	return r.tree(commit)
}

// headBases returns the best common ancestors of a head and main, if there is time.
func (r *Reconciler) headBases(head, main string) ([]string, error) {
	if _, ok := r.seen.bases[[2]string{head, main}]; !ok && !r.inTime() {
		return nil, errLate
	}
	return r.mergeBases(head, main)
}

// warm reads and parses files that were not parsed before, a few at a time, until there is no time left. What was
// parsed is kept for the next turn.
func (r *Reconciler) warm(files []git.File) error {
	const atOnce = 16
	var some []intent.File
	for i, f := range files {
		if f.Size >= 0 && f.Size <= intent.MaxFileSize && f.Mode.IsRegular() && !r.Parser.Has(f.Path, f.Hash) {
			data, err := r.Repo.Blob(f.Hash, intent.MaxFileSize)
			if err != nil {
				return fmt.Errorf("%s: %w", f.Path, err)
			}
			some = append(some, intent.File{Path: f.Path, Hash: f.Hash, Size: f.Size, Data: data})
		}
		if len(some) == atOnce || i == len(files)-1 {
			r.Parser.Warm(some)
			if some = nil; !r.inTime() && i < len(files)-1 {
				return errLate
			}
		}
	}
	return nil
}

// proposals reads the open pull requests. One that cannot be read keeps no other from being read.
func (r *Reconciler) proposals(ctx context.Context, w *plan.World, prs []delivery.PullRequest, stale bool,
	keep map[string]bool) {
	var bad []string
	left := budget{small: smallsTree, large: strangersTree}
	w.Proposals = make([]plan.Proposal, len(prs))
	r.seen.until = r.Now().Add(headsTime)
	open := map[int]bool{}
	read := func(i int) {
		pr := prs[i]
		open[pr.Number] = true
		if !pr.Merged {
			pr.Head = head(pr, r.seen.refs)
		}
		p := plan.Proposal{PullRequest: pr, Stale: stale}
		if stale {
			keep[pr.Head] = true
			w.Proposals[i] = p
			return
		}
		if pr.Base == r.Main {
			began := r.inTime()
			switch late := r.proposal(&p, w.Main.Commit, keep, &left); {
			case !late:
				delete(r.seen.late, pr.Number)
			default:
				if began { // it took the rest of the time
					r.seen.late[pr.Number]++
				}
				r.seen.woken = true // the next turn goes on
				p.Stale = r.isReported(pr)
			}
		}
		if r.seen.open != nil {
			r.wasOpen(ctx, p)
		}
		if p.Pending != "" && p.Unreadable == "" {
			r.wakeAt(r.Now().Add(time.Second))
		}
		if p.Unreadable != "" {
			what := fmt.Sprintf(pullTrouble, pr.Number)
			bad = append(bad, what)
			r.troubles.note(what, errors.New(p.Unreadable))
		}
		w.Proposals[i] = p
	}
	writers, strangers := r.inTurns(prs)
	for _, i := range writers {
		read(i)
	}
	if !stale {
		r.smallestFirst(strangers, prs, w.Main.Commit)
	}
	for _, i := range strangers {
		read(i)
	}
	maps.DeleteFunc(r.seen.late, func(n, _ int) bool { return !open[n] })
	if !stale {
		r.troubles.keep(func(what string) bool {
			var n int
			_, err := fmt.Sscanf(what, pullTrouble, &n)
			return err == nil
		}, bad)
	}
}

// proposal reads one pull request's trees and what its author may do. What cannot be read becomes a complaint; what is
// not known yet makes it wait. It is late where there was no time left to read it.
func (r *Reconciler) proposal(p *plan.Proposal, main string, keep map[string]bool, left *budget) (late bool) {
	keep[p.Head] = true
	permission, known := r.forgeNow.author(p.Author)
	p.Permission = p.May(permission)
	if p.Unreadable == "" {
		err := r.readProposal(p, main, keep, left)
		_, waits := errors.AsType[delivery.Wait](err)
		large, tooLarge := errors.AsType[tooLarge](err)
		late = err == error(errLate)
		switch {
		case err == nil:
		case tooLarge && known:
			p.Complaints = []delivery.Complaint{{Text: large.Error()}}
		case tooLarge: // it is read once its author is known to have write permission
		case waits || !r.settled(err):
			p.Pending = err.Error()
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
			what, p.Pending = p.Unreadable, p.Unreadable
		}
		p.Complaints = []delivery.Complaint{{Text: what}}
	}
	if !known && p.Pending == "" && !p.Landed {
		p.Pending = fmt.Sprintf("asks the forge what %s may do", p.Author)
	}
	for _, g := range r.seen.gos {
		if g.PR == p.Number {
			p.Gos = append(p.Gos, g.Code)
		}
	}
	said := r.forgeNow.said(p.Number)
	for _, code := range said.gos {
		if !slices.Contains(p.Gos, code) {
			p.Gos = append(p.Gos, code)
		}
	}
	p.Accepts, p.Waits, p.Refused = said.accepts, said.waits, said.refused
	return late
}

// settled reports whether an error stays until the commit is another.
func (r *Reconciler) settled(err error) bool {
	_, blocked := errors.AsType[delivery.Blocked](err)
	return blocked
}

func (r *Reconciler) readProposal(p *plan.Proposal, main string, keep map[string]bool, left *budget) error {
	if bad, ok := r.seen.bad[p.Head]; ok && r.Now().Sub(bad.at) < badLasts {
		return bad.err
	}
	err := r.Repo.Has(p.Head)
	if err == nil && p.Permission != delivery.PermissionWrite {
		err = r.within(p, main, left)
	}
	if err == nil {
		var head tree
		if head, err = r.headTree(p.Head); err == nil {
			p.Intent = head.intent
			err = r.merge(p, main, head, keep)
		}
	}
	if err == nil {
		err = r.checkOwn(p, keep)
	}
	if err != nil && r.settled(err) {
		r.seen.bad[p.Head] = unread{err, r.Now()}
	}
	return err
}
