// Package retention decides what the server keeps of what it has stored, and why. [Needs] finds in a world and its plan
// what a release, a pull request, a device or a run needs. [Decide] then goes through an inventory:
//
//	n := retention.Needs(world, plan)
//	for _, d := range retention.Decide(n, items, limits, now) {
//		fmt.Println(d.Item.Kind, d.Item.Name, d.Keep, d.Why)
//	}
//
// A thing is removed if nothing needs it and it is older than the limit of its kind. What a kept thing needs is kept
// with it: the bundle of a release needs the checkpoint and the lists of images of its training. Statements are not in
// an inventory, because they are never removed.
//
// Everything here is a pure function. Package shelf makes the inventory and removes things.
package retention
