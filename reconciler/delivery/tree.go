package delivery

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// An Intent is the content of the files in one tree of a repository, with defaults filled in.
type Intent struct {
	Models      Named[Model]
	Gates       Named[Gate]
	Fleets      Named[Fleet]
	Releases    Named[Release]    // by model
	Quarantines Named[Quarantine] // by model

	// Files holds the content hash of every file by path, by which trees are compared. It may be unknown.
	Files Named[string]
}

// Covering returns the names of the gates that cover a model, sorted.
func (i Intent) Covering(model string) []string { return i.Gates.Keyed(model) }

// The keys of models by [Named.Keyed].
const (
	KeyRenamed = "was"   // it had another name
	KeyTracked = "track" // it names a tracker
)

func (m Model) keys() (keys []string) {
	if m.RenamedFrom != "" {
		keys = append(keys, KeyRenamed)
	}
	if m.Track.Tracker() != "" {
		keys = append(keys, KeyTracked)
	}
	return keys
}

func (g Gate) keys() []string  { return g.Covers }
func (f Fleet) keys() []string { return []string{f.Runs} }

// A Complaint says what is wrong in a file, where, and what would be right.
type Complaint struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"` // from 1; 0 for the whole file
	Column int    `json:"column,omitempty"`
	Path   string `json:"path,omitempty"` // as in checks[0].min
	Text   string `json:"text"`
}

// String returns FILE:LINE:COLUMN: PATH: TEXT, which editors can jump to. A file name with
// control characters is quoted.
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
	if s == "" { // it is not about a file
		return c.Text
	}
	return s + ": " + c.Text
}

// Complaints are the error of files that cannot be used.
type Complaints []Complaint

// Error returns a line for each complaint.
func (list Complaints) Error() string {
	return strings.Join(Each(list, Complaint.String), "\n")
}

// SortComplaints sorts by file, line, column, path and text.
func SortComplaints(list []Complaint) {
	slices.SortStableFunc(list, func(a, b Complaint) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Text, b.Text))
	})
}

// A Release is a file models/NAME.release.yaml: the bundle that is released, and its
// scores. AOB writes it from signed evidence alone; it contains no time.
type Release struct {
	APIVersion string     `json:"apiVersion" check:"oneof=aob/v1"`
	Kind       string     `json:"kind" check:"oneof=Release"`
	Name       string     `json:"name" check:"name"`
	Version    int        `json:"version" check:"min=1,max=1000000"`
	Bundle     Digest     `json:"bundle" check:"digest"`
	Spec       Digest     `json:"spec" check:"digest"`
	Measured   []Measured `json:"measured"`
	// Variants lists the variants that passed every gate too.
	Variants []ReleasedVariant `json:"variants,omitempty" check:"optional"`
}

// Measured holds the scores on one gate's eval set, rounded to four decimals.
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

// A CheckMeasured is the result of one check of a gate in a release file.
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

// A Loss is a figure in which a candidate is significantly worse than the release.
type Loss struct {
	Metric   string  `json:"metric" check:"metric"`
	Class    string  `json:"class,omitempty" check:"optional,class"`
	Value    float64 `json:"value"`
	Baseline float64 `json:"baseline"`
	Diff     float64 `json:"diff"`
	AtBest   float64 `json:"atBest"`
	// Error is the type of detection error, of ErrorClass, that explains most of it.
	Error      string  `json:"error,omitempty" check:"optional,text"`
	ErrorClass string  `json:"errorClass,omitempty" check:"optional,class"`
	ErrorAP50  float64 `json:"errorAP50,omitempty" check:"optional"`
	Errors     int     `json:"errors,omitempty" check:"optional"` // how many more of them there are
	// the explanation as text, in files of older versions of AOB
	Why string `json:"why,omitempty" check:"optional,text"`
}

// FigureConfidence is the confidence of each of a Figure's bounds.
const FigureConfidence = 0.95

// FigureOf returns the value of a metric with its bounds.
func FigureOf(metric string, r Row) Figure {
	f := Figure{Value: r.Value}
	if s := r.Samples(); len(s) > 1 {
		low, high := MetricOfFigure(metric).Bound(s, FigureConfidence)
		f.Low, f.High = &low, &high
	}
	return f
}

// A Figure is a value with one-sided bounds over the choice of test images, each at 95 % confidence.
type Figure struct {
	Value float64  `json:"value"`
	Low   *float64 `json:"low,omitempty" check:"optional"`
	High  *float64 `json:"high,omitempty" check:"optional"`
}

// BaselineMeasured is the release on the target branch, measured on the same images.
type BaselineMeasured struct {
	Version int                `json:"version" check:"min=1,max=1000000"`
	Bundle  Digest             `json:"bundle" check:"digest"`
	Metrics map[string]float64 `json:"metrics" check:"keys=metric"`
}

// A Quarantine is a file models/NAME.quarantine.yaml: bundles that must not run. Entries
// are added or lifted, and never removed.
type Quarantine struct {
	APIVersion string        `json:"apiVersion" check:"oneof=aob/v1"`
	Kind       string        `json:"kind" check:"oneof=Quarantine"`
	Name       string        `json:"name" check:"name"`
	Entries    []Quarantined `json:"entries"`
}

// Quarantined is an entry of a quarantine.
type Quarantined struct {
	Digest Digest `json:"digest" check:"digest"`
	Why    string `json:"why" check:"text"`
	Fleet  string `json:"fleet,omitempty" check:"optional,name"`
	Lifted string `json:"lifted,omitempty" check:"optional,text"`
}

// Forbids reports whether any entry of the bundle is not lifted, and why the first such entry forbids it.
func (q Quarantine) Forbids(bundle Digest) (why string, forbidden bool) {
	for _, e := range q.Entries {
		if e.Digest == bundle && e.Lifted == "" {
			return e.Why, true
		}
	}
	return "", false
}

// Lifts counts the bundle's lifted entries.
func (q Quarantine) Lifts(bundle Digest) int {
	n := 0
	for _, e := range q.Entries {
		if e.Digest == bundle && e.Lifted != "" {
			n++
		}
	}
	return n
}
