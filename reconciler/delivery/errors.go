package delivery

import (
	"fmt"
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
