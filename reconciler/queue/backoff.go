package queue

import (
	"errors"
	"maps"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Backoff contains when failed calls are tried again, by key.
type Backoff map[string]Failure

// A Failure is a call that has failed and is tried again.
type Failure struct {
	Next  time.Time     // when it may be tried again
	Took  time.Duration // of all attempts since the last success
	Err   error
	delay time.Duration
}

// MaxPause is the longest pause before a call is tried again.
const MaxPause = time.Minute

// Due returns the last error if it is too early to try again.
func (b Backoff) Due(key string, now time.Time) error {
	if e, ok := b[key]; ok && now.Before(e.Next) {
		return e.Err
	}
	return nil
}

// Note records an attempt, which took some time. Each failure in a row doubles the pause, unless the error is a
// delivery.Wait with a pause of its own. Errors that a person must resolve are tried again too, because nobody reports
// that they are resolved.
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

// RetryNow makes all calls due at once.
func (b Backoff) RetryNow() {
	for key, e := range b {
		e.Next = time.Time{}
		b[key] = e
	}
}

// Forget drops calls that were due at a time and are not under way: they are not needed any more.
func (b Backoff) Forget(start time.Time, underWay func(key string) bool) {
	maps.DeleteFunc(b, func(key string, e Failure) bool { return !e.Next.After(start) && !underWay(key) })
}

// Earliest returns when the first call is due again, without those that are under way.
func (b Backoff) Earliest(underWay func(key string) bool) time.Time {
	var t time.Time
	for key, e := range b {
		if (t.IsZero() || e.Next.Before(t)) && !underWay(key) {
			t = e.Next
		}
	}
	return t
}
