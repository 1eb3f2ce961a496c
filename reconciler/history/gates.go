package history

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/commits"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/plan"
)

// What is read if AOB sees a repository for the first time, or main was moved to another line of commits.
const (
	FirstCommits = 50  // commits of main
	firstPulls   = 200 // newest pull requests
)

// lostKey is the ledger's key of the lostGates.
func (h *History) lostKey() string { return "lost/" + h.branch }

// lostGates contains the gates that main has lost up to a commit.
type lostGates struct {
	Commit string     `json:"commit"`
	Gates  []lostFile `json:"gates,omitempty"` // newest first
}

// A lostFile is a gate that a commit of main has removed or weakened.
type lostFile struct {
	git.LineChange        // the commit; its Files are left out
	File           string `json:"file"` // below gates/
	Before         string `json:"was"`  // the content of the file before the commit
}

// gate parses the content before the commit. Gates of earlier versions had no classes.
func (l lostFile) gate() (delivery.Gate, bool) {
	path := "gates/" + l.File
	if g, ok := commits.Document(path, []byte(l.Before)).Value.(delivery.Gate); ok {
		return g, true
	}
	g, complaints := intent.Draft(intent.File{Path: path, Data: []byte(l.Before)})
	return g, len(complaints) == 0 && len(g.Checks) > 0 && len(g.Classes) == 0 &&
		g.Evaluate.Dataset != (delivery.Dataset{})
}

// Shown contains the heads of the pull requests that may have shown that a gate was removed or weakened.
type Shown struct {
	Merged []string          // of merged pull requests
	Maybe  []string          // of pull requests that may have been merged; the forge has not answered yet
	Refs   map[string]string // of the repository, including the heads of all pull requests
}

// LostGates returns the gates that main has removed or weakened without a pull request that showed it. Such a gate is
// lost until main requires as much again, or a pull request that changes the gate is merged. With an error, it returns
// the gates that were known before.
func (h *History) LostGates(ctx context.Context, main string, prs Shown) ([]plan.LostGate, error) {
	list, err := h.findLost(ctx, main, prs)
	if err != nil && list == nil {
		list = h.KnownLostGates()
	}
	return list, err
}

// KnownLostGates returns the lost gates as main was last read.
func (h *History) KnownLostGates() []plan.LostGate {
	if h.lost == nil {
		return nil
	}
	return h.lost.list()
}

// list returns the gates that can be parsed.
func (m lostGates) list() (list []plan.LostGate) {
	for _, l := range m.Gates {
		if g, ok := l.gate(); ok {
			list = append(list, plan.LostGate{Gate: g, Commit: l.Commit})
		}
	}
	return list
}

func (h *History) findLost(ctx context.Context, main string, prs Shown) ([]plan.LostGate, error) {
	if main == "" {
		return nil, nil
	}
	if h.lost == nil {
		stored, _, err := readRecord[lostGates](ctx, h, h.lostKey())
		if err != nil {
			return nil, err
		}
		h.lost, h.lostStored = &stored, delivery.DigestOf("lost", stored)
	}
	key := delivery.DigestOf("lost", []any{main, prs.Merged, prs.Maybe})
	if h.lostFor == key {
		return h.lostList, nil
	}
	before := h.lost
	var pulls []string
	limit := math.MaxInt
	if before.Commit == "" {
		limit, pulls = FirstCommits, newestPulls(prs.Refs)
	}
	changes, reached, err := h.repo.Line(main, before.Commit, "gates", limit)
	if err == nil && !reached && before.Commit != "" { // main was moved
		changes, _, err = h.repo.Line(main, "", "gates", FirstCommits)
	}
	if err != nil {
		return nil, err
	}
	head, err := h.commits.Tree(main)
	if err != nil {
		return nil, err
	}
	s := lostSearch{h: h, head: head.Intent, merged: slices.Concat(prs.Merged, pulls), maybe: prs.Maybe,
		shown: map[string]bool{}}
	now := lostGates{Commit: main}
	for _, c := range changes {
		lost, err := s.lostIn(c)
		if err != nil {
			return nil, err
		}
		now.Gates = append(now.Gates, lost...)
	}
	for _, l := range before.Gates {
		still, err := s.isLost(l)
		if err != nil {
			return nil, err
		}
		known := slices.ContainsFunc(now.Gates, func(n lostFile) bool {
			return n.Commit == l.Commit && n.File == l.File
		})
		if still && !known {
			now.Gates = append(now.Gates, l)
		}
	}
	list := now.list()
	if !s.unsure { // else the same commits are searched again when the forge has answered
		if err := h.storeLost(ctx, now); err != nil {
			return list, err
		}
	}
	h.lostList, h.lostFor = list, key
	return list, nil
}

