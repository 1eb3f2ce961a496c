package plan

// This file runs experiments, which have no branch. They are judged on the validation split only, so that the eval sets
// of gates are not used up. A pull request with the same values reuses their trainings.

import (
	"fmt"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A Trial is an experiment: variants of one model.
type Trial struct {
	ID       string    `json:"id"`
	Model    string    `json:"model"`
	By       string    `json:"by"`
	Note     string    `json:"note,omitempty"`
	At       time.Time `json:"at"`
	Variants []Variant `json:"variants"`
}

// A Variant is one variant of an experiment.
type Variant struct {
	Set   []string       `json:"set"` // changes to the file, as train.optimizer.lr=2e-4
	Model delivery.Model `json:"model"`
}

// NewTrial makes an experiment. Its ID depends on its content, so the same experiment has the same ID.
func NewTrial(model string, variants []Variant, by string, at time.Time) Trial {
	specs := delivery.Each(variants, func(v Variant) delivery.Digest { return v.Model.SpecDigest() })
	return Trial{ID: delivery.DigestOf("trial", []any{model, specs}).Hex()[:10], Model: model, By: by, At: at,
		Variants: variants}
}

// A TrialReport is the state of an experiment.
type TrialReport struct {
	Trial    Trial
	State    delivery.CheckState
	Fact     delivery.Fact
	Release  *delivery.Release // main's release, for comparison; nil for none
	Variants []VariantReport
	Known    int               // trainings that existed before
	Trained  int               // trainings that are done
	Total    int               // trainings in all
	Left     time.Duration     // about how long the rest takes; 0 if unknown
	Runs     []delivery.Digest // of its content
}

// A VariantReport is the state of one variant. Differences are to main's release on the same validation images.
type VariantReport struct {
	ID     string // of its spec, for aob compare
	Spec   delivery.Digest
	State  delivery.CheckState
	Fact   delivery.Fact
	Seeds  []SeedReport
	Bundle delivery.Digest      // of the best seed, with thresholds if the spec has any
	Score  *delivery.Scores     // of the bundle, on the validation split
	Diff   *delivery.Difference // of mAP, to main's release
}

// A SeedReport is the state of one seed's training.
type SeedReport struct {
	Seed   int64
	Run    delivery.Digest // empty if it was trained before
	State  delivery.CheckState
	Fact   delivery.Fact
	Bundle delivery.Digest
	Score  *delivery.Scores // on the validation split
	Key    delivery.Digest  // of its run; empty if none has begun
}

// VariantID returns the short ID of a variant for people.
func VariantID(spec delivery.Digest) string { return spec.Hex()[:10] }

// trial takes an experiment as far as the observed state allows.
func (m *maker) trial(t Trial) TrialReport {
	r := TrialReport{Trial: t, State: delivery.CheckSuccess}
	requester := Proposal{Permission: delivery.PermissionWrite,
		PullRequest: delivery.PullRequest{Number: -1 - len(m.plan.Trials)}}
	var gates []judged
	for _, name := range m.w.Main.Intent.Covering(t.Model) {
		gates = append(gates, judged{name: name, gate: m.w.Main.Intent.Gates.Of(name)})
	}
	r.Release = m.baseline(m.w.names(t.Model))
	for _, name := range m.w.names(t.Model) { // people compare variants with earlier releases
		for _, a := range m.w.Evidence.Accepted[name] {
			m.hasScores(a.Bundle)
		}
	}
	for _, v := range t.Variants {
		r.Variants = append(r.Variants, m.variant(&r, requester, v, gates))
	}
	broken := 0
	for _, v := range r.Variants {
		switch v.State {
		case delivery.CheckSuccess:
		case delivery.CheckPending:
			r.State = delivery.CheckPending
		default:
			broken++
		}
	}
	if broken > 0 && r.State == delivery.CheckSuccess {
		r.State = delivery.CheckFailure
	}
	r.Fact = fact(code.TrialProgress, values{Counts: map[string]int{"trained": r.Trained, "total": r.Total,
		"failed": broken}})
	r.Left = m.timeLeft(r)
	r.Runs = m.runs[requester.Number]
	return r
}

// variant takes one variant through data, trainings and validation.
func (m *maker) variant(t *TrialReport, requester Proposal, v Variant, gates []judged) VariantReport {
	mdl := v.Model
	p := &progress{ModelReport: ModelReport{Model: mdl.Name, Spec: mdl.SpecDigest(), Baseline: t.Release},
		names: m.w.names(mdl.Name), model: mdl,
		run: m.runner(requester, "", fmt.Sprintf("%s, trial %s", mdl.Name, t.Trial.ID))}
	out := VariantReport{ID: VariantID(p.Spec), Spec: p.Spec}
	for _, seed := range mdl.Train.Seeds {
		out.Seeds = append(out.Seeds, SeedReport{Seed: seed, State: delivery.CheckPending})
	}
	t.Total += len(mdl.Train.Seeds)
	wait := func() VariantReport {
		out.State, out.Fact = blockedBy(p.Stages)
		if p.Seeds != nil {
			out.Seeds = p.Seeds
		}
		return out
	}
	if !m.readData(p, gates) {
		m.keepTrainingsOf(requester, mdl)
		return wait()
	}
	// Every seed is validated, also a single one, because the experiment asks for its score.
	bundle, ok := m.trained(p)
	for i := range p.Seeds {
		s := &p.Seeds[i]
		if s.Bundle == "" {
			continue
		}
		t.Trained++
		if s.Run == "" {
			t.Known++
		}
		if score, stage := m.scoreOnOwn(p, s.Bundle, p.data.Valid); stage.State == delivery.CheckSuccess {
			s.Score = &score
		} else {
			s.State, s.Fact = stage.State, stage.Fact.In(code.OfValidation, values{})
		}
	}
	out.Seeds = p.Seeds
	if !ok {
		return wait()
	}
	score, compare, stage := m.validated(p, bundle)
	if stage.State != delivery.CheckSuccess {
		p.stage(delivery.ContextEval, stage.State, stage.Fact)
		return wait()
	}
	out.State, out.Bundle, out.Score = delivery.CheckSuccess, bundle, score
	if compare != nil {
		if d, ok := compare.Compared(delivery.MetricMAP, compare.Classes); ok {
			out.Diff = &d
		}
	}
	out.Fact = fact(code.Validated, values{Value: score.Scores.Values[delivery.MetricMAP], Images: score.Scores.Images})
	return out
}

// validated scores a bundle and main's release on the validation split of the bundle's dataset, and compares them.
func (m *maker) validated(r *progress, bundle delivery.Digest) (*delivery.Scores, *delivery.CompareResult, Stage) {
	if r.data.Valid.Count == 0 {
		return nil, nil, failed(fact(code.NoValidation, values{}))
	}
	score, stage := m.scoreOnOwn(r, bundle, r.data.Valid)
	if stage.State != delivery.CheckSuccess || r.Baseline == nil || r.Baseline.Bundle == bundle {
		return &score, nil, stage
	}
	base, stage := m.scoreOnOwn(r, r.Baseline.Bundle, r.data.Valid)
	if stage.State == delivery.CheckFailure {
		return &score, nil, Stage{State: delivery.CheckSuccess} // the release is gone: no comparison
	}
	if stage.State != delivery.CheckSuccess {
		stage.Fact = stage.Fact.In(code.OfBaseline, values{})
		return &score, nil, stage
	}
	compare, _, stage := m.compare(score, base, delivery.Gate{}, r.run)
	return &score, compare, stage
}

// timeLeft estimates the remaining time of an experiment's trainings, from the time per epoch of finished ones and the
// number that may run at once.
func (m *maker) timeLeft(r TrialReport) time.Duration {
	var spent time.Duration
	epochs := 0
	for _, s := range m.w.Runs {
		if s.Spec.Train != nil && s.Phase == delivery.RunDone && s.Ended.After(s.Started) {
			spent += s.Ended.Sub(s.Started)
			epochs += s.Spec.Train.Spec.Train.Epochs
		}
	}
	if epochs == 0 {
		return 0
	}
	rest := 0
	for i, v := range r.Variants {
		for _, s := range v.Seeds {
			if s.Bundle == "" && s.State == delivery.CheckPending {
				rest += r.Trial.Variants[i].Model.Train.Epochs
			}
		}
	}
	at := max(1, m.w.Server.Trainings)
	if m.w.Server.Trainings == 0 {
		at = max(1, r.Total-r.Trained)
	}
	return spent / time.Duration(epochs) * time.Duration(rest) / time.Duration(at)
}

// wanted runs the comparisons that somebody waits for.
func (m *maker) wanted() {
	for _, input := range m.w.Wanted {
		m.run(delivery.RunSpec{Key: delivery.CompareKey(input), Kind: delivery.RunCompare, Limit: m.w.Server.EvalTime,
			Compare: &input, Note: "aob compare"}, Proposal{Permission: delivery.PermissionWrite}, "")
	}
}

// best returns the seed with the highest mAP on validation, the first of equal ones.
func best(seeds []SeedReport) int {
	return slices.IndexFunc(seeds, func(s SeedReport) bool {
		return !slices.ContainsFunc(seeds, func(o SeedReport) bool {
			return o.Score.Scores.Values["mAP"] > s.Score.Scores.Values["mAP"]
		})
	})
}
