package intent

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/delivery"
)

// ArgsFile is the name of the file beside trainer.yaml with the schema of the trainer's arguments. A trainer without it
// takes none.
const ArgsFile = "schema.json"

// An ArgsSchema has the rules for a trainer's arguments. It is a JSON Schema (draft
// 2020-12) of the keywords that [schemaNode] has.
type ArgsSchema struct{ root *schemaNode }

// The bounds of a schema.
const (
	maxArgsSchema  = 512 << 10 // bytes; packages have hundreds of options
	maxSchemaDepth = 24
)

// Defaults returns the defaults of the arguments that have one, by name.
func (s *ArgsSchema) Defaults() map[string]any {
	defaults := map[string]any{}
	for name, p := range s.root.Properties {
		if p != nil && p.hasDefault {
			defaults[name] = p.Default
		}
	}
	return defaults
}

// ParseArgsSchema reads a schema. An unknown keyword is an error, so that no rule is ignored.
func ParseArgsSchema(data []byte) (*ArgsSchema, error) {
	if len(data) > maxArgsSchema {
		return nil, fmt.Errorf("%s: is too large; want at most %d KiB", ArgsFile, maxArgsSchema>>10)
	}
	if depthOf(data) > maxSchemaDepth {
		return nil, fmt.Errorf("%s: %s", ArgsFile, tooDeep)
	}
	var root schemaNode
	if err := json.Unmarshal(data, &root); err != nil {
		if bad, ok := errors.AsType[*json.SyntaxError](err); ok {
			line := 1 + bytes.Count(data[:min(int64(len(data)), bad.Offset)], []byte("\n"))
			return nil, fmt.Errorf("%s:%d: %w", ArgsFile, line, err)
		}
		return nil, fmt.Errorf("%s: %w", ArgsFile, err)
	}
	if !slices.Equal(root.Type, stringOrList{"object"}) {
		return nil, fmt.Errorf("%s: want type object, got %q", ArgsFile, root.Type)
	}
	return &ArgsSchema{&root}, nil
}

// depthOf returns how deeply brackets are nested in JSON.
func depthOf(data []byte) (deepest int) {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '{' || c == '['):
			depth++
			deepest = max(deepest, depth)
		case !quoted && (c == '}' || c == ']'):
			depth--
		}
	}
	return deepest
}

// DefaultsFile is the name of the file in versions/VERSION with the defaults of all options of the trainer's package,
// also of those that models cannot set: {GROUP: {OPTION: VALUE}}. It is only shown, where a model gets another version.
const DefaultsFile = "defaults.json"

// ParseDefaults reads the content of a defaults.json, which may be empty. An option that several groups have is named
// GROUP.OPTION.
func ParseDefaults(data []byte) (map[string]any, error) {
	values := map[string]any{}
	if len(data) == 0 {
		return values, nil
	}
	if depthOf(data) > maxSchemaDepth {
		return nil, errors.New(tooDeep)
	}
	var groups map[string]map[string]any
	if err := json.Unmarshal(data, &groups); err != nil {
		return nil, fmt.Errorf("want {GROUP: {OPTION: VALUE}}: %w", err)
	}
	count := map[string]int{}
	for _, options := range groups {
		for name := range options {
			count[name]++
		}
	}
	for group, options := range groups {
		for name, value := range options {
			if count[name] > 1 {
				name = group + "." + name
			}
			values[name] = value
		}
	}
	return values, nil
}

// A problem is something wrong with an argument.
type problem struct {
	path string // as args.lr or args.steps[2]; args is all of them
	text string
}

// A schemaNode is one schema: annotations, which are not used, and rules.
type schemaNode struct {
	keywords
	never      bool // the schema false
	hasDefault bool // null is a default too
}

type keywords struct {
	Schema      string `json:"$schema"`
	ID          string `json:"$id"`
	Comment     string `json:"$comment"`
	Title       string `json:"title"`
	Description string `json:"description"`
	Default     any    `json:"default"`
	Examples    []any  `json:"examples"`

	Type                 stringOrList           `json:"type"`
	Enum                 []any                  `json:"enum"`
	Minimum              *float64               `json:"minimum"`
	Maximum              *float64               `json:"maximum"`
	ExclusiveMinimum     *float64               `json:"exclusiveMinimum"`
	ExclusiveMaximum     *float64               `json:"exclusiveMaximum"`
	MultipleOf           *float64               `json:"multipleOf"`
	MinLength            *int                   `json:"minLength"`
	MaxLength            *int                   `json:"maxLength"`
	Items                *schemaNode            `json:"items"`
	MinItems             *int                   `json:"minItems"`
	MaxItems             *int                   `json:"maxItems"`
	Properties           map[string]*schemaNode `json:"properties"`
	Required             []string               `json:"required"`
	AdditionalProperties *schemaNode            `json:"additionalProperties"`

	// Elsewhere is a keyword of AOB's: names that cannot be set here, each with the reason.
	Elsewhere map[string]string `json:"x-elsewhere"`
}

