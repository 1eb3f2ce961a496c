package e2e

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/evidence"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/trust"
	"github.com/autonomos/aob/reconciler/web"
)

func shapesModel(name string, epochs int) string {
	return fmt.Sprintf(`apiVersion: aob/v1
kind: Model
name: %s
dataset: {dir: shapes}
classes: [circle, square, triangle]
train:
  with: tiny@1
  resolution: 160
  epochs: %d
  batch: {effective: 4, step: 4}
  optimizer: {name: adamw, lr: 2e-3, warmup: 1, schedule: cosine}
  seeds: [1]
  machine: {limit: 30m}
`, name, epochs)
}

// The floors are far below what is trained: this test is not about quality.
func shapesGate(name, model string) string {
	return fmt.Sprintf(`apiVersion: aob/v1
kind: Gate
name: %s
covers: [%s]
evaluate: {dataset: {dir: shapes}, split: test}
classes: [circle, square, triangle]
checks:
  - {metric: mAP, min: 0.005}
  - {metric: AP, classes: all, min: 0, support: 20, unsure: ignore}
  - {metric: mAP, maxDrop: 0.02, against: release, confidence: 95%%, unsure: fail}
  - {metric: size, max: 20MB}
`, name, model)
}

const shapesFleet = `apiVersion: aob/v1
kind: Fleet
name: demo
runs: shapes
match: {site: demo}
waves: [1, 100%]
soak: 1s
advance: all-healthy
`

const shapesEpochs = 12

// TestKilled kills aob serve, its runners, terraform and the trainer at many
// moments of one promotion, and wants it to come out as one that nobody disturbs.
// Then it takes the ledger away, and wants nothing worse than things said again.
//
//	AOB_KILLS      how often (50)
//	AOB_KILL_SEED  when and whom
func TestKilled(t *testing.T) {
	kills, seed := 50, uint64(time.Now().UnixNano())
	settings := map[string]func(int){
		"AOB_KILLS":     func(n int) { kills = n },
		"AOB_KILL_SEED": func(n int) { seed = uint64(n) },
	}
	for name, set := range settings {
		if text := os.Getenv(name); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			set(n)
		}
	}
	n := findPrograms(t)
	dataset := filepath.Join(t.TempDir(), "shapes")
	script := filepath.Join("..", "trainers", "tiny", "shapes.py")
	if out, err := exec.Command(python, script, dataset, "--train", "48", "--valid", "12", "--test",
		"32").CombinedOutput(); err != nil {
		t.Fatalf("make the dataset: %v: %s", err, out)
	}

	began := time.Now()
	calm := promote(t, n, "undisturbed", dataset, nil)
	calm.workshop.close(t)
	t.Logf("undisturbed: %s\n%s", round(time.Since(began)), calm.told)

	t.Logf("seed %d: AOB_KILL_SEED=%d AOB_KILLS=%d", seed, seed, kills)
	began = time.Now()
	wild := promote(t, n, "killed", dataset, moments(rand.New(rand.NewPCG(seed, seed)), kills))
	t.Logf("killed %d times: %s", kills, round(time.Since(began)))
	if diff := cmp.Diff(calm.told, wild.told); diff != "" {
		t.Errorf("undisturbed (-), killed %d times (+):\n%s", kills, diff)
	}

	began = time.Now()
	wild.loseLedger(t)
	wild.workshop.close(t)
	t.Logf("without its ledger: %s", round(time.Since(began)))
}

// A promotion is one pull request that was trained, judged, merged and rolled
// out, and another that is open.
type promotion struct {
	*workshop
	commits map[string]string // what statuses are on, by what it is
	told    string            // all that came of it and does not depend on chance
}

