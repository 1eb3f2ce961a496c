package reconciler

import "testing"

// Orders of events that once broke an invariant of the property test.
func TestEventOrdersThatOnceFailed(t *testing.T) {
	for name, events := range map[string][]event{
		// The release that main names was aborted, so the fleet stays with what it ran.
		"a version that was edited on main is published to no fleet while the registry is down": {
			{"release", 560, 115}, {"push to main", 68, 31}, {"registry down", 786, 546}, {"edit a comment", 157, 857}},
		"a fleet that goes back to another model's release is told that model": {
			{"force-push", 409, 352},
			{"prepare a branch for a bad release", 967, 784},
			{"comments can be edited", 709, 452},
			{"answer what AOB asks back", 160, 736},
			{"swap a fleet's model", 517, 948},
			{"swap it back", 218, 642},
		},
		// Evidence cannot be read, and the document that is out expires soon.
		"a fleet that waits is not told a quarantined release again": {
			{"release classes", 33, 954},
			{"registry down", 206, 962},
			{"lose the ledger", 259, 500},
			{"go round a quarantine", 723, 938},
			{"time passes", 340, 783},
			{"swap a fleet's model", 875, 558},
		},
		"nor its variant": {
			{"ship a variant", 505, 78},
			{"registry down", 614, 439},
			{"lose the ledger", 111, 223},
			{"go round a quarantine", 766, 291},
		},
		"a stranger who agrees to a run costs no question each time": {
			{"comments can be edited", 393, 176},
			{"push by a stranger", 855, 374},
			{"go", 368, 735},
			{"turn", 230, 817},
			{"answer what AOB asks back", 498, 243},
		},
		// Main's own release file changed by hand meanwhile, and merging takes that one.
		"a release file that is there already is not committed again": {
			{"prepare a branch for a bad release", 399, 369},
			{"push a spec to main", 188, 643},
			{"push", 515, 602},
			{"release classes", 909, 415},
			{"push to main", 949, 493},
		},
		"nor where the model has several seeds": {
			{"push seeds", 619, 948},
			{"comments can be edited", 357, 150},
			{"push to main", 21, 714},
			{"comments can be edited", 217, 28},
			{"push a spec to main", 383, 734},
			{"turn", 801, 482},
			{"push to main", 171, 886},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if why, _ := play(events); why != "" {
				t.Error(why)
			}
		})
	}
}
