package delivery

import (
	"slices"
	"testing"
)

func TestThresholdForms(t *testing.T) {
	for _, text := range []string{`"bestF1"`, `0.4`, `{"precision":0.95}`, `{"recall":0.9}`} {
		var v Threshold
		if err := v.UnmarshalJSON([]byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := v.MarshalJSON(); err != nil || string(got) != text {
			t.Errorf("%s became %s, %v", text, got, err)
		}
	}
	for _, text := range []string{`"best"`, `1.5`, `{"precision":2}`, `{"f1":0.5}`, `{}`, `[]`,
		`{"precision":0.5,"recall":0.5}`, `null`} {
		var v Threshold
		if err := v.UnmarshalJSON([]byte(text)); err == nil {
			t.Errorf("%s is taken for %v", text, v)
		}
	}
}

// A gate says which names mean its classes, of the eval set's labels and of models' classes.
func TestReads(t *testing.T) {
	model := Classes{{"lorry", []string{"big"}}, {"van", []string{"van", "truck"}}}
	for _, c := range []struct {
		name    string
		classes []string
		labels  Labels
		want    string
	}{
		{"classes by their names", []string{"lorry", "van"}, nil, "{lorry: [lorry], van: [van]}"},
		{"labels of a class", []string{"lorry", "van"}, Labels{"lorry": {"hgv", "truck"}},
			"{lorry: [hgv, truck], van: [van]}"},
		{"a class that the gate does not hold to", []string{"lorry"}, nil, "{lorry: [lorry], van: [van]}"},
		{"a class that the gate calls otherwise", []string{"lorry", "car"}, Labels{"car": {"car", "van"}},
			"{car: [car, van], lorry: [lorry]}"},
		{"a class that the model lacks", []string{"bus"}, nil, "{bus: [bus], lorry: [lorry], van: [van]}"},
		{"words that YAML would misread", []string{"lorry", "van"}, Labels{"lorry": {"no", "a b", "x: y", "7"}},
			`{lorry: ["no", a b, "x: y", "7"], van: [van]}`},
	} {
		got := Labels{}
		for _, class := range (Gate{Classes: c.classes, Labels: c.labels}).LabelMap(model) {
			got[class.Name] = class.Labels
		}
		if got.String() != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestCalled(t *testing.T) {
	classes := Classes{{"carton", []string{"box", "carton", "crate"}}, {"crate", []string{"crate"}}}
	for _, c := range []struct {
		class string
		names []string
		want  []string
	}{
		{"carton", []string{"carton", "box"}, []string{"carton"}}, // by its own name
		{"carton", []string{"box", "crate"}, []string{"box"}},     // crate is a class
		{"carton", []string{"lorry"}, nil},
		{"lorry", []string{"lorry"}, []string{"lorry"}},
		{"van", []string{"lorry"}, nil},
	} {
		if got := classes.Called(c.class, c.names); !slices.Equal(got, c.want) {
			t.Errorf("%s of %v is called %v, want %v", c.class, c.names, got, c.want)
		}
	}
	two := Classes{{"carton", []string{"box", "pack"}}}
	if got := two.Called("carton", []string{"box", "pack"}); len(got) != 2 {
		t.Errorf("two classes that mean one: %v", got)
	}
}
