package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/evidence"
	"github.com/autonomos/aob/reconciler/explain"
	"github.com/autonomos/aob/reconciler/gate"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/provenance"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/reconciler/words"
)

// shop is a small server in memory: one model on version 2, one pull request in
// training, one that fails its gate, and a fleet of three.
type shop struct {
	mu     sync.Mutex
	commit string
	prs    []web.PR
	log    string
	ended  bool
	said   []string
	bundle delivery.Digest // of version 2

	removals int
}

var trainKey = sum("training")

func newShop() *shop {
	left, mAP := 95.0, 0.412
	train := web.Run{Key: trainKey, Kind: delivery.RunTrain, Note: "shapes, #3", PRs: []int{3},
		Phase: delivery.RunRunning, Stage: "training", Attempt: 2,
		Epoch: 12, Epochs: 30, MAP: &mAP, SecondsLeft: &left, Started: noon}
	v2 := shapes(2, 0.44)
	bad := shapes(3, 0.10)
	bad.Measured[0].Baseline = &delivery.BaselineMeasured{Version: 2, Bundle: v2.Bundle,
		Metrics: map[string]float64{"mAP": 0.44, "AP/circle": 0.41}}
	mAP10, low, high := 0.10, 0.06, 0.13
	verdict := delivery.Verdict{Gate: "production", Model: "shapes", Outcome: delivery.Fail,
		Reason: "mAP 0.1000 < 0.30 on 72 images", Checks: []delivery.CheckVerdict{
			{Check: "mAP >= 0.30", Metric: "mAP", Outcome: delivery.Fail, Value: &mAP10, Low: &low, High: &high,
				Reason: "mAP 0.1000 < 0.3 (at most 0.1300, 95% sure, 72 images)"},
			{Check: "AP >= 0.20", Class: "circle", Outcome: delivery.Ignored, Reason: "12 truths, want 20"}}}
	return &shop{commit: strings.Repeat("4d5e6f7a", 5), log: "epoch 11/30\nepoch 12/30\n", prs: []web.PR{
		{PullRequest: delivery.PullRequest{Number: 3, Title: "Train for much longer than anybody would",
			Author: "maria", Head: strings.Repeat("c0ffee12", 5), HeadRef: "longer", Base: "main"},
			State: delivery.CheckPending, WaitsFor: "AOB",
			Sentence: web.Sentence{Text: "shapes: train: epoch 12/30, mAP 0.412 on validation"},
			Runs:     []web.Run{train},
			Checks: []web.Check{
				{Check: delivery.Check{Context: delivery.ContextTrain, State: delivery.CheckPending,
					Description: "epoch 12/30, mAP 0.412 on validation"}},
				{Check: delivery.Check{Context: delivery.ContextRelease, State: delivery.CheckPending,
					Description: "shapes: train: epoch 12/30"}}}},
		{PullRequest: delivery.PullRequest{Number: 4, Title: "Make it worse \x1b[2J", Author: "jonas",
			Head: strings.Repeat("badbadba", 5), HeadRef: "worse", Base: "main", Fork: true},
			State: delivery.CheckFailure, WaitsFor: "its author",
			Sentence: web.Sentence{Text: "shapes: gate/production: mAP 0.1000 < 0.30 on 72 " +
				"images"},
			Checks: []web.Check{{Check: delivery.Check{Context: delivery.ContextRelease, State: delivery.CheckFailure,
				Description: "shapes: gate/production: mAP 0.1000 < 0.30 on 72 images"}}},
			Models: []web.Change{{Model: "shapes", Bundle: bad.Bundle, Baseline: &v2, Release: &bad,
				Trainer:  &web.Sentence{Text: "tiny@1 -> tiny@2: momentum 0.9 -> 0.8"},
				Measured: bad.Measured, Verdicts: []delivery.Verdict{verdict},
				Findings: []delivery.Finding{{Level: delivery.LevelWarning, Code: "leak", Where: "train/17.png",
					Text: "is an image of the eval set", Count: 2}}}}},
	}}
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func shapes(version int, mAP float64) delivery.Release {
	low, high := mAP-0.03, mAP+0.03
	return delivery.Release{Name: "shapes", Version: version, Bundle: sum(fmt.Sprint("bundle ", version)),
		Spec: sum("spec"), Measured: []delivery.Measured{
			{Gate: "production", Images: 72, Metrics: map[string]delivery.Figure{"mAP": {Value: mAP, Low: &low,
				High: &high}, "AP/circle": {Value: mAP}}}}}
}

func (s *shop) pass(number int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.prs {
		if s.prs[i].Number == number {
			s.prs[i].State, s.prs[i].Text = delivery.CheckSuccess, "shapes: version 3"
		}
	}
}

func (s *shop) write(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log += text
}

func (s *shop) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
}

