// Package dataset reads datasets, computes their digests, checks them before a training, and writes the trainer's
// input.
//
// A dataset is a folder with images and labels, in a layout that a labelling tool or a public dataset has (layout.go).
// For each split, train, valid and optionally test, the reader of the layout yields the truths as COCO has them, and
// the file of each image. A dataset comes from a [Source]: a folder of this machine ([Dir]), or a storage from which it
// is fetched. Intent has no addresses: the first part of a reference is a name in the server's configuration
// ([Catalog]), and the rest is a path below it. Symbolic links are refused.
//
// Datasets are hostile input. Sizes are bounded, and images are decoded here before any
// other program reads them. All problems are reported as findings with their place.
//
//   - [Catalog.Check] does a data run: digest, findings, the prepared folder.
//   - [Catalog.EvalSet] opens one split to judge a model on.
//   - [Catalog.Describe], [Catalog.Stats] and [Catalog.Image] say what a dataset has, for people.
//
// # Image identity
//
// Two files are the same image if their bytes are equal, or if Roboflow made one of them from the other or both from
// one source: cells_JPG_jpg.rf.HASH.jpg has the source cells.jpg, whatever extensions tools have chained. Names are
// only a hint: two videos have a frame_1 each. So images of one source name that look clearly different, turned and
// mirrored in all ways (twins.go), are two images, and a warning. Equal names of two files without ".rf." do not count.
// Training images that are in an eval set are left out of training and counted; more than 5 % is an error.
//
// An image that only looks like one of an eval set is a warning with the pair, and is not left out.
//
// Within a split, two entries for one file and equal bytes under two names are one image. It counts once in training
// and in evaluation, with the boxes of the entry with the lowest id; other boxes are an error.
//
// # What counts
//
// Objects that are outside their image, or of which less than a pixel is inside, are neither learnt nor judged. Crowds
// are not learnt, and in evaluation detections of them are ignored. Counts are without all of these (use.go).
//
// # Training images
//
// A data run lists the training images ([delivery.TrainingImages]) in a file named by its digest, which is kept as long
// as the model. When the model is scored on another eval set, those images are left out: [EvalData.UsedInTraining].
//
// # Frozen eval sets
//
// An eval set may have the digest of its content ([delivery.EvalSet].Content, written by
// aob gate freeze after [Catalog.Freeze]): all bytes of its images and all its truths, of
// all classes. Other content under its name is refused.
package dataset

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// AnnotationsFile is the name of a split's truths.
const AnnotationsFile = "_annotations.coco.json"

// The limits of a dataset. Larger files are refused without reading them.
const (
	maxAnnotations = 1 << 30  // bytes of one annotation file
	maxImage       = 64 << 20 // bytes of one image
	maxPixels      = 64 << 20
	maxFiles       = 2_000_000
)

// pathless removes the server's paths from an error that is shown on a forge.
func pathless(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", filepath.Base(pe.Path), pe.Err)
	}
	return err
}

// A version is a dataset's folder and its list of files.
type version struct {
	ref     delivery.Dataset
	dir     string
	fetched *manifest        // nil if dir is the dataset itself
	root    *os.Root         // dir
	scenes  *regexp.Regexp   // see Catalog.Scenes
	files   map[string]*file // by slash path below dir

	// What [version.layout] and the readers found, once.
	lay        *layout
	layErr     error
	sorted     []string          // names of files
	byBase     map[string]string // images by base name
	assignment map[string]string // splits by image

	began time.Time // of the listing of the files
	fresh bool      // something was read that the memory lacks
}

// validPath reports whether a name is a path below a folder.
func validPath(name string) bool {
	return fs.ValidPath(name) && name != "." && !strings.ContainsRune(name, 0)
}

// noFiles is the error of a dataset with links, pipes or devices among its files.
type noFiles struct {
	dataset delivery.Dataset
	names   []string // at most maxOdd and one more
}

const (
	maxOdd = 100
	noFile = "is a symbolic link or no file"
)

func (e noFiles) Error() string { return e.Unwrap().Error() }

func (e noFiles) Unwrap() error {
	return delivery.Blockedf("put the file itself there", "dataset %s: %s %s", e.dataset, e.names[0], noFile)
}

