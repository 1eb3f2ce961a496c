#!/bin/sh
# Installs moto, a stand-in for S3 and other services of AWS that only tests use, into a virtual environment in the
# user's cache folder, and prints the path of its Python. The packages and their checksums are pinned in
# requirements.txt.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
exec "$here/../python-venv.sh" moto "$here/requirements.txt"
