package dataset

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// Stats are figures of a dataset.
type Stats struct {
	Layout  string          `json:"layout"`
	Content delivery.Digest `json:"content"`
	Files   int             `json:"files"`
	Bytes   int64           `json:"bytes"`
	Splits  []SplitStats    `json:"splits"`
}

// SplitStats are figures of a split. Boxes that do not count, as crowds, are not among the boxes.
type SplitStats struct {
	Name       string       `json:"name"` // "" if the dataset is not divided
	Images     int          `json:"images"`
	Empty      int          `json:"empty"`      // images without a box
	Duplicates int          `json:"duplicates"` // images that are a copy of another one
	Widths     [3]int       `json:"widths"`     // least, median and largest, in pixels
	Heights    [3]int       `json:"heights"`
	Boxes      int          `json:"boxes"`
	PerImage   [3]int       `json:"boxesPerImage"` // least, median and most, of images that are no copy
	Crowds     int          `json:"crowds"`
	Small      int          `json:"small"`  // boxes with an area below 32 x 32 pixels
	Medium     int          `json:"medium"` // below 96 x 96
	Large      int          `json:"large"`
	Classes    []ClassStats `json:"classes"` // by number of boxes, the most first
}

// ClassStats are figures of a label in a split.
type ClassStats struct {
	Label  string `json:"label"`
	Boxes  int    `json:"boxes"`
	Images int    `json:"images"` // that have one
}

// Stats reads a dataset and counts what is in it.
func (c Catalog) Stats(ctx context.Context, d delivery.Dataset, progress Progress) (Stats, error) {
	if c.Fetching == nil {
		c.Fetching = progress
	}
	v, err := c.open(ctx, d)
	if err != nil {
		return Stats{}, err
	}
	l, err := v.layout()
	if err != nil {
		return Stats{}, err
	}
	v.recall(c.memory(v.dir))
	if err := v.hash(ctx, v.names(), progress); err != nil {
		return Stats{}, err
	}
	v.keep(c.memory(v.dir))
	out := Stats{Layout: l.name, Content: v.content(), Files: len(v.files)}
	for _, f := range v.files {
		out.Bytes += f.size
	}
	splits, err := v.all()
	for _, s := range splits {
		out.Splits = append(out.Splits, v.stats(s))
	}
	return out, err
}

// all returns the splits of a dataset, or all images as one if it is not divided.
func (v *version) all() ([]*split, error) {
	l, err := v.layout()
	if err != nil {
		return nil, err
	}
	assigned, err := v.assigned()
	if err != nil {
		return nil, err
	}
	if s, unsplit := l.unsplit(); unsplit && assigned == nil {
		one, err := s.read("")
		if err != nil {
			return nil, err
		}
		return []*split{one}, nil
	}
	var out []*split
	for _, name := range splitNames {
		s, ok, err := v.split(name, "")
		if err != nil {
			return out, err
		}
		if ok {
			out = append(out, s)
		}
	}
	return out, nil
}

// stats counts what is in a split. Its images were read.
func (v *version) stats(s *split) SplitStats {
	out := SplitStats{Name: s.name, Images: len(s.images), Duplicates: len(v.copies(s)), Classes: []ClassStats{}}
	var widths, heights []int
	for _, file := range s.images {
		if h := v.files[file].header; h != nil && h.Width > 0 {
			widths, heights = append(widths, h.Width), append(heights, h.Height)
		}
	}
	slices.Sort(widths)
	slices.Sort(heights)
	if n := len(widths); n > 0 {
		out.Widths = [3]int{widths[0], widths[n/2], widths[n-1]}
		out.Heights = [3]int{heights[0], heights[n/2], heights[n-1]}
	}
	usable := v.usable(s)
	full := map[int64]int{}
	of := map[int64]*ClassStats{}
	for _, cat := range usable.Categories {
		of[cat.ID] = &ClassStats{Label: cat.Name}
	}
	type pair struct{ image, category int64 }
	seen := map[pair]bool{}
	for _, a := range s.truth.Annotations {
		if a.Crowd {
			out.Crowds++
		}
	}
	for _, a := range usable.Annotations {
		if a.Crowd {
			continue
		}
		out.Boxes++
		full[a.Image]++
		switch {
		case a.Area < 32*32:
			out.Small++
		case a.Area < 96*96:
			out.Medium++
		default:
			out.Large++
		}
		of[a.Category].Boxes++
		if key := (pair{a.Image, a.Category}); !seen[key] {
			seen[key] = true
			of[a.Category].Images++
		}
	}
	var each []int
	for _, im := range usable.Images {
		if s.images[im.ID] == "" {
			continue
		}
		if each = append(each, full[im.ID]); full[im.ID] == 0 {
			out.Empty++
		}
	}
	slices.Sort(each)
	if n := len(each); n > 0 {
		out.PerImage = [3]int{each[0], each[n/2], each[n-1]}
	}
	for _, class := range of {
		out.Classes = append(out.Classes, *class)
	}
	slices.SortFunc(out.Classes, func(a, b ClassStats) int {
		if a.Boxes != b.Boxes {
			return b.Boxes - a.Boxes
		}
		return strings.Compare(a.Label, b.Label)
	})
	return out
}

