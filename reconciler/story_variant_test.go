package reconciler

// Stories of variants: the same weights in other number formats.

import (
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// varied is a model's file with variants.
func varied(epochs int, list string) string {
	return withLines(model("shapes", epochs), "variants: "+list)
}

// proposesVariants opens a pull request for a model with variants.
func (s *sim) proposesVariants(branch string, epochs int, list string) {
	s.helper()
	s.proposes(branch, map[string]string{"models/shapes.yaml": varied(epochs, list)})
}

// commentOn returns the comment of the only open pull request.
func (s *sim) commentOn(branch string) string {
	s.helper()
	for _, p := range s.forge.prs {
		if p.HeadRef == branch {
			return s.forge.comments[p.Number]
		}
	}
	s.fail("no pull request of %s", branch)
	return ""
}

// Each variant is one run, is judged by the gates of the model on the same images, and is in the release file where it
// passes. The file says where it is faster.
func TestVariants(t *testing.T) {
	s, _ := begun(t)
	s.proposesVariants("first", 8, "[fp32, fp16, int8]")
	s.want("first", delivery.CheckSuccess, "version 1", "mAP 0.6000")
	s.wantContext("first", delivery.ContextVariant+"fp16", delivery.CheckSuccess, code.VariantSlow, "1.02")
	s.wantContext("first", delivery.ContextVariant+"int8", delivery.CheckSuccess, code.VariantPasses, "1.6")
	if trained, made := s.started(delivery.RunTrain), s.started(delivery.RunVariant); trained != 1 || made != 2 {
		t.Errorf("%d trainings and %d variants, want 1 and 2", trained, made)
	}
	main, _ := s.tree(s.head("first"))
	file := main.Releases.Of("shapes")
	if len(file.Variants) != 2 {
		t.Fatalf("the release file has variants %+v", file.Variants)
	}
	for i, want := range []struct {
		variant string
		faster  float64
	}{{"fp16", 0}, {"int8", 1.6}} {
		v := file.Variants[i]
		if v.Variant != want.variant || v.Bundle == file.Bundle || v.Model == "" || v.Faster["cloud"] != want.faster {
			t.Errorf("variant %d of the file is %+v, want %+v", i, v, want)
		}
	}
	for _, text := range []string{"FP32 alone decides", "97.8 %", "dets 0.999, labels 0.998", "6.25", "a processor",
		"outputs of int8 on 32 images: cosine at least dets 0.97; largest difference dets 0.03"} {
		if comment := s.commentOn("first"); !strings.Contains(comment, text) {
			t.Errorf("the comment does not say %q:\n%s", text, comment)
		}
	}
	for _, v := range s.signed.index.Verdicts {
		if v.Look != 1 {
			t.Errorf("bundle %s has look %d: a variant is no further look", v.Bundle.Short(), v.Look)
		}
	}
	s.merge("first")
	s.settle()
	if got := s.serving(); got != "1 1 1" {
		t.Errorf("devices serve %s", got)
	}
	s.quiet()

	// Another list of variants trains nothing, and the variants that are there are not made again.
	s.proposesVariants("second", 8, "[fp32, int8]")
	s.want("second", delivery.CheckSuccess, "version 2")
	s.propose("third", 14)
	s.settle()
	for _, v := range s.signed.index.Verdicts {
		if v.Look > 1 {
			t.Errorf("bundle %s has look %d: only one model was compared with the release", v.Bundle.Short(), v.Look)
		}
	}
	if trained, made := s.started(delivery.RunTrain), s.started(delivery.RunVariant); trained != 2 || made != 2 {
		t.Errorf("%d trainings and %d variants by now, want 2 and 2", trained, made)
	}
	s.quiet()
}

// A variant that loses too much, against main's release or against FP32, is not released. FP32 is.
func TestVariantsThatLose(t *testing.T) {
	for name, c := range map[string]struct{ check, gate string }{
		"a floor": {"  - {metric: AP50, min: 0.55}\n", "AP50"},
		"against fp32": {"  - {metric: mAP, maxDrop: 0.03, against: fp32}\n",
			"mAP: drops by 0.1000"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := begun(t)
			s.loses["int8"] = 0.1
			s.pushMain(map[string]string{"gates/production.yaml": gateFile("production", "shapes", 0.3) + c.check})
			s.proposesVariants("first", 8, "[fp32, fp16, int8]")
			s.want("first", delivery.CheckSuccess, "version 1")
			s.wantContext("first", delivery.ContextVariant+"fp16", delivery.CheckSuccess, code.VariantSlow)
			s.wantContext("first", delivery.ContextVariant+"int8", delivery.CheckSuccess, code.VariantFails,
				"production")
			main, _ := s.tree(s.head("first"))
			if list := main.Releases.Of("shapes").Variants; len(list) != 1 || list[0].Variant != "fp16" {
				t.Errorf("the release file has variants %+v", list)
			}
			s.quiet()
		})
	}
}

