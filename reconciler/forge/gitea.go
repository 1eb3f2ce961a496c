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
	Token     func() string     // asked before each request
	Hooks     string            // the address that webhooks must be sent to; empty where none are expected
	Branch    string            // the target branch, as main
	Signed    Signed            // how AOB signs its commits
	Transport http.RoundTripper // nil is one of its own
}

// Signed says by what a forge can verify AOB's commits. The zero value is for commits without a signature.
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
		// A connection that died without a word is left after 30 s, not when the kernel gives up.
		t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second}
		next = t
	}
	base := strings.TrimSuffix(u.String(), "/")
	return &Gitea{
		url: base, owner: s.Owner, repo: s.Repo, token: s.Token, hooks: s.Hooks, branch: s.Branch, signed: s.Signed, started: time.Now(),
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

// get reads one answer of the API, as the SDK does not offer it.
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
		page, resp, err := c.ListRepoPullRequests(f.owner, f.repo, gitea.ListPullRequestsOptions{State: gitea.StateOpen, Sort: "oldest", ListOptions: opt})
		for _, p := range page {
			if p != nil && p.Head != nil && p.Base != nil {
				prs = append(prs, pullRequest(p))
			}
		}
		return len(page), resp, err
	})
	if missing(err) {
		// Gitea knows no pull requests in a repository that it takes for
		// empty, which lasts for a moment after the first push.
		if repo, _, err := c.GetRepo(f.owner, f.repo); err == nil && repo.Empty {
			return nil, nil
		}
	}
	if err != nil {
		return nil, f.explain(doing, err)
	}
	slices.SortFunc(prs, func(a, b delivery.PullRequest) int { return cmp.Compare(a.Number, b.Number) })
	// One that was opened while the pages were read may be on two of them.
	return slices.CompactFunc(prs, func(a, b delivery.PullRequest) bool { return a.Number == b.Number }), nil
}

// pages reads a list page by page. The Link header tells of a next page, and so does the number of all: a proxy may take
// the header away. Without both it goes on to the first page that is nearly empty.
func pages(read func(gitea.ListOptions) (n int, resp *gitea.Response, err error)) error {
	seen := 0
	for page := 1; seen < maxPullRequests; page++ {
		n, resp, err := read(gitea.ListOptions{Page: page, PageSize: 50})
		if err != nil || n == 0 {
			return err
		}
		seen += n
		total, err := strconv.Atoi(resp.Header.Get("X-Total-Count"))
		told := err == nil || resp.Header.Get("Link") != ""
		if resp.NextPage <= page && seen >= total && (told || n < smallestPage) {
			return nil
		}
	}
	return nil
}

// smallestPage is the fewest entries that a full page has: no server is known to be set up with fewer.
const smallestPage = 10

// Ended returns a pull request as it is now, and whether it is closed. One that Gitea does not know any more is closed.
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
		return pr, false, fmt.Errorf("%s: the answer names no commits", doing)
	}
	now = pullRequest(p)
	if !now.Created.Equal(pr.Created) {
		return pr, true, nil // another one that was given the same number
	}
	return now, p.HasMerged || p.State == gitea.StateClosed, nil
}

// maxPullRequests is how many open pull requests are looked at.
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

// noBranch reports whether a head's name is none of a branch: a head that was
// pushed to refs/for/main is called refs/pull/N/head, and one whose branch is
// gone as well.
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
			status := delivery.Status{Check: delivery.Check{Context: s.Context, State: delivery.CheckState(s.State), Description: s.Description, URL: s.TargetURL}}
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

// Comment makes the comment with the marker, or changes it to the body. The
// marker is hidden in it. A comment of another user is never taken for ours.
func (f *Gitea) Comment(ctx context.Context, pr int, marker, body string) error {
	doing := fmt.Sprintf("comment on pull request %d", pr)
	c, err := f.client(ctx)
	if err != nil {
		return f.explain(doing, err)
	}
	text := comment(marker, body)
	old, err := f.marked(ctx, c, pr, marker)
	switch {
	case err != nil:
		return f.explain(doing, err)
	case old != nil && old.Body == text:
		return nil
	case old != nil:
		_, _, err := c.EditIssueComment(f.owner, f.repo, old.ID, gitea.EditIssueCommentOption{Body: text})
		return f.explain(doing, err)
	}
	_, _, err = c.CreateIssueComment(f.owner, f.repo, int64(pr), gitea.CreateIssueCommentOption{Body: text})
	return f.explain(doing, err)
}

