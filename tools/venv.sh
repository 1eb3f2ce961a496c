#!/bin/sh
# Installs a Python tool that only tests need into a virtual environment of its own in the user's cache folder, and
# prints the path of its Python.
#
#     tools/venv.sh prefect            # from tools/prefect/requirements.txt
#     tools/venv.sh --there prefect    # installs nothing, and fails if it is not there
#
# requirements.txt has the versions and hashes of all packages. It is made in its folder by
#     uv pip compile --universal --python-version 3.10 --generate-hashes requirements.in -o requirements.txt
# The folder is named by the lock and by Python's version. AOB_PYTHON names another Python than python3.
set -eu

[ "$1" != --there ] || { there=1; shift; }
tool=$1
lock=$(cd "$(dirname "$0")/$tool" && pwd)/requirements.txt
python=${AOB_PYTHON:-python3}
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || {
	printf 'venv: %s does not run\nhint: install Python 3 with venv (apt-get install python3-venv)\n' "$python" >&2
	exit 1
}
folder=${XDG_CACHE_HOME:-$HOME/.cache}/aob/$tool-$(sha256sum "$lock" | cut -c1-12)-py$version

if [ ! -e "$folder/installed" ]; then
	[ -z "${there:-}" ] || exit 1
	# An environment has its own path in its files, so it is made where it stays; the file "installed" is last.
	mkdir -p "$(dirname "$folder")"
	exec 9>"$folder.lock"
	flock 9
	if [ ! -e "$folder/installed" ]; then
		echo "venv: installing $tool: some minutes, once" >&2
		rm -rf "$folder"
		"$python" -m venv "$folder" >&2 || {
			printf 'venv: %s cannot make a virtual environment\n' "$python" >&2
			printf 'hint: install its module venv (Debian and Ubuntu: apt-get install python3-venv)\n' >&2
			exit 1
		}
		"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-cache-dir --no-deps \
			--only-binary :all: --require-hashes -r "$lock" >&2 || {
			printf 'venv: pip could not install %s\n' "$tool" >&2
			printf 'hint: see its error above, and the package index that it uses: pip config list\n' >&2
			exit 1
		}
		touch "$folder/installed"
	fi
fi
echo "$folder/bin/python"
