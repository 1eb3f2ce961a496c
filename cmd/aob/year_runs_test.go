package main

// The runs of a year, and what is measured of it.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/explain"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/run"
	"github.com/autonomos/aob/reconciler/words"
)

// yearRuns are the run folders of the server. A run is worked on at once, in this process, and what it writes has the
// time of the year.
type yearRuns struct {
	*run.Store
	y *year
}

var journalTime = regexp.MustCompile(`"at":"[^"]*"`)

func (r yearRuns) Start(ctx context.Context, spec delivery.RunSpec) error {
	folder := run.Folder(r.Dir, spec.Kind, spec.Key)
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		if err := errors.Join(os.MkdirAll(folder, 0o700), durable.WriteJSON(filepath.Join(folder, "spec.json"),
			spec)); err != nil {
			return err
		}
	}
	opened, err := run.Open(folder)
	if errors.Is(err, run.ErrEnded) {
		return nil
	}
	if err != nil {
		return err
	}
	err = opened.Do(ctx, func(context.Context) (any, error) { return r.y.work(folder, spec) })
	if err := errors.Join(err, opened.Close()); err != nil {
		return err
	}
	journal := filepath.Join(folder, "journal.jsonl")
	data, err := os.ReadFile(journal)
	if err != nil {
		return err
	}
	data = journalTime.ReplaceAll(data, []byte(`"at":"`+r.y.now().UTC().Format(time.RFC3339Nano)+`"`))
	return os.WriteFile(journal, data, 0o600)
}

// keep writes a file of the state folder that has the time of the year.
func (y *year) keep(size int, parts ...string) error {
	path := y.path(append([]string{"state"}, parts...)...)
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, make([]byte, size), 0o600),
		os.Chtimes(path, y.now(), y.now()), os.Chtimes(filepath.Dir(path), y.now(), y.now()))
}

// work returns the result of a run, and writes what it would.
func (y *year) work(folder string, spec delivery.RunSpec) (any, error) {
	if err := os.MkdirAll(filepath.Join(folder, "output"), 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(folder, "output", "log.txt"), make([]byte, 2000), 0o600); err != nil {
		return nil, err
	}
	switch spec.Kind {
	case delivery.RunData:
		dataset := spec.Data.Dataset
		d := delivery.DataResult{Content: delivery.DigestOf("content", dataset),
			Training: delivery.DigestOf("training", []any{dataset, spec.Data.Classes}),
			Images:   map[string]int{"train": 100, "valid": 30, "test": 50}, Truths: map[string]int{},
			Valid:          yearContent(delivery.EvalSet{Dataset: dataset, Split: "valid"}),
			TrainingImages: delivery.DigestOf("seen", dataset)}
		for _, e := range spec.Data.EvalSets {
			d.EvalSets = append(d.EvalSets, yearContent(e))
		}
		return d, y.keep(1000, "seen", d.TrainingImages.Hex()+".json")
	case delivery.RunTrain:
		return y.train(folder, spec)
	case delivery.RunEval:
		set := delivery.ScoreSet{Detections: delivery.DigestOf("detections", spec.Eval.Detect),
			Protocol: spec.Eval.Protocol, Images: 50, Truths: map[string]int{}, Classes: spec.Eval.Classes.Names(),
			Values: map[string]float64{"mAP": 0.7, "AP50": 0.7}, Table: yearTable(spec.Eval.Classes.Names())}
		for _, c := range set.Classes {
			set.Truths[c] = 100
		}
		return set, y.keep(3000, "detections", spec.Eval.Detect.Hex()+".json")
	case delivery.RunCompare:
		names := spec.Compare.Candidate.Classes.Names()
		table := yearTable(names)
		c := delivery.CompareResult{Images: 50, Classes: slices.Sorted(slices.Values(names)), Truths: map[string]int{},
			Candidate: table.Values(), Baseline: table.Values(), Difference: table.Minus(table)}
		for _, class := range c.Classes {
			c.Truths[class] = 100
		}
		return c, y.keep(3000, "pictures", spec.Key.Hex(), "worst.png")
	}
	return nil, delivery.Blockedf("teach it to the test", "a year has no %s runs", spec.Kind)
}

