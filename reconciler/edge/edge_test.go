package edge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/edge"
	"github.com/autonomos/aob/reconciler/trust"
)

func TestInstallUpdateRollBack(t *testing.T) {
	l := newLab(t)
	v1, v2 := l.newBundle(1), l.newBundle(2)
	metrics := edge.NewMetrics()
	d := l.boot(l.dir(), func(c *edge.Config) { c.Metrics = metrics })

	first := document(1, v1.target)
	first.Soak = delivery.Duration(500 * time.Millisecond)
	l.serve(l.sign(l.key, first))
	reports := l.until("healthy", func(r delivery.Report) bool { return r.Phase == delivery.DeviceHealthy })
	var phases []delivery.DevicePhase
	for i, r := range reports {
		phases = append(phases, r.Phase)
		if r.Device != "d1" || r.Ring != "north" || r.Labels["site"] != "north" || r.Sequence != int64(i+1) ||
			r.At.IsZero() {
			t.Errorf("report %+v", r)
		}
	}
	want := []delivery.DevicePhase{delivery.DeviceIdle, delivery.DeviceDownloading, delivery.DeviceStarting,
		delivery.DeviceSoaking, delivery.DeviceHealthy}
	if phases = slices.Compact(phases); !slices.Equal(phases, want) {
		t.Errorf("phases %v, want %v", phases, want)
	}
	d.serves(v1.target)

	l.publish(2, v2.target)
	r := l.phase(2, delivery.DeviceHealthy, v2.target)
	if r.Downloaded != 2*bundleSize || r.Release != 2 {
		t.Errorf("after the update: %+v", r)
	}
	d.serves(v2.target)

	l.publish(3, v1.target)
	if r := l.phase(3, delivery.DeviceHealthy, v1.target); r.Downloaded != 2*bundleSize {
		t.Errorf("going back downloaded %d bytes", r.Downloaded-2*bundleSize)
	}
	d.serves(v1.target)
	if want := []delivery.Digest{v1.target.Bundle, v2.target.Bundle}; !slices.Equal(l.fetched, want) {
		t.Errorf("fetched %v", l.fetched)
	}
	scrape := httptest.NewRecorder()
	metrics.Handler().ServeHTTP(scrape, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{"aob_agent_switches_total 3", "aob_agent_downloaded_bytes_total 2000",
		"aob_agent_failures_total 0",
		`aob_agent_serving{bundle="` + string(v1.target.Bundle) + `",slot="a"} 1`} {
		if !strings.Contains(scrape.Body.String(), want+"\n") {
			t.Errorf("metrics lack %s", want)
		}
	}
	status, err := edge.ReadStatus(d.dir)
	if err != nil || !status.Serving || status.Bundle != v1.target.Bundle || status.Release != 1 ||
		status.Desired != 3 || status.Phase != delivery.DeviceHealthy {
		t.Errorf("status %+v, %v", status, err)
	}
}

// The document says how often the device must report, because the server knows its deadline for silence.
func TestReportsAsOftenAsTheDocumentAsks(t *testing.T) {
	l := newLab(t)
	v1 := l.newBundle(1)
	l.boot(l.dir()) // whose own heartbeat is five minutes
	d := document(1, v1.target)
	d.Report = delivery.Duration(time.Second)
	l.serve(l.sign(l.key, d))
	healthy := 0
	l.until("healthy, three times", func(r delivery.Report) bool {
		if r.Phase == delivery.DeviceHealthy {
			healthy++
		}
		return healthy == 3
	})
}

// If a new bundle fails in any way, the old one serves, the report names the failed one and the reason, and it is tried
// again only after the document has changed.
func TestFailureFallsBack(t *testing.T) {
	for name, c := range map[string]struct {
		break_ func(*bundle)
		later  func(*lab, *bundle) // breaks it while it soaks
		why    string
	}{
		"it does not start": {break_: func(b *bundle) { b.start = errors.New("golden replay: output dets differs") },
			why: "golden replay"},
		"its manifest is malformed": {break_: func(b *bundle) {
			b.download = func(int) error {
				return &artifact.ContentError{Err: errors.New("manifest: there is no model.onnx")}
			}
		}, why: "the bundle is malformed: manifest: there is no model.onnx"},
		"it crashes": {later: func(l *lab, b *bundle) { l.crash(b) }, why: "segmentation fault"},
		"it answers wrongly": {later: func(l *lab, b *bundle) {
			l.set(b, func(b *bundle) { b.health = errors.New("golden differs") })
		}, why: "health check: golden differs"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			v1, v2 := l.newBundle(1), l.newBundle(2)
			d := l.boot(l.dir())
			l.publish(1, v1.target)
			l.phase(1, delivery.DeviceHealthy, v1.target)

			if c.break_ != nil {
				l.set(v2, c.break_)
			}
			slow := document(2, v2.target)
			slow.Soak = delivery.Duration(time.Hour)
			l.serve(l.sign(l.key, slow))
			if c.later != nil {
				l.phase(2, delivery.DeviceSoaking, v2.target)
				d.serves(v2.target)
				c.later(l, v2)
			}
			r := l.phase(2, delivery.DeviceFailed, v1.target)
			if r.Failed != v2.target.Bundle || !strings.Contains(r.Why, c.why) {
				t.Errorf("reports %q of %s, want %q of %s", r.Why, r.Failed.Short(), c.why, v2.target.Bundle.Short())
			}
			d.serves(v1.target)
			started, fetched := v2.started, len(l.fetched)

			// Neither a restart nor the same version signed again makes the agent retry. The same document under a
			// later version does.
			d.stop()
			d = l.boot(d.dir)
			l.phase(2, delivery.DeviceFailed, v1.target)
			slow.Expires = slow.Expires.Add(time.Hour)
			l.serve(l.sign(l.key, slow))
			l.set(v2, func(b *bundle) { b.start, b.download, b.health = nil, nil, nil })
			again := document(3, v2.target)
			l.serve(l.sign(l.key, again))
			l.phase(3, delivery.DeviceHealthy, v2.target)
			d.serves(v2.target)
			if n := v2.started - started; n != 1 {
				t.Errorf("started %d times under the next document", n)
			}
			if want := fetched + 1; len(l.fetched) > want {
				t.Errorf("fetched %d times more", len(l.fetched)-fetched)
			}
		})
	}
}

