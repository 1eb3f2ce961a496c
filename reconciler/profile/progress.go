package profile

import (
	"encoding/json"
	"fmt"

	"github.com/autonomos/aob/reconciler/delivery"
)

// The stages of Progress.
const (
	Cached    = "cached"    // the cache has the engine; last
	Removed   = "removed"   // entries that this machine cannot load any more
	Building  = "building"  // trtexec runs
	Retry     = "retry"     // memory was too small; the next build has a smaller workspace
	Verifying = "verifying" // the engine is loaded and compared
	Built     = "built"     // last
)

// Progress is one thing that happens while an engine is built.
type Progress struct {
	Stage     string          `json:"stage"`
	Profile   string          `json:"profile,omitempty"`
	Key       string          `json:"key,omitempty"`       // of the engine, shortened
	Workspace delivery.Bytes  `json:"workspace,omitempty"` // of this build
	Seconds   float64         `json:"seconds,omitempty"`   // since the build began
	Size      int64           `json:"size,omitempty"`      // of the engine, bytes
	Parity    json.RawMessage `json:"parity,omitempty"`
	Text      string          `json:"text,omitempty"` // for people
}

// Sentence says for people what happens.
func (p Progress) Sentence() string {
	switch p.Stage {
	case Cached, Built:
		return "the TensorRT engine is ready"
	case Removed:
		return "removed TensorRT engines of another GPU or other software"
	case Verifying:
		return "comparing the TensorRT engine's answers with those of the CPU"
	case Retry:
		return fmt.Sprintf("memory was too small; building the TensorRT engine again, with a workspace of %s",
			p.Workspace)
	}
	return fmt.Sprintf("building the TensorRT engine for %.0f s, with a workspace of %s", p.Seconds, p.Workspace)
}
