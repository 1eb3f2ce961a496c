#!/bin/sh
# Builds a program from source, in the user's cache, and prints its path. Later calls only print the path.
#
#	gobuild.sh NAME VERSION PACKAGE [LDFLAGS]
#
# The go.mod and go.sum in the folder NAME/build beside this script decide alone what is built.
set -eu

name=$1 version=$2 package=$3 ldflags=${4:-}
here=$(cd "$(dirname "$0")" && pwd)
program=${XDG_CACHE_HOME:-$HOME/.cache}/aob/$name-$version

if [ ! -x "$program" ]; then
	mkdir -p "$(dirname "$program")"
	new=$(mktemp "$program.XXXXXX")
	trap 'rm -f "$new"' EXIT
	cd "$here/$name/build"
	export GOWORK=off GOFLAGS=-mod=readonly CGO_ENABLED=0
	echo "building $name $version: some minutes, once" >&2
	nice -n 10 go build -trimpath -ldflags "-s -w $ldflags" -o "$new" "$package"
	chmod 755 "$new"
	mv "$new" "$program" # last, so that an interrupted build is never used
fi
echo "$program"