// open lists a dataset. Links and devices in it are Blocked errors.
func (c Catalog) open(ctx context.Context, d delivery.Dataset) (*version, error) {
	dir, list, err := c.folder(ctx, d)
	if err != nil {
		return nil, err
	}
	v := &version{ref: d, dir: dir, fetched: list, scenes: c.Scenes, files: map[string]*file{}, began: time.Now()}
	if v.root, err = os.OpenRoot(dir); err != nil {
		return nil, fmt.Errorf("list dataset %s: %w", d, pathless(err))
	}
	var odd []string
	err = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if !e.Type().IsRegular() {
			if odd = append(odd, rel); len(odd) > maxOdd {
				return noFiles{d, odd}
			}
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		v.files[rel] = &file{size: info.Size(), stamp: stampOf(info)}
		if len(v.files) > maxFiles {
			return delivery.Blockedf("split the dataset", "dataset %s has more than %d files", d, maxFiles)
		}
		return nil
	})
	if err == nil && len(odd) > 0 {
		err = noFiles{d, odd}
	}
	if err != nil {
		if _, ok := errors.AsType[delivery.Blocked](err); ok {
			return nil, err
		}
		return nil, fmt.Errorf("list dataset %s: %w", d, pathless(err))
	}
	if v.fetched == nil {
		return v, nil
	}
	// Images are checked against the list when they are hashed. The readers of labels do not wait for that.
	labels := slices.DeleteFunc(slices.Collect(maps.Keys(v.files)), isImage)
	if err := v.hash(ctx, labels, nil); err != nil {
		return nil, err
	}
	return v, nil
}

func (v *version) path(name string) string { return filepath.Join(v.dir, filepath.FromSlash(name)) }

