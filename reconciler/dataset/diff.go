package dataset

// This file says what has changed from one version of a dataset to another: images, boxes, labels, files and problems.

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A Diff is what has changed.
type Diff struct {
	Summary string          `json:"summary"` // one line
	Before  delivery.Digest `json:"before"`  // of all files
	Now     delivery.Digest `json:"now"`

	Splits     []SplitChange    `json:"splits"`
	Labels     []LabelChange    `json:"labels"`
	Categories []CategoryChange `json:"categories"`
	Images     []ImageChange    `json:"images"` // that have changed, by name
	Files      []FileChange     `json:"files"`  // that are no images of a split
	Problems   []ProblemChange  `json:"problems"`
}

// Same reports whether nothing has changed.
func (d Diff) Same() bool { return d.Before == d.Now }

// A SplitChange is the number of a split's images.
type SplitChange struct {
	Split  string `json:"split"`
	Before int    `json:"before"`
	Now    int    `json:"now"`
}

// A LabelChange is the number of a label's boxes in a split, with what has become of them.
type LabelChange struct {
	Split      string `json:"split"`
	Label      string `json:"label"`
	Before     int    `json:"before"`
	Now        int    `json:"now"`
	Added      int    `json:"added"`
	Removed    int    `json:"removed"`
	Moved      int    `json:"moved"`
	Relabelled int    `json:"relabelled"` // boxes that have this label now, and had another one
}

// A CategoryChange is a category of a split that has come, gone or got another name.
type CategoryChange struct {
	Split  string `json:"split"`
	Before string `json:"before,omitempty"`
	Now    string `json:"now,omitempty"`
}

// The changes of images, boxes and problems.
const (
	Added      = "added"
	Removed    = "removed"
	Moved      = "moved" // to another split, or a box
	Renamed    = "renamed"
	Encoded    = "encoded again"         // other bytes, the same look
	Replaced   = "another picture"       // of the same name
	Lost       = "file missing"          // it is listed, and its file is not there any more
	Found      = "file there"            // and was missing
	Broken     = "cannot be decoded"     // and could be
	Resized    = "another size"          // of the picture, or as the annotations say it
	Relabelled = "another label"         // of a box
	Other      = "another crowd or area" // of a box
)

// An ImageChange is an image that has changed.
type ImageChange struct {
	Changes []string    `json:"changes"`
	Before  *ImagePlace `json:"before,omitempty"`
	Now     *ImagePlace `json:"now,omitempty"`
	Boxes   []BoxChange `json:"boxes"`
}

// Name is the name of the image, in the version where it is.
func (c ImageChange) Name() string {
	if c.Now != nil {
		return c.Now.Image
	}
	return c.Before.Image
}

// An ImagePlace is an image in one version.
type ImagePlace struct {
	Image string `json:"image"` // its path below the dataset
	Split string `json:"split"`
	Boxes int    `json:"boxes"`

	Path  string     `json:"-"` // of the file; "" if it is missing
	Drawn []TruthBox `json:"-"`
}

// A BoxChange is a box of an image that has changed.
type BoxChange struct {
	Change string      `json:"change"`
	Label  string      `json:"label"`
	Was    string      `json:"was,omitempty"` // the label before, if it is another one
	Before *[4]float64 `json:"before,omitempty"`
	Now    *[4]float64 `json:"now,omitempty"`
	IoU    float64     `json:"iou,omitempty"`    // of both
	Pixels float64     `json:"pixels,omitempty"` // by which an edge has moved at most
}

// A FileChange is a file of the dataset that is no image of a split.
type FileChange struct {
	File   string `json:"file"`
	Change string `json:"change"`
}

// A ProblemChange is a finding of a check that one of the versions has.
type ProblemChange struct {
	Change string `json:"change"`
	Level  string `json:"level"`
	Code   string `json:"code"`
	Where  string `json:"where"`
	Text   string `json:"text"`
}

// A compared is an image of a version, to be found in the other one.
type compared struct {
	split string
	id    int64
	name  string // below the dataset, also if it is missing
	file  string // "" if it is missing
	sum   string
	size  [2]int
	boxes []listedBox
	found *compared // in the other version
}

type listedBox struct {
	TruthBox
	id   int64
	area float64
	own  [4]float64 // the box in its own version; Box may be scaled to the size that the image has now
}

// An examined is a version that was checked.
type examined struct {
	v       *version
	checker *checker
	splits  []*split
	entries []*compared
}

