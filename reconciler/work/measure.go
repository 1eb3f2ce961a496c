package work

// This file has the runs that measure: score a bundle on an eval set, compare two bundles, and find a bundle's
// thresholds. Detections are stored by key, so inference runs once for each bundle and eval set.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/picture"
	"github.com/autonomos/aob/reconciler/profile"
	"github.com/autonomos/aob/reconciler/run"
)

// opened is an eval set with one bundle's detections.
type opened struct {
	input      delivery.EvalRun
	data       *dataset.EvalData
	detections []detect.ImageDetections
	digest     delivery.Digest
	slots      []string
	trained    map[int64]bool // images that the bundle was trained on
}

// open reads an eval run's images and truths. It reads the stored detections, or runs the detector and stores them.
func (s *Stages) open(ctx context.Context, r *run.Run, e delivery.EvalRun) (*opened, error) {
	data, err := s.Datasets.EvalSet(ctx, e.EvalSet, e.Classes)
	if err != nil {
		return nil, err
	}
	if data.Content.Images != e.Images || data.Content.Truths != e.Truths {
		return nil, delivery.Blockedf("restore the files, or put the new content into a new folder and name that in "+
			"the gate", "eval set %s has changed since it was first read", e.EvalSet)
	}
	info, err := s.Bundles.Describe(ctx, e.Bundle)
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", e.Bundle.Short(), err)
	}
	o := &opened{input: e, data: data, slots: info.Signature.Slots}
	lists := make([]delivery.TrainingImages, len(e.TrainingImages))
	for i, digest := range e.TrainingImages {
		if lists[i], err = dataset.ReadTrainingImages(s.Files, digest); err != nil {
			return nil, err
		}
	}
	o.trained = data.UsedInTraining(lists...)
	name := "detections/" + e.Detect.Hex() + ".json"
	if s.stored(o, name) {
		return o, nil
	}
	if err := r.Stage("detect"); err != nil {
		return nil, err
	}
	report := s.progress(r)
	done, err := alone(ctx, filepath.Join(filepath.Dir(r.Dir), ".detect-"+e.Detect.Hex()), report)
	if err != nil {
		return nil, err
	}
	defer done()
	if s.stored(o, name) { // by a run for another gate, or for the test split, that has the same images
		return o, nil
	}
	dir := filepath.Join(r.Dir, "bundle-"+e.Bundle.Short())
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := s.Bundles.Unpack(ctx, e.Bundle, dir); err != nil {
		return nil, err
	}
	images := delivery.Each(data.Images, func(im dataset.EvalImage) detect.ImageFile {
		return detect.ImageFile{ID: im.ID, Path: im.Path}
	})
	o.detections, err = s.Detector.Evaluate(ctx, detect.Request{Model: filepath.Join(dir, delivery.ModelFile),
		Signature: info.Signature, Bundle: dir, Images: images,
		Building: func(p profile.Progress) { report("building", p.Sentence(), 0, 0) }},
		func(done, total int) { report("detecting", "detecting", done, total) })
	if err != nil {
		return nil, blocked(err, "train the model again")
	}
	stored, err := json.Marshal(o.detections)
	if err != nil {
		return nil, err
	}
	o.digest = delivery.Sum(stored)
	path := filepath.Join(r.Dir, "detections.json")
	defer os.Remove(path)
	if err := durable.WriteFile(path, stored, 0o600); err != nil {
		return nil, err
	}
	return o, s.Files.Put(name, path)
}

// stored reads the stored detections, and reports whether there are some for all images.
func (s *Stages) stored(o *opened, name string) bool {
	stored, err := s.read(name)
	if err != nil || json.Unmarshal(stored, &o.detections) != nil || len(o.detections) != len(o.data.Images) {
		return false
	}
	o.digest = delivery.Sum(stored)
	return true
}

