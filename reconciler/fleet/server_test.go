package fleet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/fleet"
	"github.com/autonomos/aob/reconciler/trust"
)

const secret = "a secret of the fleet"

// token stands for the token of the report's device.
const token = "its own"

// registry is a Registry in memory.
type registry struct {
	mu      sync.Mutex
	devices map[string]delivery.Device
	err     error
	saves   int
}

func (r *registry) SaveDevice(_ context.Context, ring string, d delivery.Device) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	if r.devices == nil {
		r.devices = map[string]delivery.Device{}
	}
	r.devices[ring+"/"+d.Report.Device] = d
	r.saves++
	return nil
}

func (r *registry) DropDevice(_ context.Context, ring, device string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.devices, ring+"/"+device)
	return r.err
}

func (r *registry) Devices(context.Context) ([]delivery.Device, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.devices)), r.err
}

// A site is a server with its clock and its files.
type site struct {
	*fleet.Server
	config fleet.Config
	reg    *registry
	now    time.Time
	wakes  int
	url    string
}

func newSite(t *testing.T, change func(*fleet.Config)) *site {
	t.Helper()
	key, err := trust.Create(filepath.Join(t.TempDir(), "desired.pem"))
	if err != nil {
		t.Fatal(err)
	}
	s := &site{reg: &registry{}, now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	s.config = fleet.Config{
		Dir: t.TempDir(), Key: key, Secret: secret, Registry: s.reg, Now: func() time.Time { return s.now },
		Wake: func() { s.wakes++ }, WakeEvery: 1, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&s.config)
	}
	s.restart(t)
	return s
}

func (s *site) restart(t *testing.T) {
	t.Helper()
	var err error
	if s.Server, err = fleet.Open(t.Context(), s.config); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s.Handler())
	t.Cleanup(web.Close)
	s.url = web.URL
}

func (s *site) publish(t *testing.T, d delivery.Desired) {
	t.Helper()
	if err := s.Publish(t.Context(), d); err != nil {
		t.Fatal(err)
	}
}

