package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/web"
)

// A fallenBack is what came of a release that a device could not run.
type fallenBack struct {
	branch        string // that a writer prepared, under the name that AOB would take
	evil, evilNow string // its commit, before and after
	pr            web.PR // AOB's own
	text          string // its commit's message, and its title, which are no Markdown
	body          string // its description, on Gitea
}

// fallBack releases a model that the fleet's device calls failed, with a reason that is markup, while a writer has
// prepared the branch of AOB's pull request. It is done once.
func (p *place) fallBack() *fallenBack {
	p.Helper()
	if p.fallen != nil {
		return p.fallen
	}
	model := shapesModel("shapes", trainedEpochs) + "\nthresholds: {default: bestF1, circle: {precision: 0.5}}\n"
	number := p.propose(p.writer, map[string]string{"models/shapes.yaml": model})
	p.green(number)
	bundle := p.show(number).Models[0].Release.Bundle
	f := &fallenBack{branch: "aob/quarantine-shapes-" + bundle.Short()}
	f.evil = p.writer.push(p.T, f.branch, "shapes: back to version 1", map[string]string{
		"gates/strict.yaml": strings.Replace(securityFiles(p.ownerName)["gates/strict.yaml"], "0.999", "0", 1)})
	p.merge(number)
	p.published("demo", 2)
	first := p.device("demo", "looks")
	doc, err := first.desired()
	if err != nil {
		p.Fatal(err)
	}
	p.first.report(report{"desired": doc.Version, "phase": "failed", "failed": string(bundle), "why": markdown})
	until(p.T, func() error {
		list, err := p.api.PRs(p.Context())
		if err != nil {
			return err
		}
		for _, pr := range list {
			if strings.HasPrefix(pr.HeadRef, f.branch) && pr.HeadRef != f.branch {
				f.pr = pr
				return nil
			}
		}
		return fmt.Errorf("AOB opens no pull request beside %s", f.branch)
	})
	p.writer.git(p.T, "fetch", "-q")
	f.evilNow = p.writer.git(p.T, "rev-parse", "origin/"+f.branch)
	f.text = p.writer.git(p.T, "log", "-1", "--format=%B", f.pr.Head)
	if p.m != nil {
		var pull struct{ Title, Body string }
		p.m.call(p.T, p.m.gitea.Admin, "GET", fmt.Sprintf("/pulls/%d", f.pr.Number), nil, &pull)
		f.body = pull.Body
		f.text += pull.Title
	}
	p.writer.git(p.T, "push", "-q", "origin", ":"+f.branch)
	p.fallen = f
	p.published("demo", 1)
	p.first.report(report{"phase": "healthy", "bundle": p.published("demo", 1), "release": 1})
	return f
}

// What a device does, or who stole its token.

func deviceBar(p *place) {
	f := p.fallBack() // one device's failure is heard, and the fleet goes back
	if !strings.HasPrefix(f.pr.HeadRef, f.branch) {
		p.Errorf("got %+v", f.pr)
	}
	thief := p.device("demo", "thief")
	other := "sha256:" + strings.Repeat("7", 64)
	thief.report(report{"phase": "healthy", "bundle": other, "release": 7})
	until(p.T, func() error {
		d, err := thief.listed()
		if err == nil && !strings.Contains(strings.Join(d.Notes, " "), "never offered") {
			err = fmt.Errorf("nothing is said of a bundle that was never offered: %+v", d)
		}
		return err
	})
	for _, fleet := range p.status().Fleets {
		if fleet.Name == "demo" && fleet.Count.Healthy > 1 {
			p.Errorf("what was never offered counts as healthy: %+v", fleet.Count)
		}
	}
	if d, err := p.first.listed(); err != nil || d.Phase != delivery.DeviceHealthy {
		p.Errorf("robot-1: %+v, %v", d, err)
	}
	p.forget(thief)
}

// forget removes a device.
func (p *place) forget(d *device) {
	p.Helper()
	if err := p.api.ForgetDevice(p.Context(), d.ring, d.id); err != nil {
		p.Error(err)
	}
}

func deviceSpend(p *place) {
	before := p.runs()
	d := p.device("demo", "busy")
	for i := range 10 {
		d.report(report{"phase": "downloading", "why": "/aob run 0123456789abcdef", "downloaded": i})
	}
	p.looked()
	if after := p.runs(); after != before {
		p.Errorf("%v runs were started", after-before)
	}
	p.forget(d)
}

