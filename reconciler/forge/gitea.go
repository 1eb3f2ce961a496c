package forge

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"code.gitea.io/sdk/gitea"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Signed identifies the key of AOB's commits. The zero value is for commits without a signature.
type Signed struct {
	Email string // of the committer
	Key   string // the public SSH key, as in an authorized_keys file
}

// Gitea is a repository on a Gitea or Forgejo server. Its methods may be called from any goroutine.
type Gitea struct {
	url, owner, repo string
	token            func() string
	hooks, branch    string
	signed           Signed
	started          time.Time
	http             *http.Client

	questions questions
	arrived   webhooks

	mu      sync.Mutex
	me      account // the token's user
	meToken string  // the token that me belongs to
}

// An account is a user of the server.
type account struct {
	id   int64
	name string
}

// NewGitea returns a Gitea. It sends no request.
func NewGitea(s Settings) (*Gitea, error) {
	base, owner, name, err := s.repository("Gitea")
	if err != nil {
		return nil, err
	}
	return &Gitea{
		url: base, owner: owner, repo: name, token: s.Token, hooks: s.Hooks, branch: s.Main, signed: s.Signed,
		started: time.Now(), http: httpClient(&calls{next: transport(), token: s.Token})}, nil
}

func connectGitea(s Settings) (Connection, error) {
	f, err := NewGitea(s)
	if err != nil {
		return Connection{}, err
	}
	return s.withWebhook(f, &f.arrived, nil)
}

// client returns an SDK client for one call, since the SDK keeps its context.
func (f *Gitea) client(ctx context.Context) *gitea.Client {
	// Without a version the SDK would request it first.
	c, err := gitea.NewClient(f.url, gitea.SetGiteaVersion(""), gitea.SetHTTPClient(f.http), gitea.SetContext(ctx),
		gitea.SetUserAgent("aob"))
	if err != nil {
		panic(err) // only wrong options are an error, and these are constant
	}
	return c
}

// session returns an SDK client for one call, and the token's user.
func (f *Gitea) session(ctx context.Context) (*gitea.Client, account, error) {
	c, token := f.client(ctx), f.token()
	f.mu.Lock()
	me, known := f.me, f.me.id != 0 && f.meToken == token
	f.mu.Unlock()
	if known {
		return c, me, nil
	}
	user, _, err := c.GetMyUserInfo()
	if err != nil {
		return nil, account{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.me, f.meToken = account{user.ID, user.UserName}, token
	return c, f.me, nil
}

// name returns owner/repo, for messages.
func (f *Gitea) name() string { return f.owner + "/" + f.repo }

// Address names the repository.
func (f *Gitea) Address() string { return f.url + "/" + f.name() }

// send sends a request about the repository that the SDK does not have, and passes the response to read.
func (f *Gitea) send(ctx context.Context, method, path string, body io.Reader, read func(*json.Decoder) error) error {
	address := fmt.Sprintf("%s/api/v1/repos/%s/%s/%s", f.url, url.PathEscape(f.owner), url.PathEscape(f.repo), path)
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "aob")
	resp, err := f.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return read(json.NewDecoder(resp.Body))
}

// get sends a GET request that the SDK does not have, and decodes the response into v.
func (f *Gitea) get(ctx context.Context, path string, v any) error {
	return f.send(ctx, http.MethodGet, path, nil, func(d *json.Decoder) error { return d.Decode(v) })
}

// PullRequests returns the open pull requests, sorted by number.
func (f *Gitea) PullRequests(ctx context.Context) (prs []delivery.PullRequest, err error) {
	defer f.explain(&err, "list pull requests")
	c := f.client(ctx)
	list, err := all(func(opt gitea.ListOptions) ([]*gitea.PullRequest, *gitea.Response, error) {
		return c.ListRepoPullRequests(f.owner, f.repo, gitea.ListPullRequestsOptions{State: gitea.StateOpen,
			Sort: "oldest", ListOptions: opt})
	})
	if missing(err) {
		// Gitea returns 404 for an empty repository. A repository counts as empty for a moment after the first push.
		if repo, _, err := c.GetRepo(f.owner, f.repo); err == nil && repo.Empty {
			return nil, nil
		}
	}
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		if p != nil && p.Head != nil && p.Base != nil {
			prs = append(prs, pullRequest(p))
		}
	}
	slices.SortFunc(prs, func(a, b delivery.PullRequest) int { return cmp.Compare(a.Number, b.Number) })
	// A pull request opened meanwhile may shift others to a second page.
	return slices.CompactFunc(prs, func(a, b delivery.PullRequest) bool { return a.Number == b.Number }), nil
}

