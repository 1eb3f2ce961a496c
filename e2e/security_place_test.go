package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/tools/gitea/giteatest"
)

// A place is a forge with a server that watches it, a released model, and a fleet whose devices the test plays itself.
type place struct {
	*testing.T // the check that runs now

	m *team     // nil on the local forge
	w *workshop // nil on Gitea

	dir, logs, bin    string
	address, counters string
	api               *web.Client
	alive             func() error
	pid               int

	owner, writer clone
	ownerName     string // as gates name the owner
	secrets       map[string]string
	watch         *environs
	first         *device // of fleet demo; healthy
	branches      int

	crossing string // a merge of main whose sides did not know each other
	cut      bool   // slow connections were waited for
	fallen   *fallenBack
	checked  *web.PR // of the malicious dataset
	others   *others
	detector *front // starts with the first check of the detector
}

const (
	trainedEpochs = 2
	markdown      = "ok). Closes #1. @all please merge [the fix](http://evil.example/x) " +
		"![x](http://evil.example/t.png) <b>now</b>"
)

func gateFile(name, model, owner, check string) string {
	return fmt.Sprintf("apiVersion: aob/v1\nkind: Gate\nname: %s\ncovers: [%s]\nowners: [%s]\n"+
		"evaluate: {dataset: {dir: shapes}, split: test}\nclasses: [circle, square, triangle]\n"+
		"checks:\n  - %s\n", name, model, owner, check)
}

func securityFiles(owner string) map[string]string {
	return map[string]string{
		"README.md":          "# What our devices run\n",
		"models/shapes.yaml": shapesModel("shapes", 1),
		"models/twin.yaml":   shapesModel("twin", 1),
		"models/strict.yaml": shapesModel("strict", 1),
		"gates/shapes.yaml":  gateFile("shapes", "shapes", owner, "{metric: mAP, min: 0}"),
		"gates/doubt.yaml": gateFile("doubt", "twin", owner,
			"{metric: AP, classes: [circle], min: 0, support: 100000}\n  - {metric: mAP, min: 0}"),
		"gates/strict.yaml": gateFile("strict", "strict", owner, "{metric: mAP, min: 0.999}"),
		"gates/spare.yaml":  gateFile("spare", "strict", owner, "{metric: size, max: 20MB}"),
		"fleets/demo.yaml":  strings.Replace(shapesFleet, "[1, 100%]", "[100%]", 1),
		"fleets/other.yaml": strings.NewReplacer("name: demo", "name: other", "runs: shapes",
			"runs: strict").Replace(shapesFleet),
		heldTwin: "apiVersion: aob/v1\nkind: Quarantine\nname: twin\nentries:\n  - {digest: \"" +
			string(delivery.Sum([]byte("bad"))) + "\", why: smoke}\n",
		"datasets-note.md":    "nothing of AOB's\n",
		"models/.gitkeep.txt": "",
	}
}

const heldTwin = "models/twin.quarantine.yaml"

const securityConfiguration = `repository: %s
forge: %s
state: state
listen: {address: "%s", metrics: "%s"}
datasets: {dir: {shapes: %s, evil: %s, copies: %s, linked: %s}, roboflow: {acme: %s}}
secrets: {ROBOFLOW_API_KEY: {file: %s}, MLFLOW: {file: %s}}
track: {mlflow: {evil: {url: %s, bearer: MLFLOW}}}
poll: {git: 200ms, forge: 500ms}
fleets: {poll: 200ms, deadline: 5m}
detector: {binary: %s, library: %s}
terraform: %s
python: %s
`

