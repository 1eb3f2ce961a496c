#!/usr/bin/env python3
"""Takes an ONNX file that was trained elsewhere: `python3 train.py RUN.JSON`. See README.md."""

from __future__ import annotations

import sys

sys.dont_write_bytecode = True  # AOB takes a digest of this folder, so no files may be added

import fcntl
import hashlib
import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import onnx

TRAINER = "import@1"
METADATA, OWN = "rfdetr_inference", "aob_signature"  # RF-DETR's readers refuse a field of ours in theirs
INPUT, BOXES, LOGITS = "input", "dets", "labels"
MOST = 10_000  # queries, and slots, of a file; each takes memory here and where the model runs
MEANS, STDS = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
RESIZES = ("float32", "float32-antialias", "uint8", "uint8-antialias")
OUTPUTS = ("model.onnx", "train.json", "status.json", "log.txt", "identity")
TRAIN = {
    "with", "architecture", "from", "resolution", "epochs", "batch", "optimizer", "precision", "earlyStopping", "args",
}  # fmt: skip


class Bad(Exception):
    """run.json or the model cannot be used; the message says why."""


def fields(where: str, value: Any, required: set[str], optional: set[str] = set()) -> dict[str, Any]:
    """Checks which fields an object has."""
    if not isinstance(value, dict):
        raise Bad(f"{where}: must be an object")
    for name in value:
        if name not in required | optional:
            raise Bad(f"{where}: unknown field {name}")
    for name in sorted(required - set(value)):
        raise Bad(f"{where}: {name} is missing")
    return value


def names(where: str, value: Any, empty: bool = False) -> list[str]:
    """Checks a list of names. With empty, a name may be "" any number of times."""
    if not isinstance(value, list) or not value or not all(isinstance(n, str) for n in value):
        raise Bad(f"{where}: must be a list of at least one name")
    given = [n for n in value if n or not empty]
    if "" in given or len(set(given)) < len(given):
        raise Bad(f"{where}: has an empty name, or a name twice")
    return value


def read(file: Path) -> dict[str, Any]:
    """Reads run.json."""
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as e:
        raise Bad(f"{file}: {e}") from None
    run = fields("run.json", document, {"key", "seed", "dataset", "output", "spec"}, {"weights"})
    if isinstance(run["seed"], bool) or not isinstance(run["seed"], int) or run["seed"] < 0:
        raise Bad("run.json: seed must be a whole number from 0")
    if not isinstance(run["output"], str) or not run["output"].startswith("/"):
        raise Bad("run.json: output must be an absolute path")
    spec = fields("spec", run["spec"], {"classes", "train"})
    names("spec.classes", spec["classes"])
    train = fields("spec.train", spec["train"], {"with", "from"}, TRAIN)
    if train["with"] != TRAINER:
        raise Bad(f"spec.train.with: must be {TRAINER}, not {train['with']!r}")
    if train.get("epochs", 1) != 1:
        raise Bad("spec.train.epochs: must be 1; nothing is trained here")
    if "weights" not in run:
        raise Bad("spec.train.from: must name weights of the server's configuration, which are the ONNX file")
    fields("weights", run["weights"], {"file", "sha256"})
    args = fields("spec.train.args", train.get("args", {}), set(), {"slots", "select", "resize", "clip"})
    if "slots" in args:
        names("spec.train.args.slots", args["slots"], empty=True)
    if args.get("resize", RESIZES[0]) not in RESIZES:
        raise Bad(f"spec.train.args.resize: must be one of {', '.join(RESIZES)}")
    if not isinstance(args.get("clip", False), bool):
        raise Bad("spec.train.args.clip: must be true or false")
    return run


def sizes(ports: Any, name: str) -> list[int]:
    """The sizes of an input or output after the batch."""
    for port in ports:
        if port.name == name:
            return [d.dim_value for d in port.type.tensor_type.shape.dim[1:]]
    raise Bad(f"the file has no {name}, but {', '.join(p.name for p in ports) or 'nothing'}")


