package forge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"code.gitea.io/sdk/gitea"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Server is a Gitea repository's address.
type Server struct {
	URL       string            // as https://git.example.com, without user
	Owner     string            // user or organisation
	Repo      string            // name
	Token     func() string     // asked before each request
	Transport http.RoundTripper // nil is one of its own
}

// Gitea is a repository on a Gitea or Forgejo server. Its methods may be called
// from any goroutine.
type Gitea struct {
	url, owner, repo string
	http             *http.Client
}

// NewGitea makes a Gitea. It asks the server nothing.
func NewGitea(s Server) (*Gitea, error) {
	u, err := url.Parse(s.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, delivery.Blockedf("write it as https://git.example.com", "the Gitea address is not one")
	}
	if u.User != nil {
		return nil, delivery.Blockedf("give the token by itself; what is in an address ends up in logs", "the Gitea address https://…@%s holds a user or a token", u.Host)
	}
	if s.Owner == "" || s.Repo == "" || s.Token == nil {
		return nil, delivery.Blockedf("give all three", "the Gitea repository needs an owner, a name and a token")
	}
	next := s.Transport
	if next == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.ResponseHeaderTimeout = time.Minute
		next = t
	}
	base := strings.TrimSuffix(u.String(), "/")
	return &Gitea{
		url: base, owner: s.Owner, repo: s.Repo,
		http: &http.Client{
			Transport:     &calls{next: next, token: s.Token},
			Timeout:       2 * time.Minute,
			CheckRedirect: sameHost,
		},
	}, nil
}

// sameHost lets a server send a request elsewhere on itself, as Gitea does for
// a repository with a new name, and nowhere else: the token would go along.
func sameHost(req *http.Request, via []*http.Request) error {
	if from := via[0].URL; req.URL.Host != from.Host || req.URL.Scheme != from.Scheme {
		return delivery.Blockedf("give the new address", "the server sends aob to another host, and it does not follow")
	}
	if len(via) >= 5 {
		return errors.New("the server sends aob in circles")
	}
	return nil
}

// client makes an SDK client for one call: the SDK keeps its context.
func (f *Gitea) client(ctx context.Context) (*gitea.Client, error) {
	// Without a version given the SDK would ask for it before anything else.
	return gitea.NewClient(f.url, gitea.SetGiteaVersion(""), gitea.SetHTTPClient(f.http), gitea.SetContext(ctx), gitea.SetUserAgent("aob"))
}

// PullRequests returns the open pull requests, sorted by number.
func (f *Gitea) PullRequests(ctx context.Context) ([]delivery.PullRequest, error) {
	const doing = "list pull requests"
	c, err := f.client(ctx)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	var prs []delivery.PullRequest
	opt := gitea.ListPullRequestsOptions{State: gitea.StateOpen, Sort: "oldest", ListOptions: gitea.ListOptions{Page: 1, PageSize: 50}}
	for {
		page, resp, err := c.ListRepoPullRequests(f.owner, f.repo, opt)
		if s, ok := errors.AsType[*statusError](err); ok && s.code == http.StatusNotFound {
			// Gitea knows no pull requests in a repository that it takes for
			// empty, which lasts for a moment after the first push.
			if repo, _, err := c.GetRepo(f.owner, f.repo); err == nil && repo.Empty {
				return nil, nil
			}
		}
		if err != nil {
			return nil, f.explain(doing, err)
		}
		for _, p := range page {
			if p != nil && p.Head != nil && p.Base != nil {
				prs = append(prs, pullRequest(p))
			}
		}
		if resp.NextPage <= opt.Page || len(prs) > maxPullRequests {
			break
		}
		opt.Page = resp.NextPage
	}
	slices.SortFunc(prs, func(a, b delivery.PullRequest) int { return cmp.Compare(a.Number, b.Number) })
	// One that was opened while the pages were read may be on two of them.
	return slices.CompactFunc(prs, func(a, b delivery.PullRequest) bool { return a.Number == b.Number }), nil
}

// maxPullRequests is how many open pull requests are looked at.
const maxPullRequests = 10_000

func pullRequest(p *gitea.PullRequest) delivery.PullRequest {
	pr := delivery.PullRequest{
		Number:  int(p.Index),
		Title:   p.Title,
		Head:    p.Head.Sha,
		HeadRef: p.Head.Ref,
		Base:    p.Base.Ref,
		Fork:    p.Head.RepoID != p.Base.RepoID,
		Draft:   p.Draft || draft(p.Title),
		URL:     p.HTMLURL,
	}
	if p.Poster != nil {
		pr.Author = p.Poster.UserName
	}
	if p.Updated != nil {
		pr.Updated = p.Updated.UTC()
	}
	if p.Created != nil {
		pr.Created = p.Created.UTC()
	}
	pr.Merged = p.HasMerged
	return pr
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
		Description: Cut(check.Description, MaxDescription),
		TargetURL:   check.URL,
	})
	return f.explain(doing, err)
}

// Comment makes the comment with the marker, or changes it to the body. The
// marker is hidden in it. A comment of another user is never taken for ours.
func (f *Gitea) Comment(ctx context.Context, pr int, marker, body string) error {
	doing := fmt.Sprintf("comment on pull request %d", pr)
	c, err := f.client(ctx)
	if err != nil {
		return f.explain(doing, err)
	}
	text := comment(marker, body)
	me, _, err := c.GetMyUserInfo()
	if err != nil {
		return f.explain(doing, err)
	}
	list, err := f.comments(c, pr)
	if err != nil {
		return f.explain(doing, err)
	}
	for _, old := range list {
		if old.Poster == nil || old.Poster.ID != me.ID || !strings.HasPrefix(old.Body, hidden(marker)) {
			continue
		}
		if old.Body == text {
			return nil
		}
		_, _, err := c.EditIssueComment(f.owner, f.repo, old.ID, gitea.EditIssueCommentOption{Body: text})
		return f.explain(doing, err)
	}
	_, _, err = c.CreateIssueComment(f.owner, f.repo, int64(pr), gitea.CreateIssueCommentOption{Body: text})
	return f.explain(doing, err)
}

