package poll

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
func (f *Forge) readPermissions(now time.Time) {
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

// Ends returns those of some pull requests that are known to be closed. They are to be those that were open and are
// not in the list.
func (f *Forge) Ends(gone map[int]delivery.PullRequest) map[int]delivery.PullRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := range gone {
		if _, old := f.gone[n]; !old {
			f.Look.Send()
		}
	}
	f.gone = gone
	maps.DeleteFunc(f.ends, func(n int, _ delivery.PullRequest) bool { _, still := gone[n]; return !still })
	return maps.Clone(f.ends)
}

// readEnds asks what became of the pull requests that are not in the list any more.
func (f *Forge) readEnds() {
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

func (f *Forge) readEnd(ctx context.Context, pr delivery.PullRequest) error {
	type end struct {
		pr    delivery.PullRequest
		ended bool
	}
	now, err := call(ctx, f, "pull request", askDeadline, func(ctx context.Context) (end, error) {
		now, ended, err := f.API.Ended(ctx, pr)
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
func (f *Forge) permissionNow(ctx context.Context, user string) (delivery.Permission, error) {
	if err := f.try(permissionKey(user), func() error { return f.readPermission(ctx, user) }); err != nil {
		return delivery.PermissionNone, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.permission[user].permission, nil
}

func (f *Forge) readPermission(ctx context.Context, user string) error {
	now := f.Turn.Now()
	p, err := call(ctx, f, "permission", askDeadline, func(ctx context.Context) (delivery.Permission, error) {
		return f.API.Permission(ctx, user)
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
func (f *Forge) may(ctx context.Context, user string) (delivery.Permission, error) {
	f.mu.Lock()
	p, ok := f.permission[user]
	f.mu.Unlock()
	if ok && f.Turn.Now().Sub(p.at) < permissionLasts {
		return p.permission, nil
	}
	return f.permissionNow(ctx, user)
}

// teamsOf returns the teams of the repository and whether a user is in each, by an answer of the last minute, or asks.
func (f *Forge) teamsOf(ctx context.Context, user string) (map[string]bool, error) {
	now := f.Turn.Now()
	f.mu.Lock()
	t, ok := f.teams[user]
	f.mu.Unlock()
	if ok && now.Sub(t.at) < permissionLasts {
		return t.in, nil
	}
	var in map[string]bool
	err := f.try("teams/"+user, func() (err error) {
		in, err = call(ctx, f, "teams", askDeadline, func(ctx context.Context) (map[string]bool, error) {
			return f.API.Teams(ctx, user)
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
func (f *Forge) readSetup(now time.Time) {
	const key = "settings"
	f.mu.Lock()
	lasts := SetupLasts
	if f.wrong {
		if lasts = WrongLasts; f.woken {
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
		at := f.Turn.Now()
		setup, err := call(ctx, f, "settings", askDeadline, f.API.Check)
		if err != nil {
			return fmt.Errorf("the settings of the repository: %w", err)
		}
		var wrong error
		if len(setup.Problems) > 0 {
			wrong = errors.New(strings.Join(setup.Problems, "; "))
		}
		f.Turn.Note(SetupTrouble, wrong)
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.refuses != setup.MergeRefused {
			f.news()
		}
		f.refuses, f.wrong, f.setupAt = setup.MergeRefused, wrong != nil, at
		return nil
	})
}

// RefusesCommits says why the forge refuses to merge AOB's commits; empty where it does not.
func (f *Forge) RefusesCommits() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refuses
}

// readOwners asks which owners of gates name nobody, where that was not asked lately.
func (f *Forge) readOwners(now time.Time) {
	f.mu.Lock()
	var due []string
	for _, name := range f.owners {
		o, ok := f.known[name]
		lasts := SetupLasts
		if o.problem != "" {
			lasts = WrongLasts
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

func (f *Forge) readOwner(ctx context.Context, name string) error {
	now := f.Turn.Now()
	problem, err := call(ctx, f, "owner", askDeadline, func(ctx context.Context) (string, error) {
		return f.API.Owner(ctx, name)
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

// Nobodies returns the owners of gates that cannot own one, and why.
func (f *Forge) Nobodies() map[string]string {
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
func (f *Forge) readComments(all bool) {
	f.mu.Lock()
	var due []int
	for _, n := range slices.Sorted(maps.Keys(f.asks)) {
		_, failed := f.retry[commentsKey(n)]
		if all || failed || !slices.Equal(f.orders[n].codes, f.asks[n].codes()) {
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
func (f *Forge) readCommentsOf(ctx context.Context, n int) error {
	f.mu.Lock()
	w, waits := f.asks[n]
	f.mu.Unlock()
	if !waits {
		return nil
	}
	a, incomplete, err := f.comments(ctx, n, w)
	if err != nil {
		return fmt.Errorf("the comments of pull request %d: %w", n, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, waits := f.asks[n]; !waits {
		return nil
	}
	old := f.orders[n]
	a.codes = w.codes()
	if incomplete != nil && len(a.Approved)+len(a.Accepts) == 0 {
		a.Approved, a.Accepts = old.Approved, old.Accepts // what was read before stands
	}
	if !slices.Equal(old.Approved, a.Approved) || !slices.Equal(old.Refused, a.Refused) ||
		delivery.DigestOf("accepts", old.Accepts) != delivery.DigestOf("accepts", a.Accepts) ||
		delivery.DigestOf("waits", old.Waits) != delivery.DigestOf("waits", a.Waits) {
		f.news()
	}
	f.orders[n] = a
	return nil
}

// readBack reads statuses and AOB's comments, those that were read longest ago first.
func (f *Forge) readBack(now time.Time) {
	type question struct {
		key   string
		at    time.Time // of the last answer; zero for none
		ask   func(context.Context) error
		again string // the commit whose statuses somebody says have changed
	}
	refs, _ := f.git.Known()
	f.mu.Lock()
	var due []question
	open := map[string]bool{}
	commit := func(c string) {
		if open[c] || c == "" {
			return
		}
		open[c] = true
		if at := f.statuses[c].At; f.again[c] || now.Sub(at) >= StatusLasts {
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
		commit(Head(pr, refs))
		old, ok := f.bodies[pr.Number]
		if !ok || now.Sub(old.At) >= BodyLasts || !pr.Updated.Equal(old.updated) {
			due = append(due, question{key: fmt.Sprintf("comment/%d", pr.Number), at: old.At,
				ask: func(ctx context.Context) error { return f.readBody(ctx, pr) }})
		}
	}
	commit(refs[git.Branch+f.Main])
	for _, c := range f.heads {
		commit(c)
	}
	maps.DeleteFunc(f.statuses, func(c string, _ StatusRead) bool { return !open[c] })
	maps.DeleteFunc(f.again, func(c string, _ bool) bool { return !open[c] })
	f.mu.Unlock()

	slices.SortStableFunc(due, func(a, b question) int { return a.at.Compare(b.at) })
	for _, q := range due {
		if q.again == "" && f.isAsked(q.key) {
			continue
		}
		if f.asking.Fresh() >= maxReadBacks {
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

func (f *Forge) readStatuses(ctx context.Context, commit string) error {
	at := f.Turn.Now()
	list, err := call(ctx, f, "statuses", askDeadline, func(ctx context.Context) ([]delivery.Status, error) {
		return f.API.Statuses(ctx, commit)
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		return fmt.Errorf("the statuses of %.10s: %w", commit, err)
	}
	f.statuses[commit] = StatusRead{list, at, true}
	f.fresh = true
	f.Wake.Send()
	return nil
}

func (f *Forge) readBody(ctx context.Context, pr delivery.PullRequest) error {
	at := f.Turn.Now()
	read, err := call(ctx, f, "comment", askDeadline, func(ctx context.Context) (BodyRead, error) {
		body, found, err := f.API.CommentBody(ctx, pr.Number, Marker)
		return BodyRead{Body: body, found: found}, err
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		return fmt.Errorf("the comment on pull request %d: %w", pr.Number, err)
	}
	f.fresh = true
	f.Wake.Send()
	read.At, read.updated, read.new = at, pr.Updated, true
	f.bodies[pr.Number] = read
	return nil
}

// OwnLasts is how long the forge's answer that it has a pull request of AOB's own is good for.
const OwnLasts = 5 * time.Minute

// An Own is a pull request of AOB's own.
type Own struct {
	Branch string // its head
	Commit string // that AOB made for it
	Number int    // 0 where an earlier version of AOB opened it and kept no number
}

// An ownRead is whether the forge has a pull request of AOB's own.
type ownRead struct {
	pull  Own
	known bool
	at    time.Time // when that was asked
}

// readOwn asks whether the forge has the pull requests of AOB's own that may be lost.
func (f *Forge) readOwn(now time.Time) {
	f.mu.Lock()
	var due []Own
	for _, own := range f.own {
		if read := f.owns[own.Branch]; read.pull != own || now.Sub(read.at) >= OwnLasts {
			due = append(due, own)
		}
	}
	maps.DeleteFunc(f.owns, func(_ string, read ownRead) bool { return !slices.Contains(f.own, read.pull) })
	f.mu.Unlock()
	for _, own := range due {
		if key := "own/" + own.Branch; !f.isAsked(key) {
			f.put(key, func(ctx context.Context) error { return f.readOwnPull(ctx, own) })
		}
	}
}

func (f *Forge) readOwnPull(ctx context.Context, own Own) error {
	at := f.Turn.Now()
	known, err := call(ctx, f, "pull request", askDeadline, func(ctx context.Context) (bool, error) {
		return f.API.Knows(ctx, own.Number, own.Branch)
	})
	if err != nil {
		return fmt.Errorf("whether the forge still has pull request %d: %w", own.Number, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.owns[own.Branch] = ownRead{own, known, at}
	if !known {
		f.news()
	}
	return nil
}

// Lost reports whether the forge says that it does not have a pull request of AOB's own.
func (f *Forge) Lost(own Own) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	read, ok := f.owns[own.Branch]
	return ok && read.pull == own && !read.known
}
