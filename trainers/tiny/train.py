#!/usr/bin/env python3
"""Trains the tiny detector: `python3 train.py RUN.JSON`.

Implements the run contract (see README.md): run.json is the input, the output folder gets all results, and the process
may be killed at any moment and started again. Exit status: 0 done, 1 failed with one line `error: …` on standard
error, 128 + the signal's number if it was stopped by a signal.
"""

from __future__ import annotations

import sys

sys.dont_write_bytecode = True  # AOB takes a digest of this folder, so no files may be added

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads slow each other down on a busy machine

import json
import platform
import signal
import time
import traceback
from pathlib import Path
from typing import Any, Callable

import numpy as np
import onnx
import PIL
import torch

import contract
import data
import variants
from coco_map import Found, Score, evaluate
from contract import BadRun, Log, Run, Status
from data import BadData, Images, Split
from export import to_onnx
from model import Deployed
from training import Training

CHECKPOINT_SECONDS = 60.0
LOWEST_SCORE = 1e-3
MOST_DETECTIONS = 300


class Stopped(Exception):
    """A signal asked the run to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; the next start continues from the checkpoint")
        self.number = number


class Signals:
    """Records SIGTERM and SIGINT until the training reaches a point where it can stop."""

    def __init__(self) -> None:
        self._number: int | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._record)

    def _record(self, number: int, _: Any) -> None:
        self._number = number

    def check(self) -> None:
        """Raises Stopped if a signal was received."""
        if self._number is not None:
            raise Stopped(self._number)


def threads() -> int:
    """The number of cores that this process may use, or OMP_NUM_THREADS if that is less."""
    cores = len(os.sched_getaffinity(0))
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(wanted)) if wanted.isdigit() and int(wanted) > 0 else cores


def detect(model: Deployed, images: torch.Tensor) -> list[Found]:
    """Returns a deployed model's detections for a batch: the best pairs of query and class, boxes in 0..1."""
    with torch.inference_mode():
        dets, labels = model(data.normalised(images))
    found = []
    for box, logits in zip(dets, labels):
        scores, flat = logits.sigmoid().flatten().sort(descending=True, stable=True)
        flat = flat[:MOST_DETECTIONS][scores[:MOST_DETECTIONS] >= LOWEST_SCORE]
        query, label = flat // labels.shape[2], flat % labels.shape[2]
        corners = torch.cat((box[query, :2] - box[query, 2:] / 2, box[query, :2] + box[query, 2:] / 2), 1)
        found.append(Found(corners.double().numpy(), label.numpy(), scores[: len(flat)].double().numpy()))
    return found


def validate(model: Deployed, images: Images, step: int, check: Callable[[], None]) -> Score:
    """Scores the model on images, `step` images at a time."""
    pictures, found = images.pictures, []
    for start in range(0, len(pictures), step):
        check()
        found += detect(model, images.take(range(start, min(start + step, len(pictures)))))
    scale = [(p.width, p.height, p.width, p.height) for p in pictures]
    truths = [p.truth._replace(boxes=p.truth.boxes * s) for p, s in zip(pictures, scale)]
    found = [f._replace(boxes=f.boxes * s) for f, s in zip(found, scale)]
    return evaluate(truths, found, model.classes)


def load_checkpoint(run: Run) -> dict[str, Any] | None:
    """Returns the checkpoint in the output folder, or None. Raises BadRun if it is of another run."""
    file = run.output / "checkpoint"
    if run.variant:
        return claim_folder(run)
    if not file.exists():
        for name in ("model.onnx", "train.json"):  # written only after a checkpoint
            if (run.output / name).exists():
                raise BadRun(f"{run.output}: contains {name} but no checkpoint; use another output folder")
        return None
    try:
        # Only tensors and plain values are unpickled, never code.
        state = torch.load(file, weights_only=True)
        identity = state["identity"]
    except Exception as e:
        line = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise BadRun(f"{file}: not a checkpoint of this trainer ({line}); remove it to start over") from None
    if identity != run.identity:
        raise BadRun(f"{run.output}: contains another run (key, seed or spec differ); use another output folder")
    return state