// CommentBody returns the text of the comment with the marker as it is now, cut as
// Comment cuts it. A comment of another user is never taken for ours.
func (f *Gitea) CommentBody(ctx context.Context, pr int, marker string) (body string, found bool, err error) {
	doing := fmt.Sprintf("read aob's comment on pull request %d", pr)
	c, err := f.client(ctx)
	if err != nil {
		return "", false, f.explain(doing, err)
	}
	old, err := f.marked(ctx, c, pr, marker)
	if err != nil || old == nil {
		return "", false, f.explain(doing, err)
	}
	return strings.TrimPrefix(old.Body, hidden(marker)), true, nil
}

// marked returns the first comment of AOB's own that begins with the marker, or nil.
func (f *Gitea) marked(ctx context.Context, c *gitea.Client, pr int, marker string) (*gitea.Comment, error) {
	me, _, err := f.myself(c)
	if err != nil {
		return nil, err
	}
	var first *gitea.Comment
	err = f.comments(ctx, pr, func(c *gitea.Comment) {
		if c.Poster.ID == me && strings.HasPrefix(c.Body, hidden(marker)) && (first == nil || c.ID < first.ID) {
			first = c
		}
	})
	return first, err
}

// comments calls each with the comments on a pull request. They are read one after
// another, since anybody may write thousands of long ones.
func (f *Gitea) comments(ctx context.Context, pr int, each func(*gitea.Comment)) error {
	ctx = context.WithValue(ctx, responseLimit{}, int64(maxComments))
	return f.get(ctx, fmt.Sprintf("issues/%d/comments", pr), func(d *json.Decoder) error {
		if t, err := d.Token(); err != nil || t != json.Delim('[') {
			return fmt.Errorf("the server's answer is no list of comments")
		}
		for d.More() {
			var c *gitea.Comment
			if err := d.Decode(&c); err != nil {
				return err
			}
			if c != nil && c.Poster != nil {
				each(c)
			}
		}
		_, err := d.Token()
		return err
	})
}

// Commands returns the comments on a pull request that ask something of AOB,
// oldest first: those whose first line begins with /aob, and not AOB's own. Other
// writers may have edited them, and nothing shows it: none is vouched for.
func (f *Gitea) Commands(ctx context.Context, pr int) ([]delivery.Comment, error) {
	doing := fmt.Sprintf("read the comments on pull request %d", pr)
	c, err := f.client(ctx)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	me, _, err := f.myself(c)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	var asked []delivery.Comment
	err = f.comments(ctx, pr, func(said *gitea.Comment) {
		if said.Poster.ID == me || !command(said.Body) {
			return
		}
		asked = append(asked, delivery.Comment{ID: said.ID, Author: said.Poster.UserName, Body: said.Body, At: said.Created.UTC()})
		if len(asked) >= 2*MaxCommands {
			asked = newest(asked)
		}
	})
	return newest(asked), f.explain(doing, err)
}

// Ask makes sure that AOB's question stands on a pull request as a comment of its
// own, and returns who has agreed to it: those who reacted to that comment with 👍.
//
// Every writer may edit AOB's comments, and Gitea's times are whole seconds. So a
// comment counts only if its text is the question, letter by letter, and it was not
// changed after the second in which it was made; and a reaction counts only if it
// is younger than that second. Whoever reacted has then seen the question as it
// stands. Only the user who reacts can make that reaction.
//
// Where no such comment is there, it is made. One that is edited or deleted again
// and again is made again with growing pauses, and then no more.
func (f *Gitea) Ask(ctx context.Context, pr int, question string) ([]delivery.Consent, error) {
	doing := fmt.Sprintf("ask back on pull request %d", pr)
	c, err := f.client(ctx)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	me, _, err := f.myself(c)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	text := comment("question", question)
	intact := func(c *gitea.Comment) bool {
		return c != nil && c.Poster != nil && c.Poster.ID == me && c.Body == text && c.Updated.Equal(c.Created)
	}
	var stands *gitea.Comment
	err = f.comments(ctx, pr, func(c *gitea.Comment) {
		if intact(c) && (stands == nil || c.ID < stands.ID) {
			stands = c
		}
	})
	if err != nil {
		return nil, f.explain(doing, err)
	}
	if stands == nil {
		if err := f.mayAsk(pr, question, time.Now()); err != nil {
			return nil, err
		}
		_, _, err := c.CreateIssueComment(f.owner, f.repo, int64(pr), gitea.CreateIssueCommentOption{Body: text})
		return nil, f.explain(doing, err)
	}
	reactions, _, err := c.GetIssueCommentReactions(f.owner, f.repo, stands.ID)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	var list []delivery.Consent
	for _, r := range reactions {
		if r != nil && r.User != nil && r.Reaction == "+1" && r.Created.After(stands.Created) {
			list = append(list, delivery.Consent{By: r.User.UserName, Comment: stands.ID, At: r.Created.UTC()})
		}
	}
	if len(list) == 0 {
		return nil, nil
	}
	// It may have been edited between the first look and the reactions.
	again, _, err := c.GetIssueComment(f.owner, f.repo, stands.ID)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	if !intact(again) {
		return nil, nil
	}
	slices.SortStableFunc(list, func(a, b delivery.Consent) int { return a.At.Compare(b.At) })
	return list, nil
}

