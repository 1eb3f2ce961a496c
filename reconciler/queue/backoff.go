package queue

import (
	"errors"
	"maps"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Backoff says when what failed is tried again, by key.
type Backoff map[string]Failure

// A Failure is something that failed and is tried again.
type Failure struct {
	Next  time.Time // when it may be tried again
	delay time.Duration
	Took  time.Duration // how long the tries since the last success took together
	Err   error
}

// MaxPause is the longest pause before something is tried again.
const MaxPause = time.Minute

// Due returns the last error while it is too early to try again.
func (b Backoff) Due(key string, now time.Time) error {
	if e, ok := b[key]; ok && now.Before(e.Next) {
		return e.Err
	}
	return nil
}

// Note records how a try ended and how long it took. Each failure in a row doubles the pause, unless the error asks
// for another pause. An error that a person must mend is tried again too: nobody says when it is mended.
func (b Backoff) Note(key string, now time.Time, took time.Duration, err error) {
	if err == nil {
		delete(b, key)
		return
	}
	e := b[key]
	e.Took += took
	e.delay = min(max(2*e.delay, time.Second), MaxPause)
	if w, ok := errors.AsType[delivery.Wait](err); ok {
		e.delay = max(w.For, time.Second)
	}
	e.Next, e.Err = now.Add(e.delay), err
	b[key] = e
}

// Errors returns the last error of each key.
func (b Backoff) Errors() map[string]error {
	errs := make(map[string]error, len(b))
	for key, e := range b {
		errs[key] = e.Err
	}
	return errs
}

// Forget drops what was due at a time and is not under way: nobody tries it any more.
func (b Backoff) Forget(start time.Time, underWay func(key string) bool) {
	maps.DeleteFunc(b, func(key string, e Failure) bool { return !e.Next.After(start) && !underWay(key) })
}

// Earliest returns when the first of all tries is due again, without those that are under way.
func (b Backoff) Earliest(underWay func(key string) bool) time.Time {
	var t time.Time
	for key, e := range b {
		if (t.IsZero() || e.Next.Before(t)) && !underWay(key) {
			t = e.Next
		}
	}
	return t
}
