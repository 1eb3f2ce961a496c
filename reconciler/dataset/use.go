package dataset

// This file says what of a split is used: each picture once, and only the objects that can be learnt and found. Counts,
// training input and eval sets are all made from it.

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// minSide is the least width and height in pixels of an object that is used.
const minSide = 1

// inside returns the part of a box that is inside its image, and whether it is large enough to be used.
func inside(b coco.Box, in coco.Image) (coco.Box, bool) {
	x0, y0, x1, y1 := max(b.X, 0), max(b.Y, 0), b.X+b.W, b.Y+b.H
	if in.Width > 0 && in.Height > 0 {
		x1, y1 = min(x1, float64(in.Width)), min(y1, float64(in.Height))
	}
	return coco.Box{X: x0, Y: y0, W: x1 - x0, H: y1 - y0}, x1-x0 >= minSide && y1-y0 >= minSide
}

// copies returns the images of a split that are copies of another one, by id, with the id of the first: an image that
// names the same file, or a file with the same bytes. The first is the one with the lowest id. The files must be
// hashed.
func (v *version) copies(s *split) map[int64]int64 {
	if s.copied != nil {
		return s.copied
	}
	first, out := map[string]int64{}, map[int64]int64{}
	for _, im := range byID(s.truth.Images) {
		file, ok := s.images[im.ID]
		if !ok {
			continue
		}
		id, twice := first[v.files[file].sum]
		if h := v.files[file].header; v.files[file].sum == "" || h != nil && h.Code != "" {
			continue // too large to be hashed, or no image: that is a finding
		}
		if twice {
			out[im.ID] = id
		} else {
			first[v.files[file].sum] = im.ID
		}
	}
	s.copied = out
	return out
}

// usable returns the truth that training and evaluation use: without copies of images, and without objects of which
// less than a pixel is inside their image.
func (v *version) usable(s *split) *coco.Truth {
	copies := v.copies(s)
	out := &coco.Truth{Categories: s.truth.Categories}
	image := map[int64]coco.Image{}
	for _, im := range s.truth.Images {
		if _, copy := copies[im.ID]; !copy {
			out.Images = append(out.Images, im)
			image[im.ID] = im
		}
	}
	for _, a := range s.truth.Annotations {
		im, ok := image[a.Image]
		if _, used := inside(a.Box, im); ok && used {
			out.Annotations = append(out.Annotations, a)
		}
	}
	return out
}

// counts returns the number of objects that count, by the name of their category. Crowds do not count.
func counts(t *coco.Truth) map[string]int {
	n := map[string]int{}
	name := map[int64]string{}
	for _, c := range t.Categories {
		name[c.ID] = c.Name
		n[c.Name] += 0
	}
	for _, a := range t.Annotations {
		if !a.Crowd {
			n[name[a.Category]]++
		}
	}
	return n
}

