package dataset

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/autonomos/aob/reconciler/coco"
)

// float reads a finite number of an annotation file.
func float(text string) (float64, error) {
	v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && (math.IsNaN(v) || math.Abs(v) > 1e9):
		return 0, fmt.Errorf("want a number up to 1e9, got %s", quote(text))
	case err != nil:
		return 0, fmt.Errorf("want a number, got %s", quote(text))
	}
	return v, nil
}

// floats reads several numbers.
func floats(texts ...string) ([]float64, error) {
	out := make([]float64, len(texts))
	for i, text := range texts {
		var err error
		if out[i], err = float(text); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// quote quotes a text of a dataset for a message, shortened.
func quote(text string) string {
	if runes := []rune(text); len(runes) > 80 {
		text = string(runes[:80]) + "…"
	}
	return strconv.Quote(text)
}

// around returns the smallest upright box that holds points, given as x and y in turn.
func around(points []float64) coco.Box {
	low, high := [2]float64{math.Inf(1), math.Inf(1)}, [2]float64{math.Inf(-1), math.Inf(-1)}
	for i, v := range points {
		low[i%2], high[i%2] = min(low[i%2], v), max(high[i%2], v)
	}
	return coco.Box{X: low[0], Y: low[1], W: high[0] - low[0], H: high[1] - low[1]}
}

// turned returns the upright box around a box that is turned clockwise about a point, by degrees.
func turned(b coco.Box, degrees, x, y float64) coco.Box {
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	var points []float64
	for _, corner := range [][2]float64{{b.X, b.Y}, {b.X + b.W, b.Y}, {b.X + b.W, b.Y + b.H}, {b.X, b.Y + b.H}} {
		dx, dy := corner[0]-x, corner[1]-y
		points = append(points, round(x+float64(dx*cos)-float64(dy*sin)), round(y+float64(dx*sin)+float64(dy*cos)))
	}
	return around(points)
}

// round rounds to a hundredth of a pixel, so that every machine computes the same.
func round(v float64) float64 { return math.Round(v*100) / 100 }
