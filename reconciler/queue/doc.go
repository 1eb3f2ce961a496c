// Package queue makes slow calls beside the loop: a [Queue] does jobs with a few
// workers, and a [Backoff] says when a call that failed is tried again.
//
// The jobs of one lane are done in order, one at a time, and a slow lane holds no other
// lane up. A newer job with the same key replaces one that has not begun. Calls that
// failed before have workers of their own, because they may hang again.
package queue
