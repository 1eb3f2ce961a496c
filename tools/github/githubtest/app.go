package githubtest

// This file has GitHub Apps: their keys, installations and tokens.

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v4"
)

// An App is a GitHub App that is installed on a repository.
type App struct {
	ID   int64
	User *User         // as aob[bot]; it has no token of its own
	Key  []byte        // the private key, in PEM
	Ends time.Duration // how long its tokens last

	server       *Server
	slug         string
	key          *rsa.PrivateKey
	repo         *Repo
	installation int64
	permissions  map[string]string
	suspended    bool
	tokens       map[string]appToken
}

type appToken struct {
	ends  time.Time
	repos []int64 // empty: all of the installation
}

// App makes a GitHub App that is installed on a repository with all that AOB asks for.
func (s *Server) App(r *Repo, slug string) *App {
	s.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		s.t.Fatal(err)
	}
	user := s.User(slug + "[bot]")
	s.mu.Lock()
	defer s.mu.Unlock()
	user.Token = "" // nobody can sign in as an App's user
	a := &App{server: s, ID: s.id(), User: user, slug: slug, key: key, Ends: time.Hour, tokens: map[string]appToken{},
		Key: pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})}
	s.apps = append(s.apps, a)
	a.install(r)
	return a
}

func (a *App) install(r *Repo) {
	a.repo, a.installation = r, a.server.id()
	a.permissions = map[string]string{"metadata": "read", "members": "read", "administration": "read"}
	for _, name := range []string{"checks", "contents", "deployments", "issues", "pull_requests", "statuses"} {
		a.permissions[name] = "write"
	}
	r.may[a.User.Login] = "write"
}

// Install installs the App on a repository, with a new id.
func (a *App) Install(r *Repo) {
	a.server.mu.Lock()
	defer a.server.mu.Unlock()
	a.install(r)
}

// Remove removes the installation. Its tokens end.
func (a *App) Remove() {
	a.server.mu.Lock()
	defer a.server.mu.Unlock()
	delete(a.repo.may, a.User.Login)
	a.repo, a.tokens = nil, map[string]appToken{}
}

// Suspend suspends the installation, or ends that.
func (a *App) Suspend(suspended bool) {
	a.server.mu.Lock()
	defer a.server.mu.Unlock()
	if a.suspended = suspended; suspended {
		a.tokens = map[string]appToken{}
	}
}

// Revoke ends all tokens.
func (a *App) Revoke() {
	a.server.mu.Lock()
	defer a.server.mu.Unlock()
	a.tokens = map[string]appToken{}
}

// Grant changes a permission of the installation: write, read, or "" for none.
func (a *App) Grant(name, level string) {
	a.server.mu.Lock()
	defer a.server.mu.Unlock()
	if a.permissions[name] = level; level == "" {
		delete(a.permissions, name)
	}
}

// Tokens returns how many tokens have been made and not revoked.
func (a *App) Tokens() int {
	a.server.mu.Lock()
	defer a.server.mu.Unlock()
	return len(a.tokens)
}

// appNeeds are the permissions that an App needs for a request, by the beginning of its path after the repository.
// GitHub lists them in its documentation of each request.
var appNeeds = []struct{ path, permission string }{
	{"/check-runs", "checks"}, {"/commits/{ref}/check-runs", "checks"}, {"/deployments", "deployments"},
	{"/statuses", "statuses"}, {"/commits/{ref}/statuses", "statuses"}, {"/issues", "issues"},
	{"/teams", "administration"}, {"/pulls", "pull_requests"}, {"/branches", "contents"}, {"", "metadata"},
}

