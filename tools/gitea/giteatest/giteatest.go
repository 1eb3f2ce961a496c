// Package giteatest runs a real Gitea server for tests.
//
// ../install.sh builds the program once, in the user's cache folder. If it is missing, [Start] skips the test. Each
// server has its own folder, SQLite database and loopback port, and is stopped at the end of the test.
//
//	server := giteatest.Start(t)
//	ada := server.User(t, "ada")
//	repo := server.Repo(t, ada, "intent")
//	git clone repo.CloneURL
//
// Only tests import it.
package giteatest

import (
	"bytes"
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"code.gitea.io/sdk/gitea"
	_ "modernc.org/sqlite" // for VerifyKey
)

// Version is the version that install.sh builds.
const Version = "1.25.5"

// A Server is a running Gitea.
type Server struct {
	URL   string // for example http://127.0.0.1:40123, without a slash at the end
	Admin User

	dir string
	log *os.File
}

// A User is a user of the server.
type User struct {
	Name     string
	Password string
	Token    string // has all permissions of the user
}

// A Repo is a repository on the server.
type Repo struct {
	Owner, Name string
	CloneURL    string // without user and token
}

func (r Repo) path() string { return "/repos/" + r.Owner + "/" + r.Name }

// Folder returns the folder into which install.sh installs Gitea, and whether it is installed.
func Folder() (dir string, installed bool) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", false
	}
	dir = filepath.Join(cache, "aob", "gitea-"+Version)
	info, err := os.Stat(filepath.Join(dir, "gitea"))
	return dir, err == nil && info.Mode().IsRegular()
}

// Start starts a server, waits until it responds, and stops it when the test ends. It skips
// the test if Gitea is not installed. settings are appended to app.ini.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	install, ok := Folder()
	if !ok {
		t.Skipf("Gitea %s is not in %s: run tools/gitea/install.sh", Version, install)
	}
	var err error
	for range 3 { // another program may take the port first
		s := &Server{dir: t.TempDir()}
		if err = s.start(t, install, strings.Join(settings, "\n")); err == nil {
			return s
		}
	}
	t.Fatal(err)
	return nil
}

func (s *Server) start(t testing.TB, install, settings string) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	s.URL = fmt.Sprintf("http://127.0.0.1:%d", port)
	me, err := user.Current()
	if err != nil {
		return err
	}
	config := filepath.Join(s.dir, "app.ini")
	text := strings.NewReplacer("{user}", me.Username, "{dir}", s.dir, "{gitea}", install, "{port}",
		fmt.Sprint(port)).Replace(appINI) + settings
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	if s.log, err = os.Create(filepath.Join(s.dir, "gitea.log")); err != nil {
		return err
	}
	program := filepath.Join(install, "gitea")
	env := append(os.Environ(), "GITEA_WORK_DIR="+s.dir, "HOME="+s.dir, "GIT_CONFIG_NOSYSTEM=1")

	web := exec.Command(program, "web", "--config", config)
	web.Env, web.Dir = env, s.dir
	web.Stdout, web.Stderr = s.log, s.log
	if err := web.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- web.Wait() }()
	t.Cleanup(func() {
		web.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			web.Process.Kill()
			<-ended
		}
		s.log.Close()
		if t.Failed() {
			t.Logf("Gitea's log:\n%s", tail(s.log.Name()))
		}
	})
	if err := s.wait(ended); err != nil {
		ended <- err // for the cleanup
		return fmt.Errorf("%w\n%s", err, tail(s.log.Name()))
	}

	s.Admin = User{Name: "root", Password: "root-password"}
	admin := exec.Command(program, "admin", "user", "create", "--config", config, "--admin",
		"--must-change-password=false",
		"--username", s.Admin.Name, "--password", s.Admin.Password, "--email", "root@example.com", "--access-token")
	admin.Env, admin.Dir = env, s.dir
	out, err := admin.CombinedOutput()
	token := regexp.MustCompile(`\b[0-9a-f]{40}\b`).Find(out)
	if err != nil || token == nil {
		return fmt.Errorf("gitea admin user create: %v: %s", err, out)
	}
	s.Admin.Token = string(token)
	return nil
}

