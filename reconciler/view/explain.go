package view

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/words"
)

// Commits is what Explain reads from the repository besides the last turn. Its methods may be called at any time.
type Commits interface {
	History(head, path string) ([]git.FileVersion, error)
	Blob(hash string, limit int64) ([]byte, error)
	Subject(commit string) (string, error)
	FirstParents(head string, limit int) ([]string, error)
	Author(commit string) (name, email string, when time.Time, err error)
	Refs() map[string]string
}

// Explain returns the chain of one thing. Without commits, main's history comes from signed statements, and authors are
// unknown.
func (s *Snapshot) Explain(kind explain.Kind, id string, commits Commits) (explain.Chain, error) {
	r := explain.Report{World: s.World, Plan: s.Plan,
		Silent: func(d delivery.Device) bool { return s.At.Sub(d.LastHeard) > s.deadline() }}
	if commits != nil {
		if err := s.past(&r, kind, id, commits); err != nil {
			return explain.Chain{}, fmt.Errorf("read the history of %s: %w", s.World.Main.Branch, err)
		}
	}
	c, err := r.Explain(kind, id)
	return words.Chain(c), s.unknown(err)
}

// unknown replaces the error that a model or gate does not exist, if main cannot be read.
func (s *Snapshot) unknown(err error) error {
	u, ok := errors.AsType[explain.Unknown](err)
	if why := s.World.MainUnknown(); ok && !why.IsZero() && (u.Kind == explain.Model || u.Kind == "gate") {
		return delivery.Blockedf("aob status says when it can be read again",
			"nobody can say whether there is a %s %s: %s", u.Kind, delivery.Terminal(u.ID), words.Text(why))
	}
	return err
}

// past reads the history of main's release files and their authors: of one model if that is to be explained, else of
// all accepted models.
func (s *Snapshot) past(r *explain.Report, kind explain.Kind, id string, commits Commits) error {
	var models []string
	switch {
	case s.World.Main.Commit == "" || strings.Contains(id, "/"):
		return nil
	case kind == explain.Model:
		models = []string{id}
	default:
		models = slices.Sorted(maps.Keys(s.World.Evidence.Accepted))
	}
	r.Heads, r.Versions = map[int]string{}, map[string][]explain.Version{}
	for ref, commit := range commits.Refs() {
		var n int
		if rest, ok := strings.CutPrefix(ref, git.Pull); ok {
			if _, err := fmt.Sscanf(rest, "%d/head", &n); err == nil {
				r.Heads[n] = commit
			}
		}
	}
	if n, err := strconv.Atoi(strings.TrimPrefix(id, "#")); kind == explain.PR && err == nil {
		if err := s.merge(r, n, commits); err != nil {
			return err
		}
	}
	for _, model := range models {
		path := "models/" + model + ".release.yaml"
		list, err := commits.History(s.World.Main.Commit, path)
		if err != nil {
			return err
		}
		versions := make([]explain.Version, 0, len(list))
		for _, v := range list {
			version := explain.Version{Commit: v.Commit}
			if version.Subject, err = commits.Subject(v.Commit); err != nil {
				return err
			}
			if version.Author, _, version.At, err = commits.Author(v.Commit); err != nil {
				return err
			}
			if v.Blob != "" {
				data, err := commits.Blob(v.Blob, intent.MaxFileSize)
				if err != nil && !errors.Is(err, git.ErrTooBig) {
					return err
				}
				doc := intent.ParseFile(intent.File{Path: path, Data: data}, intent.Options{})
				if r, ok := doc.Value.(delivery.Release); ok {
					version.Release = &r
				}
			}
			versions = append(versions, version)
		}
		r.Versions[model] = versions
	}
	return nil
}

// mergesRead is how many commits of main are searched for the merge of a pull request.
const mergesRead = 10_000

// merge finds the commit of main that merged a pull request.
func (s *Snapshot) merge(r *explain.Report, number int, commits Commits) error {
	line, err := commits.FirstParents(s.World.Main.Commit, mergesRead)
	if err != nil {
		return err
	}
	for _, commit := range line {
		subject, err := commits.Subject(commit)
		if err != nil {
			return err
		}
		if commit == r.Heads[number] || explain.Mentions(subject, number) {
			v := explain.Version{Commit: commit, Subject: subject}
			v.Author, _, v.At, err = commits.Author(commit)
			r.Merge = &v
			return err
		}
	}
	return nil
}
