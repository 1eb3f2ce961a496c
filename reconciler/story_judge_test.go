package reconciler

// Stories of how models are judged: seeds, thresholds, labels, looks, anchors, and
// what is only tried.

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/words"
)

// with adds lines to a model's or a gate's file.
func withLines(file string, lines ...string) string { return file + strings.Join(lines, "\n") + "\n" }

// started counts the runs of a kind that were ever begun.
func (s *sim) started(kind delivery.RunKind) int {
	n := 0
	for _, r := range s.runs.states {
		if r.Spec.Kind == kind {
			n++
		}
	}
	return n
}

// released brings a branch to main and its devices.
func (s *sim) ships(branch string) {
	s.helper()
	s.settle()
	s.merge(branch)
	s.settle()
}

// Of several seeds each is trained once, the best on validation ships, and their
// spread is told. The best one alone needs no training then.
func TestSeeds(t *testing.T) {
	s, _ := begun(t)
	seeds := func(list string) string { return withLines(model("shapes", 8), "  seeds: "+list) }
	s.repo.commit("seeds", s.main(), s.now, map[string]string{"models/shapes.yaml": seeds("[1, 3, 2]")})
	s.forge.open("seeds", "dev")
	s.settle()
	s.want("seeds", delivery.CheckSuccess, "version 1", "mAP 0.6200")
	s.wantContext("seeds", delivery.ContextTrain, delivery.CheckSuccess,
		code.TrainedBest, "seed 3", "0.6200", "0.6000 to 0.6200")
	if n := s.started(delivery.RunTrain); n != 3 {
		t.Errorf("%d trainings, want 3", n)
	}
	s.ships("seeds")
	s.repo.commit("one", s.main(), s.now, map[string]string{"models/shapes.yaml": seeds("[3]")})
	s.forge.open("one", "dev")
	s.settle()
	s.want("one", delivery.CheckSuccess)
	if n := s.started(delivery.RunTrain); n != 3 {
		t.Errorf("%d trainings, want no further one", n)
	}
	s.quiet()
}

// A pull request that changes thresholds trains nothing and infers nothing, and is
// a model of its own that devices get.
func TestThresholdsAlone(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.ships("first")
	trainings, inferred := s.started(delivery.RunTrain), len(s.inferred)
	s.repo.commit("second", s.main(), s.now, map[string]string{"models/shapes.yaml": withLines(model("shapes", 8),
		"thresholds: {default: bestF1, circle: {precision: 0.95}}")})
	s.forge.open("second", "dev")
	s.settle()
	s.want("second", delivery.CheckSuccess, "version 2")
	s.wantContext("second", delivery.ContextTrain, delivery.CheckSuccess, "thresholds circle from 0.5, square from 0.5")
	if s.started(delivery.RunTrain) != trainings || len(s.inferred) != inferred {
		t.Errorf("it cost %d trainings and %d inferences", s.started(delivery.RunTrain)-trainings,
			len(s.inferred)-inferred)
	}
	s.ships("second")
	if got := s.serving(); got != "2 2 2" {
		t.Errorf("devices serve %s", got)
	}
	// A gate that asks for what is measured at thresholds fails a model without them.
	gate := withLines(gateFile("production", "shapes", 0.3), "  - {metric: recall, at: threshold, min: 0.5}")
	s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": gate})
	s.repo.commit("without", s.main(), s.now, map[string]string{"models/shapes.yaml": model("shapes", 14)})
	s.forge.open("without", "dev")
	s.settle()
	s.want("without", delivery.CheckFailure,
		"recall: the model has no thresholds; add thresholds: {default: bestF1} to it")
	s.repo.commit("without", s.head("without"), s.now,
		map[string]string{"models/shapes.yaml": withLines(model("shapes", 14), "thresholds: {default: 0.4}")})
	s.settle()
	s.want("without", delivery.CheckSuccess, "version 3")
	s.quiet()
}

