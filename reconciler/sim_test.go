package reconciler

// A small world for the loop: a repository, a forge, runs, evidence and a fleet
// that live in memory and obey the same interfaces as the real ones. Stories and
// the property test play in it; nothing in it waits for anything.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
)

// A sim is one world.
type sim struct {
	t       *testing.T
	now     time.Time
	repo    *simRepo
	forge   *simForge
	runs    *simRuns
	signed  *simEvidence
	fleet   *simFleet
	ledger  *simLedger
	loop    *Reconciler
	trained map[delivery.Digest]int // by run key: how often it was trained to completion
	quality map[int]float64         // by epochs: the mAP that a model of so many epochs reaches
}

func newSim(t *testing.T) *sim {
	s := &sim{t: t, now: time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC), trained: map[delivery.Digest]int{},
		quality: map[int]float64{1: 0.10, 2: 0.40, 8: 0.60, 14: 0.70, 20: 0.72}}
	s.repo = &simRepo{commits: map[string]simCommit{}, refs: map[string]string{}, blobs: map[string][]byte{}}
	s.forge = &simForge{sim: s, statuses: map[string]map[string]delivery.Check{}, comments: map[int]string{}, permission: map[string]delivery.Permission{}, prs: map[int]delivery.PullRequest{}}
	s.runs = &simRuns{sim: s, states: map[delivery.Digest]*delivery.RunState{}}
	s.signed = &simEvidence{sim: s}
	s.fleet = &simFleet{sim: s, published: map[string]delivery.Desired{}}
	s.ledger = newSimLedger()
	s.restart()
	return s
}

// restart is what a crash of aob serve leaves: everything but the loop's memory.
func (s *sim) restart() {
	s.loop = (&Reconciler{Repo: s.repo, Forge: s.forge, Runs: s.runs, Evidence: s.signed, Fleet: s.fleet, Ledger: s.ledger,
		Metrics: noMetrics{}, Parser: intent.NewCache(intent.Options{}), Main: "main", GitPoll: time.Second, Poll: time.Second,
		Server: plan.Server{Trainers: map[string]delivery.Digest{"tiny@1": delivery.Sum([]byte("tiny"))}, Protocol: delivery.Sum([]byte("protocol")),
			Numerics: "sim/1", NextPoll: delivery.Duration(time.Second), Expiry: delivery.Duration(24 * time.Hour), Deadline: delivery.Duration(time.Hour)},
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return s.now }}).Init()
}

// turn takes one turn, a second later.
func (s *sim) turn() {
	s.now = s.now.Add(time.Second)
	_, _ = s.loop.Reconcile(context.Background())
}

// settle turns until nothing moves: runs finish, devices report.
func (s *sim) settle() {
	s.t.Helper()
	for i := 0; i < 400; i++ {
		before := s.fingerprint()
		s.turn()
		s.runs.finishAll()
		s.fleet.report()
		s.turn()
		if s.fingerprint() == before && i > 5 {
			return
		}
	}
	s.t.Fatal("the loop does not settle")
}

func (s *sim) fingerprint() string {
	reports := ""
	for _, d := range s.fleet.devices {
		reports += fmt.Sprint(d.Report)
	}
	return fmt.Sprint(s.repo.refs, s.forge.statuses, len(s.signed.statements), s.fleet.published, reports, len(s.runs.states), s.runs.active())
}

type noMetrics struct{}

func (noMetrics) Turn(time.Duration, int, error)         {}
func (noMetrics) ForgeCall(string, time.Duration, error) {}
func (noMetrics) Step(string, error)                     {}
func (noMetrics) GitObserve(time.Duration)               {}
func (noMetrics) RunStarted(delivery.RunKind)            {}

// ---- git

type simCommit struct {
	parents []string
	files   map[string]string // path to blob
	when    time.Time
	message string
}

type simRepo struct {
	commits map[string]simCommit
	refs    map[string]string
	blobs   map[string][]byte
	last    string
	down    bool
}

func hash(v any) string { return delivery.DigestOf("git", v).Hex()[:40] }

func (r *simRepo) write(parents []string, files map[string]string, when time.Time, message string) string {
	id := hash([]any{parents, files, when, message})
	r.commits[id] = simCommit{parents, files, when, message}
	return id
}

// commit changes files on a branch; "" removes one.
func (r *simRepo) commit(branch, from string, when time.Time, files map[string]string) string {
	next := maps.Clone(r.commits[from].files)
	if next == nil {
		next = map[string]string{}
	}
	for path, content := range files {
		if content == "" {
			delete(next, path)
			continue
		}
		b := hash(content)
		r.blobs[b] = []byte(content)
		next[path] = b
	}
	var parents []string
	if from != "" {
		parents = []string{from}
	}
	id := r.write(parents, next, when, "change")
	r.refs[git.Branch+branch] = id
	return id
}

