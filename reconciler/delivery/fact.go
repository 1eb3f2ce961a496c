package delivery

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// A Code says which fact it is. All codes are in package code; package words has one sentence for each.
type Code string

// A Fact is a decision, a reason or a state, without words: a code, and the values that its sentence needs. Deciders
// return facts. Package words writes them for people, and JSON shows the code and the values beside the text.
type Fact struct {
	Code   Code `json:"code"`
	Values `json:"values,omitzero"`
}

// Values are all values that a fact may have. A fact uses a few of them; the others are zero. Text from outside, such
// as
// names, titles and error messages, is a value as it came: the writer of each medium escapes it.
type Values struct {
	Model   string `json:"model,omitempty"`
	Version int    `json:"version,omitempty"`
	Bundle  Digest `json:"bundle,omitempty"`
	// FromModel, FromVersion and FromBundle are what was there before, or what it is compared with.
	FromModel   string `json:"fromModel,omitempty"`
	FromVersion int    `json:"fromVersion,omitempty"`
	FromBundle  Digest `json:"fromBundle,omitempty"`

	Stage   string   `json:"stage,omitempty"`
	Outcome Outcome  `json:"outcome,omitempty"`
	Gate    string   `json:"gate,omitempty"`
	Gates   []string `json:"gates,omitempty"`
	Fleet   string   `json:"fleet,omitempty"`
	Class   string   `json:"class,omitempty"`
	Metric  string   `json:"metric,omitempty"`
	Dataset string   `json:"dataset,omitempty"`
	EvalSet string   `json:"evalSet,omitempty"`
	Seed    int64    `json:"seed,omitempty"`
	Names   []string `json:"names,omitempty"`  // classes, owners, fleets or models, as the code says
	Labels  []string `json:"labels,omitempty"` // of datasets

	Branch string   `json:"branch,omitempty"`
	Commit string   `json:"commit,omitempty"`
	From   string   `json:"from,omitempty"` // the commit before
	PRs    []int    `json:"prs,omitempty"`
	File   string   `json:"file,omitempty"`
	Files  []string `json:"files,omitempty"`
	By     string   `json:"by,omitempty"`   // a person
	Text   string   `json:"text,omitempty"` // of people, devices, trainers or the system, as it came
	Ask    string   `json:"ask,omitempty"`  // a command to run or to comment

	Count      int                `json:"count,omitempty"` // of what the code is about
	Total      int                `json:"total,omitempty"` // out of so many
	Limit      int                `json:"limit,omitempty"`
	Counts     map[string]int     `json:"counts,omitempty"` // where there are several
	Scores     map[string]float64 `json:"scores,omitempty"` // by class
	Paused     bool               `json:"paused,omitempty"`
	Bytes      int64              `json:"bytes,omitempty"`
	Images     int                `json:"images,omitempty"`
	Bound      float64            `json:"bound,omitempty"` // of a gate's check
	Confidence float64            `json:"confidence,omitempty"`
	Error      string             `json:"error,omitempty"` // of detections, by TIDE's types
	Attempt    int                `json:"attempt,omitempty"`
	Value      float64            `json:"value,omitempty"`
	Baseline   float64            `json:"baseline,omitempty"`
	Diff       float64            `json:"diff,omitempty"`
	Low        float64            `json:"low,omitempty"`
	High       float64            `json:"high,omitempty"`

	At    time.Time `json:"at,omitzero"`
	Lasts Duration  `json:"lasts,omitempty"`
	Facts []Fact    `json:"facts,omitempty"` // that this one is about, or follows from
}

// IsZero reports whether there is no fact.
func (f Fact) IsZero() bool { return f.Code == "" }

// Is reports whether two facts are the same.
func (f Fact) Is(other Fact) bool { return reflect.DeepEqual(f, other) }

// In returns what a fact is about: what code says, of this fact. It is no fact where this is none.
func (f Fact) In(code Code, v Values) Fact {
	if f.IsZero() {
		return f
	}
	v.Facts = []Fact{f}
	return Fact{code, v}
}

// Has reports whether a fact, or one inside it, has a code.
func (f Fact) Has(code Code) bool {
	if f.Code == code {
		return true
	}
	for _, inner := range f.Facts {
		if inner.Has(code) {
			return true
		}
	}
	return false
}

// Contains reports whether a fact is another one, or holds it.
func (f Fact) Contains(other Fact) bool {
	return f.Is(other) || slices.ContainsFunc(f.Facts, func(inner Fact) bool { return inner.Contains(other) })
}

// String shows a fact's code and values for tests and logs, as run.queued{count=1 limit=2}. It is no sentence.
func (f Fact) String() string {
	var b strings.Builder
	b.WriteString(string(f.Code))
	v := reflect.ValueOf(f.Values)
	sep := "{"
	for i := range v.NumField() {
		field := v.Field(i)
		if field.IsZero() {
			continue
		}
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		value := field.Interface()
		switch x := value.(type) {
		case Digest:
			value = x.Short()
		case string:
			if strings.ContainsAny(x, " \n=}") {
				value = fmt.Sprintf("%q", x)
			}
		case []string:
			value = fmt.Sprintf("%q", x)
		case float64:
			value = fmt.Sprintf("%.4f", x)
		case time.Time:
			value = x.UTC().Format(time.RFC3339)
		}
		if name == "facts" { // the code says what they are
			fmt.Fprintf(&b, "%s%v", sep, value)
		} else {
			fmt.Fprintf(&b, "%s%s=%v", sep, name, value)
		}
		sep = " "
	}
	if sep == " " {
		b.WriteString("}")
	}
	return b.String()
}
