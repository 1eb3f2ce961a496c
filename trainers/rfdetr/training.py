"""Trains with the package: its configuration, its Lightning module, and this trainer's callback.

The package's own callbacks keep the average of the weights, compute mAP and stop early. This trainer's callback
replaces those that write checkpoints, because they write files that a kill can leave half written, and because a
resumed run should give what an uninterrupted one gives.
"""

from __future__ import annotations

import io
import json
import math
import random
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import rfdetr.config
import torch
from pydantic import ValidationError
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import WandbLogger
from rfdetr.training import RFDETRDataModule, RFDETRModelModule, build_trainer
from rfdetr.training.callbacks import RFDETREMACallback

import classes as class_map
import contract
import fields
from checks import GIB, BadData
from contract import Log, Run, Status

LEAST_GPU_MEMORY = 4 * GIB
PRECISION = {"fp32": None, "amp": "auto", "bf16": "bf16", "fp16": "fp16"}


@dataclass
class Record:
    """What is known of a run after an epoch."""

    epoch: int = 0
    best_epoch: int = 0
    best_map: float | None = None
    finished: bool = False  # after the last epoch, or because early stopping ended it
    seconds: float = 0.0
    resumed: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class State:
    """The content of a checkpoint: the record, and the weights of the best epoch."""

    record: Record
    best: dict[str, torch.Tensor]


def load_state(run: Run) -> State | None:
    """Returns the content of the checkpoint in the output folder, or None. Raises BadRun if it cannot be used."""
    file = run.output / "checkpoint"
    if not file.exists():
        return None
    try:
        # Only tensors and plain values are unpickled, never code.
        document = torch.load(file, map_location="cpu", weights_only=True)
        ours = document["aob"]
        identity, record = ours["identity"], Record(**json.loads(ours["record"]))
        best = document["model"] if ours["best"] is None else ours["best"]
    except Exception as e:
        line = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise contract.BadRun(f"{file}: not a checkpoint of this trainer ({line}); remove it to start over") from None
    if identity != run.identity:
        raise contract.BadRun(f"{run.output}: contains another run (key, seed or spec differ); use another folder")
    record.resumed += 1
    return State(record, best)


@dataclass
class Made:
    """The package's objects for one run."""

    detector: Any
    config: Any  # TrainConfig
    module: Any
    data: Any


def configuration(run: Run, start: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments for the package's model and train configuration."""
    of_model = getattr(rfdetr.config, f"{run.architecture.model}Config")
    values = {
        "lr": run.optimizer.lr,
        "warmup_epochs": run.optimizer.warmup,
        "optimizer": run.optimizer.name,
        "lr_scheduler": run.optimizer.schedule,
        "epochs": run.epochs,
        "batch_size": run.batch.step,
        "grad_accum_steps": run.batch.effective // run.batch.step,
        "amp_dtype": PRECISION[run.precision],
        "early_stopping": run.patience > 0,
        "early_stopping_patience": max(run.patience, 1),
        "seed": run.seed % 2**32,  # the package takes no more
        "dataset_dir": str(run.output / "dataset"),
        "output_dir": str(run.output / "package"),
        "class_names": run.classes,
        "notes": run.key,
        "resolution": run.resolution,
        "num_classes": len(run.classes),
        "pretrain_weights": str(start) if start else None,
    }
    result = []
    for config in (of_model, rfdetr.config.TrainConfig):
        given = {}
        for name in config.model_fields:
            if name in values:
                given[name] = values[name]
            elif (value := fields.value_of(name, run.args))[0]:
                given[name] = value[1]
        result.append(given)
    return result[0], result[1]


def make(run: Run, first: int, log: Log) -> Made:
    """Builds the package's model and the parts of its training, which begins after the epoch first."""
    model_class = getattr(rfdetr, run.architecture.model)
    start = run.weights.file if run.weights else run.parent
    for_model, for_training = configuration(run, start)
    parent = parent_of(run) if run.parent else None
    seed(run.seed, 0)
    try:
        detector = model_class(**for_model)
        config = detector.get_train_config(**for_training)
    except ValidationError as e:
        lines = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in e.errors())
        raise BadData(f"train.args: {'; '.join(lines)}") from None
    except (ValueError, RuntimeError) as e:  # a value that the classes accept and the model does not
        raise BadData(f"the model cannot be built with these settings: {e}") from None
    config_of_model = detector.model_config
    if config_of_model.license != run.architecture.licence:
        raise BadData(f"{run.architecture.name}: the package says licence {config_of_model.license}")
    config_of_model.model_name = run.architecture.model
    seed(run.seed, 0)
    module = RFDETRModelModule(config_of_model, config)
    if parent:
        kept = adopt_head(module.model, parent["model"], parent["args"]["class_names"], run.classes)
        log(f"classes kept from the parent: {', '.join(kept) or 'none'}")
    data = Data(run.seed, first, config_of_model, config)
    return Made(detector, config, module, data)


