package edge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/edge"
	"github.com/autonomos/aob/reconciler/fleet"
)

type discardStore struct{}

func (discardStore) SaveDevice(context.Context, string, delivery.Device) error { return nil }
func (discardStore) Devices(context.Context) ([]delivery.Device, error)        { return nil, nil }
func (discardStore) DropDevice(context.Context, string, string) error          { return nil }

// A device that gets another ring or name while it has unsent reports can report under the new name at once.
func TestMovedDeviceReports(t *testing.T) {
	for name, to := range map[string][2]string{"another ring": {"south", "d1"}, "another name": {"north", "d2"}} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			const secret = "a secret of the fleet"
			woken := make(chan struct{}, 1)
			f, err := fleet.Open(t.Context(), fleet.Config{Dir: t.TempDir(), Key: l.key, Secret: secret,
				Registry:  discardStore{},
				WakeEvery: 1, Wake: func() {
					select {
					case woken <- struct{}{}:
					default:
					}
				}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
			if err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			reached, refused := true, make(chan struct{}, 100)
			reach := func(now bool) { mu.Lock(); defer mu.Unlock(); reached = now }
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				ok := reached
				mu.Unlock()
				switch {
				case r.Method == http.MethodGet:
					w.WriteHeader(http.StatusNotFound)
				case !ok:
					w.WriteHeader(http.StatusServiceUnavailable)
					refused <- struct{}{}
				default:
					f.Handler().ServeHTTP(w, r)
				}
			}))
			t.Cleanup(web.Close)
			awaitDevice := func(ring, device string) {
				t.Helper()
				late := time.After(20 * time.Second)
				for {
					if slices.ContainsFunc(f.Devices(), func(d delivery.Device) bool {
						return d.Report.Ring == ring && d.Report.Device == device
					}) {
						return
					}
					select {
					case <-woken:
					case <-late:
						t.Fatalf("no report of device %s in ring %s", device, ring)
					}
				}
			}
			dir := l.dir()
			as := func(ring, device string, labels map[string]string) func(*edge.Config) {
				return func(c *edge.Config) {
					c.Server, c.Ring, c.Device, c.Token = web.URL, ring, device, fleet.DeviceToken(secret, ring, device)
					c.Labels = labels
				}
			}
			d := l.boot(dir, as("north", "d1", nil))
			awaitDevice("north", "d1")
			d.stop()
			reach(false) // the network is down while the device is moved
			d = l.boot(dir, as("north", "d1", map[string]string{"site": "moved"}))
			<-refused
			d.stop()
			reach(true)
			d = l.boot(dir, as(to[0], to[1], nil))
			awaitDevice(to[0], to[1])
			d.stop()
			for _, x := range f.Devices() {
				if x.TwoPlaces(time.Now(), time.Hour) {
					t.Errorf("device %s in ring %s counts as two installations", x.Report.Device, x.Report.Ring)
				}
			}
		})
	}
}

// A report that the server will never accept does not block the ones behind it. A report that it may accept later does.
func TestRefusedReportDoesNotBlock(t *testing.T) {
	for status, passes := range map[int]bool{
		400: true, 403: true, 404: true, 405: true, 409: true, 410: true, 413: true, 422: true,
		401: false, 407: false, 408: false, 421: false, 425: false, 429: false, 500: false, 503: false} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			posts := make(chan int64, 1000)
			var down atomic.Bool
			down.Store(true)
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var report delivery.Report
				if r.Method == http.MethodGet || json.NewDecoder(r.Body).Decode(&report) != nil {
					w.WriteHeader(http.StatusNotFound)
					return
				}
				posts <- report.Sequence
				switch {
				case down.Load():
					w.WriteHeader(http.StatusServiceUnavailable)
				case report.Sequence == 1:
					w.WriteHeader(status)
				default:
					fmt.Fprintf(w, `{"highest":%d}`, report.Sequence)
				}
			}))
			t.Cleanup(web.Close)
			dir := l.dir()
			as := func(site string) func(*edge.Config) {
				return func(c *edge.Config) {
					c.Server, c.Retry, c.Labels = web.URL, time.Millisecond, map[string]string{"site": site}
				}
			}
			d := l.boot(dir, as("a"))
			<-posts // one report is sent and refused
			d.stop()
			down.Store(false)
			for len(posts) > 0 {
				<-posts
			}
			d = l.boot(dir, as("b")) // another report is queued behind it
			tries := 0
			for n := range posts {
				if n == 1 {
					if tries++; tries == 11 {
						break
					}
					continue
				}
				break
			}
			d.stop()
			if passed := tries < 11; passed != passes {
				t.Errorf("the report behind it is sent: %v, want %v", passed, passes)
			}
		})
	}
}
