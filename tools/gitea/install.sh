#!/bin/sh
# Builds Gitea from source for the tests with a real forge, and prints the folder
# with the program and the templates, locales and public files that it needs.
# Requires Go, a C compiler (for SQLite) and git. The first build takes some
# minutes; later calls only print the folder.
set -eu

version=1.25.5
here=$(cd "$(dirname "$0")" && pwd)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/aob/gitea-$version

if [ -x "$folder/gitea" ]; then
	echo "$folder"
	exit 0
fi

mkdir -p "$(dirname "$folder")"
new=$(mktemp -d "$folder.XXXXXX")
trap '[ ! -d "$new" ] || { chmod -R u+w "$new" && rm -rf "$new"; }' EXIT
cd "$here/build"
# Only this module's go.mod and go.sum decide what is built: ignore workspaces and
# flags of the caller, and do not change the module.
export GOWORK=off GOFLAGS=-mod=readonly CGO_ENABLED=1
echo "building Gitea $version: 10 to 40 minutes, once; each package is named when it is built" >&2
nice -n 10 go build -v -p 2 -o "$new/gitea" -trimpath \
	-tags 'sqlite sqlite_unlock_notify' -ldflags "-s -w -X main.Version=$version" code.gitea.io/gitea
source=$(go list -m -f '{{.Dir}}' code.gitea.io/gitea)
for part in options public templates; do
	cp -R "$source/$part" "$new/$part"
done
chmod -R u+w "$new"
"$new/gitea" --version >&2
# The folder is renamed last, so that an interrupted build is never used.
mv -T "$new" "$folder" 2>/dev/null || [ -x "$folder/gitea" ]
echo "$folder"
