package history

import (
	"context"
	"encoding/json"
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

// What is read when AOB sees a repository for the first time, or main was moved to another line.
const (
	FirstCommits = 50  // commits of main
	firstPulls   = 200 // of the newest pull requests
)

// lostKey is where the ledger keeps which gates main has lost.
func (h *History) lostKey() string { return "lost/" + h.branch }

// lostGates is what main had lost by a commit.
type lostGates struct {
	Commit string     `json:"commit"`
	Gates  []lostFile `json:"gates,omitempty"` // newest first
}

// A lostFile is a gate that a commit of main removed or weakened.
type lostFile struct {
	git.LineChange        // the commit; its Files are left out
	File           string `json:"file"` // below gates/
	Was            string `json:"was"`  // what the file said before
}

// gate parses what the file said.
func (l lostFile) gate() (delivery.Gate, bool) {
	if g, ok := commits.Document("gates/"+l.File, []byte(l.Was)).Value.(delivery.Gate); ok {
		return g, true
	}
	g, complaints := intent.Draft(intent.File{Path: "gates/" + l.File, Data: []byte(l.Was)})
	// Gates had no classes before.
	return g, len(complaints) == 0 && len(g.Checks) > 0 && len(g.Classes) == 0 &&
		g.Evaluate.Dataset != (delivery.Dataset{})
}

// readLost reads what the process before this one knew to be lost.
func (h *History) readLost(ctx context.Context) error {
	if h.lost != nil {
		return nil
	}
	kept, err := h.ledger.Records(ctx, h.lostKey())
	if err != nil {
		return err
	}
	var known lostGates
	if text := kept[h.lostKey()].Content; text != "" {
		if err := json.Unmarshal([]byte(text), &known); err != nil {
			h.turn.Log.Warn("the gates that main has lost cannot be read from the ledger; reading main's history",
				"error", err.Error())
			known = lostGates{}
		}
	}
	h.lost = &known
	return nil
}

// Shown is the pull requests that may have shown what main has lost, by their heads.
type Shown struct {
	Merged []string          // the forge says that they were merged
	Maybe  []string          // the forge has not said yet what became of them
	Refs   map[string]string // of the repository, among them the heads of all pull requests
}

// LostGates finds the gates that main asks less of than it did, where no pull request showed that. A lost gate stays
// lost until main asks as much again, or a pull request that changes the gate is merged. With an error it returns the
// gates that were known before.
func (h *History) LostGates(ctx context.Context, main string, prs Shown) ([]plan.LostGate, error) {
	list, err := h.findLost(ctx, main, prs)
	if err != nil && list == nil {
		list = h.KnownLostGates()
	}
	return list, err
}

// KnownLostGates returns the gates that were known to be lost when main was last read.
func (h *History) KnownLostGates() []plan.LostGate {
	if h.lost == nil {
		return nil
	}
	return h.lost.list()
}

// list returns the gates that were lost.
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
	if err := h.readLost(ctx); err != nil {
		return nil, err
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
		settled: map[string]bool{}}
	now := lostGates{Commit: main}
	for _, c := range changes {
		found, err := s.by(c)
		if err != nil {
			return nil, err
		}
		now.Gates = append(now.Gates, found...)
	}
	for _, l := range before.Gates {
		stays, err := s.stays(l)
		if err != nil {
			return nil, err
		}
		known := slices.ContainsFunc(now.Gates, func(n lostFile) bool {
			return n.Commit == l.Commit && n.File == l.File
		})
		if stays && !known {
			now.Gates = append(now.Gates, l)
		}
	}
	list := now.list()
	if !s.unsure { // else the same commits are looked at again once it is known what was merged
		if err := h.keepLost(ctx, now); err != nil {
			return list, err
		}
	}
	h.lostList, h.lostFor = list, key
	return list, nil
}

// keepLost writes down what main has lost, where that changed. How far main was read is written with it.
func (h *History) keepLost(ctx context.Context, now lostGates) error {
	first := h.lost.Commit == ""
	same := delivery.DigestOf("lost", now.Gates) == delivery.DigestOf("lost", h.lost.Gates)
	h.lost = &now
	if same && !first && h.lostKept == now.Commit {
		return nil
	}
	text, err := json.Marshal(now)
	if err == nil {
		err = h.ledger.PutRecord(ctx, h.lostKey(), string(text), h.turn.Now())
	}
	if err != nil {
		return fmt.Errorf("remember which gates main has lost: %w", err)
	}
	h.lostKept = now.Commit
	return nil
}

// A lostSearch goes through main's commits, newest first.
type lostSearch struct {
	h       *History
	head    delivery.Intent
	merged  []string        // heads of pull requests that were merged
	maybe   []string        // heads of those of which the forge has not said yet what became of them
	settled map[string]bool // by file: a newer pull request showed it
	unsure  bool            // it depends on maybe
}

// by finds what one commit lost.
func (s *lostSearch) by(c git.LineChange) (list []lostFile, err error) {
	if c.Parent == "" {
		return nil, nil
	}
	for _, file := range slices.Sorted(maps.Keys(c.Files)) {
		if s.settled[file] {
			continue
		}
		data, err := s.h.commits.File(c.Parent, "gates/"+file)
		if err != nil && !errors.Is(err, git.ErrTooBig) { // what is too big was no gate
			return nil, err
		}
		l := lostFile{LineChange: git.LineChange{Commit: c.Commit, Parent: c.Parent, Others: c.Others}, File: file,
			Was: string(data)}
		was, ok := l.gate()
		if !ok || !plan.Weaker(was, s.head) {
			continue
		}
		if shown, err := s.shown(l); err != nil || shown {
			s.settled[file] = shown
			if err != nil {
				return nil, err
			}
			continue
		}
		after, err := s.h.commits.Tree(c.Commit)
		if err != nil {
			return nil, err
		}
		if plan.Weaker(was, after.Intent) {
			list = append(list, l)
		}
	}
	return list, nil
}

// stays reports whether a loss that was found before is one still.
func (s *lostSearch) stays(l lostFile) (bool, error) {
	was, ok := l.gate()
	if !ok || s.settled[l.File] || !plan.Weaker(was, s.head) {
		return false, nil
	}
	shown, err := s.shown(l)
	return !shown, err
}

// shown reports whether a pull request showed a loss.
func (s *lostSearch) shown(l lostFile) (bool, error) {
	shown, err := s.h.shown(l.LineChange, "gates/"+l.File, slices.Concat(l.Others, s.merged))
	if err != nil || shown {
		return shown, err
	}
	shown, err = s.h.shown(l.LineChange, "gates/"+l.File, s.maybe)
	s.unsure = s.unsure || shown
	return shown, err
}

// newestPulls returns the heads of the newest pull requests that a forge keeps refs of.
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
	var heads []string
	for _, n := range numbers[max(0, len(numbers)-firstPulls):] {
		heads = append(heads, byNumber[n])
	}
	return heads
}

// shown reports whether the diff of one of some heads contained what a commit of main did to a file. The commit may
// have merged that head, or the head may have been squashed or rebased into it.
func (h *History) shown(c git.LineChange, path string, heads []string) (bool, error) {
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
