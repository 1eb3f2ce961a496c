package dataset

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// The annotation file for the trainer. The order of fields is fixed, so equal truths give equal bytes.
type (
	preparedFile struct {
		Images      []preparedImage      `json:"images"`
		Annotations []preparedAnnotation `json:"annotations"`
		Categories  []preparedCategory   `json:"categories"`
	}
	preparedImage struct {
		ID       int    `json:"id"`
		FileName string `json:"file_name"`
		Width    int    `json:"width"`
		Height   int    `json:"height"`
	}
	preparedAnnotation struct {
		ID         int        `json:"id"`
		ImageID    int        `json:"image_id"`
		CategoryID int64      `json:"category_id"`
		BBox       [4]float64 `json:"bbox"`
		Area       float64    `json:"area"`
		IsCrowd    int        `json:"iscrowd"`
	}
	preparedCategory struct {
		ID   int64  `json:"id"`
		Name string `json:"name"`
	}
)

// prepare writes the trainer's input: train and valid with only the model's classes. An image's name is its digest.
// Leaked images, copies of images, crowds and empty boxes are left out, and boxes are clipped to their image. The input
// has no test split, no eval set and no original file names. prepare returns the input's digest.
func (c *checker) prepare(v *version, splits map[string]*split, out string) (delivery.Digest, error) {
	var parts []delivery.Digest
	err := durable.WriteFolder(out, func(partial string) error {
		for _, name := range preparedSplits {
			dir := filepath.Join(partial, name)
			if err := os.Mkdir(dir, 0o700); err != nil {
				return err
			}
			file, sources := c.prepared(v, splits[name])
			if len(file.Images) == 0 {
				return delivery.Blockedf("see the findings for the images that are left out",
					"split %s has no image left to train on", name)
			}
			data, err := json.Marshal(file)
			if err != nil {
				return err
			}
			for target, source := range sources {
				if err := durable.Link(source, filepath.Join(dir, target)); err != nil {
					return fmt.Errorf("prepare %s: %w", name, pathless(err))
				}
			}
			if err := os.WriteFile(filepath.Join(dir, AnnotationsFile), data, 0o600); err != nil {
				return err
			}
			parts = append(parts, delivery.Sum(data))
		}
		return os.RemoveAll(out)
	})
	return delivery.DigestOf("training", parts), err
}

// prepared returns a split's annotation file, and the source file of each image.
func (c *checker) prepared(v *version, s *split) (preparedFile, map[string]string) {
	truth := mapped(v.usable(s), c.classes)
	out := preparedFile{Images: []preparedImage{}, Annotations: []preparedAnnotation{}}
	for _, cat := range truth.Categories {
		out.Categories = append(out.Categories, preparedCategory{cat.ID, cat.Name})
	}
	sources := map[string]string{}
	place := map[int64]coco.Image{}
	number := map[int64]int{}
	for _, im := range truth.Images {
		file, ok := s.images[im.ID]
		if !ok || c.leftOut[s.name][im.ID] {
			continue
		}
		name := v.files[file].sum[:preparedName] + strings.ToLower(path.Ext(file))
		sources[name] = v.path(file)
		number[im.ID] = len(out.Images) + 1
		place[im.ID] = im
		out.Images = append(out.Images, preparedImage{len(out.Images) + 1, name, im.Width, im.Height})
	}
	for _, a := range truth.Annotations {
		im, ok := place[a.Image]
		if !ok || a.Crowd {
			continue
		}
		box, _ := inside(a.Box, im)
		out.Annotations = append(out.Annotations, preparedAnnotation{ID: len(out.Annotations) + 1,
			ImageID: number[a.Image], CategoryID: a.Category,
			BBox: [4]float64{box.X, box.Y, box.W, box.H}, Area: box.W * box.H})
	}
	return out, sources
}
