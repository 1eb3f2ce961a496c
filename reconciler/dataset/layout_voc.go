package dataset

// This file reads Pascal VOC.

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

const maxVOC = 4 << 20 // bytes of the file of one image

// A vocFile is the annotation of one image in Pascal VOC's form.
type vocFile struct {
	Filename string
	Database string
	Width    string
	Height   string
	Objects  []vocObject
}

type vocObject struct {
	Name      string   `xml:"name"`
	Difficult string   `xml:"difficult"`
	Box       []vocBox `xml:"bndbox"`
	line      int
}

type vocBox struct {
	Left   string `xml:"xmin"`
	Top    string `xml:"ymin"`
	Right  string `xml:"xmax"`
	Bottom string `xml:"ymax"`
}

// readVOC reads the annotation of one image.
func readVOC(r io.Reader) (*vocFile, error) {
	out := &vocFile{}
	return out, elements(r, "annotation", func(d *xml.Decoder, start xml.StartElement) error {
		switch start.Name.Local {
		case "filename":
			return d.DecodeElement(&out.Filename, &start)
		case "source":
			var source struct {
				Database string `xml:"database"`
			}
			err := d.DecodeElement(&source, &start)
			out.Database = source.Database
			return err
		case "size":
			var size struct {
				Width  string `xml:"width"`
				Height string `xml:"height"`
			}
			err := d.DecodeElement(&size, &start)
			out.Width, out.Height = size.Width, size.Height
			return err
		case "object":
			var o vocObject
			o.line, _ = d.InputPos()
			err := d.DecodeElement(&o, &start)
			out.Objects = append(out.Objects, o)
			return err
		}
		return d.Skip()
	})
}

// vocRoot matches the element that a file of VOC consists of. A file of CVAT consists of annotations.
var vocRoot = regexp.MustCompile(`<annotation[\s>/]`)

// xmlFolder matches the folder of the annotations.
var xmlFolder = regexp.MustCompile(`(?i)(^|/)(annotations|xmls)/`)

// voc reads Pascal VOC: Annotations/*.xml, JPEGImages/ and ImageSets/Main/*.txt, as VOC itself, CVAT and Label Studio
// write it, and the XML files beside the images in train/, valid/ and test/ that Roboflow writes.
func (v *version) voc() (*layout, error) {
	byRoot := map[string][]string{} // annotation files by folder of the dataset
	for _, name := range v.names() {
		if path.Ext(name) != ".xml" || !vocRoot.Match(v.peek(name, 1024)) {
			continue
		}
		root := "."
		if at := xmlFolder.FindStringIndex(name); at != nil {
			root = path.Clean("./" + name[:at[0]])
		}
		byRoot[root] = append(byRoot[root], name)
	}
	roots := slices.Sorted(maps.Keys(byRoot))
	switch {
	case len(roots) == 0:
		return nil, nil
	case len(roots) > 1:
		return nil, delivery.Blockedf("name the folder of one of them",
			"several datasets in the layout of Pascal VOC, in %s",
			strings.Join(roots, " and "))
	}
	root := roots[0]
	l := &layout{name: "Pascal VOC"}
	files := map[string]string{} // by id: the path below Annotations without extension
	bySplit := map[string][]string{}
	for _, name := range byRoot[root] {
		id := stem(name)
		if at := xmlFolder.FindStringIndex(name); at != nil {
			id = stem(name[at[1]:])
		}
		files[id] = name
		split := ""
		if root == "." { // perhaps train/a.xml beside train/a.jpg
			first, _, _ := strings.Cut(name, "/")
			split = splitName(first)
		}
		bySplit[split] = append(bySplit[split], id)
	}
	sets := path.Join(root, "ImageSets/Main")
	lists := map[string]string{} // by split
	for _, name := range v.below(sets) {
		if base := path.Base(name); path.Ext(base) == ".txt" && !strings.Contains(stem(base), "_") &&
			path.Dir(name) == sets {
			split := splitName(stem(base))
			if split != "" {
				lists[split] = name
			}
			if base == "trainval.txt" && v.files[sets+"/train.txt"] == nil {
				lists["train"] = name
			}
		}
	}
	all := slices.Sorted(maps.Keys(files))
	add := func(split, file string, ids []string, faults []fault) {
		slices.Sort(ids)
		l.subsets = append(l.subsets, subset{split: split, file: file, read: reader(split, file, func() (*sheet,
			error) {
			s, err := v.vocSheet(root, ids, files)
			if err == nil {
				s.faults = listFaults(slices.Clone(faults), s.faults)
			}
			return s, err
		})})
	}
	switch {
	case len(lists) > 0:
		for split, list := range lists {
			ids, faults, err := v.vocList(list, files)
			if err != nil {
				return nil, err
			}
			add(split, list, ids, faults)
		}
	case len(bySplit[""]) == 0:
		for split, ids := range bySplit {
			add(split, split, ids, nil)
		}
	default:
		add("", path.Dir(byRoot[root][0]), all, nil)
	}
	return l, nil
}

