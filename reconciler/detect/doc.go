// Package detect runs detector models in a child process, so that a failing model cannot harm the calling program.
//
// ONNX Runtime is a C++ library that parses untrusted model files. It has crashed on malformed models, and a crash in
// C++ ends the Go program that loaded it. So only the program aob-detect loads it. All other programs use a [Detector],
// which starts aob-detect as a child with a deadline, a memory limit and an environment without secrets:
//
//   - [Detector.Inspect] opens an untrusted model and returns its signature and a golden: an input and
//     the model's outputs; [Detector.Describe] says what a file declares, also of one without metadata;
//   - [Detector.Evaluate] runs a model over images, for gates;
//   - [Detector.Bench] measures how fast this machine runs a bundle;
//   - [Detector.Serve] keeps a model running behind a Unix socket, for devices.
//
// If the child crashes, hangs, exceeds its memory limit or writes invalid output, the caller gets an error with the
// last lines of the child's standard error. The child ends when the caller's context or process ends.
//
// # The contract of models
//
// The contract is RF-DETR's. There is one input, float32 [N,3,H,W]: RGB, stretched to W x H as the signature's Resize
// says (RF-DETR: bilinear interpolation with half-pixel centres and no antialiasing, torch's interpolate with
// align_corners=False, antialias=False), divided by 255 or scaled, minus the means, divided by the standard deviations,
// all in float32. There are two outputs, by name: boxes [N,Q,4] as centre and size in 0..1, and logits [N,Q,slots].
// TestLikeTorch states how far a tensor is from torch's. A file may leave Q open, as RF-DETR before 1.5 does; then Q
// may differ between images. What a run returns is checked each time, whatever the file declares.
//
// A score is the sigmoid of a logit. Unnamed slots and the background slot are left out of the Q x slots pairs, and the
// top K of the rest are kept (Signature.Select), sorted by score; equal scores keep the order of the tensor. So one
// query can give several boxes. Negative sizes count as zero. Boxes are scaled to the original image; where the
// signature says so they are clipped to it, as predict() of RF-DETR does since 1.8.3 ([Clips]). There is no non-maximum
// suppression.
//
// A file describes itself in the entry rfdetr_inference of its metadata, in RF-DETR's own schema. RF-DETR 1.12 refuses
// a file with other fields there, so what AOB says besides is in the entry aob_signature.
//
// Images are JPEG or PNG. Transparency is dropped, 16-bit channels are cut to their upper 8 bits, and the EXIF
// orientation, colour profiles and gamma are ignored, as in training with Pillow. The pixels are those of Pillow's
// Image.open(...).convert("RGB"), to the last bit, because JPEG files are decoded by the same library, libjpeg-turbo
// (package turbojpeg). The exception is PNG in greyscale of 16 bits, which Pillow reads as white; package dataset
// refuses it.
//
// [Numerics] names this version of the computation. It is part of every key of a result that was
// computed from pixels, so that results of different versions are never mixed.
//
// # Files
//
// detect.go, inspect.go, evaluate.go, bench.go, serve.go, client.go and child.go are the calling side. worker.go,
// benchworker.go, image.go, resize.go, contract.go, boxes.go, engine.go and server.go run inside aob-detect, on a
// [Model] that package onnx opens. wire.go, golden.go and tensor.go are used by both.
package detect