// A variant is judged with thresholds of its own.
func TestVariantsWithThresholds(t *testing.T) {
	s, _ := begun(t)
	s.proposes("first", map[string]string{"models/shapes.yaml": withLines(varied(8, "[fp32, int8]"),
		"thresholds: {default: bestF1}")})
	s.want("first", delivery.CheckSuccess, "version 1")
	main, _ := s.tree(s.head("first"))
	list := main.Releases.Of("shapes").Variants
	if len(list) != 1 || s.signed.index.Bundles[list[0].Bundle].Thresholds == nil {
		t.Errorf("the release file has variants %+v", list)
	}
	if n := s.started(delivery.RunThresholds); n != 2 {
		t.Errorf("%d searches for thresholds, want 2", n)
	}
	s.quiet()
}

// A variant that cannot be made is said so, and FP32 is released.
func TestVariantsThatCannotBeMade(t *testing.T) {
	s, _ := begun(t)
	s.runs.fail = map[delivery.RunKind]string{delivery.RunVariant: "the trainer failed: no Conv"}
	s.proposesVariants("first", 8, "[fp32, int8]")
	s.want("first", delivery.CheckSuccess, "version 1")
	s.wantContext("first", delivery.ContextVariant+"int8", delivery.CheckFailure, code.VariantFailed, "no Conv")
	if comment := s.commentOn("first"); !strings.Contains(comment, "no Conv") {
		t.Errorf("the comment does not say why:\n%s", comment)
	}
	s.ships("first")
	if got := s.serving(); got != "1 1 1" {
		t.Errorf("devices serve %s", got)
	}
	s.quiet()
}

// FP32 fails, so its variants are made and not judged: their verdicts would change nothing.
func TestVariantsWaitForFP32(t *testing.T) {
	s, _ := begun(t)
	s.proposesVariants("first", 1, "[fp32, int8]")
	s.want("first", delivery.CheckFailure)
	s.wantContext("first", delivery.ContextVariant+"int8", delivery.CheckPending, code.VariantAwaits)
	for _, r := range s.runs.states {
		if e := r.Spec.Eval; e != nil && s.signed.variants[e.Bundle] != "" {
			t.Errorf("a variant was evaluated on %s", e.EvalSet)
		}
	}
	s.quiet()
}

// The run that makes a variant is started again when it dies, ends when another content is pushed, and holds the
// release back while it is at work.
func TestVariantsAreRuns(t *testing.T) {
	s, _ := begun(t)
	s.repo.commit("first", s.main(), s.now, map[string]string{"models/shapes.yaml": varied(8, "[fp32, int8]")})
	s.forge.open("first", "dev")
	var key delivery.Digest
	for range 100 {
		s.turn()
		if key = s.runs.running(delivery.RunVariant); key != "" {
			break
		}
		s.runs.finishAll()
	}
	state := s.runs.states[key]
	state.Phase = delivery.RunDied
	s.turn()
	if state.Phase != delivery.RunRunning || state.Attempt != 2 {
		t.Fatalf("it died, and is %s in attempt %d", state.Phase, state.Attempt)
	}
	for range 20 { // everything else is done
		s.turn()
		for k, r := range s.runs.states {
			if k != key && r.Phase == delivery.RunRunning {
				s.runs.finish(k)
			}
		}
	}
	s.want("first", delivery.CheckPending, "variant int8")
	s.repo.commit("first", s.head("first"), s.now, map[string]string{"models/shapes.yaml": model("shapes", 8)})
	s.settle()
	if state.Phase != delivery.RunStopped {
		t.Errorf("the variant is not asked for any more, and its run is %s", state.Phase)
	}
	s.want("first", delivery.CheckSuccess, "version 1")
	s.quiet()
}
