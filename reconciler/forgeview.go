package reconciler

// This file reads the forge, beside the loop. A turn works with the last answers, so that it never waits for the forge.

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
)

// How often the forge is asked, and how long its answers are believed.
const (
	listDeadline = 30 * time.Second
	askDeadline  = 10 * time.Second

	permissionLasts  = time.Minute      // then it is asked again
	permissionStands = 5 * time.Minute  // what is older is not believed
	statusLasts      = time.Minute      // then a commit's statuses are read back again
	setupLasts       = 10 * time.Minute // then the settings and the owners of gates are asked for again
	bodyLasts        = 2 * time.Minute  // then AOB's comment is read back again
	maxReadBacks     = 50               // of one step, so that the list of pull requests does not wait for them
)

const (
	listTrouble    = "the list of pull requests cannot be read"
	setupTrouble   = "the forge is not set up as AOB needs it"
	askTrouble     = "the forge does not answer all questions"
	restartTrouble = "the repository has not been read yet"
)

type permitted struct {
	permission delivery.Permission
	at         time.Time
}

type teamsOf struct {
	in map[string]bool
	at time.Time
}

// An ownerRead is whether a name can own a gate.
type ownerRead struct {
	owns bool
	at   time.Time
}

// A statusRead is what stood on a commit.
type statusRead struct {
	list []delivery.Status
	at   time.Time // when it was asked for
	new  bool      // the loop has not seen it
}

// A bodyRead is what AOB's comment on a pull request said.
type bodyRead struct {
	body    string
	found   bool
	updated time.Time // of the pull request
	at      time.Time // when it was asked for
	new     bool      // the loop has not seen it
}

// A forgeView is what was read of the forge. The loop reads it, and one goroutine fills it; tests fill it themselves.
type forgeView struct {
	r    *Reconciler
	look chan struct{} // somebody says that there is something new

	mu       sync.Mutex
	prs      []delivery.PullRequest
	listed   bool      // the last try to list them succeeded
	ever     bool      // one did
	listAt   time.Time // when the last list that came was asked for
	listAsOf int       // gitView's number at that time
	tried    time.Time // when the list was last asked for
	due      bool      // the list is to be read at the next step
	next     time.Time // nothing is asked before, after failures
	pause    time.Duration

	permission map[string]permitted
	teams      map[string]teamsOf
	asks       map[int]waiting // by pull request: what its comments may say, as the last plan asks
	asked      map[int]asked   // by pull request: what its comments say
	heads      []string        // commits besides the heads of pull requests whose statuses are read back
	owners     []string        // of gates, on main and in pull requests
	known      map[string]ownerRead
	setupAt    time.Time // when the settings were asked for
	refuses    string    // why the forge refuses to merge AOB's commits
	statuses   map[string]statusRead
	again      map[string]bool // commits whose statuses have to be read at once
	bodies     map[int]bodyRead
	gone       map[int]delivery.PullRequest // that were open and are not in the list
	ends       map[int]delivery.PullRequest // those of them that are known to be closed, as they are now
	fresh      bool                         // something was read back that the loop has not seen
	version    int                          // grows with each answer that is news
}

func newForgeView(r *Reconciler) *forgeView {
	return &forgeView{r: r, look: make(chan struct{}, 1), due: true, permission: map[string]permitted{}, teams: map[string]teamsOf{},
		asks: map[int]waiting{}, asked: map[int]asked{}, statuses: map[string]statusRead{}, again: map[string]bool{}, bodies: map[int]bodyRead{}}
}

// news counts an answer that is news, and wakes the loop; f.mu is held.
func (f *forgeView) news() {
	f.version++
	f.r.glance()
}