// get requests a ring's document and verifies it with the site's key.
func (s *site) get(t *testing.T, path, etag string) (status int, d delivery.Desired, newTag string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	ring, _, _ := strings.Cut(strings.TrimPrefix(path, "/fleet/v1/desired/"), "?")
	req.Header.Set("Authorization", "Bearer "+fleet.DeviceToken(secret, ring, "d1"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode == http.StatusOK {
		payload, _, err := trust.Verify(body, delivery.DesiredPayload, []trust.PublicKey{s.config.Key.Public()})
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(payload, &d); err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(filepath.Join(s.config.Dir, "desired", d.Ring+".json"))
		if err != nil || !bytes.Equal(file, body) {
			t.Errorf("the file differs from the served document: %v", err)
		}
	}
	return resp.StatusCode, d, resp.Header.Get("ETag")
}

// post sends a report's bytes.
func (s *site) post(t *testing.T, with string, body []byte) (status int, answer string) {
	t.Helper()
	if with == token {
		r := delivery.Report{Ring: "north", Device: "d1"}
		_ = json.Unmarshal(body, &r) // a body that does not decode is sent with the token of d1
		with = fleet.DeviceToken(secret, r.Ring, r.Device)
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", s.url+"/fleet/v1/reports", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if with != "" {
		req.Header.Set("Authorization", "Bearer "+with)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(text))
}

func bundle(name string) delivery.Digest { return delivery.Sum([]byte(name)) }

func desired(version int) delivery.Desired {
	return delivery.Desired{
		Ring: "north", Model: "pallets", Release: delivery.Target{Version: version,
			Bundle: bundle(fmt.Sprint(version))},
		Share: 0.25, Salt: "s", Soak: delivery.Duration(time.Minute), NextPoll: delivery.Duration(time.Second),
	}
}

func report(device string, sequence int64) delivery.Report {
	return delivery.Report{Device: device, Ring: "north", Sequence: sequence, Phase: delivery.DeviceIdle,
		Labels: map[string]string{"site": "north"}}
}

func encode(t *testing.T, r delivery.Report) []byte {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s *site) report(t *testing.T, r delivery.Report) {
	t.Helper()
	if status, answer := s.post(t, token, encode(t, r)); status != http.StatusOK {
		t.Fatalf("report refused: %d %s", status, answer)
	}
}

func TestVersions(t *testing.T) {
	s := newSite(t, nil)
	want := func(version int64, release int) {
		t.Helper()
		status, d, _ := s.get(t, "/fleet/v1/desired/north", "")
		if status != 200 || d.Version != version || d.Release.Version != release || !d.Expires.After(s.now) {
			t.Fatalf("got %d, %+v, want version %d of release %d", status, d, version, release)
		}
		if kept, ok := s.Published("north"); !ok || cmp.Diff(kept, d) != "" {
			t.Fatalf("Published differs: %s", cmp.Diff(kept, d))
		}
	}
	if status, _, _ := s.get(t, "/fleet/v1/desired/north", ""); status != 404 {
		t.Errorf("before the first document: %d", status)
	}
	s.publish(t, desired(1))
	want(1, 1)
	s.publish(t, desired(1))
	want(1, 1)
	s.publish(t, desired(2))
	want(2, 2)
	s.publish(t, desired(1)) // a rollback has a higher version too
	want(3, 1)
	s.restart(t)
	want(3, 1)
	s.publish(t, desired(1))
	want(3, 1)
	s.publish(t, desired(2))
	want(4, 2)
}

func TestDocumentIsSignedAgain(t *testing.T) {
	s := newSite(t, func(c *fleet.Config) { c.Expiry = 10 * time.Hour })
	s.publish(t, desired(1))
	_, first, tag := s.get(t, "/fleet/v1/desired/north", "")
	s.now = s.now.Add(4 * time.Hour)
	s.publish(t, desired(1))
	if status, _, _ := s.get(t, "/fleet/v1/desired/north", tag); status != http.StatusNotModified {
		t.Errorf("signed again too early: %d", status)
	}
	s.now = s.now.Add(2 * time.Hour)
	s.publish(t, desired(1))
	_, second, _ := s.get(t, "/fleet/v1/desired/north", tag)
	if second.Version != first.Version || !second.Expires.Equal(s.now.Add(10*time.Hour)) {
		t.Errorf("got version %d until %v, want version %d until ten hours from now", second.Version, second.Expires,
			first.Version)
	}
}

func TestDocumentOfAnotherKey(t *testing.T) {
	s := newSite(t, nil)
	s.publish(t, desired(1))
	var err error
	if s.config.Key, err = trust.Create(filepath.Join(t.TempDir(), "desired.pem")); err != nil {
		t.Fatal(err)
	}
	s.restart(t)
	s.publish(t, desired(1))
	if _, d, _ := s.get(t, "/fleet/v1/desired/north", ""); d.Version != 2 {
		t.Errorf("got version %d, want 2, of the new key", d.Version)
	}
}

// A server whose files were lost or are an old copy publishes above the version that its devices have accepted.
func TestServerWithOldFiles(t *testing.T) {
	s := newSite(t, nil)
	s.publish(t, desired(1))
	r := report("d1", 1)
	r.Desired = 57
	s.report(t, r)
	if _, d, _ := s.get(t, "/fleet/v1/desired/north", ""); d.Version != 58 || d.Release.Version != 1 {
		t.Errorf("got version %d of release %d, want 58 of 1", d.Version, d.Release.Version)
	}
	if err := os.Remove(filepath.Join(s.config.Dir, "desired", "north.json")); err != nil {
		t.Fatal(err)
	}
	s.restart(t)
	s.publish(t, desired(2))
	// Version 58 was published with other content.
	if _, d, _ := s.get(t, "/fleet/v1/desired/north", ""); d.Version != 59 || d.Release.Version != 2 {
		t.Errorf("after losing the file: got version %d of release %d, want 59 of 2", d.Version, d.Release.Version)
	}
	for _, file := range []string{"north.json", "north.offered"} { // all is lost
		if err := os.Remove(filepath.Join(s.config.Dir, "desired", file)); err != nil {
			t.Fatal(err)
		}
	}
	s.restart(t)
	s.publish(t, desired(2))
	// Version 59 was published, and a device may have accepted it without a report yet.
	if _, d, _ := s.get(t, "/fleet/v1/desired/north", ""); d.Version <= 59 || d.Release.Version != 2 {
		t.Errorf("after losing both files: got version %d of release %d, want one above 59 of 2", d.Version,
			d.Release.Version)
	}
}

// One device cannot raise its ring's version, and no accepted number is too large for the other side.
func TestNumbersFromDevicesAreBounded(t *testing.T) {
	s := newSite(t, nil)
	s.publish(t, desired(1))
	for _, id := range []string{"d1", "d2", "d3"} {
		r := report(id, 1)
		r.Desired = 1
		s.report(t, r)
	}
	version := func() int64 { _, d, _ := s.get(t, "/fleet/v1/desired/north", ""); return d.Version }
	liar := report("d3", 2)
	liar.Desired = 1000
	s.report(t, liar)
	s.publish(t, desired(2))
	if v := version(); v != 2 {
		t.Errorf("one of three devices raises the version to %d", v)
	}
	for i, change := range []func(*delivery.Report){
		func(r *delivery.Report) { r.Sequence = 1 << 53 },
		func(r *delivery.Report) { r.Sequence = 1<<63 - 1 },
		func(r *delivery.Report) { r.Desired = 1 << 53 },
		func(r *delivery.Report) { r.Downloaded = 1 << 53 },
		func(r *delivery.Report) { r.Release = 1 << 31 },
	} {
		r := report("d1", 2)
		change(&r)
		if status, answer := s.post(t, token, encode(t, r)); status != 400 ||
			!strings.Contains(answer, "less than 2^") {
			t.Errorf("%d: got %d %s", i, status, answer)
		}
	}
	// A version further ahead than any backup explains is ignored, even if all devices report it.
	for _, id := range []string{"d1", "d2", "d3"} {
		r := report(id, 5)
		r.Desired = 1 << 52
		s.report(t, r)
	}
	s.publish(t, desired(3))
	if v := version(); v != 3 {
		t.Errorf("all devices raise the version to %d", v)
	}
	s.report(t, report("d1", 6)) // reports are still accepted
}

// A ring whose document is damaged gets no new document and is named in Unreadable. Other rings are not affected.
func TestDamagedDocumentStopsOneRing(t *testing.T) {
	s := newSite(t, nil)
	south := desired(1)
	south.Ring = "south"
	s.publish(t, south)
	path := filepath.Join(s.config.Dir, "desired", "north.json")
	for _, content := range []string{"", "{", `{"payload":"bm8="}`, `{"payload":"e30="}`} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		s.restart(t)
		err := s.Publish(t.Context(), desired(1))
		if blocked := (delivery.Blocked{}); !errors.As(err, &blocked) || !strings.Contains(err.Error(), path) ||
			blocked.Do == "" {
			t.Errorf("%q: got %v", content, err)
		}
		if status, _, _ := s.get(t, "/fleet/v1/desired/north", ""); status != http.StatusServiceUnavailable {
			t.Errorf("%q: a device gets status %d", content, status)
		}
		if got := strings.Join(s.Unreadable(), " "); !strings.Contains(got, "fleet north gets no new document") ||
			!strings.Contains(got, "move the file away") {
			t.Errorf("%q: Unreadable is %q", content, got)
		}
		s.publish(t, south)
		if status, d, _ := s.get(t, "/fleet/v1/desired/south", ""); status != http.StatusOK || d.Release.Version != 1 {
			t.Errorf("%q: the other ring: %d %+v", content, status, d)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	s.restart(t)
	s.publish(t, desired(1))
	if got := s.Unreadable(); len(got) != 0 {
		t.Errorf("Unreadable is %q", got)
	}
}

// After a damaged document was moved away as the message says, its ring is published above the version that devices
// have accepted, even if the stored offers are damaged too and no device has reported yet.
func TestVersionAfterDamagedDocument(t *testing.T) {
	for name, offered := range map[string]func(string) error{
		"kept":    func(string) error { return nil },
		"damaged": func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) },
		"emptied": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"another": func(path string) error { return os.WriteFile(path, []byte(`{"version":-5}`), 0o600) },
		"lost":    os.Remove,
		"no file": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
	} {
		s := newSite(t, nil)
		last := int64(0)
		for i := range 5 {
			s.publish(t, desired(i%2+1))
			d, _ := s.Published("north")
			last = d.Version
		}
		r := report("d1", 1)
		r.Desired = last
		s.report(t, r)
		path := filepath.Join(s.config.Dir, "desired", "north.json")
		if err := os.WriteFile(path, nil, 0o600); err != nil { // a power cut
			t.Fatal(err)
		}
		if err := offered(filepath.Join(s.config.Dir, "desired", "north.offered")); err != nil {
			t.Fatal(err)
		}
		s.now = s.now.Add(time.Hour) // no device was heard from within the deadline
		s.restart(t)
		if err := s.Publish(t.Context(), desired(2)); err == nil {
			t.Errorf("%s: published although the document cannot be read", name)
		}
		if err := os.Rename(path, path+".damaged"); err != nil {
			t.Fatal(err)
		}
		if name == "no file" { // the start needs the file
			if err := os.Remove(filepath.Join(s.config.Dir, "desired", "north.offered")); err != nil {
				t.Fatal(err)
			}
		}
		s.restart(t)
		s.publish(t, desired(2))
		if d, _ := s.Published("north"); d.Version <= last {
			t.Errorf("stored offers %s: published as version %d, but devices have accepted %d", name, d.Version, last)
		}
	}
}

// The error for a document of a newer server says so, whichever key signed it. The document is not changed.
func TestDocumentOfNewerServerIsKept(t *testing.T) {
	s := newSite(t, nil)
	s.publish(t, desired(1))
	path := filepath.Join(s.config.Dir, "desired", "north.json")
	other, err := trust.Create(filepath.Join(t.TempDir(), "other.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]*trust.Key{"the same key": s.config.Key, "another key": other} {
		envelope, err := trust.Sign(key, "application/vnd.aob.desired.v2+json",
			[]byte(`{"ring":"north","version":9,"release":{}}`))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, envelope, 0o600); err != nil {
			t.Fatal(err)
		}
		s.restart(t)
		err = s.Publish(t.Context(), desired(2))
		const want = "was written by a newer aob: it has format 2, and this aob reads formats up to 1"
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "move the file away") {
			t.Errorf("%s: Publish returns %v", name, err)
		}
		if status := strings.Join(s.Unreadable(), " "); !strings.Contains(status, want) {
			t.Errorf("%s: Unreadable is %q", name, status)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, envelope) {
			t.Errorf("%s: the document is %s, %v", name, got, err)
		}
	}
}

