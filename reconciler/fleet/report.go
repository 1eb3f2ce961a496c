package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Devices returns all devices, sorted by ring and id.
func (s *Server) Devices() []delivery.Device {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sorted) != len(s.devices) { // one is new
		s.sorted = slices.SortedFunc(maps.Keys(s.devices), func(a, b deviceKey) int {
			return cmp.Or(cmp.Compare(a.ring, b.ring), cmp.Compare(a.device, b.device))
		})
	}
	devices := make([]delivery.Device, 0, len(s.sorted))
	for _, key := range s.sorted {
		devices = append(devices, s.devices[key])
	}
	return devices
}

// serveReport answers POST /fleet/v1/reports.
func (s *Server) serveReport(w http.ResponseWriter, r *http.Request) {
	ring, device, ok := s.authorize(w, r) // before the body is read
	if !ok {
		return
	}
	refuse := func(code int, format string, args ...any) { http.Error(w, fmt.Sprintf(format, args...), code) }
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxReport))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		refuse(http.StatusRequestEntityTooLarge, "the report is too long: want at most %d bytes", MaxReport)
		return
	}
	if err != nil {
		refuse(http.StatusBadRequest, "the request's body ended early")
		return
	}
	report, err := ParseReport(body)
	if err != nil {
		refuse(http.StatusBadRequest, "%s", err)
		return
	}
	if report.Ring != ring || report.Device != device {
		refuse(http.StatusForbidden, "the token is for device %s in ring %s, but the report is of device %s in ring %s",
			device, ring, report.Device, report.Ring)
		return
	}
	receipt, err := s.store(r.Context(), report)
	if err != nil {
		// A device that is refused because the registry is full has no logLimit of its own.
		if dropped, ok := s.allowLog(deviceKey{ring: report.Ring}); ok {
			s.Log.Error("report not stored", "device", report.Device, "ring", report.Ring, "err", err, "leftOut",
				dropped)
		}
		w.Header().Set("Retry-After", "30")
		refuse(http.StatusServiceUnavailable, "the report could not be stored; repeat it later")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(receipt)
}

// Receipt is the response to a report.
type Receipt struct {
	Highest int64  `json:"highest"`           // highest sequence number received from the device in its ring
	Receipt string `json:"receipt,omitempty"` // to be sent with the next report
	// Duplicate is true if another report had the same sequence number: the device then continues above
	// Highest, and sends its last report again.
	Duplicate bool `json:"again,omitempty"`
}