const (
	// maxAsks is how often one question is asked as long as a server runs.
	maxAsks = 5
	// maxQuestions is how many questions a pull request gets without a pause. After
	// them it gets one each questionPause, so that a writer who puts orders into
	// other people's comments fills no pull request, and silences no owner for good.
	maxQuestions  = 20
	questionPause = 10 * time.Minute
)

// mayAsk counts how often a question was asked, and the questions of a pull request.
// The pause after each time that the same one is asked grows.
func (f *Gitea) mayAsk(pr int, question string, now time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	of := strconv.Itoa(pr)
	question = of + " " + question
	a, all := f.asks[question], f.asks[of]
	if all.count >= maxQuestions && now.Before(all.next) {
		return delivery.Wait{For: all.next.Sub(now), What: fmt.Sprintf("aob has asked %d questions on pull request %d, and asks the next one later", all.count, pr)}
	}
	if a.count >= maxAsks {
		return delivery.Blockedf("find out who edits or deletes aob's comments there", "a question of aob's was changed or removed %d times, and is not asked again", a.count)
	}
	if now.Before(a.next) {
		return delivery.Wait{For: a.next.Sub(now), What: "a question of aob's was changed or removed, and is asked again later"}
	}
	if f.asks == nil || len(f.asks) > 10_000 {
		f.asks = map[string]asks{}
	}
	a.next = now.Add(time.Second << (3 * a.count)) // 1 s, 8 s, about a minute, and so on
	a.count++
	all.count, all.next = all.count+1, now.Add(questionPause)
	f.asks[question], f.asks[of] = a, all
	return nil
}

// asks is how often a question was asked, and when it may be asked again.
type asks struct {
	count int
	next  time.Time
}

// Heard is told that a webhook has arrived.
func (f *Gitea) Heard() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = true
}

// Misheard is told that a webhook has arrived whose signature is wrong.
func (f *Gitea) Misheard() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.misheard = true
}

// Check returns what is wrong with how the server and the repository are set up.
func (f *Gitea) Check(ctx context.Context) (delivery.Setup, error) {
	const doing = "look at the repository's settings"
	c, err := f.client(ctx)
	if err != nil {
		return delivery.Setup{}, f.explain(doing, err)
	}
	_, name, err := f.myself(c)
	if err != nil {
		return delivery.Setup{}, f.explain(doing, err)
	}
	repo, _, err := c.GetRepo(f.owner, f.repo)
	if err != nil {
		return delivery.Setup{}, f.explain(doing, err)
	}
	called := f.owner + "/" + f.repo
	var setup delivery.Setup
	if missing, err := f.missingScopes(ctx); err != nil {
		return setup, f.explain(doing, err)
	} else if len(missing) > 0 {
		setup.Wrong = append(setup.Wrong, fmt.Sprintf("aob's token has no scope %s; %s", strings.Join(missing, " and no scope "), makeToken))
	}
	say := func(format string, args ...any) { setup.Wrong = append(setup.Wrong, fmt.Sprintf(format, args...)) }
	if repo.FullName != "" && !strings.EqualFold(repo.FullName, called) {
		say("%s is called %s now; write the new name in forge.gitea.repo and in repository, and start aob serve again", called, delivery.Terminal(Cut(repo.FullName, 200)))
	}
	switch {
	case repo.Archived:
		say("%s is archived: aob cannot say or push anything there; take it out of the archive", called)
	case repo.Mirror:
		say("%s is a mirror, and a mirror has no pull requests; name the repository that it mirrors", called)
	case repo.Empty:
		say("%s is empty; push a branch main with models, gates and fleets", called)
	case !repo.HasPullRequests:
		say("pull requests are switched off in %s; switch them on in its settings", called)
	}
	teams, organization, err := f.repoTeams(c)
	if err != nil {
		return setup, f.explain(doing, err)
	}
	admin := repo.Permissions != nil && repo.Permissions.Admin
	switch p := repo.Permissions; {
	case p == nil: // an old server; what is missing shows where it is needed
	case organization && !admin:
		say("%s belongs to an organization, where Gitea tells administrators of the repository alone what people may do; make aob's user %s an administrator of it", called, name)
	case !p.Pull || !p.Push:
		say("aob's user %s may not write to %s, so it can set no status and push no release; give it the role Write", name, called)
	}
	if organization && admin {
		more, err := f.checkTeams(c, teams, name)
		if err != nil {
			return setup, f.explain(doing, err)
		}
		setup.Wrong = append(setup.Wrong, more...)
	}
	if f.hooks != "" {
		more, err := f.checkHooks(c, repo, admin)
		if err != nil {
			return setup, f.explain(doing, err)
		}
		setup.Wrong = append(setup.Wrong, more...)
	}
	if repo.Empty || repo.Archived || !repo.HasPullRequests {
		return setup, nil
	}
	required, err := f.requiresSigned(c, admin)
	if err != nil {
		return setup, f.explain(doing, err)
	}
	wrong, err := f.checkSigned(ctx, c, name)
	if err != nil {
		return setup, f.explain(doing, err)
	}
	switch {
	case required && f.signed.Key == "":
		setup.Refuses = fmt.Sprintf("%s takes only signed commits on %s, and aob does not sign its own; "+
			"whoever runs aob sets commits.signingKey in its configuration (docs/gitea.md, Required signatures)",
			called, f.branch)
	case required && wrong != "":
		setup.Refuses = fmt.Sprintf("%s takes only signed commits on %s, and %s", called, f.branch, wrong)
	}
	if wrong = cmp.Or(setup.Refuses, wrong); wrong != "" {
		say("%s", wrong)
	}
	return setup, nil
}

