package edge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// State is the content of the pointer file, agent.json.
type State struct {
	Format  int             `json:"format,omitempty"` // of the files in the agent's folder; see stateFormat
	Device  string          `json:"device"`
	Ring    string          `json:"ring"`
	Slot    string          `json:"slot,omitempty"` // the serving slot, a or b; empty if none
	Bundle  delivery.Digest `json:"bundle,omitempty"`
	Release int             `json:"release,omitempty"`
	Tries   int             `json:"tries,omitempty"` // starts of Bundle that did not complete the soak

	// highest accepted version of the document, by ring
	Versions map[string]int64 `json:"versions,omitempty"`
	// bundles that passed their soak on this device, newest last
	Good []delivery.Digest `json:"good,omitempty"`
	// version numbers of bundles that have served on this device
	Releases map[delivery.Digest]int `json:"releases,omitempty"`

	// bundles that failed under the document of version FailedAt, newest last
	Failures   []Failure `json:"failures,omitempty"`
	FailedAt   int64     `json:"failedAt,omitempty"` // version of a document
	Downloaded int64     `json:"downloaded"`         // bytes of bundles since the agent was installed

	Installation string `json:"installation,omitempty"` // random; made with this file
}

// stateFormat is the format of all files in an agent's folder. It is increased when an older agent
// would misread one of them. A file without it has format 1, which is not written.
const stateFormat = 1

// A Failure is a bundle that failed on this device, and the reason.
type Failure struct {
	Bundle delivery.Digest `json:"bundle"`
	Why    string          `json:"why"`
}

const (
	maxGood    = 8
	maxRings   = 16
	stateFile  = "agent.json"
	maxState   = 64 << 10
	docFile    = "desired.json"
	spoolFile  = "reports.json"
	lockFile   = "lock"
	socketLink = "serving.sock"
	socketDir  = "run"
)

// readState reads the pointer file. The error is fs.ErrNotExist on a new device.
func readState(dir string) (State, error) {
	var s State
	data, err := durable.ReadFile(filepath.Join(dir, stateFile), maxState)
	if err != nil {
		return s, fmt.Errorf("%s: %w", stateFile, err)
	}
	if err := delivery.CheckFormatOf("the agent's folder "+dir, data, stateFormat); err != nil {
		return State{}, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return State{}, fmt.Errorf("%s: %w", stateFile, err)
	}
	if s.Slot != "" && s.Slot != "a" && s.Slot != "b" {
		return State{}, fmt.Errorf("%s: slot: want a or b, got %q", stateFile, s.Slot)
	}
	for _, b := range slices.Concat(s.Good, slices.Collect(maps.Keys(s.Releases))) {
		if _, err := delivery.ParseDigest(string(b)); err != nil {
			return State{}, fmt.Errorf("%s: %w", stateFile, err)
		}
	}
	if _, err := delivery.ParseDigest(string(s.Bundle)); (s.Slot != "" || s.Bundle != "") && err != nil {
		return State{}, fmt.Errorf("%s: %w", stateFile, err) // it is used as a path
	}
	return s, nil
}

// save replaces the pointer file durably.
func (s State) save(dir string) error { return durable.WriteJSON(filepath.Join(dir, stateFile), s) }

// clone returns a deep copy.
func (s State) clone() State {
	c := s
	c.Good, c.Failures = slices.Clone(s.Good), slices.Clone(s.Failures)
	c.Versions, c.Releases = map[string]int64{}, map[delivery.Digest]int{} // not nil, as in a new State
	maps.Copy(c.Versions, s.Versions)
	maps.Copy(c.Releases, s.Releases)
	return c
}

// markGood records that the serving bundle is good.
func (s *State) markGood() {
	s.Good = slices.DeleteFunc(s.Good, func(b delivery.Digest) bool { return b == s.Bundle })
	s.Good = append(s.Good, s.Bundle)
	s.Good = s.Good[max(0, len(s.Good)-maxGood):]
	s.Tries = 0
	s.Failures = slices.DeleteFunc(s.Failures, func(f Failure) bool { return f.Bundle == s.Bundle })
}

// serve records that a bundle serves from a slot.
func (s *State) serve(slot string, t delivery.Target) {
	s.Slot, s.Bundle, s.Release, s.Tries = slot, t.Bundle, t.Version, 0
	if !slices.Contains(s.Good, t.Bundle) {
		s.Tries = 1
	}
	for b := range s.Releases {
		if b != t.Bundle && !slices.Contains(s.Good, b) {
			delete(s.Releases, b)
		}
	}
	s.Releases[t.Bundle] = t.Version
}

// failure returns the failure to report: that of b, or else the last one.
func (s State) failure(b delivery.Digest) Failure {
	last := Failure{}
	for _, f := range s.Failures {
		if f.Bundle == b {
			return f
		}
		last = f
	}
	return last
}

// recordFailure records that a bundle failed under a document's version.
func (s *State) recordFailure(b delivery.Digest, version int64, why string) {
	if s.FailedAt != version {
		s.FailedAt, s.Failures = version, nil
	}
	s.Failures = slices.DeleteFunc(s.Failures, func(f Failure) bool { return f.Bundle == b })
	s.Failures = append(s.Failures, Failure{b, shorten(why)})
	// A bundle that has failed must pass a soak again before it is good.
	s.Good = slices.DeleteFunc(s.Good, func(g delivery.Digest) bool { return g == b })
}

// shorten cuts a reason to the length that a report may have.
func shorten(why string) string {
	return delivery.PlainText(strings.Join(strings.Fields(why), " "), 500)
}

// In a slot, DIR/a/HEX is a bundle and DIR/a/HEX.cache is an incomplete download. Everything else was
// left by an interrupted removal.

func bundleDir(dir, slot string, b delivery.Digest) string { return filepath.Join(dir, slot, b.Hex()) }

func cacheDir(dir, slot string, b delivery.Digest) string {
	return filepath.Join(dir, slot, b.Hex()+".cache")
}

// scanSlot returns the bundle in a slot; empty if none. There should never be two; if there are, it prefers keep.
func scanSlot(dir, slot string, keep delivery.Digest) (delivery.Digest, error) {
	entries, err := os.ReadDir(filepath.Join(dir, slot))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var found delivery.Digest
	for _, e := range entries {
		b, err := delivery.ParseDigest("sha256:" + e.Name())
		if err == nil && e.IsDir() && (found == "" || b == keep) {
			found = b
		}
	}
	return found, nil
}

// clearSlot removes everything from a slot except an incomplete download of keep.
func clearSlot(dir, slot string, keep delivery.Digest) error {
	root := filepath.Join(dir, slot)
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(root, e.Name())
		if path == cacheDir(dir, slot, keep) {
			continue
		}
		if _, err := delivery.ParseDigest("sha256:" + e.Name()); err == nil {
			// Renamed first, so that a partly removed bundle is never taken for a bundle.
			gone := path + ".gone"
			if err := errors.Join(os.RemoveAll(gone), durable.Rename(path, gone)); err != nil {
				return err
			}
			path = gone
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// removeLeftovers removes what an agent that was killed left: temporary files and sockets. The caller must hold the
// lock.
func removeLeftovers(dir string) error {
	if err := durable.RemoveTemporary(dir, stateFile, docFile, spoolFile, socketLink); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(dir, socketDir))
}