// Corrected labels score again what is stored: nothing is trained, nothing inferred.
func TestCorrectedLabels(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.ships("first")
	s.propose("second", 14)
	s.settle()
	trainings, inferred, scored := s.started(delivery.RunTrain), len(s.inferred), s.started(delivery.RunEval)
	s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": strings.Replace(
		gateFile("production", "shapes", 0.3), "dir: shapes", "dir: shapes/labels-2", 1)})
	s.settle()
	s.want("second", delivery.CheckSuccess)
	if s.started(delivery.RunTrain) != trainings || len(s.inferred) != inferred ||
		s.started(delivery.RunEval) == scored {
		t.Errorf("it cost %d trainings, %d inferences and %d evaluations", s.started(delivery.RunTrain)-trainings,
			len(s.inferred)-inferred, s.started(delivery.RunEval)-scored)
	}
}

// An eval set judges so many models against one release; further ones are for an
// owner. What was judged before stays what it was.
func TestLooks(t *testing.T) {
	s, _ := begun(t)
	s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": withLines(gateFile("production",
		"shapes", 0.3), "looks: 2")})
	s.propose("first", 8)
	s.ships("first")
	for i, branch := range []string{"a", "b", "c"} {
		s.repo.commit(branch, s.main(), s.now, map[string]string{"models/shapes.yaml": withLines(model("shapes", 14),
			fmt.Sprintf("  seeds: [%d]", i+1))})
		s.forge.open(branch, "dev")
		s.settle()
	}
	for _, branch := range []string{"a", "b"} {
		s.want(branch, delivery.CheckSuccess, "version 2")
	}
	s.want("c", delivery.CheckPending, "unsure: an owner may accept",
		"this is model 3 that the eval set compares with this release, and the gate allows 2")
	s.restart()
	s.settle()
	s.want("a", delivery.CheckSuccess)
	s.want("c", delivery.CheckPending)
	// Against the next release it counts anew.
	s.merge("b")
	for _, branch := range []string{"a", "c"} {
		s.forge.prs[s.forge.open(branch, "dev")].closed = true
	}
	s.settle()
	s.repo.commit("d", s.main(), s.now, map[string]string{"models/shapes.yaml": model("shapes", 20)})
	s.forge.open("d", "dev")
	s.settle()
	if c := s.check(s.head("d"), delivery.ContextGate+"production"); strings.Contains(c.Description,
		"judges against this release") {
		t.Errorf("the first against the next release: %s", c.Description)
	}
}

// A version stays the measure, however small the steps down are.
func TestAnchor(t *testing.T) {
	s, _ := begun(t)
	s.quality[14], s.quality[20] = 0.585, 0.57 // each a little worse than the one before
	gate := withLines(gateFile("production", "shapes", 0.3), "  - {metric: mAP, maxDrop: 0.02, against: shapes@1}")
	s.propose("first", 8)
	s.ships("first")
	s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": gate})
	s.propose("second", 14)
	s.ships("second")
	s.propose("third", 20)
	s.settle()
	s.want("third", delivery.CheckFailure, "mAP 0.5700, shapes@1 0.6000: -0.0300, at best")
	s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": strings.Replace(gate, "shapes@1",
		"shapes@7", 1)})
	s.settle()
	s.want("third", delivery.CheckFailure, "shapes@7 is no released version")
	s.quiet()
}

// A version keeps its number when its model gets another name, and stays the measure.
func TestAnchorOfRenamedModel(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.ships("first")
	s.repo.commit("renamed", s.main(), s.now, map[string]string{"models/shapes.yaml": "",
		"models/shapes.release.yaml": "", "models/forms.yaml": withLines(model("forms", 14), "was: shapes"),
		"gates/production.yaml": gateFile("production", "forms", 0.3), "fleets/demo.yaml": fleet("demo", "forms", "")})
	s.forge.open("renamed", "dev")
	s.settle()
	s.want("renamed", delivery.CheckSuccess, "version 2")
	s.ships("renamed")
	s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": withLines(gateFile("production",
		"forms", 0.3), "  - {metric: AP50, maxDrop: 0.02, against: forms@1}")})
	s.quality[9] = 0.69
	s.repo.commit("third", s.main(), s.now, map[string]string{"models/forms.yaml": strings.Replace(model("shapes", 9),
		"name: shapes", "name: forms", 1)})
	s.forge.open("third", "dev")
	s.settle()
	s.want("third", delivery.CheckSuccess, "version 3")
	if v := s.verdict(); len(v.Checks) != 3 ||
		!strings.Contains(words.Reason(v.Checks[2]), "AP50 0.6900, forms@1 0.6000: +0.0900") {
		t.Errorf("%+v", v.Checks)
	}
}