// vocList reads the ids in a file of ImageSets/Main, one a line.
func (v *version) vocList(list string, files map[string]string) (ids []string, faults []fault, err error) {
	data, err := v.read(list, maxAnnotations)
	if err != nil {
		return nil, nil, err
	}
	seen := map[string]bool{}
	n := 0
	for line := range strings.Lines(string(data)) {
		if n++; len(faults) > maxFaults {
			break
		}
		id := strings.TrimSpace(line)
		if files[id] == "" && len(strings.Fields(id)) == 2 { // "000012 -1", as in the lists of one class
			id = strings.Fields(id)[0]
		}
		switch {
		case id == "" || seen[id]:
		case files[id] == "":
			faults = listFault(faults, fault{level: delivery.LevelError, code: codeLabel,
				where: position{list, n}.String(),
				text: fmt.Sprintf("names %s, and there is no Annotations/%s.xml", quote(id),
					delivery.Cut(delivery.Terminal(id), 80))})
		default:
			ids = append(ids, id)
		}
		seen[id] = true
	}
	return ids, faults, nil
}

// vocSheet reads the annotations of images.
//
// Pascal VOC counts pixels from 1 and a box's last pixel is inside, so 1 is taken from xmin and ymin of its own files,
// as detectron2 does. The tools that write its layout (labelImg, CVAT, Label Studio, Roboflow) give edges counted from
// 0, which are used as they are. Objects marked difficult count neither for nor against a model in Pascal VOC, so they
// become crowds.
func (v *version) vocSheet(root string, ids []string, files map[string]string) (*sheet, error) {
	s := &sheet{}
	read := make([]*vocFile, len(ids))
	faults := make([]error, len(ids))
	var shapes atomic.Int64
	err := parallel(context.Background(), len(ids), func(i int) error {
		data, err := v.read(files[ids[i]], maxVOC)
		if err == nil {
			if read[i], err = readVOC(bytes.NewReader(data)); err != nil {
				err = fmt.Errorf("%s: %w", files[ids[i]], err)
			}
		}
		if faults[i] = err; read[i] == nil {
			return nil
		}
		return tooManyShapes(shapes.Add(int64(len(read[i].Objects))))
	})
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, f := range read {
		if f != nil {
			for _, o := range f.Objects {
				names[o.Name] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if name != "" {
			s.category(name)
		}
	}
	for i, id := range ids {
		file, f := files[id], read[i]
		s.image = ""
		if faults[i] != nil {
			s.image, _ = v.vocImage(root, id, file, "")
			where, text, _ := strings.Cut(faults[i].Error(), ": ")
			s.fault(codeLabel, where, "%s", text)
			continue
		}
		found, ok := v.vocImage(root, id, file, f.Filename)
		if !ok {
			s.fault(codeNoImage, file, "there is no image %s.jpg or .png, nor %s", quote(path.Base(id)),
				quote(f.Filename))
			continue
		}
		s.image = found
		s.images = append(s.images, v.sized(found, f.Width, f.Height))
		first := 0.0
		if strings.HasPrefix(f.Database, "The VOC") {
			first = 1
		}
		for _, o := range f.Objects {
			at := position{file, o.line}
			switch {
			case o.Name == "":
				s.fault(codeLabel, at.String(), "an object without a name")
				continue
			case len(o.Box) != 1:
				s.fault(codeLabel, at.String(), "object %s has %s, want one bndbox with xmin, ymin, xmax and ymax",
					quote(o.Name), delivery.Count(len(o.Box), "bndbox"))
				continue
			}
			b := o.Box[0]
			n, err := floats(b.Left, b.Top, b.Right, b.Bottom)
			if err != nil {
				s.fault(codeLabel, at.String(), "object %s: bndbox: %v", quote(o.Name), err)
				continue
			}
			box := coco.Box{X: n[0] - first, Y: n[1] - first, W: n[2] - n[0] + first, H: n[3] - n[1] + first}
			s.boxes = append(s.boxes, sheetBox{len(s.images) - 1, s.category(o.Name), box,
				strings.TrimSpace(o.Difficult) == "1"})
		}
	}
	return s, nil
}

// vocImage finds the image of an annotation: by the annotation's own name, and else by the file that it names.
func (v *version) vocImage(root, id, file, filename string) (string, bool) {
	for _, dir := range []string{"JPEGImages", "images", "Images"} {
		for _, ext := range []string{".jpg", ".png", ".jpeg", ".JPG", ".JPEG", ".PNG"} {
			if name := path.Join(root, dir, id+ext); v.files[name] != nil {
				return name, true
			}
		}
	}
	for _, ext := range []string{".jpg", ".png", ".jpeg", ".JPG", ".JPEG", ".PNG"} {
		if name := stem(file) + ext; v.files[name] != nil {
			return name, true
		}
	}
	if filename == "" {
		return "", false
	}
	return v.locate(filename, path.Join(root, "JPEGImages"), path.Join(root, "images"), path.Dir(file), root)
}
