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

// Git is the repository of a local forge, as git.Mirror is one.
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

// Rows stores the numbers, checks and comments of a local forge, as the ledger does.
type Rows interface {
	// Number returns the number of a branch's pull request. A new branch gets the next
	// free number above the one that used returns. Later calls return the same number.
	Number(ctx context.Context, branch string, used func() (int, error)) (int, error)
	// PutCheck replaces the check of its context on a commit.
	PutCheck(ctx context.Context, commit string, c delivery.Check) error
	// Checks returns a commit's checks, sorted by context.
	Checks(ctx context.Context, commit string) ([]delivery.Check, error)
	// PutComment replaces the comment with the marker.
	PutComment(ctx context.Context, pr int, marker, body string) error
	// CommentBody returns the comment with the marker, or "".
	CommentBody(ctx context.Context, pr int, marker string) (string, error)
	// UserComments returns the comments of people on a pull request, oldest first.
	UserComments(ctx context.Context, pr int) ([]delivery.Comment, error)
}

// Local is a bare git repository in a folder of this machine. Each branch is a pull
// request, except the target and branches whose commits are all in the target. Everybody
// who can write to the folder may propose and merge; there are no other permissions.
type Local struct {
	git     Git
	rows    Rows
	address string
	target  string // branch

	mu sync.Mutex
	// known are the branches as they were last read, guarded by mu. A branch that has not changed is not read again.
	known map[string]proposal

	numbering sync.Mutex
	numbers   map[string]int // by commit of the target: the number in its message, guarded by numbering; 0 for none
}

// A proposal is the pull request of a branch.
type proposal struct {
	target string // the target's commit when the branch was read
	pr     delivery.PullRequest
	merged bool
}

const branches = "refs/heads/"

// NewLocal returns the local forge of a folder. target is its target branch, such as main.
func NewLocal(git Git, rows Rows, address, target string) *Local {
	return &Local{git: git, rows: rows, address: address, target: target}
}

func connectLocal(s Settings) (Connection, error) {
	f := NewLocal(s.Git, s.Rows, s.Address, s.Main)
	return Connection{Forge: f, Merge: f, UserComments: s.Rows}, nil
}

// Address names the folder.
func (f *Local) Address() string { return f.address }

// PullRequests returns the open pull requests, sorted by number. The title is the subject of the first commit that a
// person made on the branch, and the author that of the last. If a branch cannot be read, Unreadable of its pull
// request says why.
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
			return nil, fmt.Errorf("pull request of %s: %w", branch, err)
		}
		prs = append(prs, delivery.PullRequest{
			Number: number, Title: branch, HeadRef: branch, Base: f.target, Unreadable: why.Error(),
		})
	}
	slices.SortFunc(prs, func(a, b delivery.PullRequest) int { return cmp.Compare(a.Number, b.Number) })
	return prs, nil
}

// read reads the pull request of a branch.
func (f *Local) read(ctx context.Context, branch, head, target string) (proposal, error) {
	p := proposal{target: target, pr: delivery.PullRequest{Title: branch, Head: head, HeadRef: branch, Base: f.target}}
	var unreadable, err error
	if p.merged, unreadable = f.git.IsAncestor(head, target); unreadable == nil && p.merged {
		return p, nil
	}
	if p.pr.Number, err = f.rows.Number(ctx, branch, f.merged); err != nil {
		return p, fmt.Errorf("pull request of %s: %w", branch, err)
	}
	if unreadable == nil {
		unreadable = f.describe(&p.pr)
	}
	if unreadable != nil { // no error: the other branches are read, and this one is tried again
		p.pr.Unreadable = unreadable.Error()
	}
	return p, nil
}

// Ended returns a pull request's current state, and whether it has ended: its branch was deleted, or was merged, so
// that all its commits are in the target.
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
		return pr, true, nil // its commits were deleted with its branch, so they are not in the target
	}
	return pr, err == nil && (pr.Merged || !open), err
}

// describe sets title, author and time of a pull request from its commits.
func (f *Local) describe(pr *delivery.PullRequest) error {
	last, title, isDraft, err := f.byPerson(pr.Head)
	if err != nil {
		return err
	}
	name, email, when, err := f.git.Author(last)
	if err != nil {
		return err
	}
	pr.Title, pr.Author, pr.Draft, pr.Updated = title, cmp.Or(email, name), isDraft, when
	return nil
}

