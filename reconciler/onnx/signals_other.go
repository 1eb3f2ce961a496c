//go:build !linux

package onnx

// keepSignals does nothing. Libraries that replace signal handlers (CUDA) exist only on Linux.
func keepSignals() (restore func()) { return func() {} }
