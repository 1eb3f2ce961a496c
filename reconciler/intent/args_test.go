package intent_test

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	aob "github.com/autonomos/aob"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
)

// What a trainer asks of the fields that all have is said at those.
func TestTrainerBoundsFields(t *testing.T) {
	s, err := intent.ParseArgsSchema([]byte(
		`{"type": "object", "train": {"resolution": {"type": "integer", "minimum": 64, "multipleOf": 32}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for resolution, want := range map[int]string{256: "", 161: "want a multiple of 32, got 161",
		32: "want at least 64, got 32"} {
		got := intent.Trainers{"x": s}.Check("x", delivery.Train{Resolution: resolution})
		if (len(got) > 0) != (want != "") || want != "" && (got[0].Path != "resolution" || got[0].Text != want) {
			t.Errorf("%d: got %v, want %q", resolution, got, want)
		}
	}
	if _, err := intent.ParseArgsSchema([]byte(`{"type": "object", "train": {"machine": {}}}`)); err == nil {
		t.Error("a trainer bounds the machine")
	}
}

// The schemas of the trainers that AOB brings along are understood.
func TestBuiltInTrainers(t *testing.T) {
	folder, err := fs.Sub(aob.Trainers, "trainers")
	if err != nil {
		t.Fatal(err)
	}
	trainers, err := intent.LoadTrainers(folder)
	if err != nil {
		t.Fatal(err)
	}
	if problems := trainers.Check("tiny", delivery.Train{Resolution: 256}); len(problems) > 0 {
		t.Errorf("tiny without arguments: %v", problems)
	}
	if problems := trainers.Check("tiny", delivery.Train{Resolution: 256, Args: map[string]any{"no such": 1.0}}); len(
		problems) != 1 {
		t.Errorf("tiny takes an argument that it does not know: %v", problems)
	}
}

func TestLoadTrainers(t *testing.T) {
	trainers, err := intent.LoadTrainers(fstest.MapFS{
		"tiny/schema.json": {Data: []byte(
			`{"type": "object", "required": ["a"], "properties": {"a": {"type": "string", ` +
				`"description": "What it is. And more."}}}`)},
		"none/train.py": {Data: []byte("")},
		"README.md":     {Data: []byte("")},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		trainer string
		args    map[string]any
		want    []intent.Problem
	}{
		{"tiny", map[string]any{"a": "x", "b": 1.0}, nil},
		{"tiny", nil, []intent.Problem{{Path: "args.a", Text: "missing: what it is"}}},
		{"none", nil, nil},
		{"none", map[string]any{"a": true},
			[]intent.Problem{{Path: "args.a", Text: `unknown argument "a"; there is none`}}},
		{"tinny", nil, []intent.Problem{{Path: "args",
			Text: `unknown trainer "tinny"; did you mean tiny? known: none, tiny`}}},
	} {
		if diff := cmp.Diff(c.want, trainers.Check(c.trainer, delivery.Train{Args: c.args})); diff != "" {
			t.Errorf("%s %v (-want +got):\n%s", c.trainer, c.args, diff)
		}
	}
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
		"never": false}}`
	s, err := intent.ParseArgsSchema([]byte(all))
	if err != nil {
		t.Fatal(err)
	}
	trainers := intent.Trainers{"x": s}
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
		{"any", []any{}, ""}, {"never", 1.0, "never: has no place here; leave it out"},
	} {
		var got string
		for _, p := range trainers.Check("x", delivery.Train{Args: map[string]any{c.key: c.value}}) {
			got += strings.TrimPrefix(p.Path, "args.") + ": " + p.Text
		}
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
	} {
		if _, err := intent.ParseArgsSchema([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", text, err, want)
		}
	}
}
