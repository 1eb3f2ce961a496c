// Package aob carries the files that its commands bring along, so that a
// command is one file and its parts are of one version.
package aob

import "embed"

// Intent holds models/, gates/ and fleets/: the working example set, which aob init writes.
//
//go:embed models gates fleets
var Intent embed.FS

// Trainers holds trainers/: a folder for each, described by its trainer.yaml. Python's caches are not in it.
//
//go:embed trainers
var Trainers embed.FS
