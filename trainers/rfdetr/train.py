#!/usr/bin/env python3
"""Trains RF-DETR: `python3 train.py RUN.JSON`.

Implements the run contract (see README.md): run.json is the input, the output folder gets all results, and the process
may be killed at any moment and started again. Exit status: 0 done, 1 failed with one line `error: …` on standard
error, 128 + the signal's number if it was stopped by a signal.
"""

from __future__ import annotations

import sys

sys.dont_write_bytecode = True  # AOB takes a digest of this folder, so no files may be added

import os

os.environ.update(
    {
        # Weights come from the server's configuration, never from a hub.
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "NO_ALBUMENTATIONS_UPDATE": "1",
        # The same input gives the same result as far as the libraries can.
        "PYTHONHASHSEED": "0",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads slow each other down on a busy machine
os.environ.setdefault("WANDB_MODE", "online" if os.environ.get("WANDB_API_KEY") else "offline")

import json
import platform
import shutil
import signal
import time
import traceback
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import checks
import contract
from checks import BadData
from classes import Disagree
from contract import BadRun, Log, Run, Status


class Stopped(BaseException):
    """A signal asked the run to stop. No library may catch it, so it is no Exception."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; the next start continues from the checkpoint")
        self.number = number


def stop(number: int, _: Any) -> None:
    """Ends the run at once. What happened since the last checkpoint is lost; every file is replaced atomically."""
    raise Stopped(number)


def threads() -> int:
    """The number of cores that this process may use, or OMP_NUM_THREADS if that is less."""
    cores = len(os.sched_getaffinity(0))
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(wanted)) if wanted.isdigit() and int(wanted) > 0 else cores


def check_folder(run: Run) -> None:
    """Checks that the output folder is empty or of this run, and claims it. Raises BadRun if it is of another run."""
    file = run.output / "identity"
    if file.exists():
        if file.read_text().strip() != run.identity:
            raise BadRun(f"{run.output}: contains another run (key, seed or spec differ); use another output folder")
        return
    for name in ("checkpoint", "model.onnx", "train.json"):
        if (run.output / name).exists():
            raise BadRun(f"{run.output}: contains {name} but no identity; use another output folder")
    contract.replace(file, f"{run.identity}\n".encode())


def is_done(run: Run) -> bool:
    """Whether this run has already been completed."""
    try:
        phase = json.loads((run.output / "status.json").read_bytes())["phase"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    files = ["model.onnx", "train.json"]
    files += ["variant.json"] if run.variant else ["checkpoint", "metrics.jsonl"]
    return phase == "done" and all((run.output / f).is_file() for f in files)


def train(run: Run, status: Status, log: Log) -> None:
    """Runs the whole training, from the checks to the last output file."""
    checks.package(run)
    checks.machine(run.output)
    checks.weights(run)
    checks.prepare(run, log)
    for name in ("RF_HOME", "HF_HOME", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        os.environ[name] = str(run.output / "package")  # nothing is written elsewhere
    (run.output / "package").mkdir(exist_ok=True)
    status.enter("starting", "loading the package")

    load_package()

    import torch

    import export
    import training

    torch.set_num_threads(threads())
    torch.use_deterministic_algorithms(True, warn_only=True)
    state = training.load_state(run) or training.State(training.Record(), {})
    if state.record.resumed:
        log(f"resumed after epoch {state.record.epoch}")
        training.write_metrics(run, state.record)
        status.update(epoch=state.record.epoch, map=state.record.best_map)
    status.enter("starting", "building the model")
    made = training.make(run, state.record.epoch, log)
    log(f"{run.architecture.name} at {run.resolution} pixels, {device(torch)}, {threads()} threads")
    if not state.record.finished:
        training.fit(run, made, state, status, log)

    status.update(secondsLeft=0.0)
    status.enter("exporting")
    model = getattr(made.module.model, "_orig_mod", made.module.model)
    model.load_state_dict(state.best)
    made.detector.model.model = model.to("cpu").eval()
    made.detector.model.class_names = run.classes
    folder = run.output / "package"
    contract.replace(
        run.output / "model.onnx",
        export.to_onnx(made.detector, run.architecture.name, run.classes, run.version, folder),
    )
    about = json.dumps(summary(run, made, state.record), indent=1) + "\n"
    contract.replace(run.output / "train.json", about.encode())
    contract.replace(run.output / "checkpoint", training.slim_checkpoint(run, made, state))
    shutil.rmtree(run.output / "dataset", ignore_errors=True)
    if not run.args.get("wandb"):
        shutil.rmtree(folder, ignore_errors=True)
    r = state.record
    log(f"done: the best epoch is {r.best_epoch}, with mAP {r.best_map or 0:.4f}; {r.seconds:.1f} s")


def make_variant(run: Run, status: Status, log: Log) -> None:
    """Makes a variant of a trained model. It is quick, so an attempt that was interrupted leaves nothing to resume."""
    checks.package(run)
    status.enter("exporting", f"making {run.variant.name}")
    log(f"making the variant {run.variant.name}")
    load_package()

    import variants

    began = time.monotonic()
    variants.make(run)
    about = {
        "trainer": f"{contract.NAME}@{run.version}",
        "variant": run.variant.name,
        "seed": run.seed,
        "libraries": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in ("rfdetr", "torch", "onnx", "onnxruntime", "numpy", "pillow")},
        "hardware": {"cpu": cpu(), "threads": threads()},
        "seconds": round(time.monotonic() - began, 1),
    }
    contract.replace(run.output / "train.json", (json.dumps(about, indent=1) + "\n").encode())


def load_package() -> None:
    """Imports the package, which takes 6 seconds, and some 20 more where Python has not yet compiled it."""
    sys.dont_write_bytecode = False
    try:
        import onnx
        import pytorch_lightning
        import rfdetr.training
    finally:
        sys.dont_write_bytecode = True
    warnings.filterwarnings("ignore", message=".*no logger configured.*")


def device(torch: Any) -> str:
    """The device that the package will choose."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else cpu()


def summary(run: Run, made: Any, record: Any) -> dict[str, Any]:
    """The content of train.json."""
    import torch

    libraries = {"python": platform.python_version()}
    for name in ("rfdetr", "torch", "torchvision", "pytorch-lightning", "transformers", "onnx", "numpy", "pillow"):
        libraries[name] = metadata.version(name)
    configuration = {
        "train": made.config.model_dump(mode="json"),
        "model": made.detector.model_config.model_dump(mode="json"),
    }
    for part in configuration.values():
        for name, value in part.items():
            if isinstance(value, str) and value.startswith(str(run.output)):
                part[name] = "OUTPUT" + value.removeprefix(str(run.output))  # a path is of one machine
    if run.weights or run.parent:
        configuration["model"]["pretrain_weights"] = f"sha256:{run.weights.sha256}" if run.weights else "PARENT"
    return {
        "trainer": f"{contract.NAME}@{run.version}",
        "architecture": run.architecture.name,
        "licence": run.architecture.licence,
        "from": run.start,
        "seed": run.seed,
        "epochs": record.epoch,
        "bestEpoch": record.best_epoch,
        "bestValMap": record.best_map,
        "precision": run.precision if torch.cuda.is_available() else "fp32",
        "libraries": libraries,
        "hardware": {"cpu": cpu(), "device": device(torch), "threads": threads()},
        "seconds": round(record.seconds, 1),
        "resumed": record.resumed,
        "configuration": configuration,
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


def attempt(run: Run, log: Log) -> int | str:
    """Trains, and reports every outcome in status.json and in the log; returns the exit status or the error."""
    status = Status(run.output / "status.json", run.epochs)
    try:
        (make_variant if run.variant else train)(run, status, log)
        status.close()
        status.enter("done")
        return 0
    except Stopped as e:
        status.close()
        log(str(e))
        return 128 + e.number
    except Exception as e:
        status.close()
        expected = isinstance(e, (BadData, BadRun, Disagree, FloatingPointError))
        line = " ".join((str(e) if expected else f"{type(e).__name__}: {e}").split())
        try:
            status.enter("failed", line)
            log(f"error: {line}" if expected else traceback.format_exc())
        except OSError:
            pass  # the disk may have failed; the error goes to standard error in any case
        return line


def main(arguments: list[str]) -> int:
    """Runs the trainer; returns the exit status."""
    if len(arguments) == 2 and arguments[0] == "--describe":
        load_package()

        import describe

        describe.write(Path(arguments[1]), metadata.version("rfdetr"))
        return 0
    if len(arguments) != 1:
        print("usage: train.py RUN.JSON, or train.py --describe FOLDER", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        run = contract.read_run(Path(arguments[0]))
        with contract.claim(run.output):
            check_folder(run)
            if is_done(run):
                return 0
            with Log(run.output / "log.txt") as log:
                outcome = attempt(run, log)
        if isinstance(outcome, int):
            return outcome
        print(f"error: {outcome}", file=sys.stderr)
        return 1
    except Stopped as e:
        return 128 + e.number
    except (BadRun, OSError) as e:  # the output folder is unknown, of another run, or not writable: do not change it
        print(f"error: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
