package intent_test

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/autonomos/aob/reconciler/intent"
)

// check says what a trainer with an argument schema finds wrong with arguments, as
// lines of PATH: TEXT.
func check(t *testing.T, schema string, args map[string]any) string {
	t.Helper()
	trainers, err := intent.LoadTrainers(fstest.MapFS{
		"x/trainer.yaml": {Data: []byte(described)},
		"x/schema.json":  {Data: []byte(schema)},
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(map[string]any{"apiVersion": "aob/v1", "kind": "Model", "name": "m",
		"dataset": map[string]string{"dir": "d"}, "classes": []string{"a"},
		"train": map[string]any{"with": "x@1", "args": args}})
	if err != nil {
		t.Fatal(err)
	}
	_, complaints := intent.Parse([]intent.File{file("models/m.yaml", string(data))},
		intent.Options{Trainers: trainers})
	var lines []string
	for _, c := range complaints {
		lines = append(lines, strings.TrimPrefix(c.Path, "train.args.")+": "+c.Text)
	}
	return strings.Join(lines, "\n")
}

func TestArgsSchema(t *testing.T) {
	const all = `{"type": "object", "additionalProperties": false, "properties": {
		"n": {"type": "integer", "minimum": 1},
		"max": {"type": "number", "maximum": 2},
		"open": {"type": "number", "exclusiveMinimum": 0},
		"step": {"type": "number", "multipleOf": 0.1},
		"text": {"type": "string", "minLength": 2, "maxLength": 4},
		"long": {"type": "string", "minLength": 2},
		"one": {"enum": ["a", 1, true]},
		"two": {"type": ["string", "boolean"]},
		"list": {"type": "array", "minItems": 1, "items": {"type": "integer"}},
		"pair": {"type": "array", "maxItems": 2},
		"map": {"type": "object", "additionalProperties": {"type": "number"}},
		"any": true,
		"never": false}, "x-elsewhere": {"steps": "it comes from epochs"}}`
	for _, c := range []struct {
		key   string
		value any
		want  string // "" is right
	}{
		{"n", 3.0, ""}, {"n", 0.0, "n: want at least 1, got 0"}, {"n", 1.5, "n: want a whole number, got 1.5"},
		{"n", "1", `n: want a whole number, got "1"`},
		{"max", 2.0, ""}, {"max", 2.5, "max: want at most 2, got 2.5"},
		{"open", 0.1, ""}, {"open", 0.0, "open: want more than 0, got 0"},
		{"step", 0.3, ""}, {"step", 0.35, "step: want a multiple of 0.1, got 0.35"},
		{"text", "äöüß", ""}, {"text", "a", "text: want text of 2 to 4 characters, got 1"},
		{"long", "a", "long: want text of at least 2 characters, got 1"},
		{"one", "a", ""}, {"one", 1.0, ""}, {"one", true, ""}, {"one", false, `one: want "a", 1 or true, got false`},
		{"two", true, ""}, {"two", "x", ""}, {"two", 1.0, "two: want text or true or false, got 1"},
		{"list", []any{1.0}, ""}, {"list", []any{}, "list: want at least 1 entries, got 0"}, {"list", []any{1.0, "a"},
			`list[1]: want a whole number, got "a"`},
		{"pair", []any{1.0, 2.0, 3.0}, "pair: want at most 2 entries, got 3"},
		{"map", map[string]any{"a": 1.0}, ""}, {"map", map[string]any{"a b": "x"},
			`map["a b"]: want a number, got "x"`}, {"map", []any{}, "map: want a map, got a list"},
		{"steps", 1.0, "steps: cannot be set here: it comes from epochs"},
		{"any", []any{}, ""}, {"never", 1.0, "never: the trainer does not take it; remove it"},
	} {
		got := check(t, all, map[string]any{c.key: c.value})
		if got != c.want {
			t.Errorf("%s = %v: got %q, want %q", c.key, c.value, got, c.want)
		}
	}
}

// A rule that would be ignored is an error when the server starts.
func TestArgsSchemaErrors(t *testing.T) {
	for text, want := range map[string]string{
		``:                            "unexpected end",
		`[]`:                          "cannot unmarshal",
		`true`:                        "want type object",
		`{"type": "array"}`:           "want type object",
		`{"type": "object", "if": 1}`: `unknown field "if"`,
		`{"type": "object", "properties": {"a": {"pattern": "x"}}}`:     `unknown field "pattern"`,
		`{"type": "object", "properties": {"a": {"minimum": "three"}}}`: "cannot unmarshal",
		"{\n\"type\": \"object\",\n\"properties\": {,}}":                "schema.json:3: ",
		`{"a": "\"[{", "b": ` + strings.Repeat(`[`, 100) + `}`:          "inside each other",
		strings.Repeat(" ", 512<<10+1):                                  "too large",
	} {
		if _, err := intent.ParseArgsSchema([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", text, err, want)
		}
	}
}
