package evidence_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/evidence"
	"github.com/autonomos/aob/reconciler/trust"
)

// ignored are the fields of a snapshot that repeat others, or count.
var ignored = cmpopts.IgnoreFields(evidence.Snapshot{}, "Version", "Releases")

func digest(text string) delivery.Digest { return delivery.Sum([]byte(text)) }

func key(t testing.TB) *trust.Key {
	t.Helper()
	k, err := trust.Create(filepath.Join(t.TempDir(), "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func public(keys ...*trust.Key) []trust.PublicKey {
	var list []trust.PublicKey
	for _, k := range keys {
		list = append(list, k.Public())
	}
	return list
}

// bundlesIn opens a folder and pushes n bundles into it.
func bundlesIn(t testing.TB, dir string, n int) (*artifact.Store, []delivery.Digest) {
	t.Helper()
	s, err := artifact.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var digests []delivery.Digest
	for i := range n {
		model := filepath.Join(t.TempDir(), "model.onnx")
		if err := os.WriteFile(model, fmt.Appendf(nil, "onnx %d", i), 0o644); err != nil {
			t.Fatal(err)
		}
		d, err := s.Push(t.Context(), artifact.Bundle{ModelPath: model, Signature: delivery.Signature{SchemaVersion: 1},
			Golden: []byte("golden"), Labels: []string{"pallet"}})
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, d)
	}
	return s, digests
}

func training(bundle delivery.Digest, run string) delivery.Training {
	return delivery.Training{Run: digest(run), Spec: digest("spec"), Result: delivery.TrainResult{Bundle: bundle,
		Size: 6, Trainer: []byte(`{"torch":"2"}`)}}
}

func scoresOf(bundle delivery.Digest, k string) delivery.Scores {
	return delivery.Scores{Key: digest(k), Input: delivery.EvalRun{Bundle: bundle},
		Scores: delivery.ScoreSet{Values: map[string]float64{"mAP": 0.44},
			Table: delivery.Table{Classes: []string{"a"}, Columns: map[string][]delivery.Row{
				"AP": {{Value: 0.44, Resamples: []float64{0.4, 0.44, 0.5}}}}}}}
}

func resolvedOf(bundle delivery.Digest, k string) delivery.Resolved {
	return delivery.Resolved{Key: digest(k),
		Input: delivery.ThresholdRun{Valid: delivery.EvalRun{Bundle: digest("trained")},
			Ask: delivery.Thresholds{"default": {BestF1: true}}},
		Result: delivery.ThresholdResult{Bundle: bundle, Size: 6,
			Points: map[string]delivery.OperatingPoint{"pallet": {Score: 0.4, Precision: 0.9, Recall: 0.8,
				Truths: 12}}}}
}

func variantOf(bundle delivery.Digest, k string) delivery.MadeVariant {
	return delivery.MadeVariant{Key: digest(k), Input: delivery.VariantRun{Variant: "int8", Bundle: digest("trained")},
		Result: delivery.VariantResult{Bundle: bundle, Times: delivery.Times{Rounds: []delivery.Round{{FP32: 0.2,
			Variant: 0.1}}}}}
}

// benchOf is the bench of a machine that takes 10 ms for an image.
func benchOf(bundle delivery.Digest) delivery.Bench {
	b := delivery.Bench{Model: digest("model"), Hardware: digest("profile"), At: time.Unix(1.8e9, 0).UTC(),
		BenchRun: delivery.BenchRun{Bundle: bundle, Profile: "cpu-fp32", Settings: delivery.GateBench()},
		Machine:  delivery.BenchMachine{Cores: 2, Threads: 2, Platform: "linux/arm64"}}
	times := delivery.BenchTimes{P50: 0.01, P90: 0.01, P95: 0.01, P99: 0.01}
	stages := map[string]delivery.BenchTimes{}
	for _, stage := range delivery.BenchStages {
		stages[stage] = times
	}
	for range b.Settings.Repeats {
		b.Result.Repeats = append(b.Result.Repeats, delivery.BenchRepeat{Stages: stages, Throughput: 100})
	}
	b.Result.Clients = 4
	return b
}

func verdictOf(k string) delivery.Verdict {
	return delivery.Verdict{Gate: "production", Model: "pallets", Outcome: delivery.Pass, Key: digest(k)}
}

func releaseOf(bundle delivery.Digest, version int) delivery.ReleaseStatement {
	return delivery.ReleaseStatement{Model: "pallets", Version: version, Spec: digest("spec"), Bundle: bundle}
}

func acceptanceOf(bundle delivery.Digest, version int) delivery.Acceptance {
	return delivery.Acceptance{Model: "pallets", Version: version, Spec: digest("spec"), Bundle: bundle,
		Commit: "c0ffee"}
}

func abortOf(bundle delivery.Digest) delivery.Abort {
	return delivery.Abort{Fleet: "north", Model: "pallets", Bundle: bundle, Why: "2 of 3 failed",
		At: time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)}
}

