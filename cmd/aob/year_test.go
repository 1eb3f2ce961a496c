package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/run"
)

// TestYear plays a year of one server: its real repository, mirror, ledger, run folders, bundles and statements on the
// disk, with retention as it is by default, while the test moves the clock. Models are promoted all year: a pull
// request is judged, gets its release commit and is merged. Only what a run computes is made up, and its files are
// small. At the end of each month it measures; make bench-year prints the table, which BENCHMARKS.md keeps.
//
// AOB_YEAR is the number of promotions in the year. Without it there are few, and only what must hold is checked: all
// that was accepted can be explained, and is rolled back to without a training.
func TestYear(t *testing.T) {
	promotions, models := 36, 6
	if n, err := strconv.Atoi(os.Getenv("AOB_YEAR")); err == nil {
		promotions, models = n, min(200, max(1, n/12))
	} else if testing.Short() {
		t.Skip("it takes some seconds")
	}
	y := newYear(t, models)
	weeks := min(52, promotions/3)
	began, month, done := time.Now(), 0, 0
	for week := 1; week <= weeks; week++ {
		y.ahead.Add(int64(366 * 24 * time.Hour / time.Duration(weeks)))
		for at := promotions * week / weeks; done < at; {
			n := min(at-done, models)
			y.promote(done, n)
			done += n
		}
		if m := 12 * week / weeks; m > month {
			y.sweep()
			y.sample(m, done)
			month = m
		}
		if limit := yearLimit(); time.Since(began) > limit && os.Getenv("AOB_YEAR") != "" {
			t.Logf("stopped after %s and %d promotions", limit, done)
			break
		}
	}
	y.table()
	y.explained(done)
	y.rolledBack(done)
}

// yearLimit is how long a year may take. AOB_YEAR_LIMIT changes it.
func yearLimit() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("AOB_YEAR_LIMIT")); err == nil {
		return d
	}
	return 30 * time.Minute
}

// A year is a server of which a year is played.
type year struct {
	t      *testing.T
	dir    string
	models int
	server *server
	store  *run.Store
	ahead  atomic.Int64 // how much the clock has been moved

	files [][2]string // of each promotion: the model's file and the release file, as git names them

	mu      sync.Mutex
	trained map[delivery.Digest]int
	turning time.Duration
	turns   int

	samples []yearSample
}

func (y *year) now() time.Time { return time.Now().Add(time.Duration(y.ahead.Load())) }

// model is a model's file. The seed makes each promotion another training.
func (y *year) model(i, seed int) string {
	return fmt.Sprintf("apiVersion: aob/v1\nkind: Model\nname: %s\ndataset: {dir: shapes}\nclasses: [circle, square]\n"+
		"train:\n  with: tiny@1\n  epochs: 8\n  seeds: [%d]\n", yearModel(i), seed)
}

func yearModel(i int) string { return fmt.Sprintf("m%03d", i) }

