package forge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Git is what a local forge needs of the repository; git.Mirror has it.
type Git interface {
	Refs() map[string]string
	// Unreadable returns the refs that are damaged, and why.
	Unreadable() map[string]delivery.Blocked
	At(ctx context.Context, ref string) (commit string, err error)
	Subject(commit string) (string, error)
	FirstParents(head string, limit int) ([]string, error)
	Author(commit string) (name, email string, when time.Time, err error)
	// Mine reports whether AOB is the author of a commit.
	Mine(commit string) (bool, error)
	IsAncestor(a, b string) (bool, error)
	Merge(base, head, name, email string, when time.Time, message string) (hash string, err error)
	Push(ctx context.Context, hash, ref, old string) error
}

// Rows is where a local forge keeps what another forge would keep: numbers,
// checks and comments. The ledger has it.
type Rows interface {
	// Number returns the number of a branch's proposal: the next free one above
	// the number that used returns when the branch is new, and the same ever after.
	Number(ctx context.Context, branch string, used func() (int, error)) (int, error)
	// PutCheck replaces the check of its context on a commit.
	PutCheck(ctx context.Context, commit string, c delivery.Check) error
	// Checks returns a commit's checks, sorted by context.
	Checks(ctx context.Context, commit string) ([]delivery.Check, error)
	// PutComment replaces the comment with the marker.
	PutComment(ctx context.Context, pr int, marker, body string) error
	// CommentBody returns the comment with the marker, or "".
	CommentBody(ctx context.Context, pr int, marker string) (string, error)
	// Commands returns what people asked on a proposal, oldest first.
	Commands(ctx context.Context, pr int) ([]delivery.Comment, error)
}

// Local is a bare git folder whose branches are proposals: every branch but the
// target, unless the target has all of it. Whoever can write to the folder may
// propose and merge; the folder's permissions are the only ones there are.
type Local struct {
	git     Git
	rows    Rows
	address string
	target  string // branch

	mu sync.Mutex
	// known is what the branches were as they were last read, guarded by mu: an old branch costs nothing again.
	known map[string]proposal
}

// A proposal is a branch as it was at a commit, with the target at another.
type proposal struct {
	target string
	pr     delivery.PullRequest
	merged bool
}

const branches = "refs/heads/"

// NewLocal makes a Local of the folder at an address, whose target branch is main,
// or another.
func NewLocal(git Git, rows Rows, address, target string) *Local {
	return &Local{git: git, rows: rows, address: address, target: target}
}

func connectLocal(s Settings) (Connection, error) {
	f := NewLocal(s.Git, s.Rows, s.Address, s.Main)
	return Connection{Forge: f, Merge: f, Ask: s.Rows}, nil
}

// Address names the folder.
func (f *Local) Address() string { return f.address }

// PullRequests returns the open proposals as of the last Observe, sorted by
// number. A proposal's title and author are those of the last commit that people
// made on the branch. A branch that cannot be read is one whose Unreadable says why.
func (f *Local) PullRequests(ctx context.Context) ([]delivery.PullRequest, error) {
	refs, damaged := f.git.Refs(), f.git.Unreadable()
	if why, ok := damaged["packed-refs"]; ok {
		return nil, why // there may be more branches than those that can be read
	}
	target := refs[branches+f.target]
	f.mu.Lock()
	defer f.mu.Unlock()
	known := map[string]proposal{} // without the branches that are gone
	var prs []delivery.PullRequest
	for _, ref := range slices.Sorted(maps.Keys(refs)) {
		branch, ok := strings.CutPrefix(ref, branches)
		if !ok || branch == f.target || target == "" {
			continue
		}
		p, ok := f.known[branch]
		if !ok || p.target != target || p.pr.Head != refs[ref] || p.pr.Unreadable != "" {
			var err error
			if p, err = f.read(ctx, branch, refs[ref], target); err != nil {
				return nil, err
			}
		}
		known[branch] = p
		if !p.merged {
			prs = append(prs, p.pr)
		}
	}
	f.known = known
	for ref, why := range damaged {
		branch, ok := strings.CutPrefix(ref, branches)
		if !ok || branch == f.target || target == "" {
			continue
		}
		number, err := f.rows.Number(ctx, branch, f.merged)
		if err != nil {
			return nil, fmt.Errorf("proposal %s: %w", branch, err)
		}
		prs = append(prs, delivery.PullRequest{
			Number: number, Title: branch, HeadRef: branch, Base: f.target, Unreadable: why.Error(),
		})
	}
	slices.SortFunc(prs, func(a, b delivery.PullRequest) int { return cmp.Compare(a.Number, b.Number) })
	return prs, nil
}

