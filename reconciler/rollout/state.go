package rollout

// This file has what a decision about a fleet reads, what it keeps, and what it says.

import (
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Input is all that a decision depends on.
type Input struct {
	Fleet  delivery.Fleet
	Target delivery.Target // the accepted release, or the version that the fleet is pinned to
	// the release before it; nil for the first; used only if neither State nor Published has one
	Previous *delivery.Target
	// Rollback: the fleet has run Target healthily before. Read when the rollout begins, then kept in State.
	Rollback bool

	State     State             // from the last decision; zero if there was none, or if it was lost
	Published *delivery.Desired // the ring's current document; nil if none

	Devices  []delivery.Device // devices of other rings, or without the fleet's labels, are ignored
	Aborted  []delivery.Digest // bundles that were aborted or forbidden, and not lifted since
	After    AfterState        // state of the fleet in Fleet.After
	At       time.Time         // now
	Deadline time.Duration     // the silence that counts as failure; zero is DefaultDeadline

	// Listening is the time since when devices can reach the server without a break: since the server was
	// started, since its machine was resumed, or since the first device was heard after a long time in
	// which none was. Silence before that may be the server's fault. Zero: always.
	Listening time.Time
	// Heard is when any device of the fleet was last heard from. Silence after that may be the fault of
	// the network of the site or of the server. Zero: At.
	Heard time.Time

	Seed      string        // a secret of the server, from which salts are derived
	Untrusted delivery.Fact // why reports that Target failed are not trusted now; zero if they are
}

// AfterState is the state of another fleet that this one follows; see State.Standing.
type AfterState struct {
	Bundle       delivery.Digest // the bundle that it rolled out
	HealthySince time.Time       // since when all its devices are healthy; zero if they are not
	Unheard      bool            // no device was heard from within the deadline, so HealthySince may be out of date
}

// State is what a rollout keeps between decisions, as JSON. If it is lost, the waves begin again; no
// device loses the release as long as Input.Published is known.
type State struct {
	Target delivery.Target `json:"target"`
	// the release that the fleet completed before; abort falls back to it
	Base     *delivery.Target `json:"base,omitempty"`
	Model    string           `json:"model,omitempty"` // the model that the fleet ran when the rollout began
	Rollback bool             `json:"rollback,omitempty"`
	Salt     string           `json:"salt,omitempty"` // decides the devices' positions; see chooseSalt
	Wave     int              `json:"wave"`           // index from 0
	Share    float64          `json:"share"`          // published; only grows
	// Also are the positions beyond Share of devices that were added for their hardware profile; published; only grows.
	Also    []float64 `json:"also,omitempty"`
	Since   int64     `json:"since"` // version of the last document before this rollout
	Began   time.Time `json:"began"`
	Started time.Time `json:"started"` // when the current wave began
	Healthy time.Time `json:"healthy"` // since when all devices are healthy on Target; zero if they are not
	Done    bool      `json:"done"`
	// Abort is an abort whose record is not signed yet. It is kept so that it is not forgotten while
	// nothing can be signed.
	Abort *delivery.Abort `json:"abort,omitempty"`
}

// Standing returns the state as a fleet that follows this one needs it. It is zero until the rollout is done.
func (s State) Standing() AfterState {
	if !s.Done {
		return AfterState{}
	}
	return AfterState{Bundle: s.Target.Bundle, HealthySince: s.Healthy}
}

// A Decision says what to publish, what to keep, and why the rollout goes no further.
type Decision struct {
	// Desired is the ring's document without Version and Expires. It must be published every turn, so that
	// it is signed again before it expires. Nil: there is nothing to publish yet.
	Desired *delivery.Desired
	State   State

	Done bool // all devices that are not away run Target healthily
	// Abort is a new abort, without Why: that is Because in words. It must be recorded before Desired is published,
	// so that a crash does not lose it.
	Abort   *delivery.Abort
	Because delivery.Fact
	Hold    []delivery.Fact // why the rollout does not proceed now; empty if Done or aborted
	Facts   []delivery.Fact // the state of the rollout
	Wake    time.Time       // when time alone may change the decision; zero if never

	Wave  Count // the current wave; the whole fleet after the last one
	Waves int
}

// Count is the number of devices of a wave by standing.
type Count struct {
	All     int // in the fleet
	Devices int // in the wave; the sum of the next five
	Healthy int
	Failed  int
	Silent  int
	Waiting int
	Held    int             // reports and does not install; not the target's fault
	Stuck   []delivery.Fact // which are held, and why
	Away    int             // in the fleet, and in no other count
	Bad     []delivery.Fact // which failed and why, or since when they are silent
}
