// Package rollout decides how far a fleet goes with a release.
//
// [Next] is the whole package: it looks at a fleet's intent, at what its devices
// report and at the state kept from the last turn, and says what the ring's
// document must name now, why it does not go further, and when to look again.
// It is pure: time arrives as [Input].At, and the same input gives the same
// decision, so a decision can be replayed and explained.
//
// # Waves
//
// Every device has a place in [0, 1) that only its id and the rollout's salt
// decide ([delivery.WavePosition]). A wave is a share of that line: all devices
// below it take the release, the others keep the one before. A wave of n
// devices ends just above the n-th of them. Where a hardware profile has no device
// in it, the first device of that profile is added alone ([delivery.Desired].Also).
// Devices say themselves which profile they have, so a false label must not bring the
// release to others. A wave only grows, whatever devices come and go; it falls in one
// step, to nothing, when the rollout is aborted.
//
// Devices that were not heard from for a [Input].Deadline when a wave began are
// away: they are left out of that wave's count, are named in the decision, and
// take the release when they are back. So are devices that never took the
// document. A device that took it and then falls silent counts as failed: a
// bricked device sends no report. Silence is counted from [Input].Listening on:
// before that the server was stopped, suspended, or heard no device of the fleet. It
// is counted up to [Input].Heard, the last report of any of them: where none is
// heard, the network of their site or of the server may be cut. So neither the time
// of a cut nor the first report after it is evidence against the devices that report
// later.
//
// A device that speaks and does not move is held: it says that it cannot download,
// that the document has expired by its clock, that its slot was damaged; or it
// reports from two places; or it just stays where it is until the deadline. It
// shows nothing about the release, so it never aborts it: the wave waits, and the
// decision names the device and the reason. That stays so when a held device falls
// silent.
//
// A wave has passed when each of its devices has reported the release healthy,
// which a device does after it has served through the soak time. More failures
// than budget.failures.tolerable abort the rollout for everybody. That is a share of
// the devices that the wave is said to have, without those added for their profile. An abort
// sticks to the bundle's digest: it is over when another digest is released, or
// when the caller stops naming it in [Input].Aborted because it was lifted.
//
// # What a wave cannot show
//
// Few devices say little: no failure among 3 devices is what a release that
// fails on every second device shows one time in eight. Decisions print the
// failure rate that the devices so far do not rule out ([NotRuledOut]).
//
// # Going back
//
// A release that the fleet has run healthily before needs no proof: the rollout
// takes all devices at once, at any hour, with no soak ([Input].Rollback, [HasRun]).
// It is never aborted, because what it would fall back to is what people want to
// leave. The device's own health check still decides on the device.
package rollout
