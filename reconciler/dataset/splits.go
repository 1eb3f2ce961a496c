package dataset

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// SplitsFile is the file in a dataset that says in which split each image is. [WriteSplits] writes it for exports of
// labelling tools, which have all images in one set.
const SplitsFile = "splits.json"

// Splits lists images by split, as slash paths below the dataset.
type Splits struct {
	Train []string `json:"train"`
	Valid []string `json:"valid"`
	Test  []string `json:"test"`
}

func (s *Splits) lists() map[string]*[]string {
	return map[string]*[]string{"train": &s.Train, "valid": &s.Valid, "test": &s.Test}
}

// assigned returns the split of each image by splits.json; nil if there is no such file.
func (v *version) assigned() (map[string]string, error) {
	if v.files[SplitsFile] == nil || v.assignment != nil {
		return v.assignment, nil
	}
	data, err := v.read(SplitsFile, maxAnnotations)
	if err != nil {
		return nil, err
	}
	s, err := readSplits(data)
	if err != nil {
		return nil, delivery.Blockedf("correct it, or remove it and run aob data split", "%s: %v", SplitsFile, err)
	}
	v.assignment = map[string]string{}
	for name, list := range s.lists() {
		for _, image := range *list {
			v.assignment[image] = name
		}
	}
	return v.assignment, nil
}

// readSplits reads splits.json.
func readSplits(data []byte) (Splits, error) {
	var s Splits
	if err := json.Unmarshal(data, &s); err != nil {
		return s, err
	}
	seen := map[string]string{}
	for _, name := range splitNames {
		for _, image := range *s.lists()[name] {
			if !validPath(image) {
				return s, fmt.Errorf("%s: %s is not the path of a file below the dataset", name, quote(image))
			}
			if other, twice := seen[image]; twice {
				return s, fmt.Errorf("image %s is in %s and in %s", quote(image), other, name)
			}
			seen[image] = name
		}
	}
	return s, nil
}

// unsplit returns the subset of a dataset whose files do not divide it into splits.
func (l *layout) unsplit() (subset, bool) {
	i := slices.IndexFunc(l.subsets, func(s subset) bool { return s.split == "" })
	if i < 0 {
		return subset{}, false
	}
	return l.subsets[i], true
}

// split reads a split, with the images' field group if that is not empty. It reports false if the split does not exist.
func (v *version) split(name, group string) (*split, bool, error) {
	if err := v.readable(); err != nil {
		return nil, false, err
	}
	l, _ := v.layout()
	if assigned, _ := v.assigned(); assigned != nil {
		return v.assignedSplit(l, assigned, name, group)
	}
	for _, s := range l.subsets {
		if s.split == name {
			out, err := s.read(group)
			return out, true, err
		}
	}
	return nil, false, nil
}

// assignedSplit reads the images that splits.json gives to a split.
func (v *version) assignedSplit(l *layout, assigned map[string]string, name, group string) (*split, bool, error) {
	var out *split
	for _, sub := range l.subsets {
		s, err := sub.read(group)
		if err != nil {
			return nil, true, err
		}
		if s.only(name, assigned); len(s.truth.Images) == 0 {
			continue
		}
		if out != nil {
			return nil, true, delivery.Blockedf("let each split have images of one of them",
				"%s puts images of %s and of %s "+
					"into %s", SplitsFile, out.annotations, sub.file, name)
		}
		s.name, s.dir = name, ""
		out = s
	}
	if out == nil {
		return nil, false, nil
	}
	for _, file := range slices.Sorted(maps.Keys(assigned)) {
		if assigned[file] == name && v.files[file] == nil {
			out.faults = listFault(out.faults, fault{delivery.LevelError, codeNoImage, SplitsFile,
				fmt.Sprintf("names the image %s in %s, which is not there; put it there, or run aob data split "+
					"again", quote(file), name), file})
		}
	}
	return out, true, nil
}

// only removes the images of other splits, with their truths and problems. An image without a split is a fault, which
// stays with train, as the problems do that belong to no image. What a reader
// found that belongs to no image stays with each split: it may be an image of any.
func (s *split) only(name string, assigned map[string]string) {
	all := name == "train"
	keep := map[int64]bool{}
	for _, im := range s.truth.Images {
		file, there := s.images[im.ID]
		in, known := assigned[file]
		if keep[im.ID] = in == name || all && !there; known || !there {
			continue
		}
		if all {
			s.faults = listFault(s.faults, fault{delivery.LevelError, codeNoSplit, file, SplitsFile +
				" does not name it; run aob data split again, which keeps the others where they are", file})
		}
	}
	s.faults = slices.DeleteFunc(slices.Clone(s.faults), func(f fault) bool {
		in, known := assigned[f.image]
		return known && in != name || !known && f.image != "" && !all
	})
	named := map[string]bool{} // by file_name: whether the image is in the split
	for _, im := range s.truth.Images {
		named[im.FileName] = named[im.FileName] || keep[im.ID]
	}
	other := map[int64]bool{} // annotations of other splits
	s.truth.Images = slices.DeleteFunc(s.truth.Images, func(im coco.Image) bool { return !keep[im.ID] })
	annotations, numbers := s.truth.Annotations[:0], s.truth.Numbers[:0]
	for i, a := range s.truth.Annotations {
		if other[a.ID] = !keep[a.Image]; keep[a.Image] {
			annotations, numbers = append(annotations, a), append(numbers, s.truth.Numbers[i])
		}
	}
	s.truth.Annotations, s.truth.Numbers = annotations, numbers
	s.missing = slices.DeleteFunc(s.missing, func(im coco.Image) bool { return !keep[im.ID] })
	maps.DeleteFunc(s.images, func(id int64, _ string) bool { return !keep[id] })
	s.problems = slices.DeleteFunc(s.problems, func(p coco.Problem) bool {
		if p.Kind == coco.MoreProblems {
			return false // it may be of any split
		}
		if here, listed := named[p.File]; listed && p.File != "" {
			return !here
		}
		elsewhere, known := other[p.ID]
		if len(p.Path) > 6 && p.Path[:6] == "images" {
			kept, listed := keep[p.ID]
			return listed && !kept || !listed && !all
		}
		return known && elsewhere || !known && !all
	})
}

