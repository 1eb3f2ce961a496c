#!/usr/bin/env bash
# Puts ONNX Runtime's shared library where aob-detect looks for it, and prints
# its path. Linux on x64 or arm64, CPU.
#
#	tools/onnxruntime/install.sh
#
# The library comes from the npm package onnxruntime-node, fetched by npm from
# whichever registry npm is set up for; its checksum is pinned here, so it does
# not matter which. A library that is there already is checked and kept.
#
# AOB_ONNXRUNTIME names a library of your own, as one built for CUDA or for a
# Jetson: it is used as it is, and nothing is fetched.
set -euo pipefail

version=1.24.3 # the release whose C API the Go binding in go.mod speaks

fail() {
	echo "install.sh: $1" >&2
	shift
	for hint in "$@"; do
		echo "install.sh: hint: $hint" >&2
	done
	exit 1
}

if [[ -n "${AOB_ONNXRUNTIME:-}" ]]; then
	[[ -f "$AOB_ONNXRUNTIME" ]] || fail "AOB_ONNXRUNTIME names $AOB_ONNXRUNTIME, which is not a file" \
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
	fail "no library is known for $(uname -s) on $(uname -m), only for Linux on x86_64 and aarch64" \
		"build ONNX Runtime $version yourself and name the library in AOB_ONNXRUNTIME"
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
		fail "npm is missing, and it is what fetches the library" \
			"install npm (Debian and Ubuntu: apt-get install npm) and run this again" \
			"or name a library of your own in AOB_ONNXRUNTIME"
	fi
fi

# The temporary folder lies beside the target, so that the last step is a rename
# and two of these at once do no harm.
mkdir -p "$dir"
work="$(mktemp -d "$dir/.install.XXXXXX")"
trap 'rm -rf "$work"' EXIT

(cd "$work" && npm pack --silent --ignore-scripts "onnxruntime-node@$version" >/dev/null) ||
	fail "npm could not fetch onnxruntime-node@$version" "see what npm says: npm view onnxruntime-node@$version"
tar -xzf "$work/onnxruntime-node-$version.tgz" -C "$work" --no-same-owner --wildcards --strip-components=5 \
	"package/bin/napi-v*/linux/$arch/libonnxruntime.so.1" ||
	fail "the package holds no library for linux/$arch"
intact "$work/libonnxruntime.so.1" ||
	fail "the library in the package has another checksum than the pinned one: $(sha256sum <"$work/libonnxruntime.so.1" | cut -d' ' -f1)" \
		"do not use it; find out which registry npm is set up for (npm config get registry)"
chmod 0755 "$work/libonnxruntime.so.1"
mv -f "$work/libonnxruntime.so.1" "$lib"
echo "$lib"
