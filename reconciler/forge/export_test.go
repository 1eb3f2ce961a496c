package forge

import "time"

// Budget is a budget, for tests of what posts to a forge.
type Budget struct{ budget }

// Take counts a request, or returns how long it has to wait.
func (b *Budget) Take(now time.Time) time.Duration { return b.take(now) }

// Spare returns when progress may be posted.
func (b *Budget) Spare(now time.Time, waiting int) time.Time { return b.spare(now, waiting) }
