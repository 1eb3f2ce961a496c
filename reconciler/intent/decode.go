package intent

import (
	"encoding"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/autonomos/aob/reconciler/delivery"
)

// decode fills v, a struct, from the document's top map, defaults included.
func (d *document) decode(v any) { d.decodeStruct(d.top, reflect.ValueOf(v).Elem(), "", nil) }

// decodeStruct decodes a map into a struct; a nil map fills in defaults. above are the types of the structs around it,
// for suggestions where a key is unknown.
func (d *document) decodeStruct(n *yaml.Node, v reflect.Value, path string, above []reflect.Type) {
	fields := fieldsOf(v.Type())
	above = append(slices.Clip(above), v.Type())
	given := make(map[string]*yaml.Node)
	for key, value := range d.pairs(n, path) {
		if find(fields, key.Value) == nil {
			if d.full() {
				d.more++
			} else {
				d.fault(placeOf(key), member(path, key.Value), "%s", unknownKey(key.Value, v.Type(), above[0]))
			}
			continue
		}
		given[key.Value] = value
	}
	for _, f := range fields {
		at := member(path, f.key)
		value, ok := given[f.key]
		switch {
		case ok && f.later:
			d.fault(placeOf(d.spots[at].key), at, "is not supported yet; remove it")
		case ok:
			d.decodeValue(value, v.Field(f.index), &f.rules, at, above)
		default:
			d.absent(f, v.Field(f.index), at)
		}
	}
}

// absent fills in a key that the file leaves out.
func (d *document) absent(f *field, v reflect.Value, path string) {
	switch {
	case f.def != nil:
		scratch := document{spots: map[string]spot{}}
		scratch.decodeValue(f.def, v, &f.rules, path, nil)
	case !f.mayLeaveOut():
		d.complain(path, "missing: %s", f.what())
	case v.Kind() == reflect.Struct && !f.optional:
		d.decodeStruct(nil, v, path, nil)
	}
}

// what describes the value of a key.
func (f *field) what() string {
	s := sentence(f.doc)
	if len(f.oneof) > 0 {
		s += " (" + or(f.oneof) + ")"
	}
	return s
}

func find(fields []*field, key string) *field {
	f, _ := delivery.Find(fields, func(f *field) bool { return f.key == key })
	return f
}

// unknownKey returns a complaint about an unknown key, with the key that may be meant.
func unknownKey(key string, t, top reflect.Type) string {
	if top == kindTypes["Release"] || top == kindTypes["Quarantine"] {
		return "unknown key; AOB writes this file, so a newer AOB wrote it, or a person edited it; restore it, or " +
			"upgrade AOB"
	}
	names := delivery.Each(fieldsOf(t), func(f *field) string { return f.key })
	if near := nearest(key, names); near != "" {
		return "unknown key; did you mean " + near + "?"
	}
	if t != top && find(fieldsOf(top), key) != nil {
		return "unknown key here; did you mean " + key + " at the top of the file?"
	}
	if path := elsewhere(top, key, ""); path != "" {
		return "unknown key here; did you mean " + path + "?"
	}
	return "unknown key; known here: " + strings.Join(names, ", ")
}

// elsewhere returns the path of the key in a part of the struct, or "".
func elsewhere(t reflect.Type, key, path string) string {
	for _, f := range fieldsOf(t) {
		if path != "" && f.key == key {
			return member(path, key)
		}
		at := f.typ
		for at.Kind() == reflect.Pointer {
			at = at.Elem()
		}
		if at.Kind() == reflect.Struct && !isText(at) && custom(at) == nil {
			if p := elsewhere(at, key, member(path, f.key)); p != "" {
				return p
			}
		}
	}
	return ""
}

// pairs yields the keys and values of a map, and complains about keys that are not text or are given twice. It records
// the places of the values.
func (d *document) pairs(n *yaml.Node, path string) func(yield func(key, value *yaml.Node) bool) {
	return func(yield func(key, value *yaml.Node) bool) {
		if n == nil {
			return
		}
		seen := make(map[string]int, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if key.Kind != yaml.ScalarNode || isNull(key) {
				d.fault(placeOf(key), path, "want text as a key, got %s", describe(key))
				continue
			}
			at := member(path, key.Value)
			if line, ok := seen[key.Value]; ok {
				d.fault(placeOf(key), at, "given twice; the first is in line %d; remove one of them", line)
				continue
			}
			seen[key.Value] = key.Line
			d.spots[at] = spot{key, value}
			if !yield(key, value) {
				return
			}
		}
	}
}