// checkHooks says whether a webhook is there that points to AOB, and works. Gitea shows webhooks to administrators of the
// repository alone.
func (f *Gitea) checkHooks(c *gitea.Client, repo *gitea.Repository, admin bool) ([]string, error) {
	f.mu.Lock()
	heard, misheard := f.heard, f.misheard
	f.mu.Unlock()
	if heard {
		return nil, nil // by whichever way it comes
	}
	called := f.owner + "/" + f.repo
	if admin {
		var hooks []*gitea.Hook
		err := pages(func(opt gitea.ListOptions) (int, *gitea.Response, error) {
			page, resp, err := c.ListRepoHooks(f.owner, f.repo, gitea.ListHooksOptions{ListOptions: opt})
			hooks = append(hooks, page...)
			return len(page), resp, err
		})
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(hooks, func(h *gitea.Hook) bool {
			return h != nil && strings.TrimRight(cmp.Or(h.Config["url"], h.URL), "/") == strings.TrimRight(f.hooks, "/")
		})
		switch {
		case i < 0:
			return []string{fmt.Sprintf("%s has no webhook to %s, so aob sees what happens only when it looks; add one, with the secret of the configuration", called, f.hooks)}, nil
		case !hooks[i].Active:
			return []string{fmt.Sprintf("the webhook of %s to %s is switched off; switch it on", called, f.hooks)}, nil
		}
	}
	switch {
	case !repo.Updated.After(f.started): // nothing has happened that a webhook would tell
		return nil, nil
	case misheard:
		return []string{fmt.Sprintf("webhooks arrive at %s with a wrong signature, and none with the right one; give the webhook of %s in Gitea the secret that forge.gitea.webhookSecretFile or webhookSecretEnv holds", f.hooks, called)}, nil
	case !admin:
		return []string{fmt.Sprintf("%s has changed since aob serve was started, and no webhook has arrived; Gitea shows webhooks to administrators of the repository alone, so look whether %s has one to %s, and at its recent deliveries: ALLOWED_HOST_LIST may forbid the address", called, called, f.hooks)}, nil
	}
	return []string{fmt.Sprintf("%s has changed since aob serve was started, and no webhook has arrived; look at its recent deliveries in the repository's settings: Gitea may not reach %s, or ALLOWED_HOST_LIST forbids it", called, f.hooks)}, nil
}

