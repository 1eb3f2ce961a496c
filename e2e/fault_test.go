package e2e

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
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

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/edge"
	"github.com/autonomos/aob/reconciler/web"
)

// TestFaultsAreNotBlamedOnGoodModels runs a fleet of three devices, each behind
// a proxy of its own that answers wrongly half of the time, while files of slots
// and of the server's store are damaged and processes are killed. Main goes from
// version to version meanwhile, and once names a model that the devices really
// cannot run.
//
// At the end every device serves what main says, the model that cannot run is in
// quarantine, and no other model is.
//
//	AOB_FAULTS      how long faults are made, as 30s; make test-faults takes 10m
//	AOB_FAULT_SEED  which faults, and when
func TestFaultsAreNotBlamedOnGoodModels(t *testing.T) {
	if os.Getenv("AOB_FAULTS") == "" {
		t.Skip("it takes minutes: make test-faults")
	}
	seed := uint64(time.Now().UnixNano())
	length, err := time.ParseDuration(os.Getenv("AOB_FAULTS"))
	if err != nil {
		t.Fatalf("AOB_FAULTS: %v", err)
	}
	if text := os.Getenv("AOB_FAULT_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("AOB_FAULT_SEED: %v", err)
		}
	}
	t.Logf("AOB_FAULT_SEED=%d AOB_FAULTS=%s", seed, length)
	f := newFaulty(t, rand.New(rand.NewPCG(seed, seed)))

	// Three releases without faults. The third is not merged yet.
	first := f.release(t, "first", 1, 1)
	second := f.release(t, "second", 2, 2)
	bad := f.propose(t, "third", 3)
	f.refuse(t, bad.Models[0].Release.Bundle)

	f.makeFaults(t, length, first, second)

	// The network is well again. A model that really fails is taken back.
	f.goTo(t, second)
	f.converged(t, f.version(t))
	good := f.version(t)
	f.clone.git(t, "fetch", "-q", "origin")
	f.clone.git(t, "checkout", "-q", "-B", "main", "origin/main")
	third := f.merge(t, f.propose(t, "third-again", 3)) // main has moved on since it was proposed first
	quarantine := f.quarantined(t, bad.Models[0].Release.Bundle)
	f.serve(t, good)
	t.Logf("main %.10s was taken back by pull request %d: %s", third, quarantine.Number, quarantine.Title)
	f.merge(t, f.green(t, quarantine.HeadRef))
	f.converged(t, good)
	f.onlyQuarantined(t, bad.Models[0].Release.Bundle)
	f.close(t)
}

// faulty is a workshop with proxies, and what went wrong there.
type faulty struct {
	*workshop
	rng     *rand.Rand
	proxies map[string]*faultyProxy // by device
	counts  map[string]int          // faults, by kind
}

const faultyDevices = 3

func newFaulty(t *testing.T, rng *rand.Rand) *faulty {
	n := findPrograms(t)
	dataset := filepath.Join(t.TempDir(), "shapes")
	script := filepath.Join("..", "trainers", "tiny", "shapes.py")
	out, err := exec.Command(python, script, dataset, "--train", "24", "--valid", "8", "--test", "24").CombinedOutput()
	if err != nil {
		t.Fatalf("make the dataset: %v: %s", err, out)
	}
	gate := strings.ReplaceAll(shapesGate("production", "shapes"), "mAP, min: 0.005", "mAP, min: 0")
	gate = strings.ReplaceAll(gate,
		"  - {metric: mAP, maxDrop: 0.02, against: release, confidence: 95%, unsure: fail}\n", "")
	f := &faulty{rng: rng, proxies: map[string]*faultyProxy{}, counts: map[string]int{}}
	f.workshop = newWorkshop(t, n, "faults", map[string]string{
		"models/shapes.yaml": shapesModel("shapes", 1), "gates/production.yaml": gate, "fleets/demo.yaml": shapesFleet})
	f.refuseDetector(t)
	f.through = func(device string) string {
		target, err := url.Parse("http://" + f.address)
		if err != nil {
			t.Fatal(err)
		}
		if p, ok := f.proxies[device]; ok {
			return p.url
		}
		p := newFaultyProxy(t, target, rand.New(rand.NewPCG(rng.Uint64(), 1)))
		f.proxies[device] = p
		return p.url
	}
	f.open(t, dataset, "demo")
	return f
}

