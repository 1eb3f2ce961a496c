package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/durable"
)

// Status is read from a device's folder, whether or not an agent runs.
type Status struct {
	Device     string               `json:"device"`
	Ring       string               `json:"ring"`
	Serving    bool                 `json:"serving"` // a detector accepts connections now
	Socket     string               `json:"socket"`  // its path
	Slot       string               `json:"slot,omitempty"`
	Bundle     delivery.Digest      `json:"bundle,omitempty"`
	Release    int                  `json:"release,omitempty"`
	Phase      delivery.DevicePhase `json:"phase"` // last reported
	Desired    int64                `json:"desired"`
	Failed     delivery.Digest      `json:"failed,omitempty"`
	Why        string               `json:"why,omitempty"`
	Unsent     int                  `json:"unsent"` // reports not sent yet
	Downloaded int64                `json:"downloaded"`
}

// ReadStatus reads a device's folder. If no agent has run there, the error is a [delivery.Blocked].
func ReadStatus(dir string) (Status, error) {
	s, err := readState(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Status{}, delivery.Blockedf("start one with: aob-agent run --state "+dir,
			"no agent has run in %s yet", dir)
	}
	if err != nil {
		return Status{}, fmt.Errorf("status of %s: %w", dir, err)
	}
	var content spoolContent
	if data, err := durable.ReadFile(filepath.Join(dir, spoolFile), maxSpoolFile); err == nil {
		_ = json.Unmarshal(data, &content) // an unreadable spool counts as empty
	}
	status := Status{
		Device: s.Device, Ring: s.Ring, Socket: filepath.Join(dir, socketLink), Slot: s.Slot, Bundle: s.Bundle,
		Release: s.Release,
		Phase:   content.Last.Phase, Desired: s.Versions[s.Ring], Failed: s.failure("").Bundle, Why: s.failure("").Why,
		Unsent: len(content.Reports), Downloaded: s.Downloaded,
	}
	if status.Phase == "" {
		status.Phase = delivery.DeviceIdle
	}
	if conn, err := net.Dial("unix", status.Socket); err == nil {
		conn.Close()
		status.Serving = true
	}
	return status, nil
}

// Infer sends a JPEG or PNG image to the detector that serves from a device's folder. If none serves,
// the error is a [delivery.Blocked].
func Infer(ctx context.Context, dir string, image []byte) (detect.Detections, error) {
	found, err := detect.NewClient(filepath.Join(dir, socketLink)).Infer(ctx, image)
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return found, delivery.Blockedf("start an agent, or see why with: aob-agent status --state "+dir,
			"no detector serves from %s", dir)
	}
	return found, err
}
