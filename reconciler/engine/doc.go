// Package engine builds TensorRT engines with trtexec, and keeps them.
//
// [Builder.Ensure] returns the engine of a bundle for a hardware profile on this machine. It builds the engine if the
// cache has none, before the model gets any traffic:
//
//   - An entry's folder is named by the bundle's content, the GPU, the version of TensorRT and the builder's options
//     (profile.Engine). Another release never finds it, even if its graph is equal.
//   - An entry appears only after the engine was loaded and its answers were compared with those of the CPU. It has the
//     digest of the engine, which is checked each time.
//   - Entries of other versions of TensorRT, CUDA or the system are removed, because they cannot be loaded any more.
//   - Where memory is too small, the build is repeated with a smaller workspace.
//
// A cache is written by one process at a time. Its folder belongs to this user alone: an engine is code for the GPU.
package engine