func TestFailedFirstReleaseServesNothing(t *testing.T) {
	l := newLab(t)
	v1, v2 := l.newBundle(1), l.newBundle(2)
	d := l.boot(l.dir())
	slow := document(1, v1.target)
	slow.Soak = delivery.Duration(time.Hour)
	l.serve(l.sign(l.key, slow))
	l.phase(1, delivery.DeviceSoaking, v1.target)
	l.crash(v1)
	if r := l.phase(1, delivery.DeviceFailed, delivery.Target{}); r.Failed != v1.target.Bundle {
		t.Errorf("reports %+v", r)
	}
	if _, err := edge.Infer(t.Context(), d.dir, nil); err == nil {
		t.Error("a detector serves after the only bundle failed")
	}
	l.publish(2, v2.target)
	l.phase(2, delivery.DeviceHealthy, v2.target)
	d.serves(v2.target)
}

// A good bundle that crashes is restarted once. After the next crash the other slot serves.
func TestGoodBundleThatCrashes(t *testing.T) {
	l := newLab(t)
	v1, v2 := l.newBundle(1), l.newBundle(2)
	d := l.boot(l.dir())
	l.publish(1, v1.target)
	l.phase(1, delivery.DeviceHealthy, v1.target)
	l.publish(2, v2.target)
	l.phase(2, delivery.DeviceHealthy, v2.target)

	l.crash(v2)
	l.phase(2, delivery.DeviceHealthy, v2.target)
	d.serves(v2.target)
	l.crash(v2)
	if r := l.phase(2, delivery.DeviceFailed, v1.target); r.Failed != v2.target.Bundle ||
		!strings.Contains(r.Why, "segmentation") {
		t.Errorf("reports %+v", r)
	}
	d.serves(v1.target)

	// If no other bundle is good, the detector is restarted without limit.
	l.crash(v1)
	for range 3 {
		l.phase(2, delivery.DeviceFailed, v1.target)
		l.crash(v1)
	}
	l.phase(2, delivery.DeviceFailed, v1.target)
	d.serves(v1.target)
}

