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

// Limits.
const (
	MaxReport  = 64 << 10 // bytes
	MaxWait    = 55 * time.Second
	maxHealthy = 16 // bundles in a device's history
)

// A Registry stores devices. Ring and Report.Device together identify one.
type Registry interface {
	// SaveDevice stores a device and replaces an older record of it. It is durable on return.
	SaveDevice(ctx context.Context, ring string, d delivery.Device) error
	// Devices returns all devices. If some records cannot be read, it returns the others and a
	// [delivery.Unreadable] that names each as RING/DEVICE.
	Devices(ctx context.Context) ([]delivery.Device, error)
	// DropDevice removes a device. It is no error if there is none.
	DropDevice(ctx context.Context, ring, device string) error
}

// Config configures a Server.
type Config struct {
	Dir      string     // holds desired/RING.json; created if it does not exist
	Key      *trust.Key // the desired key
	Secret   string     // device tokens are derived from it, see DeviceToken; at least 16 bytes
	Registry Registry

	// Least: every document published from now on gets a version above it. It is set after a restore from
	// a backup, because devices refuse a version below the highest accepted one. See LeastVersion.
	Least int64

	Expiry     time.Duration    // lifetime of a document; 24h if zero
	MaxWaiters int              // requests waiting at the same time; 4096 if zero
	MaxDevices int              // in all rings; 200,000 if zero
	MaxRing    int              // devices in one ring; 100,000 if zero
	Deadline   time.Duration    // devices not heard from for longer do not count in acceptedVersion; 15m if zero
	Now        func() time.Time // time.Now if nil
	// called after reports with changes, at most once per WakeEvery; must not block; may be nil
	Wake      func()
	WakeEvery time.Duration // 1s if zero
	Log       *slog.Logger
}

// A Server publishes desired state and receives reports. It is safe for concurrent use.
type Server struct {
	Config

	publishing sync.Mutex // serializes reading, raising and writing a version

	mu         sync.Mutex
	rings      map[string]published
	changed    chan struct{} // closed and replaced when a ring's document changes
	devices    map[deviceKey]delivery.Device
	sorted     []deviceKey          // of devices; of another length if it is not up to date
	unreadable map[deviceKey]string // why a device's record cannot be read; until it reports again
	damaged    map[string]error     // by ring: why its document cannot be read
	count      map[string]int       // number of devices by ring, with those being stored
	arriving   int                  // new devices being stored
	busy       map[deviceKey]*deviceLock
	offered    map[string]offer // by ring
	wakeAt     time.Time        // time of the last call of Wake, or of the scheduled one
	listening  listening
	benches    map[deviceKey]benchState
	logLimits  map[deviceKey]logLimit // limits of log lines, by device and by ring

	waiting atomic.Int64 // long polls
}

type deviceKey struct{ ring, device string }

// A deviceLock serializes what one device sends, so that the registry gets its reports in order.
type deviceLock struct {
	sync.Mutex
	users int // that have it or wait for it
}

// lock locks a device, and returns what unlocks it.
func (s *Server) lock(key deviceKey) (unlock func()) {
	s.mu.Lock()
	l := s.busy[key]
	if l == nil {
		l = &deviceLock{}
		s.busy[key] = l
	}
	l.users++
	s.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(s.busy, key)
		}
	}
}

