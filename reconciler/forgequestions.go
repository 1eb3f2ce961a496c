package reconciler

// This file asks the forge what the list of pull requests does not say: who people are, how pull requests ended, what
// comments say, and what stands on commits. Each question waits in the queue of forgeview.go.

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
)

// readPermissions asks what the authors of open pull requests may do, where that was not asked lately.
func (f *forgeView) readPermissions(now time.Time) {
	f.mu.Lock()
	var users []string
	for _, pr := range f.prs {
		if p, ok := f.permission[pr.Author]; (!ok || now.Sub(p.at) >= permissionLasts) &&
			!slices.Contains(users, pr.Author) {
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

// endsOf returns those of some pull requests that are known to be closed. They are to be those that were open and are
// not in the list.
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
	p, err := call(ctx, f, "permission", askDeadline, func(ctx context.Context) (delivery.Permission, error) {
		return f.r.Forge.Permission(ctx, user)
	})
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
		in, err = call(ctx, f, "teams", askDeadline, func(ctx context.Context) (map[string]bool, error) {
			return f.r.Forge.Teams(ctx, user)
		})
		return err
	})
	if err == nil {
		f.mu.Lock()
		f.teams[user] = teamsOf{in, now}
		f.mu.Unlock()
	}
	return in, err
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
	problem, err := call(ctx, f, "owner", askDeadline, func(ctx context.Context) (string, error) {
		return f.r.Forge.Owner(ctx, name)
	})
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
	if !slices.Equal(old.gos, a.gos) || !slices.Equal(old.refused, a.refused) ||
		delivery.DigestOf("accepts", old.accepts) != delivery.DigestOf("accepts", a.accepts) ||
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
			q := question{key: "statuses/" + c, at: at, ask: func(ctx context.Context) error {
				return f.readStatuses(ctx, c)
			}}
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
			due = append(due, question{key: fmt.Sprintf("comment/%d", pr.Number), at: old.at,
				ask: func(ctx context.Context) error { return f.readBody(ctx, pr) }})
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
		if f.asking.count(callJob) >= maxReadBacks {
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
	list, err := call(ctx, f, "statuses", askDeadline, func(ctx context.Context) ([]delivery.Status, error) {
		return f.r.Forge.Statuses(ctx, commit)
	})
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