// A device whose record cannot be read is named until it reports again or is forgotten. Other devices are not affected.
func TestUnreadableDevice(t *testing.T) {
	s := newSite(t, nil)
	for _, name := range []string{"d1", "d2", "d3", "d4"} {
		s.report(t, report(name, 5))
	}
	for _, name := range []string{"d2", "d3"} {
		delete(s.reg.devices, "north/"+name)
		s.reg.err = append(s.reg.bad(), delivery.Unread{What: "north/" + name, Why: "unexpected end of JSON input"})
	}
	s.restart(t)
	s.reg.err = nil
	if got := len(s.Devices()); got != 2 {
		t.Errorf("%d devices, want 2", got)
	}
	status := s.Unreadable()
	if len(status) != 2 || !strings.Contains(status[0], "device d2 of fleet north") ||
		!strings.Contains(status[0], "aob device forget north d2") {
		t.Errorf("Unreadable is %q", status)
	}
	s.report(t, report("d2", 6))
	if err := s.Forget(t.Context(), "north", "d3"); err != nil {
		t.Error(err)
	}
	if got := s.Unreadable(); len(got) != 0 || len(s.Devices()) != 3 {
		t.Errorf("Unreadable is %q, %d devices", got, len(s.Devices()))
	}
}

// bad is the error that Devices returns for the records that cannot be read.
func (r *registry) bad() delivery.Unreadable {
	bad, _ := errors.AsType[delivery.Unreadable](r.err)
	return bad
}

