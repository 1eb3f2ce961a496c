#!/bin/sh
# Makes the environment of one version of the package for the test of class ids, and prints its Python.
# An environment is made once, from the lock file VERSION.txt; it shares PyTorch with the others as hard links.
#
#	trainers/rfdetr/test_epochs/install.sh 1.4.3
set -eu

version=$1
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/aob
folder=$cache/rfdetr-$version-$(sha256sum "$here/$version.txt" | cut -c1-12)
uv=$(ls -d "$cache"/uv-*/bin/uv 2>/dev/null | tail -1)

if [ ! -x "$folder/bin/python" ]; then
	[ -n "$uv" ] || {
		echo "install.sh: uv is missing; aob trainer install rfdetr@1.11.2 installs it" >&2
		exit 1
	}
	new=$(mktemp -d "$folder.XXXXXX")
	trap 'rm -rf "$new"' EXIT
	export UV_CACHE_DIR="$cache/uv"
	"$uv" venv --quiet --relocatable --no-project --clear --python "${PYTHON:-python3}" "$new"
	"$uv" pip sync --quiet --python "$new/bin/python" --require-hashes "$here/$version.txt"
	mv -T "$new" "$folder" 2>/dev/null || [ -x "$folder/bin/python" ]
fi
echo "$folder/bin/python"
