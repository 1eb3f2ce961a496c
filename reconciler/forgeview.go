package reconciler

// This file reads the forge, beside the loop. A turn works with the last answers, so that it never waits for the forge.
// The list of pull requests comes first. All else is a queue of questions: each fails alone, and is asked again after a
// pause of its own.

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
	listDeadline     = 30 * time.Second
	askDeadline      = 10 * time.Second
	questionDeadline = 3 * time.Minute // of all calls that one question takes

	permissionLasts  = time.Minute      // then it is asked again
	permissionStands = 5 * time.Minute  // what is older is not believed
	statusLasts      = time.Minute      // then a commit's statuses are read back again
	wrongLasts       = time.Minute      // the same, of what is wrong with the settings or an owner
	setupLasts       = 10 * time.Minute // then the settings and the owners of gates are asked for again
	bodyLasts        = 2 * time.Minute  // then AOB's comment is read back again
	maxReadBacks     = 50               // that wait in the queue, so that nothing else waits long behind them
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
	problem string // why it cannot; empty where it can
	at      time.Time
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
	next     time.Time // nothing is asked before, after the list could not be read
	pause    time.Duration

	asking *outbox // the questions that are being asked
	retry  backoff // of the questions that failed
	more   bool    // there is more to ask than the queue takes

	permission map[string]permitted
	teams      map[string]teamsOf
	asks       map[int]waiting // by pull request: what its comments may say, as the last plan asks
	asked      map[int]asked   // by pull request: what its comments say
	heads      []string        // commits besides the heads of pull requests whose statuses are read back
	owners     []string        // of gates, on main and in pull requests
	known      map[string]ownerRead
	setupAt    time.Time // when the settings were asked for
	wrong      bool      // something is wrong with them
	woken      bool      // somebody said that there is something new
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
	f := &forgeView{r: r, look: make(chan struct{}, 1), due: true, retry: backoff{}, permission: map[string]permitted{}, teams: map[string]teamsOf{},
		asks: map[int]waiting{}, asked: map[int]asked{}, statuses: map[string]statusRead{}, again: map[string]bool{}, bodies: map[int]bodyRead{}}
	f.asking = newOutbox(func() time.Time { return r.Now() }, f.answered)
	return f
}

// news counts an answer that is news, and wakes the loop; f.mu is held.
func (f *forgeView) news() {
	f.version++
	f.r.glance()
}

// step reads the list of pull requests, and puts all other questions that are due into the queue.
func (f *forgeView) step(ctx context.Context) {
	now := f.r.Now()
	f.asking.results() // each question has kept its answer itself
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
	f.forget(now)
	f.readEnds()
	f.readPermissions(now)
	f.readComments(due)
	f.readBack(now)
	f.readOwners(now)
	f.readSetup(now)
}

// put puts a question into the queue, unless it waits there already or has failed lately. A key names the question, as
// permission/ann. It reports whether the question is in the queue now.
func (f *forgeView) put(key string, ask func(context.Context) error) bool {
	f.mu.Lock()
	_, failed := f.retry[key]
	pauses := f.retry.due(key, f.r.Now()) != nil
	f.mu.Unlock()
	if pauses {
		return false
	}
	f.asking.put(job{key: key, lane: key, again: failed, limit: questionDeadline, send: func(ctx context.Context) error {
		return f.try(key, func() error { return ask(ctx) })
	}})
	return true
}

// isAsked reports whether a question is in the queue or being asked.
func (f *forgeView) isAsked(key string) bool {
	_, _, ok := f.asking.waiting(key)
	return ok
}

// try asks a question at once, unless it has failed lately: then that error is the answer.
func (f *forgeView) try(key string, ask func() error) error {
	f.mu.Lock()
	err := f.retry.due(key, f.r.Now())
	f.mu.Unlock()
	if err != nil {
		return err
	}
	err = ask()
	f.mu.Lock()
	defer f.mu.Unlock()
	_, failed := f.retry[key]
	f.retry.note(key, f.r.Now(), err)
	if err != nil || failed {
		f.r.troubles.note(askTrouble, f.retry.first("questions"))
	}
	return err
}

