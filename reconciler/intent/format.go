package intent

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// FormatRelease writes models/NAME.release.yaml. Equal releases give equal bytes: keys are sorted, figures have four
// decimals, and each metric, check and loss is one line, so that a review shows what changed. It panics on a figure
// that is not a number. Parsing returns the same release, with rounded figures and empty lists as nil.
//
// notes returns a sentence for each check of a gate and for each loss, which becomes a comment above its line; an empty
// sentence is left out. Comments are for reviewers and not part of the release. A nil notes writes none.
func FormatRelease(r delivery.Release, notes func(m delivery.Measured) (checks, lost []string)) []byte {
	return []byte("# AOB writes this file from signed evidence. An edit by hand turns aob/release red.\n" +
		writer{notes}.block(reflect.ValueOf(r), "", nil))
}

// FormatQuarantine writes models/NAME.quarantine.yaml, entries in their order.
func FormatQuarantine(q delivery.Quarantine) []byte {
	return []byte("# AOB adds the bundles that must not run. To lift one, add to its entry, in a pull request of its " +
		"own:\n#   lifted: why it may run again\n" + writer{}.block(reflect.ValueOf(q), "", nil))
}

// A writer writes structs as YAML by the same tags that the decoder reads.
type writer struct {
	notes func(m delivery.Measured) (checks, lost []string)
}

// block writes the entries of a struct or map as lines. comments has sentences for the entries of its lists, by key.
func (w writer) block(v reflect.Value, indent string, comments map[string][]string) string {
	var b strings.Builder
	for _, e := range entriesOf(v) {
		key := indent + delivery.YAMLScalar(e.key)
		if inOneLine(e.value) {
			b.WriteString(key + ": " + flow(e.value) + "\n")
			continue
		}
		b.WriteString(key + ":\n")
		if e.value.Kind() != reflect.Slice {
			b.WriteString(w.block(e.value, indent+"  ", nil))
			continue
		}
		for i := range e.value.Len() {
			if list := comments[e.key]; i < len(list) && list[i] != "" {
				b.WriteString(indent + "  # " + delivery.Terminal(list[i]) + "\n")
			}
			b.WriteString(indent + "  - " + w.item(e.value.Index(i), indent+"    "))
		}
	}
	return b.String()
}

// item writes an entry of a list, without the indentation of its first line.
func (w writer) item(v reflect.Value, indent string) string {
	if inOneLine(v) {
		return flow(v) + "\n"
	}
	comments := map[string][]string{}
	if m, ok := v.Interface().(delivery.Measured); ok && w.notes != nil {
		comments["checks"], comments["lost"] = w.notes(m)
	}
	return strings.TrimPrefix(w.block(v, indent, comments), indent)
}

type entry struct {
	key   string
	value reflect.Value // no pointer
}

// entriesOf returns the entries of a struct or map, sorted by key. A check's keep the order of the type, in which it
// reads best. Optional keys without a value are left out.
func entriesOf(v reflect.Value) []entry {
	var list []entry
	if v.Kind() == reflect.Map {
		for key, value := range v.Seq2() {
			list = append(list, entry{key.String(), value})
		}
	} else {
		for _, f := range fieldsOf(v.Type()) {
			if value := v.Field(f.index); !f.optional || !value.IsZero() {
				list = append(list, entry{f.key, reflect.Indirect(value)})
			}
		}
	}
	if v.Type() != reflect.TypeFor[delivery.CheckMeasured]() {
		slices.SortFunc(list, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
	}
	return list
}

// inOneLine reports whether a value is written in one line.
func inOneLine(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	case reflect.Struct:
		switch v.Interface().(type) {
		case delivery.CheckMeasured, delivery.Loss, delivery.Figure:
			return true
		}
		return false
	}
	return true
}

// flow writes a value in one line.
func flow(v reflect.Value) string {
	switch v.Kind() {
	case reflect.String:
		return delivery.YAMLScalar(v.String())
	case reflect.Int:
		return strconv.FormatInt(v.Int(), 10)
	case reflect.Float64:
		return figure(v.Float())
	case reflect.Slice:
		return "[]"
	}
	text := func(e entry) string { return delivery.YAMLScalar(e.key) + ": " + flow(e.value) }
	return "{" + strings.Join(delivery.Each(entriesOf(v), text), ", ") + "}"
}

// figure writes a number with four decimals.
func figure(f float64) string {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		panic(fmt.Sprintf("intent: a release cannot contain %v", f))
	}
	s := strconv.FormatFloat(f, 'f', 4, 64)
	if s == "-0.0000" {
		return "0.0000"
	}
	return s
}
