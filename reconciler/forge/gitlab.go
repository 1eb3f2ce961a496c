package forge

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	gitlab "gitlab.com/gitlab-org/api/client-go/v2"

	"github.com/autonomos/aob/reconciler/delivery"
)

// GitLab is a project on gitlab.com or on a GitLab server of one's own. Its pull requests are merge requests. Its
// methods may be called from any goroutine.
type GitLab struct {
	url, path     string // path is as vision/intent, or the project's number
	token         func() string
	hooks, branch string
	kept          Kept // nil for nothing
	started       time.Time
	client        *gitlab.Client
	questions     questions
	edits         edits
	arrived       webhooks

	mu      sync.Mutex
	id      int64                     // the project's number; 0 while it is not known
	heads   map[string]source         // of open merge requests, by commit, as they were last listed
	texts   map[string]delivery.Check // of statuses, by commit and context, that GitLab has not taken
	me      account                   // the token's user
	meToken string                    // the token that me belongs to
}

// publicGitLab is the address that is used where none is configured.
const publicGitLab = "https://gitlab.com"

// NewGitLab returns a GitLab. It sends no request.
func NewGitLab(s Settings) (*GitLab, error) {
	base, err := serverAddress("GitLab", cmp.Or(s.URL, publicGitLab))
	if err != nil {
		return nil, err
	}
	f := &GitLab{url: base, path: s.Repo, token: s.Token, hooks: s.Hooks, branch: s.Main, kept: s.Kept,
		started: time.Now()}
	f.id, _ = strconv.ParseInt(s.Repo, 10, 64)
	if f.token == nil || f.id <= 0 && !strings.Contains(s.Repo, "/") {
		return nil, delivery.Blockedf("configure both", "the GitLab project needs a path and a token")
	}
	cached := &conditional{next: &calls{next: transport(), token: s.Token, scheme: "Bearer"}}
	// The client's own limiter and retries are off: errors go to the loop, which knows when to ask again.
	f.client, err = gitlab.NewAuthSourceClient(gitlab.Unauthenticated{}, gitlab.WithBaseURL(base),
		gitlab.WithHTTPClient(httpClient(cached)), gitlab.WithoutRetries(), gitlab.WithCustomLimiter(unlimited{}),
		gitlab.WithUserAgent("aob"))
	return f, err
}

// unlimited is a limiter that lets each request pass.
type unlimited struct{}

func (unlimited) Wait(context.Context) error { return nil }

func connectGitLab(s Settings) (Connection, error) {
	f, err := NewGitLab(s)
	if err != nil {
		return Connection{}, err
	}
	c := Connection{Forge: f, Deployments: f}
	if s.HookSecret != "" {
		read := tokenBody(s.HookSecret)
		c.Webhook = func(req *http.Request) (Event, error) {
			body, err := read(req)
			if f.arrived.note(err); err != nil {
				return Event{}, err
			}
			return gitLabEvent(req.Header, body), nil
		}
	}
	return c, nil
}

// name names the project, for messages.
func (f *GitLab) name() string {
	if !strings.Contains(f.path, "/") {
		return "project " + f.path
	}
	return f.path
}

// Address names the project.
func (f *GitLab) Address() string {
	if !strings.Contains(f.path, "/") {
		return f.url + "/projects/" + f.path
	}
	return f.url + "/" + f.path
}