// sign signs a statement about the bundle that it names.
func sign(s *evidence.Store, ctx context.Context, v any) error {
	switch v := v.(type) {
	case delivery.Training:
		return s.Sign(ctx, v.Result.Bundle, delivery.TrainingType, v)
	case delivery.Scores:
		return s.Sign(ctx, v.Input.Bundle, delivery.ScoresType, v)
	case delivery.ReleaseStatement:
		return s.Sign(ctx, v.Bundle, delivery.ReleaseType, v)
	case delivery.Acceptance:
		return s.Sign(ctx, v.Bundle, delivery.AcceptanceType, v)
	case delivery.Abort:
		return s.Sign(ctx, v.Bundle, delivery.AbortType, v)
	}
	return fmt.Errorf("%T is no statement", v)
}

// accepted returns the acceptances of a model's bundle.
func accepted(s *evidence.Snapshot, model string, bundle delivery.Digest) []delivery.Acceptance {
	return slices.DeleteFunc(slices.Clone(s.AcceptancesOf[model]), func(a delivery.Acceptance) bool {
		return a.Bundle != bundle
	})
}

// signAll signs one statement of every kind about a bundle.
func signAll(t testing.TB, s *evidence.Store, bundle delivery.Digest) {
	t.Helper()
	ctx := t.Context()
	if err := errors.Join(
		sign(s, ctx, training(bundle, "run")),
		sign(s, ctx, scoresOf(bundle, "score")),
		s.Sign(ctx, bundle, delivery.ThresholdsType, resolvedOf(bundle, "thresholds")),
		s.Sign(ctx, bundle, delivery.VariantType, variantOf(bundle, "variant")),
		s.Sign(ctx, bundle, delivery.BenchType, benchOf(bundle)),
		s.Sign(ctx, bundle, delivery.VerdictType, verdictOf("verdict")),
		sign(s, ctx, releaseOf(bundle, 1)),
		sign(s, ctx, acceptanceOf(bundle, 1)),
		sign(s, ctx, abortOf(bundle)),
	); err != nil {
		t.Fatal(err)
	}
}

func load(t testing.TB, s *evidence.Store) *evidence.Snapshot {
	t.Helper()
	snapshot, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return snapshot
}

