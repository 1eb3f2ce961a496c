package reconciler

// This file takes the steps of the plan. Taking a step twice has the same effect as taking it once.

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
	"github.com/autonomos/aob/reconciler/poll"
	"github.com/autonomos/aob/reconciler/queue"
	"github.com/autonomos/aob/reconciler/words"
)

// maxTakenPause is the longest pause before a step is taken again that succeeded and is still planned.
const maxTakenPause = time.Minute

// slice is how long a turn takes steps. The next turn, which follows at once, takes the rest, so that a pull request
// which has just come gets its first status soon, however many steps there are for others.
const slice = 500 * time.Millisecond

// act takes the steps in order. It returns how many succeeded, and the errors by step key; left is true if the slice or
// ctx ended before the last step. A failed step does not stop the others, and is tried again after a pause. A step that
// succeeded is not taken again at once, because its effect may take a while to show.
func (r *Reconciler) act(ctx context.Context, steps []plan.Step) (done int, failed map[string]error, left bool) {
	failed = map[string]error{}
	planned := map[string]bool{}
	for _, s := range steps {
		planned[s.Key()] = true
	}
	start := r.Now()
	for _, s := range steps {
		key := s.Key()
		if ctx.Err() != nil || r.Now().Sub(start) > slice {
			left = true
			r.turn.Soon("steps are left")
			break
		}
		if r.pushes.Has(key) {
			r.stillFailing(key, failed) // it is being pushed
			continue
		}
		if err := r.retry.Due(key, r.Now()); err != nil {
			failed[key] = err
			continue
		}
		if t, ok := r.taken[key]; ok && r.Now().Before(t.next) {
			r.turn.At(t.next, "a step is still planned")
			continue
		}
		r.Log.Info("step", "step", words.Step(s), "turn", r.observed.why)
		err := r.do(ctx, s)
		if r.pushes.Has(key) {
			r.stillFailing(key, failed)
			continue
		}
		if r.stepEnded(s, 0, err); err != nil {
			failed[key] = err
		} else {
			done++
		}
	}
	maps.DeleteFunc(r.taken, func(key string, _ taken) bool { return !planned[key] })
	return done, failed, left
}

// stillFailing keeps the last error of a step while it is tried again, so that it stays shown.
func (r *Reconciler) stillFailing(key string, failed map[string]error) {
	if e, ok := r.retry[key]; ok {
		failed[key] = e.Err
	}
}

// stepEnded records the result of a step.
func (r *Reconciler) stepEnded(s plan.Step, took time.Duration, err error) {
	key, now := s.Key(), r.Now()
	r.retry.Note(key, now, took, err)
	r.Metrics.Step(stepKind(key), err)
	if err != nil {
		delete(r.taken, key)
		r.Log.Warn("step failed", "step", words.Step(s), "error", err.Error(), "again", r.retry[key].Next)
		return
	}
	pause := min(max(2*r.taken[key].pause, time.Second), maxTakenPause)
	r.taken[key] = taken{now.Add(pause), pause}
}

// push queues a step that moves a branch.
func (r *Reconciler) push(s plan.Step, branch string, do func(context.Context) error, ended func(error) error) {
	key := s.Key()
	r.pushing[key] = pendingPush{s, ended}
	r.pushes.Put(queue.Job{Key: key, Lane: branch, Do: do, Took: r.retry[key].Took})
}

// pushed handles the results of pushes.
func (r *Reconciler) pushed() {
	for _, res := range r.pushes.Results() {
		p, err := r.pushing[res.Key], res.Err
		delete(r.pushing, res.Key)
		if p.ended != nil {
			err = p.ended(err)
		}
		r.stepEnded(p.step, res.Took, err)
		r.turn.Soon("a push has ended")
		r.git.Poll.Send()
	}
}

// stepKind returns the kind of a step from its key.
func stepKind(key string) string {
	k, _, _ := strings.Cut(key, "/")
	return k
}

