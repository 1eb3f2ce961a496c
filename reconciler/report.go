package reconciler

// This file tells people. It decides nothing: every word comes from the plan,
// and from what acting on it said.

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/words"
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
	stuck := failing(p.Steps, failed)
	byNumber := make(map[int]*plan.Proposal, len(r.seen.world.Proposals))
	for i := range r.seen.world.Proposals {
		byNumber[r.seen.world.Proposals[i].Number] = &r.seen.world.Proposals[i]
	}
	r.classes = jobClasses(p, speaks)
	for _, pr := range p.Proposals {
		if pr.Stale || r.seen.goneTo(pr) {
			continue
		}
		if pr.Kept { // the list of pull requests may be older than main; its evidence must not be lost
			said, err := r.said(ctx, r.statusKey(pr.PR.Head, delivery.ContextRelease))
			if err == nil && said.Content != "" { // on main's own commit it may be main's word
				said, err = r.said(ctx, r.commentKey(pr.PR))
			}
			if errs = append(errs, err); err != nil || said.Content != "" {
				if err == nil && pr.PR.Merged {
					r.forgetOpen(ctx, pr.PR.Number)
				}
				continue
			}
		}
		facts := withFailures(pr, stuck)
		checks := words.Checks(facts)
		// aob/release comes last in the list, and first on the forge
		for i := len(checks) - 1; i >= 0 && speaks[pr.PR.Head] == pr.PR.Number; i-- {
			errs = append(errs, r.sayCheck(ctx, pr.PR.Head, checks[i]))
		}
		if speaks[pr.PR.Head] == pr.PR.Number {
			gates := r.gatesOf(byNumber[pr.PR.Number], checks)
			errs = append(errs, r.sayGone(ctx, pr.PR.Head, checks, gates))
		}
		body := r.rendered.Of(pr, facts)
		forged, err := r.forgedNote(ctx, pr.PR.Head, checks)
		errs = append(errs, err)
		body += forged + refusedNote(pr, r.forgeNow.refusesCommits())
		last := pr.PR.Merged && !slices.ContainsFunc(checks, func(c delivery.Check) bool {
			return c.State == delivery.CheckPending || speaks[pr.PR.Head] == pr.PR.Number &&
				!r.isSaid(ctx, r.statusKey(pr.PR.Head, c.Context), string(c.State)+" "+c.Description)
		})
		if last && r.isSaid(ctx, r.commentKey(pr.PR), body) {
			r.forgetOpen(ctx, pr.PR.Number)
			continue
		}
		errs = append(errs, r.say(ctx, r.commentKey(pr.PR), commentLane(pr.PR), body, func(ctx context.Context) error {
			return r.Forge.Comment(ctx, pr.PR.Number, commentMarker, body)
		}))
	}
	errs = append(errs, r.sayMain(ctx, p))
	for _, f := range p.Fleets {
		errs = append(errs, r.sayRollout(ctx, p, f))
	}
	r.endDisputes()
	r.rendered.Keep(byNumber)
	return errors.Join(errs...)
}

// jobClasses returns the lanes of what is said before or after the rest. Last is all about pull requests that change no
// model: thousands of them keep no promotion waiting. First are the statuses of main's commit.
func jobClasses(p plan.Plan, speaks map[string]int) map[string]jobClass {
	lanes := map[string]jobClass{statusLane(p.Main.Commit): firstJobs}
	for _, pr := range p.Proposals {
		if len(pr.Models) > 0 {
			continue
		}
		lanes[commentLane(pr.PR)] = laterJobs
		if speaks[pr.PR.Head] == pr.PR.Number {
			lanes[statusLane(pr.PR.Head)] = laterJobs
		}
	}
	return lanes
}

// commentLane and statusLane are where the outbox keeps what is said of one thing in order.
func commentLane(pr delivery.PullRequest) string { return fmt.Sprintf("comment/%d", pr.Number) }
func statusLane(commit string) string            { return "status/" + commit }

