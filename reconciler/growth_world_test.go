package reconciler

// This file makes a large world of real parts: an intent repository in git, signed statements in a store, and a ledger.
// It writes the files of all three itself, since a loop that releases 10,000 models takes hours.

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/archive"
	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/evidence"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/trust"
)

// A largeWorld is a world of real parts. The forge, the runs and the devices are simulated.
type largeWorld struct {
	b                     *testing.B
	sim                   *sim
	dir                   string
	key                   *trust.Key
	models, pulls, rounds int
	close                 func()
	archive               *archive.Archive
}

// newLargeWorld makes models that have each been released some times, and open pull requests: of ten, four take a model
// back by a release, three change a README, two pause a fleet, and one adds a model that no gate covers.
func newLargeWorld(b *testing.B, models, pulls, releases int) *largeWorld {
	w := &largeWorld{b: b, sim: newSim(b), dir: b.TempDir(), models: models, pulls: pulls,
		rounds: max(1, releases/models)}
	w.sim.large = true
	for epochs := range 200 {
		w.sim.quality[epochs] = 0.7
	}
	var err error
	if w.key, err = trust.Create(filepath.Join(w.dir, "key")); err != nil {
		b.Fatal(err)
	}
	files := w.sign()
	w.commit(files)
	return w
}

// sign stores the statements about all releases, and returns the release files of the last two rounds.
func (w *largeWorld) sign() (files [2]map[string]string) {
	folder := filepath.Join(w.dir, "bundles")
	store, err := artifact.Open(folder)
	if err != nil {
		w.b.Fatal(err)
	}
	onnx := filepath.Join(w.dir, "model.onnx")
	if err := os.WriteFile(onnx, []byte("onnx"), 0o644); err != nil {
		w.b.Fatal(err)
	}
	first, err := store.Push(w.b.Context(), artifact.Bundle{ModelPath: onnx, Golden: []byte("golden"),
		Signature: delivery.Signature{SchemaVersion: 1}, Labels: []string{"circle", "square"}})
	if err == nil {
		err = evidence.New(store, w.key, nil).Sign(w.b.Context(), first, delivery.TrainingType, delivery.Training{
			Run: delivery.Sum(nil), Spec: delivery.Sum(nil), Result: delivery.TrainResult{Bundle: first}})
	}
	if err != nil {
		w.b.Fatal(err)
	}
	attached, err := store.Attached(w.b.Context(), first, evidence.ArtifactType(delivery.TrainingType))
	if err != nil || len(attached) != 1 {
		w.b.Fatal(attached, err)
	}
	p := pattern{w: w, folder: filepath.Join(folder, "blobs", "sha256"), at: time.Now().Add(-24 * time.Hour)}
	p.bundle, p.referrer, p.first = p.read(first), p.read(attached[0].Referrer), first
	_, layer, _ := strings.Cut(p.referrer, `"layers":[{"digest":"`)
	p.envelope, _, _ = strings.Cut(layer, `"`)
	files = [2]map[string]string{{}, {}}
	for i := range w.models {
		var last delivery.Digest
		for round := range w.rounds {
			text := grownModel(i, 100+round)
			mdl, ok := intent.ParseFile(intent.File{Path: "models/" + grownName(i) + ".yaml", Data: []byte(text)},
				intent.Options{Trainers: builtIn}).Value.(delivery.Model)
			if !ok {
				w.b.Fatal("the model cannot be read")
			}
			release := p.release(mdl, round+1, last)
			last = release.Bundle
			keep := files[min(1, w.rounds-1-round)]
			keep["models/"+grownName(i)+".yaml"] = text
			keep["models/"+grownName(i)+".release.yaml"] = string(intent.FormatRelease(release, nil))
		}
	}
	for _, name := range []string{"index.json", "index.log"} { // it is made of the files, in the order of their times
		os.Remove(filepath.Join(folder, name))
	}
	return files
}

// A pattern writes bundles and statements like a first one that the store has written.
type pattern struct {
	w                          *largeWorld
	folder                     string
	first                      delivery.Digest
	bundle, referrer, envelope string
	at                         time.Time
	n                          int
}

func (p *pattern) read(d delivery.Digest) string {
	data, err := os.ReadFile(filepath.Join(p.folder, d.Hex()))
	if err != nil {
		p.w.b.Fatal(err)
	}
	return string(data)
}

func (p *pattern) put(data []byte) delivery.Digest {
	d := delivery.Sum(data)
	path := filepath.Join(p.folder, d.Hex())
	err := os.WriteFile(path, data, 0o444)
	if err == nil {
		p.n++
		at := p.at.Add(time.Duration(p.n) * time.Millisecond)
		err = os.Chtimes(path, at, at)
	}
	if err != nil {
		p.w.b.Fatal(err)
	}
	return d
}

