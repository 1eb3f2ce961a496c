package dataset

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// newXML returns a decoder of a file in UTF-8. It expands no entity that the document defines, and opens no other file.
func newXML(r io.Reader) *xml.Decoder {
	d := xml.NewDecoder(r)
	d.CharsetReader = func(charset string, in io.Reader) (io.Reader, error) {
		switch strings.ToLower(charset) {
		case "utf-8", "utf8", "us-ascii", "ascii":
			return in, nil
		}
		return nil, fmt.Errorf("it is written in %s; save it as UTF-8", quote(charset))
	}
	return d
}

// xmlFault describes an error of a decoder, with the line.
func xmlFault(d *xml.Decoder, err error) error {
	if syntax, ok := errors.AsType[*xml.SyntaxError](err); ok {
		return fmt.Errorf("line %d: no XML: %s", syntax.Line, syntax.Msg)
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the file ends early")
	}
	line, _ := d.InputPos()
	return fmt.Errorf("line %d: %w", line, err)
}

// elements calls each for the elements inside the root of a document. each reads its element to the end.
func elements(r io.Reader, root string, each func(*xml.Decoder, xml.StartElement) error) error {
	d := newXML(r)
	inside := false
	for {
		token, err := d.Token()
		switch {
		case errors.Is(err, io.EOF) && !inside:
			return fmt.Errorf("want an element %s, got none", root)
		case err != nil:
			return xmlFault(d, err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			if !inside {
				if t.Name.Local != root {
					return xmlFault(d, fmt.Errorf("want an element %s, got %s", root, quote(t.Name.Local)))
				}
				inside = true
			} else if err := each(d, t); err != nil {
				if _, ok := errors.AsType[delivery.Blocked](err); ok {
					return err
				}
				return xmlFault(d, err)
			}
		case xml.EndElement:
			return nil // of the root
		}
	}
}

// An element is an XML element without its content.
type element struct {
	name       string
	attributes []xml.Attr
	line       int
}

// UnmarshalXML implements [xml.Unmarshaler].
func (e *element) UnmarshalXML(d *xml.Decoder, start xml.StartElement) error {
	e.line, _ = d.InputPos()
	e.name, e.attributes = start.Name.Local, slices.Clone(start.Attr)
	return d.Skip()
}

// get returns an attribute, or "".
func (e element) get(name string) string {
	for _, a := range e.attributes {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// numbers returns attributes as numbers.
func (e element) numbers(names ...string) ([]float64, error) {
	out := make([]float64, len(names))
	for i, name := range names {
		var err error
		if out[i], err = float(e.get(name)); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return out, nil
}

// A cvatFile is the content of CVAT's annotations.xml.
type cvatFile struct {
	labels []string
	images []cvatImage
}

type cvatImage struct {
	Name, Subset  string
	Width, Height string
	Shapes        []element
	line          int
}

// cvat reads annotations.xml of CVAT for images 1.1, with the images in images/.
func (v *version) cvat() (*layout, error) {
	var file string
	for _, name := range v.names() {
		if path.Ext(name) == ".xml" && bytes.Contains(v.peek(name, 1024), []byte("<annotations>")) {
			if file != "" {
				return nil, delivery.Blockedf("leave one in the folder", "%s and %s are both annotations of CVAT",
					file, name)
			}
			file = name
		}
	}
	if file == "" {
		return nil, nil
	}
	l := &layout{name: "CVAT for images 1.1"}
	if size := v.files[file].size; size > maxTool {
		return nil, fmt.Errorf("%s: %s, want at most %s", file, delivery.Bytes(size), delivery.Bytes(maxTool))
	}
	in, err := v.openFile(file)
	if err != nil {
		return nil, pathless(err)
	}
	defer in.Close()
	content, err := readCVAT(asUTF8(in))
	if _, blocked := errors.AsType[delivery.Blocked](err); err != nil && !blocked {
		err = fmt.Errorf("%s: %w", file, err)
	}
	if err != nil {
		return nil, err
	}
	subsets := map[string]bool{}
	for _, im := range content.images {
		subsets[im.Subset] = true
	}
	for _, name := range slices.Sorted(maps.Keys(subsets)) {
		split := splitName(name)
		if len(subsets) > 1 && split == "" {
			return nil, delivery.Blockedf("call the project's subsets Train, Validation and Test in CVAT, and "+
				"export it again",
				"%s: subset %s is no split", file, quote(name))
		}
		l.subsets = append(l.subsets, subset{split: split, file: file, read: reader(split, file, func() (*sheet,
			error) {
			return v.cvatSheet(content, file, name), nil
		})})
	}
	return l, nil
}

// readCVAT reads annotations.xml.
func readCVAT(r io.Reader) (*cvatFile, error) {
	out := &cvatFile{}
	shapes := int64(0)
	return out, elements(r, "annotations", func(d *xml.Decoder, start xml.StartElement) error {
		switch start.Name.Local {
		case "meta":
			var meta struct {
				Task    []string `xml:"task>labels>label>name"`
				Project []string `xml:"project>labels>label>name"`
				Job     []string `xml:"job>labels>label>name"`
			}
			if err := d.DecodeElement(&meta, &start); err != nil {
				return err
			}
			out.labels = append(out.labels, slices.Concat(meta.Task, meta.Project, meta.Job)...)
			return nil
		case "image":
			im, err := readCVATImage(d, start, &shapes)
			out.images = append(out.images, im)
			return err
		case "track":
			return delivery.Blockedf(`export the task again as "CVAT for images 1.1" or "COCO 1.0"`,
				"annotations.xml is an export of CVAT for video, with tracks")
		}
		return d.Skip()
	})
}

// readCVATImage reads an element image with its shapes, and counts them.
func readCVATImage(d *xml.Decoder, start xml.StartElement, shapes *int64) (cvatImage, error) {
	line, _ := d.InputPos()
	e := element{attributes: start.Attr}
	im := cvatImage{Name: e.get("name"), Subset: e.get("subset"), Width: e.get("width"), Height: e.get("height"),
		line: line}
	for {
		token, err := d.Token()
		if err != nil {
			return im, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			*shapes++
			if err := tooManyShapes(*shapes); err != nil {
				return im, err
			}
			var shape element
			if err := shape.UnmarshalXML(d, t); err != nil {
				return im, err
			}
			im.Shapes = append(im.Shapes, shape)
		case xml.EndElement:
			return im, nil
		}
	}
}

// cvatSheet returns the images and boxes of a subset. Polygons, masks and ellipses become the box around them, and so
// do turned boxes.
func (v *version) cvatSheet(content *cvatFile, file, name string) *sheet {
	s := &sheet{}
	for _, label := range content.labels {
		s.category(label)
	}
	images := slices.Clone(content.images)
	images = slices.DeleteFunc(images, func(im cvatImage) bool { return im.Subset != name })
	slices.SortStableFunc(images, func(a, b cvatImage) int { return strings.Compare(a.Name, b.Name) })
	for _, im := range images {
		s.image = ""
		found, ok := v.locate(im.Name, "images/"+name, "images", path.Join(path.Dir(file), "images/"+name),
			path.Join(path.Dir(file), "images"), path.Dir(file))
		if !ok {
			s.fault(codeNoImage, position{file, im.line}.String(), "names the image %s, which is not in the folder; "+
				"export "+
				"the task with its images", quote(im.Name))
			continue
		}
		s.image = found
		s.images = append(s.images, v.sized(found, im.Width, im.Height))
		for _, e := range im.Shapes {
			at := position{file, e.line}
			box, note, err := e.box()
			switch {
			case err != nil:
				s.fault(codeLabel, at.String(), "image %s, %s: %v", quote(im.Name), e.name, err)
			case note == codeShape:
				s.warn(codeShape, at.String(), "image %s: a %s has no box; it is left out", quote(im.Name), e.name)
			case note == "ignore":
			default:
				if note == codeRotated {
					s.warn(codeRotated, at.String(), "image %s: the box is turned by %s degrees; the upright box "+
						"around it is "+
						"used", quote(im.Name), e.get("rotation"))
				}
				label := e.get("label")
				if label == "" {
					s.fault(codeLabel, at.String(), "image %s: the %s has no label", quote(im.Name), e.name)
					continue
				}
				s.boxes = append(s.boxes, sheetBox{len(s.images) - 1, s.category(label), box, false})
			}
		}
	}
	return s
}

// box returns the box of a shape of CVAT, with a note about what was done.
func (e element) box() (box coco.Box, note string, err error) {
	if e.get("outside") == "1" {
		return box, "ignore", nil
	}
	turn := 0.0
	if r := e.get("rotation"); r != "" {
		if turn, err = float(r); err != nil {
			return box, "", fmt.Errorf("rotation: %w", err)
		}
	}
	if turn != 0 {
		note = codeRotated
	}
	switch e.name {
	case "box":
		n, err := e.numbers("xtl", "ytl", "xbr", "ybr")
		if err != nil {
			return box, "", err
		}
		box = coco.Box{X: n[0], Y: n[1], W: n[2] - n[0], H: n[3] - n[1]}
		if turn != 0 {
			box = turned(box, turn, (n[0]+n[2])/2, (n[1]+n[3])/2)
		}
		return box, note, nil
	case "polygon":
		var points []float64
		for pair := range strings.SplitSeq(e.get("points"), ";") {
			x, y, _ := strings.Cut(pair, ",")
			n, err := floats(x, y)
			if err != nil {
				return box, "", fmt.Errorf("points: %w", err)
			}
			points = append(points, n...)
		}
		return around(points), "", nil
	case "mask":
		n, err := e.numbers("left", "top", "width", "height")
		if err != nil {
			return box, "", err
		}
		return coco.Box{X: n[0], Y: n[1], W: n[2], H: n[3]}, "", nil
	case "ellipse":
		n, err := e.numbers("cx", "cy", "rx", "ry")
		if err != nil {
			return box, "", err
		}
		box = coco.Box{X: n[0] - n[2], Y: n[1] - n[3], W: 2 * n[2], H: 2 * n[3]}
		if turn != 0 {
			box = turned(box, turn, n[0], n[1])
		}
		return box, note, nil
	case "tag", "attribute":
		return box, "ignore", nil
	}
	return box, codeShape, nil
}
