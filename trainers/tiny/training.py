"""The state of a training run, which a checkpoint stores, and the training step."""

from __future__ import annotations

import copy
import io
import json
import math
import time
from pathlib import Path
from typing import Any

import torch

import contract
import data
from coco_map import Score, Truth
from contract import Run
from data import Split
from model import Detector, box_loss, heat_loss

BOX_WEIGHT = 5.0
LONGEST_GRADIENT = 10.0
LAST_RATE = 0.01  # where the cosine ends, as a share of lr


def start(model: Detector, checkpoint: Path, classes: list[str]) -> None:
    """Copies the best weights of another run's checkpoint. Classes that it does not know start untrained."""
    try:
        state = torch.load(checkpoint, weights_only=True)
        best, theirs = state["best"], json.loads(state["classes"])
    except Exception as e:
        line = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise data.BadData(f"{checkpoint}: not a checkpoint of this trainer ({line})") from None
    ours = model.state_dict()
    heads = ("heat.weight", "heat.bias")
    for name, value in ours.items():
        if name not in best or name not in heads and best[name].shape != value.shape:
            raise data.BadData("the run to start from has another args.channels; use the same")
    with torch.no_grad():
        for name, value in ours.items():
            if name not in heads:
                value.copy_(best[name])
                continue
            for i, one in enumerate(classes):
                if one in theirs:
                    value[i] = best[name][theirs.index(one)]


class Training:
    """The state of a run.

    All random numbers after the initial weights depend only on (seed, epoch, batch), so a run that was stopped at any
    point and resumed gives the same weights as an uninterrupted one.
    """

    def __init__(self, run: Run, split: Split, height: int, width: int) -> None:
        torch.manual_seed(run.seed)
        self.run = run
        self.size = (height, width)
        self.model = Detector(len(run.classes), run.args.channels).to(memory_format=torch.channels_last)
        self.model.start_sides(data.typical_log_sides(split.pictures, height, width))
        if run.start:
            start(self.model, run.start, run.classes)
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
        self.loss = 0.0  # sum over those batches
        self.rate = 0.0  # learning rate of the last step
        self.epoch_seconds = 0.0
        self._seconds = 0.0
        self._since = time.monotonic()
        self.resumed = 0
        self.history: list[dict[str, Any]] = []
        self.best_epoch = 0
        self.best_map: float | None = None
        self.best_weights: dict[str, torch.Tensor] = {}

    _PLAIN = (
        "epoch", "batch", "steps", "loss", "rate", "epoch_seconds", "_seconds", "resumed", "history",
        "best_epoch", "best_map",
    )  # fmt: skip

    def save(self, file: Path) -> None:
        """Writes the checkpoint."""
        self._book()
        # Everything except tensors is stored as JSON text, because torch.load(weights_only=True) supports few types.
        plain = {name: getattr(self, name) for name in self._PLAIN}
        state = {
            "identity": self.run.identity,
            "classes": json.dumps(self.run.classes),
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
        """Restores the state of a checkpoint."""
        for name, value in json.loads(state["plain"]).items():
            setattr(self, name, value)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.best_weights = state["best"]
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state["moments"]})
        for p, gradient in zip(self.model.parameters(), state["gradients"]):
            p.grad = gradient
        self.resumed += 1
        self._since = time.monotonic()

    def _book(self) -> None:
        now = time.monotonic()
        self.epoch_seconds += now - self._since
        self._seconds += now - self._since
        self._since = now

    @property
    def seconds(self) -> float:
        """Time spent on this run, including the time before it was resumed."""
        return self._seconds + time.monotonic() - self._since

    def _next_rate(self) -> float:
        o, total = self.run.optimizer, self.run.epochs * self.steps_an_epoch
        warmup = o.warmup * self.steps_an_epoch
        rate = o.lr * min(1.0, (self.steps + 1) / max(warmup, 1.0))
        if o.schedule == "cosine":
            done = max(0.0, self.steps - warmup) / max(1.0, total - warmup)
            rate *= LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
        return rate

    def learn(self, images: torch.Tensor, truths: list[Truth]) -> None:
        """Computes the gradients of one batch, and makes an optimizer step when enough batches are accumulated."""
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
        self.rate = self._next_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        # In the first steps, a lower decay removes the influence of the random initial weights.
        keep = min(self.run.args.ema, self.steps / (self.steps + 9))
        with torch.no_grad():
            for ours, theirs in zip(self.average.state_dict().values(), self.model.state_dict().values()):
                if ours.dtype.is_floating_point:
                    ours.mul_(keep).add_(theirs, alpha=1 - keep)
                else:
                    ours.copy_(theirs)

    def finish_epoch(self, score: Score) -> None:
        """Records a finished epoch and keeps its weights if they are the best so far."""
        self._book()
        self.epoch += 1
        if score.map is None or self.best_map is None or score.map >= self.best_map:
            self.best_epoch, self.best_map = self.epoch, score.map
            self.best_weights = {name: value.clone() for name, value in self.average.state_dict().items()}
        self.history.append(
            {
                "epoch": self.epoch,
                "loss": round(self.loss / self.batches, 6),
                "lr": self.rate,
                "val_map": score.map,
                "val_map50": score.map50,
                "seconds": round(self.epoch_seconds, 3),
            }
        )
        self.batch, self.loss, self.epoch_seconds = 0, 0.0, 0.0

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the patience of early stopping is used up."""
        patience = self.run.patience
        early = patience > 0 and self.epoch - self.best_epoch >= patience
        return self.epoch >= self.run.epochs or (self.epoch > 0 and early)
