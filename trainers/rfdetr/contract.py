"""The run contract: reading run.json, and the files that report the progress of a run.

A run is one call of the trainer with one `run.json`. That file, the dataset and the weight files that it names are its
only inputs, and the output folder is its only output. Files are replaced atomically. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import threading
from dataclasses import asdict, dataclass, replace as changed
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Iterator

import architectures
import fields as known_fields
from architectures import Architecture

NAME = "rfdetr"
HEARTBEAT_SECONDS = 1.0
VERSIONS = sorted(file.parent.name for file in Path(__file__).parent.glob("versions/*/schema.json"))


class BadRun(Exception):
    """run.json, or a file or folder that it names, cannot be used; the message says which part and why."""


@dataclass(frozen=True)
class Batch:
    """Images per optimizer step (effective), and images per forward pass (step)."""

    effective: int
    step: int


@dataclass(frozen=True)
class Optimizer:
    name: str
    lr: float
    warmup: float  # epochs
    schedule: str


@dataclass(frozen=True)
class Weights:
    """A file of weights that training starts from."""

    file: Path
    sha256: str


@dataclass(frozen=True)
class Variant:
    """A variant of a trained model, which is made in place of a training."""

    name: str
    model: Path  # the model.onnx that it is made of


@dataclass(frozen=True)
class Run:
    """A checked run.json with all defaults filled in."""

    key: str
    seed: int
    dataset: Path
    output: Path
    classes: list[str]
    version: str
    architecture: Architecture
    start: str  # none, or where the weights are from
    resolution: int
    epochs: int
    batch: Batch
    optimizer: Optimizer
    precision: str
    patience: int
    args: dict[str, Any]
    weights: Weights | None
    parent: Path | None  # a checkpoint of this trainer
    variant: Variant | None = None

    @property
    def identity(self) -> str:
        """A digest of everything that affects the result. Paths do not."""
        weights = self.weights and self.weights.sha256
        parts = asdict(changed(self, dataset=Path(), output=Path(), weights=None, parent=None, variant=None))
        del parts["variant"]
        if self.variant:
            parts["variant"] = self.variant.name
        return hashlib.sha256(json.dumps([parts, weights], sort_keys=True, default=str).encode()).hexdigest()


class _Fields:
    """Takes fields out of a JSON object one by one. Fields that are left at the end are unknown."""

    def __init__(self, where: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise BadRun(f"{where or 'run.json'}: must be an object")
        self._where, self._left, self._known = where, dict(value), []

    def path(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name

    def take(self, name: str, check: Callable[[Any], Any], *default: Any) -> Any:
        """Returns the field's checked value. Without a default, the field is required."""
        self._known.append(name)
        if name not in self._left:
            if default:
                return default[0]
            raise BadRun(f"{self.path(name)}: missing")
        try:
            return check(self._left.pop(name))
        except ValueError as e:
            raise BadRun(f"{self.path(name)}: {e}") from None

    def sub(self, name: str, *default: Any) -> _Fields:
        return _Fields(self.path(name), self.take(name, lambda v: v, *default))

    def done(self) -> None:
        for name in self._left:
            raise BadRun(f"{self.path(name)}: unknown field; known are {', '.join(self._known)}")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a non-empty string")
    return value


def _folder(value: Any) -> Path:
    path = Path(_text(value))
    if not path.is_absolute():
        raise ValueError(f"must be an absolute path, not {value!r}")
    return path


def _one_of(*allowed: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"must be {' or '.join(allowed)}, not {value!r}")
        return value

    return check


def _whole(low: int, high: int, multiple: int = 1) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high or value % multiple:
            of = f" that is a multiple of {multiple}" if multiple > 1 else ""
            raise ValueError(f"must be a whole number from {low} to {high}{of}, not {value!r}")
        return value

    return check


def _number(low: float, high: float) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}, not {value!r}")
        return float(value)

    return check


def _classes(value: Any) -> list[str]:
    if not isinstance(value, list) or not value:
        raise ValueError("must be a list of at least one class name")
    for name in value:
        if not isinstance(name, str) or not name:
            raise ValueError(f"every class must be a non-empty string, not {name!r}")
        if value.count(name) > 1:
            raise ValueError(f"{name!r} occurs twice")
    if len(value) > 1000:
        raise ValueError(f"{len(value)} classes are more than 1000")
    return value


