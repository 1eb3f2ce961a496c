package coco

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Foreground is the IoU from which a detection is on a truth, Background the one
// up to which it is on nothing.
const Foreground, Background = 0.5, 0.1

// ErrorType is one of TIDE's six reasons why a model falls short.
type ErrorType int

// The error types. A false detection has the first of the types that fits, in
// this order: Loc, Cls, Dupe, Bkg, Both. One that counts neither as true nor as
// false, as in a crowd, is no error.
const (
	Cls  ErrorType = iota // on a truth of another class, in foreground
	Loc                   // on a truth of its class, between background and foreground
	Both                  // neither class nor place are right
	Dupe                  // on a truth that a surer detection has found already
	Bkg                   // on no truth, not even in background
	Miss                  // a truth that is not found, and that no Cls or Loc error would find
	errorTypes
)

// String returns TIDE's short name.
func (e ErrorType) String() string {
	if e < 0 || e >= errorTypes {
		return fmt.Sprintf("ErrorType(%d)", int(e))
	}
	return [errorTypes]string{"Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"}[e]
}

// MarshalText writes the short name.
func (e ErrorType) MarshalText() ([]byte, error) {
	if e < 0 || e >= errorTypes {
		return nil, fmt.Errorf("coco: no such error type: %d", int(e))
	}
	return []byte(e.String()), nil
}

// Diagnosis says what keeps a model from a higher AP50.
type Diagnosis struct {
	AP50     float64       `json:"AP50"`
	Errors   []ErrorCost   `json:"errors"`    // by type
	PerClass []ClassErrors `json:"per_class"` // by category id
	// Confusions are the pairs of classes behind the Cls errors of detections
	// that reach their class's score of best F1, the most frequent first.
	Confusions []Confusion `json:"confusions"`
}

// ErrorCost is one type of error.
type ErrorCost struct {
	Type  ErrorType `json:"type"`
	Count int       `json:"count"`
	// DAP is what AP50 gains if an oracle corrects these errors and no others:
	// Cls and Loc errors become true, the surest one of each truth that is not
	// found, and are left out otherwise; Both, Dupe and Bkg errors are left out;
	// Miss errors are no longer asked for. The six do not add up to what is
	// missing.
	DAP float64 `json:"dAP"`
}

// ClassErrors are the errors of one class: of its detections and, for Miss, of
// its truths. Correcting a Cls error changes the class of the truth too, so
// that its gain may be in another class than its count.
type ClassErrors struct {
	CategoryID int64       `json:"category_id"`
	Name       string      `json:"name"`
	Truths     int         `json:"truths"`
	AP50       float64     `json:"AP50"` // -1 without truths, and every DAP is then 0
	Errors     []ErrorCost `json:"errors"`
}

// Confusion counts how often one class is taken for another.
type Confusion struct {
	TruthID    int64  `json:"truth_id"` // category of the truths
	Truth      string `json:"truth"`
	DetectedID int64  `json:"detected_id"` // category of the detections on them
	Detected   string `json:"detected"`
	Count      int    `json:"count"`  // of detections
	Truths     int    `json:"truths"` // of the truth's class that count, for comparison
}

// Diagnose finds out why detections fall short, by the method of TIDE (Bolya,
// Foley, Hays and Hoffman, "TIDE: A General Toolbox for Identifying Object
// Detection Errors", ECCV 2020, section 2). The AP50 that it starts from is
// that of [Evaluate], and so are matching, the limit on detections and the
// treatment of crowds. It differs from the authors' program where that one
// departs from COCO: detections of equal score keep their order when others
// are corrected, classes without truths do not count, detections in crowds are
// no errors, and the limit is one for an image and class.
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
	d.look()
	return d.diagnosis(points), nil
}

// Shifts says why one model's AP50 is another's no more, by class name and, under
// the empty one, over all classes: what each type of error costs a minus what it
// costs b, the one that a suffers most under first. Errors that weigh the same
// are left out.
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