// read reads the proposal of a branch that is at a commit.
func (f *Local) read(ctx context.Context, branch, head, target string) (proposal, error) {
	p := proposal{target: target, pr: delivery.PullRequest{Title: branch, Head: head, HeadRef: branch, Base: f.target}}
	var unreadable, err error
	if p.merged, unreadable = f.git.IsAncestor(head, target); unreadable == nil && p.merged {
		return p, nil
	}
	if p.pr.Number, err = f.rows.Number(ctx, branch, f.merged); err != nil {
		return p, fmt.Errorf("proposal %s: %w", branch, err)
	}
	if unreadable == nil {
		unreadable = f.describe(&p.pr)
	}
	if unreadable != nil { // the other branches go on, and this one is read again: its commits may come back
		p.pr.Unreadable = unreadable.Error()
	}
	return p, nil
}

// Ended returns a proposal whose branch is gone, or that the target has. The target has every commit of one that was
// merged.
func (f *Local) Ended(_ context.Context, pr delivery.PullRequest) (now delivery.PullRequest, ended bool, err error) {
	refs := f.git.Refs()
	target := refs[branches+f.target]
	if target == "" {
		return pr, false, nil
	}
	if at, open := refs[branches+pr.HeadRef]; open {
		pr.Head = at
	}
	pr.Merged, err = f.git.IsAncestor(pr.Head, target)
	_, open := refs[branches+pr.HeadRef]
	if err != nil && !open {
		return pr, true, nil // its commits are gone with its branch, so the target does not have them
	}
	return pr, err == nil && (pr.Merged || !open), err
}

// describe fills in what the commits of a proposal say.
func (f *Local) describe(pr *delivery.PullRequest) error {
	last, err := f.byPeople(pr.Head)
	if err != nil {
		return err
	}
	title, err := f.git.Subject(last)
	if err != nil {
		return err
	}
	name, email, when, err := f.git.Author(last)
	if err != nil {
		return err
	}
	pr.Title, pr.Author, pr.Draft, pr.Updated = title, cmp.Or(email, name), draft(title), when
	return nil
}

// maxMerges is how many commits of the target are searched for numbers.
const maxMerges = 2000

// merged returns the highest number of a proposal that the target's history names,
// so that no number is given twice when the rows are lost.
func (f *Local) merged() (int, error) {
	commits, err := f.git.FirstParents(f.git.Refs()[branches+f.target], maxMerges)
	if err != nil {
		return 0, err
	}
	highest := 0
	for _, c := range commits {
		subject, err := f.git.Subject(c)
		if err != nil {
			return 0, err
		}
		number, title, ok := strings.Cut(strings.TrimPrefix(subject, "Merge "), ": ")
		if n, err := strconv.Atoi(number); ok && err == nil && title != "" && n < 1_000_000_000 {
			highest = max(highest, n)
		}
	}
	return highest, nil
}

// byPeople returns the last commit of a branch that AOB has not made itself: the
// release commit says nothing of who proposed what. Where all are AOB's, it is
// the head.
func (f *Local) byPeople(head string) (string, error) {
	commits, err := f.git.FirstParents(head, 20)
	if err != nil {
		return "", err
	}
	target := f.git.Refs()[branches+f.target]
	for _, c := range commits {
		if target != "" {
			landed, err := f.git.IsAncestor(c, target)
			if err != nil {
				return "", err
			}
			if landed { // from here on it is the target's history, wherever the target has gone since
				break
			}
		}
		mine, err := f.git.Mine(c)
		if err != nil {
			return "", err
		}
		if !mine {
			return c, nil
		}
	}
	return head, nil
}

