// Package artifact stores bundles and their referrers as OCI artifacts in an image-layout
// folder, serves them by digest, and downloads them to devices.
//
// A bundle is an OCI image manifest with ModelPack media types (https://github.com/modelpack/model-spec):
//
//	model.onnx       weight         the model
//	signature.json   weight.config  delivery.Signature: the model's inputs and outputs
//	labels.json      weight.config  the classes, in the model's order
//	golden.bin       weight.config  test tensors that every loader replays before it serves
//	thresholds.json  weight.config  score thresholds by class; optional
//
// The digest of the manifest covers everything. A bundle contains no scores and no time, so equal content gives the
// same digest on every machine. Its origin (run key, spec digest) is in the manifest's annotations
// dev.aob.provenance.NAME, because ModelPack's config has no field for it. Evidence about a bundle is attached as
// referrers: manifests whose subject is the bundle and whose only layer is a signed envelope.
//
// # The folder
//
//	DIR/oci-layout, DIR/index.json, DIR/blobs/sha256/HEX    the OCI image layout
//	DIR/index.log                                           entries that are not in index.json yet
//	DIR/removed/HEX                                         a bundle whose large files were removed
//	DIR/ingest/                                             blobs being written
//	DIR/partial/HEX                                         beginnings of blobs whose download was interrupted
//	DIR/.lock                                               lock for changes of index.json
//
// Several processes may write at the same time. A blob is written to ingest, fsynced and renamed to its digest, so a
// blob is complete or absent. Its entry is added to index.log under the lock, after all blobs that it names are
// durable. Open, [Store.Fold] and a log that has grown long replace index.json, with the entries of the log, and
// remove the log. A process that is killed leaves a valid layout and at most some files in ingest. The next [Open]
// removes those whose writer is dead: a live writer holds a lock on its file. Package oras-go rewrites index.json in
// place, without lock and fsync, so this package does its own writing. oras-go can read the result.
//
// A bundle that nothing needs can be removed. Its large files go; its manifest, its small files and its referrers stay.
// Then it counts as absent until it is pushed again.
//
// The folder is not trusted: every read is checked against digest and length. If index.json is missing, Open rebuilds
// it from the blobs. An annotation of index.json, the seal, is a digest of its entries. If it does not match, because
// another tool has edited the file, the artifact types and subjects are read from the manifests instead of the entries.
//
// # Scale
//
// index.json has one entry of about 400 bytes for each bundle and each referrer. Listing costs two stats if nothing has
// changed, else one read of what was added. A write adds one line. BenchmarkStore measures both. For more than some
// hundred thousand entries, or for a second machine, use a registry instead of the folder: bundles are ordinary
// artifacts, [Source] can read any registry, and oras copies a layout with its referrers.
package artifact
