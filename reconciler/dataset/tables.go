package dataset

// This file puts what a check measured into tables, to which expectations apply.

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/autonomos/aob/reconciler/coco"
)

// A Table is a part of what a check measured. A cell is nil, a string or a float64.
type Table struct {
	Name    string
	Columns []string
	Index   []string // the columns that say which row it is
	Texts   []string // the columns that hold texts, also where they look like numbers
	Rows    [][]any
}

// Tables are all of a check.
type Tables []Table

// The names of tables.
const (
	tableImages      = "images"
	tableAnnotations = "annotations"
	tableCategories  = "categories"
	tableSplits      = "splits"
	tablePairs       = "pairs"
	tableSites       = "sites"
	tableDrift       = "drift"
	tableProblems    = "problems"
)

// tables returns the tables of a check that is done. A dataset in no layout has only problems.
func (c *checker) tables(v *version) Tables {
	images := c.imageTable(v)
	problems := Table{Name: tableProblems,
		Columns: []string{"place", "rule", "level", "image", "annotation_id", "text"},
		Index:   []string{"place", "image", "annotation_id"},
		Texts:   []string{"place", "rule", "level", "image", "annotation_id", "text"}}
	type item struct {
		image, annotation any
	}
	items := map[[2]string]item{} // by rule and place
	for _, name := range splitNames {
		if s := c.splits[name]; s != nil {
			for _, p := range s.problems {
				at := item{filled(p.File), nil}
				if strings.HasPrefix(p.Path, "annotations[") {
					at.annotation = strconv.FormatInt(p.ID, 10)
				}
				items[[2]string{string(p.Kind), s.place("", p)}] = at
			}
		}
	}
	places := images.places()
	tabled := map[string]bool{}
	for _, e := range Expectations() {
		if e.Table != tableProblems {
			tabled[e.Rule] = true
		}
	}
	for _, f := range c.faults {
		if tabled[f.code] && !(f.code == "too-large" && !places[f.where]) {
			continue
		}
		at := items[[2]string{f.code, f.where}]
		if f.image != "" {
			at.image = f.image
		}
		problems.add(f.where, f.code, f.level, at.image, at.annotation, f.text)
	}
	return Tables{images, c.annotationTable(), c.categoryTable(), c.splitTable(v), c.pairTable(), c.siteTable(),
		c.driftTable(), problems}
}

func (t *Table) add(cells ...any) {
	for i, cell := range cells {
		switch cell := cell.(type) {
		case int:
			cells[i] = float64(cell)
		case float64:
			if math.IsNaN(cell) || math.IsInf(cell, 0) {
				cells[i] = nil
			}
		}
	}
	t.Rows = append(t.Rows, cells)
}

// places returns the texts in the first column.
func (t *Table) places() map[any]bool {
	out := make(map[any]bool, len(t.Rows))
	for _, row := range t.Rows {
		out[row[0]] = true
	}
	return out
}

// column returns the place of a column.
func (t *Table) column(name string) int { return slices.Index(t.Columns, name) }

// filled returns nil for an empty text: a table has no difference between the two.
func filled(text string) any {
	if text == "" {
		return nil
	}
	return text
}

// imageTable has the images of all splits, with those whose files are missing, and files that are in no split.
func (c *checker) imageTable(v *version) Table {
	t := Table{Name: tableImages, Columns: []string{"place", "image", "split", "image_id", "size", "file_size", "bytes",
		"sha256", "fault", "orientation", "look", "site", "time"}, Index: []string{"image"},
		Texts: []string{"place", "image", "split", "image_id", "size", "file_size", "sha256", "fault", "look", "site",
			"time"}}
	decoded := map[string]imageFile{}
	for _, im := range c.decodes {
		decoded[im.path] = im
	}
	for _, name := range splitNames {
		s := c.splits[name]
		if s == nil {
			continue
		}
		for _, im := range s.truth.Images {
			file, ok := s.images[im.ID]
			if !ok {
				continue
			}
			f, d := v.files[file], decoded[v.path(file)]
			var size, actual, fault, turned, look any
			if !d.unsized {
				size = fmt.Sprintf("%d x %d", im.Width, im.Height)
			}
			if f.size > maxImage {
				fault = "too-large"
			}
			if h := f.header; h != nil {
				if fault = filled(h.Code); h.Code == "" {
					actual = fmt.Sprintf("%d x %d", h.Width, h.Height)
				}
				if h.Orientation > 0 {
					turned = h.Orientation
				}
			}
			if p := f.picture; p != nil && fault == nil && (size == nil || size == actual) {
				fault, look = filled(p.Code), filled(p.Hash.text())
			}
			at := v.scene(file, im)
			var when any
			if !at.at.IsZero() {
				when = at.at.Format("2006-01-02T15:04:05Z")
			}
			t.add(shown(s.prefix()+strings.TrimPrefix(file, s.dir)), file, name, strconv.FormatInt(im.ID, 10), size,
				actual, float64(f.size), filled(f.sum), fault, turned, look, filled(at.site), when)
		}
	}
	for _, gone := range c.gone {
		t.add(gone.where, c.splits[gone.split].dir+gone.image.FileName, gone.split,
			strconv.FormatInt(gone.image.ID, 10), nil, nil, nil, nil, nil, nil, nil, nil, nil)
	}
	places := t.places()
	for _, f := range c.faults {
		switch {
		case f.code == codeNoImage && !places[f.where]: // of a layout without ids
			t.add(f.where, filled(f.image), nil, f.where, nil, nil, nil, nil, nil, nil, nil, nil, nil)
		case f.code == "unlisted-file":
			t.add(f.where, f.where, nil, nil, nil, nil, 0, nil, nil, nil, nil, nil, nil)
		}
	}
	return t
}