func TestSignThenLoad(t *testing.T) {
	dir := t.TempDir()
	blobs, b := bundlesIn(t, dir, 2)
	k := key(t)
	store := evidence.New(blobs, k, nil)
	signAll(t, store, b[0])
	if err := errors.Join(
		sign(store, t.Context(), training(b[1], "run")), // trained again under the same key
		sign(store, t.Context(), training(b[1], "another run")),
		sign(store, t.Context(), acceptanceOf(b[1], 3)),
		sign(store, t.Context(), acceptanceOf(b[0], 2)), // a rollback, signed late
	); err != nil {
		t.Fatal(err)
	}
	want := &evidence.Snapshot{
		Trainings: map[delivery.Digest]*delivery.Training{digest("run"): new(training(b[0], "run")),
			digest("another run"): new(training(b[1], "another run"))},
		TrainingsOf: map[delivery.Digest][]*delivery.Training{digest("spec"): {new(training(b[0], "run")),
			new(training(b[1], "run")), new(training(b[1], "another run"))}},
		Resolved:   map[delivery.Digest]delivery.Resolved{digest("thresholds"): resolvedOf(b[0], "thresholds")},
		VariantsOf: map[delivery.Digest][]delivery.MadeVariant{digest("trained"): {variantOf(b[0], "variant")}},
		BenchesOf:  map[delivery.Digest][]delivery.Bench{b[0]: {benchOf(b[0])}},
		Verdicts:   map[delivery.Digest]delivery.Verdict{digest("verdict"): verdictOf("verdict")},
		ReleasesOf: map[delivery.Digest][]delivery.ReleaseStatement{b[0]: {releaseOf(b[0], 1)}},
		AcceptancesOf: map[string][]delivery.Acceptance{"pallets": {acceptanceOf(b[0], 1), acceptanceOf(b[0], 2),
			acceptanceOf(b[1], 3)}},
		AbortsOf: map[string][]delivery.Abort{"north": {abortOf(b[0])}},
	}
	// A copy of the folder and the public key are enough to read everything.
	moved := filepath.Join(t.TempDir(), "moved")
	if err := os.CopyFS(moved, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	elsewhere, err := artifact.Open(moved)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*evidence.Store{"the same store": store,
		"a copy, read-only": evidence.New(elsewhere, nil, public(k))} {
		got := load(t, s)
		if diff := cmp.Diff(want, got, ignored); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if r := got.ReleasesOf[b[0]]; len(r) != 1 || r[0].Spec != digest("spec") {
			t.Errorf("%s: releases %v", name, r)
		}
		if a := accepted(got, "pallets", b[0]); len(a) != 2 || len(accepted(got, "other", b[0])) != 0 {
			t.Errorf("%s: accepted %v", name, a)
		}
		if a := got.AbortsOf["north"]; len(a) != 1 || a[0].Bundle != b[0] {
			t.Errorf("%s: aborts %v", name, a)
		}
		scores, skipped, err := s.Scores(t.Context(), b)
		if diff := cmp.Diff(map[delivery.Digest]delivery.Scores{digest("score"): scoresOf(b[0], "score")},
			scores); diff != "" || err != nil || skipped != nil {
			t.Errorf("%s: scores %s, skipped %v, %v", name, diff, skipped, err)
		}
		if scores, _, err := s.Scores(t.Context(), b[1:]); len(scores) != 0 || err != nil {
			t.Errorf("%s: scores of the other bundle: %v, %v", name, scores, err)
		}
	}
}

func TestSigningAgainChangesNothing(t *testing.T) {
	dir := t.TempDir()
	blobs, b := bundlesIn(t, dir, 1)
	old, next := key(t), key(t)
	signAll(t, evidence.New(blobs, old, nil), b[0])
	before := blobFiles(t, dir)
	// With the same store, with another, and after the key was replaced.
	for name, s := range map[string]*evidence.Store{
		"the same key": evidence.New(blobs, old, nil),
		"another key":  evidence.New(blobs, next, public(old)),
		"two keys":     evidence.New(blobs, old, public(next)),
	} {
		signAll(t, s, b[0])
		load(t, s)
		signAll(t, s, b[0])
		if got := blobFiles(t, dir); got != before {
			t.Errorf("%s: the folder grew from %d files to %d", name, before, got)
		}
	}
}

// blobFiles counts the blobs of a store.
func blobFiles(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "blobs", "sha256"))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestKeysAreReplaced(t *testing.T) {
	blobs, b := bundlesIn(t, t.TempDir(), 1)
	old, next := key(t), key(t)
	if err := sign(evidence.New(blobs, old, nil), t.Context(), acceptanceOf(b[0], 1)); err != nil {
		t.Fatal(err)
	}
	both := evidence.New(blobs, next, public(old))
	if got := load(t, both); len(accepted(got, "pallets", b[0])) != 1 {
		t.Error("an acceptance by the old key is not valid any more")
	}
	alone := evidence.New(blobs, next, nil)
	got := load(t, alone)
	if len(accepted(got, "pallets", b[0])) != 0 {
		t.Error("an acceptance by an untrusted key is valid")
	}
	if len(got.Skipped) != 1 || !strings.Contains(got.Skipped[0].Why, old.ID()) ||
		!strings.Contains(got.Skipped[0].Why, next.ID()) || got.Skipped[0].Bundle != b[0] {
		t.Errorf("skipped %+v, want the reason to name both keys", got.Skipped)
	}
	// A statement that is not valid any more can be signed again. It is then listed once.
	if err := sign(alone, t.Context(), acceptanceOf(b[0], 1)); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*evidence.Store{"the new key alone": alone, "both keys": both} {
		if got := accepted(load(t, s), "pallets", b[0]); len(got) != 1 {
			t.Errorf("%s: %d acceptances, want 1", name, len(got))
		}
	}
}

