package serve

// This file chooses the boxes that a request asks for.

import (
	"slices"
	"strconv"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A filter selects detections.
type filter struct {
	confidence float64
	classes    []string // empty: all
	most       int      // 0: all
}

// choose returns the boxes that pass, in their order.
func (f filter) choose(boxes []delivery.Box) []delivery.Box {
	boxes = slices.DeleteFunc(boxes, func(b delivery.Box) bool {
		return b.Score < f.confidence || len(f.classes) > 0 && !slices.Contains(f.classes, b.Class)
	})
	if f.most > 0 {
		boxes = boxes[:min(len(boxes), f.most)]
	}
	return boxes
}

// addClasses adds a list of class names with commas between them. A name with a comma is one name if it is a class.
func (f *filter) addClasses(facts *Facts, list string) error {
	names := []string{list}
	if facts.classID(list) < 0 {
		names = strings.Split(list, ",")
	}
	for _, name := range names {
		if facts.classID(name) < 0 {
			return invalid("no class %.100q; the model has %s", name,
				delivery.PlainText(strings.Join(facts.Classes, ", "), 1000))
		}
		f.classes = append(f.classes, name)
	}
	return nil
}

// score reads a number from 0 to 1.
func score(name, text string) (float64, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v >= 0 && v <= 1) {
		return 0, invalid("%s is %.40q, want a number from 0 to 1", name, text)
	}
	return v, nil
}

// count reads a number of detections.
func count(name, text string) (int, error) {
	v, err := strconv.Atoi(text)
	if err != nil || v < 1 || v > maxDetections {
		return 0, invalid("%s is %.40q, want a whole number from 1 to %d", name, text, maxDetections)
	}
	return v, nil
}

// maxDetections is the largest number of detections that can be asked for.
const maxDetections = 100_000