func (r *simRepo) Observe(context.Context) (map[string]string, bool, error) {
	if r.down {
		return nil, false, errors.New("git is down")
	}
	now := fmt.Sprint(r.refs)
	changed := now != r.last
	r.last = now
	return maps.Clone(r.refs), changed, nil
}

func (r *simRepo) Has(commit string) error {
	if _, ok := r.commits[commit]; !ok {
		return delivery.Wait{For: time.Second, What: "not here yet"}
	}
	return nil
}

func (r *simRepo) Files(commit string) ([]git.File, error) {
	var files []git.File
	for path, b := range r.commits[commit].files {
		files = append(files, git.File{Path: path, Hash: b, Size: int64(len(r.blobs[b])), Mode: fs.FileMode(0o644)})
	}
	slices.SortFunc(files, func(a, b git.File) int { return strings.Compare(a.Path, b.Path) })
	return files, nil
}

func (r *simRepo) Blob(hash string, _ int64) ([]byte, error) { return r.blobs[hash], nil }

func (r *simRepo) ancestors(commit string) []string {
	var list []string
	seen := map[string]bool{}
	queue := []string{commit}
	for len(queue) > 0 {
		c := queue[0]
		queue = queue[1:]
		if c == "" || seen[c] {
			continue
		}
		seen[c] = true
		list = append(list, c)
		queue = append(queue, r.commits[c].parents...)
	}
	return list
}

func (r *simRepo) History(head, path string) ([]git.FileVersion, error) {
	var out []git.FileVersion
	for c := head; c != ""; {
		parent := ""
		if p := r.commits[c].parents; len(p) > 0 {
			parent = p[0]
		}
		now, before := r.commits[c].files[path], r.commits[parent].files[path]
		if now != before {
			out = append(out, git.FileVersion{Commit: c, Parent: parent, Blob: now, When: r.commits[c].when})
		}
		c = parent
	}
	return out, nil
}

func (r *simRepo) MergeBase(a, b string) (string, error) {
	of := r.ancestors(b)
	for _, c := range r.ancestors(a) {
		if slices.Contains(of, c) {
			return c, nil
		}
	}
	return "", nil
}

func (r *simRepo) Commit(parents []string, files map[string][]byte, author git.Author, message string) (string, error) {
	next := maps.Clone(r.commits[parents[0]].files)
	for path, data := range files {
		if data == nil {
			delete(next, path)
			continue
		}
		b := hash(string(data))
		r.blobs[b] = data
		next[path] = b
	}
	return r.write(parents, next, author.When, message), nil
}

func (r *simRepo) Author(commit string) (string, string, time.Time, error) {
	return "dev", "dev@example.com", r.commits[commit].when, nil
}

func (r *simRepo) Push(_ context.Context, hash, ref, old string) error {
	if r.refs[ref] == hash {
		return nil
	}
	if r.refs[ref] != old {
		return git.ErrMoved
	}
	r.refs[ref] = hash
	return nil
}

// ---- forge

type simForge struct {
	sim        *sim
	prs        map[int]delivery.PullRequest
	statuses   map[string]map[string]delivery.Check
	comments   map[int]string
	commands   []delivery.Comment
	permission map[string]delivery.Permission
	down       bool
	posts      int
	made       int // comments made, not edited
}

func (f *simForge) open(branch, author string) int {
	n := len(f.prs) + 1
	f.prs[n] = delivery.PullRequest{Number: n, Title: branch, Author: author, HeadRef: branch, Base: "main"}
	return n
}

var errDown = errors.New("the forge is down")

func (f *simForge) PullRequests(context.Context) ([]delivery.PullRequest, error) {
	if f.down {
		return nil, errDown
	}
	var list []delivery.PullRequest
	for _, p := range f.prs {
		head, ok := f.sim.repo.refs[git.Branch+p.HeadRef]
		if !ok {
			continue
		}
		p.Head = head
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b delivery.PullRequest) int { return a.Number - b.Number })
	return list, nil
}

func (f *simForge) SetStatus(_ context.Context, commit string, c delivery.Check) error {
	if f.down {
		return errDown
	}
	if f.statuses[commit] == nil {
		f.statuses[commit] = map[string]delivery.Check{}
	}
	f.statuses[commit][c.Context] = c
	f.posts++
	if c.Context == delivery.ContextRelease && c.State == delivery.CheckSuccess {
		f.sim.checkGreen(commit, c)
	}
	return nil
}