func (r *Reconciler) do(ctx context.Context, s plan.Step) error {
	switch s := s.(type) {
	case plan.StartRun:
		r.observed.running = true
		if err := r.Runs.Start(ctx, s.Spec); err != nil {
			return err
		}
		if _, known := r.observed.world.Runs[s.Spec.Key]; !known { // else the run is resumed
			r.Metrics.RunStarted(s.Spec.Kind)
		}
		return r.Runs.Keep(s.Spec.Key, plan.NeedOf(s))
	case plan.KeepNeed:
		return r.Runs.Keep(s.Run, s.Need)
	case plan.EndRun:
		return r.Runs.End(ctx, s.Run, words.Text(s.Why))
	case plan.Sign:
		if a, ok := s.Predicate.(delivery.Abort); ok {
			s.Predicate = words.Abort(a, s.Why)
		}
		return r.Evidence.Sign(ctx, s.Bundle, s.Type, s.Predicate)
	case plan.CommitRelease:
		return r.commitRelease(ctx, s)
	case plan.Propose:
		return r.propose(ctx, s)
	case plan.Publish:
		return r.Fleet.Publish(ctx, s.Desired)
	case plan.AskBench:
		return r.Fleet.Ask(ctx, s.Request)
	case plan.KeepClock:
		if a := s.State.Abort; a != nil {
			written := words.Abort(*a, s.Why)
			s.State.Abort = &written
		}
		state, err := json.Marshal(s.State)
		if err != nil {
			return err
		}
		return r.Ledger.PutClock(ctx, s.Fleet, state)
	}
	return fmt.Errorf("no way to do a %T", s)
}

// commitRelease commits the release files to the head that the plan saw. The commit has the head's time, so making it
// again gives the same commit. A push to another head is refused.
func (r *Reconciler) commitRelease(ctx context.Context, s plan.CommitRelease) error {
	if s.PR.Fork {
		return delivery.Blockedf("push the branch here, or a maintainer runs: "+words.AdoptCommand(s.PR),
			"every gate passed, but AOB cannot push to a fork") // short enough for a status
	}
	_, _, when, err := r.Repo.Author(s.PR.Head)
	if err != nil {
		return err
	}
	files := map[string][]byte{}
	var subjects []string
	for _, rel := range s.Releases {
		files["models/"+rel.Name+".release.yaml"] = intent.FormatRelease(rel, words.ReleaseNotes(s.Verdicts[rel.Name]))
		subjects = append(subjects, fmt.Sprintf("%s version %d", rel.Name, rel.Version))
	}
	message := "Release " + strings.Join(subjects, ", ") + "\n\nEvery gate passed; the figures are in the diff.\n"
	commit, err := r.Repo.Commit([]string{s.PR.Head}, files, when, message)
	if err != nil {
		return err
	}
	r.push(s, s.PR.HeadRef, func(ctx context.Context) error {
		if r.Committer != nil {
			return r.commitOnForge(ctx, s.PR, commit, message, files)
		}
		return moved(r.Repo.Push(ctx, commit, git.Branch+s.PR.HeadRef, s.PR.Head))
	}, nil)
	return nil
}

// commitOnForge has the forge make the commit that AOB has made in its mirror, so that the forge signs it.
func (r *Reconciler) commitOnForge(ctx context.Context, pr delivery.PullRequest, own, message string,
	files map[string][]byte) error {
	want, err := r.Repo.TreeHash(own)
	if err != nil {
		return err
	}
	commit, tree, err := r.Committer.Commit(ctx, pr.HeadRef, pr.Head, message, files)
	if err != nil {
		return err
	}
	if tree != want {
		return delivery.Blockedf("find out what changes files there, such as a filter of the server, and push again",
			"the forge's commit %.10s on %s has other files than aob asked for", commit, pr.HeadRef)
	}
	return nil
}

// moved turns a lost race into a Wait: the next turn reads the branch again.
func moved(err error) error {
	if errors.Is(err, git.ErrMoved) {
		return delivery.Wait{For: time.Second, What: "the branch has moved meanwhile"}
	}
	return err
}

// pushedKey is the ledger's prefix for the last commit that AOB pushed to a branch.
const pushedKey = "pushed/"