// SetStatus sets one status check on a commit.
func (f *Local) SetStatus(ctx context.Context, commit string, check delivery.Check) error {
	if commit == "" {
		return nil // of a branch that cannot be read: nobody knows its commit
	}
	check.Description = Describe(check.Description)
	return f.rows.PutCheck(ctx, commit, check)
}

// Statuses returns a commit's checks, sorted by context. Nobody but AOB sets any.
func (f *Local) Statuses(ctx context.Context, commit string) ([]delivery.Status, error) {
	checks, err := f.rows.Checks(ctx, commit)
	if err != nil {
		return nil, err
	}
	list := []delivery.Status{}
	for _, c := range checks {
		list = append(list, delivery.Status{Check: c, By: delivery.CommitName, Mine: true})
	}
	return list, nil
}

// Comment makes the comment with the marker, or changes it to the body.
func (f *Local) Comment(ctx context.Context, pr int, marker, body string) error {
	return f.rows.PutComment(ctx, pr, marker, CutComment(body))
}

// CommentBody returns the text of the comment with the marker.
func (f *Local) CommentBody(ctx context.Context, pr int, marker string) (body string, found bool, err error) {
	body, err = f.rows.CommentBody(ctx, pr, marker)
	return body, body != "", err
}

// Commands returns what people asked on a proposal, oldest first. Who they are is
// what the system says of those who opened the server's socket, and nobody can
// change what they wrote.
func (f *Local) Commands(ctx context.Context, pr int) ([]delivery.Comment, error) {
	list, err := f.rows.Commands(ctx, pr)
	list = newest(slices.DeleteFunc(list, func(c delivery.Comment) bool { return delivery.CommandLine(c.Body) == "" }))
	for i := range list {
		list[i].VerifiedBy = "over the server's socket"
	}
	return list, err
}

// Ask asks nobody: the socket's users are known already when they ask.
func (f *Local) Ask(context.Context, int, string) ([]delivery.Consent, error) { return nil, nil }

// Check finds nothing: a folder has no settings.
func (f *Local) Check(context.Context) (delivery.Setup, error) { return delivery.Setup{}, nil }

// Permission is write for everybody: who can write to the folder can do
// anything to it.
func (f *Local) Permission(_ context.Context, user string) (delivery.Permission, error) {
	if user == "" {
		return delivery.PermissionNone, nil
	}
	return delivery.PermissionWrite, nil
}

// Teams returns the groups of a user of this machine. A group that has the user's
// name is listed too where the user does not belong to it.
func (f *Local) Teams(_ context.Context, name string) (map[string]bool, error) {
	in := map[string]bool{}
	if _, err := user.LookupGroup(name); err == nil {
		in[name] = false
	}
	u, err := user.Lookup(name)
	if errors.As(err, new(user.UnknownUserError)) {
		return in, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up user %s: %w", name, err)
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("look up the groups of user %s: %w", name, err)
	}
	for _, id := range ids {
		if g, err := user.LookupGroupId(id); err == nil {
			in[g.Name] = true
		}
	}
	return in, nil
}

// Owner returns why a name can own no gate, or "" where it is a user or a group of this machine.
func (f *Local) Owner(_ context.Context, name string) (problem string, err error) {
	_, err = user.Lookup(name)
	if err == nil || !errors.As(err, new(user.UnknownUserError)) {
		return "", err
	}
	_, err = user.LookupGroup(name)
	if errors.As(err, new(user.UnknownGroupError)) {
		return "no user and no group of the server's machine", nil
	}
	return "", err
}

// OpenPR returns the number of a branch's proposal, which is there as soon as
// the branch is. The title is the branch's last commit's; the body is kept as a
// comment.
func (f *Local) OpenPR(ctx context.Context, head, base, _, body string) (int, error) {
	if base != f.target {
		return 0, fmt.Errorf("open a proposal of %s: proposals go to %s, not %s", head, f.target, base)
	}
	at, err := f.git.At(ctx, branches+head)
	if err != nil {
		return 0, err
	}
	if at == "" {
		return 0, fmt.Errorf("open a proposal of %s: there is no such branch", head)
	}
	number, err := f.rows.Number(ctx, head, f.merged)
	if err != nil {
		return 0, err
	}
	return number, f.Comment(ctx, number, "description", body)
}