// Shares is how a dataset of so many images is divided into train, valid and test, in percent. A gate decides
// nothing on fewer test images than an interval needs, so a small dataset gives more of its images to test.
func Shares(images int) [3]int {
	test := 15
	if enough := (100*(coco.MinUnits+1) + images - 1) / max(1, images); enough > test {
		test = min(enough, 40)
	}
	return [3]int{85 - test, 15, test}
}

// WriteSplits divides the images of a dataset's folder into train, valid and test, in shares of parts, and writes
// splits.json. Images that the file names already stay where they are. Images of one picture, as copies of a file or
// those that Roboflow made from one source, come into one split; the order of pictures is that of the SHA-256 of their
// names, so everybody divides in the same way. Where the dataset's files have a split valid or test, its images stay in
// it. progress may be nil.
func WriteSplits(ctx context.Context, dir string, shares [3]int, progress Progress) (Splits, error) {
	var out Splits
	v, err := openFolder(ctx, dir)
	if err != nil {
		return out, err
	}
	l, err := v.layout()
	if err != nil {
		return out, err
	}
	assigned, err := v.assigned()
	if err != nil {
		return out, err
	}
	total := shares[0] + shares[1] + shares[2]
	if total <= 0 || min(shares[0], shares[1], shares[2]) < 0 {
		return out, delivery.Blockedf("give shares as 70,15,15",
			"the shares of train, valid and test must be from 0 up, with one above 0")
	}
	var files []string
	known := map[string]string{} // split by file
	own := map[string]bool{}     // splits of the dataset's own, which get no other images
	for _, sub := range l.subsets {
		own[sub.split] = sub.split == "valid" || sub.split == "test"
		s, err := sub.read("")
		if err != nil {
			return out, err
		}
		for _, file := range s.files() {
			known[file] = assigned[file]
			if known[file] == "" && own[sub.split] {
				known[file] = sub.split
			}
			files = append(files, file)
		}
	}
	if err := v.hash(ctx, files, progress); err != nil {
		return out, err
	}
	lists := out.lists()
	pictures := v.pictures(files)
	have := map[string]string{}   // split by picture
	open := map[string][]string{} // images by picture that are in no split
	put := func(file, name string) {
		have[pictures[file]] = name
		*lists[name] = append(*lists[name], file)
	}
	for _, file := range files {
		if name := known[file]; name != "" {
			put(file, name)
		} else {
			open[pictures[file]] = append(open[pictures[file]], file)
		}
	}
	ordered := slices.SortedFunc(maps.Keys(open), func(a, b string) int {
		x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
		return cmp.Or(slices.Compare(x[:], y[:]), cmp.Compare(a, b))
	})
	for _, picture := range ordered {
		name := have[picture]
		if name == "" {
			name = lacking(lists, own, shares, len(open[picture]))
		}
		for _, file := range open[picture] {
			put(file, name)
		}
	}
	for _, list := range lists {
		slices.Sort(*list)
		if *list == nil {
			*list = []string{}
		}
	}
	data, err := json.MarshalIndent(out, "", " ")
	if err != nil {
		return out, err
	}
	return out, durable.WriteFile(filepath.Join(dir, SplitsFile), append(data, '\n'), 0o644)
}

// pictures names the picture of each image: the first of all source names that are joined by equal files. The files
// must be hashed.
func (v *version) pictures(files []string) map[string]string {
	joined := map[string]string{} // source names, each with a smaller name of the same picture
	first := func(name string) string {
		start := name
		for joined[name] != "" {
			name = joined[name]
		}
		if start != name {
			joined[start] = name
		}
		return name
	}
	bySum := map[string]string{}
	for _, file := range files {
		sum, name := v.files[file].sum, first(sourceName(file))
		if other := first(bySum[sum]); sum != "" && other != "" && other != name {
			joined[max(name, other)] = min(name, other)
		}
		bySum[sum] = name
	}
	out := map[string]string{}
	for _, file := range files {
		out[file] = first(sourceName(file))
	}
	return out
}

// lacking returns the split that lacks the most images of its share when so many more are divided.
func lacking(lists map[string]*[]string, own map[string]bool, shares [3]int, more int) string {
	images, total := more, 0
	for i, name := range splitNames {
		if !own[name] {
			images, total = images+len(*lists[name]), total+shares[i]
		}
	}
	found, worst := "train", 0.0
	for i, name := range splitNames {
		if lack := float64(images*shares[i])/float64(max(total, 1)) - float64(len(*lists[name])); !own[name] &&
			shares[i] > 0 && lack > worst {
			found, worst = name, lack
		}
	}
	return found
}

// sourceName returns the name of the picture from which an image was made.
func sourceName(file string) string {
	name, made := source(file)
	if !made {
		name = file // two folders may have a frame_1.jpg each
	}
	return path.Clean(name)
}