func (f *simForge) Comment(_ context.Context, pr int, _, body string) error {
	if f.down {
		return errDown
	}
	if _, ok := f.comments[pr]; !ok {
		f.made++
	}
	f.comments[pr] = body
	return nil
}

func (f *simForge) Commands(context.Context, int) ([]delivery.Comment, error) { return f.commands, nil }

func (f *simForge) Permission(_ context.Context, user string) (delivery.Permission, error) {
	if f.down {
		return "", errDown
	}
	if p, ok := f.permission[user]; ok {
		return p, nil
	}
	return delivery.PermissionWrite, nil
}

func (f *simForge) OpenPR(_ context.Context, head, _, title, _ string) (int, error) {
	for n, p := range f.prs {
		if p.HeadRef == head {
			return n, nil
		}
	}
	n := f.open(head, "aob")
	p := f.prs[n]
	p.Title = title
	f.prs[n] = p
	return n, nil
}

// ---- runs

type simRuns struct {
	sim    *sim
	states map[delivery.Digest]*delivery.RunState
	fail   map[delivery.RunKind]string // kinds that end failed, with the reason
}

func (r *simRuns) Start(_ context.Context, spec delivery.RunSpec) error {
	if s, ok := r.states[spec.Key]; ok {
		if s.Phase == delivery.RunDied || s.Phase == delivery.RunStopped {
			s.Phase = delivery.RunRunning
			s.Attempt++
		}
		return nil
	}
	r.states[spec.Key] = &delivery.RunState{Spec: spec, Phase: delivery.RunRunning, Attempt: 1, Started: r.sim.now}
	return nil
}

func (r *simRuns) Observe() ([]delivery.RunState, error) {
	var list []delivery.RunState
	for _, s := range r.states {
		c := *s
		c.Result = nil
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b delivery.RunState) int { return strings.Compare(string(a.Spec.Key), string(b.Spec.Key)) })
	return list, nil
}

func (r *simRuns) State(key delivery.Digest) (delivery.RunState, error) {
	if s, ok := r.states[key]; ok {
		return *s, nil
	}
	return delivery.RunState{}, nil
}

func (r *simRuns) End(_ context.Context, key delivery.Digest, _ string) error {
	if s, ok := r.states[key]; ok && s.Phase == delivery.RunRunning {
		s.Phase = delivery.RunStopped
	}
	return nil
}

func (r *simRuns) Retry(key delivery.Digest) error { return r.Remove(key) }
func (r *simRuns) Remove(key delivery.Digest) error {
	delete(r.states, key)
	return nil
}

func (r *simRuns) active() int {
	n := 0
	for _, s := range r.states {
		if s.Phase == delivery.RunRunning {
			n++
		}
	}
	return n
}

func (r *simRuns) finishAll() {
	for _, key := range slices.Sorted(maps.Keys(r.states)) {
		r.finish(key)
	}
}

// finish ends a running run with the result that its content decides.
func (r *simRuns) finish(key delivery.Digest) {
	s := r.states[key]
	if s.Phase != delivery.RunRunning {
		return
	}
	if why, ok := r.fail[s.Spec.Kind]; ok {
		s.Phase, s.Error = delivery.RunFailed, why
		return
	}
	var result any
	switch spec := s.Spec; spec.Kind {
	case delivery.RunData:
		d := delivery.DataResult{Content: delivery.DigestOf("content", spec.Data.Dataset), Training: delivery.DigestOf("training", spec.Data.Dataset),
			Images: map[string]int{"train": 100, "valid": 30, "test": 50}, Truths: map[string]int{}}
		for _, e := range spec.Data.EvalSets {
			d.EvalSets = append(d.EvalSets, delivery.EvalSetContent{EvalSet: e, Images: delivery.DigestOf("images", e), Truths: delivery.DigestOf("truths", e), Count: 50})
		}
		result = d
	case delivery.RunTrain:
		r.sim.trained[key]++
		bundle := delivery.DigestOf("bundle", key)
		r.sim.signed.bundles = append(r.sim.signed.bundles, simBundle{bundle, spec.Train.Spec.Train.Epochs})
		result = delivery.TrainResult{Bundle: bundle, Model: delivery.DigestOf("model", key), Size: 1_000_000, Attempts: 1}
	case delivery.RunEval:
		q := r.sim.qualityOf(spec.Eval.Bundle)
		set := delivery.ScoreSet{Detections: delivery.DigestOf("detections", spec.Eval.Detect), Protocol: spec.Eval.Protocol, Images: 50,
			Values: map[string]float64{"mAP": q, "AP50": q}, Truths: map[string]int{}, Classes: spec.Eval.Classes.Names(), Resamples: map[string]delivery.Samples{"mAP": spread(q), "AP50": spread(q)}}
		for _, c := range set.Classes {
			set.Truths[c], set.Values["AP/"+c], set.Resamples["AP/"+c] = 100, q, spread(q)
		}
		result = set
	case delivery.RunCompare:
		a, b := r.sim.qualityOf(spec.Compare.Candidate.Bundle), r.sim.qualityOf(spec.Compare.Baseline.Bundle)
		c := delivery.CompareResult{Images: 50, Classes: spec.Compare.Candidate.Classes.Names(), Metrics: map[string]delivery.Difference{}}
		for _, m := range append([]string{"mAP", "AP50"}, prefixedAll("AP/", c.Classes)...) {
			c.Metrics[m] = delivery.Difference{Candidate: a, Baseline: b, Value: a - b, Resamples: spread(a - b)}
		}
		result = c
	}
	data, err := json.Marshal(result)
	if err != nil {
		r.sim.t.Fatal(err)
	}
	s.Phase, s.Result, s.Ended = delivery.RunDone, data, r.sim.now
}

