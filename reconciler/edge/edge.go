package edge

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/trust"
)

// Config says who a device is and what it works with.
type Config struct {
	Device string            // its id: lower-case letters, digits and dashes, at most 64
	Ring   string            // the fleet it belongs to
	Labels map[string]string // what fleets match on, as site=north, board=orin-nano
	Dir    string            // where its state lies; is made

	Server string // URL that /fleet/v1/ is under, without a slash at the end
	Token  string // of this device, which every request to the server carries
	Client *http.Client
	Keys   []trust.PublicKey // that documents are believed from

	Fetch FetchFunc
	Start StartFunc
	Check CheckFunc // artifact.CheckUnpacked where nil

	// between reports when nothing changes, give or take half of it; 5m where zero, less where the document says so
	Heartbeat     time.Duration
	Health        time.Duration // between health checks during a soak, a tenth as often after it; 1s where zero
	HealthTimeout time.Duration // of one check; 30s where zero
	Retry         time.Duration // the first pause after a failure, which grows to 15m; 1s where zero
	Now           func() time.Time
	Metrics       *Metrics
	Log           *slog.Logger
}

// An Agent brings one device to what its ring's document says.
type Agent struct {
	Config
	lock  *durable.Lock
	boot  string
	spool *spool
	docs  chan document
	sick  chan sickness
	well  chan struct{} // holds a token when a health check came out well
	tasks sync.WaitGroup

	unread unread // documents

	// What follows is the loop's alone.
	state    State
	desired  *delivery.Desired
	slots    map[string]Slot
	serving  *instance
	ending   *instance // that the next one must wait for
	trouble  string
	fetching Fetching
	tries    pauses // between downloads that failed
	faults   pauses // between attempts that a fault of this device failed
	refused  string // why the server's document is not followed
	job      *job
	sockets  int // made so far
	sent     delivery.Report
	beat     time.Time // when to say it again, if nothing changes
	rested   string    // the reason last logged
}

// A job is slow work beside the loop: a download, or the start of a detector.
type job struct {
	plan       Plan
	cancel     context.CancelFunc
	done       chan struct{}
	pointer    string    // slot that serves
	ending     *instance // to wait for
	socket     string
	instance   *instance // that was started
	downloaded int64
	err        error
}

var namePattern = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// stable is how long a detector must run for its crashes to be forgotten.
const stable = 10 * time.Minute

// Open takes a device's folder, and reads what an agent before this one left.
// A folder that another agent works in is a [delivery.Blocked] error.
func Open(c Config) (*Agent, error) {
	for what, name := range map[string]string{"device": c.Device, "ring": c.Ring} {
		if !namePattern.MatchString(name) {
			return nil, delivery.Blockedf("use lower-case letters, digits and dashes, at most 64",
				"the %s's name %.80q cannot be used", what, name)
		}
	}
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return nil, err
	}
	// A socket's path has at most 107 bytes.
	if n := len(filepath.Join(c.Dir, socketDir, "000000000.sock")); n > 107 {
		return nil, delivery.Blockedf("choose a shorter one",
			"the state folder %s makes socket paths of %d bytes, the most is 107", c.Dir, n)
	}
	client := http.Client{}
	if c.Client != nil {
		client = *c.Client
	}
	// The token must not follow a redirect.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.Client = &client
	if c.Check == nil {
		c.Check = artifact.CheckUnpacked
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{{&c.Heartbeat, 5 * time.Minute}, {&c.Health, time.Second}, {&c.HealthTimeout, 30 * time.Second},
		{&c.Retry, time.Second}} {
		if *d.v <= 0 {
			*d.v = d.d
		}
	}
	c.Server = strings.TrimRight(c.Server, "/")
	a := &Agent{Config: c, docs: make(chan document), sick: make(chan sickness), well: make(chan struct{}, 1)}
	a.tries = pauses{first: c.Retry, most: 5 * time.Minute}
	a.faults = pauses{first: c.Retry, most: 5 * time.Minute}
	if err := a.open(); err != nil {
		return nil, fmt.Errorf("open %s: %w", c.Dir, err)
	}
	return a, nil
}

func (a *Agent) open() (err error) {
	// as a volume that another user owns
	if err := durable.PrivateFolder(a.Dir); errors.Is(err, durable.ErrNotPrivate) {
		a.Log.Warn("other users of this device may read the state folder: give it to the agent's user, and set its "+
			"mode to 0700", "err", err)
	} else if err != nil {
		return err
	}
	a.lock, err = durable.TryLock(filepath.Join(a.Dir, lockFile))
	if errors.Is(err, durable.ErrLocked) {
		return delivery.Blockedf("stop it, or give this one a folder of its own", "another agent works here")
	}
	if err != nil {
		return err
	}
	if err := a.load(); err != nil {
		return errors.Join(err, a.lock.Unlock())
	}
	return nil
}