// forget drops the questions that failed and that nobody asks any more, such as those about a closed pull request.
func (f *forgeView) forget(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := len(f.retry)
	f.retry.forget(now.Add(-f.r.Poll-askDeadline), f.isAsked)
	if len(f.retry) < before {
		f.r.troubles.note(askTrouble, f.retry.first("questions"))
	}
}

// answered goes on with what the queue did not take, when a question has been asked.
func (f *forgeView) answered() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.more && f.asking.count((*job).first) < maxReadBacks/2 {
		f.more = false
		nudge(f.look)
	}
}

// wait returns how long the forge need not be asked anything.
func (f *forgeView) wait() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.r.Now()
	if now.Before(f.next) {
		return f.next.Sub(now)
	}
	wait := f.r.Poll - now.Sub(f.tried)
	for _, e := range f.retry {
		if now.Before(e.next) {
			wait = min(wait, e.next.Sub(now))
		}
	}
	return max(0, wait)
}

// failed sets when the list is asked for again.
func (f *forgeView) failed(now time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
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
	f.pause, f.next = 0, time.Time{}
	maps.DeleteFunc(f.asked, func(n int, _ asked) bool { return !open[n] })
	maps.DeleteFunc(f.bodies, func(n int, _ bodyRead) bool { return !open[n] })
	return true
}

