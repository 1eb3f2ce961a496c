package archive

import (
	"crypto/rand"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/evidence"
	"github.com/autonomos/aob/reconciler/plan"
)

// An acceptance of an older aob lists no variants. Those count that all release statements of the release list.
func TestVariantsOfOldAcceptances(t *testing.T) {
	int8, fp16 := delivery.Sum([]byte("int8")), delivery.Sum([]byte("fp16"))
	statement := func(version int, variants ...delivery.JudgedVariant) delivery.ReleaseStatement {
		return delivery.ReleaseStatement{Model: "m", Version: version, Spec: "spec", Bundle: "b", Variants: variants}
	}
	a := delivery.JudgedVariant{Variant: "int8", Bundle: int8}
	b := delivery.JudgedVariant{Variant: "fp16", Bundle: fp16}
	listed := []delivery.AcceptedVariant{{Variant: "int8", Bundle: int8}}
	for name, c := range map[string]struct {
		signed     []delivery.AcceptedVariant
		statements []delivery.ReleaseStatement
		want       []delivery.AcceptedVariant
	}{
		"none":                   {nil, []delivery.ReleaseStatement{statement(1)}, nil},
		"no statement":           {nil, nil, nil},
		"one statement":          {nil, []delivery.ReleaseStatement{statement(1, a)}, listed},
		"of another version":     {nil, []delivery.ReleaseStatement{statement(2, a)}, nil},
		"not in all":             {nil, []delivery.ReleaseStatement{statement(1, a, b), statement(1, a)}, listed},
		"gone from the last":     {nil, []delivery.ReleaseStatement{statement(1, a), statement(1)}, nil},
		"what main accepted":     {listed, []delivery.ReleaseStatement{statement(1, a, b)}, listed},
		"another, of other rank": {nil, []delivery.ReleaseStatement{statement(1), statement(1, a)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			accepted := delivery.Acceptance{Model: "m", Version: 1, Spec: "spec", Bundle: "b", Variants: c.signed}
			e := indexed(&evidence.Snapshot{
				ReleasesOf:    map[delivery.Digest][]delivery.ReleaseStatement{"b": c.statements},
				AcceptancesOf: map[string][]delivery.Acceptance{"m": {accepted}}}, nil)
			got := e.Accepted["m"][0].Variants
			if len(got) == 0 {
				got = nil
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("variants (-want +got):\n%s", diff)
			}
		})
	}
}

// The version of the evidence changes with each new statement or bundle, and not with other scores.
func TestVersionOfEvidence(t *testing.T) {
	s := newShelf(t)
	a := &Archive{Bundles: s.papers.Bundles, Statements: s.papers.Statements, Log: s.papers.Log}
	last := 0
	take := func(what string, changes bool, scored ...delivery.Digest) {
		t.Helper()
		e, err := a.Evidence(t.Context(), scored)
		if err != nil || (e.Version != last) != changes {
			t.Errorf("%s: version %d after %d, %v", what, e.Version, last, err)
		}
		last = e.Version
	}
	sign := func(kind string, predicate any) {
		t.Helper()
		if err := a.Sign(t.Context(), s.bundle, kind, predicate); err != nil {
			t.Fatal(err)
		}
	}
	scores := delivery.Scores{Key: digest("score"), Input: delivery.EvalRun{Bundle: s.bundle}}
	take("first", true)
	take("again", false)
	sign(delivery.AbortType, delivery.Abort{Fleet: "line", Model: "cells", Bundle: s.bundle})
	take("an abort", true)
	take("again", false)
	sign(delivery.ScoresType, scores)
	take("scores that nobody asks for", false)
	take("the scores of the bundle", false, s.bundle)
	take("again", false, s.bundle)
	scores.Key = digest("another score")
	sign(delivery.ScoresType, scores)
	take("another score", false, s.bundle)
	take("no scores", false)
	take("again", false)
}

