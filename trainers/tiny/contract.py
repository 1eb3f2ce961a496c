"""The run contract: the fields of run.json, and the files that report the progress of a run.

A run is one call of the trainer with one `run.json`. That file is its only input besides the dataset, and the output
folder is its only output. Files are replaced atomically.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import threading
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Iterator

NAME, VERSION = "tiny", 1
TRAINER = f"{NAME}@{VERSION}"
HEARTBEAT_SECONDS = 1.0


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
class Args:
    """The trainer's own settings, described in schema.json."""

    shortSide: int | None
    channels: int
    queries: int
    weightDecay: float
    ema: float
    hflip: float
    vflip: float
    zoom: float
    color: float
    cacheMiB: int


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
    resolution: int
    epochs: int
    batch: Batch
    optimizer: Optimizer
    precision: str
    patience: int
    args: Args
    start: Path | None  # a checkpoint whose weights training starts from; None for random ones
    variant: Variant | None = None

    @property
    def identity(self) -> str:
        """A digest of everything that affects the result. Paths do not; the key covers what is at start."""
        parts = asdict(self)
        del parts["dataset"], parts["output"], parts["start"], parts["variant"]
        if self.variant:
            parts["variant"] = self.variant.name
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


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
    seed = top.take("seed", _whole(0, 2**63 - 1))
    dataset = top.take("dataset", _folder)
    output = top.take("output", _folder)
    spec = top.sub("spec")
    starts = []
    for name, file in (("weights", "file"), ("parent", "checkpoint")):
        if (given := top.take(name, lambda v: v, None)) is not None:  # AOB has checked the file's digest
            starts.append(_Fields(name, given).take(file, _folder))
    if len(starts) > 1:
        raise BadRun("weights and parent: only one of them can be given")
    variant = None
    if (given := top.take("variant", lambda v: v, None)) is not None:
        of = _Fields("variant", given)
        variant = Variant(of.take("name", _one_of("fp16")), of.take("model", _folder))
        of.take("checkpoint", _folder, None)  # of the training; the model has the same weights
        of.done()
    top.done()

    classes = spec.take("classes", _classes)
    train = spec.sub("train")
    spec.done()

    train.take("with", _one_of(TRAINER), TRAINER)
    train.take("architecture", _one_of(NAME), NAME)
    if (train.take("from", _text, "none") == "none") != (not starts) and not variant:
        raise BadRun(f"{train.path('from')}: must be none without weights or parent, and something else with one")
    resolution = train.take("resolution", _whole(64, 2048, 32), 256)
    epochs = train.take("epochs", _whole(1, 10_000), 30)
    batch_fields = train.sub("batch", {})
    effective = batch_fields.take("effective", _whole(1, 4096), 16)
    batch = Batch(effective, batch_fields.take("step", _whole(1, 4096), effective))
    batch_fields.done()
    if batch.effective % batch.step:
        raise BadRun(f"{train.path('batch')}: effective ({batch.effective}) must be a multiple of step ({batch.step})")
    fields = train.sub("optimizer", {})
    optimizer = Optimizer(
        fields.take("name", _one_of("adamw"), "adamw"),
        fields.take("lr", _number(1e-12, 10), 2e-3),
        fields.take("warmup", _number(0, 10_000), 1.0),
        fields.take("schedule", _one_of("cosine", "constant"), "cosine"),
    )
    fields.done()
    precision = train.take("precision", _one_of("fp32", "amp"), "fp32")
    stopping = train.sub("earlyStopping", {})
    patience = stopping.take("patience", _whole(0, 10_000), 0)
    stopping.done()
    fields = train.sub("args", {})
    args = Args(
        shortSide=fields.take("shortSide", _whole(32, resolution, 32), None),
        channels=fields.take("channels", _whole(4, 128, 4), 16),
        queries=fields.take("queries", _whole(1, 1000), 300),
        weightDecay=fields.take("weightDecay", _number(0, 1), 0.01),
        ema=fields.take("ema", _number(0, 0.99999), 0.99),
        hflip=fields.take("hflip", _number(0, 1), 0.5),
        vflip=fields.take("vflip", _number(0, 1), 0.0),
        zoom=fields.take("zoom", _number(1, 4), 1.5),
        color=fields.take("color", _number(0, 1), 0.2),
        cacheMiB=fields.take("cacheMiB", _whole(0, 1 << 20), 2048),
    )
    fields.done()
    train.done()
    start = starts[0] if starts else None
    return Run(
        key, seed, dataset, output, classes, resolution, epochs, batch, optimizer, precision, patience, args, start,
        variant,
    )  # fmt: skip


def replace(file: Path, content: bytes) -> None:
    """Replaces a file atomically and durably."""
    part = file.with_name(f".{file.name}.part")
    with open(part, "wb") as f:
        f.write(content)
        f.flush()
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
    """Writes lines to log.txt and to standard output. Training continues if standard output is closed."""

    def __init__(self, file: Path) -> None:
        self._file = open(file, "a", encoding="utf-8")

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def __call__(self, line: str) -> None:
        stamped = f"{_now()} {line}\n"
        self._file.write(stamped)
        self._file.flush()
        try:
            sys.stdout.write(stamped)
            sys.stdout.flush()
        except OSError:
            # Standard output is closed. Without this, the flush at exit would fail again and change the exit status.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