// A document that must not be trusted changes nothing: nothing in it is downloaded, and the next valid document is
// followed.
func TestRefusedDocuments(t *testing.T) {
	l := newLab(t)
	v1, bad := l.newBundle(1), l.newBundle(2)
	d := l.boot(l.dir())
	l.publish(7, v1.target)
	l.phase(7, delivery.DeviceHealthy, v1.target)

	stranger, err := trust.Create(filepath.Join(t.TempDir(), "stranger.pem"))
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*delivery.Desired)) []byte {
		doc := document(8, bad.target)
		change(&doc)
		return l.sign(l.key, doc)
	}
	other, err := trust.Sign(l.key, "application/json", []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	version := int64(7)
	for _, c := range []struct {
		name     string
		envelope []byte
	}{
		{"older", l.sign(l.key, document(6, bad.target))},
		{"another key", l.sign(stranger, document(8, bad.target))},
		{"another key's id", bytes.ReplaceAll(l.sign(stranger, document(8, bad.target)), []byte(stranger.ID()),
			[]byte(l.key.ID()))},
		{"another ring", with(func(d *delivery.Desired) { d.Ring = "south" })},
		{"version 0", with(func(d *delivery.Desired) { d.Version = 0 })},
		{"a share of two", with(func(d *delivery.Desired) { d.Share = 2 })},
		{"a bundle that is a path", with(func(d *delivery.Desired) { d.Release.Bundle = "sha256:../../x" })},
		{"another type", other},
		{"not an envelope", []byte("hello")},
		{"empty", []byte{}},
		{"endless", bytes.Repeat([]byte(" "), 10<<20)},
	} {
		t.Run(c.name, func(t *testing.T) {
			l.deliver(c.envelope)
			// Documents are handled in order, so the refused one was handled before this one.
			version++
			l.publish(version+10, v1.target)
			l.phase(version+10, delivery.DeviceHealthy, v1.target)
			d.serves(v1.target)
		})
	}
	d.stop()
	d = l.boot(d.dir) // the highest accepted version is kept across restarts
	l.deliver(l.sign(l.key, document(7, bad.target)))
	l.publish(100, v1.target)
	l.phase(100, delivery.DeviceHealthy, v1.target)
	if slices.Contains(l.fetched, bad.target.Bundle) {
		t.Error("the bundle of a refused document was downloaded")
	}
}

func TestExpiredDocument(t *testing.T) {
	l := newLab(t)
	v1, v2 := l.newBundle(1), l.newBundle(2)
	d := l.boot(l.dir())
	l.publish(1, v1.target)
	l.phase(1, delivery.DeviceHealthy, v1.target)
	expired := document(2, v2.target)
	expired.Expires = time.Now().Add(-time.Second)
	l.deliver(l.sign(l.key, expired))
	l.phase(2, delivery.DeviceHealthy, v1.target)
	d.serves(v1.target)
	d.stop()
	d = l.boot(d.dir)
	l.phase(2, delivery.DeviceHealthy, v1.target)
	d.serves(v1.target)
	if slices.Contains(l.fetched, v2.target.Bundle) {
		t.Error("the bundle of an expired document was downloaded")
	}
	expired.Expires = time.Now().Add(time.Hour) // signed again, the same version
	l.serve(l.sign(l.key, expired))
	l.phase(2, delivery.DeviceHealthy, v2.target)
}

