package web_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
	"github.com/autonomos/aob/reconciler/gate"
	"github.com/autonomos/aob/reconciler/web"
)

// memorySource is a Source in memory.
type memorySource struct {
	mu       sync.Mutex
	prs      []web.PR
	comments []string
	main     string
	logs     map[string]string // by run
	ended    map[string]bool   // by run
	broken   error             // if not nil, the error of all methods
}

func newMemorySource() *memorySource {
	left, mAP := 95.0, 0.412
	train := web.Run{Key: delivery.Sum([]byte("train")), Kind: delivery.RunTrain, Note: "shapes, #3", PRs: []int{3},
		Phase: delivery.RunRunning, Stage: "training", Attempt: 2,
		Epoch: 12, Epochs: 30, Batch: 4, Batches: 15, MAP: &mAP, SecondsLeft: &left, Started: noon}
	return &memorySource{main: "4d5e6f7a8b9c", logs: map[string]string{string(train.Key): "epoch 1\nepoch 2\n"},
		ended: map[string]bool{}, prs: []web.PR{
			{PullRequest: delivery.PullRequest{Number: 3, Title: "Train longer", Author: "maria", Head: "c0ffee",
				HeadRef: "longer", Base: "main", Updated: noon},
				State: delivery.CheckPending, Sentence: web.Sentence{Text: "shapes: train: epoch 12/30"},
				Runs: []web.Run{train},
				Checks: []web.Check{{Check: delivery.Check{Context: delivery.ContextRelease,
					State: delivery.CheckPending, Description: "shapes: train: epoch 12/30"}}}},
		}}
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func (s *memorySource) Spends(context.Context) ([]delivery.Spend, error) {
	return []delivery.Spend{{Run: delivery.Sum([]byte("train")), Cost: 3_100_000, Phase: delivery.RunDone,
		Quote: delivery.Quote{Model: "shapes", Pull: 3, By: "maria", Ceiling: 8_000_000}}}, s.broken
}

func (s *memorySource) Status(context.Context) (web.Status, error) {
	prs, err := s.PRs(context.Background())
	return web.Status{At: noon, Main: web.Main{Branch: "main", Commit: s.main}, PRs: prs, Runs: prs[0].Runs,
		Fleets: []web.Fleet{{Name: "demo", Model: "shapes", Target: delivery.Target{Version: 2,
			Bundle: delivery.Sum(nil)}, Share: 0.5, Wave: 1, Waves: 2,
			Devices: []web.Device{{ID: "dock-1", Phase: delivery.DeviceHealthy, Version: 2, Seen: noon}}}}}, err
}

func (s *memorySource) PRs(context.Context) ([]web.PR, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.prs), s.broken
}

func (s *memorySource) find(number int) (int, error) {
	i := slices.IndexFunc(s.prs, func(p web.PR) bool { return p.Number == number })
	if i < 0 {
		return i, explain.Unknown{Kind: explain.PR, ID: fmt.Sprint(number), Do: "aob pr list shows the open ones"}
	}
	return i, s.broken
}

func (s *memorySource) PR(_ context.Context, number int) (web.PR, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, err := s.find(number)
	if err != nil {
		return web.PR{}, err
	}
	return s.prs[i], nil
}

func (s *memorySource) Explain(_ context.Context, kind explain.Kind, id string) (explain.Chain, error) {
	if kind != explain.Model || (id != "shapes" && id != "a/b c") {
		return explain.Chain{}, explain.Unknown{Kind: kind, ID: id, Do: "look elsewhere"}
	}
	return explain.Chain{Kind: kind, ID: id, Title: "shapes version 2", Links: []explain.Link{
		{What: "content", ID: string(delivery.Sum(nil)), Text: "models/shapes.yaml",
			Inputs: []delivery.Digest{delivery.Sum(nil)}, At: noon}}}, s.broken
}

func (s *memorySource) Plan(context.Context) (web.Plan, error) {
	return web.Plan{At: noon, Text: "nothing to do\n", Steps: []web.Step{{Key: "run/1", Text: "+ run train"}}}, s.broken
}

func (s *memorySource) Log(_ context.Context, run string, offset int64) (web.Log, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, ok := s.logs[run]
	if !ok {
		return web.Log{}, fmt.Errorf("run %s: %w", run, fs.ErrNotExist)
	}
	offset = min(offset, int64(len(text)))
	return web.Log{ReadCloser: io.NopCloser(strings.NewReader(text[offset:])), Name: "output/log.txt", Offset: offset,
		Ended: s.ended[run]}, nil
}

