package words

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A sentence writes a fact's values.
type sentence func(v *delivery.Values) string

// text returns the sentence of a template:
//
//	{model}         a field of delivery.Values by its name in JSON, or a special value, see below
//	{counts.train}  an entry of Counts or Scores
//	{count image}   a number with its noun, as in "1 image" or "2 images"
//	{diff+}         a number with its sign
//	[ by {by}]      left out if one of its values is missing, that is, an empty text or a count of 0
//	[ by {by}|;]    the same, with what is written instead
//
// It panics if there is no such value.
func text(template string) sentence {
	write := parse(template)
	return func(v *delivery.Values) string {
		b, _ := write(make([]byte, 0, 256), v)
		return string(b)
	}
}

// A writer appends a part of a sentence. complete is false if a value is missing.
type writer func(b []byte, v *delivery.Values) (_ []byte, complete bool)

var placeholder = regexp.MustCompile(`\[([^|\]]*)\|?([^\]]*)\]|\{([a-zA-Z.-]+)(\+?)( [a-z ]+)?\}`)

func parse(template string) writer {
	var parts []writer
	for template != "" {
		at := placeholder.FindStringSubmatchIndex(template)
		if at == nil {
			parts = append(parts, literal(template))
			break
		}
		group := func(i int) string { return template[max(0, at[2*i]):max(0, at[2*i+1])] }
		parts = append(parts, literal(template[:at[0]]))
		if template[at[0]] == '[' {
			parts = append(parts, optional(parse(group(1)), parse(group(2))))
		} else {
			of, signed, noun := value(group(3)), group(4) != "", strings.TrimSpace(group(5))
			parts = append(parts, func(b []byte, v *delivery.Values) ([]byte, bool) {
				return appendValue(b, of(v), signed, noun)
			})
		}
		template = template[at[1]:]
	}
	return func(b []byte, v *delivery.Values) (_ []byte, complete bool) {
		complete = true
		for _, part := range parts {
			var ok bool
			b, ok = part(b, v)
			complete = complete && ok
		}
		return b, complete
	}
}

func literal(text string) writer {
	return func(b []byte, _ *delivery.Values) ([]byte, bool) { return append(b, text...), true }
}

func optional(part, otherwise writer) writer {
	return func(b []byte, v *delivery.Values) ([]byte, bool) {
		if longer, complete := part(b, v); complete {
			return longer, true
		}
		b, _ = otherwise(b, v)
		return b, true
	}
}

func appendValue(b []byte, value any, signed bool, noun string) (_ []byte, complete bool) {
	switch x := value.(type) {
	case float64:
		if signed {
			return fmt.Appendf(b, "%+.4f", x), true
		}
		return strconv.AppendFloat(b, x, 'f', 4, 64), true
	case int:
		if noun != "" {
			return append(b, delivery.Count(x, noun)...), x != 0
		}
		return strconv.AppendInt(b, int64(x), 10), x != 0
	case delivery.Duration:
		return append(b, x.String()...), x != 0
	case delivery.Money:
		return append(b, x.String()...), x != 0
	case delivery.Digest:
		if x == "" {
			return b, false
		}
		return append(b, x.Short()...), true
	case []string:
		return append(b, strings.Join(x, ", ")...), len(x) > 0
	case string:
		return append(b, x...), x != ""
	}
	return fmt.Append(b, value), true
}

// value finds the value of a name.
func value(name string) func(v *delivery.Values) any {
	if of := special[name]; of != nil {
		return of
	}
	if key, ok := strings.CutPrefix(name, "counts."); ok {
		return func(v *delivery.Values) any { return v.Counts[key] }
	}
	if key, ok := strings.CutPrefix(name, "scores."); ok {
		return func(v *delivery.Values) any { return v.Scores[key] }
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[delivery.Values]()) {
		if tag, _, _ := strings.Cut(field.Tag.Get("json"), ","); tag == name {
			i := field.Index[0]
			return func(v *delivery.Values) any { return reflect.ValueOf(v).Elem().Field(i).Interface() }
		}
	}
	panic("words: no value " + name)
}