// Compare says what has changed from one version to another. Both are checked.
func Compare(ctx context.Context, before, now Located, progress Progress) (Diff, error) {
	a, err := before.read(ctx, progress)
	if err != nil {
		return Diff{}, err
	}
	b, err := now.read(ctx, progress)
	if err != nil {
		return Diff{}, err
	}
	d := Diff{Before: a.v.content(), Now: b.v.content(), Splits: []SplitChange{}, Labels: []LabelChange{},
		Categories: []CategoryChange{}, Images: []ImageChange{}, Files: []FileChange{}, Problems: []ProblemChange{}}
	pair(a, b)
	d.splits(a, b)
	n := labelCounts{}
	for _, e := range a.entries {
		for _, box := range e.boxes {
			n.of(e.split, box.Label).Before++
		}
		if e.found == nil {
			d.image(ImageChange{Changes: []string{Removed}, Before: a.place(e), Boxes: []BoxChange{}})
			for _, box := range e.boxes {
				n.of(e.split, box.Label).Removed++
			}
		}
	}
	renamed := d.renamed()
	for _, e := range b.entries {
		for _, box := range e.boxes {
			n.of(e.split, box.Label).Now++
		}
		if e.found == nil {
			d.image(ImageChange{Changes: []string{Added}, Now: b.place(e), Boxes: []BoxChange{}})
			for _, box := range e.boxes {
				n.of(e.split, box.Label).Added++
			}
			continue
		}
		c := ImageChange{Changes: changes(a, b, e.found, e), Boxes: boxChanges(asNow(a, b, e, renamed), e)}
		n.count(e.split, c.Boxes)
		if len(c.Changes)+len(c.Boxes) > 0 {
			c.Before, c.Now = a.place(e.found), b.place(e)
			d.image(c)
		}
	}
	slices.SortStableFunc(d.Images, func(x, y ImageChange) int { return strings.Compare(x.Name(), y.Name()) })
	d.Labels = append(d.Labels, n.sorted()...)
	d.files(a, b)
	d.problems(a, b)
	d.Summary = d.summary(a, b)
	return d, nil
}

// renamed returns the new names of categories, by their split and the name before.
func (d *Diff) renamed() map[[2]string]string {
	names := map[[2]string]string{}
	for _, c := range d.Categories {
		if c.Before != "" && c.Now != "" {
			names[[2]string{c.Split, c.Before}] = c.Now
		}
	}
	return names
}

// asNow returns what an image was before, with its boxes at the size and with the labels that it has now: another size
// of the picture, or another name of a category, is no change of each box.
func asNow(a, b *examined, e *compared, renamed map[[2]string]string) *compared {
	before := *e.found
	before.boxes = slices.Clone(before.boxes)
	sx, sy := scale(a, b, e.found, e)
	for i, box := range before.boxes {
		v := box.Box
		before.boxes[i].Box = [4]float64{v[0] * sx, v[1] * sy, v[2] * sx, v[3] * sy}
		before.boxes[i].area *= sx * sy
		if now, ok := renamed[[2]string{before.split, box.Label}]; ok {
			before.boxes[i].Label = now
		}
	}
	return &before
}

// labelCounts counts the boxes of labels, by split and label.
type labelCounts map[[2]string]*LabelChange

func (n labelCounts) of(split, label string) *LabelChange {
	key := [2]string{split, label}
	if n[key] == nil {
		n[key] = &LabelChange{Split: split, Label: label}
	}
	return n[key]
}

func (n labelCounts) count(split string, boxes []BoxChange) {
	for _, box := range boxes {
		switch of := n.of(split, box.Label); box.Change {
		case Added:
			of.Added++
		case Removed:
			of.Removed++
		case Moved:
			of.Moved++
		case Relabelled:
			of.Relabelled++
		}
	}
}

// sorted lists the counts by split, then by label.
func (n labelCounts) sorted() (list []LabelChange) {
	for _, key := range slices.SortedFunc(maps.Keys(n), func(x, y [2]string) int {
		return cmp.Or(cmp.Compare(slices.Index(splitNames, x[0]), slices.Index(splitNames, y[0])),
			strings.Compare(x[1], y[1]))
	}) {
		list = append(list, *n[key])
	}
	return list
}

func (d *Diff) image(c ImageChange) { d.Images = append(d.Images, c) }

// read checks a version and lists its images.
func (l Located) read(ctx context.Context, progress Progress) (*examined, error) {
	run := delivery.DataRun{Dataset: l.Dataset}
	r := &examined{checker: newChecker(run)}
	if l.Catalog.Fetching == nil {
		l.Catalog.Fetching = progress
	}
	var err error
	if r.v, err = l.Catalog.open(ctx, l.Dataset); err != nil {
		return nil, err
	}
	memory := l.Catalog.memory(r.v.dir)
	r.v.recall(memory)
	defer r.v.keep(memory)
	if err := r.checker.check(ctx, l.Catalog, r.v, run, nil, progress); err != nil {
		return nil, err
	}
	for _, name := range splitNames {
		if s := r.checker.splits[name]; s != nil {
			r.splits = append(r.splits, s)
		}
	}
	if r.checker.splits == nil {
		if r.splits, err = r.v.all(); err != nil {
			return nil, err
		}
	}
	for _, s := range r.splits {
		label, byImage := map[int64]string{}, map[int64]*compared{}
		for _, cat := range s.truth.Categories {
			label[cat.ID] = cat.Name
		}
		for _, im := range s.truth.Images {
			e := &compared{split: s.name, id: im.ID, file: s.images[im.ID], name: s.dir + im.FileName,
				size: [2]int{im.Width, im.Height}}
			if e.file != "" {
				e.name, e.sum = e.file, r.v.files[e.file].sum
			}
			byImage[im.ID] = e
			r.entries = append(r.entries, e)
		}
		for i, a := range s.truth.Annotations {
			e := byImage[a.Image]
			e.boxes = append(e.boxes, listedBox{TruthBox{Number: s.truth.Numbers[i], Label: label[a.Category],
				Box: [4]float64{a.Box.X, a.Box.Y, a.Box.W, a.Box.H}, Crowd: a.Crowd}, a.ID, a.Area,
				[4]float64{a.Box.X, a.Box.Y, a.Box.W, a.Box.H}})
		}
	}
	return r, nil
}

