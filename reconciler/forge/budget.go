package forge

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// GitHub's limits of requests that create content, and how many of them progress may use. The rest is for verdicts.
const (
	mostInAMinute, progressInAMinute = 80, 40
	mostInAnHour, progressInAnHour   = 500, 300
)

// A budget counts the requests that create content. Its methods may be called from any goroutine.
type budget struct {
	mu   sync.Mutex
	made []time.Time // in the last hour, the oldest first
}

// free returns when one more request may be made, if in a minute and in an hour at most so many are: now, or later.
func (b *budget) free(now time.Time, minute, hour int) time.Time {
	for len(b.made) > 0 && now.Sub(b.made[0]) >= time.Hour {
		b.made = b.made[1:]
	}
	at := now
	for _, limit := range []struct {
		most int
		in   time.Duration
	}{{minute, time.Minute}, {hour, time.Hour}} {
		if i := len(b.made) - limit.most; i >= 0 {
			if next := b.made[i].Add(limit.in); next.After(at) {
				at = next
			}
		}
	}
	return at
}

// take counts a request, or returns how long it has to wait.
func (b *budget) take(now time.Time) (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if at := b.free(now, mostInAMinute, mostInAnHour); at.After(now) {
		return at.Sub(now)
	}
	b.made = append(b.made, now)
	return 0
}

// spare returns when progress may be posted: now, or later. So many posts wait to be sent before it.
func (b *budget) spare(now time.Time, waiting int) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	if waiting >= progressInAMinute {
		return now.Add(time.Second)
	}
	return b.free(now, progressInAMinute-waiting, progressInAnHour-waiting)
}

// spends is a transport that keeps to a budget.
type spends struct {
	budget *budget
	next   http.RoundTripper
}

func (t *spends) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet && req.Context().Value(asksOnly{}) == nil {
		if wait := t.budget.take(time.Now()); wait > 0 {
			return nil, delivery.Wait{For: wait, What: fmt.Sprintf("aob writes at most %d times in a minute and %d "+
				"times in an hour, as GitHub asks", mostInAMinute, mostInAnHour)}
		}
	}
	return t.next.RoundTrip(req)
}
