package forge

// This file authenticates AOB as a GitHub App.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/bradleyfalzon/ghinstallation/v2"
	"github.com/google/go-github/v88/github"

	"github.com/autonomos/aob/reconciler/delivery"
)

// AppSettings are what an [App] needs.
type AppSettings struct {
	URL, Repo    string                 // as in [Settings]
	ID           int64                  // of the App
	Installation int64                  // of the App on the repository; 0: it is asked for
	Key          func() ([]byte, error) // reads the App's private key, in PEM; called for each new token
}

// renewBefore is how long before its end a token is replaced. GitHub's tokens of installations last an hour.
const renewBefore = 5 * time.Minute

// An App is an installation of a GitHub App on a repository. Its methods may be called from any goroutine.
type App struct {
	AppSettings
	url, owner, repo string
	next             *calls

	mu           sync.Mutex
	token        string
	ends         time.Time
	installation int64
	repository   int64 // tokens are for this one alone; 0: for all that the installation may see
	lacks        []string
	me           account // the App's user, as aob[bot]
}

// NewApp returns an App. It sends no request.
func NewApp(s AppSettings) (*App, error) {
	s.URL = cmp.Or(s.URL, publicGitHub)
	nothing := func() string { return "" }
	base, owner, name, err := Settings{URL: s.URL, Repo: s.Repo, Token: nothing}.repository("GitHub")
	if err != nil {
		return nil, err
	}
	return &App{AppSettings: s, url: base, owner: owner, repo: name,
		next: &calls{next: transport(), token: nothing}}, nil
}

// gitHubClient returns a client of github.com or of a GitHub Enterprise Server.
func gitHubClient(base string, t http.RoundTripper) (*github.Client, error) {
	options := []github.ClientOptionsFunc{github.WithUserAgent("aob"), github.WithHTTPClient(httpClient(t))}
	if base != publicGitHub {
		options = append(options, github.WithEnterpriseURLs(base, base))
	}
	client, err := github.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("the GitHub address: %w", err)
	}
	return client, nil
}

// asApp returns a client that signs its requests with the App's key. Such requests are about the App itself.
func (a *App) asApp() (*github.Client, error) {
	key, err := a.Key()
	if err != nil {
		if path, ok := errors.AsType[*fs.PathError](err); ok {
			err = path.Err // the hint names the file
		}
		return nil, delivery.Blockedf("put the private key there that GitHub made for the App, readable for aob's "+
			"user alone", "forge.github.app.keyFile cannot be read: %s", err)
	}
	signs, err := ghinstallation.NewAppsTransport(a.next, a.ID, key)
	if err != nil {
		return nil, delivery.Blockedf("make a private key in the App's settings, and put the whole .pem file there",
			"forge.github.app.keyFile has no private RSA key in PEM")
	}
	return gitHubClient(a.url, signs)
}

// appNeeds is the hint for an App with too few permissions. docs/github.md has the same list.
const appNeeds = "give the App these permissions, and accept them in the installation: Checks, Contents, " +
	"Deployments, Issues, Pull requests and Commit statuses to write, and for teams that own gates " +
	"Administration and Members to read (docs/github.md)"

// lacks returns the permissions that an installation lacks.
func lacks(p *github.InstallationPermissions) (list []string) {
	for _, need := range []struct{ name, has string }{{"Checks", p.GetChecks()}, {"Contents", p.GetContents()},
		{"Deployments", p.GetDeployments()}, {"Issues", p.GetIssues()},
		{"Pull requests", p.GetPullRequests()}, {"Commit statuses", p.GetStatuses()}} {
		if need.has != "write" {
			list = append(list, need.name)
		}
	}
	return list
}

