#!/bin/sh
# Builds versitygw, a server of the S3 protocol, from source for tests, and prints the program's path.
exec "$(dirname "$0")/../gobuild.sh" versitygw 1.8.0 github.com/versity/versitygw/cmd/versitygw