func deviceStop(p *place) {
	d := p.device("demo", "mad")
	for name, r := range map[string]report{
		"sequence":  {"sequence": int64(1) << 53},
		"highest":   {"sequence": json.Number("9223372036854775807")},
		"desired":   {"desired": int64(1) << 53},
		"negative":  {"desired": -1},
		"ring":      {"ring": "../x"},
		"why":       {"why": strings.Repeat("x", 2000)},
		"unknown":   {"order": "merge"},
		"a label":   {"labels": map[string]string{strings.Repeat("l", 100): "x"}},
		"no number": {"sequence": json.Number("1e400")},
	} {
		if code, says := d.say(d.next(r)); code != http.StatusBadRequest {
			p.Errorf("%s: %d %s", name, code, says)
		}
	}
	large := d.next(report{"why": strings.Repeat("x", 100<<10)})
	if code, says := d.say(large); code != http.StatusRequestEntityTooLarge {
		p.Errorf("a large report: %d %s", code, says)
	}
	before, err := d.desired()
	if err != nil {
		p.Fatal(err)
	}
	d.sequence = 1
	d.report(report{"desired": int64(1)<<53 - 2})
	p.looked()
	after, err := d.desired()
	if err != nil || after.Version > before.Version+10 {
		p.Errorf("a device moved the document's version from %d to %d, %v", before.Version, after.Version, err)
	}
	p.forget(d)
	p.works()
}

func deviceModels(p *place) {
	bundle := p.published("demo", 1)
	for _, path := range []string{"/fleet/v1/desired/demo", "/v2/bundles/manifests/" + bundle,
		"/v2/bundles/referrers/" + bundle} {
		if code, says := p.send("GET", path, p.first.token, ""); code != http.StatusOK {
			p.Errorf("%s: %d %s", path, code, says)
		}
	}
	p.refuses("GET", "/fleet/v1/desired/other", p.first.token, "", http.StatusForbidden)
	p.refuses("GET", "/fleet/v1/desired/..%2fdemo", p.first.token, "", http.StatusForbidden, http.StatusNotFound)
}

func deviceSpeak(p *place) {
	for _, r := range []report{{"device": "robot-2"}, {"ring": "other"}, {"device": "looks", "ring": "other"}} {
		if code, says := p.first.say(p.first.next(r)); code != http.StatusForbidden {
			p.Errorf("robot-1's token for %v: %d %s", r, code, says)
		}
	}
	// What it says is text, and no markup, mention or order, in what AOB says.
	text := p.fallBack().text
	if !strings.Contains(text, "the fix") {
		p.Errorf("AOB does not say why: %s", text)
	}
	for _, order := range []string{"Closes #1", "@all"} {
		if strings.Contains(text, order) {
			p.Errorf("%q is in AOB's commit: %s", order, text)
		}
	}
	p.noMarkup("AOB's description", p.fallBack().body)
	// Two places that report under one name are shown.
	d := p.device("demo", "double")
	for i := range 4 {
		d.installed = []string{"home", "elsewhere"}[i%2]
		d.report(report{"boot": d.installed})
	}
	until(p.T, func() error {
		seen, err := d.listed()
		if err == nil && len(seen.Notes) == 0 {
			err = fmt.Errorf("nothing is said of two places: %+v", seen)
		}
		return err
	})
	p.forget(d)
}

// noMarkup checks that a hostile text is not in another as it was written.
func (p *place) noMarkup(where, text string) {
	p.Helper()
	for _, markup := range []string{"Closes #1", "@all", "](http", "<b>", "![x]", "\x1b["} {
		if strings.Contains(text, markup) {
			p.Errorf("%q is in %s: %s", markup, where, text)
		}
	}
}

func deviceSecrets(p *place) {
	doc, err := p.first.desired()
	if err != nil {
		p.Fatal(err)
	}
	code, says := p.first.say(p.first.next(nil))
	p.keeps("an answer", fmt.Sprintf("%+v %d %s", doc, code, says))
	// The token of one is no other's.
	_, sum, _ := strings.Cut(p.first.token, ":")
	for _, other := range []string{"demo/robot-2", "other/robot-1", "demo/robot-1/", "demo/robot"} {
		p.refuses("POST", "/fleet/v1/reports", "Bearer "+other+":"+sum, "{}", http.StatusUnauthorized)
	}
}