// Token returns a token of the installation that lasts at least some minutes more.
func (a *App) Token(ctx context.Context) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.token != "" && time.Until(a.ends) > renewBefore {
		return a.token, nil
	}
	a.token = ""
	client, err := a.asApp()
	if err != nil {
		return "", err
	}
	if a.installation == 0 {
		if a.installation, err = a.find(ctx, client); err != nil {
			return "", err
		}
	}
	only := &github.InstallationTokenOptions{}
	if a.repository != 0 {
		only.RepositoryIDs = []int64{a.repository}
	}
	made, _, err := client.Apps.CreateInstallationToken(ctx, a.installation, only)
	if err != nil {
		a.installation = 0 // it may have been installed again, with another id
		return "", a.refused(err)
	}
	a.token, a.ends, a.lacks = made.GetToken(), made.GetExpiresAt().Time, lacks(made.GetPermissions())
	return a.token, nil
}

// narrow makes further tokens for one repository alone.
func (a *App) narrow(repository int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.repository != repository {
		a.repository, a.token = repository, ""
	}
}

// present returns the token that Token has returned last, and what the installation lacks.
func (a *App) present() (token string, lacks []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.token, a.lacks
}

// drop forgets a token that GitHub has rejected.
func (a *App) drop(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.token == token {
		a.token = ""
	}
}

// find asks for the id of the App's installation.
func (a *App) find(ctx context.Context, client *github.Client) (int64, error) {
	if a.Installation != 0 {
		return a.Installation, nil
	}
	in, _, err := client.Apps.GetRepositoryInstallation(ctx, a.owner, a.repo)
	if err != nil {
		return 0, a.refused(err)
	}
	if in.SuspendedAt != nil {
		return 0, a.suspended()
	}
	return in.GetID(), nil
}

// user returns the App's user, who is the author of its comments and statuses.
func (a *App) user(ctx context.Context, asInstallation *github.Client) (account, error) {
	a.mu.Lock()
	me := a.me
	a.mu.Unlock()
	if me.id != 0 {
		return me, nil
	}
	client, err := a.asApp()
	if err != nil {
		return me, err
	}
	app, _, err := client.Apps.Get(ctx, "")
	if err != nil {
		return me, a.refused(err)
	}
	user, _, err := asInstallation.Users.Get(ctx, app.GetSlug()+"[bot]")
	if err != nil {
		return me, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.me = account{user.GetID(), user.GetLogin()}
	return a.me, nil
}

// refused explains why GitHub makes no token for the App.
func (a *App) refused(err error) error {
	s, ok := errors.AsType[*statusError](err)
	repo := a.owner + "/" + a.repo
	switch {
	case !ok || s.limited:
		return err
	case s.code == http.StatusUnauthorized:
		return delivery.Blockedf("check forge.github.app.id, its keyFile, and this machine's clock",
			"%s does not believe the key of App %d (%s)", a.url, a.ID, s)
	case s.code == http.StatusNotFound:
		return delivery.Blockedf("install it there, in the App's settings under Install App; aob goes on by itself",
			"App %d is not installed on %s: it was removed, or never installed", a.ID, repo)
	case s.code == http.StatusForbidden && strings.Contains(strings.ToLower(s.text), "suspended"):
		return a.suspended()
	case s.code == http.StatusForbidden, s.code == http.StatusUnprocessableEntity:
		return delivery.Blockedf(appNeeds, "%s makes no token for App %d on %s (%s)", a.url, a.ID, repo, s)
	}
	return err
}

func (a *App) suspended() error {
	return delivery.Blockedf("end that in the settings of the account that owns it, under GitHub Apps; aob goes on by "+
		"itself", "the installation of App %d on %s/%s is suspended", a.ID, a.owner, a.repo)
}

// asInstallation is a transport that authenticates requests with a token of the installation. A token that GitHub
// rejects is replaced once: it may have been revoked.
type asInstallation struct {
	app  *App
	next *calls
}

func (t *asInstallation) RoundTrip(req *http.Request) (*http.Response, error) {
	token, err := t.app.Token(req.Context())
	if err != nil {
		return nil, err
	}
	resp, err := t.next.RoundTrip(req)
	if !hasStatus(err, http.StatusUnauthorized) || req.Body != nil && req.GetBody == nil {
		return resp, err
	}
	t.app.drop(token)
	if _, failed := t.app.Token(req.Context()); failed != nil {
		return nil, failed
	}
	if req = req.Clone(req.Context()); req.GetBody != nil {
		if req.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	return t.next.RoundTrip(req)
}
