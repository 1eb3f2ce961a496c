package coco

import (
	"cmp"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

func diagnose(t *testing.T, truth *Truth, detections []Detection) *Diagnosis {
	t.Helper()
	d, err := Diagnose(truth, detections, Params{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// The authors' program gave these numbers.
func TestDiagnoseEqualsTIDE(t *testing.T) {
	dir := filepath.Join("testdata", "tide")
	text, err := os.ReadFile(filepath.Join(dir, "tide.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		AP50   float64
		Errors []struct {
			Type  string
			Count int
			DAP   float64
		}
	}
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	truth, detections := readCase(t, dir)
	d := diagnose(t, truth, detections)
	near(t, "AP50", 100*d.AP50, want.AP50)
	for i, w := range want.Errors {
		got := d.Errors[i]
		if got.Type.String() != w.Type || got.Count != w.Count {
			t.Errorf("got %d %s, want %d %s", got.Count, got.Type, w.Count, w.Type)
		}
		near(t, w.Type, 100*got.DAP, w.DAP)
	}
}

// One truth of class 1 at 10,10 of 20 x 20, one of class 2 at 60,10, and one
// detection that both surely finds and one that is as the test says.
func TestErrorTypes(t *testing.T) {
	tests := map[string]struct {
		detections []Detection
		want       map[ErrorType]int
	}{
		"nothing": {nil, map[ErrorType]int{Miss: 2}},
		"both found": {[]Detection{
			{1, 1, Box{10, 10, 20, 20}, .9}, {1, 2, Box{60, 10, 20, 20}, .9},
		}, map[ErrorType]int{}},
		"wrong class": {[]Detection{{1, 2, Box{10, 10, 20, 20}, .9}}, map[ErrorType]int{Cls: 1, Miss: 1}},
		"wrong class on what is found": {[]Detection{
			{1, 1, Box{10, 10, 20, 20}, .5}, {1, 2, Box{10, 10, 20, 20}, .9},
		}, map[ErrorType]int{Cls: 1, Miss: 1}},
		"wrong place":         {[]Detection{{1, 1, Box{20, 10, 20, 20}, .9}}, map[ErrorType]int{Loc: 1, Miss: 1}},
		"both wrong":          {[]Detection{{1, 2, Box{20, 10, 20, 20}, .9}}, map[ErrorType]int{Both: 1, Miss: 2}},
		"on nothing":          {[]Detection{{1, 1, Box{35, 40, 20, 20}, .9}}, map[ErrorType]int{Bkg: 1, Miss: 2}},
		"hardly on something": {[]Detection{{1, 1, Box{28, 10, 20, 20}, .9}}, map[ErrorType]int{Bkg: 1, Miss: 2}},
		"twice": {[]Detection{
			{1, 1, Box{10, 10, 20, 20}, .9}, {1, 1, Box{11, 10, 20, 20}, .8},
		}, map[ErrorType]int{Dupe: 1, Miss: 1}},
		"place before class": {[]Detection{
			{1, 1, Box{48, 10, 20, 20}, .9}, {1, 2, Box{60, 10, 20, 20}, .95},
		}, map[ErrorType]int{Both: 1, Miss: 1}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			truth, _ := single(1)
			truth.Annotations = append(truth.Annotations, Annotation{ID: 2, Image: 1, Category: 2,
				Box: Box{60, 10, 20, 20}, Area: 400})
			d := diagnose(t, truth, test.detections)
			for _, e := range d.Errors {
				if e.Count != test.want[e.Type] {
					t.Errorf("got %d %s, want %d", e.Count, e.Type, test.want[e.Type])
				}
			}
		})
	}
}

// Correcting what is wrong with the only detection gives what it says.
func TestErrorCosts(t *testing.T) {
	truth, _ := single(1)
	d := diagnose(t, truth, []Detection{{1, 1, Box{20, 10, 20, 20}, .9}, {1, 1, Box{20, 10, 20, 20}, .8},
		{1, 1, Box{70, 70, 9, 9}, .95}})
	// The surer Loc error is the truth's, the other goes; the miss before it stays.
	if d.AP50 != 0 || d.Errors[Loc].DAP != .5 || d.Errors[Bkg].DAP != 0 || d.Errors[Miss] != (ErrorCost{Type: Miss}) {
		t.Errorf("got %+v", d)
	}
	d = diagnose(t, truth, []Detection{{1, 1, Box{10, 10, 20, 20}, .9}, {1, 1, Box{70, 70, 9, 9}, .95}})
	if d.AP50 != .5 || math.Abs(d.Errors[Bkg].DAP-.5) > 1e-15 || d.PerClass[0].Errors[Bkg].DAP != d.Errors[Bkg].DAP ||
		d.PerClass[1].AP50 != -1 {
		t.Errorf("got %+v", d)
	}
	truth.Annotations = append(truth.Annotations, Annotation{ID: 2, Image: 1, Category: 1, Box: Box{60, 60, 20, 20},
		Area: 400})
	d = diagnose(t, truth, []Detection{{1, 1, Box{10, 10, 20, 20}, .9}})
	if got := d.AP50 + d.Errors[Miss].DAP; math.Abs(got-1) > 1e-15 || d.Errors[Miss].Count != 1 {
		t.Errorf("without the missed one: got %v of %+v", got, d)
	}
}

func TestConfusions(t *testing.T) {
	truth, _ := single(1)
	truth.Annotations = append(truth.Annotations, Annotation{ID: 2, Image: 1, Category: 2, Box: Box{60, 10, 20, 20},
		Area: 400})
	d := diagnose(t, truth, []Detection{
		{1, 2, Box{60, 10, 20, 20}, .5}, // found, so .5 is the best score of class 2
		{1, 2, Box{10, 10, 20, 20}, .6},
		{1, 2, Box{10, 10, 20, 20}, .4}, // not sure enough
	})
	want := []Confusion{{TruthID: 1, Truth: "a", DetectedID: 2, Detected: "b", Count: 1, Truths: 1}}
	if !reflect.DeepEqual(d.Confusions, want) {
		t.Errorf("got %+v, want %+v", d.Confusions, want)
	}
}

func TestDiagnosisProperties(t *testing.T) {
	for seed := range uint64(40) {
		truth, detections := traps(seed)
		if seed%2 == 0 {
			truth, detections = random(seed, 15, 4, false)
		}
		result := evaluate(t, truth, detections, Params{})
		d := diagnose(t, truth, detections)
		if d.AP50 != result.Stats.AP50 {
			t.Errorf("seed %d: got AP50 %v, want %v", seed, d.AP50, result.Stats.AP50)
		}
		for i, e := range d.Errors {
			count := 0
			for k, c := range d.PerClass {
				if c.AP50 != result.PerClass[k].AP50 || c.Truths != result.PerClass[k].Truths {
					t.Errorf("seed %d: got %+v, want %+v", seed, c, result.PerClass[k])
				}
				if c.Errors[i].DAP < 0 {
					t.Errorf("seed %d: correcting %s costs class %s %v", seed, e.Type, c.Name, c.Errors[i].DAP)
				}
				count += c.Errors[i].Count
			}
			if e.Count != count || e.DAP < -1e-15 {
				t.Errorf("seed %d: got %+v, classes have %d", seed, e, count)
			}
		}
		// A monotone change of scores changes nothing.
		other := slices.Clone(detections)
		for i := range other {
			other[i].Score = math.Atan(other[i].Score)*3 - 1
		}
		if again := diagnose(t, truth, other); !reflect.DeepEqual(again, d) {
			t.Errorf("seed %d: other scores of the same order: got %+v, want %+v", seed, again.Errors, d.Errors)
		}
	}
}

// Every false detection has one type, and every truth is found, missed, or
// would be found by the correction of a detection.
func TestErrorsAddUp(t *testing.T) {
	for seed := range uint64(20) {
		truth, detections := random(seed, 15, 4, false)
		m := match(t, truth, detections)
		d := diagnose(t, truth, detections)
		for k, c := range d.PerClass {
			wrong := 0
			for _, v := range m.classes[k].dets {
				if v.aside&1 == 0 && v.found&1 == 0 {
					wrong++
				}
			}
			n := 0
			for e := range Miss {
				n += c.Errors[e].Count
			}
			if n != wrong {
				t.Errorf("seed %d class %s: %d errors, %d false detections", seed, c.Name, n, wrong)
			}
		}
	}
}

// A model that finds less has more missing, and a model is not shifted from
// itself.
func TestShifts(t *testing.T) {
	truth, all := random(3, 40, 3, true)
	same, err := Shifts(truth, all, all, Params{})
	if err != nil || len(same) != 0 {
		t.Errorf("from itself: %v, %v", same, err)
	}
	class := truth.Categories[1]
	var fewer []Detection
	for i, d := range all {
		if d.Category != class.ID || i%2 == 0 {
			fewer = append(fewer, d)
		}
	}
	shifts, err := Shifts(truth, fewer, all, Params{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", class.Name} {
		list := shifts[name]
		missed := slices.IndexFunc(list, func(s delivery.ErrorShift) bool { return s.Type == "Miss" })
		if missed < 0 || list[missed].AP50 <= 0 || list[missed].Count <= 0 ||
			!slices.IsSortedFunc(list, func(a, b delivery.ErrorShift) int { return cmp.Compare(b.AP50, a.AP50) }) {
			t.Errorf("%q: %+v", name, list)
		}
	}
}