// step asks the forge for all that is due.
func (f *forgeView) step(ctx context.Context) {
	now := f.r.Now()
	f.mu.Lock()
	wait := now.Before(f.next)
	_, asOf := f.r.git.known()
	due := f.due || !f.listed || asOf != f.listAsOf || now.Sub(f.tried) >= f.r.Poll
	f.mu.Unlock()
	if wait {
		return
	}
	if due && !f.readList(ctx, now, asOf) {
		return
	}
	var errs []error
	errs = append(errs, f.readEnds(ctx), f.readPermissions(ctx, now))
	if due || f.askedAnew() {
		errs = append(errs, f.readComments(ctx))
	}
	errs = append(errs, f.readBack(ctx, now), f.readOwners(ctx, now), f.readSetup(ctx, now))
	err := errors.Join(errs...)
	f.r.troubles.note(askTrouble, err)
	f.failed(now, err)
}

// failed sets when the forge is asked again; no error is as soon as there is something to ask.
func (f *forgeView) failed(now time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.pause, f.next = 0, time.Time{}
		return
	}
	f.pause = min(max(2*f.pause, time.Second), maxBackoff)
	wait := f.pause
	if w, ok := errors.AsType[delivery.Wait](err); ok {
		wait = w.For
	}
	f.next = now.Add(wait)
}

// call asks the forge one thing, within a time.
func call[T any](ctx context.Context, f *forgeView, what string, limit time.Duration, ask func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := f.r.Now()
	answer, err := ask(ctx)
	f.r.Metrics.ForgeCall(what, f.r.Now().Sub(start), err)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("no answer within %s: %w", limit, err)
	}
	return answer, err
}

// readList reads the open pull requests, and reports whether it could.
func (f *forgeView) readList(ctx context.Context, now time.Time, asOf int) bool {
	prs, err := call(ctx, f, "pull requests", listDeadline, f.r.Forge.PullRequests)
	f.r.troubles.note(listTrouble, err)
	f.mu.Lock()
	f.tried, f.due = now, false
	if err != nil {
		if f.listed {
			f.news()
		}
		f.listed = false
		f.mu.Unlock()
		f.failed(now, err)
		return false
	}
	f.mu.Unlock()
	open := map[int]bool{}
	for _, pr := range prs {
		open[pr.Number] = true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	keep := maps.Clone(open) // the last word on those that are gone needs their heads
	for n := range f.gone {
		keep[n] = true
	}
	f.r.Repo.KeepPulls(slices.Sorted(maps.Keys(keep)))
	if !f.listed || !slices.Equal(prs, f.prs) || f.listAsOf != asOf {
		f.news()
	}
	f.prs, f.listed, f.ever, f.listAt, f.listAsOf = prs, true, true, now, asOf
	maps.DeleteFunc(f.asked, func(n int, _ asked) bool { return !open[n] })
	maps.DeleteFunc(f.bodies, func(n int, _ bodyRead) bool { return !open[n] })
	return true
}

// readPermissions asks what the authors of open pull requests may do, where that was not asked lately.
func (f *forgeView) readPermissions(ctx context.Context, now time.Time) error {
	f.mu.Lock()
	var users []string
	for _, pr := range f.prs {
		if p, ok := f.permission[pr.Author]; (!ok || now.Sub(p.at) >= permissionLasts) && !slices.Contains(users, pr.Author) {
			users = append(users, pr.Author)
		}
	}
	f.mu.Unlock()
	var errs []error
	for _, user := range users {
		if _, err := f.permissionNow(ctx, user); err != nil {
			if errs = append(errs, err); len(errs) == 3 { // it is the forge, and not a user
				break
			}
		}
	}
	return errors.Join(errs...)
}

// endsOf returns those of some pull requests that are known to be closed. They are to be those that were open and are not
// in the list.
func (f *forgeView) endsOf(gone map[int]delivery.PullRequest) map[int]delivery.PullRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := range gone {
		if _, old := f.gone[n]; !old {
			nudge(f.look)
		}
	}
	f.gone = gone
	maps.DeleteFunc(f.ends, func(n int, _ delivery.PullRequest) bool { _, still := gone[n]; return !still })
	return maps.Clone(f.ends)
}

