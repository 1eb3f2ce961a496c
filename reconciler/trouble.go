package reconciler

// This file remembers what does not work, since when and why. The status shows it, and the log says it with growing
// pauses instead of each time.

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// maxLogPause is the longest pause between two log lines about the same trouble.
const maxLogPause = 10 * time.Minute

// A trouble is one thing that does not work.
type trouble struct {
	what  string    // as "the forge"
	since time.Time // of the first failure in a row
	err   error     // the last one
	next  time.Time // when it is logged again
	pause time.Duration
}

// line says a trouble as the status shows it.
func (t trouble) line() string {
	why, do := t.err.Error(), ""
	if b, ok := errors.AsType[delivery.Blocked](t.err); ok {
		why, do = b.What, b.Do
	}
	line := fmt.Sprintf("%s since %s: %s", t.what, t.since.UTC().Format("2006-01-02 15:04:05 UTC"), why)
	if do != "" {
		line += "; " + do
	}
	return line
}

// troubles are all that there are. Its methods may be called from any goroutine.
type troubles struct {
	now func() time.Time
	log func() *slog.Logger

	mu   sync.Mutex
	list map[string]*trouble // by what
}

func newTroubles(now func() time.Time, log func() *slog.Logger) *troubles {
	return &troubles{now: now, log: log, list: map[string]*trouble{}}
}

// note remembers how something went. what reads as the beginning of a sentence, as "git cannot be read"; no error ends
// the trouble.
func (t *troubles) note(what string, err error) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.list[what]
	if err == nil {
		if old != nil {
			delete(t.list, what)
			t.log().Info("works again", "what", what, "for", now.Sub(old.since).Round(time.Second).String())
		}
		return
	}
	if old == nil {
		old = &trouble{what: what, since: now}
		t.list[what] = old
	}
	other := old.err == nil || old.err.Error() != err.Error()
	old.err = err
	switch {
	case other && old.pause < time.Second:
		old.pause = time.Second
	case now.Before(old.next):
		return
	default:
		old.pause = min(2*old.pause, maxLogPause)
	}
	old.next = now.Add(old.pause)
	t.log().Warn(what, "error", err.Error(), "since", old.since.UTC())
}

// keep ends every trouble of a kind that is not named.
func (t *troubles) keep(ofKind func(what string) bool, named []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for what := range t.list {
		if ofKind(what) && !slices.Contains(named, what) {
			delete(t.list, what)
		}
	}
}

// all returns the troubles, the oldest first.
func (t *troubles) all() []trouble {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]trouble, 0, len(t.list))
	for _, one := range t.list {
		list = append(list, *one)
	}
	slices.SortFunc(list, func(a, b trouble) int {
		return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.what, b.what))
	})
	return list
}

// Notices says what does not work, since when, and what to do about it.
func (r *Reconciler) Notices() []string {
	var list []string
	if r.watches != nil {
		list = append(list, r.watches.Error())
	}
	pulls := r.forgeNow.list()
	seen := r.last.Load() != nil
	if !seen {
		list = append(list, restartTrouble+"; what follows is not known yet")
	}
	if slow := r.git.slow(); slow != "" {
		list = append(list, slow)
	}
	list = append(list, r.Fleet.Unreadable()...)
	for _, t := range r.troubles.all() {
		line := t.line()
		if t.what == listTrouble {
			if line += fmt.Sprintf("; it is of %s", pulls.at.UTC().Format("2006-01-02 15:04:05 UTC")); !pulls.ever {
				line = t.line() + "; it has not been read since the start"
			}
		}
		list = append(list, line)
	}
	if n, since := r.outbox.oldest(); n > 0 && r.Now().Sub(since) > sendSlow {
		list = append(list, fmt.Sprintf("%d statuses, comments or pushes wait to be sent, the first since %s: the "+
			"forge or git takes long to answer",
			n, since.UTC().Format("2006-01-02 15:04:05 UTC")))
	}
	return list
}

// Unknown says why there is no snapshot yet.
func (r *Reconciler) Unknown() error {
	for _, t := range r.troubles.all() {
		if t.what == gitTrouble || t.what == mainTrouble || t.what == turnTrouble {
			return delivery.Wait{For: time.Second, What: "nothing is known yet: " + t.line()}
		}
	}
	if slow := r.git.slow(); slow != "" {
		return delivery.Wait{For: time.Second, What: "nothing is known yet: " + slow}
	}
	return delivery.Wait{For: time.Second, What: "aob serve has only just started"}
}
