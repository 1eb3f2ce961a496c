package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/edge"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/tools/gitea/giteatest"
)

// A team has an intent repository on a Gitea of its own, a server that watches
// it, and a fleet of three devices.
type team struct {
	needs
	dir, logs string
	gitea     *giteatest.Server
	repo      giteatest.Repo
	robot     giteatest.User // aob's own
	ada       giteatest.User // owns the repository, and may push to main in an emergency
	ben       giteatest.User // develops: may write, and not push to main
	eve       giteatest.User // may read
	secret    string         // of the webhook
	address   string         // of aob serve
	counters  string         // of its metrics
	serve     *process
	agents    map[string]*process // by device
	env       []string            // more variables of the server
}

const (
	tokenVariable  = "AOB_FORGE_TOKEN"
	secretVariable = "AOB_WEBHOOK_SECRET"
)

// newTeam makes the forge with a repository of these files on its protected
// main branch. Nothing watches it yet.
func newTeam(t *testing.T, files map[string]string) *team {
	t.Helper()
	return newTeamWith(t, find(t), files)
}

func newTeamWith(t *testing.T, n needs, files map[string]string) *team {
	t.Helper()
	m := &team{needs: n, secret: rand.Text(), logs: t.ArtifactDir(), agents: map[string]*process{}}
	m.gitea = giteatest.Start(t)
	var err error
	if m.dir, err = os.MkdirTemp("", "aob-e2e-"); err != nil { // t.TempDir is too long for sockets to lie in it
		t.Fatal(err)
	}
	t.Cleanup(func() {
		killBelonging(t, m.dir)
		if os.Getenv("KEEP") != "" {
			t.Logf("kept %s", m.dir)
			return
		}
		if err := os.RemoveAll(m.dir); err != nil {
			t.Error(err)
		}
	})
	m.robot, m.ada, m.ben, m.eve = m.gitea.User(t, "aob"), m.gitea.User(t, "ada"), m.gitea.User(t, "ben"),
		m.gitea.User(t, "eve")
	m.repo = m.gitea.Repo(t, m.ada, "intent")
	m.gitea.Allow(t, m.repo, m.robot, "admin") // Gitea tells no other what people may do
	m.gitea.Allow(t, m.repo, m.ben, "write")
	m.gitea.Allow(t, m.repo, m.eve, "read")

	c := m.clone(t, m.ada, m.repo)
	c.git(t, "checkout", "-q", "-B", "main")
	c.commit(t, "The model, its gate and its fleet", files)
	c.git(t, "push", "-q", "origin", "main")
	m.gitea.Protect(t, m.repo, "main", delivery.ContextRelease)
	m.call(t, m.gitea.Admin, "PATCH", "/branch_protections/main", map[string]any{
		"enable_push": true, "enable_push_whitelist": true, "push_whitelist_usernames": []string{m.ada.Name},
	}, nil)
	return m
}

// call calls the API for the repository.
func (m *team) call(t *testing.T, as giteatest.User, method, path string, in, out any) {
	t.Helper()
	if err := m.gitea.Call(as, method, "/repos/"+m.repo.Owner+"/"+m.repo.Name+path, in, out); err != nil {
		t.Fatal(err)
	}
}

const configuration = `repository: %s
forge: {gitea: {url: "%s", repo: %s, tokenEnv: %s, webhookSecretEnv: %s}}
state: state
listen: {address: "%s", metrics: "%s"}
datasets: {dir: {bccd: %s, gold: %s}}
poll: {git: 5s, forge: 15s}
detector: {binary: %s, library: %s}
terraform: %s
python: %s
`

// startServer starts aob serve and tells the forge where it is.
func (m *team) startServer(t *testing.T) {
	t.Helper()
	m.startServerWith(t, func() string {
		return fmt.Sprintf(configuration, m.repo.CloneURL, m.gitea.URL, m.repo.Owner+"/"+m.repo.Name, tokenVariable,
			secretVariable,
			m.address, m.counters, m.bccd, m.gold(), filepath.Join(m.bin, "aob-detect"), m.library, m.terraform, python)
	})
}