// permitted reports whether an App may send a request.
func (a *App) permitted(pattern string) bool {
	method, path, _ := strings.Cut(pattern, " ")
	if strings.HasPrefix(path, "/orgs/") {
		return a.permissions["members"] != ""
	}
	if path == "/user" || strings.HasSuffix(path, "/hooks") {
		return false
	}
	path, ok := strings.CutPrefix(path, "/repos/{owner}/{repo}")
	if !ok {
		return true
	}
	i := slices.IndexFunc(appNeeds, func(n struct{ path, permission string }) bool {
		return strings.HasPrefix(path, n.path)
	})
	has := a.permissions[appNeeds[i].permission]
	return has == "write" || has == "read" && method == http.MethodGet
}

// asInstallation returns the App whose installation has a token; nil for none.
func (s *Server) asInstallation(token string) (*App, appToken) {
	for _, a := range s.apps {
		if t, ok := a.tokens[token]; ok && time.Now().Before(t.ends) && !a.suspended && a.repo != nil {
			return a, t
		}
	}
	return nil, appToken{}
}

// asApp returns the App that has signed a request; nil for none.
func (s *Server) asApp(r *http.Request) *App {
	text := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	for _, a := range s.apps {
		var claims jwt.RegisteredClaims
		_, err := jwt.ParseWithClaims(text, &claims, func(*jwt.Token) (any, error) { return &a.key.PublicKey, nil },
			jwt.WithValidMethods([]string{"RS256"}))
		if err == nil && claims.Issuer == strconv.FormatInt(a.ID, 10) && claims.IssuedAt != nil &&
			claims.ExpiresAt != nil && claims.ExpiresAt.Before(time.Now().Add(10*time.Minute)) {
			return a
		}
	}
	return nil
}

// ofApp answers requests that an App signs with its key. known is false for other requests.
func (c *call) ofApp() (status int, body any, known bool) {
	switch c.pattern {
	case "GET /app", "GET /repos/{owner}/{repo}/installation",
		"POST /app/installations/{installation_id}/access_tokens":
	default:
		return 0, nil, false
	}
	a := c.asApp(c.r)
	if a == nil {
		return http.StatusUnauthorized, message("A JSON web token could not be decoded"), true
	}
	switch c.pattern {
	case "GET /app":
		return http.StatusOK, c.fill("integration", object{"id": a.ID, "slug": a.slug, "name": a.slug}), true
	case "GET /repos/{owner}/{repo}/installation":
		if a.repo == nil || c.repos[c.params["owner"]+"/"+c.params["repo"]] != a.repo {
			return http.StatusNotFound, message("Not Found"), true
		}
		return http.StatusOK, c.installation(a), true
	}
	if a.repo == nil || c.params["installation_id"] != strconv.FormatInt(a.installation, 10) {
		return http.StatusNotFound, message("Not Found"), true
	}
	if a.suspended {
		return http.StatusForbidden, message("This installation has been suspended"), true
	}
	var in struct {
		RepositoryIDs []int64 `json:"repository_ids"`
	}
	_ = json.Unmarshal(c.body, &in)
	if slices.ContainsFunc(in.RepositoryIDs, func(id int64) bool { return id != a.repo.id }) {
		return http.StatusUnprocessableEntity, message("There is at least one repository that does not exist or is " +
			"not accessible to the parent installation."), true
	}
	// Tokens are longer than 40 characters since 2026, and contain a JSON web token.
	token := fmt.Sprintf("ghs_%d_%s.%s", a.ID, strings.Repeat("e", 120), strconv.FormatInt(c.id(), 10))
	a.tokens[token] = appToken{time.Now().Add(a.Ends), in.RepositoryIDs}
	o := c.fill("installation-token", object{"token": token, "permissions": a.permissions,
		"expires_at": stamp(time.Now().Add(a.Ends).UTC())})
	delete(o, "repositories")
	return http.StatusCreated, o, true
}

func (c *call) installation(a *App) object {
	o := c.fill("installation", object{"id": a.installation, "app_id": a.ID, "app_slug": a.slug,
		"permissions": a.permissions, "repository_selection": "selected"})
	if a.suspended {
		o["suspended_at"] = stamp(c.now)
	}
	return o
}
