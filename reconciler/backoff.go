package reconciler

// This file says when what failed is tried again.

import (
	"errors"
	"maps"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// backoff keeps what failed from being tried again at once.
type backoff map[string]failure

type failure struct {
	next  time.Time // when it may be tried again
	delay time.Duration
	took  time.Duration // how long the tries since the last success took together
	err   error
}

const maxBackoff = time.Minute

// due returns the last error while it is too early to try again.
func (b backoff) due(key string, now time.Time) error {
	if e, ok := b[key]; ok && now.Before(e.next) {
		return e.err
	}
	return nil
}

// note remembers how a try ended, and how long it took. Each failure in a row doubles the pause, unless
// the error asks for another. What a person must settle is tried again too: a
// disk that has room again tells nobody.
func (b backoff) note(key string, now time.Time, took time.Duration, err error) {
	if err == nil {
		delete(b, key)
		return
	}
	e := b[key]
	e.took += took
	e.delay = min(max(2*e.delay, time.Second), maxBackoff)
	if w, ok := errors.AsType[delivery.Wait](err); ok {
		e.delay = max(w.For, time.Second)
	}
	e.next, e.err = now.Add(e.delay), err
	b[key] = e
}

// first returns the first error that something waits for, with the number of all. what names them.
func (b backoff) first(what string) error {
	errs := make(map[string]error, len(b))
	for key, e := range b {
		errs[key] = e.err
	}
	return firstOf(errs, what)
}

// forget drops what was due at the start of a turn, was not tried in it and is not under way:
// nobody asks for it any more.
func (b backoff) forget(start time.Time, underWay func(key string) bool) {
	maps.DeleteFunc(b, func(key string, e failure) bool { return !e.next.After(start) && !underWay(key) })
}

// earliest returns when the first of all tries is due again, without those that are under way.
func (b backoff) earliest(underWay func(key string) bool) time.Time {
	var t time.Time
	for key, e := range b {
		if (t.IsZero() || e.next.Before(t)) && !underWay(key) {
			t = e.next
		}
	}
	return t
}