// startServerWith is startServer with another configuration, which is asked for when the addresses are known.
func (m *team) startServerWith(t *testing.T, text func() string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.address = l.Addr().String()
	l.Close()
	if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	m.counters = l.Addr().String()
	l.Close()
	config := filepath.Join(m.dir, "aob.yaml")
	if err := os.WriteFile(config, []byte(text()), 0o644); err != nil {
		t.Fatal(err)
	}
	m.gitea.Hook(t, m.repo, "http://"+m.address+"/webhook", m.secret)
	m.serve = launch(t, filepath.Join(m.logs, "serve.log"), append(append(environment(), m.env...),
		tokenVariable+"="+m.robot.Token, secretVariable+"="+m.secret),
		filepath.Join(m.bin, "aob"), "serve", "--config", config)
	until(t, func() error {
		if err := m.serve.alive(); err != nil {
			return fatal{err}
		}
		_, err := m.aob(t, "status")
		return err
	})
}

// environment is what programs need to know of this machine.
func environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
}

// writeToken writes a device's token into a file.
func writeToken(t *testing.T, bin, config, ring, device, to string) {
	t.Helper()
	token, err := exec.Command(filepath.Join(bin, "aob"), "device", "token", ring, device, "--config", config).Output()
	if err == nil {
		err = os.WriteFile(to, token, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// startAgent starts a device of the fleet.
func (m *team) startAgent(t *testing.T, device, ring string, labels ...string) {
	t.Helper()
	token := filepath.Join(m.dir, device+".token")
	writeToken(t, m.bin, filepath.Join(m.dir, "aob.yaml"), ring, device, token)
	args := []string{"run", "--server", "http://" + m.address, "--fleet", ring, "--device", device, "--state",
		m.device(device), "--threads", "1",
		"--trust", filepath.Join(m.dir, "state", "keys", "desired.key.pub"), "--token-file", token,
		"--detector", filepath.Join(m.bin, "aob-detect"), "--library", m.library}
	for _, l := range labels {
		args = append(args, "--label", l)
	}
	m.agents[device] = launch(t, filepath.Join(m.logs, device+".log"), environment(), filepath.Join(m.bin, "aob-agent"),
		args...)
}

// gold is the folder of an eval set that a chapter makes.
func (m *team) gold() string { return filepath.Join(m.dir, "gold") }

// device is the folder that an agent works in.
func (m *team) device(name string) string { return filepath.Join(m.dir, name) }

// serving objects until every device answers with a version.
func (m *team) serving(version int) error {
	for device, agent := range m.agents {
		if err := agent.alive(); err != nil {
			return fatal{err}
		}
		s, err := edge.ReadStatus(m.device(device))
		if err != nil {
			return err
		}
		if !s.Serving || s.Release != version {
			return fmt.Errorf("%s serves version %d (answers: %v), not %d", device, s.Release, s.Serving, version)
		}
	}
	return nil
}

// rolledOut waits until the server knows every device healthy on a version.
func (m *team) rolledOut(t *testing.T, version int) {
	t.Helper()
	until(t, func() error {
		if err := m.serving(version); err != nil {
			return err
		}
		status, err := m.status(t)
		if err != nil {
			return err
		}
		for _, f := range status.Fleets {
			if !f.Done || f.Target.Version != version || f.Count.Healthy != len(m.agents) {
				return fmt.Errorf("fleet %s is not on version %d: %s", f.Name, version, f.Text)
			}
			for _, d := range f.Devices {
				if d.Version != version || d.Phase != delivery.DeviceHealthy {
					return fmt.Errorf("device %s is not healthy on version %d: %+v", d.ID, version, d)
				}
			}
		}
		return nil
	})
}

// aob runs a command of aob's against the server.
func (m *team) aob(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(m.bin, "aob"), args...)
	cmd.Env = append(environment(), "AOB_SOCKET="+filepath.Join(m.dir, "state", "aob.sock"), "NO_COLOR=1")
	return output(cmd)
}

func (m *team) status(t *testing.T) (web.Status, error) {
	var s web.Status
	err := m.ask(t, &s, "status")
	return s, err
}

func (m *team) ask(t *testing.T, into any, args ...string) error {
	out, err := m.aob(t, append(args, "-o", "json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), into)
}

// Costs are what some steps of the story must not have. They only grow.
type costs struct {
	runs, trainings float64
	served          float64 // bytes of models, by the server's word
	downloaded      int64   // bytes of models, by the devices' word
}

func (m *team) costs(t *testing.T) costs {
	t.Helper()
	counted := m.metrics(t)
	c := costs{trainings: counted["aob_trainings_total"], served: counted["aob_model_bytes_served_total"]}
	for series, n := range counted {
		if strings.HasPrefix(series, "aob_runs_started_total{") {
			c.runs += n
		}
	}
	status, err := m.status(t)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range status.Fleets {
		for _, d := range f.Devices {
			c.downloaded += d.Downloaded
		}
	}
	return c
}

func (m *team) metrics(t *testing.T) map[string]float64 { return metrics(t, m.counters) }

// metrics reads a server's counters, by series.
func metrics(t *testing.T, address string) map[string]float64 {
	t.Helper()
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		line = strings.TrimSpace(line)
		space := strings.LastIndexByte(line, ' ') // values of labels may hold one
		if n, err := strconv.ParseFloat(line[space+1:], 64); space > 0 && err == nil {
			counted[line[:space]] = n
		}
	}
	return counted
}

const forgeLooks = `aob_forge_call_seconds_count{result="ok",what="pull requests"}`

// looked waits until the loop has looked at the forge and acted on what it saw.
func (m *team) looked(t *testing.T) {
	t.Helper()
	before := m.metrics(t)
	until(t, func() error {
		now := m.metrics(t)
		looks, turns := now[forgeLooks]-before[forgeLooks],
			now[`aob_turns_total{result="ok"}`]-before[`aob_turns_total{result="ok"}`]
		// The first of each may have begun before this was asked.
		if looks < 2 || turns < 2 {
			return fmt.Errorf("the loop has looked at the forge %v times and turned %v times", looks, turns)
		}
		return nil
	})
}

// A clone is somebody's working copy.
type clone struct {
	dir string
	who giteatest.User
}

func (m *team) clone(t *testing.T, who giteatest.User, repo giteatest.Repo) clone {
	t.Helper()
	c := clone{dir: t.TempDir(), who: who}
	if out, err := exec.Command("git", "clone", "-q", m.gitea.PushURL(repo, who), c.dir).CombinedOutput(); err != nil {
		t.Fatalf("clone: %v: %s", err, out)
	}
	return c
}

func (c clone) git(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.try(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func (c clone) try(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = c.dir
	cmd.Env = append(environment(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME="+c.who.Name, "GIT_AUTHOR_EMAIL="+c.who.Name+"@example.com",
		"GIT_COMMITTER_NAME="+c.who.Name, "GIT_COMMITTER_EMAIL="+c.who.Name+"@example.com")
	return output(cmd)
}

// commit writes files and commits them, and returns the commit.
func (c clone) commit(t *testing.T, message string, files map[string]string) string {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(c.dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text),
			0o644)); err != nil {
			t.Fatal(err)
		}
	}
	c.git(t, "add", ".")
	c.git(t, "commit", "-q", "-m", message)
	return c.git(t, "rev-parse", "HEAD")
}

// push commits files on a new branch from origin's main, and pushes it.
func (c clone) push(t *testing.T, branch, message string, files map[string]string) string {
	t.Helper()
	c.git(t, "fetch", "-q")
	c.git(t, "checkout", "-q", "-B", branch, "origin/main")
	commit := c.commit(t, message, files)
	c.git(t, "push", "-q", "-u", "origin", branch)
	return commit
}

// holds lists the files under a folder that hold a text.
func holds(t *testing.T, folder, text string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(folder, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil && bytes.Contains(data, []byte(text)) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// round is for logs.
func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