const noValue = "has no value; add one, or remove the key"

// decodeValue decodes one value by its type and checks its rules.
func (d *document) decodeValue(n *yaml.Node, v reflect.Value, r *rules, path string, above []reflect.Type) {
	if isNull(n) {
		d.fault(placeOf(n), path, "%s", noValue)
		return
	}
	if read := custom(v.Type()); read != nil {
		read(d, n, v, r, path)
		return
	}
	if isText(v.Type()) {
		d.decodeText(n, v, r, path)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.decodeValue(n, v.Elem(), r, path, above)
	case reflect.Struct:
		if n.Kind == yaml.ScalarNode && matches(n.Value, r.laterValues) {
			d.fault(placeOf(n), path, "a name here is not supported yet; want a map, as in {key: value}")
		} else if d.kind(n, yaml.MappingNode, r, path) {
			d.decodeStruct(n, v, path, above)
		}
	case reflect.Map:
		d.decodeMap(n, v, r, path, above)
	case reflect.Slice:
		d.decodeList(n, v, r, path, above)
	case reflect.String:
		if s, ok := d.decodeString(n, r, path); ok {
			v.SetString(s)
		}
	case reflect.Bool:
		if !plain(n) || n.Value != "true" && n.Value != "false" {
			d.fault(placeOf(n), path, "want true or false, got %s", describe(n))
			return
		}
		v.SetBool(n.Value == "true")
	case reflect.Int, reflect.Int64:
		d.decodeInt(n, v, r, path)
	case reflect.Float64:
		d.decodeFloat(n, v, r, path)
	default:
		panic("intent: no YAML form for " + v.Type().String())
	}
}

// kind complains if a node is not of the kind that it must be.
func (d *document) kind(n *yaml.Node, want yaml.Kind, r *rules, path string) bool {
	if n.Kind == want {
		if r.nonempty && len(n.Content) == 0 {
			d.fault(placeOf(n), path, "is empty; add at least one entry")
		}
		return true
	}
	form := "a map, as in {key: value}"
	if want == yaml.SequenceNode {
		form = "a list, as in [a, b]"
	}
	d.fault(placeOf(n), path, "want %s, got %s", form, describe(n))
	return false
}

func (d *document) decodeMap(n *yaml.Node, v reflect.Value, r *rules, path string, above []reflect.Type) {
	if !d.kind(n, yaml.MappingNode, r, path) {
		return
	}
	if len(n.Content) > 0 { // empty is nil, so that values compare
		v.Set(reflect.MakeMap(v.Type()))
	}
	for key, value := range d.pairs(n, path) {
		at := member(path, key.Value)
		if r.keys != nil && !r.keys.holds(key.Value) {
			d.fault(placeOf(key), at, "want a key that is %s, got %s", r.keys.want, quote(key.Value))
			continue
		}
		e := reflect.New(v.Type().Elem()).Elem()
		d.decodeValue(value, e, r, at, above)
		v.SetMapIndex(reflect.ValueOf(key.Value), e)
	}
}

func (d *document) decodeList(n *yaml.Node, v reflect.Value, r *rules, path string, above []reflect.Type) {
	if !d.kind(n, yaml.SequenceNode, r, path) {
		return
	}
	if len(n.Content) > 0 {
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	}
	for i, c := range n.Content {
		at := item(path, i)
		d.spots[at] = spot{value: c}
		d.decodeValue(c, v.Index(i), r, at, above)
	}
}

// decodeText decodes a value of a type with a text form: 24h, 10%, 120MB.
func (d *document) decodeText(n *yaml.Node, v reflect.Value, r *rules, path string) {
	if n.Kind != yaml.ScalarNode {
		d.fault(placeOf(n), path, "want one value with its unit, got %s", describe(n))
		return
	}
	if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(clip(n.Value))); err != nil {
		d.fault(placeOf(n), path, "%s", err)
		return
	}
	if v.CanInt() || v.CanFloat() {
		d.inRange(n, number(v), r, path)
	}
}

