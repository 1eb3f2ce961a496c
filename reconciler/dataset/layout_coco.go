package dataset

import (
	"bytes"
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// cocoFiles reads COCO annotation files with the images in other folders: COCO itself (annotations/instances_*.json
// beside train2017/ and val2017/), LVIS, Objects365, BDD100K, and the exports of CVAT
// (annotations/instances_default.json and images/) and Label Studio (result.json and images/).
func (v *version) cocoFiles() (*layout, error) {
	var found []subset
	own, _ := v.nativeLayout()
	for _, file := range v.names() {
		ofSplit := own != nil && slices.ContainsFunc(own.subsets, func(s subset) bool { return s.file == file })
		if !ofSplit && v.isCOCO(file) {
			split := cmp.Or(splitName(stem(path.Base(file))), splitName(path.Base(path.Dir(file)))) // train/labels.json
			found = append(found, subset{split: split, file: file})
		}
	}
	// COCO has several annotation files of the same images.
	best := slices.DeleteFunc(slices.Clone(found), func(s subset) bool {
		return !strings.Contains(path.Base(s.file), "instances")
	})
	if len(best) > 0 {
		found = best
	}
	if len(found) == 0 {
		return nil, nil
	}
	l := &layout{name: "COCO annotation files"}
	for _, s := range found {
		if len(found) > 1 && s.split == "" {
			do := "name them instances_train.json, instances_valid.json and instances_test.json, or leave only one " +
				"in the folder"
			if len(found) > len(splitNames) {
				do = "join them into one for each split: instances_train.json, instances_valid.json and " +
					"instances_test.json"
			}
			return nil, delivery.Blockedf(do, "%d COCO annotation files, and the name of %s does not say of "+
				"which split",
				len(found), s.file)
		}
		dirs := v.imageFolders(s)
		s.read = func(group string) (*split, error) {
			return v.cocoSplit(s.split, s.file, group, func(im coco.Image) (string, bool) {
				if im.FileName == "" {
					return "", false
				}
				return v.locate(im.FileName, dirs...)
			})
		}
		l.subsets = append(l.subsets, s)
	}
	return l, nil
}

// notBoxes are parts of names of COCO's files that have no boxes of objects.
var notBoxes = []string{"captions", "keypoints", "panoptic", "stuff", "image_info", "notes"}

// isCOCO reports whether a file begins like a COCO annotation file of boxes.
func (v *version) isCOCO(file string) bool {
	name := strings.ToLower(path.Base(file))
	if path.Ext(name) != ".json" || name == SplitsFile || slices.ContainsFunc(notBoxes, func(part string) bool {
		return strings.Contains(name, part)
	}) {
		return false
	}
	head := v.peek(file, 4096)
	if trimmed := bytes.TrimLeft(head, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return false
	}
	for _, field := range []string{`"images"`, `"annotations"`, `"categories"`, `"licenses"`, `"info"`} {
		if bytes.Contains(head, []byte(field)) {
			return !bytes.Contains(head, []byte(`"items"`)) // Datumaro's own format
		}
	}
	return false
}

// imageFolders returns the folders in which the images of an annotation file may be, the more likely ones first.
func (v *version) imageFolders(s subset) []string {
	dir := path.Dir(s.file)
	root := path.Dir(dir) // the parent of annotations/
	name := stem(path.Base(s.file))
	if _, after, ok := strings.Cut(name, "_"); ok && s.split != "" {
		name = after // train2017 for instances_train2017
	}
	var dirs []string
	for _, base := range []string{dir, root, "."} {
		for _, below := range []string{name, "images/" + name, cmp.Or(s.split, "."), "images/" + s.split, "images",
			"data", "."} {
			if d := path.Join(base, below); !slices.Contains(dirs, d) && len(v.below(d)) > 0 {
				dirs = append(dirs, d)
			}
		}
	}
	if s.split == "valid" {
		dirs = append(dirs, "val", "images/val")
	}
	return dirs
}