// UnmarshalJSON reads a schema: true, false or an object of known keywords.
func (s *schemaNode) UnmarshalJSON(data []byte) error {
	var always bool
	if json.Unmarshal(data, &always) == nil {
		*s = schemaNode{never: !always}
		return nil
	}
	var given map[string]json.RawMessage
	if err := delivery.ParseJSON(data, &s.keywords); err != nil {
		return err
	}
	err := json.Unmarshal(data, &given)
	_, s.hasDefault = given["default"]
	return err
}

// A stringOrList is a JSON string or a list of them.
type stringOrList []string

// UnmarshalJSON reads "a" or ["a", "b"].
func (l *stringOrList) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*l = stringOrList{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(l))
}

// check returns what is wrong with a value.
func (s *schemaNode) check(v any, path string) []problem {
	if s == nil {
		return nil
	}
	wrong := func(format string, args ...any) []problem {
		return []problem{{path, fmt.Sprintf(format, args...)}}
	}
	if s.never {
		return wrong("the trainer does not take it; remove it")
	}
	if len(s.Type) > 0 && !slices.ContainsFunc(s.Type, func(t string) bool { return isType(v, t) }) {
		return wrong("want %s, got %s", or(typeNames(s.Type)), show(v))
	}
	if len(s.Enum) > 0 && !slices.ContainsFunc(s.Enum, func(e any) bool { return reflect.DeepEqual(e, v) }) {
		return wrong("want %s, got %s", or(delivery.Each(s.Enum, show)), show(v))
	}
	switch v := v.(type) {
	case float64:
		if text := s.number(v); text != "" {
			return wrong("want %s, got %s", text, show(v))
		}
	case string:
		n := utf8.RuneCountInString(v)
		if s.MinLength != nil && n < *s.MinLength || s.MaxLength != nil && n > *s.MaxLength {
			return wrong("want text of %s characters, got %d", rangeText(optional(s.MinLength), optional(s.MaxLength)),
				n)
		}
	case []any:
		if n := len(v); s.MinItems != nil && n < *s.MinItems || s.MaxItems != nil && n > *s.MaxItems {
			return wrong("want %s entries, got %d", rangeText(optional(s.MinItems), optional(s.MaxItems)), n)
		}
		var list []problem
		for i, e := range v {
			list = append(list, s.Items.check(e, item(path, i))...)
		}
		return list
	case map[string]any:
		return s.object(v, path)
	}
	return nil
}

func (s *schemaNode) object(v map[string]any, path string) []problem {
	var list []problem
	for _, key := range slices.Sorted(maps.Keys(v)) {
		at := member(path, key)
		p, ok := s.Properties[key]
		switch {
		case ok:
			list = append(list, p.check(v[key], at)...)
		case s.Elsewhere[key] != "":
			list = append(list, problem{at, "cannot be set here: " + s.Elsewhere[key]})
		case s.AdditionalProperties != nil && s.AdditionalProperties.never:
			list = append(list, problem{at, unknown("argument", key, slices.Sorted(maps.Keys(s.Properties)))})
		default:
			list = append(list, s.AdditionalProperties.check(v[key], at)...)
		}
	}
	for _, key := range s.Required {
		if _, ok := v[key]; !ok {
			text := "missing"
			if p := s.Properties[key]; p != nil && p.Description != "" {
				text += ": " + sentence(p.Description)
			}
			list = append(list, problem{member(path, key), text})
		}
	}
	return list
}

// number describes the numbers that are right if v is wrong; else it is empty.
func (s *schemaNode) number(v float64) string {
	switch {
	case s.Minimum != nil && v < *s.Minimum, s.Maximum != nil && v > *s.Maximum:
		return rangeText(optional(s.Minimum), optional(s.Maximum))
	case s.ExclusiveMinimum != nil && v <= *s.ExclusiveMinimum:
		return "more than " + show(*s.ExclusiveMinimum)
	case s.ExclusiveMaximum != nil && v >= *s.ExclusiveMaximum:
		return "less than " + show(*s.ExclusiveMaximum)
	case s.MultipleOf != nil && math.Abs(v / *s.MultipleOf - math.Round(v / *s.MultipleOf)) > 1e-9:
		return "a multiple of " + show(*s.MultipleOf)
	}
	return ""
}

func isType(v any, name string) bool {
	switch v := v.(type) {
	case float64:
		return name == "number" || name == "integer" && v == math.Trunc(v)
	case string:
		return name == "string"
	case bool:
		return name == "boolean"
	case []any:
		return name == "array"
	case map[string]any:
		return name == "object"
	}
	return false
}

// typeNames returns the names of JSON's types in complaints.
func typeNames(types []string) []string {
	names := map[string]string{"number": "a number", "integer": "a whole number", "string": "text",
		"boolean": "true or false", "array": "a list", "object": "a map"}
	types = slices.DeleteFunc(slices.Clone(types), func(t string) bool { return t == "null" }) // a YAML key has a value
	return delivery.Each(types, func(t string) string { return cmp.Or(names[t], t) })
}

// show returns a value for a complaint.
func show(v any) string {
	switch v := v.(type) {
	case string:
		return quote(v)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case []any:
		return "a list"
	case map[string]any:
		return "a map"
	}
	return fmt.Sprint(v)
}

// optional shows a number that a schema may have; empty if it does not.
func optional[T int | float64](v *T) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(*v)
}
