package coco

import (
	"cmp"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Foreground is the least IoU of a detection that localizes an annotation. Background is the highest IoU of a detection
// in the background.
const Foreground, Background = 0.5, 0.1

// ErrorType is one of TIDE's six types of detection errors.
type ErrorType int

// The error types. A false positive has the first type that fits, in the order Loc, Cls, Dupe, Bkg, Both. Ignored
// detections, such as those in a crowd, are not errors.
const (
	Cls  ErrorType = iota // localizes an annotation of another class
	Loc                   // IoU between Background and Foreground with an annotation of its class
	Both                  // wrong class and wrong localization
	Dupe                  // on an annotation that a detection of higher score matched
	Bkg                   // IoU of at most Background with all annotations
	Miss                  // an annotation without a detection, and without a Cls or Loc error on it
	errorTypes
)

// String returns TIDE's short name.
func (e ErrorType) String() string {
	return [errorTypes]string{"Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"}[e]
}

// MarshalText implements encoding.TextMarshaler.
func (e ErrorType) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// Diagnosis lists a model's errors and their cost in AP50.
type Diagnosis struct {
	AP50     float64       `json:"AP50"`
	Errors   []ErrorCost   `json:"errors"`    // by type
	PerClass []ClassErrors `json:"per_class"` // by category id
	// Confusions are the pairs of classes in Cls errors, the most frequent first. Detections below their class's score
	// of best F1 do not count.
	Confusions []Confusion `json:"confusions"`
}

// ErrorCost is one type of error.
type ErrorCost struct {
	Type  ErrorType `json:"type"`
	Count int       `json:"count"`
	// DAP is the gain of AP50 if only these errors are corrected. For each unmatched annotation its Cls or Loc error of
	// the highest score becomes a true positive, and the others are removed. Both, Dupe and Bkg errors are removed. For
	// Miss errors the annotation is removed. The six gains do not add up to 1 - AP50.
	DAP float64 `json:"dAP"`
}

// ClassErrors are the errors of one class: of its detections and, for Miss, of its annotations. A Cls error is counted
// in the class of the detection; correcting it changes the AP of the annotation's class too.
type ClassErrors struct {
	CategoryID int64       `json:"category_id"`
	Name       string      `json:"name"`
	Truths     int         `json:"truths"`
	AP50       float64     `json:"AP50"` // -1 without annotations; every DAP is then 0
	Errors     []ErrorCost `json:"errors"`
}

// Confusion counts how often one class is detected as another.
type Confusion struct {
	TruthID    int64  `json:"truth_id"` // category of the annotations
	Truth      string `json:"truth"`
	DetectedID int64  `json:"detected_id"` // category of the detections on them
	Detected   string `json:"detected"`
	Count      int    `json:"count"`  // of detections
	Truths     int    `json:"truths"` // annotations of that class, without crowds
}

// Diagnose classifies the errors of detections by the method of TIDE (Bolya, Foley, Hays and Hoffman, "TIDE: A General
// Toolbox for Identifying Object Detection Errors", ECCV 2020, section 2). AP50, matching, the limit on detections and
// the treatment of crowds are those of [Matched.Result]. It follows COCO where the authors' program does not:
// detections of equal score keep their order when others are corrected, classes without annotations do not count,
// detections in crowds are not errors, and the limit on detections is for an image and class.
func Diagnose(truth *Truth, detections []Detection, params Params) (*Diagnosis, error) {
	m, err := Match(truth, detections, params)
	if err != nil {
		return nil, err
	}
	points, err := m.BestF1(Foreground)
	if err != nil {
		return nil, err
	}
	d := &diagnosing{m: m, truth: truth, detections: detections, classes: make([]classErrors, len(m.classes))}
	d.images()
	return d.diagnosis(points), nil
}

// Shifts returns the differences between the error costs of two models, a minus b, by class name, and under "" over all
// classes. The type whose cost increases the most comes first. Types without a difference are left out.
func Shifts(truth *Truth, a, b []Detection, params Params) (map[string][]delivery.ErrorShift, error) {
	of, err := Diagnose(truth, a, params)
	if err != nil {
		return nil, err
	}
	with, err := Diagnose(truth, b, params)
	if err != nil {
		return nil, err
	}
	out := map[string][]delivery.ErrorShift{}
	add := func(class string, of, with []ErrorCost) {
		for i, e := range of {
			if s := (delivery.ErrorShift{Type: e.Type.String(), AP50: e.DAP - with[i].DAP,
				Count: e.Count - with[i].Count}); s.AP50 != 0 || s.Count != 0 {
				out[class] = append(out[class], s)
			}
		}
		slices.SortStableFunc(out[class], func(a, b delivery.ErrorShift) int { return cmp.Compare(b.AP50, a.AP50) })
	}
	add("", of.Errors, with.Errors)
	for i, c := range of.PerClass {
		add(c.Name, c.Errors, with.PerClass[i].Errors)
	}
	return out, nil
}
