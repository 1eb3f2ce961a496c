package reconciler

// This file finds the gates of main that were removed or weakened where no pull request showed it. A loss that was
// found stays until main asks as much again, or a pull request that changes the gate is merged: the ledger keeps it.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/plan"
)

// What is looked at when AOB sees a repository for the first time, or main was moved to another line.
const (
	lostWithin = 50  // commits of main
	shownIn    = 200 // of the newest pull requests
)

// lostKey is where the ledger keeps which gates main has lost.
func (r *Reconciler) lostKey() string { return "lost/" + r.Main }

// A lostMain is what main had lost by a commit.
type lostMain struct {
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
	doc := intent.ParseFile(intent.File{Path: "gates/" + l.File, Size: int64(len(l.Was)), Data: []byte(l.Was)},
		intent.Options{})
	return doc.Gate()
}

// readLost reads what the process before this one knew to be lost.
func (r *Reconciler) readLost(ctx context.Context) error {
	if r.seen.losses != nil {
		return nil
	}
	said, err := r.Ledger.Records(ctx, r.lostKey())
	if err != nil {
		return err
	}
	var known lostMain
	if text := said[r.lostKey()].Content; text != "" {
		if err := json.Unmarshal([]byte(text), &known); err != nil {
			r.Log.Warn("the gates that main has lost cannot be read from the ledger; reading main's history",
				"error", err.Error())
			known = lostMain{}
		}
	}
	r.seen.losses = &known
	return nil
}

// lost finds the gates that main asks less of than it did, where no pull request showed that. prs are the open ones, if
// the list is not older than main. Beside an error it returns those that were known before.
func (r *Reconciler) lost(ctx context.Context, main string, prs []delivery.PullRequest) ([]plan.LostGate, error) {
	list, err := r.findLost(ctx, main, prs)
	if err != nil && list == nil && r.seen.losses != nil {
		list = r.seen.losses.list()
	}
	return list, err
}

// list returns the gates that were lost.
func (m lostMain) list() (list []plan.LostGate) {
	for _, l := range m.Gates {
		if g, ok := l.gate(); ok {
			list = append(list, plan.LostGate{Gate: g, Commit: l.Commit})
		}
	}
	return list
}

func (r *Reconciler) findLost(ctx context.Context, main string, prs []delivery.PullRequest) ([]plan.LostGate, error) {
	if main == "" {
		return nil, nil
	}
	if err := r.readLost(ctx); err != nil {
		return nil, err
	}
	merged, err := r.mergedHeads(ctx)
	if err != nil {
		return nil, err
	}
	maybe := r.maybeMerged(prs)
	key := delivery.DigestOf("lost", []any{main, merged, maybe})
	if r.seen.lostAt == key {
		return r.seen.lost, nil
	}
	before := r.seen.losses
	var pulls []string
	limit := math.MaxInt
	if before.Commit == "" {
		limit, pulls = lostWithin, r.pulls()
	}
	changes, reached, err := r.Repo.Line(main, before.Commit, "gates", limit)
	if err == nil && !reached && before.Commit != "" { // main was moved
		changes, _, err = r.Repo.Line(main, "", "gates", lostWithin)
	}
	if err != nil {
		return nil, err
	}
	head, err := r.tree(main)
	if err != nil {
		return nil, err
	}
	s := lostSearch{r: r, head: head.intent, merged: slices.Concat(merged, pulls), maybe: maybe,
		settled: map[string]bool{}}
	now := lostMain{Commit: main}
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
		if err := r.keepLost(ctx, now); err != nil {
			return list, err
		}
	}
	r.seen.lost, r.seen.lostAt = list, key
	return list, nil
}

// keepLost writes down what main has lost, where that changed. How far main was read is written with it.
func (r *Reconciler) keepLost(ctx context.Context, now lostMain) error {
	first := r.seen.losses.Commit == ""
	same := delivery.DigestOf("lost", now.Gates) == delivery.DigestOf("lost", r.seen.losses.Gates)
	r.seen.losses = &now
	if same && !first && r.seen.lostKept == now.Commit {
		return nil
	}
	text, err := json.Marshal(now)
	if err == nil {
		err = r.Ledger.PutRecord(ctx, r.lostKey(), string(text), r.Now())
	}
	if err != nil {
		return fmt.Errorf("remember which gates main has lost: %w", err)
	}
	r.seen.lostKept = now.Commit
	return nil
}

