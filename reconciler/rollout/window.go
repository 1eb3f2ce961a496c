package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// opens reports whether a window is open, and when it opens next if it is closed. A window that passes
// midnight belongs to the day on which it opens. If From equals To, it is open all day.
func opens(w delivery.Window, at time.Time) (open bool, next time.Time, err error) {
	zone, err := time.LoadLocation(w.Zone)
	if err != nil {
		return false, next, fmt.Errorf("zone %q: %w", w.Zone, err)
	}
	from, err := time.Parse("15:04", w.From)
	if err != nil {
		return false, next, fmt.Errorf("from: want a time as in 01:00, got %q", w.From)
	}
	to, err := time.Parse("15:04", w.To)
	if err != nil {
		return false, next, fmt.Errorf("to: want a time as in 05:00, got %q", w.To)
	}
	y, m, d := at.In(zone).Date()
	// Yesterday's window may still be open; the next opening is at most a week away.
	for day := -1; day <= 8; day++ {
		start := time.Date(y, m, d+day, from.Hour(), from.Minute(), 0, 0, zone)
		end := time.Date(y, m, d+day, to.Hour(), to.Minute(), 0, 0, zone)
		if !to.After(from) {
			end = time.Date(y, m, d+day+1, to.Hour(), to.Minute(), 0, 0, zone)
		}
		name := strings.ToLower(time.Date(y, m, d+day, 12, 0, 0, 0, zone).Weekday().String()[:3])
		if len(w.Days) > 0 && !slices.Contains(w.Days, name) {
			continue
		}
		if !at.Before(start) && at.Before(end) {
			return true, next, nil
		}
		if start.After(at) {
			return false, start, nil
		}
	}
	return false, next, fmt.Errorf("days: want mon to sun, got %v", w.Days)
}
