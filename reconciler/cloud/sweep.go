package cloud

// This file decides what is ended in an account. It makes no calls.

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// The tags of everything that AOB makes in an account. The modules set them in the call that makes it.
const (
	TagController = "aob:controller" // the name of the server, in its configuration
	TagRun        = "aob:run"        // the folder of the run: KIND-KEY
	TagOwner      = "aob:owner"      // who asked for the run
	TagPull       = "aob:pull"       // the pull request that needed the run
	TagExpires    = "aob:expires"    // RFC 3339, UTC: nothing may live longer
)

// A Life is what is known of a run.
type Life int

// The lives of runs.
const (
	RunGone   Life = iota // no run has this name
	RunAlive              // it goes on, or may be resumed: it needs what it has
	RunOver               // it has ended for good
	RunUnread             // its folder cannot be read now
)

// An Item is something in an account with AOB's tags.
type Item struct {
	Kind   delivery.OrphanKind
	ID     string // of a group of schedules: GROUP; of a schedule: GROUP/NAME
	Region string
	State  string            // as the service calls it
	Tags   map[string]string // of a schedule: those of its group, and its name as the run
}

// A World is what a sweep knows.
type World struct {
	At         time.Time // by the clock of the account, as the tags are
	Controller string
	Items      []Item
	Rests      []Rest
	Whole      map[string]bool       // the regions whose items are all known
	Life       func(run string) Life // nil: nothing is known of runs
}

// An Action ends one item.
type Action struct {
	Item Item
	Why  delivery.OrphanReason
}

// Orphan describes the item of an action.
func (a Action) Orphan(at time.Time) delivery.Orphan {
	tags := a.Item.Tags
	pull, err := strconv.Atoi(tags[TagPull])
	if err != nil || pull < 0 {
		pull = 0
	}
	return delivery.Orphan{Kind: a.Item.Kind, ID: a.Item.ID, Region: a.Item.Region, Why: a.Why, At: at, Pull: pull,
		Run: delivery.PlainText(tags[TagRun], maxTag), Owner: delivery.PlainText(tags[TagOwner], maxTag)}
}

// maxTag is the most that is shown of a tag.
const maxTag = 80

// Sweep decides what is ended, in order. An item is ended if it has the tag of this controller and it is expired, or
// its run has ended or is not known. Nothing else is touched. Without knowledge of runs, only what is expired is ended.
//
// The items must have been read before the runs: a run is recorded before it makes anything, so that nothing of a new
// run looks like something of no run.
func Sweep(w World) []Action {
	if w.Controller == "" {
		return nil
	}
	var actions []Action
	needed := map[[2]string]bool{} // region and run of the instances and requests that the list has
	for _, i := range w.Items {
		if (i.Kind == delivery.OrphanInstance || i.Kind == delivery.OrphanRequest) && i.costs() {
			needed[[2]string{i.Region, i.Tags[TagRun]}] = true
		}
	}
	for _, i := range w.Items {
		if i.Tags[TagController] != w.Controller || !i.costs() {
			continue
		}
		// A schedule ends an instance although this server is gone, so it stays until the instance is gone.
		if i.Kind == delivery.OrphanSchedule && (!w.Whole[i.Region] || needed[[2]string{i.Region, i.Tags[TagRun]}]) {
			continue
		}
		if why := w.orphaned(i); why != "" {
			actions = append(actions, Action{i, why})
		}
	}
	order := func(a Action) int { return slices.Index(delivery.OrphanKinds, a.Item.Kind) }
	slices.SortStableFunc(actions, func(a, b Action) int {
		return cmp.Or(cmp.Compare(order(a), order(b)), cmp.Compare(a.Item.Region, b.Item.Region),
			cmp.Compare(a.Item.ID, b.Item.ID))
	})
	return slices.CompactFunc(actions, func(a, b Action) bool { // a list may have an item on two pages
		return a.Item.Kind == b.Item.Kind && a.Item.Region == b.Item.Region && a.Item.ID == b.Item.ID
	})
}

func (i Item) costs() bool { return delivery.Thing{Kind: i.Kind, State: i.State}.Costs() }

// orphaned says why an item with this controller's tag is an orphan; "" if it is none.
func (w World) orphaned(i Item) delivery.OrphanReason {
	if i.Kind != delivery.OrphanSchedule { // it has no such tag, and stays when it has fired, so that its run decides
		switch expires, err := time.Parse(time.RFC3339, i.Tags[TagExpires]); {
		case err != nil:
			return delivery.OrphanNoExpiry
		case !w.At.IsZero() && !w.At.Before(expires):
			return delivery.OrphanExpired
		}
	}
	if w.Life == nil {
		return ""
	}
	switch w.Life(i.Tags[TagRun]) {
	case RunGone:
		return delivery.OrphanUnknown
	case RunOver:
		return delivery.OrphanEnded
	}
	return ""
}