func prefixedAll(prefix string, names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = prefix + n
	}
	return out
}

// spread is a narrow bootstrap around a value.
func spread(v float64) delivery.Samples {
	s := make(delivery.Samples, 101)
	for i := range s {
		s[i] = v + float64(i-50)*0.0001
	}
	return s
}

// ---- evidence

type simBundle struct {
	digest delivery.Digest
	epochs int
}

type simEvidence struct {
	sim        *sim
	bundles    []simBundle
	statements []simStatement
}

type simStatement struct {
	bundle    delivery.Digest
	kind      string
	predicate any
}

func (s *sim) qualityOf(bundle delivery.Digest) float64 {
	for _, b := range s.signed.bundles {
		if b.digest == bundle {
			return s.quality[b.epochs]
		}
	}
	return 0
}

func (e *simEvidence) Sign(_ context.Context, bundle delivery.Digest, kind string, predicate any) error {
	for _, s := range e.statements {
		if s.bundle == bundle && s.kind == kind && delivery.DigestOf("p", s.predicate) == delivery.DigestOf("p", predicate) {
			return nil
		}
	}
	e.statements = append(e.statements, simStatement{bundle, kind, predicate})
	return nil
}

func (e *simEvidence) Evidence(context.Context, plan.World) (plan.Evidence, error) {
	out := plan.Evidence{BySpec: map[delivery.Digest]plan.Trained{}, ByRun: map[delivery.Digest]plan.Trained{}, Scores: map[delivery.Digest]delivery.Scores{},
		Verdicts: map[delivery.Digest]bool{}, Accepted: map[string][]delivery.Acceptance{}, Bundles: map[delivery.Digest]plan.Bundle{}}
	for _, b := range e.bundles {
		out.Bundles[b.digest] = plan.Bundle{Model: delivery.DigestOf("m", b.digest), Signature: delivery.DigestOf("s", b.digest), Size: 1_000_000}
	}
	for _, s := range e.statements {
		switch p := s.predicate.(type) {
		case delivery.Training:
			if _, ok := out.BySpec[p.Spec]; !ok {
				out.BySpec[p.Spec] = plan.Trained{Bundle: s.bundle, Training: p}
			}
			out.ByRun[p.Run] = plan.Trained{Bundle: s.bundle, Training: p}
		case delivery.Scores:
			out.Scores[p.Key] = p
		case delivery.Verdict:
			out.Verdicts[p.Key] = true
		case delivery.ReleaseStatement:
			out.Releases = append(out.Releases, p)
		case delivery.Acceptance:
			out.Accepted[p.Model] = append(out.Accepted[p.Model], p)
		case delivery.Abort:
			out.Aborts = append(out.Aborts, p)
		}
	}
	return out, nil
}

// ---- fleet

type simFleet struct {
	sim       *sim
	published map[string]delivery.Desired
	devices   []delivery.Device
	broken    map[delivery.Digest]bool // bundles that fail on devices
	downloads int
}

func (f *simFleet) add(ring string, ids ...string) {
	for _, id := range ids {
		f.devices = append(f.devices, delivery.Device{Report: delivery.Report{Device: id, Ring: ring, Labels: map[string]string{"site": "demo"}, Phase: delivery.DeviceIdle}, Seen: f.sim.now})
	}
}

func (f *simFleet) Publish(_ context.Context, d delivery.Desired) error {
	d.Version = f.published[d.Ring].Version + 1
	d.Expires = f.sim.now.Add(24 * time.Hour)
	f.published[d.Ring] = d
	return nil
}

