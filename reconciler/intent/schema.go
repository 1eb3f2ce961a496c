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
func Kinds() []string { return slices.Sorted(maps.Keys(kindTypes)) }

// Schema returns the JSON Schema (draft 2020-12) of a kind of file, for editors; nil for an unknown kind. Every file
// without a complaint is valid by it. Rules that it cannot express, such as those between files, are checked by [Parse]
// only, or for signatures by package detect. Editors suggest the given trainers; other names are valid too, since a
// server may have its own.
func Schema(kind string, trainers Trainers) []byte {
	t, ok := kindTypes[kind]
	if !ok {
		return nil
	}
	s := schemaWriter{trainers}.structSchema(t)
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["$id"] = "https://github.com/autonomos/aob/blob/main/schemas/" + strings.ToLower(kind) + ".json"
	s["title"] = "AOB " + kind
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s); err != nil {
		panic("intent: schema of " + kind + ": " + err.Error())
	}
	return b.Bytes()
}

type object = map[string]any

// A schemaWriter writes the schemas of types.
type schemaWriter struct{ trainers Trainers }

func (w schemaWriter) structSchema(t reflect.Type) object {
	properties, required := object{}, []string{}
	for _, f := range fieldsOf(t) {
		properties[f.key] = w.fieldSchema(f)
		if !f.mayLeaveOut() {
			required = append(required, f.key)
		}
	}
	o := object{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		o["required"] = required
	}
	switch t {
	case reflect.TypeFor[delivery.GateCheck]():
		maps.Copy(o, between())
	case reflect.TypeFor[delivery.Machine]():
		maps.Copy(o, ofMachine())
	case reflect.TypeFor[delivery.Signature]():
		o["allOf"] = ofSignature()
	}
	return o
}

// between returns the rules between a check's fields.
func between() object {
	has := func(field string) object { return object{"required": []string{field}} }
	without := func(field string) object { return object{"properties": object{field: false}} }
	var all []object
	rule := func(match func(delivery.Metric) bool, then string, schema object) {
		metric := object{"metric": object{"enum": delivery.MetricNames(match)}}
		all = append(all, object{"if": object{"properties": metric}, then: schema})
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
		"oneOf":             []object{has("min"), has("max"), has("maxDrop")},
		"allOf":             all,
		"dependentRequired": object{"against": []string{"maxDrop"}},
	}
}

// ofMachine returns the rules of a machine: one that costs money has an instance, and no other has.
func ofMachine() object {
	return object{
		"if": object{"properties": object{"terraform": object{"const": delivery.TrainAWSEC2}},
			"required": []string{"terraform"}},
		"then": object{"required": []string{"instance"}},
		"else": object{"properties": object{"instance": false, "spot": false, "maxCost": false}},
	}
}

// ofSignature returns the rules of a signature about its lists, and about its version.
func ofSignature() []object {
	list := func(least, most int) object { return object{"minItems": least, "maxItems": most} }
	return []object{
		{"properties": object{"means": list(3, 3), "stds": list(3, 3), "slots": list(1, 4096),
			"edges": object{"additionalProperties": list(0, 100)}}},
		{"if": object{"properties": object{"schemaVersion": object{"const": 1}}},
			"then": object{"properties": object{"scale": object{"const": 0}, "clip": object{"const": false},
				"edges": object{"additionalProperties": list(0, 0)}}}},
	}
}

func (w schemaWriter) fieldSchema(f *field) object {
	if f.later {
		return object{"description": "Not supported yet. " + f.doc, "not": object{}}
	}
	o := w.valueSchema(f.typ, &f.rules)
	o["description"] = f.doc
	if f.def != nil {
		var def any
		if err := f.def.Decode(&def); err != nil {
			panic("intent: default of " + f.key + ": " + err.Error())
		}
		o["default"] = def
	}
	return o
}

func (w schemaWriter) valueSchema(t reflect.Type, r *rules) object {
	if s := special(t); s != nil {
		return s
	}
	switch t.Kind() {
	case reflect.Pointer:
		return w.valueSchema(t.Elem(), r)
	case reflect.Struct:
		return w.structSchema(t)
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return rangeSchema("integer", r)
	case reflect.Float64:
		return rangeSchema("number", r)
	case reflect.String:
		o := formSchema(r.form)
		if len(r.oneof) > 0 {
			o["enum"] = r.oneof
		}
		if names := slices.Sorted(maps.Keys(w.trainers)); r.form == forms["trainer"] && len(names) > 0 {
			return object{"type": "string", "anyOf": []object{{"enum": names}, o}}
		}
		return o
	case reflect.Slice:
		o := object{"type": "array", "items": w.valueSchema(t.Elem(), r)}
		if r.nonempty {
			o["minItems"] = 1
		}
		return o
	case reflect.Map:
		o := object{"type": "object", "additionalProperties": w.valueSchema(t.Elem(), r)}
		if r.nonempty {
			o["minProperties"] = 1
		}
		if r.keys != nil {
			o["propertyNames"] = formSchema(r.keys)
		}
		return o
	}
	panic("intent: no schema for " + t.String())
}

