package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/tools/github/githubtest"
)

// A gitHubTeam is aob serve as a GitHub App, with a work tree.
type gitHubTeam struct {
	*serving
	t      *testing.T
	github *githubtest.Server
	repo   *githubtest.Repo
	app    *githubtest.App
	ada    *githubtest.User
	work   string // folder
	hooks  string // URL
	secret string
}

func newGitHubTeam(t *testing.T) *gitHubTeam {
	t.Helper()
	m := &gitHubTeam{t: t, github: githubtest.Start(t), work: filepath.Join(t.TempDir(), "work"), secret: rand.Text()}
	m.ada = m.github.User("ada")
	m.repo = m.github.Repo("ada", "intent")
	m.app = m.github.App(m.repo, "aob")
	m.git(".", "clone", "-q", m.repo.Dir, m.work)
	m.push("main", "gates/production.yaml", gateOfProduction)
	dir, err := os.MkdirTemp("", "aob") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	m.hooks = "http://" + address + "/webhook"
	for name, text := range map[string]string{"app.pem": string(m.app.Key), "hook.secret": m.secret,
		"aob.yaml": fmt.Sprintf("repository: %s\nforge: {github: {url: %s, repo: ada/intent, app: {id: %d, keyFile: "+
			"app.pem}, webhookSecretFile: hook.secret, signs: true}}\nlisten: {address: %s}\npoll: {git: 100ms, "+
			"forge: 100ms}\ndatasets: {dir: {shapes: %s}}\n", m.repo.Dir, m.github.URL, m.app.ID, address, dir)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.serving = serveFor(t, filepath.Join(dir, "aob.yaml"), false, filepath.Join(dir, "state", "aob.sock"))
	return m
}

const gateOfProduction = "apiVersion: aob/v1\nkind: Gate\nname: production\ncovers: [shapes]\nowners: [ada]\n" +
	"evaluate: {dataset: {dir: shapes}, split: test}\nclasses: [circle]\nchecks:\n  - {metric: mAP, min: 0.3}\n"

func (m *gitHubTeam) git(dir string, args ...string) string {
	m.t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=ada", "-c", "user.email=ada@example.com"},
		args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.t.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// push changes a file on a new commit of a branch.
func (m *gitHubTeam) push(branch, path, text string) (commit string) {
	m.t.Helper()
	m.git(m.work, "checkout", "-q", "-B", branch)
	file := filepath.Join(m.work, path)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
	m.git(m.work, "add", "-A")
	m.git(m.work, "commit", "-q", "-m", "change "+path)
	m.git(m.work, "push", "-q", "-f", m.repo.Dir, branch)
	return m.git(m.work, "rev-parse", "HEAD")
}

// run waits until the newest check run of a name on a commit is as wanted.
func (m *gitHubTeam) run(commit, name string, is func(githubtest.CheckRun) bool) githubtest.CheckRun {
	m.t.Helper()
	var last githubtest.CheckRun
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for _, r := range m.github.CheckRuns(m.repo, commit) {
			if r.Name == name {
				last = r
			}
		}
		if is(last) {
			return last
		}
	}
	m.t.Fatalf("%s of %.10s is %+v", name, commit, last)
	return last
}

func ended(conclusion string) func(githubtest.CheckRun) bool {
	return func(r githubtest.CheckRun) bool { return r.Conclusion == conclusion }
}

// hook delivers a webhook, and returns the status of the answer.
func (m *gitHubTeam) hook(req *http.Request) int {
	m.t.Helper()
	body, err := io.ReadAll(req.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	post, err := http.NewRequest(http.MethodPost, m.hooks, bytes.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	post.Header = req.Header
	resp, err := http.DefaultClient.Do(post)
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// A server as a GitHub App: a complaint on its line, a green check, the merge queue, a webhook, another name of the
// repository, and an App that is removed.
func TestServeAsAGitHubApp(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server")
	}
	m := newGitHubTeam(t)
	main := m.git(m.work, "rev-parse", "main")

	wrong := m.push("wrong", "gates/production.yaml", gateOfProduction+"wrong: 1\n")
	m.github.Propose(m.repo, m.ada, m.repo, "wrong", "Wrong")
	run := m.run(wrong, "aob/intent", ended("failure"))
	if len(run.Annotations) != 1 || !strings.HasPrefix(run.Annotations[0], "gates/production.yaml:10 ") {
		t.Errorf("annotations: %q", run.Annotations)
	}
	if run = m.run(wrong, "aob/release", ended("failure")); !strings.Contains(run.Summary, "### AOB") {
		t.Errorf("aob/release: %+v", run)
	}

	m.git(m.work, "checkout", "-q", "main")
	good := m.push("good", "gates/production.yaml", "# a comment\n"+gateOfProduction)
	number := m.github.Propose(m.repo, m.ada, m.repo, "good", "Good")
	m.run(good, "aob/release", ended("success"))

	// The merge queue: GitHub asks by a webhook.
	tree := m.git(m.work, "rev-parse", good+"^{tree}")
	group := m.git(m.work, "commit-tree", tree, "-p", main, "-p", good, "-m", "Merge pull request")
	ref := fmt.Sprintf("refs/heads/gh-readonly-queue/main/pr-%d-%s", number, main)
	m.git(m.work, "push", "-q", m.repo.Dir, group+":"+ref)
	if got := m.hook(m.github.MergeGroup(m.repo, ref, group, m.secret)); got != http.StatusNoContent {
		t.Errorf("the webhook is answered with %d", got)
	}
	m.run(group, "aob/release", ended("success"))
	if got := m.hook(m.github.MergeGroup(m.repo, ref, group, "guess")); got != http.StatusUnauthorized {
		t.Errorf("a webhook with a wrong signature is answered with %d", got)
	}
	bad := m.git(m.work, "commit-tree", m.git(m.work, "rev-parse", wrong+"^{tree}"), "-p", group, "-m", "another")
	m.git(m.work, "push", "-q", m.repo.Dir, bad+":refs/heads/gh-readonly-queue/main/pr-9-"+group)
	m.run(bad, "aob/release", ended("failure"))

	// Re-run is taken, and the check run has its conclusion again.
	run = m.run(wrong, "aob/release", ended("failure"))
	if got := m.hook(m.github.Rerun(m.repo, m.ada, run.ID, m.secret)); got != http.StatusNoContent {
		t.Errorf("Re-run is answered with %d", got)
	}
	m.run(wrong, "aob/release", ended("failure"))

	m.github.Rename(m.repo, "vision", "models")
	m.git(m.work, "checkout", "-q", "main")
	later := m.push("good", "gates/production.yaml", "# another comment\n"+gateOfProduction)
	m.run(later, "aob/release", ended("success"))

	m.app.Remove()
	m.push("good", "gates/production.yaml", "# a third comment\n"+gateOfProduction)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		text := fmt.Sprintf("%+v", m.status(t))
		if strings.Contains(text, "is not installed on") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the App was removed, and aob status says %s", text)
		}
	}
	m.app.Install(m.repo)
	m.run(m.git(m.work, "rev-parse", "HEAD"), "aob/release", ended("success"))
	m.end(t)
}
