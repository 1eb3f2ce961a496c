package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/edge"
	"github.com/autonomos/aob/reconciler/rollout"
)

// Releases, aborts and a rollback of a fleet, with a scripted detector and real parts otherwise.
func TestFleet(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	s := newSite(t, delivery.Wave{Devices: 1}, delivery.Wave{Share: 1})
	v1, v2 := s.push(t, script{Version: 1}), s.push(t, script{Version: 2})
	bad := s.push(t, script{Version: 3, CrashAfter: 10 * time.Millisecond})
	worse := s.push(t, script{Version: 4, Start: "fail"})
	dirs := map[string]string{}
	for _, device := range []string{"d1", "d2", "d3"} {
		dirs[device] = shortDir(t)
		s.boot(t, device, dirs[device])
	}
	everywhere := func(t *testing.T, version int) {
		t.Helper()
		want := map[string]int{"d1": version, "d2": version, "d3": version}
		if got := serving(t, dirs); !maps.Equal(got, want) {
			t.Errorf("serving %v, want %v", got, want)
		}
	}

	t.Run("the first release", func(t *testing.T) {
		s.until(t, "three devices", func([]rollout.Decision) bool { return len(s.Devices()) == 3 })
		s.release(v1)
		s.done(t, v1)
		decided := s.until(t, "decisions", func(all []rollout.Decision) bool { return true })
		if first := decided[0]; first.Wave.Devices != 1 || first.State.Wave != 0 {
			t.Errorf("the first decision is not a wave of one: %+v", first)
		}
		everywhere(t, 1)
	})
	t.Run("the next release", func(t *testing.T) {
		s.release(v2)
		s.done(t, v2)
		everywhere(t, 2)
	})
	// Two broken releases: the canary falls back, and no other device gets them.
	for _, broken := range []struct {
		name string
		delivery.Target
	}{{"a release that crashes", bad}, {"a release that does not start", worse}} {
		t.Run(broken.name, func(t *testing.T) {
			before := s.served.Load()
			s.release(broken.Target)
			s.until(t, "an abort", func(all []rollout.Decision) bool {
				return slices.ContainsFunc(all, func(d rollout.Decision) bool {
					return d.Abort != nil && d.Abort.Bundle == broken.Bundle && d.Desired.Release == v2
				})
			})
			s.release(v2)
			s.done(t, v2)
			everywhere(t, 2)
			canaries := 0
			for _, device := range s.Devices() {
				if device.Report.Failed == broken.Bundle {
					canaries++
				}
			}
			if canaries != 1 {
				t.Errorf("version %d was started on %d devices", broken.Version, canaries)
			}
			if n := s.served.Load() - before; n == 0 || n > 20_000 {
				t.Errorf("version %d cost %d bytes of downloads", broken.Version, n)
			}
		})
	}

	// The canary's other slot had the broken release.
	t.Run("the release after them", func(t *testing.T) {
		v5 := s.push(t, script{Version: 5})
		s.release(v5)
		s.done(t, v5)
		everywhere(t, 5)
	})
	t.Run("a rollback without downloads", func(t *testing.T) {
		before, began := s.served.Load(), time.Now()
		s.release(v2)
		s.done(t, v2)
		t.Logf("from the decision to roll back until three devices ran it: %v",
			time.Since(began).Round(time.Millisecond))
		everywhere(t, 2)
		if n := s.served.Load() - before; n != 0 {
			t.Errorf("the rollback downloaded %d bytes", n)
		}
	})
	t.Run("status", func(t *testing.T) {
		var status edge.Status
		text := command(t, "status", "--state", dirs["d1"], "-o", "json")
		if err := json.Unmarshal([]byte(text), &status); err != nil {
			t.Fatal(err)
		}
		if !status.Serving || status.Release != 2 || status.Phase != delivery.DeviceHealthy || status.Device != "d1" {
			t.Errorf("status %+v", status)
		}
		text = command(t, "status", "--state", dirs["d1"])
		if !strings.Contains(text, "version 2, bundle "+v2.Bundle.Short()) {
			t.Errorf("status prints:\n%s", text)
		}
	})
}

// A device belongs to a fleet, which older versions called its ring.
func TestFleetIsCalledFleet(t *testing.T) {
	cmd := runCommand()
	if err := cmd.ParseFlags([]string{"--ring", "north"}); err != nil || cmd.Flag("fleet").Value.String() != "north" {
		t.Errorf("%v, %v", err, cmd.Flag("fleet"))
	}
	if help := cmd.UsageString(); strings.Contains(help, "--ring") || !strings.Contains(help, "--fleet NAME") {
		t.Errorf("the help says:\n%s", help)
	}
}

func TestFlags(t *testing.T) {
	s := newSite(t, delivery.Wave{Share: 1})
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, extra := range map[string][]string{
		"--server: want https":        {"--server", "http://aob.example"},
		"--server: want https://HO":   {"--server", "https://user:secret@aob.example"},
		"without user, path":          {"--server", "https://aob.example/fleets"},
		"--label: want name=value":    {"--label", "site"},
		"--label: site is given tw":   {"--label", "site=south"},
		"--trust: read public":        {"--trust", empty + "x"},
		"contains no token":           {"--token-file", empty},
		"token of device dock-9":      {"--device", "dock-9"},
		"contains no PEM certificate": {"--ca", empty},
		"--memory: want a size":       {"--memory", "much"},
		"--heartbeat: want":           {"--heartbeat", "1ms"},
		"the device name":             {"--device", "D 1"},
		"--metrics: listen":           {"--metrics", "256.0.0.1:1"},
	} {
		cmd := newCommand()
		cmd.SetArgs(append(s.arguments(t, "d1", shortDir(t)), extra...))
		err := cmd.ExecuteContext(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v: got %v, want %q", extra, err, want)
		}
	}
}

// A fault of the network between a device and its server never aborts a release: the wave waits, with the reason, and
// continues after the fault.
func TestNetworkFaultsAbortNothing(t *testing.T) {
	status := func(code int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.WriteHeader(code) }
	}
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		why    string
	}{
		"a login page": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html")
			w.Write([]byte("<html>please log in</html>"))
		}, "cannot download: "},
		"403": {status(403), "answered 403"},
		"404": {status(404), "answered 404"},
		"407": {status(407), "the proxy answered 407"},
		"502": {status(502), "502"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, delivery.Wave{Share: 1})
			s.boot(t, "dock-1", shortDir(t))
			v1 := s.push(t, script{Version: 1})
			s.release(v1)
			s.done(t, v1)
			fault := func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasPrefix(r.URL.Path, "/v2/") {
					return false
				}
				c.answer(w)
				return true
			}
			s.fault.Store(&fault)
			v2 := s.push(t, script{Version: 2})
			s.release(v2)
			s.until(t, c.why, func(all []rollout.Decision) bool {
				return last(all, func(d rollout.Decision) bool { return strings.Contains(fmt.Sprint(d.Hold), c.why) })
			})
			s.fault.Store(nil)
			s.done(t, v2)
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.aborted) > 0 {
				t.Errorf("aborted: %+v", s.aborted)
			}
		})
	}
}
