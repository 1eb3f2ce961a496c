package dataset

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// This file says in words what has changed between two versions.

// summary says what has changed in one line.
func (d *Diff) summary(a, b *examined) string {
	if d.Same() {
		return "the same files"
	}
	parts := slices.Concat(d.imagesText(), d.categoriesText(), d.boxesText(), d.filesText(), d.problemsText())
	if len(parts) > 0 {
		return strings.Join(parts, "; ")
	}
	for _, s := range b.splits {
		if f := a.v.files[s.annotations]; f == nil || f.sum != b.v.files[s.annotations].sum {
			return "other bytes in the annotation files, which say the same, but for parts of a pixel"
		}
	}
	return "only files that an operating system puts there"
}

// imagesText says which splits are empty now, and how many images have each change.
func (d *Diff) imagesText() (parts []string) {
	for _, s := range d.Splits {
		if s.Before > 0 && s.Now == 0 {
			parts = append(parts, fmt.Sprintf("no image in %s any more", s.Split))
		}
	}
	var whats []string
	count, first := map[string]int{}, map[string]string{}
	for _, c := range d.Images {
		name := shown(c.Name())
		for _, change := range c.Changes {
			what, which := c.changed(change), name
			if change == Renamed {
				which = shown(c.Before.Image) + " to " + name
			}
			if count[what]++; count[what] == 1 {
				whats, first[what] = append(whats, what), which
			}
		}
	}
	for _, what := range whats {
		text := fmt.Sprintf("%s %s", delivery.Count(count[what], "image"), what)
		if count[what] == 1 {
			text += " (" + first[what] + ")"
		}
		parts = append(parts, text)
	}
	return parts
}

// changed says what a change has done to an image, after "2 images".
func (c ImageChange) changed(change string) string {
	switch change {
	case Added:
		return "added to " + cmp.Or(c.Now.Split, "the dataset")
	case Removed:
		return "removed from " + cmp.Or(c.Before.Split, "the dataset")
	case Moved:
		return "moved from " + c.Before.Split + " to " + c.Now.Split
	}
	return map[string]string{Renamed: "renamed", Encoded: "encoded again", Replaced: "replaced by another picture",
		Lost: "without its file now", Found: "with its file now", Broken: "that cannot be decoded now",
		Resized: "of another size now"}[change]
}

func (d *Diff) categoriesText() (parts []string) {
	for _, c := range d.Categories {
		in := cmp.Or(c.Split, "the dataset")
		switch {
		case c.Before == "":
			parts = append(parts, fmt.Sprintf("category %q added to %s", c.Now, in))
		case c.Now == "":
			parts = append(parts, fmt.Sprintf("category %q removed from %s", c.Before, in))
		default:
			parts = append(parts, fmt.Sprintf("category %q renamed to %q in %s", c.Before, c.Now, in))
		}
	}
	return parts
}

func (d *Diff) filesText() (parts []string) {
	for _, change := range []string{Added, Removed, "changed"} {
		n, first := 0, ""
		for _, f := range d.Files {
			if f.Change == change {
				if n++; n == 1 {
					first = f.File
				}
			}
		}
		if n > 0 {
			text := fmt.Sprintf("%s %s", delivery.Count(n, "other file"), change)
			if n == 1 {
				text += " (" + shown(first) + ")"
			}
			parts = append(parts, text)
		}
	}
	return parts
}

func (d *Diff) problemsText() (parts []string) {
	for _, of := range [][2]string{{Added, "new: "}, {Removed, "no longer: "}} {
		var codes []string
		n, first := map[string]int{}, map[string]string{}
		for _, p := range d.Problems {
			if p.Change != of[0] {
				continue
			}
			if n[p.Code]++; n[p.Code] == 1 {
				codes, first[p.Code] = append(codes, p.Code), p.Where
			}
		}
		for _, code := range codes {
			text := of[1] + code
			if n[code] > 1 {
				text += fmt.Sprintf(" x%d", n[code])
			}
			parts = append(parts, text+" ("+first[code]+")")
		}
	}
	return parts
}

// boxesText says what has become of boxes, in images that both versions have, by label.
func (d *Diff) boxesText() (parts []string) {
	type change struct{ what, label, was, split string }
	type sum struct {
		n      int
		pixels float64
	}
	sums := map[change]*sum{}
	var order []change
	for _, image := range d.Images {
		for _, b := range image.Boxes {
			key := change{b.Change, b.Label, b.Was, image.Now.Split}
			if sums[key] == nil {
				sums[key] = &sum{}
				order = append(order, key)
			}
			sums[key].n++
			sums[key].pixels = max(sums[key].pixels, b.Pixels)
		}
	}
	slices.SortStableFunc(order, func(a, b change) int { return sums[b].n - sums[a].n })
	const most = 6
	more := 0
	for i, key := range order {
		s := sums[key]
		if i >= most {
			more += s.n
			continue
		}
		text := delivery.Count(s.n, "box")
		if s.n > 1 {
			text = fmt.Sprintf("%d boxes", s.n)
		}
		switch key.what {
		case Moved:
			text += fmt.Sprintf(" of %q moved by up to %.4g pixels", key.label, s.pixels)
		case Relabelled:
			text += fmt.Sprintf(" relabelled from %q to %q", key.was, key.label)
		case Other:
			text += fmt.Sprintf(" of %q with another crowd or area", key.label)
		default:
			text += fmt.Sprintf(" of %q %s", key.label, key.what)
		}
		if key.split != "" {
			text += " in " + key.split
		}
		parts = append(parts, text)
	}
	if more > 0 {
		parts = append(parts, fmt.Sprintf("%d other changes of boxes", more))
	}
	return parts
}

// Sides returns the boxes of the image in both versions, to be drawn: those that have changed are marked as missed.
func (c ImageChange) Sides() (before, now []coco.Drawn) {
	draw := func(p *ImagePlace, changed func(b BoxChange) *[4]float64) (out []coco.Drawn) {
		if p == nil {
			return nil
		}
		marked := map[[4]float64]bool{}
		for _, b := range c.Boxes {
			if box := changed(b); box != nil {
				marked[*box] = true
			}
		}
		for _, b := range p.Drawn {
			mark := coco.Found
			if marked[b.Box] {
				mark = coco.Missed
			}
			out = append(out, coco.Drawn{Box: coco.Box{X: b.Box[0], Y: b.Box[1], W: b.Box[2], H: b.Box[3]},
				Class: b.Label, Mark: mark})
		}
		return out
	}
	return draw(c.Before, func(b BoxChange) *[4]float64 { return b.Before }),
		draw(c.Now, func(b BoxChange) *[4]float64 { return b.Now })
}

// Text says what has changed about the image, in a few words.
func (c ImageChange) Text() string {
	words := slices.Clone(c.Changes)
	switch {
	case c.Before != nil && c.Now != nil && c.Before.Split != c.Now.Split:
		words = append([]string{"moved from " + c.Before.Split + " to " + c.Now.Split}, words[1:]...)
	case c.Before != nil && c.Now != nil && c.Before.Image != c.Now.Image:
		words[0] = "renamed from " + shown(c.Before.Image)
	}
	n := map[string]int{}
	for _, b := range c.Boxes {
		n[b.Change]++
	}
	for _, change := range []string{Added, Removed, Moved, Relabelled, Other} {
		switch {
		case n[change] == 1:
			words = append(words, "1 box "+strings.Replace(change, "another", "with another", 1))
		case n[change] > 1:
			words = append(words, fmt.Sprintf("%d boxes %s", n[change], strings.Replace(change, "another",
				"with another", 1)))
		}
	}
	return strings.Join(words, ", ")
}