// who names the user that runs the tests in a way that is the same everywhere.
func who(name string) string {
	if u, err := user.Current(); err == nil && u.Username == name {
		return "ME"
	}
	return name
}

func (s *shop) asked() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.said, "\n") + "\n"
}

func (s *shop) Status(ctx context.Context) (web.Status, error) {
	prs, err := s.PRs(ctx)
	v2 := shapes(2, 0.44)
	return web.Status{At: noon, LastTurn: noon, Main: web.Main{Branch: "main", Commit: s.commit,
		Checks: []web.Check{{Check: delivery.Check{Context: delivery.ContextRelease, State: delivery.CheckSuccess,
			Description: "shapes version 2"}}}},
		Models: []web.Model{{Name: "shapes", Accepted: &v2, Named: &v2, State: delivery.CheckSuccess,
			Sentence: web.Sentence{Text: "shapes version 2"}}, {Name: "pallets", State: delivery.CheckSuccess,
			Sentence: web.Sentence{Text: "pallets: no release yet; its fleets wait"}}},
		PRs: prs, Runs: prs[0].Runs,
		Fleets: []web.Fleet{{Name: "demo", Model: "shapes", Target: delivery.Target{Version: 2, Bundle: v2.Bundle},
			Variant: delivery.INT8,
			State:   delivery.CheckPending, Share: 0.5, Wave: 1, Waves: 2,
			Sentence: web.Sentence{Text: "version 2, wave 1 of 2 (1): 1 of 1 device healthy; " +
				"the soak lasts until 2026-03-01 12:01 UTC at least"},
			InWave: 1, Count: web.Count{Devices: 3, Heard: 2, Healthy: 1, Failed: 1},
			Devices: []web.Device{{ID: "dock-1", Phase: delivery.DeviceHealthy, Version: 2, Slot: "b",
				Seen: noon.Add(-3 * time.Second)},
				{ID: "dock-2", Phase: delivery.DeviceFailed, Version: 1, Slot: "a", Seen: noon.Add(-2 * time.Hour),
					Why: "the golden inference differs"}, {ID: "dock-3", Phase: delivery.DeviceIdle, Seen: noon,
					Silent: true, Notes: []string{"cannot download: the proxy answers 407"}}}}}}, err
}

func (s *shop) PRs(context.Context) ([]web.PR, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.prs), nil
}

func (s *shop) PR(_ context.Context, number int) (web.PR, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.prs {
		if p.Number == number {
			return p, nil
		}
	}
	return web.PR{}, explain.Unknown{Kind: explain.PR, ID: fmt.Sprint(number), Do: "aob pr list shows the open ones"}
}

func (s *shop) Explain(_ context.Context, kind explain.Kind, id string) (explain.Chain, error) {
	r := explain.Report{World: plan.World{Main: plan.Main{Branch: "main", Commit: s.commit},
		Evidence: plan.Evidence{Accepted: map[string][]delivery.Acceptance{"shapes": {{Model: "shapes", Version: 2,
			Bundle: sum("bundle 2"), Spec: sum("spec"), Commit: s.commit}}}},
		Devices: map[string][]delivery.Device{"demo": {{Report: delivery.Report{Device: "dock-1", Ring: "demo",
			Phase: delivery.DeviceHealthy, Bundle: sum("bundle 2"), Release: 2}, LastHeard: noon}}}},
		Plan: plan.Plan{Main: plan.MainReport{Models: []plan.MainModel{{Model: "shapes",
			Fact: delivery.Fact{Code: code.MainAccepted, Values: delivery.Values{Model: "shapes", Version: 2}}}}}}}
	for _, p := range s.prs {
		report := plan.ProposalReport{PR: p.PullRequest}
		for _, c := range p.Checks {
			report.Checks = append(report.Checks, plan.Check{Context: c.Context, State: c.State, Facts: c.Facts})
		}
		r.Plan.Proposals = append(r.Plan.Proposals, report)
	}
	c, err := r.Explain(kind, id)
	return words.Chain(c), err
}

