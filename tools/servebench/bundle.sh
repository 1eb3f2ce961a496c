#!/bin/sh
# Trains a small model on a dataset's folder and makes a bundle's folder of it, once.
#
#     tools/servebench/bundle.sh DATASET BUNDLE
set -eu
dataset=$(cd "$1" && pwd) bundle=$2
[ ! -e "$bundle/golden.bin" ] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bin/aob init "$work/world" --dataset "$dataset" >/dev/null
git -C "$work/world/intent" checkout -q first-model
bin/aob train "$(basename "$dataset")" --config "$work/world/aob.yaml" --dir "$work/world/intent" --work "$work/runs" >&2
mkdir -p "$bundle"
model=$(find "$work/runs" -name model.onnx | head -1)
bin/aob-detect inspect "$model" | sed -n 's/^{"inspected"://p' | sed 's/}$//' >"$work/inspected.json"
python3 - "$work/inspected.json" "$bundle" <<'PYTHON'
import base64, json, sys
from pathlib import Path
found, bundle = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
(bundle / "signature.json").write_text(json.dumps(found["signature"]))
(bundle / "labels.json").write_text(json.dumps([s for s in found["signature"]["slots"] if s]))
(bundle / "golden.bin").write_bytes(base64.b64decode(found["golden"]))
PYTHON
cp "$model" "$bundle/model.onnx"
