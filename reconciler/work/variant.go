package work

// This file makes variants of trained models. The trainer converts the model; AOB itself then runs both on the same
// images, to see how far their outputs differ and how long they take.

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/run"
)

const (
	comparedImages = 32   // on which a variant is compared with its model
	timedRounds    = 5    // in each of which both models run over the images
	comparedScore  = 0.05 // boxes with a lower score are not compared
	sameBox        = 0.5  // the IoU from which two boxes are the same
	maxAnnotations = 1 << 30
)

func (s *Stages) variant(ctx context.Context, r *run.Run, input delivery.VariantRun) (any, error) {
	parent := filepath.Join(r.Dir, "parent")
	if err := os.RemoveAll(parent); err != nil {
		return nil, err
	}
	defer os.RemoveAll(parent)
	if err := s.Bundles.Unpack(ctx, input.Bundle, parent); err != nil {
		return nil, fmt.Errorf("bundle %s: %w", input.Bundle.Short(), err)
	}
	of, err := s.Bundles.Describe(ctx, input.Bundle)
	if err != nil {
		return nil, err
	}
	ask := trainerVariant{Name: input.Variant, Model: filepath.Join(parent, delivery.ModelFile)}
	if input.Checkpoint != "" {
		folder, name := delivery.CheckpointName(input.Checkpoint)
		in, err := s.Files.Local(folder, filepath.Join(r.Dir, "checkpoint"))
		if err != nil {
			return nil, delivery.Blockedf("restore the folder "+folder+" of the server's state from a backup",
				"the checkpoint of bundle %s is missing", input.Bundle.Short())
		}
		ask.Checkpoint = filepath.Join(in, name)
	}
	trained, err := s.runTrainer(ctx, r, input.Train, trainerRun{Variant: &ask})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(trained.Output, delivery.ModelFile)
	made, err := s.pack(ctx, r, input.Train, file)
	if err != nil {
		return nil, err
	}
	if made.signature.Digest() != of.Signature.Digest() {
		return nil, delivery.Blockedf("fix the trainer: it must copy the model's metadata, inputs and outputs",
			"the variant has other inputs, outputs or metadata than the model")
	}
	if err := r.Stage("compare"); err != nil {
		return nil, err
	}
	golden, err := readGolden(filepath.Join(parent, delivery.GoldenFile))
	if err != nil {
		return nil, err
	}
	out := delivery.VariantResult{Bundle: made.bundle, Model: made.info.Model, Size: made.info.Size, OfSize: of.Size,
		Reported: trainerInfo(filepath.Join(trained.Output, "variant.json"), s.mask())}
	out.Parity = tensorParity(of.Signature, golden, made.golden)
	images, err := s.imagesOf(r, input.Train)
	if err != nil {
		return nil, err
	}
	err = s.timed(ctx, r, of.Signature, ask.Model, file, images, &out)
	return out, err
}

func readGolden(path string) (detect.Golden, error) {
	data, err := durable.ReadFile(path, detect.MaxGoldenBytes)
	if err != nil {
		return detect.Golden{}, err
	}
	return detect.ParseGolden(data)
}

// imagesOf lists the first images of the validation split that the training had, or of its other split if that has
// none.
func (s *Stages) imagesOf(r *run.Run, input delivery.TrainRun) ([]detect.ImageFile, error) {
	prepared, err := s.Files.Local(run.OutputName(delivery.RunData, input.Data, preparedFolder),
		filepath.Join(r.Dir, preparedFolder))
	if err != nil {
		return nil, err
	}
	var list []detect.ImageFile
	for _, split := range []string{"valid", "train"} {
		data, err := durable.ReadFile(filepath.Join(prepared, split, dataset.AnnotationsFile), maxAnnotations)
		if err != nil {
			return nil, err
		}
		var file struct {
			Images []struct {
				Name string `json:"file_name"`
			} `json:"images"`
		}
		if err := json.Unmarshal(data, &file); err != nil {
			return nil, err
		}
		for i, im := range file.Images[:min(len(file.Images), comparedImages)] {
			list = append(list, detect.ImageFile{ID: int64(i), Path: filepath.Join(prepared, split,
				filepath.FromSlash(im.Name))})
		}
		if len(list) > 0 {
			break
		}
	}
	return list, nil
}