// all reads a list page by page. The Link header or the total count shows whether there is a next page; a proxy may
// remove a header. Without both it stops at the first page with fewer than smallestPage entries.
func all[T any](read func(gitea.ListOptions) ([]T, *gitea.Response, error)) (list []T, err error) {
	for page := 1; len(list) < maxPullRequests; page++ {
		entries, resp, err := read(gitea.ListOptions{Page: page, PageSize: 50})
		if err != nil || len(entries) == 0 {
			return list, err
		}
		list = append(list, entries...)
		total, err := strconv.Atoi(resp.Header.Get("X-Total-Count"))
		hasCount := err == nil || resp.Header.Get("Link") != ""
		if resp.NextPage <= page && len(list) >= total && (hasCount || len(entries) < smallestPage) {
			break
		}
	}
	return list, nil
}

// smallestPage is the smallest size of a full page. Servers may limit the page size, but not below this.
const smallestPage = 10

// Ended returns a pull request's current state, and whether it is closed. One that no longer exists is closed.
func (f *Gitea) Ended(ctx context.Context, pr delivery.PullRequest) (now delivery.PullRequest, ended bool, err error) {
	defer f.explain(&err, "read pull request %d", pr.Number)
	p, err := f.pullRequest(ctx, pr.Number)
	if err != nil || p == nil {
		return pr, err == nil, err
	}
	if p.Head == nil || p.Base == nil {
		return pr, false, errors.New("the response has no commits")
	}
	now = pullRequest(p)
	if !now.Created.Equal(pr.Created) {
		return pr, true, nil // another pull request with the same number
	}
	return now, p.HasMerged || p.State == gitea.StateClosed, nil
}

// pullRequest reads a pull request. It is nil if there is none, because it was deleted or the forge was restored.
func (f *Gitea) pullRequest(ctx context.Context, number int) (*gitea.PullRequest, error) {
	c := f.client(ctx)
	p, _, err := c.GetPullRequest(f.owner, f.repo, int64(number))
	if missing(err) {
		if _, _, err := c.GetRepo(f.owner, f.repo); err == nil {
			return nil, nil
		}
	}
	return p, err
}

// maxPullRequests is how many open pull requests are read.
const maxPullRequests = 10_000

func pullRequest(p *gitea.PullRequest) delivery.PullRequest {
	pr := delivery.PullRequest{
		Number:  int(p.Index),
		Title:   p.Title,
		Head:    p.Head.Sha,
		Ref:     fmt.Sprintf("refs/pull/%d/head", p.Index),
		HeadRef: p.Head.Ref,
		Base:    p.Base.Ref,
		Fork:    p.Head.RepoID != p.Base.RepoID || noBranch(p.Head.Ref),
		Merged:  p.HasMerged,
		Draft:   p.Draft || draft(p.Title),
		URL:     p.HTMLURL,
	}
	if p.Poster != nil {
		pr.Author = p.Poster.UserName
	}
	if p.Created != nil {
		pr.Created = p.Created.UTC()
	}
	if p.Updated != nil {
		pr.Updated = p.Updated.UTC()
	}
	if p.Head.RepoID != p.Base.RepoID && p.Head.Repository != nil && p.Head.Repository.Owner != nil {
		pr.ForkOwner = p.Head.Repository.Owner.UserName
	}
	return pr
}

// noBranch reports whether a head has no branch: it was pushed to refs/for/main, or its
// branch was deleted. Then its name is refs/pull/N/head.
func noBranch(ref string) bool { return ref == "" || strings.HasPrefix(ref, "refs/") }

// maxStatusPages is how many pages of a commit's statuses are read, newest first.
const maxStatusPages = 20

