package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/trust"
)

// published is a ring's document as it is served.
type published struct {
	desired  delivery.Desired
	envelope []byte
	etag     string
	foreign  bool // signed by another key than the server's
}

func newPublished(d delivery.Desired, envelope []byte) published {
	return published{desired: d, envelope: envelope, etag: `"` + delivery.Sum(envelope).Hex() + `"`}
}

// load reads a stored document. If another key signed it, it is served unchanged until Publish signs a new one.
func load(path string, key *trust.Key) (published, error) {
	envelope, err := os.ReadFile(path)
	if err != nil {
		return published{}, err
	}
	payload, _, err := trust.Verify(envelope, delivery.DesiredPayload, []trust.PublicKey{key.Public()})
	foreign := err != nil
	if foreign {
		var e struct {
			PayloadType string
			Payload     []byte
		}
		if err := json.Unmarshal(envelope, &e); err != nil {
			return published{}, err
		}
		if err := delivery.CheckNewer("the document", e.PayloadType, delivery.DesiredPayload); err != nil {
			return published{}, err
		}
		payload = e.Payload
	}
	var d delivery.Desired
	if err := json.Unmarshal(payload, &d); err != nil {
		return published{}, err
	}
	if want := strings.TrimSuffix(filepath.Base(path), ".json"); d.Ring != want {
		return published{}, fmt.Errorf("it is the document of ring %q, not of ring %q", d.Ring, want)
	}
	p := newPublished(d, envelope)
	p.foreign = foreign
	return p, nil
}

// Published returns a ring's current document.
func (s *Server) Published(ring string) (delivery.Desired, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.rings[ring]
	return p.desired, ok
}

// Publish makes d the document of its ring, and sets its Version and Expires. If the content has not
// changed nothing is written, except that the document is signed again when half of its lifetime is
// over. After Publish has returned nil the document is on disk, and waiting requests are answered.
func (s *Server) Publish(ctx context.Context, d delivery.Desired) error {
	err := checkDesired(d)
	if err == nil {
		err = s.publish(ctx, d.Ring, func(delivery.Desired) delivery.Desired { return d })
	}
	if err != nil {
		return fmt.Errorf("publish ring %.80q: %w", d.Ring, err)
	}
	return nil
}

// publish replaces a ring's document by what edit returns for the current one.
func (s *Server) publish(ctx context.Context, ring string, edit func(delivery.Desired) delivery.Desired) error {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	if err := s.damaged[ring]; err != nil {
		s.mu.Unlock()
		return err
	}
	old, ok := s.rings[ring]
	offered := s.offered[ring]
	least := max(offered.Version, s.Least, s.acceptedVersion(ring, max(old.desired.Version, offered.Version)))
	now := s.Now()
	if !ok && offered.Version <= 0 && s.everPublished(ring) {
		least = max(least, LeastVersion(now))
	}
	s.mu.Unlock()

	d := edit(old.desired)
	d.Version = max(old.desired.Version, least)
	switch {
	case !ok || old.foreign || least > old.desired.Version || !sameContent(old.desired, d):
		d.Version++
	case old.desired.Expires.Sub(now) > s.Expiry/2:
		return nil
	}
	d.Expires = now.Add(s.Expiry).UTC().Truncate(time.Second)
	payload, err := json.Marshal(d)
	if err != nil {
		return err
	}
	envelope, err := trust.Sign(s.Key, delivery.DesiredPayload, payload)
	if err != nil {
		return err
	}
	// The offer is stored first: a device may act on the document as soon as it is published.
	offered = offered.withDocument(d)
	if err := s.saveOffer(ring, offered); err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(s.desiredDir(), ring+".json"), envelope, 0o600); err != nil {
		return err
	}
	s.mu.Lock()
	s.offered[ring] = offered
	s.rings[ring] = newPublished(d, envelope)
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	// Reports alone can raise the version, so such lines are limited.
	write := !sameContent(old.desired, d)
	if !write {
		_, write = s.allowLog(deviceKey{ring: ring})
	}
	if write {
		s.Log.Info("published", "ring", ring, "version", d.Version, "release", d.Release.Version, "bundle",
			d.Release.Bundle, "share", d.Share)
	}
	return nil
}

// maxAhead limits how far reports can raise a ring's version above the published one. It is more than
// a restored backup is ever behind. Versions up to LeastVersion are always possible.
const maxAhead = 1 << 20

