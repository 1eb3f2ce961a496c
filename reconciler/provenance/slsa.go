package provenance

import (
	"encoding/json"

	"github.com/autonomos/aob/reconciler/delivery"
)

// The predicate of SLSA provenance v1: https://slsa.dev/spec/v1.0/provenance.
type provenance struct {
	BuildDefinition buildDefinition `json:"buildDefinition"`
	RunDetails      runDetails      `json:"runDetails"`
}

type buildDefinition struct {
	BuildType            string             `json:"buildType"`
	ExternalParameters   externalParameters `json:"externalParameters"`
	InternalParameters   internalParameters `json:"internalParameters"`
	ResolvedDependencies []resource         `json:"resolvedDependencies"`
}

// externalParameters are what people asked for.
type externalParameters struct {
	Model      string        `json:"model"`
	Version    int           `json:"version"`
	Spec       delivery.Spec `json:"spec"`
	SpecDigest string        `json:"specDigest"`
	Seed       int64         `json:"seed"`
}

// internalParameters are what the server decided.
type internalParameters struct {
	Machine     string              `json:"machine,omitempty"`
	Accelerator string              `json:"accelerator,omitempty"`
	Licences    []delivery.Licensed `json:"licences,omitempty"`
}

type runDetails struct {
	Builder struct {
		ID string `json:"id"`
	} `json:"builder"`
	Metadata struct {
		InvocationID string `json:"invocationId"`
	} `json:"metadata"`
	Byproducts []resource `json:"byproducts,omitempty"`
}

// A resource is a resource descriptor of in-toto.
type resource struct {
	Name        string            `json:"name"`
	URI         string            `json:"uri,omitempty"`
	Digest      map[string]string `json:"digest,omitempty"`
	Annotations map[string]any    `json:"annotations,omitempty"`
}

// buildType names how AOB makes a bundle: it trains, packs the ONNX file, and measures it.
const buildType = "https://aob.dev/train/v1"

// builder is the builder's id where the server has no address.
const builder = "https://aob.dev/serve"

func sha256(d delivery.Digest) map[string]string {
	if d == "" {
		return nil
	}
	return map[string]string{"sha256": d.Hex()}
}

func provenanceOf(r Record) provenance {
	input, data := r.Training.Input, r.Training.Data
	var p provenance
	p.BuildDefinition = buildDefinition{
		BuildType: buildType,
		ExternalParameters: externalParameters{Model: r.Release.Model, Version: r.Release.Version, Spec: input.Spec,
			SpecDigest: string(r.Release.Spec), Seed: input.Seed},
		InternalParameters: internalParameters{Machine: input.Machine, Accelerator: input.Accelerator,
			Licences: input.Licences},
	}
	add := func(name, uri string, digest map[string]string) {
		if len(digest) > 0 {
			p.BuildDefinition.ResolvedDependencies = append(p.BuildDefinition.ResolvedDependencies,
				resource{Name: name, URI: uri, Digest: digest})
		}
	}
	add("dataset", input.Spec.Dataset, sha256(data.Content))
	add("training input", "", sha256(input.Training))
	add("training images", "", sha256(data.TrainingImages))
	add("trainer", "trainer:"+input.Spec.Train.With, sha256(input.Trainer))
	if w := input.Weights; w != nil {
		add("base weights", "", sha256(w.SHA256))
	}
	add("parent", "", sha256(input.Parent))
	add("checkpoint of the parent", "", sha256(input.Checkpoint))
	if e := input.Environment; e != nil && e.Image != "" {
		add("container image", "oci:"+e.Platform, sha256(e.Image))
	} else if e != nil {
		add("Python packages", "python:"+e.Python+"/"+e.Platform, sha256(e.Lock))
	}
	if commit := r.Accepted.Commit; commit != "" {
		add("commit of main", "", map[string]string{"gitCommit": commit})
	}
	p.RunDetails.Builder.ID = builder
	if r.Server != "" {
		p.RunDetails.Builder.ID = r.Server
	}
	p.RunDetails.Metadata.InvocationID = string(r.Training.Run)
	for _, m := range r.Release.File.Measured {
		figures := map[string]any{}
		for _, f := range r.figures() {
			if f.Gate == m.Gate {
				figures[f.Metric] = map[string]any{"value": f.Value, "low": f.Low, "high": f.High}
			}
		}
		p.RunDetails.Byproducts = append(p.RunDetails.Byproducts, resource{Name: m.Gate, URI: "eval-set:" + m.Gate,
			Digest: sha256(m.EvalSet), Annotations: map[string]any{"evalSet": r.evalSet(m), "images": m.Images,
				"verdict": string(m.Verdict), "figures": figures}})
	}
	for _, v := range r.Release.File.Variants {
		p.RunDetails.Byproducts = append(p.RunDetails.Byproducts, resource{Name: "variant " + v.Variant,
			Digest: sha256(v.Model), Annotations: map[string]any{"bundle": string(v.Bundle)}})
	}
	return p
}

func provenanceFigures(data json.RawMessage) (list []Figure, err error) {
	var p struct {
		RunDetails struct {
			Byproducts []struct {
				Name        string `json:"name"`
				Annotations struct {
					Figures map[string]struct{ Value, Low, High string } `json:"figures"`
				} `json:"annotations"`
			} `json:"byproducts"`
		} `json:"runDetails"`
	}
	err = json.Unmarshal(data, &p)
	for _, b := range p.RunDetails.Byproducts {
		for metric, f := range b.Annotations.Figures {
			list = append(list, Figure{b.Name, metric, f.Value, f.Low, f.High})
		}
	}
	return list, err
}
