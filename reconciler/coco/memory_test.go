package coco

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
)

// Nothing grows with images times classes times thresholds: many more images
// with the same detections cost what an image costs, and no more.
func TestMemoryDoesNotMultiply(t *testing.T) {
	const classes, found, few, many = 500, 1000, 100, 10_100
	made := func(images int) (*Truth, []Detection) {
		r := rand.New(rand.NewPCG(1, 3))
		truth := &Truth{}
		for i := range images {
			truth.Images = append(truth.Images, Image{ID: int64(i)})
		}
		for k := range classes {
			truth.Categories = append(truth.Categories, Category{ID: int64(k), Name: fmt.Sprint(k)})
		}
		var detections []Detection
		for i := range found {
			a := Annotation{ID: int64(i + 1), Image: int64(r.IntN(images)), Category: int64(r.IntN(classes)),
				Box: Box{1, 1, 20, 20}, Area: 400}
			truth.Annotations = append(truth.Annotations, a)
			detections = append(detections, Detection{a.Image, a.Category, a.Box, r.Float64()})
		}
		return truth, detections
	}
	tasks := map[string]func(*Truth, []Detection) error{
		"Evaluate": func(truth *Truth, detections []Detection) error {
			_, err := Evaluate(truth, detections, Params{})
			return err
		},
		"Diagnose": func(truth *Truth, detections []Detection) error {
			_, err := Diagnose(truth, detections, Params{})
			return err
		},
		"Compare": func(truth *Truth, detections []Detection) error {
			m, err := Match(truth, detections, Params{})
			if err == nil {
				_, err = Compare(m, m, CompareParams{Resamples: 100})
			}
			return err
		},
	}
	for name, task := range tasks {
		t.Run(name, func(t *testing.T) {
			allocated := func(images int) int64 {
				truth, detections := made(images)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				if err := task(truth, detections); err != nil {
					t.Fatal(err)
				}
				runtime.ReadMemStats(&after)
				return int64(after.TotalAlloc - before.TotalAlloc)
			}
			// A byte for each image, class and threshold would be 5000 an image.
			if per := (allocated(many) - allocated(few)) / (many - few); per > 1000 {
				t.Errorf("%d bytes an image", per)
			} else {
				t.Logf("%d bytes an image", per)
			}
		})
	}
}
