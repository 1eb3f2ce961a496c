#!/bin/sh
# Installs the official Python package roboflow, which only a test uses, into a virtual environment in the user's cache
# folder, and prints the path of its Python. The packages and their checksums are pinned in requirements.txt.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
exec "$here/../python-venv.sh" roboflow "$here/requirements.txt"