func newGiteaPlace(t *testing.T, n needs) *place {
	p := &place{T: t, ownerName: "ada", m: newTeamWith(t, n, securityFiles("ada"))}
	p.dir, p.logs, p.bin = p.m.dir, p.m.logs, n.bin
	data := p.materials(n)
	p.m.startServerWith(t, func() string {
		forge := fmt.Sprintf(`{gitea: {url: "%s", repo: %s, tokenEnv: %s, webhookSecretEnv: %s}}`, p.m.gitea.URL,
			p.m.repo.Owner+"/"+p.m.repo.Name, tokenVariable, secretVariable)
		return fmt.Sprintf(securityConfiguration, p.m.repo.CloneURL, forge, p.m.address, p.m.counters, data[0],
			data[1], data[2], data[3], data[4], data[5], data[6], data[7],
			filepath.Join(n.bin, "aob-detect"), n.library, n.terraform, p.path("python"))
	})
	p.address, p.counters = p.m.address, p.m.counters
	p.alive, p.pid = p.m.serve.alive, p.m.serve.cmd.Process.Pid
	p.owner, p.writer = p.m.clone(t, p.m.ada, p.m.repo), p.m.clone(t, p.m.ben, p.m.repo)
	p.secrets = map[string]string{"the forge's token": p.m.robot.Token, "the webhook's secret": p.m.secret}
	p.begin()
	return p
}

func newLocalPlace(t *testing.T, n needs) *place {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	p := &place{T: t, ownerName: me.Username}
	p.w = newWorkshop(t, n, "security", securityFiles(me.Username))
	p.dir, p.logs, p.bin = p.w.dir, p.w.logs, p.w.bin
	data := p.materials(n)
	p.w.start(t, func() string {
		return fmt.Sprintf(securityConfiguration, "intent.git", "{local: {}}", p.w.address, p.w.counters, data[0],
			data[1], data[2], data[3], data[4], data[5], data[6], data[7],
			filepath.Join(p.bin, "aob-detect"), n.library, n.terraform, p.path("python"))
	})
	p.address, p.counters = p.w.address, p.w.counters
	p.alive, p.pid = p.w.server.alive, p.w.server.cmd.Process.Pid
	for name, c := range map[string]*clone{"ada": &p.owner, "ben": &p.writer} {
		*c = clone{dir: t.TempDir(), who: giteatest.User{Name: name}}
		c.git(t, "clone", "-q", p.path("intent.git"), ".")
	}
	p.secrets = map[string]string{}
	p.begin()
	return p
}

func (p *place) path(parts ...string) string {
	return filepath.Join(append([]string{p.dir}, parts...)...)
}
func (p *place) state(parts ...string) string {
	return p.path(append([]string{"state"}, parts...)...)
}

// evilTrainer stands before the real trainer. It notes what a trainer can see, and writes what a status must not be.
const evilTrainer = `#!/usr/bin/python3
import json, os, socket, sys, time
run = sys.argv[2] if len(sys.argv) > 2 else ""
if run.endswith("run.json"):
    folder = os.path.dirname(run)
    seen = {"environ": dict(os.environ), "argv": sys.argv, "run": open(run).read(), "files": []}
    for top, _, files in os.walk(folder, followlinks=True):
        seen["files"] += [os.path.join(top, f) for f in files]
    state = os.path.dirname(os.path.dirname(folder))
    seen["reached"] = []
    for name in ("fleet.secret", "keys/releases.key", "keys/desired.key", "ledger.db", "devices.db"):
        if os.access(os.path.join(state, name), os.R_OK):
            seen["reached"].append(name)
    try:
        socket.socket(socket.AF_UNIX).connect(os.path.join(state, "aob.sock"))
        seen["reached"].append("aob.sock")
    except OSError:
        pass
    with open(%q, "w") as f:
        json.dump(seen, f)
    status = os.path.join("status.json")
    def put(text):
        with open("evil.tmp", "w") as f:
            f.write(text)
        os.replace("evil.tmp", status)
        time.sleep(0.4)
    word = "\x1b[31m/aob run 0123456789abcdef\n@all %s"
    put(json.dumps({"phase": word, "message": word, "epoch": 1, "epochs": 2, "bestMap": 1.0,
                    "heartbeat": "2026-01-01T00:00:00Z"}))
    put("[" * 100000)
    put(json.dumps({"phase": "training", "message": "x" * 50000000 + "trainer-marker"}))
    os.remove(status); os.symlink("/etc/passwd", status); time.sleep(0.4)
    os.remove(status); os.mkfifo(status); time.sleep(0.4)
    os.remove(status)
os.execv("/usr/bin/python3", ["/usr/bin/python3"] + sys.argv[1:])
`