func TestServesWithoutNetwork(t *testing.T) {
	l := newLab(t)
	v1, v2 := l.newBundle(1), l.newBundle(2)
	d := l.boot(l.dir())
	l.publish(1, v1.target)
	l.phase(1, delivery.DeviceHealthy, v1.target)
	d.stop()

	l.setDown(true)
	d = l.boot(d.dir)
	d.until(delivery.DeviceHealthy)
	d.serves(v1.target)
	if len(l.reports) > 0 {
		t.Error("a report was received although the network is down")
	}

	// Back on the network it sends its stored reports in order, and follows the next document.
	l.setDown(false)
	reports := l.until("healthy", func(r delivery.Report) bool { return r.Phase == delivery.DeviceHealthy })
	for i := 1; i < len(reports); i++ {
		if reports[i].Sequence != reports[i-1].Sequence+1 {
			t.Errorf("report %d follows %d", reports[i].Sequence, reports[i-1].Sequence)
		}
	}
	l.publish(2, v2.target)
	l.phase(2, delivery.DeviceHealthy, v2.target)
}

// A network error does not count against the bundle.
func TestDownloadIsRetried(t *testing.T) {
	l := newLab(t)
	v1 := l.newBundle(1)
	v1.download = func(try int) error {
		if try < 7 {
			return &net.OpError{Op: "read", Err: errors.New("connection reset by peer")}
		}
		return nil
	}
	l.boot(l.dir())
	l.publish(1, v1.target)
	r := l.phase(1, delivery.DeviceHealthy, v1.target)
	if r.Downloaded != 6*10+bundleSize {
		t.Errorf("downloaded %d bytes", r.Downloaded)
	}
}

// A new document cancels the download of a bundle that is not wanted any more.
func TestNewDocumentCancelsDownload(t *testing.T) {
	l := newLab(t)
	v1, v2 := l.newBundle(1), l.newBundle(2)
	begun := make(chan struct{})
	c := l.config(l.dir())
	fetch := c.Fetch
	v1.download = func(int) error { return errors.New("must not be downloaded") }
	d := l.boot(c.Dir, func(c *edge.Config) {
		c.Fetch = func(ctx context.Context, b delivery.Digest, cache, dir string) (int64, error) {
			if b == v1.target.Bundle {
				close(begun)
				<-ctx.Done()
				return 5, ctx.Err()
			}
			return fetch(ctx, b, cache, dir)
		}
	})
	l.publish(1, v1.target)
	<-begun
	l.publish(2, v2.target)
	if r := l.phase(2, delivery.DeviceHealthy, v2.target); r.Downloaded != 5+bundleSize || r.Failed != "" {
		t.Errorf("reports %+v", r)
	}
	d.serves(v2.target)
}

// If the pointer file cannot be written, nothing is switched, the device is held, and no bundle has failed.
func TestUnwritablePointerHoldsDevice(t *testing.T) {
	l := newLab(t)
	v1, v2 := l.newBundle(1), l.newBundle(2)
	d := l.boot(l.dir())
	l.publish(1, v1.target)
	l.phase(1, delivery.DeviceHealthy, v1.target)
	pointer := filepath.Join(d.dir, "agent.json")
	kept, err := os.ReadFile(pointer)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(pointer), os.MkdirAll(filepath.Join(pointer, "in the way"), 0o755)); err != nil {
		t.Fatal(err)
	}
	l.publish(2, v2.target)
	l.until("held", func(r delivery.Report) bool {
		return r.Desired == 2 && r.Bundle == v1.target.Bundle && r.Failed == "" &&
			strings.Contains(r.Blocked, "agent.json cannot be written")
	})
	d.serves(v1.target)
	if err := errors.Join(os.RemoveAll(pointer), os.WriteFile(pointer, kept, 0o644)); err != nil {
		t.Fatal(err)
	}
	if r := l.phase(2, delivery.DeviceHealthy, v2.target); r.Blocked != "" || r.Failed != "" {
		t.Errorf("reports %+v", r)
	}
}