func TestInvalidStatementsAreSkipped(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	k, stranger := key(t), key(t)
	const trainingType, scoresType = "application/vnd.aob.training.v1+json", "application/vnd.aob.scores.v2+json"
	statement := func(bundle delivery.Digest, predicateType string, predicate any) []byte {
		return delivery.Canonical(delivery.Statement{Type: delivery.StatementType, PredicateType: predicateType,
			Predicate: delivery.Canonical(predicate),
			Subject:   []delivery.Subject{{Name: "bundle", Digest: map[string]string{"sha256": bundle.Hex()}}}})
	}
	signed := func(k *trust.Key, payload []byte) []byte {
		envelope, err := trust.Sign(k, delivery.StatementPayload, payload)
		if err != nil {
			t.Fatal(err)
		}
		return envelope
	}
	for _, c := range []struct {
		name     string
		envelope func(one, two delivery.Digest) []byte
		want     string
	}{
		{"by an unknown key", func(one, _ delivery.Digest) []byte {
			return signed(stranger, statement(one, delivery.TrainingType, training(one, "run")))
		}, "no trusted key signed it"},
		{"about another bundle", func(_, two delivery.Digest) []byte {
			return signed(k, statement(two, delivery.TrainingType, training(two, "run")))
		}, "it is about sha256:"},
		{"with another bundle in its predicate", func(one, two delivery.Digest) []byte {
			return signed(k, statement(one, delivery.TrainingType, training(two, "run")))
		}, "its predicate is about"},
		{"about nothing", func(_, _ delivery.Digest) []byte {
			return signed(k,
				[]byte(`{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://aob.dev/training/v1"}`))
		}, "it is about nothing"},
		{"about two bundles", func(one, two delivery.Digest) []byte {
			return signed(k, delivery.Canonical(delivery.Statement{Type: delivery.StatementType,
				PredicateType: delivery.TrainingType, Predicate: delivery.Canonical(training(one, "run")),
				Subject: []delivery.Subject{{Digest: map[string]string{"sha256": one.Hex()}},
					{Digest: map[string]string{"sha256": two.Hex()}}}}))
		}, "it is about sha256:"},
		{"of another kind", func(one, _ delivery.Digest) []byte {
			return signed(k, statement(one, delivery.AcceptanceType, acceptanceOf(one, 1)))
		}, "want a predicate of type https://aob.dev/training/v1"},
		{"with a predicate of another type", func(one, _ delivery.Digest) []byte {
			return signed(k, statement(one, delivery.TrainingType, "trained"))
		}, "predicate:"},
		{"without a run key", func(one, _ delivery.Digest) []byte {
			return signed(k, statement(one, delivery.TrainingType, delivery.Training{Spec: "x",
				Result: delivery.TrainResult{Bundle: one}}))
		}, "run is empty"},
		{"not a statement", func(_, _ delivery.Digest) []byte { return signed(k, []byte("hello")) },
			"not an in-toto statement"},
		{"another version of in-toto", func(_, _ delivery.Digest) []byte {
			return signed(k, []byte(`{"_type":"https://in-toto.io/Statement/v9"}`))
		}, "want a statement of type"},
		{"a newer format under the older artifact type", func(one, _ delivery.Digest) []byte {
			return signed(k, statement(one, "https://aob.dev/training/v2", training(one, "run")))
		}, "this statement was written by a newer aob: it has format 2, and this aob reads formats up to 1"},
		{"a desired state", func(_, _ delivery.Digest) []byte {
			envelope, err := trust.Sign(k, delivery.DesiredPayload, []byte("{}"))
			if err != nil {
				t.Fatal(err)
			}
			return envelope
		}, "want a payload of type"},
		{"not signed", func(one, _ delivery.Digest) []byte {
			return statement(one, delivery.TrainingType, training(one, "run"))
		}, "not a DSSE envelope"},
	} {
		t.Run(c.name, func(t *testing.T) {
			blobs, b := bundlesIn(t, t.TempDir(), 2)
			good := evidence.New(blobs, k, nil)
			if err := sign(good, t.Context(), training(b[1], "good")); err != nil {
				t.Fatal(err)
			}
			referrer, err := blobs.Attach(t.Context(), b[0], trainingType, c.envelope(b[0], b[1]))
			if err != nil {
				t.Fatal(err)
			}
			got := load(t, evidence.New(blobs, nil, public(k)))
			if len(got.Trainings) != 1 || got.Trainings[digest("good")] == nil {
				t.Errorf("trainings %v, want only the valid one", got.Trainings)
			}
			if len(got.Skipped) != 1 || got.Skipped[0].Referrer != referrer || got.Skipped[0].Bundle != b[0] ||
				!strings.Contains(got.Skipped[0].Why, c.want) {
				t.Errorf("skipped %+v, want %s with %q", got.Skipped, referrer, c.want)
			}
			// The same holds for scores.
			if _, err := blobs.Attach(t.Context(), b[0], scoresType, c.envelope(b[0], b[1])); err != nil {
				t.Fatal(err)
			}
			scores, skipped, err := good.Scores(t.Context(), b)
			if len(scores) != 0 || len(skipped) != 1 || err != nil {
				t.Errorf("scores %v, skipped %v, %v", scores, skipped, err)
			}
		})
	}
}

