package dataset

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
	"golang.org/x/text/unicode/norm"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// maxLeak is the largest share of a split's images that may also be in an eval set.
const maxLeak = 0.05

// Check does a data run: it computes the dataset's digest, reports findings about the dataset and its eval sets, and
// writes the trainer's input into the folder out. If there is a finding of level error, it writes nothing and nothing
// may be trained. It returns an error only if the dataset could not be checked.
//
// The list of training images is written beside out and put into the store lists. If out is empty, Check writes nothing
// at all, and lists may be nil. If the run names no classes, every category with objects in train is a class.
func (catalog Catalog) Check(ctx context.Context, run delivery.DataRun, out string, lists Store,
	progress Progress) (delivery.DataResult, error) {
	c := &checker{classes: run.Classes, sets: map[string]held{}, checked: map[string]bool{},
		noted:   map[fault]bool{},
		leftOut: map[string]map[int64]bool{"train": {}, "valid": {}}, looks: map[string]look{},
		rewritten: map[string]bool{},
		result: delivery.DataResult{Images: map[string]int{}, Truths: map[string]int{},
			Folders: map[string]delivery.Digest{}}}
	v, err := catalog.open(ctx, run.Dataset)
	if err != nil {
		return c.result, err
	}
	c.opened(v)
	memory, key := "", delivery.Digest("")
	if memory = catalog.memory(v.dir); memory != "" && out == "" {
		key = v.resultKey(run, catalog.HeadersOnly)
		if known, ok := recallResult(memory, key); ok {
			return known, nil
		}
		v.recall(memory)
		defer v.keep(memory)
	}
	if err := c.hash(ctx, v, progress); err != nil {
		return c.result, err
	}
	if err := v.readable(); err != nil {
		c.finding(delivery.LevelError, "layout", run.Dataset.String(), err.Error())
		return c.done(), nil
	}
	splits, broken := c.splits(v, run)
	if len(c.classes) == 0 && splits["train"] != nil {
		c.allClasses(v, splits["train"])
	}

	// The gates' eval sets, and the dataset's own test split if no gate has it.
	sets := slices.Clone(run.EvalSets)
	test := delivery.EvalSet{Dataset: run.Dataset, Split: "test"}
	if splits["test"] != nil && !slices.Contains(sets, test) {
		sets = append(sets, test)
	}
	heldOut := map[string][]held{} // by identity
	for i, e := range sets {
		if e.Dataset == run.Dataset && broken[e.Split] {
			continue // already a finding
		}
		if err := c.evalSet(ctx, catalog, v, splits, e, i < len(run.EvalSets), heldOut); err != nil {
			return c.result, err
		}
	}
	if valid := splits["valid"]; valid != nil {
		data := v.evalData(delivery.EvalSet{Dataset: run.Dataset, Split: "valid"}, valid, c.classes)
		if c.result.Valid = data.Content; len(valid.images) > 0 {
			c.objectless("valid", valid, data.Content, true)
		}
	}
	if err := c.decode(ctx, v, catalog.HeadersOnly, progress); err != nil {
		return c.result, err
	}
	c.leaks(v, splits, heldOut)
	c.twins(v, splits)
	c.labels(v, splits)
	c.count(v, splits)
	if c.done(); out == "" {
		keepResult(memory, key, c.result)
	}
	if c.result.Failed() || out == "" {
		return c.result, nil
	}
	err = c.write(v, splits, out, lists)
	return c.result, err
}

// hash reads the files, except for those that are too large.
func (c *checker) hash(ctx context.Context, v *version, progress Progress) error {
	all := make([]string, 0, len(v.files))
	for _, name := range v.names() {
		if most := largest(name); v.files[name].size > most {
			c.finding(delivery.LevelError, "too-large", shown(name), fmt.Sprintf("%s, want at most %s",
				delivery.Bytes(v.files[name].size), delivery.Bytes(most)))
			continue
		}
		all = append(all, name)
	}
	if err := v.hash(ctx, all, progress); err != nil {
		return err
	}
	c.result.Content = v.content()
	return nil
}