func rangeSchema(typ string, r *rules) object {
	o := object{"type": typ}
	if r.lo != nil {
		o["minimum"] = json.Number(r.lo.text)
	}
	if r.hi != nil {
		o["maximum"] = json.Number(r.hi.text)
	}
	return o
}

// formSchema returns the schema of text of a form, which may be nil.
func formSchema(f *form) object {
	o := object{"type": "string"}
	if f != nil {
		o["pattern"] = f.pattern.String()
		if f.most > 0 {
			o["maxLength"] = f.most
		}
	}
	return o
}

const (
	decimal         = `[0-9]+(\.[0-9]+)?`
	durationPattern = `^([0-9]+d|(` + decimal + `(h|ms|m|s|us|µs|ns))+)$`
	sizePattern     = `^` + decimal + `(GiB|MiB|KiB|GB|MB|KB|kB|B)$`
	moneyPattern    = `^\$[0-9]{1,7}(\.[0-9]{1,6})?$`
	sharePattern    = `^` + decimal + `%$`
)

// special returns the schema of a type with a text form or several forms; nil for other types.
func special(t reflect.Type) object {
	text := func(pattern string) object { return object{"type": "string", "pattern": pattern} }
	anyOf := func(schemas ...object) object { return object{"anyOf": schemas} }
	names := func(form string) object {
		return object{"type": "array", "minItems": 1, "uniqueItems": true, "items": formSchema(forms[form])}
	}
	classes := names("class")
	switch t {
	case reflect.TypeFor[delivery.Duration]():
		return text(durationPattern)
	case reflect.TypeFor[delivery.Share]():
		return text(sharePattern)
	case reflect.TypeFor[delivery.Money]():
		return text(moneyPattern)
	case reflect.TypeFor[delivery.Bytes]():
		return text(sizePattern)
	case reflect.TypeFor[delivery.Quantity]():
		return anyOf(text(sizePattern), text(durationPattern), text(`^[0-9]{1,9}(\.[0-9]{1,9})?$`),
			object{"type": "number", "minimum": 0, "exclusiveMaximum": 1e9})
	case reflect.TypeFor[delivery.Wave]():
		return anyOf(object{"type": "integer", "minimum": 1, "maximum": 1_000_000}, text(sharePattern))
	case reflect.TypeFor[delivery.Classes]():
		return anyOf(classes, object{"type": "object", "minProperties": 1, "propertyNames": formSchema(forms["class"]),
			"additionalProperties": names("category")})
	case reflect.TypeFor[delivery.Selection]():
		return anyOf(object{"const": "all"}, classes)
	case reflect.TypeFor[delivery.Dataset]():
		ref := formSchema(forms["dataset"])
		dir := maps.Clone(ref)
		dir["description"] = "A folder: NAME or NAME/sub/folder, where NAME is in the server's configuration."
		return object{"type": "object", "minProperties": 1, "maxProperties": 1,
			"propertyNames": formSchema(forms["name"]), "properties": object{"dir": dir}, "additionalProperties": ref}
	case reflect.TypeFor[delivery.Threshold]():
		share := object{"type": "number", "minimum": 0, "maximum": 1}
		return anyOf(object{"const": "bestF1"}, share, object{"type": "object", "additionalProperties": false,
			"minProperties": 1, "maxProperties": 1, "properties": object{"precision": share, "recall": share}})
	case reflect.TypeFor[map[string]any]():
		scalar := []string{"string", "number", "boolean"}
		items := object{"type": scalar}
		return object{"type": "object", "propertyNames": formSchema(forms["argument"]),
			"additionalProperties": object{"type": slices.Concat(scalar, []string{"array", "object"}), "items": items,
				"additionalProperties": object{"type": slices.Concat(scalar, []string{"array"}), "items": items}}}
	}
	if isText(t) {
		return object{"type": "string"}
	}
	return nil
}