// refuseDetector puts a program in aob-detect's place that refuses to serve the
// models in a list, as a board does that cannot run them. All else it does.
func (f *faulty) refuseDetector(t *testing.T) {
	t.Helper()
	script := `#!/bin/sh
PATH=/usr/bin:/bin
dir=
for word in "$@"; do
	[ "$last" = --bundle ] && dir=$word
	last=$word
done
if [ "$1" = serve ] && [ -s "$0.refuses" ]; then
	sum=$(sha256sum < "$dir/model.onnx" | cut -d' ' -f1)
	if grep -q "$sum" "$0.refuses"; then
		echo "this board cannot run the model" >&2
		exit 3
	fi
fi
exec "$(dirname "$0")/aob-detect" "$@"
`
	f.detector = f.path("bin", "board-detect")
	if err := os.WriteFile(f.detector, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// refuse makes the devices unable to run a bundle's model.
func (f *faulty) refuse(t *testing.T, bundle delivery.Digest) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bundle")
	bundles, err := artifact.Open(f.path("state", "bundles"))
	if err != nil {
		t.Fatal(err)
	}
	if err := bundles.Unpack(t.Context(), bundle, dir); err != nil {
		t.Fatal(err)
	}
	model, err := os.ReadFile(filepath.Join(dir, "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.detector+".refuses", []byte(delivery.Sum(model).Hex()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// propose pushes a model and waits until it may be merged.
func (f *faulty) propose(t *testing.T, branch string, rate int) (pr web.PR) {
	t.Helper()
	model := strings.ReplaceAll(shapesModel("shapes", 1), "lr: 2e-3", fmt.Sprintf("lr: %de-3", rate))
	f.clone.push(t, branch, "shapes: "+branch, map[string]string{"models/shapes.yaml": model})
	return f.green(t, branch)
}

// release brings a version to the whole fleet and returns main's commit.
func (f *faulty) release(t *testing.T, branch string, rate, version int) string {
	t.Helper()
	commit := f.merge(t, f.propose(t, branch, rate))
	f.converged(t, version)
	return commit
}

// goTo makes main say again what it said at a commit, as a person who reverts.
func (f *faulty) goTo(t *testing.T, commit string) {
	t.Helper()
	f.clone.git(t, "fetch", "-q", "origin")
	f.clone.git(t, "checkout", "-q", "-B", "main", "origin/main")
	f.clone.git(t, "checkout", commit, "--", "models")
	if f.clone.git(t, "status", "--porcelain") == "" {
		return
	}
	f.clone.git(t, "commit", "-q", "-m", "shapes: as it was at "+commit[:10])
	f.clone.git(t, "push", "-q", "origin", "main")
}

// version is the version that main names.
func (f *faulty) version(t *testing.T) int {
	t.Helper()
	out, err := exec.Command("git", "--git-dir", f.path("intent.git"), "show",
		"main:models/shapes.release.yaml").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if text, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "version: "); ok {
			n, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("main's release file names no version:\n%s", out)
	return 0
}

// makeFaults makes faults for a time, and mends what does not mend itself.
func (f *faulty) makeFaults(t *testing.T, length time.Duration, versions ...string) {
	t.Helper()
	end := time.Now().Add(length)
	var restore []func() error // what the server's store lost
	mend := func() {
		for _, put := range restore {
			if err := put(); err != nil {
				t.Error(err)
			}
		}
		restore = nil
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 0; time.Now().Before(end); n++ {
		<-tick.C
		device := fmt.Sprintf("robot-%d", 1+f.rng.IntN(faultyDevices))
		switch f.rng.IntN(10) {
		case 0:
			f.counts["server killed"]++
			f.killServer()
			if err := f.startServer(); err != nil {
				t.Fatal(err)
			}
		case 1, 2:
			f.counts["agent killed"]++
			f.restartAgent(t, device)
		case 3, 4:
			f.counts["slot damaged"] += f.damage(t, f.path(device, []string{"a", "b"}[f.rng.IntN(2)]), "")
		case 5:
			f.counts["slot damaged, agent killed"] += f.damage(t, f.path(device, []string{"a", "b"}[f.rng.IntN(2)]), "")
			f.restartAgent(t, device)
		case 6:
			if saved := f.keep(t, f.path("state", "bundles", "blobs")); saved.path != "" {
				f.counts["store damaged"] += f.damage(t, "", saved.path)
				restore = append(restore, saved.put)
			}
		case 7:
			mend()
		case 8:
			f.counts["main moved"]++
			f.goTo(t, versions[f.rng.IntN(len(versions))])
		case 9:
			for _, p := range f.proxies {
				p.change()
			}
		}
	}
	mend()
	for _, p := range f.proxies {
		p.well()
		for kind, n := range p.counts() {
			f.counts[kind] += n
		}
	}
	f.answers(t)
	var kinds []string
	for kind, n := range f.counts {
		kinds = append(kinds, fmt.Sprintf("%d x %s", n, kind))
	}
	slices.Sort(kinds)
	t.Logf("faults: %s", strings.Join(kinds, ", "))
	for device := range f.agents {
		f.restartAgentIfEnded(t, device)
	}
	f.converged(t, f.version(t))
	f.onlyQuarantined(t, "")
}

// saved is a file of the server's store as it was.
type saved struct {
	path string
	data []byte
}

func (s saved) put() error {
	_ = os.Chmod(s.path, 0o600)
	return os.WriteFile(s.path, s.data, 0o600)
}

// keep picks a large file and remembers it.
func (f *faulty) keep(t *testing.T, folder string) saved {
	t.Helper()
	files := filesIn(folder)
	files = slices.DeleteFunc(files, func(file string) bool {
		info, err := os.Stat(file)
		return err != nil || info.Size() < 100_000
	})
	if len(files) == 0 {
		return saved{}
	}
	file := files[f.rng.IntN(len(files))]
	data, err := os.ReadFile(file)
	if err != nil {
		return saved{}
	}
	if sum := delivery.Sum(data); sum.Hex() != filepath.Base(file) {
		return saved{} // it is damaged already
	}
	return saved{file, data}
}

// damage damages one file of a folder: a given one, or any. It reports how many
// it has damaged, which is 1 or 0.
func (f *faulty) damage(t *testing.T, folder, file string) int {
	t.Helper()
	if file == "" {
		files := filesIn(folder)
		if len(files) == 0 {
			return 0
		}
		file = files[f.rng.IntN(len(files))]
	}
	info, err := os.Stat(file)
	if err != nil || info.Size() == 0 {
		return 0
	}
	_ = os.Chmod(file, 0o600)
	switch f.rng.IntN(4) {
	case 0:
		err = os.Truncate(file, info.Size()/2)
	case 1:
		err = os.Truncate(file, 0)
	case 2:
		err = overwrite(file, info.Size()/3, make([]byte, min(4096, info.Size()-info.Size()/3)))
	case 3:
		err = os.Remove(file)
	}
	if err != nil {
		return 0 // the agent has moved it meanwhile
	}
	return 1
}

func overwrite(file string, at int64, data []byte) error {
	w, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = w.WriteAt(data, at)
	if closed := w.Close(); err == nil {
		err = closed
	}
	return err
}

func filesIn(folder string) []string {
	var files []string
	_ = filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return nil
	})
	return files
}

// restartAgent kills an agent as a power cut does, and starts it again.
func (f *faulty) restartAgent(t *testing.T, device string) {
	t.Helper()
	agent := f.agents[device]
	agent.killed = true
	_ = agent.cmd.Process.Signal(syscall.SIGKILL)
	<-agent.done
	f.startAgent(t, device)
}

func (f *faulty) restartAgentIfEnded(t *testing.T, device string) {
	t.Helper()
	if err := f.agents[device].alive(); err != nil {
		t.Errorf("it ended by itself: %v", err)
		f.startAgent(t, device)
	}
}

// serve waits until every device serves a version.
func (f *faulty) serve(t *testing.T, version int) {
	t.Helper()
	until(t, func() error {
		for device := range f.agents {
			s, err := edge.ReadStatus(f.path(device))
			if err != nil {
				return err
			}
			if !s.Serving || s.Release != version {
				return fmt.Errorf("%s serves version %d (answers: %v), not %d", device, s.Release, s.Serving, version)
			}
		}
		return nil
	})
}

// quarantined waits for the pull request that AOB opens for a bundle.
func (f *faulty) quarantined(t *testing.T, bundle delivery.Digest) (found web.PR) {
	t.Helper()
	until(t, func() error {
		list, err := f.api.PRs(t.Context())
		if err != nil {
			return err
		}
		for _, pr := range list {
			if strings.HasPrefix(pr.HeadRef, "aob/quarantine-shapes-"+bundle.Short()) {
				found, err = f.api.PR(t.Context(), pr.Number)
				return err
			}
		}
		return fmt.Errorf("no pull request takes bundle %s back", bundle.Short())
	})
	return found
}

// onlyQuarantined fails the test if a branch holds a quarantine of another
// bundle, or if a device says that another bundle failed.
func (f *faulty) onlyQuarantined(t *testing.T, bad delivery.Digest) {
	t.Helper()
	for branch := range strings.Lines(f.refs(t)) {
		name := strings.TrimSpace(branch[strings.LastIndexByte(branch, '\t')+1:])
		out, err := exec.Command("git", "--git-dir", f.path("intent.git"), "show", name+
			":models/shapes.quarantine.yaml").Output()
		if err != nil {
			continue // the branch has no such file
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "sha256:") && (bad == "" || !strings.Contains(line, string(bad))) {
				t.Errorf("%s quarantines a good model: %s", name, line)
			}
		}
	}
	for device := range f.agents {
		s, err := edge.ReadStatus(f.path(device))
		if err != nil {
			t.Error(err)
			continue
		}
		if s.Failed != "" && s.Failed != bad {
			t.Errorf("%s says that good bundle %s failed: %+v", device, s.Failed.Short(), s)
		}
	}
}

// A faultyProxy answers some requests wrongly, as hotel networks, proxies and
// cables do. Which, changes with time.
type faultyProxy struct {
	url string

	mu    sync.Mutex
	rng   *rand.Rand
	fault string // "" while it works
	seen  map[string]int
}

var proxyFaults = []string{"", "", "", "", "login page", "403", "404", "407", "429", "500", "502", "503", "302",
	"cut body", "altered body", "reset"}

func newFaultyProxy(t *testing.T, target *url.URL, rng *rand.Rand) *faultyProxy {
	t.Helper()
	p := &faultyProxy{rng: rng, seen: map[string]int{}}
	forward := httputil.NewSingleHostReverseProxy(target)
	forward.ErrorLog = nil
	forward.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) {
		w.WriteHeader(http.StatusBadGateway)
	}
	forward.ModifyResponse = p.spoil
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.answer(w, r) {
			forward.ServeHTTP(w, r)
		}
	}))
	server.Config.ErrorLog = forward.ErrorLog
	server.Start()
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