// acceptedVersion returns the version that more than half of a ring's devices have accepted, which is above the
// published one only if the server's files were lost or are an old copy. A single device cannot raise
// it. Only devices that were heard from within the deadline count. The caller holds s.mu.
func (s *Server) acceptedVersion(ring string, published int64) int64 {
	var versions []int64
	now := s.Now()
	most := max(published, LeastVersion(now)) + maxAhead
	for key, d := range s.devices {
		if key.ring == ring && now.Sub(d.LastHeard) <= s.Deadline {
			v := d.Report.Desired
			if v > most {
				v = 0
			}
			versions = append(versions, v)
		}
	}
	if len(versions) == 0 {
		return 0
	}
	slices.Sort(versions)
	// More than half of them have accepted this version or a higher one.
	return versions[(len(versions)-1)/2]
}

// everPublished reports whether a device of a ring has accepted a document before, or may have. If the
// ring's files are lost, its last version is not known. The caller holds s.mu.
func (s *Server) everPublished(ring string) bool {
	for key, d := range s.devices {
		if key.ring == ring && d.Report.Desired > 0 {
			return true
		}
	}
	for key := range s.unreadable {
		if key.ring == ring {
			return true
		}
	}
	return false
}

// sameContent compares two documents without version and expiry.
func sameContent(a, b delivery.Desired) bool {
	a.Version, a.Expires = b.Version, b.Expires
	return string(delivery.Canonical(a)) == string(delivery.Canonical(b))
}

// checkDesired rejects a document that devices would refuse.
func checkDesired(d delivery.Desired) error {
	if err := checkName("ring", d.Ring); err != nil {
		return err
	}
	if _, err := delivery.ParseDigest(string(d.Release.Bundle)); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	if d.Previous != nil {
		if _, err := delivery.ParseDigest(string(d.Previous.Bundle)); err != nil {
			return fmt.Errorf("previous: %w", err)
		}
	}
	if !(d.Share >= 0 && d.Share <= 1) {
		return fmt.Errorf("share: want 0 to 1, got %v", d.Share)
	}
	if d.Soak < 0 || d.NextPoll < 0 || d.Report < 0 {
		return fmt.Errorf("soak %s, nextPoll %s and report %s must not be negative", d.Soak, d.NextPoll, d.Report)
	}
	return nil
}

// serveDesired answers GET /fleet/v1/desired/RING.
func (s *Server) serveDesired(w http.ResponseWriter, r *http.Request) {
	owner, device, ok := s.authorize(w, r)
	if !ok {
		return
	}
	ring := r.PathValue("ring")
	if ring != owner {
		http.Error(w, fmt.Sprintf("the token of device %s in ring %s does not allow to read the document of ring %.64q",
			device, owner, ring), http.StatusForbidden)
		return
	}
	if err := checkName("ring", ring); err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	wait, err := waitOf(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	damaged := s.damaged[ring]
	s.mu.Unlock()
	if damaged != nil { // the device keeps what it runs, and retries
		w.Header().Set("Retry-After", "30")
		http.Error(w,
			"the server cannot read the document of this ring; run aob status on the server to see what to do",
			http.StatusServiceUnavailable)
		return
	}
	p, ok := s.await(r.Context(), ring, r.Header.Get("If-None-Match"), wait, w)
	if !ok {
		http.Error(w, fmt.Sprintf("no document has been published for ring %s yet", ring), http.StatusNotFound)
		return
	}
	w.Header().Set("ETag", p.etag)
	w.Header().Set("Cache-Control", "no-cache")
	if r.Header.Get("If-None-Match") == p.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/vnd.dsse.envelope.v1+json")
	w.Header().Set("Content-Length", strconv.Itoa(len(p.envelope)))
	w.Write(p.envelope)
}

// waitOf reads ?wait=SECONDS.
func waitOf(r *http.Request) (time.Duration, error) {
	text := r.URL.Query().Get("wait")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("wait: want seconds, 0 to %d, got %.20q", int(MaxWait.Seconds()), text)
	}
	return min(time.Duration(n)*time.Second, MaxWait), nil
}

// await returns the ring's document as soon as its ETag differs from etag, or the current one after wait.
func (s *Server) await(ctx context.Context, ring, etag string, wait time.Duration, w http.ResponseWriter) (published,
	bool) {
	current := func() (published, bool, <-chan struct{}) {
		s.mu.Lock()
		defer s.mu.Unlock()
		p, ok := s.rings[ring]
		return p, ok, s.changed
	}
	p, ok, changed := current()
	isNew := func() bool { return ok && p.etag != etag }
	if isNew() || wait <= 0 {
		return p, ok
	}
	defer s.waiting.Add(-1)
	if s.waiting.Add(1) > int64(s.MaxWaiters) {
		return p, ok
	}
	// The response is delayed on purpose, so the server's own write deadline must be later. An error means
	// that there is no such deadline.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(wait + 30*time.Second))
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for !isNew() {
		select {
		case <-changed:
			p, ok, changed = current()
		case <-timer.C:
			return p, ok
		case <-ctx.Done():
			return p, ok
		}
	}
	return p, ok
}