func deviceDisk(p *place) {
	d := p.device("demo", "chatty")
	before := size(p.T, p.state())
	for i := range 200 {
		d.report(report{"phase": []string{"idle", "downloading"}[i%2], "why": strings.Repeat("x", 1000)})
	}
	if grown := size(p.T, p.state()) - before; grown > 8<<20 {
		p.Errorf("200 reports take %d bytes", grown)
	}
	count := 0
	for _, f := range p.status().Fleets {
		for _, known := range f.Devices {
			if known.ID == d.id {
				count++
			}
		}
	}
	if count != 1 {
		p.Errorf("one device is listed %d times", count)
	}
	p.forget(d)
}

// What a device does that has no token, or an earlier version's.

func untokenedBar(p *place) {
	before := p.status()
	networkSpeak(p)
	for i, f := range p.status().Fleets {
		if f.Count.Devices != before.Fleets[i].Count.Devices || f.Share != before.Fleets[i].Share {
			p.Errorf("fleet %s: before %+v, after %+v", f.Name, before.Fleets[i].Count, f.Count)
		}
	}
}

// What another user of the machine does.

// nobody runs a program as another user, and returns what it prints.
func (p *place) nobody(program string, args ...string) string {
	p.Helper()
	cmd := exec.Command("/usr/bin/python3", append([]string{"-c", program}, args...)...)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/bin:/bin"}
	if os.Getuid() != 0 {
		p.Skip("only root can become another user")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func localBar(p *place) {
	before := p.runs()
	got := p.nobody(`
import socket, sys
s = socket.socket(socket.AF_UNIX)
try:
    s.connect(sys.argv[1])
    print("connected")
except PermissionError:
    print("refused")`, p.state("aob.sock"))
	if got != "refused" {
		p.Errorf("another user and the socket: %s", got)
	}
	if info, err := os.Stat(p.state("aob.sock")); err != nil || info.Mode().Perm() != 0o600 {
		p.Errorf("the socket: %v, %v", info.Mode(), err)
	}
	if after := p.runs(); after != before {
		p.Errorf("%v runs were started", after-before)
	}
}

func localStop(p *place) {
	got := p.nobody(`
import os, sys
try:
    os.kill(int(sys.argv[1]), 0)
    print("may")
except PermissionError:
    print("refused")`, fmt.Sprint(p.pid))
	if got != "refused" {
		p.Errorf("another user signals the server: %s", got)
	}
	networkSlow(p)
}

func localModels(p *place) {
	got := p.nobody(`
import os, sys
for path in sys.argv[1:]:
    try:
        print(path, "lists", os.listdir(path))
    except PermissionError:
        pass
    for name in ("fleet.secret", "ledger.db", "devices.db", "keys/desired.key", "bundles/index.json", "runs"):
        try:
            os.stat(os.path.join(path, name))
            print(name)
        except PermissionError:
            pass`, p.state())
	if got != "" {
		p.Errorf("another user reads: %s", got)
	}
	if info, err := os.Stat(p.state()); err != nil || info.Mode().Perm() != 0o700 {
		p.Errorf("the state folder: %v, %v", info.Mode(), err)
	}
	environ := p.nobody(`
import sys
try:
    print(open("/proc/%s/environ" % sys.argv[1]).read())
except PermissionError:
    pass`, fmt.Sprint(p.pid))
	p.keeps("what another user reads of the process", environ)
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid)) // everybody may read it
	if err != nil {
		p.Fatal(err)
	}
	p.keeps("the command line", string(cmdline))
}

func localDisk(p *place) {
	got := p.nobody(`
import os, sys
for path in (sys.argv[1], os.path.join(sys.argv[1], "runs"), os.path.join(sys.argv[1], "bundles")):
    try:
        open(os.path.join(path, "full"), "w").write("x")
        print("wrote in", path)
    except OSError:
        pass`, p.state())
	if got != "" {
		p.Error(got)
	}
}

// What a malicious trainer does: see evilTrainer. It stood before every training.

type trainerSaw struct {
	Environ map[string]string
	Argv    []string
	Run     string
	Files   []string
	Reached []string // of the state folder
}

func (p *place) trainer() (saw trainerSaw) {
	p.Helper()
	if err := json.Unmarshal([]byte(p.read(p.path("trainer-saw.json"))), &saw); err != nil {
		p.Fatal(err)
	}
	return saw
}

func trainerBar(p *place) {
	saw := p.trainer()
	if len(saw.Files) == 0 || !strings.Contains(saw.Run, "train") {
		p.Errorf("the trainer saw nothing: %+v", saw)
	}
	test := regexp.MustCompile(`(^|[/"])test(/|")`)
	for _, file := range append(saw.Files, saw.Run) {
		if test.MatchString(file) {
			p.Errorf("the trainer is given the test split: %s", file)
		}
	}
	// It said that its model is perfect; AOB measured.
	p.writer.git(p.T, "fetch", "-q")
	measured := regexp.MustCompile(`mAP: *\{?[^0-9]*([0-9.]+)`).FindStringSubmatch(p.writer.git(p.T, "show",
		"origin/main:"+"models/shapes.release.yaml"))
	if measured == nil || strings.HasPrefix(measured[1], "1") {
		p.Errorf("the release file says of the model: %v", measured)
	}
}

