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

// This file asks the forge everything but the list of pull requests.

// An answer is what the forge has answered to a question, and when it was asked.
type answer[T any] struct {
	value T
	at    time.Time
}

// ask puts a question into the queue, unless it is there already or has failed lately. key names the question,
// kind is its name in the metrics, about is the beginning of its error. keep gets the answer while f.mu is held.
func ask[T any](f *Forge, key, kind, about string, question func(context.Context) (T, error), keep func(answer[T])) {
	if !f.isQueued(key) {
		f.put(key, func(ctx context.Context) error { return get(ctx, f, kind, about, question, keep) })
	}
}

// get asks a question at once; see ask.
func get[T any](ctx context.Context, f *Forge, kind, about string, question func(context.Context) (T, error),
	keep func(answer[T])) error {
	at := f.Turn.Now()
	value, err := call(ctx, f, kind, askDeadline, question)
	if err != nil {
		return fmt.Errorf("%s: %w", about, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	keep(answer[T]{value, at})
	return nil
}

// older reports whether an answer is missing, or was asked for at least a time ago.
func older[K comparable, T any](answers map[K]answer[T], key K, now time.Time, lasts time.Duration) bool {
	a, known := answers[key]
	return !known || now.Sub(a.at) >= lasts
}

// askPermissions asks what the authors of open pull requests may do.
func (f *Forge) askPermissions(now time.Time) {
	f.mu.Lock()
	users := map[string]bool{}
	for _, pr := range f.prs {
		if older(f.permissions, pr.Author, now, permissionLasts) {
			users[pr.Author] = true
		}
	}
	f.mu.Unlock()
	for _, user := range slices.Sorted(maps.Keys(users)) {
		if key := permissionKey(user); !f.isQueued(key) {
			f.put(key, func(ctx context.Context) error { return f.getPermission(ctx, user) })
		}
	}
}

func permissionKey(user string) string { return "permission/" + user }

func (f *Forge) getPermission(ctx context.Context, user string) error {
	return get(ctx, f, "permission", "what "+user+" may do", func(ctx context.Context) (delivery.Permission, error) {
		return f.API.Permission(ctx, user)
	}, func(a answer[delivery.Permission]) {
		if f.permissions[user].value != a.value {
			f.news()
		}
		f.permissions[user] = a
	})
}

// permissionNow asks what a user may do, without using an earlier answer.
func (f *Forge) permissionNow(ctx context.Context, user string) (delivery.Permission, error) {
	if err := f.try(permissionKey(user), func() error { return f.getPermission(ctx, user) }); err != nil {
		return delivery.PermissionNone, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.permissions[user].value, nil
}

// permission returns what a user may do, from an answer of the last minute, or asks.
func (f *Forge) permission(ctx context.Context, user string) (delivery.Permission, error) {
	f.mu.Lock()
	p, ask := f.permissions[user], older(f.permissions, user, f.Turn.Now(), permissionLasts)
	f.mu.Unlock()
	if ask {
		return f.permissionNow(ctx, user)
	}
	return p.value, nil
}

// mayNow returns what a user may do, without using an earlier answer by which they may write: a run costs money. That
// they may not is believed for a minute. So people who agree and may not cost no question each time.
func (f *Forge) mayNow(ctx context.Context, user string) (delivery.Permission, error) {
	f.mu.Lock()
	p, old := f.permissions[user], older(f.permissions, user, f.Turn.Now(), permissionLasts)
	f.mu.Unlock()
	if !old && p.value != delivery.PermissionWrite {
		return p.value, nil
	}
	return f.permissionNow(ctx, user)
}

// teamsOf returns the teams of the repository and whether a user is in each, from an answer of the last minute, or
// asks. It may return teams with an error.
func (f *Forge) teamsOf(ctx context.Context, user string) (in map[string]bool, err error) {
	f.mu.Lock()
	now := f.Turn.Now()
	t, ask := f.teams[user], older(f.teams, user, now, permissionLasts)
	f.mu.Unlock()
	if !ask {
		return t.value, nil
	}
	err = f.try("teams/"+user, func() (err error) {
		in, err = call(ctx, f, "teams", askDeadline, func(ctx context.Context) (map[string]bool, error) {
			return f.API.Teams(ctx, user)
		})
		return err
	})
	if err == nil {
		f.mu.Lock()
		f.teams[user] = answer[map[string]bool]{in, now}
		f.mu.Unlock()
	}
	return in, err
}

// Ends returns those of the missing pull requests that are known to be closed, as they are now. missing are those
// that were open and are not in the list any more.
func (f *Forge) Ends(missing map[int]delivery.PullRequest) map[int]delivery.PullRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := range missing {
		if _, old := f.missing[n]; !old {
			f.Poll.Send()
		}
	}
	f.missing = missing
	maps.DeleteFunc(f.ends, func(n int, _ delivery.PullRequest) bool { _, still := missing[n]; return !still })
	return maps.Clone(f.ends)
}

// askEnds asks how the missing pull requests ended.
func (f *Forge) askEnds() {
	f.mu.Lock()
	var due []delivery.PullRequest
	for _, n := range slices.Sorted(maps.Keys(f.missing)) {
		if _, known := f.ends[n]; !known {
			due = append(due, f.missing[n])
		}
	}
	f.mu.Unlock()
	type end struct {
		pr    delivery.PullRequest
		ended bool
	}
	for _, pr := range due {
		ask(f, fmt.Sprintf("pull/%d", pr.Number), "pull request", fmt.Sprintf("how pull request %d ended", pr.Number),
			func(ctx context.Context) (end, error) {
				now, ended, err := f.API.Ended(ctx, pr)
				return end{now, ended}, err
			}, func(a answer[end]) {
				if _, still := f.missing[pr.Number]; a.value.ended && still {
					f.ends[pr.Number] = a.value.pr
					f.news()
				}
			})
	}
}

// askSetup asks what is wrong with how the forge is set up.
func (f *Forge) askSetup(now time.Time) {
	f.mu.Lock()
	lasts := SetupLasts
	if f.setupWrong {
		if lasts = WrongLasts; f.event {
			lasts = 0 // the event may be that somebody has corrected it
		}
	}
	due := f.setupAt.IsZero() || now.Sub(f.setupAt) >= lasts
	f.event = false
	f.mu.Unlock()
	if !due {
		return
	}
	ask(f, "settings", "settings", "the settings of the repository", f.API.Check, func(a answer[delivery.Setup]) {
		var wrong error
		if problems := a.value.Problems(); len(problems) > 0 {
			wrong = errors.New(strings.Join(problems, "; "))
		}
		f.Turn.Note(SetupTrouble, wrong)
		if f.refusesCommits != a.value.MergeRefused {
			f.news()
		}
		f.refusesCommits, f.setupWrong, f.setupAt = a.value.MergeRefused, wrong != nil, a.at
	})
}

// RefusesCommits says why the forge refuses to merge AOB's commits; "" if it does not.
func (f *Forge) RefusesCommits() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refusesCommits
}

// askOwners asks whether the owners that gates name can own a gate.
func (f *Forge) askOwners(now time.Time) {
	f.mu.Lock()
	if len(f.ownerProblems) > maxOwners {
		clear(f.ownerProblems)
	}
	var due []string
	for _, name := range f.owners {
		lasts := SetupLasts
		if f.ownerProblems[name].value != "" {
			lasts = WrongLasts
		}
		if older(f.ownerProblems, name, now, lasts) {
			due = append(due, name)
		}
	}
	f.mu.Unlock()
	for _, name := range due {
		ask(f, "owner/"+name, "owner", "whether "+name+" may own a gate",
			func(ctx context.Context) (string, error) { return f.API.Owner(ctx, name) }, func(a answer[string]) {
				if f.ownerProblems[name].value != a.value {
					f.news()
				}
				f.ownerProblems[name] = a
			})
	}
}

// InvalidOwners returns the invalid owners of gates, and why they are invalid.
func (f *Forge) InvalidOwners() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := map[string]string{}
	for name, o := range f.ownerProblems {
		if o.value != "" {
			names[name] = o.value
		}
	}
	return names
}

