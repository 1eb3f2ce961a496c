// Package trainawsec2 holds the Terraform module that trains on an instance in EC2, so that the module is pinned with
// the program that applies it.
package trainawsec2

import "embed"

// Files are the module's files.
//
//go:embed main.tf outputs.tf variables.tf boot.sh
var Files embed.FS

// Boot is boot.sh, which the instance runs.
//
//go:embed boot.sh
var Boot string
