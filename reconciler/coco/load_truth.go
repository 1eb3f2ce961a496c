package coco

import (
	"cmp"
	"io"
	"math"
	"slices"
	"strconv"
)

// Kind names what is wrong with an item of an annotation file.
type Kind string

// The kinds of problems.
const (
	DuplicateID     Kind = "duplicate-id"     // the later one is left out
	DuplicateName   Kind = "duplicate-name"   // two categories of one name; both are kept
	DuplicateField  Kind = "duplicate-field"  // the later one is skipped
	UnknownImage    Kind = "unknown-image"    // the annotation is left out
	UnknownCategory Kind = "unknown-category" // the annotation is left out
	OutsideImage    Kind = "outside-image"    // a part of the box, by more than a pixel; kept as it is
	OffImage        Kind = "off-image"        // the whole box; kept as it is
	EmptyBox        Kind = "empty-box"        // width or height zero; kept
	NegativeBox     Kind = "negative-box"     // width or height below zero; the annotation is left out
	DegenerateBox   Kind = "degenerate-box"   // less than a pixel across, or the part in the image is; kept
	NotFinite       Kind = "not-finite"       // NaN or an infinity; the item is left out
	MissingBox      Kind = "missing-box"      // the annotation is left out
	NoBox           Kind = "left-out-shape"   // key points with an empty bbox, as of a point; left out
	MissingField    Kind = "missing-field"    // another field; left out unless only area or an image's size is missing
	WrongType       Kind = "wrong-type"       // the item is left out if it needs the field
	OutOfRange      Kind = "out-of-range"     // a number that cannot be; left out likewise
	MoreProblems    Kind = "more-problems"    // the last one, if there are too many to list
)

const maxProblems = 10_000

// Problem is one thing that is wrong with an annotation file.
type Problem struct {
	Path   string `json:"path"`           // like annotations[12].bbox, counted from 0 in the file
	ID     int64  `json:"id,omitempty"`   // of the item; 0 if it has none
	File   string `json:"file,omitempty"` // the file name of the image, if it is known
	Box    int    `json:"box,omitempty"`  // of an annotation: its number among those of the image, from 1
	Kind   Kind   `json:"kind"`
	Text   string `json:"text"`   // what is wrong, with the values
	Offset int64  `json:"offset"` // bytes from the start of the file
	Line   int    `json:"line"`   // from 1
	Column int    `json:"column"` // in bytes, from 1
	Got    Box    `json:"-"`      // the box, if it is negative
}

// A truthParser reads an annotation file. Annotations may come before the images and categories that they name, so
// references are checked at the end.
type truthParser struct {
	*parser
	truth       *Truth
	images      map[int64]int32 // index into truth.Images
	categories  map[int64]string
	names       map[string]int64
	annotations map[int64]struct{}
	starts      []start // of truth.Annotations
	first       int     // index of the current item's first problem
	boxes       map[int64]int
	of          []problemImage // of each of problems
	otherSize   map[int64]bool // images whose file has another size
	unnamed     map[int64]bool // categories whose name cannot be read
	noID        int            // images whose id cannot be read
}

// A problemImage is the image that a problem is about.
type problemImage struct {
	id    int64
	known bool
}

// A start is the position of an annotation in the file.
type start struct {
	position
	item, box int
}

func (l Loader) readTruth(r io.Reader, lenient bool) (*Truth, []Problem, error) {
	p := &truthParser{
		parser: newParser(l, r), truth: &Truth{},
		images: map[int64]int32{}, categories: map[int64]string{}, names: map[string]int64{},
		annotations: map[int64]struct{}{}, boxes: map[int64]int{}, otherSize: map[int64]bool{},
		unnamed: map[int64]bool{},
	}
	p.lenient, p.later = lenient, lenient
	p.read()
	p.references()
	if p.err != nil {
		return nil, nil, p.err
	}
	for i, of := range p.of {
		if at, ok := p.images[of.id]; ok && of.known && p.problems[i].File == "" {
			p.problems[i].File = p.truth.Images[at].FileName
		}
	}
	slices.SortStableFunc(p.problems, func(a, b Problem) int { return cmp.Compare(a.Offset, b.Offset) })
	if p.unlisted > 0 {
		p.problems = append(p.problems, Problem{
			Kind: MoreProblems, Text: "and " + strconv.Itoa(p.unlisted) + " more problems", Path: "annotations",
			Line: 1, Column: 1,
		})
	}
	return p.truth, p.problems, nil
}

