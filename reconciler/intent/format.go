package intent

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/autonomos/aob/reconciler/delivery"
)

// FormatRelease writes models/NAME.release.yaml. Equal releases give equal
// bytes: keys are sorted, figures have four decimals, and each metric is one
// line, so that a review shows what moved. It panics on a figure that is no
// number. Parsing gives the release back, figures rounded, empty lists as nil.
//
// notes returns a sentence for each check of a gate and for each loss, which becomes a comment above its line; an empty
// sentence is left out. Comments are for reviewers and no part of the release. A nil notes writes none.
func FormatRelease(r delivery.Release, notes func(m delivery.Measured) (checks, lost []string)) []byte {
	w := &writer{}
	w.line(0, "# AOB writes this file from signed evidence. An edit by hand turns aob/release red.")
	w.line(0, "apiVersion: %s", text(r.APIVersion))
	w.line(0, "bundle: %s", text(string(r.Bundle)))
	w.line(0, "kind: %s", text(r.Kind))
	w.list(0, "measured", len(r.Measured), func(i int) {
		m := r.Measured[i]
		var checks, lost []string
		if notes != nil {
			checks, lost = notes(m)
		}
		if b := m.Baseline; b != nil {
			w.line(2, "baseline:")
			w.line(3, "bundle: %s", text(string(b.Bundle)))
			table(w, 3, "metrics", b.Metrics, figure)
			w.line(3, "version: %d", b.Version)
		}
		if len(m.Checks) > 0 {
			w.line(2, "checks:")
			for i, c := range m.Checks {
				w.note(3, checks, i)
				w.line(3, "- {%s}", checkFlow(c))
			}
		}
		w.line(2, "evalSet: %s", text(string(m.EvalSet)))
		w.line(2, "gate: %s", text(m.Gate))
		w.line(2, "images: %d", m.Images)
		if m.LeftOut > 0 {
			w.line(2, "leftOut: %d", m.LeftOut)
		}
		if m.Look > 0 {
			w.line(2, "look: %d", m.Look)
		}
		if len(m.Lost) > 0 {
			w.line(2, "lost:")
			for i, l := range m.Lost {
				w.note(3, lost, i)
				w.line(3, "- {%s}", lossFlow(l))
			}
		}
		table(w, 2, "metrics", m.Metrics, func(f delivery.Figure) string {
			var parts []string
			if f.High != nil {
				parts = append(parts, "high: "+figure(*f.High))
			}
			if f.Low != nil {
				parts = append(parts, "low: "+figure(*f.Low))
			}
			return "{" + strings.Join(append(parts, "value: "+figure(f.Value)), ", ") + "}"
		})
		if m.Verdict != "" {
			w.line(2, "verdict: %s", text(string(m.Verdict)))
		}
	})
	w.line(0, "name: %s", text(r.Name))
	w.line(0, "spec: %s", text(string(r.Spec)))
	w.line(0, "version: %d", r.Version)
	return []byte(w.String())
}

// checkFlow writes a check on one line, so that a review shows which moved.
func checkFlow(c delivery.CheckMeasured) string {
	parts := []string{"check: " + text(c.Check)}
	if c.Class != "" {
		parts = append(parts, "class: "+text(c.Class))
	}
	parts = append(parts, "outcome: "+text(string(c.Outcome)))
	for _, f := range []struct {
		key   string
		value *float64
	}{{"value", c.Value}, {"baseline", c.Baseline}, {"diff", c.Diff}, {"low", c.Low}, {"high", c.High}} {
		if f.value != nil {
			parts = append(parts, f.key+": "+figure(*f.value))
		}
	}
	if c.Code != "" {
		parts = append(parts, "code: "+text(string(c.Code)))
	}
	if c.Reason != "" {
		parts = append(parts, "reason: "+text(c.Reason))
	}
	return strings.Join(parts, ", ")
}

