package delivery

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// An Intent is what one tree of a repository asks for, defaults filled.
type Intent struct {
	Models      map[string]Model
	Gates       map[string]Gate
	Fleets      map[string]Fleet
	Releases    map[string]Release    // by model
	Quarantines map[string]Quarantine // by model

	// Files holds the content hash of every file by path, so that two trees are
	// compared without looking at what did not change. It may be nil.
	Files map[string]string
}

// Covering returns the names of the gates that cover a model, sorted.
func (i Intent) Covering(model string) []string {
	var names []string
	for name, g := range i.Gates {
		if slices.Contains(g.Covers, model) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// A Complaint says what is wrong with a file, where, and what would be right.
type Complaint struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"` // from 1; 0 is the whole file
	Column int    `json:"column,omitempty"`
	Path   string `json:"path,omitempty"` // as checks[0].min
	Text   string `json:"text"`
}

// String is the form that editors jump to. A file's name with control
// characters, which a stranger may commit, is quoted to stay on its line.
func (c Complaint) String() string {
	s := c.File
	if strings.ContainsFunc(s, unicode.IsControl) {
		s = strconv.Quote(s)
	}
	if c.Line > 0 {
		s += fmt.Sprintf(":%d:%d", c.Line, c.Column)
	}
	if c.Path != "" {
		s += ": " + c.Path
	}
	if s == "" { // it is about no file
		return c.Text
	}
	return s + ": " + c.Text
}

// SortComplaints sorts by place.
func SortComplaints(list []Complaint) {
	slices.SortStableFunc(list, func(a, b Complaint) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Text, b.Text))
	})
}

// A Release is what models/NAME.release.yaml says: which bundle is the model,
// and what it measured. AOB writes it; people read it in the diff. It is a
// function of evidence alone, and holds no clock.
type Release struct {
	APIVersion string     `json:"apiVersion" check:"oneof=aob/v1"`
	Kind       string     `json:"kind" check:"oneof=Release"`
	Name       string     `json:"name" check:"name"`
	Version    int        `json:"version" check:"min=1,max=1000000"`
	Bundle     Digest     `json:"bundle" check:"digest"`
	Spec       Digest     `json:"spec" check:"digest"`
	Measured   []Measured `json:"measured"`
}

// Docs says what each key is for.
func (Release) Docs() map[string]string {
	return map[string]string{
		"apiVersion": "The form of this file.",
		"kind":       "What this file describes.",
		"name":       "The model's name.",
		"version":    "1 + the highest ever on main.",
		"bundle":     "The packaged model.",
		"spec":       "The model's spec that the bundle was made of.",
		"measured":   "What each gate's eval set showed, sorted by the gate's name.",
	}
}

// Measured is what one gate's eval set showed, rounded to four decimals.
type Measured struct {
	Gate     string            `json:"gate" check:"label"`
	EvalSet  Digest            `json:"evalSet" check:"digest"`
	Images   int               `json:"images" check:"min=0,max=100000000"`
	Metrics  map[string]Figure `json:"metrics" check:"keys=metric"`
	Baseline *BaselineMeasured `json:"baseline,omitempty" check:"optional"`
	Verdict  Outcome           `json:"verdict,omitempty" check:"optional,oneof=pass|fail|unsure|not-applicable"`
	LeftOut  int               `json:"leftOut,omitempty" check:"optional,min=0,max=100000000"`
	Look     int               `json:"look,omitempty" check:"optional,min=0,max=1000000000"`
	Checks   []CheckMeasured   `json:"checks,omitempty" check:"optional"`
	Lost     []Loss            `json:"lost,omitempty" check:"optional"`
}

// Docs says what each key is for.
func (Measured) Docs() map[string]string {
	return map[string]string{
		"gate":     "The gate.",
		"evalSet":  "Its images and truths.",
		"images":   "How many images.",
		"metrics":  "What was measured: mAP, AP50, AP75 and AP/CLASS.",
		"baseline": "The target branch's release, scored again on the same images. A first model has none.",
		"verdict":  "What the gate says. An unsure one was accepted by an owner.",
		"leftOut":  "Images of the eval set that a model was trained on, which do not count.",
		"look":     "Which model this was that the eval set judged against the baseline.",
		"checks":   "What the gate's checks say, in its order, and class by class.",
		"lost":     "What the model is worse at than the release beyond chance, whether a check is about it or not.",
	}
}

// A CheckMeasured is one check of a gate in a release file.
type CheckMeasured struct {
	Check    string   `json:"check" check:"text"`
	Class    string   `json:"class,omitempty" check:"optional,class"`
	Outcome  Outcome  `json:"outcome" check:"oneof=pass|fail|unsure|ignored|not-applicable"`
	Value    *float64 `json:"value,omitempty" check:"optional"`
	Baseline *float64 `json:"baseline,omitempty" check:"optional"`
	Diff     *float64 `json:"diff,omitempty" check:"optional"`
	Low      *float64 `json:"low,omitempty" check:"optional"`
	High     *float64 `json:"high,omitempty" check:"optional"`
	Code     Code     `json:"code,omitempty" check:"optional,text"`
	Reason   string   `json:"reason,omitempty" check:"optional,text"`
}

