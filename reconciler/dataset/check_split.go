package dataset

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// An imageFile is an image that is decoded.
type imageFile struct {
	prefix string // of the split, for findings
	name   string // below the prefix
	at     string // below the dataset
	path   string
	open   opener
	file   *file
	image  coco.Image
	hash   imageHash

	unsized bool // the annotations do not say its size, which is a finding
}

func (im imageFile) where() string { return shown(im.prefix + im.name) }

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
				at: file, path: v.path(file), open: v.opener(file), file: v.files[file], image: im,
				unsized: said[im.FileName]})
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
		slash  bool // only the \ between folders differs
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
			if name != im.FileName && file == path.Join(s.name, name) {
				note(group{slash: true}, file)
			}
			note(group{folder: path.Dir(file)}, file)
		}
		for _, file := range lower[folded(path.Join(s.name, name))] {
			if path.Base(file) != path.Base(name) {
				note(group{folder: s.name, letter: true}, file)
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
		case best.slash:
			text += fmt.Sprintf("; %s there: write / for each \\ of file_name", these)
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
		if dataset == "" {
			c.gone = append(c.gone, absent{s.name, where, im})
		}
	}
	return files[best]
}

// An absent is an image of the annotations whose file is not there.
type absent struct {
	split, where string
	image        coco.Image
}

// An imagePair is two images that a check found to be the same, or to look the same.
type imagePair struct {
	code, where  string // of the finding
	image, other string // paths below the dataset
	sameBoxes    bool   // of copies
	apart        int    // bits in which their looks differ
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
		c.pairs = append(c.pairs, imagePair{code: code, where: where, image: s.images[id], other: s.images[first],
			sameBoxes: slices.Equal(content[id], content[first])})
		if !slices.Equal(content[id], content[first]) {
			c.finding(delivery.LevelError, code, where, fmt.Sprintf("%s, and their boxes differ (%d there, %d here): "+
				"put all boxes into one entry, and remove the other", same, len(content[first]), len(content[id])))
			continue
		}
		c.finding(delivery.LevelWarning, code, where, same+", with the same boxes; it counts once")
	}
}
