#!/bin/sh
# Installs what training and evaluation need on this machine: PyTorch and onnx
# (Debian's packages), a C compiler, libjpeg-turbo, shellcheck, ONNX Runtime's library, and Terraform.
# It does not change what is installed already. Progress goes to standard error.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

log() { printf 'install: %s\n' "$*" >&2; }
fail() { printf 'install: %s\nhint: %s\n' "$1" "$2" >&2; exit 1; }

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"
	elif command -v sudo >/dev/null 2>&1; then sudo "$@"
	else fail "$* needs root" "run it as root, then make again"
	fi
}

packages() {
	command -v apt-get >/dev/null 2>&1 || fail "missing: $*" "install them with this system's package manager"
	log "installing $*"
	as_root apt-get update -qq >&2
	DEBIAN_FRONTEND=noninteractive as_root apt-get install -y -qq --no-install-recommends "$@" >&2
}

# PyTorch, for the system's own Python.
if ! /usr/bin/python3 -c 'import torch, torchvision, onnx, PIL, numpy' >/dev/null 2>&1; then
	packages python3-torch python3-torchvision python3-onnx python3-pil
fi
command -v cc >/dev/null 2>&1 || packages gcc libc6-dev

# libjpeg-turbo, which is linked into aob-detect.
if ! printf '#include <%s>\n' stdio.h jpeglib.h turbojpeg.h |
	sed '$a int main(void) { return !tjInitDecompress(); }' |
	cc -x c -o /dev/null - -l:libturbojpeg.a -lm >/dev/null 2>&1; then
	packages libturbojpeg0-dev libjpeg-dev
fi

# shellcheck, for the tests of scripts.
command -v shellcheck >/dev/null 2>&1 || packages shellcheck

# ONNX Runtime's library.
"$here/onnxruntime/install.sh" >/dev/null

# Terraform.
if ! command -v terraform >/dev/null 2>&1; then
	bin=${XDG_CACHE_HOME:-$HOME/.cache}/aob/bin
	if [ ! -x "$bin/terraform" ]; then
		log "installing Terraform 1.11.4 into $bin"
		mkdir -p "$bin"
		work=$(mktemp -d "$bin/.install.XXXXXX") # renamed at the end, so that no half file is taken for Terraform
		trap 'rm -rf "$work"' EXIT
		trap 'exit 1' INT TERM
		go run github.com/hashicorp/hc-install/cmd/hc-install@v0.9.2 install -version 1.11.4 -path "$work" terraform >&2 ||
			fail "Terraform cannot be installed" "install it by hand and put it on PATH"
		mv -f "$work/terraform" "$bin/terraform"
	fi
fi
