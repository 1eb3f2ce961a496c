package retention

import (
	"cmp"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A Kind is a kind of stored things.
type Kind string

// The kinds, in the order in which they are shown. What needs other things comes before them.
const (
	Run         Kind = "run"         // the folder of a run, with its logs and what it made
	Pictures    Kind = "pictures"    // the pictures of a comparison
	Bundle      Kind = "bundle"      // the ONNX file of a bundle; what is signed about it stays
	Checkpoint  Kind = "checkpoint"  // from which a later training may start
	Detections  Kind = "detections"  // of a bundle on an eval set
	Images      Kind = "images"      // a list of the images that a bundle was trained on
	Dataset     Kind = "dataset"     // a dataset that was fetched
	Environment Kind = "environment" // the Python packages of a trainer
	Engine      Kind = "engine"      // that TensorRT made of a bundle; it can be built again
	Said        Kind = "said"        // what was posted about a commit or a pull request
	Clock       Kind = "clock"       // the state of a fleet's rollout
	Left        Kind = "left"        // what processes that were killed have left
)

// Kinds lists all kinds.
var Kinds = []Kind{Run, Pictures, Bundle, Checkpoint, Detections, Images, Dataset, Environment, Engine, Said,
	Clock, Left}

// A Ref names a thing.
type Ref struct {
	Kind Kind   `json:"kind"`
	ID   string `json:"id"` // a digest, or a name
}

// An Item is one stored thing.
type Item struct {
	Ref
	Name  string    `json:"name"`  // for people
	Bytes int64     `json:"bytes"` // that its removal frees
	At    time.Time `json:"at"`    // when it was last written or used
}

// A Decision says whether a thing is kept, and why.
type Decision struct {
	Item
	Keep bool
	Why  delivery.Fact
}

// A Need says why a thing is kept, however old it is.
type Need struct {
	Ref
	Why delivery.Fact
}

// Needed is what must be kept.
type Needed struct {
	Needs []Need        // the first of a thing is shown
	Of    map[Ref][]Ref // what a thing needs itself
	Names map[Ref]string
	// Unknown says why it is not known what is needed. Then nothing is removed.
	Unknown delivery.Fact
}

// Limits are how old a thing must be before it is removed, by kind. A kind without a limit is kept.
type Limits map[Kind]time.Duration

// Decide decides about each item. The result has the order of items.
func Decide(n Needed, items []Item, limits Limits, now time.Time) []Decision {
	why := map[Ref]delivery.Fact{}
	var queue []Ref
	keep := func(r Ref, because delivery.Fact) {
		if _, known := why[r]; !known {
			why[r] = because
			queue = append(queue, r)
		}
	}
	// What is needed for a release or a pull request is shown as that, and not as needed for something that is young.
	spread := func() {
		for len(queue) > 0 {
			r := queue[0]
			queue = queue[1:]
			for _, of := range n.Of[r] {
				keep(of, handed(why[r], r, n.Names))
			}
		}
	}
	for _, need := range n.Needs {
		keep(need.Ref, need.Why)
	}
	spread()
	for _, it := range items {
		limit, limited := limits[it.Kind]
		switch {
		case it.Kind == Left && limited && now.Sub(it.At) >= limit:
		case !limited || now.Sub(it.At) < limit:
			keep(it.Ref, aged(code.KeptYoung, limit))
		case !n.Unknown.IsZero():
			keep(it.Ref, n.Unknown.In(code.KeptUnknown, delivery.Values{}))
		}
	}
	spread()
	list := make([]Decision, 0, len(items))
	for _, it := range items {
		it.Name = cmp.Or(n.Names[it.Ref], it.Name)
		because, kept := why[it.Ref]
		switch {
		case kept:
		case it.Kind == Left:
			because = delivery.Fact{Code: code.GoneLeft}
		default:
			because = aged(code.GoneOld, limits[it.Kind])
		}
		list = append(list, Decision{it, kept, because})
	}
	return list
}

// handed returns why a thing is kept that another one needs.
func handed(why delivery.Fact, by Ref, names map[Ref]string) delivery.Fact {
	switch why.Code {
	case code.KeptYoung, code.KeptUnknown, code.KeptGoing, code.KeptNeeded:
		name := cmp.Or(names[by], string(by.Kind)+" "+short(by.ID))
		return delivery.Fact{Code: code.KeptFor, Values: delivery.Values{Text: name}}
	}
	return why
}

func short(id string) string {
	if d, err := delivery.ParseDigest(id); err == nil {
		return d.Short()
	}
	return id
}

// aged returns a fact about an age.
func aged(c delivery.Code, limit time.Duration) delivery.Fact {
	const day = 24 * time.Hour
	if limit >= day && limit%day == 0 {
		return delivery.Fact{Code: c, Values: delivery.Values{Count: int(limit / day)}}
	}
	return delivery.Fact{Code: c, Values: delivery.Values{Lasts: delivery.Duration(limit)}}
}

// A Total is what there is of one kind.
type Total struct {
	Count int
	Bytes int64
}

// Sort sorts decisions by kind, then what is removed first, and then by name.
func Sort(list []Decision) {
	slices.SortStableFunc(list, func(a, b Decision) int {
		order := func(d Decision) int { return 2*slices.Index(Kinds, d.Kind) + map[bool]int{true: 1}[d.Keep] }
		return cmp.Or(order(a)-order(b), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
}
