// Package trainlocal holds the Terraform module that trains on this machine, so
// that the module is pinned with the program that applies it.
package trainlocal

import "embed"

// Files are the module's files.
//
//go:embed main.tf
var Files embed.FS
