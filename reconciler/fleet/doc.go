// Package fleet is the server's side of fleets: it publishes what each ring of
// devices must run, and hears what the devices say.
//
//	GET  /fleet/v1/desired/RING    the ring's signed document
//	POST /fleet/v1/reports         what a device says about itself
//
// # Desired state
//
// One [delivery.Desired] a ring, in a DSSE envelope signed with the desired key,
// kept as the file DIR/desired/RING.json and served byte for byte. The same files
// on any web server serve a fleet of any size: the document says nothing about
// single devices, each decides alone what it means for it. Its signature is what
// devices believe. It is read with the token of a device of the ring.
//
// The answer has an ETag, and If-None-Match is answered with 304. ?wait=SECONDS
// (at most 55) holds the answer back until there is another document. That is a
// hint that saves waiting: the number of waiting requests is bounded, a request too
// many is answered at once, and a device that never waits gets the same
// documents later. A waiting request ends with its context, so whoever shuts a
// server down ends its base context first.
//
// A document's version grows by one with its content, and only ever grows:
// devices refuse a lower one. A document that only expires is signed again, with
// the same version, before half of its time is over. A server that lost its
// files, or came back from an old copy, learns from the reports which version
// its devices have seen and goes on above it.
//
// # Reports
//
// A report is one JSON [delivery.Report] of at most 64 KiB, with the device's own
// token as bearer (see [DeviceToken]). The answer is a [Receipt] with the highest
// sequence number heard from that device in that ring; a report at or below it is
// a repeat. A device that lost its state learns from it where to go on. The
// receipt's own text comes back with the next report, by which two installations
// of one name are told apart. What a report says of a bundle counts only where the
// ring was offered that bundle.
//
//	400  the report is not one: the body says why, and a repeat will not help
//	401  the token is missing or wrong
//	403  the token is another ring's or device's
//	413  more than 64 KiB
//	503  it could not be kept; Retry-After says when to repeat it
//
// What devices say is written through to a [Registry], and kept in memory.
package fleet
