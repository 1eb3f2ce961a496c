package delivery

import (
	"cmp"
	"slices"
	"strings"
)

// A Metric is a quantity that gates can bound. To add one, add a row to the table of [Metrics], and code that computes
// it; see package coco.
type Metric struct {
	Name  string // in gates and scores
	Label string // in sentences; empty if it is Name
	Doc   string // a short definition
	Of    MetricOf
	Unit  MetricUnit
	// LessIsBetter metrics have the bound max in checks, others min or maxDrop.
	LessIsBetter bool
	// AtThreshold metrics are measured at the model's score thresholds, if it has any.
	AtThreshold bool
	// OnDemand metrics are measured only if a gate has a check for them, so that other scores keep their keys.
	OnDemand bool
	// Headline metrics are listed first, and are written into release files.
	Headline bool
	// Mean is the name of the mean over classes of a metric of single classes; it may be empty.
	Mean string
	// Column is the column in a [Table] that holds the values of classes; empty if it is computed from counts.
	Column string
	// WhyNoValue says why there may be no value although the classes have annotations; it may be empty.
	WhyNoValue string
}

// MetricOf says what a metric describes.
type MetricOf string

// What metrics describe.
const (
	OfClasses MetricOf = "all classes" // a mean or another value over all of them
	OfClass   MetricOf = "each class"  // each class separately
	OfEither  MetricOf = "either"      // each class if a check selects classes, else all of them
	OfModel   MetricOf = "the model"   // its files; there are no classes and no uncertainty
	OfProfile MetricOf = "a profile"   // each hardware profile, by a bench; there are no classes
)

// MetricUnit is the unit of a metric's values.
type MetricUnit string

// The units of metrics.
const (
	UnitShare MetricUnit = "share" // from 0 to 1
	UnitCount MetricUnit = "count" // from 0 up
	UnitBytes MetricUnit = "bytes"
	UnitTime  MetricUnit = "seconds"
)

// The names of metrics.
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
	MetricAPSmall        = "APsmall" // "AP/small" would be the AP of a class named small
	MetricAPMedium       = "APmedium"
	MetricAPLarge        = "APlarge"
	MetricSize           = "size"
	// The quantiles of the time for one image, from the file to the boxes: latency.p50 to latency.p99.
	metricLatency = "latency."
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
		Doc:        "the share of detections that are right at the model's thresholds",
		WhyNoValue: "nothing is detected at the model's threshold"},
	{Name: MetricFalsePositives, Label: "false positives per image", Of: OfEither, Unit: UnitCount,
		LessIsBetter: true, AtThreshold: true, Doc: "detections that are wrong at the model's thresholds, per image"},
	{Name: MetricF1, Of: OfEither, Unit: UnitShare, AtThreshold: true, OnDemand: true,
		Doc: "the harmonic mean of recall and precision at the model's thresholds"},
	{Name: MetricAR100, Of: OfEither, Unit: UnitShare, OnDemand: true, Column: MetricAR100,
		Doc: "COCO's average recall: at most 100 detections of a class and image, at IoU 0.50 to 0.95"},
	{Name: MetricAPSmall, Of: OfEither, Unit: UnitShare, OnDemand: true, Column: MetricAPSmall,
		Doc:        "the mean of AP over all classes, of objects of up to 32 x 32 pixels",
		WhyNoValue: "the eval set has no such small object"},
	{Name: MetricAPMedium, Of: OfEither, Unit: UnitShare, OnDemand: true, Column: MetricAPMedium,
		Doc:        "the same of objects of 32 x 32 to 96 x 96 pixels",
		WhyNoValue: "the eval set has no object of that size"},
	{Name: MetricAPLarge, Of: OfEither, Unit: UnitShare, OnDemand: true, Column: MetricAPLarge,
		Doc:        "the same of objects of 96 x 96 pixels and more",
		WhyNoValue: "the eval set has no such large object"},
	{Name: MetricSize, Of: OfModel, Unit: UnitBytes, LessIsBetter: true, Doc: "the size of the ONNX file"},
	latency("p50", "the median of the time for one image, from the file to the boxes, on a hardware profile"),
	latency("p90", "its 90th percentile"), latency("p95", "its 95th percentile"),
	latency("p99", "its 99th percentile"),
}

func latency(quantile, doc string) Metric {
	return Metric{Name: metricLatency + quantile, Of: OfProfile, Unit: UnitTime, LessIsBetter: true, Doc: doc}
}

// Quantile returns which quantile a metric of latency is, as p95; "" of another one.
func (m Metric) Quantile() string {
	q, ok := strings.CutPrefix(m.Name, metricLatency)
	if !ok {
		return ""
	}
	return q
}

// Metrics lists all metrics in the order of display.
func Metrics() []Metric { return slices.Clone(metrics) }

// MetricOfFigure returns the metric of a figure's name in scores, as in mAP or AP/person. It is the zero Metric if
// there is none.
func MetricOfFigure(figure string) Metric {
	name, _, _ := strings.Cut(figure, "/")
	m, _ := Find(metrics, func(m Metric) bool { return m.Name == name })
	return m
}

// MetricNames lists the names of the metrics that match, in order. A nil function matches all.
func MetricNames(match func(Metric) bool) []string {
	var names []string
	for _, m := range metrics {
		if match == nil || match(m) {
			names = append(names, m.Name)
		}
	}
	return names
}

// Bounds lists the keys of a check that can bound the metric.
func (m Metric) Bounds() []string {
	if m.LessIsBetter {
		return []string{"max"}
	}
	return []string{"min", "maxDrop"}
}

// Bound returns the one-sided bounds of a value, each at the given confidence, clipped to the metric's range.
func (m Metric) Bound(s Samples, confidence float64) (low, high float64) {
	return m.Limit(s.Bounds(confidence))
}

// Limit returns bounds without what the metric cannot be.
func (m Metric) Limit(low, high float64) (float64, float64) {
	if m.Unit == UnitShare {
		high = min(high, 1)
	}
	return max(low, 0), high
}

// Example returns a bound in the YAML of a check.
func (m Metric) Example() string {
	switch {
	case m.Unit == UnitBytes:
		return "max: 120MB"
	case m.Unit == UnitTime:
		return "max: 33ms"
	case m.LessIsBetter:
		return "max: 0.5"
	}
	return "min: 0.5"
}

// ByClass reports whether a check may select classes.
func (m Metric) ByClass() bool { return m.Of == OfClass || m.Of == OfEither }

// String returns the name in sentences.
func (m Metric) String() string { return cmp.Or(m.Label, m.Name) }

// CompareFigures orders names of figures: headline metrics first, then all others by name.
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

// metricDocs lists the definitions of all metrics.
func metricDocs() string {
	return strings.Join(Each(metrics, func(m Metric) string { return m.Name + ", " + m.Doc }), "; ")
}