// Knows is always true: people close a proposal by removing its branch, and its number is kept where AOB remembers it.
func (f *Local) Knows(context.Context, int, string) (bool, error) { return true, nil }

// Merge merges a proposal in the name of a user who has looked at a commit, and
// returns the merge commit. It is Blocked unless the branch is at that commit, which
// may be shortened, aob/release has passed on the commit that the branch is
// at now, and the target lies in its history. The branch is removed afterwards.
func (f *Local) Merge(ctx context.Context, number int, looked, by string) (commit string, err error) {
	prs, err := f.PullRequests(ctx)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(prs, func(pr delivery.PullRequest) bool { return pr.Number == number })
	if i < 0 {
		return "", delivery.Blockedf("aob pr list shows those that are open", "there is no open pull request %d",
			number)
	}
	if why := prs[i].Unreadable; why != "" {
		return "", delivery.Blockedf("mend the branch, or remove it", "pull request %d cannot be read: %s", number, why)
	}
	branch := prs[i].HeadRef
	head, err := f.git.At(ctx, branches+branch)
	if err != nil {
		return "", err
	}
	target, err := f.git.At(ctx, branches+f.target)
	if err != nil {
		return "", err
	}
	if head == "" || target == "" {
		return "", delivery.Blockedf("aob pr list shows those that are open", "pull request %d was removed meanwhile",
			number)
	}
	if len(looked) < 7 || !strings.HasPrefix(head, looked) {
		return "", delivery.Blockedf(fmt.Sprintf("look at it again: aob pr show %d", number),
			"pull request %d is at %.10s by now, and what was looked at is %.10s", number, head, looked)
	}
	last, err := f.byPeople(head)
	if err != nil {
		return "", err
	}
	title, err := f.git.Subject(last)
	if err != nil {
		return "", err
	}
	if draft(title) {
		return "", delivery.Blockedf("take the mark out of the last commit's subject", "pull request %d is a draft",
			number)
	}
	if err := f.passed(ctx, number, head); err != nil {
		return "", err
	}
	follows, err := f.git.IsAncestor(target, head)
	if err != nil {
		return "", err
	}
	if !follows {
		return "", delivery.Blockedf(fmt.Sprintf("rebase your branch and replace the one here, with the release "+
			"commit that AOB pushed: git fetch; git rebase origin/%s; git push --force-with-lease origin %s; AOB "+
			"commits the release again", f.target, branch), "%s has moved on since pull request %d (%s) left it",
			f.target, number, branch)
	}
	commit, err = f.git.Merge(target, head, by, "", time.Now(), fmt.Sprintf("Merge %d: %s", number, title))
	if err != nil {
		return "", err
	}
	if err := f.git.Push(ctx, commit, branches+f.target, target); err != nil {
		return "", fmt.Errorf("merge pull request %d: %w", number, err)
	}
	if err := f.git.Push(ctx, "", branches+branch, head); err != nil {
		return commit, fmt.Errorf("pull request %d is merged as %.10s, and its branch stays: %w", number, commit, err)
	}
	return commit, nil
}

// passed returns nil if aob/release is success on a commit.
func (f *Local) passed(ctx context.Context, number int, head string) error {
	checks, err := f.rows.Checks(ctx, head)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(checks, func(c delivery.Check) bool { return c.Context == delivery.ContextRelease })
	if i < 0 {
		return delivery.Blockedf(fmt.Sprintf("wait for it; aob pr show %d says how far it is", number),
			"pull request %d: %s has not been judged on %.10s yet", number, delivery.ContextRelease, head)
	}
	if c := checks[i]; c.State != delivery.CheckSuccess {
		return delivery.Blockedf(fmt.Sprintf("aob pr show %d says why", number),
			"pull request %d: %s is %s on %.10s: %s", number, c.Context, c.State, head, c.Description)
	}
	return nil
}
