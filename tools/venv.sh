#!/bin/sh
# Installs a Python tool that only tests need into a virtual environment of its own, and prints its folder.
#
#     tools/venv.sh prefect     # from tools/prefect/requirements.txt
#
# requirements.txt has the versions and hashes of all packages; its first lines say how it is made from requirements.in.
# The folder is named by the lock and by Python's version. It is made once; later calls only print it.
set -eu

tool=$1
lock=$(cd "$(dirname "$0")/$tool" && pwd)/requirements.txt
python=${AOB_PYTHON:-python3}
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || {
	printf 'venv: %s does not run\nhint: install Python 3 with venv (apt-get install python3-venv)\n' "$python" >&2
	exit 1
}
folder=${XDG_CACHE_HOME:-$HOME/.cache}/aob/$tool-$(sha256sum "$lock" | cut -c1-12)-py$version

if [ ! -e "$folder/installed" ]; then
	# A virtual environment has its path in its scripts, so it is made where it stays; the file "installed" is last.
	mkdir -p "$(dirname "$folder")"
	exec 9>"$folder.lock"
	flock 9
	if [ ! -e "$folder/installed" ]; then
		echo "venv: installing $tool: some minutes, once" >&2
		rm -rf "$folder"
		"$python" -m venv "$folder"
		"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --only-binary :all: \
			--require-hashes -r "$lock" >&2
		touch "$folder/installed"
	fi
fi
echo "$folder"
