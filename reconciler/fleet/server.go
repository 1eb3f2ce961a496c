package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trust"
)

// Bounds.
const (
	MaxReport  = 64 << 10 // bytes of a report
	MaxWait    = 55 * time.Second
	maxHealthy = 16 // bundles in a device's history
)

// A Registry keeps devices. A device is named by ring and Report.Device.
type Registry interface {
	// SaveDevice keeps a device in place of what was kept. It is durable on return.
	SaveDevice(ctx context.Context, ring string, d delivery.Device) error
	// Devices returns all devices. Where some cannot be read, it returns the others beside a [delivery.Unreadable],
	// which names a device as RING/DEVICE.
	Devices(ctx context.Context) ([]delivery.Device, error)
	// DropDevice forgets a device. One that is not there is no error.
	DropDevice(ctx context.Context, ring, device string) error
}

// Config says what a Server works with.
type Config struct {
	Dir      string     // holds desired/RING.json; is made
	Key      *trust.Key // the desired key
	Secret   string     // that devices' tokens are derived from, see DeviceToken; at least 16 bytes
	Registry Registry

	// Least is what the version of every document that is published from now on is above. A server whose files are an
	// old copy sets it, as devices follow no document below one that they have seen. See LeastVersion.
	Least int64

	Expiry     time.Duration    // of a document; 24h where zero
	MaxWaiters int              // requests that wait at one time; 4096 where zero
	MaxDevices int              // in all rings; 200,000 where zero
	MaxRing    int              // devices in one ring; 100,000 where zero
	Deadline   time.Duration    // after which a device that was not heard from has no say; 15m where zero
	Now        func() time.Time // time.Now where nil
	// called when reports say something new, at most once in WakeEvery; must not block. May be nil
	Wake      func()
	WakeEvery time.Duration // 1s where zero
	Log       *slog.Logger
}

// A Server publishes desired state and hears reports. Its methods may be called
// from any goroutine.
type Server struct {
	Config

	publishing sync.Mutex // one at a time: the version is read, raised and written
	reporting  sync.Mutex // one at a time: the registry gets a device's reports in order

	mu      sync.Mutex
	rings   map[string]published
	changed chan struct{} // closed and made anew when a ring changes
	devices map[deviceKey]delivery.Device
	unread  map[deviceKey]string // why a device's record cannot be read; until it reports again
	damaged map[string]error     // by ring: why its document cannot be read
	count   map[string]int       // devices by ring
	offers  map[string]offer     // by ring
	wakeAt  time.Time            // when Wake was called last, or will be
	hears   attention
	paces   map[deviceKey]pace // of lines of the log, by device, and by ring

	waiting, reports, repeats, refused, reads atomic.Int64
}

type deviceKey struct{ ring, device string }

// Stats are counts since the start, but for Waiting, which is now.
type Stats struct {
	Waiting int64 // requests that wait
	Reads   int64 // documents sent
	Reports int64 // reports taken
	Repeats int64 // reports heard before
	Refused int64 // reports refused
}