func (s *shop) Plan(context.Context) (web.Plan, error) {
	return web.Plan{At: noon, Text: "#3 Train longer c0ffee12c0ff\n    pending  aob/train: epoch 12/30\n- run eval " +
		"1234: no open pull request needs it\n+ run train 3f9c2a10ab12 (shapes, #3)\n",
		Steps: []web.Step{{Key: "run/1", Text: "+ run train 3f9c2a10ab12 (shapes, #3)"}}}, nil
}

func (s *shop) Log(_ context.Context, run string, offset int64) (web.Log, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if string(trainKey) != run && !strings.HasPrefix(trainKey.Hex(), run) {
		return web.Log{}, explain.Unknown{Kind: "run", ID: run, Do: "aob status lists the runs"}
	}
	offset = min(offset, int64(len(s.log)))
	return web.Log{ReadCloser: io.NopCloser(strings.NewReader(s.log[offset:])), Name: "output/log.txt", Offset: offset,
		Ended: s.ended}, nil
}

func (s *shop) Merge(ctx context.Context, number int, head, user string) (string, error) {
	p, err := s.PR(ctx, number)
	if err != nil {
		return "", err
	}
	if p.State != delivery.CheckSuccess {
		return "", delivery.Blockedf("aob pr show "+fmt.Sprint(number)+" says why",
			"#%d cannot be merged: aob/release is %s", number, p.State)
	}
	if !strings.HasPrefix(p.Head, head) {
		return "", delivery.Blockedf("look at it again", "#%d is at %s by now", number, p.Head)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prs = slices.DeleteFunc(s.prs, func(p web.PR) bool { return p.Number == number })
	s.said = append(s.said, fmt.Sprintf("#%d merged by %s", number, who(user)))
	return s.commit, nil
}

func (s *shop) Adopt(ctx context.Context, number int, head string) (int, error) {
	p, err := s.PR(ctx, number)
	if err == nil && !strings.HasPrefix(p.Head, head) {
		err = delivery.Blockedf("look at it again", "#%d is at %s by now", number, p.Head)
	}
	return number + 1, err
}

func (s *shop) Command(ctx context.Context, number int, user, text string) error {
	_, err := s.PR(ctx, number)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, fmt.Sprintf("#%d %s: %s", number, who(user), text))
	return err
}

func (s *shop) Recheck(ctx context.Context, number int) error {
	_, err := s.PR(ctx, number)
	return err
}

// tried is an experiment of two variants, of which the second is better.
func tried() web.Trial {
	v2 := shapes(2, 0.44)
	figure := func(v float64) *delivery.Figure {
		low, high := v-0.03, v+0.03
		return &delivery.Figure{Value: v, Low: &low, High: &high}
	}
	seed := func(n int64, v float64) web.Seed {
		return web.Seed{Seed: n, State: delivery.CheckSuccess, Bundle: sum("seed"), MAP: &v}
	}
	return web.Trial{ID: "0a1b2c3d4e", Model: "shapes", By: "maria", Note: "longer or not", At: noon,
		State:    delivery.CheckSuccess,
		Sentence: web.Sentence{Text: "4 of 4 models trained"}, Release: &v2, Total: 4, Trained: 4, Known: 1, AtOnce: 1,
		Variants: []web.Variant{
			{ID: "77d0c1e2f3", Set: []string{"train.epochs=4"}, State: delivery.CheckSuccess, MAP: figure(0.41),
				Diff: figure(-0.03), Seeds: []web.Seed{seed(1, 0.41), seed(2, 0.38)}},
			{ID: "3f9c2a10ab", Set: []string{"train.epochs=8"}, State: delivery.CheckSuccess, MAP: figure(0.46),
				Diff: figure(0.02), Seeds: []web.Seed{seed(1, 0.44), seed(2, 0.46)}},
		}}
}

func (s *shop) Try(_ context.Context, ask web.TrialRequest) (web.Trial, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range ask.Variants {
		note := ""
		if ask.Note != "" {
			note = ": " + ask.Note
		}
		s.said = append(s.said, fmt.Sprintf("%s tries %s of %s%s", who(ask.User), strings.Join(v.Set, " "), ask.File,
			note))
	}
	t := tried()
	t.NotMade = []string{delivery.FP16}
	return t, nil
}

