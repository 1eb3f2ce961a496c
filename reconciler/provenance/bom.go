package provenance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Properties that CycloneDX has no field for.
const (
	propertyBundle = "aob:bundle"
	propertySpec   = "aob:spec"
	propertyRun    = "aob:run"
	propertySaidBy = "aob:said-by"
)

func hashes(d delivery.Digest) *[]cdx.Hash {
	if d == "" {
		return nil
	}
	return &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: d.Hex()}}
}

// bomOf returns the ML-BOM, as the JSON of CycloneDX 1.6.
func bomOf(r Record) (json.RawMessage, error) {
	input, data := r.Training.Input, r.Training.Data
	bom := cdx.NewBOM()
	bom.SerialNumber = serial(r)
	dataset := cdx.Component{BOMRef: "dataset", Type: cdx.ComponentTypeData, Name: input.Spec.Dataset,
		Hashes: hashes(data.Content), Data: &[]cdx.ComponentData{{Type: cdx.ComponentDataTypeDataset,
			Name: input.Spec.Dataset, Description: countsOf(data)}}}
	name, version, _ := strings.Cut(input.Spec.Train.With, "@")
	trainer := cdx.Component{BOMRef: "trainer", Type: cdx.ComponentTypeApplication, Name: name, Version: version,
		Hashes: hashes(input.Trainer)}
	components := []cdx.Component{dataset, trainer}
	uses := []string{"dataset", "trainer"}
	if w := input.Weights; w != nil {
		components = append(components, cdx.Component{BOMRef: "weights", Type: cdx.ComponentTypeMachineLearningModel,
			Name: "base weights", Hashes: hashes(w.SHA256), Licenses: licenses([]string{w.Licence})})
		uses = append(uses, "weights")
	}
	if input.Parent != "" {
		components = append(components, cdx.Component{BOMRef: "parent", Type: cdx.ComponentTypeMachineLearningModel,
			Name: "parent", Hashes: hashes(input.Parent)})
		uses = append(uses, "parent")
	}
	if e := input.Environment; e != nil && e.Image != "" {
		components = append(components, cdx.Component{BOMRef: "image", Type: cdx.ComponentTypeContainer,
			Name: "container image", Version: e.Platform, Hashes: hashes(e.Image)})
		uses = append(uses, "image")
	} else if e != nil {
		components = append(components, cdx.Component{BOMRef: "packages", Type: cdx.ComponentTypePlatform,
			Name: "Python packages", Version: e.Python + " " + e.Platform, Hashes: hashes(e.Lock)})
		uses = append(uses, "packages")
	}
	for _, v := range r.Release.File.Variants { // not used by the model, but made of it
		components = append(components, cdx.Component{BOMRef: "variant:" + v.Variant,
			Type: cdx.ComponentTypeMachineLearningModel, Name: r.Release.Model + " " + v.Variant,
			Version: strconv.Itoa(r.Release.Version), Hashes: hashes(v.Model),
			Properties: &[]cdx.Property{{Name: propertyBundle, Value: string(v.Bundle)}}})
	}
	versions := libraries(r.Training.Result.Trainer)
	for _, library := range slices.Sorted(maps.Keys(versions)) {
		ref := "library:" + library
		components = append(components, cdx.Component{BOMRef: ref, Type: cdx.ComponentTypeLibrary, Name: library,
			Version:    versions[library],
			Properties: &[]cdx.Property{{Name: propertySaidBy, Value: "the trainer"}}})
		uses = append(uses, ref)
	}
	metrics := delivery.Each(r.figures(), func(f Figure) cdx.MLPerformanceMetric {
		m := cdx.MLPerformanceMetric{Type: f.Metric, Value: f.Value, Slice: f.Gate}
		if f.Low != "" || f.High != "" {
			m.ConfidenceInterval = &cdx.MLPerformanceMetricConfidenceInterval{LowerBound: f.Low, UpperBound: f.High}
		}
		return m
	})
	trainedOn := &[]cdx.MLDatasetChoice{{Ref: "dataset"}}
	if r.imported() {
		trainedOn = nil
	}
	properties := []cdx.Property{{Name: propertyBundle, Value: string(r.Release.Bundle)},
		{Name: propertySpec, Value: string(r.Release.Spec)}, {Name: propertyRun, Value: string(r.Training.Run)}}
	bom.Metadata = &cdx.Metadata{Component: &cdx.Component{BOMRef: "model", Type: cdx.ComponentTypeMachineLearningModel,
		Name: r.Release.Model, Version: strconv.Itoa(r.Release.Version), Hashes: hashes(r.Model),
		Licenses: licenses(r.licences()), Properties: &properties, ModelCard: &cdx.MLModelCard{
			ModelParameters: &cdx.MLModelParameters{
				Approach: &cdx.MLModelParametersApproach{Type: cdx.MLModelParametersApproachTypeSupervised},
				Task:     "object-detection", ModelArchitecture: input.Spec.Train.Architecture,
				Datasets: trainedOn,
				Inputs:   &[]cdx.MLInputOutputParameters{{Format: "RGB image, " + size(r.Signature)}},
				Outputs: &[]cdx.MLInputOutputParameters{{Format: "boxes with a score and a class: " +
					strings.Join(r.Labels, ", ")}}},
			QuantitativeAnalysis: &cdx.MLQuantitativeAnalysis{PerformanceMetrics: &metrics}}}}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: "model", Dependencies: &uses}}
	var b bytes.Buffer
	err := cdx.NewBOMEncoder(&b, cdx.BOMFileFormatJSON).EncodeVersion(bom, cdx.SpecVersion1_6)
	return b.Bytes(), err
}