def _sha256(value: Any) -> str:
    hexadecimal = _text(value).removeprefix("sha256:")
    if len(hexadecimal) != 64 or not set(hexadecimal) <= set("0123456789abcdef"):
        raise ValueError(f"must be a SHA-256 of 64 hexadecimal digits, not {value!r}")
    return hexadecimal


def _version(value: Any) -> str:
    name, at, version = _text(value).partition("@")
    if name != NAME or not at or not version:
        raise ValueError(f"must be {NAME}@VERSION, not {value!r}")
    if version not in VERSIONS:
        raise ValueError(f"{value!r} is unknown; known are {', '.join(f'{NAME}@{v}' for v in VERSIONS)}")
    return version


def _args(version: str) -> Callable[[Any], dict[str, Any]]:
    """Checks args against the version's schema. What it does not say, the package's own class checks later."""
    file = Path(__file__).parent / "versions" / version / "schema.json"
    known = json.loads(file.read_bytes())["properties"]

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError("must be an object")
        for name, given in value.items():
            if name not in known:
                why = known_fields.why_not(name)
                raise ValueError(f"{name!r} cannot be set: {why}" if why else f"{name!r} is unknown")
            if want := _mismatch(known[name], given):
                raise ValueError(f"{name} must be {want}, not {given!r}")
        return value

    return check


_TYPES = {"integer": int, "number": (int, float), "string": str, "boolean": bool, "object": dict, "array": list}


def _mismatch(rule: dict[str, Any], value: Any) -> str:
    """What a value should be that does not fit its rule; empty for one that does."""
    kind = rule.get("type", "object")
    if not isinstance(value, _TYPES[kind]) or isinstance(value, bool) != (kind == "boolean"):
        return f"of type {kind}"
    if "enum" in rule and value not in rule["enum"]:
        return " or ".join(map(str, rule["enum"]))
    for name, wrong, text in (
        ("minimum", lambda limit: value < limit, "at least"),
        ("maximum", lambda limit: value > limit, "at most"),
        ("exclusiveMinimum", lambda limit: value <= limit, "more than"),
    ):
        if name in rule and wrong(rule[name]):
            return f"{text} {rule[name]}"
    return ""


def read_run(file: Path) -> Run:
    """Reads run.json and adds the defaults. Raises BadRun with the first error."""
    try:
        document = json.loads(file.read_bytes())
    except OSError as e:
        raise BadRun(f"{file}: {e.strerror}") from None
    except (ValueError, RecursionError) as e:
        raise BadRun(f"{file}: not JSON: {e}") from None
    try:
        return _read(document)
    except BadRun as e:
        raise BadRun(f"{file}: {e}") from None


