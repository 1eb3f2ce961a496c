package edge

import (
	"cmp"
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

// Config configures an agent.
type Config struct {
	Device string            // id: lower-case letters, digits and dashes, at most 64
	Ring   string            // the ring whose document it follows
	Labels map[string]string // fleets select devices by these, such as site=north, board=orin-nano
	Dir    string            // state folder; created if it does not exist

	Server string // base URL of /fleet/v1/, without a slash at the end
	Token  string // this device's token, sent with every request to the server
	Client *http.Client
	Keys   []trust.PublicKey // keys whose signatures on documents are trusted

	Fetch FetchFunc
	Start StartFunc
	// Prepare makes what a bundle needs on this device before it serves, such as a TensorRT engine, while the bundle
	// before still serves. What it leaves undone, Start does. nil: nothing.
	Prepare func(ctx context.Context, bundleDir string) error
	Check   CheckFunc // nil: artifact.CheckUnpacked

	// Bench measures bundles that are not released, on Profiles; nil: this device is never asked to.
	Bench    BenchFunc
	Profiles []string

	// between reports if nothing changes, with jitter of half; 5m if zero; less if the document says so
	Heartbeat     time.Duration
	Health        time.Duration // between health checks during a soak, ten times as long after it; 1s if zero
	HealthTimeout time.Duration // of one health check; 30s if zero
	Retry         time.Duration // first backoff after a failure, grows to 15m; 1s if zero
	Now           func() time.Time
	Metrics       *Metrics
	Log           *slog.Logger
}

// An Agent brings one device to what its ring's document says.
type Agent struct {
	Config
	lock      *durable.Lock
	boot      string
	spool     *spool
	documents chan document
	unhealthy chan unexpectedEnd
	healthOK  chan struct{} // holds a token after a successful health check
	tasks     sync.WaitGroup

	pollErrors failureCount // of documents

	// The fields below are used by the loop's goroutine only.
	state           State
	desired         *delivery.Desired
	slots           map[string]Slot
	serving         *instance
	ending          *instance // was stopped; must have ended before the next one starts
	trouble         string
	fetching        Fetching
	downloadBackoff backoff // after failed downloads
	startBackoff    backoff // after failed starts that are the device's fault
	refused         string  // why the server's document is not followed; empty if it is
	job             *job
	socketCount     int // number of socket paths used so far
	sent            delivery.Report
	nextReport      time.Time // when to report again if nothing changes
	loggedReason    string    // the last reason for being idle that was logged
}

// A job is slow work that runs beside the loop: a download, or the start of a detector.
type job struct {
	plan       Plan
	cancel     context.CancelFunc
	done       chan struct{}
	pointer    string    // slot that serves
	ending     *instance // to wait for before the start
	socket     string
	instance   *instance // the started detector
	downloaded int64
	err        error
}

var namePattern = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// stable is how long a detector must run until its earlier crashes no longer count.
const stable = 10 * time.Minute

// Open locks a device's folder and reads the state that an earlier agent left. If another agent uses
// the folder, the error is a [delivery.Blocked].
func Open(c Config) (*Agent, error) {
	for what, name := range map[string]string{"device": c.Device, "ring": c.Ring} {
		if !namePattern.MatchString(name) {
			return nil, delivery.Blockedf("use lower-case letters, digits and dashes, at most 64",
				"the %s name %.80q is not valid", what, name)
		}
	}
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return nil, err
	}
	// The path of a Unix socket has at most 107 bytes.
	if n := len(filepath.Join(c.Dir, socketDir, "000000000.sock")); n > 107 {
		return nil, delivery.Blockedf("use a state folder with a shorter path",
			"the socket paths in state folder %s would have %d bytes; the limit is 107", c.Dir, n)
	}
	client := http.Client{}
	if c.Client != nil {
		client = *c.Client
	}
	// The token must not be sent to the target of a redirect.
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
	c.Heartbeat = cmp.Or(c.Heartbeat, 5*time.Minute)
	c.Health = cmp.Or(c.Health, time.Second)
	c.HealthTimeout = cmp.Or(c.HealthTimeout, 30*time.Second)
	c.Retry = cmp.Or(c.Retry, time.Second)
	c.Server = strings.TrimRight(c.Server, "/")
	a := &Agent{Config: c, documents: make(chan document), unhealthy: make(chan unexpectedEnd),
		healthOK: make(chan struct{}, 1)}
	a.downloadBackoff = backoff{first: c.Retry, most: 5 * time.Minute}
	a.startBackoff = backoff{first: c.Retry, most: 5 * time.Minute}
	if err := a.open(); err != nil {
		return nil, fmt.Errorf("open %s: %w", c.Dir, err)
	}
	return a, nil
}