func (s *Server) wait(ended <-chan error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/api/healthz", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-ended:
			return fmt.Errorf("gitea exited: %v", err)
		case <-ctx.Done():
			return errors.New("gitea did not respond within a minute")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Dir returns the folder with all data of the server.
func (s *Server) Dir() string { return s.dir }

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func tail(path string) string {
	data, _ := os.ReadFile(path)
	return string(data[max(0, len(data)-8<<10):])
}

// appINI are the server's settings. {name} is replaced.
//
//go:embed app.ini
var appINI string

// SSHKey generates an ed25519 SSH key without a passphrase, and returns the path of the private key; the public key is
// in the same path with .pub appended. It skips the test if there is no ssh-keygen.
func SSHKey(t testing.TB) string {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("no ssh-keygen on PATH")
	}
	path := filepath.Join(t.TempDir(), "id_ed25519")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f",
		path).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	return path
}

// SignsMerges returns settings with which the server signs all its merge commits, with a key from [SSHKey].
func SignsMerges(key string) string {
	return "[repository.signing]\nSIGNING_FORMAT = ssh\nSIGNING_KEY = " + key +
		".pub\nSIGNING_NAME = Gitea\nSIGNING_EMAIL = gitea@example.com\nMERGES = always\n"
}

// AddKey adds a key from [SSHKey] to a user's keys.
func (s *Server) AddKey(t testing.TB, as User, key string) {
	t.Helper()
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	s.must(t, as, "POST", "/user/keys", map[string]any{"title": strings.Fields(string(public))[1][40:60],
		"key": string(public)}, nil)
}

// VerifyKey marks a key as verified by its user. It does so in the server's database, because Gitea has no API for it.
func (s *Server) VerifyKey(t testing.TB, key string) {
	t.Helper()
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(s.dir, "gitea.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	done, err := db.Exec("UPDATE public_key SET verified = 1 WHERE content LIKE '%' || ? || '%'",
		strings.Fields(string(public))[1])
	if err != nil {
		t.Fatal(err)
	}
	if n, err := done.RowsAffected(); n != 1 || err != nil {
		t.Fatalf("verified %d keys, %v; want one", n, err)
	}
}

