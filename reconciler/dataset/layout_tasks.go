package dataset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A labelTask is one image of Label Studio's export JSON.
type labelTask struct {
	ID          json.Number `json:"id"`
	Upload      string      `json:"file_upload"`
	Annotations []struct {
		Cancelled bool         `json:"was_cancelled"`
		Result    []labelShape `json:"result"`
	} `json:"annotations"`
	Data map[string]any `json:"data"`
}

type labelShape struct {
	Width  json.Number `json:"original_width"`
	Height json.Number `json:"original_height"`
	Turned json.Number `json:"image_rotation"` // degrees by which the picture was turned in the editor
	Type   string      `json:"type"`
	Value  labelValue  `json:"value"`
}

type labelValue struct {
	X          json.Number     `json:"x"`
	Y          json.Number     `json:"y"`
	Width      json.Number     `json:"width"`
	Height     json.Number     `json:"height"`
	RadiusX    json.Number     `json:"radiusX"`
	RadiusY    json.Number     `json:"radiusY"`
	Rotation   json.Number     `json:"rotation"`
	Points     [][]json.Number `json:"points"`
	Rectangles []string        `json:"rectanglelabels"`
	Polygons   []string        `json:"polygonlabels"`
	Ellipses   []string        `json:"ellipselabels"`
	Labels     []string        `json:"labels"`
}

// labelStudio reads the export JSON of Label Studio, with the images in the folder.
func (v *version) labelStudio() (*layout, error) {
	var file string
	for _, name := range v.names() {
		if path.Ext(name) != ".json" {
			continue
		}
		head := v.peek(name, 64<<10)
		if trimmed := bytes.TrimLeft(head, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '[' ||
			!(bytes.Contains(head, []byte(`"annotations"`)) && bytes.Contains(head, []byte(`"data"`))) {
			continue
		}
		if file != "" {
			return nil, delivery.Blockedf("leave one in the folder", "%s and %s are both exports of Label Studio",
				file, name)
		}
		file = name
	}
	if file == "" {
		return nil, nil
	}
	read := func() (*sheet, error) {
		if size := v.files[file].size; size > maxTool {
			return nil, fmt.Errorf("%s: %s, want at most %s", file, delivery.Bytes(size),
				delivery.Bytes(maxTool))
		}
		in, err := v.openFile(file)
		if err != nil {
			return nil, pathless(err)
		}
		defer in.Close()
		tasks, err := readTasks(asUTF8(in))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		return v.taskSheet(tasks, file), nil
	}
	return &layout{name: "Label Studio JSON", subsets: []subset{{file: file, read: reader("", file, read)}}}, nil
}

// maxTaskShapes is the largest number of shapes and other objects in an export.
const maxTaskShapes = 4_000_000

// readTasks reads the tasks of an export.
func readTasks(r io.Reader) ([]labelTask, error) {
	d := json.NewDecoder(r)
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, errors.New("want a list of tasks")
	}
	var out []labelTask
	shapes := 0
	for d.More() {
		var t labelTask
		var raw json.RawMessage // Decode would replace what is not UTF-8
		err := d.Decode(&raw)
		// Each shape begins with a brace, and takes a hundred times the memory of one.
		if shapes += bytes.Count(raw, []byte("{")); shapes > maxTaskShapes {
			return nil, fmt.Errorf("tasks[%d]: more than %d shapes", len(out), maxTaskShapes)
		}
		if err == nil {
			err = json.Unmarshal(raw, &t)
		}
		if err == nil && !utf8.Valid(raw) {
			err = delivery.Blockedf("save the file as UTF-8", "a text is not in UTF-8")
		}
		if err != nil {
			return nil, fmt.Errorf("tasks[%d], byte %d: %w", len(out), d.InputOffset(), err)
		}
		out = append(out, t)
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("after tasks[%d]: the file ends early", len(out)-1)
	}
	return out, nil
}

// image returns the name of the task's image.
func (t labelTask) image() string {
	for _, field := range []string{"image", "img", "photo", "url"} {
		if name, ok := t.Data[field].(string); ok && name != "" {
			return name
		}
	}
	for _, value := range t.Data { // the project may call the field as it likes
		if name, ok := value.(string); ok && len(t.Data) == 1 {
			return name
		}
	}
	return t.Upload
}

