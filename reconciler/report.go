package reconciler

// This file tells people. It decides nothing: every word comes from the plan,
// and from what acting on it said.

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// Forges take about a thousand posts of one status on one commit. Progress is
// posted less and less often, by this factor, so that a run of ten hours needs
// some fifty posts; past the most, only answers are posted.
const (
	progressGrowth   = 1.2
	maxProgressPosts = 100
)

// commentMarker finds AOB's one comment on a pull request again. Forges hide it.
const commentMarker = "report"

// report says what the plan says, where it differs from what was said last.
// Failing to say one thing does not keep the others from being said.
func (r *Reconciler) report(ctx context.Context, p plan.Plan, failed map[string]error) error {
	var errs []error
	speaks := speakers(p)
	for _, pr := range p.Proposals {
		checks := withFailures(pr, p.Steps, failed)
		for i := len(checks) - 1; i >= 0 && speaks[pr.PR.Head] == pr.PR.Number; i-- { // aob/release comes last in the list, and first on the forge
			errs = append(errs, r.sayCheck(ctx, pr.PR.Head, checks[i]))
		}
		body := Comment(pr, checks)
		errs = append(errs, r.say(ctx, fmt.Sprintf("comment/%d", pr.PR.Number), body, func() error {
			return r.Forge.Comment(ctx, pr.PR.Number, commentMarker, body)
		}))
	}
	for _, c := range p.Main.Checks {
		errs = append(errs, r.sayCheck(ctx, p.Main.Commit, c))
	}
	for _, f := range p.Fleets {
		// A fleet that this commit moves nothing of has no place on it.
		told, err := r.said(ctx, "status/"+p.Main.Commit+"/"+delivery.ContextRollout+f.Fleet)
		if errs = append(errs, err); told.Count == 0 && (f.State == delivery.CheckSuccess && !moves(p, f.Fleet) || f.Target.Version == 0 && f.State == delivery.CheckPending) {
			continue
		}
		errs = append(errs, r.sayCheck(ctx, p.Main.Commit, delivery.Check{Context: delivery.ContextRollout + f.Fleet, State: f.State, Description: f.Text}))
	}
	return errors.Join(errs...)
}

// moves reports whether a fleet's rollout comes further in a plan: to its end
// too, or to where it stood before the ledger was lost.
func moves(p plan.Plan, fleet string) bool {
	return slices.ContainsFunc(p.Steps, func(s plan.Step) bool {
		k, ok := s.(plan.KeepClock)
		return ok && k.Fleet == fleet
	})
}

// speakers says, by commit, whose checks stand on it: main's, which has no
// number, or those of one of the pull requests that are at it, a draft or a fork
// last. Two that took turns would never come to an end.
func speakers(p plan.Plan) map[string]int {
	speaks := map[string]int{p.Main.Commit: 0}
	for _, guarded := range []bool{false, true} {
		for _, pr := range p.Proposals {
			if _, taken := speaks[pr.PR.Head]; !taken && guarded == (pr.PR.Draft || pr.PR.Fork) {
				speaks[pr.PR.Head] = pr.PR.Number
			}
		}
	}
	return speaks
}

// withFailures shows what a person must settle: an error of a step for this
// pull request stands in aob/release instead of the plan's hope.
func withFailures(pr plan.ProposalReport, steps []plan.Step, failed map[string]error) []delivery.Check {
	checks := append([]delivery.Check(nil), pr.Checks...)
	for _, s := range steps {
		err := failed[s.Key()]
		if err == nil || !concerns(s, pr) {
			continue
		}
		for i := range checks {
			if checks[i].Context != delivery.ContextRelease || checks[i].State != delivery.CheckPending {
				continue
			}
			checks[i].Description = err.Error()
			if b, ok := errors.AsType[delivery.Blocked](err); ok {
				checks[i].State, checks[i].Description = delivery.CheckFailure, b.Error()
			}
		}
	}
	return checks
}

// concerns reports whether a step is taken for a pull request.
func concerns(s plan.Step, pr plan.ProposalReport) bool {
	switch s := s.(type) {
	case plan.CommitRelease:
		return s.PR.Number == pr.PR.Number
	case plan.StartRun:
		for _, n := range s.PRs {
			if n == pr.PR.Number {
				return true
			}
		}
	case plan.Sign:
		for _, m := range pr.Models {
			if m.Bundle == s.Bundle {
				return true
			}
		}
	}
	return false
}