// An Own is a pull request that AOB has opened.
type Own struct {
	Branch string // its head
	Commit string // that AOB made for it
	Number int    // 0 if an earlier version of AOB opened it and stored no number
}

// askOwn asks whether the forge still has the pull requests of AOB that may be lost.
func (f *Forge) askOwn(now time.Time) {
	f.mu.Lock()
	var due []Own
	for _, own := range f.own {
		if older(f.ownExists, own, now, OwnLasts) {
			due = append(due, own)
		}
	}
	maps.DeleteFunc(f.ownExists, func(own Own, _ answer[bool]) bool { return !slices.Contains(f.own, own) })
	f.mu.Unlock()
	for _, own := range due {
		about := fmt.Sprintf("whether the forge still has pull request %d", own.Number)
		ask(f, "own/"+own.Branch, "pull request", about,
			func(ctx context.Context) (bool, error) { return f.API.Knows(ctx, own.Number, own.Branch) },
			func(a answer[bool]) {
				f.ownExists[own] = a
				if !a.value {
					f.news()
				}
			})
	}
}

// Lost reports whether the forge has answered that it does not have a pull request of AOB.
func (f *Forge) Lost(own Own) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, known := f.ownExists[own]
	return known && !a.value
}

// askComments reads the comments of the pull requests that wait for one: if the list was just read, if they wait for
// other codes than before, or if it failed before.
func (f *Forge) askComments(all bool) {
	f.mu.Lock()
	var due []int
	for _, n := range slices.Sorted(maps.Keys(f.waiting)) {
		_, failed := f.retry[commentsKey(n)]
		if all || failed || !slices.Equal(f.orders[n].codes, f.waiting[n].codes()) {
			due = append(due, n)
		}
	}
	f.mu.Unlock()
	for _, n := range due {
		if key := commentsKey(n); !f.isQueued(key) {
			f.put(key, func(ctx context.Context) error { return f.getOrders(ctx, n) })
		}
	}
}

