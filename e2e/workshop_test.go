package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/edge"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/tools/gitea/giteatest"
)

// A workshop is all of AOB in one folder: the local forge, a server and a fleet
// of three devices. Every process that it has carries the folder's name, in its
// command line or its environment, and so does all that these start.
type workshop struct {
	needs
	dir, logs string
	env       []string // more variables of its processes
	address   string
	counters  string // address of the server's metrics
	api       *web.Client
	clone     clone

	mu     sync.Mutex
	server *process // guarded by mu: killed and started again while others look

	agents   map[string]*process        // by device
	ring     string                     // of the devices
	detector string                     // that devices serve with; "" is aob-detect
	through  func(device string) string // the address by which a device reaches the server; nil: directly
}

// newWorkshop makes the repository with these files on main. Nothing watches it
// yet.
func newWorkshop(t *testing.T, n needs, name string, files map[string]string) *workshop {
	t.Helper()
	w := &workshop{needs: n, logs: filepath.Join(t.ArtifactDir(), name), agents: map[string]*process{}}
	var err error
	if w.dir, err = os.MkdirTemp("", "aob-kill-"); err != nil { // t.TempDir is too long for sockets to lie in it
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for pid, line := range w.inhabitants() {
			t.Logf("killed: %s", line)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err := os.RemoveAll(w.dir); err != nil {
			t.Error(err)
		}
	})
	// Programs that lie in the folder name it by their own path, also those that
	// get no environment.
	err = errors.Join(os.MkdirAll(w.logs, 0o755), os.Mkdir(w.path("bin"), 0o755))
	for _, program := range []string{"aob", "aob-agent", "aob-detect"} {
		err = errors.Join(err, os.Link(filepath.Join(n.bin, program), w.path("bin", program)))
	}
	if err != nil {
		t.Fatal(err)
	}
	w.bin = w.path("bin")
	w.api = web.NewClient(w.path("state", "aob.sock"))
	w.clone = clone{dir: w.path("intent"), who: giteatest.User{Name: "ada"}}
	for _, args := range [][]string{{"init", "-q", "--bare", "-b", "main", w.path("intent.git")},
		{"clone", "-q", w.path("intent.git"), w.clone.dir}} {
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v: %s", args[0], err, out)
		}
	}
	w.clone.git(t, "checkout", "-q", "-B", "main")
	w.clone.commit(t, "A model, its gate and its fleet", files)
	w.clone.git(t, "push", "-q", "origin", "main")
	return w
}

func (w *workshop) path(parts ...string) string {
	return filepath.Join(append([]string{w.dir}, parts...)...)
}

// environment is what a process of the workshop gets.
func (w *workshop) environment() []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir}, w.env...)
}

const workshopConfiguration = `repository: intent.git
forge: {local: {}}
state: state
listen: {address: "%s", metrics: "%s"}
datasets: {dir: {shapes: %s}}
poll: {git: 100ms, forge: 200ms}
fleets: {poll: 200ms, deadline: 5m}
detector: {binary: %s, library: %s}
terraform: %s
python: %s
`

// open configures and starts the server, and a fleet of three.
func (w *workshop) open(t *testing.T, dataset, ring string) {
	t.Helper()
	w.start(t, func() string {
		return fmt.Sprintf(workshopConfiguration, w.address, w.counters, dataset, filepath.Join(w.bin, "aob-detect"),
			w.library, w.terraform, python)
	})
	w.ring = ring
	for _, device := range []string{"robot-1", "robot-2", "robot-3"} {
		w.startAgent(t, device)
	}
}

// start starts the server with a configuration, which is asked for when the addresses are known.
func (w *workshop) start(t *testing.T, text func() string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = l.Addr().String()
	l.Close()
	if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	w.counters = l.Addr().String()
	l.Close()
	if err := os.WriteFile(w.path("aob.yaml"), []byte(text()), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.killServer()
		if t.Failed() {
			t.Logf("the last words of %s's server:\n%s", filepath.Base(w.logs), tail(w.serverLog(), 4<<10))
		}
	})
	if err := w.startServer(); err != nil {
		t.Fatal(err)
	}
	w.answers(t)
}

// startAgent starts a device's agent, with more flags.
func (w *workshop) startAgent(t *testing.T, device string, flags ...string) {
	t.Helper()
	server, detector := "http://"+w.address, w.detector
	if w.through != nil {
		server = w.through(device)
	}
	if detector == "" {
		detector = filepath.Join(w.bin, "aob-detect")
	}
	token := filepath.Join(w.logs, device+".token")
	writeToken(t, w.bin, w.path("aob.yaml"), w.ring, device, token)
	args := []string{"run", "--server", server, "--ring", w.ring, "--device", device, "--label", "site=" + w.ring,
		"--state", w.path(device), "--trust", w.path("state", "keys", "desired.key.pub"), "--token-file", token,
		"--detector", detector, "--library", w.library, "--threads", "1", "--heartbeat", "1s"}
	w.agents[device] = launch(t, filepath.Join(w.logs, device+".log"), w.environment(),
		filepath.Join(w.bin, "aob-agent"), append(args, flags...)...)
}

func (w *workshop) serverLog() string { return filepath.Join(w.logs, "serve.log") }

// startServer starts aob serve, and does not wait until it answers.
func (w *workshop) startServer() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	log, err := os.OpenFile(w.serverLog(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	p := &process{name: "serve", log: log.Name(), done: make(chan struct{}),
		cmd: exec.Command(filepath.Join(w.bin, "aob"), "serve", "--config", w.path("aob.yaml"))}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = w.environment(), log, log
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	w.server = p
	return nil
}

// killServer ends the server as a power cut does.
func (w *workshop) killServer() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.server != nil {
		_ = w.server.cmd.Process.Kill()
		<-w.server.done
	}
}