// sayGone answers the statuses on a commit that AOB does not ask for. Some AOB has set before, such as that of a gate
// that main has removed: without an answer a branch that requires it never merges. Others somebody else has set, under
// any name: without an answer they stay. gates are those that may be asked for; nil where they are not known.
func (r *Reconciler) sayGone(ctx context.Context, commit string, checks []delivery.Check,
	gates map[string]delivery.Gate) error {
	asked := map[string]bool{}
	released := false
	for _, c := range checks {
		asked[c.Context] = true
		released = released || c.Context == delivery.ContextRelease && c.State == delivery.CheckSuccess
	}
	prefix := r.statusKey(commit, "")
	if _, err := r.said(ctx, prefix+contextPrefix); err != nil {
		return err
	}
	by, err := r.forgedOn(ctx, commit)
	if err != nil {
		return err
	}
	keys := slices.Clone(r.saidOn[prefix])
	for name := range by {
		keys = append(keys, prefix+name)
	}
	slices.Sort(keys)
	var errs []error
	for _, key := range slices.Compact(keys) {
		name, said := strings.TrimPrefix(key, prefix), r.saidCache[key]
		forged := by[name] != ""
		if asked[name] || !forged && said.Count == 0 && said.Content == "" {
			continue
		}
		fleet, ofRollout := strings.CutPrefix(name, delivery.ContextRollout)
		gate, ofGate := strings.CutPrefix(name, delivery.ContextGate)
		gate, _, _ = strings.Cut(gate, ".") // of a fleet's bar it is GATE.fleet-FLEET
		_, there := gates[gate]
		answer := delivery.Check{Context: name, State: delivery.CheckSuccess, Description: "no longer asked for"}
		if forged {
			answer.Description = "AOB asks for no status of this name here"
		}
		var known bool // that AOB does not ask for it
		switch {
		case ofRollout: // it is main's word
			owed, err := r.said(ctx, owedKey+fleet)
			errs = append(errs, err)
			if !forged || err != nil || strings.HasPrefix(owed.Content, commit+" ") {
				continue
			}
			known = true
		case ofGate:
			known = gates != nil && (released || !there)
		case isStage(name):
			known = gates != nil && released
		default:
			known = true
		}
		switch {
		case strings.HasPrefix(said.Content, string(delivery.CheckSuccess)+" ") && known:
		case known:
			errs = append(errs, r.sayCheck(ctx, commit, answer))
		case forged:
			answer.State, answer.Description = delivery.CheckPending, "not judged yet: aob/release says why"
			errs = append(errs, r.sayCheck(ctx, commit, answer))
		}
	}
	return errors.Join(errs...)
}

// isStage reports whether a context is one that AOB sets on pull requests, besides those of gates.
func isStage(context string) bool {
	switch context {
	case delivery.ContextIntent, delivery.ContextData, delivery.ContextTrain, delivery.ContextEval,
		delivery.ContextRelease:
		return true
	}
	return false
}

// forgedOn returns who set statuses of a commit that AOB did not set, by context.
func (r *Reconciler) forgedOn(ctx context.Context, commit string) (map[string]string, error) {
	prefix := r.forgedKey(commit, "")
	if _, err := r.said(ctx, prefix+contextPrefix); err != nil {
		return nil, err
	}
	var forged map[string]string
	for _, key := range r.saidOn[prefix] {
		if by := r.saidCache[key].Content; by != "" {
			if forged == nil {
				forged = map[string]string{}
			}
			forged[strings.TrimPrefix(key, prefix)] = by
		}
	}
	return forged, nil
}

// gatesOf returns the gates of main and of a pull request; nil where they are not known.
func (r *Reconciler) gatesOf(pr *plan.Proposal, checks []delivery.Check) map[string]delivery.Gate {
	read := slices.ContainsFunc(checks, func(c delivery.Check) bool {
		return c.Context == delivery.ContextIntent && c.State == delivery.CheckSuccess
	})
	if !read || len(r.seen.world.Main.Complaints) > 0 {
		return nil
	}
	gates := map[string]delivery.Gate{}
	maps.Copy(gates, r.seen.world.Main.Intent.Gates)
	if pr != nil {
		maps.Copy(gates, pr.Merged.Gates)
	}
	return gates
}

// sayMain says how main's commit stands.
func (r *Reconciler) sayMain(ctx context.Context, p plan.Plan) error {
	if p.Main.Commit != r.seen.refs[git.Branch+r.Main] {
		return nil // main cannot be read: an older commit stands for it
	}
	var errs []error
	asked := words.Checks(p.Main.Checks)
	for _, c := range asked {
		errs = append(errs, r.sayCheck(ctx, p.Main.Commit, c))
	}
	for _, f := range p.Fleets {
		asked = append(asked, delivery.Check{Context: delivery.ContextRollout + f.Fleet})
	}
	// What AOB has said there as on the head of a pull request stays.
	prefix := r.statusKey(p.Main.Commit, "")
	by, err := r.forgedOn(ctx, p.Main.Commit)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, key := range r.saidOn[prefix] {
		if name := strings.TrimPrefix(key, prefix); by[name] == "" {
			asked = append(asked, delivery.Check{Context: name})
		}
	}
	return errors.Join(append(errs, r.sayGone(ctx, p.Main.Commit, asked, r.gatesOf(nil, asked)))...)
}

