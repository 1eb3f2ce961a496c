// Package onnx opens ONNX models with ONNX Runtime. It is AOB's only cgo, and
// only aob-detect imports it: see package detect for why.
//
// [Open] loads the library; the [Runtime] that it returns is what a
// detect.Worker runs models with. Models are taken as bytes, so that what was
// checked is what runs; a model that keeps its weights in other files is
// refused, since nobody has looked at those.
//
// Results are as repeatable as ONNX Runtime allows: operators run one after
// another, on a number of threads that the caller fixes. On one machine the
// same input gives the same bits; on another processor sums are taken in
// another order, and the last digits differ.
package onnx
