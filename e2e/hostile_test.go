package e2e

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// TestHostile measures how long a normal promotion takes, from the beginning of
// the push until aob/release is green, alone and beside an attack. It runs for
// some minutes and asserts no time, as a machine may have other work meanwhile;
// make bench-hostile prints its table, which BENCHMARKS.md keeps.
func TestHostile(t *testing.T) {
	if os.Getenv("AOB_HOSTILE") == "" {
		t.Skip("it measures for minutes: make bench-hostile")
	}
	for _, attack := range []struct {
		short, name string
		run         func(t *testing.T) measured
	}{
		{"connections", "20,000 slow connections", hostileConnections},
		{"branches", "3,000 branches, 100 of them malformed", hostileBranches},
		{"models", "60 models in one pull request", hostileModels},
		{"comments", "1,000 comments by a reader, on Gitea", hostileComments},
	} {
		t.Run(attack.short, func(t *testing.T) {
			m := attack.run(t)
			if m.memory >= 1<<30 {
				t.Errorf("the server took %d MiB", m.memory>>20)
			}
			times := median(m.beside).Seconds() / median(m.alone).Seconds()
			t.Logf("| %s | %s | %s | %.2f | %d MiB |", attack.name, round(median(m.alone)), round(median(m.beside)),
				times, m.memory>>20)
			if times > 2 {
				t.Logf("that is more than twice as slow")
			}
			t.Logf("alone: %v; beside the attack: %v", m.alone, m.beside)
		})
	}
}

// measured is what promotions took, and the most memory of the server, in bytes.
type measured struct {
	alone, beside []time.Duration
	memory        int64
}

// hostilePromotions is how many promotions are measured; an odd number.
const hostilePromotions = 3

// A bench is a place where promotions are measured.
type bench struct {
	t       *testing.T
	promote func(n int) time.Duration // of the n-th model
	pid     func() int                // of aob serve
	done    int
}

// several measures some promotions.
func (b *bench) several() (took []time.Duration) {
	for range hostilePromotions {
		b.done++
		took = append(took, b.promote(b.done))
	}
	return took
}

// measure measures promotions alone, and beside what attack does until end.
func (b *bench) measure(attack func() (end func())) (m measured) {
	b.several() // the first of all fill caches
	m.alone = b.several()
	end := attack()
	m.beside = b.several()
	m.memory = peak(b.t, b.pid())
	end()
	return m
}

// peak is the most memory that a process has had, in bytes.
func peak(t *testing.T, pid int) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatalf("no VmHWM of process %d", pid)
	return 0
}

// newHostileWorkshop is a workshop with a fleet, and promotions of its model.
func newHostileWorkshop(t *testing.T) (*workshop, *bench) {
	t.Helper()
	n := findPrograms(t)
	dataset := filepath.Join(t.TempDir(), "shapes")
	script := filepath.Join("..", "trainers", "tiny", "shapes.py")
	out, err := exec.Command(python, script, dataset, "--train", "24", "--valid", "8", "--test", "24").CombinedOutput()
	if err != nil {
		t.Fatalf("make the dataset: %v: %s", err, out)
	}
	w := newWorkshop(t, n, "hostile", map[string]string{"models/shapes.yaml": shapesModel("shapes", 1),
		"gates/production.yaml": gateFile("production", "shapes", "ada", "{metric: mAP, min: 0}"),
		"fleets/demo.yaml":      shapesFleet})
	w.open(t, dataset, "demo")
	w.seesMain(t)
	b := &bench{t: t, pid: func() int { return w.server.cmd.Process.Pid }}
	b.promote = func(n int) time.Duration {
		branch := fmt.Sprintf("promotion-%d", n)
		model := strings.ReplaceAll(shapesModel("shapes", 1), "lr: 2e-3", fmt.Sprintf("lr: 3.%02de-3", n))
		w.clone.git(t, "checkout", "-q", "main")
		began := time.Now()
		w.clone.push(t, branch, "shapes: "+branch, map[string]string{"models/shapes.yaml": model})
		number := 0
		until(t, func() error {
			pr, err := w.pull(t.Context(), branch)
			number = pr.Number
			return err
		})
		until(t, func() error { // the list is long, and making it costs the server time
			pr, err := w.api.PR(t.Context(), number)
			switch {
			case err != nil:
			case pr.State == delivery.CheckPending:
				err = fmt.Errorf("%s is %s: %s", branch, pr.State, pr.Text)
			case pr.State != delivery.CheckSuccess:
				err = fatal{fmt.Errorf("%s is %s: %s", branch, pr.State, pr.Text)}
			}
			return err
		})
		took := time.Since(began)
		w.clone.git(t, "push", "-q", "origin", ":"+branch)
		return took
	}
	return w, b
}

