package delivery

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// A Code identifies a kind of fact. Package code lists all codes, and package words has one sentence for each.
type Code string

// A Fact is a decision, a reason or a state: a code, and the values that its sentence needs. Package words turns it
// into text. JSON has the code, the values and the text.
type Fact struct {
	Code   Code `json:"code"`
	Values `json:"values,omitzero"`
}

// Values are the values of a fact. Each code uses a few of them; the others are zero. Text from outside, such as names,
// titles and error messages, is not escaped here: each writer escapes it for its own output.
type Values struct {
	Model   string `json:"model,omitempty"`
	Version int    `json:"version,omitempty"`
	Bundle  Digest `json:"bundle,omitempty"`
	// FromModel, FromVersion and FromBundle are the predecessor, or what it is compared with.
	FromModel   string `json:"fromModel,omitempty"`
	FromVersion int    `json:"fromVersion,omitempty"`
	FromBundle  Digest `json:"fromBundle,omitempty"`
	// Variant is the number format of a model, and FromVariant the one before.
	Variant     string `json:"variant,omitempty"`
	FromVariant string `json:"fromVariant,omitempty"`

	Stage   string   `json:"stage,omitempty"`
	Outcome Outcome  `json:"outcome,omitempty"`
	Gate    string   `json:"gate,omitempty"`
	Gates   []string `json:"gates,omitempty"`
	Fleet   string   `json:"fleet,omitempty"`
	Class   string   `json:"class,omitempty"`
	Metric  string   `json:"metric,omitempty"`
	Dataset string   `json:"dataset,omitempty"`
	// FromDataset is the dataset before, if it was another one.
	FromDataset string `json:"fromDataset,omitempty"`

	Licence string   `json:"licence,omitempty"`
	EvalSet string   `json:"evalSet,omitempty"`
	Seed    int64    `json:"seed,omitempty"`
	Names   []string `json:"names,omitempty"`  // classes, owners, fleets or models, depending on the code
	Labels  []string `json:"labels,omitempty"` // of datasets

	Branch  string   `json:"branch,omitempty"`
	Commit  string   `json:"commit,omitempty"`
	From    string   `json:"from,omitempty"` // the commit before
	PRs     []int    `json:"prs,omitempty"`
	File    string   `json:"file,omitempty"`
	Files   []string `json:"files,omitempty"`
	By      string   `json:"by,omitempty"`   // a person
	Text    string   `json:"text,omitempty"` // from people, devices, trainers or the system, not escaped
	Command string   `json:"ask,omitempty"`  // a command to run or to comment

	Count      int                `json:"count,omitempty"` // of what the code describes
	Total      int                `json:"total,omitempty"` // Count is out of this many
	Limit      int                `json:"limit,omitempty"`
	Counts     map[string]int     `json:"counts,omitempty"` // where there is more than one count
	Scores     map[string]float64 `json:"scores,omitempty"` // by class
	Paused     bool               `json:"paused,omitempty"`
	Bytes      int64              `json:"bytes,omitempty"`
	Images     int                `json:"images,omitempty"`
	Bound      float64            `json:"bound,omitempty"` // of a gate's check
	Confidence float64            `json:"confidence,omitempty"`
	Device     string             `json:"device,omitempty"`
	Error      string             `json:"error,omitempty"` // TIDE's type of detection error
	Attempt    int                `json:"attempt,omitempty"`
	Value      float64            `json:"value,omitempty"`
	Baseline   float64            `json:"baseline,omitempty"`
	Diff       float64            `json:"diff,omitempty"`
	Low        float64            `json:"low,omitempty"`
	High       float64            `json:"high,omitempty"`

	Cost     Money `json:"cost,omitempty"`
	CostHigh Money `json:"costHigh,omitempty"`
	Ceiling  Money `json:"ceiling,omitempty"`

	At    time.Time `json:"at,omitzero"`
	Lasts Duration  `json:"lasts,omitempty"`
	Facts []Fact    `json:"facts,omitempty"` // the facts that this one describes, or follows from
}

// IsZero reports whether there is no fact.
func (f Fact) IsZero() bool { return f.Code == "" }

// Is reports whether two facts are the same.
func (f Fact) Is(other Fact) bool { return reflect.DeepEqual(f, other) }

// In returns a fact with the given code and values that contains f. It is zero if f is.
func (f Fact) In(code Code, v Values) Fact {
	if f.IsZero() {
		return f
	}
	v.Facts = []Fact{f}
	return Fact{code, v}
}

// Has reports whether f or a fact inside it has the code.
func (f Fact) Has(code Code) bool {
	return f.Code == code || slices.ContainsFunc(f.Facts, func(inner Fact) bool { return inner.Has(code) })
}

// Contains reports whether f equals other or contains it.
func (f Fact) Contains(other Fact) bool {
	return f.Is(other) || slices.ContainsFunc(f.Facts, func(inner Fact) bool { return inner.Contains(other) })
}

// String returns the code and values for tests and logs, as in run.queued{count=1 limit=2}.
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
		if name == "facts" { // the code makes clear what they are
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
