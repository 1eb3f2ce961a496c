// Package detect runs detector models, and keeps whatever they do away from
// the program that asked.
//
// ONNX Runtime is C++ that reads a file somebody else made. It has crashed on
// malformed models, and a crash in C++ takes a Go program down with it. So no
// program of AOB but aob-detect loads it, and everything else holds a
// [Detector], which starts aob-detect as a child with a deadline, a memory
// limit and an environment without secrets:
//
//   - [Detector.Inspect] opens a model that nobody has opened before, and gives
//     its signature and a golden: an input and what the model makes of it;
//   - [Detector.Evaluate] runs a model over images, for the gates;
//   - [Detector.Serve] keeps a model running behind a Unix socket, for a fleet.
//
// A child that crashes, hangs, runs out of memory or writes garbage is an error
// here, with the last lines that it wrote to standard error. It ends with the
// caller's context, and with the caller's process.
//
// # What a detector is
//
// The contract is RF-DETR's. One input, float32 [N,3,H,W]: RGB, stretched to
// W x H by bilinear interpolation with half-pixel centres and no antialiasing
// (torch's interpolate with align_corners=False, antialias=False), divided by
// 255, less the means, over the deviations, all in float32. Two outputs, by
// name: boxes [N,Q,4] as centre and size in 0..1, and logits [N,Q,slots].
//
// A score is the sigmoid of a logit. Of the Q x slots pairs those of unnamed
// slots and of the background slot are left out, and the best K of the rest are
// kept: higher scores first, and of equal scores the one that stands first in
// the tensor. A query may so give several boxes. Negative sizes count as zero;
// boxes are scaled to the original image and not clipped to it, as RF-DETR's
// own post-processing does it. There is no suppression of overlaps.
//
// Images are JPEG or PNG. Transparency is dropped, 16 bits become the upper 8,
// and the orientation that a camera notes in EXIF is ignored, as training
// ignores it. JPEG is decoded by Go's decoder and its colour enlarged as libjpeg
// does it, so pixels are within one of 255 of those that training sees.
//
// [Numerics] names all of this. Whatever is computed from pixels carries it, so
// that a change here never mixes with results of before.
//
// # The two sides
//
// detect.go, inspect.go, evaluate.go, serve.go and child.go are the asking
// side. worker.go, image.go, chroma.go, contract.go, boxes.go
// and server.go run inside aob-detect, on a
// [Model] that package onnx opens. wire.go and golden.go are what both speak.
package detect
