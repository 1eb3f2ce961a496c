package delivery

import "time"

// An Orphan is something in a cloud account that AOB has made for a run and that no run needs any more.
type Orphan struct {
	Kind   OrphanKind   `json:"kind"`
	ID     string       `json:"id"` // as the cloud names it
	Region string       `json:"region"`
	Run    string       `json:"run,omitempty"`   // as its tag names it; not trusted
	Owner  string       `json:"owner,omitempty"` // as its tag names it; not trusted
	Pull   int          `json:"pull,omitempty"`  // the pull request that needed the run; 0 for none
	Why    OrphanReason `json:"why"`
	At     time.Time    `json:"at"`              // when it was found
	Error  string       `json:"error,omitempty"` // why it could not be ended
}

// OrphanKind is a kind of thing that costs money in a cloud account, or that could start one.
type OrphanKind string

// The kinds of orphans, in the order in which they are ended: a request could start another instance, a volume is free
// once its instance is gone, and a schedule is the last fuse of an instance.
const (
	OrphanRequest  OrphanKind = "spot request"
	OrphanInstance OrphanKind = "instance"
	OrphanVolume   OrphanKind = "volume"
	OrphanSchedule OrphanKind = "schedule"
)

// OrphanKinds lists the kinds in the order in which orphans are ended.
var OrphanKinds = []OrphanKind{OrphanRequest, OrphanInstance, OrphanVolume, OrphanSchedule}

// OrphanReason says why something is an orphan.
type OrphanReason string

// The reasons.
const (
	OrphanExpired  OrphanReason = "expired"   // past the time in its tag, whatever its run does
	OrphanNoExpiry OrphanReason = "no expiry" // without a readable time in its tag
	OrphanEnded    OrphanReason = "ended"     // its run has ended
	OrphanUnknown  OrphanReason = "unknown"   // the server has no such run
)