// requiresSigned reports whether the protection of the target branch asks for signed commits. Gitea shows it to
// administrators of the repository alone.
func (f *Gitea) requiresSigned(c *gitea.Client, admin bool) (bool, error) {
	if !admin || f.branch == "" {
		return false, nil
	}
	branch, _, err := c.GetRepoBranch(f.owner, f.repo, f.branch)
	if missing(err) || err == nil && branch.EffectiveBranchProtectionName == "" {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	rule, _, err := c.GetBranchProtection(f.owner, f.repo, branch.EffectiveBranchProtectionName)
	if missing(err) {
		return false, nil // it was removed meanwhile
	}
	return err == nil && rule.RequireSignedCommits, err
}

func missing(err error) bool {
	s, ok := errors.AsType[*statusError](err)
	return ok && s.code == http.StatusNotFound
}

// maxVerified is how many pull requests are looked at for commits that Gitea does not take for signed.
const maxVerified = 20

// checkSigned says why Gitea does not take AOB's commits for signed, and what to do; empty where nothing is known to be
// wrong, or where they are not signed. Gitea verifies a signature if the committer's e-mail address is a confirmed one
// of an account, and the key one that this account has proved to own.
func (f *Gitea) checkSigned(ctx context.Context, c *gitea.Client, name string) (string, error) {
	if f.signed.Key == "" {
		return "", nil
	}
	var keys []*gitea.PublicKey
	err := pages(func(opt gitea.ListOptions) (int, *gitea.Response, error) {
		page, resp, err := c.ListMyPublicKeys(gitea.ListPublicKeysOptions{ListOptions: opt})
		keys = append(keys, page...)
		return len(page), resp, err
	})
	if err != nil {
		return "", err
	}
	if !slices.ContainsFunc(keys, func(k *gitea.PublicKey) bool { return k != nil && sameKey(k.Key, f.signed.Key) }) {
		return fmt.Sprintf("the key that signs aob's commits is not among the SSH keys of the user %s: "+
			"add it in that user's settings, and verify it there: %s", name, f.signed.Key), nil
	}
	var emails []*gitea.Email
	err = pages(func(opt gitea.ListOptions) (int, *gitea.Response, error) {
		page, resp, err := c.ListEmails(gitea.ListEmailsOptions{ListOptions: opt})
		emails = append(emails, page...)
		return len(page), resp, err
	})
	if err != nil {
		return "", err
	}
	known := slices.ContainsFunc(emails, func(e *gitea.Email) bool {
		return e != nil && e.Verified && strings.EqualFold(e.Email, f.signed.Email)
	})
	// An address that Gitea makes of the user's name counts too, and is not in the list.
	made, _, _ := strings.Cut(f.signed.Email, "@")
	if !known && (f.signed.Email == delivery.CommitEmail || !strings.EqualFold(made, name)) {
		return fmt.Sprintf("the address %s of aob's commits is no confirmed e-mail address of the user %s: "+
			"set commits.email to one that is", f.signed.Email, name), nil
	}
	prs, err := f.PullRequests(ctx)
	if err != nil {
		return "", err
	}
	for _, pr := range prs[max(0, len(prs)-maxVerified):] {
		if why, err := f.unverified(ctx, pr, name); why != "" || err != nil {
			return why, err
		}
	}
	return "", nil
}

// unverified says why Gitea does not take a pull request's head for signed, where it is AOB's.
func (f *Gitea) unverified(ctx context.Context, pr delivery.PullRequest, name string) (string, error) {
	var got gitea.Commit
	path := fmt.Sprintf("git/commits/%s?stat=false&files=false", url.PathEscape(pr.Head))
	err := f.get(ctx, path, func(d *json.Decoder) error { return d.Decode(&got) })
	v := got.RepoCommit
	if missing(err) || err == nil && (v == nil || v.Committer == nil || v.Verification == nil) {
		return "", nil // the head has moved, or the server is an old one
	}
	switch {
	case err != nil:
		return "", err
	case !strings.EqualFold(v.Committer.Email, f.signed.Email) || v.Verification.Verified:
		return "", nil
	case v.Verification.Signature == "":
		return fmt.Sprintf("aob made %.10s of pull request %d while it had no key to sign it: "+
			"push the branch without that commit, and aob makes it again", pr.Head, pr.Number), nil
	}
	return fmt.Sprintf("Gitea does not take aob's signature on %.10s of pull request %d for verified: "+
		"press Verify beside the key in the settings of the user %s", pr.Head, pr.Number, name), nil
}

// sameKey compares two lines of authorized_keys files without their comments.
func sameKey(a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	return len(x) >= 2 && len(y) >= 2 && x[0] == y[0] && x[1] == y[1]
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
		if scope := missingScope(err); scope != "" {
			return delivery.Blockedf(makeToken, "%s: aob's token has no scope %s (%s)", doing, scope, f.url)
		}
		return delivery.Blockedf("give the token's user write permission in the repository", "%s: %s denies access to %s (%s)", doing, f.url, repo, s)
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