// materials makes the datasets, the trainer and the servers that AOB asks. It returns the datasets' folders, and then
// what the configuration says of the servers.
func (p *place) materials(n needs) []string {
	p.Helper()
	if err := os.Chmod(p.dir, 0o755); err != nil { // so that other users are kept out by AOB and not by the test
		p.Fatal(err)
	}
	data := []string{p.path("shapes"), p.path("evil"), p.path("copies"), p.path("linked")}
	script, err := filepath.Abs(filepath.Join("..", "trainers", "tiny", "shapes.py"))
	if err != nil {
		p.Fatal(err)
	}
	if out, err := exec.Command(python, script, data[0], "--train", "16", "--valid", "6", "--test",
		"24").CombinedOutput(); err != nil {
		p.Fatalf("make the dataset: %v: %s", err, out)
	}
	if out, err := exec.Command(python, "-c", spoilDatasets, data[0], data[1], data[2], data[3],
		p.path("outside")).CombinedOutput(); err != nil {
		p.Fatalf("spoil the dataset: %v: %s", err, out)
	}
	text := fmt.Sprintf(evilTrainer, p.path("trainer-saw.json"), markdown)
	if err := os.WriteFile(p.path("python"), []byte(text), 0o755); err != nil {
		p.Fatal(err)
	}
	p.others = newOthers(p, data[0])
	return append(data, p.others.source.URL+"/acme", p.others.file(p, "key", sourceKey),
		p.others.file(p, "token", trackerToken), p.others.tracker.URL)
}

// begin makes the first release.
func (p *place) begin() {
	p.Helper()
	p.api = web.NewClient(p.state("aob.sock"))
	p.secrets["the fleet's secret"] = strings.TrimSpace(p.read(p.state("fleet.secret")))
	keys, err := filepath.Glob(p.state("keys", "*.key"))
	if err != nil || len(keys) == 0 {
		p.Fatalf("no keys: %v", err)
	}
	for _, key := range keys {
		lines := strings.Split(strings.TrimSpace(p.read(key)), "\n")
		p.secrets["key "+filepath.Base(key)] = lines[len(lines)/2]
	}
	p.watch = watchEnvirons(p)
	c := p.owner
	c.git(p.T, "checkout", "-q", "-B", "side", "origin/main")
	c.commit(p.T, "side", map[string]string{"README.md": "# What all our devices run\n"})
	c.git(p.T, "checkout", "-q", "-B", "main", "origin/main")
	c.commit(p.T, "docs", map[string]string{"CHANGES.md": "none\n"})
	c.git(p.T, "merge", "-q", "--no-ff", "-m", "Merge side", "side")
	c.git(p.T, "push", "-q", "origin", "main")
	p.crossing = c.git(p.T, "rev-parse", "HEAD")
	number := p.propose(p.writer, map[string]string{"models/shapes.yaml": shapesModel("shapes", trainedEpochs)})
	p.green(number)
	p.merge(number)
	p.first = p.device("demo", "robot-1")
	bundle := p.published("demo", 1)
	p.first.report(report{"phase": "healthy", "bundle": bundle, "release": 1, "slot": "a"})
}

