#!/bin/sh
# Makes a virtual environment in the user's cache folder from a file of pinned packages with checksums, and prints the
# path of its Python. It is made once for each content of that file.
#
#	tools/python-venv.sh NAME REQUIREMENTS
#
# With AOB_INSTALLED set it makes nothing, and fails if the environment is not there.
set -eu
name=$1
requirements=$2
sum=$(sha256sum <"$requirements" | cut -c1-12)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/aob/$name-$sum

if [ -e "$folder/installed" ]; then
	echo "$folder/bin/python"
	exit 0
fi
[ -z "${AOB_INSTALLED:-}" ] || exit 1
mkdir -p "$(dirname "$folder")"
# An environment has its own path in its files, so it is made where it stays, and marked when it is complete. The lock
# is for two installations at the same time.
exec 9>"$folder.lock"
flock 9
if [ ! -e "$folder/installed" ]; then
	rm -rf "$folder"
	echo "install: $name, with pip, into $folder" >&2
	"${AOB_PYTHON:-python3}" -m venv "$folder" || {
		echo "install: python3 cannot make a virtual environment" >&2
		echo "hint: install the module venv (Debian and Ubuntu: apt-get install python3-venv)" >&2
		exit 1
	}
	"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
		--require-hashes -r "$requirements" >&2 || {
		echo "install: pip could not install $name" >&2
		echo "hint: see pip's error above, and which package index it uses: pip config list" >&2
		exit 1
	}
	touch "$folder/installed"
fi
echo "$folder/bin/python"
