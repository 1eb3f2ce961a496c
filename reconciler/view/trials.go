package view

// This file starts, shows and compares experiments, for everybody who may use the socket.

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
	"github.com/autonomos/aob/reconciler/gate"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/reconciler/words"
)

// Try starts an experiment, or returns the existing one with the same content.
func (s *Source) Try(ctx context.Context, request web.TrialRequest) (web.Trial, error) {
	variants := make([]plan.Variant, 0, len(request.Variants))
	var complaints []delivery.Complaint
	name := ""
	for _, v := range request.Variants {
		in, wrong := s.Parser.Parse([]intent.File{{Path: request.File, Size: int64(len(v.Text)), Data: []byte(v.Text)}})
		for _, c := range wrong {
			if len(v.Set) > 0 {
				c.Text += " (with " + strings.Join(v.Set, " ") + ")"
			}
			complaints = append(complaints, c)
		}
		for n, m := range in.Models.All() {
			name = n
			variants = append(variants, plan.Variant{Set: v.Set, Model: m})
		}
	}
	if len(complaints) > 0 {
		lines := make([]string, 0, len(complaints))
		for _, c := range complaints {
			if line := c.String(); !slices.Contains(lines, line) && len(lines) < 20 {
				lines = append(lines, line)
			}
		}
		return web.Trial{}, delivery.Blockedf("correct the file or the values; aob validate checks files", "%s",
			strings.Join(lines, "\n"))
	}
	if len(variants) != len(request.Variants) || len(variants) == 0 {
		return web.Trial{}, delivery.Blockedf("name a file as models/pallets.yaml", "%s is not the file of a model",
			request.File)
	}
	trial := plan.NewTrial(name, variants, request.User, s.Now().UTC())
	trial.Note = request.Note
	t, err := s.Requests.try(ctx, trial, s.Now())
	if err != nil {
		return web.Trial{}, err
	}
	s.Loop.Wake()
	return s.Trial(ctx, t.ID)
}

// EndTrial removes an experiment. Trainings that nothing else needs are ended.
func (s *Source) EndTrial(ctx context.Context, id string) error {
	t, err := s.Trial(ctx, id)
	if err != nil {
		return err
	}
	defer s.Loop.Wake()
	return s.Requests.end(ctx, t.ID)
}

// Trials returns all experiments, the newest first.
func (s *Source) Trials(ctx context.Context) ([]web.Trial, error) {
	snap, err := s.snapshot()
	if err != nil {
		return nil, err
	}
	list := delivery.Each(snap.Plan.Trials, snap.trial)
	slices.SortStableFunc(list, func(a, b web.Trial) int { return b.At.Compare(a.At) })
	return list, nil
}

// Trial returns an experiment by the first characters of its ID. It waits for one that was only just requested.
func (s *Source) Trial(ctx context.Context, id string) (web.Trial, error) {
	for {
		snap, err := s.snapshot()
		if err != nil {
			return web.Trial{}, err
		}
		for _, t := range snap.Plan.Trials {
			if len(id) >= 4 && strings.HasPrefix(t.Trial.ID, id) {
				return snap.trial(t), nil
			}
		}
		if !s.Requests.knows(id) {
			return web.Trial{}, explain.Unknown{Kind: "experiment", ID: id, Do: "aob runs lists them"}
		}
		if err := nextTurn(ctx); err != nil {
			return web.Trial{}, err
		}
	}
}

// nextTurn waits a moment, so that the loop can take a turn.
func nextTurn(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(50 * time.Millisecond):
		return nil
	}
}

// trial shows an experiment.
func (s *Snapshot) trial(t plan.TrialReport) web.Trial {
	out := web.Trial{ID: t.Trial.ID, Model: t.Trial.Model, By: t.Trial.By, Note: t.Trial.Note, At: t.Trial.At,
		State: t.State, Sentence: sentence(t.Fact), Release: t.Release, Known: t.Known, Trained: t.Trained,
		Total: t.Total, SecondsLeft: t.Left.Seconds(), AtOnce: s.World.Server.Trainings, Variants: []web.Variant{}}
	for _, v := range t.Trial.Variants {
		out.NotMade = append(out.NotMade, v.Model.Made()...)
	}
	slices.Sort(out.NotMade)
	out.NotMade = slices.Compact(out.NotMade)
	for i, v := range t.Variants {
		w := web.Variant{ID: v.ID, Set: t.Trial.Variants[i].Set, Spec: v.Spec, State: v.State,
			Sentence: sentence(v.Fact), Bundle: v.Bundle, Seeds: []web.Seed{}}
		w.MAP = measuredMAP(v.Score)
		if v.Diff != nil {
			w.Diff = differenceOf(*v.Diff)
		}
		for _, seed := range v.Seeds {
			w.Seeds = append(w.Seeds, shownSeed(seed))
		}
		out.Variants = append(out.Variants, w)
	}
	return out
}

func differenceOf(d delivery.Difference) *delivery.Figure {
	low, high := d.Samples.Bounds(delivery.FigureConfidence)
	return &delivery.Figure{Value: d.Value, Low: &low, High: &high}
}