// seesMain waits until the server has seen main.
func (w *workshop) seesMain(t *testing.T) {
	t.Helper()
	until(t, func() error {
		s, err := w.api.Status(t.Context())
		if err == nil && len(s.Fleets) == 0 {
			err = fmt.Errorf("no fleet yet")
		}
		return err
	})
}

// The attackers: programs that hold so many connections each, from an address of
// their own, as one address has only some 28,000 ports.
const attackers, connections = 2, 10_000

// roomForFiles raises the limit on open files as far as the system allows it, for
// this process and those that it starts, and fails where that is not enough.
func roomForFiles(t *testing.T, need uint64) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < need {
		t.Fatalf("this system lets a process have %d open files, and %d are needed; raise the hard limit, for example "+
			"with: sudo prlimit --nofile=%d --pid $$", limit.Max, need, need)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatalf("raise the limit on open files to %d: %v", limit.Max, err)
	}
}

// hostileConnections holds connections that send one byte of a request's body
// and nothing more, and opens those again that the server closes.
func hostileConnections(t *testing.T) measured {
	roomForFiles(t, connections+100)
	w, b := newHostileWorkshop(t)
	const program = `
import selectors, socket, sys, time
host, port, n, source = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
request = (b"POST /fleet/v1/reports HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b"0" * 64 +
           b"\r\nContent-Length: 10\r\n\r\nx")
selector, opened, said = selectors.DefaultSelector(), 0, False
def connect():
    s = socket.socket()
    s.bind((source, 0))
    s.setblocking(False)
    s.connect_ex((host, port))
    selector.register(s, selectors.EVENT_WRITE, [False])
count = 0
while True:
    while count < n:
        try:
            connect(); count += 1
        except OSError:
            break
    for key, events in selector.select(0.2):
        s = key.fileobj
        try:
            if not key.data[0]:
                s.send(request)
                selector.modify(s, selectors.EVENT_READ, [True])
                opened += 1
                if opened >= n and not said:
                    said = True
                    print("opened", flush=True)
            elif not s.recv(4096):
                raise OSError
        except OSError:
            selector.unregister(s); s.close(); count -= 1
    time.sleep(0.01)
`
	host, port, _ := strings.Cut(w.address, ":")
	return b.measure(func() func() {
		var started []*exec.Cmd
		var said []*bufio.Reader
		for i := range attackers {
			c := exec.Command(python, "-c", program, host, port, fmt.Sprint(connections),
				fmt.Sprintf("127.0.0.%d", 2+i))
			c.Stderr = os.Stderr
			out, err := c.StdoutPipe()
			if err == nil {
				err = c.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			started, said = append(started, c), append(said, bufio.NewReader(out))
		}
		for _, r := range said { // all have been open
			if _, err := r.ReadString('\n'); err != nil {
				t.Fatalf("an attacker ended: %v", err)
			}
		}
		return func() {
			for _, c := range started {
				_ = c.Process.Kill()
				_ = c.Wait()
			}
		}
	})
}

// hostileBranches pushes branches, some of which hold commits that git takes and
// that say nothing of who made them.
func hostileBranches(t *testing.T) measured {
	w, b := newHostileWorkshop(t)
	return b.measure(func() func() {
		repository := w.path("intent.git")
		git := func(stdin string, args ...string) string {
			cmd := exec.Command("git", append([]string{"--git-dir", repository}, args...)...)
			cmd.Stdin = strings.NewReader(stdin)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("git %s: %v: %s", args[0], err, out)
			}
			return strings.TrimSpace(string(out))
		}
		main := w.at(t, "main")
		var stream bytes.Buffer
		for i := range 2900 {
			text := fmt.Sprintf("branch %d\n", i)
			fmt.Fprintf(&stream, "commit refs/heads/many-%d\ncommitter ben <ben@example.com> %d +0000\ndata %d\n%s"+
				"from %s\nM 644 inline README.md\ndata %d\n%s\n", i, 1764000000+i, len(text), text, main, len(text),
				text)
		}
		git(stream.String(), "fast-import", "--quiet")
		tree := git("", "rev-parse", main+"^{tree}")
		var refs strings.Builder
		for i := range 100 {
			commit := fmt.Sprintf("tree %s\nparent %s\nauthor a <a@x> %d +0000\n\nno committer\n", tree, main,
				1764000000+i)
			hash := git(commit, "hash-object", "-t", "commit", "-w", "--stdin", "--literally")
			fmt.Fprintf(&refs, "create refs/heads/malformed-%d %s\n", i, hash)
		}
		git(refs.String(), "update-ref", "--stdin")
		return func() {}
	})
}