// user returns the token's user. Tokens of projects and groups have one of their own.
func (f *GitLab) user(ctx context.Context) (account, error) {
	token := f.token()
	f.mu.Lock()
	me, known := f.me, f.me.id != 0 && f.meToken == token
	f.mu.Unlock()
	if known {
		return me, nil
	}
	user, _, err := f.client.Users.CurrentUser(gitlab.WithContext(ctx))
	if err != nil {
		return account{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.me, f.meToken = account{user.ID, user.Username}, token
	return f.me, nil
}

// project returns the project's number. It stays the same when the project is renamed or moved. The first answer is
// kept, so that no other project takes its place that is given its path later.
func (f *GitLab) project(ctx context.Context) (int64, error) {
	f.mu.Lock()
	id := f.id
	f.mu.Unlock()
	if id > 0 {
		return id, nil
	}
	key := "gitlab project " + f.Address()
	if f.kept != nil {
		known, err := f.kept.Kept(ctx, key)
		if err != nil {
			return 0, err
		}
		id, _ = strconv.ParseInt(known[key], 10, 64)
	}
	if id <= 0 {
		p, _, err := f.client.Projects.GetProject(f.path, nil, gitlab.WithContext(ctx))
		if err != nil {
			return 0, err
		}
		if id = p.ID; f.kept != nil {
			if err := f.kept.Keep(ctx, key, strconv.FormatInt(id, 10)); err != nil {
				return 0, err
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.id = id
	return id, nil
}

// gitLabPages reads a list page by page, until each returns false. A header or a link shows whether there is a next
// page; where a proxy has removed both, a full page does.
func gitLabPages[T any](read func(gitlab.ListOptions) ([]T, *gitlab.Response, error), each func(T) bool) error {
	for page := int64(1); page <= maxPages; page++ {
		list, resp, err := read(gitlab.ListOptions{Page: page, PerPage: perPage})
		if err != nil {
			return err
		}
		for _, v := range list {
			if !each(v) {
				return nil
			}
		}
		said := resp.Header.Values("X-Next-Page") != nil || resp.Header.Get("Link") != ""
		if said && resp.NextPage == 0 && resp.NextLink == "" || len(list) == 0 || !said && len(list) < perPage {
			return nil
		}
	}
	return nil
}

// PullRequests returns the open merge requests, sorted by number.
func (f *GitLab) PullRequests(ctx context.Context) (prs []delivery.PullRequest, err error) {
	defer f.explain(&err, "list merge requests")
	list, err := f.open(ctx, "", "")
	if err != nil {
		return nil, err
	}
	owners := map[int64]string{} // of forks
	for _, m := range list {
		pr, err := f.pullRequest(ctx, m, owners)
		if err != nil {
			return nil, err
		}
		prs = append(prs, pr)
	}
	heads := make(map[string]source, len(prs))
	for _, pr := range prs {
		heads[pr.Head] = source{pr.Number, pr.HeadRef}
	}
	f.mu.Lock()
	f.heads = heads
	f.mu.Unlock()
	slices.SortFunc(prs, func(a, b delivery.PullRequest) int { return cmp.Compare(a.Number, b.Number) })
	// A merge request opened meanwhile may shift others to another page.
	return slices.CompactFunc(prs, func(a, b delivery.PullRequest) bool { return a.Number == b.Number }), nil
}

// open lists the open merge requests: of all branches or of one, to all branches or to one.
func (f *GitLab) open(ctx context.Context, source, target string) (list []*gitlab.BasicMergeRequest, err error) {
	id, err := f.project(ctx)
	if err != nil {
		return nil, err
	}
	option := &gitlab.ListProjectMergeRequestsOptions{State: new("opened"), OrderBy: new("created_at"),
		Sort: new("asc")}
	if source != "" {
		option.SourceBranch, option.TargetBranch = &source, &target
	}
	err = gitLabPages(func(page gitlab.ListOptions) ([]*gitlab.BasicMergeRequest, *gitlab.Response, error) {
		option.ListOptions = page
		return f.client.MergeRequests.ListProjectMergeRequests(id, option, gitlab.WithContext(ctx))
	}, func(m *gitlab.BasicMergeRequest) bool {
		if m != nil && m.SHA != "" { // it is empty for a moment after the merge request was opened
			list = append(list, m)
		}
		return len(list) < maxPullRequests
	})
	return list, err
}

// Ended returns a merge request's current state, and whether it is closed. One that no longer exists is closed.
func (f *GitLab) Ended(ctx context.Context, pr delivery.PullRequest) (now delivery.PullRequest, ended bool,
	err error) {
	defer f.explain(&err, "read merge request %d", pr.Number)
	m, err := f.mergeRequest(ctx, pr.Number)
	if err != nil || m == nil {
		return pr, err == nil, err
	}
	now, err = f.pullRequest(ctx, &m.BasicMergeRequest, map[int64]string{})
	if err != nil {
		return pr, false, err
	}
	if !now.Created.Equal(pr.Created) {
		return pr, true, nil // another merge request with the same number
	}
	return now, now.Merged || m.State == "closed", nil
}

// mergeRequest reads a merge request. It is nil if there is none.
func (f *GitLab) mergeRequest(ctx context.Context, number int) (*gitlab.MergeRequest, error) {
	id, err := f.project(ctx)
	if err != nil {
		return nil, err
	}
	m, _, err := f.client.MergeRequests.GetMergeRequest(id, int64(number), nil, gitlab.WithContext(ctx))
	if missing(err) {
		if _, _, err := f.client.Projects.GetProject(id, nil, gitlab.WithContext(ctx)); err == nil {
			return nil, nil
		}
	}
	return m, err
}

// pullRequest returns AOB's form of a merge request. owners are the owners of the forks that are known already, by
// their projects' numbers. A deleted fork has the number 0 and no owner.
func (f *GitLab) pullRequest(ctx context.Context, m *gitlab.BasicMergeRequest, owners map[int64]string) (
	delivery.PullRequest, error) {
	pr := delivery.PullRequest{
		Number:  int(m.IID),
		Title:   m.Title,
		Head:    m.SHA,
		Ref:     fmt.Sprintf("refs/pull/%d/head", m.IID),
		HeadRef: m.SourceBranch,
		Base:    m.TargetBranch,
		Fork:    m.SourceProjectID != m.TargetProjectID,
		Merged:  m.State == "merged",
		Draft:   m.Draft || draft(m.Title),
		URL:     m.WebURL,
	}
	if m.Author != nil {
		pr.Author = m.Author.Username
	}
	if m.CreatedAt != nil {
		pr.Created = m.CreatedAt.UTC()
	}
	if m.UpdatedAt != nil {
		pr.Updated = m.UpdatedAt.UTC()
	}
	if !pr.Fork || m.SourceProjectID == 0 {
		return pr, nil
	}
	owner, known := owners[m.SourceProjectID]
	if !known {
		p, _, err := f.client.Projects.GetProject(m.SourceProjectID, nil, gitlab.WithContext(ctx))
		if err != nil && !hasStatus(err, http.StatusNotFound, http.StatusForbidden) { // AOB may not see it
			return pr, err
		}
		if err == nil && p.Namespace != nil {
			owner = p.Namespace.FullPath
		}
		owners[m.SourceProjectID] = owner
	}
	pr.ForkOwner = owner
	return pr, nil
}

// OpenPR opens a merge request of a branch, and returns its number. One that is open already is returned as it is.
func (f *GitLab) OpenPR(ctx context.Context, head, base, title, body string) (number int, err error) {
	defer f.explain(&err, "open a merge request of %s", head)
	if number, err = f.find(ctx, head, base); err != nil || number > 0 {
		return number, err
	}
	id, err := f.project(ctx)
	if err != nil {
		return 0, err
	}
	if _, _, err := f.client.Branches.GetBranch(id, head, gitlab.WithContext(ctx)); err != nil {
		return 0, err // GitLab does not always refuse a branch that is not there
	}
	made, _, err := f.client.MergeRequests.CreateMergeRequest(id, &gitlab.CreateMergeRequestOptions{Title: &title,
		Description: new(inert(CutComment(body))), SourceBranch: &head, TargetBranch: &base},
		gitlab.WithContext(ctx))
	if hasStatus(err, http.StatusConflict) {
		if number, again := f.find(ctx, head, base); again == nil && number > 0 {
			return number, nil
		}
	}
	if err != nil {
		return 0, err
	}
	return int(made.IID), nil
}

// find returns the number of a branch's open merge request, or 0.
func (f *GitLab) find(ctx context.Context, head, base string) (int, error) {
	list, err := f.open(ctx, head, base)
	m, found := delivery.Find(list, func(m *gitlab.BasicMergeRequest) bool {
		return m.SourceProjectID == m.TargetProjectID && m.SourceBranch == head && m.TargetBranch == base
	})
	if err != nil || !found {
		return 0, err
	}
	return int(m.IID), nil
}

// Knows reports whether GitLab has a merge request of that number that AOB opened from that branch, open or closed.
func (f *GitLab) Knows(ctx context.Context, number int, branch string) (_ bool, err error) {
	defer f.explain(&err, "read merge request %d", number)
	me, err := f.user(ctx)
	if err != nil {
		return false, err
	}
	m, err := f.mergeRequest(ctx, number)
	if err != nil || m == nil {
		return false, err
	}
	return m.SourceBranch == branch && m.Author != nil && m.Author.ID == me.id, nil
}

// explain says in *err, unless it is nil, what was being done; see explained. Methods that ask the server defer it.
func (f *GitLab) explain(err *error, format string, args ...any) {
	*err = explained(*err, fmt.Sprintf(format, args...), f.url, f.name(), func(s *statusError) (what, do string) {
		switch {
		case s.code == http.StatusForbidden && strings.Contains(s.text, "insufficient_scope"):
			return fmt.Sprintf("aob's token has no scope api (%s)", f.url), makeGitLabToken
		case s.code == http.StatusBadRequest && strings.Contains(s.text, "already been taken"):
			return fmt.Sprintf("a job of GitLab CI has the name of aob's status (%s)", s),
				"rename the job in .gitlab-ci.yml"
		case s.code == http.StatusForbidden:
			return fmt.Sprintf("%s denies it in %s (%s)", f.url, f.name(), s),
				"give the token's user the role Developer in the project"
		case s.code == http.StatusNotFound && strings.Contains(s.text, "Project Not Found"):
			return fmt.Sprintf("%s has no %s that aob's token may see (%s)", f.url, f.name(), s), "give the token's " +
				"user the role Developer in it; if the project was replaced by another one, write the new one's " +
				"number as forge.gitlab.project"
		}
		return "", ""
	})
}
