package plan

import (
	"math"
	"strconv"
	"testing"
)

// A figure is what a reader of the release file gets, to the last bit: the file
// is compared with the evidence that it was written from.
func TestRoundedFiguresSurviveTheFile(t *testing.T) {
	for _, v := range []float64{0, math.Copysign(0, -1), -1e-5, 4.9e-5, 0.20673313792923007, 1, 0.99999, -0.00015} {
		got := round(v)
		text := strconv.FormatFloat(got, 'f', 4, 64)
		if text == "-0.0000" {
			t.Errorf("round(%v) keeps the sign of zero", v)
		}
		if read, err := strconv.ParseFloat(text, 64); err != nil || read != got {
			t.Errorf("round(%v) is %v, and %v when it is read back", v, got, read)
		}
	}
}
