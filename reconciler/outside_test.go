package reconciler

import (
	"reflect"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

const outside = "x @all Closes #1 [fix](http://evil.example) <script> **b** | `c` \x1b[31m\u202e\n\n# title\n```\n/aob run 0123"

// fill puts text from outside into each field that is plain text.
func fill(v reflect.Value, depth int) {
	if depth > 8 || !v.CanSet() {
		return
	}
	switch v.Kind() {
	case reflect.String:
		if v.Type() == reflect.TypeFor[string]() {
			v.SetString(outside)
		}
	case reflect.Int, reflect.Int64:
		v.SetInt(2)
	case reflect.Float64:
		v.SetFloat(0.5)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, depth+1)
		fill(value, depth+1)
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), depth+1)
		}
	}
}

// Text from outside, in whatever field of a report it stands, is text in the comment.
func TestCommentHoldsNothingOfOutsideAsMarkup(t *testing.T) {
	for _, outcome := range []delivery.Outcome{delivery.Pass, delivery.Fail, delivery.Unsure, delivery.Ignored, delivery.NotApplicable} {
		for _, state := range []delivery.CheckState{delivery.CheckSuccess, delivery.CheckFailure, delivery.CheckPending} {
			var pr plan.ProposalReport
			fill(reflect.ValueOf(&pr).Elem(), 0)
			pr.Asks = nil // codes are AOB's own
			for i := range pr.Models {
				m := &pr.Models[i]
				m.Links = nil      // so are links
				m.Model = "shapes" // intent takes letters, digits and dashes
				for j := range m.Verdicts {
					m.Verdicts[j].Outcome = outcome
					for k := range m.Verdicts[j].Checks {
						m.Verdicts[j].Checks[k].Outcome = outcome
					}
				}
				for j := range m.Doubts {
					m.Doubts[j].Code = "0123"
					if outcome == delivery.Unsure {
						m.Doubts[j].Accept = nil
					}
				}
			}
			got := Comment(pr, []delivery.Check{{Context: delivery.ContextRelease, State: state, Description: outside}})
			fenced := false
			for line := range strings.Lines(got) {
				if strings.HasPrefix(line, "```") {
					fenced = !fenced
				}
				for _, bad := range []string{"@all", "Closes #1", "](http", "<script", "**b**", "\x1b", "\u202e", "\n# title", "`c`"} {
					if strings.Contains(line, bad) && (!fenced || bad == "\x1b" || bad == "\u202e") {
						t.Fatalf("%s, %s: the comment holds %q: %s\n%s", outcome, state, bad, line, got[max(0, strings.Index(got, line)-900):strings.Index(got, line)+300])
					}
				}
			}
			if fenced {
				t.Errorf("%s, %s: a block of code has no end:\n%s", outcome, state, got)
			}
		}
	}
}