// refusedNote says on a pull request that gets a commit of AOB's why the forge will not merge it.
func refusedNote(pr plan.ProposalReport, why string) string {
	if why == "" || pr.PR.Fork || pr.PR.Merged || len(pr.Models) == 0 {
		return ""
	}
	return "\n**This cannot be merged:** " + delivery.Markdown(why) + "\n"
}

// goneTo reports whether a pull request's head cannot be spoken to: no commit has its name.
func (s *seen) goneTo(pr plan.ProposalReport) bool { return pr.PR.Head == "" }

// owedKey is where the ledger keeps which commit moved a fleet last, and to what: that commit shows the rollout.
const owedKey = "rollout/"

// sayRollout says how a fleet's rollout stands, on main's commit and on the commit that moved the fleet. The level
// decides, and no event: what could not be said when the rollout ended is said later.
func (r *Reconciler) sayRollout(ctx context.Context, p plan.Plan, f plan.FleetReport) error {
	check := words.Check(plan.Check{Context: delivery.ContextRollout + f.Fleet, State: f.State, Facts: f.Facts})
	owed, err := r.said(ctx, owedKey+f.Fleet)
	if err != nil {
		return err
	}
	target := fmt.Sprintf("%d %s", f.Target.Version, f.Target.Bundle)
	commit, of, _ := strings.Cut(owed.Content, " ")
	var errs []error
	if moves(p, f.Fleet) && of != target {
		commit = p.Main.Commit
		owed.Content = commit + " " + target
		r.remember(owedKey+f.Fleet, owed)
		errs = append(errs, r.Ledger.PutRecord(ctx, owedKey+f.Fleet, owed.Content, r.Now()))
	}
	if commit != "" && commit != p.Main.Commit {
		errs = append(errs, r.sayCheck(ctx, commit, check))
	}
	told, err := r.said(ctx, r.statusKey(p.Main.Commit, check.Context))
	errs = append(errs, err)
	forged, err := r.said(ctx, r.forgedKey(p.Main.Commit, check.Context))
	errs = append(errs, err)
	// A fleet that this commit moves nothing of has no place on it, but where somebody else set its status.
	if forged.Content != "" {
		return errors.Join(append(errs, r.sayCheck(ctx, p.Main.Commit, check))...)
	}
	moved := commit == p.Main.Commit || told.Count > 0 || moves(p, f.Fleet)
	if !moved && f.State == delivery.CheckSuccess || told.Count == 0 && f.Target.Version == 0 &&
		f.State == delivery.CheckPending {
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, r.sayCheck(ctx, p.Main.Commit, check))...)
}

// moves reports whether a fleet's rollout comes further in a plan: to its end
// too, or to where it stood before the ledger was lost.
func moves(p plan.Plan, fleet string) bool {
	return slices.ContainsFunc(p.Steps, func(s plan.Step) bool {
		k, ok := s.(plan.KeepClock)
		return ok && k.Fleet == fleet
	})
}

// speakers says, by commit, whose checks stand on it: main's, which has no number, or those of one of the pull requests
// whose head it is. The first class that has any decides: pull requests to main that are ready and no forks, other pull
// requests to main, pull requests to other branches. Within a class it is the lowest number, so that no two take turns.
func speakers(p plan.Plan) map[string]int {
	class := func(pr delivery.PullRequest) int {
		switch {
		case pr.Base != p.Main.Branch:
			return 2
		case pr.Draft || pr.Fork:
			return 1
		}
		return 0
	}
	proposals := slices.Clone(p.Proposals)
	slices.SortStableFunc(proposals, func(a, b plan.ProposalReport) int { return class(a.PR) - class(b.PR) })
	speaks := map[string]int{p.Main.Commit: 0}
	for _, pr := range proposals {
		if _, taken := speaks[pr.PR.Head]; !taken {
			speaks[pr.PR.Head] = pr.PR.Number
		}
	}
	return speaks
}

// A failedStep is a step and why it was not taken.
type failedStep struct {
	step plan.Step
	err  error
}

// failing returns the steps that failed, by their keys.
func failing(steps []plan.Step, failed map[string]error) []failedStep {
	if len(failed) == 0 {
		return nil // a key may be the digest of much
	}
	var list []failedStep
	for _, s := range steps {
		if err := failed[s.Key()]; err != nil {
			list = append(list, failedStep{s, err})
		}
	}
	return list
}

