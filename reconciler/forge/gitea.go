package forge

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// A Server is a Gitea repository's address.
type Server struct {
	URL       string            // as https://git.example.com, without user
	Owner     string            // user or organisation
	Repo      string            // name
	Token     func() string     // called before each request
	Hooks     string            // the URL of AOB's webhook; empty if no webhooks are expected
	Branch    string            // the target branch, as main
	Signed    Signed            // how AOB signs its commits
	Transport http.RoundTripper // nil for a default one
}

// Signed identifies the key of AOB's commits. The zero value is for commits without a signature.
type Signed struct {
	Email string // of the committer
	Key   string // the public SSH key, as in an authorized_keys file
}

// Gitea is a repository on a Gitea or Forgejo server. Its methods may be called
// from any goroutine.
type Gitea struct {
	url, owner, repo string
	token            func() string
	hooks, branch    string
	signed           Signed
	started          time.Time
	http             *http.Client

	mu sync.Mutex
	me struct { // the token's user
		token string
		id    int64
		name  string
	}
	asks  map[string]asks // by pull request and question
	heard bool            // a webhook has arrived

	misheard bool // a webhook with a wrong signature has arrived
}

// NewGitea returns a Gitea. It sends no request.
func NewGitea(s Server) (*Gitea, error) {
	u, err := url.Parse(s.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, delivery.Blockedf("write it as https://git.example.com",
			"the Gitea address is not an http or https URL")
	}
	if u.User != nil {
		return nil, delivery.Blockedf("configure the token separately; addresses are logged",
			"the Gitea address https://…@%s contains a user or a token", u.Host)
	}
	if s.Owner == "" || s.Repo == "" || s.Token == nil {
		return nil, delivery.Blockedf("configure all three", "the Gitea repository needs an owner, a name and a token")
	}
	next := s.Transport
	if next == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.ResponseHeaderTimeout = time.Minute
		// A dead connection is closed after 30 s.
		t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second}
		next = t
	}
	base := strings.TrimSuffix(u.String(), "/")
	return &Gitea{
		url: base, owner: s.Owner, repo: s.Repo, token: s.Token, hooks: s.Hooks, branch: s.Branch, signed: s.Signed,
		started: time.Now(),
		http: &http.Client{
			Transport:     &calls{next: next, token: s.Token},
			Timeout:       2 * time.Minute,
			CheckRedirect: sameHost,
		},
	}, nil
}

func connectGitea(s Settings) (Connection, error) {
	owner, name, _ := strings.Cut(s.Repo, "/")
	f, err := NewGitea(Server{URL: s.URL, Owner: owner, Repo: name, Token: s.Token, Hooks: s.Hooks, Branch: s.Main,
		Signed: s.Signed})
	if err != nil || s.HookSecret == "" {
		return Connection{Forge: f}, err
	}
	read, err := Webhook(s.HookSecret)
	return Connection{Forge: f, Webhook: func(req *http.Request) (Event, error) {
		event, err := read(req)
		switch {
		case err == nil:
			f.Heard()
		case errors.Is(err, ErrSignature):
			f.Misheard()
		}
		return event, err
	}}, err
}

// sameHost allows redirects to the same host, as Gitea's for a renamed repository. Others
// would send the token to another host.
func sameHost(req *http.Request, via []*http.Request) error {
	if from := via[0].URL; req.URL.Host != from.Host || req.URL.Scheme != from.Scheme {
		return delivery.Blockedf("configure the new address", "the server redirects to another host, which aob refuses")
	}
	if len(via) >= 5 {
		return errors.New("the server redirects more than 5 times")
	}
	return nil
}

// client returns an SDK client for one call, since the SDK keeps its context.
func (f *Gitea) client(ctx context.Context) (*gitea.Client, error) {
	// Without a version the SDK would request it first.
	return gitea.NewClient(f.url, gitea.SetGiteaVersion(""), gitea.SetHTTPClient(f.http), gitea.SetContext(ctx),
		gitea.SetUserAgent("aob"))
}

// Address names the repository.
func (f *Gitea) Address() string { return f.url + "/" + f.owner + "/" + f.repo }

// myself returns the id and the name of the token's user.
func (f *Gitea) myself(c *gitea.Client) (id int64, name string, err error) {
	token := f.token()
	f.mu.Lock()
	me := f.me
	f.mu.Unlock()
	if me.id != 0 && me.token == token {
		return me.id, me.name, nil
	}
	user, _, err := c.GetMyUserInfo()
	if err != nil {
		return 0, "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.me.token, f.me.id, f.me.name = token, user.ID, user.UserName
	return user.ID, user.UserName, nil
}

// get sends a GET request that the SDK does not have.
func (f *Gitea) get(ctx context.Context, path string, read func(*json.Decoder) error) error {
	address := fmt.Sprintf("%s/api/v1/repos/%s/%s/%s", f.url, url.PathEscape(f.owner), url.PathEscape(f.repo), path)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "aob")
	resp, err := f.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return read(json.NewDecoder(resp.Body))
}