// timed runs a model and its variant over the images in turn, and fills in how long both take and how far their boxes
// differ.
func (s *Stages) timed(ctx context.Context, r *run.Run, sig delivery.Signature, model, variant string,
	images []detect.ImageFile, out *delivery.VariantResult) error {
	if len(images) == 0 {
		return nil
	}
	runs := slices.Clone(images)
	for len(runs) < comparedImages { // a median of few times says little
		runs = append(runs, images...)
	}
	out.Times = delivery.Times{Provider: detect.Provider, Processor: processor(), Threads: runtime.NumCPU(),
		Images: len(runs)}
	report := s.progress(r)
	files := [2]string{model, variant}
	var all [2][]float64
	for round := range timedRounds {
		var medians [2]float64
		var found [2][]detect.ImageDetections
		for turn := range files {
			i := (turn + round) % 2 // neither is always the first
			done := (2*round + turn) * len(runs)
			list, err := s.Detector.Evaluate(ctx, detect.Request{Model: files[i], Signature: sig, Images: runs,
				Timed: true}, func(n, _ int) {
				report("comparing", "comparing", done+n, 2*timedRounds*len(runs))
			})
			if err != nil {
				return blocked(err, "fix the trainer")
			}
			seconds := delivery.Each(list, func(d detect.ImageDetections) float64 { return d.Seconds })
			medians[i], found[i] = delivery.LatencyOf(seconds).P50, list
			all[i] = append(all[i], seconds...)
		}
		out.Times.Rounds = append(out.Times.Rounds, delivery.Round{FP32: medians[0], Variant: medians[1]})
		if round == 0 {
			boxParity(&out.Parity, found[0][:len(images)], found[1][:len(images)])
		}
	}
	out.Times.FP32, out.Times.Variant = delivery.LatencyOf(all[0]), delivery.LatencyOf(all[1])
	return nil
}

// processor returns the name of the processor.
func processor() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(data)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				return delivery.PlainText(strings.TrimSpace(value), 100)
			}
		}
	}
	return runtime.GOARCH
}

// tensorParity compares the outputs of two models for the input of golden.bin.
func tensorParity(sig delivery.Signature, model, variant detect.Golden) delivery.Parity {
	p := delivery.Parity{Cosine: map[string]float64{}, Largest: map[string]float64{}}
	for name, pair := range map[string][2][]float32{sig.Boxes: {model.Boxes, variant.Boxes},
		sig.Logits: {model.Logits, variant.Logits}} {
		p.Cosine[name], p.Largest[name] = tensors(pair[0], pair[1])
	}
	return p
}

// tensors returns the cosine of two tensors, and the largest difference of a number. Their shapes are those of one
// signature, and golden outputs are finite.
func tensors(a, b []float32) (cosine, largest float64) {
	if len(a) != len(b) {
		return 0, math.MaxFloat32
	}
	var ab, aa, bb float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
		largest = max(largest, math.Abs(x-y))
	}
	if aa == bb && largest == 0 {
		return 1, 0
	}
	return ab / max(math.Sqrt(aa*bb), math.SmallestNonzeroFloat32), largest
}

// boxParity compares the boxes of two models on the same images: each box of the model, best first, gets the box of
// the variant of its class that overlaps it most.
func boxParity(p *delivery.Parity, model, variant []detect.ImageDetections) {
	p.Images, p.MinScore = len(model), comparedScore
	shift := 0.0
	for i := range model {
		boxes, free := model[i].Above(comparedScore), slices.Clone(variant[i].Above(comparedScore))
		p.Boxes, p.Found = p.Boxes+len(boxes), p.Found+len(free)
		for _, b := range boxes {
			best, at := sameBox, -1
			for k, o := range free {
				if overlap := iou(b, o); o.Class == b.Class && overlap >= best {
					best, at = overlap, k
				}
			}
			if at >= 0 {
				p.Matched++
				shift += math.Abs(b.Score - free[at].Score)
				free = slices.Delete(free, at, at+1)
			}
		}
	}
	p.ScoreShift = shift / float64(max(1, p.Matched))
}

func iou(a, b delivery.Box) float64 {
	w := min(a.X+a.W, b.X+b.W) - max(a.X, b.X)
	h := min(a.Y+a.H, b.Y+b.H) - max(a.Y, b.Y)
	if w <= 0 || h <= 0 {
		return 0
	}
	return w * h / (a.W*a.H + b.W*b.H - w*h)
}
