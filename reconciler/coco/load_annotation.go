package coco

import "slices"

func (p *truthParser) annotation(at position) {
	p.first = len(p.problems)
	var v Annotation
	var hasID, hasImage, hasCategory, hasBox, hasArea bool
	crowd := true // false if iscrowd is invalid
	points := false
	p.empty = nil
	if !p.object(func(name []byte) {
		switch string(name) {
		case "id":
			hasID = p.id(0, "id", &v.ID) || hasID
		case "image_id":
			hasImage = p.id(1, "image_id", &v.Image) || hasImage
		case "category_id":
			hasCategory = p.id(2, "category_id", &v.Category) || hasCategory
		case "bbox":
			if p.enter(3, "bbox") {
				v.Box, hasBox = p.box()
			}
		case "area":
			if p.enter(4, "area") {
				v.Area, hasArea = p.area()
			}
		case "keypoints":
			points = true
			p.skip()
		case "iscrowd":
			if p.enter(5, "iscrowd") {
				v.Crowd, crowd = p.flag()
			}
		default:
			p.skip()
		}
	}) {
		return
	}
	if len(p.empty) > 0 {
		p.emptyLists(points && slices.ContainsFunc(p.empty, func(e emptyList) bool { return e.field == "bbox" }))
	}
	p.need(at, "id", "image_id", "category_id", "bbox", "area")
	p.named(v.ID)
	box := 0
	if hasImage && p.lenient {
		p.boxes[v.Image]++
		box = p.boxes[v.Image]
		p.about(v.Image, box)
	}
	if !hasID || !hasImage || !hasCategory || !hasBox || !crowd {
		return
	}
	if !hasArea {
		v.Area = float64(v.Box.W * v.Box.H)
	}
	if _, again := p.annotations[v.ID]; again {
		p.duplicate(at, v.ID)
		p.about(v.Image, box)
		return
	}
	p.annotations[v.ID] = struct{}{}
	if n := len(p.truth.Annotations); n == cap(p.truth.Annotations) {
		more := p.expect(n) - n
		p.truth.Annotations, p.starts = slices.Grow(p.truth.Annotations, more), slices.Grow(p.starts, more)
	}
	p.truth.Annotations = append(p.truth.Annotations, v)
	p.starts = append(p.starts, start{at, p.item, box})
}

// An emptyList is a field that has an empty list in place of a value.
type emptyList struct {
	position
	field string
}

// emptyLists complains about the fields with empty lists: once about the annotation if it is one of key points, which
// VGG Image Annotator writes so, and else about each.
func (p *truthParser) emptyLists(points bool) {
	for _, e := range p.empty {
		switch p.field = e.field; {
		case points && e.field == "bbox":
			p.complain(e.position, NoBox, "key points without a box; the annotation is left out")
		case points:
		case e.field == "bbox":
			p.complain(e.position, WrongType, "want 4 numbers, got 0")
		default:
			p.complain(e.position, WrongType, "want a number, got an array")
		}
	}
	p.field = ""
}

// area reads the area of an object.
func (p *truthParser) area() (float64, bool) {
	p.peek()
	at := p.here()
	if p.later && p.err == nil && p.pos < len(p.buf) && p.buf[p.pos] == '[' {
		p.skip()
		p.empty = append(p.empty, emptyList{at, "area"})
		return 0, false
	}
	v, ok := p.finite()
	if ok && v < 0 {
		p.complain(at, OutOfRange, "want a number from 0 up, got %v", v)
		return 0, false
	}
	return v, ok
}

// references leaves out annotations whose image or category does not exist. If no more images are unknown than have an
// id that cannot be read, the annotations are of these, and that has been said.
func (p *truthParser) references() {
	unknown := map[int64]bool{}
	for _, a := range p.truth.Annotations {
		if _, ok := p.images[a.Image]; !ok && len(unknown) <= p.noID {
			unknown[a.Image] = true
		}
	}
	kept := p.truth.Annotations[:0]
	for i, a := range p.truth.Annotations {
		if p.err != nil {
			return
		}
		at := p.starts[i]
		p.list, p.item, p.first = "annotations", at.item, len(p.problems)
		image, ok := p.images[a.Image]
		if !ok && len(unknown) > p.noID {
			p.field = "image_id"
			p.complain(at.position, UnknownImage, "%d is not among the images", a.Image)
		}
		if _, known := p.categories[a.Category]; !known {
			if ok = false; !p.unnamed[a.Category] {
				p.field = "category_id"
				p.complain(at.position, UnknownCategory, "%d is not among the categories", a.Category)
			}
		}
		if ok {
			kept = append(kept, a)
			if p.lenient {
				p.truth.Numbers = append(p.truth.Numbers, at.box)
				p.inside(at.position, a.Box, p.truth.Images[image])
			}
		}
		p.named(a.ID)
		p.about(a.Image, at.box)
	}
	p.truth.Annotations = kept
}

// inside complains about an empty box, and about one that is outside its image by more than a pixel: less is how
// labelling tools round.
func (p *truthParser) inside(at position, b Box, in Image) {
	p.field = "bbox"
	switch {
	case b.W == 0 || b.H == 0:
		p.complain(at, EmptyBox, "%v x %v pixels: the box is empty", b.W, b.H)
	case b.W < 1 || b.H < 1:
		p.complain(at, DegenerateBox, "%v x %v pixels: less than a pixel across", b.W, b.H)
	}
	if in.Width == 0 || in.Height == 0 || p.otherSize[in.ID] {
		return
	}
	w, h := float64(in.Width), float64(in.Height)
	by, _ := b.Within(in.Width, in.Height)
	across, down := min(b.X+b.W, w)-max(b.X, 0), min(b.Y+b.H, h)-max(b.Y, 0) // of the part inside
	switch whole := b.W >= 1 && b.H >= 1; {
	case (by > 1 || whole) && (across <= 0 || down <= 0):
		p.complain(at, OffImage, "[%v, %v, %v, %v] is wholly outside its image of %d x %d pixels", b.X, b.Y, b.W, b.H,
			in.Width, in.Height)
	case whole && (across < 1 || down < 1):
		p.complain(at, DegenerateBox, "[%v, %v, %v, %v]: only %.4g x %.4g pixels of it are inside its image of %d x "+
			"%d pixels, less than a pixel across", b.X, b.Y, b.W, b.H, across, down, in.Width, in.Height)
	case by > 1:
		p.complain(at, OutsideImage, "[%v, %v, %v, %v] leaves its image of %d x %d pixels by %.4g pixels",
			b.X, b.Y, b.W, b.H, in.Width, in.Height, by)
	}
}
