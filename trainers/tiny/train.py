#!/usr/bin/env python3
"""Trains the tiny detector: `python3 train.py RUN.JSON`.

Keeps the run contract (see README.md): everything it needs is in run.json, everything it has to say is in the output
folder, and it may be killed at any moment and started again. Exit status: 0 done, 1 failed with one line `error: …` on
standard error, 128 + the signal when asked to stop.
"""

from __future__ import annotations

import sys

sys.dont_write_bytecode = True  # this folder's files are digested: running must not add to them

import copy
import io
import json
import math
import os
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
from coco_map import Found, Score, Truth, evaluate
from contract import BadRun, Log, Run, Status
from data import BadData, Images, Split
from export import to_onnx
from model import Deployed, Detector, box_loss, heat_loss

BOX_WEIGHT = 5.0
LONGEST_GRADIENT = 10.0
CHECKPOINT_SECONDS = 60.0
LAST_LR = 0.01  # where the cosine ends, as a share of lr
LOWEST_SCORE = 1e-3
MOST_DETECTIONS = 300


class Stopped(Exception):
    """A signal asked the run to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; the next start goes on from here")
        self.number = number


class Signals:
    """Notes SIGTERM and SIGINT until the training comes to a point where it can stop."""

    def __init__(self) -> None:
        self._number: int | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, _: Any) -> None:
        self._number = number

    def check(self) -> None:
        """Raises Stopped if a signal came."""
        if self._number is not None:
            raise Stopped(self._number)


class Training:
    """The state of a run that a checkpoint holds, and how it moves on.

    All randomness after the first weights comes from (seed, epoch, batch), so a run that was stopped anywhere and
    resumed gives the weights of one that was not.
    """

    def __init__(self, run: Run, split: Split, height: int, width: int) -> None:
        torch.manual_seed(run.seed)
        self.run = run
        self.size = (height, width)
        self.model = Detector(len(run.classes), run.args.channels).to(memory_format=torch.channels_last)
        self.model.start_sides(data.typical_log_sides(split.pictures, height, width))
        self.average = copy.deepcopy(self.model).eval()
        decayed = [p for p in self.model.parameters() if p.dim() > 1]
        others = [p for p in self.model.parameters() if p.dim() <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": run.args.weightDecay}, {"params": others, "weight_decay": 0.0}],
            lr=run.optimizer.lr,
        )
        self.batches = math.ceil(len(split.pictures) / run.batch.step)
        self.accumulate = run.batch.effective // run.batch.step
        self.steps_an_epoch = math.ceil(self.batches / self.accumulate)
        self.epoch = 0  # epochs finished
        self.batch = 0  # batches of the next epoch finished
        self.steps = 0
        self.loss = 0.0  # summed over those batches
        self.epoch_seconds = 0.0
        self.seconds = 0.0
        self.resumed = 0
        self.history: list[dict[str, Any]] = []
        self.best_epoch = 0
        self.best_map: float | None = None
        self.best_weights: dict[str, torch.Tensor] = {}

    _PLAIN = (
        "epoch", "batch", "steps", "loss", "epoch_seconds", "seconds", "resumed", "history", "best_epoch", "best_map"
    )  # fmt: skip

    def save(self, file: Path) -> None:
        """Writes the checkpoint."""
        # All but tensors goes in as JSON text: what torch unpickles without trusting the file is hardly more.
        plain = {name: getattr(self, name) for name in self._PLAIN}
        state = {
            "identity": self.run.identity,
            "plain": json.dumps(plain),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best_weights,
            "moments": self.optimizer.state_dict()["state"],
            "gradients": [p.grad for p in self.model.parameters()],
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        contract.replace(file, buffer.getvalue())

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to where a checkpoint was written."""
        for name, value in json.loads(state["plain"]).items():
            setattr(self, name, value)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.best_weights = state["best"]
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state["moments"]})
        for p, gradient in zip(self.model.parameters(), state["gradients"]):
            p.grad = gradient
        self.resumed += 1

    def lr(self) -> float:
        """The learning rate of the next step."""
        o, total = self.run.optimizer, self.run.epochs * self.steps_an_epoch
        warmup = o.warmup * self.steps_an_epoch
        rate = o.lr * min(1.0, (self.steps + 1) / max(warmup, 1.0))
        if o.schedule == "cosine":
            done = max(0.0, self.steps - warmup) / max(1.0, total - warmup)
            rate *= LAST_LR + (1 - LAST_LR) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
        return rate

    def learn(self, images: torch.Tensor, truths: list[Truth]) -> None:
        """One batch: its gradients, and a step when enough have come together."""
        run = self.run
        target = data.targets(truths, len(run.classes), *self.size)
        self.model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=run.precision == "amp"):
            heat, sides = self.model(images)
        heat, sides = heat.float(), sides.float()
        loss = heat_loss(heat, target.heat, target.heat_weight, target.objects)
        loss = loss + BOX_WEIGHT * box_loss(sides, target.boxes, target.box_weight, target.objects)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} in epoch {self.epoch + 1}, batch {self.batch + 1}: "
                "a smaller optimizer.lr or a longer warmup may help"
            )
        (loss / self.accumulate).backward()
        self.loss += loss.item()
        self.batch += 1
        if self.batch % self.accumulate == 0 or self.batch == self.batches:
            self._step()

    def _step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), LONGEST_GRADIENT)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        # A young average forgets its random start quickly.
        keep = min(self.run.args.ema, self.steps / (self.steps + 9))
        with torch.no_grad():
            for ours, theirs in zip(self.average.state_dict().values(), self.model.state_dict().values()):
                if ours.dtype.is_floating_point:
                    ours.mul_(keep).add_(theirs, alpha=1 - keep)
                else:
                    ours.copy_(theirs)

    def finish_epoch(self, score: Score, rate: float) -> None:
        """Books a finished epoch and keeps its weights if they are the best so far."""
        self.epoch += 1
        if score.map is None or self.best_map is None or score.map >= self.best_map:
            self.best_epoch, self.best_map = self.epoch, score.map
            self.best_weights = {name: value.clone() for name, value in self.average.state_dict().items()}
        self.history.append(
            {
                "epoch": self.epoch,
                "loss": round(self.loss / self.batches, 6),
                "lr": rate,
                "val_map": score.map,
                "val_map50": score.map50,
                "seconds": round(self.epoch_seconds, 3),
            }
        )
        self.batch, self.loss, self.epoch_seconds = 0, 0.0, 0.0

    @property
    def finished(self) -> bool:
        patience = self.run.patience
        early = patience > 0 and self.epoch - self.best_epoch >= patience
        return self.epoch >= self.run.epochs or (self.epoch > 0 and early)


