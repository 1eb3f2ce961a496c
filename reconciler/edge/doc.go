// Package edge is the agent on a device. It brings the device to what its ring's document says.
//
// An [Agent] is a loop of four steps. It decides alone, from the document, whether the device is in the wave. It
// installs the bundle into the slot that does not serve, starts a detector on it, and switches to it. It falls back to
// the other slot without asking the server, and keeps serving when the network fails.
//
//	observe   the document, the pointer file, both slots, the running detector
//	plan      [Make]: one step, computed from that alone
//	act       download, start, switch, fall back, or mark a bundle as good
//	report    changes to the server, when it can be reached
//
// # Files
//
//	DIR/agent.json     the pointer: the slot that serves, good bundles, failures
//	DIR/desired.json   the last accepted document, in its envelope
//	DIR/reports.json   reports not sent yet, and the sequence number
//	DIR/a, DIR/b       the slots: one bundle each, in a folder named by its digest
//	DIR/serving.sock   a symbolic link to the serving detector's socket, replaced atomically
//	DIR/lock           locked while an agent runs
//
// A bundle's folder appears in its slot by one rename, after all its bytes were checked against their
// digests and synced. The slot that the pointer names is never written. The pointer is one file and is
// replaced by one rename. So after a power cut at any moment the pointer names a complete bundle, the
// old one or the new one, and the agent continues from there.
//
// # Falling back
//
// A bundle fails if it is malformed, if its detector does not start or does not reproduce the golden
// detections, or if the detector crashes or answers wrongly during the soak. Only a bundle whose bytes
// match their digests can fail. The device then serves the previous bundle again, reports the reason,
// and does not try the failed bundle again until the document changes.
//
// A bundle that has passed its soak on this device is good. Its detector is restarted after a first
// crash. After a second crash within ten minutes the device switches to the other slot, if that holds
// a good bundle. If it does not, the detector is restarted without limit, with backoff.
//
// A bundle also fails if the whole device goes down three times during its soak.
//
// # Measuring
//
// An agent with Config.Bench asks its server which bundle to measure, downloads it into DIR/bench, measures it in a
// process of its own, sends the result and removes it. A request must be signed by a trusted key, for this device
// alone, and not expired. Other agents never ask.
//
// # Retrying
//
// A failed download is retried without limit, with backoff. So is a start that fails because of the device: no disk
// space, no memory, no detector program. The report gives the reason in its field held.
//
// The slot's files are compared with their digests before a detector starts, and again after it failed. A damaged slot
// is emptied and its bundle is downloaded again. Meanwhile the other slot serves, if it holds a good bundle.
//
// # What is trusted
//
// A document is accepted if a trusted key signed it, if it is for this ring, and if its version is not below the
// highest accepted one, which is kept across restarts. After a document has expired nothing is installed; the running
// bundle keeps serving. Reports are information only: a server that refuses them changes nothing here.
package edge