// An ImageTruths is what a dataset says about one image.
type ImageTruths struct {
	Path   string     `json:"path"` // of the file
	Name   string     `json:"name"` // below the dataset
	Split  string     `json:"split"`
	Width  int        `json:"width"`
	Height int        `json:"height"`
	Boxes  []TruthBox `json:"boxes"` // in the order of the annotations
}

// A TruthBox is one object of an image.
type TruthBox struct {
	// Number counts the boxes of the image in the file from 1, as findings do, also those that cannot be read.
	Number int `json:"number"`

	Label string     `json:"label"`
	Box   [4]float64 `json:"bbox"` // left, top, width and height in pixels
	Crowd bool       `json:"crowd,omitempty"`
}

// Image returns what a dataset says about an image. It is named by its path below the dataset, or by the end of it if
// only one image has that.
func (c Catalog) Image(ctx context.Context, d delivery.Dataset, name string) (ImageTruths, error) {
	v, err := c.open(ctx, d)
	if err != nil {
		return ImageTruths{}, err
	}
	splits, err := v.all()
	if err != nil {
		return ImageTruths{}, err
	}
	var out []ImageTruths
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	for _, s := range splits {
		label := map[int64]string{}
		for _, cat := range s.truth.Categories {
			label[cat.ID] = cat.Name
		}
		for _, im := range s.truth.Images {
			file, ok := s.images[im.ID]
			if !ok || file != name && !strings.HasSuffix(file, "/"+name) {
				continue
			}
			t := ImageTruths{Path: v.path(file), Name: file, Split: s.name, Boxes: []TruthBox{}}
			t.Width, t.Height = v.size(file)
			for i, a := range s.truth.Annotations {
				if a.Image == im.ID {
					t.Boxes = append(t.Boxes, TruthBox{Number: s.truth.Numbers[i], Label: label[a.Category],
						Box: [4]float64{a.Box.X, a.Box.Y, a.Box.W, a.Box.H}, Crowd: a.Crowd})
				}
			}
			if file == name {
				return t, nil
			}
			out = append(out, t)
		}
	}
	switch {
	case len(out) == 0:
		return ImageTruths{}, delivery.Blockedf("name it by its path below the dataset",
			"no annotation names an image %s",
			quote(name))
	case len(out) > 1 && out[0].Name != out[1].Name:
		return ImageTruths{}, delivery.Blockedf("name it by its path below the dataset",
			"%d images are called %s, as %s "+
				"and %s", len(out), quote(name), out[0].Name, out[1].Name)
	}
	return out[0], nil
}

// Drawn returns the boxes for a picture.
func (t ImageTruths) Drawn() []coco.Drawn {
	out := make([]coco.Drawn, len(t.Boxes))
	for i, b := range t.Boxes {
		out[i] = coco.Drawn{Box: coco.Box{X: b.Box[0], Y: b.Box[1], W: b.Box[2], H: b.Box[3]},
			Class: fmt.Sprintf("%d %s", b.Number, b.Label), Mark: coco.Found}
	}
	return out
}
