package provenance

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// The model index of Hugging Face: https://huggingface.co/docs/hub/model-cards#evaluation-results.
type indexed struct {
	Name    string          `json:"name"`
	Results []indexedResult `json:"results"`
}

type indexedResult struct {
	Task    indexedTask     `json:"task"`
	Dataset indexedDataset  `json:"dataset"`
	Metrics []indexedMetric `json:"metrics"`
}

type indexedTask struct {
	Type string `json:"type"`
}

type indexedDataset struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Revision string `json:"revision"`
	Config   string `json:"config"` // the gate
}

type indexedMetric struct {
	Type  string      `json:"type"`
	Name  string      `json:"name"`
	Value json.Number `json:"value"`
	Args  *bounds     `json:"args,omitempty"`
}

type bounds struct {
	Low  json.Number `json:"low,omitempty"`
	High json.Number `json:"high,omitempty"`
}

const indexKey = "model-index: "

// cardOf returns the model card: YAML between two lines of dashes, and Markdown. JSON is YAML too.
func cardOf(r Record) string {
	input := r.Training.Input
	index := []indexed{{Name: r.Release.Model}}
	for _, m := range r.Release.File.Measured {
		result := indexedResult{Task: indexedTask{"object-detection"}, Dataset: indexedDataset{Name: r.evalSet(m),
			Type: "aob", Revision: string(m.EvalSet), Config: m.Gate}}
		for _, f := range r.figures() {
			if f.Gate != m.Gate {
				continue
			}
			metric := indexedMetric{Type: f.Metric, Name: f.Metric, Value: json.Number(f.Value)}
			if f.Low != "" || f.High != "" {
				metric.Args = &bounds{json.Number(f.Low), json.Number(f.High)}
			}
			result.Metrics = append(result.Metrics, metric)
		}
		index[0].Results = append(index[0].Results, result)
	}
	var b strings.Builder
	b.WriteString("---\nlibrary_name: onnx\npipeline_tag: object-detection\ntags: [object-detection, aob]\n")
	// The hub knows licences by their SPDX names in lower case; of several it shows none.
	switch list := r.licences(); len(list) {
	case 0:
	case 1:
		fmt.Fprintf(&b, "license: %s\n", delivery.Canonical(strings.ToLower(list[0])))
	default:
		fmt.Fprintf(&b, "license: other\nlicense_name: %s\n", delivery.Canonical(strings.Join(list, " AND ")))
	}
	fmt.Fprintf(&b, "%s%s\n---\n", indexKey, delivery.Canonical(index))
	fmt.Fprintf(&b, "\n# %s, version %d\n\n", delivery.Markdown(r.Release.Model), r.Release.Version)
	fmt.Fprintf(&b, "A detector of %s. It takes an RGB image of %s.\n", delivery.Markdown(strings.Join(r.Labels, ", ")),
		size(r.Signature))
	fmt.Fprintf(&b, "\n## Figures\n\nMeasured by AOB on the ONNX file that ships, and signed. Bounds are one-sided. "+
		"Where a check of the gate is about a figure, its bounds are that check's, in models/%s.release.yaml.\n\n",
		delivery.Markdown(r.Release.Model))
	b.WriteString("| gate | eval set | figure | value | low | high |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, m := range r.Release.File.Measured {
		for _, f := range r.figures() {
			if f.Gate == m.Gate {
				fmt.Fprintf(&b, "| %s | %s, %s | %s | %s | %s | %s |\n", delivery.Markdown(f.Gate),
					delivery.Markdown(r.evalSet(m)), delivery.Count(m.Images, "image"), delivery.Markdown(f.Metric),
					f.Value, f.Low, f.High)
			}
		}
	}
	b.WriteString("\n## How it was made\n\n")
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "- %s: %s\n", name, delivery.Markdown(value))
		}
	}
	line("trainer", input.Spec.Train.With)
	line("architecture", input.Spec.Train.Architecture)
	if r.imported() {
		line("trained", "elsewhere; what it was trained on is not known here")
		line("dataset that it was checked against", input.Spec.Dataset+", "+countsOf(r.Training.Data))
	} else {
		line("dataset", input.Spec.Dataset+", "+countsOf(r.Training.Data))
		line("seed", fmt.Sprint(input.Seed))
		line("epochs", fmt.Sprint(input.Spec.Train.Epochs))
	}
	if w := input.Weights; w != nil {
		line("base weights", fmt.Sprintf("%s, %s", w.SHA256, w.Licence))
	}
	line("parent", string(input.Parent))
	if e := input.Environment; e != nil && e.Image != "" {
		line("container image", fmt.Sprintf("%s, %s", e.Image, e.Platform))
	} else if e != nil {
		line("Python packages", fmt.Sprintf("%s, %s, %s", e.Lock, e.Python, e.Platform))
	}
	for _, l := range input.Licences {
		line("licence of "+delivery.Markdown(l.Part), l.Licence)
	}
	line("spec", string(r.Release.Spec))
	line("training", string(r.Training.Run))
	line("bundle", string(r.Release.Bundle))
	line("model.onnx", fmt.Sprintf("%s, %d bytes", r.Model, r.Size))
	for _, v := range r.Release.File.Variants {
		line("variant "+v.Variant, fmt.Sprintf("bundle %s, model.onnx %s", v.Bundle, v.Model))
	}
	if r.Resolved != nil {
		b.WriteString("\n## Score thresholds\n\n| class | score | precision | recall |\n| --- | --- | --- | --- |\n")
		classes := make([]string, 0, len(r.Resolved.Result.Points))
		for class := range r.Resolved.Result.Points {
			classes = append(classes, class)
		}
		slices.Sort(classes)
		for _, class := range classes {
			p := r.Resolved.Result.Points[class]
			fmt.Fprintf(&b, "| %s | %.4f | %.4f | %.4f |\n", delivery.Markdown(class), p.Score, p.Precision,
				p.Recall)
		}
	}
	b.WriteString("\n## What is not known\n\nFigures hold for images like those of the eval sets. Other cameras, " +
		"places and times were not measured.\n")
	return b.String()
}

func cardFigures(data json.RawMessage) (list []Figure, err error) {
	var card delivery.Card
	if err := json.Unmarshal(data, &card); err != nil {
		return nil, err
	}
	_, rest, ok := strings.Cut(card.Text, "\n"+indexKey)
	line, _, _ := strings.Cut(rest, "\n")
	var index []indexed
	if err := json.Unmarshal([]byte(line), &index); !ok || err != nil {
		return nil, fmt.Errorf("the card has no model index: %v", err)
	}
	for _, of := range index {
		for _, result := range of.Results {
			for _, m := range result.Metrics {
				f := Figure{Gate: result.Dataset.Config, Metric: m.Type, Value: m.Value.String()}
				if m.Args != nil {
					f.Low, f.High = m.Args.Low.String(), m.Args.High.String()
				}
				list = append(list, f)
			}
		}
	}
	return list, nil
}