// readEnds asks what became of the pull requests that are not in the list any more.
func (f *forgeView) readEnds(ctx context.Context) error {
	f.mu.Lock()
	var due []delivery.PullRequest
	for _, n := range slices.Sorted(maps.Keys(f.gone)) {
		if _, known := f.ends[n]; !known {
			due = append(due, f.gone[n])
		}
	}
	f.mu.Unlock()
	var errs []error
	for _, pr := range due[:min(len(due), maxReadBacks)] {
		type end struct {
			pr    delivery.PullRequest
			ended bool
		}
		now, err := call(ctx, f, "pull request", askDeadline, func(ctx context.Context) (end, error) {
			now, ended, err := f.r.Forge.Ended(ctx, pr)
			return end{now, ended}, err
		})
		if err != nil {
			if errs = append(errs, fmt.Errorf("what became of pull request %d: %w", pr.Number, err)); len(errs) == 3 {
				break
			}
			continue
		}
		if now.ended {
			f.mu.Lock()
			if f.ends == nil {
				f.ends = map[int]delivery.PullRequest{}
			}
			f.ends[pr.Number] = now.pr
			f.news()
			f.mu.Unlock()
		}
	}
	return errors.Join(errs...)
}

// permissionNow asks what a user may do.
func (f *forgeView) permissionNow(ctx context.Context, user string) (delivery.Permission, error) {
	now := f.r.Now()
	p, err := call(ctx, f, "permission", askDeadline, func(ctx context.Context) (delivery.Permission, error) { return f.r.Forge.Permission(ctx, user) })
	if err != nil {
		return delivery.PermissionNone, fmt.Errorf("what %s may do: %w", user, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.permission[user].permission != p {
		f.news()
	}
	f.permission[user] = permitted{p, now}
	return p, nil
}

// may returns what a user may do by an answer of the last minute, or asks.
func (f *forgeView) may(ctx context.Context, user string) (delivery.Permission, error) {
	f.mu.Lock()
	p, ok := f.permission[user]
	f.mu.Unlock()
	if ok && f.r.Now().Sub(p.at) < permissionLasts {
		return p.permission, nil
	}
	return f.permissionNow(ctx, user)
}

// teamsOf returns the teams of the repository and whether a user is in each, by an answer of the last minute, or asks.
func (f *forgeView) teamsOf(ctx context.Context, user string) (map[string]bool, error) {
	now := f.r.Now()
	f.mu.Lock()
	t, ok := f.teams[user]
	f.mu.Unlock()
	if ok && now.Sub(t.at) < permissionLasts {
		return t.in, nil
	}
	in, err := call(ctx, f, "teams", askDeadline, func(ctx context.Context) (map[string]bool, error) { return f.r.Forge.Teams(ctx, user) })
	if err == nil {
		f.mu.Lock()
		f.teams[user] = teamsOf{in, now}
		f.mu.Unlock()
	}
	return in, err
}

// want says what the last plan asks of comments, and which commits besides the heads of pull requests are read back.
func (f *forgeView) want(asks map[int]waiting, heads, owners []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n, w := range asks {
		if !slices.Equal(f.asks[n].codes(), w.codes()) {
			nudge(f.look) // the comment may be there already
		}
	}
	f.asks, f.heads, f.owners = asks, heads, owners
}

// readSetup asks what is wrong with how the forge is set up, where that was not asked lately.
func (f *forgeView) readSetup(ctx context.Context, now time.Time) error {
	if !f.setupAt.IsZero() && now.Sub(f.setupAt) < setupLasts {
		return nil
	}
	setup, err := call(ctx, f, "settings", askDeadline, f.r.Forge.Check)
	if err != nil {
		return fmt.Errorf("the settings of the repository: %w", err)
	}
	f.setupAt = now
	var wrong error
	if len(setup.Wrong) > 0 {
		wrong = errors.New(strings.Join(setup.Wrong, "; "))
	}
	f.r.troubles.note(setupTrouble, wrong)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuses != setup.Refuses {
		f.news()
	}
	f.refuses = setup.Refuses
	return nil
}

// refusesCommits says why the forge refuses to merge AOB's commits; empty where it does not.
func (f *forgeView) refusesCommits() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refuses
}

// readOwners asks which owners of gates name nobody, where that was not asked lately.
func (f *forgeView) readOwners(ctx context.Context, now time.Time) error {
	f.mu.Lock()
	var due []string
	for _, name := range f.owners {
		if o, ok := f.known[name]; !ok || now.Sub(o.at) >= setupLasts {
			due = append(due, name)
		}
	}
	f.mu.Unlock()
	for _, name := range due[:min(len(due), maxReadBacks)] {
		owns, err := call(ctx, f, "owner", askDeadline, func(ctx context.Context) (bool, error) { return f.r.Forge.Owner(ctx, name) })
		if err != nil {
			return fmt.Errorf("whether %s may own a gate: %w", name, err)
		}
		f.mu.Lock()
		if f.known == nil || len(f.known) > 10_000 {
			f.known = map[string]ownerRead{}
		}
		if old, ok := f.known[name]; old.owns != owns || !ok && !owns {
			f.news()
		}
		f.known[name] = ownerRead{owns, now}
		f.mu.Unlock()
	}
	return nil
}

// nobodies returns the owners of gates that are neither a team nor a user who may write.
func (f *forgeView) nobodies() map[string]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := map[string]bool{}
	for name, o := range f.known {
		if !o.owns {
			names[name] = true
		}
	}
	return names
}