// load reads the folder.
func (a *Agent) load() error {
	state, err := readState(a.Dir)
	if newer, ok := errors.AsType[delivery.Blocked](err); ok {
		return newer
	}
	if err := sweep(a.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(a.Dir, socketDir), 0o700); err != nil {
		return err
	}
	a.spool = openSpool(a.Dir, a.Ring, a.Device)
	damaged := err != nil && !errors.Is(err, fs.ErrNotExist)
	if damaged {
		a.Log.Error("the pointer is damaged; what a slot holds is tried anew", "err", err)
	}
	a.state = state.clone()
	a.state.Device, a.state.Ring = a.Device, a.Ring
	if a.state.Installation == "" {
		a.state.Installation = rand.Text()
	}
	a.boot = thisBoot()
	a.slots = map[string]Slot{}
	for _, slot := range []string{"b", "a"} {
		keep := delivery.Digest("")
		if a.state.Slot == slot {
			keep = a.state.Bundle
		}
		b, err := scanSlot(a.Dir, slot, keep)
		if err != nil {
			return err
		}
		a.slots[slot] = Slot{Bundle: b}
		if damaged && b != "" {
			a.state.Slot, a.state.Bundle = slot, b // something serves, until there is a document
		}
	}
	envelope, err := readFile(filepath.Join(a.Dir, docFile), maxDocument)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var d document
	if err == nil {
		d, err = a.verify(envelope)
	}
	if err == nil && d.desired.Version < a.state.Versions[a.Ring] {
		err = fmt.Errorf("it is version %d, below %d", d.desired.Version, a.state.Versions[a.Ring])
	}
	if err != nil {
		a.Log.Warn("the kept document is not used", "err", err)
		return nil
	}
	a.desired = &d.desired
	a.state.Versions[a.Ring] = d.desired.Version // where the pointer was lost, or lags one behind
	return nil
}

// Run works until ctx ends, and then ends its detector. It returns an error
// only where the folder cannot be given back.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.Log.Info("agent", "device", a.Device, "ring", a.Ring, "slot", a.state.Slot, "bundle", a.state.Bundle, "release",
		a.state.Release)
	a.keep() // so that status has something to say before the first document comes
	a.tasks.Go(func() { a.poll(ctx) })
	a.tasks.Go(func() { a.send(ctx) })
	a.loop(ctx)

	cancel()
	a.endJob()
	if a.serving != nil {
		a.close(a.serving)
	}
	a.tasks.Wait()
	if a.state.Tries > 0 { // ending on purpose is no sign against the bundle
		a.state.Tries--
		a.keep()
	}
	os.Remove(filepath.Join(a.Dir, socketLink)) // it points nowhere, which is as good as gone
	return errors.Join(os.RemoveAll(filepath.Join(a.Dir, socketDir)), a.lock.Unlock())
}

// Close gives the folder back where Run is never called.
func (a *Agent) Close() error { return a.lock.Unlock() }

// loop takes one turn after the other: observe, plan, act, report.
func (a *Agent) loop(ctx context.Context) {
	for ctx.Err() == nil {
		plan := Make(a.observe())
		if a.act(ctx, plan) {
			continue // the world is another one now
		}
		a.report(plan)
		a.wait(ctx, plan)
	}
}

func (a *Agent) observe() World {
	w := World{At: a.Now(), Device: a.Device, Labels: a.Labels, Desired: a.desired, State: a.state, Slots: a.slots,
		Serving: a.serving != nil, Starting: a.job != nil && a.job.plan.Do == Start, Trouble: a.trouble,
		Fetch: a.fetching, Refused: a.refused, Unread: a.unread.trouble()}
	if a.serving != nil {
		w.Soaked = time.Duration(a.serving.well.Load())
	}
	return w
}

// wait lets the next thing happen.
func (a *Agent) wait(ctx context.Context, p Plan) {
	until := time.Until(a.beat)
	if !p.Until.IsZero() {
		until = min(until, p.Until.Sub(a.Now()))
	}
	timer := time.NewTimer(max(until, time.Millisecond))
	defer timer.Stop()
	var done chan struct{}
	if a.job != nil {
		done = a.job.done
	}
	select {
	case <-ctx.Done():
	case <-timer.C:
	case d := <-a.docs:
		a.take(d)
	case s := <-a.sick:
		a.fell(s)
	case <-a.well:
	case <-done:
		a.finish(ctx)
	}
}

