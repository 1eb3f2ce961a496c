package provenance_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/provenance"
)

func record() provenance.Record {
	low := 0.4
	return provenance.Record{Labels: []string{"RBC"}, Release: delivery.ReleaseStatement{Model: "cells", Version: 2,
		Bundle: delivery.Sum(nil), File: delivery.Release{Measured: []delivery.Measured{{Gate: "production",
			Metrics: map[string]delivery.Figure{"mAP": {Value: 0.5, Low: &low}}}, {Gate: "night",
			Metrics: map[string]delivery.Figure{"AP/RBC": {Value: 1}}}},
			Variants: []delivery.ReleasedVariant{{Variant: "int8", Bundle: delivery.Sum([]byte("v")),
				Model: delivery.Sum([]byte("m"))}}}},
		Resolved: &delivery.Resolved{Result: delivery.ThresholdResult{Points: map[string]delivery.OperatingPoint{
			"RBC": {Score: 0.25, Precision: 0.9, Recall: 0.8}}}}}
}

// papers returns the documents as they are read.
func papers(t testing.TB, r provenance.Record) (list []delivery.Paper) {
	t.Helper()
	documents, err := provenance.Documents(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range delivery.PaperTypes {
		list = append(list, delivery.Paper{Type: kind, Predicate: delivery.Canonical(documents[kind])})
	}
	return list
}

// The figures can be read back from each document, and a record gives the same bytes each time.
func TestFiguresOfDocuments(t *testing.T) {
	want := []provenance.Figure{{Gate: "night", Metric: "AP/RBC", Value: "1"},
		{Gate: "production", Metric: "mAP", Value: "0.5", Low: "0.4"}}
	again := papers(t, record())
	for i, p := range papers(t, record()) {
		got, err := provenance.Figures(p)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v, figures (-want +got):\n%s", p.Type, err, diff)
		}
		for _, digest := range []delivery.Digest{delivery.Sum([]byte("v")), delivery.Sum([]byte("m"))} { // of a variant
			if !strings.Contains(string(p.Predicate), digest.Hex()) {
				t.Errorf("%s does not name %s", p.Type, digest)
			}
		}
		if string(p.Predicate) != string(again[i].Predicate) {
			t.Errorf("%s has other bytes the second time", p.Type)
		}
	}
	var card delivery.Card
	if err := json.Unmarshal(again[2].Predicate, &card); err != nil ||
		!strings.Contains(card.Text, "| RBC | 0.2500 | 0.9000 | 0.8000 |") {
		t.Errorf("the card, %v:\n%s", err, card.Text)
	}
}

// What a trainer says of its packages cannot make two documents about one release differ.
func TestManyLibraries(t *testing.T) {
	said := map[string]string{}
	for i := range 300 {
		said[fmt.Sprintf("package-%d", i)] = fmt.Sprint(i)
		said[fmt.Sprintf("package-%d\x1b", i)] = "another"
	}
	r := record()
	r.Training.Result.Trainer = delivery.Canonical(map[string]any{"libraries": said})
	want := papers(t, r)
	for range 20 {
		for i, p := range papers(t, r) {
			if string(p.Predicate) != string(want[i].Predicate) {
				t.Fatalf("%s has other bytes the second time", p.Type)
			}
		}
	}
}

func FuzzFigures(f *testing.F) {
	for _, p := range papers(f, record()) {
		f.Add([]byte(p.Predicate))
	}
	f.Add([]byte(`{"metadata": {"component": {"modelCard": {"quantitativeAnalysis": {}}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, kind := range append([]string{"other"}, delivery.PaperTypes...) {
			_, _ = provenance.Figures(delivery.Paper{Type: kind, Predicate: data})
		}
	})
}

// A container's image is named in the place of packages.
func TestImageInDocuments(t *testing.T) {
	r := record()
	r.Training.Input.Environment = &delivery.Environment{Image: delivery.Sum([]byte("image")), Platform: "linux/amd64"}
	for _, p := range papers(t, r) {
		text := string(p.Predicate)
		if !strings.Contains(text, r.Training.Input.Environment.Image.Hex()) ||
			!strings.Contains(text, "container image") || !strings.Contains(text, "linux/amd64") ||
			strings.Contains(text, "Python packages") {
			t.Errorf("%s: %s", p.Type, text)
		}
	}
}

// Documents of a model that was trained elsewhere do not say that it was trained on the dataset that judges it.
func TestDocumentsOfAnImport(t *testing.T) {
	r := record()
	for with, trainedHere := range map[string]bool{"tiny@1": true, "import@1": false} {
		r.Training.Input.Spec.Train.With = with
		for _, p := range papers(t, r) {
			text := string(p.Predicate)
			said := map[string]string{delivery.BOMType: `"datasets"`, delivery.CardType: "- epochs:"}[p.Type]
			if said != "" && strings.Contains(text, said) != trainedHere {
				t.Errorf("%s of %s: has %s: %v\n%s", p.Type, with, said, !trainedHere, text)
			}
		}
	}
}
