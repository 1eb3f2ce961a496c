package provenance

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Record is what is known about a release. All of it is signed, or computed from the bundle's bytes.
type Record struct {
	Release   delivery.ReleaseStatement
	Accepted  delivery.Acceptance
	Training  delivery.Training
	Resolved  *delivery.Resolved // of the thresholds; nil for none
	Model     delivery.Digest    // of model.onnx
	Size      int64              // of model.onnx, bytes
	Signature delivery.Signature
	Labels    []string
	Server    string // the address of the server; empty for none
}

// Documents returns the predicates of the documents about a release, by type.
func Documents(r Record) (map[string]any, error) {
	bom, err := bomOf(r)
	return map[string]any{delivery.ProvenanceType: provenanceOf(r), delivery.BOMType: bom,
		delivery.CardType: delivery.Card{Model: r.Release.Model, Version: r.Release.Version, Text: cardOf(r)}}, err
}

// A Figure is one figure of a document, as it is written there.
type Figure struct {
	Gate   string `json:"gate"`
	Metric string `json:"metric"`
	Value  string `json:"value"`
	Low    string `json:"low,omitempty"`
	High   string `json:"high,omitempty"`
}

// Figures reads the figures of a document, sorted by gate and metric.
func Figures(p delivery.Paper) ([]Figure, error) {
	read := map[string]func(json.RawMessage) ([]Figure, error){delivery.ProvenanceType: provenanceFigures,
		delivery.BOMType: bomFigures, delivery.CardType: cardFigures}[p.Type]
	if read == nil {
		return nil, fmt.Errorf("a document of type %q has no figures", p.Type)
	}
	list, err := read(p.Predicate)
	if err != nil {
		return nil, fmt.Errorf("the figures of %s cannot be read: %w", p.Type, err)
	}
	slices.SortFunc(list, func(a, b Figure) int {
		return cmp.Or(cmp.Compare(a.Gate, b.Gate), cmp.Compare(a.Metric, b.Metric))
	})
	return list, nil
}

// figures returns the figures of the release file.
func (r Record) figures() (list []Figure) {
	for _, m := range r.Release.File.Measured {
		for _, metric := range slices.Sorted(maps.Keys(m.Metrics)) {
			f := m.Metrics[metric]
			list = append(list, Figure{m.Gate, metric, text(&f.Value), text(f.Low), text(f.High)})
		}
	}
	return list
}

// text returns a figure as all documents have it; "" for none.
func text(v *float64) string {
	if v == nil {
		return ""
	}
	return strconv.FormatFloat(*v, 'f', -1, 64) // YAML takes a number with an exponent for text
}

// imported reports whether the model was trained elsewhere: trainers/import only takes its file.
func (r Record) imported() bool {
	return strings.HasPrefix(r.Training.Input.Spec.Train.With, "import@")
}

// licences lists the licences of the model's parts, sorted, each once.
func (r Record) licences() []string {
	list := delivery.Each(r.Training.Input.Licences, func(l delivery.Licensed) string { return l.Licence })
	slices.Sort(list)
	return slices.Compact(list)
}

// evalSet returns the name of the eval set of a gate.
func (r Record) evalSet(m delivery.Measured) string {
	for _, c := range r.Training.Data.EvalSets {
		if c.Digest() == m.EvalSet {
			return c.EvalSet.String()
		}
	}
	return "eval set of gate " + m.Gate
}