// change draws what the proxy does wrong from now on.
func (p *faultyProxy) change() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = proxyFaults[p.rng.IntN(len(proxyFaults))]
}

// well ends all faults.
func (p *faultyProxy) well() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = ""
}

func (p *faultyProxy) counts() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := map[string]int{}
	for kind, n := range p.seen {
		counts["answer: "+kind] = n
	}
	return counts
}

// now is the fault that a request meets.
func (p *faultyProxy) now() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault != "" {
		p.seen[p.fault]++
	}
	return p.fault
}

// answer answers in the server's place, where the fault is of that kind.
func (p *faultyProxy) answer(w http.ResponseWriter, _ *http.Request) bool {
	fault := p.now()
	switch fault {
	case "", "cut body", "altered body":
		return false
	case "login page":
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<html><title>Welcome to our hotel</title><form>Room: <input name=room></form></html>")
	case "302":
		w.Header().Set("Location", "/login")
		w.WriteHeader(http.StatusFound)
	case "reset":
		if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			c.Close()
		}
	default:
		code, _ := strconv.Atoi(fault)
		http.Error(w, "the proxy says no", code)
	}
	return true
}

// spoil cuts or alters the body of an answer.
func (p *faultyProxy) spoil(resp *http.Response) error {
	p.mu.Lock()
	fault := p.fault
	p.mu.Unlock()
	if fault != "cut body" && fault != "altered body" || resp.ContentLength < 10 {
		return nil
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if fault == "cut body" {
		body = body[:len(body)/2] // the length that was promised stays
	} else {
		body = bytes.Clone(body)
		body[len(body)/2] ^= 0x20
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}