// comments returns all comments on a pull request, oldest first.
func (f *Gitea) comments(c *gitea.Client, pr int) ([]*gitea.Comment, error) {
	var all []*gitea.Comment
	opt := gitea.ListIssueCommentOptions{ListOptions: gitea.ListOptions{Page: 1, PageSize: 50}}
	for {
		page, resp, err := c.ListIssueComments(f.owner, f.repo, int64(pr), opt)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if resp.NextPage <= opt.Page {
			break
		}
		opt.Page = resp.NextPage
	}
	all = slices.DeleteFunc(all, func(c *gitea.Comment) bool { return c == nil })
	slices.SortStableFunc(all, func(a, b *gitea.Comment) int { return cmp.Compare(a.ID, b.ID) })
	return all, nil
}

// Commands returns the comments on a pull request that ask something of AOB,
// oldest first: those with a line that begins with /aob. What was edited after
// it was written does not count, for others may edit it.
func (f *Gitea) Commands(ctx context.Context, pr int) ([]delivery.Comment, error) {
	doing := fmt.Sprintf("read the comments on pull request %d", pr)
	c, err := f.client(ctx)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	list, err := f.comments(c, pr)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	var asked []delivery.Comment
	for _, said := range list {
		if said.Poster != nil && said.Updated.Equal(said.Created) && command(said.Body) {
			asked = append(asked, delivery.Comment{ID: said.ID, Author: said.Poster.UserName, Body: said.Body, At: said.Created.UTC()})
		}
	}
	return asked, nil
}

// Permission returns what a user may do in the repository, by the server's own
// word. A user whom it does not know may do nothing.
func (f *Gitea) Permission(ctx context.Context, user string) (delivery.Permission, error) {
	doing := fmt.Sprintf("ask what %s may do", Cut(user, 40))
	if user == "" {
		return delivery.PermissionNone, nil
	}
	c, err := f.client(ctx)
	if err != nil {
		return "", f.explain(doing, err)
	}
	got, _, err := c.CollaboratorPermission(f.owner, f.repo, user)
	if s, ok := errors.AsType[*statusError](err); ok {
		switch s.code {
		case http.StatusNotFound:
			return f.unknown(ctx, doing)
		case http.StatusForbidden:
			return "", delivery.Blockedf("make aob's user an administrator of the repository: Gitea tells no other what people may do", "%s: %s", doing, s)
		}
	}
	if err != nil || got == nil {
		return "", f.explain(doing, err)
	}
	switch got.Permission {
	case gitea.AccessModeOwner, gitea.AccessModeAdmin, gitea.AccessModeWrite:
		return delivery.PermissionWrite, nil
	case gitea.AccessModeRead:
		return delivery.PermissionRead, nil
	}
	return delivery.PermissionNone, nil
}

// Teams returns the names of the repository's teams, and whether a user belongs to
// each. A repository that no organization owns has none. Gitea tells of a team its own
// members alone: aob's user has to be in those that own gates.
func (f *Gitea) Teams(ctx context.Context, user string) (map[string]bool, error) {
	doing := fmt.Sprintf("ask for the teams of %s", Cut(user, 40))
	c, err := f.client(ctx)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	teams, _, err := c.GetRepoTeams(f.owner, f.repo)
	if s, ok := errors.AsType[*statusError](err); ok && s.code == http.StatusMethodNotAllowed {
		return nil, nil
	}
	if err != nil {
		return nil, f.explain(doing, err)
	}
	in := map[string]bool{}
	for _, t := range teams {
		_, _, err := c.GetTeamMember(t.ID, user)
		s, refused := errors.AsType[*statusError](err)
		if refused = refused && (s.code == http.StatusNotFound || s.code == http.StatusForbidden); err != nil && !refused {
			return nil, f.explain(doing, err)
		}
		in[t.Name] = !refused
	}
	return in, nil
}

// unknown tells a user who is not there from a repository that is not.
func (f *Gitea) unknown(ctx context.Context, doing string) (delivery.Permission, error) {
	c, err := f.client(ctx)
	if err == nil {
		_, _, err = c.GetRepo(f.owner, f.repo)
	}
	if err != nil {
		return "", f.explain(doing, err)
	}
	return delivery.PermissionNone, nil
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
	made, _, err := c.CreatePullRequest(f.owner, f.repo, gitea.CreatePullRequestOption{Head: head, Base: base, Title: title, Body: cutComment(body)})
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

// explain says what a person can do about an error.
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
		return delivery.Blockedf("check the token: it may have expired", "%s: %s does not know the token (%s)", doing, f.url, s)
	case http.StatusForbidden:
		return delivery.Blockedf("give the token's user write permission in the repository, and the token its scopes", "%s: %s denies access to %s (%s)", doing, f.url, repo, s)
	case http.StatusNotFound, http.StatusGone:
		return delivery.Blockedf("check owner and name, and that the token's user may see it", "%s: %s knows no such thing in %s (%s)", doing, f.url, repo, s)
	case http.StatusTooManyRequests:
		return delivery.Wait{For: s.after, What: fmt.Sprintf("%s: %s asks for time (%s)", doing, f.url, s)}
	}
	if s.code >= 500 {
		return delivery.Wait{For: s.after, What: fmt.Sprintf("%s: %s is not well (%s)", doing, f.url, s)}
	}
	return fmt.Errorf("%s in %s: %s", doing, repo, s)
}