def parent_of(run: Run) -> dict[str, Any]:
    """Returns the content of the parent's checkpoint."""
    try:
        parent = torch.load(run.parent, map_location="cpu", weights_only=True)
        model, names = parent["model_name"], parent["args"]["class_names"]
        class_map.check(names, parent["model"]["class_embed.bias"].shape[0], names)
    except class_map.Disagree as e:
        raise BadData(f"{run.parent}: {e}") from None
    except Exception as e:
        raise BadData(f"{run.parent}: not the checkpoint of a finished run of this trainer: {e}") from None
    if model != run.architecture.model:
        raise BadData(f"the parent is a {model}, and architecture is {run.architecture.name}; name the parent's")
    return parent


def adopt_head(model: Any, parent: dict[str, Any], theirs: list[str], ours: list[str]) -> list[str]:
    """Copies the rows of the parent's classification heads to the slots of the same classes; returns these classes.

    The package copies rows by their place, or none when the number of classes differs.
    """
    same = [name for name in ours if name in theirs]
    with torch.no_grad():
        for name, mine in model.state_dict().items():
            if "class_embed" not in name or name not in parent:
                continue
            if mine.shape[0] != len(ours) + 1 or parent[name].shape[0] != len(theirs) + 1:
                raise BadData(f"the parent's {name} has {parent[name].shape[0]} slots for {len(theirs)} classes")
            for one in same:
                mine[ours.index(one)] = parent[name][theirs.index(one)]
            mine[-1] = parent[name][-1]
    return same


def seed(seed: int, epoch: int) -> int:
    """Seeds all random numbers of the process for an epoch; returns the number that stands for both."""
    number = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)
    return number


class Data(RFDETRDataModule):
    """The package's loaders, with an order of images that depends only on the seed and the epoch."""

    def __init__(self, seed: int, first: int, model_config: Any, train_config: Any) -> None:
        super().__init__(model_config, train_config)
        self._seed, self._first, self._seeded = seed, first, -1
        self._order = torch.Generator()

    def begin(self, epoch: int) -> None:
        """Seeds an epoch. The first epoch's iterator is made with the loader, before Lightning knows the epoch."""
        if epoch != self._seeded:
            self._seeded = epoch
            self._order.manual_seed(seed(self._seed, epoch))

    def train_dataloader(self) -> Any:
        loader = super().train_dataloader()
        loader.generator = loader.sampler.generator = self._order
        self.begin(self._first)
        return loader


class Keeper(lightning.Callback):
    """Reports progress, keeps the best weights and writes the checkpoint after each epoch."""

    def __init__(self, run: Run, status: Status, log: Log, state: State) -> None:
        self.run, self.status, self.state, self._log = run, status, state, log
        self._since = self._began = time.monotonic()

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.status.update(batches=trainer.num_training_batches, epoch=self.state.record.epoch)
        self.status.enter("training")
        self._since = time.monotonic()

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self._began = time.monotonic()
        trainer.datamodule.begin(trainer.current_epoch)
        seed(self.run.seed, trainer.current_epoch)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        loss = float(outputs["loss"])
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} in epoch {trainer.current_epoch + 1}, batch {batch_idx + 1}: "
                "a smaller optimizer.lr or a longer warmup may help"
            )
        done = trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches
        left = self._seconds() * (self.run.epochs / done - 1)
        self.status.update(batch=batch_idx + 1, secondsLeft=round(left, 1))

    def _seconds(self) -> float:
        return self.state.record.seconds + time.monotonic() - self._since

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        record, figures = self.state.record, trainer.callback_metrics
        row: dict[str, Any] = {"epoch": trainer.current_epoch + 1}
        for name, key in FIGURES.items():
            row[name] = round(float(figures[key]), 6) if key in figures else None
        row["lr"] = float(figures[FIGURES["lr"]])
        now = time.monotonic()
        record.epoch = row["epoch"]
        record.seconds, self._since = self._seconds(), now
        score, skip = row["val_map"], int(self.run.args.get("skip_best_epochs", 0))
        # Epochs that cannot be the best one still count if there is no other.
        if record.best_map is None or record.best_epoch <= skip or score is not None and score >= record.best_map:
            record.best_epoch, record.best_map = record.epoch, score
            self.state.best = best_weights(trainer, module)
        record.history.append({**row, "seconds": round(now - self._began, 3)})
        record.finished = trainer.should_stop or record.epoch >= self.run.epochs
        self.save(trainer)
        write_metrics(self.run, record)
        self.status.update(epoch=record.epoch, batch=0, map=record.best_map)
        self._log(
            f"epoch {record.epoch}/{self.run.epochs}: loss {row['loss']:.4f}, mAP {score or 0:.4f}, "
            f"mAP50 {row['val_map50'] or 0:.4f}, {now - self._began:.1f} s"
        )

    def save(self, trainer: Any) -> None:
        """Writes the checkpoint."""
        part = self.run.output / ".checkpoint.part"
        trainer.save_checkpoint(part)
        contract.publish(part, self.run.output / "checkpoint")

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["aob"] = ours(self.run, self.state.record, self.state.best)


