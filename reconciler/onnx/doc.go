// Package onnx opens ONNX models with ONNX Runtime. It is AOB's only cgo package, and
// only aob-detect imports it. Package detect explains why.
//
// [Open] loads the library and returns the [Runtime] that a detect.Worker runs models with. A model is passed as bytes,
// so the bytes that were verified are the bytes that run. A model that stores weights in other files is refused, since
// those files were not verified.
//
// Results are as reproducible as ONNX Runtime allows: operators run one after another, on
// a number of threads that the caller sets. On one machine the same input gives the same
// bits. Another processor may add numbers in another order, so the last digits differ.
package onnx
