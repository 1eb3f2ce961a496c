package fleet

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trust"
)

func TestBreaksInListening(t *testing.T) {
	noon := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name  string
		ticks []time.Duration // after noon
		since time.Duration
	}{
		{"none", []time.Duration{time.Minute, 2 * time.Minute}, 0},
		{"suspended", []time.Duration{time.Minute, time.Hour, time.Hour + time.Minute}, time.Hour},
		{"twice", []time.Duration{time.Hour, 2 * time.Hour}, 2 * time.Hour},
		{"set back", []time.Duration{-time.Hour, -time.Hour + time.Minute}, -time.Hour},
		{"set back a little", []time.Duration{time.Minute, time.Minute - time.Second}, 0},
	} {
		a := listening{gap: 3 * time.Minute}
		if a.tick(noon); !a.since.IsZero() {
			t.Errorf("%s: a break is reported before listening began", c.name)
		}
		a.begin(noon)
		for _, at := range c.ticks {
			a.tick(noon.Add(at))
		}
		if got := a.since.Sub(noon); got != c.since {
			t.Errorf("%s: since noon + %s, want + %s", c.name, got, c.since)
		}
	}
}

type noRegistry struct{}

func (noRegistry) SaveDevice(context.Context, string, delivery.Device) error { return nil }
func (noRegistry) DropDevice(context.Context, string, string) error          { return nil }
func (noRegistry) Devices(context.Context) ([]delivery.Device, error)        { return nil, nil }

// loadedRegistry is a registry with devices that were heard from before the server was started.
type loadedRegistry struct {
	noRegistry
	devices []delivery.Device
}

func (s loadedRegistry) Devices(context.Context) ([]delivery.Device, error) { return s.devices, nil }

// A time without any report may be an outage of the server's network. It ends with the first report, and the silence of
// the other devices counts from then.
func TestGapEndsWithFirstReport(t *testing.T) {
	const deadline = 16 * time.Minute
	for _, c := range []struct {
		name      string
		heard     []time.Duration // after the start; negative: before it
		wantSince time.Duration   // what Listening returns at the end, after the start
	}{
		{name: "regular reports", heard: []time.Duration{0, 6 * time.Minute, 12 * time.Minute}},
		{name: "an outage", heard: []time.Duration{0, time.Hour}, wantSince: time.Hour},
		{name: "an outage a little shorter than the deadline", heard: []time.Duration{0, 15 * time.Minute},
			wantSince: 15 * time.Minute},
		{name: "an outage and reports after it", wantSince: time.Hour,
			heard: []time.Duration{0, time.Hour, time.Hour + time.Second, time.Hour + 5*time.Minute}},
		{name: "two outages", heard: []time.Duration{0, time.Hour, 3 * time.Hour}, wantSince: 3 * time.Hour},
		{name: "the first report of the first device", heard: []time.Duration{time.Hour}},
		{name: "an outage that began before a restart", heard: []time.Duration{-5 * time.Minute, 10 * time.Minute},
			wantSince: 10 * time.Minute},
		{name: "a restart without an outage", heard: []time.Duration{-time.Minute, time.Minute}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				key, err := trust.Create(t.TempDir() + "/key")
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				var kept loadedRegistry
				for len(c.heard) > 0 && c.heard[0] < 0 {
					kept.devices = append(kept.devices, delivery.Device{LastHeard: began.Add(c.heard[0]),
						Report: delivery.Report{Ring: "north", Device: "d1"}})
					c.heard = c.heard[1:]
				}
				s, err := Open(t.Context(), Config{Dir: t.TempDir(), Key: key, Secret: "a secret of the fleet",
					Registry: kept, WakeEvery: 1, Deadline: deadline, Log: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				go s.Listen(ctx)
				synctest.Wait()
				for i, at := range c.heard {
					time.Sleep(time.Until(began.Add(at)))
					if _, err := s.store(ctx, delivery.Report{Ring: "north", Device: "d1", Sequence: int64(i + 1),
						Phase: delivery.DeviceIdle}); err != nil {
						t.Fatal(err)
					}
				}
				if got := s.Listening("north").Sub(began); got != c.wantSince {
					t.Errorf("listening since %s after the start, want %s", got, c.wantSince)
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

func TestListening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, err := trust.Create(t.TempDir() + "/key")
		if err != nil {
			t.Fatal(err)
		}
		var jump, wakes atomic.Int64
		s, err := Open(t.Context(), Config{Dir: t.TempDir(), Key: key, Secret: "a secret of the fleet",
			Registry: noRegistry{}, WakeEvery: 1,
			Now:  func() time.Time { return time.Now().Add(time.Duration(jump.Load())) },
			Wake: func() { wakes.Add(1) }, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // opened, but its address is not bound yet
		if got := s.Listening("north"); !got.Equal(time.Now()) {
			t.Errorf("listening since %v before it can be reached", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		go s.Listen(ctx)
		time.Sleep(time.Hour)
		if got := s.Listening("north"); !got.Equal(began) {
			t.Errorf("listening since %v, want %v", got, began)
		}
		jump.Store(int64(20 * time.Minute)) // the machine was suspended
		if got := s.Listening("north"); !got.Equal(s.Now()) {
			t.Errorf("after a break listening since %v, want %v", got, s.Now())
		}
		at := s.Now()
		jump.Add(int64(-time.Hour)) // the clock is set back, and only Listen checks it
		before := wakes.Load()
		time.Sleep(time.Minute)
		if got := s.Listening("north"); !got.Before(at) || wakes.Load() == before {
			t.Errorf("after the clock was set back listening since %v; %d wakes", got, wakes.Load()-before)
		}
		cancel()
		synctest.Wait()
		time.Sleep(time.Minute)
		if got := s.Listening("north"); !got.Equal(s.Now()) {
			t.Errorf("after its end listening since %v", got)
		}
	})
}

// Gaps are counted by ring: reports of devices of other rings, at other sites, do not end a gap.
func TestGapsAreCountedByRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, err := trust.Create(t.TempDir() + "/key")
		if err != nil {
			t.Fatal(err)
		}
		const deadline = 16 * time.Minute
		s, err := Open(t.Context(), Config{Dir: t.TempDir(), Key: key, Secret: "a secret of the fleet",
			Registry:  loadedRegistry{},
			WakeEvery: 1, Deadline: deadline, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go s.Listen(ctx)
		synctest.Wait()
		began, n := time.Now(), int64(0)
		hears := func(ring string) {
			t.Helper()
			n++
			if _, err := s.store(ctx, delivery.Report{Ring: ring, Device: "d1", Sequence: n,
				Phase: delivery.DeviceIdle}); err != nil {
				t.Fatal(err)
			}
		}
		hears("south")
		for range 10 {
			hears("north")
			time.Sleep(deadline / 4)
		}
		hears("south")
		if got := s.Listening("north"); !got.Equal(began) {
			t.Errorf("north: listening since %s after the start, want 0", got.Sub(began))
		}
		if got := s.Listening("south"); !got.Equal(time.Now()) {
			t.Errorf("south: listening since %s after the start, want %s", got.Sub(began), time.Since(began))
		}
		cancel()
		synctest.Wait()
	})
}