// withAllFailures returns the proposals of a plan with what the forge is told of them: the status shows no other
// checks.
func withAllFailures(p plan.Plan, failed map[string]error) []plan.ProposalReport {
	stuck := failing(p.Steps, failed)
	if len(stuck) == 0 {
		return p.Proposals
	}
	list := slices.Clone(p.Proposals)
	for i := range list {
		list[i].Checks = withFailures(list[i], stuck)
	}
	return list
}

// withFailures shows what a person must settle: an error of a step for this
// pull request stands in aob/release instead of the plan's hope.
func withFailures(pr plan.ProposalReport, stuck []failedStep) []plan.Check {
	checks := slices.Clone(pr.Checks)
	for _, s := range stuck {
		if !concerns(s.step, pr) {
			continue
		}
		for i := range checks {
			if checks[i].Context != delivery.ContextRelease || checks[i].State != delivery.CheckPending {
				continue
			}
			why := delivery.Fact{Code: code.StepFailed, Values: delivery.Values{Text: s.err.Error()}}
			if b, ok := errors.AsType[delivery.Blocked](s.err); ok {
				checks[i].State, why = delivery.CheckFailure, blockedStep(s.step, b)
			}
			checks[i].Facts = []delivery.Fact{why}
		}
	}
	return checks
}