// lossFlow writes what got worse on one line.
func lossFlow(l delivery.Loss) string {
	parts := []string{"atBest: " + figure(l.AtBest), "baseline: " + figure(l.Baseline)}
	if l.Class != "" {
		parts = append(parts, "class: "+text(l.Class))
	}
	parts = append(parts, "diff: "+figure(l.Diff))
	if l.Error != "" {
		parts = append(parts, "error: "+text(l.Error), "errorAP50: "+figure(l.ErrorAP50),
			"errorClass: "+text(l.ErrorClass))
	}
	if l.Errors > 0 {
		parts = append(parts, fmt.Sprintf("errors: %d", l.Errors))
	}
	parts = append(parts, "metric: "+text(l.Metric), "value: "+figure(l.Value))
	if l.Why != "" {
		parts = append(parts, "why: "+text(l.Why))
	}
	return strings.Join(parts, ", ")
}

// FormatQuarantine writes models/NAME.quarantine.yaml, entries in their order.
func FormatQuarantine(q delivery.Quarantine) []byte {
	w := &writer{}
	w.line(0, "# AOB adds the bundles that must not run. To lift one, add to its entry, in a pull request of its own:")
	w.line(0, "#   lifted: why it may run again")
	w.line(0, "apiVersion: %s", text(q.APIVersion))
	w.list(0, "entries", len(q.Entries), func(i int) {
		e := q.Entries[i]
		w.line(2, "digest: %s", text(string(e.Digest)))
		if e.Fleet != "" {
			w.line(2, "fleet: %s", text(e.Fleet))
		}
		if e.Lifted != "" {
			w.line(2, "lifted: %s", text(e.Lifted))
		}
		w.line(2, "why: %s", text(e.Why))
	})
	w.line(0, "kind: %s", text(q.Kind))
	w.line(0, "name: %s", text(q.Name))
	return []byte(w.String())
}

// A writer writes block YAML, two spaces a level.
type writer struct {
	strings.Builder
	dash bool // the next line begins an entry of a list
}

func (w *writer) line(level int, format string, args ...any) {
	indent := strings.Repeat("  ", level)
	if w.dash {
		indent, w.dash = indent[2:]+"- ", false
	}
	fmt.Fprintf(w, indent+format+"\n", args...)
}

// note writes one of the notes as a comment, on one line whatever it contains.
func (w *writer) note(level int, notes []string, i int) {
	if i < len(notes) && notes[i] != "" {
		w.line(level, "# %s", delivery.Terminal(notes[i]))
	}
}

func (w *writer) list(level int, key string, n int, entry func(i int)) {
	if n == 0 {
		w.line(level, "%s: []", key)
		return
	}
	w.line(level, "%s:", key)
	for i := range n {
		w.dash = true
		entry(i)
	}
}

// table writes a map, sorted by key.
func table[V any](w *writer, level int, key string, m map[string]V, show func(V) string) {
	if len(m) == 0 {
		w.line(level, "%s: {}", key)
		return
	}
	w.line(level, "%s:", key)
	for _, k := range slices.Sorted(maps.Keys(m)) {
		w.line(level+1, "%s: %s", text(k), show(m[k]))
	}
}

// figure writes a number with four decimals.
func figure(f float64) string {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		panic(fmt.Sprintf("intent: a release cannot say %v", f))
	}
	s := strconv.FormatFloat(f, 'f', 4, 64)
	if s == "-0.0000" {
		return "0.0000"
	}
	return s
}

var (
	plainText = regexp.MustCompile(`^[A-Za-z](?:[A-Za-z0-9._/:-]*[A-Za-z0-9])?$`)
	notText   = regexp.MustCompile(`^(?i:true|false|null|yes|no|on|off|y|n)$`)
)

// text writes a string, in double quotes where YAML, of any version, might take
// it for something else.
func text(s string) string {
	if plainText.MatchString(s) && !notText.MatchString(s) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == ' ' || unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
