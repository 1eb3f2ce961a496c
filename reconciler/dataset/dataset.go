// Package dataset reads datasets in COCO layout, names them by their content,
// checks them before anything is trained, and makes what a trainer gets.
//
// A dataset is a folder with a folder for each split, train, valid and
// optionally test, that holds _annotations.coco.json and the images it names.
// It comes from a [Source]: a folder of this machine ([Dir]), or a storage from
// which it is fetched. Intent never holds an address: the first part of a reference
// is a name in the server's configuration ([Catalog]), and the rest may only go
// down from there. Symbolic links are refused wherever they stand.
//
// Everything in a dataset is hostile input: sizes are bounded, images are
// decoded here before anybody else meets them, and what is wrong is reported as
// findings with a place, all of them, rather than as the first error.
//
//   - [Catalog.Check] is a data run: digest, findings, the prepared folder.
//   - [Catalog.EvalSet] opens one split to judge a model on.
//
// # Image identity
//
// Two files are the same image if their bytes are equal, or if Roboflow made one
// of them from the other or both from one source: cells_jpg.rf.HASH.jpg names its
// source, cells.jpg, before ".rf.". Of two files without ".rf." equal names say
// nothing: every camera has a frame_1.jpg. Training images that stand in an eval
// set are left out of training and counted; above 5 % that is an error.
//
// An image that merely looks like one of an eval set, by a hash of its brightness
// ([twins.go]), is a warning with the pair, and stays.
//
// # What a model has seen
//
// A data run lists the images that the trainer gets ([delivery.TrainingImages]), in a
// file that is named by its digest and kept as long as the model. Whoever scores
// the model on an eval set of another day leaves those images out:
// [EvalData.UsedInTraining].
//
// # Frozen eval sets
//
// An eval set may say what it holds ([delivery.EvalSet].Content, written by aob gate
// freeze after [Catalog.Freeze]): every byte of its images and all its truths,
// whatever a model's classes. Anything else under its name is refused.
package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// AnnotationsFile is the name of a split's truths.
const AnnotationsFile = "_annotations.coco.json"

// What is refused unread.
const (
	maxAnnotations = 1 << 30  // bytes of one annotation file
	maxImage       = 64 << 20 // bytes of one image
	maxPixels      = 64 << 20
	maxFiles       = 2_000_000
)

// pathless takes the server's paths out of an error that people on a forge read.
func pathless(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", filepath.Base(pe.Path), pe.Err)
	}
	return err
}

// A version is one dataset folder, listed.
type version struct {
	ref   delivery.Dataset
	dir   string
	files map[string]*file // by slash path below dir
}

// A file of a dataset.
type file struct {
	size int64
	sum  string // hex SHA-256, once hashed
}

// open lists a dataset. Links and devices in it are Blocked errors.
func (c Catalog) open(ctx context.Context, d delivery.Dataset) (*version, error) {
	dir, err := c.folder(ctx, d)
	if err != nil {
		return nil, err
	}
	v := &version{ref: d, dir: dir, files: map[string]*file{}}
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
			return delivery.Blockedf("put the file itself there", "dataset %s: %s is a symbolic link or no file", d,
				rel)
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		v.files[rel] = &file{size: info.Size()}
		if len(v.files) > maxFiles {
			return delivery.Blockedf("split it", "dataset %s has more than %d files", d, maxFiles)
		}
		return nil
	})
	if err != nil {
		if _, ok := errors.AsType[delivery.Blocked](err); ok {
			return nil, err
		}
		return nil, fmt.Errorf("list dataset %s: %w", d, pathless(err))
	}
	return v, nil
}

// hash fills the files' digests, in parallel.
func (v *version) hash(ctx context.Context, names []string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, name := range names {
		f := v.files[name]
		if f.sum != "" {
			continue
		}
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			in, err := os.Open(v.path(name))
			if err != nil {
				return fmt.Errorf("dataset %s: %w", v.ref, pathless(err))
			}
			defer in.Close()
			h := sha256.New()
			if _, err := io.Copy(h, in); err != nil {
				return fmt.Errorf("dataset %s: %w", v.ref, pathless(err))
			}
			f.sum = hex.EncodeToString(h.Sum(nil))
			return nil
		})
	}
	return g.Wait()
}

func (v *version) path(name string) string { return filepath.Join(v.dir, filepath.FromSlash(name)) }

// content is the dataset's digest: the sorted file list with per-file SHA-256.
func (v *version) content() delivery.Digest {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(v.files)) {
		fmt.Fprintf(h, "%s  %s\n", v.files[name].sum, name)
	}
	return delivery.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
}

// A split is one split, parsed, with the files of its images.
type split struct {
	name     string
	truth    *coco.Truth
	problems []coco.Problem
	images   map[int64]string // file below the version, of those that are there
	missing  []coco.Image
}

