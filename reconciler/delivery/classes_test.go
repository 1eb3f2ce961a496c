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
		{"the old name counts", map[string]string{"lorry": "truck"}, Classes{{"lorry", []string{"lorry", "truck"}}, plain[1], plain[2]}},
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
	for _, text := range []string{`"best"`, `1.5`, `{"precision":2}`, `{"f1":0.5}`, `{}`, `[]`, `{"precision":0.5,"recall":0.5}`, `null`} {
		var v Threshold
		if err := v.UnmarshalJSON([]byte(text)); err == nil {
			t.Errorf("%s is taken for %v", text, v)
		}
	}
}