def _read(document: Any) -> Run:
    top = _Fields("", document)
    key = top.take("key", _text)
    seed = top.take("seed", _whole(0, 2**53 - 1))
    dataset = top.take("dataset", _folder)
    output = top.take("output", _folder)
    spec = top.sub("spec")
    weights = parent = None
    given = top.sub("weights", {})
    if given._left:
        weights = Weights(given.take("file", _folder), given.take("sha256", _sha256))
        given.take("licence", _text, "")
        given.take("name", _text, "")
    given.done()
    given = top.sub("parent", {})
    if given._left:  # what else AOB says of the parent is for its own records
        parent = given.take("checkpoint", _folder)
    variant = None
    given = top.sub("variant", {})
    if given._left:
        variant = Variant(given.take("name", _one_of("fp16", "int8")), given.take("model", _folder))
        given.take("checkpoint", _folder, None)  # of the training; the model has the same weights
    given.done()
    top.done()

    classes = spec.take("classes", _classes)
    train = spec.sub("train")
    spec.done()

    version = train.take("with", _version)
    architecture = architectures.KNOWN[train.take("architecture", _one_of(*architectures.KNOWN), "rf-detr-small")]
    start = train.take("from", _text, "none")
    if start == "none" and (weights or parent):
        raise BadRun("train.from: is none, so weights and parent must be left out")
    if start != "none" and not (weights or parent or variant):
        raise BadRun(f"train.from: is {start!r}, so weights or parent must name a file")
    if weights and parent:
        raise BadRun("weights and parent: only one of them can be given")
    resolution = train.take("resolution", _whole(architecture.block, 2048, architecture.block), architecture.resolution)
    epochs = train.take("epochs", _whole(1, 10_000), 100)
    sub = train.sub("batch", {})
    effective = sub.take("effective", _whole(1, 4096), 16)
    batch = Batch(effective, sub.take("step", _whole(1, 4096), effective))
    sub.done()
    if batch.effective % batch.step:
        raise BadRun(f"{train.path('batch')}: effective ({batch.effective}) must be a multiple of step ({batch.step})")
    sub = train.sub("optimizer", {})
    optimizer = Optimizer(
        sub.take("name", _one_of("adamw"), "adamw"),
        sub.take("lr", _number(1e-12, 10), 1e-4),
        sub.take("warmup", _number(0, 10_000), 1.0),
        sub.take("schedule", _one_of("cosine"), "cosine"),
    )
    sub.done()
    precision = train.take("precision", _one_of("fp32", "amp", "fp16", "bf16"), "fp32")
    sub = train.sub("earlyStopping", {})
    patience = sub.take("patience", _whole(0, 10_000), 0)
    sub.done()
    args = train.take("args", _args(version), {})
    train.done()
    return Run(
        key, seed, dataset, output, classes, version, architecture, start, resolution, epochs, batch, optimizer,
        precision, patience, args, weights, parent, variant,
    )  # fmt: skip


def replace(file: Path, content: bytes) -> None:
    """Replaces a file atomically and durably."""
    part = file.with_name(f".{file.name}.part")
    part.write_bytes(content)
    publish(part, file)


def publish(part: Path, file: Path) -> None:
    """Puts a file that is complete in place of another, atomically and durably."""
    with open(part, "rb") as f:
        os.fsync(f.fileno())
    os.replace(part, file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Holds an exclusive lock on the output folder. The kernel releases it when the process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as e:
        raise BadRun(f"{folder}: {e.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadRun(f"{folder}: another trainer is running there") from None
        yield
    finally:
        os.close(lock)


class Log:
    """Writes lines to log.txt and to standard output. Training continues if standard output is closed.

    While it is open, what libraries write to standard output and standard error goes to log.txt only.
    """

    def __init__(self, file: Path) -> None:
        self._file = open(file, "a", encoding="utf-8")
        sys.stdout.flush()
        sys.stderr.flush()
        self._kept = os.dup(1), os.dup(2)
        self._out: int | None = self._kept[0]
        for number in (1, 2):
            os.dup2(self._file.fileno(), number)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: Any) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, kept in zip((1, 2), self._kept):
            os.dup2(kept, number)
            os.close(kept)
        self._file.close()

    def __call__(self, line: str) -> None:
        stamped = f"{_now()} {line}\n"
        self._file.write(stamped)
        self._file.flush()
        if self._out is not None:
            try:
                os.write(self._out, stamped.encode())
            except OSError:
                self._out = None


class Status:
    """status.json: the progress of the run, rewritten every second with a new heartbeat.

    The heartbeat shows that the process is alive. `batch` shows that the training makes progress.
    """

    def __init__(self, file: Path, epochs: int) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._fields: dict[str, Any] = {
            "phase": "starting",
            "epoch": 0,
            "epochs": epochs,
            "batch": 0,
            "batches": 0,
            "heartbeat": "",
            "message": "",
            "map": None,
            "secondsLeft": None,
        }
        self._write()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def update(self, **fields: Any) -> None:
        """Changes fields. They are written with the next heartbeat."""
        with self._lock:
            self._fields.update(fields)

    def enter(self, phase: str, message: str = "") -> None:
        """Changes the phase and writes the file at once."""
        self.update(phase=phase, message=message)
        self._write()

    def close(self) -> None:
        """Ends the heartbeat. status.json keeps its content."""
        self._stop.set()
        self._thread.join()

    def _write(self) -> None:
        with self._lock:
            self._fields["heartbeat"] = _now()
            replace(self._file, (json.dumps(self._fields) + "\n").encode())

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                self._write()
            except OSError as e:  # the main loop reports a full disk
                print(f"status.json: {e}", file=sys.stderr)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