// What was made and removed counts as not made, so that it is made again. A bundle that was trained again counts.
func TestRemovedBundlesWereNotMade(t *testing.T) {
	training := func(run, spec, bundle delivery.Digest) delivery.Training {
		return delivery.Training{Run: run, Spec: spec, Result: delivery.TrainResult{Bundle: bundle}}
	}
	gone, kept, again := training("r1", "s1", "gone"), training("r2", "s2", "kept"), training("r1", "s1", "again")
	s := &evidence.Snapshot{
		Trainings:   map[delivery.Digest]*delivery.Training{"r1": &gone, "r2": &kept},
		TrainingsOf: map[delivery.Digest][]*delivery.Training{"s1": {&gone}, "s2": {&kept}},
		Resolved: map[delivery.Digest]delivery.Resolved{"t1": {Result: delivery.ThresholdResult{Bundle: "gone2"}},
			"t2": {Result: delivery.ThresholdResult{Bundle: "kept2"}}},
		VariantsOf: map[delivery.Digest][]delivery.MadeVariant{"kept": {
			{Result: delivery.VariantResult{Bundle: "gone3"}}, {Result: delivery.VariantResult{Bundle: "kept3"}}}},
	}
	removed := map[delivery.Digest]bool{"gone": true, "gone2": true, "gone3": true}
	e := indexed(s, removed)
	if _, there := e.BySpec["s1"]; there || e.BySpec["s2"].Bundle != "kept" {
		t.Errorf("by spec: %v", e.BySpec)
	}
	if _, there := e.ByRun["r1"]; there || e.ByRun["r2"].Bundle != "kept" {
		t.Errorf("by run: %v", e.ByRun)
	}
	if len(e.Resolved) != 1 || e.Resolved["t2"].Result.Bundle != "kept2" || len(s.Resolved) != 2 {
		t.Errorf("thresholds: %v", e.Resolved)
	}
	if got := e.Variants["kept"]; len(got) != 1 || got[0].Result.Bundle != "kept3" || len(s.VariantsOf["kept"]) != 2 {
		t.Errorf("variants: %v", got)
	}
	s.TrainingsOf["s1"] = append(s.TrainingsOf["s1"], &again)
	if e := indexed(s, removed); e.BySpec["s1"].Bundle != "again" || e.ByRun["r1"].Bundle != "again" {
		t.Errorf("trained again: %v, %v", e.BySpec["s1"], e.ByRun["r1"])
	}
}

