package dataset

// This file finds images of one place and time in train and in the splits that judge. Such pictures are nearly the
// same, so a model that has learnt one knows the other.

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A scene is where and when an image was taken.
type scene struct {
	site string    // "" if it is not known
	at   time.Time // zero if it is not known
}

// scene returns where and when an image was taken: as its path says by the pattern, or else its annotation file.
func (v *version) scene(file string, im coco.Image) scene {
	site, at := im.Site, im.Time
	if v.scenes != nil {
		found := v.scenes.FindStringSubmatch(file)
		if found == nil {
			return scene{}
		}
		group := func(name string) string {
			if i := v.scenes.SubexpIndex(name); i >= 0 {
				return found[i]
			}
			return ""
		}
		site, at = group("site"), group("time")
	}
	return scene{site, moment(at)}
}

// moment reads a time of day in one of the forms that cameras and annotation files have; zero if it is none.
func moment(text string) time.Time {
	text = strings.TrimSpace(text)
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil && len(text) == len("1700000000") {
		return time.Unix(seconds, 0).UTC()
	}
	for _, form := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006:01:02 15:04:05",
		"20060102_150405", "20060102-150405", "20060102T150405", "20060102150405", "2006-01-02_15-04-05",
		"2006-01-02-15-04-05"} {
		if at, err := time.Parse(form, text); err == nil && at.Year() > 1970 {
			return at.UTC()
		}
	}
	return time.Time{}
}

// tooClose is how soon after another an image shows nearly the same.
const tooClose = time.Minute

// A taken is an image with its scene.
type taken struct {
	scene
	split, file string
}

// A closePair is an image of train, and one of valid or test that was taken soon before or after it.
type closePair struct {
	file, other string
	apart       time.Duration
}

// A siteUse says how many images of a site are learnt from, or judge.
type siteUse struct {
	site, use string
	images    int
}

// scenes reports sites with images in train and in valid or test, and images of train that were taken soon before or
// after one of those.
func (c *checker) scenes(v *version, splits map[string]*split) {
	var list []taken
	times := map[time.Time]bool{}
	timed := 0
	for _, name := range splitNames {
		s := splits[name]
		if s == nil {
			continue
		}
		images := s.byID()
		for id, file := range c.used(s) {
			if at := v.scene(file, images[id]); at != (scene{}) {
				list = append(list, taken{at, name, file})
				if !at.at.IsZero() {
					timed++
					times[at.at] = true
				}
			}
		}
	}
	type counts struct{ train, valid, test int }
	sites := map[string]*counts{}
	for _, t := range list {
		if t.site == "" {
			continue
		}
		if sites[t.site] == nil {
			sites[t.site] = &counts{}
		}
		switch n := sites[t.site]; t.split {
		case "train":
			n.train++
		case "valid":
			n.valid++
		default:
			n.test++
		}
	}
	for _, site := range slices.Sorted(maps.Keys(sites)) {
		n := sites[site]
		if n.train > 0 {
			c.sites = append(c.sites, siteUse{site, "train", n.train})
		}
		if n.valid+n.test > 0 {
			c.sites = append(c.sites, siteUse{site, "valid or test", n.valid + n.test})
		}
		if n.train > 0 && n.valid+n.test > 0 {
			c.finding(delivery.LevelWarning, "site-leak", "site "+strconv.Quote(site), fmt.Sprintf("has %s in train, "+
				"%d in valid and %d in test: a model does better there than at a new site; put all images of a site "+
				"into one split", delivery.Count(n.train, "image"), n.valid, n.test))
		}
	}
	// Labelling tools write the time of the upload, which is the same for all or many images and says nothing.
	if 2*len(times) < timed {
		return
	}
	list = slices.DeleteFunc(list, func(t taken) bool { return t.at.IsZero() })
	slices.SortStableFunc(list, func(a, b taken) int {
		return cmp.Or(strings.Compare(a.site, b.site), a.at.Compare(b.at))
	})
	nearest := make([]int, len(list)) // image of valid or test beside an image of train; -1 without one
	for i := range list {
		nearest[i] = -1
	}
	look := func(indexes iter.Seq2[int, taken]) {
		last := -1
		for i, t := range indexes {
			if t.split != "train" {
				last = i
				continue
			}
			if last < 0 || list[last].site != t.site {
				continue
			}
			apart := list[last].at.Sub(t.at).Abs()
			if apart < tooClose && (nearest[i] < 0 || apart < list[nearest[i]].at.Sub(t.at).Abs()) {
				nearest[i] = last
			}
		}
	}
	look(slices.All(list))
	look(slices.Backward(list))
	for i, t := range list {
		if nearest[i] < 0 {
			continue
		}
		other := list[nearest[i]]
		apart := other.at.Sub(t.at).Abs()
		c.close = append(c.close, closePair{t.file, other.file, apart})
		where := ""
		if t.site != "" {
			where = ", at the site " + strconv.Quote(t.site)
		}
		c.finding(delivery.LevelWarning, "time-leak", shown(t.file), fmt.Sprintf("was taken %s apart from %q of %s%s; "+
			"put both into one split", apart, other.file, other.split, where))
	}
}
