// Package queue makes slow calls beside the loop: a [Queue] runs jobs with a few
// workers, and a [Backoff] contains when failed calls are tried again.
//
// The jobs of one lane run in order, one at a time, and a slow lane does not delay other
// lanes. A newer job with the same key replaces one that has not begun. Calls that
// failed before have workers of their own, because they may hang again.
package queue
