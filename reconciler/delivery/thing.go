package delivery

import (
	"crypto/sha256"
	"fmt"
	"slices"
)

// A Thing is something that a run has in a cloud account, found by its tags.
type Thing struct {
	Kind  OrphanKind
	ID    string // as the cloud names it
	Name  string // its tag Name
	State string // as the cloud calls it
	Why   string // the code of the reason of its state, as in Server.SpotInstanceTermination; "" for none
}

// ThingName returns what the names of a run's things have in them, and what its schedule is called: the run and a
// digest of the server's name, since servers of one account may train the same. It has 9 characters more than the run.
func ThingName(controller, run string) string {
	sum := sha256.Sum256([]byte(controller))
	return fmt.Sprintf("%s-%x", run, sum[:4])
}

// Costs reports whether a thing costs money, or could begin to.
func (t Thing) Costs() bool { return slices.Contains(costly[t.Kind], t.State) }

// Costly lists the states in which things of a kind cost money, or could begin to.
func Costly(kind OrphanKind) []string { return costly[kind] }

var costly = map[OrphanKind][]string{
	OrphanRequest:  {"open", "active", "disabled"},
	OrphanInstance: {"pending", "running", "stopping", "stopped"},
	OrphanVolume:   {"available", "error"}, // one in use goes with its instance, or after it
	OrphanSchedule: {"ACTIVE", "ENABLED", "DISABLED"},
}