def slots_of(entry: Any, width: int) -> list[str]:
    """The class of each slot by the file's metadata."""
    if not isinstance(entry, dict):
        raise Bad(f"the file's {METADATA} metadata is no object")
    slots = [""] * width
    named = entry.get("class_id_to_name") or {}
    listed = entry.get("class_names") or []
    if not isinstance(named, dict) or not isinstance(listed, list):
        raise Bad(f"the file's {METADATA} metadata must have class_id_to_name as an object, and class_names as a list")
    ids = named or dict(enumerate(listed))
    for slot, name in ids.items():
        if not str(slot).isdigit() or int(slot) >= width or not isinstance(name, str):
            raise Bad(f"the file's {METADATA} metadata has class {slot!r}, and output {LOGITS} has {width} slots")
        slots[int(slot)] = name
    return slots


def written(graph: onnx.ModelProto, args: dict[str, Any], width: int, queries: int) -> list[str]:
    """Adds metadata to a file that has none, and returns the class of each slot."""
    if "slots" not in args:
        raise Bad(f"the file has no {METADATA} metadata, so args.slots must name the class of each of its {width} "
                  "slots")  # fmt: skip
    slots = args["slots"]
    if len(slots) != width:
        raise Bad(f"args.slots has {len(slots)} names, and output {LOGITS} has {width} slots; name each of them, with "
                  '"" for a slot without a class')  # fmt: skip
    dtype, _, antialias = args.get("resize", RESIZES[0]).partition("-")
    graph.metadata_props.add(key=METADATA, value=json.dumps({
        "schema_version": 1, "format": "onnx", "task": "detect", "variant": "imported",
        "input_shape": [-1, 3, *sizes(graph.graph.input, INPUT)[1:]], "input_name": INPUT,
        "outputs": {"pred_boxes": BOXES, "pred_logits": LOGITS}, "means": MEANS, "stds": STDS, "pixel_scale": 1 / 255,
        "channel_order": "RGB", "resize_interpolation": "bilinear", "resize_antialias": bool(antialias),
        "class_names": slots, "class_id_to_name": {str(i): name for i, name in enumerate(slots) if name}, "num_classes": width,
        "num_select": args.get("select", min(queries or 300, 300)), "selection_policy": "all_logits",
        "box_format": "cxcywh_normalized",
    }, sort_keys=True))  # fmt: skip
    for entry in [e for e in graph.metadata_props if e.key == OWN]:
        graph.metadata_props.remove(entry)
    own = {} if dtype == "float32" else {"resize_dtype": dtype}
    if args.get("clip"):
        own["clip_boxes"] = True
    if own:
        graph.metadata_props.add(key=OWN, value=json.dumps({"schema_version": 1, **own}, sort_keys=True))
    return slots


def clipped(graph: onnx.ModelProto, described: dict[str, Any], clip: bool) -> bool:
    """Makes the metadata say what args.clip does; whether that has changed the file."""
    owns = [e.value for e in graph.metadata_props if e.key == OWN]
    try:
        own = json.loads(owns[-1]) if owns else {"schema_version": 1}
    except (ValueError, RecursionError) as e:
        raise Bad(f"the file's {OWN} metadata: {e}") from None
    if not isinstance(own, dict):
        raise Bad(f"the file's {OWN} metadata is no object")
    said = own.get("clip_boxes", described.get("clip_boxes"))
    if said is None and clip and not owns:
        graph.metadata_props.add(key=OWN, value=json.dumps({**own, "clip_boxes": True}, sort_keys=True))
        return True
    if bool(said) != clip:
        raise Bad(f"args.clip says {clip}, and the file's metadata says {bool(said)}; remove or correct args.clip")
    return False