func TestPublishRefuses(t *testing.T) {
	s := newSite(t, nil)
	for want, change := range map[string]func(*delivery.Desired){
		"ring: want":       func(d *delivery.Desired) { d.Ring = "../x" },
		"release: want":    func(d *delivery.Desired) { d.Release.Bundle = "" },
		"previous: want":   func(d *delivery.Desired) { d.Previous = &delivery.Target{} },
		"share: want":      func(d *delivery.Desired) { d.Share = 1.5 },
		"must not be nega": func(d *delivery.Desired) { d.Soak = -1 },
	} {
		d := desired(1)
		change(&d)
		if err := s.Publish(t.Context(), d); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestUnchangedIs304(t *testing.T) {
	s := newSite(t, nil)
	s.publish(t, desired(1))
	_, _, tag := s.get(t, "/fleet/v1/desired/north", "")
	if status, _, _ := s.get(t, "/fleet/v1/desired/north", tag); status != http.StatusNotModified {
		t.Errorf("got %d", status)
	}
	if status, _, _ := s.get(t, "/fleet/v1/desired/north?wait=0", tag); status != http.StatusNotModified {
		t.Errorf("wait=0: got %d", status)
	}
	for path, want := range map[string]int{
		"/fleet/v1/desired/North": 401, "/fleet/v1/desired/..%2fx": 401, "/fleet/v1/desired/" +
			strings.Repeat("a", 65): 401,
		"/fleet/v1/desired/north?wait=x": 400, "/fleet/v1/desired/north?wait=-1": 400,
	} {
		if status, _, _ := s.get(t, path, ""); status != want {
			t.Errorf("%s: got %d, want %d", path, status, want)
		}
	}
}

func TestLongPoll(t *testing.T) {
	s := newSite(t, func(c *fleet.Config) { c.MaxWaiters = 2 })
	answers := make(chan int64)
	wait := func() {
		go func() {
			_, d, _ := s.get(t, "/fleet/v1/desired/north?wait=55", "")
			answers <- d.Version
		}()
	}
	held := func(n int64) {
		for s.Waiting() < n {
			runtime.Gosched()
		}
	}
	wait() // before there is any document
	wait()
	held(2)
	if status, _, _ := s.get(t, "/fleet/v1/desired/north?wait=55", ""); status != 404 {
		t.Errorf("a request above the limit: got %d, want an immediate response", status)
	}
	other := desired(1)
	other.Ring = "south"
	s.publish(t, other)
	s.publish(t, desired(1))
	for range 2 {
		if v := <-answers; v != 1 {
			t.Errorf("a long poll got version %d", v)
		}
	}
	_, _, tag := s.get(t, "/fleet/v1/desired/north", "")
	if status, _, _ := s.get(t, "/fleet/v1/desired/north?wait=1", tag); status != http.StatusNotModified {
		t.Errorf("after the wait: got %d", status)
	}
	for s.Waiting() > 0 {
		runtime.Gosched()
	}
}

// After a restore from a backup every device accepts the server's documents, whatever version it has accepted before,
// and without waiting for reports.
func TestRestoredBackup(t *testing.T) {
	s := newSite(t, nil)
	s.publish(t, desired(1))
	for i, accepted := range []int64{1, 1, 57} { // only one device is ahead
		r := report(fmt.Sprintf("d%d", i+1), 1)
		r.Desired = accepted
		s.report(t, r)
	}
	version := func(ring string) int64 {
		_, d, _ := s.get(t, "/fleet/v1/desired/"+ring, "")
		return d.Version
	}
	if v := version("north"); v != 1 {
		t.Fatalf("before: version %d", v)
	}
	s.config.Least = fleet.LeastVersion(s.now)
	s.restart(t)
	s.publish(t, desired(1))
	first := version("north")
	if _, d, _ := s.get(t, "/fleet/v1/desired/north", ""); first <= 57 || first >= 1<<53 || d.Release.Version != 1 {
		t.Errorf("restored: version %d of release %d", first, d.Release.Version)
	}
	s.restart(t)
	s.publish(t, desired(1))
	if v := version("north"); v != first {
		t.Errorf("the same again: version %d, want %d", v, first)
	}
	s.publish(t, desired(2))
	if v := version("north"); v != first+1 {
		t.Errorf("the next one: version %d, want %d", v, first+1)
	}
	// A second restore, from an older backup, is above it again.
	s.now = s.now.Add(time.Hour)
	s.config.Least = fleet.LeastVersion(s.now)
	s.restart(t)
	s.publish(t, desired(2))
	if v := version("north"); v <= first+1 {
		t.Errorf("restored again: version %d, want more than %d", v, first+1)
	}
	// Then all files are lost; the devices still report their versions.
	r := report("d1", 2)
	r.Desired = version("north")
	s.config.Dir, s.config.Least, s.config.Registry = t.TempDir(), 0, &registry{}
	s.restart(t)
	s.publish(t, desired(2))
	s.report(t, r)
	if v := version("north"); v != r.Desired+1 {
		t.Errorf("after all was lost: version %d, want %d", v, r.Desired+1)
	}
}
