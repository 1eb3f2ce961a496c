#!/bin/sh
# Builds versitygw, a server of the S3 protocol, from source for tests, and prints the program's path. The first build
# takes some minutes; later calls only print the path.
set -eu

version=1.8.0
here=$(cd "$(dirname "$0")" && pwd)
program=${XDG_CACHE_HOME:-$HOME/.cache}/aob/versitygw-$version

if [ ! -x "$program" ]; then
	mkdir -p "$(dirname "$program")"
	new=$(mktemp "$program.XXXXXX")
	trap 'rm -f "$new"' EXIT
	cd "$here/build"
	export GOWORK=off GOFLAGS=-mod=readonly CGO_ENABLED=0
	echo "building versitygw $version: some minutes, once" >&2
	nice -n 10 go build -trimpath -ldflags '-s -w' -o "$new" github.com/versity/versitygw/cmd/versitygw
	chmod 755 "$new"
	mv "$new" "$program" # last, so that an interrupted build is never used
fi
echo "$program"