func (y *year) train(folder string, spec delivery.RunSpec) (any, error) {
	y.mu.Lock()
	y.trained[spec.Key]++
	n := y.trained[spec.Key]
	y.mu.Unlock()
	if n > 1 {
		return nil, delivery.Blockedf("look at what was removed", "run %s is trained again", spec.Key.Short())
	}
	model := filepath.Join(folder, "output", "model.onnx")
	if err := os.WriteFile(model, []byte("model of "+spec.Key), 0o600); err != nil {
		return nil, err
	}
	names := spec.Train.Spec.Classes.Names()
	signature := delivery.Signature{SchemaVersion: 1, Input: "input", Boxes: "dets", Logits: "labels", Width: 64,
		Height: 64, Resize: delivery.Resize{Algorithm: "bilinear", Padding: "none", DType: "float32"},
		Means: []float64{0.485, 0.456, 0.406}, Stds: []float64{0.229, 0.224, 0.225},
		Slots: append(slices.Clone(names), ""), Background: len(names), Select: 300}
	bundle, err := y.server.bundles.Push(context.Background(), artifact.Bundle{ModelPath: model, Signature: signature,
		Golden: []byte("golden tensors of " + spec.Key), Labels: names,
		Provenance: map[string]string{"run": string(spec.Key)}})
	if err != nil {
		return nil, err
	}
	blob := y.path("state", "bundles", "blobs", "sha256", bundle.Hex())
	checkpoint := delivery.DigestOf("checkpoint", spec.Key)
	at, name := delivery.CheckpointName(checkpoint)
	return delivery.TrainResult{Bundle: bundle, Model: delivery.Sum([]byte("model of " + spec.Key)), Size: 80,
			Attempts: 1, Trainer: json.RawMessage("{}"), Checkpoint: checkpoint},
		errors.Join(os.Chtimes(blob, y.now(), y.now()), y.keep(2000, at, name))
}

func yearContent(e delivery.EvalSet) delivery.EvalSetContent {
	return delivery.EvalSetContent{EvalSet: e, Images: delivery.DigestOf("images", e),
		Truths: delivery.DigestOf("truths", e), Labels: []string{"circle", "square"}, Count: 50}
}

// yearTable has every class at 0.7, with a little doubt.
func yearTable(classes []string) delivery.Table {
	t := delivery.Table{Images: delivery.Row{Value: 50}, Columns: map[string][]delivery.Row{},
		Classes: slices.Sorted(slices.Values(classes))}
	for range t.Classes {
		resamples := make([]float64, 201)
		for i := range resamples {
			resamples[i] = 0.7 + float64(i-100)*0.00005
		}
		for _, column := range []string{"AP", "AP50"} {
			t.Columns[column] = append(t.Columns[column], delivery.Row{Value: 0.7, Resamples: resamples})
		}
	}
	return t
}

// A yearSample is what was measured at the end of a month.
type yearSample struct {
	month, promotions int
	turn, each        time.Duration // CPU of a turn that observes everything, and of everything for each promotion
	heap              int64
	files             int // open
	disk              map[string]int64
	cpu               time.Duration // so far
}

func processCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// sample measures the server while nothing happens.
func (y *year) sample(month, promotions int) {
	y.t.Helper()
	s := yearSample{month: month, promotions: promotions, cpu: processCPU(), disk: map[string]int64{}}
	last := yearSample{}
	if n := len(y.samples); n > 0 {
		last = y.samples[n-1]
	}
	if n := promotions - last.promotions; n > 0 {
		s.each = (s.cpu - last.cpu) / time.Duration(n)
	}
	const turns = 20
	counted := func() int { y.mu.Lock(); defer y.mu.Unlock(); return y.turns }
	before, from := processCPU(), counted()
	for range turns {
		n := counted()
		y.server.loop.Wake()
		y.until(func() error {
			if counted() == n {
				return errors.New("no turn")
			}
			return nil
		})
	}
	s.turn = (processCPU() - before) / time.Duration(counted()-from)
	runtime.GC()
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	s.heap = int64(mem.HeapAlloc)
	open, _ := os.ReadDir("/proc/self/fd")
	s.files = len(open)
	entries, err := os.ReadDir(y.path("state"))
	if err != nil {
		y.t.Fatal(err)
	}
	for _, e := range entries {
		name, _, _ := strings.Cut(e.Name(), "-") // ledger.db-wal
		s.disk[name] += y.du("state", e.Name())
	}
	for _, name := range []string{"blobs", "removed"} {
		s.disk["bundles/"+name] = y.du("state", "bundles", name)
	}
	s.disk["intent.git"] = y.du("intent.git")
	s.cpu = processCPU()
	y.samples = append(y.samples, s)
	if out := os.Getenv("AOB_YEAR_HEAP"); out != "" {
		f, err := os.Create(filepath.Join(out, fmt.Sprintf("heap-%02d", month)))
		if err == nil {
			err = errors.Join(pprof.WriteHeapProfile(f), f.Close())
		}
		if err != nil {
			y.t.Fatal(err)
		}
	}
	fmt.Fprintf(os.Stderr, "month %d: %d promotions, %s a promotion, %s a turn, heap %d kB\n", month, promotions,
		s.each.Round(time.Millisecond), s.turn.Round(time.Microsecond), s.heap>>10)
}