// Open makes a server from the documents in c.Dir and the devices in c.Registry.
func Open(ctx context.Context, c Config) (*Server, error) {
	if err := checkSecret(c.Secret); err != nil {
		return nil, err
	}
	if c.Expiry <= 0 {
		c.Expiry = 24 * time.Hour
	}
	if c.MaxWaiters <= 0 {
		c.MaxWaiters = 4096
	}
	if c.MaxDevices <= 0 {
		c.MaxDevices = 200_000
	}
	if c.MaxRing <= 0 {
		c.MaxRing = 100_000
	}
	if c.Deadline <= 0 {
		c.Deadline = 15 * time.Minute
	}
	if c.WakeEvery <= 0 {
		c.WakeEvery = time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Wake == nil {
		c.Wake = func() {}
	}
	s := &Server{Config: c, hears: attention{gap: max(c.Deadline/4, time.Second), quiet: c.Deadline / 2,
		heard: map[string]time.Time{}, again: map[string]time.Time{}},
		rings:   map[string]published{},
		changed: make(chan struct{}), devices: map[deviceKey]delivery.Device{}, offers: map[string]offer{},
		count:  map[string]int{},
		paces:  map[deviceKey]pace{},
		unread: map[deviceKey]string{}, damaged: map[string]error{}}
	if err := os.MkdirAll(s.desiredDir(), 0o700); err != nil {
		return nil, fmt.Errorf("open fleet: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(s.desiredDir(), "*.json"))
	if err != nil {
		return nil, fmt.Errorf("open fleet: %w", err)
	}
	for _, path := range files {
		p, err := load(path, c.Key)
		if err != nil { // only this ring stays as it is
			do := "move the file away and start aob serve again; " +
				"its ring is published anew, above the version that its devices report"
			if b, ok := errors.AsType[delivery.Blocked](err); ok {
				do, err = b.Do, errors.New(b.What)
			}
			ring := strings.TrimSuffix(filepath.Base(path), ".json")
			s.damaged[ring] = delivery.Blockedf(do, "the desired document %s cannot be read: %s", path, err)
			continue
		}
		s.rings[p.desired.Ring] = p
	}
	if err := s.loadOffers(); err != nil {
		return nil, fmt.Errorf("open fleet: %w", err)
	}
	for ring, p := range s.rings {
		s.offers[ring] = s.offers[ring].with(p.desired)
	}
	devices, err := c.Registry.Devices(ctx)
	unread, some := errors.AsType[delivery.Unreadable](err)
	if err != nil && !some {
		return nil, fmt.Errorf("open fleet: read devices: %w", err)
	}
	for _, u := range unread {
		ring, device, _ := strings.Cut(u.What, "/")
		s.unread[deviceKey{ring, device}] = u.Why
		c.Log.Error("what is kept of a device cannot be read; it counts again when it reports", "device", device,
			"ring", ring, "err", u.Why)
	}
	for _, d := range devices {
		s.devices[deviceKey{d.Report.Ring, d.Report.Device}] = d
		s.count[d.Report.Ring]++
		if d.Seen.After(s.hears.heard[d.Report.Ring]) {
			s.hears.heard[d.Report.Ring] = wall(d.Seen)
		}
	}
	return s, nil
}

// LeastVersion is the least version of documents for a server whose files became
// another server's at a time: the seconds since 1970, which no count of documents
// reaches.
func LeastVersion(at time.Time) int64 { return at.Unix() }

// Unreadable says which devices' records and which rings' documents cannot be read, and what is done about it. Their
// devices keep what they run; the others go on.
func (s *Server) Unreadable() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for _, ring := range slices.Sorted(maps.Keys(s.damaged)) {
		err := s.damaged[ring]
		if b, ok := errors.AsType[delivery.Blocked](err); ok {
			err = errors.New(b.What + "; " + b.Do)
		}
		list = append(list, fmt.Sprintf("fleet %s stays as it is: %s", ring, err))
	}
	keys := slices.SortedFunc(maps.Keys(s.unread), func(a, b deviceKey) int {
		return cmp.Or(cmp.Compare(a.ring, b.ring), cmp.Compare(a.device, b.device))
	})
	for i, key := range keys {
		if i == maxUnread {
			list = append(list, fmt.Sprintf("what is kept of %d more devices cannot be read", len(keys)-maxUnread))
			break
		}
		list = append(list, fmt.Sprintf("what is kept of device %s of fleet %s cannot be read, so it does not count "+
			"until it reports again (aob device forget %s %s forgets it): %s",
			key.device, key.ring, key.ring, key.device, s.unread[key]))
	}
	return list
}

// maxUnread is how many devices are named whose record cannot be read.
const maxUnread = 20

func (s *Server) desiredDir() string { return filepath.Join(s.Dir, "desired") }

// Stats returns what has happened since the server was opened.
func (s *Server) Stats() Stats {
	return Stats{Waiting: s.waiting.Load(), Reads: s.reads.Load(), Reports: s.reports.Load(), Repeats: s.repeats.Load(),
		Refused: s.refused.Load()}
}

// wake calls Wake now, or a little later where it was called just before. The
// caller holds s.mu.
func (s *Server) wake() {
	now := time.Now()
	if now.Before(s.wakeAt) {
		return // it will be called
	}
	pause := s.WakeEvery - now.Sub(s.wakeAt)
	if pause <= 0 {
		s.wakeAt = now
		s.Wake()
		return
	}
	s.wakeAt = now.Add(pause)
	time.AfterFunc(pause, s.Wake)
}

// Forget removes a device. One that speaks again is a new one.
func (s *Server) Forget(ctx context.Context, ring, device string) error {
	s.reporting.Lock()
	defer s.reporting.Unlock()
	key := deviceKey{ring, device}
	s.mu.Lock()
	_, read := s.devices[key]
	_, unread := s.unread[key]
	known := read || unread
	s.mu.Unlock()
	if !known {
		return delivery.Blockedf("aob device list shows those that are known",
			"there is no device %.80q in fleet %.80q", device, ring)
	}
	if err := s.Registry.DropDevice(ctx, ring, device); err != nil {
		return fmt.Errorf("forget device %s of fleet %s: %w", device, ring, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.unread, key); read {
		delete(s.devices, key)
		delete(s.paces, key)
		s.count[ring]--
	}
	s.Log.Info("device forgotten", "device", device, "ring", ring)
	s.wake()
	return nil
}

// Handler serves the two addresses of the package comment.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /fleet/v1/desired/{ring}", s.serveDesired)
	mux.HandleFunc("POST /fleet/v1/reports", s.serveReport)
	return mux
}

var (
	errName     = errors.New("want lower-case letters, digits and dashes, at most 64")
	namePattern = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)
)

func checkName(what, name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%s: %w, got %.80q", what, errName, name)
	}
	return nil
}
