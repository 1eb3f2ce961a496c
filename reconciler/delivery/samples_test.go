package delivery

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

func TestSamplesJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	long := make(Samples, 1600)
	for i := range long {
		long[i] = -0.02 + 0.01*r.NormFloat64()
	}
	slices.Sort(long)
	for name, s := range map[string]Samples{"none": {}, "one": {0.25}, "equal": {0, 0, 0}, "negative": {-1, -0.5, 1},
		"large": {3, 250.5}, "many": long} {
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if name == "many" && len(data) > 3*len(s) {
			t.Errorf("%d samples take %d bytes", len(s), len(data))
		}
		var back, again Samples
		if err := json.Unmarshal(data, &back); err != nil || len(back) != len(s) {
			t.Fatalf("%s: %v, %v", name, err, back)
		}
		for i := range s {
			if math.Abs(back[i]-s[i]) > 0.5e-6+1e-12 {
				t.Fatalf("%s: %v came back as %v", name, s[i], back[i])
			}
		}
		// Written once more it is the same: what is signed is what was scored.
		data, _ = json.Marshal(back)
		if err := json.Unmarshal(data, &again); err != nil || !reflect.DeepEqual(again, back) {
			t.Errorf("%s: another time it is other samples", name)
		}
	}
	var list Samples
	if err := json.Unmarshal([]byte("[0.1, 0.2]"), &list); err != nil || !slices.Equal(list, Samples{0.1, 0.2}) {
		t.Errorf("a list: %v, %v", list, err)
	}
	if _, err := json.Marshal(Samples{math.NaN()}); err == nil {
		t.Error("what is no number is written")
	}
}

func FuzzSamples(f *testing.F) {
	f.Add([]byte(`"AA=="`))
	f.Add([]byte(`"gAE="`))
	f.Add([]byte(`[1,2]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s Samples
		if json.Unmarshal(data, &s) != nil || !slices.IsSorted(s) {
			return
		}
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back Samples
		if err := json.Unmarshal(again, &back); err != nil || len(back) != len(s) {
			t.Fatalf("%s: %v", again, err)
		}
	})
}