func (f *simFleet) Published(ring string) (delivery.Desired, bool) {
	d, ok := f.published[ring]
	return d, ok
}

func (f *simFleet) Devices() []delivery.Device { return slices.Clone(f.devices) }

// report lets every device do what it is told, and say so.
func (f *simFleet) report() {
	for i := range f.devices {
		d := &f.devices[i]
		want, ok := f.published[d.Report.Ring]
		d.Seen = f.sim.now
		if !ok || want.Version <= d.Report.Desired {
			continue
		}
		target := &want.Release
		if !want.InWave(d.Report.Device) {
			target = want.Previous
		}
		d.Report.Desired = want.Version
		d.Report.Sequence++
		if target == nil || target.Bundle == d.Report.Bundle {
			continue
		}
		if f.broken[target.Bundle] {
			d.Report.Phase, d.Report.Failed, d.Report.Why = delivery.DeviceFailed, target.Bundle, "golden mismatch"
			continue
		}
		if !slices.Contains(d.Healthy, target.Bundle) {
			f.downloads++
			d.Healthy = append(d.Healthy, target.Bundle)
		}
		d.Report.Bundle, d.Report.Release, d.Report.Phase, d.Report.Failed = target.Bundle, target.Version, delivery.DeviceHealthy, ""
	}
}

// ---- ledger

type simLedger struct {
	gos    []ledger.Go
	clocks map[string]json.RawMessage
	said   map[string]Said
	full   bool
}

func newSimLedger() *simLedger {
	return &simLedger{clocks: map[string]json.RawMessage{}, said: map[string]Said{}}
}

var errFull = delivery.Blocked{What: "the disk under the ledger is full", Do: "free some space"}

func (l *simLedger) Gos(context.Context, time.Time) ([]ledger.Go, error) { return l.gos, nil }
func (l *simLedger) PutGo(_ context.Context, g ledger.Go) error {
	l.gos = append(l.gos, g)
	return nil
}
func (l *simLedger) Clocks(context.Context) (map[string]json.RawMessage, error) { return l.clocks, nil }
func (l *simLedger) PutClock(_ context.Context, fleet string, s json.RawMessage) error {
	if l.full {
		return errFull
	}
	l.clocks[fleet] = s
	return nil
}
func (l *simLedger) Said(_ context.Context, prefix string) (map[string]Said, error) {
	out := map[string]Said{}
	for k, s := range l.said {
		if strings.HasPrefix(k, prefix) {
			out[k] = s
		}
	}
	return out, nil
}
func (l *simLedger) PutSaid(_ context.Context, key, content string, at time.Time) error {
	if l.full {
		return errFull
	}
	l.said[key] = Said{Content: content, At: at, Count: l.said[key].Count + 1}
	return nil
}

// checkGreen is the invariant that the property test is about: green only with
// the evidence, on a tree that holds the file which the evidence yields.
func (s *sim) checkGreen(commit string, c delivery.Check) {
	s.t.Helper()
	if strings.HasPrefix(c.Description, "no model change") || strings.Contains(c.Description, "removed; nothing to train") || strings.Contains(c.Description, "rolls back to version") || s.repo.refs[git.Branch+"main"] == commit {
		return
	}
	files := s.repo.commits[commit].files
	for path, blob := range files {
		name, ok := strings.CutSuffix(strings.TrimPrefix(path, "models/"), ".release.yaml")
		if !ok || !strings.Contains(c.Description, name+": version") {
			continue
		}
		doc := intent.ParseFile(intent.File{Path: path, Size: int64(len(s.repo.blobs[blob])), Data: s.repo.blobs[blob]}, intent.Options{})
		release := doc.Release()
		if release == nil {
			s.t.Fatalf("green on %s, whose release file of %s does not parse", commit, name)
		}
		model := intent.ParseFile(intent.File{Path: "models/" + name + ".yaml", Size: int64(len(s.repo.blobs[files["models/"+name+".yaml"]])), Data: s.repo.blobs[files["models/"+name+".yaml"]]}, intent.Options{})
		evidence := false
		for _, st := range s.signed.statements {
			if r, ok := st.predicate.(delivery.ReleaseStatement); ok && delivery.SameRelease(r.File, *release) && r.Spec == model.Spec() {
				evidence = true
			}
		}
		if !evidence {
			s.t.Fatalf("green on %s for %s without a release statement for its content: %s", commit, name, c.Description)
		}
		return
	}
	s.t.Fatalf("green on %s whose tree holds no release file: %s", commit, c.Description)
}
