package dataset

// This file says what has changed from one version of a dataset to another: images, boxes, labels, files and problems.

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
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
	renamed := map[[2]string]string{} // categories by split and the name before
	for _, c := range d.Categories {
		if c.Before != "" && c.Now != "" {
			renamed[[2]string{c.Split, c.Before}] = c.Now
		}
	}
	labels := map[[2]string]*LabelChange{}
	label := func(split, name string) *LabelChange {
		key := [2]string{split, name}
		if labels[key] == nil {
			labels[key] = &LabelChange{Split: split, Label: name}
		}
		return labels[key]
	}
	for _, e := range a.entries {
		for _, box := range e.boxes {
			label(e.split, box.Label).Before++
		}
		if e.found == nil {
			d.image(ImageChange{Changes: []string{Removed}, Before: a.place(e), Boxes: []BoxChange{}})
			for _, box := range e.boxes {
				label(e.split, box.Label).Removed++
			}
		}
	}
	for _, e := range b.entries {
		for _, box := range e.boxes {
			label(e.split, box.Label).Now++
		}
		if e.found == nil {
			d.image(ImageChange{Changes: []string{Added}, Now: b.place(e), Boxes: []BoxChange{}})
			for _, box := range e.boxes {
				label(e.split, box.Label).Added++
			}
			continue
		}
		before := *e.found
		before.boxes = slices.Clone(before.boxes)
		sx, sy := scale(a, b, e.found, e)
		for i, box := range before.boxes {
			v := box.Box
			before.boxes[i].Box = [4]float64{v[0] * sx, v[1] * sy, v[2] * sx, v[3] * sy}
			before.boxes[i].area *= sx * sy
			if now, ok := renamed[[2]string{before.split, box.Label}]; ok { // the category has changed, not the box
				before.boxes[i].Label = now
			}
		}
		c := ImageChange{Changes: changes(a, b, e.found, e), Boxes: boxChanges(&before, e)}
		for _, box := range c.Boxes {
			switch n := label(e.split, box.Label); box.Change {
			case Added:
				n.Added++
			case Removed:
				n.Removed++
			case Moved:
				n.Moved++
			case Relabelled:
				n.Relabelled++
			}
		}
		if len(c.Changes)+len(c.Boxes) > 0 {
			c.Before, c.Now = a.place(e.found), b.place(e)
			d.image(c)
		}
	}
	slices.SortStableFunc(d.Images, func(x, y ImageChange) int { return strings.Compare(x.Name(), y.Name()) })
	for _, key := range slices.SortedFunc(maps.Keys(labels), func(x, y [2]string) int {
		return cmp.Or(cmp.Compare(slices.Index(splitNames, x[0]), slices.Index(splitNames, y[0])),
			strings.Compare(x[1], y[1]))
	}) {
		d.Labels = append(d.Labels, *labels[key])
	}
	d.files(a, b)
	d.problems(a, b)
	d.Summary = d.summary(a, b)
	return d, nil
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

// pair finds the images of one version in the other: first by name and bytes, then by bytes, by name, by the source's
// name, by the id of one whose file is missing, and by look.
func pair(a, b *examined) {
	by := func(key func(e *compared) string) {
		open := map[string][]*compared{}
		for _, e := range a.entries {
			if k := key(e); e.found == nil && k != "" {
				open[k] = append(open[k], e)
			}
		}
		for _, e := range b.entries {
			if list := open[key(e)]; e.found == nil && len(list) > 0 {
				e.found, list[0].found = list[0], e
				open[key(e)] = list[1:]
			}
		}
	}
	keyed := func(parts ...string) string {
		if parts[0] == "" {
			return ""
		}
		return strings.Join(parts, "\x00")
	}
	id := func(e *compared) string { return strconv.FormatInt(e.id, 10) }
	made := func(e *compared) string {
		if name, ok := source(e.name); ok {
			return name
		}
		return ""
	}
	by(func(e *compared) string { return keyed(e.sum, e.name, e.split, id(e)) })
	by(func(e *compared) string { return keyed(e.sum, e.name, e.split) })
	by(func(e *compared) string { return keyed(e.sum, e.split) })
	by(func(e *compared) string { return e.sum })
	by(func(e *compared) string { return keyed(e.name, e.split) })
	by(func(e *compared) string { return keyed(made(e), e.split) })
	by(made)
	ids := map[string]*compared{}
	for _, e := range a.entries {
		if e.found == nil {
			ids[keyed(id(e), e.split)] = e
		}
	}
	for _, e := range b.entries { // a name that has no file
		o := ids[keyed(id(e), e.split)]
		if e.found == nil && o != nil && o.found == nil && (e.file == "" || o.file == "") {
			e.found, o.found = o, e
		}
	}
	var looks bands
	var list []imageFile
	var of []*compared
	for _, e := range a.entries {
		if hash, ok := a.hash(e); ok && e.found == nil {
			looks.add(len(list), hash)
			list, of = append(list, imageFile{hash: hash}), append(of, e)
		}
	}
	for _, e := range b.entries {
		hash, ok := b.hash(e)
		if !ok || e.found != nil {
			continue
		}
		i := looks.nearest(append(list, imageFile{hash: hash}), len(list), func(j int) bool {
			return of[j].found == nil
		})
		if i >= 0 {
			e.found, of[i].found = of[i], e
		}
	}
}

