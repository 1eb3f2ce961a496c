package delivery

import (
	"fmt"
	"strconv"
	"time"
)

// Blocked is an error that a person must settle: it is shown where the person
// looks, and is not retried until something that it depends on changes.
type Blocked struct {
	What string // what is wrong, and where
	Do   string // what to do about it
}

func (b Blocked) Error() string {
	if b.Do == "" {
		return b.What
	}
	return b.What + "; " + b.Do
}

// Blockedf makes a Blocked error.
func Blockedf(do, format string, args ...any) Blocked {
	return Blocked{What: fmt.Sprintf(format, args...), Do: do}
}

// Wait is an error that time settles: come back after For.
type Wait struct {
	For  time.Duration
	What string
}

func (w Wait) Error() string { return fmt.Sprintf("%s; again in %s", w.What, w.For) }

// RetryAfter reads the header of this name of an HTTP answer, seconds or a date. It is between a second and ten
// minutes, and ten seconds where the header says nothing.
func RetryAfter(header string, now time.Time) time.Duration {
	wait := 10 * time.Second
	if n, err := strconv.Atoi(header); err == nil && n < 1e6 {
		wait = time.Duration(n) * time.Second
	}
	for _, layout := range []string{"Mon, 02 Jan 2006 15:04:05 GMT", time.RFC850, time.ANSIC} {
		if t, err := time.Parse(layout, header); err == nil {
			wait = t.Sub(now).Round(time.Second)
		}
	}
	return min(max(wait, time.Second), 10*time.Minute)
}