func newYear(t *testing.T, models int) *year {
	t.Helper()
	dir := t.TempDir()
	y := &year{t: t, dir: dir, models: models, trained: map[delivery.Digest]int{}}
	y.ahead.Store(int64(-367 * 24 * time.Hour))
	y.git("", "init", "-q", "--bare", "-b", "main", y.path("intent.git"))
	var script strings.Builder
	fmt.Fprintf(&script, "commit refs/heads/main\n%sdata 5\nbegin\n", y.person())
	for i := range models {
		name := yearModel(i)
		put(&script, "models/"+name+".yaml", y.model(i, 0))
		put(&script, "gates/"+name+".yaml", fmt.Sprintf("apiVersion: aob/v1\nkind: Gate\nname: %s\ncovers: [%s]\n"+
			"evaluate: {dataset: {dir: shapes}, split: test}\nclasses: [circle, square]\nchecks:\n"+
			"  - {metric: mAP, min: 0.3}\n  - {metric: mAP, maxDrop: 0.02, against: release}\n", name, name))
		if i%10 == 0 {
			put(&script, "fleets/"+name+".yaml", fmt.Sprintf("apiVersion: aob/v1\nkind: Fleet\nname: %s\nruns: %s\n"+
				"waves: [100%%]\nsoak: 1s\n", name, name))
		}
	}
	y.git(script.String(), "-C", y.path("intent.git"), "fast-import", "--quiet")
	if err := os.Mkdir(y.path("shapes"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("repository: intent.git\nforge: {local: {}}\nstate: state\n"+
		"listen: {address: \"127.0.0.1:0\"}\ndatasets: {dir: {shapes: %s}}\n"+
		"poll: {git: 100ms, forge: 100ms}\n", y.path("shapes"))
	if err := os.WriteFile(y.path("aob.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := openServer(t.Context(), y.path("aob.yaml"), false, slog.New(slog.NewTextHandler(yearLog{t}, nil)))
	if err != nil {
		t.Fatal(err)
	}
	y.server = p
	y.store = p.loop.Runs.(*run.Store)
	p.loop.Runs, p.loop.Now, p.loop.Datasets = yearRuns{y.store, y}, y.now, nil
	p.loop.Server.Runs, p.loop.Server.Trainings = 100, 100
	p.loop.Metrics = yearMetrics{p.loop.Metrics, y}
	p.shelf.Now, p.source.Now = y.now, y.now
	p.loop.Init()
	ctx, cancel := context.WithCancel(t.Context())
	var background sync.WaitGroup
	background.Go(func() { p.store.Run(ctx) })
	background.Go(func() { p.archive.Recheck(ctx, p.loop.Wake) })
	background.Go(func() { p.papers.Run(ctx) })
	background.Go(func() { _ = p.loop.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		background.Wait()
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	return y
}

// yearLog shows warnings and errors of the server.
type yearLog struct{ t *testing.T }

func (l yearLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("level=ERROR")) || bytes.Contains(p, []byte("level=WARN")) {
		fmt.Fprintf(os.Stderr, "%s", p)
	}
	return len(p), nil
}

func (y *year) path(parts ...string) string {
	return filepath.Join(append([]string{y.dir}, parts...)...)
}

func (y *year) git(in string, args ...string) string {
	y.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		y.t.Fatalf("git %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

func (y *year) person() string {
	return fmt.Sprintf("committer A <a@example.com> %d +0000\n", y.now().Unix())
}

func put(script *strings.Builder, path, text string) {
	fmt.Fprintf(script, "M 100644 inline %s\ndata %d\n%s\n", path, len(text), text)
}

// yearPatience is how long a year waits for one thing.
const yearPatience = 5 * time.Minute

// until waits until check has nothing to object.
func (y *year) until(check func() error) {
	y.t.Helper()
	for deadline := time.Now().Add(yearPatience); ; time.Sleep(5 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			y.t.Fatal(err)
		}
	}
}

// promote opens pull requests for n models, and another one for each fifth, waits until all are green, and merges them
// one after the other. The others are closed.
func (y *year) promote(from, n int) {
	y.t.Helper()
	var script strings.Builder
	for i := from; i < from+n; i++ {
		fmt.Fprintf(&script, "commit refs/heads/p%d\n%sdata 7\npromote\nfrom refs/heads/main^0\n", i, y.person())
		put(&script, "models/"+yearModel(i%y.models)+".yaml", y.model(i%y.models, i+1))
	}
	closed := 0
	var gone strings.Builder
	for i := from; i < from+n; i += 5 {
		fmt.Fprintf(&script, "commit refs/heads/x%d\n%sdata 3\ntry\nfrom refs/heads/main^0\n", i, y.person())
		put(&script, "models/"+yearModel(i%y.models)+".yaml", y.model(i%y.models, 1_000_000+i))
		fmt.Fprintf(&gone, "delete refs/heads/x%d\n", i)
		closed++
	}
	y.git(script.String(), "-C", y.path("intent.git"), "fast-import", "--quiet")
	y.server.loop.Refresh("")
	y.until(func() error { return y.green(from, n+closed) })
	y.git(gone.String(), "-C", y.path("intent.git"), "update-ref", "--stdin")
	y.merge(from, n)
	y.server.loop.Refresh("")
	y.until(func() error { return y.accepted(from, n) })
}

func (y *year) green(from, n int) error {
	list, err := y.server.source.PRs(y.t.Context())
	if err != nil {
		return err
	}
	green := 0
	for _, pr := range list {
		if pr.State == delivery.CheckSuccess {
			green++
		} else if pr.State != delivery.CheckPending {
			return fmt.Errorf("%s is %s: %s", pr.HeadRef, pr.State, pr.Text)
		}
	}
	if green < n || len(list) != n {
		return fmt.Errorf("of %d pull requests from %d on, %d are green of %d", n, from, green, len(list))
	}
	return nil
}

// merge merges pull requests as a forge does, each with a commit of its own, and deletes their branches.
func (y *year) merge(from, n int) {
	y.t.Helper()
	repo := y.path("intent.git")
	var ask strings.Builder
	for i := from; i < from+n; i++ {
		name := yearModel(i % y.models)
		fmt.Fprintf(&ask, "p%d\np%d:models/%s.yaml\np%d:models/%s.release.yaml\n", i, i, name, i, name)
	}
	answers := strings.Split(y.git(ask.String(), "-C", repo, "cat-file", "--batch-check=%(objectname)"), "\n")
	var script, refs strings.Builder
	for k := range n {
		name := yearModel((from + k) % y.models)
		y.files = append(y.files, [2]string{answers[3*k+1], answers[3*k+2]})
		base := ""
		if k == 0 {
			base = "from refs/heads/main^0\n"
		}
		fmt.Fprintf(&script, "commit refs/heads/main\n%sdata 5\nmerge\n%smerge %s\nM 100644 %s models/%s.yaml\n"+
			"M 100644 %s models/%s.release.yaml\n", y.person(), base, answers[3*k], answers[3*k+1], name,
			answers[3*k+2], name)
		fmt.Fprintf(&refs, "delete refs/heads/p%d\n", from+k)
	}
	y.git(script.String(), "-C", repo, "fast-import", "--quiet")
	y.git(refs.String(), "-C", repo, "update-ref", "--stdin")
}

func (y *year) accepted(from, n int) error {
	for i := from; i < from+n; i++ {
		r, err := y.server.source.Release(y.t.Context(), yearModel(i%y.models), i/y.models+1)
		if err != nil {
			return err
		}
		if r.Version != i/y.models+1 {
			return fmt.Errorf("%s is at version %d", yearModel(i%y.models), r.Version)
		}
	}
	return nil
}

// sweep removes what nothing needs, as the server does once an hour.
func (y *year) sweep() {
	y.t.Helper()
	y.until(func() error {
		_, left, err := y.server.shelf.Sweep(y.t.Context(), 0, 0)
		if left > 0 {
			err = fmt.Errorf("%d things are left", left)
		}
		return err
	})
}

// yearMetrics adds up the time of turns.
type yearMetrics struct {
	reconciler.Metrics
	y *year
}

func (m yearMetrics) Turn(took time.Duration, steps int, err error) {
	m.Metrics.Turn(took, steps, err)
	m.y.mu.Lock()
	defer m.y.mu.Unlock()
	m.y.turning += took
	m.y.turns++
}
