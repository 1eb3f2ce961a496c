#!/bin/sh
# Builds OpenTofu from source, in the user's cache, and prints the program's path. The first build takes five minutes of
# a core.
exec "$(dirname "$0")/../gobuild.sh" tofu 1.12.6 github.com/opentofu/opentofu/cmd/tofu \
	'-X github.com/opentofu/opentofu/version.dev=no'