// storeLost writes the lost gates to the ledger if they have changed.
func (h *History) storeLost(ctx context.Context, now lostGates) error {
	h.lost = &now
	digest := delivery.DigestOf("lost", now)
	if digest == h.lostStored {
		return nil
	}
	err := h.writeRecord(ctx, h.lostKey(), now)
	if err == nil {
		h.lostStored = digest
	}
	return err
}

// A lostSearch searches main's commits for lost gates, newest first.
type lostSearch struct {
	h      *History
	head   delivery.Intent
	merged []string        // heads of merged pull requests
	maybe  []string        // heads of pull requests that may have been merged
	shown  map[string]bool // files that a newer merged pull request has changed
	unsure bool            // the result depends on maybe
}

// lostIn returns the gates that one commit has removed or weakened.
func (s *lostSearch) lostIn(c git.LineChange) (list []lostFile, err error) {
	if c.Parent == "" {
		return nil, nil
	}
	for _, file := range slices.Sorted(maps.Keys(c.Files)) {
		if s.shown[file] {
			continue
		}
		data, err := s.h.commits.File(c.Parent, "gates/"+file)
		if err != nil && !errors.Is(err, git.ErrTooBig) { // a file that is too large was not a gate
			return nil, err
		}
		l := lostFile{LineChange: git.LineChange{Commit: c.Commit, Parent: c.Parent, Others: c.Others}, File: file,
			Before: string(data)}
		before, ok := l.gate()
		if !ok || !plan.Weaker(before, s.head) {
			continue
		}
		if s.shown[file], err = s.isShown(l); err != nil {
			return nil, err
		}
		if s.shown[file] {
			continue
		}
		after, err := s.h.commits.Tree(c.Commit)
		if err != nil {
			return nil, err
		}
		if plan.Weaker(before, after.Intent) {
			list = append(list, l)
		}
	}
	return list, nil
}

// isLost reports whether a gate that was lost before is still lost.
func (s *lostSearch) isLost(l lostFile) (bool, error) {
	before, ok := l.gate()
	if !ok || s.shown[l.File] || !plan.Weaker(before, s.head) {
		return false, nil
	}
	shown, err := s.isShown(l)
	return !shown, err
}

// isShown reports whether a pull request has shown the change.
func (s *lostSearch) isShown(l lostFile) (bool, error) {
	path := "gates/" + l.File
	shown, err := s.h.isShown(l.LineChange, path, slices.Concat(l.Others, s.merged))
	if err != nil || shown {
		return shown, err
	}
	shown, err = s.h.isShown(l.LineChange, path, s.maybe)
	s.unsure = s.unsure || shown
	return shown, err
}

// newestPulls returns the heads of the newest pull requests.
func newestPulls(refs map[string]string) []string {
	byNumber := map[int]string{}
	for ref, commit := range refs {
		var n int
		if name, ok := strings.CutPrefix(ref, git.Pull); ok {
			if _, err := fmt.Sscanf(name, "%d/head", &n); err == nil {
				byNumber[n] = commit
			}
		}
	}
	numbers := slices.Sorted(maps.Keys(byNumber))
	return delivery.Each(numbers[max(0, len(numbers)-firstPulls):], func(n int) string { return byNumber[n] })
}

// isShown reports whether the diff of one of some heads contains the change of a file in a commit of main. The commit
// may be a merge of that head, or the head may have been squashed or rebased.
func (h *History) isShown(c git.LineChange, path string, heads []string) (bool, error) {
	now, err := h.commits.Hash(c.Commit, path)
	if err != nil {
		return false, err
	}
	for _, head := range heads {
		if h.repo.Has(head) != nil {
			continue
		}
		if theirs, err := h.commits.Hash(head, path); err != nil || theirs != now {
			continue
		}
		bases, err := h.commits.MergeBases(head, c.Parent)
		if err != nil || len(bases) == 0 {
			continue
		}
		differs := true
		for _, base := range bases {
			from, err := h.commits.Hash(base, path)
			differs = differs && err == nil && from != now
		}
		if differs {
			return true, nil
		}
	}
	return false, nil
}