// spdx are licences that the schema's list of SPDX names has. Others are written as text, which is valid for any.
var spdx = []string{"AGPL-3.0-only", "AGPL-3.0-or-later", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0",
	"CC-BY-NC-4.0", "CC0-1.0", "GPL-3.0-only", "GPL-3.0-or-later", "LGPL-3.0-only", "MIT", "MPL-2.0"}

// licenses returns licences as CycloneDX has them; nil for none.
func licenses(names []string) *cdx.Licenses {
	var list cdx.Licenses
	for _, name := range names {
		l := &cdx.License{Name: name}
		if slices.Contains(spdx, name) {
			l = &cdx.License{ID: name}
		}
		list = append(list, cdx.LicenseChoice{License: l})
	}
	if len(list) == 0 {
		return nil
	}
	return &list
}

func size(s delivery.Signature) string { return fmt.Sprintf("%d x %d pixels", s.Width, s.Height) }

// serial returns an id that depends on the release only.
func serial(r Record) string {
	h := delivery.DigestOf("bom", []any{r.Release.Model, r.Release.Version, r.Release.Bundle}).Hex()
	return fmt.Sprintf("urn:uuid:%s-%s-5%s-a%s-%s", h[:8], h[8:12], h[13:16], h[17:20], h[20:32]) // a name-based UUID
}

// countsOf says how many images and objects the dataset has.
func countsOf(data delivery.DataResult) string {
	var list []string
	for _, split := range slices.Sorted(maps.Keys(data.Images)) {
		list = append(list, delivery.Count(data.Images[split], "image")+" in "+split)
	}
	return strings.Join(list, ", ")
}

// libraries returns the versions in a train.json: of many, and of names that look the same, the first ones in order.
func libraries(train json.RawMessage) map[string]string {
	var said struct {
		Libraries map[string]string `json:"libraries"`
	}
	if json.Unmarshal(train, &said) != nil {
		return nil
	}
	clean := map[string]string{}
	for _, given := range slices.Sorted(maps.Keys(said.Libraries)) {
		name := delivery.PlainText(given, 100)
		if _, twice := clean[name]; name != "" && !twice && len(clean) < 100 {
			clean[name] = delivery.PlainText(said.Libraries[given], 100)
		}
	}
	return clean
}

func bomFigures(data json.RawMessage) (list []Figure, err error) {
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(data), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		return nil, err
	}
	if bom.Metadata == nil || bom.Metadata.Component == nil || bom.Metadata.Component.ModelCard == nil {
		return nil, fmt.Errorf("it has no model card")
	}
	q := bom.Metadata.Component.ModelCard.QuantitativeAnalysis
	if q == nil || q.PerformanceMetrics == nil {
		return nil, nil
	}
	for _, m := range *q.PerformanceMetrics {
		f := Figure{Gate: m.Slice, Metric: m.Type, Value: m.Value}
		if c := m.ConfidenceInterval; c != nil {
			f.Low, f.High = c.LowerBound, c.UpperBound
		}
		list = append(list, f)
	}
	return list, nil
}
