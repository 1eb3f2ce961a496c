package dataset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"gopkg.in/yaml.v3"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

const (
	maxYAML    = 1 << 20 // bytes of data.yaml
	maxLabels  = 4 << 20 // bytes of the labels of one image
	maxClasses = 100_000
)

// A yoloFile is the content of data.yaml, or of a file of the same use.
type yoloFile struct {
	names     map[int64]string
	keypoints bool                // labels have points after the box
	sets      map[string][]string // by split: folders, or files that list images
}

// trains matches the lines of data.yaml that name the images.
var trains = regexp.MustCompile(`(?m)^(train|val|valid|test):`)

// ultralytics reads the layout that data.yaml describes, as Ultralytics, Roboflow and CVAT write it.
func (v *version) ultralytics() (*layout, error) {
	var file string
	for _, name := range v.names() {
		if ext := path.Ext(name); ext != ".yaml" && ext != ".yml" || strings.Count(name, "/") > 1 {
			continue
		}
		head := v.peek(name, maxYAML)
		if !bytes.Contains(head, []byte("names:")) || path.Base(name) != "data.yaml" && !trains.Match(head) {
			continue
		}
		if file != "" && path.Base(file) != path.Base(name) && (path.Base(file) == "data.yaml" ||
			path.Base(name) == "data.yaml") {
			if path.Base(name) == "data.yaml" {
				file = name
			}
			continue
		}
		if file != "" {
			return nil, delivery.Blockedf("leave one in the folder",
				"%s and %s both name the classes of a YOLO dataset",
				file, name)
		}
		file = name
	}
	if file == "" {
		return nil, nil
	}
	l := &layout{name: "YOLO"}
	data, err := v.read(file, maxYAML)
	if err != nil {
		return nil, err
	}
	y, err := readYOLO(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, name := range splitNames {
		var images []string
		var faults []fault
		for _, entry := range y.sets[name] {
			found, bad, err := v.yoloImages(path.Dir(file), entry)
			switch {
			case err != nil && name == "test" && len(y.sets["train"]) > 0:
				continue // COCO's data.yaml names a test set that nobody has
			case err != nil:
				return nil, delivery.Blockedf("put the images there, or correct "+path.Base(file), "%s: %s: %v", file,
					name, err)
			}
			images, faults = append(images, found...), listFaults(faults, bad)
		}
		if slices.Sort(images); len(images) > 0 {
			l.subsets = append(l.subsets, v.yoloSubset(name, file, y, slices.Compact(images), faults))
		}
	}
	if len(l.subsets) == 0 && len(y.sets) > 0 {
		return nil, delivery.Blockedf("put the images into the folder", "%s describes a YOLO dataset without images",
			file)
	}
	if len(l.subsets) == 0 { // only names:
		return v.yoloSets(y, file)
	}
	return l, nil
}

// readYOLO reads data.yaml. Anchors and aliases are refused, since they can make a small file a large one.
func readYOLO(data []byte) (*yoloFile, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	out := &yoloFile{names: map[int64]string{}, sets: map[string][]string{}}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("want a mapping with train, val and names")
	}
	fields := doc.Content[0].Content
	var number *yaml.Node // how many classes there are
	bad := func(n *yaml.Node, format string, args ...any) error {
		return fmt.Errorf("line %d: %s", n.Line, fmt.Sprintf(format, args...))
	}
	for i := 0; i+1 < len(fields); i += 2 {
		key, value := fields[i].Value, fields[i+1]
		switch key {
		case "train", "val", "valid", "test":
			entries := []*yaml.Node{value}
			if value.Kind == yaml.SequenceNode {
				entries = value.Content
			}
			for _, e := range entries {
				if e.Kind != yaml.ScalarNode {
					return nil, bad(e, "%s: want a path, or a list of paths", key)
				}
				if e.Tag != "!!null" && e.Value != "" {
					out.sets[splitName(key)] = append(out.sets[splitName(key)], e.Value)
				}
			}
		case "names":
			if err := out.name(value, bad); err != nil {
				return nil, err
			}
		case "kpt_shape":
			out.keypoints = true
		case "nc":
			number = value
		}
	}
	if len(out.names) == 0 {
		return nil, errors.New("names: want the classes' names, as a list or as numbers with names")
	}
	if number != nil && number.Value != strconv.Itoa(len(out.names)) {
		return nil, delivery.Blockedf("correct one of them", "line %d: nc is %s, and names has %s", number.Line,
			delivery.Terminal(number.Value), delivery.Count(len(out.names), "class"))
	}
	return out, nil
}