FIGURES = {
    "loss": "train/loss",
    "lr": "train/lr",
    "val_map": "val/mAP_50_95",
    "val_map50": "val/mAP_50",
    "val_map75": "val/mAP_75",
    "val_mar": "val/mAR",
}


def ours(run: Run, record: Record, best: dict[str, torch.Tensor] | None) -> dict[str, Any]:
    """This trainer's part of a checkpoint. Without best, the checkpoint's own weights are the best."""
    return {"identity": run.identity, "record": json.dumps(asdict(record)), "best": best}


def best_weights(trainer: Any, module: Any) -> dict[str, torch.Tensor]:
    """Copies the weights that validation was of: the average if there is one."""
    average = [c for c in trainer.callbacks if isinstance(c, RFDETREMACallback)]
    weights = average[0].get_ema_model_state_dict() if average else module.model.state_dict()
    return {name.replace("_orig_mod.", ""): value.detach().cpu().clone() for name, value in weights.items()}


def write_metrics(run: Run, record: Record) -> None:
    """Writes metrics.jsonl from the checkpoint's history, so that they are always consistent."""
    lines = "".join(json.dumps(row) + "\n" for row in record.history)
    contract.replace(run.output / "metrics.jsonl", lines.encode())


def fit(run: Run, made: Made, state: State, status: Status, log: Log) -> None:
    """Trains until the last epoch, or until early stopping."""
    gpu = torch.cuda.is_available()
    if gpu:
        free = torch.cuda.mem_get_info()[0]
        if free < LEAST_GPU_MEMORY:
            need = f"a training needs at least {LEAST_GPU_MEMORY / GIB:.0f} GiB"
            raise BadData(f"{free / GIB:.1f} GiB of the GPU's memory are free, and {need}")
    elif run.precision != "fp32":
        log(f"precision {run.precision}: there is no GPU here, so the package trains in FP32")
    trainer = build_trainer(
        made.config, made.detector.model_config, deterministic="warn", enable_model_summary=False
    )
    if run.precision == "fp32":
        torch.set_float32_matmul_precision("highest")  # the package allows TF32
    # Both kinds of the package's checkpoints are ModelCheckpoints.
    trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, ModelCheckpoint)]
    trainer.callbacks.append(Keeper(run, status, log, state))
    trainer.loggers = [one for one in trainer.loggers if isinstance(one, WandbLogger)]
    resume = run.output / "checkpoint" if state.record.epoch else None
    trainer.fit(made.module, made.data, ckpt_path=resume, weights_only=True)
    found = made.data.class_names
    if list(found or []) != run.classes:
        raise class_map.Disagree(f"the package trained the classes {found}, and the model has {run.classes}")
    for one in trainer.loggers:
        one.experiment.finish()


def slim_checkpoint(run: Run, made: Made, state: State) -> bytes:
    """A finished run's checkpoint: the best weights in the form that the package's own from_checkpoint reads."""
    buffer = io.BytesIO()
    torch.save(
        {
            "model": state.best,
            "model_name": run.architecture.model,
            "model_config": made.detector.model_config.model_dump(mode="json"),
            "args": {**made.config.model_dump(mode="json"), "num_classes": len(run.classes)},
            "epoch": state.record.best_epoch,
            "rfdetr_version": run.version,
            "aob": ours(run, state.record, None),
        },
        buffer,
    )
    return buffer.getvalue()