// The values that are not simply a field.
var special = map[string]func(v *delivery.Values) any{
	"facts":      func(v *delivery.Values) any { return Join(v.Facts) },
	"commit":     func(v *delivery.Values) any { return fmt.Sprintf("%.12s", v.Commit) },
	"from":       func(v *delivery.Values) any { return fmt.Sprintf("%.12s", v.From) },
	"fromBranch": func(v *delivery.Values) any { return v.From },
	"prs":        func(v *delivery.Values) any { return PRs(v.PRs) },
	"pr":         func(v *delivery.Values) any { return strings.TrimPrefix(PRs(v.PRs[:min(1, len(v.PRs))]), "#") },
	"digest":     func(v *delivery.Values) any { return v.Bundle.Hex() },
	"at":         func(v *delivery.Values) any { return moment(v.At) },

	"name":             func(v *delivery.Values) any { return first(v.Names) },
	"anyName":          func(v *delivery.Values) any { return strings.Join(v.Names, " or ") },
	"allNames":         func(v *delivery.Values) any { return strings.Join(v.Names, " and ") },
	"fourNames":        func(v *delivery.Values) any { return few(v.Names, 4) },
	"fewNames":         func(v *delivery.Values) any { return few(v.Names, 8) },
	"fewFiles":         func(v *delivery.Values) any { return few(v.Files, 1) },
	"fromArchitecture": func(v *delivery.Values) any { return first(v.Labels) },
	"firstGate":        func(v *delivery.Values) any { return first(v.Gates) },
	"gateOrGates": func(v *delivery.Values) any {
		if len(v.Gates) > 1 {
			return "gates"
		}
		return "gate"
	},
	// The labels of a gate's class, with what the model may call it.
	"labels": func(v *delivery.Values) any {
		return delivery.Labels{v.Class: append(slices.Clone(v.Labels), cmp.Or(first(v.Names), "NAME"))}.String()
	},

	"subject": subject,
	"errors":  errors,
	"sure":    sure,
	"score": func(v *delivery.Values) any {
		if v.Metric == "" {
			return "unknown"
		}
		return v.Value
	},
	"rounded":    func(v *delivery.Values) any { return fmt.Sprintf("%.3f", v.Value) },
	"number":     func(v *delivery.Values) any { return num(v.Value) },
	"fromScore":  func(v *delivery.Values) any { return fmt.Sprintf("%.4g", v.Scores["score"]) },
	"points":     func(v *delivery.Values) any { return fmt.Sprintf("%+.1f", v.Diff*100) },
	"bound":      func(v *delivery.Values) any { return num(v.Bound) },
	"drop":       func(v *delivery.Values) any { return num(math.Abs(v.Bound)) },
	"boundBytes": func(v *delivery.Values) any { return delivery.Bytes(v.Bound) },
	"MB":         func(v *delivery.Values) any { return fmt.Sprintf("%.1f", float64(v.Bytes)/1e6) },
	// The baseline of a comparison: "the release", or a version as "pallets@12".
	"theBaseline": func(v *delivery.Values) any {
		if v.FromModel == "release" {
			return "the release"
		}
		return v.FromModel
	},
	"thisRelease": func(v *delivery.Values) any {
		if v.FromBundle == "" {
			return "no release"
		}
		return "this release"
	},

	// How long something took, to the second.
	"lasted": func(v *delivery.Values) any {
		if v.Lasts == 0 {
			return ""
		}
		return time.Duration(v.Lasts).Round(time.Second).String()
	},
	"epoch": func(v *delivery.Values) any { return fmt.Sprint(v.Count) },
	// The number of attempts, if there was more than one.
	"attempts": func(v *delivery.Values) any {
		if v.Attempt == 1 {
			return 0
		}
		return v.Attempt
	},
	// The attempt, and why there was one before.
	"retry": func(v *delivery.Values) any {
		switch {
		case v.Attempt <= 1:
			return ""
		case v.Text == "":
			return fmt.Sprintf(" (attempt %d)", v.Attempt)
		}
		return fmt.Sprintf(" (attempt %d; the one before failed: %s)", v.Attempt, v.Text)
	},
	"splits": func(v *delivery.Values) any {
		var list []string
		for _, split := range []string{"train", "valid", "test"} {
			if n, ok := v.Counts[split]; ok {
				list = append(list, split+" "+delivery.Count(n, "image"))
			}
		}
		return list
	},
	// How many images a dataset has more or fewer, by split: "120 images more in train, 3 fewer in valid".
	"imageChanges": func(v *delivery.Values) any {
		var list []string
		for _, split := range []string{"train", "valid", "test"} {
			if n := v.Counts[split]; n != 0 {
				list = append(list, change(n, "image", "", len(list) == 0)+" in "+split)
			}
		}
		return list
	},
	// How many objects it has more or fewer to train on, by class: "48 objects of pallet more in train, 2 of forklift
	// fewer".
	"objectChanges": func(v *delivery.Values) any {
		var list []string
		for _, class := range v.Names {
			if n := v.Counts[class]; n != 0 {
				if list = append(list, change(n, "object", " of "+class, len(list) == 0)); len(list) == 1 {
					list[0] += " in train"
				}
			}
		}
		return list
	},
	// What a device has installed.
	"installed": func(v *delivery.Values) any {
		switch {
		case v.Bundle == "":
			return "nothing yet"
		case v.Version > 0:
			return fmt.Sprintf("version %d", v.Version)
		}
		return "bundle " + v.Bundle.Short()
	},
	// How much of a fleet a wave has, from its fleet's file: 1 or 10%.
	"wave": func(v *delivery.Values) any {
		switch {
		case v.Text == "1":
			return "1 device"
		case strings.HasSuffix(v.Text, "%"):
			return v.Text + " of the devices"
		}
		return v.Text + " devices"
	},
	"failureRate": func(v *delivery.Values) any {
		if v.High >= 0.1 {
			return fmt.Sprintf("%.0f", 100*v.High)
		}
		return fmt.Sprintf("%.2g", 100*v.High)
	},
	// How many devices or facts there are besides those that are listed.
	"moreNames": func(v *delivery.Values) any { return max(0, v.Count-len(v.Names)) },
	"moreFacts": func(v *delivery.Values) any { return max(0, v.Count-len(v.Facts)) },
	// What a device says, or that it says nothing.
	"says": func(v *delivery.Values) any { return cmp.Or(delivery.Terminal(v.Text), "no reason given") },
	"thresholds": func(v *delivery.Values) any {
		var list []string
		for _, class := range slices.Sorted(maps.Keys(v.Scores)) {
			list = append(list, fmt.Sprintf("%s from %.3g", class, v.Scores[class]))
		}
		if len(list) > 5 {
			list = append(list[:4], fmt.Sprintf("%d more", len(list)-4))
		}
		return list
	},
	// Which fleets stay.
	"staying": func(v *delivery.Values) any {
		if len(v.Names) == 1 {
			return "fleet " + v.Names[0] + " stays as it is"
		}
		return "fleets " + strings.Join(v.Names, ", ") + " stay as they are"
	},
	"modelList":    func(v *delivery.Values) any { return "[" + v.Model + "]" },
	"percent":      func(v *delivery.Values) any { return fmt.Sprintf("%.1f", v.Value*100) },
	"ms":           func(v *delivery.Values) any { return fmt.Sprintf("%.2f", 1e3*v.Value) },
	"boundMs":      func(v *delivery.Values) any { return num(1e3 * v.Bound) },
	"lowMs":        func(v *delivery.Values) any { return fmt.Sprintf("%.2f", 1e3*v.Low) },
	"highMs":       func(v *delivery.Values) any { return fmt.Sprintf("%.2f", 1e3*v.High) },
	"boundPercent": func(v *delivery.Values) any { return num(v.Bound * 100) },
	// What one or more checks do.
	"fail": func(v *delivery.Values) any {
		one := map[delivery.Outcome]string{delivery.Fail: "fails", delivery.Unsure: "is unsure",
			delivery.NotApplicable: "does not apply"}
		more := map[delivery.Outcome]string{delivery.Fail: "fail", delivery.Unsure: "are unsure",
			delivery.NotApplicable: "do not apply"}
		if v.Count == 1 {
			return one[v.Outcome]
		}
		return more[v.Outcome]
	},
	"others": func(v *delivery.Values) any {
		if v.Count > 1 {
			return v.Count
		}
		return "one"
	},
	"paused": func(v *delivery.Values) any {
		if v.Paused {
			return "paused"
		}
		return ""
	},
}

