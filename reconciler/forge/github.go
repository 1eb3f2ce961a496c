package forge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-github/v88/github"

	"github.com/autonomos/aob/reconciler/delivery"
)

// GitHub is a repository on github.com or on a GitHub Enterprise Server, with the token of a user or as a GitHub App.
// Its methods may be called from any goroutine.
type GitHub struct {
	url, owner, repo string
	token            func() string
	app              *App // nil with the token of a user
	hooks, branch    string
	kept             Kept // nil for nothing
	started          time.Time
	client           *github.Client
	questions        questions
	edits            edits
	arrived          webhooks
	identity         identity
	budget           budget

	mu      sync.Mutex
	runs    checkRuns      // of an App
	heads   map[int]string // of open pull requests, as they were last listed
	me      account        // the token's user
	meToken string         // the token that me belongs to
}

// publicGitHub is the address that is used where none is configured.
const publicGitHub = "https://github.com"

// NewGitHub returns a GitHub. It sends no request.
func NewGitHub(s Settings) (*GitHub, error) {
	s.URL = cmp.Or(s.URL, publicGitHub)
	if s.App != nil {
		s.Token = func() string { token, _ := s.App.present(); return token }
	}
	base, owner, name, err := s.repository("GitHub")
	if err != nil {
		return nil, err
	}
	direct := &calls{next: transport(), token: s.Token}
	cached := &conditional{next: direct}
	if s.App != nil {
		cached.next = &asInstallation{app: s.App, next: direct}
	}
	f := &GitHub{url: base, owner: owner, repo: name, token: s.Token, app: s.App, hooks: s.Hooks, branch: s.Main,
		kept: s.Kept, started: time.Now()}
	f.client, err = gitHubClient(base, &sameRepository{forge: f, next: &spends{&f.budget, cached}})
	return f, err
}

func connectGitHub(s Settings) (Connection, error) {
	f, err := NewGitHub(s)
	if err != nil {
		return Connection{}, err
	}
	c, err := s.withWebhook(f, &f.arrived, f.keepPress)
	c.Deployments, c.Present = f, f.Present
	c.Spare = f.budget.spare
	c.Details, c.Queue = f.app != nil, "gh-readonly-queue/"
	if s.Signs {
		c.Committer = f
	}
	return c, err
}