// A lostSearch goes through main's commits, newest first.
type lostSearch struct {
	r       *Reconciler
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
		data, err := s.r.fileAt(c.Parent, "gates/"+file)
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
		after, err := s.r.tree(c.Commit)
		if err != nil {
			return nil, err
		}
		if plan.Weaker(was, after.intent) {
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
	shown, err := s.r.shown(l.LineChange, "gates/"+l.File, slices.Concat(l.Others, s.merged))
	if err != nil || shown {
		return shown, err
	}
	shown, err = s.r.shown(l.LineChange, "gates/"+l.File, s.maybe)
	s.unsure = s.unsure || shown
	return shown, err
}

// shownPrefix is where the ledger keeps the heads of pull requests that changed gates and were merged, by number.
func (r *Reconciler) shownPrefix() string { return fmt.Sprintf("shown/%s/", r.address()) }

// mergedHeads are the heads of pull requests that the forge says were merged.
func (r *Reconciler) mergedHeads(ctx context.Context) ([]string, error) {
	if r.seen.mergedHeads == nil {
		list, err := r.Ledger.Records(ctx, r.shownPrefix())
		if err != nil {
			return nil, err
		}
		r.seen.mergedHeads = map[int]string{}
		for key, said := range list {
			if n, err := strconv.Atoi(strings.TrimPrefix(key, r.shownPrefix())); err == nil && said.Content != "" {
				r.seen.mergedHeads[n] = said.Content
			}
		}
	}
	var heads []string
	for _, n := range slices.Sorted(maps.Keys(r.seen.mergedHeads)) {
		heads = append(heads, r.seen.mergedHeads[n])
	}
	return heads, nil
}

// wasMerged keeps the head of a pull request that the forge says was merged, if it changed gates.
func (r *Reconciler) wasMerged(ctx context.Context, pr delivery.PullRequest, base string) {
	if _, err := r.mergedHeads(ctx); err != nil || r.seen.mergedHeads[pr.Number] == pr.Head {
		return
	}
	gates := func(commit string) delivery.Digest {
		files, err := r.Repo.Files(commit)
		if err != nil {
			return ""
		}
		return delivery.DigestOf("gates", slices.DeleteFunc(slices.Clone(files), func(f git.File) bool {
			return !strings.HasPrefix(f.Path, "gates/")
		}))
	}
	if gates(base) == gates(pr.Head) {
		return
	}
	r.seen.mergedHeads[pr.Number] = pr.Head
	r.troubles.note(ledgerWrites, r.Ledger.PutRecord(ctx, r.shownPrefix()+strconv.Itoa(pr.Number), pr.Head, r.Now()))
}

// maybeMerged are the heads of pull requests that were open and are not in the list of open ones, and of which the
// forge has not said yet how they ended.
func (r *Reconciler) maybeMerged(prs []delivery.PullRequest) []string {
	open := map[int]bool{}
	for _, pr := range prs {
		open[pr.Number] = true
	}
	var heads []string
	for _, n := range slices.Sorted(maps.Keys(r.seen.open)) {
		if o := r.seen.open[n]; !open[n] && o.ended.IsZero() {
			heads = append(heads, o.PR.Head)
		}
	}
	return heads
}

// pulls lists the heads of the newest pull requests, as the forge keeps them.
func (r *Reconciler) pulls() []string {
	byNumber := map[int]string{}
	for ref, commit := range r.seen.refs {
		var n int
		if name, ok := strings.CutPrefix(ref, git.Pull); ok {
			if _, err := fmt.Sscanf(name, "%d/head", &n); err == nil {
				byNumber[n] = commit
			}
		}
	}
	numbers := slices.Sorted(maps.Keys(byNumber))
	var heads []string
	for _, n := range numbers[max(0, len(numbers)-shownIn):] {
		heads = append(heads, byNumber[n])
	}
	return heads
}

// shown reports whether the diff of one of some heads held what a commit of main did to a
// file: of one that the commit merges, or one that was squashed or rebased into it.
func (r *Reconciler) shown(c git.LineChange, path string, heads []string) (bool, error) {
	now, err := r.blobAt(c.Commit, path)
	if err != nil {
		return false, err
	}
	for _, head := range heads {
		if r.Repo.Has(head) != nil {
			continue
		}
		if theirs, err := r.blobAt(head, path); err != nil || theirs != now {
			continue
		}
		bases, err := r.mergeBases(head, c.Parent)
		if err != nil || len(bases) == 0 {
			continue
		}
		differs := true
		for _, base := range bases {
			from, err := r.blobAt(base, path)
			differs = differs && err == nil && from != now
		}
		if differs {
			return true, nil
		}
	}
	return false, nil
}

// blobAt returns the content hash of a file of a commit; empty where it is not there.
func (r *Reconciler) blobAt(commit, path string) (string, error) {
	files, err := r.Repo.Files(commit)
	if err != nil {
		return "", err
	}
	for _, f := range files {
		if f.Path == path {
			return f.Hash, nil
		}
	}
	return "", nil
}