// splits reads the splits and reports their problems. A split that cannot be read is broken.
func (c *checker) splits(v *version, run delivery.DataRun) (splits map[string]*split, broken map[string]bool) {
	splits, broken = map[string]*split{}, map[string]bool{}
	for _, name := range splitNames {
		s, ok, err := v.split(name, "")
		switch {
		case err != nil:
			where := v.annotations(name)
			c.finding(delivery.LevelError, "annotations", where, strings.TrimPrefix(err.Error(), where+": "))
			broken[name] = true
		case ok:
			splits[name] = s
			c.split(v, s, "", name == "test" || judges(run.EvalSets, run.Dataset, name), "")
			faulty := slices.ContainsFunc(s.problems, func(p coco.Problem) bool {
				return strings.HasPrefix(p.Path, "images[")
			})
			if name != "test" && len(s.images) == 0 && len(s.missing) == 0 && !faulty {
				c.finding(delivery.LevelError, "empty-split", name, "has no image")
			}
		case name != "test":
			c.finding(delivery.LevelError, "missing-split", name,
				v.lacks(name)+"; a model is trained on train and chosen on valid: "+addSplits)
		}
	}
	for _, name := range v.unlisted(splits) {
		c.finding(delivery.LevelWarning, "unlisted-file", shown(name), "no annotation names it; it is not used")
	}
	for _, name := range v.idleLabels() {
		c.finding(delivery.LevelWarning, "unlisted-file", shown(name),
			"no image has this name; its labels are not used")
	}
	return splits, broken
}

// allClasses makes every category with objects a class.
func (c *checker) allClasses(v *version, train *split) {
	tallies, objects := c.tallies(v, train), 0
	for _, t := range tallies {
		objects += t.total()
	}
	for name, t := range tallies {
		if t.total() > 0 || objects == 0 { // without any object, each category is a class that has none
			c.classes = append(c.classes, delivery.Class{Name: name, Labels: []string{name}})
		}
	}
	slices.SortFunc(c.classes, func(a, b delivery.Class) int { return strings.Compare(a.Name, b.Name) })
}

// count counts the images of each split, without copies and without those that are left out.
func (c *checker) count(v *version, splits map[string]*split) {
	for name, s := range splits {
		c.result.Images[name] = len(s.images) - len(v.copies(s))
	}
	for name, out := range c.leftOut {
		if s := splits[name]; s != nil {
			for id := range v.copies(s) {
				delete(out, id)
			}
			c.result.Images[name] -= len(out)
			for id, first := range v.copies(s) {
				if out[first] {
					out[id] = true
				}
			}
		}
	}
}

// write writes the trainer's input into the folder out, and the lists of training images.
func (c *checker) write(v *version, splits map[string]*split, out string, lists Store) (err error) {
	if len(c.leftOut["valid"]) > 0 {
		// Experiments are not scored on validation images that are in an eval set.
		withheld := delivery.TrainingImages{Train: c.known(v, splits["valid"], true), Valid: []string{}}
		if c.result.Valid.LeaveOut, err = putTrainingImages(lists, withheld, filepath.Dir(out)); err != nil {
			return err
		}
	}
	c.result.Prepared = filepath.Base(out)
	used := delivery.TrainingImages{Train: c.known(v, splits["train"], false),
		Valid: c.known(v, splits["valid"], false), Looks: map[string][]string{}}
	c.sourceLooks(v, splits["train"], used.Looks)
	c.sourceLooks(v, splits["valid"], used.Looks)
	if c.result.TrainingImages, err = putTrainingImages(lists, used, filepath.Dir(out)); err != nil {
		return err
	}
	c.result.Training, err = c.prepare(v, splits, out)
	return err
}

// judges reports whether one of the eval sets is a split of a dataset.
func judges(sets []delivery.EvalSet, d delivery.Dataset, split string) bool {
	return slices.ContainsFunc(sets, func(e delivery.EvalSet) bool { return e.Dataset == d && e.Split == split })
}