// Evidence that grows by single statements is the same as that of all statements at once, and that of a restart.
func TestEvidenceGrows(t *testing.T) {
	s := newShelf(t)
	s.papers.Statements.Cache = filepath.Join(t.TempDir(), "verified")
	a := &Archive{Bundles: s.papers.Bundles, Statements: s.papers.Statements, Log: s.papers.Log}
	first, err := a.Evidence(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	was := len(first.Releases) + len(first.ByRun) + len(first.Accepted["cells"]) + len(first.Aborts)
	judged := []delivery.JudgedVariant{{Variant: "int8", Bundle: digest("int8")}}
	for i, p := range []struct {
		kind  string
		value any
	}{
		{delivery.TrainingType, delivery.Training{Run: digest("run 2"), Spec: digest("spec"),
			Result: delivery.TrainResult{Bundle: s.bundle}}},
		{delivery.TrainingType, delivery.Training{Run: digest("run 3"), Spec: digest("spec 2"),
			Result: delivery.TrainResult{Bundle: s.bundle}}},
		{delivery.AcceptanceType, delivery.Acceptance{Model: "cells", Version: 2, Spec: digest("spec 2"),
			Bundle: s.bundle}},
		{delivery.ReleaseType, delivery.ReleaseStatement{Model: "cells", Version: 2, Spec: digest("spec 2"),
			Bundle: s.bundle, Variants: judged}}, // the acceptance gets its variants
		{delivery.AbortType, delivery.Abort{Fleet: "line", Model: "cells", Bundle: s.bundle}},
		{delivery.AbortType, delivery.Abort{Fleet: "hall", Model: "cells", Bundle: s.bundle}},
		{delivery.VerdictType, delivery.Verdict{Key: digest("verdict"), Gate: "production", Outcome: delivery.Pass}},
	} {
		if err := a.Sign(t.Context(), s.bundle, p.kind, p.value); err != nil {
			t.Fatal(err)
		}
		got, err := a.Evidence(t.Context(), nil)
		if err != nil || got.Version != first.Version+i+1 {
			t.Fatalf("version %d, %v", got.Version, err)
		}
		want := indexed(a.last, nil)
		want.Bundles, want.Scores, want.Scored, want.Version = got.Bundles, got.Scores, got.Scored, got.Version
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(plan.Evidence{})); diff != "" {
			t.Errorf("after statement %d (-at once +grown):\n%s", i, diff)
		}
	}
	if n := len(first.Releases) + len(first.ByRun) + len(first.Accepted["cells"]) + len(first.Aborts); n != was {
		t.Errorf("the first evidence has changed: %d statements, were %d", n, was)
	}
	for range 40 { // so many that they are written to the cache
		if err := a.Sign(t.Context(), s.bundle, delivery.VerdictType, delivery.Verdict{Gate: "production",
			Key: digest(rand.Text()), Outcome: delivery.Pass}); err != nil {
			t.Fatal(err)
		}
	}
	want, err := a.Evidence(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	a.Statements.Flush()
	statements := evidence.New(s.papers.Bundles, s.key, nil)
	statements.Cache = s.papers.Statements.Cache
	again := &Archive{Bundles: s.papers.Bundles, Statements: statements, Log: s.papers.Log}
	got, err := again.Evidence(t.Context(), nil)
	if err != nil || len(again.recheck) != 1 {
		t.Fatalf("%d bundles are out of the cache, %v", len(again.recheck), err)
	}
	want.Version = got.Version
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(plan.Evidence{})); diff != "" {
		t.Errorf("after a restart (-before +after):\n%s", diff)
	}
}

// A bundle that cannot be read costs the others nothing, and counts when it can be read again.
func TestDamagedBundleIsTriedAgain(t *testing.T) {
	s := newShelf(t)
	dir := t.TempDir()
	store, err := artifact.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	push := func(model string) delivery.Digest {
		t.Helper()
		info, err := s.papers.Bundles.Describe(t.Context(), s.bundle)
		path := filepath.Join(t.TempDir(), "model.onnx")
		if err == nil {
			err = os.WriteFile(path, []byte(model), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		bundle, err := store.Push(t.Context(), artifact.Bundle{ModelPath: path, Golden: []byte("golden"),
			Labels: info.Labels, Signature: info.Signature})
		if err != nil {
			t.Fatal(err)
		}
		return bundle
	}
	good, bad := push("good"), push("bad")
	manifest := filepath.Join(dir, "blobs", "sha256", bad.Hex())
	away := filepath.Join(t.TempDir(), "manifest")
	if err := os.Rename(manifest, away); err != nil {
		t.Fatal(err)
	}
	a := &Archive{Bundles: store, Statements: evidence.New(store, s.key, nil), Log: s.papers.Log}
	take := func(want ...delivery.Digest) plan.Evidence {
		t.Helper()
		e, err := a.Evidence(t.Context(), nil)
		got := slices.Sorted(maps.Keys(e.Bundles))
		if slices.Sort(want); err != nil || !slices.Equal(got, want) {
			t.Fatalf("bundles %v instead of %v, %v", got, want, err)
		}
		return e
	}
	before := take(good)
	again := take(good)
	if again.Version != before.Version ||
		reflect.ValueOf(again.Bundles).Pointer() != reflect.ValueOf(before.Bundles).Pointer() {
		t.Error("the bundles were copied, although none has changed")
	}
	if err := os.Rename(away, manifest); err != nil {
		t.Fatal(err)
	}
	if restored := take(good, bad); restored.Version != again.Version+1 || len(again.Bundles) != 1 {
		t.Errorf("version %d after %d, and a plan that still runs sees %d bundles", restored.Version, again.Version,
			len(again.Bundles))
	}
}