// name reads the names of classes: a list, or a mapping from numbers.
func (y *yoloFile) name(n *yaml.Node, bad func(*yaml.Node, string, ...any) error) error {
	if len(n.Content) > 2*maxClasses {
		return bad(n, "names: want at most %d classes", maxClasses)
	}
	switch n.Kind {
	case yaml.SequenceNode:
		for i, e := range n.Content {
			if e.Kind != yaml.ScalarNode {
				return bad(e, "names: want a list of texts")
			}
			y.names[int64(i)] = e.Value
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			id, err := strconv.ParseInt(key.Value, 10, 32)
			if err != nil || id < 0 || value.Kind != yaml.ScalarNode {
				return bad(key, "names: want a class's number from 0 and its name, got %s", quote(key.Value))
			}
			if _, twice := y.names[id]; twice {
				return bad(key, "names: class %d is there twice", id)
			}
			y.names[id] = value.Value
		}
	default:
		return bad(n, "names: want a list, or a mapping from numbers to names")
	}
	return nil
}

// yoloImages returns the images that an entry of data.yaml stands for: those in a folder, or those that a file lists.
// Paths of another machine are looked for by their end, since many exports have them.
func (v *version) yoloImages(base, entry string) (images []string, faults []fault, err error) {
	clean := lastParts(strings.TrimLeft(path.Clean("/"+strings.ReplaceAll(entry, `\`, "/")), "/"))
	for rest := clean; ; {
		for _, dir := range []string{base, "."} {
			at := path.Join(dir, rest)
			if v.files[at] != nil && path.Ext(at) == ".txt" {
				return v.listed(at)
			}
			if images = v.images(at); len(images) > 0 && (rest != "" || clean == "") {
				return images, nil, nil
			}
		}
		_, after, more := strings.Cut(rest, "/")
		if rest = after; !more {
			return nil, nil, fmt.Errorf("%s is not in the folder, or has no images", quote(entry))
		}
	}
}

// listed returns the images that a file names, one a line.
func (v *version) listed(list string) (images []string, faults []fault, err error) {
	data, err := v.read(list, maxAnnotations)
	if err != nil {
		return nil, nil, err
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		if n++; len(faults) > maxFaults {
			break
		}
		name := strings.TrimSpace(line)
		if name == "" {
			continue
		}
		file, ok := v.locate(name, path.Dir(list), ".")
		if !ok || !isImage(file) {
			faults = listFault(faults, fault{level: delivery.LevelError, code: codeNoImage,
				where: position{list, n}.String(),
				text:  fmt.Sprintf("names the image %s, which is not there", quote(name))})
			continue
		}
		images = append(images, file)
	}
	return images, faults, nil
}

// darknet reads obj.data, obj.names and train.txt, as CVAT's export YOLO 1.1 has them.
func (v *version) darknet() (*layout, error) {
	var file string
	for _, name := range v.names() {
		if path.Ext(name) == ".data" && bytes.Contains(v.peek(name, 4096), []byte("names")) {
			if file != "" {
				return nil, delivery.Blockedf("leave one in the folder", "%s and %s both describe a YOLO dataset",
					file, name)
			}
			file = name
		}
	}
	if file == "" {
		return nil, nil
	}
	l := &layout{name: "YOLO (Darknet)"}
	data, err := v.read(file, maxYAML)
	if err != nil {
		return nil, err
	}
	y := &yoloFile{}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, "=")
		value = strings.TrimSpace(value)
		switch key = strings.TrimSpace(key); key {
		case "names":
			at := path.Join(path.Dir(file), path.Base(value))
			if v.files[at] == nil {
				return nil, delivery.Blockedf("put it into the folder", "%s names %s, which is not there", file,
					quote(value))
			}
			if y.names, err = v.classes(at); err != nil {
				return nil, err
			}
		case "train", "valid", "test":
			at := path.Join(path.Dir(file), path.Base(value))
			if v.files[at] == nil {
				return nil, delivery.Blockedf("put it into the folder", "%s names %s, which is not there", file,
					quote(value))
			}
			images, faults, err := v.listed(at)
			if err != nil {
				return nil, err
			}
			slices.Sort(images)
			l.subsets = append(l.subsets, v.yoloSubset(key, at, y, slices.Compact(images), faults))
		}
	}
	return l, nil
}

// classes reads a file with the name of a class in each line.
func (v *version) classes(file string) (map[int64]string, error) {
	data, err := v.read(file, maxYAML)
	if err != nil {
		return nil, err
	}
	return readClasses(data), nil
}

func readClasses(data []byte) map[int64]string {
	names := map[int64]string{}
	for line := range strings.Lines(strings.TrimRight(string(data), "\r\n ")) {
		names[int64(len(names))] = strings.TrimSpace(line)
	}
	return names
}

// yoloTree reads images/ and labels/ with classes.txt, as Label Studio exports them.
func (v *version) yoloTree() (*layout, error) {
	for _, name := range []string{"classes.txt", "obj.names", "labels/classes.txt", "train/_darknet.labels"} {
		if v.files[name] == nil {
			continue
		}
		names, err := v.classes(name)
		if err != nil {
			return nil, err
		}
		return v.yoloSets(&yoloFile{names: names}, name)
	}
	return nil, nil
}

// yoloSets finds the splits of a YOLO dataset by the names of its folders.
func (v *version) yoloSets(y *yoloFile, file string) (*layout, error) {
	l := &layout{name: "YOLO"}
	images := map[string][]string{}
	for _, name := range v.images("") {
		in := ""
		for part := range strings.SplitSeq(path.Dir(name), "/") {
			if in == "" {
				in = splitName(part)
			}
		}
		images[in] = append(images[in], name)
	}
	for _, name := range append([]string{""}, splitNames...) {
		if len(images[name]) > 0 {
			l.subsets = append(l.subsets, v.yoloSubset(name, file, y, images[name], nil))
		}
	}
	if len(l.subsets) == 0 {
		return nil, delivery.Blockedf("put the images into images/",
			"%s names the classes of a YOLO dataset, and there is "+
				"no image", file)
	}
	return l, nil
}

func (v *version) yoloSubset(name, file string, y *yoloFile, images []string, faults []fault) subset {
	return subset{split: name, file: file, read: reader(name, file, func() (*sheet, error) {
		s, err := v.yoloSheet(images, y)
		if err == nil {
			s.faults = listFaults(slices.Clone(faults), s.faults)
		}
		return s, err
	})}
}

// labelFile returns the file of an image's labels: in labels/ beside images/, or beside the image.
func (v *version) labelFile(image string) string {
	text := stem(image) + ".txt"
	if i := strings.LastIndex("/"+text, "/images/"); i >= 0 {
		if at := path.Clean("./" + text[:i] + "/labels/" + text[i+len("images/"):]); v.files[at] != nil {
			return at
		}
	}
	if v.files[text] != nil {
		return text
	}
	return ""
}

// idleLabels returns the files of labels in labels/ that no image has, for YOLO's layouts.
func (v *version) idleLabels() []string {
	if l, _ := v.layout(); l == nil || !strings.HasPrefix(l.name, "YOLO") {
		return nil
	}
	used := map[string]bool{}
	for _, image := range v.images("") {
		used[v.labelFile(image)] = true
	}
	return slices.DeleteFunc(slices.Clone(v.names()), func(name string) bool {
		if used[name] || path.Ext(name) != ".txt" || !strings.Contains("/"+path.Dir(name)+"/", "/labels/") {
			return true
		}
		head := bytes.TrimSpace(v.peek(name, 64))
		return len(head) == 0 || head[0] < '0' || head[0] > '9'
	})
}

// yoloSheet reads the labels of images. An image without a file of labels is one without objects.
func (v *version) yoloSheet(images []string, y *yoloFile) (*sheet, error) {
	s := &sheet{}
	for id, name := range y.names {
		s.categories = append(s.categories, coco.Category{ID: id, Name: name})
	}
	slices.SortFunc(s.categories, func(a, b coco.Category) int { return int(a.ID - b.ID) })
	first := map[string]string{} // by file of labels: the first image that has it
	for _, image := range images {
		file := v.labelFile(image)
		if before := first[file]; file != "" && before != "" {
			s.fault(codeLabel, file, "these are the labels of both %s and %s; give each image a name of its own, or "+
				"leave one of them", quote(before), quote(image))
			continue
		}
		first[file] = image
	}
	var shapes atomic.Int64
	read := func(image string, r *sheet) error {
		width, height := v.size(image)
		r.images = []sheetImage{{image, width, height}}
		r.image = image
		file := v.labelFile(image)
		if file == "" {
			return nil
		}
		data, err := v.read(file, maxLabels)
		if err != nil {
			r.fault(codeLabel, file, "%v", err)
			return nil
		}
		if width > 0 && height > 0 { // otherwise checking the image says what is wrong
			r.labels(data, file, float64(width), float64(height), y)
		}
		return tooManyShapes(shapes.Add(int64(len(r.boxes))))
	}
	const batch = 256 // so that not all images' faults are in memory at one time
	for group := range slices.Chunk(images, batch) {
		sheets := make([]sheet, len(group))
		err := parallel(context.Background(), len(group), func(i int) error { return read(group[i], &sheets[i]) })
		if err != nil {
			return nil, err
		}
		for _, r := range sheets {
			s.faults = listFaults(s.faults, r.faults)
			for _, b := range r.boxes {
				b.image = len(s.images)
				s.boxes = append(s.boxes, b)
			}
			s.images = append(s.images, r.images...)
		}
	}
	return s, nil
}

// labels reads the labels of the only image of a sheet. A line is a class's number with a box as shares of the image
// (center, width, height), or with the corners of a polygon, of which the box around it is taken.
func (s *sheet) labels(data []byte, file string, width, height float64, y *yoloFile) {
	n := 0
	for line := range strings.Lines(string(data)) {
		if n++; len(s.faults) > maxFaults {
			break
		}
		at := position{file, n}
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		class, err := float(words[0])
		if err != nil || class != float64(int64(class)) || class < 0 {
			s.fault(codeLabel, at.String(), "want a class's number first, got %s", quote(words[0]))
			continue
		}
		if _, known := y.names[int64(class)]; !known {
			s.fault(string(coco.UnknownCategory), at.String(), "class %d has no name; there are %s", int64(class),
				delivery.Count(len(y.names), "class"))
			continue
		}
		v, err := floats(words[1:]...)
		if err != nil {
			s.fault(codeLabel, at.String(), "%v", err)
			continue
		}
		if y.keypoints && len(v) > 4 {
			v = v[:4]
		}
		box, text := yoloBox(v)
		if text != "" {
			s.fault(codeLabel, at.String(), "%s", text)
			continue
		}
		s.boxes = append(s.boxes, sheetBox{0, int64(class), coco.Box{X: float64(box.X * width),
			Y: float64(box.Y * height),
			W: float64(box.W * width), H: float64(box.H * height)}, false})
	}
}

// yoloBox returns the box of a label, in shares of the image, or what is wrong with it.
func yoloBox(v []float64) (coco.Box, string) {
	for _, x := range v {
		if x > 1.5 || x < -0.5 {
			return coco.Box{}, fmt.Sprintf("want shares of the image from 0 to 1, got %v; are these pixels?", x)
		}
	}
	switch {
	case len(v) == 4:
		return coco.Box{X: v[0] - v[2]/2, Y: v[1] - v[3]/2, W: v[2], H: v[3]}, ""
	case len(v) >= 6 && len(v)%2 == 0:
		return around(v), ""
	case len(v) == 5:
		return coco.Box{}, "want 4 numbers after the class, got 5: these look like detections with a score"
	}
	return coco.Box{}, fmt.Sprintf("want 4 numbers or the corners of a polygon after the class, got %s",
		delivery.Count(len(v), "number"))
}