// Docs says what each key is for.
func (CheckMeasured) Docs() map[string]string {
	return map[string]string{
		"check":    "The check, as mAP drop <= 0.01.",
		"class":    "The class that it is about.",
		"outcome":  "Its answer.",
		"value":    "What was measured.",
		"baseline": "What the baseline has, on the same images.",
		"diff":     "The value minus that.",
		"low":      "The lower bound of the difference, or else of the value, at the check's confidence.",
		"high":     "The upper bound.",
		"code":     "What decided it, as drop.unsure.",
		"reason":   "Why, where it did not simply pass.",
	}
}

// A Loss is a figure in which a candidate is worse than the release beyond chance.
type Loss struct {
	Metric   string  `json:"metric" check:"metric"`
	Class    string  `json:"class,omitempty" check:"optional,class"`
	Value    float64 `json:"value"`
	Baseline float64 `json:"baseline"`
	Diff     float64 `json:"diff"`
	AtBest   float64 `json:"atBest"`
	// Error is the type of detection errors that explains most of it, of ErrorClass, by AP50 lost.
	Error      string  `json:"error,omitempty" check:"optional,text"`
	ErrorClass string  `json:"errorClass,omitempty" check:"optional,class"`
	ErrorAP50  float64 `json:"errorAP50,omitempty" check:"optional"`
	Errors     int     `json:"errors,omitempty" check:"optional"`   // how many more of them there are
	Why        string  `json:"why,omitempty" check:"optional,text"` // that in words, of older versions of AOB
}

// Docs says what each key is for.
func (Loss) Docs() map[string]string {
	return map[string]string{
		"metric": "What got worse: mAP, AP, or recall, precision and falsePositivesPerImage at the model's " +
			"thresholds.",
		"class":    "The class, for AP.",
		"value":    "What the model has.",
		"baseline": "What the release has, on the same images.",
		"diff":     "The value minus that.",
		"atBest": "The bound of the difference that lies nearest to none, 95% sure, adjusted for the number of " +
			"classes.",
		"error":      "The type of detection errors that explains most of it, as TIDE calls them: Miss, Loc, Cls, ...",
		"errorClass": "The class that has these errors.",
		"errorAP50":  "How much AP50 was lost.",
		"errors":     "How many more such errors there are.",
		"why":        "Which kind of error it is most of, in words; older versions of AOB wrote it.",
	}
}

// FigureConfidence is the confidence of each of a Figure's bounds.
const FigureConfidence = 0.95

// FigureOf is the value of a metric with its bounds.
func FigureOf(metric string, r Row) Figure {
	f := Figure{Value: r.Value}
	if s := r.Samples(); len(s) > 1 {
		low, high := MetricOfFigure(metric).Bound(s, FigureConfidence)
		f.Low, f.High = &low, &high
	}
	return f
}

// A Figure is a value with one-sided bounds over test images, each 95 % sure.
type Figure struct {
	Value float64  `json:"value"`
	Low   *float64 `json:"low,omitempty" check:"optional"`
	High  *float64 `json:"high,omitempty" check:"optional"`
}

// Docs says what each key is for.
func (Figure) Docs() map[string]string {
	return map[string]string{
		"value": "The value.",
		"low":   "It is at least this, 95% sure, over test images.",
		"high":  "It is at most this, 95% sure, over test images.",
	}
}

// BaselineMeasured is the target branch's release, scored again on the same set.
type BaselineMeasured struct {
	Version int                `json:"version" check:"min=1,max=1000000"`
	Bundle  Digest             `json:"bundle" check:"digest"`
	Metrics map[string]float64 `json:"metrics" check:"keys=metric"`
}

// Docs says what each key is for.
func (BaselineMeasured) Docs() map[string]string {
	return map[string]string{
		"version": "Its version.",
		"bundle":  "Its packaged model.",
		"metrics": "What it measured.",
	}
}

// A Quarantine is models/NAME.quarantine.yaml: bundles that must not run.
// Entries are only ever added, or lifted.
type Quarantine struct {
	APIVersion string        `json:"apiVersion" check:"oneof=aob/v1"`
	Kind       string        `json:"kind" check:"oneof=Quarantine"`
	Name       string        `json:"name" check:"name"`
	Entries    []Quarantined `json:"entries"`
}

// Docs says what each key is for.
func (Quarantine) Docs() map[string]string {
	return map[string]string{
		"apiVersion": "The form of this file.",
		"kind":       "What this file describes.",
		"name":       "The model's name.",
		"entries":    "Bundles that must not run; entries are only ever added, or lifted.",
	}
}

// Quarantined is one bundle that must not run, until it is lifted.
type Quarantined struct {
	Digest Digest `json:"digest" check:"digest"`
	Why    string `json:"why" check:"text"`
	Fleet  string `json:"fleet,omitempty" check:"optional,name"`
	Lifted string `json:"lifted,omitempty" check:"optional,text"`
}

// Docs says what each key is for.
func (Quarantined) Docs() map[string]string {
	return map[string]string{
		"digest": "The bundle.",
		"why":    "Why it must not run.",
		"fleet":  "The fleet on which it failed.",
		"lifted": "Why it may run again; without it, it may not.",
	}
}

// Forbids reports whether the bundle is quarantined, and why: by an entry that is not
// lifted, whatever stands below it.
func (q Quarantine) Forbids(bundle Digest) (why string, held bool) {
	for _, e := range q.Entries {
		if e.Digest == bundle && e.Lifted == "" {
			return e.Why, true
		}
	}
	return "", false
}

// Lifts counts how often the bundle was lifted.
func (q Quarantine) Lifts(bundle Digest) int {
	n := 0
	for _, e := range q.Entries {
		if e.Digest == bundle && e.Lifted != "" {
			n++
		}
	}
	return n
}