// A draft is trained, and shown what it does on its validation split: no gate's
// eval set is opened before it is ready.
func TestDraft(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.ships("first")
	s.propose("idea", 14)
	pr := s.forge.prs[s.forge.open("idea", "dev")]
	pr.Draft = true
	evals := s.evaluated("test")
	s.settle()
	s.want("idea", delivery.CheckPending, "draft: mAP 0.7000 on 50 validation images, release 0.6000: +0.1000",
		"gates judge it when the pull request is ready for review")
	if n := s.evaluated("test"); n != evals {
		t.Errorf("the gate's eval set was opened for a draft: %d evaluations", n-evals)
	}
	pr.Draft = false
	s.settle()
	s.want("idea", delivery.CheckSuccess, "version 2")
}

// evaluated counts the evaluations on a split.
func (s *sim) evaluated(split string) int {
	n := 0
	for _, r := range s.runs.states {
		if r.Spec.Eval != nil && r.Spec.Eval.EvalSet.Split == split {
			n++
		}
	}
	return n
}

// A class is renamed in two pull requests: the gate's labels first, under which the release still counts.
func TestRenamedClass(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.ships("first")
	renamed := strings.Replace(model("shapes", 14), "[circle, square]", "{circle: [circle], box: [square]}", 1)
	s.proposes("renamed", map[string]string{"models/shapes.yaml": renamed})
	s.want("renamed", delivery.CheckFailure, "gate production requires class square, and models/shapes.yaml does "+
		"not have it", "labels: {square: [square, box]}")
	gate := strings.Replace(gateFile("production", "shapes", 0.3), "[circle, square]",
		"[circle, box]\nlabels: {box: [square, box]}", 1)
	both := map[string]string{"models/shapes.yaml": renamed, "gates/production.yaml": gate}
	s.proposes("both", both)
	s.want("both", delivery.CheckFailure, "gate production requires class square")
	s.proposes("gate", map[string]string{"gates/production.yaml": gate})
	s.want("gate", delivery.CheckSuccess, "no model change; gates: production")
	s.merge("gate")
	s.settle()
	s.want("renamed", delivery.CheckSuccess, "version 2")
	s.wantContext("renamed", delivery.ContextGate+"production", delivery.CheckSuccess,
		"mAP 0.7000 >= 0.3; passed 2 of 2")
	s.ships("renamed")
	if got := s.serving(); got != "2 2 2" {
		t.Errorf("devices serve %s", got)
	}
	s.quiet()
}

// try asks for an experiment, as aob try does, and returns its ID.
func (s *sim) try(by string, epochs ...int) string {
	s.helper()
	var variants []plan.Variant
	for _, n := range epochs {
		in, complaints := parsed.Parse([]intent.File{{Path: "models/shapes.yaml",
			Data: []byte(withLines(model("shapes", n), "  seeds: [1, 2]"))}})
		if len(complaints) > 0 {
			s.fail("%v", complaints)
		}
		variants = append(variants, plan.Variant{Set: []string{fmt.Sprintf("train.epochs=%d", n)},
			Model: in.Models.Of("shapes")})
	}
	t := plan.NewTrial("shapes", variants, by, s.now)
	body, err := json.Marshal(t)
	if err != nil {
		s.fail("%v", err)
	}
	s.ledger.trials[t.ID] = body
	s.tried = append(s.tried, variants...)
	s.forgetTrials()
	s.wake()
	return t.ID
}

func (s *sim) trial(id string) plan.TrialReport {
	s.helper()
	for _, t := range s.loop.observed.plan.Trials {
		if t.Trial.ID == id {
			return t
		}
	}
	s.fail("no experiment %s", id)
	return plan.TrialReport{}
}

// finishOne lets a running run of a kind end, where there is one.
func (s *sim) finishOne(kind delivery.RunKind) {
	if key := s.runs.running(kind); key != "" {
		s.runs.finish(key)
	}
}

