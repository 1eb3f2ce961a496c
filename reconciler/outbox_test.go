package reconciler

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"
)

// A lane is in order, a slow lane holds no other up, and of two words with one key the newer is sent.
func TestOutbox(t *testing.T) {
	o := newOutbox(func() time.Time { return time.Unix(0, 0) }, func() {})
	var sent []string
	put := func(key, lane, content string) {
		o.put(job{key: key, lane: lane, content: content, send: func(context.Context) error {
			sent = append(sent, content)
			return nil
		}})
	}
	put("push/a", "push/a", "pushed")
	put("s/intent", "status/1", "intent 1")
	put("s/release", "status/1", "release 1")
	begin := func() (*job, <-chan struct{}) { return o.begin(pushJob, retryJob, callJob) }
	slow, _ := begin()
	if slow.key != "push/a" {
		t.Fatalf("the first job is %s", slow.key)
	}
	intent, _ := begin()
	if next, _ := begin(); intent.key != "s/intent" || next != nil {
		t.Fatalf("two jobs of one lane at a time: %v, %v", intent.key, next)
	}
	put("s/intent", "status/1", "intent 2")   // behind the one that has begun
	put("s/release", "status/1", "release 2") // in the place of the one that has not
	o.do(t.Context(), intent)
	if content, begun, ok := o.waiting("s/release"); content != "release 2" || begun || !ok {
		t.Errorf("waiting: %q, begun %v, %v", content, begun, ok)
	}
	o.drain(t.Context())
	if want := []string{"intent 1", "release 2", "intent 2"}; !slices.Equal(sent, want) {
		t.Errorf("sent %q, want %q while a push takes long", sent, want)
	}
	if !o.has("push/a") || !o.has("s/intent") {
		t.Error("a job that is under way, or that nobody has heard of, is forgotten")
	}
	if n := len(o.results()); n != 3 || o.has("s/intent") {
		t.Errorf("%d results, want 3, and then no more", n)
	}
}

// A job that takes the place of another may be of another kind. The workers for that kind are woken.
func TestReplacedJobWakesTheWorkersOfItsKind(t *testing.T) {
	for name, tt := range map[string]struct {
		before, after bool // it failed before
		kind          jobKind
	}{
		"a first try becomes a retry": {false, true, retryJob},
		"a retry becomes a first try": {true, false, callJob},
	} {
		o := newOutbox(func() time.Time { return time.Unix(0, 0) }, func() {})
		put := func(again bool) { o.put(job{key: "s", lane: "status/1", again: again}) }
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
	const hangs = callDeadline
	for name, tt := range map[string]struct {
		many, one job
	}{
		"of the same class":             {job{again: true, took: hangs}, job{again: true, took: time.Millisecond}},
		"about no model":                {job{again: true, took: hangs}, job{again: true, class: laterJobs}},
		"hung less often":               {job{again: true, took: 2 * hangs}, job{again: true, took: hangs}},
		"of main":                       {job{again: true}, job{again: true, took: hangs, class: firstJobs}},
		"of main, behind what is quick": {job{again: true}, job{again: true, took: 9 * hangs, class: firstJobs}},
		"a first push":                  {job{lane: "push/", took: pushDeadline}, job{lane: "push/"}},
		"main's, not tried yet":         {job{}, job{class: firstJobs}},
	} {
		o := newOutbox(func() time.Time { return time.Unix(0, 0) }, func() {})
		for i := range 100 {
			j := tt.many
			j.key, j.lane = fmt.Sprint("comment/", i), j.lane+fmt.Sprint("comment/", i)
			o.put(j)
		}
		j := tt.one
		j.key, j.lane = "one", j.lane+"one"
		o.put(j)
		if got, _ := o.begin(j.kind()); got == nil || got.key != "one" {
			t.Errorf("%s: it waits behind others: %+v", name, got)
		}
	}
}
