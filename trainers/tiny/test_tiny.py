"""Tests of runs as a whole: `python3 -m unittest discover -s trainers/tiny`."""

from __future__ import annotations

import sys

sys.dont_write_bytecode = True

import os

os.environ["OMP_NUM_THREADS"] = "1"  # the models are so small that more threads are slower

import contextlib
import io
import json
import math
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import coco_map
import contract
import data
import shapes
import train
import training

CLASSES = list(shapes.CLASSES)
EPOCHS = 8


class WithShapes(unittest.TestCase):
    """Creates a folder for each test, and one small dataset for all tests of a class."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.shared = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.dataset = cls.shared / "shapes"
        assert shapes.main([str(cls.dataset), "--train", "12", "--valid", "4", "--test", "1", "--size", "64x48"]) == 0

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def document(self, output: str = "out", **train_fields: Any) -> dict[str, Any]:
        """The content of run.json for a run of some seconds."""
        fields = {"resolution": 64, "epochs": EPOCHS, "batch": {"effective": 4, "step": 2}, "args": {"channels": 4}}
        fields.update(train_fields)
        return {
            "key": "sha256:0",
            "seed": 7,
            "dataset": str(self.dataset),
            "output": str(self.folder / output),
            "spec": {"classes": CLASSES, "train": fields},
        }

    def write(self, document: Any) -> Path:
        """Writes run.json."""
        file = self.folder / "run.json"
        file.write_text(document if isinstance(document, str) else json.dumps(document))
        return file

    def start(self, document: Any) -> subprocess.Popen[str]:
        """Starts the trainer as a process."""
        return subprocess.Popen(
            [sys.executable, str(HERE / "train.py"), str(self.write(document))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, document: Any) -> tuple[int, str]:
        """Runs the trainer in this process; returns its exit status and standard error."""
        errors = io.StringIO()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            status = train.main([str(self.write(document))])
        for number, handler in handlers.items():
            signal.signal(number, handler)
        return status, errors.getvalue()

    def read(self, name: str, output: str = "out") -> Any:
        """Reads a JSON file of the output folder."""
        return json.loads((self.folder / output / name).read_text())

    def metrics(self, output: str = "out") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / output / "metrics.jsonl").read_text().splitlines()]


class RunTest(WithShapes):
    """Complete runs."""

    def test_output_files(self) -> None:
        self.assertEqual(self.finish(self.document()), (0, ""))
        names = {f.name for f in (self.folder / "out").iterdir()}
        self.assertEqual(
            names, {"status.json", "metrics.jsonl", "checkpoint", "model.onnx", "train.json", "log.txt"}
        )
        status = self.read("status.json")
        self.assertEqual((status["phase"], status["epoch"], status["epochs"]), ("done", EPOCHS, EPOCHS))
        self.assertRegex(status["heartbeat"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z$")
        rows = self.metrics()
        self.assertEqual([row["epoch"] for row in rows], list(range(1, EPOCHS + 1)))
        self.assertEqual(set(rows[0]), {"epoch", "loss", "lr", "val_map", "val_map50", "seconds"})
        self.assertLess(rows[-1]["loss"], rows[0]["loss"])
        summary = self.read("train.json")
        self.assertEqual(
            set(summary),
            {"trainer", "seed", "epochs", "bestEpoch", "bestValMap", "libraries", "hardware", "seconds", "resumed"},
        )
        self.assertEqual((summary["trainer"], summary["seed"], summary["resumed"]), ("tiny@1", 7, 0))
        self.assertEqual(summary["bestValMap"], max(row["val_map"] for row in rows))
        self.assertEqual(status["map"], summary["bestValMap"])

        before = {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in (self.folder / "out").iterdir()}
        self.assertEqual(self.finish(self.document()), (0, ""))
        after = {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in (self.folder / "out").iterdir()}
        self.assertEqual(after, before, "a second start after the end must change nothing")

    def test_a_resumed_run_gives_the_same_result(self) -> None:
        whole = self.start(self.document("whole"))
        self.assertEqual((whole.communicate()[1], whole.returncode), ("", 0))
        for number, status in ((signal.SIGKILL, -9), (signal.SIGTERM, 143)):
            with self.subTest(number.name):
                process = self.start(self.document(number.name))
                for line in process.stdout:
                    if f"epoch 2/{EPOCHS}" in line:
                        process.send_signal(number)
                        break
                errors = process.communicate()[1]
                self.assertEqual((process.returncode, errors), (status, ""))
                self.assertEqual(self.read("status.json", number.name)["phase"], "training")
                again = self.start(self.document(number.name))
                self.assertEqual((again.communicate()[1], again.returncode), ("", 0))
                self.assertEqual(self.read("status.json", number.name)["phase"], "done")
                self.assertEqual(self.read("train.json", number.name)["resumed"], 1)
                timeless = [{**row, "seconds": 0} for row in self.metrics(number.name)]
                self.assertEqual(timeless, [{**row, "seconds": 0} for row in self.metrics("whole")])
                models = [(self.folder / name / "model.onnx").read_bytes() for name in ("whole", number.name)]
                self.assertEqual(models[0], models[1])

    def test_a_checkpoint_between_accumulated_batches(self) -> None:
        run = contract.read_run(self.write(self.document()))
        split = data.read_split(self.dataset / "train", CLASSES)
        truths = [p.truth for p in split.pictures[:2]]
        images = data.normalised(torch.stack([data.load(p, 64, 64) for p in split.pictures[:2]]))

        one, other = (training.Training(run, split, 64, 64) for _ in range(2))
        for _ in range(3):  # a step takes two batches
            one.learn(images, truths)
        one.save(self.folder / "checkpoint")
        other.restore(torch.load(self.folder / "checkpoint", weights_only=True))
        for state in (one, other):
            state.learn(images, truths)
        for a, b in zip(one.average.state_dict().values(), other.average.state_dict().values()):
            self.assertTrue(torch.equal(a, b))
        self.assertEqual((one.steps, one.batch, one.loss), (other.steps, other.batch, other.loss))

    def test_early_stopping(self) -> None:
        perfect = coco_map.Score(1.0, 1.0, [1.0] * 3)
        worse = coco_map.Score(0.5, 1.0, [0.5] * 3)
        with mock.patch.object(train, "validate", side_effect=[worse, perfect, worse, worse]):
            self.assertEqual(self.finish(self.document(earlyStopping={"patience": 2})), (0, ""))
        summary = self.read("train.json")
        self.assertEqual((summary["epochs"], summary["bestEpoch"], summary["bestValMap"]), (4, 2, 1.0))

    def test_a_run_starts_from_the_checkpoint_of_another(self) -> None:
        self.assertEqual(self.finish(self.document()), (0, ""))
        checkpoint = self.folder / "out" / "checkpoint"
        best = torch.load(checkpoint, weights_only=True)["best"]
        for field, given in (("parent", {"checkpoint": str(checkpoint), "bundle": "sha256:1"}),
                             ("weights", {"file": str(checkpoint), "sha256": "1"})):  # fmt: skip
            again = self.document(field, **{"from": "release", "epochs": 1, "optimizer": {"lr": 1e-9}})
            again["spec"]["classes"] = CLASSES[::-1]
            again[field] = given
            self.assertEqual(self.finish(again), (0, ""), field)
            now = torch.load(self.folder / field / "checkpoint", weights_only=True)["model"]
            for name in ("heat.weight", "heat.bias", "stem.0.0.weight"):
                want = best[name].flip(0) if name.startswith("heat") else best[name]
                self.assertTrue(torch.allclose(now[name], want, atol=1e-6), f"{field}: {name}")
        again = self.document("other", **{"from": "release", "args": {"channels": 8}})
        again["parent"] = {"checkpoint": str(checkpoint)}
        refused = "error: the run to start from has another args.channels; use the same\n"
        self.assertEqual(self.finish(again), (1, refused))
        again["parent"] = {"checkpoint": str(self.folder / "run.json")}
        status, said = self.finish(again)
        self.assertEqual(status, 1)
        self.assertRegex(said, "run.json: not a checkpoint of this trainer")

    def test_failures_are_reported_in_status_and_on_standard_error(self) -> None:
        bad = torch.tensor(math.nan)
        with mock.patch.object(training, "heat_loss", return_value=bad):
            status, errors = self.finish(self.document())
        self.assertEqual(status, 1)
        self.assertRegex(errors, r"^error: the loss is nan in epoch 1, batch 1: .*\n$")
        self.assertEqual(self.read("status.json")["phase"], "failed")
        self.assertEqual(f"error: {self.read('status.json')['message']}\n", errors)
        # A failed run can be started again.
        self.assertEqual(self.finish(self.document()), (0, ""))

    def test_a_damaged_image(self) -> None:
        self.dataset = self.folder / "broken"
        shapes.main([str(self.dataset), "--train", "3", "--valid", "1", "--test", "1", "--size", "64x48"])
        victim = self.dataset / "train" / "shapes-1-train-00002.png"
        victim.write_bytes(victim.read_bytes()[:200])
        status, errors = self.finish(self.document())
        self.assertEqual(status, 1)
        self.assertIn("shapes-1-train-00002.png: cannot be read as an image", errors)
        self.assertEqual(self.read("status.json")["phase"], "failed")

    def test_a_folder_of_another_run_is_not_changed(self) -> None:
        self.assertEqual(self.finish(self.document(epochs=1)), (0, ""))
        before = {f: f.read_bytes() for f in (self.folder / "out").iterdir()}
        for change in ({"seed": 8}, {"key": "sha256:1"}):
            status, errors = self.finish({**self.document(epochs=1), **change})
            self.assertEqual(status, 1)
            self.assertRegex(errors, r"^error: .*/out: contains another run .*\n$")
        self.assertEqual({f: f.read_bytes() for f in (self.folder / "out").iterdir()}, before)

        (self.folder / "out" / "checkpoint").write_bytes(b"no checkpoint")
        status, errors = self.finish(self.document(epochs=1))
        self.assertEqual(status, 1)
        self.assertRegex(errors, r"^error: .*/checkpoint: not a checkpoint of this trainer .*remove it.*\n$")

    def test_two_trainers_cannot_share_a_folder(self) -> None:
        with contract.claim(self.folder / "out"):
            status, errors = self.finish(self.document())
        self.assertEqual(status, 1)
        self.assertIn("another trainer is running there", errors)
        self.assertEqual(list((self.folder / "out").iterdir()), [])


class RunFileTest(WithShapes):
    """Errors in run.json."""

    def test_refusals(self) -> None:
        def train_field(**fields: Any) -> Any:
            return lambda d: d["spec"]["train"].update(fields)

        for change, message in (
            (lambda d: d.pop("key"), "key: missing"),
            (lambda d: d.update(extra=1), "extra: unknown field; known are key, seed, dataset, output, spec, weights, parent"),
            (lambda d: d.update(seed=-1), "seed: must be a whole number from 0"),
            (lambda d: d.update(seed=True), "seed: must be a whole number from 0"),
            (lambda d: d.update(dataset="here"), "dataset: must be an absolute path, not 'here'"),
            (lambda d: d.update(spec=[]), "spec: must be an object"),
            (lambda d: d["spec"].pop("classes"), "spec.classes: missing"),
            (lambda d: d["spec"].update(classes=[]), "spec.classes: must be a list of at least one class name"),
            (lambda d: d["spec"].update(classes=["a", "a"]), "spec.classes: 'a' occurs twice"),
            (lambda d: d["spec"].update(thresholds={}), "spec.thresholds: unknown field"),
            (train_field(**{"with": "tiny@2"}), "spec.train.with: must be tiny@1, not 'tiny@2'"),
            (train_field(**{"from": "coco"}), "spec.train.from: must be none without weights or parent"),
            (train_field(resolution=100), "spec.train.resolution: must be a whole number from 64 to 2048"),
            (train_field(resolution="256"), "that is a multiple of 32, not '256'"),
            (train_field(epochs=0), "spec.train.epochs: must be a whole number from 1"),
            (train_field(batch={"effective": 6, "step": 4}), "effective (6) must be a multiple of step (4)"),
            (train_field(optimizer={"lr": 0}), "spec.train.optimizer.lr: must be a number from"),
            (train_field(optimizer={"beta": 1}), "spec.train.optimizer.beta: unknown field"),
            (train_field(precision="fp8"), "spec.train.precision: must be fp32 or amp, not 'fp8'"),
            (train_field(args={"mosaic": 1}), "spec.train.args.mosaic: unknown field"),
            (train_field(args={"shortSide": 96}), "spec.train.args.shortSide: must be a whole number from 32 to 64"),
        ):
            with self.subTest(message):
                document = self.document()
                change(document)
                with self.assertRaises(contract.BadRun) as caught:
                    contract.read_run(self.write(document))
                self.assertIn(f"{self.folder / 'run.json'}: ", str(caught.exception))
                self.assertIn(message, str(caught.exception))
        for text in ("", "{", "[]", "null", "[" * 100_000):
            with self.subTest(text[:5]), self.assertRaises(contract.BadRun):
                contract.read_run(self.write(text))
        status, errors = self.finish("{")
        self.assertEqual(status, 1)
        self.assertRegex(errors, r"^error: .*run\.json: not JSON: .*\n$")

    def test_schema_and_trainer_agree_on_args(self) -> None:
        schema = json.loads((HERE / "schema.json").read_text())["properties"]
        document = self.document(resolution=2048)
        args = document["spec"]["train"]["args"] = {}
        self.assertEqual(set(schema), set(contract.Args.__dataclass_fields__))
        defaults = contract.read_run(self.write(document)).args
        for name, rule in schema.items():
            self.assertEqual(getattr(defaults, name), rule.get("default"), name)
            step = rule.get("multipleOf", 1) if rule["type"] == "integer" else 1e-6
            for value, good in (
                (rule["minimum"], True),
                (rule["maximum"], True),
                (rule["minimum"] - step, False),
                (rule["maximum"] + step, False),
                (rule["minimum"] + 0.5, rule["type"] == "number"),
                ("1", False),
            ):
                with self.subTest(name, value=value):
                    args.clear()
                    args[name] = value
                    with contextlib.nullcontext() if good else self.assertRaises(contract.BadRun):
                        contract.read_run(self.write(document))


if __name__ == "__main__":
    unittest.main()