// changes lists what is other about an image itself.
func changes(a, b *examined, before, now *compared) (list []string) {
	list = []string{}
	switch sameBase := path.Base(before.name) == path.Base(now.name); {
	case before.split != now.split:
		if list = append(list, Moved); !sameBase {
			list = append(list, Renamed)
		}
	case before.name != now.name:
		list = append(list, Renamed)
	}
	switch {
	case before.file != "" && now.file == "":
		list = append(list, Lost)
	case before.file == "" && now.file != "":
		list = append(list, Found)
	case before.sum != now.sum:
		x, known := a.hash(before)
		y, ok := b.hash(now)
		code := func(r *examined, e *compared) string {
			f := r.v.files[e.file]
			if f.header != nil && f.header.Code != "" {
				return f.header.Code
			}
			if f.picture != nil {
				return f.picture.Code
			}
			return ""
		}
		switch {
		case code(b, now) != "" && code(a, before) == "":
			list = append(list, Broken)
		case known && ok && x.apart(y) > maxApart:
			list = append(list, Replaced)
		default:
			list = append(list, Encoded)
		}
	}
	if before.size != now.size {
		list = append(list, Resized)
	}
	return list
}

// scale returns by how much an image is wider and higher than before.
func scale(a, b *examined, before, now *compared) (x, y float64) {
	if before.file == "" || now.file == "" || before.sum == now.sum {
		return 1, 1
	}
	w, h := a.v.size(before.file)
	wide, high := b.v.size(now.file)
	if w == 0 || h == 0 || wide == 0 || high == 0 {
		return 1, 1
	}
	return float64(wide) / float64(w), float64(high) / float64(h)
}

// overlap returns the intersection over union of two boxes.
func overlap(a, b [4]float64) float64 {
	w := min(a[0]+a[2], b[0]+b[2]) - max(a[0], b[0])
	h := min(a[1]+a[3], b[1]+b[3]) - max(a[1], b[1])
	if w <= 0 || h <= 0 {
		return 0
	}
	return w * h / (a[2]*a[3] + b[2]*b[3] - w*h)
}

// rounding is how many pixels an edge may move and be where it was: tools round in different ways.
const rounding = 0.5

// minOverlap is the least intersection over union of a box before and now.
const minOverlap = 0.5

// maxPairedBoxes is how many boxes of an image are compared each with each.
const maxPairedBoxes = 2000

// boxChanges lists what has become of the boxes of an image. Equal boxes are the same; then those that overlap, of one
// label first; then those with the id of before, where the ids of equal boxes are those of before too.
func boxChanges(before, now *compared) []BoxChange {
	list := []BoxChange{}
	type key struct {
		label string
		box   [4]float64
	}
	open := map[key][]int{}
	usedA, usedB := make([]bool, len(before.boxes)), make([]bool, len(now.boxes))
	for i, box := range before.boxes {
		k := key{box.Label, box.Box}
		open[k] = append(open[k], i)
	}
	sameIDs := true
	for i, box := range now.boxes {
		k := key{box.Label, box.Box}
		if len(open[k]) == 0 {
			continue
		}
		was := before.boxes[open[k][0]]
		usedA[open[k][0]], usedB[i] = true, true
		open[k] = open[k][1:]
		sameIDs = sameIDs && was.id == box.id
		if was.Crowd != box.Crowd || math.Abs(was.area-box.area) > 0.01*max(was.area, box.area) {
			list = append(list, box.changed(Other, was))
		}
	}
	type match struct {
		a, b  int
		other bool
		iou   float64
	}
	var matches []match
	if len(before.boxes) <= maxPairedBoxes && len(now.boxes) <= maxPairedBoxes {
		for i, was := range before.boxes {
			for k, box := range now.boxes {
				if iou := overlap(was.Box, box.Box); !usedA[i] && !usedB[k] && iou >= minOverlap {
					matches = append(matches, match{i, k, was.Label != box.Label, iou})
				}
			}
		}
	}
	slices.SortStableFunc(matches, func(x, y match) int {
		// A label that is corrected leaves the box as it is, so an equal box goes before one of the same label.
		exactX, exactY := x.iou == 1, y.iou == 1
		return cmp.Or(compareBool(exactY, exactX), compareBool(x.other, y.other), cmp.Compare(y.iou, x.iou))
	})
	take := func(i, k int) {
		usedA[i], usedB[k] = true, true
		was, box := before.boxes[i], now.boxes[k]
		change := Moved
		if was.Label != box.Label {
			change = Relabelled
		}
		if c := box.changed(change, was); change != Moved || c.Pixels >= rounding {
			list = append(list, c)
		}
	}
	for _, m := range matches {
		if !usedA[m.a] && !usedB[m.b] {
			take(m.a, m.b)
		}
	}
	byID := map[int64]int{}
	for i, was := range before.boxes {
		if !usedA[i] && sameIDs && before.split == now.split {
			byID[was.id] = i
		}
	}
	for k, box := range now.boxes {
		if i, ok := byID[box.id]; ok && !usedB[k] && !usedA[i] && before.boxes[i].Label == box.Label {
			take(i, k)
		}
	}
	for i, was := range before.boxes {
		if !usedA[i] {
			list = append(list, BoxChange{Change: Removed, Label: was.Label, Before: &before.boxes[i].own})
		}
	}
	for k, box := range now.boxes {
		if !usedB[k] {
			list = append(list, BoxChange{Change: Added, Label: box.Label, Now: &now.boxes[k].own})
		}
	}
	return list
}