// published waits until a fleet's document names a version, and returns its bundle.
func (p *place) published(ring string, version int) string {
	p.Helper()
	d := p.device(ring, "looks")
	var doc delivery.Desired
	until(p.T, func() error {
		var err error
		if doc, err = d.desired(); err == nil && doc.Release.Version != version {
			err = fmt.Errorf("%s is told version %d, not %d", ring, doc.Release.Version, version)
		}
		return err
	})
	return string(doc.Release.Bundle)
}

func (p *place) read(path string) string {
	p.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		p.Fatal(err)
	}
	return string(data)
}

// branch names a new branch.
func (p *place) branch() string {
	p.branches++
	return fmt.Sprintf("try-%d", p.branches)
}

// propose pushes a change of main as a new branch, opens its pull request, and returns the number once AOB has seen it.
func (p *place) propose(c clone, files map[string]string) int {
	p.Helper()
	branch := p.branch()
	return p.open(c.who, branch, c.push(p.T, branch, "A change "+branch, files))
}

// open opens a pull request of a branch.
func (p *place) open(who giteatest.User, branch, commit string) int {
	p.Helper()
	if p.m != nil {
		p.m.gitea.PullRequest(p.T, who, p.m.repo, branch, "main", "A change "+branch)
	}
	return p.seen(commit)
}

// seen waits until AOB lists a pull request with this head.
func (p *place) seen(commit string) (number int) {
	p.Helper()
	until(p.T, func() error {
		if err := p.alive(); err != nil {
			return fatal{err}
		}
		list, err := p.api.PRs(p.Context())
		if err != nil {
			return err
		}
		i := slices.IndexFunc(list, func(pr web.PR) bool { return pr.Head == commit })
		if i < 0 {
			return fmt.Errorf("aob lists no pull request at %.10s", commit)
		}
		number = list[i].Number
		return nil
	})
	return number
}

func (p *place) show(number int) web.PR {
	p.Helper()
	pr, err := p.api.PR(p.Context(), number)
	if err != nil {
		p.Fatal(err)
	}
	return pr
}

// check is what the forge shows of a pull request's check; empty where there is none yet.
func (p *place) check(number int, context string) (delivery.CheckState, string) {
	p.Helper()
	pr, err := p.api.PR(p.Context(), number)
	if err != nil {
		return "", err.Error()
	}
	if p.m != nil {
		s := p.m.gitea.Statuses(p.T, p.m.repo, pr.Head)[context]
		return delivery.CheckState(s.State), s.Description
	}
	for _, c := range pr.Checks {
		if c.Context == context {
			return c.State, c.Description
		}
	}
	return "", ""
}

// wants waits until a check has a state and says a text.
func (p *place) wants(number int, context string, state delivery.CheckState, text string) {
	p.Helper()
	until(p.T, func() error {
		if err := p.alive(); err != nil {
			return fatal{err}
		}
		got, says := p.check(number, context)
		if got == state && strings.Contains(says, text) {
			return nil
		}
		err := fmt.Errorf("#%d: %s is %q: %s; want %s: …%s…", number, context, got, says, state, text)
		if got != state && got != "" && got != delivery.CheckPending && context == delivery.ContextRelease &&
			state != delivery.CheckPending {
			return fatal{err}
		}
		return err
	})
}

func (p *place) green(number int) {
	p.Helper()
	p.wants(number, delivery.ContextRelease, delivery.CheckSuccess, "")
}

// works checks that the loop still judges what somebody else proposes.
func (p *place) works() {
	p.Helper()
	number := p.propose(p.writer, map[string]string{"README.md": "# Changed\n"})
	p.green(number)
	p.close(number)
}

// merge merges a pull request, and waits until main has it.
func (p *place) merge(number int) {
	p.Helper()
	until(p.T, func() error {
		if p.m != nil {
			err := p.m.gitea.Merge(p.m.ada, p.m.repo, number)
			if p.m.pull(p.T, number).Merged {
				return nil
			}
			return err
		}
		pr, err := p.api.PR(p.Context(), number)
		if err == nil {
			_, err = p.api.Merge(p.Context(), number, pr.Head, "")
		}
		return err
	})
}