// labels lists the categories with objects that count, sorted.
func labels(t *coco.Truth) []string {
	list := []string{}
	for name, n := range counts(t) {
		if n > 0 {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// A tally counts the objects of a class by what becomes of them.
type tally struct {
	used, crowds, outside, small, copies, leftOut, missing int
	shares                                                 bool // all boxes are within 0 and 1
}

func (t tally) total() int {
	return t.used + t.crowds + t.outside + t.small + t.copies + t.leftOut + t.missing
}

// lost says why objects are not used.
func (t tally) lost() string {
	var list []string
	say := func(n int, one, many string) {
		switch {
		case n == 1:
			list = append(list, "1 "+one)
		case n > 1:
			list = append(list, fmt.Sprintf("%d %s", n, many))
		}
	}
	say(t.crowds, "is a crowd", "are crowds")
	say(t.outside, "is outside its image", "are outside their images")
	say(t.small, "is less than a pixel across", "are less than a pixel across")
	say(t.leftOut, "is on an image that is left out", "are on images that are left out")
	say(t.copies, "is on a copy of another image", "are on copies of other images")
	say(t.missing, "is on an image whose file is missing", "are on images whose files are missing")
	text := fmt.Sprintf("of %s in train %s", delivery.Count(t.total(), "object"), strings.Join(list, ", "))
	if n := t.total(); len(list) == 1 && n > 1 {
		text = "all " + strings.Replace(list[0], " ", " objects in train ", 1)
	}
	if t.shares && t.small > 0 {
		text += "; the boxes look like shares of the image from 0 to 1, but COCO has pixels"
	}
	return text
}

// tallies counts the objects of a split by the name of their category.
func (c *checker) tallies(v *version, s *split) map[string]tally {
	copies, image, name := v.copies(s), map[int64]coco.Image{}, map[int64]string{}
	for _, im := range s.truth.Images {
		image[im.ID] = im
	}
	out := map[string]tally{}
	for _, cat := range s.truth.Categories {
		name[cat.ID] = cat.Name
		out[cat.Name] = tally{shares: true}
	}
	for _, a := range s.truth.Annotations {
		t := out[name[a.Category]]
		_, used := inside(a.Box, image[a.Image])
		_, copy := copies[a.Image]
		_, there := s.images[a.Image]
		t.shares = t.shares && a.Box.X+a.Box.W <= 1 && a.Box.Y+a.Box.H <= 1
		switch {
		case !there:
			t.missing++
		case copy:
			t.copies++
		case c.leftOut[s.name][a.Image]:
			t.leftOut++
		case a.Crowd:
			t.crowds++
		case !used && (a.Box.W < minSide || a.Box.H < minSide):
			t.small++
		case !used:
			t.outside++
		default:
			t.used++
		}
		out[name[a.Category]] = t
	}
	return out
}

// labels compares the model's classes with the train split's categories, and counts the objects that are learnt.
func (c *checker) labels(v *version, splits map[string]*split) {
	train := splits["train"]
	if train == nil {
		return
	}
	tallies := c.tallies(v, train)
	wanted, unknown := map[string]bool{}, false
	var names []string
	for _, cat := range train.truth.Categories {
		if !slices.Contains(names, cat.Name) {
			names = append(names, cat.Name)
		}
	}
	where := train.annotations
	for _, class := range c.classes {
		sum, known := tally{shares: true}, false
		for _, label := range class.Labels {
			wanted[label] = true
			if t, ok := tallies[label]; ok {
				known = true
				sum = tally{sum.used + t.used, sum.crowds + t.crowds, sum.outside + t.outside, sum.small + t.small,
					sum.copies + t.copies, sum.leftOut + t.leftOut, sum.missing + t.missing, sum.shares && t.shares}
			}
		}
		c.result.Truths[class.Name] = sum.used
		switch {
		case !known:
			unknown = true
			text := fmt.Sprintf("class %q: no category is named %s; the categories are %s", class.Name,
				strings.ReplaceAll(quoted(class.Labels), ", ", " or "), quoted(names))
			for _, name := range names {
				if alike(name, class.Labels[0]) {
					text += fmt.Sprintf(". To learn it from %q, write in classes: %s: [%s]", name,
						delivery.YAMLScalar(class.Name), delivery.YAMLScalar(name))
				}
			}
			c.finding(delivery.LevelError, "unknown-class", where, text)
		case sum.total() == 0:
			text := fmt.Sprintf("class %q: no object in train, so there is nothing to learn it from", class.Name)
			if slices.ContainsFunc(train.problems, func(p coco.Problem) bool { return p.Box > 0 }) {
				text = fmt.Sprintf("class %q: no object in train with a box that can be used, so there is nothing to "+
					"learn it from", class.Name)
			}
			c.finding(delivery.LevelError, "empty-class", where, text)
		case sum.used == 0 && sum.missing == 0:
			c.finding(delivery.LevelError, "empty-class", where, fmt.Sprintf("class %q: nothing is left to learn it "+
				"from: %s", class.Name, sum.lost()))
		}
	}
	for _, class := range c.classes {
		if delivery.CheckClass(class.Name) != nil { // a category, as the check was asked for all of them
			c.finding(delivery.LevelWarning, "category-name", where, fmt.Sprintf("category %q cannot be the name of a "+
				"class: want %s. A model maps it, as in classes: {%s: [%s]}", class.Name, delivery.WantClass,
				delivery.YAMLScalar(delivery.ClassOf(class.Name)), delivery.YAMLScalar(class.Name)))
		}
	}
	if unknown {
		return // the finding has the names of the other categories
	}
	similar := c.similar(splits)
	for _, name := range names {
		if n := tallies[name].total(); !wanted[name] && !similar[name] && n > 0 {
			c.finding(delivery.LevelWarning, "unused-category", where, fmt.Sprintf("category %q has %s and is not "+
				"among the classes; they are left out", name, delivery.Count(n, "object")))
		}
	}
}

// similar reports rare categories whose names are nearly those of others, as a typing mistake makes them, and returns
// them.
func (c *checker) similar(splits map[string]*split) map[string]bool {
	found := map[string]bool{}
	count, first := map[string]int{}, map[string]string{}
	for _, split := range splitNames {
		s := splits[split]
		if s == nil {
			continue
		}
		file, name := map[int64]string{}, map[int64]string{}
		for _, im := range s.truth.Images {
			file[im.ID] = im.FileName
		}
		for _, cat := range s.truth.Categories {
			name[cat.ID] = cat.Name
		}
		for i, a := range s.truth.Annotations {
			category := name[a.Category]
			if count[category]++; count[category] == 1 {
				first[category] = fmt.Sprintf("%s, box %d", shown(s.prefix()+file[a.Image]), s.truth.Numbers[i])
			}
		}
	}
	names := slices.Sorted(maps.Keys(count))
	for _, rare := range names {
		for _, common := range names {
			if !c.rewritten[rare] && likelyTypo(rare, common, count[rare], count[common]) {
				how := ""
				if norm.NFC.String(rare) == norm.NFC.String(common) {
					how = "; the names look the same, and have their accents in two forms of Unicode"
				}
				c.finding(delivery.LevelWarning, "similar-category", first[rare], fmt.Sprintf("is of category %q, "+
					"which has %s, and %q has %d%s; if that is a typing mistake, correct it in the labelling tool",
					rare, delivery.Count(count[rare], "object"), common, count[common], how))
				found[rare] = true
				break
			}
		}
	}
	return found
}

// likelyTypo reports whether a name is probably a wrong form of another: one typing mistake makes it, or spaces, upper
// case or a form of Unicode, and it is rare beside the other. Names that differ in a digit, as wheel1 and wheel2, are
// two.
func likelyTypo(rare, common string, rareObjects, commonObjects int) bool {
	if alike(rare, common) {
		return rareObjects < commonObjects || rareObjects == commonObjects && rare > common
	}
	digits := func(s string) string {
		return strings.Map(func(r rune) rune {
			if unicode.IsDigit(r) {
				return r
			}
			return -1
		}, s)
	}
	const longEnough, oftenEnough = 5, 10
	return min(utf8.RuneCountInString(rare), utf8.RuneCountInString(common)) >= longEnough &&
		rareObjects*oftenEnough <= commonObjects && digits(rare) == digits(common) &&
		delivery.Typos(strings.ToLower(rare), strings.ToLower(common)) == 1
}

// objects reports objects that are listed twice, boxes that are corners, and areas that cannot be those of the objects.
func (c *checker) objects(s *split, prefix string) {
	image, class := map[int64]coco.Image{}, map[int64]string{}
	for _, im := range s.truth.Images {
		image[im.ID] = im
	}
	for _, cat := range s.truth.Categories {
		class[cat.ID] = cat.Name
	}
	where := func(i int) string {
		return fmt.Sprintf("%s, box %d", shown(prefix+image[s.truth.Annotations[i].Image].FileName), s.truth.Numbers[i])
	}
	repeats, labels := s.truth.Repeats(), s.truth.Labels()
	var large, small []int // annotations with odd areas
	checked := 0
	for i, a := range s.truth.Annotations {
		if first, again := repeats[i]; again {
			text := fmt.Sprintf("is box %d again: the same box of category %q; a model that finds it once misses the "+
				"other", s.truth.Numbers[first], class[a.Category])
			c.finding(delivery.LevelWarning, "duplicate-truth", where(i), text)
		}
		if others := labels[i]; len(others) > 0 {
			names := delivery.Each(others, func(at int) string { return class[s.truth.Annotations[at].Category] })
			text := fmt.Sprintf("of category %q is the box of box %d, which is of category %s; a model learns "+
				"both for one object", class[a.Category], s.truth.Numbers[others[0]], quoted(names))
			c.finding(delivery.LevelWarning, "two-labels", where(i), text)
		}
		if _, used := inside(a.Box, image[a.Image]); !used || a.Crowd {
			continue
		}
		checked++
		switch {
		case a.OddArea() == "":
		case a.Area > a.Box.W*a.Box.H:
			large = append(large, i)
		default:
			small = append(small, i)
		}
	}
	if i, n := corners(s.truth, image); n > 0 {
		c.finding(delivery.LevelError, "corner-boxes", where(i), fmt.Sprintf("leaves its image, as %d of %d boxes do, "+
			"and all are inside if bbox is read as two corners [x1, y1, x2, y2]; COCO has [x, y, width, height]", n,
			len(s.truth.Annotations)))
	}
	for _, odd := range []struct {
		list []int
		what string
	}{{large, "larger than the box"}, {small, "less than a hundredth of the box"}} {
		if len(odd.list) > 0 {
			a := s.truth.Annotations[odd.list[0]]
			text := fmt.Sprintf("area %.6g in a box of %.6g; the area is %s in %d of %d annotations of %s. Only the "+
				"scores of small, medium and large objects use it", a.Area, a.Box.W*a.Box.H, odd.what, len(odd.list),
				checked, strings.TrimRight(prefix, "/: "))
			c.finding(delivery.LevelWarning, "implausible-area", where(odd.list[0]), text)
		}
	}
}

// corners reports whether bbox has two corners, and not a corner with width and height: at least half of the boxes
// leave their image, and as corners all would be inside. It returns the first that leaves it, and how many do; 0 if
// bbox is as COCO has it.
func corners(t *coco.Truth, image map[int64]coco.Image) (first, n int) {
	const enough = 10 // few boxes may be so by chance
	for i, a := range t.Annotations {
		w, h := float64(image[a.Image].Width)+1, float64(image[a.Image].Height)+1
		if a.Box.W <= a.Box.X || a.Box.H <= a.Box.Y || a.Box.W > w || a.Box.H > h {
			return 0, 0
		}
		if a.Box.X+a.Box.W > w || a.Box.Y+a.Box.H > h {
			if n++; n == 1 {
				first = i
			}
		}
	}
	if len(t.Annotations) < enough || 2*n < len(t.Annotations) {
		return 0, 0
	}
	return first, n
}