// askedAnew reports whether a pull request asks for what its comments were not read for.
func (f *forgeView) askedAnew() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n, w := range f.asks {
		if !slices.Equal(f.asked[n].for_, w.codes()) {
			return true
		}
	}
	return false
}

// readComments reads the comments of the pull requests that wait for one.
func (f *forgeView) readComments(ctx context.Context) error {
	f.mu.Lock()
	asks := maps.Clone(f.asks)
	f.mu.Unlock()
	var errs []error
	for _, n := range slices.Sorted(maps.Keys(asks)) {
		a, err := f.r.comments(ctx, n, asks[n])
		if err != nil {
			errs = append(errs, fmt.Errorf("the comments of pull request %d: %w", n, err))
		}
		a.for_ = asks[n].codes()
		f.mu.Lock()
		if err != nil && len(a.gos)+len(a.accepts) == 0 {
			f.mu.Unlock()
			if len(errs) == 3 {
				break
			}
			continue // what was read before stands
		}
		if old := f.asked[n]; !slices.Equal(old.gos, a.gos) || delivery.DigestOf("accepts", old.accepts) != delivery.DigestOf("accepts", a.accepts) {
			f.news()
		}
		f.asked[n] = a
		f.mu.Unlock()
	}
	return errors.Join(errs...)
}

// readBack reads statuses and AOB's comments, those that were read longest ago first.
func (f *forgeView) readBack(ctx context.Context, now time.Time) error {
	type ask struct {
		at     time.Time // of the last time; zero for never
		commit string
		pr     delivery.PullRequest
	}
	refs, _ := f.r.git.known()
	f.mu.Lock()
	var due []ask
	open := map[string]bool{}
	commit := func(c string) {
		if open[c] || c == "" {
			return
		}
		open[c] = true
		if at := f.statuses[c].at; f.again[c] || now.Sub(at) >= statusLasts {
			due = append(due, ask{at: at, commit: c})
		}
	}
	for _, pr := range f.prs {
		commit(head(pr, refs))
		old, ok := f.bodies[pr.Number]
		if !ok || now.Sub(old.at) >= bodyLasts || !pr.Updated.Equal(old.updated) {
			due = append(due, ask{at: old.at, pr: pr})
		}
	}
	commit(refs[git.Branch+f.r.Main])
	for _, c := range f.heads {
		commit(c)
	}
	maps.DeleteFunc(f.statuses, func(c string, _ statusRead) bool { return !open[c] })
	clear(f.again)
	f.mu.Unlock()

	slices.SortStableFunc(due, func(a, b ask) int { return a.at.Compare(b.at) })
	var errs []error
	for _, a := range due[:min(len(due), maxReadBacks)] {
		var err error
		if a.commit != "" {
			err = f.readStatuses(ctx, a.commit)
		} else {
			err = f.readBody(ctx, a.pr)
		}
		if err != nil {
			if errs = append(errs, err); len(errs) == 3 {
				break
			}
		}
	}
	if len(due) > maxReadBacks {
		nudge(f.look)
	}
	return errors.Join(errs...)
}