// Statements in newer formats are counted, also if there is no other change.
func TestNewerStatementsAreCounted(t *testing.T) {
	blobs, b := bundlesIn(t, t.TempDir(), 2)
	k := key(t)
	store := evidence.New(blobs, k, nil)
	signAll(t, store, b[0])
	first := load(t, store)
	if len(first.Newer) != 0 {
		t.Fatalf("newer statements at the start: %v", first.Newer)
	}
	envelope, err := trust.Sign(k, delivery.StatementPayload, []byte("an unknown format"))
	if err != nil {
		t.Fatal(err)
	}
	attach := func(bundle delivery.Digest, artifactType string) {
		t.Helper()
		if _, err := blobs.Attach(t.Context(), bundle, artifactType, envelope); err != nil {
			t.Fatal(err)
		}
	}
	attach(b[0], "application/vnd.aob.acceptance.v2+json")
	attach(b[1], "application/vnd.aob.acceptance.v2+json")
	attach(b[0], "application/vnd.aob.scores.v3+json")
	attach(b[0], "application/vnd.aob.licence.v1+json")
	attach(b[0], "application/vnd.example.sbom.v7+json") // another program's
	want := []delivery.NewerStatements{{Kind: "acceptance", Format: 2, Known: 1, Count: 2}, {Kind: "licence", Format: 1,
		Count: 1},
		{Kind: "scores", Format: 3, Known: 2, Count: 1}}
	for name, s := range map[string]*evidence.Store{"the same store": store, "another": evidence.New(blobs, nil,
		public(k))} {
		got := load(t, s)
		if diff := cmp.Diff(want, got.Newer); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if len(got.Skipped) != 0 || len(accepted(got, "pallets", b[0])) != 1 {
			t.Errorf("%s: %v skipped, accepted %v", name, got.Skipped, got.AcceptancesOf)
		}
		if load(t, s) != got {
			t.Errorf("%s: a new snapshot although nothing changed", name)
		}
	}
}