// change writes how many there are more or fewer. The noun is left out where it is known.
func change(n int, noun, of string, withNoun bool) string {
	word, count := "more", n
	if n < 0 {
		word, count = "fewer", -n
	}
	if withNoun {
		return delivery.Count(count, noun) + of + " " + word
	}
	return strconv.Itoa(count) + of + " " + word
}

func first(names []string) string { return strings.Join(names[:min(1, len(names))], "") }

// few lists the first names, and says how many more there are.
func few(names []string, most int) string {
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// subject is the figure that a check is about, as in "AP of person".
func subject(v *delivery.Values) any {
	if v.Class == "" {
		return v.Metric
	}
	return v.Metric + " of " + v.Class
}

// sure says how certain a bound is; empty if v has none.
func sure(v *delivery.Values) any {
	if v.Confidence == 0 {
		return ""
	}
	return fmt.Sprintf("%.4g%% sure", v.Confidence*100)
}

// errors names a type of detection errors of a class, as in "missed person".
func errors(v *delivery.Values) any {
	switch v.Error {
	case "Miss":
		return "missed " + v.Class
	case "Loc":
		return v.Class + " in the wrong place"
	case "Cls":
		return "others taken for " + v.Class
	case "Both":
		return v.Class + " of wrong class and place"
	case "Dupe":
		return v.Class + " found twice"
	case "Bkg":
		return "false " + v.Class
	}
	return v.Error + " of " + v.Class
}

// num writes a number as people do in files.
func num(v float64) string { return fmt.Sprintf("%g", v) }

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