func (a *Agent) open() (err error) {
	if err := durable.PrivateFolder(a.Dir); errors.Is(err, durable.ErrNotPrivate) { // such as another user's volume
		a.Log.Warn("other users of this device may be able to read the state folder; make the agent's user its owner, "+
			"and set its mode to 0700", "err", err)
	} else if err != nil {
		return err
	}
	a.lock, err = durable.TryLock(filepath.Join(a.Dir, lockFile))
	if errors.Is(err, durable.ErrLocked) {
		return delivery.Blockedf("stop the other agent, or use another state folder",
			"another agent is using this state folder")
	}
	if err != nil {
		return err
	}
	if err := a.load(); err != nil {
		return errors.Join(err, a.lock.Unlock())
	}
	return nil
}

// load reads the state from the folder.
func (a *Agent) load() error {
	state, err := readState(a.Dir)
	if newer, ok := errors.AsType[delivery.Blocked](err); ok {
		return newer
	}
	if err := removeLeftovers(a.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(a.Dir, socketDir), 0o700); err != nil {
		return err
	}
	a.spool = openSpool(a.Dir, a.Ring, a.Device)
	damaged := err != nil && !errors.Is(err, fs.ErrNotExist)
	if damaged {
		a.Log.Error("state file is damaged; using a bundle found in a slot", "err", err)
	}
	a.state = state.clone()
	a.state.Device, a.state.Ring = a.Device, a.Ring
	if a.state.Installation == "" {
		a.state.Installation = rand.Text()
	}
	a.boot = bootID()
	a.slots = map[string]Slot{}
	for _, slot := range []string{"b", "a"} {
		saveState := delivery.Digest("")
		if a.state.Slot == slot {
			saveState = a.state.Bundle
		}
		b, err := scanSlot(a.Dir, slot, saveState)
		if err != nil {
			return err
		}
		a.slots[slot] = Slot{Bundle: b}
		if damaged && b != "" {
			a.state.Slot, a.state.Bundle = slot, b // serve something until there is a document
		}
	}
	envelope, err := durable.ReadFile(filepath.Join(a.Dir, docFile), maxDocument)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var d document
	if err == nil {
		d, err = a.verify(envelope)
	}
	if err == nil && d.desired.Version < a.state.Versions[a.Ring] {
		err = fmt.Errorf("its version %d is below the highest accepted version %d", d.desired.Version,
			a.state.Versions[a.Ring])
	}
	if err != nil {
		a.Log.Warn("stored document not used", "err", err)
		return nil
	}
	a.desired = &d.desired
	a.state.Versions[a.Ring] = d.desired.Version // if the pointer was lost, or was not saved after the document
	return nil
}

// Run works until ctx is done, and then stops its detector. The error says that the folder could not
// be cleaned up or unlocked.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.Log.Info("agent", "device", a.Device, "ring", a.Ring, "slot", a.state.Slot, "bundle", a.state.Bundle, "release",
		a.state.Release)
	a.saveState() // so that status shows something before the first document arrives
	a.tasks.Go(func() { a.poll(ctx) })
	a.tasks.Go(func() { a.send(ctx) })
	if a.Bench != nil {
		a.tasks.Go(func() { a.bench(ctx) })
	}
	a.loop(ctx)

	cancel()
	a.endJob()
	if a.serving != nil {
		a.close(a.serving)
	}
	a.tasks.Wait()
	if a.state.Tries > 0 { // stopping the agent does not count against the bundle
		a.state.Tries--
		a.saveState()
	}
	os.Remove(filepath.Join(a.Dir, socketLink)) // the link's target is gone; an error changes nothing
	return errors.Join(os.RemoveAll(filepath.Join(a.Dir, socketDir)), a.lock.Unlock())
}

// Close unlocks the folder if Run is never called.
func (a *Agent) Close() error { return a.lock.Unlock() }

// loop repeats the four steps: observe, plan, act, report.
func (a *Agent) loop(ctx context.Context) {
	for ctx.Err() == nil {
		plan := Make(a.observe())
		if a.act(ctx, plan) {
			continue // the state has changed; plan again
		}
		a.report(plan)
		a.wait(ctx, plan)
	}
}

func (a *Agent) observe() World {
	w := World{At: a.Now(), Device: a.Device, Labels: a.Labels, Desired: a.desired, State: a.state, Slots: a.slots,
		Serving: a.serving != nil, Starting: a.job != nil && a.job.plan.Do == Start, Trouble: a.trouble,
		Fetch: a.fetching, Refused: a.refused, PollError: a.pollErrors.reportable()}
	if a.serving != nil {
		w.Soaked = time.Duration(a.serving.healthyFor.Load())
	}
	return w
}