// annotationTable has the annotations of all splits, and boxes of negative sides.
func (c *checker) annotationTable() Table {
	t := Table{Name: tableAnnotations, Columns: []string{"place", "image", "annotation_id", "split", "image_id",
		"category_id", "category", "x", "y", "w", "h", "area", "crowd", "side", "side_learnt", "side_judged",
		"inside_learnt", "inside_judged", "part", "over", "area_share", "labels"},
		Index: []string{"image", "annotation_id"},
		Texts: []string{"place", "image", "annotation_id", "split", "image_id", "category_id", "category"}}
	for _, name := range splitNames {
		s := c.splits[name]
		if s == nil {
			continue
		}
		label, images, labels := map[int64]string{}, s.byID(), s.truth.Labels()
		for _, cat := range s.truth.Categories {
			label[cat.ID] = cat.Name
		}
		// of returns the columns of a value that is an error only in test.
		of := func(value any) (learnt, judged any) {
			if name == "test" {
				return nil, value
			}
			return value, nil
		}
		for i, a := range s.truth.Annotations {
			im := images[a.Image]
			image, there := s.images[a.Image]
			if !there {
				image = s.dir + im.FileName
			}
			side := min(a.Box.W, a.Box.H)
			sideLearnt, sideJudged := of(side)
			insideLearnt, insideJudged := of(nil)
			var part, over, share any
			if 0 < side && side < 1 {
				part = side
			}
			if im.Width > 0 && im.Height > 0 && !s.otherSize[a.Image] {
				by, within := a.Box.Within(im.Width, im.Height)
				if by > 1 || side >= 1 {
					insideLearnt, insideJudged = of(within)
				}
				switch {
				case (by > 1 || side >= 1) && within <= 0:
				case side >= 1 && within < 1:
					part = within
				default:
					over = by
				}
			}
			if _, used := inside(a.Box, im); used && !a.Crowd && side >= 1 {
				if share = a.Area / (a.Box.W * a.Box.H); a.Area > a.Box.W*a.Box.H {
					share = a.Area / ((a.Box.W + 1) * (a.Box.H + 1))
				}
			}
			crowd := 0
			if a.Crowd {
				crowd = 1
			}
			id := func(n int64) string { return strconv.FormatInt(n, 10) }
			t.add(fmt.Sprintf("%s, box %d", shown(s.prefix()+im.FileName), s.truth.Numbers[i]), image, id(a.ID), name,
				id(a.Image), id(a.Category), filled(label[a.Category]), a.Box.X, a.Box.Y, a.Box.W, a.Box.H, a.Area,
				crowd, side, sideLearnt, sideJudged, insideLearnt, insideJudged, part, over, share,
				1+len(labels[i]))
		}
		for _, p := range s.problems {
			if p.Kind == coco.NegativeBox {
				learnt, judged := of(min(p.Got.W, p.Got.H))
				t.add(s.place("", p), s.dir+p.File, strconv.FormatInt(p.ID, 10), name, nil, nil, nil,
					p.Got.X, p.Got.Y, p.Got.W, p.Got.H, nil, nil, nil, learnt, judged, nil, nil, nil, nil, nil, nil)
			}
		}
	}
	return t
}

// categoryTable has the categories of all splits.
func (c *checker) categoryTable() Table {
	t := Table{Name: tableCategories, Columns: []string{"category", "split", "category_id", "objects", "share_of_most"},
		Index: []string{"category", "split"}, Texts: []string{"category", "split", "category_id"}}
	most := 0
	for _, n := range c.result.Truths {
		most = max(most, n)
	}
	for _, name := range splitNames {
		s := c.splits[name]
		if s == nil {
			continue
		}
		n := map[int64]int{}
		for _, a := range s.truth.Annotations {
			n[a.Category]++
		}
		for _, cat := range s.truth.Categories {
			t.add(cat.Name, name, strconv.FormatInt(cat.ID, 10), n[cat.ID], nil)
		}
	}
	for _, class := range c.classes {
		if n := c.result.Truths[class.Name]; n > 0 && c.splits["train"] != nil {
			t.add("class "+strconv.Quote(class.Name), nil, nil, n, float64(n)/float64(most))
		}
	}
	return t
}

