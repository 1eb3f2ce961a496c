package delivery

import (
	"reflect"
	"testing"
)

func TestRenamed(t *testing.T) {
	plain := Classes{{"lorry", []string{"lorry"}}, {"van", []string{"van"}}, {"car", []string{"auto", "car"}}}
	for _, c := range []struct {
		name string
		was  map[string]string
		want Classes
	}{
		{"nothing", nil, plain},
		{"the old name counts", map[string]string{"lorry": "truck"}, Classes{{"lorry", []string{"lorry", "truck"}},
			plain[1], plain[2]}},
		{"another class has the label", map[string]string{"lorry": "auto"}, plain},
		{"it says itself what it takes", map[string]string{"car": "vehicle"}, plain},
	} {
		if got := plain.Renamed(c.was); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if !reflect.DeepEqual(plain[0].Labels, []string{"lorry"}) {
		t.Error("the model's own classes were changed")
	}
}

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

// A gate reads its eval set's labels itself, and a renamed class as what it was.
func TestReads(t *testing.T) {
	classes := Classes{{"lorry", []string{"big"}}, {"van", []string{"van", "truck"}}}
	for _, c := range []struct {
		name   string
		labels Labels
		was    map[string]string
		want   string
	}{
		{"a class by its name", nil, nil, "{lorry: [lorry], van: [van]}"},
		{"the gate's labels", Labels{"lorry": {"hgv", "truck"}}, nil, "{lorry: [hgv, truck], van: [van]}"},
		{"a label is one class's", Labels{"lorry": {"van"}}, nil, "{lorry: [van], van: []}"},
		{"by its former name", nil, map[string]string{"lorry": "truck"}, "{lorry: [lorry, truck], van: [van]}"},
		{"by the labels of its former name", Labels{"truck": {"hgv"}}, map[string]string{"lorry": "truck"},
			"{lorry: [hgv, lorry], van: [van]}"},
		{"the gate has renamed it", Labels{"lorry": {"truck"}}, map[string]string{"lorry": "truck"},
			"{lorry: [truck], van: [van]}"},
		{"words that YAML would misread", Labels{"lorry": {"no", "a b", "x: y", "7"}}, nil,
			`{lorry: ["7", a b, "no", "x: y"], van: [van]}`},
	} {
		got := Labels{}
		for _, class := range (Gate{Labels: c.labels}).Reads(classes, c.was) {
			got[class.Name] = class.Labels
		}
		if got.String() != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
