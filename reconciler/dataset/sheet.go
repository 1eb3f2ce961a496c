package dataset

// This file collects what readers of layouts find, and makes a split of it.

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A sheet collects the images and boxes of one subset.
type sheet struct {
	images     []sheetImage
	categories []coco.Category
	ids        map[string]int64 // of categories, by name
	boxes      []sheetBox
	faults     []fault
	image      string // of the dataset: the one that faults are about now; "" if it is none
}

type sheetImage struct {
	file          string // of the dataset
	width, height int    // pixels; 0 if unknown
}

type sheetBox struct {
	image    int // index into images
	category int64
	box      coco.Box
	crowd    bool
}

// A position is a line of a file.
type position struct {
	file   string
	number int // from 1
}

func (p position) String() string { return fmt.Sprintf("%s:%d", p.file, p.number) }

// category returns the id of the category with a name, which it adds if necessary.
func (s *sheet) category(name string) int64 {
	id, ok := s.ids[name]
	if !ok {
		if s.ids == nil {
			s.ids = map[string]int64{}
		}
		id = int64(len(s.categories) + 1)
		s.ids[name] = id
		s.categories = append(s.categories, coco.Category{ID: id, Name: name})
	}
	return id
}

// The limits of what is kept of a split. Small files may say very much.
const (
	maxFaults = 10_000     // findings of a reader
	maxShapes = 20_000_000 // boxes and other shapes
)

// listFault adds a fault to a list. The last one of a full list says that there are more.
func listFault(list []fault, f fault) []fault {
	switch {
	case len(list) > maxFaults:
		return list
	case len(list) == maxFaults:
		f = fault{level: delivery.LevelError, code: string(coco.MoreProblems), where: f.where,
			text: fmt.Sprintf("more than %d problems; correct those that are listed, and check again", maxFaults)}
	}
	return append(list, f)
}

// listFaults adds faults to a list, as listFault does.
func listFaults(list, more []fault) []fault {
	for _, f := range more {
		list = listFault(list, f)
	}
	return list
}

// tooManyShapes returns the error of more than maxShapes shapes, for n of them.
func tooManyShapes(n int64) error {
	if n > maxShapes {
		return delivery.Blockedf("split the dataset", "more than %d shapes", maxShapes)
	}
	return nil
}

// fault adds a finding of level error.
func (s *sheet) fault(code, where, format string, args ...any) {
	s.faults = listFault(s.faults, fault{delivery.LevelError, code, where, fmt.Sprintf(format, args...), s.image})
}

// warn adds a finding of level warning.
func (s *sheet) warn(code, where, format string, args ...any) {
	s.faults = listFault(s.faults, fault{delivery.LevelWarning, code, where, fmt.Sprintf(format, args...), s.image})
}

// reader returns the function of a subset that makes a split from a sheet.
func reader(name, file string, read func() (*sheet, error)) func(group string) (*split, error) {
	return func(group string) (*split, error) {
		if group != "" {
			return nil, fmt.Errorf("only images of COCO annotation files have a field %s to group by", quote(group))
		}
		s, err := read()
		if err != nil {
			return nil, err
		}
		return s.split(name, file)
	}
}

// split turns the sheet into a split. It writes the truths as a COCO annotation file and reads that, so that they are
// checked like those of any other dataset. Images are numbered from 1 in the order of their files.
func (s *sheet) split(name, file string) (*split, error) {
	var b bytes.Buffer
	text := func(s string) []byte { return delivery.Canonical(s) }
	number := func(v float64) []byte { return strconv.AppendFloat(nil, v, 'g', -1, 64) }
	out := &split{name: name, annotations: file, images: map[int64]string{}, faults: s.faults}
	b.WriteString(`{"images":[`)
	for i, im := range s.images {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":%d,"file_name":%s,"width":%d,"height":%d}`, i+1, text(im.file), im.width, im.height)
		out.images[int64(i+1)] = im.file
	}
	b.WriteString(`],"categories":[`)
	for i, c := range s.categories {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":%d,"name":%s}`, c.ID, text(c.Name))
	}
	b.WriteString(`],"annotations":[`)
	for i, a := range s.boxes {
		if i > 0 {
			b.WriteByte(',')
		}
		crowd := 0
		if a.crowd {
			crowd = 1
		}
		fmt.Fprintf(&b, `{"id":%d,"image_id":%d,"category_id":%d,"bbox":[%s,%s,%s,%s],"area":%s,"iscrowd":%d}`, i+1,
			a.image+1, a.category, number(a.box.X), number(a.box.Y), number(a.box.W), number(a.box.H),
			number(max(a.box.W, 0)*max(a.box.H, 0)), crowd)
	}
	b.WriteString("]}")
	var err error
	out.truth, out.problems, err = coco.Loader{}.ReadTruthLenient(&b)
	return out, err
}