// wait blocks until something happens that can change the plan, and handles it.
func (a *Agent) wait(ctx context.Context, p Plan) {
	until := time.Until(a.nextReport)
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
	case d := <-a.documents:
		a.accept(d)
	case s := <-a.unhealthy:
		a.instanceFailed(s)
	case <-a.healthOK:
	case <-done:
		a.finish(ctx)
	}
}

// accept follows a document, unless its version is lower than the highest accepted one.
func (a *Agent) accept(d document) {
	highest := a.state.Versions[a.Ring]
	if d.desired.Version < highest {
		a.Metrics.refused.WithLabelValues("version").Inc()
		a.Log.Error("desired state refused: its version is below the highest accepted one", "version",
			d.desired.Version, "highest", highest)
		a.refused = fmt.Sprintf(
			"the server's document has version %d, and this device has accepted version %d before: "+
				"older versions are refused", d.desired.Version, highest)
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
	// A document that cannot be stored is still followed, and is fetched again after a restart.
	if err := durable.WriteFile(filepath.Join(a.Dir, docFile), d.envelope, 0o600); err != nil {
		a.Log.Error("desired state not stored", "err", err)
	}
	if d.desired.Version > highest {
		if len(a.state.Versions) >= maxRings {
			a.state.Versions = map[string]int64{}
		}
		a.state.Versions[a.Ring] = d.desired.Version
		a.saveState()
	}
}

// saveState saves the state. It is for changes that no switch depends on: an error is only logged.
func (a *Agent) saveState() {
	if err := a.state.save(a.Dir); err != nil {
		a.Log.Error("state not saved", "err", err)
	}
}

// instanceFailed takes an instance that ended or is not healthy out of service.
func (a *Agent) instanceFailed(s unexpectedEnd) {
	if s.instance != a.serving {
		return
	}
	a.Metrics.crashes.Inc()
	a.Log.Error("detector failed", "slot", s.slot, "bundle", s.target.Bundle, "why", s.why)
	a.serving, a.ending = nil, s.instance
	a.close(s.instance)
	a.trouble = s.why
	slot := a.slots[s.slot]
	if time.Since(s.since) > stable {
		slot.Crashes = 0
		a.startBackoff.reset()
	}
	if s.damaged != nil {
		a.handleDamage(s.slot, s.target.Bundle, s.damaged)
		return
	}
	a.crashed(s.slot, slot)
}

// crashed counts a crash of a slot's detector, and delays its next start.
func (a *Agent) crashed(name string, s Slot) {
	p := backoff{first: a.Retry, most: time.Minute, n: s.Crashes}
	s.Crashes++
	s.NotBefore = a.Now().Add(p.next(0))
	a.slots[name] = s
}

// bootID returns a hash of the machine's id and its boot id. The server uses it to tell apart copies
// of a state folder on different machines.
func bootID() string {
	h := sha256.New()
	for _, path := range []string{"/etc/machine-id", "/proc/sys/kernel/random/boot_id"} {
		data, _ := os.ReadFile(path) // an error is ignored: the other file is enough
		fmt.Fprintf(h, "%d %s ", len(data), data)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// heartbeat returns the time between reports if nothing changes. The document may ask for a shorter
// one, which fits the server's deadline for silence.
func (a *Agent) heartbeat() time.Duration {
	if a.desired != nil && a.desired.Report > 0 {
		return min(a.Heartbeat, max(time.Duration(a.desired.Report), time.Second))
	}
	return a.Heartbeat
}

// report queues a report if something has changed, or if the last report is older than the heartbeat.
func (a *Agent) report(p Plan) {
	r := delivery.Report{
		Device: a.Device, Ring: a.Ring, Labels: a.Labels, Desired: a.state.Versions[a.Ring], Phase: p.Phase,
		Blocked:    shorten(p.Held),
		Downloaded: a.state.Downloaded, Installation: a.state.Installation, Boot: a.boot,
	}
	want, _ := a.observe().wanted()
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
	if reflect.DeepEqual(r, a.sent) && time.Now().Before(a.nextReport) {
		return
	}
	a.sent, a.nextReport = r, time.Now().Add(jittered(a.heartbeat()))
	r.At = a.Now().UTC()
	if err := a.spool.add(r); err != nil {
		a.Log.Warn("report not stored on disk", "err", err)
	}
}