func shownSeed(s plan.SeedReport) web.Seed {
	out := web.Seed{Seed: s.Seed, Run: s.Run, State: s.State, Sentence: sentence(s.Fact), Bundle: s.Bundle}
	if f := measuredMAP(s.Score); f != nil {
		out.MAP = &f.Value
	}
	return out
}

func measuredMAP(s *delivery.Scores) *delivery.Figure {
	if s == nil {
		return nil
	}
	row := s.Scores.Table.Figure(delivery.MetricMAP, s.Scores.Classes)
	if math.IsNaN(row.Value) { // no truth that counts
		row.Value = 0
	}
	f := delivery.FigureOf(delivery.MetricMAP, row)
	return &f
}

// A side is one of the two models that are compared.
type side struct {
	name  string
	model string
	score *delivery.Scores
}

// Compare compares two models on their validation split: variants by the beginning of their ID, pull requests as #12,
// versions as pallets@12, or release for the other model's release. It is pending until the runs are done, and must be
// called again meanwhile.
func (s *Source) Compare(ctx context.Context, a, b string) (web.Comparison, error) {
	snap, err := s.snapshot()
	if err != nil {
		return web.Comparison{}, err
	}
	of, with, err := snap.sides(a, b)
	if err != nil {
		return web.Comparison{}, err
	}
	out := web.Comparison{State: delivery.CheckPending, A: of.name, B: with.name}
	input := delivery.CompareRun{Candidate: of.score.Input, Baseline: with.score.Input, Seed: 1,
		Resamples: gate.Resamples(nil, 0)}
	key := delivery.CompareKey(input)
	if key == delivery.CompareKey(delivery.CompareRun{Candidate: input.Baseline, Baseline: input.Candidate,
		Resamples: input.Resamples, Seed: 1}) {
		return out, delivery.Blockedf("name two that differ", "%s and %s are the same model", a, b)
	}
	state, known := snap.World.Runs[key]
	switch {
	case known && state.Phase == delivery.RunFailed:
		return out, errors.New(state.Error)
	case known && state.Result != nil:
		var result delivery.CompareResult
		if err := json.Unmarshal(state.Result, &result); err != nil {
			return out, fmt.Errorf("the comparison cannot be read: %w", err)
		}
		out.State, out.Images, out.LeftOut, out.Groups = delivery.CheckSuccess, result.Images, result.LeftOut,
			result.Groups
		out.Rows = compared(result)
		return out, nil
	}
	s.Requests.compare(input, s.Now())
	s.Loop.Wake()
	return out, nil
}

// sides finds both sides on the same validation split. A version or a release may have scores on several.
func (s *Snapshot) sides(a, b string) (of, with side, err error) {
	if a == "release" && b == "release" {
		return of, with, delivery.Blockedf("name a variant, a PR (#12) or a version (pallets@12) for one",
			"nothing to compare: both sides are `release`")
	}
	var left, right []side
	if a != "release" {
		if left, err = s.side(a, ""); err != nil {
			return of, with, err
		}
		right, err = s.side(b, left[0].model)
	} else if right, err = s.side(b, ""); err == nil {
		left, err = s.side(a, right[0].model)
	}
	if err != nil {
		return of, with, err
	}
	for _, of := range left {
		for _, with := range right {
			x, y := of.score.Content, with.score.Content
			same := delivery.DigestOf("classes", of.score.Input.Classes) == delivery.DigestOf("classes",
				with.score.Input.Classes)
			if x.Digest() == y.Digest() && x.LeaveOut == y.LeaveOut && same {
				return of, with, nil
			}
		}
	}
	return of, with, delivery.Blockedf("compare models of one dataset version and its classes",
		"%s and %s were validated on different images or labels", left[0].name, right[0].name)
}