// splitTable has the sizes of splits.
func (c *checker) splitTable(v *version) Table {
	t := Table{Name: tableSplits, Columns: []string{"split", "images", "objects", "share_of_train"},
		Index: []string{"split"}, Texts: []string{"split"}}
	learnt := 0
	for _, name := range splitNames {
		s := c.splits[name]
		if s == nil {
			continue
		}
		n := len(s.images) - len(v.copies(s))
		if name == "train" {
			learnt = n
		}
		var share any
		if name != "train" && learnt > 0 && n > 0 {
			switch r := float64(n) / float64(learnt); {
			case n < enoughImages && r < 1, n >= someImages && r > 1:
				share = r
			}
		}
		t.add(name, n, len(s.truth.Annotations), share)
	}
	return t
}

// pairTable has pairs of images that are the same, or nearly. A column has a value where its expectation applies.
func (c *checker) pairTable() Table {
	t := Table{Name: tablePairs, Columns: []string{"place", "image", "other", "same_in_split",
		"same_across_splits", "bits_apart", "bits_apart_from_eval_set", "seconds_apart",
		"bits_apart_across_splits"},
		Index: []string{"image", "other"}, Texts: []string{"place", "image", "other", "same_in_split",
			"same_across_splits"}}
	for _, p := range c.pairs {
		var within, across, bits, bitsFromSet, bitsAcross any
		switch p.code {
		case "duplicate-file", "duplicate-image":
			if within = p.code; !p.sameBoxes {
				within = p.code + ", other boxes"
			}
		case "near-duplicate":
			bits = p.apart
		case "perceptual-twin":
			bitsFromSet = p.apart
		case "split-twin":
			bitsAcross = p.apart
		default:
			across = p.code
		}
		t.add(p.where, p.image, p.other, within, across, bits, bitsFromSet, nil, bitsAcross)
	}
	for _, p := range c.close {
		t.add(shown(p.file), p.file, p.other, nil, nil, nil, nil, p.apart.Seconds(), nil)
	}
	return t
}

// siteTable has a row for each use of a site: to be learnt from, or to judge.
func (c *checker) siteTable() Table {
	t := Table{Name: tableSites, Columns: []string{"site", "used_in", "images"}, Index: []string{"site", "used_in"},
		Texts: []string{"site", "used_in"}}
	for _, s := range c.sites {
		t.add(s.site, s.use, s.images)
	}
	return t
}

// driftTable has the measures that were compared with the version before. The strength of a change is 1 where it is
// just reported, and 0 where it is too small to matter.
func (c *checker) driftTable() Table {
	t := Table{Name: tableDrift, Columns: []string{"measure", "before", "now", "z", "limit", "clusters",
		"label_strength", "box_strength", "image_strength"}, Index: []string{"measure"}, Texts: []string{"measure"}}
	for _, d := range c.drifts {
		strength := 0.0
		if !d.small {
			strength = math.Abs(d.z) / d.limit
		}
		var by [3]any
		by[map[string]int{"label-drift": 0, "box-drift": 1, "image-drift": 2}[d.code]] = strength
		t.add(d.what, d.before, d.now, d.z, d.limit, d.clusters, by[0], by[1], by[2])
	}
	return t
}

// WriteCSV writes the table as CSV: nil is an empty field, and numbers are as short as they can be without a loss.
func (t Table) WriteCSV(to io.Writer) error {
	w := csv.NewWriter(to)
	if err := w.Write(t.Columns); err != nil {
		return err
	}
	fields := make([]string, len(t.Columns))
	for _, row := range t.Rows {
		for i, cell := range row {
			switch cell := cell.(type) {
			case nil:
				fields[i] = ""
			case float64:
				fields[i] = strconv.FormatFloat(cell, 'g', -1, 64)
			case string:
				fields[i] = strings.ToValidUTF8(cell, "\uFFFD")
			}
		}
		if err := w.Write(fields); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

// Write writes each table as TABLE.csv into a folder, and its expectations as TABLE.suite.json. It makes the folder.
func (t Tables) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, table := range t {
		suite, err := table.Suite()
		if err != nil {
			return err
		}
		out, err := os.Create(filepath.Join(dir, table.Name+".csv"))
		if err != nil {
			return err
		}
		if err := errors.Join(table.WriteCSV(out), out.Close(),
			os.WriteFile(filepath.Join(dir, table.Name+".suite.json"), suite, 0o644)); err != nil {
			return err
		}
	}
	return nil
}