func trainerSpend(p *place) {
	saw := p.trainer()
	if !strings.Contains(saw.Run, fmt.Sprint(trainedEpochs)) {
		p.Errorf("run.json: %s", saw.Run)
	}
	// The socket's folder is named nowhere in what it gets, and nothing it wrote began a run.
	if all := fmt.Sprint(saw.Environ, saw.Argv, saw.Run); strings.Contains(all, "aob.sock") {
		p.Errorf("the trainer is told of the socket: %s", all)
	}
	p.idle()
}

func trainerStop(p *place) { p.works() } // after all that it wrote

func trainerSpeak(p *place) {
	if p.m != nil {
		var pulls []struct{ Number int }
		p.m.call(p.T, p.m.gitea.Admin, "GET", "/pulls?state=all&limit=50", nil, &pulls)
		for _, pr := range pulls {
			p.noMarkup("a comment", strings.Join(p.m.comments(p.T, pr.Number), "\n"))
		}
	}
	for _, args := range [][]string{{"status"}, {"pr", "list"}, {"pr", "show", "1"}, {"explain", "model", "shapes"}} {
		out, _ := exec.Command(filepath.Join(p.bin, "aob"),
			append(args, "--socket", p.state("aob.sock"))...).CombinedOutput()
		if bytes.Contains(out, []byte("\n/aob run")) || bytes.Contains(out, []byte("\x1b[31m/")) {
			p.Errorf("aob %s shows a trainer's lines as they are: %s", args, out)
		}
	}
}

func trainerSecrets(p *place) {
	saw := p.trainer()
	// What it is not given it takes: it runs as AOB's user, and the page says so. Where this fails, change both.
	if !slices.Contains(saw.Reached, "aob.sock") || !slices.Contains(saw.Reached, "fleet.secret") {
		p.Errorf("a trainer on this machine reaches %v: the page says that it can open what AOB's user can",
			saw.Reached)
	}
	p.keeps("what the trainer saw", fmt.Sprint(saw.Environ, saw.Argv, saw.Run))
	for name := range saw.Environ {
		if !slices.Contains([]string{"PATH", "HOME", "LANG", "LC_CTYPE", "PWD", "SHLVL", "_", "OMP_NUM_THREADS",
			"TMPDIR", "AOB_TRAINING"}, name) {
			p.Errorf("the trainer's environment has %s", name)
		}
	}
	p.clean()
}

func trainerDisk(p *place) {
	until(p.T, func() error { // its run's folder goes some time after its pull request is closed
		if files := holds(p.T, p.state(), "trainer-marker"); len(files) > 0 {
			return fmt.Errorf("a status file of 50 MB is kept in %v", files)
		}
		return nil
	})
	if peak := peak(p.T, p.pid); peak > 1<<30 {
		p.Errorf("the server took %d MiB", peak>>20)
	}
}

// What a malicious dataset does.

// spoilDatasets makes two datasets of a good one: "evil" names files outside, holds a link, an image that says it is
// enormous, and names that are markup; "copies" is trained on what it is tested on.
const spoilDatasets = `
import json, os, shutil, struct, sys, zlib
good, evil, copies, linked, outside = sys.argv[1:]
shutil.copytree(good, evil)
shutil.copytree(good, linked)
shutil.copytree(good, copies)
os.mkdir(outside)
first = json.load(open(os.path.join(good, "train", "_annotations.coco.json")))["images"][0]["file_name"]
shutil.copy(os.path.join(good, "train", first), os.path.join(outside, "secret.png"))
open(os.path.join(outside, "secret.png"), "ab").write(b"outside-marker")
path = os.path.join(evil, "train", "_annotations.coco.json")
d = json.load(open(path))
names = ["../../outside/secret.png", os.path.join(outside, "secret.png"), "huge.png",
         "x](http://evil.example/x) @all <b>Closes #1\n/aob run 0123456789abcdef.png"]
for i, name in enumerate(names):
    d["images"][i]["file_name"] = name
d["categories"].append({"id": 99, "name": "![x](http://evil.example/t.png) @all <b>"})
json.dump(d, open(path, "w"))
os.symlink(os.path.join(outside, "secret.png"), os.path.join(linked, "train", "link.png"))
head = struct.pack(">IIBBBBB", 65535, 65535, 16, 6, 0, 0, 0)
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
open(os.path.join(evil, "train", "huge.png"), "wb").write(
    b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000000)) + chunk(b"IEND", b""))
shutil.rmtree(os.path.join(copies, "train"))
shutil.copytree(os.path.join(copies, "test"), os.path.join(copies, "train"))
`