// Open makes a server from the documents in c.Dir and the devices in c.Registry. A document or a
// record that cannot be read is no error: see Unreadable.
func Open(ctx context.Context, c Config) (*Server, error) {
	if err := checkSecret(c.Secret); err != nil {
		return nil, err
	}
	c.Expiry = cmp.Or(c.Expiry, 24*time.Hour)
	c.MaxWaiters = cmp.Or(c.MaxWaiters, 4096)
	c.MaxDevices = cmp.Or(c.MaxDevices, 200_000)
	c.MaxRing = cmp.Or(c.MaxRing, 100_000)
	c.Deadline = cmp.Or(c.Deadline, 15*time.Minute)
	c.WakeEvery = cmp.Or(c.WakeEvery, time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Wake == nil {
		c.Wake = func() {}
	}
	s := &Server{Config: c, listening: listening{gap: max(c.Deadline/4, time.Second), maxSilence: c.Deadline / 2,
		lastReport: map[string]time.Time{}, resumed: map[string]time.Time{}}, rings: map[string]published{},
		changed: make(chan struct{}), devices: map[deviceKey]delivery.Device{}, offered: map[string]offer{},
		count: map[string]int{}, benches: map[deviceKey]benchState{}, logLimits: map[deviceKey]logLimit{},
		unreadable: map[deviceKey]string{}, damaged: map[string]error{}, busy: map[deviceKey]*deviceLock{}}
	if err := os.MkdirAll(s.desiredDir(), 0o700); err != nil {
		return nil, fmt.Errorf("open fleet: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(s.desiredDir(), "*.json"))
	if err != nil {
		return nil, fmt.Errorf("open fleet: %w", err)
	}
	for _, path := range files {
		p, err := load(path, c.Key)
		if err != nil { // affects only this ring
			do := "move the file away and start aob serve again; " +
				"it then publishes a new document, with a version above the one that the ring's devices report"
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
	if err := s.loadBenches(); err != nil {
		return nil, fmt.Errorf("open fleet: %w", err)
	}
	for ring, p := range s.rings {
		s.offered[ring] = s.offered[ring].withDocument(p.desired)
	}
	devices, err := c.Registry.Devices(ctx)
	unreadable, some := errors.AsType[delivery.Unreadable](err)
	if err != nil && !some {
		return nil, fmt.Errorf("open fleet: read devices: %w", err)
	}
	for _, u := range unreadable {
		ring, device, _ := strings.Cut(u.What, "/")
		s.unreadable[deviceKey{ring, device}] = u.Why
		c.Log.Error("the stored record of a device cannot be read; the device counts again after its next report",
			"device", device, "ring", ring, "err", u.Why)
	}
	for _, d := range devices {
		s.devices[deviceKey{d.Report.Ring, d.Report.Device}] = d
		s.count[d.Report.Ring]++
		if d.LastHeard.After(s.listening.lastReport[d.Report.Ring]) {
			s.listening.lastReport[d.Report.Ring] = wall(d.LastHeard)
		}
	}
	return s, nil
}

// LeastVersion returns the lowest version for documents of a server that took over another server's
// files at a time: the seconds since 1970, which no number of documents reaches.
func LeastVersion(at time.Time) int64 { return at.Unix() }

// Unreadable returns one sentence for each device's record and ring's document that cannot be read,
// with what to do about it. Those devices keep what they run; all others are not affected.
func (s *Server) Unreadable() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for _, ring := range slices.Sorted(maps.Keys(s.damaged)) {
		err := s.damaged[ring]
		if b, ok := errors.AsType[delivery.Blocked](err); ok {
			err = errors.New(b.What + "; " + b.Do)
		}
		list = append(list, fmt.Sprintf("fleet %s gets no new document: %s", ring, err))
	}
	keys := slices.SortedFunc(maps.Keys(s.unreadable), func(a, b deviceKey) int {
		return cmp.Or(cmp.Compare(a.ring, b.ring), cmp.Compare(a.device, b.device))
	})
	for i, key := range keys {
		if i == maxUnread {
			list = append(list, fmt.Sprintf("the stored records of %d more devices cannot be read",
				len(keys)-maxUnread))
			break
		}
		list = append(list, fmt.Sprintf(
			"the stored record of device %s of fleet %s cannot be read; the device does not "+
				"count until it reports again (aob device forget %s %s removes the record): %s",
			key.device, key.ring, key.ring, key.device, s.unreadable[key]))
	}
	return list
}

// maxUnread is how many devices with unreadable records are named.
const maxUnread = 20

func (s *Server) desiredDir() string { return filepath.Join(s.Dir, "desired") }

// wake calls Wake, or schedules it if the last call was less than WakeEvery ago. The caller holds s.mu.
func (s *Server) wake() {
	now := time.Now()
	if now.Before(s.wakeAt) {
		return // a call is scheduled
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

// Forget removes a device. If it reports again, it is a new device. The error is a [delivery.Blocked] if there is none.
func (s *Server) Forget(ctx context.Context, ring, device string) error {
	key := deviceKey{ring, device}
	defer s.lock(key)()
	s.mu.Lock()
	_, read := s.devices[key]
	_, unreadable := s.unreadable[key]
	known := read || unreadable
	s.mu.Unlock()
	if !known {
		return delivery.Blockedf("list the known devices with: aob device list",
			"there is no device %.80q in fleet %.80q", device, ring)
	}
	if err := s.Registry.DropDevice(ctx, ring, device); err != nil {
		return fmt.Errorf("forget device %s of fleet %s: %w", device, ring, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.unreadable, key); read {
		delete(s.devices, key)
		s.sorted = nil
		delete(s.logLimits, key)
		s.count[ring]--
	}
	s.Log.Info("device forgotten", "device", device, "ring", ring)
	s.wake()
	return nil
}

// Handler serves the routes of the package comment.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /fleet/v1/desired/{ring}", s.serveDesired)
	mux.HandleFunc("POST /fleet/v1/reports", s.serveReport)
	mux.HandleFunc("GET /fleet/v1/bench", s.serveBench)
	mux.HandleFunc("POST /fleet/v1/bench", s.serveBenched)
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