// readPermissions asks what the authors of open pull requests may do, where that was not asked lately.
func (f *forgeView) readPermissions(now time.Time) {
	f.mu.Lock()
	var users []string
	for _, pr := range f.prs {
		if p, ok := f.permission[pr.Author]; (!ok || now.Sub(p.at) >= permissionLasts) && !slices.Contains(users, pr.Author) {
			users = append(users, pr.Author)
		}
	}
	f.mu.Unlock()
	for _, user := range users {
		if key := permissionKey(user); !f.isAsked(key) {
			f.put(key, func(ctx context.Context) error { return f.readPermission(ctx, user) })
		}
	}
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
func (f *forgeView) readEnds() {
	f.mu.Lock()
	var due []delivery.PullRequest
	for _, n := range slices.Sorted(maps.Keys(f.gone)) {
		if _, known := f.ends[n]; !known {
			due = append(due, f.gone[n])
		}
	}
	f.mu.Unlock()
	for _, pr := range due {
		if key := fmt.Sprintf("pull/%d", pr.Number); !f.isAsked(key) {
			f.put(key, func(ctx context.Context) error { return f.readEnd(ctx, pr) })
		}
	}
}

func (f *forgeView) readEnd(ctx context.Context, pr delivery.PullRequest) error {
	type end struct {
		pr    delivery.PullRequest
		ended bool
	}
	now, err := call(ctx, f, "pull request", askDeadline, func(ctx context.Context) (end, error) {
		now, ended, err := f.r.Forge.Ended(ctx, pr)
		return end{now, ended}, err
	})
	if err != nil {
		return fmt.Errorf("what became of pull request %d: %w", pr.Number, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, still := f.gone[pr.Number]; now.ended && still {
		if f.ends == nil {
			f.ends = map[int]delivery.PullRequest{}
		}
		f.ends[pr.Number] = now.pr
		f.news()
	}
	return nil
}

func permissionKey(user string) string { return "permission/" + user }

// permissionNow asks what a user may do.
func (f *forgeView) permissionNow(ctx context.Context, user string) (delivery.Permission, error) {
	if err := f.try(permissionKey(user), func() error { return f.readPermission(ctx, user) }); err != nil {
		return delivery.PermissionNone, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.permission[user].permission, nil
}

func (f *forgeView) readPermission(ctx context.Context, user string) error {
	now := f.r.Now()
	p, err := call(ctx, f, "permission", askDeadline, func(ctx context.Context) (delivery.Permission, error) { return f.r.Forge.Permission(ctx, user) })
	if err != nil {
		return fmt.Errorf("what %s may do: %w", user, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.permission[user].permission != p {
		f.news()
	}
	f.permission[user] = permitted{p, now}
	return nil
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
	var in map[string]bool
	err := f.try("teams/"+user, func() (err error) {
		in, err = call(ctx, f, "teams", askDeadline, func(ctx context.Context) (map[string]bool, error) { return f.r.Forge.Teams(ctx, user) })
		return err
	})
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
func (f *forgeView) readSetup(now time.Time) {
	const key = "settings"
	f.mu.Lock()
	lasts := setupLasts
	if f.wrong {
		if lasts = wrongLasts; f.woken {
			lasts = 0 // what has happened may have put it right
		}
	}
	due := f.setupAt.IsZero() || now.Sub(f.setupAt) >= lasts
	f.woken = false
	f.mu.Unlock()
	if !due || f.isAsked(key) {
		return
	}
	f.put(key, func(ctx context.Context) error {
		at := f.r.Now()
		setup, err := call(ctx, f, "settings", askDeadline, f.r.Forge.Check)
		if err != nil {
			return fmt.Errorf("the settings of the repository: %w", err)
		}
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
		f.refuses, f.wrong, f.setupAt = setup.Refuses, wrong != nil, at
		return nil
	})
}

// refusesCommits says why the forge refuses to merge AOB's commits; empty where it does not.
func (f *forgeView) refusesCommits() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refuses
}

// readOwners asks which owners of gates name nobody, where that was not asked lately.
func (f *forgeView) readOwners(now time.Time) {
	f.mu.Lock()
	var due []string
	for _, name := range f.owners {
		o, ok := f.known[name]
		lasts := setupLasts
		if o.problem != "" {
			lasts = wrongLasts
		}
		if !ok || now.Sub(o.at) >= lasts {
			due = append(due, name)
		}
	}
	f.mu.Unlock()
	for _, name := range due {
		if key := "owner/" + name; !f.isAsked(key) {
			f.put(key, func(ctx context.Context) error { return f.readOwner(ctx, name) })
		}
	}
}

func (f *forgeView) readOwner(ctx context.Context, name string) error {
	now := f.r.Now()
	problem, err := call(ctx, f, "owner", askDeadline, func(ctx context.Context) (string, error) { return f.r.Forge.Owner(ctx, name) })
	if err != nil {
		return fmt.Errorf("whether %s may own a gate: %w", name, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known == nil || len(f.known) > 10_000 {
		f.known = map[string]ownerRead{}
	}
	if old, ok := f.known[name]; old.problem != problem || !ok && problem != "" {
		f.news()
	}
	f.known[name] = ownerRead{problem, now}
	return nil
}

// nobodies returns the owners of gates that cannot own one, and why.
func (f *forgeView) nobodies() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := map[string]string{}
	for name, o := range f.known {
		if o.problem != "" {
			names[name] = o.problem
		}
	}
	return names
}

// readComments reads the comments of the pull requests that wait for one: where the list is read, where they wait for
// something else than before, and where it failed before.
func (f *forgeView) readComments(all bool) {
	f.mu.Lock()
	var due []int
	for _, n := range slices.Sorted(maps.Keys(f.asks)) {
		_, failed := f.retry[commentsKey(n)]
		if all || failed || !slices.Equal(f.asked[n].for_, f.asks[n].codes()) {
			due = append(due, n)
		}
	}
	f.mu.Unlock()
	for _, n := range due {
		if key := commentsKey(n); !f.isAsked(key) {
			f.put(key, func(ctx context.Context) error { return f.readCommentsOf(ctx, n) })
		}
	}
}

func commentsKey(pr int) string { return fmt.Sprintf("comments/%d", pr) }

// readCommentsOf reads the comments of one pull request.
func (f *forgeView) readCommentsOf(ctx context.Context, n int) error {
	f.mu.Lock()
	w, waits := f.asks[n]
	f.mu.Unlock()
	if !waits {
		return nil
	}
	a, incomplete, err := f.r.comments(ctx, n, w)
	if err != nil {
		return fmt.Errorf("the comments of pull request %d: %w", n, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, waits := f.asks[n]; !waits {
		return nil
	}
	old := f.asked[n]
	a.for_ = w.codes()
	if incomplete != nil && len(a.gos)+len(a.accepts) == 0 {
		a.gos, a.accepts = old.gos, old.accepts // what was read before stands
	}
	if !slices.Equal(old.gos, a.gos) || delivery.DigestOf("accepts", old.accepts) != delivery.DigestOf("accepts", a.accepts) ||
		delivery.DigestOf("waits", old.waits) != delivery.DigestOf("waits", a.waits) {
		f.news()
	}
	f.asked[n] = a
	return nil
}

// readBack reads statuses and AOB's comments, those that were read longest ago first.
func (f *forgeView) readBack(now time.Time) {
	type question struct {
		key   string
		at    time.Time // of the last answer; zero for none
		ask   func(context.Context) error
		again string // the commit whose statuses somebody says have changed
	}
	refs, _ := f.r.git.known()
	f.mu.Lock()
	var due []question
	open := map[string]bool{}
	commit := func(c string) {
		if open[c] || c == "" {
			return
		}
		open[c] = true
		if at := f.statuses[c].at; f.again[c] || now.Sub(at) >= statusLasts {
			q := question{key: "statuses/" + c, at: at, ask: func(ctx context.Context) error { return f.readStatuses(ctx, c) }}
			if f.again[c] {
				q.again = c
			}
			due = append(due, q)
		}
	}
	for _, pr := range f.prs {
		commit(head(pr, refs))
		old, ok := f.bodies[pr.Number]
		if !ok || now.Sub(old.at) >= bodyLasts || !pr.Updated.Equal(old.updated) {
			due = append(due, question{key: fmt.Sprintf("comment/%d", pr.Number), at: old.at, ask: func(ctx context.Context) error { return f.readBody(ctx, pr) }})
		}
	}
	commit(refs[git.Branch+f.r.Main])
	for _, c := range f.heads {
		commit(c)
	}
	maps.DeleteFunc(f.statuses, func(c string, _ statusRead) bool { return !open[c] })
	maps.DeleteFunc(f.again, func(c string, _ bool) bool { return !open[c] })
	f.mu.Unlock()

	slices.SortStableFunc(due, func(a, b question) int { return a.at.Compare(b.at) })
	for _, q := range due {
		if q.again == "" && f.isAsked(q.key) {
			continue
		}
		if f.asking.count((*job).first) >= maxReadBacks {
			f.mu.Lock()
			f.more = true
			f.mu.Unlock()
			break
		}
		if f.put(q.key, q.ask) {
			f.mu.Lock()
			delete(f.again, q.again)
			f.mu.Unlock()
		}
	}
}

func (f *forgeView) readStatuses(ctx context.Context, commit string) error {
	at := f.r.Now()
	list, err := call(ctx, f, "statuses", askDeadline, func(ctx context.Context) ([]delivery.Status, error) { return f.r.Forge.Statuses(ctx, commit) })
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
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
	if err != nil {
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
	f.due, f.woken = true, true
	if commit != "" {
		f.again[commit] = true
	}
	f.mu.Unlock()
	nudge(f.look)
}

// run asks until ctx ends.
func (f *forgeView) run(ctx context.Context) {
	var workers sync.WaitGroup
	defer workers.Wait()
	workers.Go(func() { f.asking.run(ctx) })
	for ctx.Err() == nil {
		f.step(ctx)
		pause(ctx, max(f.wait(), 50*time.Millisecond), f.look)
	}
}
