package queue

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/turn"
)

// A lane is in order, a slow lane holds no other up, and of two words with one key the newer is sent.
func TestQueue(t *testing.T) {
	o := newQueue()
	var sent []string
	put := func(key, lane, content string) {
		o.Put(Job{Key: key, Lane: lane, Content: content, Do: func(context.Context) error {
			sent = append(sent, content)
			return nil
		}})
	}
	put("push/a", "push/a", "pushed")
	put("s/intent", "status/1", "intent 1")
	put("s/release", "status/1", "release 1")
	begin := func() (*Job, <-chan struct{}) { return o.begin(again, first) }
	slow, _ := begin()
	if slow.Key != "push/a" {
		t.Fatalf("the first job is %s", slow.Key)
	}
	intent, _ := begin()
	if next, _ := begin(); intent.Key != "s/intent" || next != nil {
		t.Fatalf("two jobs of one lane at a time: %v, %v", intent.Key, next)
	}
	put("s/intent", "status/1", "intent 2")   // behind the one that has begun
	put("s/release", "status/1", "release 2") // in the place of the one that has not
	o.do(t.Context(), intent)
	if content, begun, ok := o.Waiting("s/release"); content != "release 2" || begun || !ok {
		t.Errorf("waiting: %q, begun %v, %v", content, begun, ok)
	}
	o.Drain(t.Context())
	if want := []string{"intent 1", "release 2", "intent 2"}; !slices.Equal(sent, want) {
		t.Errorf("sent %q, want %q while a push takes long", sent, want)
	}
	if !o.Has("push/a") || !o.Has("s/intent") {
		t.Error("a job that is under way, or that nobody has heard of, is forgotten")
	}
	if n := len(o.Results()); n != 3 || o.Has("s/intent") {
		t.Errorf("%d results, want 3, and then no more", n)
	}
}

// A job that takes the place of another may be of another kind. The workers for that kind are woken.
func TestReplacedJobWakesTheWorkersOfItsKind(t *testing.T) {
	for name, tt := range map[string]struct {
		before, after bool // it failed before
		kind          kind
	}{
		"a first try becomes a retry": {false, true, again},
		"a retry becomes a first try": {true, false, first},
	} {
		o := newQueue()
		put := func(failed bool) { o.Put(Job{Key: "s", Lane: "status/1", Again: failed}) }
		put(tt.before)
		j, news := o.begin(tt.kind)
		if j != nil {
			t.Fatalf("%s: the job is of the other kind already", name)
		}
		put(tt.after)
		select {
		case <-news:
		default:
			t.Errorf("%s: its workers are not woken", name)
		}
		if j, _ := o.begin(tt.kind); j == nil {
			t.Errorf("%s: its workers do not find it", name)
		}
	}
}

// What failed quickly is tried again before what hangs each time, and main's statuses come before everything.
func TestRetryWaitsForNoHangingRetries(t *testing.T) {
	const hangs = 30 * time.Second
	for name, tt := range map[string]struct {
		many, one Job
	}{
		"of the same class":             {Job{Again: true, Took: hangs}, Job{Again: true, Took: time.Millisecond}},
		"about no model":                {Job{Again: true, Took: hangs}, Job{Again: true, Class: Later}},
		"hung less often":               {Job{Again: true, Took: 2 * hangs}, Job{Again: true, Took: hangs}},
		"of main":                       {Job{Again: true}, Job{Again: true, Took: hangs, Class: Urgent}},
		"of main, behind what is quick": {Job{Again: true}, Job{Again: true, Took: 9 * hangs, Class: Urgent}},
		"main's, not tried yet":         {Job{}, Job{Class: Urgent}},
	} {
		o := newQueue()
		for i := range 100 {
			j := tt.many
			j.Key, j.Lane = fmt.Sprint("comment/", i), j.Lane+fmt.Sprint("comment/", i)
			o.Put(j)
		}
		j := tt.one
		j.Key, j.Lane = "one", j.Lane+"one"
		o.Put(j)
		if got, _ := o.begin(j.kind()); got == nil || got.Key != "one" {
			t.Errorf("%s: it waits behind others: %+v", name, got)
		}
	}
}

func newQueue() *Queue {
	now := func() time.Time { return time.Unix(0, 0) }
	return New(Workers{First: 1, Again: 1, Limit: time.Minute}, now, turn.NewSignal())
}
