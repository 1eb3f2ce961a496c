package delivery

import (
	"encoding/json"
	"math"
	"slices"
)

// The variants of a model. All have the same weights, in different number formats. FP32 is the trained model itself.
const (
	FP32 = "fp32"
	FP16 = "fp16"
	INT8 = "int8"
)

// Made returns the variants that are made of the model: all that the file lists but FP32.
func (m Model) Made() []string {
	return slices.DeleteFunc(slices.Clone(m.Variants), func(v string) bool { return v == FP32 })
}

// A VariantRun makes a variant of a trained model.
type VariantRun struct {
	Variant    string   `json:"variant"`
	Bundle     Digest   `json:"bundle"`               // of the model, without thresholds
	Model      Digest   `json:"model"`                // its model.onnx
	Checkpoint Digest   `json:"checkpoint,omitempty"` // of its training, if that left one
	Train      TrainRun `json:"train"`                // its training, but with the present trainer
}

// A VariantResult is the result of a VariantRun.
type VariantResult struct {
	Bundle   Digest          `json:"bundle"` // of the variant alone
	Model    Digest          `json:"model"`  // its model.onnx
	Size     int64           `json:"size"`   // of that, bytes
	OfSize   int64           `json:"ofSize"` // of the FP32 file, bytes
	Parity   Parity          `json:"parity"`
	Times    Times           `json:"times"`
	Reported json.RawMessage `json:"reported,omitempty"` // the trainer's variant.json, for display only
}

// Parity says how far a variant's outputs are from those of the FP32 model, both run by aob-detect.
type Parity struct {
	// Of the output tensors, by name, for the input of golden.bin: the cosine, and the largest difference of a number.
	Cosine  map[string]float64 `json:"cosine"`
	Largest map[string]float64 `json:"largest"`
	// Of the boxes on images of the validation split, from a score of MinScore on.
	Images   int     `json:"images"`
	MinScore float64 `json:"minScore"`
	Boxes    int     `json:"boxes"`   // of the FP32 model
	Found    int     `json:"found"`   // of the variant
	Matched  int     `json:"matched"` // pairs of both of one class with an IoU of at least 0.5
	// ScoreShift is the mean difference of the scores of a pair.
	ScoreShift float64 `json:"scoreShift"`
}

// ReportedParity returns the comparison of outputs in the trainer's report, on its own images. It reports false if the
// report has none. The names of outputs are the trainer's.
func (r VariantResult) ReportedParity() (p Parity, ok bool) {
	var said struct {
		Parity *struct {
			Images          int
			Cosine, Largest map[string]float64
		}
	}
	const most = 8 // outputs
	if json.Unmarshal(r.Reported, &said) != nil || said.Parity == nil || len(said.Parity.Cosine) == 0 ||
		len(said.Parity.Cosine) > most || len(said.Parity.Largest) > most {
		return p, false
	}
	return Parity{Images: said.Parity.Images, Cosine: said.Parity.Cosine, Largest: said.Parity.Largest}, true
}

// F1 is the F1 score of the variant's boxes against those of the FP32 model; 1 if neither has any.
func (p Parity) F1() float64 {
	if p.Boxes+p.Found == 0 {
		return 1
	}
	return 2 * float64(p.Matched) / float64(p.Boxes+p.Found)
}

// Times are how long both models take for one image, without reading it. The models run in turn, in the same program on
// the same machine.
type Times struct {
	Provider  string  `json:"provider"` // of ONNX Runtime
	Processor string  `json:"processor"`
	Threads   int     `json:"threads"`
	Images    int     `json:"images"` // in each round
	FP32      Latency `json:"fp32"`   // over all rounds
	Variant   Latency `json:"variant"`
	Rounds    []Round `json:"rounds"`
}

// A Latency has quantiles of the time for one image, in seconds.
type Latency struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
}

// A Round has the median times for one image in one round, in seconds.
type Round struct {
	FP32    float64 `json:"fp32"`
	Variant float64 `json:"variant"`
}

// Speedup is how many times as fast as FP32 the variant is; 0 if that was not measured.
func (t Times) Speedup() float64 {
	if v := t.FP32.P50 / t.Variant.P50; !math.IsNaN(v) && !math.IsInf(v, 0) {
		return v
	}
	return 0
}

// NoiseOfTimes is the difference between two medians that says nothing: one program differs that much from start to
// start.
const NoiseOfTimes = 0.05

// Faster reports whether the variant is faster than FP32 by more than NoiseOfTimes, and in each round.
func (t Times) Faster() bool {
	return len(t.Rounds) > 0 && t.Variant.P50 > 0 && t.Variant.P50 <= (1-NoiseOfTimes)*t.FP32.P50 &&
		!slices.ContainsFunc(t.Rounds, func(r Round) bool { return !(r.Variant < r.FP32) })
}

// LatencyOf returns the quantiles of times in seconds.
func LatencyOf(seconds []float64) Latency {
	if len(seconds) == 0 {
		return Latency{}
	}
	sorted := slices.Sorted(slices.Values(seconds))
	at := func(q float64) float64 { return sorted[int(q*float64(len(sorted)-1)+0.5)] }
	return Latency{P50: at(0.5), P95: at(0.95)}
}

// A MadeVariant states how a variant was made.
type MadeVariant struct {
	Key    Digest        `json:"key"` // of the run
	Input  VariantRun    `json:"input"`
	Result VariantResult `json:"result"`
}

// A ReleasedVariant is a variant in a release file: it has passed every gate.
type ReleasedVariant struct {
	Variant string `json:"variant" check:"oneof=fp16|int8"`
	Bundle  Digest `json:"bundle" check:"digest"`
	Model   Digest `json:"model" check:"digest"` // its model.onnx
	// Faster says how many times as fast as FP32 it is, by what this was measured for: cloud, which is the server's own
	// processor, or a hardware profile of a fleet, by signed benches. What it is not faster on is not listed.
	Faster map[string]float64 `json:"faster,omitempty" check:"optional,keys=name,min=1,max=1000000"`
}

// A JudgedVariant is a variant in a release statement, with the verdicts of all gates.
type JudgedVariant struct {
	Variant string       `json:"variant"`
	Bundle  Digest       `json:"bundle"`
	Gates   []GateJudged `json:"gates"`
}