func compareBool(a, b bool) int {
	if a == b {
		return 0
	}
	if a {
		return 1
	}
	return -1
}

func (b listedBox) changed(change string, was listedBox) BoxChange {
	c := BoxChange{Change: change, Label: b.Label, Before: &was.own, Now: &b.own, IoU: overlap(was.Box, b.Box)}
	if was.Label != b.Label {
		c.Was = was.Label
	}
	edges := func(v [4]float64) [4]float64 { return [4]float64{v[0], v[1], v[0] + v[2], v[1] + v[3]} }
	x, y := edges(was.Box), edges(b.Box)
	for i := range x {
		c.Pixels = max(c.Pixels, math.Abs(x[i]-y[i]))
	}
	return c
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

// summary says what has changed in one line.
func (d *Diff) summary(a, b *examined) string {
	if d.Same() {
		return "the same files"
	}
	var parts []string
	say := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	type group struct { // of images with one change

		what  string
		n     int
		first string
	}
	var groups []*group
	add := func(what, name string) {
		i := slices.IndexFunc(groups, func(g *group) bool { return g.what == what })
		if i < 0 {
			groups = append(groups, &group{what, 0, name})
			i = len(groups) - 1
		}
		groups[i].n++
	}
	for _, c := range d.Images {
		name := shown(c.Name())
		for _, change := range c.Changes {
			switch change {
			case Added:
				add("added to "+cmp.Or(c.Now.Split, "the dataset"), name)
			case Removed:
				add("removed from "+cmp.Or(c.Before.Split, "the dataset"), name)
			case Moved:
				add("moved from "+c.Before.Split+" to "+c.Now.Split, name)
			case Renamed:
				add("renamed", shown(c.Before.Image)+" to "+name)
			case Encoded:
				add("encoded again", name)
			case Replaced:
				add("replaced by another picture", name)
			case Lost:
				add("without its file now", name)
			case Found:
				add("with its file now", name)
			case Broken:
				add("that cannot be decoded now", name)
			case Resized:
				add("of another size now", name)
			}
		}
	}
	for _, s := range d.Splits {
		if s.Before > 0 && s.Now == 0 {
			say("no image in %s any more", s.Split)
		}
	}
	for _, g := range groups {
		text := fmt.Sprintf("%s %s", delivery.Count(g.n, "image"), g.what)
		if g.n == 1 {
			text += " (" + g.first + ")"
		}
		parts = append(parts, text)
	}
	for _, c := range d.Categories {
		switch {
		case c.Before == "":
			say("category %q added to %s", c.Now, cmp.Or(c.Split, "the dataset"))
		case c.Now == "":
			say("category %q removed from %s", c.Before, cmp.Or(c.Split, "the dataset"))
		default:
			say("category %q renamed to %q in %s", c.Before, c.Now, cmp.Or(c.Split, "the dataset"))
		}
	}
	parts = append(parts, d.boxesText()...)
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
	for _, change := range []string{Added, Removed} {
		var codes []string
		n, first := map[string]int{}, map[string]string{}
		for _, p := range d.Problems {
			if p.Change != change {
				continue
			}
			if n[p.Code]++; n[p.Code] == 1 {
				codes, first[p.Code] = append(codes, p.Code), p.Where
			}
		}
		for _, code := range codes {
			text := "new: "
			if change == Removed {
				text = "no longer: "
			}
			if text += code; n[code] > 1 {
				text += fmt.Sprintf(" x%d", n[code])
			}
			parts = append(parts, text+" ("+first[code]+")")
		}
	}
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
