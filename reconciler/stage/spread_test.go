package stage

import (
	"math"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// The interval is that of one more observation; the second row is computed by hand with the handbook's t of 2 degrees.
func TestPredicted(t *testing.T) {
	for _, c := range []struct {
		values    []float64
		low, high float64
	}{
		{[]float64{0.5, 0.5}, 0.5, 0.5},
		{[]float64{0.50, 0.52, 0.54}, 0.52 - 4.303*0.02*math.Sqrt(4.0/3), 0.52 + 4.303*0.02*math.Sqrt(4.0/3)},
		{[]float64{0.4, 0.6}, 0.5 - 12.706*math.Sqrt(0.02)*math.Sqrt(1.5), 0.5 + 12.706*math.Sqrt(0.02)*math.Sqrt(1.5)},
	} {
		low, high := predicted(c.values)
		if math.Abs(low-c.low) > 1e-12 || math.Abs(high-c.high) > 1e-12 {
			t.Errorf("%v: got %v to %v, want %v to %v", c.values, low, high, c.low, c.high)
		}
	}
	many := make([]float64, 100)
	for i := range many {
		many[i] = float64(i % 2)
	}
	if low, high := predicted(many); math.Abs(high-low-2*1.96*math.Sqrt(100.0/4/99*1.01)) > 1e-9 {
		t.Errorf("got %v to %v", low, high)
	}
}

func TestCompared(t *testing.T) {
	at := func(v float64) *float64 { return &v }
	figure := delivery.Figure{Value: 0.5, Low: at(0.45), High: at(0.56)}
	for name, c := range map[string]struct {
		metric string
		was    delivery.Figure
		seeds  []float64
		now    float64
		want   Compared
	}{
		"seeds": {"mAP", figure, []float64{0.50, 0.52, 0.54}, 0.42,
			Compared{Low: 0.4206, High: 0.6194, From: FromSeeds, Counts: true}},
		"within the seeds": {"mAP", figure, []float64{0.50, 0.52, 0.54}, 0.43,
			Compared{Low: 0.4206, High: 0.6194, From: FromSeeds, Counts: true, Within: true}},
		"a share ends at 1": {"recall", figure, []float64{0.2, 0.9}, 0.99,
			Compared{Low: 0, High: 1, From: FromSeeds, Within: true}},
		"a count does not": {"falsePositivesPerImage", figure, []float64{1, 2}, 3,
			Compared{Low: 0, High: 12.5037, From: FromSeeds, Within: true}},
		"one seed": {"mAP", figure, []float64{0.5}, 0.56,
			Compared{Low: 0.45, High: 0.56, From: FromImages, Counts: true, Within: true}},
		"a class does not count": {"AP/circle", figure, nil, 0.2, Compared{Low: 0.45, High: 0.56, From: FromImages}},
		"no spread, same": {"mAP", delivery.Figure{Value: 0.5}, nil, 0.5,
			Compared{Low: 0.5, High: 0.5, From: FromValue, Counts: true, Within: true}},
		"no spread, another": {"mAP", delivery.Figure{Value: 0.5}, nil, 0.5001,
			Compared{Low: 0.5, High: 0.5, From: FromValue, Counts: true}},
	} {
		t.Run(name, func(t *testing.T) {
			c.want.On, c.want.Metric, c.want.Released, c.want.Reproduced = "gate", c.metric, c.was.Value, c.now
			if got := compared("gate", c.metric, c.was, c.seeds, c.now); got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

// What counts decides, and nothing is reproduced of which no figure counts.
func TestReproduced(t *testing.T) {
	good, bad, shown := Compared{Counts: true, Within: true}, Compared{Counts: true}, Compared{Within: true}
	for _, c := range []struct {
		figures []Compared
		want    bool
	}{{nil, false}, {[]Compared{shown}, false}, {[]Compared{shown, good}, true}, {[]Compared{good, bad}, false}} {
		if got := reproduced(c.figures); got != c.want {
			t.Errorf("%+v: got %v", c.figures, got)
		}
	}
}
