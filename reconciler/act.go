package reconciler

// This file does what the plan says, and decides nothing. Every effect carries
// its key or is looked up first, so doing it twice is doing it once.

import (
	"context"
	"encoding/json"
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

// act performs the steps in order and returns the errors by step key. One that
// fails keeps no other from being tried, and waits before it is tried again.
func (r *Reconciler) act(ctx context.Context, steps []plan.Step) map[string]error {
	failed := map[string]error{}
	for _, s := range steps {
		key := s.Key()
		err := r.retry.due(key, r.Now())
		if err == nil {
			r.Log.Info("step", "step", s.String())
			err = r.do(ctx, s)
			r.retry.note(key, r.Now(), err)
			r.Metrics.Step(kind(key), err)
			if err != nil {
				r.Log.Warn("step failed", "step", s.String(), "error", err.Error())
			}
		}
		if err != nil {
			failed[key] = err
		}
	}
	return failed
}

func kind(key string) string {
	k, _, _ := strings.Cut(key, "/")
	return k
}

func (r *Reconciler) do(ctx context.Context, s plan.Step) error {
	switch s := s.(type) {
	case plan.StartRun:
		r.seen.active = true
		err := r.Runs.Start(ctx, s.Spec)
		if err == nil {
			r.Metrics.RunStarted(s.Spec.Kind)
		}
		return err
	case plan.EndRun:
		return r.Runs.End(ctx, s.Run, s.Why)
	case plan.Sign:
		return r.Evidence.Sign(ctx, s.Bundle, s.Type, s.Predicate)
	case plan.CommitRelease:
		return r.commitRelease(ctx, s)
	case plan.Propose:
		return r.propose(ctx, s)
	case plan.Publish:
		return r.Fleet.Publish(ctx, s.Desired)
	case plan.KeepClock:
		state, err := json.Marshal(s.State)
		if err != nil {
			return err
		}
		return r.Ledger.PutClock(ctx, s.Fleet, state)
	}
	return fmt.Errorf("no way to do a %T", s)
}

// commitRelease writes the release files on top of the head that the plan saw.
// The commit's time is the head's, so that writing it again makes the same
// commit, and a push onto another head is refused.
func (r *Reconciler) commitRelease(ctx context.Context, s plan.CommitRelease) error {
	if s.PR.Fork {
		return delivery.Blockedf("push the branch here, or a maintainer runs: aob pr adopt "+fmt.Sprint(s.PR.Number),
			"every gate passed, but AOB cannot push the release file to a fork") // fits a status's description
	}
	_, _, when, err := r.Repo.Author(s.PR.Head)
	if err != nil {
		return err
	}
	files := map[string][]byte{}
	var subjects []string
	for _, rel := range s.Releases {
		files["models/"+rel.Name+".release.yaml"] = intent.FormatRelease(rel)
		subjects = append(subjects, fmt.Sprintf("%s version %d", rel.Name, rel.Version))
	}
	message := "Release " + strings.Join(subjects, ", ") + "\n\nEvery gate passed; the figures are in the diff.\n"
	commit, err := r.Repo.Commit([]string{s.PR.Head}, files, git.Author{Name: delivery.CommitName, Email: delivery.CommitEmail, When: when}, message)
	if err != nil {
		return err
	}
	return moved(r.Repo.Push(ctx, commit, git.Branch+s.PR.HeadRef, s.PR.Head))
}

// moved turns a lost race into "look again".
func moved(err error) error {
	if errors.Is(err, git.ErrMoved) {
		return delivery.Wait{For: time.Second, What: "the branch has moved meanwhile"}
	}
	return err
}

// openedKey is where the ledger keeps which branches were proposed.
const openedKey = "proposed/"

// propose opens a pull request of AOB's own. Its branch is found again by name,
// and its commit is a function of its content and of main's, so a repeat is
// identical. A branch that people have gone on with is left alone.
func (r *Reconciler) propose(ctx context.Context, s plan.Propose) error {
	if _, there := r.seen.refs[git.Branch+s.Branch]; !there {
		if err := r.pushProposal(ctx, s); err != nil {
			return err
		}
	}
	number, err := r.Forge.OpenPR(ctx, s.Branch, r.Main, s.Title, s.Body)
	if err != nil {
		return err
	}
	r.Log.Info("opened a pull request", "pr", number, "branch", s.Branch, "title", s.Title)
	r.seen.opened[s.Branch] = true
	return r.Ledger.PutSaid(ctx, openedKey+s.Branch, s.Title, r.Now())
}

func (r *Reconciler) pushProposal(ctx context.Context, s plan.Propose) error {
	files := map[string][]byte{}
	for _, path := range slices.Sorted(maps.Keys(s.Restore)) {
		data, err := r.fileAt(s.Restore[path], path)
		if err != nil {
			return err
		}
		files[path] = data
	}
	if s.Quarantine != nil {
		files["models/"+s.Quarantine.Name+".quarantine.yaml"] = intent.FormatQuarantine(*s.Quarantine)
	}
	_, _, when, err := r.Repo.Author(s.Base)
	if err != nil {
		return err
	}
	commit, err := r.Repo.Commit([]string{s.Base}, files, git.Author{Name: delivery.CommitName, Email: delivery.CommitEmail, When: when}, s.Title+"\n\n"+s.Message+"\n")
	if err != nil {
		return err
	}
	return moved(r.Repo.Push(ctx, commit, git.Branch+s.Branch, ""))
}

// fileAt reads a file at a commit; nil where it was not there, or for no commit.
func (r *Reconciler) fileAt(commit, path string) ([]byte, error) {
	if commit == "" {
		return nil, nil
	}
	files, err := r.Repo.Files(commit)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if f.Path == path {
			return r.Repo.Blob(f.Hash, intent.MaxFileSize)
		}
	}
	return nil, nil
}

// Adopt brings a fork's pull request into the repository itself, on a branch of
// AOB's, so that the release can be committed to it.
func (r *Reconciler) Adopt(ctx context.Context, number int) (int, error) {
	for _, pr := range r.seen.prs {
		if pr.Number != number {
			continue
		}
		if !pr.Fork {
			return 0, delivery.Blockedf("nothing is to be done: aob pushes to its branch", "pull request %d is no fork's", number)
		}
		branch := fmt.Sprintf("aob/adopt-%d", number)
		if err := r.Repo.Push(ctx, pr.Head, git.Branch+branch, r.seen.refs[git.Branch+branch]); err != nil {
			return 0, err
		}
		return r.Forge.OpenPR(ctx, branch, r.Main, delivery.CommitText(pr.Title), fmt.Sprintf("Adopted from #%d by %s.", number, delivery.Markdown(pr.Author)))
	}
	return 0, delivery.Blockedf("aob pr list shows the open ones", "there is no open pull request %d", number)
}
