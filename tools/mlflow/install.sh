#!/bin/sh
# Installs MLflow for the tests with a real MLflow server, into a virtual environment of its own, and prints its folder.
# Requires Python 3.10 or later with venv. It downloads about 250 MB and takes 850 MB of disk, once; later calls only
# print the folder.
#
# requirements.txt has the versions and hashes of all packages. To update it, change requirements.in and the version
# here and in mlflowtest, and run the command in the first line of requirements.txt.
set -eu

version=3.17.2
here=$(cd "$(dirname "$0")" && pwd)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/aob/mlflow-$version

if [ -e "$folder/installed" ]; then
	echo "$folder"
	exit 0
fi

# A virtual environment has its path in its scripts, so it is made where it stays; the file "installed" is last.
mkdir -p "$(dirname "$folder")"
exec 9>"$folder.lock"
flock 9
if [ ! -e "$folder/installed" ]; then
	echo "installing MLflow $version: some minutes, once" >&2
	rm -rf "$folder"
	"${AOB_PYTHON:-python3}" -m venv "$folder"
	"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --only-binary :all: \
		--require-hashes -r "$here/requirements.txt" >&2
	touch "$folder/installed"
fi
echo "$folder"