// split reads a split's annotations, and of images the field that group names, if
// it does. It reports false where there is none.
func (v *version) split(name, group string) (*split, bool, error) {
	annotations := name + "/" + AnnotationsFile
	f, ok := v.files[annotations]
	if !ok {
		return nil, false, nil
	}
	if f.size > maxAnnotations {
		return nil, true, fmt.Errorf("%s: %d bytes, want at most %d", annotations, f.size, maxAnnotations)
	}
	in, err := os.Open(v.path(annotations))
	if err != nil {
		return nil, true, pathless(err)
	}
	defer in.Close()
	truth, problems, err := coco.Loader{Group: group}.ReadTruthLenient(in)
	if err != nil {
		return nil, true, fmt.Errorf("%s: %w", annotations, err)
	}
	s := &split{name: name, truth: truth, problems: problems, images: map[int64]string{}}
	for _, im := range truth.Images {
		file := path.Join(name, im.FileName)
		if _, ok := v.files[file]; ok && im.FileName != "" && fs.ValidPath(im.FileName) {
			s.images[im.ID] = file
		} else {
			s.missing = append(s.missing, im)
		}
	}
	return s, true, nil
}

// ungrouped matches the problem of an image that says nothing of its group.
func ungrouped(group string) func(coco.Problem) bool {
	return func(p coco.Problem) bool {
		return strings.HasPrefix(p.Path, "images[") && strings.HasSuffix(p.Path, "."+group)
	}
}

// files lists the split's image files, sorted, each once.
func (s *split) files() []string {
	return slices.Compact(slices.Sorted(maps.Values(s.images)))
}

// labels lists the categories that the split has truths of, sorted.
func (s *split) labels() []string {
	used := map[int64]bool{}
	for _, a := range s.truth.Annotations {
		used[a.Category] = true
	}
	labels := []string{}
	for _, c := range s.truth.Categories {
		if used[c.ID] {
			labels = append(labels, c.Name)
		}
	}
	slices.Sort(labels)
	return slices.Compact(labels)
}

// mapped returns the truths of the classes asked for, under the classes' names,
// categories numbered from 1 in the classes' order. Images stay, all of them: an
// image without objects is a truth too.
func mapped(t *coco.Truth, classes delivery.Classes) *coco.Truth {
	out := &coco.Truth{Images: slices.Clone(t.Images)}
	slices.SortFunc(out.Images, func(a, b coco.Image) int { return int(min(max(a.ID-b.ID, -1), 1)) })
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

// An EvalImage is one image of an eval set.
type EvalImage struct {
	ID   int64
	Path string
	asks []string // under which names a training may have seen it
}

// EvalData is an opened eval set.
type EvalData struct {
	Content delivery.EvalSetContent
	Truth   *coco.Truth
	Images  []EvalImage // in id order
}

// EvalSet opens an eval set with a model's classes applied.
func (c Catalog) EvalSet(ctx context.Context, e delivery.EvalSet, classes delivery.Classes) (*EvalData, error) {
	v, err := c.open(ctx, e.Dataset)
	if err != nil {
		return nil, err
	}
	s, ok, err := v.split(e.Split, e.Group)
	if err != nil {
		return nil, delivery.Blockedf("mend the file", "eval set %s: %v", e, err)
	}
	if !ok {
		return nil, delivery.Blockedf("check the name of the split", "eval set %s: there is no %s/%s", e, e.Split,
			AnnotationsFile)
	}
	if e.Group != "" && slices.ContainsFunc(s.problems, ungrouped(e.Group)) {
		return nil, delivery.Blockedf("give every image the field, or leave group: out of the gate",
			"eval set %s: an image has no %s", e, e.Group)
	}
	if len(s.missing) > 0 {
		return nil, delivery.Blockedf("put the image there", "eval set %s: image %s is missing", e,
			s.missing[0].FileName)
	}
	if err := v.hash(ctx, s.files()); err != nil {
		return nil, err
	}
	if thawed := v.thawed(e, s); thawed != "" {
		return nil, delivery.Blocked{What: "eval set " + e.String() + " " + thawed, Do: refreeze}
	}
	return v.evalData(e, s, classes), nil
}

func (v *version) evalData(e delivery.EvalSet, s *split, classes delivery.Classes) *EvalData {
	d := &EvalData{Truth: mapped(s.truth, classes)}
	h := sha256.New()
	for _, im := range d.Truth.Images {
		file, ok := s.images[im.ID]
		if !ok {
			continue
		}
		d.Images = append(d.Images, EvalImage{ID: im.ID, Path: v.path(file), asks: matches(file, v.files[file].sum)})
		fmt.Fprintf(h, "%d %s\n", im.ID, v.files[file].sum)
	}
	truths := delivery.Digest(s.truth.Digest())
	if e.Group != "" { // which images go together decides intervals
		groups := make([]string, len(d.Truth.Images))
		for i, im := range d.Truth.Images {
			groups[i] = im.Group
		}
		truths = delivery.DigestOf("groups", []any{truths, groups})
	}
	d.Content = delivery.EvalSetContent{EvalSet: e, Count: len(d.Images), Truths: truths, Labels: s.labels(),
		Images: delivery.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))}
	return d
}