// hostileModels proposes sixty new models with a gate in one pull request.
func hostileModels(t *testing.T) measured {
	w, b := newHostileWorkshop(t)
	return b.measure(func() func() {
		files, names := map[string]string{}, []string{}
		for i := range 60 {
			name := fmt.Sprintf("many-%d", i)
			names = append(names, name)
			model := strings.ReplaceAll(shapesModel(name, 1), "seeds: [1]", fmt.Sprintf("seeds: [%d]", 100+i))
			files["models/"+name+".yaml"] = strings.ReplaceAll(model, "classes: [circle, square, triangle]",
				[]string{"classes: [circle, square, triangle]", "classes: [circle, square]", "classes: [circle]"}[i%3])
		}
		files["gates/many.yaml"] = strings.Replace(gateFile("many", strings.Join(names, ", "), "ada",
			"{metric: mAP, min: 0}"), "[circle, square, triangle]", "[circle]", 1)
		w.clone.git(t, "checkout", "-q", "main")
		w.clone.push(t, "sixty", "sixty models", files)
		until(t, func() error {
			_, err := w.pull(t.Context(), "sixty")
			return err
		})
		return func() {}
	})
}

// hostileComments lets a reader comment a thousand times on a pull request of
// their own, with a line that orders a run.
func hostileComments(t *testing.T) measured {
	files := model(1, "1e-3")
	files["README.md"], files["fleets/lab.yaml"] = "# What our devices run\n", lab
	files["gates/production.yaml"] = strings.ReplaceAll(production, "min: 0.05", "min: 0")
	m := newTeam(t, files)
	m.startServer(t)
	c := m.clone(t, m.ben, m.repo)
	b := &bench{t: t, pid: func() int { return m.serve.cmd.Process.Pid }}
	b.promote = func(n int) time.Duration {
		branch := fmt.Sprintf("promotion-%d", n)
		c.git(t, "checkout", "-q", "main")
		began := time.Now()
		commit := c.push(t, branch, "bccd: "+branch, model(1, fmt.Sprintf("3.%02de-3", n)))
		number := m.open(t, m.ben, branch, commit, "bccd: "+branch)
		m.await(t, number, delivery.ContextRelease, "success", "failure")
		took := time.Since(began)
		c.git(t, "push", "-q", "origin", ":"+branch)
		return took
	}
	fork := m.gitea.Fork(t, m.eve, m.repo)
	e := m.clone(t, m.eve, fork)
	return b.measure(func() func() {
		e.push(t, "evil", "bccd: of a stranger", model(2, "9e-3"))
		number := m.gitea.PullRequest(t, m.eve, m.repo, "eve:evil", "main", "of a stranger")
		for range 1000 {
			var code [16]byte
			for i := range code {
				code[i] = byte(rand.Uint32())
			}
			m.gitea.PostComment(t, m.eve, m.repo, number, "/aob run "+hex.EncodeToString(code[:]))
		}
		return func() {}
	})
}