def threads() -> int:
    """As many as this process may use cores."""
    cores = len(os.sched_getaffinity(0))
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(wanted)) if wanted.isdigit() and int(wanted) > 0 else cores


def detect(model: Deployed, images: torch.Tensor) -> list[Found]:
    """What a deployed model reports for a batch: the best pairs of query and class, boxes in 0..1."""
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


def validate(model: Deployed, images: Images, split: Split, step: int, check: Callable[[], None]) -> Score:
    """Scores the model on a split."""
    found = []
    for start in range(0, len(split.pictures), step):
        check()
        found += detect(model, images.take(range(start, min(start + step, len(split.pictures)))))
    scale = [(p.width, p.height, p.width, p.height) for p in split.pictures]
    truths = [p.truth._replace(boxes=p.truth.boxes * s) for p, s in zip(split.pictures, scale)]
    found = [f._replace(boxes=f.boxes * s) for f, s in zip(found, scale)]
    return evaluate(truths, found, model.classes)


def load_checkpoint(run: Run) -> dict[str, Any] | None:
    """The checkpoint in the output folder, or None; refuses one of another run."""
    file = run.output / "checkpoint"
    if not file.exists():
        for name in ("model.onnx", "train.json"):  # what only a run with a checkpoint leaves
            if (run.output / name).exists():
                raise BadRun(f"{run.output}: holds {name} but no checkpoint; give the run a folder of its own")
        return None
    try:
        # Only tensors and plain values are unpickled, never code.
        state = torch.load(file, weights_only=True)
        identity = state["identity"]
    except Exception as e:
        line = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise BadRun(f"{file}: not a checkpoint of this trainer ({line}); remove it to start over") from None
    if identity != run.identity:
        raise BadRun(f"{run.output}: holds another run (key, seed or spec differ); give this one a folder of its own")
    return state