func (s *shop) Trials(context.Context) ([]web.Trial, error) { return []web.Trial{tried()}, nil }

// Trainings are the variants of the experiment, the pull requests and the release.
func (s *shop) Trainings(ctx context.Context) ([]web.Training, error) {
	trial, diff := tried(), -0.34
	var list []web.Training
	for _, v := range trial.Variants {
		list = append(list, web.Training{ID: v.ID, From: "try", Trial: trial.ID, Model: trial.Model, Title: trial.Note,
			Set: v.Set, By: trial.By, At: trial.At, State: v.State, MAP: v.MAP, Diff: v.Diff, Seeds: v.Seeds})
	}
	prs, err := s.PRs(ctx)
	for _, p := range slices.Backward(prs) {
		name := fmt.Sprintf("#%d", p.Number)
		t := web.Training{ID: name, From: name, PR: p.Number, Model: "shapes", Title: p.Title, By: p.Author,
			At: noon.Add(-time.Minute), State: p.State, Sentence: p.Sentence, Seeds: []web.Seed{{Seed: 1}}}
		if len(p.Models) > 0 {
			mAP := p.Models[0].Measured[0].Metrics["mAP"]
			t.Gate, t.GateMAP, t.GateDiff = "production", &mAP, &diff
			t.MAP = &delivery.Figure{Value: 0.2}
		}
		list = append(list, t)
	}
	return append(list, web.Training{ID: "shapes@2", From: "shapes@2", PR: 2, Version: 2, Model: "shapes",
		Title: "Merge 2: better", By: "jonas", At: noon.Add(-time.Hour), State: delivery.CheckSuccess,
		Gate: "production", GateMAP: &delivery.Figure{Value: 0.44}, Seeds: []web.Seed{{Seed: 1}}}), err
}

func (s *shop) Trial(_ context.Context, id string) (web.Trial, error) {
	if t := tried(); strings.HasPrefix(t.ID, id) {
		return t, nil
	}
	return web.Trial{}, explain.Unknown{Kind: "experiment", ID: id, Do: "aob runs lists them"}
}

func (s *shop) ForgetDevice(_ context.Context, fleet, device string) error {
	if fleet != "demo" || device != "dock-1" {
		return delivery.Blockedf("aob device list shows those that are known", "there is no device %s in fleet %s",
			device, fleet)
	}
	return nil
}

func (s *shop) EndTrial(ctx context.Context, id string) error {
	_, err := s.Trial(ctx, id)
	return err
}

func (s *shop) Compare(_ context.Context, a, b string) (web.Comparison, error) {
	if a == b {
		return web.Comparison{}, delivery.Blockedf("name two that differ", "%s and %s are the same model", a, b)
	}
	return web.Comparison{State: delivery.CheckSuccess, A: a, B: b, Images: 87, Rows: []web.Compared{
		{Metric: "mAP", A: 0.46, B: 0.41, Diff: 0.05, Low: 0.01, High: 0.09, Answer: coco.Better},
		{Metric: "AP", Class: "circle", Truths: 50, A: 0.4, B: 0.39, Diff: 0.01, Low: -0.04, High: 0.06,
			Answer: coco.Unsure}}}, nil
}

// Release knows version 2, whose bundle the store has, and version 1, whose bundle is gone.
func (s *shop) Release(_ context.Context, model string, version int) (web.Released, error) {
	r := web.Released{Model: model, Version: max(version, 1), Bundle: sum("bundle 1")}
	if version == 0 || version == 2 {
		r.Version, r.Bundle = 2, s.bundle
	}
	if model != "shapes" || version > 2 {
		return r, explain.Unknown{Kind: explain.Model, ID: model, Do: "aob status lists the models"}
	}
	if version == 2 {
		r.Quarantined = "2 of 3 devices failed"
	}
	if r.Version == 2 {
		r.Variants = []web.Accepted{{AcceptedVariant: delivery.AcceptedVariant{Variant: delivery.INT8,
			Bundle: s.bundle}, Quarantined: r.Quarantined}}
	}
	return r, nil
}

