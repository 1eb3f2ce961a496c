package turn

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// maxLogPause is the longest pause between two log lines about the same trouble.
const maxLogPause = 10 * time.Minute

// A Trouble is a continuing failure.
type Trouble struct {
	What  string    // the beginning of a sentence, such as "git cannot be read"
	Since time.Time // of the first error in a row
	Err   error     // the last error

	next  time.Time // when it is logged again
	pause time.Duration
}

// String formats a trouble for the status.
func (t Trouble) String() string {
	why, do := t.Err.Error(), ""
	if b, ok := errors.AsType[delivery.Blocked](t.Err); ok {
		why, do = b.What, b.Do
	}
	line := fmt.Sprintf("%s since %s: %s", t.What, t.Since.UTC().Format("2006-01-02 15:04:05 UTC"), why)
	if do != "" {
		line += "; " + do
	}
	return line
}

// Note records a result: an error begins or continues the trouble, nil ends it.
func (t *Turn) Note(what string, err error) {
	now := t.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.troubles[what]
	if err == nil {
		if old != nil {
			delete(t.troubles, what)
			t.Log.Info("works again", "what", what, "for", now.Sub(old.Since).Round(time.Second).String())
		}
		return
	}
	if old == nil {
		old = &Trouble{What: what, Since: now}
		t.troubles[what] = old
	}
	other := old.Err == nil || old.Err.Error() != err.Error()
	old.Err = err
	switch {
	case other && old.pause < time.Second:
		old.pause = time.Second
	case now.Before(old.next):
		return
	default:
		old.pause = min(2*old.pause, maxLogPause)
	}
	old.next = now.Add(old.pause)
	t.Log.Warn(what, "error", err.Error(), "since", old.Since.UTC())
}

// Keep ends the troubles of a kind that are not in keep.
func (t *Turn) Keep(ofKind func(what string) bool, keep []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.troubles, func(what string, _ *Trouble) bool {
		return ofKind(what) && !slices.Contains(keep, what)
	})
}

// Troubles returns all troubles, the oldest first.
func (t *Turn) Troubles() []Trouble {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]Trouble, 0, len(t.troubles))
	for _, one := range t.troubles {
		list = append(list, *one)
	}
	slices.SortFunc(list, func(a, b Trouble) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.What, b.What))
	})
	return list
}

// Trouble returns the error of one trouble, or nil.
func (t *Turn) Trouble(what string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one := t.troubles[what]; one != nil {
		return one.Err
	}
	return nil
}

// Meanwhile adds to an error what happens until it is resolved.
func Meanwhile(err error, what string) error {
	if b, ok := errors.AsType[delivery.Blocked](err); ok {
		b.What = what + ": " + b.What
		return b
	}
	return fmt.Errorf("%s: %w", what, err)
}

// First returns the first of some errors, with their number if there are several. what is a name for all of them.
func First(errs map[string]error, what string) error {
	keys := slices.Sorted(maps.Keys(errs))
	switch len(keys) {
	case 0:
		return nil
	case 1:
		return errs[keys[0]]
	}
	return Meanwhile(errs[keys[0]], fmt.Sprintf("%d %s wait", len(errs), what))
}