// du returns the bytes that files take on the disk.
func (y *year) du(parts ...string) (bytes int64) {
	_ = filepath.WalkDir(y.path(parts...), func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := e.Info(); err == nil {
			bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	return bytes
}

// table prints what was measured, with how each grew since the end of the fourth month, when retention has begun to
// remove things of all kinds.
func (y *year) table() {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	kinds := map[string]bool{}
	for _, s := range y.samples {
		for kind := range s.disk {
			kinds[kind] = true
		}
	}
	row := func(name string, of func(yearSample) float64) {
		fmt.Fprintf(w, "%s\t", name)
		for _, s := range y.samples {
			fmt.Fprintf(w, "%.4g\t", of(s))
		}
		if n := len(y.samples); n > 4 {
			fmt.Fprintf(w, "%.2f", of(y.samples[n-1])/of(y.samples[3]))
		}
		fmt.Fprintln(w, "\t")
	}
	row("promotions", func(s yearSample) float64 { return float64(s.promotions) })
	row("CPU ms a promotion", func(s yearSample) float64 { return s.each.Seconds() * 1e3 })
	row("CPU ms a turn", func(s yearSample) float64 { return s.turn.Seconds() * 1e3 })
	row("heap MB", func(s yearSample) float64 { return float64(s.heap) / 1e6 })
	row("open files", func(s yearSample) float64 { return float64(s.files) })
	names := make([]string, 0, len(kinds))
	for kind := range kinds {
		names = append(names, kind)
	}
	slices.Sort(names)
	for _, kind := range names {
		row(kind+" MB", func(s yearSample) float64 { return float64(s.disk[kind]) / 1e6 })
	}
	w.Flush()
	fmt.Fprintf(os.Stderr, "%s", b.String())
}

// explained explains each model, with all of its releases, and looks at the files of each release that main has
// accepted.
func (y *year) explained(promotions int) {
	y.t.Helper()
	began, releases := time.Now(), 0
	w := y.evidence()
	for i := range y.models {
		name := yearModel(i)
		chain, err := y.server.source.Explain(y.t.Context(), explain.Model, name)
		if err != nil {
			y.t.Fatal(err)
		}
		text := words.ChainText(chain, 200)
		for _, a := range w.Accepted[name] {
			if !strings.Contains(text, fmt.Sprintf("version %d", a.Version)) {
				y.t.Errorf("the chain of %s lacks version %d", name, a.Version)
			}
			if err := y.server.bundles.Check(y.t.Context(), a.Bundle); err != nil {
				y.t.Errorf("%s@%d: %v", name, a.Version, err)
			}
			releases++
		}
		if strings.Contains(text, "no longer holds it") {
			y.t.Errorf("a bundle of %s is gone:\n%s", name, text)
		}
	}
	if releases != promotions {
		y.t.Errorf("main has accepted %d releases, and %d were promoted", releases, promotions)
	}
	fmt.Fprintf(os.Stderr, "%d releases were explained, and their files were read, in %s\n", releases,
		time.Since(began).Round(time.Millisecond))
}

// evidence returns what is signed.
func (y *year) evidence() (e plan.Evidence) {
	y.t.Helper()
	err := y.server.loop.BetweenTurns(y.t.Context(), func(w plan.World, _ plan.Plan) error {
		e = w.Evidence
		return nil
	})
	if err != nil {
		y.t.Fatal(err)
	}
	return e
}

// rolledBack goes back to each release but the newest ones, in a pull request for each version of all models: it is
// green, names the bundles that main has accepted, and nothing is trained. None is merged.
func (y *year) rolledBack(promotions int) {
	y.t.Helper()
	began, e, back := time.Now(), y.evidence(), 0
	trained := len(y.trained)
	for first := 0; first+y.models < promotions; first += y.models {
		var script strings.Builder
		fmt.Fprintf(&script, "commit refs/heads/back%d\n%sdata 4\nback\nfrom refs/heads/main^0\n", first, y.person())
		for i := first; i < first+y.models; i++ {
			if i+y.models < promotions {
				fmt.Fprintf(&script, "M 100644 %s models/%s.yaml\nM 100644 %s models/%s.release.yaml\n", y.files[i][0],
					yearModel(i%y.models), y.files[i][1], yearModel(i%y.models))
			}
		}
		y.git(script.String(), "-C", y.path("intent.git"), "fast-import", "--quiet")
		y.server.loop.Refresh("")
		y.until(func() error { return y.green(first, 1) })
		err := y.server.loop.BetweenTurns(y.t.Context(), func(_ plan.World, p plan.Plan) error {
			for _, m := range p.Proposals[0].Models {
				back++
				version := first/y.models + 1
				if i := slices.IndexFunc(e.Accepted[m.Model], func(a delivery.Acceptance) bool {
					return a.Version == version
				}); i < 0 || e.Accepted[m.Model][i].Bundle != m.Bundle {
					y.t.Errorf("a way back to %s@%d is to bundle %s", m.Model, version, m.Bundle.Short())
				}
			}
			return nil
		})
		if err != nil {
			y.t.Fatal(err)
		}
		y.git(fmt.Sprintf("delete refs/heads/back%d\n", first), "-C", y.path("intent.git"), "update-ref", "--stdin")
		y.server.loop.Refresh("")
		y.until(func() error { return y.green(0, 0) })
	}
	if back != max(0, promotions-y.models) {
		y.t.Errorf("%d ways back were looked at", back)
	}
	if now := len(y.trained); now != trained {
		y.t.Errorf("%d trainings for ways back", now-trained)
	}
	fmt.Fprintf(os.Stderr, "%d ways back were judged, in %s\n", back, time.Since(began).Round(time.Millisecond))
}
