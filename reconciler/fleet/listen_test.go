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

func TestBreaksInListeningAreNoticed(t *testing.T) {
	noon := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name  string
		looks []time.Duration // after noon
		since time.Duration
	}{
		{"none", []time.Duration{time.Minute, 2 * time.Minute}, 0},
		{"suspended", []time.Duration{time.Minute, time.Hour, time.Hour + time.Minute}, time.Hour},
		{"twice", []time.Duration{time.Hour, 2 * time.Hour}, 2 * time.Hour},
		{"set back", []time.Duration{-time.Hour, -time.Hour + time.Minute}, -time.Hour},
		{"set back a little", []time.Duration{time.Minute, time.Minute - time.Second}, 0},
	} {
		a := attention{gap: 3 * time.Minute}
		if a.tick(noon); !a.since.IsZero() {
			t.Errorf("%s: it listens before it has begun", c.name)
		}
		a.begin(noon)
		for _, at := range c.looks {
			a.tick(noon.Add(at))
		}
		if got := a.since.Sub(noon); got != c.since {
			t.Errorf("%s: since noon + %s, want + %s", c.name, got, c.since)
		}
	}
}

type nothing struct{}

func (nothing) SaveDevice(context.Context, string, delivery.Device) error { return nil }
func (nothing) DropDevice(context.Context, string, string) error          { return nil }
func (nothing) Devices(context.Context) ([]delivery.Device, error)        { return nil, nil }

// some is a registry of devices that were heard before the server was started.
type some struct {
	nothing
	devices []delivery.Device
}

func (s some) Devices(context.Context) ([]delivery.Device, error) { return s.devices, nil }

// A time in which no device at all was heard may be a cut of the server's own network. It is over with the first
// report, and the devices that report later have a whole deadline for that.
func TestGapInWhichNobodyWasHeardEndsWithTheFirstReport(t *testing.T) {
	const deadline = 16 * time.Minute
	for _, c := range []struct {
		name  string
		heard []time.Duration // after the start; negative: before it
		again time.Duration   // since when it listens at the end, after the start
	}{
		{name: "regular reports", heard: []time.Duration{0, 6 * time.Minute, 12 * time.Minute}},
		{name: "a cut", heard: []time.Duration{0, time.Hour}, again: time.Hour},
		{name: "a cut that is a bit shorter than a deadline", heard: []time.Duration{0, 15 * time.Minute},
			again: 15 * time.Minute},
		{name: "a cut and reports after it", again: time.Hour,
			heard: []time.Duration{0, time.Hour, time.Hour + time.Second, time.Hour + 5*time.Minute}},
		{name: "two cuts", heard: []time.Duration{0, time.Hour, 3 * time.Hour}, again: 3 * time.Hour},
		{name: "the first device of all", heard: []time.Duration{time.Hour}},
		{name: "a cut that began before a restart", heard: []time.Duration{-5 * time.Minute, 10 * time.Minute},
			again: 10 * time.Minute},
		{name: "a restart without a cut", heard: []time.Duration{-time.Minute, time.Minute}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				key, err := trust.Create(t.TempDir() + "/key")
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				var kept some
				for len(c.heard) > 0 && c.heard[0] < 0 {
					kept.devices = append(kept.devices, delivery.Device{Seen: began.Add(c.heard[0]),
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
					if _, err := s.take(ctx, delivery.Report{Ring: "north", Device: "d1", Sequence: int64(i + 1),
						Phase: delivery.DeviceIdle}); err != nil {
						t.Fatal(err)
					}
				}
				if got := s.Listening("north").Sub(began); got != c.again {
					t.Errorf("it listens since %s after the start, want %s", got, c.again)
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

func TestServerListensOnlyWhileItIsReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, err := trust.Create(t.TempDir() + "/key")
		if err != nil {
			t.Fatal(err)
		}
		var jump, wakes atomic.Int64
		s, err := Open(t.Context(), Config{Dir: t.TempDir(), Key: key, Secret: "a secret of the fleet",
			Registry: nothing{}, WakeEvery: 1,
			Now:  func() time.Time { return time.Now().Add(time.Duration(jump.Load())) },
			Wake: func() { wakes.Add(1) }, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // it is open, and its address cannot be bound
		if got := s.Listening("north"); !got.Equal(time.Now()) {
			t.Errorf("it listens since %v before anybody can reach it", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		go s.Listen(ctx)
		time.Sleep(time.Hour)
		if got := s.Listening("north"); !got.Equal(began) {
			t.Errorf("it listens since %v, want %v", got, began)
		}
		jump.Store(int64(20 * time.Minute)) // the machine was suspended
		if got := s.Listening("north"); !got.Equal(s.Now()) {
			t.Errorf("the first who asks after a break hears %v, want %v", got, s.Now())
		}
		at := s.Now()
		jump.Add(int64(-time.Hour)) // the clock is set back, and only Listen looks at it
		before := wakes.Load()
		time.Sleep(time.Minute)
		if got := s.Listening("north"); !got.Before(at) || wakes.Load() == before {
			t.Errorf("after the clock was set back it listens since %v; %d wakes", got, wakes.Load()-before)
		}
		cancel()
		synctest.Wait()
		time.Sleep(time.Minute)
		if got := s.Listening("north"); !got.Equal(s.Now()) {
			t.Errorf("it has ended, and listens since %v", got)
		}
	})
}

// A gap is of the ring in which nobody was heard. Devices of other rings, at other sites, do not make it shorter.
func TestGapIsOfOneRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, err := trust.Create(t.TempDir() + "/key")
		if err != nil {
			t.Fatal(err)
		}
		const deadline = 16 * time.Minute
		s, err := Open(t.Context(), Config{Dir: t.TempDir(), Key: key, Secret: "a secret of the fleet",
			Registry:  some{},
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
			if _, err := s.take(ctx, delivery.Report{Ring: ring, Device: "d1", Sequence: n,
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
			t.Errorf("north is heard since %s after the start, want all the time", got.Sub(began))
		}
		if got := s.Listening("south"); !got.Equal(time.Now()) {
			t.Errorf("south is heard since %s after the start, want %s", got.Sub(began), time.Since(began))
		}
		cancel()
		synctest.Wait()
	})
}