func (p *pattern) sign(bundle delivery.Digest, kind string, value any) {
	envelope, err := trust.Sign(p.w.key, delivery.StatementPayload, delivery.Canonical(delivery.Statement{
		Type:          delivery.StatementType,
		Subject:       []delivery.Subject{{Name: "bundle", Digest: map[string]string{"sha256": bundle.Hex()}}},
		PredicateType: kind, Predicate: bytes.TrimSpace(delivery.Canonical(value))}))
	if err != nil {
		p.w.b.Fatal(err)
	}
	size := fmt.Sprintf(`"size":%d}],`, len(p.read(delivery.Digest(p.envelope))))
	info, err := os.Stat(filepath.Join(p.folder, bundle.Hex()))
	if err != nil {
		p.w.b.Fatal(err)
	}
	p.put([]byte(strings.NewReplacer(string(p.first), string(bundle), p.envelope, string(p.put(envelope)),
		evidence.ArtifactType(delivery.TrainingType), evidence.ArtifactType(kind),
		size, fmt.Sprintf(`"size":%d}],`, len(envelope)),
		fmt.Sprintf(`"size":%d}}`, len(p.bundle)), fmt.Sprintf(`"size":%d}}`, info.Size())).Replace(p.referrer)))
}

// release stores a bundle of a model and the statements about its release.
func (p *pattern) release(mdl delivery.Model, version int, baseline delivery.Digest) delivery.Release {
	s := p.w.sim
	onnx := p.put(fmt.Appendf(nil, "%04x", p.n/11)) // as long as that of the first bundle
	_, config, _ := strings.Cut(p.bundle, `"config":{"digest":"`)
	config, _, _ = strings.Cut(config, `"`)
	first := string(delivery.Sum([]byte("onnx")))
	named := p.put([]byte(strings.ReplaceAll(p.read(delivery.Digest(config)), first, string(onnx))))
	bundle := p.put([]byte(strings.NewReplacer(`"annotations":{`, fmt.Sprintf(
		`"annotations":{"dev.aob.provenance.run":"%s-%d",`, mdl.Name, version),
		first, string(onnx), config, string(named)).Replace(p.bundle)))
	is := func(what string) delivery.Digest { return delivery.DigestOf(what, []any{mdl.Name, version}) }
	data, _ := s.runs.result("", delivery.RunSpec{Kind: delivery.RunData, Data: &delivery.DataRun{Dataset: mdl.Dataset,
		Classes: mdl.Classes}}).(delivery.DataResult)
	train := delivery.TrainRun{Spec: mdl.Spec(), Seed: 1, Training: data.Training}
	s.signed.pack(bundle, train)
	p.sign(bundle, delivery.TrainingType, delivery.Training{Run: is("run"), Spec: mdl.SpecDigest(), Input: train,
		Data: data, Result: delivery.TrainResult{Bundle: bundle, Model: onnx, Size: 4,
			Attempts: 1}})
	value := 0.7
	verdict := delivery.Verdict{Gate: "g" + mdl.Name, GateSpec: is("gate"), Model: mdl.Name, Outcome: delivery.Pass,
		Key: is("verdict"), Bundle: bundle, Baseline: baseline, EvalSet: is("set"), Images: 50, Look: version,
		Checks: []delivery.CheckVerdict{{Check: "mAP >= 0.3", Metric: "mAP", Outcome: delivery.Pass, Value: &value}}}
	p.sign(bundle, delivery.VerdictType, verdict)
	file := delivery.Release{APIVersion: delivery.APIVersion, Kind: "Release", Name: mdl.Name, Version: version,
		Bundle: bundle, Spec: mdl.SpecDigest(), Measured: []delivery.Measured{{Gate: verdict.Gate, EvalSet: is("set"),
			Images: 50, Metrics: map[string]delivery.Figure{"mAP": {Value: 0.7}}, Verdict: delivery.Pass}}}
	p.sign(bundle, delivery.ReleaseType, delivery.ReleaseStatement{Model: mdl.Name, Version: version,
		Spec: file.Spec, Bundle: bundle, Baseline: baseline, TargetCommit: strings.Repeat("c0ffee12", 5), File: file,
		Gates: []delivery.GateJudged{{Name: verdict.Gate, Spec: verdict.GateSpec, Verdict: verdict}}})
	p.sign(bundle, delivery.AcceptanceType, delivery.Acceptance{Model: mdl.Name, Version: version, Spec: file.Spec,
		Bundle: bundle, Commit: strings.Repeat("c0ffee12", 5)})
	return file
}

