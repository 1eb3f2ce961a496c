package serve

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/detect"
)

type described struct{ detect.Description }

func (d described) Describe(context.Context) (detect.Description, error) { return d.Description, nil }

func TestReadFacts(t *testing.T) {
	of := testFacts()
	whole := detect.Description{Inputs: of.Inputs, Outputs: of.Outputs, Batch: 2}
	for _, c := range []struct {
		labels, thresholds string // empty: there is no such file
		running            detect.Description
		confidence         float64
		want               string // in the error
	}{
		{labels: `["red","deep, blue"]`, running: whole, confidence: 0.4},
		{labels: `["red","deep, blue"]`, thresholds: `{"red":0.3}`, running: whole, confidence: 0},
		{running: whole, want: "labels.json: "},
		{labels: `{}`, running: whole, want: "labels.json: json: cannot unmarshal object"},
		{labels: `["red"]`, thresholds: `[`, running: whole, want: "thresholds.json: "},
		{labels: `["red"]`, want: "the model has 0 inputs and 0 outputs, want 1 and 2"},
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{"labels.json": c.labels, "thresholds.json": c.thresholds,
			"signature.json": `{"schemaVersion": 1}`} {
			if text == "" {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, err := ReadFacts(t.Context(), dir, described{c.running})
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		want := testFacts()
		want.Name, want.Version, want.Confidence = "", "", c.confidence
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v: %+v, %v", c, got, err)
		}
	}
}