// promote takes a model from a pull request to a fleet. At the end the server is
// stopped.
func promote(t *testing.T, n needs, name, dataset string, list []moment) *promotion {
	t.Helper()
	w := newWorkshop(t, n, name, map[string]string{"models/shapes.yaml": shapesModel("shapes", 1),
		"gates/production.yaml": shapesGate("production", "shapes"), "fleets/demo.yaml": shapesFleet})
	w.open(t, dataset, "demo")
	k := &killer{w: w, branch: "longer", main: w.at(t, "main")}
	k.pushed = w.clone.push(t, k.branch, "shapes: train longer",
		map[string]string{"models/shapes.yaml": shapesModel("shapes", shapesEpochs)})
	k.start(t.Context(), list)
	pr := w.green(t, k.branch)
	merged := w.merge(t, pr)
	w.converged(t, 1)
	k.wait(t)
	w.answers(t)
	w.converged(t, 1)
	if left := w.at(t, k.branch); left != "" && left != pr.Head {
		t.Errorf("branch %s is at %s after it was merged at %s", k.branch, left, pr.Head)
	}

	// The same values under another name: everything is known, nothing runs.
	w.clone.push(t, "twin", "twin: as shapes", map[string]string{"models/twin.yaml": shapesModel("twin", shapesEpochs),
		"gates/twin.yaml": shapesGate("twin", "twin")})
	twin := w.green(t, "twin")
	w.converged(t, 1)
	p := &promotion{workshop: w, commits: map[string]string{"the pull request": pr.Head, "main": merged,
		"the twin": twin.Head}}
	p.allSaid(t, twin.Number)
	w.stopServer(t)

	var b strings.Builder
	for _, pr := range []web.PR{pr, twin} {
		fmt.Fprintf(&b, "pull request %d: %s, %s\n", pr.Number, pr.Title, pr.State)
		for _, m := range pr.Models {
			fmt.Fprintf(&b, "  %s version %d of spec %s, %d findings\n", m.Model, m.Release.Version,
				m.Release.Spec.Short(), len(m.Findings))
			for _, v := range m.Verdicts {
				fmt.Fprintf(&b, "  gate %s: %s\n", v.Gate, v.Outcome)
				for _, c := range v.Checks {
					fmt.Fprintf(&b, "    %s %s: %s\n", c.Check, c.Class, c.Outcome)
				}
			}
		}
	}
	fmt.Fprintf(&b, "main:\n%s", p.history(t, merged))
	fmt.Fprintf(&b, "the twin:\n%s", p.history(t, merged+".."+twin.Head))
	b.WriteString(p.statuses(t, "the pull request", "main", "the twin"))
	for branch, n := range p.comments(t) {
		if n != 1 {
			t.Errorf("%d comments on %s, want 1", n, branch)
		}
	}
	p.told = b.String()
	p.whole(t)
	return p
}

// allSaid waits until the forge shows what the server has decided: statuses go through a queue, so a server that is
// stopped at once may not have sent the last of them.
func (p *promotion) allSaid(t *testing.T, twin int) {
	t.Helper()
	until(t, func() error {
		pr, err := p.api.PR(t.Context(), twin)
		if err != nil {
			return err
		}
		status, err := p.api.Status(t.Context())
		if err != nil {
			return err
		}
		var said []delivery.Check
		for _, c := range pr.Checks {
			said = append(said, c.Check)
		}
		want := map[string][]delivery.Check{"the twin": said, "the pull request": {{
			Context: delivery.ContextRelease, State: delivery.CheckSuccess, Description: "shapes: merged: version 1"}}}
		for _, f := range status.Fleets {
			want["main"] = append(want["main"], delivery.Check{
				Context: delivery.ContextRollout + f.Name, State: delivery.CheckSuccess, Description: f.Text})
		}
		book, err := ledger.Open(t.Context(), p.path("state", "ledger.db"))
		if err != nil {
			return err
		}
		defer book.Close()
		for what, list := range want {
			there, err := book.Checks(t.Context(), p.commits[what])
			if err != nil {
				return err
			}
			for _, c := range list {
				if !slices.ContainsFunc(there, func(d delivery.Check) bool {
					return d.Context == c.Context && d.State == c.State && d.Description == c.Description
				}) {
					return fmt.Errorf("%s does not show %s %s: %s", what, c.State, c.Context, c.Description)
				}
			}
		}
		return nil
	})
}