def train(run: Run, status: Status, log: Log, signals: Signals, state: dict[str, Any] | None) -> None:
    """The whole run, from reading the dataset to the last file."""
    torch.set_num_threads(threads())
    torch.use_deterministic_algorithms(True)
    output = run.output
    learn, valid = (data.read_split(run.dataset / name, run.classes) for name in ("train", "valid"))
    objects = learn.objects(len(run.classes))
    for name, split in (("train", learn), ("valid", valid)):
        counts = ", ".join(f"{c} {n}" for c, n in zip(run.classes, split.objects(len(run.classes))))
        log(f"{name}: {len(split.pictures)} images; {counts}; {split.dropped} boxes without area left out")
    if sum(objects) == 0:
        raise BadData(f"{run.dataset / 'train'}: no annotations to learn from")
    height, width = data.input_size(learn.pictures, run.resolution, run.args.shortSide)
    log(f"input {width}x{height}, {threads()} threads")

    room, pixels = run.args.cacheMiB << 20, 3 * height * width
    validated = Images(valid.pictures, height, width, min(room // 2, pixels * len(valid.pictures)), threads(), signals.check)
    room -= min(room // 2, pixels * len(valid.pictures))
    learnt = Images(learn.pictures, height, width, room, threads(), signals.check)

    training = Training(run, learn, height, width)
    if state is not None:
        training.restore(state)
        log(f"resumed after epoch {training.epoch}, batch {training.batch}")
    write_metrics(training)
    deployed = Deployed(training.average, run.args.queries, height, width).eval()
    how = data.Augmentation(run.args.hflip, run.args.vflip, run.args.zoom, run.args.color)

    status.note(batches=training.batches, epoch=training.epoch, map=training.best_map)
    status.enter("training")
    saved = time.monotonic()
    try:
        while not training.finished:
            begun = time.monotonic()
            order = np.random.default_rng((run.seed, training.epoch)).permutation(len(learn.pictures))
            while training.batch < training.batches:
                signals.check()
                if time.monotonic() - saved > CHECKPOINT_SECONDS:
                    begun = clock(training, begun)
                    training.save(output / "checkpoint")
                    saved = time.monotonic()
                chosen = order[training.batch * run.batch.step :][: run.batch.step]
                random = np.random.default_rng((run.seed, training.epoch, training.batch))
                truths = [learn.pictures[i].truth for i in chosen]
                training.learn(*data.augment(learnt.take(chosen), truths, how, random))
                done = training.epoch + training.batch / training.batches
                left = (training.seconds + time.monotonic() - begun) * (run.epochs / done - 1)
                status.note(batch=training.batch, secondsLeft=round(left, 1))
            score = validate(deployed, validated, valid, run.batch.step, signals.check)
            begun = clock(training, begun)
            training.finish_epoch(score, training.optimizer.param_groups[0]["lr"])
            training.save(output / "checkpoint")
            saved = time.monotonic()
            write_metrics(training)
            status.note(epoch=training.epoch, batch=0, map=training.best_map)
            row = training.history[-1]
            shown = "no truths" if score.map is None else f"mAP {score.map:.4f}, mAP50 {score.map50:.4f}"
            log(f"epoch {training.epoch}/{run.epochs}: loss {row['loss']:.4f}, {shown}, {row['seconds']:.1f} s")
    except Stopped:
        clock(training, begun)
        training.save(output / "checkpoint")
        raise

    status.note(secondsLeft=0.0)
    status.enter("exporting")
    begun = time.monotonic()
    training.average.load_state_dict(training.best_weights)
    contract.replace(output / "model.onnx", to_onnx(deployed, height, width, run.classes))
    training.seconds += time.monotonic() - begun
    contract.replace(output / "train.json", (json.dumps(summary(training), indent=2) + "\n").encode())
    shown = "unknown" if training.best_map is None else f"{training.best_map:.4f}"
    log(f"done: the best epoch is {training.best_epoch}, with mAP {shown}; {training.seconds:.1f} s")


def clock(training: Training, begun: float) -> float:
    """Books the time since begun, and returns now."""
    now = time.monotonic()
    training.epoch_seconds += now - begun
    training.seconds += now - begun
    return now


def write_metrics(training: Training) -> None:
    """metrics.jsonl from the checkpoint's own history, so that the two never disagree."""
    lines = "".join(json.dumps(row) + "\n" for row in training.history)
    contract.replace(training.run.output / "metrics.jsonl", lines.encode())


def summary(training: Training) -> dict[str, Any]:
    """What train.json says."""
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
    """Whether this very run has ended well before."""
    try:
        phase = json.loads((run.output / "status.json").read_bytes())["phase"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    files = ("model.onnx", "train.json", "metrics.jsonl")
    return state is not None and phase == "done" and all((run.output / f).is_file() for f in files)


def attempt(run: Run, log: Log, signals: Signals, state: dict[str, Any] | None) -> int:
    """Trains, and turns every way it can end into a status, a line and an exit status."""
    status = Status(run.output / "status.json", run.epochs)
    try:
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
        expected = isinstance(e, (BadData, FloatingPointError))
        line = " ".join((str(e) if expected else f"{type(e).__name__}: {e}").split())
        try:
            status.enter("failed", line)
            log(f"error: {line}" if expected else traceback.format_exc())
        except OSError:
            pass  # the disk may be what failed; standard error still hears of it
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
    except (BadRun, OSError) as e:  # the output folder is unknown, another run's, or not to be written: left alone
        print(f"error: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