// store keeps a report, unless it is a repeat.
func (s *Server) store(ctx context.Context, r delivery.Report) (Receipt, error) {
	key := deviceKey{r.Ring, r.Device}
	defer s.lock(key)()
	now := s.Now().UTC()
	s.mu.Lock()
	old, known := s.devices[key]
	s.mu.Unlock()
	if known && r.Sequence <= old.Report.Sequence {
		return s.repeat(ctx, key, old, r, now)
	}
	d := delivery.Device{Report: r, LastHeard: now, FirstHeard: old.FirstHeard, Healthy: old.Healthy,
		Places: old.Places, TwoPlacesAt: old.TwoPlacesAt}
	if !known {
		d.FirstHeard = now
	}
	if !r.Sent.IsZero() {
		d.Skew = r.Sent.Sub(now).Round(time.Second)
	}
	receipt := recordPlace(&d, r, now)
	s.mu.Lock()
	d.Ignored = s.ignoredReason(r)
	s.mu.Unlock()
	if r.Phase == delivery.DeviceHealthy && d.Ignored == "" {
		d.Healthy = slices.DeleteFunc(slices.Clone(d.Healthy), func(b delivery.Digest) bool { return b == r.Bundle })
		d.Healthy = append(d.Healthy, r.Bundle)
		d.Healthy = d.Healthy[max(0, len(d.Healthy)-maxHealthy):]
	}
	if err := s.save(ctx, key, d, known); err != nil {
		return Receipt{}, err
	}
	s.mu.Lock()
	before, gap := s.listening.lastReport[r.Ring], s.listening.record(r.Ring, now)
	published, ok := s.rings[r.Ring]
	// Only a report with such a version can raise the ring's version.
	ahead := ok && r.Desired > published.desired.Version &&
		s.acceptedVersion(r.Ring, published.desired.Version) > published.desired.Version
	// The device is new, its state has changed, or it was silent.
	news := !known || hasChanged(old, d) || now.Sub(old.LastHeard) > s.Deadline || gap
	if news {
		s.wake()
	}
	s.mu.Unlock()
	if gap {
		s.Log.Warn("no report of a ring was received for a while; silence of its devices counts from now", "ring",
			r.Ring, "since", before, "device", r.Device)
	}
	if ahead {
		// If the limit is reached, the next report or the next turn of the loop raises the version.
		_, ahead = s.allowLog(deviceKey{ring: r.Ring})
	}
	if ahead {
		// Devices have accepted a version that this server never published, and refuse the current document.
		// It is published again with a higher version.
		s.Log.Warn("devices have accepted a later document than the published one: the server's files are too old",
			"ring", r.Ring, "accepted", r.Desired, "published", published.desired.Version)
		same := func(d delivery.Desired) delivery.Desired { return d }
		if err := s.publish(context.WithoutCancel(ctx), r.Ring, same); err != nil {
			s.Log.Error("document not published", "ring", r.Ring, "err", err)
		}
	}
	if news {
		if dropped, ok := s.allowLog(key); ok {
			text := func(s string) string { return delivery.Cut(s, maxLogText) }
			s.Log.Info("device", "device", r.Device, "ring", r.Ring, "phase", r.Phase, "release", r.Release, "bundle",
				r.Bundle, "failed", r.Failed, "why", text(r.Why), "held", text(r.Blocked), "ignored", text(d.Ignored),
				"skew", d.Skew, "leftOut", dropped)
		}
	}
	return Receipt{Highest: r.Sequence, Receipt: receipt}, nil
}

// save stores a device durably, then in memory. A new device needs room.
func (s *Server) save(ctx context.Context, key deviceKey, d delivery.Device, known bool) error {
	if !known {
		if err := s.reserve(key.ring); err != nil {
			return err
		}
	}
	err := s.Registry.SaveDevice(ctx, key.ring, d)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !known {
		s.arriving--
	}
	if err != nil {
		if !known {
			s.count[key.ring]--
		}
		return err
	}
	s.devices[key] = d
	delete(s.unreadable, key)
	return nil
}

// reserve takes room for a new device, or returns an error if there is none.
func (s *Server) reserve(ring string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.devices)+s.arriving >= s.MaxDevices {
		return fmt.Errorf("the server has %d devices already, which is its limit", s.MaxDevices)
	}
	if n := s.count[ring]; n >= s.MaxRing {
		return fmt.Errorf("there are %d devices in ring %s already, which is the limit of a ring", n, ring)
	}
	s.arriving++
	s.count[ring]++
	return nil
}

