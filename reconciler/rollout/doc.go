// Package rollout decides how far a release may go in a fleet.
//
// [Next] is the only decision. Its input is the fleet's configuration, the reports of its devices and
// the state kept from the last decision. It returns the document to publish for the fleet's ring, the
// reasons why the rollout goes no further, as facts, and the time to decide again. It is pure: the time is
// [Input].At, and the same input gives the same decision, so a decision can be replayed.
//
// # Waves
//
// Each device has a position in [0, 1), computed from its id and the rollout's salt ([delivery.WavePosition]). A wave
// is a share of that line: all devices below the share get the release, the others keep the previous one. A wave of n
// devices ends just above the n-th device. If the wave contains no device of a hardware profile, the first device of
// that profile is added ([delivery.Desired].Also), and only that device: devices report their own labels, so a false
// label must not bring the release to other devices. A wave only grows when devices come and go. An abort sets the
// share to zero in one step.
//
// # Silent and away devices
//
// A device is away if it was not heard from for [Input].Deadline when the wave began, or if it never
// received the document. Away devices are not counted in the wave. The decision names them, and they
// get the release when they are back. A device that received the document and then falls silent counts
// as failed, because a bricked device sends no report.
//
// Silence is counted from [Input].Listening: before that time the server was stopped or suspended, or
// heard no device of the fleet. Silence is counted up to [Input].Heard, the last report of any device
// of the fleet: if none is heard, the network of the site or of the server may be cut. So neither an
// outage, nor the first report after it, is evidence against the devices that report later.
//
// # Held devices
//
// A device is held if it reports and does not install: it cannot download, the document has expired by
// its clock, its slot is damaged, it reports from two places, or it stays in one phase until the
// deadline. This is no evidence about the release, so a held device never aborts it. The wave waits,
// and the decision names the device and the reason. A held device that falls silent stays held.
//
// # Passing and aborting
//
// A device reports the release as healthy after it has served through the soak time. A wave has passed
// when all its devices are healthy. More failures than budget.failures.tolerable abort the rollout for
// the whole fleet. That budget is a share of the configured size of the wave, without the devices that
// were added for their profile. An abort applies to the bundle's digest. It ends when another digest
// is released, or when the bundle is no longer in [Input].Aborted because the abort was lifted.
//
// # Statistical limits
//
// A small wave is weak evidence: if a release fails on every second device, a wave of 3 devices shows no failure one
// time in eight. Decisions give the failure rate that cannot be ruled out ([NotRuledOut]).
//
// # Rollbacks
//
// A release that the fleet has run healthily before ([HasRun]) is rolled out as a rollback ([Input].Rollback): to all
// devices at once, at any hour, with no soak. A rollback is never aborted, because an abort would return to the release
// that is being left. Each device's own health check still applies.
package rollout
