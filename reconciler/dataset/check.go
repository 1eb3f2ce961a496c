package dataset

import (
	"context"
	"fmt"
	"image"
	_ "image/jpeg" // the two formats that trainers and detectors read
	_ "image/png"
	"io"
	"iter"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// maxLeak is the largest share of a split's images that may also be in an eval set.
const maxLeak = 0.05

// Check does a data run: it computes the dataset's digest, reports findings about the dataset and its eval sets, and
// writes the trainer's input into the folder out. If there is a finding of level error, it writes nothing and nothing
// may be trained. It returns an error only if the dataset could not be checked.
//
// The list of training images is written beside out and put into the store lists.
func (catalog Catalog) Check(ctx context.Context, run delivery.DataRun, out string, lists Store,
	progress func(done, total int)) (delivery.DataResult, error) {
	c := &checker{classes: run.Classes, findings: map[string]int{}, sets: map[string]string{},
		result: delivery.DataResult{Images: map[string]int{}, Truths: map[string]int{}}}
	v, err := catalog.open(ctx, run.Dataset)
	if err != nil {
		return c.result, err
	}
	all := make([]string, 0, len(v.files))
	for name, f := range v.files {
		if f.size > maxImage && path.Base(name) != AnnotationsFile {
			c.finding(delivery.LevelError, "too-large", name, fmt.Sprintf("%s, want at most %s", delivery.Bytes(f.size),
				delivery.Bytes(maxImage)))
			continue
		}
		all = append(all, name)
	}
	if err := v.hash(ctx, all); err != nil {
		return c.result, err
	}
	c.result.Content = v.content()

	splits := map[string]*split{}
	for _, name := range []string{"train", "valid", "test"} {
		s, ok, err := v.split(name, "")
		switch {
		case err != nil:
			where := name + "/" + AnnotationsFile
			c.finding(delivery.LevelError, "annotations", where, strings.TrimPrefix(err.Error(), where+": "))
		case ok:
			splits[name] = s
			c.split(v, s, name+"/")
			c.result.Images[name] = len(s.images)
			if name != "test" && len(s.images) == 0 {
				c.finding(delivery.LevelError, "empty-split", name, "has no image")
			}
		case name != "test":
			c.finding(delivery.LevelError, "missing-split", name,
				fmt.Sprintf("there is no %s/%s; a model is trained on train and chosen on valid", name,
					AnnotationsFile))
		}
	}
	c.labels(splits)

	// The eval sets of the gates, then the dataset's own test split.
	heldOut := map[string]string{} // identity -> where it is held out
	sets := slices.Clone(run.EvalSets)
	if own := (delivery.EvalSet{Dataset: run.Dataset, Split: "test"}); splits["test"] != nil &&
		!slices.Contains(sets, own) {
		sets = append(sets, own)
	}
	for _, e := range sets {
		if err := c.evalSet(ctx, catalog, v, splits, e, heldOut); err != nil {
			return c.result, err
		}
	}
	if valid := splits["valid"]; valid != nil {
		c.result.Valid = v.evalData(delivery.EvalSet{Dataset: run.Dataset, Split: "valid"}, valid, c.classes).Content
	}
	if err := c.decode(ctx, progress); err != nil {
		return c.result, err
	}
	c.leaks(v, splits, heldOut)
	c.twins(v, splits)
	for name, out := range c.leftOut {
		if n, there := c.result.Images[name]; there {
			c.result.Images[name] = n - len(out)
		}
	}
	if c.result.Failed() {
		return c.done(), nil
	}
	if len(c.leftOut["valid"]) > 0 {
		// Experiments are not scored on validation images that are in an eval set.
		withheld := delivery.TrainingImages{Train: c.known(v, splits["valid"], true), Valid: []string{}}
		if c.result.Valid.LeaveOut, err = putTrainingImages(lists, withheld, filepath.Dir(out)); err != nil {
			return c.result, err
		}
	}
	c.result.Prepared = filepath.Base(out)
	used := delivery.TrainingImages{Train: c.known(v, splits["train"], false),
		Valid: c.known(v, splits["valid"], false)}
	if c.result.TrainingImages, err = putTrainingImages(lists, used, filepath.Dir(out)); err != nil {
		return c.result, err
	}
	if c.result.Training, err = c.prepare(v, splits, out); err != nil {
		return c.result, err
	}
	return c.done(), nil
}

type checker struct {
	classes  delivery.Classes
	result   delivery.DataResult
	findings map[string]int // finding by level and code
	decodes  []imageFile
	leftOut  map[string]map[int64]bool // by split: images that must not be trained on
	sets     map[string]string         // by path: the eval set that has the image
}

type imageFile struct {
	where string
	path  string
	image coco.Image
	hash  imageHash
}

// finding adds a finding, or increments the count of one with the same level and code.
func (c *checker) finding(level, code, where, text string) {
	key := level + "/" + code
	if i, ok := c.findings[key]; ok {
		f := &c.result.Findings[i]
		if f.Count++; len(f.More) < delivery.MaxMore {
			f.More = append(f.More, where+": "+text)
		}
		return
	}
	c.findings[key] = len(c.result.Findings)
	c.result.Findings = append(c.result.Findings, delivery.Finding{Level: level, Code: code, Where: where, Text: text,
		Count: 1})
}

// done returns the result with its findings sorted: errors first, unused categories last.
func (c *checker) done() delivery.DataResult {
	rank := func(f delivery.Finding) string {
		if f.Code == "unused-category" {
			return f.Level + " "
		}
		return f.Level
	}
	slices.SortStableFunc(c.result.Findings, func(a, b delivery.Finding) int {
		return strings.Compare(rank(a), rank(b))
	})
	return c.result
}

// level returns the level of a problem of an annotation file.
func level(k coco.Kind) string {
	switch k {
	case coco.OutsideImage, coco.EmptyBox, coco.DegenerateBox, coco.DuplicateName, coco.DuplicateField:
		return delivery.LevelWarning
	}
	return delivery.LevelError
}

// split reports problems of a split's annotations and files, and adds its images to those that are decoded.
func (c *checker) split(v *version, s *split, prefix string) {
	for _, p := range s.problems {
		c.finding(level(p.Kind), string(p.Kind), fmt.Sprintf("%s%s:%d: %s", prefix, AnnotationsFile, p.Line, p.Path),
			p.Text)
	}
	for _, im := range s.missing {
		c.finding(delivery.LevelError, "missing-file", prefix+AnnotationsFile,
			fmt.Sprintf("image %d names the file %q, which is not there", im.ID, im.FileName))
	}
	for _, im := range s.truth.Images {
		if file, ok := s.images[im.ID]; ok && v.files[file].size <= maxImage {
			c.decodes = append(c.decodes, imageFile{where: prefix + strings.TrimPrefix(file, s.name+"/"),
				path: v.path(file), image: im})
		}
	}
	listed := map[string]bool{}
	for _, file := range s.files() {
		listed[file] = true
	}
	for name := range v.files {
		if strings.HasPrefix(name, s.name+"/") && !listed[name] && path.Base(name) != AnnotationsFile {
			c.finding(delivery.LevelWarning, "unlisted-file", prefix+strings.TrimPrefix(name, s.name+"/"),
				"no image of the annotations names it; it is not used")
		}
	}
}

// labels compares the model's classes with the train split's categories.
func (c *checker) labels(splits map[string]*split) {
	train := splits["train"]
	if train == nil {
		return
	}
	objects := map[int64]int{}
	for _, a := range train.truth.Annotations {
		objects[a.Category]++
	}
	wanted := map[string]bool{}
	counts := map[string]int{}
	var names []string
	for _, cat := range train.truth.Categories {
		counts[cat.Name] += objects[cat.ID]
		names = append(names, cat.Name)
	}
	for _, class := range c.classes {
		n, known := 0, false
		for _, label := range class.Labels {
			wanted[label] = true
			n += counts[label]
			known = known || slices.Contains(names, label)
		}
		c.result.Truths[class.Name] = n
		where := "train/" + AnnotationsFile
		switch {
		case !known:
			c.finding(delivery.LevelError, "unknown-class", where,
				fmt.Sprintf("class %s: no category is named %s; the categories are %s", class.Name,
					strings.Join(class.Labels, " or "), strings.Join(names, ", ")))
		case n == 0:
			c.finding(delivery.LevelError, "empty-class", where, fmt.Sprintf("class %s has no object to learn from",
				class.Name))
		}
	}
	for _, name := range names {
		if !wanted[name] && counts[name] > 0 {
			c.finding(delivery.LevelWarning, "unused-category", "train/"+AnnotationsFile,
				fmt.Sprintf("category %s has %d objects and is not among the classes; they are left out", name,
					counts[name]))
		}
	}
}

// evalSet checks one eval set, records its content, and adds its images to heldOut.
func (c *checker) evalSet(ctx context.Context, catalog Catalog, v *version, splits map[string]*split,
	e delivery.EvalSet, heldOut map[string]string) error {
	bad := func(text string) { c.finding(delivery.LevelError, "eval-set", e.String(), text) }
	ev, s := v, splits[e.Split]
	own := e.Dataset == v.ref
	if !own {
		var err error
		if ev, err = catalog.open(ctx, e.Dataset); err != nil {
			return err
		}
	}
	if !own || s != nil && e.Group != "" { // the dataset's own split was read without groups
		var err error
		if s, _, err = ev.split(e.Split, e.Group); err != nil {
			bad(err.Error())
			return nil
		}
	}
	if s == nil {
		bad(fmt.Sprintf("there is no %s/%s", e.Split, AnnotationsFile))
		return nil
	}
	if !own {
		if err := ev.hash(ctx, s.files()); err != nil {
			return err
		}
		c.split(ev, s, e.Dataset.String()+" "+e.Split+"/")
	}
	if text := s.ungrouped(e.Group); text != "" {
		bad(text + "; every image needs it, as a text or a whole number")
		return nil
	}
	if thawed := ev.thawed(e, s); thawed != "" {
		bad(thawed + "; " + refreeze)
		return nil
	}
	data := ev.evalData(e, s, c.classes)
	if len(data.Content.Labels) == 0 {
		bad("has no object, so there is nothing to judge")
	}
	c.result.EvalSets = append(c.result.EvalSets, data.Content)
	if own && e.Split != "test" {
		return nil // an eval set of training images is reported by leaks
	}
	for _, file := range s.files() {
		for _, id := range identities(file, ev.files[file].sum) {
			heldOut[id] = e.String()
		}
		c.sets[ev.path(file)] = e.String()
	}
	return nil
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
func (c *checker) leaks(v *version, splits map[string]*split, heldOut map[string]string) {
	c.leftOut = map[string]map[int64]bool{"train": {}, "valid": {}}
	mark := func(s *split, code string, others map[string]string) {
		for id, file := range c.used(s) {
			for _, identity := range matches(file, v.files[file].sum) {
				if where, leaked := others[identity]; leaked {
					c.leftOut[s.name][id] = true
					c.finding(delivery.LevelWarning, code, file, "the same image is in "+where+
						"; it is left out of training")
					break
				}
			}
		}
	}
	for _, name := range []string{"train", "valid"} {
		if s := splits[name]; s != nil {
			mark(s, "leak", heldOut)
			n := len(c.leftOut[name])
			c.result.LeftOut += n
			if share := float64(n) / float64(max(1, len(s.images))); share > maxLeak {
				c.finding(delivery.LevelError, "leaks", name,
					fmt.Sprintf("%d of %d images (%.1f%%) are in an eval set; at most %.0f%% may be", n, len(s.images),
						share*100, maxLeak*100))
			}
		}
	}
	train, valid := splits["train"], splits["valid"]
	if train == nil || valid == nil {
		return
	}
	inValid := map[string]string{}
	for _, file := range valid.files() {
		for _, id := range identities(file, v.files[file].sum) {
			inValid[id] = "valid"
		}
	}
	mark(train, "split-leak", inValid)
}

// decode decodes every image, so that a damaged one is found before the training.
func (c *checker) decode(ctx context.Context, progress func(done, total int)) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	var mu sync.Mutex
	done := 0
	free := semaphore.NewWeighted(memory)
	type bad struct{ code, text string }
	found := make([]bad, len(c.decodes))
	for i, im := range c.decodes {
		g.Go(func() (err error) {
			found[i].code, found[i].text, c.decodes[i].hash, err = decodeImage(ctx, im, free)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			done++
			if progress != nil {
				progress(done, len(c.decodes))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, b := range found {
		if b.code != "" {
			c.finding(delivery.LevelError, b.code, c.decodes[i].where, b.text)
		}
	}
	return nil
}

// pointer reports whether a file is a Git LFS pointer.
func pointer(f *os.File) bool {
	const start = "version https://git-lfs.github.com/spec/"
	head := make([]byte, len(start))
	n, err := f.ReadAt(head, 0)
	return err == nil && string(head[:n]) == start
}

// decodeImage returns the code and text of a finding about an image, and the image's hash. Its error is the context's.
// free is memory that it shares with others.
func decodeImage(ctx context.Context, im imageFile, free *semaphore.Weighted) (code, text string, hash imageHash,
	err error) {
	if err := ctx.Err(); err != nil {
		return "", "", hash, err
	}
	f, err := os.Open(im.path)
	if err != nil {
		return "unreadable-image", pathless(err).Error(), hash, nil
	}
	defer f.Close()
	config, format, err := image.DecodeConfig(f)
	if err != nil {
		if pointer(f) {
			return "unreadable-image", "is a Git LFS pointer, not the image; run git lfs pull in the dataset's folder",
				hash, nil
		}
		return "unreadable-image", fmt.Sprintf("no JPEG or PNG: %v", err), hash, nil
	}
	if config.Width < 1 || config.Height < 1 || config.Width > math.MaxInt/config.Height ||
		config.Width*config.Height > maxPixels {
		return "too-large", fmt.Sprintf("%d x %d pixels, want at most %d in all", config.Width, config.Height,
			maxPixels), hash, nil
	}
	if (im.image.Width > 0 && im.image.Width != config.Width) || (im.image.Height > 0 &&
		im.image.Height != config.Height) {
		return "size-mismatch", fmt.Sprintf("the file has %d x %d pixels, its annotations say %d x %d", config.Width,
			config.Height, im.image.Width, im.image.Height), hash, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "unreadable-image", pathless(err).Error(), hash, nil
	}
	need := decoded(config, format, f)
	if need > maxMemory {
		return "too-large", fmt.Sprintf("%d x %d pixels take %s of memory when they are decoded, want at most %s; "+
			"save it with 8 bits a channel, not progressive or interlaced, or smaller",
			config.Width, config.Height, delivery.Bytes(need), delivery.Bytes(maxMemory)), hash, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "unreadable-image", pathless(err).Error(), hash, nil
	}
	err = spend(ctx, free, need, func() {
		picture, _, err := image.Decode(f)
		if err != nil {
			code, text = "truncated-image", fmt.Sprintf("damaged or truncated: %v", err)
			return
		}
		hash = hashImage(picture)
	})
	return code, text, hash, err
}
