//go:build !linux

package onnx

// keepSignals does nothing: the libraries that replace signal handlers (CUDA)
// are Linux's.
func keepSignals() (restore func()) { return func() {} }
