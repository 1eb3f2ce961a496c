package archive

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/evidence"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/trust"
)

// grow writes a store of releases/10 models with ten releases each, and six statements about each release, and returns
// it. It writes the files itself, since Sign waits for the disk twice for each.
func grow(t testing.TB, dir string, k *trust.Key, releases int) *artifact.Store {
	t.Helper()
	blobs, err := artifact.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	onnx := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(onnx, []byte("onnx"), 0o644); err != nil {
		t.Fatal(err)
	}
	first, err := blobs.Push(t.Context(), artifact.Bundle{ModelPath: onnx, Golden: []byte("golden"),
		Signature: delivery.Signature{SchemaVersion: 1}, Labels: []string{"class-0", "class-1", "class-2"}})
	if err == nil {
		err = evidence.New(blobs, k, nil).Sign(t.Context(), first, delivery.TrainingType, delivery.Training{
			Run: digest("first"), Spec: digest("first"), Result: delivery.TrainResult{Bundle: first}})
	}
	if err != nil {
		t.Fatal(err)
	}
	// The manifests of that bundle and statement are the patterns of all others.
	folder := filepath.Join(dir, "blobs", "sha256")
	read := func(d delivery.Digest) string {
		data, err := os.ReadFile(filepath.Join(folder, d.Hex()))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	attached, err := blobs.Attached(t.Context(), first, evidence.ArtifactType(delivery.TrainingType))
	if err != nil || len(attached) != 1 {
		t.Fatal(attached, err)
	}
	bundle, referrer := read(first), read(attached[0].Referrer)
	var files []string
	put := func(data []byte) delivery.Digest {
		d := delivery.Sum(data)
		files = append(files, filepath.Join(folder, d.Hex()))
		if err := os.WriteFile(files[len(files)-1], data, 0o444); err != nil {
			t.Fatal(err)
		}
		return d
	}
	_, layer, _ := strings.Cut(referrer, `"layers":[{"digest":"`)
	was, _, _ := strings.Cut(layer, `"`)
	size := fmt.Sprintf(`"size":%d}],`, len(read(delivery.Digest(was))))
	for i := range releases {
		of := put([]byte(strings.Replace(bundle, `"annotations":{`, fmt.Sprintf(
			`"annotations":{"dev.aob.provenance.run":"%d",`, i), 1)))
		for _, s := range statementsOf(of, i/10, i%10+1) {
			envelope := envelopeOf(t, k, of, s)
			manifest := strings.NewReplacer(string(first), string(of), was, string(put(envelope)),
				evidence.ArtifactType(delivery.TrainingType), evidence.ArtifactType(s.kind),
				size, fmt.Sprintf(`"size":%d}],`, len(envelope)),
				fmt.Sprintf(`"size":%d}}`, len(bundle)), fmt.Sprintf(`"size":%d}}`, len(bundle)+len(fmt.Sprint(i))+
					len(`"dev.aob.provenance.run":"",`))).Replace(referrer)
			put([]byte(manifest))
		}
	}
	// An index is made of the files, in the order of their times.
	at := time.Now().Add(-24 * time.Hour)
	for i, f := range files {
		if err := os.Chtimes(f, at, at.Add(time.Duration(i)*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "index.json")); err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(dir, "index.log"))
	if blobs, err = artifact.Open(dir); err != nil {
		t.Fatal(err)
	}
	return blobs
}

type predicate struct {
	kind  string
	value any
}

func envelopeOf(t testing.TB, k *trust.Key, bundle delivery.Digest, p predicate) []byte {
	t.Helper()
	value := bytes.TrimSpace(delivery.Canonical(p.value))
	envelope, err := trust.Sign(k, delivery.StatementPayload, delivery.Canonical(delivery.Statement{
		Type:          delivery.StatementType,
		Subject:       []delivery.Subject{{Name: "bundle", Digest: map[string]string{"sha256": bundle.Hex()}}},
		PredicateType: p.kind, Predicate: value}))
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

// statementsOf returns statements of the usual size about one release: ten classes, a gate with six checks.
func statementsOf(bundle delivery.Digest, model, version int) []predicate {
	is := func(what string) delivery.Digest { return digest(fmt.Sprintf("%s %d@%d", what, model, version)) }
	name := fmt.Sprintf("model-%d", model)
	var classes delivery.Classes
	truths, metrics, low := map[string]int{}, map[string]delivery.Figure{}, map[string]float64{}
	for i := range 10 {
		class := fmt.Sprintf("class-%d", i)
		classes = append(classes, delivery.Class{Name: class, Labels: []string{class}})
		truths[class], low[class] = 1000+i*version, 0.1+float64(i*version%100)/1000
		from, to := 0.4+float64(i)/1000, 0.5+float64(i)/1000
		metrics["AP/"+class] = delivery.Figure{Value: 0.4 + float64(i*version%100)/1000, Low: &from, High: &to}
		low["AP/"+class] = 0.39
	}
	set := delivery.EvalSetContent{EvalSet: delivery.EvalSet{Dataset: delivery.Dataset{Source: "dir", Path: name},
		Split: "test"}, Images: digest(name + " images"), Truths: digest(name + " truths"), Count: 500,
		Labels: []string{"class-0", "class-1", "class-2"}}
	eval := delivery.EvalRun{Bundle: bundle, Model: is("onnx"), Signature: digest("signature"), EvalSet: set.EvalSet,
		Classes: classes, Images: set.Images, Truths: set.Truths, Protocol: digest("protocol"), Detect: is("detect")}
	verdict := delivery.Verdict{Gate: "production", GateSpec: digest("gate"), Model: name, Outcome: delivery.Pass,
		Classes: classes.Names(), Inputs: []delivery.Digest{is("score"), is("base")}, Key: is("verdict"),
		Bundle: bundle, Baseline: is("baseline"), EvalSet: set.Digest(), Images: 500, Look: version}
	for i := range 6 {
		value := 0.4 + float64(i*version)/1000
		verdict.Checks = append(verdict.Checks, delivery.CheckVerdict{Check: fmt.Sprintf("mAP drop <= 0.0%d", i),
			Metric: "mAP", Class: fmt.Sprintf("class-%d", i), Outcome: delivery.Pass, Value: &value, Low: &value,
			High: &value, Confidence: 0.95})
	}
	file := delivery.Release{APIVersion: delivery.APIVersion, Kind: "Release", Name: name, Version: version,
		Bundle: bundle, Spec: is("spec"), Measured: []delivery.Measured{{Gate: "production", EvalSet: set.Digest(),
			Images: 500, Metrics: metrics, Verdict: delivery.Pass,
			Baseline: &delivery.BaselineMeasured{Version: 1, Bundle: is("baseline"), Metrics: low}}}}
	scores := delivery.Scores{Key: is("score"), Input: eval, Content: set, Scores: delivery.ScoreSet{Truths: truths}}
	return []predicate{
		{delivery.TrainingType, delivery.Training{Run: is("run"), Spec: is("spec"), Input: delivery.TrainRun{
			Spec: delivery.Spec{Dataset: "dir:" + name, Classes: classes, Variants: []string{"fp32"},
				Train: delivery.Train{With: "rfdetr@1", Architecture: "rf-detr-nano", Epochs: 8}}, Seed: 1,
			Data: is("data"), Training: is("training"), Trainer: digest("trainer"), Accelerator: "cpu",
			Environment: &delivery.Environment{Lock: digest("lock"), Python: "cpython-3.11", Platform: "linux-x86_64"},
			Weights:     &delivery.Weights{SHA256: digest("weights"), Licence: "Apache-2.0"}, Machine: "train-local"},
			Data: delivery.DataResult{Content: is("content"), Training: is("training"), Prepared: "prepared",
				Images: map[string]int{"train": 1000, "valid": 100}, Truths: truths,
				EvalSets: []delivery.EvalSetContent{set, set}, Valid: set, TrainingImages: is("seen"),
				Folders: map[string]delivery.Digest{"dir:" + name: is("folder")}},
			Result: delivery.TrainResult{Bundle: bundle, Model: is("onnx"), Size: 1 << 20, Attempts: 1, Trainer: []byte(
				`{"libraries":{"torch":"2.15.0","torchvision":"0.30.0","rfdetr":"1.9.0"},"seconds":3211}`)}}},
		{delivery.ScoresType, scores},
		{delivery.ThresholdsType, delivery.Resolved{Key: is("thresholds"), Input: delivery.ThresholdRun{Valid: eval,
			Ask: delivery.Thresholds{"default": {BestF1: true}}}, Result: delivery.ThresholdResult{Bundle: bundle,
			Size: 6, Points: map[string]delivery.OperatingPoint{"class-0": {Score: 0.4, Precision: 0.9,
				Recall: 0.8, Truths: 12}}}}},
		{delivery.VerdictType, verdict},
		{delivery.ReleaseType, delivery.ReleaseStatement{Model: name, Version: version, Spec: is("spec"),
			Bundle: bundle, Baseline: is("baseline"), TargetCommit: strings.Repeat("c0ffee12", 5), File: file,
			Gates: []delivery.GateJudged{{Name: "production", Spec: digest("gate"), Verdict: verdict}}}},
		{delivery.AcceptanceType, delivery.Acceptance{Model: name, Version: version, Spec: is("spec"), Bundle: bundle,
			Commit: strings.Repeat("c0ffee12", 5)}},
	}
}

// A restart is what a server holds of its store after its start.
type restarted struct {
	archive *Archive
	last    plan.Evidence
}

func restart(b *testing.B, dir, cache string, k *trust.Key) restarted {
	blobs, err := artifact.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	r := restarted{archive: &Archive{Bundles: blobs, Statements: evidence.New(blobs, k, nil),
		Log: slog.New(slog.DiscardHandler)}}
	r.archive.Statements.Cache = cache
	r.take(b)
	return r
}

func (r *restarted) take(b *testing.B) {
	var err error
	if r.last, err = r.archive.Evidence(b.Context(), nil); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRestart measures what evidence costs at the start of a server, and in a turn: with 600, 6,000 and 60,000
// statements about 10 bundles each of 10, 100 and 1,000 models. MB is what is held.
func BenchmarkRestart(b *testing.B) {
	for _, releases := range []int{100, 1000, 10000} {
		dir, cache := b.TempDir(), filepath.Join(b.TempDir(), "verified")
		k, err := trust.Create(filepath.Join(b.TempDir(), "key.pem"))
		if err != nil {
			b.Fatal(err)
		}
		grow(b, dir, k, releases)
		n := 6 * releases
		var r restarted
		for _, what := range []string{"cold", "warm"} {
			b.Run(fmt.Sprintf("%s/%d", what, n), func(b *testing.B) {
				for b.Loop() {
					r = restarted{}
					before := heap()
					r = restart(b, dir, cache, k)
					b.StopTimer()
					r.archive.Statements.Flush()
					b.ReportMetric(heap()-before, "MB")
					b.StartTimer()
				}
				if e := r.last; len(e.Releases) != releases || len(e.Bundles) != releases+1 || len(e.Unread) > 0 {
					b.Fatalf("%d releases, %d bundles, %d unread", len(e.Releases), len(e.Bundles), len(e.Unread))
				}
			})
		}
		b.Run(fmt.Sprintf("nothing new/%d", n), func(b *testing.B) {
			for b.Loop() {
				r.take(b)
			}
		})
		i := 0
		for _, kind := range []string{delivery.TrainingType, delivery.VerdictType, delivery.ReleaseType,
			delivery.AcceptanceType} {
			b.Run(fmt.Sprintf("one new %s/%d", filepath.Base(filepath.Dir(kind)), n), func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					i++
					of := r.last.Releases[i%len(r.last.Releases)].Bundle
					for _, s := range statementsOf(of, 0, 1000+i) {
						if s.kind == kind {
							if err := r.archive.Sign(b.Context(), of, kind, s.value); err != nil {
								b.Fatal(err)
							}
						}
					}
					was := r.last.Version
					b.StartTimer()
					r.take(b)
					if r.last.Version != was+1 {
						b.Fatal("nothing is new")
					}
				}
			})
		}
		b.Run(fmt.Sprintf("sign/%d", n), func(b *testing.B) {
			for b.Loop() {
				i++
				of := r.last.Releases[i%len(r.last.Releases)].Bundle
				if err := r.archive.Sign(b.Context(), of, delivery.AcceptanceType, statementsOf(of, 0,
					1000+i)[5].value); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// heap returns the megabytes in use.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}