// Scores of format 1 sorted the resamples of each figure. They are neither read nor complained of: what is needed of
// them is scored again under another key.
func TestScoresOfFormerFormatsAreLeftAlone(t *testing.T) {
	blobs, b := bundlesIn(t, t.TempDir(), 1)
	k := key(t)
	store := evidence.New(blobs, k, nil)
	statement, err := json.Marshal(delivery.Statement{Type: delivery.StatementType,
		Subject:       []delivery.Subject{{Name: "bundle", Digest: map[string]string{"sha256": b[0].Hex()}}},
		PredicateType: "https://aob.dev/scores/v1",
		Predicate: []byte(`{"key":"k","input":{"bundle":"` + string(b[0]) + `"},"scores":{"values":{"mAP":0.4},` +
			`"resamples":{"mAP":"gAE="}}}`)})
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := trust.Sign(k, delivery.StatementPayload, statement)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := blobs.Attach(t.Context(), b[0], "application/vnd.aob.scores.v1+json", envelope); err != nil {
		t.Fatal(err)
	}
	scores, skipped, err := store.Scores(t.Context(), b)
	if len(scores) != 0 || len(skipped) != 0 || err != nil {
		t.Errorf("scores %v, skipped %v, %v", scores, skipped, err)
	}
	if got := load(t, store); len(got.Newer) != 0 || len(got.Skipped) != 0 {
		t.Errorf("newer %v, skipped %v", got.Newer, got.Skipped)
	}
	// As format 2 it would not be misread either.
	if _, err := blobs.Attach(t.Context(), b[0], "application/vnd.aob.scores.v2+json", envelope); err != nil {
		t.Fatal(err)
	}
	if scores, skipped, err = store.Scores(t.Context(), b); len(scores) != 0 || len(skipped) != 1 || err != nil {
		t.Errorf("under the new artifact type: scores %v, skipped %v, %v", scores, skipped, err)
	}
}