// propose opens a pull request of AOB's own. Its commit depends only on its content and on main's commit, so making it
// again gives the same commit. The pull request is opened only if the branch is at that commit, so that AOB does not
// vouch for changes by others.
func (r *Reconciler) propose(ctx context.Context, s plan.Propose) error {
	commit, err := r.proposed(s, s.Base)
	if err != nil {
		return err
	}
	if !r.pulls.KnowsOpened() { // otherwise one that people have closed may be opened again
		return delivery.Wait{For: time.Second, What: "the ledger cannot say which pull requests were opened"}
	}
	branch, old, err := r.freeBranch(ctx, s.Branch, func(at string) bool { return at == commit || r.made(s, at) })
	if err == nil && old == "" {
		err = r.Ledger.PutRecord(ctx, pushedKey+branch, commit, r.Now())
	}
	if err != nil {
		return err
	}
	if old != "" {
		commit = old
	}
	number := 0
	title, description, _ := words.Proposed(s)
	r.push(s, branch, func(ctx context.Context) error {
		if old == "" {
			if err := moved(r.Repo.Push(ctx, commit, git.Branch+branch, "")); err != nil {
				return err
			}
		}
		at, err := r.Repo.At(ctx, git.Branch+branch)
		if err != nil {
			return err
		}
		if at != commit {
			return delivery.Wait{For: time.Second, What: fmt.Sprintf("somebody pushed to %s meanwhile", branch)}
		}
		number, err = r.Forge.OpenPR(ctx, branch, r.Main, title, description)
		return err
	}, func(err error) error {
		if err != nil {
			return err
		}
		r.Log.Info("opened a pull request", "pr", number, "branch", branch, "commit", commit, "title",
			words.Text(s.Title))
		r.answers.Poll.Send()
		return r.pulls.HasOpened(ctx, s.Branch, poll.Own{Branch: branch, Commit: commit, Number: number})
	})
	return nil
}

// freeBranch returns a branch that AOB may push to: name, or name with a number if somebody else has a branch of that
// name. pushed is the branch's commit if it is AOB's already; "" if the branch does not exist. ours reports whether a
// commit is AOB's.
func (r *Reconciler) freeBranch(ctx context.Context, name string, ours func(commit string) bool) (branch, pushed string,
	err error) {
	last, err := r.Ledger.Records(ctx, pushedKey)
	if err != nil {
		return "", "", err
	}
	for n := 1; n < 100; n++ {
		branch = name
		if n > 1 {
			branch = fmt.Sprintf("%s-%d", name, n)
		}
		at, there := r.observed.refs[git.Branch+branch]
		if !there || at == last[pushedKey+branch].Content || ours(at) {
			return branch, at, nil
		}
		r.Log.Warn("a branch is not AOB's; taking another name", "branch", branch, "at", at)
	}
	return "", "", delivery.Blockedf("remove them", "there are too many branches that begin with %s", name)
}

// made reports whether AOB would make this commit for a proposal, from this or an earlier commit of main.
func (r *Reconciler) made(s plan.Propose, commit string) bool {
	line, err := r.Repo.FirstParents(commit, 2)
	if err != nil || len(line) < 2 {
		return false
	}
	// AOB starts only from commits of main.
	if bases, err := r.commits.MergeBases(line[1], s.Base); err != nil || len(bases) != 1 || bases[0] != line[1] {
		return false
	}
	same, err := r.proposed(s, line[1])
	return err == nil && same == commit
}

// proposed makes the commit of AOB's own pull request, on a commit of main.
func (r *Reconciler) proposed(s plan.Propose, base string) (commit string, err error) {
	files := map[string][]byte{}
	for _, path := range slices.Sorted(maps.Keys(s.Restore)) {
		data, err := r.commits.File(s.Restore[path], path)
		if err != nil {
			return "", err
		}
		files[path] = data
	}
	if s.Quarantine != nil {
		files["models/"+s.Quarantine.Name+".quarantine.yaml"] = intent.FormatQuarantine(*s.Quarantine)
	}
	_, _, when, err := r.Repo.Author(base)
	if err != nil {
		return "", err
	}
	title, _, message := words.Proposed(s)
	return r.Repo.Commit([]string{base}, files, when, title+"\n\n"+message+"\n")
}
