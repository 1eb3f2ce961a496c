package archive

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/evidence"
	"github.com/autonomos/aob/reconciler/provenance"
	"github.com/autonomos/aob/reconciler/trust"
	"github.com/autonomos/aob/tools/venvtest"
)

// A shelf is a store with one released bundle.
type shelf struct {
	papers *Papers
	key    *trust.Key
	bundle delivery.Digest
}

func digest(s string) delivery.Digest { return delivery.Sum([]byte(s)) }

func newShelf(t *testing.T) shelf {
	t.Helper()
	store, err := artifact.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	model := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(model, []byte("onnx 1"), 0o644); err != nil {
		t.Fatal(err)
	}
	signature := delivery.Signature{SchemaVersion: 1, Input: "input", Boxes: "dets", Logits: "labels", Width: 96,
		Height: 96, Resize: delivery.Resize{Algorithm: "bilinear", Padding: "none", DType: "float32"},
		Means: []float64{0, 0, 0},
		Stds:  []float64{1, 1, 1}, Slots: []string{"RBC", "WBC"}, Background: -1, Select: 10}
	bundle, err := store.Push(t.Context(), artifact.Bundle{ModelPath: model, Golden: []byte("golden"),
		Labels: []string{"RBC", "WBC"}, Signature: signature})
	if err != nil {
		t.Fatal(err)
	}
	key, err := trust.Create(filepath.Join(t.TempDir(), "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	s := shelf{key: key, bundle: bundle, papers: &Papers{Bundles: store, Statements: evidence.New(store, key, nil),
		Server: "https://aob.example.com", Log: slog.New(slog.NewTextHandler(t.Output(), nil))}}
	set := delivery.EvalSetContent{EvalSet: delivery.EvalSet{Dataset: delivery.Dataset{Source: "dir", Path: "bccd"},
		Split: "test"}, Images: digest("images"), Truths: digest("truths"), Count: 36}
	spec := delivery.Spec{Dataset: "dir:bccd", Classes: delivery.Classes{{Name: "RBC", Labels: []string{"RBC"}}},
		Variants: []string{"fp32"}, Train: delivery.Train{With: "tiny@1", Architecture: "tiny", Epochs: 8}}
	low, high := 0.55, 0.65
	release := delivery.Release{APIVersion: delivery.APIVersion, Kind: "Release", Name: "cells", Version: 1,
		Bundle: bundle, Spec: digest("spec"), Measured: []delivery.Measured{{Gate: "production",
			EvalSet: set.Digest(), Images: 36,
			Verdict: delivery.Pass, Metrics: map[string]delivery.Figure{"mAP": {Value: 0.6012, Low: &low, High: &high},
				"AP/RBC": {Value: 0.5}, "AP/<b>|`x`": {Value: 1e-7}}}}}
	for kind, predicate := range map[string]any{
		delivery.TrainingType: delivery.Training{Run: digest("run"), Spec: digest("spec"),
			Input: delivery.TrainRun{Spec: spec, Seed: 1, Training: digest("input"), Trainer: digest("trainer"),
				Accelerator: "cpu", Machine: "train-local",
				Weights: &delivery.Weights{SHA256: digest("weights"), Licence: "PML-1.0"},
				Environment: &delivery.Environment{Lock: digest("lock"), Python: "cpython-3.11",
					Platform: "linux-x86_64"},
				Licences: []delivery.Licensed{{Part: "architecture tiny", Licence: "Apache-2.0"},
					{Part: "base weights", Licence: "PML-1.0"}}},
			Data: delivery.DataResult{Content: digest("data"), Images: map[string]int{"train": 255, "valid": 73},
				EvalSets: []delivery.EvalSetContent{set}},
			Result: delivery.TrainResult{Bundle: bundle, Trainer: json.RawMessage(
				`{"libraries": {"torch": "2.15.0", "\u202ebad\n": "1"}}`)}},
		delivery.ReleaseType: delivery.ReleaseStatement{Model: "cells", Version: 1, Spec: digest("spec"),
			Bundle: bundle, File: release},
		delivery.AcceptanceType: delivery.Acceptance{Model: "cells", Version: 1, Spec: digest("spec"), Bundle: bundle,
			Commit: strings.Repeat("c0ffee12", 5)},
	} {
		if err := s.papers.Statements.Sign(t.Context(), bundle, kind, predicate); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// envelopes reads the documents as a client of the registry does.
func (s shelf) envelopes(t *testing.T) map[string][]byte {
	t.Helper()
	server := httptest.NewServer(s.papers.Bundles.Handler(nil))
	defer server.Close()
	found := map[string][]byte{}
	for _, kind := range delivery.PaperTypes {
		artifactType := evidence.ArtifactType(kind)
		list, err := artifact.Attachments(t.Context(), artifact.Source{URL: server.URL + "/" + artifact.Repository},
			s.bundle, artifactType)
		if err != nil || len(list) != 1 {
			t.Fatalf("%s: %d envelopes, %v", kind, len(list), err)
		}
		found[kind] = list[0]
	}
	return found
}

// A release gets its documents once, and a second server of the same store does not write them again.
func TestReleasesGetDocuments(t *testing.T) {
	s := newShelf(t)
	for range 2 {
		for range 2 {
			if err := s.papers.Step(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		s.papers = &Papers{Bundles: s.papers.Bundles, Statements: evidence.New(s.papers.Bundles, s.key, nil),
			Server: "https://moved.example.com", Log: s.papers.Log}
	}
	papers, err := s.papers.Statements.Papers(t.Context(), s.bundle)
	if err != nil || len(papers) != 3 {
		t.Fatalf("%d documents, %v", len(papers), err)
	}
	want := []provenance.Figure{{Gate: "production", Metric: "AP/<b>|`x`", Value: "0.0000001"},
		{Gate: "production", Metric: "AP/RBC", Value: "0.5"},
		{Gate: "production", Metric: "mAP", Value: "0.6012", Low: "0.55", High: "0.65"}}
	for _, p := range papers {
		if p.Model != "cells" || p.Version != 1 {
			t.Errorf("%s is about %s@%d", p.Type, p.Model, p.Version)
		}
		got, err := provenance.Figures(p)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v, figures (-want +got):\n%s", p.Type, err, diff)
		}
	}
}

// The documents are valid by what is published about their formats.
func TestDocumentsAreValid(t *testing.T) {
	s := newShelf(t)
	if err := s.papers.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	papers, err := s.papers.Statements.Papers(t.Context(), s.bundle)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range papers {
		switch p.Type {
		case delivery.BOMType:
			bom, err := jsonschema.UnmarshalJSON(bytes.NewReader(p.Predicate))
			if err != nil {
				t.Fatal(err)
			}
			if err := cyclonedx(t).Validate(bom); err != nil {
				t.Errorf("the BOM: %v", err)
			}
		case delivery.ProvenanceType:
			var v slsa
			if err := delivery.ParseJSON(p.Predicate, &v); err != nil {
				t.Errorf("the provenance: %v", err)
			}
			d := v.BuildDefinition
			if !strings.HasPrefix(d.BuildType, "https://") || len(d.ExternalParameters) == 0 ||
				v.RunDetails.Builder.ID != "https://aob.example.com" || len(d.ResolvedDependencies) != 6 {
				t.Errorf("the provenance: %s", p.Predicate)
			}
			for _, r := range slices.Concat(d.ResolvedDependencies, v.RunDetails.Byproducts) {
				if r.Name == "" || len(r.Digest) == 0 {
					t.Errorf("a resource without name or digest: %+v", r)
				}
			}
		case delivery.CardType:
			var card delivery.Card
			if err := json.Unmarshal(p.Predicate, &card); err != nil {
				t.Fatal(err)
			}
			head, body, ok := strings.Cut(strings.TrimPrefix(card.Text, "---\n"), "\n---\n")
			const row = "| production | dir:bccd test, 36 images | mAP | 0.6012 | 0.55 | 0.65 |"
			if !ok || !strings.Contains(head, "pipeline_tag: object-detection") || !strings.Contains(body, row) ||
				strings.Contains(body, "<b>") || !strings.Contains(head, `license_name: "Apache-2.0 AND PML-1.0"`) {
				t.Errorf("the card:\n%s", card.Text)
			}
		}
	}
}

// slsa has the fields of SLSA provenance v1, and no others.
type slsa struct {
	BuildDefinition struct {
		BuildType            string         `json:"buildType"`
		ExternalParameters   map[string]any `json:"externalParameters"`
		InternalParameters   map[string]any `json:"internalParameters"`
		ResolvedDependencies []resource     `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID                  string            `json:"id"`
			BuilderDependencies []resource        `json:"builderDependencies"`
			Version             map[string]string `json:"version"`
		} `json:"builder"`
		Metadata struct {
			InvocationID string `json:"invocationId"`
			StartedOn    string `json:"startedOn"`
			FinishedOn   string `json:"finishedOn"`
		} `json:"metadata"`
		Byproducts []resource `json:"byproducts"`
	} `json:"runDetails"`
}

type resource struct {
	Name             string            `json:"name"`
	URI              string            `json:"uri"`
	Digest           map[string]string `json:"digest"`
	Content          []byte            `json:"content"`
	DownloadLocation string            `json:"downloadLocation"`
	MediaType        string            `json:"mediaType"`
	Annotations      map[string]any    `json:"annotations"`
}

// cyclonedx returns the published schema of CycloneDX 1.6, which the library brings along.
func cyclonedx(t *testing.T) *jsonschema.Schema {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(strings.TrimSpace(string(out)), "schema")
	c := jsonschema.NewCompiler()
	const base = "http://cyclonedx.org/schema/"
	for name, file := range map[string]string{"bom-1.6.schema.json": "bom-1.6.schema.json",
		"spdx.schema.json": "spdx.schema.json", "jsf-0.82.schema.json": "jsf-0.82.schemax.json"} {
		data, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			t.Fatal(err)
		}
		schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err == nil {
			err = c.AddResource(base+name, schema)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	schema, err := c.Compile(base + "bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// docs/provenance.md names the types of the documents.
func TestProvenancePage(t *testing.T) {
	page, err := os.ReadFile("../../docs/provenance.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range delivery.PaperTypes {
		artifactType := evidence.ArtifactType(kind)
		if !strings.Contains(string(page), "`"+kind+"` | `"+artifactType+"`") {
			t.Errorf("the page has no row for %s", kind)
		}
	}
}

// Each single byte of each document matters.
func TestEveryByteOfADocumentMatters(t *testing.T) {
	s := newShelf(t)
	if err := s.papers.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	trusted := []trust.PublicKey{s.key.Public()}
	step := 1
	if testing.Short() {
		step = 37
	}
	for kind, envelope := range s.envelopes(t) {
		if _, err := evidence.ReadPaper(kind, s.bundle, envelope, trusted); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		for i := 0; i < len(envelope); i += step {
			for _, other := range []byte{envelope[i] ^ 1, envelope[i] ^ 0x20, ' '} {
				if other == envelope[i] {
					continue
				}
				damaged := slices.Clone(envelope)
				damaged[i] = other
				if _, err := evidence.ReadPaper(kind, s.bundle, damaged, trusted); err == nil {
					t.Fatalf("%s: byte %d is %q in place of %q, and nobody notices", kind, i, other, envelope[i])
				}
			}
		}
		for name, damaged := range map[string][]byte{"a space more": append(slices.Clone(envelope), ' '),
			"cut": envelope[:len(envelope)-1], "empty": nil} {
			if _, err := evidence.ReadPaper(kind, s.bundle, damaged, trusted); err == nil {
				t.Errorf("%s: %s, and nobody notices", kind, name)
			}
		}
		if _, err := evidence.ReadPaper(kind, digest("other"), envelope, trusted); err == nil {
			t.Errorf("%s is taken for another bundle's", kind)
		}
	}
}

// A registry that serves other bytes than those of a digest is found out.
func TestDamagedAttachmentsAreNotRead(t *testing.T) {
	s := newShelf(t)
	if err := s.papers.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	inner := s.papers.Bundles.Handler(nil)
	for _, part := range []string{"/manifests/", "/blobs/"} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.URL.Path, part) {
				inner.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			inner.ServeHTTP(rec, r)
			body := rec.Body.Bytes()
			if len(body) > 0 {
				body[len(body)/2] ^= 1
			}
			for key, values := range rec.Header() {
				w.Header()[key] = values
			}
			w.WriteHeader(rec.Code)
			fmt.Fprintf(w, "%s", body)
		}))
		_, err := artifact.Attachments(t.Context(), artifact.Source{URL: server.URL + "/" + artifact.Repository},
			s.bundle, evidence.ArtifactType(delivery.BOMType))
		server.Close()
		if err == nil {
			t.Errorf("%s: damaged bytes are read", part)
		}
	}
}

const readDocuments = `
import json, sys
documents = json.load(sys.stdin)
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(documents["https://cyclonedx.org/bom"]))
assert wrong is None, wrong
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
p = json_format.ParseDict(documents["https://slsa.dev/provenance/v1"], provenance_pb2.Provenance())
assert p.build_definition.build_type and p.run_details.builder.id and len(p.build_definition.resolved_dependencies) == 6
from huggingface_hub import ModelCard
card = ModelCard(documents["https://aob.dev/card/v1"]["text"])
print(json.dumps(sorted([e.metric_type, e.metric_value] for e in card.data.eval_results)))
`

// The packages of CycloneDX, in-toto and Hugging Face read the documents.
func TestRealPackagesReadDocuments(t *testing.T) {
	python := venvtest.Python(t, "papers")
	s := newShelf(t)
	if err := s.papers.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	papers, err := s.papers.Statements.Papers(t.Context(), s.bundle)
	if err != nil {
		t.Fatal(err)
	}
	documents := map[string]json.RawMessage{}
	for _, p := range papers {
		documents[p.Type] = p.Predicate
	}
	c := exec.Command(python, "-c", readDocuments)
	c.Stdin, c.Stderr = bytes.NewReader(delivery.Canonical(documents)), t.Output()
	out, err := c.Output()
	if want := `[["AP/<b>|` + "`x`" + `", 1e-07], ["AP/RBC", 0.5], ["mAP", 0.6012]]`; err != nil ||
		strings.TrimSpace(string(out)) != want {
		t.Errorf("they read %s, want %s: %v", out, want, err)
	}
}