// read reads the whole file.
func (p *truthParser) read() {
	p.mark()
	p.begin("an object with images, categories and annotations", '{')
	if p.err != nil {
		return
	}
	lists := []struct {
		name string
		item func(position)
		read bool
	}{{name: "images", item: p.image}, {name: "categories", item: p.category},
		{name: "annotations", item: p.annotation}}
	p.object(func(name []byte) {
		for i := range lists {
			l := &lists[i]
			switch {
			case l.name != string(name):
				continue
			case l.read:
				p.field = l.name
				p.fail("a second field of this name")
			default:
				l.read = true
				p.array(l.name, l.item)
			}
			return
		}
		p.skip()
	})
	p.end()
	for _, l := range lists {
		if !l.read {
			p.field = l.name
			p.fail("missing: want an object with images, categories and annotations")
		}
	}
}

// named adds the id to the problems of the item that has just been read.
func (p *truthParser) named(id int64) {
	for i := p.first; i < len(p.problems); i++ {
		p.problems[i].ID = id
	}
}

// file adds the file name to the problems of the image that has just been read.
func (p *truthParser) file(name string) {
	for i := p.first; i < len(p.problems); i++ {
		p.problems[i].File = name
	}
}

// about adds the image and the number of the box to the problems of the annotation that has just been read.
func (p *truthParser) about(image int64, box int) {
	for len(p.of) < len(p.problems) {
		p.of = append(p.of, problemImage{})
	}
	for i := p.first; i < len(p.problems); i++ {
		p.of[i], p.problems[i].Box = problemImage{image, true}, box
	}
}

func (p *truthParser) image(at position) {
	p.first = len(p.problems)
	var v Image
	var url string // LVIS names the file only by its address
	var hasID, hasGroup bool
	if !p.object(func(name []byte) {
		switch {
		case string(name) == "id":
			hasID = p.id(0, "id", &v.ID) || hasID
		case string(name) == "width":
			if p.enter(1, "width") {
				v.Width = p.side()
			}
		case string(name) == "height":
			if p.enter(2, "height") {
				v.Height = p.side()
			}
		case string(name) == "file_name":
			if p.enter(3, "file_name") {
				v.FileName, _ = p.name()
			}
		case string(name) == "coco_url" && p.peek() == '"':
			url, _ = p.name()
		case p.loader.Group != "" && string(name) == p.loader.Group:
			if p.enter(4, p.loader.Group) {
				v.Group, hasGroup = p.group()
			}
		case p.loader.Scenes && (string(name) == "extra" || string(name) == "attributes"):
			p.inner(&v)
		case p.loader.Scenes:
			p.scene(name, &v)
		default:
			p.skip()
		}
	}) {
		return
	}
	if p.fields&(1<<3) == 0 {
		v.FileName = url
	}
	if p.loader.Group != "" && p.fields&(1<<4) == 0 {
		v.Group, hasGroup = p.ownGroup(v)
	}
	if p.lenient {
		p.need(at, "id", "width", "height")
	} else {
		p.need(at, "id")
	}
	if p.loader.Group != "" && p.fields&(1<<4) == 0 && !hasGroup {
		p.field = p.loader.Group
		p.complain(at, MissingField, "missing: images are to be grouped by it")
		p.field = ""
	}
	p.named(v.ID)
	p.file(v.FileName)
	if !hasID {
		p.noID++
	}
	if !hasID || p.loader.Group != "" && !hasGroup {
		return
	}
	if _, again := p.images[v.ID]; again {
		p.duplicate(at, v.ID)
		p.file(v.FileName)
		return
	}
	p.size(&v)
	p.images[v.ID] = int32(len(p.truth.Images))
	p.truth.Images = append(p.truth.Images, v)
}

