package dataset

// This file finds images that are in two splits, and in an eval set of a gate.

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// maxLeak is the largest share of a split's images that may also be in an eval set.
const maxLeak = 0.05

// A held image is in an eval set, or in valid.
type held struct {
	file   string
	where  string // for findings
	path   string
	labels []string
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
			other, text, leaked := c.match(v.path(file), labels[id], matches(file, v.files[file].sum), others)
			switch {
			case leaked:
				c.leftOut[s.name][first] = true
				n++
				c.finding(delivery.LevelWarning, code, shown(file), text+"; it is left out of training")
				c.pairs = append(c.pairs, imagePair{code: code, where: shown(file), image: file, other: other})
			case text != "":
				c.finding(delivery.LevelWarning, "same-name", shown(file), text)
				c.pairs = append(c.pairs, imagePair{code: "same-name", where: shown(file), image: file,
					other: other})
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

// match finds an image among others, by its identities. It returns the other one, a text about it, and whether they
// are the same image: files of one source name are not if they look clearly different.
func (c *checker) match(file string, labels, identities []string, others map[string][]held) (found, text string,
	same bool) {
	for _, identity := range identities {
		for _, other := range others[identity] {
			switch {
			case strings.HasPrefix(identity, "sha256:"):
				text = fmt.Sprintf("is the same file as %q", other.where)
				if other.path == file {
					text = "is in both splits" // as of CVAT, which numbers the frames of each video from 0
				}
				if !slices.Equal(labels, other.labels) {
					text += fmt.Sprintf(", and their boxes differ (%d there, %d here), so correct those there if they "+
						"are wrong", len(other.labels), len(labels))
				}
				return other.file, text, true
			case !c.looks[file].differs(c.looks[other.path]):
				return other.file, fmt.Sprintf("is made from the same source as %q, by its name", other.where), true
			case text == "":
				found, text = other.file, fmt.Sprintf("has the same source name as %q, but shows another picture, so "+
					"it counts as another image; remove it if it is made from that one", other.where)
			}
		}
	}
	return found, text, false
}
