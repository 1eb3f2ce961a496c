package coco

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
)

// detectionParser reads results.
type detectionParser struct {
	*parser
	known               *idSet
	list                []Detection
	d                   Detection // the current one
	atImage, atCategory position
}

// readDetections reads a large file with two parsers at once, if it can be
// read from the middle.
func (l Loader) readDetections(r io.Reader, data []byte, truth *Truth, splitFrom int64) ([]Detection, error) {
	p := &detectionParser{parser: newParser(l, r, data), known: truth.ids(), list: []Detection{}}
	p.begin("an array of detections", '[')
	second := p.split(r, data, splitFrom)
	joined := false
	if second != nil {
		p.stop = func(at position) bool {
			if at.offset < second.at {
				return false
			}
			p.stop = nil
			joined = second.continues(at, p.parser)
			return joined
		}
	}
	p.array("detections", p.detection)
	if second != nil {
		<-second.done
	}
	if joined {
		return append(p.list, second.list...), nil
	}
	p.end()
	if p.err != nil {
		return nil, p.err
	}
	return p.list, nil
}

// detection reads one element of the array.
func (p *detectionParser) detection(at position) {
	p.d = Detection{}
	if !p.object(p.member) {
		return
	}
	if p.seen != 1<<4-1 {
		p.need(at, "image_id", "category_id", "bbox", "score")
		return
	}
	n := len(p.list)
	if p.known != nil && (n == 0 || p.d.Image != p.list[n-1].Image || p.d.Category != p.list[n-1].Category) {
		if !p.known.images[p.d.Image] {
			p.field = "image_id"
			p.failAt(p.atImage, "image %d is not in the ground truth", p.d.Image)
		}
		if !p.known.categories[p.d.Category] {
			p.field = "category_id"
			p.failAt(p.atCategory, "category %d is not in the ground truth", p.d.Category)
		}
	}
	if n == cap(p.list) {
		p.list = slices.Grow(p.list, p.expect(n)-n)
	}
	p.list = append(p.list, p.d)
}

// member reads one field of a detection.
func (p *detectionParser) member(name []byte) {
	switch string(name) {
	case "image_id":
		if p.enter(0, "image_id") {
			p.atImage = p.here()
			p.d.Image, _ = p.whole(math.MinInt64, math.MaxInt64)
		}
	case "category_id":
		if p.enter(1, "category_id") {
			p.atCategory = p.here()
			p.d.Category, _ = p.whole(math.MinInt64, math.MaxInt64)
		}
	case "bbox":
		if p.enter(2, "bbox") {
			p.d.Box, _ = p.box()
		}
	case "score":
		if p.enter(3, "score") {
			p.d.Score, _ = p.finite()
		}
	default:
		p.skip()
	}
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