// take makes a document the one to follow, unless it is older than one before.
func (a *Agent) take(d document) {
	followed := a.state.Versions[a.Ring]
	if d.desired.Version < followed {
		a.Metrics.refused.WithLabelValues("version").Inc()
		a.Log.Error("desired state refused: it is older than one seen before", "version", d.desired.Version, "seen",
			followed)
		a.refused = fmt.Sprintf("the server's document is version %d, and this device has followed version %d "+
			"before: an older one is not followed", d.desired.Version, followed)
		return
	}
	a.refused = ""
	if a.desired != nil && a.desired.Version == d.desired.Version && !d.desired.Expires.After(a.desired.Expires) {
		return
	}
	a.desired = &d.desired
	a.Log.Info("desired state", "version", d.desired.Version, "release", d.desired.Release.Version, "bundle",
		d.desired.Release.Bundle,
		"share", d.desired.Share, "mine", d.desired.InWave(a.Device), "expires", d.desired.Expires)
	// A document that cannot be kept is followed all the same, and is asked for
	// again after a restart.
	if err := durable.WriteFile(filepath.Join(a.Dir, docFile), d.envelope, 0o600); err != nil {
		a.Log.Error("desired state not kept", "err", err)
	}
	if d.desired.Version > followed {
		if len(a.state.Versions) >= maxRings {
			a.state.Versions = map[string]int64{}
		}
		a.state.Versions[a.Ring] = d.desired.Version
		a.keep()
	}
}

// keep writes the pointer where no switch depends on it.
func (a *Agent) keep() {
	if err := a.state.save(a.Dir); err != nil {
		a.Log.Error("state not kept", "err", err)
	}
}

// fell takes a sick instance out of service.
func (a *Agent) fell(s sickness) {
	if s.instance != a.serving {
		return
	}
	a.Metrics.crashes.Inc()
	a.Log.Error("detector fell", "slot", s.slot, "bundle", s.target.Bundle, "why", s.why)
	a.serving, a.ending = nil, s.instance
	a.close(s.instance)
	a.trouble = s.why
	slot := a.slots[s.slot]
	if time.Since(s.since) > stable {
		slot.Crashes = 0
		a.faults.reset()
	}
	if s.damaged != nil {
		a.damage(s.slot, s.target.Bundle, s.damaged)
		return
	}
	a.crashed(s.slot, slot)
}

// crashed counts a crash on a slot.
func (a *Agent) crashed(name string, s Slot) {
	p := pauses{first: a.Retry, most: time.Minute, n: s.Crashes}
	s.Crashes++
	s.NotBefore = a.Now().Add(p.next(0))
	a.slots[name] = s
}

// thisBoot names this machine and its last start. It tells copies of a state
// folder on different machines apart.
func thisBoot() string {
	h := sha256.New()
	for _, path := range []string{"/etc/machine-id", "/proc/sys/kernel/random/boot_id"} {
		data, _ := os.ReadFile(path) // where there is none the other has to do
		fmt.Fprintf(h, "%d %s ", len(data), data)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// heartbeat is how often the device reports when nothing changes: as often as the
// document asks for, which knows when the server takes silence for a failure.
func (a *Agent) heartbeat() time.Duration {
	if a.desired != nil && a.desired.Report > 0 {
		return min(a.Heartbeat, max(time.Duration(a.desired.Report), time.Second))
	}
	return a.Heartbeat
}

// report says what changed since it was last said, or that nothing did for long.
func (a *Agent) report(p Plan) {
	r := delivery.Report{
		Device: a.Device, Ring: a.Ring, Labels: a.Labels, Desired: a.state.Versions[a.Ring], Phase: p.Phase,
		Held:       cut(p.Held),
		Downloaded: a.state.Downloaded, Installation: a.state.Installation, Boot: a.boot,
	}
	want, _ := a.observe().want()
	failure := a.state.failure(want.Bundle)
	r.Failed, r.Why = failure.Bundle, failure.Why
	if a.serving != nil {
		r.Bundle, r.Release, r.Slot = a.state.Bundle, a.state.Release, a.state.Slot
	}
	stale := 0.0
	if a.desired != nil && !a.Now().Before(a.desired.Expires) {
		stale = 1
	}
	a.Metrics.stale.Set(stale)
	if reflect.DeepEqual(r, a.sent) && time.Now().Before(a.beat) {
		return
	}
	a.sent, a.beat = r, time.Now().Add(around(a.heartbeat()))
	r.At = a.Now().UTC()
	if err := a.spool.add(r); err != nil {
		a.Log.Warn("report not kept on disk", "err", err)
	}
}
