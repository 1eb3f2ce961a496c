// Package artifact keeps bundles, and what is said about them, as OCI artifacts
// in an image-layout folder, serves them by digest, and brings them to devices.
//
// A bundle is an OCI image manifest with ModelPack media types
// (https://github.com/modelpack/model-spec):
//
//	model.onnx      weight         what runs
//	signature.json  weight.config  delivery.Signature: how to feed it and read it
//	labels.json     weight.config  the classes, in the model's order
//	golden.bin      weight.config  tensors that every loader replays before it serves
//
// Its digest pins all of it. It holds no score and no time, so equal content is
// the same bundle wherever it is made. Where it came from (run key, spec digest)
// stands in the manifest's annotations as dev.aob.provenance.NAME, because
// ModelPack's config has no room for it. Evidence hangs on a bundle as referrers,
// each a manifest whose subject is the bundle and whose one layer is a signed
// envelope.
//
// # The folder
//
//	DIR/oci-layout, DIR/index.json, DIR/blobs/sha256/HEX    the OCI image layout
//	DIR/ingest/                                             blobs being written
//	DIR/partial/HEX                                         what arrived of a blob before its connection broke
//	DIR/.lock                                               held to change index.json
//
// Several processes may write at once. A blob is written to ingest, fsynced and
// renamed to its digest, so it is whole or not there; index.json is replaced
// under the lock, after all that it names is durable. A process killed at any
// point leaves a readable layout and at most files in ingest, which the next
// [Open] sweeps: a live writer holds a lock on its file, a dead one cannot. The
// store of oras-go rewrites index.json in place, unlocked and unsynced, so the
// writing here is our own; what it writes is what oras-go reads.
//
// Nothing is trusted for being in the folder: every read is checked against
// digest and length. index.json can be rebuilt: where it is missing, Open makes
// it from the blobs. A seal over its entries tells whether what it says of them
// (type, subject) can be used; another tool's edit breaks the seal, and then the
// manifests themselves are read.
//
// # How it grows
//
// index.json has one entry, some 400 bytes, for each bundle and each referrer.
// Listing is one stat while it stays the same, else one read of it; writing
// replaces it. BenchmarkStore measures both. Past some ten thousand entries, or
// for a second machine, a registry takes the folder's place: bundles are
// ordinary artifacts, [Source] reaches any registry, and oras copies a layout
// with its referrers.
package artifact