// history lists commits, by what they say.
func (p *promotion) history(t *testing.T, commits string) string {
	t.Helper()
	out, err := exec.Command("git", "--git-dir", p.path("intent.git"), "log", "--topo-order", "--format=  %an: %s",
		"--name-status", commits).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// What statuses say of chance: how long a training took, and what it reached.
var (
	figure   = regexp.MustCompile(`\d+\.\d+`)
	duration = regexp.MustCompile(`\b\d+(\.\d+)?(ms|s|min|m)\b`)
	digest   = regexp.MustCompile(`\b[0-9a-f]{8,64}\b`)
)

func certain(text string) string {
	return digest.ReplaceAllString(figure.ReplaceAllString(duration.ReplaceAllString(text, "#s"), "#"), "#")
}

// statuses are what commits show on the forge, once the server has ended.
func (p *promotion) statuses(t *testing.T, of ...string) string {
	t.Helper()
	book, err := ledger.Open(t.Context(), p.path("state", "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer book.Close()
	var b strings.Builder
	for _, what := range of {
		fmt.Fprintf(&b, "statuses of %s:\n", what)
		checks, err := book.Checks(t.Context(), p.commits[what])
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range checks {
			fmt.Fprintf(&b, "  %s %s: %s\n", c.State, c.Context, certain(c.Description))
		}
	}
	return b.String()
}

// comments counts the comments on each branch's pull request, once the server
// has ended.
func (p *promotion) comments(t *testing.T) map[string]int {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+p.path("state", "ledger.db")) // the ledger's driver
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(),
		"SELECT branch, COUNT(marker) FROM numbers LEFT JOIN comments ON pr = number GROUP BY branch")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	counts := map[string]int{}
	for rows.Next() {
		var branch string
		var n int
		if err := rows.Scan(&branch, &n); err != nil {
			t.Fatal(err)
		}
		counts[branch] = n
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return counts
}

// whole checks what lies in the state folder: every run done once, nothing left
// half-done, and all evidence good.
func (p *promotion) whole(t *testing.T) {
	t.Helper()
	dones := map[string]int{}
	journals, _ := filepath.Glob(p.path("state", "runs", "*", "journal.jsonl"))
	for _, file := range journals {
		name := filepath.Base(filepath.Dir(file))
		kind, _, _ := strings.Cut(name, "-")
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(data), `"event":"done"`); n != 1 {
			t.Errorf("run %s was done %d times:\n%s", name, n, data)
		}
		dones[kind]++
	}
	if dones["data"] < 1 || dones["train"] != 1 || dones["eval"] != 2 || dones["compare"] != 0 {
		t.Errorf("runs that were done: %v", dones)
	}
	p.trainedOnce(t)

	locks, _ := filepath.Glob(p.path("state", "runs", "*", "attempts", "*", "terraform",
		".terraform.tfstate.lock.info"))
	if len(locks) > 0 {
		t.Errorf("terraform states are still locked: %v", locks)
	}
	attempts, _ := filepath.Glob(p.path("state", "runs", "*", "attempts", "*"))
	for _, a := range attempts {
		if _, err := os.Stat(filepath.Join(a, "settled.json")); err != nil {
			t.Errorf("an attempt was not settled: %v", err)
		}
	}
	t.Logf("%d attempts to train", len(attempts))

	bundles, err := artifact.Open(p.path("state", "bundles"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := bundles.Bundles(t.Context())
	if err != nil || len(list) != 1 {
		t.Errorf("%d bundles, want 1: %v", len(list), err)
	}
	for _, d := range list {
		if err := bundles.Unpack(t.Context(), d, filepath.Join(t.TempDir(), "bundle")); err != nil {
			t.Errorf("bundle %s: %v", d.Short(), err)
		}
	}
	key, err := trust.Load(p.path("state", "keys", "evidence.key"))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := evidence.New(bundles, key, nil).Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(signed.Skipped) > 0 {
		t.Errorf("statements that do not count: %v", signed.Skipped)
	}
	if n := len(signed.Trainings); n != 1 {
		t.Errorf("%d run keys are signed as trained, want 1", n)
	}
	for spec, list := range signed.TrainingsOf {
		if len(list) != 1 {
			t.Errorf("spec %s is signed as trained %d times", spec.Short(), len(list))
		}
	}
	if list := signed.AcceptancesOf["shapes"]; len(list) != 1 || list[0].Version != 1 {
		t.Errorf("accepted: %+v", list)
	}
}

// trainedOnce checks that the training came to its end once: no epoch is missing
// or there twice, and no second trainer went through to the end.
func (p *promotion) trainedOnce(t *testing.T) {
	t.Helper()
	files, _ := filepath.Glob(p.path("state", "runs", "train-*", "output", "metrics.jsonl"))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(data), "\n"); n != shapesEpochs {
			t.Errorf("%d epochs were trained, want %d:\n%s", n, shapesEpochs, data)
		}
	}
	ended := 0
	files, _ = filepath.Glob(p.path("state", "runs", "train-*", "attempts", "*", "exit.json"))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), `"code":0`) {
			ended++
		}
	}
	if ended > 1 { // none where what waits for it was killed
		t.Errorf("%d trainers ended well", ended)
	}
}