type checker struct {
	classes delivery.Classes
	result  delivery.DataResult
	faults  []fault
	decodes []imageFile
	noted   map[fault]bool            // reported faults that belong to no image
	checked map[string]bool           // the eval sets whose files were checked
	leftOut map[string]map[int64]bool // by split: images that must not be trained on
	sets    map[string]held           // by path: the image in an eval set
	looks   map[string]look           // by path: of images whose source names are equal

	rewritten map[string]bool // labels that a finding says are another one, written in another way
}

// opened records what a folder is like when it is read.
func (c *checker) opened(v *version) {
	if v.inPlace {
		c.result.Folders[v.ref.String()] = v.state()
	}
}

// An imageFile is an image that is decoded.
type imageFile struct {
	prefix string // of the split, for findings
	name   string // below the prefix
	path   string
	file   *file
	image  coco.Image
	hash   imageHash

	unsized bool // the annotations do not say its size, which is a finding
}

func (im imageFile) where() string { return shown(im.prefix + im.name) }

// A held image is in an eval set, or in valid.
type held struct {
	file   string
	where  string // for findings
	path   string
	labels []string
}

// split reports problems of a split's annotations and files, and adds its images to those that are decoded. judged is
// true if a gate may judge on it; group is the field by which its images are grouped. dataset stands before all places,
// for an eval set in another dataset.
func (c *checker) split(v *version, s *split, dataset string, judged bool, group string) {
	prefix := dataset + s.prefix()
	// once reports what belongs to no image, which several splits of a dataset have.
	once := func(level, code, where, text string) {
		if f := (fault{level: level, code: code, where: where, text: text}); !c.noted[f] {
			c.noted[f] = true
			c.finding(level, code, where, text)
		}
	}
	for _, f := range s.faults {
		report := c.finding
		if f.image == "" {
			report = once
		}
		report(f.level, f.code, dataset+shown(f.where), f.text)
	}
	for _, p := range s.problems {
		name, report := field(p), c.finding
		if group != "" && name == group {
			continue // the eval set has a finding for all of them
		}
		if p.Kind == coco.MoreProblems {
			report = once
		}
		report(level(p.Kind, judged), string(p.Kind), s.place(dataset, p), name+": "+p.Text)
	}
	found := c.missing(v, s, dataset)
	said := map[string]bool{} // files whose size cannot be read from the annotations, which is a finding
	for _, p := range s.problems {
		if name := field(p); p.Box == 0 && (name == "width" || name == "height") {
			said[p.File] = true
		}
	}
	for _, im := range s.truth.Images {
		if file, ok := s.images[im.ID]; ok && v.files[file].size <= maxImage {
			c.decodes = append(c.decodes, imageFile{prefix: prefix, name: strings.TrimPrefix(file, s.dir),
				path: v.path(file), file: v.files[file], image: im, unsized: said[im.FileName]})
		}
	}
	c.copies(v, s, prefix)
	c.objects(s, prefix)
	listed := map[string]bool{}
	for _, file := range s.files() {
		listed[file] = true
	}
	for _, p := range s.problems {
		if p.Box == 0 && p.File != "" { // an image that cannot be used
			listed[path.Join(s.dir, p.File)] = true
		}
	}
	for _, name := range v.below(s.dir) {
		if s.dir != "" && !listed[name] && !found[name] && path.Base(name) != AnnotationsFile && !ofSystem(name) {
			c.finding(delivery.LevelWarning, "unlisted-file", shown(prefix+strings.TrimPrefix(name, s.dir)),
				"no image of the annotations names it; it is not used")
		}
	}
}

// folded returns a name as one that differs only in upper and lower case, or in the form of Unicode, has it too.
func folded(name string) string { return strings.ToLower(norm.NFC.String(name)) }

// alike reports whether two names differ, but only in spaces, in invisible characters, in upper and lower case, or in
// the form of Unicode, as é in one character or in two.
func alike(a, b string) bool {
	a2, b2 := norm.NFC.String(a), norm.NFC.String(b)
	return a != b && (a2 == b2 || delivery.SameButSpaces(a2, b2))
}

// ofSystem reports whether an operating system put a file there for itself.
func ofSystem(name string) bool {
	base := strings.ToLower(path.Base(name))
	return base == ".ds_store" || base == "thumbs.db" || base == "desktop.ini" || strings.HasPrefix(base, "._")
}