func (s *memorySource) Merge(_ context.Context, number int, _, user string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, err := s.find(number)
	if err != nil {
		return "", err
	}
	if s.prs[i].State != delivery.CheckSuccess {
		return "", delivery.Blockedf("wait for aob/release to pass", "#%d cannot be merged", number)
	}
	s.prs = slices.Delete(s.prs, i, i+1)
	s.main = "merged by " + user
	return s.main, nil
}

func (s *memorySource) Adopt(_ context.Context, number int, _ string) (int, error) {
	_, err := s.find(number)
	return number + 1, err
}

func (s *memorySource) Command(_ context.Context, number int, user, text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.find(number)
	if err == nil {
		s.comments = append(s.comments, fmt.Sprintf("#%d %s: %s", number, user, text))
	}
	return err
}

func (s *memorySource) Recheck(_ context.Context, number int) error {
	_, err := s.find(number)
	return err
}

func (s *memorySource) Try(_ context.Context, ask web.TrialRequest) (web.Trial, error) {
	t := web.Trial{ID: "0123456789", Model: ask.File, By: ask.User, At: noon, State: delivery.CheckPending}
	for _, v := range ask.Variants {
		t.Variants = append(t.Variants, web.Variant{ID: v.Text, Set: v.Set, Seeds: []web.Seed{}})
	}
	return t, s.broken
}

func (s *memorySource) Trials(context.Context) ([]web.Trial, error) { return nil, s.broken }

func (s *memorySource) Trainings(context.Context) ([]web.Training, error) {
	return []web.Training{{ID: "#3", From: "#3", PR: 3, Model: "shapes", At: noon, Seeds: []web.Seed{}}}, s.broken
}

func (s *memorySource) Trial(_ context.Context, id string) (web.Trial, error) {
	if id != "0123" {
		return web.Trial{}, explain.Unknown{Kind: "experiment", ID: id, Do: "aob runs lists them"}
	}
	return web.Trial{ID: "0123456789", At: noon, Variants: []web.Variant{}}, s.broken
}

func (s *memorySource) EndTrial(ctx context.Context, id string) error {
	_, err := s.Trial(ctx, id)
	return err
}

func (s *memorySource) ForgetDevice(_ context.Context, fleet, device string) error {
	if fleet != "demo" || device != "dock-1" {
		return delivery.Blockedf("aob device list shows those that are known", "there is no device %s in fleet %s",
			device, fleet)
	}
	return nil
}

func (s *memorySource) Compare(_ context.Context, a, b string) (web.Comparison, error) {
	if a == b {
		return web.Comparison{}, delivery.Blockedf("name two that differ", "%s and %s are the same model", a, b)
	}
	return web.Comparison{State: delivery.CheckSuccess, A: a, B: b, Images: 87,
			Rows: []web.Compared{{Metric: "mAP", A: 0.5, B: 0.4, Diff: 0.1, Low: 0.05, High: 0.15,
				Answer: coco.Better}}},
		s.broken
}

func (s *memorySource) Release(_ context.Context, model string, version int) (web.Released, error) {
	if model != "shapes" {
		return web.Released{}, explain.Unknown{Kind: explain.Model, ID: model, Do: "aob status lists the models"}
	}
	return web.Released{Model: model, Version: max(version, 1), Bundle: delivery.Sum([]byte("bundle")),
		Quarantined: "it failed"}, nil
}

func (s *memorySource) Power(_ context.Context, name string) ([]gate.ModelPower, error) {
	if name != "production" {
		return nil, explain.Unknown{Kind: "gate", ID: name, Do: "gates are files under gates/ on main"}
	}
	return []gate.ModelPower{{Gate: name, Model: "shapes", Images: 72, Checks: []gate.Power{{Check: "mAP drop <= 0.01",
		MaxDrop: 0.01, Images: 72, StdErr: 0.012, Smallest: 0.0298, EqualPasses: 0.21, Need: 642}}}}, nil
}

// Retention has a run that is removed and a bundle that stays.
func (s *memorySource) Retention(_ context.Context, ask web.RetentionAsk) (web.Retention, error) {
	items := []web.Stored{{Kind: "bundle", ID: "b", Name: "shapes@2", Keep: true}, {Kind: "run", ID: "r", Name: "run"}}
	items = slices.DeleteFunc(items, func(it web.Stored) bool {
		return !ask.All && it.Keep || ask.Kind != "" && it.Kind != ask.Kind
	})
	v := web.Retention{At: noon}
	v.Items, v.More, v.Next = web.Cut(items, ask.Page, func(it web.Stored) string { return it.ID })
	return v, s.broken
}

func (s *memorySource) Remove(context.Context) (web.Retention, error) {
	return web.Retention{At: noon, Items: []web.Stored{{Kind: "run", ID: "r"}}, Left: 3}, s.broken
}