def imported(run: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """The file that ships, and what train.json says of it."""
    args = run["spec"]["train"].get("args", {})
    file = Path(run["weights"]["file"])
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != run["weights"]["sha256"]:
        raise Bad("the file of the weights was changed")
    try:
        graph = onnx.load_model_from_string(data)  # external files are not read
    except Exception as e:
        raise Bad(f"the file is no ONNX file: {e}") from None
    queries, width = (sizes(graph.graph.output, LOGITS) + [0, 0])[:2]  # RF-DETR 1.4 leaves queries open, which is 0
    if width < 1:
        raise Bad(f"output {LOGITS} of the file has no fixed number of slots; export it with fixed sizes")
    if max(width, queries) > MOST:
        raise Bad(f"output {LOGITS} of the file has {queries} queries and {width} slots; at most {MOST} are taken")
    sizes(graph.graph.output, BOXES)
    entries = [e.value for e in graph.metadata_props if e.key == METADATA]
    if entries:
        try:
            described = json.loads(entries[-1])  # the last one counts, as in ONNX Runtime
            slots = slots_of(described, width)
        except (ValueError, RecursionError) as e:
            raise Bad(f"the file's {METADATA} metadata: {e}") from None
        given = args.get("slots", slots)
        if given + [""] * (width - len(given)) != slots:
            raise Bad(f"args.slots says {given}, and the file's metadata says {slots}; remove or correct args.slots")
        if "clip" in args and clipped(graph, described, args["clip"]):
            data = graph.SerializeToString(deterministic=True)
    else:
        slots = written(graph, args, width, queries)
        data = graph.SerializeToString(deterministic=True)
    for name in run["spec"]["classes"]:
        if name not in slots:
            raise Bad(f"the file has no class {name}; its slots are {slots}")
    return data, {
        "trainer": TRAINER, "imported": True, "sha256": run["weights"]["sha256"], "slots": slots,
        "metadata": "of the file" if entries else "by args.slots",
        "producer": f"{graph.producer_name} {graph.producer_version}".strip(), "ir": graph.ir_version,
        "opset": {o.domain or "ai.onnx": o.version for o in graph.opset_import}, "onnx": onnx.__version__,
    }  # fmt: skip


def replace(file: Path, content: bytes) -> None:
    """Replaces a file atomically and durably."""
    part = file.with_name(f".{file.name}.part")
    with open(part, "wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())
    os.replace(part, file)


def status(output: Path, phase: str, message: str = "") -> None:
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    replace(output / "status.json", json.dumps({"phase": phase, "message": message, "heartbeat": now}).encode())


def main(arguments: list[str]) -> int:
    """Runs the import; returns the exit status."""
    if len(arguments) != 1:
        print("usage: train.py RUN.JSON", file=sys.stderr)
        return 1
    try:
        run = read(Path(arguments[0]))
        output = Path(run["output"])
        output.mkdir(parents=True, exist_ok=True)
        lock = os.open(output, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)  # an import takes seconds
        parts = [run["key"], run["seed"], run["spec"], run["weights"]["sha256"]]
        identity = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest().encode()
        there = [name for name in OUTPUTS if (output / name).exists()]
        if there and (not (output / "identity").exists() or (output / "identity").read_bytes() != identity):
            raise Bad(f"{output}: contains another run; use another output folder")
        if all((output / name).exists() for name in OUTPUTS):
            return 0
    except (Bad, OSError) as e:  # the output folder is unknown, of another run, or not writable: do not change it
        print(f"error: {e}", file=sys.stderr)
        return 1
    try:
        replace(output / "identity", identity)
        status(output, "starting")
        model, about = imported(run)
        replace(output / "model.onnx", model)
        replace(output / "train.json", (json.dumps(about, indent=2) + "\n").encode())
        replace(output / "log.txt", f"imported a file of {len(model)} bytes; its slots are {about['slots']}\n".encode())
        status(output, "done")
        return 0
    except (Bad, OSError) as e:
        line = " ".join(str(e).split())
        status(output, "failed", line)
        print(f"error: {line}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
