package shelf_test

// A server is killed while it removes things. Whatever the moment, each thing is whole or gone, what is needed is
// whole, and the next server removes the rest.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/engine"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/retention"
	"github.com/autonomos/aob/reconciler/rollout"
	"github.com/autonomos/aob/reconciler/run"
	"github.com/autonomos/aob/reconciler/shelf"
)

// The test starts this binary again with these environment variables, to be killed.
const (
	killedDir = "SHELF_TEST_DIR"
	killedAt  = "SHELF_TEST_KILL" // the number of the step; 0: by another process
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(killedDir); dir != "" {
		at, err := strconv.Atoi(os.Getenv(killedAt))
		if err == nil {
			err = sweptIn(dir, &killer{at: at})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A killer kills this process at a step. Each call of what removes things is one before and one after it.
type killer struct{ at, steps int }

func (k *killer) step() {
	if k.steps++; k.steps == k.at {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func (k *killer) around(do func() error) error {
	k.step()
	defer k.step()
	return do()
}

// A yard is a server's stores, all of them real, with a loop that stands still.
type yard struct {
	*killer
	dir     string
	runs    *run.Store
	bundles *artifact.Store
	book    *ledger.Ledger
	world   plan.World
}

// Of each kind one thing is needed and one is not. Both are old.
var (
	needed, useless = digest("needed"), digest("useless")
	neededCommit    = strings.Repeat("a", 40)
	uselessCommit   = strings.Repeat("b", 40)
	longAgo         = now.Add(-month)
)

func openYard(ctx context.Context, dir string, k *killer) (*yard, error) {
	y := &yard{killer: k, dir: dir, runs: &run.Store{Dir: filepath.Join(dir, "runs")}}
	var err error
	if y.book, err = ledger.Open(ctx, filepath.Join(dir, "ledger.db")); err != nil {
		return nil, err
	}
	if y.bundles, err = artifact.Open(filepath.Join(dir, "bundles")); err != nil {
		return nil, err
	}
	y.world = plan.World{ProposalsKnown: true, Main: plan.Main{Branch: "main", Commit: neededCommit,
		Intent: delivery.Intent{Fleets: delivery.NamedOf(map[string]delivery.Fleet{"needed": {}})}},
		Runs: map[delivery.Digest]delivery.RunState{}, Clocks: map[string]rollout.State{}}
	states, err := y.runs.Observe()
	if err != nil {
		return nil, err
	}
	for _, r := range states {
		y.world.Runs[r.Spec.Key] = r
	}
	clocks, err := y.book.Clocks(ctx)
	if err != nil {
		return nil, err
	}
	for fleet := range clocks {
		y.world.Clocks[fleet] = rollout.State{Began: longAgo}
	}
	list, err := y.bundles.Kept(ctx)
	if err != nil {
		return nil, err
	}
	for _, b := range list {
		if b.Run == needed {
			y.world.Published = map[string]delivery.Desired{"needed": {Release: delivery.Target{Bundle: b.Bundle}}}
		}
	}
	return y, nil
}

func (y *yard) path(parts ...string) string {
	return filepath.Join(append([]string{y.dir}, parts...)...)
}

func (y *yard) BetweenTurns(_ context.Context, do func(w plan.World, p plan.Plan) error) error {
	return do(y.world, plan.Plan{Needed: []delivery.Digest{needed}})
}

func (y *yard) DetachRun(key delivery.Digest) (folder string, err error) {
	err = y.around(func() error { folder, err = y.runs.Detach(key); return err })
	delete(y.world.Runs, key)
	return folder, err
}

func (y *yard) ForgetPosts(func(commit string, pull int) bool) {}

func (y *yard) ForgetTracked(ctx context.Context, _ time.Time) (keys []string, err error) {
	records, err := y.book.Records(ctx, "track/")
	for key := range records {
		keys = append(keys, key)
	}
	return keys, err
}

type yardBundles struct {
	*artifact.Store
	*yard
}

func (b yardBundles) Remove(ctx context.Context, bundle delivery.Digest, before time.Time) error {
	return b.around(func() error { return b.Store.Remove(ctx, bundle, before) })
}

type yardEngines struct {
	engine.Cache
	*yard
}

func (e yardEngines) Remove(k engine.Kept, before time.Time) error {
	return e.around(func() error { return e.Cache.Remove(k, before) })
}

type yardLedger struct {
	*ledger.Ledger
	*yard
}

func (l yardLedger) DropRecords(ctx context.Context, keys []string, before time.Time) error {
	return l.around(func() error { return l.Ledger.DropRecords(ctx, keys, before) })
}

func (l yardLedger) DropPosts(ctx context.Context, keys []string, before time.Time, commit string, pr int) error {
	return l.around(func() error { return l.Ledger.DropPosts(ctx, keys, before, commit, pr) })
}

func (l yardLedger) DropClock(ctx context.Context, fleet string) error {
	return l.around(func() error { return l.Ledger.DropClock(ctx, fleet) })
}

// shelf returns the yard's shelf. ahead is how far its clock is ahead.
func (y *yard) shelf(ahead time.Duration) *shelf.Shelf {
	limits := retention.Limits{}
	for _, kind := range retention.Kinds {
		limits[kind] = 24 * time.Hour
	}
	nothing := &room{}
	return &shelf.Shelf{Loop: y, State: y.dir, Runs: y.runs, Bundles: yardBundles{y.bundles, y},
		Datasets: datasets{nothing}, Environments: environments{nothing},
		Engines: yardEngines{engine.Cache(y.path("engines")), y}, Ledger: yardLedger{y.book, y}, Limits: limits,
		// A run's folder, a rename and a removal are steps as well.
		Removed: func(string) { y.step() }, Now: func() time.Time { return now.Add(ahead) }}
}

func sweptIn(dir string, k *killer) error {
	y, err := openYard(context.Background(), dir, k)
	if err != nil {
		return err
	}
	_, _, err = y.shelf(0).Sweep(context.Background(), 0, 0)
	fmt.Println(k.steps)
	return errors.Join(err, y.book.Close())
}

// furnish puts what is needed and what is not. Folders have so many files, that removing one takes a while.
func furnish(t *testing.T, dir string, files int) {
	t.Helper()
	y, err := openYard(t.Context(), dir, &killer{})
	if err != nil {
		t.Fatal(err)
	}
	check := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	put := func(parts ...string) {
		path := y.path(parts...)
		check(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("content"), 0o600),
			os.Chtimes(path, longAgo, longAgo), os.Chtimes(filepath.Dir(path), longAgo, longAgo))
	}
	for _, key := range []delivery.Digest{needed, useless} {
		folder := run.Folder(y.path("runs"), delivery.RunTrain, key)
		spec := delivery.RunSpec{Key: key, Kind: delivery.RunTrain, Train: &delivery.TrainRun{}}
		check(os.MkdirAll(filepath.Join(folder, "output"), 0o700), durable.WriteJSON(filepath.Join(folder, "spec.json"),
			spec))
		r, err := run.Open(folder)
		check(err)
		checkpoint := digest("checkpoint of " + string(key))
		check(r.Do(t.Context(), func(context.Context) (any, error) {
			return delivery.TrainResult{Checkpoint: checkpoint}, nil
		}), r.Close())
		journal, err := os.ReadFile(filepath.Join(folder, "journal.jsonl"))
		check(err)
		var lines []string
		for line := range strings.Lines(string(journal)) {
			var e map[string]any
			check(json.Unmarshal([]byte(line), &e))
			e["at"] = longAgo
			text, err := json.Marshal(e)
			check(err)
			lines = append(lines, string(text))
		}
		check(os.WriteFile(filepath.Join(folder, "journal.jsonl"), []byte(strings.Join(lines, "\n")+"\n"), 0o600))
		for i := range files {
			for _, at := range [][]string{{"runs", filepath.Base(folder), "output"}, {"checkpoints", checkpoint.Hex()},
				{"pictures", key.Hex()}} {
				put(append(at, fmt.Sprint("file", i))...)
			}
		}
		put("detections", key.Hex()+".json")
		put("seen", key.Hex()+".json")
		put("engines", key.Hex(), "gpu", "10.9", key.Hex(), "engine.plan")
		put("engines", key.Hex(), "gpu", "10.9", key.Hex(), "entry.json")
		put("model.onnx")
		check(os.WriteFile(y.path("model.onnx"), []byte(key), 0o600))
		bundle, err := y.bundles.Push(t.Context(), artifact.Bundle{ModelPath: y.path("model.onnx"),
			Golden: []byte("golden " + key), Labels: []string{"a"}, Provenance: map[string]string{"run": string(key)},
			Signature: delivery.Signature{SchemaVersion: 1, Input: "input", Boxes: "dets", Logits: "labels", Width: 64,
				Height: 64, Resize: delivery.Resize{Algorithm: "bilinear", Padding: "none", DType: "float32"},
				Means: []float64{0, 0, 0}, Stds: []float64{1, 1, 1}, Slots: []string{"a", ""}, Background: 1,
				Select: 10}})
		check(err)
		blob := y.path("bundles", "blobs", "sha256", bundle.Hex())
		check(os.Chtimes(blob, longAgo, longAgo))
	}
	for fleet, commit := range map[string]string{"needed": neededCommit, "useless": uselessCommit} {
		check(y.book.PutClock(t.Context(), fleet, json.RawMessage("{}")),
			y.book.PutRecord(t.Context(), "status/f/"+commit+"/aob/release", "success", longAgo),
			y.book.PutCheck(t.Context(), commit, delivery.Check{Context: "aob/release"}))
	}
	check(y.book.PutRecord(t.Context(), "track/mlflow/default/run/"+string(useless), "{}", longAgo), y.book.Close())
}

// whole fails unless everything that is there is whole, and what is needed is there. It returns what is there that
// nothing needs.
func whole(t *testing.T, y *yard, files int) (left []string) {
	t.Helper()
	folder := func(parts ...string) bool {
		entries, err := os.ReadDir(y.path(parts...))
		if errors.Is(err, fs.ErrNotExist) {
			return false
		}
		if want := map[bool]int{true: 2, false: files}[parts[0] == "engines"]; err != nil || len(entries) != want {
			t.Errorf("%v has %d files of %d: %v", parts, len(entries), want, err)
		}
		return true
	}
	has := map[string]map[bool]bool{}
	note := func(kind string, isNeeded, there bool) {
		if has[kind] == nil {
			has[kind] = map[bool]bool{}
		}
		has[kind][isNeeded] = has[kind][isNeeded] || there
	}
	for _, key := range []delivery.Digest{needed, useless} {
		is := key == needed
		state, err := y.runs.State(key)
		if there := state.Phase == delivery.RunDone; err != nil || there != folder("runs",
			filepath.Base(run.Folder("", delivery.RunTrain, key)), "output") || there && len(state.Result) == 0 {
			t.Errorf("run %s is %s: %v", key.Short(), state.Phase, err)
		}
		note("run", is, state.Phase == delivery.RunDone)
		note("checkpoint", is, folder("checkpoints", digest("checkpoint of "+string(key)).Hex()))
		note("engine", !is, false)
		if folder("engines", key.Hex(), "gpu", "10.9", key.Hex()) {
			note("engine", false, true)
		}
		for _, kind := range []string{"detections", "seen"} {
			note(kind, false, there(y.path(kind, key.Hex()+".json")))
		}
		note("pictures", false, folder("pictures", key.Hex()))
	}
	list, err := y.bundles.Kept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range list {
		if err := y.bundles.Check(t.Context(), b.Bundle); err != nil {
			t.Error(err)
		}
		note("bundle", b.Run == needed, true)
	}
	records, err := y.book.Records(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, commit := range []string{neededCommit, uselessCommit} {
		checks, err := y.book.Checks(t.Context(), commit)
		if err != nil {
			t.Fatal(err)
		}
		_, there := records["status/f/"+commit+"/aob/release"]
		if there != (len(checks) == 1) {
			t.Errorf("of commit %.7s the record is there: %t; and the forge has %d checks", commit, there, len(checks))
		}
		note("said", commit == neededCommit, there)
	}
	clocks, err := y.book.Clocks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, fleet := range []string{"needed", "useless"} {
		note("clock", fleet == "needed", clocks[fleet] != nil)
	}
	_, tracked := records["track/mlflow/default/run/"+string(useless)]
	note("tracked", false, tracked)
	for kind, of := range has {
		if of[false] {
			left = append(left, kind)
		}
		if used, asked := of[true]; asked && !used && kind != "engine" {
			t.Errorf("the %s that is needed is gone", kind)
		}
	}
	slices.Sort(left)
	return left
}

// survive looks at what a killed sweep has left, and has the next server remove the rest.
func survive(t *testing.T, dir string, files int) {
	t.Helper()
	y, err := openYard(t.Context(), dir, &killer{})
	if err != nil {
		t.Fatal(err)
	}
	whole(t, y, files)
	for _, ahead := range []time.Duration{0, time.Hour, 2 * month} { // what was left is young at first
		if ahead == 2*month {
			touchAll(t, y)
		}
		if _, _, err := y.shelf(ahead).Sweep(t.Context(), 0, 0); err != nil {
			t.Error(err)
		}
	}
	if left := whole(t, y, files); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	for _, pattern := range []string{"*/.gone*", "*/.new-*", "*/.put-*"} {
		if found, _ := filepath.Glob(y.path(pattern)); len(found) > 0 {
			t.Errorf("left: %v", found)
		}
	}
	if err := y.book.Close(); err != nil {
		t.Error(err)
	}
}

// touchAll gives what killed processes have left a time of long ago, as the clock of the test is not the file system's.
func touchAll(t *testing.T, y *yard) {
	t.Helper()
	found, err := filepath.Glob(y.path("*", ".gone*"))
	for _, path := range found {
		err = errors.Join(err, os.Chtimes(path, longAgo, longAgo))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func killedSweep(t *testing.T, dir string, at int) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), killedDir+"="+dir, fmt.Sprintf("%s=%d", killedAt, at))
	cmd.Stderr = os.Stderr
	return cmd
}

// AOB_KILLS=all kills at every step, and not only at some.
func TestKilledWhileSweeping(t *testing.T) {
	all := t.TempDir()
	furnish(t, all, 2)
	out, err := killedSweep(t, all, 0).Output()
	if err != nil {
		t.Fatal(err)
	}
	steps, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil || steps < 20 {
		t.Fatalf("a sweep has %q steps: %v", out, err)
	}
	survive(t, all, 2)
	each := 7
	if os.Getenv("AOB_KILLS") == "all" {
		each = 1
	}
	for at := 1; at <= steps; at += each {
		t.Run(fmt.Sprint("step ", at), func(t *testing.T) {
			dir := t.TempDir()
			furnish(t, dir, 2)
			if err := killedSweep(t, dir, at).Run(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatalf("it ended by itself: %v", err)
			}
			survive(t, dir, 2)
		})
	}
}

// Folders of many files are removed when the process is killed.
func TestKilledInTheMiddleOfAFolder(t *testing.T) {
	const files = 1500
	moments := []string{"runs/.gone-*", "checkpoints/.gone-*", "pictures/.gone-*"}
	if os.Getenv("AOB_KILLS") != "all" {
		moments = moments[:1]
	}
	for _, moment := range moments {
		t.Run(filepath.Dir(moment), func(t *testing.T) {
			dir := t.TempDir()
			furnish(t, dir, files)
			cmd := killedSweep(t, dir, 0)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			for reached := false; !reached; {
				found, _ := filepath.Glob(filepath.Join(dir, filepath.FromSlash(moment)))
				select {
				case err := <-ended:
					t.Fatalf("it ended by itself: %v", err)
				default:
					reached = len(found) > 0
				}
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err == nil || !strings.Contains(err.Error(), "killed") {
				t.Skipf("it was too fast to be killed: %v", err)
			}
			survive(t, dir, files)
		})
	}
}