// alone waits until no other run of this machine runs the same bundle on the same images. Who finds no place for the
// lock does not wait, and computes the same.
func alone(ctx context.Context, path string, report func(phase, message string, done, total int)) (end func(),
	err error) {
	for {
		lock, err := durable.TryLock(path)
		if err == nil {
			return func() {
				os.Remove(path) // one who waits for the removed file goes on, and finds what was stored
				lock.Unlock()
			}, nil
		}
		if !errors.Is(err, durable.ErrLocked) {
			return func() {}, nil
		}
		report("waiting", "another run detects on the same images", 0, 0)
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (s *Stages) read(name string) ([]byte, error) {
	f, err := s.Files.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// name returns the bundle's name of a class, or "" if the bundle lacks the class.
func (o *opened) name(class string) string {
	if names := o.input.Classes.Called(class, o.slots); len(names) == 1 {
		return names[0]
	}
	return ""
}

// classes lists the classes that both the model and the eval set have, in the truth's order.
func (o *opened) classes() []string {
	var names []string
	for _, c := range o.data.Truth.Categories {
		if o.name(c.Name) != "" {
			names = append(names, c.Name)
		}
	}
	return names
}

// truth returns the truths of some classes, without some images.
func (o *opened) truth(classes []string, without map[int64]bool) *coco.Truth {
	t := &coco.Truth{}
	for _, im := range o.data.Truth.Images {
		if !without[im.ID] {
			t.Images = append(t.Images, im)
		}
	}
	keep := map[int64]bool{}
	for _, c := range o.data.Truth.Categories {
		if slices.Contains(classes, c.Name) {
			keep[c.ID] = true
			t.Categories = append(t.Categories, c)
		}
	}
	for _, a := range o.data.Truth.Annotations {
		if keep[a.Category] && !without[a.Image] {
			t.Annotations = append(t.Annotations, a)
		}
	}
	return t
}

// found lists the detections on the images of a truth, of its classes. Categories are
// matched by name; detections of other classes are left out.
func (o *opened) found(t *coco.Truth) []coco.Detection {
	category, there := map[string]int64{}, map[int64]bool{}
	for _, c := range t.Categories {
		category[o.name(c.Name)] = c.ID
	}
	for _, im := range t.Images {
		there[im.ID] = true
	}
	var list []coco.Detection
	for _, im := range o.detections {
		if !there[im.ID] {
			continue
		}
		for _, b := range im.Boxes {
			if id, ok := category[b.Class]; ok && b.Class != "" {
				list = append(list, coco.Detection{Image: im.ID, Category: id, Box: coco.Box{X: b.X, Y: b.Y, W: b.W,
					H: b.H}, Score: b.Score})
			}
		}
	}
	return list
}

func (o *opened) match(t *coco.Truth) (*coco.Matched, error) {
	return coco.Match(t, o.found(t), scoring)
}

// at returns a match with the bundle's thresholds, under the truth's class names.
func (o *opened) at(m *coco.Matched) coco.AtThresholds {
	scores := map[string]float64{}
	for _, class := range o.classes() {
		if score, ok := o.input.Thresholds[o.name(class)]; ok {
			scores[class] = score
		}
	}
	return coco.AtThresholds{Matched: m, Scores: scores}
}

// resampling returns the parameters of the resampling, with enough resamples for a check at 95 % over all classes.
func (o *opened) resampling(atLeast int, classes []string) coco.CompareParams {
	return coco.CompareParams{Resamples: max(atLeast, coco.ResamplesFor(len(classes), 0.95)),
		ByGroup: o.input.EvalSet.Group != ""}
}

func (s *Stages) eval(ctx context.Context, r *run.Run, e delivery.EvalRun) (any, error) {
	o, err := s.open(ctx, r, e)
	if err != nil {
		return nil, err
	}
	if err := r.Stage("score"); err != nil {
		return nil, err
	}
	classes := o.classes()
	m, err := o.match(o.truth(classes, o.trained))
	if err != nil {
		return nil, err
	}
	result := m.Result()
	out := delivery.ScoreSet{Detections: o.digest, Protocol: protocol(result.Protocol), Images: result.Images,
		LeftOut: len(o.trained), Values: map[string]float64{}, Truths: map[string]int{}, Classes: []string{}}
	stats := result.Stats
	for name, v := range map[string]float64{"mAP": stats.AP, "AP50": stats.AP50, "AP75": stats.AP75,
		"APs": stats.APs, "APm": stats.APm, "APl": stats.APl,
		"AR1": stats.AR1, "AR10": stats.AR10, "AR100": stats.AR100} {
		if v >= 0 {
			out.Values[name] = v
		}
	}
	for _, c := range result.PerClass {
		out.Truths[c.Name] = c.Truths
		if c.AP >= 0 {
			out.Classes = append(out.Classes, c.Name)
		}
	}
	params := o.resampling(e.Resamples, out.Classes)
	params.Columns = e.Measures
	table, sampling, err := coco.Interval(m, params)
	if errors.Is(err, coco.ErrNoTruth) {
		out.Table, err = o.counted(delivery.Table{}, m, params)
		return out, err
	}
	if err != nil {
		return nil, err
	}
	if sampling.ByGroup {
		out.Groups = sampling.Units
	}
	out.Table, err = o.counted(table, m, params)
	return out, err
}

// counted adds the counts at the bundle's thresholds to a table, if the bundle has thresholds. Without annotations
// there are only the counts.
func (o *opened) counted(t delivery.Table, m *coco.Matched, params coco.CompareParams) (delivery.Table, error) {
	if len(o.input.Thresholds) == 0 {
		return t, nil
	}
	counts, err := o.at(m).Counts(params)
	switch {
	case errors.Is(err, coco.ErrNoTruth): // no class or no image
		return t, nil
	case err != nil:
		return t, err
	case len(t.Classes) == 0:
		return counts, nil
	}
	return t.Add(counts)
}

func (s *Stages) compare(ctx context.Context, r *run.Run, input delivery.CompareRun) (any, error) {
	a, err := s.open(ctx, r, input.Candidate)
	if err != nil {
		return nil, err
	}
	b, err := s.open(ctx, r, input.Baseline)
	if err != nil {
		return nil, err
	}
	if err := r.Stage("compare"); err != nil {
		return nil, err
	}
	without := maps.Clone(a.trained)
	maps.Copy(without, b.trained)
	classes := slices.DeleteFunc(a.classes(), func(c string) bool { return !slices.Contains(b.classes(), c) })
	truth := a.truth(classes, without)
	out := delivery.CompareResult{Images: len(truth.Images), LeftOut: len(without), Classes: []string{},
		Truths: map[string]int{}}
	if len(classes) == 0 {
		return out, nil
	}
	ma, err := a.match(truth)
	if err != nil {
		return nil, err
	}
	mb, err := b.match(truth)
	if err != nil {
		return nil, err
	}
	params := a.resampling(input.Resamples, classes)
	params.Seed, params.Columns = input.Seed, input.Candidate.Measures
	c, err := coco.Compare(ma, mb, params)
	if errors.Is(err, coco.ErrNoTruth) && len(input.Candidate.Thresholds) > 0 && len(input.Baseline.Thresholds) > 0 {
		if out.Candidate, err = a.counted(out.Candidate, ma, params); err != nil {
			return nil, err
		}
		out.Baseline, err = b.counted(out.Baseline, mb, params)
		return out, err
	}
	if errors.Is(err, coco.ErrNoTruth) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	if c.Sampling.ByGroup {
		out.Groups = c.Sampling.Units
	}
	for _, d := range c.Classes {
		out.Classes = append(out.Classes, d.Class)
		out.Truths[d.Class] = d.Truths
	}
	out.Candidate, out.Baseline = c.TableA.Values(), c.TableB.Values()
	out.Difference = c.TableA.Minus(c.TableB)
	if len(input.Candidate.Thresholds) > 0 && len(input.Baseline.Thresholds) > 0 {
		if out.Candidate, err = a.counted(out.Candidate, ma, params); err != nil {
			return nil, err
		}
		if out.Baseline, err = b.counted(out.Baseline, mb, params); err != nil {
			return nil, err
		}
	}
	if out.Shifts, err = coco.Shifts(truth, a.found(truth), b.found(truth), scoring); err != nil {
		return nil, err
	}
	if err := r.Stage("pictures"); err != nil {
		return nil, err
	}
	out.Pictures, err = s.pictures(r, truth, a, b)
	return out, err
}

// shownPictures is the most pictures of a comparison.
const shownPictures = 8

// pictures draws the images on which a got worse than b.
func (s *Stages) pictures(r *run.Run, truth *coco.Truth, a, b *opened) ([]string, error) {
	at := func(o *opened) map[string]float64 {
		if len(o.input.Thresholds) == 0 {
			return nil
		}
		return o.at(nil).Scores
	}
	worse, err := coco.Regressions(truth, a.found(truth), b.found(truth), at(a), at(b), scoring)
	if err != nil || len(worse) == 0 {
		return nil, err
	}
	paths := map[int64]string{}
	for _, im := range a.data.Images {
		paths[im.ID] = im.Path
	}
	var list []picture.Picture
	for _, w := range worse[:min(len(worse), shownPictures)] {
		w.Why = strings.ReplaceAll(w.Why, "the baseline", "the release")
		list = append(list, picture.Picture{Path: paths[w.Image], Name: w.FileName, Baseline: "release", Regression: w})
	}
	dir := filepath.Join(r.Dir, "pictures")
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	entries, err := picture.Write(dir, list)
	switch {
	case entries == nil:
		return nil, err
	case err != nil:
		s.Log.Warn("some pictures could not be drawn", "error", err.Error())
	}
	drawn := delivery.Each(entries, func(e picture.Entry) string { return e.File })
	return drawn, s.Files.Put("pictures/"+r.Spec.Key.Hex(), dir)
}

// thresholds finds a bundle's score thresholds on the validation split, and pushes a
// bundle of the same model with them.
func (s *Stages) thresholds(ctx context.Context, r *run.Run, input delivery.ThresholdRun) (any, error) {
	o, err := s.open(ctx, r, input.Valid)
	if err != nil {
		return nil, err
	}
	if err := r.Stage("thresholds"); err != nil {
		return nil, err
	}
	m, err := o.match(o.truth(o.classes(), o.trained))
	if err != nil {
		return nil, err
	}
	out := delivery.ThresholdResult{Points: m.Points(input.Ask)}
	scores := map[string]float64{}
	for class, p := range out.Points {
		scores[class] = p.Score
	}
	if out.Bundle, err = s.Bundles.WithThresholds(ctx, input.Valid.Bundle, scores); err != nil {
		return nil, err
	}
	info, err := s.Bundles.Describe(ctx, out.Bundle)
	out.Size = info.Size
	return out, err
}
