// Package fleet is the server's side of fleets: it publishes the desired state of each ring, and
// receives the reports of devices.
//
//	GET  /fleet/v1/desired/RING    the ring's signed document
//	POST /fleet/v1/reports         a device's report
//
// # Desired state
//
// There is one [delivery.Desired] per ring, in a DSSE envelope signed with the desired key. It is stored as
// DIR/desired/RING.json and served byte for byte. The document names no single device: each device computes what the
// document means for it. So any web server can serve the same files to a fleet of any size. Devices trust the
// signature, not the server. Reading it needs the token of a device of the ring.
//
// The response has an ETag, and a matching If-None-Match gets 304. With ?wait=SECONDS (at most 55) the request is a
// long poll: the response is delayed until the document changes. The number of waiting requests is bounded; a request
// above the bound is answered at once, and its device gets the same document a little later. A waiting request ends
// with its context, so a server that shuts down cancels its base context first.
//
// A document's version is increased when its content changes, and never decreased: devices refuse a
// lower one. An unchanged document is signed again, with the same version, before half of its lifetime
// is over. A server that lost its files, or was restored from an old copy, learns from the reports
// which version its devices have accepted, and continues above it.
//
// # Reports
//
// A report is one JSON [delivery.Report] of at most 64 KiB, with the device's token as bearer token (see
// [DeviceToken]). The response is a [Receipt] with the highest sequence number received from that device in that ring.
// A report with that number or a lower one is a repeat. A device that lost its state continues above that number. The
// receipt's text is sent back with the next report; this tells apart two installations with the same name. What a
// report says about a bundle counts only if the ring was offered that bundle.
//
//	400  not a valid report: the body says why; a retry does not help
//	401  the token is missing or wrong
//	403  the token belongs to another ring or device
//	413  more than 64 KiB
//	503  the report could not be stored; Retry-After says when to retry
//
// Reports are stored in a [Registry] before they are answered, and kept in memory.
package fleet
