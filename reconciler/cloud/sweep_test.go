package cloud

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

var sweepAt = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// ours returns an item of this controller that its run needs for another hour.
func ours(kind delivery.OrphanKind, id, state string) Item {
	return Item{Kind: kind, ID: id, Region: "eu-west-1", State: state, Tags: map[string]string{TagController: "aob",
		TagRun: "train-1", TagPull: "7", TagOwner: "dev", TagExpires: sweepAt.Add(time.Hour).Format(time.RFC3339)}}
}

func with(i Item, tag, value string) Item {
	tags := map[string]string{}
	for k, v := range i.Tags {
		tags[k] = v
	}
	if tags[tag] = value; value == "" {
		delete(tags, tag)
	}
	i.Tags = tags
	return i
}

func life(of map[string]Life) func(string) Life { return func(run string) Life { return of[run] } }

func TestSweep(t *testing.T) {
	instance := ours(delivery.OrphanInstance, "i-1", "running")
	volume := ours(delivery.OrphanVolume, "vol-1", "available")
	schedule := ours(delivery.OrphanSchedule, "aob-x/train-1", "ENABLED")
	of := func(l Life) func(string) Life { return life(map[string]Life{"train-1": l}) }
	alive, over, unread, gone := of(RunAlive), of(RunOver), of(RunUnread), life(nil)
	past := sweepAt.Format(time.RFC3339)
	for _, c := range []struct {
		name string
		life func(string) Life
		item Item
		want delivery.OrphanReason
	}{
		{"an instance of a run that goes on", alive, instance, ""},
		{"one second before it expires", alive, with(instance, TagExpires, sweepAt.Add(time.Second).
			Format(time.RFC3339)), ""},
		{"expired, while its run goes on", alive, with(instance, TagExpires, past), delivery.OrphanExpired},
		{"expired, in another zone", alive, with(instance, TagExpires, "2026-11-30T13:30:00+02:00"),
			delivery.OrphanExpired},
		{"without an expiry", alive, with(instance, TagExpires, ""), delivery.OrphanNoExpiry},
		{"with a broken expiry", alive, with(instance, TagExpires, "tomorrow"), delivery.OrphanNoExpiry},
		{"of a run that has ended", over, instance, delivery.OrphanEnded},
		{"of no run", gone, instance, delivery.OrphanUnknown},
		{"without a run", alive, with(instance, TagRun, ""), delivery.OrphanUnknown},
		{"of a run that cannot be read", unread, instance, ""},
		{"while no run can be read", nil, instance, ""},
		{"expired, while no run can be read", nil, with(instance, TagExpires, past), delivery.OrphanExpired},
		{"of another controller", gone, with(instance, TagController, "aob2"), ""},
		{"of a controller in capitals", gone, with(instance, TagController, "AOB"), ""},
		{"without a controller", gone, with(instance, TagController, ""), ""},
		{"without tags", gone, Item{Kind: delivery.OrphanInstance, ID: "i-1", State: "running"}, ""},
		{"that is being ended", gone, func() Item { i := instance; i.State = "shutting-down"; return i }(), ""},
		{"that is stopped, which still costs", gone, func() Item { i := instance; i.State = "stopped"; return i }(),
			delivery.OrphanUnknown},
		{"a volume in use", gone, func() Item { i := volume; i.State = "in-use"; return i }(), ""},
		{"a free volume", gone, volume, delivery.OrphanUnknown},
		{"a request that could start an instance", gone, ours(delivery.OrphanRequest, "sir-1", "open"),
			delivery.OrphanUnknown},
		{"a closed request", gone, ours(delivery.OrphanRequest, "sir-1", "closed"), ""},
		{"a schedule of an ended run", over, schedule, delivery.OrphanEnded},
		{"a schedule of a run that goes on", alive, with(schedule, TagExpires, past), ""},
		{"a schedule while no run can be read", nil, schedule, ""},
	} {
		got := Sweep(World{At: sweepAt, Controller: "aob", Items: []Item{c.item}, Life: c.life,
			Whole: map[string]bool{"eu-west-1": true}})
		if why := delivery.OrphanReason(""); len(got) > 1 || len(got) == 1 && got[0].Why != c.want ||
			len(got) == 0 && why != c.want {
			t.Errorf("%s: %+v, want %q", c.name, got, c.want)
		}
	}
}

