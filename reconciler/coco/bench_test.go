package coco

import (
	"os"
	"path/filepath"
	"testing"
)

// benchCase is a large case: gt.json and dt.json in the folder that
// AOB_COCO_BENCH names, as made by make_case.py --seed 7.
func benchCase(b *testing.B) (dir string) {
	b.Helper()
	dir = os.Getenv("AOB_COCO_BENCH")
	if dir == "" {
		b.Skip("no large case: set AOB_COCO_BENCH to the folder that make_case.py wrote")
	}
	return dir
}

func BenchmarkRead(b *testing.B) {
	dir := benchCase(b)
	gt, err := os.ReadFile(filepath.Join(dir, "gt.json"))
	if err != nil {
		b.Fatal(err)
	}
	dt, err := os.ReadFile(filepath.Join(dir, "dt.json"))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(gt) + len(dt)))
	b.ReportAllocs()
	for b.Loop() {
		truth, err := parseTruth(gt)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := parseDetections(dt, truth); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEvaluate(b *testing.B) {
	truth, detections := readCase(b, benchCase(b))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Evaluate(truth, detections, Params{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompare1000(b *testing.B) {
	truth, detections := readCase(b, benchCase(b))
	other := make([]Detection, len(detections))
	for i, d := range detections {
		d.Box.X += float64(i%7) - 3
		other[i] = d
	}
	m, err := Match(truth, detections, Params{})
	if err != nil {
		b.Fatal(err)
	}
	n, err := Match(truth, other, Params{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compare(m, n, CompareParams{}); err != nil {
			b.Fatal(err)
		}
	}
}