// An experiment trains every variant and seed once and is judged on validation
// alone. A pull request with the winner's values trains nothing. Whatever is killed
// on the way is not done again.
func TestTry(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.ships("first")
	s.server.Trainings = 2
	s.restart()
	evals := s.evaluated("test")
	id := s.try("maria", 8, 14, 20)
	for s.started(delivery.RunTrain) < 4 { // half-way
		s.turn()
		if n := s.runs.active(); n > 2 {
			t.Fatalf("%d runs at once", n)
		}
		s.finishOne(delivery.RunTrain)
		s.finishOne(delivery.RunData)
	}
	s.restart()
	if again := s.try("jonas", 8, 14, 20); again != id {
		t.Errorf("the same experiment is another one: %s and %s", id, again)
	}
	s.settle()
	r := s.trial(id)
	if r.State != delivery.CheckSuccess || r.Trained != 6 || r.Total != 6 || r.Known != 6 {
		t.Errorf("%s: %s, %d of %d", r.State, r.Fact, r.Trained, r.Total)
	}
	// The first, with seed 1, was trained for its pull request.
	if n := s.started(delivery.RunTrain); n != 6 {
		t.Errorf("%d trainings, want 6", n)
	}
	best := r.Variants[2]
	if best.Score == nil || best.Score.Scores.Values["mAP"] != s.quality[20]+0.01 || best.Diff == nil ||
		len(best.Seeds) != 2 {
		t.Fatalf("the best: %+v", best)
	}
	for _, c := range []struct{ a, b, of, with, err string }{
		{best.ID, "release", best.ID, "release, shapes@1", ""},
		{"release", best.ID, "release, shapes@1", best.ID, ""},
		{"shapes@1", best.ID[:6], "shapes@1", best.ID, ""},
		{"shapes@1", "release", "shapes@1", "release, shapes@1", "same model"},
		{"release", "#1", "", "", "pull request"},
		{"release", "release", "", "", "both sides are `release`"},
		{"release", "nothing", "", "", "variant"},
	} {
		shown, err := s.source().Compare(t.Context(), c.a, c.b)
		if !strings.HasPrefix(shown.A, c.of) || !strings.HasPrefix(shown.B, c.with) ||
			(err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s and %s: %q and %q, %v", c.a, c.b, shown.A, shown.B, err)
		}
	}
	if n := s.evaluated("test"); n != evals {
		t.Errorf("an experiment opened a gate's eval set: %d evaluations", n-evals)
	}
	s.settle() // the comparisons are worked on
	s.quiet()
	s.repo.commit("winner", s.main(), s.now, map[string]string{"models/shapes.yaml": withLines(model("shapes", 20),
		"  seeds: [1, 2]")})
	s.forge.open("winner", "dev")
	s.settle()
	s.want("winner", delivery.CheckSuccess, "version 2")
	if n := s.started(delivery.RunTrain); n != 6 {
		t.Errorf("the winner's pull request trained %d models", n-6)
	}
	// Forgotten, it ends what only it needed.
	other := s.try("maria", 1)
	s.turn()
	s.finishOne(delivery.RunData)
	for s.runs.running(delivery.RunTrain) == "" {
		s.turn()
	}
	delete(s.ledger.trials, other)
	s.forgetTrials()
	s.wake()
	s.turn()
	if n := s.runs.active(); n != 0 {
		t.Errorf("%d runs go on for an experiment that was stopped", n)
	}
}

// Bounds over many classes at a high confidence take more resamples, of floors and of
// drops.
func TestResamplesAsked(t *testing.T) {
	s, _ := begun(t)
	s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": withLines(gateFile("production",
		"shapes", 0.3), "  - {metric: AP, classes: all, min: 0.1, confidence: 99.9%}")})
	s.propose("first", 8)
	s.ships("first")
	s.propose("second", 14)
	s.settle()
	s.want("second", delivery.CheckSuccess)
	asked := map[delivery.RunKind]int{}
	for _, r := range s.runs.states {
		switch {
		case r.Spec.Compare != nil:
			asked[delivery.RunCompare] = r.Spec.Compare.Resamples
		case r.Spec.Eval != nil && r.Spec.Eval.EvalSet.Split == "test" && r.Spec.Eval.Resamples > 0:
			asked[delivery.RunEval] = r.Spec.Eval.Resamples
		}
	}
	if asked[delivery.RunCompare] != 2000 || asked[delivery.RunEval] != 2000 {
		t.Errorf("resamples: %v, want 2000 of both", asked)
	}
}
