package dataset

// This file compares a dataset with the version before: shares of labels, boxes an image, sizes of boxes and images.
//
// Boxes of one image, and images of one camera, are alike. A test that takes them as independent finds drift between
// two halves of one dataset. So the unit of the test is a cluster: all images of a site if sites are known, or else a
// picture. Each measure is a ratio of two sums over clusters, as boxes of a label to all boxes, and the variance of its
// change is that of the sum of what each cluster contributes ("linearization"; Cochran, Sampling Techniques, 1977).
// Clusters that both versions have contribute their change only, so two versions may share images.

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

const (
	driftAlpha    = 0.001         // how often a check may report drift where there is none, over all measures
	driftClusters = coco.MinUnits // that must have changed: with fewer nothing is said
	driftShare    = 0.02          // least change of a share
	driftRelative = 0.2           // least change, as a part of the value before
)

// A ratio is two sums of a version by cluster: what is measured, and what it is divided by. A cluster without an entry
// has 0.
type ratio struct{ top, bottom map[string]float64 }

// A driftOf is a measure in two versions.
type driftOf struct {
	code, what  string
	before, now float64
	z, limit    float64 // the change in standard errors, and how many of these count
	clusters    int     // that changed
	small       bool    // the change is too small to matter
}

// found reports whether the measure has changed.
func (d driftOf) found() bool { return !d.small && math.Abs(d.z) > d.limit }

// compare computes the change of one measure, for the clusters of both versions. It reports false if nothing can be
// said.
func compare(before, now ratio, clusters []string) (d driftOf, ok bool) {
	total := func(of map[string]float64) (sum float64) {
		for _, name := range clusters {
			sum += of[name]
		}
		return sum
	}
	divided, by := total(before.bottom), total(now.bottom)
	if divided == 0 || by == 0 {
		return d, false
	}
	d.before, d.now = total(before.top)/divided, total(now.top)/by
	variance := 0.0
	for _, name := range clusters {
		then := (before.top[name] - float64(d.before*before.bottom[name])) / divided
		u := (now.top[name]-float64(d.now*now.bottom[name]))/by - then
		variance += float64(u * u)
		if before.top[name] != now.top[name] || before.bottom[name] != now.bottom[name] {
			d.clusters++
		}
	}
	if n := float64(len(clusters)); n > 1 {
		variance *= n / (n - 1)
	}
	if d.now != d.before {
		d.z = (d.now - d.before) / math.Sqrt(variance)
	}
	return d, d.clusters >= driftClusters && !math.IsNaN(d.z)
}

// A measure is a figure of a dataset, with the code of its finding.
type measure struct{ code, what string }

// The measures that are no share of a label.
const (
	boxesAnImage = "boxes an image"
	sideOfBoxes  = "the side of boxes"
	sideOfImages = "the side of images"
)

// measures computes the sums of a version. Its files are hashed.
func (v *version) measures(splits []*split) map[measure]ratio {
	images, boxes, boxSides, imageSides := map[string]float64{}, map[string]float64{}, map[string]float64{},
		map[string]float64{}
	out := map[measure]ratio{
		{"label-drift", boxesAnImage}: {boxes, images},
		{"box-drift", sideOfBoxes}:    {boxSides, boxes},
		{"image-drift", sideOfImages}: {imageSides, images},
	}
	for _, s := range splits {
		usable, label := v.usable(s), map[int64]map[string]float64{}
		for _, cat := range usable.Categories {
			key := measure{"label-drift", "label " + strconv.Quote(cat.Name)}
			if _, known := out[key]; !known {
				out[key] = ratio{map[string]float64{}, boxes}
			}
			label[cat.ID] = out[key].top
		}
		cluster := map[int64]string{}
		for _, im := range usable.Images {
			file, there := s.images[im.ID]
			w, h := 0, 0
			if there {
				w, h = v.size(file)
			}
			if w == 0 || h == 0 {
				continue
			}
			name, made := source(file)
			switch at := v.scene(file, im); {
			case at.site != "":
				name = "site " + at.site
			case made:
				name = "source " + name
			default:
				name = v.files[file].sum
			}
			cluster[im.ID] = name
			images[name]++
			imageSides[name] += math.Log2(math.Sqrt(float64(w) * float64(h)))
		}
		for _, a := range usable.Annotations {
			if name, there := cluster[a.Image]; there && !a.Crowd {
				boxes[name]++
				boxSides[name] += math.Log2(math.Sqrt(a.Box.W * a.Box.H))
				label[a.Category][name]++
			}
		}
	}
	return out
}