// side reads the width or height of an image. It is -1 if it is that of the file.
func (p *truthParser) side() int {
	least := int64(0)
	if p.loader.Size != nil {
		least = unknownSide
	}
	n, _ := p.whole(least, maxPixels)
	return int(n)
}

const unknownSide = -1

// size compares the size of an image with that of its file.
func (p *truthParser) size(v *Image) {
	if p.loader.Size == nil {
		return
	}
	width, height := p.loader.Size(*v)
	switch known := width > 0 && height > 0; {
	case v.Width == unknownSide || v.Height == unknownSide:
		v.Width, v.Height = width, height
	case known && (v.Width != width || v.Height != height):
		p.otherSize[v.ID] = true
	}
}

// inner reads the fields of an object in an image that say where or when it was taken.
func (p *truthParser) inner(v *Image) {
	if p.peek() != '{' {
		p.skip()
		return
	}
	p.pos++
	for first := true; p.next(first, '}'); first = false {
		if name, ok := p.key(); ok {
			p.scene(name, v)
		}
	}
}

// scene reads a field of an image if it says where or when it was taken, and skips any other. The first one counts.
func (p *truthParser) scene(name []byte, v *Image) {
	to := &v.Site
	switch string(name) {
	case "date_captured", "datetime":
		to = &v.Time
	case "site", "camera", "location", "video":
	default:
		p.skip()
		return
	}
	switch c := p.peek(); {
	case *to == "" && c == '"':
		text, _ := p.string(maxText)
		*to = string(text)
	case *to == "" && startsNumber(c):
		if value, n, whole, ok := p.number(); ok && whole {
			*to = strconv.FormatInt(n, 10)
		} else if ok {
			*to = strconv.FormatFloat(value, 'g', -1, 64)
		}
	default:
		p.skip()
	}
}

// group reads a text, or a whole number as a text.
func (p *truthParser) group() (string, bool) {
	if startsNumber(p.peek()) {
		n, ok := p.whole(math.MinInt64, math.MaxInt64)
		return strconv.FormatInt(n, 10), ok
	}
	at := p.here()
	text, ok := p.name()
	if ok && text == "" {
		p.complain(at, WrongType, "want the name of a group, got an empty text")
	}
	return text, ok && text != ""
}

// ownGroup returns the group of an image if images are grouped by a field that is read anyway.
func (p *truthParser) ownGroup(v Image) (string, bool) {
	for i, field := range []string{"id", "width", "height", "file_name"} {
		if p.loader.Group == field && p.fields&(1<<i) != 0 {
			group := []string{strconv.FormatInt(v.ID, 10), strconv.Itoa(v.Width), strconv.Itoa(v.Height), v.FileName}[i]
			return group, group != ""
		}
	}
	return "", false
}

func (p *truthParser) duplicate(at position, id int64) {
	p.field = "id"
	p.complain(at, DuplicateID, "%d is there twice", id)
	p.field = ""
	p.named(id)
}

func (p *truthParser) category(at position) {
	p.first = len(p.problems)
	var v Category
	var hasID, hasName bool
	if !p.object(func(name []byte) {
		switch string(name) {
		case "id":
			hasID = p.id(0, "id", &v.ID) || hasID
		case "name":
			if p.enter(1, "name") {
				v.Name, hasName = p.name()
			}
		default:
			p.skip()
		}
	}) {
		return
	}
	p.need(at, "id", "name")
	p.named(v.ID)
	if p.unnamed[v.ID] = hasID && !hasName; !hasID || !hasName {
		return
	}
	if _, again := p.categories[v.ID]; again {
		p.duplicate(at, v.ID)
		return
	}
	if other, again := p.names[v.Name]; again && p.lenient {
		p.field = "name"
		p.complain(at, DuplicateName, "%q is the name of category %d too", v.Name, other)
		p.named(v.ID)
	}
	p.categories[v.ID] = v.Name
	p.names[v.Name] = v.ID
	p.truth.Categories = append(p.truth.Categories, v)
}
