package fleet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Devices returns all devices, sorted by ring and id.
func (s *Server) Devices() []delivery.Device {
	s.mu.Lock()
	devices := slices.Collect(maps.Values(s.devices))
	s.mu.Unlock()
	slices.SortFunc(devices, func(a, b delivery.Device) int {
		if c := strings.Compare(a.Report.Ring, b.Report.Ring); c != 0 {
			return c
		}
		return strings.Compare(a.Report.Device, b.Report.Device)
	})
	return devices
}

// serveReport answers POST /fleet/v1/reports.
func (s *Server) serveReport(w http.ResponseWriter, r *http.Request) {
	refuse := func(code int, format string, args ...any) {
		s.refused.Add(1)
		http.Error(w, fmt.Sprintf(format, args...), code)
	}
	// Digests have one length, so that the time taken tells nothing about it.
	given, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(s.Token))
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
		w.Header().Set("WWW-Authenticate", "Bearer")
		refuse(http.StatusUnauthorized, "the token is missing or wrong")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxReport))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		refuse(http.StatusRequestEntityTooLarge, "a report has at most %d bytes", MaxReport)
		return
	}
	if err != nil {
		refuse(http.StatusBadRequest, "the report did not arrive whole")
		return
	}
	report, err := ParseReport(body)
	if err != nil {
		refuse(http.StatusBadRequest, "%s", err)
		return
	}
	highest, err := s.take(r.Context(), report)
	if err != nil {
		s.Log.Error("report not kept", "device", report.Device, "ring", report.Ring, "err", err)
		w.Header().Set("Retry-After", "30")
		refuse(http.StatusServiceUnavailable, "the report could not be kept; repeat it later")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(Receipt{Highest: highest})
}

// Receipt is the answer to a report.
type Receipt struct {
	Highest int64 `json:"highest"` // sequence number heard from the device in its ring
}

// take keeps a report, unless it was heard before.
func (s *Server) take(ctx context.Context, r delivery.Report) (highest int64, err error) {
	s.reporting.Lock()
	defer s.reporting.Unlock()
	key := deviceKey{r.Ring, r.Device}
	s.mu.Lock()
	old, known := s.devices[key]
	full := !known && len(s.devices) >= s.MaxDevices
	s.mu.Unlock()
	if known && r.Sequence <= old.Report.Sequence {
		s.repeats.Add(1)
		return old.Report.Sequence, nil
	}
	if full {
		return 0, fmt.Errorf("there are %d devices already, the most that this server takes", s.MaxDevices)
	}
	d := delivery.Device{Report: r, Seen: s.Now().UTC(), Healthy: old.Healthy}
	if r.Phase == delivery.DeviceHealthy && r.Bundle != "" {
		d.Healthy = slices.DeleteFunc(slices.Clone(d.Healthy), func(b delivery.Digest) bool { return b == r.Bundle })
		d.Healthy = append(d.Healthy, r.Bundle)
		d.Healthy = d.Healthy[max(0, len(d.Healthy)-maxHealthy):]
	}
	if err := s.Registry.SaveDevice(ctx, r.Ring, d); err != nil {
		return 0, err
	}
	s.mu.Lock()
	s.devices[key] = d
	s.saw(r)
	published, ok := s.rings[r.Ring]
	ahead := ok && s.seen[r.Ring] > published.desired.Version
	s.mu.Unlock()
	s.reports.Add(1)
	if ahead {
		// The device has seen a version that this server never published, and
		// refuses what there is: the same content goes out above it.
		s.Log.Warn("a device is ahead of what is published: the server's files are older than its fleet", "device", r.Device, "ring", r.Ring, "seen", r.Desired, "published", published.desired.Version)
		again := func(d delivery.Desired) delivery.Desired { return d }
		if err := s.publish(context.WithoutCancel(ctx), r.Ring, again); err != nil {
			s.Log.Error("not published", "ring", r.Ring, "err", err)
		}
	}
	if !known || news(old.Report, r) {
		s.Log.Info("device", "device", r.Device, "ring", r.Ring, "phase", r.Phase, "release", r.Release, "bundle", r.Bundle, "failed", r.Failed, "why", r.Why)
		s.Wake()
	}
	return r.Sequence, nil
}

// news reports whether a report says more than "still here".
func news(a, b delivery.Report) bool {
	return a.Phase != b.Phase || a.Bundle != b.Bundle || a.Failed != b.Failed || a.Desired != b.Desired || !maps.Equal(a.Labels, b.Labels)
}

// ParseReport reads a report, which may be anybody's bytes: known fields only,
// every value within its bounds.
func ParseReport(body []byte) (delivery.Report, error) {
	var r delivery.Report
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return r, fmt.Errorf("not a report: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return r, errors.New("not a report: something follows it")
	}
	if err := checkReport(r); err != nil {
		return delivery.Report{}, fmt.Errorf("report: %w", err)
	}
	return r, nil
}

var phases = []delivery.DevicePhase{delivery.DeviceIdle, delivery.DeviceDownloading, delivery.DeviceStarting,
	delivery.DeviceSoaking, delivery.DeviceHealthy, delivery.DeviceFailed}

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
	case r.Sequence < 1:
		return fmt.Errorf("sequence: want 1 or more, got %d", r.Sequence)
	case r.Desired < 0 || r.Release < 0 || r.Downloaded < 0:
		return errors.New("desired, release and downloaded must not be negative")
	case !slices.Contains(phases, r.Phase):
		return fmt.Errorf("phase: want one of %v, got %.40q", phases, r.Phase)
	case r.Phase == delivery.DeviceHealthy && r.Bundle == "":
		return errors.New("phase: healthy with no bundle")
	case r.Phase == delivery.DeviceFailed && r.Failed == "":
		return errors.New("phase: failed, and failed names no bundle")
	case r.Slot != "" && r.Slot != "a" && r.Slot != "b":
		return fmt.Errorf("slot: want a or b, got %.40q", r.Slot)
	case len(r.Why) > 1024 || !utf8.ValidString(r.Why):
		return errors.New("why: want at most 1024 bytes of text")
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
