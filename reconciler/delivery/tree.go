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
	APIVersion string     `json:"apiVersion" check:"oneof=aob/v1" doc:"The form of this file."`
	Kind       string     `json:"kind" check:"oneof=Release" doc:"What this file describes."`
	Name       string     `json:"name" check:"name" doc:"The model's name."`
	Version    int        `json:"version" check:"min=1,max=1000000" doc:"1 + the highest ever on main."`
	Bundle     Digest     `json:"bundle" check:"digest" doc:"The packaged model."`
	Spec       Digest     `json:"spec" check:"digest" doc:"The model's spec that the bundle was made of."`
	Measured   []Measured `json:"measured" doc:"What each gate's eval set showed, sorted by the gate's name."`
}

// Measured is what one gate's eval set showed, rounded to four decimals.
type Measured struct {
	Gate     string            `json:"gate" check:"label" doc:"The gate."`
	EvalSet  Digest            `json:"evalSet" check:"digest" doc:"Its images and truths."`
	Images   int               `json:"images" check:"min=0,max=100000000" doc:"How many images."`
	Metrics  map[string]Figure `json:"metrics" check:"keys=metric" doc:"What was measured: mAP, AP50, AP75 and AP/CLASS."`
	Baseline *BaselineMeasured `json:"baseline,omitempty" check:"optional" doc:"The target branch's release, scored again on the same images. A first model has none."`
	Verdict  Outcome           `json:"verdict,omitempty" check:"optional,oneof=pass|fail|unsure|not-applicable" doc:"What the gate says. An unsure one was accepted by an owner."`
	LeftOut  int               `json:"leftOut,omitempty" check:"optional,min=0,max=100000000" doc:"Images of the eval set that a model was trained on, which do not count."`
	Look     int               `json:"look,omitempty" check:"optional,min=0,max=1000000000" doc:"Which model this was that the eval set judged against the baseline."`
	Checks   []CheckMeasured   `json:"checks,omitempty" check:"optional" doc:"What the gate's checks say, in its order, and class by class."`
	Lost     []Loss            `json:"lost,omitempty" check:"optional" doc:"What the model is worse at than the release beyond chance, whether a check is about it or not."`
}

// A CheckMeasured is one check of a gate in a release file.
type CheckMeasured struct {
	Check    string   `json:"check" check:"text" doc:"The check, as mAP drop <= 0.01."`
	Class    string   `json:"class,omitempty" check:"optional,class" doc:"The class that it is about."`
	Outcome  Outcome  `json:"outcome" check:"oneof=pass|fail|unsure|ignored|not-applicable" doc:"Its answer."`
	Value    *float64 `json:"value,omitempty" check:"optional" doc:"What was measured."`
	Baseline *float64 `json:"baseline,omitempty" check:"optional" doc:"What the baseline has, on the same images."`
	Diff     *float64 `json:"diff,omitempty" check:"optional" doc:"The value minus that."`
	Low      *float64 `json:"low,omitempty" check:"optional" doc:"The lower bound of the difference, or else of the value, at the check's confidence."`
	High     *float64 `json:"high,omitempty" check:"optional" doc:"The upper bound."`
	Reason   string   `json:"reason,omitempty" check:"optional,text" doc:"Why, where it did not simply pass."`
}

// A Loss is a figure in which a candidate is worse than the release beyond chance.
type Loss struct {
	Metric   string  `json:"metric" check:"metric" doc:"What got worse: mAP, AP, or recall, precision and falsePositivesPerImage at the model's thresholds."`
	Class    string  `json:"class,omitempty" check:"optional,class" doc:"The class, for AP."`
	Value    float64 `json:"value" doc:"What the model has."`
	Baseline float64 `json:"baseline" doc:"What the release has, on the same images."`
	Diff     float64 `json:"diff" doc:"The value minus that."`
	AtBest   float64 `json:"atBest" doc:"The bound of the difference that lies nearest to none, 95% sure, adjusted for the number of classes."`
	Why      string  `json:"why,omitempty" check:"optional,text" doc:"Which kind of error it is most of, as TIDE calls them."`
}

// A Figure is a value with its two-sided interval at 95 %, over test images.
type Figure struct {
	Value float64  `json:"value" doc:"The value."`
	Low   *float64 `json:"low,omitempty" check:"optional" doc:"The low end of its 95% interval, over test images."`
	High  *float64 `json:"high,omitempty" check:"optional" doc:"The high end of its 95% interval, over test images."`
}

// BaselineMeasured is the target branch's release, scored again on the same set.
type BaselineMeasured struct {
	Version int                `json:"version" check:"min=1,max=1000000" doc:"Its version."`
	Bundle  Digest             `json:"bundle" check:"digest" doc:"Its packaged model."`
	Metrics map[string]float64 `json:"metrics" check:"keys=metric" doc:"What it measured."`
}

// A Quarantine is models/NAME.quarantine.yaml: bundles that must not run.
// Entries are only ever added, or lifted.
type Quarantine struct {
	APIVersion string        `json:"apiVersion" check:"oneof=aob/v1" doc:"The form of this file."`
	Kind       string        `json:"kind" check:"oneof=Quarantine" doc:"What this file describes."`
	Name       string        `json:"name" check:"name" doc:"The model's name."`
	Entries    []Quarantined `json:"entries" doc:"Bundles that must not run; entries are only ever added, or lifted."`
}

// Quarantined is one bundle that must not run, until it is lifted.
type Quarantined struct {
	Digest Digest `json:"digest" check:"digest" doc:"The bundle."`
	Why    string `json:"why" check:"text" doc:"Why it must not run."`
	Fleet  string `json:"fleet,omitempty" check:"optional,name" doc:"The fleet on which it failed."`
	Lifted string `json:"lifted,omitempty" check:"optional,text" doc:"Why it may run again; without it, it may not."`
}

// Holds reports whether the bundle is quarantined, and why: by an entry that is not
// lifted, whatever stands below it.
func (q Quarantine) Holds(bundle Digest) (why string, held bool) {
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