// decodeString decodes text and checks that it is one of the allowed values, or of the form.
func (d *document) decodeString(n *yaml.Node, r *rules, path string) (string, bool) {
	wrong := func(format string, args ...any) (string, bool) {
		d.fault(placeOf(n), path, format, args...)
		return "", false
	}
	if n.Kind != yaml.ScalarNode {
		return wrong("want text, got %s", describe(n))
	}
	switch {
	case isNull(n):
		return wrong("%s", noValue)
	case r.form != nil && r.form.secret && !r.form.holds(n.Value):
		return wrong("want %s", r.form.want)
	case plain(n) && n.Tag != "!!str" && n.Tag != "!!timestamp":
		if len(r.oneof) > 0 {
			return wrong("want %s, got %s", or(r.oneof), describe(n))
		}
		return wrong("want text, got %s; put it in quotes if it is text: %s", describe(n), quote(n.Value))
	case slices.Contains(r.oneof, n.Value):
		return n.Value, true
	case matches(n.Value, r.laterValues):
		want := or(r.oneof)
		if want == "" {
			want = r.form.want
		}
		return wrong("%s is not supported yet; want %s", quote(n.Value), want)
	case len(r.oneof) > 0:
		s := "want " + or(r.oneof) + ", got " + quote(n.Value)
		if near := nearest(n.Value, r.oneof); near != "" && len(r.oneof) > 1 {
			s += "; did you mean " + near + "?"
		}
		return wrong("%s", s)
	case r.form != nil && !r.form.holds(n.Value):
		s := "want " + r.form.want + ", got " + quote(n.Value)
		if r.form.why != nil && r.form.why(n.Value) != "" {
			s += "; " + r.form.why(n.Value)
		}
		return wrong("%s", s)
	}
	return n.Value, true
}

var (
	wholePattern   = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)
	decimalPattern = regexp.MustCompile(`^-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$`)
)

// maxWhole is the largest whole number that JSON carries everywhere.
const maxWhole = 1<<53 - 1

func (d *document) decodeInt(n *yaml.Node, v reflect.Value, r *rules, path string) {
	if !plain(n) || !wholePattern.MatchString(n.Value) {
		d.fault(placeOf(n), path, "want a whole number%s, got %s", rangeOf(r, ", "), describe(n))
		return
	}
	i, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil || i > maxWhole || i < -maxWhole {
		text := rangeOf(r, "")
		if text == "" {
			text = "at most " + strconv.FormatInt(maxWhole, 10)
		}
		d.fault(placeOf(n), path, "want %s, got %s", text, clip(n.Value))
		return
	}
	if d.inRange(n, float64(i), r, path) {
		v.SetInt(i)
	}
}

func (d *document) decodeFloat(n *yaml.Node, v reflect.Value, r *rules, path string) {
	if !plain(n) || !decimalPattern.MatchString(n.Value) {
		d.fault(placeOf(n), path, "want a number%s, got %s", rangeOf(r, ", "), describe(n))
		return
	}
	f, err := strconv.ParseFloat(n.Value, 64)
	if err != nil && rangeOf(r, "") == "" {
		d.fault(placeOf(n), path, "want a smaller number, got %s", clip(n.Value))
		return
	} // a number beyond float64 is infinite here, and out of any range
	if d.inRange(n, f, r, path) {
		v.SetFloat(f + 0) // -0 is 0
	}
}

// inRange complains if a number is out of its range.
func (d *document) inRange(n *yaml.Node, f float64, r *rules, path string) bool {
	if (r.lo == nil || f >= r.lo.value) && (r.hi == nil || f <= r.hi.value) {
		return true
	}
	d.fault(placeOf(n), path, "want %s, got %s", rangeOf(r, ""), clip(n.Value))
	return false
}

// rangeOf describes the values in range, after a prefix; empty if all are.
func rangeOf(r *rules, prefix string) string {
	if text := rangeText(r.lo.String(), r.hi.String()); text != "" {
		return prefix + text
	}
	return ""
}
