package intent

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Kinds returns the kinds of file that have a schema, sorted.
func Kinds() []string {
	return []string{"Fleet", "Gate", "Model", "Quarantine", "Release", "Server", "Trainer"}
}

// Schema returns the JSON Schema (draft 2020-12) of a kind of file, for editors; nil for an unknown kind. Every file
// without a complaint is valid by it. Rules that it cannot express, such as those between files, are checked by [Parse]
// only. Editors suggest the given trainers; other names are valid too, since a server may have its own.
func Schema(kind string, trainers Trainers) []byte {
	t, ok := kindTypes[kind]
	if !ok {
		return nil
	}
	top := object{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"$id", "https://github.com/autonomos/aob/blob/main/schemas/" + strings.ToLower(kind) + ".json"},
		{"title", "AOB " + kind},
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(append(top, schemaWriter{trainers}.structSchema(t)...)); err != nil {
		panic("intent: schema of " + kind + ": " + err.Error())
	}
	return b.Bytes()
}

// An object is JSON whose keys keep their order.
type object []pair

type pair struct {
	key   string
	value any
}

// MarshalJSON writes the keys in order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for i, p := range o {
		b.WriteByte("{,"[min(i, 1)])
		if err := enc.Encode(p.key); err != nil {
			return nil, err
		}
		b.WriteByte(':')
		if err := enc.Encode(p.value); err != nil {
			return nil, err
		}
	}
	if len(o) == 0 {
		b.WriteByte('{')
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// A schemaWriter writes the schemas of types.
type schemaWriter struct{ trainers Trainers }

func (w schemaWriter) structSchema(t reflect.Type) object {
	properties, required := object{}, []string{}
	for _, f := range fieldsOf(t) {
		properties = append(properties, pair{f.key, w.fieldSchema(f)})
		if !f.mayLeaveOut() {
			required = append(required, f.key)
		}
	}
	o := object{{"type", "object"}, {"additionalProperties", false}}
	if len(required) > 0 {
		o = append(o, pair{"required", required})
	}
	if t == reflect.TypeFor[delivery.GateCheck]() {
		o = append(o, between()...)
	}
	return append(o, pair{"properties", properties})
}

// between returns the rules between a check's fields.
func between() object {
	has := func(field string) object { return object{{"required", []string{field}}} }
	without := func(field string) object { return object{{"properties", object{{field, false}}}} }
	var all []object
	rule := func(match func(delivery.Metric) bool, then string, schema object) {
		metric := object{{"metric", object{{"enum", delivery.MetricNames(match)}}}}
		all = append(all, object{{"if", object{{"properties", metric}}}, {then, schema}})
	}
	rule(lessIsBetter, "then", has("max"))
	rule(lessIsBetter, "else", without("max"))
	for _, r := range checkRules {
		rule(r.has, "else", without(r.field))
		if r.must != nil {
			rule(r.must, "then", has(r.field))
		}
	}
	return object{
		{"oneOf", []object{has("min"), has("max"), has("maxDrop")}},
		{"allOf", all},
		{"dependentRequired", object{{"against", []string{"maxDrop"}}}},
	}
}

func (w schemaWriter) fieldSchema(f *field) object {
	if f.later {
		return object{{"description", "Not yet. " + f.doc}, {"not", object{}}}
	}
	o := append(object{{"description", f.doc}}, w.valueSchema(f.typ, &f.rules)...)
	if f.def != nil {
		var def any
		if err := f.def.Decode(&def); err != nil {
			panic("intent: default of " + f.key + ": " + err.Error())
		}
		o = append(o, pair{"default", def})
	}
	return o
}

func (w schemaWriter) valueSchema(t reflect.Type, r *rules) object {
	if s, ok := special(t); ok {
		return s
	}
	switch t.Kind() {
	case reflect.Pointer:
		return w.valueSchema(t.Elem(), r)
	case reflect.Struct:
		return w.structSchema(t)
	case reflect.Bool:
		return object{{"type", "boolean"}}
	case reflect.Int, reflect.Int64:
		return append(object{{"type", "integer"}}, rangeSchema(r)...)
	case reflect.Float64:
		return append(object{{"type", "number"}}, rangeSchema(r)...)
	case reflect.String:
		o := object{{"type", "string"}}
		if len(r.oneof) > 0 {
			o = append(o, pair{"enum", r.oneof})
		}
		if names := slices.Sorted(maps.Keys(w.trainers)); r.form == forms["trainer"] && len(names) > 0 {
			return append(o, pair{"anyOf", []object{{{"enum", names}}, formSchema(r.form)}})
		}
		return append(o, formSchema(r.form)...)
	case reflect.Slice:
		o := object{{"type", "array"}}
		if r.nonempty {
			o = append(o, pair{"minItems", 1})
		}
		return append(o, pair{"items", w.valueSchema(t.Elem(), r)})
	case reflect.Map:
		o := object{{"type", "object"}}
		if r.nonempty {
			o = append(o, pair{"minProperties", 1})
		}
		if r.keys != nil {
			o = append(o, pair{"propertyNames", formSchema(r.keys)})
		}
		return append(o, pair{"additionalProperties", w.valueSchema(t.Elem(), r)})
	}
	panic("intent: no schema for " + t.String())
}

func rangeSchema(r *rules) object {
	var o object
	if r.lo != nil {
		o = append(o, pair{"minimum", json.Number(r.lo.text)})
	}
	if r.hi != nil {
		o = append(o, pair{"maximum", json.Number(r.hi.text)})
	}
	return o
}

func formSchema(f *form) object {
	if f == nil {
		return nil
	}
	o := object{{"pattern", f.pattern.String()}}
	if f.most > 0 {
		o = append(o, pair{"maxLength", f.most})
	}
	return o
}

const (
	decimal         = `[0-9]+(\.[0-9]+)?`
	durationPattern = `^([0-9]+d|(` + decimal + `(h|ms|m|s|us|µs|ns))+)$`
	sizePattern     = `^` + decimal + `(GiB|MiB|KiB|GB|MB|KB|kB|B)$`
	sharePattern    = `^` + decimal + `%$`
)

// special returns the schema of a type with a text form or several forms.
func special(t reflect.Type) (object, bool) {
	text := func(pattern string) object { return object{{"type", "string"}, {"pattern", pattern}} }
	class := append(object{{"type", "string"}}, formSchema(forms["class"])...)
	classes := object{{"type", "array"}, {"minItems", 1}, {"uniqueItems", true}, {"items", class}}
	switch t {
	case reflect.TypeFor[delivery.Duration]():
		return text(durationPattern), true
	case reflect.TypeFor[delivery.Share]():
		return text(sharePattern), true
	case reflect.TypeFor[delivery.Bytes]():
		return text(sizePattern), true
	case reflect.TypeFor[delivery.Quantity]():
		return object{{"anyOf", []object{text(sizePattern), text(durationPattern), {{"type", "number"}, {"minimum", 0},
			{"exclusiveMaximum", 1e9}}, text(`^[0-9]{1,9}(\.[0-9]{1,9})?$`)}}}, true
	case reflect.TypeFor[delivery.Wave]():
		return object{{"anyOf", []object{{{"type", "integer"}, {"minimum", 1}, {"maximum", 1_000_000}},
			text(sharePattern)}}}, true
	case classesType:
		labels := object{{"type", "object"}, {"minProperties", 1}, {"propertyNames", formSchema(forms["class"])},
			{"additionalProperties", classes}}
		return object{{"anyOf", []object{classes, labels}}}, true
	case selectType:
		return object{{"anyOf", []object{{{"const", "all"}}, classes}}}, true
	case datasetType:
		ref := append(object{{"type", "string"}}, formSchema(forms["dataset"])...)
		return object{
			{"type", "object"}, {"minProperties", 1}, {"maxProperties", 1},
			{"propertyNames", formSchema(forms["name"])},
			{"properties", object{{"dir", append(object{{"description",
				"A folder: NAME or NAME/sub/folder, where NAME is in the server's configuration."}}, ref...)}}},
			{"additionalProperties", ref},
		}, true
	case thresholdType:
		share := object{{"type", "number"}, {"minimum", 0}, {"maximum", 1}}
		return object{{"anyOf", []object{
			{{"const", "bestF1"}}, share,
			{{"type", "object"}, {"additionalProperties", false}, {"minProperties", 1}, {"maxProperties", 1},
				{"properties", object{{"precision", share}, {"recall", share}}}},
		}}}, true
	case argsType:
		scalar := []string{"string", "number", "boolean"}
		return object{
			{"type", "object"},
			{"propertyNames", formSchema(forms["argument"])},
			{"additionalProperties", object{
				{"type", slices.Concat(scalar, []string{"array", "object"})},
				{"items", object{{"type", scalar}}},
				{"additionalProperties", object{{"type", scalar}}},
			}},
		}, true
	}
	if isText(t) {
		return object{{"type", "string"}}, true
	}
	return nil, false
}
