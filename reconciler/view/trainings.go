package view

// This file lists what was trained, wherever it comes from: experiments, pull requests and releases.

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/web"
)

// Trainings returns what was trained by experiments and open pull requests and what main has released, newest first.
func (s *Source) Trainings(context.Context) ([]web.Training, error) {
	return answer(s, func(snap *Snapshot) ([]web.Training, error) { return snap.trainings(s.Commits) })
}

// trainings lists them. Without commits, nobody knows when a release was made and by whom.
func (s *Snapshot) trainings(commits Commits) ([]web.Training, error) {
	history := explain.Report{World: s.World, Plan: s.Plan}
	if commits != nil {
		if err := s.past(&history, "", "", commits); err != nil {
			return nil, fmt.Errorf("read the history of %s: %w", s.World.Main.Branch, err)
		}
	}
	var list []web.Training
	for _, t := range s.Plan.Trials {
		trial := s.trial(t)
		for _, v := range trial.Variants {
			list = append(list, web.Training{ID: v.ID, From: "try", Trial: trial.ID, Model: trial.Model,
				Title: trial.Note, Set: v.Set, By: trial.By, At: trial.At, State: v.State, Sentence: v.Sentence,
				Spec: v.Spec, Bundle: v.Bundle, Seeds: v.Seeds, MAP: v.MAP, Diff: v.Diff})
		}
	}
	for _, p := range s.Plan.Proposals {
		if p.PR.Merged { // what it released is listed as a release
			continue
		}
		for _, m := range p.Models {
			list = append(list, s.trainingOf(p.PR, m))
		}
	}
	for _, model := range slices.Sorted(maps.Keys(s.World.Evidence.Accepted)) {
		for _, a := range s.World.Evidence.Accepted[model] {
			list = append(list, s.released(a, history.Versions[model]))
		}
	}
	slices.SortStableFunc(list, func(a, b web.Training) int {
		return cmp.Or(b.At.Compare(a.At), cmp.Compare(b.Version, a.Version))
	})
	return list, nil
}

// trainingOf is a model of an open pull request.
func (s *Snapshot) trainingOf(pr delivery.PullRequest, m plan.ModelReport) web.Training {
	name := fmt.Sprintf("#%d", pr.Number)
	t := web.Training{ID: name, From: name, PR: pr.Number, Model: m.Model, Title: pr.Title, By: pr.Author,
		At: pr.Updated, State: m.State, Sentence: sentence(m.Fact), Spec: m.Spec, Bundle: m.Bundle,
		Seeds: append([]web.Seed{}, delivery.Each(m.Seeds, shownSeed)...), MAP: measuredMAP(m.Valid)}
	if m.Tried != nil {
		if d, ok := m.Tried.Compared(delivery.MetricMAP, m.Tried.Classes); ok {
			t.Diff = differenceOf(d)
		}
	}
	judged(&t, m.Measured, m.Verdicts)
	return t
}

// released is a release that main has accepted. versions are the commits of main's history with its release file.
func (s *Snapshot) released(a delivery.Acceptance, versions []explain.Version) web.Training {
	name := fmt.Sprintf("%s@%d", a.Model, a.Version)
	t := web.Training{ID: name, From: name, Model: a.Model, Version: a.Version, State: delivery.CheckSuccess,
		Sentence: sentence(delivery.Fact{Code: code.ChainAccepted, Values: delivery.Values{
			Branch: s.World.Main.Branch, Version: a.Version}}),
		Spec: a.Spec, Bundle: a.Bundle, Seeds: []web.Seed{}}
	if why, forbidden := s.World.Main.Intent.Quarantines.Of(a.Model).Forbids(a.Bundle); forbidden {
		t.State = delivery.CheckFailure
		t.Sentence = sentence(delivery.Fact{Code: code.ChainMustNotRun, Values: delivery.Values{Text: why,
			File: "models/" + a.Model + ".quarantine.yaml"}})
	}
	at := slices.IndexFunc(versions, func(v explain.Version) bool { return v.Commit == a.Commit })
	if at < 0 {
		at = slices.IndexFunc(versions, func(v explain.Version) bool {
			return v.Release != nil && v.Release.Version == a.Version && v.Release.Bundle == a.Bundle
		})
	}
	if at >= 0 {
		t.Title, t.By, t.At = versions[at].Subject, versions[at].Author, versions[at].At
		if pulls := delivery.Pulls(t.Title); len(pulls) > 0 {
			t.PR = pulls[0]
		}
	}
	trained, known := s.World.Evidence.BySpec[a.Spec]
	if known {
		for _, seed := range trained.Training.Seeds {
			t.Seeds = append(t.Seeds, web.Seed{Seed: seed.Seed, State: delivery.CheckSuccess, Bundle: seed.Bundle,
				MAP: &seed.MAP})
		}
		if len(t.Seeds) == 0 {
			t.Seeds = append(t.Seeds, web.Seed{Seed: trained.Training.Input.Seed, State: delivery.CheckSuccess,
				Bundle: a.Bundle})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.World.Evidence.Scores)) {
		sc := s.World.Evidence.Scores[key]
		e := sc.Content.EvalSet
		if s.World.Evidence.ScoresOf(a.Bundle, sc.Input) && e.Split == "valid" &&
			(!known || e.Dataset.String() == trained.Training.Input.Spec.Dataset) {
			t.MAP = measuredMAP(&sc)
			break
		}
	}
	for _, r := range s.World.Evidence.Releases {
		if r.Model == a.Model && r.Version == a.Version && r.Bundle == a.Bundle {
			judged(&t, r.File.Measured, delivery.Each(r.Gates, func(g delivery.GateJudged) delivery.Verdict {
				return g.Verdict
			}))
			break
		}
	}
	return t
}

// judged adds what the first gate that measures mAP has found.
func judged(t *web.Training, measured []delivery.Measured, verdicts []delivery.Verdict) {
	for _, m := range measured {
		figure, ok := m.Metrics[delivery.MetricMAP]
		if !ok {
			continue
		}
		t.Gate, t.GateMAP = m.Gate, &figure
		verdict, _ := delivery.Find(verdicts, func(v delivery.Verdict) bool { return v.Gate == m.Gate })
		if diff, ok := m.Change(delivery.MetricMAP, verdict); ok {
			t.GateDiff = &diff
		}
		return
	}
}