// A failed download or a full disk is no evidence about the bundle: the device reports the reason, keeps serving, and
// retries.
func TestFailedDownloadIsNoFailureOfTheBundle(t *testing.T) {
	l := newLab(t)
	v1, v2 := l.newBundle(1), l.newBundle(2)
	d := l.boot(l.dir())
	l.publish(1, v1.target)
	l.phase(1, delivery.DeviceHealthy, v1.target)
	errs := []error{
		&artifact.SourceError{Err: fmt.Errorf("manifest: %w: want x", artifact.ErrOtherContent)},
		&artifact.SourceError{Err: errors.New("forbidden"), Status: 403},
		&artifact.SourceError{Err: errors.New("proxy"), Status: 407},
		&artifact.SourceError{Err: io.ErrUnexpectedEOF},
		&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "aob.example"}},
		&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC},
		errors.New("something else"),
	}
	whys := []string{"not the requested content", "answered 403 Forbidden", "answered 407", "ended early",
		"name was not found",
		"no room on this device", "something else"}
	l.set(v2, func(b *bundle) {
		b.download = func(try int) error {
			if try <= len(errs) {
				return errs[try-1]
			}
			return nil
		}
	})
	l.publish(2, v2.target)
	for _, why := range whys {
		reports := l.until(why, func(r delivery.Report) bool { return strings.Contains(r.Blocked, why) })
		if r := reports[len(reports)-1]; r.Failed != "" || r.Bundle != v1.target.Bundle ||
			!strings.HasPrefix(r.Blocked, "cannot download: ") {
			t.Errorf("%s: reports %+v", why, r)
		}
	}
	if r := l.phase(2, delivery.DeviceHealthy, v2.target); r.Blocked != "" || r.Failed != "" {
		t.Errorf("reports %+v", r)
	}
	d.serves(v2.target)
}

// A bundle of a later version of AOB waits until the device's programs are updated. It has not failed.
func TestBundleOfLaterVersionIsHeld(t *testing.T) {
	l := newLab(t)
	v1, v2 := l.newBundle(1), l.newBundle(2)
	d := l.boot(l.dir())
	l.publish(1, v1.target)
	l.phase(1, delivery.DeviceHealthy, v1.target)
	l.set(v2, func(b *bundle) { b.signature = `{"schemaVersion": 4, "more": true}` })
	l.publish(2, v2.target)
	const why = "signature.json has schemaVersion 4, and this aob-agent reads up to 3; update aob-agent and aob-detect"
	reports := l.until(why, func(r delivery.Report) bool { return strings.Contains(r.Blocked, why) })
	if r := reports[len(reports)-1]; r.Failed != "" || r.Bundle != v1.target.Bundle {
		t.Errorf("reports %+v", r)
	}
	d.serves(v1.target)
}

// Programs that are too old, or of different versions, are the device's fault. The bundle has not failed and is
// retried.
func TestOutdatedProgramsHoldDevice(t *testing.T) {
	newer := &artifact.NewerError{Err: errors.New(`this version knows no file "calibration.json"`)}
	for name, c := range map[string]struct {
		break_ func(*bundle)
		why    string
	}{
		"a bundle with a new file": {func(b *bundle) { b.download = func(int) error { return newer } },
			"cannot download: a later version of AOB has packed this bundle; update AOB's programs on this machine"},
		"the same in a slot": {func(b *bundle) { b.start = fmt.Errorf("check: %w", newer) },
			"a later version of AOB has packed this bundle"},
		"an aob-detect of another version": {func(b *bundle) {
			b.start = &detect.VersionError{Why: "they are of different versions of AOB; install both of one version"}
		}, "they are of different versions of AOB; install both of one version"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			v1, v2 := l.newBundle(1), l.newBundle(2)
			d := l.boot(l.dir())
			l.publish(1, v1.target)
			l.phase(1, delivery.DeviceHealthy, v1.target)
			l.set(v2, c.break_)
			l.publish(2, v2.target)
			reports := l.until(c.why, func(r delivery.Report) bool {
				return r.Failed != "" || strings.Contains(r.Blocked, c.why)
			})
			if r := reports[len(reports)-1]; r.Failed != "" || r.Bundle != v1.target.Bundle {
				t.Errorf("reports %+v", r)
			}
			d.serves(v1.target)
			l.set(v2, func(b *bundle) { b.download, b.start = nil, nil })
			if r := l.phase(2, delivery.DeviceHealthy, v2.target); r.Blocked != "" || r.Failed != "" {
				t.Errorf("after the update it reports %+v", r)
			}
		})
	}
}