// Call calls the API as a user, for example with "POST", "/repos/ada/intent/forks". in is
// sent as JSON unless it is nil; the response is decoded into out unless that is nil. A
// status of 300 or more is an error that contains the response.
func (s *Server) Call(as User, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequest(method, s.URL+"/api/v1"+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if as.Token != "" {
		req.Header.Set("Authorization", "token "+as.Token)
	} else {
		req.SetBasicAuth(as.Name, as.Password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, data)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

func (s *Server) must(t testing.TB, as User, method, path string, in, out any) {
	t.Helper()
	if err := s.Call(as, method, path, in, out); err != nil {
		t.Fatal(err)
	}
}

// User creates a user with a token.
func (s *Server) User(t testing.TB, name string) User {
	t.Helper()
	u := User{Name: name, Password: name + "-password"}
	s.must(t, s.Admin, "POST", "/admin/users", map[string]any{
		"username": u.Name, "password": u.Password, "email": name + "@example.com", "must_change_password": false,
	}, nil)
	var token struct {
		SHA1 string `json:"sha1"`
	}
	s.must(t, u, "POST", "/users/"+name+"/tokens", map[string]any{"name": "test", "scopes": []string{"all"}}, &token)
	u.Token = token.SHA1
	return u
}

// Repo creates an empty private repository with the default branch main.
func (s *Server) Repo(t testing.TB, owner User, name string) Repo {
	t.Helper()
	return s.repo(t, owner, "POST", "/user/repos", map[string]any{"name": name, "private": true,
		"default_branch": "main"})
}

// Fork creates a fork of a repository that the user can read.
func (s *Server) Fork(t testing.TB, as User, of Repo) Repo {
	t.Helper()
	return s.repo(t, as, "POST", of.path()+"/forks", map[string]any{})
}

func (s *Server) repo(t testing.TB, as User, method, path string, in any) Repo {
	t.Helper()
	var made struct {
		Name     string `json:"name"`
		CloneURL string `json:"clone_url"`
		Owner    struct {
			Login string `json:"login"`
		} `json:"owner"`
	}
	s.must(t, as, method, path, in, &made)
	return Repo{Owner: made.Owner.Login, Name: made.Name, CloneURL: made.CloneURL}
}

// Allow gives a user a permission in a repository: read, write or admin.
func (s *Server) Allow(t testing.TB, r Repo, u User, permission string) {
	t.Helper()
	s.must(t, s.Admin, "PUT", r.path()+"/collaborators/"+u.Name, map[string]any{"permission": permission}, nil)
}

// Protect protects a branch: nobody can push to it, and pull requests can only be merged
// after the status checks have passed.
func (s *Server) Protect(t testing.TB, r Repo, branch string, checks ...string) {
	t.Helper()
	s.must(t, s.Admin, "POST", r.path()+"/branch_protections", map[string]any{
		"rule_name": branch, "enable_push": false, "enable_status_check": len(checks) > 0,
		"status_check_contexts": checks,
		"apply_to_admins":       true, "block_admin_merge_override": true,
	}, nil)
}

// Hook creates a webhook for pushes, pull requests and comments.
func (s *Server) Hook(t testing.TB, r Repo, target, secret string) {
	t.Helper()
	s.must(t, s.Admin, "POST", r.path()+"/hooks", map[string]any{
		"type": "gitea", "active": true,
		"config": map[string]string{"url": target, "content_type": "json", "secret": secret},
		"events": []string{"push", "pull_request", "pull_request_sync", "issue_comment", "create", "delete"},
	}, nil)
}

// PullRequest opens a pull request as a user and returns its number. head is a branch, or
// user:branch for a branch of a fork.
func (s *Server) PullRequest(t testing.TB, as User, r Repo, head, base, title string) int {
	t.Helper()
	var made struct {
		Number int `json:"number"`
	}
	s.must(t, as, "POST", r.path()+"/pulls", map[string]any{"head": head, "base": base, "title": title}, &made)
	return made.Number
}

// Merge merges a pull request. The error contains the server's reason for a refusal.
func (s *Server) Merge(as User, r Repo, number int) error {
	return s.Call(as, "POST", fmt.Sprintf("%s/pulls/%d/merge", r.path(), number), map[string]any{"Do": "merge"}, nil)
}

// A Status is a commit status.
type Status struct {
	Context     string `json:"context"`
	State       string `json:"status"`
	Description string `json:"description"`
	TargetURL   string `json:"target_url"`
}

// Statuses returns the latest status of each context on a commit.
func (s *Server) Statuses(t testing.TB, r Repo, commit string) map[string]Status {
	t.Helper()
	var combined struct {
		Statuses []Status `json:"statuses"`
	}
	s.must(t, s.Admin, "GET", r.path()+"/commits/"+commit+"/status?limit=100", nil, &combined)
	latest := map[string]Status{}
	for _, st := range combined.Statuses {
		latest[st.Context] = st
	}
	return latest
}

// A Comment is a comment on a pull request.
type Comment = gitea.Comment

// Comments returns the comments on a pull request, oldest first.
func (s *Server) Comments(t testing.TB, r Repo, number int) []Comment {
	t.Helper()
	var list []Comment
	s.must(t, s.Admin, "GET", fmt.Sprintf("%s/issues/%d/comments", r.path(), number), nil, &list)
	return list
}

// PostComment adds a comment to a pull request.
func (s *Server) PostComment(t testing.TB, as User, r Repo, number int, text string) Comment {
	t.Helper()
	var made Comment
	s.must(t, as, "POST", fmt.Sprintf("%s/issues/%d/comments", r.path(), number),
		map[string]string{"body": text}, &made)
	return made
}

// PushURL returns the repository's address with a user's token, for git commands of tests.
func (s *Server) PushURL(r Repo, as User) string {
	u, err := url.Parse(r.CloneURL)
	if err != nil {
		panic(err)
	}
	u.User = url.UserPassword(as.Name, as.Token)
	return u.String()
}