def claim_folder(run: Run) -> None:
    """Records which variant the output folder is of. Raises BadRun if it is of another run."""
    file = run.output / "identity"
    if file.exists() and file.read_text() != run.identity:
        raise BadRun(f"{run.output}: contains another run (key, seed or spec differ); use another output folder")
    if not file.exists():
        for name in ("checkpoint", "model.onnx", "train.json"):
            if (run.output / name).exists():
                raise BadRun(f"{run.output}: contains {name} but no identity; use another output folder")
        contract.replace(file, run.identity.encode())


def read_dataset(run: Run, log: Log) -> tuple[Split, Split]:
    """Reads the splits for training and validation, and logs their content."""
    splits = []
    for name in ("train", "valid"):
        split = data.read_split(run.dataset / name, run.classes)
        counts = ", ".join(f"{c} {n}" for c, n in zip(run.classes, split.objects(len(run.classes))))
        log(f"{name}: {len(split.pictures)} images; {counts}; {split.dropped} boxes without area left out")
        splits.append(split)
    if not any(splits[0].objects(len(run.classes))):
        raise BadData(f"{run.dataset / 'train'}: no annotations to learn from")
    return splits[0], splits[1]


def train_epoch(training: Training, images: Images, status: Status, check: Callable[[], None]) -> None:
    """Trains on the remaining batches of the next epoch."""
    run, pictures = training.run, images.pictures
    how = data.Augmentation(run.args.hflip, run.args.vflip, run.args.zoom, run.args.color)
    order = np.random.default_rng((run.seed, training.epoch)).permutation(len(pictures))
    saved = time.monotonic()
    while training.batch < training.batches:
        check()
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            training.save(run.output / "checkpoint")
            saved = time.monotonic()
        chosen = order[training.batch * run.batch.step :][: run.batch.step]
        random = np.random.default_rng((run.seed, training.epoch, training.batch))
        training.learn(*data.augment(images.take(chosen), [pictures[i].truth for i in chosen], how, random))
        done = training.epoch + training.batch / training.batches
        left = training.seconds * (run.epochs / done - 1)
        status.update(batch=training.batch, secondsLeft=round(left, 1))