// stopServer asks the server to end, and checks that it ends well.
func (w *workshop) stopServer(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.server.end(); err != nil {
		t.Error(err)
	}
}

// answers waits until the server answers.
func (w *workshop) answers(t *testing.T) {
	t.Helper()
	until(t, func() error {
		w.mu.Lock()
		err := w.server.alive()
		w.mu.Unlock()
		if err != nil {
			return fatal{err}
		}
		_, err = w.api.Status(t.Context())
		return err
	})
}

// close ends the fleet and the server, after which nothing of the workshop is
// left running.
func (w *workshop) close(t *testing.T) {
	t.Helper()
	for _, agent := range w.agents {
		if err := agent.end(); err != nil {
			t.Error(err)
		}
	}
	w.stopServer(t)
	var left map[int]string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if left = w.inhabitants(); len(left) == 0 {
			return
		}
	}
	t.Errorf("still running: %v", left)
}

// inhabitants are the processes of the workshop, by id.
func (w *workshop) inhabitants() map[int]string {
	found := map[int]string{}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		pid, err := strconv.Atoi(filepath.Base(p))
		if err != nil || pid == os.Getpid() {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(p, "cmdline")) // empty where it is gone, or another's
		env, _ := os.ReadFile(filepath.Join(p, "environ"))
		cwd, _ := os.Readlink(filepath.Join(p, "cwd"))
		if bytes.Contains(line, []byte(w.dir)) || bytes.Contains(env, []byte(w.dir)) || strings.HasPrefix(cwd, w.dir) {
			found[pid] = strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

// named are the workshop's processes of a program, by id.
func (w *workshop) named(program string) []int {
	var found []int
	files, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, file := range files {
		name, _ := os.ReadFile(file)
		if strings.TrimSpace(string(name)) != program {
			continue
		}
		env, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "environ"))
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil &&
			bytes.Contains(env, []byte(w.dir)) {
			found = append(found, pid)
		}
	}
	return found
}

// pull returns a branch's open pull request.
func (w *workshop) pull(ctx context.Context, branch string) (web.PR, error) {
	list, err := w.api.PRs(ctx)
	if err != nil {
		return web.PR{}, err
	}
	i := slices.IndexFunc(list, func(p web.PR) bool { return p.HeadRef == branch })
	if i < 0 {
		return web.PR{}, fmt.Errorf("branch %s is no pull request", branch)
	}
	return w.api.PR(ctx, list[i].Number)
}

// green waits until a branch's pull request may be merged, and returns it.
func (w *workshop) green(t *testing.T, branch string) (pr web.PR) {
	t.Helper()
	until(t, func() (err error) {
		pr, err = w.pull(t.Context(), branch)
		if err == nil && (pr.State == delivery.CheckFailure || pr.State == delivery.CheckError) {
			return fatal{fmt.Errorf("%s is %s: %s", branch, pr.State, pr.Text)}
		}
		if err == nil && pr.State != delivery.CheckSuccess {
			err = fmt.Errorf("%s is %s: %s", branch, pr.State, pr.Text)
		}
		return err
	})
	return pr
}

// merge merges a pull request with the command that people have, as often as it
// takes, and returns main's new commit.
func (w *workshop) merge(t *testing.T, pr web.PR) string {
	t.Helper()
	var commit string
	until(t, func() error {
		if commit = w.at(t, "main"); w.contains(t, commit, pr.Head) {
			return nil
		}
		cmd := exec.CommandContext(t.Context(), filepath.Join(w.bin, "aob"), "pr", "merge", strconv.Itoa(pr.Number))
		cmd.Env = append(w.environment(), "AOB_SOCKET="+w.path("state", "aob.sock"))
		_, err := output(cmd)
		if err == nil {
			err = errors.New("main has not moved")
		}
		return err
	})
	return commit
}

// at is where a branch is; nowhere is "".
func (w *workshop) at(t *testing.T, branch string) string {
	t.Helper()
	out, err := exec.Command("git", "--git-dir", w.path("intent.git"), "for-each-ref", "--format=%(objectname)",
		"refs/heads/"+branch).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func (w *workshop) contains(t *testing.T, commit, ancestor string) bool {
	t.Helper()
	return exec.Command("git", "--git-dir", w.path("intent.git"), "merge-base", "--is-ancestor", ancestor,
		commit).Run() == nil
}

// refs lists all branches of the repository with their commits.
func (w *workshop) refs(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("git", "--git-dir", w.path("intent.git"), "for-each-ref").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// converged waits until every device serves a version, and the server knows them
// healthy.
func (w *workshop) converged(t *testing.T, version int) {
	t.Helper()
	until(t, func() error {
		for device, agent := range w.agents {
			if err := agent.alive(); err != nil {
				return fatal{err}
			}
			s, err := edge.ReadStatus(w.path(device))
			if err != nil {
				return err
			}
			if !s.Serving || s.Release != version {
				return fmt.Errorf("%s serves version %d (answers: %v), not %d", device, s.Release, s.Serving, version)
			}
		}
		status, err := w.api.Status(t.Context())
		if err != nil {
			return err
		}
		for _, f := range status.Fleets {
			if !f.Done || f.Target.Version != version || f.Count.Healthy != len(w.agents) || f.Count.Failed > 0 {
				return fmt.Errorf("fleet %s is not on version %d: %s", f.Name, version, f.Text)
			}
		}
		return nil
	})
}

// devices is what the devices keep of their own.
func (w *workshop) devices(t *testing.T) map[string]edge.Status {
	t.Helper()
	all := map[string]edge.Status{}
	for device := range w.agents {
		s, err := edge.ReadStatus(w.path(device))
		if err != nil {
			t.Fatal(err)
		}
		all[device] = s
	}
	return all
}