// commit makes the repository with main and the branches of the pull requests.
func (w *largeWorld) commit(files [2]map[string]string) {
	bare := filepath.Join(w.dir, "intent.git")
	benchGit(w.b, nil, "init", "-q", "--bare", "--initial-branch=main", bare)
	var script strings.Builder
	put := func(path, text string) {
		fmt.Fprintf(&script, "M 100644 inline %s\ndata %d\n%s\n", path, len(text), text)
	}
	begin := func(branch, from string) {
		fmt.Fprintf(&script, "commit refs/heads/%s\ncommitter A <a@example.com> 1700000000 +0000\ndata 7\nchange \n",
			branch)
		if from != "" {
			fmt.Fprintf(&script, "from refs/heads/%s\n", from)
		}
	}
	begin("main", "")
	for i := range w.models {
		name := grownName(i)
		put("gates/g"+name+".yaml", gateFile("g"+name, name, 0.3))
		if i%10 == 0 {
			put("fleets/f"+name+".yaml", fleet("f"+name, name, ""))
		}
	}
	for path, text := range files[0] {
		put(path, text)
	}
	for i := range w.pulls {
		m := i * 7 % w.models
		begin(fmt.Sprint("p", i), "main")
		switch {
		case i%10 < 4 && w.rounds > 1:
			for _, path := range []string{"models/" + grownName(m) + ".yaml", "models/" + grownName(m) +
				".release.yaml"} {
				put(path, files[1][path])
			}
		case i%10 < 7:
			put("README.md", fmt.Sprint(i))
		case i%10 < 9:
			m -= m % 10
			put("fleets/f"+grownName(m)+".yaml", fleet("f"+grownName(m), grownName(m), "paused: true\n"))
		default:
			put(fmt.Sprintf("models/n%d.yaml", i), model(fmt.Sprint("n", i), i%60+1))
		}
	}
	benchGit(w.b, strings.NewReader(script.String()), "-C", bare, "fast-import", "--quiet")
	for i := range w.pulls {
		w.sim.forge.open(fmt.Sprint("p", i), "dev")
	}
	w.see()
}

// see has the forge know where the branches are.
func (w *largeWorld) see() {
	out, err := exec.Command("git", "-C", filepath.Join(w.dir, "intent.git"), "for-each-ref",
		"--format=%(refname) %(objectname)").Output()
	if err != nil {
		w.b.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		ref, commit, _ := strings.Cut(strings.TrimSpace(line), " ")
		w.sim.repo.refs[ref] = commit
	}
}

// push changes a file on branches, each in a commit from another branch.
func (w *largeWorld) push(from, path, text string, branches ...string) {
	var script strings.Builder
	for _, branch := range branches {
		start := from
		if start == "" {
			start = branch
		}
		fmt.Fprintf(&script, "commit refs/heads/%s\ncommitter A <a@example.com> 1700000000 +0000\ndata 7\nchange \n"+
			"from refs/heads/%s^0\nM 100644 inline %s\ndata %d\n%s\n", branch, start, path, len(text), text)
	}
	benchGit(w.b, strings.NewReader(script.String()), "-C", filepath.Join(w.dir, "intent.git"), "fast-import",
		"--quiet")
	w.see()
}

// cpu is the CPU time that the process has used, which other work on the machine hardly changes.
func cpu() time.Duration {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used) // cannot fail
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// turn takes a turn as the server does, and returns the CPU time of it without what is sent to the forge.
func (w *largeWorld) turn() time.Duration {
	s := w.sim
	s.now = s.now.Add(time.Second)
	start := cpu()
	s.loop.look(w.b.Context())
	if _, err := s.loop.Reconcile(w.b.Context()); err != nil && !errors.Is(err, errNotRead) {
		w.b.Fatal(err)
	}
	took := cpu() - start
	s.loop.send(w.b.Context())
	s.runs.finishAll()
	return took
}

// settle takes turns until nothing happens in three of them.
func (w *largeWorld) settle() {
	for still := 0; still < 3; {
		before := w.sim.effects
		w.turn()
		if still++; w.sim.effects != before || w.sim.loop.turn.Why() != "" {
			still = 0
		}
	}
}

// judged takes turns until all pull requests are judged beside main as it is now, and returns their CPU time.
func (w *largeWorld) judged() (took time.Duration) {
	for range 1000 {
		took += w.turn()
		p := w.sim.loop.observed.plan
		done := p.Main.Commit == w.sim.main() && len(p.Proposals) == len(w.sim.forge.list())
		for _, pr := range p.Proposals {
			done = done && !pr.Stale && len(pr.Checks) > 0 &&
				pr.PR.Head == w.sim.forge.head(w.sim.forge.prs[pr.PR.Number])
		}
		if done {
			return took
		}
	}
	w.b.Fatal("not all pull requests are judged")
	return took
}

// start starts a loop on what there is, as aob serve does, and returns it.
func (w *largeWorld) start() *Reconciler {
	b := w.b
	mirror, err := git.Open(filepath.Join(w.dir, "mirror"), git.Remote{URL: filepath.Join(w.dir, "intent.git")})
	if err != nil {
		b.Fatal(err)
	}
	book, err := ledger.Open(b.Context(), filepath.Join(w.dir, "ledger.db"))
	if err != nil {
		b.Fatal(err)
	}
	bundles, err := artifact.Open(filepath.Join(w.dir, "bundles"))
	if err != nil {
		b.Fatal(err)
	}
	w.archive = &archive.Archive{Bundles: bundles, Statements: evidence.New(bundles, w.key, nil),
		Log: slog.New(slog.DiscardHandler)}
	w.archive.Statements.Cache = filepath.Join(w.dir, "verified")
	w.close = func() { w.archive.Statements.Flush(); mirror.Close(); book.Close() }
	w.sim.restart(func(r *Reconciler) {
		r.Repo, r.Evidence, r.Ledger = mirror, w.archive, book
		r.Parser = intent.NewCache(intent.Options{Trainers: builtIn})
	})
	return w.sim.loop
}
