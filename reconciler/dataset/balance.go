package dataset

// This file compares the sizes of splits and of classes.

import (
	"fmt"

	"github.com/autonomos/aob/reconciler/delivery"
)

const (
	leastShare   = 0.02 // of train's images: a smaller valid or test is named, unless it has enoughImages
	enoughImages = 200
	someImages   = 20   // a split of fewer images may have more than train
	leastObjects = 0.01 // of the objects of the most frequent class
)

// balance reports splits and classes that are small or large beside others. The objects of classes were counted.
func (c *checker) balance(v *version, splits map[string]*split) {
	train := splits["train"]
	if train == nil {
		return
	}
	size := func(s *split) int { return len(s.images) - len(v.copies(s)) }
	learnt := size(train)
	for _, name := range []string{"valid", "test"} {
		s := splits[name]
		if s == nil || learnt == 0 {
			continue
		}
		n := size(s)
		share := float64(n) / float64(learnt)
		switch {
		case n > 0 && n < enoughImages && share < leastShare:
			c.finding(delivery.LevelWarning, "split-size", name, fmt.Sprintf("has %s, and train has %d: figures on "+
				"so few vary much; move more of train into it", delivery.Count(n, "image"), learnt))
		case n >= someImages && n > learnt:
			c.finding(delivery.LevelWarning, "split-size", name, fmt.Sprintf("has %s, and train has only %d; move "+
				"some of them into train", delivery.Count(n, "image"), learnt))
		}
	}
	most, name := 0, ""
	for _, class := range c.classes {
		if n := c.result.Truths[class.Name]; n > most {
			most, name = n, class.Name
		}
	}
	for _, class := range c.classes {
		if n := c.result.Truths[class.Name]; n > 0 && float64(n) < leastObjects*float64(most) {
			c.finding(delivery.LevelWarning, "class-balance", train.annotations, fmt.Sprintf("class %q has %s in "+
				"train, and %q has %d: a rare class is learnt badly; label more of it", class.Name,
				delivery.Count(n, "object"), name, most))
		}
	}
}