// content returns the dataset's digest: SHA-256 of the sorted files and their SHA-256.
func (v *version) content() delivery.Digest {
	h := sha256.New()
	for _, name := range v.names() {
		line := v.files[name].sum + "  " + name
		if strings.ContainsAny(name, "\n\\") { // so that no name looks like two lines; as sha256sum writes it
			line = `\` + strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(line)
		}
		fmt.Fprintln(h, line)
	}
	return delivery.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
}

// state returns the digest of [Catalog.State].
func (v *version) state() delivery.Digest {
	if v.fetched != nil {
		return delivery.DigestOf("fetched", v.fetched.ID)
	}
	h := sha256.New()
	for _, name := range v.names() {
		f := v.files[name]
		fmt.Fprintf(h, "%d %d %q\n", f.size, f.stamp.Modified, name)
	}
	return delivery.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
}

// State returns a digest that changes if a dataset does. Of a dataset that is read where it is, that is one of the
// names, sizes and times of its files; of others, one of what its source says of it. Nothing is fetched.
func (c Catalog) State(ctx context.Context, d delivery.Dataset) (delivery.Digest, error) {
	source, _, err := c.version(ctx, d)
	if err != nil {
		return "", err
	}
	if source.Folder == "" {
		return delivery.DigestOf("fetched", source.ID), nil
	}
	v, err := c.open(ctx, d)
	if err != nil {
		return "", err
	}
	return v.state(), nil
}

// Changed names a dataset of a data run that is not as it was when the run read it; "" if there is none.
// states is from its result. A folder that cannot be read any more has changed; a source that does not answer says
// nothing.
func (c Catalog) Changed(ctx context.Context, run delivery.DataRun, states map[string]delivery.Digest) string {
	names := []delivery.Dataset{run.Dataset}
	for _, e := range run.EvalSets {
		names = append(names, e.Dataset)
	}
	for _, d := range names {
		before, known := states[d.String()]
		if !known {
			continue
		}
		now, err := c.stateSoon(ctx, d)
		if _, blocked := errors.AsType[delivery.Blocked](err); err != nil && !blocked && d.Source != "dir" {
			continue
		}
		if ctx.Err() == nil && (err != nil || now != before) {
			return d.String()
		}
	}
	return ""
}

// askLimit is how long a source may take to say what version of a dataset it has, while others wait.
const askLimit = time.Minute

// stateSoon is State with a limit for sources on other machines, which may never answer.
func (c Catalog) stateSoon(ctx context.Context, d delivery.Dataset) (delivery.Digest, error) {
	if d.Source != "dir" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, askLimit)
		defer cancel()
	}
	return c.State(ctx, d)
}

// A split is a parsed split with the files of its images.
type split struct {
	name        string
	annotations string // the file that has the truths or lists the images
	dir         string // the folder that only this split uses, with a slash at its end; "" if there is none
	truth       *coco.Truth
	problems    []coco.Problem
	images      map[int64]string // existing files, by slash path below the version
	otherSize   map[int64]bool   // images whose file has another size; their boxes are not compared with it
	missing     []coco.Image
	faults      []fault         // what the layout's reader found
	copied      map[int64]int64 // what [version.copies] found
}

// ungrouped returns the problem of the first image without a group, or "".
func (s *split) ungrouped(group string) string {
	for _, p := range s.problems {
		if group != "" && strings.HasPrefix(p.Path, "images[") && strings.HasSuffix(p.Path, "."+group) {
			return fmt.Sprintf("image %q: %s: %s", p.File, group, p.Text)
		}
	}
	return ""
}

// byID returns the images of the split by their ids.
func (s *split) byID() map[int64]coco.Image {
	out := make(map[int64]coco.Image, len(s.truth.Images))
	for _, im := range s.truth.Images {
		out[im.ID] = im
	}
	return out
}

// files lists the split's image files, sorted, each once.
func (s *split) files() []string { return slices.Compact(slices.Sorted(maps.Values(s.images))) }

// mapped returns the truths of the model's classes, under the classes' names. Categories are numbered from 1 in the
// classes' order. All images are kept, also those without truths.
func mapped(t *coco.Truth, classes delivery.Classes) *coco.Truth {
	out := &coco.Truth{Images: byID(t.Images)}
	byLabel := map[string]int64{}
	for i, c := range classes {
		out.Categories = append(out.Categories, coco.Category{ID: int64(i + 1), Name: c.Name})
		for _, label := range c.Labels {
			byLabel[label] = int64(i + 1)
		}
	}
	category := map[int64]int64{}
	for _, c := range t.Categories {
		if id, ok := byLabel[c.Name]; ok {
			category[c.ID] = id
		}
	}
	for _, a := range t.Annotations {
		if id, ok := category[a.Category]; ok {
			a.Category = id
			out.Annotations = append(out.Annotations, a)
		}
	}
	return out
}

func byID(images []coco.Image) []coco.Image {
	return slices.SortedFunc(slices.Values(images), func(a, b coco.Image) int { return cmp.Compare(a.ID, b.ID) })
}

// An EvalImage is one image of an eval set.
type EvalImage struct {
	ID   int64
	Path string
	ids  []string // the identities under which it may be a training image
}

// EvalData is an opened eval set.
type EvalData struct {
	Content delivery.EvalSetContent
	Truth   *coco.Truth
	Images  []EvalImage // in id order
}

// evalSplit reads the split of an eval set, and computes the digests of its files.
func (c Catalog) evalSplit(ctx context.Context, e delivery.EvalSet) (*version, *split, error) {
	v, err := c.open(ctx, e.Dataset)
	if err != nil {
		return nil, nil, err
	}
	s, ok, err := v.split(e.Split, e.Group)
	switch {
	case err != nil:
		blocked, ok := errors.AsType[delivery.Blocked](err)
		if !ok {
			blocked = delivery.Blocked{What: err.Error(), Do: "correct the file"}
		}
		blocked.What = fmt.Sprintf("eval set %s: %s", e, blocked.What)
		return nil, nil, blocked
	case !ok:
		return nil, nil, delivery.Blockedf("check the name of the split", "eval set %s: %s", e, v.lacks(e.Split))
	case len(s.missing) > 0:
		return nil, nil, delivery.Blockedf("put the image there", "eval set %s: image %s is missing", e,
			s.missing[0].FileName)
	}
	for _, f := range s.faults {
		if f.code == codeNoImage {
			return nil, nil, delivery.Blockedf("put the image there", "eval set %s: %s %s", e, shown(f.where), f.text)
		}
	}
	if text := s.ungrouped(e.Group); text != "" {
		return nil, nil, delivery.Blockedf("give every image the field, or judge the images without group", "eval set "+
			"%s: %s", e, text)
	}
	return v, s, v.hash(ctx, s.files(), nil)
}

// EvalSet opens an eval set with a model's classes applied.
func (c Catalog) EvalSet(ctx context.Context, e delivery.EvalSet, classes delivery.Classes) (*EvalData, error) {
	v, s, err := c.evalSplit(ctx, e)
	if err != nil {
		return nil, err
	}
	if thawed := v.thawed(e, s); thawed != "" {
		return nil, delivery.Blocked{What: "eval set " + e.String() + " " + thawed, Do: refreeze}
	}
	return v.evalData(e, s, classes), nil
}

// evalData returns what of a split is judged. The digest of the truths is that of the whole file, unless something in
// it is not used.
func (v *version) evalData(e delivery.EvalSet, s *split, classes delivery.Classes) *EvalData {
	usable := v.usable(s)
	d := &EvalData{Truth: mapped(usable, classes)}
	h := sha256.New()
	for _, im := range d.Truth.Images {
		file, ok := s.images[im.ID]
		if !ok {
			continue
		}
		d.Images = append(d.Images, EvalImage{ID: im.ID, Path: v.path(file), ids: matches(file, v.files[file].sum)})
		fmt.Fprintf(h, "%d %s\n", im.ID, v.files[file].sum)
	}
	truths, groups := delivery.Digest(usable.Digest()), 0
	if e.Group != "" { // groups change the intervals
		names := delivery.Each(d.Truth.Images, func(im coco.Image) string { return im.Group })
		truths = delivery.DigestOf("groups", []any{truths, names})
		slices.Sort(names)
		groups = len(slices.Compact(names))
	}
	d.Content = delivery.EvalSetContent{EvalSet: e, Count: len(d.Images), Groups: groups, Truths: truths,
		Labels: labels(usable), Images: delivery.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))}
	return d
}