// missing reports the files that are not there, with the place where files of these names are. It returns those files.
func (c *checker) missing(v *version, s *split, dataset string) map[string]bool {
	if len(s.missing) == 0 {
		return nil
	}
	prefix := dataset + s.prefix()
	type group struct {
		folder string
		letter bool // only upper and lower case, or the form of Unicode, differ
	}
	elsewhere, lower := map[string][]string{}, map[string][]string{}
	for _, file := range v.names() {
		elsewhere[path.Base(file)] = append(elsewhere[path.Base(file)], file)
		lower[folded(file)] = append(lower[folded(file)], file)
	}
	files := map[group]map[string]bool{}
	best := group{}
	note := func(g group, file string) {
		if files[g] == nil {
			files[g] = map[string]bool{}
		}
		files[g][file] = true
		if n, most := len(files[g]), len(files[best]); n > most || n == most && g.folder < best.folder {
			best = g
		}
	}
	for _, im := range s.missing {
		name := strings.ReplaceAll(im.FileName, `\`, "/")
		for _, file := range elsewhere[path.Base(name)] {
			note(group{folder: path.Dir(file)}, file)
		}
		for _, file := range lower[folded(path.Join(s.name, name))] {
			if path.Base(file) != path.Base(name) {
				note(group{s.name, true}, file)
			}
		}
	}
	text := "the annotations name it, but it is not there"
	if len(s.missing) == 1 {
		text = fmt.Sprintf("the annotations name the file %q, which is not there", s.missing[0].FileName)
	}
	if n := len(files[best]); n > 0 {
		these := "1 file of this name is"
		if n > 1 {
			these = fmt.Sprintf("%d files of these names are", n)
		}
		switch folder := strings.TrimSuffix(prefix, "/"); { // the place to put them
		case s.dir == "":
			text += fmt.Sprintf("; %s in %s, and which one is meant is not certain", these, shown(best.folder))
		case best.letter:
			text += fmt.Sprintf("; %s there in other upper and lower case, or with accents in another form of "+
				"Unicode: correct file_name", these)
		case best.folder == s.name:
			text += fmt.Sprintf("; %s in %s: write file_name without a folder", these, folder)
		case s.name == path.Dir(best.folder):
			text += fmt.Sprintf("; %s in %s/%s: move them up into %s", these, folder, path.Base(best.folder), folder)
		default:
			text += fmt.Sprintf("; %s in %s: move or copy them into %s", these, shown(best.folder), folder)
		}
	}
	for _, im := range s.missing {
		where, text := shown(prefix+im.FileName), text
		switch {
		case im.FileName == "":
			if slices.ContainsFunc(s.problems, func(p coco.Problem) bool {
				return p.ID == im.ID && strings.HasPrefix(p.Path, "images[") && field(p) == "file_name"
			}) {
				continue // already a finding
			}
			where, text = fmt.Sprintf("%s%s: image %d", dataset, s.annotations, im.ID), "has no file_name"
		case !fs.ValidPath(im.FileName) && best.folder != s.name:
			where = dataset + s.annotations
			text = fmt.Sprintf("image %d names the file %q, which is not there: want a path below the folder", im.ID,
				im.FileName)
		case !fs.ValidPath(im.FileName):
			where = fmt.Sprintf("%s%s: %q", dataset, s.annotations, im.FileName)
		}
		c.finding(delivery.LevelError, "missing-file", where, text)
	}
	return files[best]
}

// copies reports the images of a split that are the same picture as another one.
func (c *checker) copies(v *version, s *split, prefix string) {
	copies := v.copies(s)
	if len(copies) == 0 {
		return
	}
	content, image := s.labels(), map[int64]coco.Image{}
	for _, im := range s.truth.Images {
		image[im.ID] = im
	}
	for _, id := range slices.Sorted(maps.Keys(copies)) {
		first := copies[id]
		code, same := "duplicate-image", fmt.Sprintf("is the same picture as %q", image[first].FileName)
		if s.images[id] == s.images[first] {
			code, same = "duplicate-file", fmt.Sprintf("is listed twice, with the ids %d and %d", first, id)
		}
		where := shown(prefix + image[id].FileName)
		if !slices.Equal(content[id], content[first]) {
			c.finding(delivery.LevelError, code, where, fmt.Sprintf("%s, and their boxes differ (%d there, %d here): "+
				"put all boxes into one entry, and remove the other", same, len(content[first]), len(content[id])))
			continue
		}
		c.finding(delivery.LevelWarning, code, where, same+", with the same boxes; it counts once")
	}
}

// labels lists the annotations of each image, as text and sorted.
func (s *split) labels() map[int64][]string {
	list, name := map[int64][]string{}, map[int64]string{}
	for _, cat := range s.truth.Categories {
		name[cat.ID] = cat.Name
	}
	for _, a := range s.truth.Annotations {
		list[a.Image] = append(list[a.Image], fmt.Sprintf("%q %v %v", name[a.Category], a.Box, a.Crowd))
	}
	for _, texts := range list {
		slices.Sort(texts)
	}
	return list
}

// held lists the images of a split, to be found in another one.
func (s *split) held(v *version, prefix string) []held {
	labels := s.labels()
	var list []held
	for _, im := range byID(s.truth.Images) {
		if file, ok := s.images[im.ID]; ok {
			where := shown(prefix + strings.TrimPrefix(file, s.dir))
			list = append(list, held{file, where, v.path(file), labels[im.ID]})
		}
	}
	return list
}

// evalSet checks one eval set, records its content, and adds its images to heldOut. A gate judges on it if judged.
func (c *checker) evalSet(ctx context.Context, catalog Catalog, v *version, splits map[string]*split,
	e delivery.EvalSet, judged bool, heldOut map[string][]held) error {
	bad := func(text string) { c.finding(delivery.LevelError, "eval-set", e.String(), text) }
	ev, s := v, splits[e.Split]
	own := e.Dataset == v.ref
	if !own {
		var err error
		if ev, err = catalog.open(ctx, e.Dataset); err != nil {
			return err
		}
		c.opened(ev)
	}
	if !own || s != nil && e.Group != "" { // the dataset's own split was read without groups
		var err error
		if s, _, err = ev.split(e.Split, e.Group); err != nil {
			bad(err.Error())
			return nil
		}
	}
	if s == nil {
		bad(ev.lacks(e.Split))
		return nil
	}
	dataset := ""
	if !own {
		if err := ev.hash(ctx, s.files(), nil); err != nil {
			return err
		}
		dataset = e.Dataset.String() + " "
		if key := dataset + e.Split; !c.checked[key] {
			c.checked[key] = true
			c.split(ev, s, dataset, true, e.Group)
		}
	}
	if text := s.ungrouped(e.Group); text != "" {
		bad(text + "; every image needs it, as a text or a whole number")
		return nil
	}
	if thawed := ev.thawed(e, s); thawed != "" && len(s.missing) == 0 {
		bad(thawed + "; " + refreeze)
		return nil
	}
	data := ev.evalData(e, s, c.classes)
	if len(s.missing) == 0 {
		c.objectless(e.String(), s, data.Content, !judged)
	}
	if n := cmp.Or(data.Content.Groups, data.Content.Count); judged && n < coco.MinUnits {
		what := "image"
		if e.Group != "" {
			what = "group"
		}
		c.finding(delivery.LevelWarning, "few-images", e.String(), fmt.Sprintf("has %s, and an interval needs %d: "+
			"every check on it will be unsure; collect more before you train", delivery.Count(n, what), coco.MinUnits))
	}
	c.result.EvalSets = append(c.result.EvalSets, data.Content)
	if own && e.Split != "test" {
		return nil // an eval set of training images is reported by leaks
	}
	for _, h := range s.held(ev, dataset+s.prefix()) {
		for _, id := range identities(h.file, ev.files[h.file].sum) {
			heldOut[id] = append(heldOut[id], h)
		}
		c.sets[h.path] = h
	}
	return nil
}

// objectless reports a split or eval set without images or objects that count. Then it reports the classes without such
// objects: all of them, or only those whose labels are written in another way there. A gate says itself which classes
// it lacks.
func (c *checker) objectless(where string, s *split, content delivery.EvalSetContent, all bool) {
	switch {
	case content.Count == 0:
		c.finding(delivery.LevelWarning, "no-truth", where, "has no image, so nothing can be measured on it")
		return
	case len(content.Labels) == 0:
		c.finding(delivery.LevelWarning, "no-truth", where, "has no object that counts: only false positives can be "+
			"measured on it")
		return
	}
	labels := map[string]bool{} // of all classes
	for _, class := range c.classes {
		for _, label := range class.Labels {
			labels[label] = true
		}
	}
	unused := slices.DeleteFunc(slices.Clone(content.Labels), func(label string) bool { return labels[label] })
	listed := delivery.Each(s.truth.Categories, func(cat coco.Category) string { return cat.Name })
	for _, class := range c.classes {
		if slices.ContainsFunc(class.Labels, func(label string) bool {
			return slices.Contains(content.Labels, label)
		}) {
			continue
		}
		similar := slices.IndexFunc(unused, func(label string) bool {
			return alike(label, class.Labels[0])
		})
		text := fmt.Sprintf("has no object of class %q that counts", class.Name)
		switch {
		case similar >= 0:
			c.rewritten[unused[similar]] = true
			text += fmt.Sprintf("; its category %+q is written in another way than %+q", unused[similar],
				class.Labels[0])
		case !all:
			continue
		case !slices.ContainsFunc(class.Labels, func(label string) bool { return slices.Contains(listed, label) }):
			text += ", and no such category"
			if len(unused) > 0 {
				text += "; it has objects of " + quoted(unused) + ", of which no class is learnt"
			}
		}
		c.finding(delivery.LevelWarning, "no-truth", where, text)
	}
}

// used yields the images of a split that are not left out, in the order of the annotation file: id and file.
func (c *checker) used(s *split) iter.Seq2[int64, string] {
	return func(yield func(int64, string) bool) {
		for _, im := range s.truth.Images {
			if file, ok := s.images[im.ID]; ok && !c.leftOut[s.name][im.ID] && !yield(im.ID, file) {
				return
			}
		}
	}
}

// leaks leaves out training images that are also in an eval set, and images of train that
// are also in valid, and reports them.
func (c *checker) leaks(v *version, splits map[string]*split, heldOut map[string][]held) {
	// mark returns how many images it leaves out. A picture and its copies count once.
	mark := func(s *split, code string, others map[string][]held) (n int) {
		copies, labels := v.copies(s), s.labels()
		for id, file := range c.used(s) {
			first := id
			if other, copy := copies[id]; copy {
				first = other
			}
			if c.leftOut[s.name][first] {
				continue
			}
			text, leaked := c.match(v.path(file), labels[id], matches(file, v.files[file].sum), others)
			switch {
			case leaked:
				c.leftOut[s.name][first] = true
				n++
				c.finding(delivery.LevelWarning, code, shown(file), text+"; it is left out of training")
			case text != "":
				c.finding(delivery.LevelWarning, "same-name", shown(file), text)
			}
		}
		for id, first := range copies {
			if c.leftOut[s.name][first] {
				c.leftOut[s.name][id] = true
			}
		}
		return n
	}
	for _, name := range []string{"train", "valid"} {
		if s := splits[name]; s != nil {
			n, images := mark(s, "leak", heldOut), len(s.images)-len(v.copies(s))
			c.result.LeftOut += n
			if share := float64(n) / float64(max(1, images)); share > maxLeak {
				c.finding(delivery.LevelError, "leaks", name,
					fmt.Sprintf("%d of %s (%.1f%%) are in an eval set; at most %.0f%% may be. Move them out of %s, or "+
						"freeze another eval set", n, delivery.Count(images, "image"), share*100, maxLeak*100, name))
			}
		}
	}
	train, valid := splits["train"], splits["valid"]
	if train == nil || valid == nil {
		return
	}
	inValid := map[string][]held{}
	for _, h := range valid.held(v, valid.dir) {
		for _, id := range identities(h.file, v.files[h.file].sum) {
			inValid[id] = append(inValid[id], h)
		}
	}
	mark(train, "split-leak", inValid)
}

// match finds an image among others, by its identities. It returns a text with the other file, and whether they are the
// same image: files of one source name are not if they look clearly different.
func (c *checker) match(file string, labels, identities []string, others map[string][]held) (text string, same bool) {
	for _, identity := range identities {
		for _, other := range others[identity] {
			switch {
			case strings.HasPrefix(identity, "sha256:"):
				if text = fmt.Sprintf("is the same file as %q", other.where); !slices.Equal(labels, other.labels) {
					text += fmt.Sprintf(", and their boxes differ (%d there, %d here), so correct those there if they "+
						"are wrong", len(other.labels), len(labels))
				}
				return text, true
			case !c.looks[file].differs(c.looks[other.path]):
				return fmt.Sprintf("is made from the same source as %q, by its name", other.where), true
			case text == "":
				text = fmt.Sprintf("has the same source name as %q, but shows another picture, so it counts as "+
					"another image; remove it if it is made from that one", other.where)
			}
		}
	}
	return text, false
}

// decode decodes every image, so that a damaged one is found before the training.
func (c *checker) decode(ctx context.Context, v *version, headersOnly bool, progress Progress) error {
	named := map[string]int{} // images by source name
	for _, im := range c.decodes {
		name, _ := source(im.name)
		named[name]++
	}
	looks := func(im imageFile) bool {
		name, _ := source(im.name)
		return named[name] > 1
	}
	var todo []*file
	path, wanted := map[*file]string{}, map[*file]bool{}
	for _, im := range c.decodes {
		f := im.file
		if f.header == nil {
			f.loadHeader(im.path) // its name is not that of an image
		}
		if headersOnly || f.header.Code != "" || f.picture != nil && (f.picture.Look != nil || !looks(im)) {
			continue
		}
		if path[f] == "" {
			todo, path[f] = append(todo, f), im.path
		}
		wanted[f] = wanted[f] || looks(im)
	}
	v.fresh = v.fresh || len(todo) > 0
	free := semaphore.NewWeighted(memory)
	var done atomic.Int64
	var mu sync.Mutex
	err := parallel(ctx, len(todo), func(i int) error {
		f := todo[i]
		out, err := f.header.decode(ctx, path[f], wanted[f], free)
		if f.picture = &out; err != nil {
			return err
		}
		if n := done.Add(1); progress != nil {
			mu.Lock()
			defer mu.Unlock()
			progress(DecodeImages, int(n), len(todo))
		}
		return nil
	})
	if err != nil {
		return err
	}
	type turned struct {
		n, all int
		first  string
		how    int
	}
	exif, prefixes := map[string]turned{}, []string{}
	for i := range c.decodes {
		im := &c.decodes[i]
		h := im.file.header
		switch p := im.file.picture; {
		case h.Code != "":
			c.finding(delivery.LevelError, h.Code, im.where(), h.Text)
		case !im.unsized && h.otherSize(im.image) != "":
			c.finding(delivery.LevelError, "size-mismatch", im.where(), h.otherSize(im.image))
		case p != nil && p.Code != "":
			c.finding(delivery.LevelError, p.Code, im.where(), p.Text)
		}
		if p := im.file.picture; p != nil {
			if im.hash = p.Hash; p.Look != nil {
				c.looks[im.path] = *p.Look
			}
		}
		t, known := exif[im.prefix]
		if !known {
			prefixes = append(prefixes, im.prefix)
		}
		if t.all++; h.Orientation > upright {
			if t.n++; t.n == 1 {
				t.first, t.how = im.name, h.Orientation
			}
		}
		exif[im.prefix] = t
	}
	for _, prefix := range prefixes {
		if t := exif[prefix]; t.n > 0 {
			c.finding(delivery.LevelWarning, "exif-orientation", strings.TrimRight(prefix, "/: "),
				fmt.Sprintf("%d of %s "+
					"have an EXIF orientation, so viewers turn them, as %q (orientation %d). Training and detection "+
					"do not: save them upright, or make sure that the boxes are those of the stored picture", t.n,
					delivery.Count(t.all, "image"), t.first, t.how))
		}
	}
	return nil
}
