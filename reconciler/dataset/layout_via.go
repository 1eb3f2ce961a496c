package dataset

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A viaImage is one image of VGG Image Annotator 1 or 2.
type viaImage struct {
	Filename string     `json:"filename"`
	Regions  viaRegions `json:"regions"`
	where    string     // for findings
}

// viaRegions are the regions of an image: a list, or in version 1 an object with numbers as names.
type viaRegions []viaRegion

func (r *viaRegions) UnmarshalJSON(data []byte) error {
	if trimmed := bytes.TrimSpace(data); len(trimmed) == 0 || trimmed[0] != '{' {
		return json.Unmarshal(data, (*[]viaRegion)(r))
	}
	var numbered map[string]viaRegion
	if err := json.Unmarshal(data, &numbered); err != nil {
		return err
	}
	number := func(name string) int {
		n, _ := strconv.Atoi(name)
		return n
	}
	for _, name := range slices.SortedFunc(maps.Keys(numbered), func(a, b string) int {
		return cmp.Or(cmp.Compare(number(a), number(b)), strings.Compare(a, b))
	}) {
		*r = append(*r, numbered[name])
	}
	return nil
}

type viaRegion struct {
	Shape      viaShape       `json:"shape_attributes"`
	Attributes map[string]any `json:"region_attributes"`
}

type viaShape struct {
	Name   string        `json:"name"`
	X      json.Number   `json:"x"`
	Y      json.Number   `json:"y"`
	Width  json.Number   `json:"width"`
	Height json.Number   `json:"height"`
	CX     json.Number   `json:"cx"`
	CY     json.Number   `json:"cy"`
	R      json.Number   `json:"r"`
	RX     json.Number   `json:"rx"`
	RY     json.Number   `json:"ry"`
	Xs     []json.Number `json:"all_points_x"`
	Ys     []json.Number `json:"all_points_y"`
}

// via reads projects and exports of VGG Image Annotator, as JSON and as CSV, with the images in the folder. A file
// train/via_region_data.json has the images of train.
func (v *version) via() (*layout, error) {
	l := &layout{name: "VGG Image Annotator"}
	for _, file := range v.names() {
		if !v.isVIA(file) {
			continue
		}
		split := cmp.Or(splitName(stem(path.Base(file))), splitName(path.Base(path.Dir(file))))
		read := func() (*sheet, error) {
			data, err := v.read(file, maxTool)
			if err != nil {
				return nil, err
			}
			images, err := readVIA(data)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			return v.viaSheet(images, file), nil
		}
		l.subsets = append(l.subsets, subset{split: split, file: file, read: reader(split, file, read)})
	}
	if len(l.subsets) == 0 {
		return nil, nil
	}
	return l, nil
}

const viaHeader = "filename,file_size,file_attributes,"

// isVIA reports whether a file begins like one of VGG Image Annotator 1 or 2.
func (v *version) isVIA(file string) bool {
	switch path.Ext(strings.ToLower(file)) {
	case ".csv":
		return bytes.HasPrefix(bytes.TrimPrefix(v.peek(file, 256), []byte("#")), []byte(viaHeader))
	case ".json":
		head := v.peek(file, 64<<10)
		return bytes.HasPrefix(bytes.TrimLeft(head, " \t\r\n"), []byte("{")) && (bytes.Contains(head,
			[]byte(`"_via_img_metadata"`)) || bytes.Contains(head, []byte(`"regions"`)) && bytes.Contains(head,
			[]byte(`"file_attributes"`)))
	}
	return false
}

// readVIA reads a file, and returns its images in its order, or that of their names.
func readVIA(data []byte) ([]viaImage, error) {
	if n := bytes.Count(data, []byte("{")); n > maxTaskShapes {
		return nil, fmt.Errorf("more than %d shapes", maxTaskShapes)
	}
	if !bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		return readVIATable(data)
	}
	var project struct {
		Images map[string]viaImage `json:"_via_img_metadata"`
	}
	if bytes.Contains(data, []byte(`"_via_img_metadata"`)) {
		if err := json.Unmarshal(data, &project); err != nil {
			return nil, err
		}
	} else if err := json.Unmarshal(data, &project.Images); err != nil {
		return nil, err
	}
	var out []viaImage
	for _, key := range slices.Sorted(maps.Keys(project.Images)) {
		im := project.Images[key]
		im.where = quote(im.Filename)
		out = append(out, im)
	}
	return out, nil
}

// readVIATable reads a CSV, which has a line for each region and for each image without one.
func readVIATable(data []byte) ([]viaImage, error) {
	in := csv.NewReader(bytes.NewReader(data))
	in.FieldsPerRecord = 7
	if _, err := in.Read(); err != nil {
		return nil, err
	}
	var out []viaImage
	index := map[string]int{}
	for {
		row, err := in.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		line, _ := in.FieldPos(0)
		i, known := index[row[0]]
		if !known {
			i = len(out)
			index[row[0]] = i
			out = append(out, viaImage{Filename: row[0], where: fmt.Sprintf("line %d", line)})
		}
		if row[5] == "{}" || row[5] == "" {
			continue // an image without regions
		}
		var region viaRegion
		if err := cmp.Or(json.Unmarshal([]byte(row[5]), &region.Shape), json.Unmarshal([]byte(row[6]),
			&region.Attributes)); err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		out[i].Regions = append(out[i].Regions, region)
	}
}