// taskSheet returns the images and boxes of tasks. Of several annotations of an image, the last is used that was not
// cancelled; a task without one was not labelled and is left out.
func (v *version) taskSheet(tasks []labelTask, file string) *sheet {
	s := &sheet{}
	type labelled struct {
		image string
		index int
	}
	var list []labelled
	for i, t := range tasks {
		where := fmt.Sprintf("%s: tasks[%d]", file, i)
		name := t.image()
		if name == "" {
			s.fault(codeLabel, where, "names no image")
			continue
		}
		image, ok := v.locate(name, path.Dir(file), path.Join(path.Dir(file), "images"), "images")
		if !ok {
			s.fault(codeNoImage, where, "names the image %s, which is not in the folder; put the images into images/",
				quote(name))
			continue
		}
		list = append(list, labelled{image, i})
	}
	slices.SortStableFunc(list, func(a, b labelled) int { return strings.Compare(a.image, b.image) })
	names := map[string]bool{}
	for _, l := range list {
		for _, a := range tasks[l.index].Annotations {
			for _, shape := range a.Result {
				for _, name := range shape.Value.labels() {
					names[name] = true
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		s.category(name)
	}
	for _, l := range list {
		t := tasks[l.index]
		s.image = l.image
		where := fmt.Sprintf("%s: tasks[%d]", file, l.index)
		chosen, n := -1, 0
		for i, a := range t.Annotations {
			if !a.Cancelled {
				chosen, n = i, n+1
			}
		}
		if n == 0 {
			s.warn("unlisted-file", l.image, "nobody labelled it; it is not used")
			continue
		}
		if n > 1 {
			s.warn(codeSeveral, where, "%s has %d annotations; the last is used", l.image, n)
		}
		width, height := v.size(l.image)
		s.images = append(s.images, sheetImage{l.image, width, height})
		if width == 0 || height == 0 {
			continue // checking the image says what is wrong
		}
		for i, shape := range t.Annotations[chosen].Result {
			at := fmt.Sprintf("%s.annotations[%d].result[%d]", where, chosen, i)
			names := shape.Value.labels()
			switch {
			case len(names) == 0 && (shape.Type == "choices" || shape.Type == "textarea" || shape.Type == "rating" ||
				shape.Type == "rectangle"):
				continue // about the image, or the same shape again without its label
			case len(names) == 0:
				what := "box"
				if shape.Value.boxed() {
					what = "label"
				}
				s.warn(codeShape, at, "%s: a shape of type %s has no %s; it is left out", l.image, quote(shape.Type),
					what)
				continue
			}
			if turned, err := shape.Turned.Float64(); shape.Turned != "" && (err != nil || turned != 0) {
				s.fault(codeLabel, at, "%s: the picture was turned by %s degrees in the editor, and the export does "+
					"not say to which picture the box belongs; save the image turned, and label it again", l.image,
					quote(shape.Turned.String()))
				continue
			}
			box, note, err := shape.Value.box(float64(width), float64(height))
			if err != nil {
				s.fault(codeLabel, at, "%s: %v", l.image, err)
				continue
			}
			if note != "" {
				s.warn(note, at, "%s: the box is turned; the upright box around it is used", l.image)
			}
			for _, name := range names {
				s.boxes = append(s.boxes, sheetBox{len(s.images) - 1, s.category(name), box, false})
			}
		}
	}
	return s
}

// labels returns the labels of a shape that has a box.
func (l labelValue) labels() []string {
	for _, names := range [][]string{l.Rectangles, l.Polygons, l.Ellipses} {
		if len(names) > 0 {
			return names
		}
	}
	if l.boxed() {
		return l.Labels
	}
	return nil
}

// boxed reports whether a shape has a box, with a label or without.
func (l labelValue) boxed() bool { return l.Width != "" || l.RadiusX != "" || len(l.Points) > 0 }

// box returns the box of a shape in pixels. Label Studio gives percent of the image, and turns a rectangle about its
// top left corner.
func (l labelValue) box(width, height float64) (coco.Box, string, error) {
	turn := 0.0
	if l.Rotation != "" {
		var err error
		if turn, err = float(string(l.Rotation)); err != nil {
			return coco.Box{}, "", fmt.Errorf("rotation: %w", err)
		}
	}
	var b coco.Box
	note := ""
	switch {
	case len(l.Points) > 0:
		var points []float64
		for _, p := range l.Points {
			if len(p) != 2 {
				return b, "", fmt.Errorf("points: want x and y, got %s", delivery.Count(len(p), "number"))
			}
			n, err := floats(string(p[0]), string(p[1]))
			if err != nil {
				return b, "", fmt.Errorf("points: %w", err)
			}
			points = append(points, float64(n[0]*width)/100, float64(n[1]*height)/100)
		}
		return around(points), "", nil
	case l.RadiusX != "":
		n, err := floats(string(l.X), string(l.Y), string(l.RadiusX), string(l.RadiusY))
		if err != nil {
			return b, "", err
		}
		b = coco.Box{X: float64((n[0]-n[2])*width) / 100, Y: float64((n[1]-n[3])*height) / 100,
			W: float64(n[2]*width) / 50, H: float64(n[3]*height) / 50}
		if turn != 0 {
			b, note = turned(b, turn, b.X+b.W/2, b.Y+b.H/2), codeRotated
		}
	default:
		n, err := floats(string(l.X), string(l.Y), string(l.Width), string(l.Height))
		if err != nil {
			return b, "", err
		}
		b = coco.Box{X: float64(n[0]*width) / 100, Y: float64(n[1]*height) / 100, W: float64(n[2]*width) / 100,
			H: float64(n[3]*height) / 100}
		if turn != 0 {
			b, note = turned(b, turn, b.X, b.Y), codeRotated
		}
	}
	return b, note, nil
}
