#!/usr/bin/env bash
# Installs ONNX Runtime's shared library into the folder where aob-detect searches
# it, and prints its path. Linux on x64 or arm64, CPU.
#
#	tools/onnxruntime/install.sh
#
# The library comes from the npm package onnxruntime-node. npm downloads it from the
# configured registry; its checksum is pinned here, so any registry can be used. If
# the library is installed, its checksum is verified and nothing is downloaded.
#
# AOB_ONNXRUNTIME is the path of another library, for example one built for CUDA or
# for a Jetson. It is used without a check, and nothing is downloaded.
set -euo pipefail

version=1.24.3 # must match the C API version of the Go binding in go.mod

fail() {
	echo "install.sh: $1" >&2
	shift
	for hint in "$@"; do
		echo "install.sh: hint: $hint" >&2
	done
	exit 1
}

if [[ -n "${AOB_ONNXRUNTIME:-}" ]]; then
	[[ -f "$AOB_ONNXRUNTIME" ]] || fail "AOB_ONNXRUNTIME is $AOB_ONNXRUNTIME, which is not a file" \
		"unset it to install release $version"
	echo "$AOB_ONNXRUNTIME"
	exit 0
fi

case "$(uname -s)/$(uname -m)" in
Linux/x86_64)
	arch=x64
	sum=92ba8e44d31b80a34f5e805076a044122c3be1fffe0d88ed790de7267b0b2682
	;;
Linux/aarch64)
	arch=arm64
	sum=33032cb5b91c12edbf028d7c69fa40a31848d66c0095448758af237d5e0b07db
	;;
*)
	fail "there is no library for $(uname -s) on $(uname -m), only for Linux on x86_64 and aarch64" \
		"build ONNX Runtime $version yourself and set AOB_ONNXRUNTIME to the library's path"
	;;
esac

dir="${XDG_CACHE_HOME:-$HOME/.cache}/aob/onnxruntime-$version"
lib="$dir/libonnxruntime.so.1"

intact() {
	[[ -f "$1" ]] && echo "$sum  $1" | sha256sum --check --status
}

if intact "$lib"; then
	echo "$lib"
	exit 0
fi

if ! command -v npm >/dev/null; then
	as_root=()
	if [[ $(id -u) != 0 ]]; then
		as_root=(sudo -n)
	fi
	if command -v apt-get >/dev/null && { [[ $(id -u) == 0 ]] || sudo -n true 2>/dev/null; }; then
		echo "install.sh: npm is missing; installing it with apt-get" >&2
		{ "${as_root[@]}" apt-get update -q && "${as_root[@]}" apt-get install -q -y --no-install-recommends npm; } >&2 ||
			fail "apt-get could not install npm" "install npm yourself and run this again"
	else
		fail "npm is missing, which downloads the library" \
			"install npm (Debian and Ubuntu: apt-get install npm) and run this again" \
			"or set AOB_ONNXRUNTIME to the path of another library"
	fi
fi

# The temporary folder is beside the target, so that the last step is an atomic
# rename, also if this script runs twice at the same time.
mkdir -p "$dir"
work="$(mktemp -d "$dir/.install.XXXXXX")"
trap 'rm -rf "$work"' EXIT

(cd "$work" && npm pack --silent --ignore-scripts "onnxruntime-node@$version" >/dev/null) ||
	fail "npm could not download onnxruntime-node@$version" "see npm's error: npm view onnxruntime-node@$version"
tar -xzf "$work/onnxruntime-node-$version.tgz" -C "$work" --no-same-owner --wildcards --strip-components=5 \
	"package/bin/napi-v*/linux/$arch/libonnxruntime.so.1" ||
	fail "the package contains no library for linux/$arch"
intact "$work/libonnxruntime.so.1" ||
	fail "the checksum of the library in the package is not the pinned one: $(sha256sum <"$work/libonnxruntime.so.1" | cut -d' ' -f1)" \
		"do not use it; check which registry npm uses (npm config get registry)"
chmod 0755 "$work/libonnxruntime.so.1"
mv -f "$work/libonnxruntime.so.1" "$lib"
echo "$lib"
