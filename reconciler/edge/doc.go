// Package edge is the loop on the device: observe, plan, act, report.
//
// An [Agent] reads its ring's signed document, decides alone whether it is in
// the wave, brings the bundle into one of two slots, starts a detector on it
// beside the one that serves, and switches. It falls back by itself, with nobody
// to ask, and serves through every failure of the network.
//
//	observe   the document, the pointer, both slots, the detector that runs
//	plan      [Plan]: one step, from that alone
//	act       fetch, start, switch, fall back, or call it a success
//	report    what changed, to the server, some time
//
// # What the device keeps
//
//	DIR/agent.json     the pointer: which slot serves, and what was learnt
//	DIR/desired.json   the last document that was taken, in its envelope
//	DIR/reports.json   reports not yet sent, and the sequence number
//	DIR/a, DIR/b       the slots: a bundle each, in a folder named by its digest
//	DIR/serving.sock   the detector that serves; a link that is switched in one step
//	DIR/lock           held while an agent runs
//
// A bundle's folder appears in its slot in one rename, after every byte was
// checked against the digest and reached the disk. The slot that the pointer
// names is never written. The pointer is one file, replaced in one rename. So a
// power cut at any moment leaves the pointer at a complete bundle, the old or
// the new; no step needs the next one to happen.
//
// # When it falls back
//
// Only a bundle whose bytes matched their digests can be at fault. One that is
// malformed, or whose detector does not start, does not replay the golden, or
// crashes or answers wrongly while it soaks, has failed: the device serves what it served before, reports why, and
// leaves that bundle alone until the document changes. A bundle that has passed its soak here once is trusted more: its
// detector is started again after a first crash, and left for the other slot after a second one within ten minutes.
// Where the other slot holds nothing that is known to be good, it is started again for ever, with growing pauses. A
// bundle whose soak never ends because the whole device goes down three times has failed too.
//
// A download that does not come through is tried again without end, with growing
// pauses. So is a start that the device itself makes fail: no room, no memory, no
// detector. The report says why in its field held.
//
// Before a detector starts, and again when it failed or fell, the slot's files are
// compared with their digests. A slot that was damaged is emptied and fetched
// again. Meanwhile the other slot serves, where it holds what is known to be good.
//
// # What it believes
//
// A document counts when a trusted key signed it, it is this ring's, and its
// version is not below one seen before, also before a restart. A document that
// has expired installs nothing, and stops nothing. Reports say what is; they
// never decide anything, and a server that refuses them changes nothing here.
package edge