// maxMerges is how many commits of the target are searched for numbers.
const maxMerges = 2000

// merged returns the highest number of a pull request in the messages of the target's merge
// commits, so that no number is used twice after the rows were lost.
func (f *Local) merged() (int, error) {
	commits, err := f.git.FirstParents(f.git.Refs()[branches+f.target], maxMerges)
	if err != nil {
		return 0, err
	}
	f.numbering.Lock()
	defer f.numbering.Unlock()
	highest, numbers := 0, make(map[string]int, len(commits))
	for _, c := range commits {
		number, known := f.numbers[c] // each message is read once, and not for each new branch
		if !known {
			subject, err := f.git.Subject(c)
			if err != nil {
				return 0, err
			}
			number = mergedNumber(subject)
		}
		numbers[c], highest = number, max(highest, number)
	}
	f.numbers = numbers
	return highest, nil
}

// mergedNumber returns the number of the pull request that a commit has merged; 0 for none.
func mergedNumber(subject string) int {
	number, title, ok := strings.Cut(strings.TrimPrefix(subject, "Merge "), ": ")
	if n, err := strconv.Atoi(number); ok && err == nil && title != "" && n < 1_000_000_000 {
		return max(0, n)
	}
	return 0
}

// byPerson returns the last commit of a branch that a person made, and the title that its pull request has: the subject
// of the person's first commit, as forges take it, so that a later correction does not rename the pull request. If the
// last commit is no draft any more, and the first one says that it is one, the last one's subject is the title. Of a
// branch of which AOB made all commits, it returns the head.
func (f *Local) byPerson(head string) (last, title string, isDraft bool, err error) {
	commits, err := f.git.FirstParents(head, 20)
	if err != nil {
		return "", "", false, err
	}
	target := f.git.Refs()[branches+f.target]
	first := ""
	for _, c := range commits {
		if target != "" {
			landed, err := f.git.IsAncestor(c, target)
			if err != nil {
				return "", "", false, err
			}
			if landed { // the earlier commits belong to the target
				break
			}
		}
		mine, err := f.git.Mine(c)
		if err != nil {
			return "", "", false, err
		}
		if !mine {
			last, first = cmp.Or(last, c), c
		}
	}
	last = cmp.Or(last, head)
	subject, err := f.git.Subject(last)
	if err != nil {
		return "", "", false, err
	}
	if title, err = f.git.Subject(cmp.Or(first, last)); err != nil {
		return "", "", false, err
	}
	if draft(title) && !draft(subject) {
		title = subject
	}
	return last, title, draft(subject), nil
}

// SetStatus sets one status check on a commit.
func (f *Local) SetStatus(ctx context.Context, commit string, check delivery.Check) error {
	if commit == "" {
		return nil // the branch cannot be read, so its commit is not known
	}
	check.Description = Describe(check.Description)
	return f.rows.PutCheck(ctx, commit, check)
}

// Statuses returns a commit's checks, sorted by context. Only AOB can set them.
func (f *Local) Statuses(ctx context.Context, commit string) ([]delivery.Status, error) {
	checks, err := f.rows.Checks(ctx, commit)
	if err != nil {
		return nil, err
	}
	return delivery.Each(checks, func(c delivery.Check) delivery.Status {
		return delivery.Status{Check: c, By: delivery.CommitName, Mine: true}
	}), nil
}

// Comment creates the comment with the marker, or replaces its text.
func (f *Local) Comment(ctx context.Context, pr int, marker, body string) error {
	return f.rows.PutComment(ctx, pr, marker, CutComment(body))
}

// CommentBody returns the text of the comment with the marker.
func (f *Local) CommentBody(ctx context.Context, pr int, marker string) (body string, found bool, err error) {
	body, err = f.rows.CommentBody(ctx, pr, marker)
	return body, body != "", err
}

// Commands returns the comments with a command to AOB, oldest first. They are verified: they were sent over the
// server's socket, where the system identifies the user, and nobody can change them.
func (f *Local) Commands(ctx context.Context, pr int) ([]delivery.Comment, error) {
	list, err := f.rows.UserComments(ctx, pr)
	list = newest(slices.DeleteFunc(list, func(c delivery.Comment) bool { return delivery.CommandLine(c.Body) == "" }))
	for i := range list {
		list[i].VerifiedBy = "over the server's socket"
	}
	return list, err
}

