package delivery

import (
	"fmt"
	"strconv"
	"time"
)

// Blocked is an error that a person must resolve. It is shown on the pull request, and
// the work is not retried until something that it depends on changes.
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

// Wait is an error that goes away with time: try again after For.
type Wait struct {
	For  time.Duration
	What string
}

func (w Wait) Error() string { return fmt.Sprintf("%s; again in %s", w.What, w.Rounded()) }

// Rounded is For in whole seconds, rounded up.
func (w Wait) Rounded() time.Duration { return (w.For + time.Second - 1).Truncate(time.Second) }

// RetryAfter parses the Retry-After header of an HTTP response: seconds, or a date. The result is between one second
// and ten minutes. It is ten seconds if there is no such header.
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