// user returns AOB's user: the token's or the App's.
func (f *GitHub) user(ctx context.Context) (account, error) {
	if f.app != nil {
		return f.app.user(ctx, f.client)
	}
	token := f.token()
	f.mu.Lock()
	me, known := f.me, f.me.id != 0 && f.meToken == token
	f.mu.Unlock()
	if known {
		return me, nil
	}
	user, _, err := f.client.Users.Get(ctx, "")
	if err != nil {
		return account{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.me, f.meToken = account{user.GetID(), user.GetLogin()}, token
	return f.me, nil
}

// name returns owner/repo, for messages.
func (f *GitHub) name() string { return f.owner + "/" + f.repo }

// Address names the repository.
func (f *GitHub) Address() string { return f.url + "/" + f.name() }

// perPage is the largest page of GitHub's lists.
const perPage = 100

// maxPages is how many pages of a list are read.
const maxPages = 100

// pages reads a list page by page, until each returns false.
func pages[T any](read func(github.ListOptions) ([]T, *github.Response, error), each func(T) bool) error {
	for page := 1; page > 0 && page <= maxPages; {
		list, resp, err := read(github.ListOptions{Page: page, PerPage: perPage})
		if err != nil {
			return err
		}
		for _, v := range list {
			if !each(v) {
				return nil
			}
		}
		page = resp.NextPage
	}
	return nil
}

// PullRequests returns the open pull requests, sorted by number.
func (f *GitHub) PullRequests(ctx context.Context) (prs []delivery.PullRequest, err error) {
	defer f.explain(&err, "list pull requests")
	if prs, err = f.open(ctx, ""); err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.heads = make(map[int]string, len(prs))
	for _, pr := range prs {
		f.heads[pr.Number] = pr.Head
	}
	f.mu.Unlock()
	slices.SortFunc(prs, func(a, b delivery.PullRequest) int { return cmp.Compare(a.Number, b.Number) })
	// A pull request opened meanwhile may shift others to another page.
	return slices.CompactFunc(prs, func(a, b delivery.PullRequest) bool { return a.Number == b.Number }), nil
}

// open lists the open pull requests, of all heads or of one: owner:branch.
func (f *GitHub) open(ctx context.Context, head string) (prs []delivery.PullRequest, err error) {
	err = pages(func(page github.ListOptions) ([]*github.PullRequest, *github.Response, error) {
		return f.client.PullRequests.List(ctx, f.owner, f.repo, &github.PullRequestListOptions{State: "open",
			Head: head, Sort: "created", Direction: "asc", ListOptions: page})
	}, func(p *github.PullRequest) bool {
		if p.GetHead() != nil && p.GetBase() != nil {
			prs = append(prs, pullRequestOf(p))
		}
		return len(prs) < maxPullRequests
	})
	return prs, err
}

// Ended returns a pull request's current state, and whether it is closed. One that no longer exists is closed.
func (f *GitHub) Ended(ctx context.Context, pr delivery.PullRequest) (now delivery.PullRequest, ended bool,
	err error) {
	defer f.explain(&err, "read pull request %d", pr.Number)
	p, err := f.pullRequest(ctx, pr.Number)
	if err != nil || p == nil {
		return pr, err == nil, err
	}
	if p.GetHead() == nil || p.GetBase() == nil {
		return pr, false, errors.New("the response has no commits")
	}
	now = pullRequestOf(p)
	if !now.Created.Equal(pr.Created) {
		return pr, true, nil // another pull request with the same number
	}
	return now, now.Merged || p.GetState() == "closed", nil
}

// pullRequest reads a pull request. It is nil if there is none.
func (f *GitHub) pullRequest(ctx context.Context, number int) (*github.PullRequest, error) {
	p, _, err := f.client.PullRequests.Get(ctx, f.owner, f.repo, number)
	if missing(err) {
		if _, _, err := f.client.Repositories.Get(ctx, f.owner, f.repo); err == nil {
			return nil, nil
		}
	}
	return p, err
}

// pullRequestOf returns AOB's form of a pull request. GitHub's has no head repository once a fork was deleted.
func pullRequestOf(p *github.PullRequest) delivery.PullRequest {
	head, base := p.GetHead(), p.GetBase()
	pr := delivery.PullRequest{
		Number:  p.GetNumber(),
		Title:   p.GetTitle(),
		Head:    head.GetSHA(),
		Ref:     fmt.Sprintf("refs/pull/%d/head", p.GetNumber()),
		HeadRef: head.GetRef(),
		Base:    base.GetRef(),
		Fork:    head.GetRepo() == nil || head.GetRepo().GetID() != base.GetRepo().GetID(),
		Merged:  p.GetMerged() || p.MergedAt != nil,
		Draft:   p.GetDraft() || draft(p.GetTitle()),
		URL:     p.GetHTMLURL(),
		Author:  p.GetUser().GetLogin(),
		Created: p.GetCreatedAt().UTC(),
		Updated: p.GetUpdatedAt().UTC(),
	}
	if pr.Fork {
		pr.ForkOwner = head.GetUser().GetLogin()
	}
	return pr
}

// Statuses returns the newest status of each context under aob/ that a commit has, sorted by context, whoever set it.
// GitHub compares contexts without regard to case.
func (f *GitHub) Statuses(ctx context.Context, commit string) (_ []delivery.Status, err error) {
	defer f.explain(&err, "read the statuses of %.10s", commit)
	if f.app != nil {
		return f.readRuns(ctx, commit)
	}
	me, err := f.user(ctx)
	if err != nil {
		return nil, err
	}
	list := []delivery.Status{}
	seen := map[string]bool{}
	err = pages(func(page github.ListOptions) ([]*github.RepoStatus, *github.Response, error) {
		return f.client.Repositories.ListStatuses(ctx, f.owner, f.repo, commit, &page)
	}, func(s *github.RepoStatus) bool { // the newest first
		context := strings.ToLower(s.GetContext())
		if !strings.HasPrefix(context, "aob/") || seen[context] {
			return true
		}
		seen[context] = true
		list = append(list, delivery.Status{By: s.GetCreator().GetLogin(), Mine: s.GetCreator().GetID() == me.id,
			Check: delivery.Check{Context: s.GetContext(), State: delivery.CheckState(s.GetState()),
				Description: s.GetDescription(), URL: s.GetTargetURL()}})
		return true
	})
	slices.SortFunc(list, func(a, b delivery.Status) int { return strings.Compare(a.Context, b.Context) })
	return list, err
}

// SetStatus sets one status check on a commit: a check run as an App, else a commit status.
func (f *GitHub) SetStatus(ctx context.Context, commit string, check delivery.Check) (err error) {
	defer f.explain(&err, "set %s on %.10s", check.Context, commit)
	if f.app != nil {
		return f.setRun(ctx, commit, check)
	}
	status := github.RepoStatus{State: new(string(check.State)), Context: &check.Context,
		Description: new(Describe(check.Description))}
	if check.URL != "" {
		status.TargetURL = &check.URL
	}
	_, _, err = f.client.Repositories.CreateStatus(ctx, f.owner, f.repo, commit, status)
	return err
}

// OpenPR opens a pull request of a branch, and returns its number. One that is open already is returned as it is.
func (f *GitHub) OpenPR(ctx context.Context, head, base, title, body string) (number int, err error) {
	defer f.explain(&err, "open a pull request of %s", head)
	if number, err = f.find(ctx, head, base); err != nil || number > 0 {
		return number, err
	}
	made, _, err := f.client.PullRequests.Create(ctx, f.owner, f.repo, &github.NewPullRequest{Head: &head, Base: &base,
		Title: &title, Body: new(CutComment(body))})
	if hasStatus(err, http.StatusUnprocessableEntity) {
		if number, again := f.find(ctx, head, base); again == nil && number > 0 {
			return number, nil
		}
	}
	if err != nil {
		return 0, err
	}
	return made.GetNumber(), nil
}

// find returns the number of a branch's open pull request, or 0.
func (f *GitHub) find(ctx context.Context, head, base string) (int, error) {
	prs, err := f.open(ctx, f.owner+":"+head)
	pr, _ := delivery.Find(prs, func(pr delivery.PullRequest) bool {
		return !pr.Fork && pr.HeadRef == head && pr.Base == base
	})
	return pr.Number, err
}

// Knows reports whether GitHub has a pull request of that number that AOB opened from that branch, open or closed.
func (f *GitHub) Knows(ctx context.Context, number int, branch string) (_ bool, err error) {
	defer f.explain(&err, "read pull request %d", number)
	me, err := f.user(ctx)
	if err != nil {
		return false, err
	}
	p, err := f.pullRequest(ctx, number)
	if err != nil || p == nil {
		return false, err
	}
	return p.GetHead().GetRef() == branch && p.GetUser().GetID() == me.id, nil
}

// explain says in *err, unless it is nil, what was being done; see explained. Methods that ask the server defer it.
func (f *GitHub) explain(err *error, format string, args ...any) {
	if limit, ok := errors.AsType[*github.RateLimitError](*err); ok { // it was not sent
		*err = delivery.Wait{For: max(time.Until(limit.Rate.Reset.Time), time.Second),
			What: fmt.Sprintf("%s: %s limits requests to %d an hour", fmt.Sprintf(format, args...), f.url,
				limit.Rate.Limit)}
	}
	*err = explained(*err, fmt.Sprintf(format, args...), f.url, f.name(), func(s *statusError) (what, do string) {
		if s.code == http.StatusForbidden && strings.Contains(s.text, "Resource not accessible") {
			if f.app != nil {
				return fmt.Sprintf("the GitHub App lacks a permission (%s: %s)", f.url, s), appNeeds
			}
			return fmt.Sprintf("aob's token lacks a permission (%s: %s)", f.url, s), makeGitHubToken
		}
		return "", ""
	})
}