// blockedStep says what keeps a step from being done. A forge cuts what is long.
func blockedStep(s plan.Step, b delivery.Blocked) delivery.Fact {
	v := delivery.Values{Text: b.What, Ask: b.Do}
	if _, ok := s.(plan.CommitRelease); !ok || b.Do == "" || len(b.What)+len(b.Do) < 120 {
		return delivery.Fact{Code: code.StepBlocked, Values: v}
	}
	return delivery.Fact{Code: code.PushBlocked, Values: v}
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

// statusKey and commentKey are where the ledger keeps what was said. They name the forge, and of a pull request when it
// was created: another forge, or one that was restored from a backup, gives the same numbers again.
func (r *Reconciler) statusKey(commit, context string) string {
	return fmt.Sprintf(statusKeys+"%s/%s/%s", r.address(), commit, context)
}

// statusKeys is what the keys of all statuses begin with.
const statusKeys = "status/"

func (r *Reconciler) commentKey(pr delivery.PullRequest) string {
	key := fmt.Sprintf("comment/%s/%d", r.address(), pr.Number)
	if !pr.Created.IsZero() {
		key += fmt.Sprintf("-%d", pr.Created.Unix())
	}
	return key
}

func (r *Reconciler) forgedKey(commit, context string) string {
	return fmt.Sprintf("forged/%s/%s/%s", r.address(), commit, context)
}

// address is a short name for the forge. It stands in each key, so it is made once.
func (r *Reconciler) address() string {
	now := r.Forge.Address()
	if known := r.addressed.Load(); known != nil && known.of == now {
		return known.short
	}
	a := &forgeAddress{now, delivery.DigestOf("forge", now).Short()}
	r.addressed.Store(a)
	return a.short
}

// A forgeAddress is a forge's address and its short name.
type forgeAddress struct{ of, short string }

// sayCheck posts a status, unless it was posted. Progress, as pending after pending or other words of a rollout, is
// posted now and then; an answer is posted at once.
func (r *Reconciler) sayCheck(ctx context.Context, commit string, c delivery.Check) error {
	// forges show it as plain text, and it is compared when it is read back
	c.Description = delivery.Terminal(c.Description)
	key := r.statusKey(commit, c.Context)
	said, err := r.said(ctx, key)
	if err != nil {
		return err
	}
	// The words of a rollout are devices' words, which change as often as devices like.
	progress := c.State == delivery.CheckPending || strings.HasPrefix(c.Context, delivery.ContextRollout)
	same := string(c.State) + " "
	if content, begun, ok := r.outbox.waiting(key); ok && begun && progress && strings.HasPrefix(content, same) {
		if content != same+c.Description {
			r.wakeAt(r.Now().Add(max(r.Progress, time.Second))) // to say it when the other one is said
		}
		return nil
	}
	if progress && strings.HasPrefix(said.Content, same) {
		if said.Count >= maxProgressPosts {
			return nil
		}
		pause := time.Duration(float64(r.Progress) * math.Pow(progressGrowth, float64(said.Count-1)))
		if next := said.At.Add(pause); r.Now().Before(next) {
			r.wakeAt(next)
			return nil
		}
	}
	return r.say(ctx, key, statusLane(commit), string(c.State)+" "+c.Description, func(ctx context.Context) error {
		r.Log.Info("status", "commit", commit, "context", c.Context, "state", string(c.State), "description",
			c.Description)
		return r.Forge.SetStatus(ctx, commit, c)
	})
}

// say lets the outbox send content under key unless it is what was sent last. The old word is
// forgotten before the new one is sent, and the new one remembered afterwards:
// whatever happens between the two, it is sent again, and never taken for sent.
func (r *Reconciler) say(ctx context.Context, key, lane, content string, send func(context.Context) error) error {
	said, err := r.said(ctx, key)
	if err != nil {
		return err
	}
	if last, _, ok := r.outbox.waiting(key); ok {
		if last == content {
			return nil
		}
	} else if sameWords(key, said.Content, content) {
		return nil
	}
	if r.retry.due(key, r.Now()) != nil {
		return nil // it is tried again later, and the status says why
	}
	if d := r.disputes[key]; r.Now().Before(d.next) &&
		!(d.green && !strings.HasPrefix(content, string(delivery.CheckSuccess))) {
		r.wakeAt(d.next)
		return nil
	}
	var forgotten error // to forget in vain keeps nobody from being told
	if said.Content != "" {
		said.Content = ""
		r.remember(key, said)
		forgotten = r.Ledger.PutRecord(ctx, key, "", said.At)
	}
	failed, again := r.retry[key]
	r.outbox.put(job{key: key, lane: lane, content: content, again: again, took: failed.took, class: r.classes[lane],
		send: func(ctx context.Context) error {
			start := r.Now()
			err := send(ctx)
			r.Metrics.ForgeCall("say", r.Now().Sub(start), err)
			return err
		}, heard: func(res result) { r.saidIt(ctx, res) }})
	return forgotten
}

// saidIt remembers how a word was taken.
func (r *Reconciler) saidIt(ctx context.Context, res result) {
	now, key, content := r.Now(), res.key, res.content
	if r.retry.note(key, now, res.took, res.err); res.err != nil {
		r.failing[key] = res.err
		return
	}
	delete(r.failing, key)
	said := r.saidCache[key]
	r.remember(key, Record{Content: content, At: now, Count: said.Count + 1})
	if _, _, more := r.outbox.waiting(key); more {
		r.remember(key, Record{At: now, Count: said.Count + 1}) // another word is on its way
		content = ""
	}
	r.troubles.note(ledgerWrites, r.Ledger.PutRecord(ctx, key, content, now))
}

// hear takes the results of what was sent.
func (r *Reconciler) hear(ctx context.Context) {
	results := r.outbox.results()
	for _, res := range results {
		if res.heard != nil {
			res.heard(res)
		}
		if res.err != nil {
			r.seen.woken = true // to try again in time
		}
	}
	if len(results) == 0 {
		return
	}
	r.troubles.note(saysTrouble, firstOf(r.failing, "statuses and comments"))
}

// forgetFailing drops what could not be said and is not tried any more, such as the status of a pull request that is
// closed by now.
func (r *Reconciler) forgetFailing() {
	before := len(r.failing)
	maps.DeleteFunc(r.failing, func(key string, _ error) bool {
		_, again := r.retry[key]
		return !again && !r.outbox.has(key)
	})
	if len(r.failing) < before {
		r.troubles.note(saysTrouble, firstOf(r.failing, "statuses and comments"))
	}
}

// firstOf returns the first of some errors, with their number where there are several. what names them all.
func firstOf(errs map[string]error, what string) error {
	for _, key := range slices.Sorted(maps.Keys(errs)) {
		if len(errs) == 1 {
			return errs[key]
		}
		return instead(errs[key], fmt.Sprintf("%d %s wait", len(errs), what))
	}
	return nil
}

// remember keeps what was said under a key.
func (r *Reconciler) remember(key string, s Record) {
	if _, known := r.saidCache[key]; !known {
		// All of a commit's contexts are found again by what stands before "aob/".
		if i := strings.Index(key, "/"+contextPrefix); i >= 0 {
			r.saidOn[key[:i+1]] = append(r.saidOn[key[:i+1]], key)
		}
	}
	r.saidCache[key] = s
}

// said looks up what was said under a key.
func (r *Reconciler) said(ctx context.Context, key string) (Record, error) {
	if s, ok := r.saidCache[key]; ok {
		return s, nil
	}
	prefix := key[:strings.LastIndexByte(key, '/')+1]
	if !r.saidLoaded[prefix] {
		list, err := r.Ledger.Records(ctx, prefix)
		if err != nil {
			return Record{}, err
		}
		for k, s := range list {
			if _, ok := r.saidCache[k]; !ok {
				r.remember(k, s)
			}
		}
		r.saidLoaded[prefix] = true
	}
	return r.saidCache[key], nil
}