func TestSignRefuses(t *testing.T) {
	blobs, b := bundlesIn(t, t.TempDir(), 1)
	store := evidence.New(blobs, key(t), nil)
	other := digest("another bundle")
	for _, c := range []struct {
		name          string
		bundle        delivery.Digest
		predicateType string
		predicate     any
		want          string
	}{
		{"an unknown bundle", other, delivery.TrainingType, training(other, "run"), "no such bundle"},
		{"a malformed digest", "sha256:x", delivery.TrainingType, training("sha256:x", "run"), "want a digest"},
		{"an unknown type", b[0], "https://aob.dev/rumour/v1", training(b[0], "run"), "unknown statement type"},
		{"a predicate of another kind", b[0], delivery.TrainingType, "trained", "predicate:"},
		{"a predicate about another bundle", b[0], delivery.TrainingType, training(other, "run"),
			"its predicate is about"},
		{"NaN", b[0], delivery.ScoresType, delivery.Scores{Key: "k",
			Input:  delivery.EvalRun{Bundle: b[0]},
			Scores: delivery.ScoreSet{Values: map[string]float64{"mAP": math.NaN()}}}, "unsupported value"},
		{"too large for an envelope", b[0], delivery.AbortType, delivery.Abort{Fleet: "f", Model: "m", Bundle: b[0],
			Why: strings.Repeat("x", 4<<20)}, "the maximum is"},
	} {
		if err := store.Sign(t.Context(), c.bundle, c.predicateType, c.predicate); err == nil ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
	if got := load(t, store); len(got.Trainings)+len(got.Skipped) != 0 {
		t.Errorf("a refused statement was attached: %+v", got)
	}
	err := sign(evidence.New(blobs, nil, nil), t.Context(), training(b[0], "run"))
	if blocked, ok := errors.AsType[delivery.Blocked](err); !ok || blocked.Do == "" {
		t.Errorf("without a key: %v, want Blocked", err)
	}
}

// counting counts the reads of referrers.
type counting struct {
	*artifact.Store
	mu    sync.Mutex
	reads int
}

func (c *counting) Attachment(ctx context.Context, referrer delivery.Digest) (delivery.Digest, []byte, error) {
	c.mu.Lock()
	c.reads++
	c.mu.Unlock()
	return c.Store.Attachment(ctx, referrer)
}

func TestOnlyNewStatementsAreRead(t *testing.T) {
	dir := t.TempDir()
	blobs, b := bundlesIn(t, dir, 2)
	k := key(t)
	writer := evidence.New(blobs, k, nil)
	signAll(t, writer, b[0])
	counted := &counting{Store: blobs}
	reader := evidence.New(counted, nil, public(k))
	reads := func(name string, want int) {
		t.Helper()
		if counted.reads != want {
			t.Errorf("%s: %d reads, want %d", name, counted.reads, want)
		}
		counted.reads = 0
	}
	first := load(t, reader)
	reads("the first time", 8)
	if second := load(t, reader); second != first {
		t.Error("a new snapshot although nothing changed")
	}
	reads("nothing changed", 0)
	if err := sign(writer, t.Context(), acceptanceOf(b[1], 2)); err != nil {
		t.Fatal(err)
	}
	third := load(t, reader)
	reads("one more statement", 1)
	if len(third.AcceptancesOf["pallets"]) != 2 || len(first.AcceptancesOf["pallets"]) != 1 {
		t.Error("the new snapshot lacks the acceptance, or the old one was changed")
	}
	for range 2 {
		if _, _, err := reader.Scores(t.Context(), b[:1]); err != nil {
			t.Fatal(err)
		}
	}
	reads("scores, twice", 1)
}

func TestConcurrentUse(t *testing.T) {
	blobs, b := bundlesIn(t, t.TempDir(), 2)
	store := evidence.New(blobs, key(t), nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for _, bundle := range b {
				if err := sign(store, t.Context(), training(bundle, fmt.Sprint(i/2))); err != nil {
					t.Error(err)
				}
				if _, err := store.Load(t.Context()); err != nil {
					t.Error(err)
				}
				if _, _, err := store.Scores(t.Context(), b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := load(t, store); len(got.TrainingsOf[digest("spec")]) != 8 {
		t.Errorf("%d trainings, want 8", len(got.TrainingsOf[digest("spec")]))
	}
}

// broken is a store whose referrers cannot be listed.
type broken struct{ *artifact.Store }

func (broken) Attached(context.Context, delivery.Digest, string) ([]delivery.Attached, error) {
	return nil, fs.ErrPermission
}

func (broken) Since(context.Context, int, int) (iter.Seq[delivery.Attached], int, int, error) {
	return nil, 0, 0, fs.ErrPermission
}

func TestListErrorsAreReturned(t *testing.T) {
	blobs, b := bundlesIn(t, t.TempDir(), 1)
	store := evidence.New(broken{blobs}, key(t), nil)
	if _, err := store.Load(t.Context()); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Load: %v", err)
	}
	if _, _, err := store.Scores(t.Context(), b); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Scores: %v", err)
	}
	if err := sign(store, t.Context(), training(b[0], "run")); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Sign: %v", err)
	}
}
