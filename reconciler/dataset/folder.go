package dataset

import (
	"context"
	"path/filepath"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Folder returns a catalog with one dataset, a folder of this machine, and the reference to it.
func Folder(dir string) (Catalog, delivery.Dataset, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir) // the person who names it may use a link
	}
	name := filepath.Base(dir)
	return Catalog{Sources: map[string]Source{"dir": Dir{}},
			Locations: map[string]map[string]string{"dir": {name: dir}}},
		delivery.Dataset{Source: "dir", Path: name}, pathless(err)
}

// openFolder lists the dataset in a folder.
func openFolder(ctx context.Context, dir string) (*version, error) {
	c, d, err := Folder(dir)
	if err != nil {
		return nil, err
	}
	return c.open(ctx, d)
}

// A Description says what a dataset has.
type Description struct {
	Layout  string             `json:"layout"`            // as people call it
	Unsplit bool               `json:"unsplit,omitempty"` // it has no splits: Splits has one entry without a name
	Splits  []SplitDescription `json:"splits"`
}

// Images is the number of images in all splits.
func (d Description) Images() (n int) {
	for _, split := range d.Splits {
		n += split.Images
	}
	return n
}

// A SplitDescription says what a split has.
type SplitDescription struct {
	Name   string         `json:"name"`   // train, valid or test; "" if the dataset is not divided
	File   string         `json:"file"`   // what has its truths or lists its images
	Images int            `json:"images"` // without copies
	Boxes  map[string]int `json:"boxes"`  // by label, of all labels: those that count
	Crowds int            `json:"crowds,omitempty"`
}

// Describe finds the layout of a dataset and counts what is used of its splits. It does not check it.
func (c Catalog) Describe(ctx context.Context, d delivery.Dataset) (Description, error) {
	v, err := c.open(ctx, d)
	if err != nil {
		return Description{}, err
	}
	l, err := v.layout()
	if err != nil {
		return Description{}, err
	}
	assigned, err := v.assigned()
	if err != nil {
		return Description{}, err
	}
	out := Description{Layout: l.name}
	names := splitNames
	unsplit, all := l.unsplit()
	if out.Unsplit = all && assigned == nil; out.Unsplit {
		names = []string{""}
	}
	for _, name := range names {
		var s *split
		ok := true
		if out.Unsplit {
			s, err = unsplit.read("")
		} else {
			s, ok, err = v.split(name, "")
		}
		if err != nil {
			return out, err
		}
		if ok {
			if err := v.hash(ctx, s.files(), nil); err != nil { // copies are known by their bytes
				return out, err
			}
			out.Splits = append(out.Splits, v.describe(s))
		}
	}
	return out, nil
}

func (v *version) describe(s *split) SplitDescription {
	out := SplitDescription{Name: s.name, File: s.annotations, Images: len(s.images) - len(v.copies(s)),
		Boxes: counts(v.usable(s))}
	for _, a := range s.truth.Annotations {
		if a.Crowd {
			out.Crowds++
		}
	}
	return out
}
