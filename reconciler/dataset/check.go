package dataset

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// Check does a data run: it computes the dataset's digest, reports findings about the dataset and its eval sets, and
// writes the trainer's input into the folder out. If there is a finding of level error, it writes nothing and nothing
// may be trained. It returns an error only if the dataset could not be checked.
//
// The list of training images is written beside out and put into the store lists. If out is empty, Check writes nothing
// at all, and lists may be nil. If the run names no classes, every category with objects in train is a class.
func (catalog Catalog) Check(ctx context.Context, run delivery.DataRun, out string, lists Store,
	progress Progress) (delivery.DataResult, error) {
	c := newChecker(run)
	if catalog.Fetching == nil {
		catalog.Fetching = progress
	}
	if run.Scenes != "" {
		pattern, err := delivery.ScenePattern(run.Scenes)
		if err != nil {
			return c.result, err
		}
		catalog.Scenes = pattern
	}
	v, err := catalog.open(ctx, run.Dataset)
	if err != nil && out == "" {
		return c.unopened(err)
	} else if err != nil {
		return c.result, err
	}
	memory, key := "", delivery.Digest("")
	if memory = catalog.memory(v.dir); memory != "" && out == "" {
		key = v.resultKey(run, catalog.HeadersOnly)
		if known, ok := recallResult(memory, key); ok {
			return known, nil
		}
		v.recall(memory)
		defer v.keep(memory)
	}
	if err := c.check(ctx, catalog, v, run, nil, progress); err != nil {
		return c.result, err
	}
	if out == "" {
		keepResult(memory, key, c.result)
	}
	if c.result.Failed() || out == "" {
		return c.result, nil
	}
	err = c.write(v, c.splits, out, lists)
	return c.result, err
}

// A Located is a dataset and the catalog that finds it.
type Located struct {
	Catalog Catalog
	Dataset delivery.Dataset
}

// Report checks a dataset as [Catalog.Check] does, and returns what it measured too. If before is not nil, it is the
// version before, and the dataset is compared with it.
func (catalog Catalog) Report(ctx context.Context, run delivery.DataRun, before *Located,
	progress Progress) (delivery.DataResult, Tables, error) {
	c := newChecker(run)
	if catalog.Fetching == nil {
		catalog.Fetching = progress
	}
	v, err := catalog.open(ctx, run.Dataset)
	if err != nil {
		result, err := c.unopened(err)
		return result, c.tables(&version{}), err
	}
	memory := catalog.memory(v.dir)
	v.recall(memory)
	defer v.keep(memory)
	if err := c.check(ctx, catalog, v, run, before, progress); err != nil {
		return c.result, nil, err
	}
	return c.result, c.tables(v), nil
}

// unopened returns what a report says of a dataset whose files cannot be listed.
func (c *checker) unopened(err error) (delivery.DataResult, error) {
	odd, ok := errors.AsType[noFiles](err)
	if !ok {
		return c.result, err
	}
	for _, name := range odd.names {
		c.finding(delivery.LevelError, "no-file", shown(name), noFile+"; put the file itself there")
	}
	return c.done(), nil
}

func newChecker(run delivery.DataRun) *checker {
	return &checker{classes: run.Classes, sets: map[string]held{}, checked: map[string]bool{},
		noted:   map[fault]bool{},
		leftOut: map[string]map[int64]bool{"train": {}, "valid": {}}, looks: map[string]look{},
		rewritten: map[string]bool{},
		result: delivery.DataResult{Images: map[string]int{}, Truths: map[string]int{},
			Folders: map[string]delivery.Digest{}}}
}

// check finds out all that is in the result, except for what is written for the trainer.
func (c *checker) check(ctx context.Context, catalog Catalog, v *version, run delivery.DataRun, before *Located,
	progress Progress) error {
	c.opened(v)
	if err := c.hash(ctx, v, progress); err != nil {
		return err
	}
	if err := v.readable(); err != nil {
		c.finding(delivery.LevelError, "layout", run.Dataset.String(), err.Error())
		c.done()
		return nil
	}
	if v.lay.other != "" {
		c.finding(delivery.LevelWarning, "two-layouts", run.Dataset.String(), v.lay.other)
	}
	splits, broken := c.splitsOf(v, run)
	c.splits = splits
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
			return err
		}
	}
	if valid := splits["valid"]; valid != nil {
		data := v.evalData(delivery.EvalSet{Dataset: run.Dataset, Split: "valid"}, valid, c.classes)
		if c.result.Valid = data.Content; len(valid.images) > 0 {
			c.objectless("valid", valid, data.Content, true)
		}
	}
	if err := c.decode(ctx, v, catalog.HeadersOnly, progress); err != nil {
		return err
	}
	c.leaks(v, splits, heldOut)
	c.twins(v, splits)
	c.scenes(v, splits)
	c.labels(v, splits)
	c.balance(v, splits)
	if before != nil {
		if err := c.drift(ctx, *before, v, splits); err != nil {
			return err
		}
	} else if run.Before != nil {
		c.driftOfMain(ctx, Located{catalog, *run.Before}, v, splits)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	c.count(v, splits)
	c.done()
	return nil
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

// splitsOf reads the splits and reports their problems. A split that cannot be read is broken.
func (c *checker) splitsOf(v *version, run delivery.DataRun) (splits map[string]*split, broken map[string]bool) {
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

	// What was measured, beside the findings.
	splits map[string]*split
	gone   []absent
	pairs  []imagePair
	sites  []siteUse
	close  []closePair
	drifts []driftOf

	rewritten map[string]bool // labels that a finding says are another one, written in another way
}

// opened records what a folder is like when it is read.
func (c *checker) opened(v *version) {
	c.result.Folders[v.ref.String()] = v.state()
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
	open, wanted := map[*file]opener{}, map[*file]bool{}
	for _, im := range c.decodes {
		f := im.file
		if f.header == nil {
			f.loadHeader(im.open) // its name is not that of an image
		}
		if headersOnly || f.header.Code != "" || f.picture != nil && (f.picture.Look != nil || !looks(im)) {
			continue
		}
		if open[f] == nil {
			todo, open[f] = append(todo, f), im.open
		}
		wanted[f] = wanted[f] || looks(im)
	}
	v.fresh = v.fresh || len(todo) > 0
	free := semaphore.NewWeighted(memory)
	var done atomic.Int64
	var mu sync.Mutex
	err := parallel(ctx, len(todo), func(i int) error {
		f := todo[i]
		out, err := f.header.decode(ctx, open[f], wanted[f], free)
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