func (f *forgeView) readStatuses(ctx context.Context, commit string) error {
	at := f.r.Now()
	list, err := call(ctx, f, "statuses", askDeadline, func(ctx context.Context) ([]delivery.Status, error) { return f.r.Forge.Statuses(ctx, commit) })
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		old := f.statuses[commit]
		old.at = at // the others come first
		f.statuses[commit] = old
		return fmt.Errorf("the statuses of %.10s: %w", commit, err)
	}
	f.statuses[commit] = statusRead{list, at, true}
	f.fresh = true
	f.r.glance()
	return nil
}

func (f *forgeView) readBody(ctx context.Context, pr delivery.PullRequest) error {
	at := f.r.Now()
	read, err := call(ctx, f, "comment", askDeadline, func(ctx context.Context) (bodyRead, error) {
		body, found, err := f.r.Forge.CommentBody(ctx, pr.Number, commentMarker)
		return bodyRead{body: body, found: found}, err
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.bodies[pr.Number]
	if err != nil {
		old.at, old.updated = at, pr.Updated
		f.bodies[pr.Number] = old
		return fmt.Errorf("the comment on pull request %d: %w", pr.Number, err)
	}
	f.fresh = true
	f.r.glance()
	read.at, read.updated, read.new = at, pr.Updated, true
	f.bodies[pr.Number] = read
	return nil
}

// readNews returns what was read back and not taken before.
func (f *forgeView) readNews() (statuses map[string]statusRead, bodies map[int]bodyRead) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.fresh {
		return nil, nil
	}
	f.fresh = false
	statuses, bodies = map[string]statusRead{}, map[int]bodyRead{}
	for commit, s := range f.statuses {
		if s.new {
			statuses[commit] = s
			s.new = false
			f.statuses[commit] = s
		}
	}
	for n, b := range f.bodies {
		if b.new {
			bodies[n] = b
			b.new = false
			f.bodies[n] = b
		}
	}
	return statuses, bodies
}

// A pullList is the open pull requests as they were read last.
type pullList struct {
	prs     []delivery.PullRequest
	known   bool      // the last try to read the list succeeded
	ever    bool      // it was read at all
	asOf    int       // gitView's number when it was asked for
	at      time.Time // when it was asked for
	version int
}

func (f *forgeView) list() pullList {
	f.mu.Lock()
	defer f.mu.Unlock()
	return pullList{f.prs, f.listed, f.ever, f.listAsOf, f.listAt, f.version}
}

// author returns what a user may do, where that is known.
func (f *forgeView) author(user string) (delivery.Permission, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.permission[user]
	return p.permission, ok && f.r.Now().Sub(p.at) < permissionStands
}

// said returns what the comments of a pull request ask for.
func (f *forgeView) said(pr int) asked {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[pr]
}

// head returns a pull request's head: the ref is newer than the list, where the forge keeps one.
func head(pr delivery.PullRequest, refs map[string]string) string {
	if head, ok := refs[pr.Ref]; ok && pr.Ref != "" {
		return head
	}
	return pr.Head
}

// lookAt asks for the list, and for the statuses of a commit, at once.
func (f *forgeView) lookAt(commit string) {
	f.mu.Lock()
	f.due = true
	if commit != "" {
		f.again[commit] = true
	}
	f.mu.Unlock()
	nudge(f.look)
}

// run asks until ctx ends.
func (f *forgeView) run(ctx context.Context) {
	for ctx.Err() == nil {
		f.step(ctx)
		f.mu.Lock()
		wait := max(0, f.r.Poll-f.r.Now().Sub(f.tried))
		if !f.next.IsZero() {
			wait = f.next.Sub(f.r.Now())
		}
		f.mu.Unlock()
		pause(ctx, max(wait, 50*time.Millisecond), f.look)
	}
}