// PullRequests returns the open pull requests, sorted by number.
func (f *Gitea) PullRequests(ctx context.Context) ([]delivery.PullRequest, error) {
	const doing = "list pull requests"
	c, err := f.client(ctx)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	var prs []delivery.PullRequest
	err = pages(func(opt gitea.ListOptions) (int, *gitea.Response, error) {
		page, resp, err := c.ListRepoPullRequests(f.owner, f.repo, gitea.ListPullRequestsOptions{State: gitea.StateOpen,
			Sort: "oldest", ListOptions: opt})
		for _, p := range page {
			if p != nil && p.Head != nil && p.Base != nil {
				prs = append(prs, pullRequest(p))
			}
		}
		return len(page), resp, err
	})
	if missing(err) {
		// Gitea returns 404 for an empty repository. A repository counts as empty for a
		// moment after the first push.
		if repo, _, err := c.GetRepo(f.owner, f.repo); err == nil && repo.Empty {
			return nil, nil
		}
	}
	if err != nil {
		return nil, f.explain(doing, err)
	}
	slices.SortFunc(prs, func(a, b delivery.PullRequest) int { return cmp.Compare(a.Number, b.Number) })
	// A pull request opened meanwhile may shift others to a second page.
	return slices.CompactFunc(prs, func(a, b delivery.PullRequest) bool { return a.Number == b.Number }), nil
}

// pages reads a list page by page. The Link header or the total count shows whether there is a next page; a proxy may
// remove a header. Without both it stops at the first page with fewer than smallestPage entries.
func pages(read func(gitea.ListOptions) (n int, resp *gitea.Response, err error)) error {
	count := 0
	for page := 1; count < maxPullRequests; page++ {
		n, resp, err := read(gitea.ListOptions{Page: page, PageSize: 50})
		if err != nil || n == 0 {
			return err
		}
		count += n
		total, err := strconv.Atoi(resp.Header.Get("X-Total-Count"))
		hasCount := err == nil || resp.Header.Get("Link") != ""
		if resp.NextPage <= page && count >= total && (hasCount || n < smallestPage) {
			return nil
		}
	}
	return nil
}

// smallestPage is the smallest size of a full page. Servers may limit the page size, but not below this.
const smallestPage = 10