// damage replaces the model in a slot by other bytes, and returns its path.
func (d *device) damage(slot string, b *bundle) {
	d.t.Helper()
	path := filepath.Join(d.dir, slot, b.target.Bundle.Hex(), "model.onnx")
	if err := os.WriteFile(path, []byte("zeros"), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// The bundle of a damaged slot is downloaded again, whatever the slot is needed for, and no bundle has failed.
func TestDamagedSlotIsDownloadedAgain(t *testing.T) {
	// onTwo is a device that serves version 2 from slot b, with version 1 in slot a.
	onTwo := func(t *testing.T) (l *lab, d *device, v1, v2 *bundle) {
		l = newLab(t)
		v1, v2 = l.newBundle(1), l.newBundle(2)
		d = l.boot(l.dir())
		l.publish(1, v1.target)
		l.phase(1, delivery.DeviceHealthy, v1.target)
		l.publish(2, v2.target)
		l.phase(2, delivery.DeviceHealthy, v2.target)
		return l, d, v1, v2
	}
	// untilNoFailure reads reports up to the one that a case waits for. None may name a failed bundle.
	untilNoFailure := func(l *lab, what string, ok func(delivery.Report) bool) {
		l.t.Helper()
		for _, r := range l.until(what, ok) {
			if r.Failed != "" {
				l.t.Errorf("bundle %s is reported as failed: %q", r.Failed.Short(), r.Why)
			}
		}
	}
	reportsDamage := func(r delivery.Report) bool { return strings.Contains(r.Blocked, "damaged on this device") }
	healthy := func(b *bundle) func(delivery.Report) bool {
		return func(r delivery.Report) bool {
			return r.Phase == delivery.DeviceHealthy && r.Bundle == b.target.Bundle && r.Blocked == ""
		}
	}

	t.Run("the serving slot, before a start", func(t *testing.T) {
		l, d, v1, v2 := onTwo(t)
		d.stop()
		d.damage("b", v2)
		// The other slot serves while the network is away.
		l.setDown(true)
		l.set(v2, func(b *bundle) {
			b.download = func(int) error {
				if l.isDown() {
					return io.ErrUnexpectedEOF
				}
				return nil
			}
		})
		d = l.boot(d.dir)
		d.until("")
		d.serves(v1.target)
		l.setDown(false)
		untilNoFailure(l, "damage reported", reportsDamage)
		untilNoFailure(l, "version 2 is back", healthy(v2))
		d.serves(v2.target)
	})
	t.Run("both slots", func(t *testing.T) {
		l, d, v1, v2 := onTwo(t)
		d.stop()
		d.damage("a", v1)
		d.damage("b", v2)
		d = l.boot(d.dir)
		untilNoFailure(l, "damage reported", reportsDamage)
		untilNoFailure(l, "version 2 is back", healthy(v2))
		d.serves(v2.target)
	})
	t.Run("the slot of a rollback", func(t *testing.T) {
		l, d, v1, v2 := onTwo(t)
		d.damage("a", v1)
		l.publish(3, v1.target)
		untilNoFailure(l, "damage reported", reportsDamage)
		d.serves(v2.target)
		untilNoFailure(l, "version 1 is back", healthy(v1))
		d.serves(v1.target)
	})
	t.Run("the slot to fall back to", func(t *testing.T) {
		l, d, v1, v2 := onTwo(t)
		v3 := l.newBundle(3)
		slow := document(3, v3.target)
		slow.Soak = delivery.Duration(time.Hour)
		l.serve(l.sign(l.key, slow))
		l.phase(3, delivery.DeviceSoaking, v3.target)
		d.damage("b", v2)
		l.crash(v3)
		// Version 3 failed; version 2 is downloaded again and serves.
		r := l.phase(3, delivery.DeviceFailed, v2.target)
		if r.Failed != v3.target.Bundle || !strings.Contains(r.Why, "segmentation") {
			t.Errorf("reports %+v", r)
		}
		d.serves(v2.target)
		_ = v1
	})
	t.Run("a serving model that crashes because its file changed", func(t *testing.T) {
		l, d, v1, v2 := onTwo(t)
		for range 2 { // a good bundle gets one restart
			d.damage("b", v2)
			l.crash(v2)
			untilNoFailure(l, "damage reported", reportsDamage)
			untilNoFailure(l, "version 2 is back", healthy(v2))
			d.serves(v2.target)
		}
		_ = v1
	})
	t.Run("a soaking model", func(t *testing.T) {
		l, d, _, _ := onTwo(t)
		v3 := l.newBundle(3)
		slow := document(3, v3.target)
		slow.Soak = delivery.Duration(time.Hour)
		l.serve(l.sign(l.key, slow))
		l.phase(3, delivery.DeviceSoaking, v3.target)
		d.damage("a", v3)
		l.crash(v3)
		untilNoFailure(l, "damage reported", reportsDamage)
		untilNoFailure(l, "it soaks again", func(r delivery.Report) bool {
			return r.Phase == delivery.DeviceSoaking && r.Bundle == v3.target.Bundle && r.Blocked == ""
		})
	})
	t.Run("agent.json emptied too", func(t *testing.T) {
		l, d, _, v2 := onTwo(t)
		d.stop()
		d.damage("b", v2)
		if err := os.WriteFile(filepath.Join(d.dir, "agent.json"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		d = l.boot(d.dir)
		untilNoFailure(l, "version 2 is back", healthy(v2))
		d.serves(v2.target)
	})
}

// A device that cannot start any detector is held. No bundle has failed.
func TestMissingDetectorHoldsDevice(t *testing.T) {
	l := newLab(t)
	v1, v2 := l.newBundle(1), l.newBundle(2)
	d := l.boot(l.dir())
	l.publish(1, v1.target)
	l.phase(1, delivery.DeviceHealthy, v1.target)
	l.set(v2, func(b *bundle) {
		b.start = &os.PathError{Op: "fork/exec", Path: "/usr/bin/aob-detect", Err: syscall.ENOENT}
	})
	l.publish(2, v2.target)
	l.until("held", func(r delivery.Report) bool {
		return r.Failed == "" && strings.Contains(r.Blocked, "aob-detect: no such file")
	})
	d.serves(v1.target)
	l.set(v2, func(b *bundle) { b.start = nil })
	if r := l.phase(2, delivery.DeviceHealthy, v2.target); r.Blocked != "" || r.Failed != "" {
		t.Errorf("reports %+v", r)
	}
}

// A device that does not follow its document reports why.
func TestHeldReasonIsReported(t *testing.T) {
	for _, c := range []struct {
		name   string
		doc    func(*delivery.Desired)
		config func(*edge.Config)
		why    string
	}{
		{"a clock that is ahead", func(*delivery.Desired) {}, func(c *edge.Config) {
			c.Now = func() time.Time { return time.Now().Add(72 * time.Hour) }
		}, "this device's clock says"},
		{"an expired document", func(d *delivery.Desired) { d.Expires = time.Now().Add(-time.Second) },
			func(*edge.Config) {}, "the document expired at"},
		{"labels", func(d *delivery.Desired) { d.Match = map[string]string{"site": "south"} }, func(*edge.Config) {},
			"devices with site=south, and this one has site=north"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			v1 := l.newBundle(1)
			l.boot(l.dir(), c.config)
			doc := document(1, v1.target)
			c.doc(&doc)
			l.serve(l.sign(l.key, doc))
			l.until(c.why, func(r delivery.Report) bool { return r.Desired == 1 && strings.Contains(r.Blocked, c.why) })
		})
	}
	t.Run("an older document", func(t *testing.T) {
		l := newLab(t)
		v1 := l.newBundle(1)
		l.boot(l.dir())
		l.publish(7, v1.target)
		l.phase(7, delivery.DeviceHealthy, v1.target)
		l.publish(6, v1.target)
		l.until("refused", func(r delivery.Report) bool {
			return strings.Contains(r.Blocked, "accepted version 7 before")
		})
		l.publish(8, v1.target)
		l.until("followed", func(r delivery.Report) bool { return r.Desired == 8 && r.Blocked == "" })
	})
}

func TestDamagedFiles(t *testing.T) {
	l := newLab(t)
	v1, v2 := l.newBundle(1), l.newBundle(2)
	d := l.boot(l.dir())
	l.publish(1, v1.target)
	last := l.phase(1, delivery.DeviceHealthy, v1.target)
	for _, files := range [][]string{{"agent.json"}, {"desired.json"}, {"reports.json"}, {"agent.json", "desired.json",
		"reports.json"}} {
		d.stop()
		l.setDown(true)
		for _, file := range files {
			if err := os.WriteFile(filepath.Join(d.dir, file), []byte("{"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		d = l.boot(d.dir)
		d.until("")
		d.serves(v1.target)
		l.setDown(false)
		r := l.phase(1, delivery.DeviceHealthy, v1.target)
		if r.Sequence <= last.Sequence {
			t.Errorf("%v: report %d follows %d", files, r.Sequence, last.Sequence)
		}
		last = r
	}
	if len(l.fetched) != 1 {
		t.Errorf("fetched %v", l.fetched)
	}
	l.publish(2, v2.target)
	l.phase(2, delivery.DeviceHealthy, v2.target)
}

// A bundle that takes the device down in each soak has failed after the third time.
func TestDeviceGoesDownInEverySoak(t *testing.T) {
	l := newLab(t)
	v1, v2 := l.newBundle(1), l.newBundle(2)
	d := l.boot(l.dir())
	l.publish(1, v1.target)
	l.phase(1, delivery.DeviceHealthy, v1.target)
	slow := document(2, v2.target)
	slow.Soak = delivery.Duration(time.Hour)
	l.serve(l.sign(l.key, slow))
	l.phase(2, delivery.DeviceSoaking, v2.target)
	powerCut := func() {
		t.Helper()
		// Stopping the agent lowers the count of tries; a power cut does not, so the old pointer is written back.
		pointer := filepath.Join(d.dir, "agent.json")
		data, err := os.ReadFile(pointer)
		if err != nil {
			t.Fatal(err)
		}
		d.stop()
		if err := os.WriteFile(pointer, data, 0o644); err != nil {
			t.Fatal(err)
		}
		d = l.boot(d.dir)
	}
	for range 2 {
		powerCut()
		l.phase(2, delivery.DeviceSoaking, v2.target)
	}
	powerCut()
	if r := l.phase(2, delivery.DeviceFailed, v1.target); r.Failed != v2.target.Bundle ||
		!strings.Contains(r.Why, "went down") {
		t.Errorf("reports %+v", r)
	}
	d.serves(v1.target)
}

func TestOneAgentPerFolder(t *testing.T) {
	l := newLab(t)
	d := l.boot(l.dir())
	_, err := edge.Open(l.config(d.dir))
	if blocked := (delivery.Blocked{}); !errors.As(err, &blocked) || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("got %v", err)
	}
	if _, err := edge.ReadStatus(l.dir()); !errors.As(err, new(delivery.Blocked)) {
		t.Errorf("status of an empty folder: %v", err)
	}
	for _, change := range []func(*edge.Config){
		func(c *edge.Config) { c.Device = "D 1" },
		func(c *edge.Config) { c.Ring = "" },
		func(c *edge.Config) { c.Dir = filepath.Join(c.Dir, strings.Repeat("x", 100)) },
	} {
		c := l.config(l.dir())
		change(&c)
		if _, err := edge.Open(c); !errors.As(err, new(delivery.Blocked)) {
			t.Errorf("got %v", err)
		}
	}
}