// The schedule that would end an instance stays until the instance is gone, and the list is known to have all.
func TestSweepKeepsTheFuse(t *testing.T) {
	items := []Item{ours(delivery.OrphanSchedule, "aob-x/train-1", "ENABLED"),
		ours(delivery.OrphanInstance, "i-1", "running"), ours(delivery.OrphanRequest, "sir-1", "active")}
	w := World{At: sweepAt, Controller: "aob", Items: items, Life: life(nil), Whole: map[string]bool{"eu-west-1": true}}
	got := Sweep(w)
	if len(got) != 2 || got[0].Item.ID != "sir-1" || got[1].Item.ID != "i-1" {
		t.Errorf("%+v, want the request, then the instance", got)
	}
	w.Items = items[:1]
	if got := Sweep(w); len(got) != 1 {
		t.Errorf("afterwards: %+v", got)
	}
	w.Whole = nil
	if got := Sweep(w); len(got) != 0 {
		t.Errorf("of a list that is not whole: %+v", got)
	}
}

// For any account: only this controller's items are ended, each once; what is ended is expired, ended or unknown; what
// is so is ended; and a second sweep of what is left finds nothing.
func TestSweepOfAnyAccount(t *testing.T) {
	random := rand.New(rand.NewPCG(16, 5))
	pick := func(list ...string) string { return list[random.IntN(len(list))] }
	expiries := map[string]bool{"": true, "soon": true, "2026-11-30T11:59:59Z": true, "2026-11-30T12:00:00Z": true,
		"2026-11-30T12:00:01Z": false, "2027-01-01T00:00:00Z": false}
	for range 2000 {
		lives := map[string]Life{"a": RunAlive, "o": RunOver, "u": RunUnread}
		w := World{At: sweepAt, Controller: "aob", Life: life(lives), Whole: map[string]bool{}}
		if random.IntN(5) == 0 {
			w.Life = nil
		}
		for i := range random.IntN(40) {
			kind := delivery.OrphanKinds[random.IntN(4)]
			item := Item{Kind: kind, ID: fmt.Sprint("x-", i/2), Region: pick("r1", "r2"),
				State: pick(append([]string{"in-use", "terminated", "closed"}, delivery.Costly(kind)...)...),
				Tags:  map[string]string{}}
			w.Whole[item.Region] = random.IntN(2) == 0
			for tag, values := range map[string][]string{TagController: {"aob", "aob", "other", ""},
				TagRun: {"a", "o", "u", "?", ""}, TagPull: {"1", "-4", "x"},
				TagExpires: {"", "soon", "2026-11-30T11:59:59Z", "2026-11-30T12:00:00Z", "2026-11-30T12:00:01Z",
					"2027-01-01T00:00:00Z"}} {
				if v := pick(values...); v != "" {
					item.Tags[tag] = v
				}
			}
			w.Items = append(w.Items, item)
		}
		actions := Sweep(w)
		ended := map[[3]string]bool{}
		last := 0
		for _, a := range actions {
			key := [3]string{string(a.Item.Kind), a.Item.Region, a.Item.ID}
			at := slices.Index(delivery.OrphanKinds, a.Item.Kind)
			switch {
			case a.Item.Tags[TagController] != "aob":
				t.Fatalf("foreign: %+v", a)
			case !slices.Contains(delivery.Costly(a.Item.Kind), a.Item.State):
				t.Fatalf("costs nothing: %+v", a)
			case ended[key]:
				t.Fatalf("twice: %+v", a)
			case at < last:
				t.Fatalf("out of order: %+v", actions)
			case a.Orphan(sweepAt).Pull < 0:
				t.Fatalf("the pull request %+v", a.Orphan(sweepAt))
			}
			ended[key], last = true, at
			run := a.Item.Tags[TagRun]
			over := w.Life != nil && (lives[run] == RunOver || lives[run] == RunGone)
			dated := a.Item.Kind != delivery.OrphanSchedule && expiries[a.Item.Tags[TagExpires]]
			if !over && !dated {
				t.Fatalf("needed: %+v", a)
			}
		}
		left := w
		left.Items = nil
		for _, i := range w.Items {
			key := [3]string{string(i.Kind), i.Region, i.ID}
			due := i.Tags[TagController] == "aob" && slices.Contains(delivery.Costly(i.Kind), i.State) &&
				expiries[i.Tags[TagExpires]] && i.Kind != delivery.OrphanSchedule
			if due && !ended[key] {
				t.Fatalf("left: %+v", i)
			}
			if !ended[key] {
				left.Items = append(left.Items, i)
			}
		}
		if again := Sweep(left); slices.ContainsFunc(again, func(a Action) bool {
			return a.Item.Kind != delivery.OrphanSchedule // its fuse may have become free
		}) {
			t.Fatalf("a second sweep ends %+v", again)
		}
	}
}