// Ended returns a pull request's current state, and whether it is closed. One that no longer exists is closed.
func (f *Gitea) Ended(ctx context.Context, pr delivery.PullRequest) (now delivery.PullRequest, ended bool, err error) {
	doing := fmt.Sprintf("read pull request %d", pr.Number)
	c, err := f.client(ctx)
	if err != nil {
		return pr, false, f.explain(doing, err)
	}
	p, _, err := c.GetPullRequest(f.owner, f.repo, int64(pr.Number))
	if s, ok := errors.AsType[*statusError](err); ok && s.code == http.StatusNotFound {
		if _, _, err := c.GetRepo(f.owner, f.repo); err == nil {
			return pr, true, nil // it was deleted, or the forge was restored
		}
	}
	if err != nil {
		return pr, false, f.explain(doing, err)
	}
	if p.Head == nil || p.Base == nil {
		return pr, false, fmt.Errorf("%s: the response has no commits", doing)
	}
	now = pullRequest(p)
	if !now.Created.Equal(pr.Created) {
		return pr, true, nil // another pull request with the same number
	}
	return now, p.HasMerged || p.State == gitea.StateClosed, nil
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

// Statuses returns the newest status of each context under aob/ that a commit
// has, sorted by context, whoever set it.
func (f *Gitea) Statuses(ctx context.Context, commit string) ([]delivery.Status, error) {
	doing := fmt.Sprintf("read the statuses of %.10s", commit)
	c, err := f.client(ctx)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	me, _, err := f.myself(c)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	list := []delivery.Status{}
	seen := map[string]bool{}
	for page := 1; page <= maxStatusPages; page++ {
		var got struct {
			Statuses []*gitea.Status `json:"statuses"`
		}
		path := fmt.Sprintf("commits/%s/status?page=%d&limit=50", url.PathEscape(commit), page)
		if err := f.get(ctx, path, func(d *json.Decoder) error { return d.Decode(&got) }); err != nil {
			return nil, f.explain(doing, err)
		}
		for _, s := range got.Statuses {
			if s == nil || !strings.HasPrefix(s.Context, "aob/") || seen[s.Context] {
				continue
			}
			seen[s.Context] = true
			status := delivery.Status{Check: delivery.Check{Context: s.Context, State: delivery.CheckState(s.State),
				Description: s.Description, URL: s.TargetURL}}
			if s.Creator != nil {
				status.By, status.Mine = s.Creator.UserName, s.Creator.ID == me
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
func (f *Gitea) SetStatus(ctx context.Context, commit string, check delivery.Check) error {
	doing := fmt.Sprintf("set %s on %.10s", check.Context, commit)
	c, err := f.client(ctx)
	if err != nil {
		return f.explain(doing, err)
	}
	_, _, err = c.CreateStatus(f.owner, f.repo, commit, gitea.CreateStatusOption{
		State:       gitea.StatusState(check.State),
		Context:     check.Context,
		Description: Describe(check.Description),
		TargetURL:   check.URL,
	})
	return f.explain(doing, err)
}

// OpenPR opens a pull request of a branch, and returns its number. One that is
// open already is returned as it is.
func (f *Gitea) OpenPR(ctx context.Context, head, base, title, body string) (int, error) {
	doing := fmt.Sprintf("open a pull request of %s", head)
	number, err := f.find(ctx, head, base)
	if err != nil || number > 0 {
		return number, err
	}
	c, err := f.client(ctx)
	if err != nil {
		return 0, f.explain(doing, err)
	}
	made, _, err := c.CreatePullRequest(f.owner, f.repo, gitea.CreatePullRequestOption{Head: head, Base: base,
		Title: title, Body: CutComment(body)})
	if s, ok := errors.AsType[*statusError](err); ok && s.code == http.StatusConflict {
		if number, again := f.find(ctx, head, base); again == nil && number > 0 {
			return number, nil
		}
	}
	if err != nil {
		return 0, f.explain(doing, err)
	}
	return int(made.Index), nil
}

// Knows reports whether Gitea has a pull request of that number that AOB opened from that branch, open or not. It does
// not where it was restored from an older backup, or where the repository was moved to it without its pull requests.
func (f *Gitea) Knows(ctx context.Context, number int, branch string) (bool, error) {
	doing := fmt.Sprintf("read pull request %d", number)
	c, err := f.client(ctx)
	if err != nil {
		return false, f.explain(doing, err)
	}
	me, _, err := f.myself(c)
	if err != nil {
		return false, f.explain(doing, err)
	}
	p, _, err := c.GetPullRequest(f.owner, f.repo, int64(number))
	if missing(err) {
		if _, _, err := c.GetRepo(f.owner, f.repo); err == nil {
			return false, nil
		}
	}
	if err != nil {
		return false, f.explain(doing, err)
	}
	if p.Head == nil {
		return false, fmt.Errorf("%s: the response has no branch", doing)
	}
	// The label is the branch's name also where the branch is gone.
	return p.Head.Name == branch && p.Poster != nil && p.Poster.ID == me, nil
}

// find returns the number of a branch's open pull request, or 0.
func (f *Gitea) find(ctx context.Context, head, base string) (int, error) {
	prs, err := f.PullRequests(ctx)
	if err != nil {
		return 0, err
	}
	for _, pr := range prs {
		if !pr.Fork && pr.HeadRef == head && pr.Base == base {
			return pr.Number, nil
		}
	}
	return 0, nil
}

// explain converts an error to a delivery.Blocked with a hint, or a delivery.Wait, where possible.
func (f *Gitea) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	repo := f.owner + "/" + f.repo
	if b, ok := errors.AsType[delivery.Blocked](err); ok {
		b.What = doing + ": " + b.What
		return b
	}
	s, ok := errors.AsType[*statusError](err)
	if !ok {
		return fmt.Errorf("%s in %s: %w", doing, repo, err)
	}
	switch s.code {
	case http.StatusUnauthorized:
		return delivery.Blockedf("check the token: it may have expired", "%s: %s rejects the token (%s)", doing,
			f.url, s)
	case http.StatusForbidden:
		if scope := missingScope(err); scope != "" {
			return delivery.Blockedf(makeToken, "%s: aob's token has no scope %s (%s)", doing, scope, f.url)
		}
		return delivery.Blockedf("give the token's user write permission in the repository",
			"%s: %s denies access to %s (%s)", doing, f.url, repo, s)
	case http.StatusNotFound, http.StatusGone:
		return delivery.Blockedf("check owner and name, and that the token's user may see it",
			"%s: %s finds no such thing in %s (%s)", doing, f.url, repo, s)
	case http.StatusTooManyRequests:
		return delivery.Wait{For: s.after, What: fmt.Sprintf("%s: %s limits requests (%s)", doing, f.url, s)}
	}
	if s.code >= 500 {
		return delivery.Wait{For: s.after, What: fmt.Sprintf("%s: %s has a server error (%s)", doing, f.url, s)}
	}
	return fmt.Errorf("%s in %s: %s", doing, repo, s)
}
