package delivery

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Metric is something that a gate can hold a model to. All that AOB knows of a metric stands in the table of
// [Metrics]; where it is computed is the other place that a new one touches.
type Metric struct {
	Name  string // as gates and scores name it
	Label string // as people read it in a sentence, where that is not Name
	Doc   string // what it is, in a few words
	Of    MetricOf
	Unit  MetricUnit
	// LessIsBetter makes max the bound of a check. Of others it is min or maxDrop.
	LessIsBetter bool
	// AtThreshold is of what a model does at its score thresholds: it is measured where the model has some.
	AtThreshold bool
	// OnDemand is of what is measured only where a gate asks for it, so that the scores of others stay what they are.
	OnDemand bool
	// Headline metrics come first wherever several are listed, and stand in release files.
	Headline bool
	// Mean is, of a metric of single classes, the name of its mean over them; it may be empty.
	Mean string
	// Column is, of a metric that is a mean over classes or the value of one, its column in a [Table].
	Column string
	// Undefined says why a model may have no value although the eval set has truths; it may be empty.
	Undefined string
}

// MetricOf says what a metric is a figure of.
type MetricOf string

// What there are figures of.
const (
	OfClasses MetricOf = "all classes" // a mean, or another figure over all of them
	OfClass   MetricOf = "each class"  // of each class by itself
	OfEither  MetricOf = "either"      // of all classes, and of each where a check names classes
	OfModel   MetricOf = "the model"   // of its files: it has no classes, and is never in doubt
)

// MetricUnit is what a value counts.
type MetricUnit string

// The units of metrics.
const (
	UnitShare MetricUnit = "share" // from 0 to 1
	UnitCount MetricUnit = "count" // from 0 on
	UnitBytes MetricUnit = "bytes"
)

// The names of metrics that code asks for.
const (
	MetricMAP            = "mAP"
	MetricAP50           = "AP50"
	MetricAP75           = "AP75"
	MetricAP             = "AP"
	MetricRecall         = "recall"
	MetricPrecision      = "precision"
	MetricFalsePositives = "falsePositivesPerImage"
	MetricF1             = "F1"
	MetricAR100          = "AR100"
	MetricAPSmall        = "APsmall" // "AP/small" would be the AP of a class that is called small
	MetricAPMedium       = "APmedium"
	MetricAPLarge        = "APlarge"
	MetricSize           = "size"
)

var metrics = []Metric{
	{Name: MetricMAP, Of: OfClasses, Unit: UnitShare, Headline: true, Column: MetricAP,
		Doc: "the mean of AP over all classes, at IoU 0.50 to 0.95"},
	{Name: MetricAP50, Of: OfClasses, Unit: UnitShare, Headline: true, Column: MetricAP50, Doc: "the same at IoU 0.50"},
	{Name: MetricAP75, Of: OfClasses, Unit: UnitShare, Headline: true, Column: MetricAP75, Doc: "the same at IoU 0.75"},
	{Name: MetricAP, Of: OfClass, Unit: UnitShare, Mean: MetricMAP, Column: MetricAP, Doc: "the AP of each class"},
	{Name: MetricRecall, Of: OfEither, Unit: UnitShare, AtThreshold: true,
		Doc: "the share of truths that are found at the model's thresholds"},
	{Name: MetricPrecision, Of: OfEither, Unit: UnitShare, AtThreshold: true,
		Doc:       "the share of detections that are right at the model's thresholds",
		Undefined: "nothing is detected at the model's threshold"},
	{Name: MetricFalsePositives, Label: "false positives per image", Of: OfEither, Unit: UnitCount,
		LessIsBetter: true, AtThreshold: true, Doc: "detections that are wrong at the model's thresholds, per image"},
	{Name: MetricF1, Of: OfEither, Unit: UnitShare, AtThreshold: true, OnDemand: true,
		Doc: "the harmonic mean of recall and precision at the model's thresholds"},
	{Name: MetricAR100, Of: OfEither, Unit: UnitShare, OnDemand: true, Column: MetricAR100,
		Doc: "COCO's average recall: at most 100 detections of a class and image, at IoU 0.50 to 0.95"},
	{Name: MetricAPSmall, Of: OfEither, Unit: UnitShare, OnDemand: true, Column: MetricAPSmall,
		Doc:       "the mean of AP over all classes, of objects of up to 32 x 32 pixels",
		Undefined: "the eval set has no such small object"},
	{Name: MetricAPMedium, Of: OfEither, Unit: UnitShare, OnDemand: true, Column: MetricAPMedium,
		Doc:       "the same of objects of 32 x 32 to 96 x 96 pixels",
		Undefined: "the eval set has no object of that size"},
	{Name: MetricAPLarge, Of: OfEither, Unit: UnitShare, OnDemand: true, Column: MetricAPLarge,
		Doc:       "the same of objects of 96 x 96 pixels and more",
		Undefined: "the eval set has no such large object"},
	{Name: MetricSize, Of: OfModel, Unit: UnitBytes, LessIsBetter: true, Doc: "the size of the largest variant"},
}

// Metrics lists all metrics, in the order in which people see them.
func Metrics() []Metric { return slices.Clone(metrics) }

// MetricOfFigure returns the metric of a figure as scores name it: mAP, or AP/person. It is the zero Metric where there
// is none.
func MetricOfFigure(figure string) Metric {
	name, _, _ := strings.Cut(figure, "/")
	if i := slices.IndexFunc(metrics, func(m Metric) bool { return m.Name == name }); i >= 0 {
		return metrics[i]
	}
	return Metric{}
}

// MetricNames lists the metrics of which is is true, in order; all of them where it is nil.
func MetricNames(is func(Metric) bool) []string {
	var names []string
	for _, m := range metrics {
		if is == nil || is(m) {
			names = append(names, m.Name)
		}
	}
	return names
}

// Bounds are the keys by which a check can bound the metric.
func (m Metric) Bounds() []string {
	if m.LessIsBetter {
		return []string{"max"}
	}
	return []string{"min", "maxDrop"}
}

// Bound gives the one-sided bounds of a value, each at a confidence, within what the metric can be: no AP is below 0 or
// above 1.
func (m Metric) Bound(s Samples, confidence float64) (low, high float64) {
	low, high = s.Bounds(confidence)
	if m.Unit == UnitShare {
		high = min(high, 1)
	}
	return max(low, 0), high
}

// Example is a bound as people write it.
func (m Metric) Example() string {
	switch {
	case m.Unit == UnitBytes:
		return "max: 120MB"
	case m.LessIsBetter:
		return "max: 0.5"
	}
	return "min: 0.5"
}

// ByClass reports whether a check may name classes.
func (m Metric) ByClass() bool { return m.Of == OfClass || m.Of == OfEither }

// String is the name that people read in a sentence.
func (m Metric) String() string { return cmp.Or(m.Label, m.Name) }

// CompareFigures orders figures as scores name them: headline metrics first, then the others, and those of classes, by
// name.
func CompareFigures(a, b string) int {
	rank := func(figure string) int {
		i := slices.IndexFunc(metrics, func(m Metric) bool { return m.Name == figure && m.Headline })
		if i < 0 {
			return len(metrics)
		}
		return i
	}
	return cmp.Or(rank(a)-rank(b), strings.Compare(a, b))
}

// metricDocs says of each metric what it is.
func metricDocs() string {
	var list []string
	for _, m := range metrics {
		list = append(list, fmt.Sprintf("%s, %s", m.Name, m.Doc))
	}
	return strings.Join(list, "; ")
}