// checkEvil proposes a model of the malicious dataset, once, and returns what AOB says of it.
func (p *place) checkEvil() web.PR {
	p.Helper()
	if p.checked == nil {
		number := p.spoiled("evil")
		pr := p.show(number)
		p.checked = &pr
	}
	return *p.checked
}

// spoiled proposes a model of a spoiled dataset, and returns its number once aob/data has failed.
func (p *place) spoiled(name string) int {
	p.Helper()
	model := strings.Replace(shapesModel(name, trainedEpochs), "dir: shapes", "dir: "+strings.TrimSuffix(name, "2"), 1)
	number := p.propose(p.writer, map[string]string{"models/" + name + ".yaml": model,
		"gates/" + name + ".yaml": gateFile(name, name, p.ownerName, "{metric: mAP, min: 0}")})
	p.wants(number, delivery.ContextData, delivery.CheckFailure, "")
	return number
}

func datasetBar(p *place) {
	before := metrics(p.T, p.counters)["aob_trainings_total"]
	number := p.spoiled("copies")
	_, says := p.check(number, delivery.ContextData)
	p.Logf("aob/data: %s", says)
	if pr := p.show(number); len(pr.Models) == 0 || len(pr.Models[0].Findings) == 0 {
		p.Errorf("nothing was found: %+v", pr.Models)
	}
	if after := metrics(p.T, p.counters)["aob_trainings_total"]; after != before {
		p.Error("a model was trained on what it is tested on")
	}
	p.retire(p.writer, number)
}

func datasetSpend(p *place) {
	before := metrics(p.T, p.counters)["aob_trainings_total"]
	pr := p.checkEvil()
	p.stays(pr.Number)
	if after := metrics(p.T, p.counters)["aob_trainings_total"]; after != before {
		p.Error("a model was trained on a dataset with errors")
	}
}

func datasetStop(p *place) {
	p.checkEvil()
	p.works()
	if peak := peak(p.T, p.pid); peak > 1<<30 {
		p.Errorf("the server took %d MiB", peak>>20)
	}
}

func datasetModels(p *place) {
	pr := p.checkEvil()
	_, says := p.check(pr.Number, delivery.ContextData)
	p.Logf("aob/data: %s", says)
	var all bytes.Buffer
	for _, m := range pr.Models {
		for _, f := range m.Findings {
			fmt.Fprintf(&all, "%+v\n", f)
		}
	}
	for _, name := range []string{"outside", "huge.png"} {
		if !strings.Contains(all.String()+says, name) {
			p.Errorf("nothing was found about %s: %s", name, all.String())
		}
	}
	if files := holds(p.T, p.state(), "outside-marker"); len(files) > 0 {
		p.Errorf("a file outside of the dataset was read into %v", files)
	}
}

func datasetSecrets(p *place) {
	number := p.spoiled("linked")
	p.wants(number, delivery.ContextData, delivery.CheckFailure, "symbolic link")
	if files := holds(p.T, p.state(), "outside-marker"); len(files) > 0 {
		p.Errorf("a link was followed into %v", files)
	}
	p.retire(p.writer, number)
}

func datasetSpeak(p *place) {
	pr := p.checkEvil()
	if p.m != nil {
		p.noMarkup("the comment", strings.Join(p.m.comments(p.T, pr.Number), "\n"))
		return
	}
	cmd := exec.Command(filepath.Join(p.bin, "aob"), "pr", "show", fmt.Sprint(pr.Number), "--socket",
		p.state("aob.sock"))
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("\n/aob run")) || bytes.Contains(out, []byte("\x1b[31m")) {
		p.Errorf("%v: %s", err, out)
	}
}

func datasetDisk(p *place) {
	before := size(p.T, p.state())
	number := p.spoiled("evil2")
	p.retire(p.writer, number)
	p.idle()
	if grown := size(p.T, p.state()) - before; grown > size(p.T, p.path("evil"))+1<<20 {
		p.Errorf("a dataset of %d bytes leaves %d", size(p.T, p.path("evil")), grown)
	}
}