func commentsKey(pr int) string { return fmt.Sprintf("comments/%d", pr) }

// getOrders reads the comments of one pull request.
func (f *Forge) getOrders(ctx context.Context, n int) error {
	f.mu.Lock()
	w, waits := f.waiting[n]
	f.mu.Unlock()
	if !waits {
		return nil
	}
	orders, incomplete, err := f.comments(ctx, n, w)
	if err != nil {
		return fmt.Errorf("the comments of pull request %d: %w", n, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, waits := f.waiting[n]; !waits {
		return nil
	}
	old := f.orders[n]
	orders.codes = w.codes()
	if incomplete != nil && len(orders.Approved)+len(orders.Accepts) == 0 {
		orders.Approved, orders.Accepts = old.Approved, old.Accepts
	}
	if orders.digest() != old.digest() {
		f.news()
	}
	f.orders[n] = orders
	return nil
}

// askPosted reads the statuses and AOB's comments, those that were read longest ago first.
func (f *Forge) askPosted(now time.Time) {
	type question struct {
		key    string
		at     time.Time // of the last answer; zero if there is none
		ask    func(context.Context) error
		commit string // not empty: an event says that the statuses of this commit have changed
	}
	refs, _ := f.git.Known()
	f.mu.Lock()
	var due []question
	commits := map[string]bool{}
	addCommit := func(c string) {
		if commits[c] || c == "" {
			return
		}
		commits[c] = true
		q := question{key: "statuses/" + c, at: f.statusesAt[c]}
		q.ask = func(ctx context.Context) error { return f.getStatuses(ctx, c) }
		if f.changed[c] {
			q.commit = c
		}
		if q.commit != "" || now.Sub(q.at) >= StatusLasts {
			due = append(due, q)
		}
	}
	for _, pr := range f.prs {
		addCommit(Head(pr, refs))
		last, ok := f.bodiesAt[pr.Number]
		if !ok || now.Sub(last.at) >= BodyLasts || !pr.Updated.Equal(last.updated) {
			due = append(due, question{key: fmt.Sprintf("comment/%d", pr.Number), at: last.at,
				ask: func(ctx context.Context) error { return f.getBody(ctx, pr) }})
		}
	}
	addCommit(refs[git.Branch+f.Main])
	for _, c := range f.heads {
		addCommit(c)
	}
	maps.DeleteFunc(f.statusesAt, func(c string, _ time.Time) bool { return !commits[c] })
	maps.DeleteFunc(f.changed, func(c string, _ bool) bool { return !commits[c] })
	f.mu.Unlock()

	slices.SortStableFunc(due, func(a, b question) int { return a.at.Compare(b.at) })
	for _, q := range due {
		if q.commit == "" && f.isQueued(q.key) {
			continue
		}
		full := f.asking.Fresh() >= maxReadBacks
		queued := !full && f.put(q.key, q.ask)
		f.mu.Lock()
		f.more = f.more || full
		if queued {
			delete(f.changed, q.commit)
		}
		f.mu.Unlock()
		if full {
			break
		}
	}
}

func (f *Forge) getStatuses(ctx context.Context, commit string) error {
	return get(ctx, f, "statuses", fmt.Sprintf("the statuses of %.10s", commit),
		func(ctx context.Context) ([]delivery.Status, error) { return f.API.Statuses(ctx, commit) },
		func(a answer[[]delivery.Status]) {
			f.statusesAt[commit], f.newStatuses[commit] = a.at, StatusRead{a.value, a.at}
			f.Wake.Send()
		})
}

func (f *Forge) getBody(ctx context.Context, pr delivery.PullRequest) error {
	return get(ctx, f, "comment", fmt.Sprintf("the comment on pull request %d", pr.Number),
		func(ctx context.Context) (string, error) {
			body, _, err := f.API.CommentBody(ctx, pr.Number, Marker)
			return body, err
		}, func(a answer[string]) {
			f.bodiesAt[pr.Number] = bodyAt{a.at, pr.Updated}
			f.newBodies[pr.Number] = BodyRead{a.value, a.at}
			f.Wake.Send()
		})
}