func (r *examined) place(e *compared) *ImagePlace {
	p := &ImagePlace{Image: e.name, Split: e.split, Boxes: len(e.boxes)}
	if e.file != "" {
		p.Path = r.v.path(e.file)
	}
	for _, b := range e.boxes {
		p.Drawn = append(p.Drawn, b.TruthBox)
	}
	return p
}

// hash returns the look of an entry's picture.
func (r *examined) hash(e *compared) (imageHash, bool) {
	if e.file == "" {
		return imageHash{}, false
	}
	p := r.v.files[e.file].picture
	if p == nil || p.Code != "" {
		return imageHash{}, false
	}
	return p.Hash, p.Hash.Texture
}

// splits fills in the sizes of splits and the categories.
func (d *Diff) splits(a, b *examined) {
	find := func(r *examined, name string) *split {
		for _, s := range r.splits {
			if s.name == name {
				return s
			}
		}
		return nil
	}
	for _, name := range append([]string{""}, splitNames...) {
		x, y := find(a, name), find(b, name)
		if x == nil && y == nil {
			continue
		}
		c := SplitChange{Split: name}
		var was, is []coco.Category
		if x != nil {
			c.Before, was = len(x.truth.Images), x.truth.Categories
		}
		if y != nil {
			c.Now, is = len(y.truth.Images), y.truth.Categories
		}
		d.Splits = append(d.Splits, c)
		if x == nil || y == nil {
			continue
		}
		count := map[string]int{}
		byID, wasNamed := map[int64]string{}, map[string]bool{}
		for _, cat := range was {
			count[cat.Name]++
			byID[cat.ID], wasNamed[cat.Name] = cat.Name, true
		}
		isNamed := map[string]bool{}
		for _, cat := range is {
			isNamed[cat.Name] = true
		}
		for _, cat := range is {
			switch old := byID[cat.ID]; {
			case count[cat.Name] > 0:
				count[cat.Name]--
			case old != "" && count[old] > 0 && !isNamed[old]:
				count[old]--
				d.Categories = append(d.Categories, CategoryChange{name, old, cat.Name})
			default:
				d.Categories = append(d.Categories, CategoryChange{Split: name, Now: cat.Name})
			}
		}
		for _, cat := range was {
			if count[cat.Name] > 0 {
				count[cat.Name]--
				d.Categories = append(d.Categories, CategoryChange{Split: name, Before: cat.Name})
			}
		}
	}
}

// files lists other files that differ. Annotation files are left out if both versions have them: their content is
// compared.
func (d *Diff) files(a, b *examined) {
	used := map[string]bool{}
	for _, r := range []*examined{a, b} {
		for _, e := range r.entries {
			used[e.file] = true
		}
		for _, s := range r.splits {
			used[s.annotations] = true
		}
	}
	for _, name := range a.v.names() {
		switch other := b.v.files[name]; {
		case used[name] || ofSystem(name):
		case other == nil:
			d.Files = append(d.Files, FileChange{name, Removed})
		case other.sum != a.v.files[name].sum:
			d.Files = append(d.Files, FileChange{name, "changed"})
		}
	}
	for _, name := range b.v.names() {
		if a.v.files[name] == nil && !used[name] && !ofSystem(name) {
			d.Files = append(d.Files, FileChange{name, Added})
		}
	}
}

// problems lists the findings that only one of the versions has.
func (d *Diff) problems(a, b *examined) {
	key := func(r *examined, f fault) string {
		where := strings.TrimPrefix(f.where, r.v.ref.String()+" ")
		if f.code == "layout" {
			where = ""
		}
		return f.level + "\x00" + f.code + "\x00" + where
	}
	list := func(r, other *examined, change string) {
		have := map[string]int{}
		for _, f := range other.checker.faults {
			have[key(other, f)]++
		}
		for _, f := range r.checker.faults {
			if k := key(r, f); have[k] > 0 {
				have[k]--
				continue
			}
			d.Problems = append(d.Problems, ProblemChange{change, f.level, f.code,
				strings.TrimPrefix(f.where, r.v.ref.String()+" "), f.text})
		}
	}
	list(b, a, Added)
	list(a, b, Removed)
}
