#!/bin/sh
# Installs Great Expectations for the tests into a virtual environment of its own in
# the user's cache, and prints the path of its Python. requirements.txt pins all
# packages with their hashes; it is made by
#
#	uv pip compile --universal --python-version 3.11 --generate-hashes requirements.in -o requirements.txt
#
# If it is installed, nothing is downloaded.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
python=${AOB_PYTHON:-python3}
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
lock=$(sha256sum "$here/requirements.txt" | cut -c1-12)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/aob/great-expectations-$lock-python$version

if [ ! -e "$folder/installed" ]; then
	echo "installing Great Expectations: 300 MB, once" >&2
	mkdir -p "$(dirname "$folder")"
	exec 9>"$folder.lock" # paths of an environment are absolute, so it is made in its place, by one
	flock 9
	if [ ! -e "$folder/installed" ]; then
		rm -rf "$folder"
		"$python" -m venv "$folder" >&2 || {
			echo "install.sh: $python cannot make a virtual environment" >&2
			echo "install.sh: hint: install python3-venv, or name another Python in AOB_PYTHON" >&2
			exit 1
		}
		"$folder/bin/pip" install --quiet --disable-pip-version-check --no-input --only-binary :all: --require-hashes \
			-r "$here/requirements.txt" >&2
		touch "$folder/installed" # last, so that an interrupted installation is never used
	fi
fi
echo "$folder/bin/python"
