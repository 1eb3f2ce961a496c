package dataset

// This file checks the eval sets of gates.

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// judges reports whether one of the eval sets is a split of a dataset.
func judges(sets []delivery.EvalSet, d delivery.Dataset, split string) bool {
	return slices.ContainsFunc(sets, func(e delivery.EvalSet) bool { return e.Dataset == d && e.Split == split })
}

// evalSet checks one eval set, records its content, and adds its images to heldOut. A gate judges on it if judged.
func (c *checker) evalSet(ctx context.Context, catalog Catalog, v *version, splits map[string]*split,
	e delivery.EvalSet, judged bool, heldOut map[string][]held) error {
	bad := func(text string) { c.finding(delivery.LevelError, "eval-set", e.String(), text) }
	ev, s := v, splits[e.Split]
	own := e.Dataset == v.ref
	if !own {
		var err error
		if ev, err = catalog.open(ctx, e.Dataset); err != nil {
			return err
		}
		c.opened(ev)
	}
	if !own || s != nil && e.Group != "" { // the dataset's own split was read without groups
		var err error
		if s, _, err = ev.split(e.Split, e.Group); err != nil {
			bad(err.Error())
			return nil
		}
	}
	if s == nil {
		bad(ev.lacks(e.Split))
		return nil
	}
	dataset := ""
	if !own {
		if err := ev.hash(ctx, s.files(), nil); err != nil {
			return err
		}
		dataset = e.Dataset.String() + " "
		if key := dataset + e.Split; !c.checked[key] {
			c.checked[key] = true
			c.split(ev, s, dataset, true, e.Group)
		}
	}
	if text := s.ungrouped(e.Group); text != "" {
		bad(text + "; every image needs it, as a text or a whole number")
		return nil
	}
	if thawed := ev.thawed(e, s); thawed != "" && len(s.missing) == 0 {
		bad(thawed + "; " + refreeze)
		return nil
	}
	data := ev.evalData(e, s, c.classes)
	if len(s.missing) == 0 {
		c.objectless(e.String(), s, data.Content, !judged)
	}
	if n := cmp.Or(data.Content.Groups, data.Content.Count); judged && n < coco.MinUnits {
		what := "image"
		if e.Group != "" {
			what = "group"
		}
		c.finding(delivery.LevelWarning, "few-images", e.String(), fmt.Sprintf("has %s, and an interval needs %d: "+
			"every check on it will be unsure; collect more before you train", delivery.Count(n, what), coco.MinUnits))
	}
	c.result.EvalSets = append(c.result.EvalSets, data.Content)
	if own && e.Split != "test" {
		return nil // an eval set of training images is reported by leaks
	}
	for _, h := range s.held(ev, dataset+s.prefix()) {
		for _, id := range identities(h.file, ev.files[h.file].sum) {
			heldOut[id] = append(heldOut[id], h)
		}
		c.sets[h.path] = h
	}
	return nil
}

// objectless reports a split or eval set without images or objects that count. Then it reports the classes without such
// objects: all of them, or only those whose labels are written in another way there. A gate says itself which classes
// it lacks.
func (c *checker) objectless(where string, s *split, content delivery.EvalSetContent, all bool) {
	switch {
	case content.Count == 0:
		c.finding(delivery.LevelWarning, "no-truth", where, "has no image, so nothing can be measured on it")
		return
	case len(content.Labels) == 0:
		c.finding(delivery.LevelWarning, "no-truth", where, "has no object that counts: only false positives can be "+
			"measured on it")
		return
	}
	labels := map[string]bool{} // of all classes
	for _, class := range c.classes {
		for _, label := range class.Labels {
			labels[label] = true
		}
	}
	unused := slices.DeleteFunc(slices.Clone(content.Labels), func(label string) bool { return labels[label] })
	listed := delivery.Each(s.truth.Categories, func(cat coco.Category) string { return cat.Name })
	for _, class := range c.classes {
		if slices.ContainsFunc(class.Labels, func(label string) bool {
			return slices.Contains(content.Labels, label)
		}) {
			continue
		}
		similar := slices.IndexFunc(unused, func(label string) bool {
			return alike(label, class.Labels[0])
		})
		text := fmt.Sprintf("has no object of class %q that counts", class.Name)
		switch {
		case similar >= 0:
			c.rewritten[unused[similar]] = true
			text += fmt.Sprintf("; its category %+q is written in another way than %+q", unused[similar],
				class.Labels[0])
		case !all:
			continue
		case !slices.ContainsFunc(class.Labels, func(label string) bool { return slices.Contains(listed, label) }):
			text += ", and no such category"
			if len(unused) > 0 {
				text += "; it has objects of " + quoted(unused) + ", of which no class is learnt"
			}
		}
		c.finding(delivery.LevelWarning, "no-truth", where, text)
	}
}
