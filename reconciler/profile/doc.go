// Package profile describes how a machine runs a model: the hardware profiles.
//
// A [Profile] says which execution provider of ONNX Runtime computes, which variant of the model it takes, how much
// memory it may use, and for TensorRT how an engine is built. [Builtin] is the table of AOB, and [Parse] reads the
// profiles of users, which start with one of the table. docs/profiles.md explains both.
//
// From a profile follow, as values:
//
//   - [Profile.Session]: the options that ONNX Runtime gets;
//   - [Engine.Key] and [Engine.Folder]: what a TensorRT engine is cached under;
//   - [Build.Args]: the command line of trtexec, and [ParseLog], which reads its output;
//   - [Bounds]: how far the answers may be from those of the CPU;
//   - [Profile.Result]: the part of the key of evaluation results that says what computed them.
//
// [ParseTegra], [ParseModule], [ParseSMI] and [ParseGPUReading] read what a machine tells about itself. The
// package is pure: package engine runs trtexec, and package onnx passes the options on.
package profile