// Ask does nothing: the authors of commands are verified, so nobody has to confirm one.
func (f *Local) Ask(context.Context, int, string) ([]delivery.Consent, error) { return nil, nil }

// Check says what keeps people from main: nothing does, as a folder has no settings.
func (f *Local) Check(context.Context) (setup delivery.Setup, err error) {
	setup.Right("ways around", "whoever can write to %s can push to %s; aob releases only what gates have passed, "+
		"however it gets there", f.address, f.target)
	return setup, nil
}

// Permission returns write for everybody, because who can write to the folder can do everything.
func (f *Local) Permission(_ context.Context, user string) (delivery.Permission, error) {
	if user == "" {
		return delivery.PermissionNone, nil
	}
	return delivery.PermissionWrite, nil
}

// Teams returns the groups of a user of this machine. A group with the user's name is
// listed too, also if the user is not in it.
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

// Owner returns why a name cannot own a gate, or "" if it is a user or a group of this machine.
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

// OpenPR returns the number of a branch's pull request, which exists as soon as the branch
// does. Its title is that of the branch's last commit. The body is stored as a comment.
func (f *Local) OpenPR(ctx context.Context, head, base, _, body string) (int, error) {
	if base != f.target {
		return 0, fmt.Errorf("open a pull request of %s: its target must be %s, not %s", head, f.target, base)
	}
	at, err := f.git.At(ctx, branches+head)
	if err != nil {
		return 0, err
	}
	if at == "" {
		return 0, fmt.Errorf("open a pull request of %s: there is no such branch", head)
	}
	number, err := f.rows.Number(ctx, head, f.merged)
	if err != nil {
		return 0, err
	}
	return number, f.Comment(ctx, number, "description", body)
}

// Knows returns true: the numbers of pull requests are in the same file as what AOB remembers about them.
func (f *Local) Knows(context.Context, int, string) (bool, error) { return true, nil }

// Merge merges a pull request in the name of a user, deletes its branch and returns the merge commit. reviewed is the
// commit that the user has reviewed; it may be shortened. The error is Blocked unless the branch is at that commit,
// aob/release is success on it, and the target's head is in its history.
func (f *Local) Merge(ctx context.Context, number int, reviewed, by string) (commit string, err error) {
	prs, err := f.PullRequests(ctx)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(prs, func(pr delivery.PullRequest) bool { return pr.Number == number })
	if i < 0 {
		return "", delivery.Blockedf("list the open ones with: aob pr list", "there is no open pull request %d", number)
	}
	if why := prs[i].Unreadable; why != "" {
		return "", delivery.Blockedf("repair the branch, or delete it", "pull request %d cannot be read: %s", number,
			why)
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
		return "", delivery.Blockedf("list the open ones with: aob pr list", "pull request %d was removed meanwhile",
			number)
	}
	if len(reviewed) < 7 || !strings.HasPrefix(head, reviewed) {
		return "", delivery.Blockedf(fmt.Sprintf("review it again: aob pr show %d", number),
			"pull request %d is at commit %.10s now, and %.10s was reviewed", number, head, reviewed)
	}
	_, title, isDraft, err := f.byPerson(head)
	if err != nil {
		return "", err
	}
	if isDraft {
		return "", delivery.Blockedf("remove the mark (WIP or draft) from the last commit's subject",
			"pull request %d is a draft", number)
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
			"commits the release again", f.target, branch), "%s has commits that pull request %d (%s) does not have",
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
		return commit, fmt.Errorf("pull request %d is merged as %.10s, but its branch was not deleted: %w", number,
			commit, err)
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
		return delivery.Blockedf(fmt.Sprintf("wait for it; aob pr show %d shows its progress", number),
			"pull request %d: %s has no result on %.10s yet", number, delivery.ContextRelease, head)
	}
	if c := checks[i]; c.State != delivery.CheckSuccess {
		return delivery.Blockedf(fmt.Sprintf("aob pr show %d says why", number),
			"pull request %d: %s is %s on %.10s: %s", number, c.Context, c.State, head, c.Description)
	}
	return nil
}