// stock makes a store with the bundle of version 2.
func (s *shop) stock(dir string) (*artifact.Store, error) {
	store, err := artifact.Open(filepath.Join(dir, "bundles"))
	if err != nil {
		return nil, err
	}
	model := filepath.Join(dir, "model.onnx")
	if err := os.WriteFile(model, []byte("an ONNX file"), 0o600); err != nil {
		return nil, err
	}
	s.bundle, err = store.Push(context.Background(), artifact.Bundle{ModelPath: model, Golden: []byte("golden"),
		Labels: []string{"circle"}, Provenance: map[string]string{"run": string(sum("run")),
			"spec": string(sum("spec"))},
		Signature: delivery.Signature{SchemaVersion: 1, Input: "input", Boxes: "dets", Logits: "labels", Width: 64,
			Height: 64, Resize: delivery.Resize{Algorithm: "bilinear", Padding: "none", DType: "float32"},
			Means: []float64{0.5, 0.5, 0.5}, Stds: []float64{0.2, 0.2, 0.2}, Slots: []string{"circle", ""},
			Background: 1,
			Select:     100}})
	if err != nil {
		return nil, err
	}
	key, err := loadKey(filepath.Join(dir, "evidence.key"))
	if err != nil {
		return nil, err
	}
	release := shapes(2, 0.44)
	documents, err := provenance.Documents(provenance.Record{Labels: []string{"circle"},
		Release: delivery.ReleaseStatement{Model: "shapes", Version: 2, Bundle: s.bundle, File: release}})
	signed := evidence.New(store, key, nil)
	for _, kind := range delivery.PaperTypes {
		err = errors.Join(err, signed.Sign(context.Background(), s.bundle, kind, documents[kind]))
	}
	return store, err
}

func (s *shop) Power(_ context.Context, name string) ([]gate.ModelPower, error) {
	if name != "production" {
		return nil, explain.Unknown{Kind: "gate", ID: name, Do: "gates are files under gates/ on main"}
	}
	return []gate.ModelPower{{Gate: name, Model: "shapes", Images: 72, Checks: []gate.Power{{Check: "mAP drop <= 0.01",
		MaxDrop: 0.01, Images: 72, StdErr: 0.012, Smallest: 0.0298, EqualPasses: 0.21, Need: 642}}}}, nil
}

// Retention has an old run that nothing needs, and a bundle that is released.
func (s *shop) Retention(_ context.Context, ask web.RetentionAsk) (web.Retention, error) {
	release := web.Sentence{Text: "release shapes 2, accepted on main", Facts: []delivery.Fact{
		{Code: code.KeptRelease, Values: delivery.Values{Model: "shapes", Version: 2, Branch: "main"}}}}
	old := web.Sentence{Text: "nothing needs it, and it is older than 30 days", Facts: []delivery.Fact{
		{Code: code.GoneOld, Values: delivery.Values{Count: 30}}}}
	items := []web.Stored{
		{Kind: "bundle", ID: string(s.bundle), Name: "shapes@2", Bytes: 3_500_000, At: noon, Keep: true,
			Sentence: release},
		{Kind: "run", ID: string(trainKey), Name: "run train " + trainKey.Short(), Bytes: 21_000_000, At: noon,
			Sentence: old}}
	v := web.Retention{At: noon, Kinds: []web.StoredKind{
		{Kind: "run", Remove: web.Amount{Count: 1, Bytes: 21_000_000}, Why: []web.Reason{}},
		{Kind: "bundle", Keep: web.Amount{Count: 1, Bytes: 3_500_000}, Why: []web.Reason{
			{Sentence: release, Amount: web.Amount{Count: 1, Bytes: 3_500_000}}}}}}
	items = slices.DeleteFunc(items, func(it web.Stored) bool {
		return it.Keep && !ask.All || ask.Kind != "" && it.Kind != ask.Kind
	})
	v.Items, v.More, v.Next = web.Cut(items, ask.Page, func(it web.Stored) string { return it.Kind + " " + it.ID })
	return v, nil
}

// Remove removes the run in two requests.
func (s *shop) Remove(context.Context) (web.Retention, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removals++
	v := web.Retention{At: noon,
		Kinds: []web.StoredKind{{Kind: "run", Remove: web.Amount{Count: 1, Bytes: 21_000_000}}},
		Items: []web.Stored{{Kind: "run", ID: string(trainKey), Name: "run train " + trainKey.Short(),
			Bytes: 21_000_000, At: noon, Sentence: web.Sentence{Text: "nothing needs it"}}}}
	if s.removals == 1 {
		v.Left = 1
	}
	return v, nil
}
