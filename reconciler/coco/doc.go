// Package coco computes COCO's metrics of object detectors, and confidence bounds for them.
//
//	truth, err := coco.Loader{}.ReadTruth(gtFile)
//	dets, err := coco.Loader{}.ReadDetections(dtFile, truth)
//	m, err := coco.Match(truth, dets, coco.Params{})
//	fmt.Println(m.Result().Stats.AP)
//
// The numbers are those of pycocotools' COCOeval for boxes. In [Strict] mode they are equal to the last bit, its
// treatment of annotation id 0 included (a detection never matches an annotation with that id). [Fixed] mode, the
// default, matches such annotations too and is otherwise the same. -1 stands for no value: a class without annotations,
// an area range without objects.
//
// # Two models on the same truths
//
// [Compare] computes bounds for the difference between two models by a paired
// bootstrap over images, or over groups of images such as the frames of one video.
//
//	a, err := coco.Match(truth, candidate, coco.Params{})
//	b, err := coco.Match(truth, baseline, coco.Params{})
//	cmp, err := coco.Compare(a, b, coco.CompareParams{})
//	fmt.Println(cmp.MAP.Diff, cmp.MAP.Lower, cmp.MAP.Upper) // of a minus b
//
// Matching does not depend on the resample. It is done once, and each resample is a
// weighted pass over the sorted detections. [Interval] does the same for one model. The
// bounds cover the choice of test images only, not the variation between trainings.
//
// Both return the value of each class in each resample as a [delivery.Table], from which
// any mean, ratio or difference over classes is computed resample by resample.
// [AtThresholds.Counts] adds the counts at score thresholds, in the same resamples.
//
// # Adding a metric
//
// Add a row to [delivery.Metrics]. For a mean over classes, add a row to columns in resample.go. For a ratio of true
// positives, false positives and annotations, add a case to rate in delivery/table.go.
//
// # Protocols
//
// Scores are comparable only if they were computed in the same way. Every [Result] has its [Protocol]: evaluator, mode,
// limits and the digest of the ground truth. [Compare] returns an error for matches with different protocols.
//
// # Determinism
//
// Results do not depend on the machine or the number of threads: there are no fused multiply-adds, sums have a fixed
// order, and the seed determines the random sequence of the bootstrap.
//
// # Units
//
// Boxes are x, y, width, height in pixels from the top left corner of the image. Areas are square pixels. Scores are
// any finite numbers; higher means more confident. All functions may be called concurrently with the same arguments,
// which they do not change.
package coco
