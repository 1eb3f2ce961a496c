// Package coco scores object detectors as COCO does, and says how sure the
// scores are.
//
//	truth, err := coco.ReadTruth(gtFile)
//	dets, err := coco.ReadDetections(dtFile, truth)
//	result, err := coco.Evaluate(truth, dets, coco.Params{})
//	fmt.Println(result.Stats.AP, result.Protocol.Digest())
//
// The numbers are those of pycocotools' COCOeval for boxes. In [Strict] mode
// they are equal to the last bit, its treatment of annotation id 0 included
// (a truth with that id can never be found). [Fixed] mode, the default, counts
// such truths rightly and is otherwise the same. -1 stands for "there is
// nothing to measure": a class without truths, a size range without objects.
//
// # Two models on the same truths
//
// [Compare] answers whether one model is better than another or whether the
// test set is too small to say: a paired bootstrap over images, or over groups
// of images such as the frames of one video.
//
//	a, err := coco.Match(truth, candidate, coco.Params{})
//	b, err := coco.Match(truth, baseline, coco.Params{})
//	cmp, err := coco.Compare(a, b, coco.CompareParams{})
//	fmt.Println(cmp.MAP.Diff, cmp.MAP.Lower, cmp.MAP.Upper) // of a minus b
//
// Which detection finds which truth does not depend on the resample, so
// matching is done once and each resample is a weighted pass over detections
// that are already sorted. [Interval] does the same for one model. The spread
// covers the choice of test images and nothing else: training the same model
// twice may differ by more.
//
// Both keep what each class measured in each resample, as a [delivery.Table].
// Every mean, share and difference over any list of classes is computed from
// it, resample by resample. [AtThresholds.Counts] adds what a model finds at its
// score thresholds, in the same resamples.
//
// # Adding a metric
//
// A metric that is a mean over classes is a row of [delivery.Metrics] and a row
// of columns, in resample.go. One that is computed from what is found, what is
// wrong and what there is to find is a row and a case of rate, in
// delivery/table.go.
//
// # Protocols
//
// Two figures may be compared only if they were made in the same way. Every
// [Result] carries its [Protocol]: evaluator, mode, limits and the digest of
// the ground truth. [Compare] refuses matches of different protocols.
//
// # Determinism
//
// Results do not depend on the machine or the number of threads: products are
// never fused into multiply-adds, sums have a fixed order, and the random
// sequence of the bootstrap is fixed by its seed for ever.
//
// # Units
//
// Boxes are x, y, width, height in pixels from the top left corner of the
// image. Areas are square pixels. Scores have any finite value; higher is
// surer. All functions are safe to call from several goroutines at once on the
// same values, which they never change.
package coco
