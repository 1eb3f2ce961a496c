package delivery

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// equal compares tables; NaN equals NaN, and values may differ by what rounding does.
func equal(t *testing.T, name string, a, b Table, within float64) {
	t.Helper()
	same := func(x, y, within float64) bool { return x != x && y != y || math.Abs(x-y) <= within }
	if !slices.Equal(a.Classes, b.Classes) || len(a.Columns) != len(b.Columns) {
		t.Fatalf("%s: %v, %d columns; want %v, %d", name, a.Classes, len(a.Columns), b.Classes, len(b.Columns))
	}
	for column, rows := range b.Columns {
		if a.Overall[column] != b.Overall[column] {
			t.Errorf("%s: overall %s %v, want %v", name, column, a.Overall[column], b.Overall[column])
		}
		for i, want := range rows {
			got := a.Columns[column][i]
			if !same(got.Value, want.Value, 0) || (got.Resamples == nil) != (want.Resamples == nil) ||
				len(got.Resamples) != len(want.Resamples) || got.Units != want.Units {
				t.Fatalf("%s: %s of %s is %v with %d resamples of %d units, want %v with %d of %d", name, column,
					a.Classes[i], got.Value, len(got.Resamples), got.Units, want.Value, len(want.Resamples), want.Units)
			}
			for j, v := range want.Resamples {
				if !same(got.Resamples[j], v, within) {
					t.Fatalf("%s: resample %d of %s of %s is %v, want %v", name, j, column, a.Classes[i],
						got.Resamples[j], v)
				}
			}
		}
	}
}

// large is what a model of many classes measures: values that a resample moves by a few hundredths, rare classes that
// some resamples lack, and one without truths.
func large(classes, n int) Table {
	r := rand.New(rand.NewPCG(1, 1))
	t := Table{Images: Row{Value: 5000}, Columns: map[string][]Row{}, Overall: map[string]float64{"AP": 1. / 3}}
	row := func(center, spread float64, gaps float64, whole bool) Row {
		row := Row{Value: center, Resamples: make([]float64, n)}
		for i := range row.Resamples {
			v := center + spread*r.NormFloat64()
			if whole {
				v = math.Round(v)
			}
			if r.Float64() < gaps {
				v = math.NaN()
			}
			row.Resamples[i] = v
		}
		return row
	}
	for c := range classes {
		t.Classes = append(t.Classes, fmt.Sprintf("class %d", c))
		gaps := 0.0
		if c%10 == 3 {
			gaps = 0.1
		}
		for _, column := range []string{"AP", "AP50", "AP75"} {
			held := row(0.4, 0.02, gaps, false)
			held.Units = 10 * c
			t.Columns[column] = append(t.Columns[column], held)
		}
		for _, column := range []string{"truths", "found", "false"} {
			t.Columns[column] = append(t.Columns[column], row(400, 10, 0, true))
		}
	}
	t.Columns["AP"][classes-1] = Row{Value: math.NaN()}
	return t
}

func TestTableJSON(t *testing.T) {
	group := large(2, 30)
	group.Images.Resamples = slices.Clone(group.Columns["truths"][0].Resamples)
	for name, table := range map[string]Table{
		"nothing": {Columns: map[string][]Row{}},
		"many":    large(12, 1000),
		"groups":  group,
		"constant": {Classes: []string{"a", "b"}, Columns: map[string][]Row{"AP": {{Value: -1,
			Resamples: []float64{-1, -1, -1}}, {Value: math.NaN(),
			Resamples: []float64{math.NaN(), math.NaN(), math.NaN()}}}}},
		"wide": {Classes: []string{"a"}, Columns: map[string][]Row{"AP": {{Value: 0.1 + 0.2, Resamples: []float64{-9e8,
			0.12345, 9e8}}}}},
	} {
		data, err := json.Marshal(table)
		if err != nil {
			t.Fatal(err)
		}
		var back, again Table
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		equal(t, name, back, table, 0.5/valueScale+1e-9)
		if len(back.Images.Resamples) != len(table.Images.Resamples) || back.Images.Value != table.Images.Value {
			t.Errorf("%s: images %v, want %v", name, back.Images, table.Images)
		}
		// Written once more it is the same: what is signed is what was scored.
		second, _ := json.Marshal(back)
		if err := json.Unmarshal(second, &again); err != nil || string(second) != string(data) {
			t.Errorf("%s: another time it is another table, %v", name, err)
		}
	}
	data, _ := json.Marshal(Table{Classes: []string{"a"}, Columns: map[string][]Row{
		"AP": {{Resamples: []float64{1e12}}}}})
	if data != nil {
		t.Error("a value that is out of range is written")
	}
}