// repeat answers a report whose sequence number is not above the last one. The same report sent again,
// because its response was lost, changes nothing. A different report comes from a device that lost its
// count, or from a second device with the same name.
func (s *Server) repeat(ctx context.Context, key deviceKey, old delivery.Device, r delivery.Report, now time.Time) (
	Receipt, error) {
	answer := Receipt{Highest: old.Report.Sequence, Duplicate: r.Sequence == old.Report.Sequence}
	if sameReport(old.Report, r) {
		answer.Duplicate = false
		if len(old.Places) > 0 {
			answer.Receipt = old.Places[0].Receipt
		}
		return answer, nil
	}
	d := old
	if answer.Receipt = recordPlace(&d, r, now); answer.Receipt == "" {
		answer.Duplicate = false // an old agent does not know the field
		return answer, nil
	}
	if err := s.Registry.SaveDevice(ctx, r.Ring, d); err != nil {
		return Receipt{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.devices[key] = d
	if startsTwoPlaces(old, d) {
		s.Log.Warn("a device reports from two places: two installations have this name", "device", r.Device, "ring",
			r.Ring)
		s.wake()
	}
	return answer, nil
}

// startsTwoPlaces reports whether a device has begun to report from two places.
func startsTwoPlaces(old, d delivery.Device) bool {
	return d.TwoPlacesAt.Sub(old.TwoPlacesAt) > time.Minute
}

// hasChanged reports whether a report contains a change.
func hasChanged(old, d delivery.Device) bool {
	a, b := old.Report, d.Report
	return a.Phase != b.Phase || a.Bundle != b.Bundle || a.Failed != b.Failed || a.Desired != b.Desired ||
		a.Blocked != b.Blocked ||
		old.Ignored != d.Ignored || startsTwoPlaces(old, d) || !maps.Equal(a.Labels, b.Labels)
}

// ParseReport decodes and validates a report from untrusted bytes: known fields only, every value within its limits.
func ParseReport(body []byte) (delivery.Report, error) {
	var r delivery.Report
	if err := delivery.ParseJSON(body, &r); err != nil {
		if strings.Contains(err.Error(), "unknown field") {
			return r, fmt.Errorf("not a report: %w; this aob serve does not know it: update aob serve before aob-agent",
				err)
		}
		return r, fmt.Errorf("not a report: %w", err)
	}
	if err := checkReport(r); err != nil {
		return delivery.Report{}, fmt.Errorf("report: %w", err)
	}
	return r, nil
}

var phases = []delivery.DevicePhase{delivery.DeviceIdle, delivery.DeviceDownloading, delivery.DeviceStarting,
	delivery.DeviceSoaking, delivery.DeviceHealthy, delivery.DeviceFailed}

// maxNumber is the limit of numbers in reports: below it, JSON numbers are exact.
const maxNumber = 1 << 53

func shortName(s string) bool {
	return len(s) <= 64 && strings.IndexFunc(s, func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) < 0
}

func checkReport(r delivery.Report) error {
	if err := errors.Join(checkName("device", r.Device), checkName("ring", r.Ring)); err != nil {
		return err
	}
	for _, d := range []delivery.Digest{r.Bundle, r.Failed} {
		if d == "" {
			continue
		}
		if _, err := delivery.ParseDigest(string(d)); err != nil {
			return err
		}
	}
	switch {
	case r.Sequence < 1 || r.Sequence >= maxNumber:
		return fmt.Errorf("sequence: want 1 or more and less than 2^53, got %d", r.Sequence)
	case r.Desired >= maxNumber || r.Downloaded >= maxNumber || r.Release >= 1<<31:
		return errors.New("desired and downloaded must be less than 2^53, release less than 2^31")
	case r.Desired < 0 || r.Release < 0 || r.Downloaded < 0:
		return errors.New("desired, release and downloaded must not be negative")
	case !slices.Contains(phases, r.Phase):
		return fmt.Errorf("phase: want one of %v, got %.40q", phases, r.Phase)
	case r.Phase == delivery.DeviceHealthy && r.Bundle == "":
		return errors.New("bundle: want a digest in phase healthy")
	case r.Phase == delivery.DeviceFailed && r.Failed == "":
		return errors.New("failed: want a digest in phase failed")
	case r.Slot != "" && r.Slot != "a" && r.Slot != "b":
		return fmt.Errorf("slot: want a or b, got %.40q", r.Slot)
	case len(r.Why) > 1024 || !utf8.ValidString(r.Why):
		return errors.New("why: want at most 1024 bytes of text")
	case len(r.Blocked) > 1024 || !utf8.ValidString(r.Blocked):
		return errors.New("held: want at most 1024 bytes of text")
	case !shortName(r.Installation) || !shortName(r.Boot) || !shortName(r.Receipt):
		return errors.New("installation, boot and receipt: want at most 64 letters, digits and dashes")
	case r.Sent.Year() < 1 || r.Sent.Year() > 9999:
		return errors.New("sent: want a time")
	case len(r.Labels) > 32:
		return fmt.Errorf("labels: want at most 32, got %d", len(r.Labels))
	case r.At.Year() < 1 || r.At.Year() > 9999:
		return errors.New("at: want a time")
	}
	for k, v := range r.Labels {
		if k == "" || len(k) > 64 || len(v) > 64 {
			return fmt.Errorf("labels: want names of 1 to 64 bytes and values of at most 64, got %.70q", k+"="+v)
		}
	}
	return nil
}