// close closes a pull request, and waits until AOB lists it no more.
func (p *place) close(number int) {
	p.Helper()
	if p.m != nil {
		p.m.call(p.T, p.m.gitea.Admin, "PATCH", fmt.Sprintf("/pulls/%d", number),
			map[string]string{"state": "closed"}, nil)
	} else {
		pr := p.show(number)
		p.writer.git(p.T, "push", "-q", "origin", ":refs/heads/"+pr.HeadRef)
	}
	until(p.T, func() error {
		list, err := p.api.PRs(p.Context())
		if err == nil && slices.ContainsFunc(list, func(pr web.PR) bool { return pr.Number == number }) {
			err = fmt.Errorf("#%d is still listed", number)
		}
		return err
	})
}

// main is main's commit, as the repository has it.
func (p *place) main() string {
	p.Helper()
	p.owner.git(p.T, "fetch", "-q", "origin")
	return p.owner.git(p.T, "rev-parse", "origin/main")
}

func (p *place) status() web.Status {
	p.Helper()
	s, err := p.api.Status(p.Context())
	if err != nil {
		p.Fatal(err)
	}
	return s
}

// runs counts the runs that were started.
func (p *place) runs() (n float64) {
	p.Helper()
	for series, count := range metrics(p.T, p.counters) {
		if strings.HasPrefix(series, "aob_runs_started_total{") {
			n += count
		}
	}
	return n
}

// looked waits until the loop has looked at the forge and acted on what it saw.
func (p *place) looked() {
	p.Helper()
	before := metrics(p.T, p.counters)
	until(p.T, func() error {
		now := metrics(p.T, p.counters)
		if looks := now[forgeLooks] - before[forgeLooks]; looks < 3 {
			return fmt.Errorf("the loop has looked at the forge %v times", looks)
		}
		return nil
	})
}