// A score of eighty classes fits an envelope of four megabytes, which holds it in base64.
func TestTableIsCompact(t *testing.T) {
	for _, c := range []struct {
		classes, resamples, most int
		counts                   bool
	}{{80, 3200, 2_000_000, false}, {80, 3200, 2_800_000, true}, {20, 1000, 250_000, true}} {
		table := large(c.classes, c.resamples)
		if !c.counts {
			for _, column := range []string{"truths", "found", "false"} {
				delete(table.Columns, column)
			}
		}
		data, err := json.Marshal(table)
		if err != nil || len(data) > c.most {
			t.Errorf("%d classes of %d resamples take %d bytes, want at most %d; %v", c.classes, c.resamples, len(data),
				c.most, err)
		}
		t.Logf("%d classes, %d resamples, counts %v: %d bytes", c.classes, c.resamples, c.counts, len(data))
	}
}

func TestTablesThatDoNotFitAreRefused(t *testing.T) {
	one := func(resamples int, data string) string {
		return fmt.Sprintf(`{"classes":["a"],"resamples":%d,"columns":{"AP":{"values":[1],"per":1,"data":"%s"}}}`,
			resamples, data)
	}
	for name, c := range map[string]struct{ text, want string }{
		"rows":      {`{"classes":["a","b"],"columns":{"AP":{"values":[0.5]}}}`, "1 rows, want 2"},
		"resamples": {`{"classes":[],"resamples":2000000,"columns":{}}`, "resamples, want at most"},
		"negative":  {`{"classes":[],"resamples":-1,"columns":{}}`, "resamples, want at most"},
		"per":       {`{"classes":["a"],"resamples":9,"columns":{"AP":{"values":[1],"per":7,"data":"AA=="}}}`, "per 7"},
		"cut off":   {one(9, "AQAB"), "cut off"},
		"too wide":  {one(1, "QAAB"), "malformed"},
		"no row":    {one(9, ""), "missing"},
		"too much":  {one(1, "AQABAQ=="), "too many"},
		"units":     {`{"classes":["a"],"columns":{"AP":{"values":[1],"units":[1,2]}}}`, "units of 2 rows, want 1"},
		"less than no unit": {`{"classes":["a"],"columns":{"AP":{"values":[1],"units":[-1]}}}`,
			"-1 units in row 0, want at least 0"},
	} {
		var table Table
		if err := json.Unmarshal([]byte(c.text), &table); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func FuzzTable(f *testing.F) {
	for _, table := range []Table{large(2, 20), {Columns: map[string][]Row{}}} {
		data, err := json.Marshal(table)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"classes":["a"],"resamples":1,"columns":{"AP":{"values":[null],"per":1,"data":"AQAB"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var table, back Table
		if json.Unmarshal(data, &table) != nil {
			return
		}
		cells := 0
		for _, rows := range table.Columns {
			for _, r := range rows {
				cells += len(r.Resamples)
			}
		}
		if cells > 8*len(data) {
			t.Fatalf("%d bytes make %d values", len(data), cells)
		}
		for _, m := range Metrics() {
			table.Figure(m.Name, table.Classes).Samples()
		}
		again, err := json.Marshal(table)
		if err != nil {
			return // out of range
		}
		if err := json.Unmarshal(again, &back); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
	})
}

// Means, shares and differences over any list of classes are formed resample by resample.
func TestFigure(t *testing.T) {
	none := math.NaN()
	table := Table{Classes: []string{"a", "b", "c"}, Images: Row{Value: 10}, Overall: map[string]float64{"AP": 0.41},
		Columns: map[string][]Row{
			"AP": {{Value: 0.2, Resamples: []float64{0.1, 0.3, none}},
				{Value: 0.6, Resamples: []float64{0.9, 0.3, 0.6}}, {Value: none}},
			"truths": {{Value: 4, Resamples: []float64{4, 4, 0}}, {Value: 6, Resamples: []float64{6, 6, 6}},
				{Value: 0, Resamples: []float64{0, 0, 0}}},
			"found": {{Value: 2, Resamples: []float64{1, 3, 0}}, {Value: 3, Resamples: []float64{6, 0, 3}},
				{Value: 0, Resamples: []float64{0, 0, 0}}},
			"false": {{Value: 2, Resamples: []float64{1, 1, 0}}, {Value: 0, Resamples: []float64{0, 0, 0}},
				{Value: 5, Resamples: []float64{5, 5, 5}}},
		}}
	of := func(v float64, resamples ...float64) Row { return Row{Value: v, Resamples: resamples} }
	for _, c := range []struct {
		metric  string
		classes []string
		want    Row
	}{
		{"mAP", []string{"a"}, of(0.2, 0.1, 0.3, none)},
		{"mAP", []string{"a", "c"}, of(0.2, 0.1, 0.3, none)},
		{"mAP", []string{"a", "b"}, of(0.41, 0.5, 0.3, 0.6)}, // all with truths: COCO's own number
		{"AP", []string{"b"}, of(0.6, 0.9, 0.3, 0.6)},
		{"mAP", []string{"c"}, of(none)},
		{"mAP", nil, of(none)},
		{"AP50", []string{"a"}, of(none)},
		{"recall", []string{"a", "b"}, of(0.5, 0.7, 0.3, 0.5)},
		{"recall", []string{"a"}, of(0.5, 0.25, 0.75, none)},
		{"precision", []string{"a", "b"}, of(5./7, 7./8, 0.75, 1)},
		{"falsePositivesPerImage", []string{"a"}, of(0.2, 0.1, 0.1, 0)},
		{"falsePositivesPerImage", []string{"a", "b", "c"}, of(0.7, 0.6, 0.6, 0.5)},
		{"F1", []string{"a", "c"}, of(4./13, 2./11, 6./13, 0)},
		{"recall", nil, of(none)},
		{"F7", []string{"a"}, of(none)},
	} {
		got := table.Figure(c.metric, c.classes)
		text := func(r Row) string { return fmt.Sprintf("%.12f %.12f", r.Value, r.Resamples) }
		if text(got) != text(c.want) {
			t.Errorf("%s over %v: %v, want %v", c.metric, c.classes, got, c.want)
		}
	}
	if got := of(0.5, 0.2, none, 0.6).Samples(); fmt.Sprintf("%.2f", got) != "[0.30 0.70]" {
		t.Errorf("centred: %.2f", got)
	}
	short := of(0.1, 0.1)
	if got := of(0.5, 0.2, none, 0.6).Minus(short); got.Resamples != nil || got.Value != 0.4 {
		t.Errorf("rows of different draws: %v", got)
	}
	compared := CompareResult{Candidate: table.Values(), Baseline: table.Values(), Difference: table.Minus(table)}
	for _, m := range Metrics() {
		d, ok := compared.Compared(m.Name, table.Classes)
		if ok && (d.Value != 0 || len(d.Samples) == 0 || d.Samples[0] != 0 || d.Samples[len(d.Samples)-1] != 0) {
			t.Errorf("%s of the same model twice: %+v", m.Name, d)
		}
	}
}

func TestUnitsOfClasses(t *testing.T) {
	none := math.NaN()
	table := Table{Classes: []string{"a", "b", "c", "old"}, Columns: map[string][]Row{
		"AP":      {{Value: 0.2, Units: 40}, {Value: 0, Units: 1}, {Value: none}, {Value: 0.5}},
		"APsmall": {{Value: 0.2, Units: 2}, {Value: none}, {Value: none}, {Value: none}},
	}}
	for _, c := range []struct {
		metric  string
		classes []string
		want    int
		known   bool
	}{
		{"AP", []string{"b"}, 1, true},
		{"mAP", []string{"b", "a"}, 41, true},
		{"recall", []string{"b", "c"}, 1, true}, // no object of c, so none that counts
		{"APsmall", []string{"a", "old"}, 2, true},
		{"AP", []string{"a", "old"}, 0, false},
	} {
		if n, known := table.Units(c.metric, c.classes); n != c.want || known != c.known {
			t.Errorf("%s of %v: %d, %v; want %d, %v", c.metric, c.classes, n, known, c.want, c.known)
		}
	}
}
