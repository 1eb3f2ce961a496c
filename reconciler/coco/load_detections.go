package coco

import (
	"io"
	"math"
	"slices"
)

// A detectionParser reads COCO results.
type detectionParser struct {
	*parser
	known               *idSet
	list                []Detection
	d                   Detection // the current one
	atImage, atCategory position
}

// readDetections reads a large file with two parsers at once, if the reader can read from the middle.
func (l Loader) readDetections(r io.Reader, truth *Truth, splitFrom int64) ([]Detection, error) {
	p := &detectionParser{parser: newParser(l, r), known: truth.ids(), list: []Detection{}}
	p.mark()
	p.begin("an array of detections", '[')
	second := p.split(r, splitFrom)
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
	if p.fields != 1<<4-1 {
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

// An idSet has the ids of a ground truth.
type idSet struct{ images, categories map[int64]bool }

// ids returns nil for a nil truth.
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