// loseLedger starts the server without its ledger. What it said is said again;
// nothing is trained, shipped, committed or commented twice.
func (p *promotion) loseLedger(t *testing.T) {
	t.Helper()
	// What a forge keeps of the merged pull request, the local one has lost.
	open := []string{"main", "the twin"}
	said, refs, devices, files := p.statuses(t, open...), p.refs(t), p.devices(t), p.journals(t)
	for _, name := range []string{"ledger.db", "devices.db"} {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if err := os.Remove(p.path("state", name+suffix)); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
	}
	if err := p.startServer(); err != nil {
		t.Fatal(err)
	}
	p.answers(t)
	p.green(t, "twin")
	p.converged(t, 1)
	until(t, func() error { // devices report one after another, and the loop hears of them once a second
		if now := p.statuses(t, open...); now != said {
			return fmt.Errorf("what the forge showed (-) and shows (+):\n%s", cmp.Diff(said, now))
		}
		return nil
	})
	counted := metrics(t, p.counters)
	p.stopServer(t)

	for series, n := range counted {
		if n > 0 && (series == "aob_trainings_total" || series == "aob_model_bytes_served_total" ||
			strings.HasPrefix(series, "aob_runs_started_total")) {
			t.Errorf("%s is %v", series, n)
		}
	}
	if now := p.refs(t); now != refs {
		t.Errorf("branches were:\n%s\nand are:\n%s", refs, now)
	}
	if now := p.journals(t); now != files {
		t.Errorf("runs were:\n%s\nand are:\n%s", files, now)
	}
	for device, was := range devices {
		now := p.devices(t)[device]
		if now.Downloaded != was.Downloaded || now.Slot != was.Slot || now.Bundle != was.Bundle {
			t.Errorf("%s was %+v and is %+v", device, was, now)
		}
	}
	if now := p.statuses(t, open...); now != said {
		t.Errorf("what the forge showed (-) and shows (+):\n%s", cmp.Diff(said, now))
	}
	if now := p.comments(t); len(now) != 1 || now["twin"] != 1 {
		t.Errorf("comments, by branch: %v", now)
	}
}

// journals are those of all runs.
func (p *promotion) journals(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	files, _ := filepath.Glob(p.path("state", "runs", "*", "journal.jsonl"))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s\n%s", file, data)
	}
	return b.String()
}