def train(run: Run, status: Status, log: Log, signals: Signals, state: dict[str, Any] | None) -> None:
    """Runs the whole training, from reading the dataset to the last output file."""
    torch.set_num_threads(threads())
    torch.use_deterministic_algorithms(True)
    learn, valid = read_dataset(run, log)
    height, width = data.input_size(learn.pictures, run.resolution, run.args.shortSide)
    log(f"input {width}x{height}, {threads()} threads")
    room = run.args.cacheMiB << 20
    validated = Images(valid.pictures, height, width, room // 2, threads(), signals.check)
    learnt = Images(learn.pictures, height, width, room - validated.bytes, threads(), signals.check)

    training = Training(run, learn, height, width)
    if state is not None:
        training.restore(state)
        log(f"resumed after epoch {training.epoch}, batch {training.batch}")
    write_metrics(training)
    deployed = Deployed(training.average, run.args.queries, height, width).eval()
    status.update(batches=training.batches, epoch=training.epoch, map=training.best_map)
    status.enter("training")
    try:
        while not training.finished:
            train_epoch(training, learnt, status, signals.check)
            training.finish_epoch(validate(deployed, validated, run.batch.step, signals.check))
            training.save(run.output / "checkpoint")
            write_metrics(training)
            status.update(epoch=training.epoch, batch=0, map=training.best_map)
            row = training.history[-1]
            shown = "no truths" if row["val_map"] is None else f"mAP {row['val_map']:.4f}, mAP50 {row['val_map50']:.4f}"
            log(f"epoch {training.epoch}/{run.epochs}: loss {row['loss']:.4f}, {shown}, {row['seconds']:.1f} s")
    except Stopped:
        training.save(run.output / "checkpoint")
        raise

    status.update(secondsLeft=0.0)
    status.enter("exporting")
    training.average.load_state_dict(training.best_weights)
    contract.replace(run.output / "model.onnx", to_onnx(deployed, height, width, run.classes))
    contract.replace(run.output / "train.json", (json.dumps(summary(training), indent=2) + "\n").encode())
    shown = "unknown" if training.best_map is None else f"{training.best_map:.4f}"
    log(f"done: the best epoch is {training.best_epoch}, with mAP {shown}; {training.seconds:.1f} s")


def make_variant(run: Run, status: Status, log: Log) -> None:
    """Makes a variant of a trained model. It takes a second, so an interrupted attempt leaves nothing to resume."""
    status.enter("exporting", f"making {run.variant.name}")
    began = time.monotonic()
    source = run.variant.model.read_bytes()
    content, converted = variants.to_fp16(source)
    report = {"variant": run.variant.name, "bytes": len(content), "ofBytes": len(source), "convertedNodes": converted}
    about = {
        "trainer": contract.TRAINER,
        "variant": run.variant.name,
        "libraries": {"python": platform.python_version(), "onnx": onnx.__version__, "numpy": np.__version__},
        "seconds": round(time.monotonic() - began, 1),
    }
    contract.replace(run.output / "model.onnx", content)
    for name, value in (("variant.json", report), ("train.json", about)):
        contract.replace(run.output / name, (json.dumps(value, indent=2) + "\n").encode())
    log(f"done: {run.variant.name} has {len(content)} bytes, and the model {len(source)}")


def write_metrics(training: Training) -> None:
    """Writes metrics.jsonl from the checkpoint's history, so that they are always consistent."""
    lines = "".join(json.dumps(row) + "\n" for row in training.history)
    contract.replace(training.run.output / "metrics.jsonl", lines.encode())


def summary(training: Training) -> dict[str, Any]:
    """The content of train.json."""
    return {
        "trainer": contract.TRAINER,
        "seed": training.run.seed,
        "epochs": training.epoch,
        "bestEpoch": training.best_epoch,
        "bestValMap": training.best_map,
        "libraries": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "numpy": np.__version__,
            "pillow": PIL.__version__,
        },
        "hardware": {"cpu": cpu(), "threads": threads()},
        "seconds": round(training.seconds, 1),
        "resumed": training.resumed,
    }


def cpu() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def is_done(run: Run, state: dict[str, Any] | None) -> bool:
    """Whether this run has already been completed."""
    try:
        phase = json.loads((run.output / "status.json").read_bytes())["phase"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if run.variant:
        return phase == "done" and all((run.output / f).is_file() for f in ("model.onnx", "train.json"))
    files = ("model.onnx", "train.json", "metrics.jsonl")
    return state is not None and phase == "done" and all((run.output / f).is_file() for f in files)


def attempt(run: Run, log: Log, signals: Signals, state: dict[str, Any] | None) -> int:
    """Trains, and reports every outcome in status.json, in the log and as the exit status."""
    status = Status(run.output / "status.json", run.epochs)
    try:
        if run.variant:
            make_variant(run, status, log)
        else:
            train(run, status, log, signals, state)
        status.close()
        status.enter("done")
        return 0
    except Stopped as e:
        status.close()
        log(str(e))
        return 128 + e.number
    except Exception as e:
        status.close()
        expected = isinstance(e, (BadData, BadRun, FloatingPointError))
        line = " ".join((str(e) if expected else f"{type(e).__name__}: {e}").split())
        try:
            status.enter("failed", line)
            log(f"error: {line}" if expected else traceback.format_exc())
        except OSError:
            pass  # the disk may have failed; the error goes to standard error in any case
        print(f"error: {line}", file=sys.stderr)
        return 1


def main(arguments: list[str]) -> int:
    """Runs the trainer; returns the exit status."""
    if len(arguments) != 1:
        print("usage: train.py RUN.JSON", file=sys.stderr)
        return 1
    signals = Signals()
    try:
        run = contract.read_run(Path(arguments[0]))
        with contract.claim(run.output):
            state = load_checkpoint(run)
            if is_done(run, state):
                return 0
            with Log(run.output / "log.txt") as log:
                return attempt(run, log, signals, state)
    except (BadRun, OSError) as e:  # the output folder is unknown, of another run, or not writable: do not change it
        print(f"error: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