// side finds the validation scores of a name. model is the other side's, for the name release.
func (s *Snapshot) side(name, model string) ([]side, error) {
	stored := func(model string, bundle delivery.Digest, label string) ([]side, error) {
		var found []side
		for _, key := range slices.Sorted(maps.Keys(s.World.Evidence.Scores)) {
			sc := s.World.Evidence.Scores[key]
			if s.World.Evidence.ScoresOf(bundle, sc.Input) && sc.Content.EvalSet.Split == "valid" {
				found = append(found, side{label, model, &sc})
			}
		}
		if len(found) == 0 {
			return nil, delivery.Blockedf("aob try with the model's file has it scored there",
				"%s was not scored on a validation split", label)
		}
		return found, nil
	}
	if name == "release" {
		for _, m := range s.Plan.Main.Models {
			if m.Model == model && m.Accepted != nil {
				return stored(m.Model, m.Accepted.Bundle, fmt.Sprintf("release, %s@%d", m.Model, m.Accepted.Version))
			}
		}
		if why := s.World.MainUnknown(); !why.IsZero() {
			return nil, delivery.Blockedf("compare two variants", "nobody can say which release %s has: %s", model,
				words.Text(why))
		}
		return nil, delivery.Blockedf("compare two variants", "%s has no release", model)
	}
	if model, version, ok := strings.Cut(name, "@"); ok {
		for _, a := range s.World.Evidence.Accepted[model] {
			if fmt.Sprint(a.Version) == version {
				return stored(model, a.Bundle, name)
			}
		}
		return nil, explain.Unknown{Kind: "version", ID: name, Do: "aob explain model " + model + " lists them"}
	}
	if strings.HasPrefix(name, "#") {
		for _, p := range s.Plan.Proposals {
			for _, m := range p.Models {
				if fmt.Sprintf("#%d", p.PR.Number) == name && m.Valid != nil {
					return []side{{name, m.Model, m.Valid}}, nil
				}
			}
		}
		return nil, delivery.Blockedf("aob pr list shows the open ones, and aob pr show how far they are; of a "+
			"merged one take its MODEL@VERSION", "pull request %s is not open, or not validated yet", name)
	}
	var found []side
	for _, t := range s.Plan.Trials {
		for i, v := range t.Variants {
			if len(name) < 4 || !strings.HasPrefix(v.ID, name) {
				continue
			}
			if v.Score == nil {
				return nil, delivery.Blockedf("wait for it: aob runs show "+t.Trial.ID,
					"variant %s is not validated yet: %s", v.ID, words.Text(v.Fact))
			}
			label := strings.TrimSpace(v.ID + "  " + strings.Join(t.Trial.Variants[i].Set, " "))
			if !slices.ContainsFunc(found, func(o side) bool { return o.score.Key == v.Score.Key }) {
				found = append(found, side{label, t.Trial.Model, v.Score})
			}
		}
	}
	switch len(found) {
	case 0:
		return nil, explain.Unknown{Kind: "variant", ID: name,
			Do: "aob runs lists them; a pull request is #12, a version pallets@12, and release is main's"}
	case 1:
		return found, nil
	}
	return nil, delivery.Blockedf("give more of its ID", "%d variants begin with %s", len(found), name)
}

// compared says for every figure which model is better. Answers for single classes are adjusted by Holm's method.
func compared(c delivery.CompareResult) []web.Compared {
	var rows []web.Compared
	var samples []delivery.Samples // of each row
	row := func(metric, class string, classes []string) {
		d, ok := c.Compared(metric, classes)
		if !ok || len(d.Samples) == 0 {
			return
		}
		low, high := d.Samples.Bounds(delivery.FigureConfidence)
		rows = append(rows, web.Compared{Metric: metric, Class: class, A: d.Candidate, B: d.Baseline, Diff: d.Value,
			Low: low, High: high, Truths: c.Truths[class], Answer: coco.Unsure})
		samples = append(samples, d.Samples)
	}
	few := func(r web.Compared) bool {
		n, known := c.Candidate.Units(r.Metric, []string{r.Class})
		return r.Class != "" && known && n < coco.MinUnits
	}
	answer := func(i int, confidence float64) bool {
		low, high := samples[i].Bounds(confidence)
		if delivery.MetricOfFigure(rows[i].Metric).LessIsBetter {
			low, high = -high, -low
		}
		switch {
		case cmp.Or(c.Groups, c.Images) < coco.MinUnits || few(rows[i]):
			rows[i].Answer = coco.TooFew
		case !samples[i].Resolves(confidence):
		case low > 0:
			rows[i].Answer = coco.Better
		case high < 0:
			rows[i].Answer = coco.Worse
		}
		return rows[i].Answer == coco.Better || rows[i].Answer == coco.Worse
	}
	overAll := func(m delivery.Metric) bool { return m.Of == delivery.OfClasses || m.Of == delivery.OfEither }
	for _, metric := range delivery.MetricNames(overAll) {
		row(metric, "", c.Classes)
	}
	whole := len(rows)
	for i := range whole {
		answer(i, delivery.FigureConfidence)
	}
	for _, class := range c.Classes {
		row(delivery.MetricAP, class, []string{class})
	}
	var classes []int
	for i := whole; i < len(rows); i++ {
		classes = append(classes, i)
	}
	share := func(i int) float64 { // of samples on the side that the difference is on
		below, _ := slices.BinarySearch(samples[i], 0)
		return max(float64(below), float64(len(samples[i])-below)) / float64(len(samples[i]))
	}
	coco.Holm(1-delivery.FigureConfidence, classes, share, answer)
	return rows
}

// Power returns the smallest drops that a gate of main can detect.
func (s *Source) Power(ctx context.Context, name string) ([]gate.ModelPower, error) {
	for {
		snap, err := s.snapshot()
		if err != nil {
			return nil, err
		}
		if _, there := snap.World.Main.Intent.Gates.Get(name); !there {
			return nil, snap.unknown(explain.Unknown{Kind: "gate", ID: name, Do: "gates are files under gates/ on " +
				snap.World.Main.Branch})
		}
		if slices.Contains(snap.World.PowerOf, name) {
			return plan.Powers(snap.World, name), nil
		}
		s.Requests.power(name, s.Now())
		s.Loop.Wake()
		if err := nextTurn(ctx); err != nil {
			return nil, err
		}
	}
}
