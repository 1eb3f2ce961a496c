package coco

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"strconv"
)

func (l Loader) readDetections(r io.Reader, data []byte, truth *Truth) ([]Detection, error) {
	p := newParser(l, r, data)
	known := truth.ids()
	p.begin("an array of detections", '[')
	detections := []Detection{}
	var d Detection
	var atImage, atCategory position
	field := func(name []byte) {
		switch string(name) {
		case "image_id":
			if p.enter(0, "image_id") {
				atImage = p.here()
				d.Image, _ = p.whole(math.MinInt64, math.MaxInt64)
			}
		case "category_id":
			if p.enter(1, "category_id") {
				atCategory = p.here()
				d.Category, _ = p.whole(math.MinInt64, math.MaxInt64)
			}
		case "bbox":
			if p.enter(2, "bbox") {
				d.Box, _ = p.box()
			}
		case "score":
			if p.enter(3, "score") {
				d.Score, _ = p.finite()
			}
		default:
			p.skip()
		}
	}
	var last Detection
	p.array("detections", func(at position) {
		d = Detection{}
		if !p.object(field) {
			return
		}
		if p.seen != 1<<4-1 {
			p.need(at, "image_id", "category_id", "bbox", "score")
			return
		}
		if known != nil && (len(detections) == 0 || d.Image != last.Image || d.Category != last.Category) {
			if !known.images[d.Image] {
				p.field = "image_id"
				p.failAt(atImage, "image %d is not in the ground truth", d.Image)
			}
			if !known.categories[d.Category] {
				p.field = "category_id"
				p.failAt(atCategory, "category %d is not in the ground truth", d.Category)
			}
		}
		last = d
		detections = append(detections, d)
	})
	p.end()
	if p.err != nil {
		return nil, p.err
	}
	return detections, nil
}

// idSet tells which ids a ground truth has.
type idSet struct{ images, categories map[int64]bool }

// ids is nil for a nil truth.
func (t *Truth) ids() *idSet {
	if t == nil {
		return nil
	}
	s := &idSet{make(map[int64]bool, len(t.Images)), make(map[int64]bool, len(t.Categories))}
	for i := range t.Images {
		s.images[t.Images[i].ID] = true
	}
	for _, c := range t.Categories {
		s.categories[c.ID] = true
	}
	return s
}

// WriteDetections writes COCO results, one detection a line, such that reading
// them gives the same values. The same detections give the same bytes.
func WriteDetections(w io.Writer, detections []Detection) error {
	out := bufio.NewWriter(w)
	var line []byte
	for i := range detections {
		d := &detections[i]
		if text := d.fault(); text != "" {
			return fmt.Errorf("coco: detections[%d]: %s", i, text)
		}
		line = append(line[:0], ",\n"...)
		if i == 0 {
			line = append(line[:0], '[')
		}
		line = append(line, `{"image_id":`...)
		line = strconv.AppendInt(line, d.Image, 10)
		line = append(line, `,"category_id":`...)
		line = strconv.AppendInt(line, d.Category, 10)
		line = append(line, `,"bbox":[`...)
		for k, v := range [4]float64{d.Box.X, d.Box.Y, d.Box.W, d.Box.H} {
			if k > 0 {
				line = append(line, ',')
			}
			line = strconv.AppendFloat(line, v, 'g', -1, 64)
		}
		line = append(line, `],"score":`...)
		line = strconv.AppendFloat(line, d.Score, 'g', -1, 64)
		line = append(line, '}')
		if _, err := out.Write(line); err != nil {
			return err
		}
	}
	tail := "]\n"
	if len(detections) == 0 {
		tail = "[]\n"
	}
	if _, err := out.WriteString(tail); err != nil {
		return err
	}
	return out.Flush()
}