// drifts compares two versions.
func drifts(before, now map[measure]ratio) []driftOf {
	names := map[string]bool{}
	images := measure{"label-drift", boxesAnImage}
	for _, version := range []map[measure]ratio{before, now} {
		for name := range version[images].bottom {
			names[name] = true
		}
	}
	clusters := slices.Sorted(maps.Keys(names))
	all := maps.Clone(before)
	maps.Copy(all, now)
	var out []driftOf
	for _, key := range slices.SortedFunc(maps.Keys(all), func(a, b measure) int {
		if a, b := strings.HasPrefix(a.what, "label "), strings.HasPrefix(b.what, "label "); a != b {
			return map[bool]int{true: 1, false: -1}[a] // labels last: there may be too many
		}
		return strings.Compare(a.what, b.what)
	}) {
		then, this := before[key], now[key]
		if strings.HasPrefix(key.what, "label ") { // one that a version lacks has no box there
			boxes := measure{"box-drift", sideOfBoxes}
			then.bottom, this.bottom = before[boxes].bottom, now[boxes].bottom
		}
		d, ok := compare(then, this, clusters)
		if !ok || len(out) == maxDrifts {
			continue
		}
		d.code, d.what = key.code, key.what
		change := math.Abs(d.now - d.before)
		switch key.what {
		case sideOfBoxes, sideOfImages:
			d.small = change < math.Log2(1+driftRelative)
			d.before, d.now = math.Exp2(d.before), math.Exp2(d.now)
		case boxesAnImage:
			d.small = change < driftRelative*d.before
		default:
			d.small = change < driftShare || change < driftRelative*max(d.before, d.now)
		}
		out = append(out, d)
	}
	for i := range out {
		out[i].limit = math.Sqrt2 * math.Erfinv(1-driftAlpha/float64(len(out)))
	}
	return out
}

// maxDrifts is how many measures are compared: the time grows with their number.
const maxDrifts = 200

// drift reports what has changed since the version before, in all splits together.
func (c *checker) drift(ctx context.Context, before Located, v *version, splits map[string]*split) error {
	old, err := before.Catalog.open(ctx, before.Dataset)
	if err != nil {
		return err
	}
	old.recall(before.Catalog.memory(old.dir))
	if err := old.hash(ctx, old.names(), nil); err != nil {
		return err
	}
	then, err := old.all()
	if err != nil {
		return err
	}
	var now []*split
	for _, name := range splitNames {
		if s := splits[name]; s != nil {
			now = append(now, s)
		}
	}
	c.drifts = drifts(old.measures(then), v.measures(now))
	for _, d := range c.drifts {
		if d.found() {
			c.finding(delivery.LevelWarning, d.code, d.what, d.text())
		}
	}
	return nil
}

// driftOfMain compares with main's version. One that cannot be had is no fault of the dataset, and holds up nothing.
func (c *checker) driftOfMain(ctx context.Context, before Located, v *version, splits map[string]*split) {
	if err := c.drift(ctx, before, v, splits); err != nil {
		c.finding(delivery.LevelWarning, "no-drift", before.Dataset.String(), "is main's version, and the new one "+
			"could not be compared with it: "+err.Error())
	}
}

// text says how the measure has changed.
func (d driftOf) text() string {
	switch d.what {
	case boxesAnImage:
		return fmt.Sprintf("%.3g, %.3g in the version before", d.now, d.before)
	case sideOfBoxes, sideOfImages:
		return fmt.Sprintf("typically %.4g pixels, %.4g in the version before", d.now, d.before)
	}
	return fmt.Sprintf("%.1f%% of all boxes, %.1f%% in the version before", 100*d.now, 100*d.before)
}
