package intent

import (
	"cmp"
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"gopkg.in/yaml.v3"

	"github.com/autonomos/aob/reconciler/delivery"
)

// rules are the rules of a check tag. On a list or map they apply to each entry.
type rules struct {
	optional    bool
	required    bool // although no key in it is
	nonempty    bool
	later       bool
	lo, hi      *bound
	oneof       []string
	laterValues []string // patterns with * of values that are not supported yet
	form        *form
	keys        *form // of a map's keys
}

// A bound is the end of a range, as written and as a number.
type bound struct {
	text  string
	value float64
}

// String returns the bound as written; empty for none.
func (b *bound) String() string {
	if b == nil {
		return ""
	}
	return b.text
}

// A field is one key of a struct.
type field struct {
	rules
	key   string
	doc   string
	def   *yaml.Node // nil: no default
	deft  string     // the default as written
	index int
	typ   reflect.Type
}

// mayLeaveOut reports whether the key may be missing.
func (f *field) mayLeaveOut() bool {
	if f.required {
		return false
	}
	return f.def != nil || f.optional || (f.typ.Kind() == reflect.Struct && !isText(f.typ) && custom(f.typ) == nil &&
		!needs(f.typ))
}

// needs reports whether a struct has a required key.
func needs(t reflect.Type) bool {
	return slices.ContainsFunc(fieldsOf(t), func(f *field) bool { return !f.mayLeaveOut() })
}

var fieldCache sync.Map // reflect.Type -> []*field

// fieldsOf returns the keys of a struct in the order of the type. It panics on a tag that it does not understand.
func fieldsOf(t reflect.Type) []*field {
	if list, ok := fieldCache.Load(t); ok {
		return list.([]*field)
	}
	var list []*field
	for sf := range t.Fields() {
		key, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		if key == "" || key == "-" {
			continue
		}
		f := &field{key: key, index: sf.Index[0], typ: sf.Type}
		f.doc = cmp.Or(sf.Tag.Get("doc"), delivery.Docs[t.Name()][key], serverDocs[t.Name()][key],
			delivery.Docs[""][key])
		f.rules = parseRules(sf.Type, sf.Tag.Get("check"), t.Name()+"."+sf.Name)
		if def, ok := sf.Tag.Lookup("default"); ok {
			f.deft = def
			f.def = new(yaml.Node)
			if err := yaml.Unmarshal([]byte(def), f.def); err != nil || len(f.def.Content) != 1 {
				panic(fmt.Sprintf("intent: %s.%s: default %q is not a value: %v", t.Name(), sf.Name, def, err))
			}
			f.def = f.def.Content[0]
		}
		list = append(list, f)
	}
	fieldCache.Store(t, list)
	return list
}

func parseRules(t reflect.Type, tag, where string) rules {
	var r rules
	for rule := range strings.SplitSeq(tag, ",") {
		name, arg, _ := strings.Cut(rule, "=")
		switch name {
		case "":
		case "optional":
			r.optional = true
		case "required":
			r.required = true
		case "nonempty":
			r.nonempty = true
		case "later":
			if arg == "" {
				r.later = true
			} else {
				r.laterValues = strings.Split(arg, "|")
			}
		case "min":
			r.lo = parseBound(t, arg, where)
		case "max":
			r.hi = parseBound(t, arg, where)
		case "oneof":
			r.oneof = strings.Split(arg, "|")
		case "metricName":
			r.oneof = delivery.MetricNames(nil)
		case "weekday":
			r.oneof = []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}
		case "keys":
			r.keys = forms[arg]
			if r.keys == nil {
				panic(fmt.Sprintf("intent: %s: no such form %q", where, arg))
			}
		default:
			r.form = forms[name]
			if r.form == nil {
				panic(fmt.Sprintf("intent: %s: no rule %q: see fields.go for rules, forms.go for forms", where, rule))
			}
		}
	}
	return r
}

// parseBound parses a bound, which is written like the values: 1, 10%, 720h.
func parseBound(t reflect.Type, text, where string) *bound {
	for !isText(t) && (t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map) {
		t = t.Elem()
	}
	if t.Kind() == reflect.String {
		panic(fmt.Sprintf("intent: %s: min= and max= are for numbers; see forms.go for the length of a text", where))
	}
	if !isText(t) {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			panic(fmt.Sprintf("intent: %s: bound %q: %v", where, text, err))
		}
		return &bound{text, v}
	}
	v := reflect.New(t)
	if err := v.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
		panic(fmt.Sprintf("intent: %s: bound %q: %v", where, text, err))
	}
	return &bound{text, number(v.Elem())}
}

// number returns a value of a numeric kind as a number. A time.Duration over 104 days loses nanoseconds.
func number(v reflect.Value) float64 {
	switch {
	case v.CanInt():
		return float64(v.Int())
	case v.CanFloat():
		return v.Float()
	}
	panic("intent: a bound on " + v.Type().String())
}

var textType = reflect.TypeFor[encoding.TextUnmarshaler]()

// isText reports whether t has a text form.
func isText(t reflect.Type) bool { return reflect.PointerTo(t).Implements(textType) }