// sayCheck posts a status, unless it was posted. Progress, pending after
// pending, is posted now and then; an answer is posted at once.
func (r *Reconciler) sayCheck(ctx context.Context, commit string, c delivery.Check) error {
	key := "status/" + commit + "/" + c.Context
	said, err := r.said(ctx, key)
	if err != nil {
		return err
	}
	pending := string(delivery.CheckPending)
	if c.State == delivery.CheckPending && strings.HasPrefix(said.Content, pending+" ") {
		if said.Count >= maxProgressPosts {
			return nil
		}
		pause := time.Duration(float64(r.Progress) * math.Pow(progressGrowth, float64(said.Count-1)))
		if next := said.At.Add(pause); r.Now().Before(next) {
			r.wakeAt(next)
			return nil
		}
	}
	return r.say(ctx, key, string(c.State)+" "+c.Description, func() error {
		r.Log.Info("status", "commit", commit, "context", c.Context, "state", string(c.State), "description", c.Description)
		return r.Forge.SetStatus(ctx, commit, c)
	})
}

// say sends content under key unless it is what was sent last. The old word is
// forgotten before the new one is sent, and the new one remembered afterwards:
// whatever happens between the two, it is sent again, and never taken for sent.
func (r *Reconciler) say(ctx context.Context, key, content string, send func() error) error {
	said, err := r.said(ctx, key)
	if err != nil || said.Content == content {
		return err
	}
	if err := r.retry.due(key, r.Now()); err != nil {
		return err
	}
	var forgotten error // to forget in vain keeps nobody from being told
	if said.Content != "" {
		said.Content = ""
		r.saidCache[key] = said
		forgotten = r.Ledger.PutSaid(ctx, key, "", said.At)
	}
	start := r.Now()
	err = send()
	r.Metrics.ForgeCall("say", r.Now().Sub(start), err)
	if r.retry.note(key, r.Now(), err); err != nil {
		return errors.Join(forgotten, fmt.Errorf("say %s: %w", key, err))
	}
	now := r.Now()
	r.saidCache[key] = Said{Content: content, At: now, Count: said.Count + 1}
	return errors.Join(forgotten, r.Ledger.PutSaid(ctx, key, content, now))
}

// said looks up what was said under a key.
func (r *Reconciler) said(ctx context.Context, key string) (Said, error) {
	if s, ok := r.saidCache[key]; ok {
		return s, nil
	}
	prefix := key[:strings.LastIndexByte(key, '/')+1]
	if !r.saidLoaded[prefix] {
		list, err := r.Ledger.Said(ctx, prefix)
		if err != nil {
			return Said{}, err
		}
		for k, s := range list {
			if _, ok := r.saidCache[k]; !ok {
				r.saidCache[k] = s
			}
		}
		r.saidLoaded[prefix] = true
	}
	return r.saidCache[key], nil
}

// backoff keeps what failed from being tried again at once.
type backoff map[string]failure

type failure struct {
	next  time.Time // when it may be tried again
	delay time.Duration
	err   error
}

const maxBackoff = time.Minute

// due returns the last error while it is too early to try again.
func (b backoff) due(key string, now time.Time) error {
	if e, ok := b[key]; ok && now.Before(e.next) {
		return e.err
	}
	return nil
}

// note remembers how a try ended. Each failure in a row doubles the pause, unless
// the error asks for another. What a person must settle is tried again too: a
// disk that has room again tells nobody.
func (b backoff) note(key string, now time.Time, err error) {
	if err == nil {
		delete(b, key)
		return
	}
	e := b[key]
	e.delay = min(max(2*e.delay, time.Second), maxBackoff)
	if w, ok := errors.AsType[delivery.Wait](err); ok {
		e.delay = w.For
	}
	e.next, e.err = now.Add(e.delay), err
	b[key] = e
}

// forget drops what was due at the start of a turn and was not tried in it:
// nobody asks for it any more.
func (b backoff) forget(start time.Time) {
	maps.DeleteFunc(b, func(_ string, e failure) bool { return !e.next.After(start) })
}

// earliest returns when the first of all tries is due again.
func (b backoff) earliest() time.Time {
	var t time.Time
	for _, e := range b {
		if t.IsZero() || e.next.Before(t) {
			t = e.next
		}
	}
	return t
}

func logError(log *slog.Logger, what string, err error) {
	if err != nil {
		log.Error(what, "error", err.Error())
	}
}