// Statuses returns the newest status of each context under aob/ that a commit has, sorted by context, whoever set it.
func (f *Gitea) Statuses(ctx context.Context, commit string) (_ []delivery.Status, err error) {
	defer f.explain(&err, "read the statuses of %.10s", commit)
	_, me, err := f.session(ctx)
	if err != nil {
		return nil, err
	}
	list := []delivery.Status{}
	seen := map[string]bool{}
	for page := 1; page <= maxStatusPages; page++ {
		var got struct {
			Statuses []*gitea.Status `json:"statuses"`
		}
		path := fmt.Sprintf("commits/%s/status?page=%d&limit=50", url.PathEscape(commit), page)
		if err := f.get(ctx, path, &got); err != nil {
			return nil, err
		}
		for _, s := range got.Statuses {
			if s == nil || !strings.HasPrefix(s.Context, "aob/") || seen[s.Context] {
				continue
			}
			seen[s.Context] = true
			status := delivery.Status{Check: delivery.Check{Context: s.Context, State: delivery.CheckState(s.State),
				Description: s.Description, URL: s.TargetURL}}
			if s.Creator != nil {
				status.By, status.Mine = s.Creator.UserName, s.Creator.ID == me.id
			}
			list = append(list, status)
		}
		if len(got.Statuses) < smallestPage {
			break
		}
	}
	slices.SortFunc(list, func(a, b delivery.Status) int { return strings.Compare(a.Context, b.Context) })
	return list, nil
}

// SetStatus sets one status check on a commit.
func (f *Gitea) SetStatus(ctx context.Context, commit string, check delivery.Check) (err error) {
	defer f.explain(&err, "set %s on %.10s", check.Context, commit)
	_, _, err = f.client(ctx).CreateStatus(f.owner, f.repo, commit, gitea.CreateStatusOption{
		State: gitea.StatusState(check.State), Context: check.Context, Description: Describe(check.Description),
		TargetURL: check.URL})
	return err
}

// OpenPR opens a pull request of a branch, and returns its number. One that is open already is returned as it is.
func (f *Gitea) OpenPR(ctx context.Context, head, base, title, body string) (number int, err error) {
	if number, err = f.find(ctx, head, base); err != nil || number > 0 {
		return number, err
	}
	defer f.explain(&err, "open a pull request of %s", head)
	made, _, err := f.client(ctx).CreatePullRequest(f.owner, f.repo, gitea.CreatePullRequestOption{Head: head,
		Base: base, Title: title, Body: CutComment(body)})
	if hasStatus(err, http.StatusConflict) {
		if number, again := f.find(ctx, head, base); again == nil && number > 0 {
			return number, nil
		}
	}
	if err != nil {
		return 0, err
	}
	return int(made.Index), nil
}

// Knows reports whether Gitea has a pull request of that number that AOB opened from that branch, open or closed. It
// has none if it was restored from an older backup, or if the repository was moved to it without its pull requests.
func (f *Gitea) Knows(ctx context.Context, number int, branch string) (_ bool, err error) {
	defer f.explain(&err, "read pull request %d", number)
	_, me, err := f.session(ctx)
	if err != nil {
		return false, err
	}
	p, err := f.pullRequest(ctx, number)
	if err != nil || p == nil {
		return false, err
	}
	if p.Head == nil {
		return false, errors.New("the response has no branch")
	}
	// The label stays the branch's name after the branch was deleted.
	return p.Head.Name == branch && p.Poster != nil && p.Poster.ID == me.id, nil
}

// find returns the number of a branch's open pull request, or 0.
func (f *Gitea) find(ctx context.Context, head, base string) (int, error) {
	prs, err := f.PullRequests(ctx)
	if err != nil {
		return 0, err
	}
	pr, _ := delivery.Find(prs, func(pr delivery.PullRequest) bool {
		return !pr.Fork && pr.HeadRef == head && pr.Base == base
	})
	return pr.Number, nil
}

// hasStatus reports whether an error is a response with one of the statuses.
func hasStatus(err error, codes ...int) bool {
	s, ok := errors.AsType[*statusError](err)
	return ok && slices.Contains(codes, s.code)
}

func missing(err error) bool { return hasStatus(err, http.StatusNotFound) }

// explain says in *err, unless it is nil, what was being done; see explained. Methods that ask the server defer it.
func (f *Gitea) explain(err *error, format string, args ...any) {
	*err = explained(*err, fmt.Sprintf(format, args...), f.url, f.name(), func(s *statusError) (what, do string) {
		if scope := missingScope(s); scope != "" {
			return fmt.Sprintf("aob's token has no scope %s (%s)", scope, f.url), makeToken
		}
		return "", ""
	})
}