// send sends a request to the site, and returns the answer's code and body.
func (p *place) send(method, path, token, body string, header ...string) (int, string) {
	p.Helper()
	req, err := http.NewRequestWithContext(p.Context(), method, "http://"+p.address+path, strings.NewReader(body))
	if err != nil {
		p.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(data)
}

// refuses checks that a request is answered with one of some codes.
func (p *place) refuses(method, path, token, body string, codes ...int) {
	p.Helper()
	if code, says := p.send(method, path, token, body); !slices.Contains(codes, code) {
		p.Errorf("%s %s with %.30q: %d %.200s; want %v", method, path, token, code, says, codes)
	}
}

// A device is a device that the test plays.
type device struct {
	p         *place
	ring, id  string
	token     string
	sequence  int64
	installed string
	receipts  map[string]string // of the last report, by installation
}

type report map[string]any

func (p *place) device(ring, id string) *device {
	p.Helper()
	file := p.path("token-" + ring + "-" + id)
	writeToken(p.T, p.bin, p.path("aob.yaml"), ring, id, file)
	return &device{p: p, ring: ring, id: id, token: "Bearer " + strings.TrimSpace(p.read(file)), installed: "home",
		receipts: map[string]string{}}
}

// say sends a report as it is.
func (d *device) say(r report) (int, string) {
	d.p.Helper()
	data, err := json.Marshal(r)
	if err != nil {
		d.p.Fatal(err)
	}
	return d.p.send("POST", "/fleet/v1/reports", d.token, string(data))
}

// next is the device's next report with some values of its own.
func (d *device) next(r report) report {
	d.sequence++
	full := report{"device": d.id, "ring": d.ring, "sequence": d.sequence, "desired": 1, "phase": "idle",
		"downloaded": 0,
		"at":         time.Now().UTC(), "installation": d.installed, "receipt": d.receipts[d.installed],
		"labels": map[string]string{"site": "demo"}}
	for k, v := range r {
		full[k] = v
	}
	return full
}

// report sends the device's next report.
func (d *device) report(r report) {
	d.p.Helper()
	code, says := d.say(d.next(r))
	var got struct{ Receipt string }
	if err := json.Unmarshal([]byte(says), &got); code != http.StatusOK || err != nil {
		d.p.Fatalf("%s reports: %d %s, %v", d.id, code, says, err)
	}
	d.receipts[d.installed] = got.Receipt
}

// desired reads what the device must run.
func (d *device) desired() (doc delivery.Desired, err error) {
	d.p.Helper()
	code, says := d.p.send("GET", "/fleet/v1/desired/"+d.ring, d.token, "")
	if code != http.StatusOK {
		return doc, fmt.Errorf("desired of %s: %d %s", d.ring, code, says)
	}
	var envelope struct{ Payload string }
	err = json.Unmarshal([]byte(says), &envelope)
	var payload []byte
	if err == nil {
		payload, err = base64.StdEncoding.DecodeString(envelope.Payload)
	}
	if err == nil {
		err = json.Unmarshal(payload, &doc)
	}
	return doc, err
}

// listed is how the server shows a device.
func (d *device) listed() (web.Device, error) {
	status, err := d.p.api.Status(d.p.Context())
	if err != nil {
		return web.Device{}, err
	}
	for _, f := range status.Fleets {
		for _, known := range f.Devices {
			if f.Name == d.ring && known.ID == d.id {
				return known, nil
			}
		}
	}
	return web.Device{}, fmt.Errorf("no device %s in %s", d.id, d.ring)
}

// said is all that AOB shows of its pull requests and of how everything stands.
func (p *place) said() string {
	p.Helper()
	var all bytes.Buffer
	enc := json.NewEncoder(&all)
	enc.SetEscapeHTML(false)
	add := func(v any, err error) {
		p.Helper()
		if err := errors.Join(err, enc.Encode(v)); err != nil {
			p.Fatal(err)
		}
	}
	status := p.status()
	add(status, nil)
	for _, pr := range status.PRs {
		add(p.show(pr.Number), nil)
	}
	add(p.api.Plan(p.Context()))
	if p.m == nil {
		return all.String()
	}
	var pulls []struct {
		Number      int
		Title, Body string
		Head        struct{ SHA string }
	}
	p.m.call(p.T, p.m.gitea.Admin, "GET", "/pulls?state=all&limit=50", nil, &pulls)
	for _, pr := range pulls {
		add(pr, nil)
		add(p.m.gitea.Statuses(p.T, p.m.repo, pr.Head.SHA), nil)
		add(p.m.comments(p.T, pr.Number), nil)
	}
	return all.String()
}

// keeps checks that a text holds no secret.
func (p *place) keeps(where, text string) {
	p.Helper()
	for what, secret := range p.secrets {
		if strings.Contains(text, secret) {
			p.Errorf("%s is in %s", what, where)
		}
	}
}

// size is how many bytes a folder holds.
func size(t *testing.T, folder string) (n int64) {
	t.Helper()
	_ = filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil { // or it was removed meanwhile
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

var goCode = regexp.MustCompile(`/aob run ([0-9a-f]+)`)

// asks waits until a pull request waits for a go, other than some, and returns its line.
func (p *place) asks(number int, not ...string) (line string) {
	p.Helper()
	until(p.T, func() error {
		state, says := p.check(number, delivery.ContextRelease)
		line = goCode.FindString(says)
		if line == "" || slices.Contains(not, line) {
			return fmt.Errorf("#%d asks for no go: %s: %s", number, state, says)
		}
		return nil
	})
	return line
}

// asked waits until AOB asks back on Gitea, in a comment with a text.
func (p *place) asked(number int, text string) (c giteatest.Comment) {
	p.Helper()
	until(p.T, func() error {
		for _, c = range p.m.gitea.Comments(p.T, p.m.repo, number) {
			if c.Poster.UserName == p.m.robot.Name && strings.Contains(c.Body, text) &&
				strings.Contains(c.Body, "react to this comment") {
				return nil
			}
		}
		return fmt.Errorf("#%d: AOB does not ask back about %q", number, text)
	})
	return c
}

// react reacts to a comment after the second in which it was made.
func (p *place) react(as giteatest.User, c giteatest.Comment, query string) error {
	p.Helper()
	until(p.T, func() error {
		if time.Now().Unix() <= c.Created.Unix() {
			return errors.New("the second is not over")
		}
		return nil
	})
	return p.m.gitea.Call(as, "POST", fmt.Sprintf("/repos/%s/%s/issues/comments/%d/reactions%s", p.m.repo.Owner,
		p.m.repo.Name, c.ID, query),
		map[string]string{"content": "+1"}, nil)
}

// edit edits anybody's comment.
func (p *place) edit(as giteatest.User, c giteatest.Comment, text string) error {
	return p.m.gitea.Call(as, "PATCH", fmt.Sprintf("/repos/%s/%s/issues/comments/%d", p.m.repo.Owner, p.m.repo.Name,
		c.ID), map[string]string{"body": text}, nil)
}

// unsure proposes a model that its gate is unsure of, and returns the line that accepts it.
func (p *place) unsure() (number int, accept string) {
	p.Helper()
	p.branches++
	model := shapesModel("twin", trainedEpochs) + fmt.Sprintf("\nthresholds: {default: bestF1, circle: 0.%d}\n",
		100+p.branches)
	number = p.propose(p.writer, map[string]string{"models/twin.yaml": model})
	line := regexp.MustCompile(`/aob accept ([0-9a-f]+)`)
	until(p.T, func() error {
		pr, err := p.api.PR(p.Context(), number)
		if err != nil {
			return err
		}
		for _, m := range pr.Models {
			for _, s := range m.Settle {
				if accept = line.FindString(s.Text); accept != "" {
					return nil
				}
			}
		}
		return fmt.Errorf("#%d is %s: %s", number, pr.State, pr.Text)
	})
	return number, accept + " because the set is small"
}

// stays checks that a pull request is still not to be merged after the loop has looked again.
func (p *place) stays(number int) {
	p.Helper()
	p.looked()
	if state, says := p.check(number, delivery.ContextRelease); state == delivery.CheckSuccess {
		p.Errorf("#%d: %s: %s", number, state, says)
	}
}

// environs looks at the environments of all processes of a place but the server's.
type environs struct {
	mu     sync.Mutex
	looked map[int]bool
	found  []string
}

func watchEnvirons(p *place) *environs {
	e := &environs{looked: map[int]bool{}}
	stop, done := make(chan struct{}), make(chan struct{})
	dir, pid, secrets := p.dir, p.pid, p.secrets
	go func() {
		defer close(done)
		for {
			for other, line := range belonging(dir) {
				data, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", other))
				// A child of the server's has its command line and environment until it runs its own program.
				if err != nil || other == pid || strings.Contains(line, "aob device token") ||
					strings.Contains(line, "aob serve") {
					continue
				}
				e.mu.Lock()
				e.looked[other] = true
				for what, secret := range secrets {
					if bytes.Contains(data, []byte(secret)) || strings.Contains(line, secret) {
						e.found = append(e.found, what+" in "+line)
					}
				}
				e.mu.Unlock()
			}
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	p.Cleanup(func() { close(stop); <-done })
	return e
}

// clean checks that no process had a secret, and that there were some.
func (p *place) clean() {
	p.Helper()
	p.watch.mu.Lock()
	defer p.watch.mu.Unlock()
	if len(p.watch.looked) == 0 || len(p.watch.found) > 0 {
		p.Errorf("of %d processes these had secrets: %v", len(p.watch.looked), p.watch.found)
	}
}