// viaSheet returns the images and boxes of a file.
func (v *version) viaSheet(images []viaImage, file string) *sheet {
	s := &sheet{}
	type found struct {
		viaImage
		file string
	}
	var list []found
	for _, im := range images {
		dir := path.Dir(file)
		at, ok := v.locate(im.Filename, dir, path.Join(dir, "images"), "images")
		if !ok {
			s.fault(codeNoImage, file+": "+im.where, "names the image %s, which is not in the folder; put the images "+
				"beside it", quote(im.Filename))
			continue
		}
		list = append(list, found{im, at})
	}
	slices.SortStableFunc(list, func(a, b found) int { return strings.Compare(a.file, b.file) })
	class := classAttribute(images)
	names := map[string]bool{}
	for _, im := range list {
		for _, r := range im.Regions {
			for _, name := range r.labels(class) {
				names[name] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		s.category(name)
	}
	for _, im := range list {
		s.image = im.file
		width, height := v.size(im.file)
		s.images = append(s.images, sheetImage{im.file, width, height})
		for i, r := range im.Regions {
			where := fmt.Sprintf("%s: %s, region %d", file, im.where, i+1)
			labels := r.labels(class)
			box, note, err := r.Shape.box()
			switch {
			case err != nil:
				s.fault(codeLabel, where, "%v", err)
			case note != "":
				s.warn(codeShape, where, "%s; it is left out", note)
			case len(labels) == 0 && class == "":
				s.fault(codeLabel, where, "which attribute is the class is not certain; call it class")
			case len(labels) == 0:
				s.warn(codeShape, where, "the attribute %s is empty, so the region has no label; it is left out",
					quote(class))
			default:
				for _, label := range labels {
					s.boxes = append(s.boxes, sheetBox{len(s.images) - 1, s.category(label), box, false})
				}
			}
		}
	}
	return s
}

// classAttribute returns the attribute of regions that is the class: one with such a name, or the only one. It is empty
// if that is not certain.
func classAttribute(images []viaImage) string {
	have := map[string]bool{}
	for _, im := range images {
		for _, r := range im.Regions {
			for name := range r.Attributes {
				have[name] = true
			}
		}
	}
	for _, name := range []string{"class", "label", "category", "name", "type", "object"} {
		for _, given := range slices.Sorted(maps.Keys(have)) {
			if strings.EqualFold(given, name) {
				return given
			}
		}
	}
	if len(have) == 1 {
		return slices.Collect(maps.Keys(have))[0]
	}
	return ""
}

// labels returns the class of a region, or all that are ticked.
func (r viaRegion) labels(class string) (out []string) {
	switch value := r.Attributes[class].(type) {
	case string:
		if value != "" {
			out = append(out, value)
		}
	case float64:
		out = append(out, strconv.FormatFloat(value, 'g', -1, 64))
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(value)) {
			if value[name] == true {
				out = append(out, name)
			}
		}
	}
	return out
}

// box returns the box around a shape in pixels, or a note about a shape without one. An ellipse is taken as upright.
func (s viaShape) box() (b coco.Box, note string, err error) {
	var n []float64
	read := func(numbers ...json.Number) bool {
		n, err = floats(delivery.Each(numbers, func(v json.Number) string { return string(v) })...)
		return err == nil
	}
	switch s.Name {
	case "rect":
		if read(s.X, s.Y, s.Width, s.Height) {
			b = coco.Box{X: n[0], Y: n[1], W: n[2], H: n[3]}
		}
	case "circle":
		if read(s.CX, s.CY, s.R) {
			b = coco.Box{X: n[0] - n[2], Y: n[1] - n[2], W: 2 * n[2], H: 2 * n[2]}
		}
	case "ellipse":
		if read(s.CX, s.CY, s.RX, s.RY) {
			b = coco.Box{X: n[0] - n[2], Y: n[1] - n[3], W: 2 * n[2], H: 2 * n[3]}
		}
	case "polygon":
		if len(s.Xs) != len(s.Ys) || len(s.Xs) == 0 {
			return b, "", fmt.Errorf("a polygon has as many all_points_x as all_points_y, got %d and %d", len(s.Xs),
				len(s.Ys))
		}
		var points []json.Number
		for i := range s.Xs {
			points = append(points, s.Xs[i], s.Ys[i])
		}
		if read(points...) {
			b = around(n)
		}
	case "":
		return b, "", errors.New("a region has no shape")
	default:
		return b, "a shape " + quote(s.Name) + " has no box", nil
	}
	return b, "", err
}
