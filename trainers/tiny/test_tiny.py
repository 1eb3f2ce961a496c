"""Tests of the tiny trainer: `python3 -m unittest discover -s trainers/tiny`."""

from __future__ import annotations

import sys

sys.dont_write_bytecode = True

import os

os.environ["OMP_NUM_THREADS"] = "1"  # for what is so small, more threads only wait for each other

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

import numpy as np
import onnx
import torch
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import coco_map
import contract
import data
import export
import model
import shapes
import train
from coco_map import Found, Truth

CLASSES = list(shapes.CLASSES)
EPOCHS = 8


class WithShapes(unittest.TestCase):
    """Gives each test a folder, and all tests of a class one small dataset."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.shared = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.dataset = cls.shared / "shapes"
        assert shapes.main([str(cls.dataset), "--train", "12", "--valid", "4", "--test", "1", "--size", "64x48"]) == 0

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def document(self, output: str = "out", **train_fields: Any) -> dict[str, Any]:
        """What run.json says for a run of seconds."""
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
        """A JSON file of the output folder."""
        return json.loads((self.folder / output / name).read_text())

    def metrics(self, output: str = "out") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / output / "metrics.jsonl").read_text().splitlines()]


class RunTest(WithShapes):
    """Whole runs."""

    def test_a_run_leaves_what_the_contract_names(self) -> None:
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

    def test_stopped_or_killed_and_resumed_it_ends_as_if_nothing_had_happened(self) -> None:
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

    def test_a_checkpoint_in_the_middle_of_an_accumulated_step_loses_nothing(self) -> None:
        run = contract.read_run(self.write(self.document()))
        split = data.read_split(self.dataset / "train", CLASSES)
        truths = [p.truth for p in split.pictures[:2]]
        images = data.normalised(torch.stack([data.load(p, 64, 64) for p in split.pictures[:2]]))

        one, other = train.Training(run, split, 64, 64), train.Training(run, split, 64, 64)
        for _ in range(3):  # a step takes two batches
            one.learn(images, truths)
        one.save(self.folder / "checkpoint")
        other.restore(torch.load(self.folder / "checkpoint", weights_only=True))
        for training in (one, other):
            training.learn(images, truths)
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

    def test_failures_say_so_in_status_and_on_standard_error(self) -> None:
        bad = torch.tensor(math.nan)
        with mock.patch.object(train, "heat_loss", return_value=bad):
            status, errors = self.finish(self.document())
        self.assertEqual(status, 1)
        self.assertRegex(errors, r"^error: the loss is nan in epoch 1, batch 1: .*\n$")
        self.assertEqual(self.read("status.json")["phase"], "failed")
        self.assertEqual(f"error: {self.read('status.json')['message']}\n", errors)
        # What failed may be started again.
        self.assertEqual(self.finish(self.document()), (0, ""))

    def test_a_broken_image_is_named(self) -> None:
        self.dataset = self.folder / "broken"
        shapes.main([str(self.dataset), "--train", "3", "--valid", "1", "--test", "1", "--size", "64x48"])
        victim = self.dataset / "train" / "shapes-1-train-00002.png"
        victim.write_bytes(victim.read_bytes()[:200])
        status, errors = self.finish(self.document())
        self.assertEqual(status, 1)
        self.assertIn("shapes-1-train-00002.png: cannot be read as an image", errors)
        self.assertEqual(self.read("status.json")["phase"], "failed")

    def test_a_folder_of_another_run_is_left_alone(self) -> None:
        self.assertEqual(self.finish(self.document(epochs=1)), (0, ""))
        before = {f: f.read_bytes() for f in (self.folder / "out").iterdir()}
        for change in ({"seed": 8}, {"key": "sha256:1"}):
            status, errors = self.finish({**self.document(epochs=1), **change})
            self.assertEqual(status, 1)
            self.assertRegex(errors, r"^error: .*/out: holds another run .*\n$")
        self.assertEqual({f: f.read_bytes() for f in (self.folder / "out").iterdir()}, before)

        (self.folder / "out" / "checkpoint").write_bytes(b"no checkpoint")
        status, errors = self.finish(self.document(epochs=1))
        self.assertEqual(status, 1)
        self.assertRegex(errors, r"^error: .*/checkpoint: not a checkpoint of this trainer .*remove it.*\n$")

    def test_two_trainers_cannot_share_a_folder(self) -> None:
        with contract.claim(self.folder / "out"):
            status, errors = self.finish(self.document())
        self.assertEqual(status, 1)
        self.assertIn("another trainer is at work there", errors)
        self.assertEqual(list((self.folder / "out").iterdir()), [])


class RunFileTest(WithShapes):
    """What run.json may say."""

    def test_refusals(self) -> None:
        def train_field(**fields: Any) -> Any:
            return lambda d: d["spec"]["train"].update(fields)

        for change, message in (
            (lambda d: d.pop("key"), "key: missing"),
            (lambda d: d.update(extra=1), "extra: unknown field; known are key, seed, dataset, output, spec"),
            (lambda d: d.update(seed=-1), "seed: must be a whole number from 0"),
            (lambda d: d.update(seed=True), "seed: must be a whole number from 0"),
            (lambda d: d.update(dataset="here"), "dataset: must be an absolute path, not 'here'"),
            (lambda d: d.update(spec=[]), "spec: must be an object"),
            (lambda d: d["spec"].pop("classes"), "spec.classes: missing"),
            (lambda d: d["spec"].update(classes=[]), "spec.classes: must be a list of at least one class name"),
            (lambda d: d["spec"].update(classes=["a", "a"]), "spec.classes: 'a' occurs twice"),
            (lambda d: d["spec"].update(thresholds={}), "spec.thresholds: unknown field"),
            (train_field(**{"with": "tiny@2"}), "spec.train.with: must be tiny@1, not 'tiny@2'"),
            (train_field(**{"from": "coco"}), "spec.train.from: must be none, not 'coco'"),
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


class DatasetTest(WithShapes):
    """Reading, resizing and augmenting images."""

    def coco(self, **changes: Any) -> Path:
        """A split's folder with two small images' annotations, changed as told."""
        document = {
            "categories": [{"id": 5, "name": "b"}, {"id": 9, "name": "a"}],
            "images": [{"id": i, "file_name": f"{i}.png", "width": 10, "height": 20} for i in (1, 0)],
            "annotations": [{"id": 0, "image_id": 1, "category_id": 5, "bbox": [1, 2, 4, 4], "iscrowd": 0}],
        }
        document.update(changes)
        (self.folder / data.ANNOTATIONS).write_text(json.dumps(document))
        return self.folder

    def test_categories_go_by_name(self) -> None:
        split = data.read_split(self.coco(), ["a", "b"])
        self.assertEqual([p.path.name for p in split.pictures], ["0.png", "1.png"])
        self.assertEqual(split.objects(2), [0, 1])
        np.testing.assert_allclose(split.pictures[1].truth.boxes, [[0.1, 0.1, 0.5, 0.3]])

    def test_an_unused_placeholder_category_is_fine(self) -> None:
        categories = [{"id": 0, "name": "things"}, {"id": 5, "name": "b"}, {"id": 9, "name": "a"}]
        self.assertEqual(data.read_split(self.coco(categories=categories), ["b", "a"]).objects(2), [1, 0])

    def test_boxes_are_clipped_and_empty_ones_dropped(self) -> None:
        boxes = ([-2, -2, 6, 6], [5, 5, 0, 3], [20, 0, 5, 5], [8, 18, 9, 9])
        rows = [{"id": i, "image_id": 0, "category_id": 9, "bbox": b} for i, b in enumerate(boxes)]
        split = data.read_split(self.coco(annotations=rows), ["a", "b"])
        self.assertEqual(split.dropped, 2)
        np.testing.assert_allclose(split.pictures[0].truth.boxes, [[0, 0, 0.4, 0.2], [0.8, 0.9, 1, 1]])

    def test_refusals(self) -> None:
        row = {"id": 3, "image_id": 0, "category_id": 5, "bbox": [0, 0, 1, 1]}
        image = {"id": 0, "file_name": "0.png", "width": 10, "height": 20}
        for changes, message in (
            ({"images": []}, "no images"),
            ({"images": [image, image]}, "image id 0 occurs twice"),
            ({"images": [{**image, "file_name": "../0.png"}]}, "'../0.png' leaves the folder"),
            ({"images": [{**image, "width": 0}]}, "width and height must be whole numbers above 0"),
            ({"images": None}, "not a COCO annotation file: TypeError"),
            ({"annotations": [{**row, "image_id": 7}]}, "annotation 3: no image has id 7"),
            ({"annotations": [{**row, "category_id": 7}]}, "annotation 3: no category has id 7"),
            ({"annotations": [{**row, "bbox": [0, 0, 1]}]}, "annotation 3: bbox must be four finite numbers"),
            ({"annotations": [{**row, "bbox": [0, 0, 1, math.nan]}]}, "bbox must be four finite numbers"),
            ({"categories": [{"id": 5, "name": "b"}]}, "no category named 'a'; it has ['b']"),
        ):
            with self.subTest(message), self.assertRaises(data.BadData) as caught:
                data.read_split(self.coco(**changes), ["a", "b"])
            self.assertIn(message, str(caught.exception))
        with self.assertRaisesRegex(data.BadData, "annotation 0: category 'b' is not one of the model's classes"):
            data.read_split(self.coco(), ["a"])
        with self.assertRaisesRegex(data.BadData, "No such file"):
            data.read_split(self.folder / "gone", ["a"])

    def test_input_size(self) -> None:
        def pictures(*sizes: tuple[int, int]) -> list[data.Picture]:
            return [data.Picture(Path(), w, h, Truth(*[np.zeros(0)] * 3)) for w, h in sizes]

        self.assertEqual(data.input_size(pictures((640, 480)), 256, None), (192, 256))
        self.assertEqual(data.input_size(pictures((480, 640), (480, 640), (9, 1)), 256, None), (256, 192))
        self.assertEqual(data.input_size(pictures((100, 100)), 256, None), (256, 256))
        self.assertEqual(data.input_size(pictures((1000, 1)), 256, None), (32, 256))
        self.assertEqual(data.input_size(pictures((640, 480)), 256, 256), (256, 256))

    def test_images_outside_the_cache_are_the_same(self) -> None:
        pictures = data.read_split(self.dataset / "train", CLASSES).pictures
        some = [data.Images(pictures, 32, 64, 3 * 32 * 64 * n, 2, lambda: None).take([9, 0, 4]) for n in (0, 5, 12)]
        self.assertTrue(torch.equal(some[0], some[1]) and torch.equal(some[0], some[2]))

    def test_without_augmentation_training_sees_what_the_deployed_model_sees(self) -> None:
        pictures = data.read_split(self.dataset / "train", CLASSES).pictures[:4]
        raw = torch.stack([data.load(p, 64, 64) for p in pictures])
        still = data.Augmentation(hflip=0, vflip=0, zoom=1, color=0)
        seen, truths = data.augment(raw, [p.truth for p in pictures], still, np.random.default_rng(1))
        torch.testing.assert_close(seen, data.normalised(raw), rtol=0, atol=1e-4)
        for picture, truth in zip(pictures, truths):
            np.testing.assert_allclose(truth.boxes, picture.truth.boxes, atol=1e-9)

    def test_boxes_move_with_their_pixels(self) -> None:
        raw = torch.zeros(64, 3, 96, 128, dtype=torch.uint8)
        raw[:, :, 36:60, 48:80] = 255
        truth = Truth(np.array([[48 / 128, 36 / 96, 80 / 128, 60 / 96]]), np.array([0]), np.array([False]))
        how = data.Augmentation(hflip=0.5, vflip=0.5, zoom=1.5, color=0)
        seen, truths = data.augment(raw, [truth] * 64, how, np.random.default_rng(3))
        for image, moved in zip(seen, truths):
            ys, xs = np.nonzero(image[0].numpy() > 1)
            bright = [xs.min() / 128, ys.min() / 96, (xs.max() + 1) / 128, (ys.max() + 1) / 96]
            np.testing.assert_allclose(moved.boxes[0], bright, atol=1.5 / 96)

    def test_objects_mostly_out_of_view_teach_nothing(self) -> None:
        left = Truth(np.array([[0, 0, 0.1, 0.1]]), np.array([0]), np.array([False]))
        raw = torch.zeros(200, 3, 64, 64, dtype=torch.uint8)
        how = data.Augmentation(0, 0, zoom=4, color=0)
        _, truths = data.augment(raw, [left] * 200, how, np.random.default_rng(5))
        self.assertTrue(any(not len(t.boxes) for t in truths))
        self.assertTrue(any(t.crowd.any() for t in truths))

    def test_targets(self) -> None:
        boxes = np.array([[0.25, 0.25, 0.75, 0.75], [0.5, 0.5, 0.5625, 0.5625], [0, 0, 0.125, 0.25]])
        truth = Truth(boxes, np.array([1, 1, 0]), np.array([False, False, True]))
        drawn = data.targets([truth, Truth(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool))], 2, 64, 64)
        self.assertEqual(drawn.objects, 2)
        self.assertEqual(drawn.heat.shape, (2, 2, 16, 16))
        self.assertEqual(drawn.heat[0, 1, 8, 8], 1)
        self.assertEqual(drawn.heat[0, 0].abs().max(), 0)
        self.assertEqual(drawn.heat[1].abs().max(), 0)
        self.assertEqual(drawn.heat_weight[0, 0, :4, :2].abs().max(), 0)
        self.assertEqual(drawn.heat_weight.eq(0).sum(), 8)
        np.testing.assert_allclose(drawn.box_weight[0].sum(), 2, rtol=1e-5)
        np.testing.assert_allclose(drawn.boxes[0, :, 8, 8], [8, 8, 9, 9])  # the smaller one owns its cell
        np.testing.assert_allclose(drawn.boxes[0, :, 8, 10], [4, 4, 12, 12])


class Maps(nn.Module):
    """Stands in for a trained detector: the same maps for any image."""

    def __init__(self, heat: torch.Tensor, sides: torch.Tensor) -> None:
        super().__init__()
        self.answer = heat, sides
        self.heat = nn.Conv2d(1, heat.shape[1], 1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return tuple(a.expand(len(images), -1, -1, -1) for a in self.answer)


class ModelTest(unittest.TestCase):
    """The graph that is deployed."""

    def test_peaks_become_queries(self) -> None:
        heat = torch.full((1, 2, 8, 16), -6.0)
        heat[0, 1, 2, 5], heat[0, 1, 2, 6], heat[0, 0, 7, 15] = 3.0, 2.0, 1.0  # the second is on the first's slope
        sides = torch.zeros(1, 4, 8, 16)
        sides[0, 2, 2, 5] = math.log(3)
        deployed = model.Deployed(Maps(heat, sides), 300, 32, 64)
        dets, labels = deployed(torch.zeros(2, 3, 32, 64))
        self.assertEqual((dets.shape, labels.shape), ((2, 128, 4), (2, 128, 3)))
        np.testing.assert_allclose(labels[1, 0], [-6, 3, model.BACKGROUND])
        np.testing.assert_allclose(dets[1, 0], [6.5 / 16, 2.5 / 8, 4 / 16, 2 / 8])
        np.testing.assert_allclose(labels[1, 1, 0], 1)
        np.testing.assert_allclose(dets[1, 1], [15.25 / 16, 7.25 / 8, 1.5 / 16, 1.5 / 8])  # clipped to the image
        self.assertEqual(int((labels[1] > 0).sum()), 2)
        found = train.detect(deployed, torch.zeros(1, 3, 32, 64, dtype=torch.uint8))[0]
        np.testing.assert_array_equal(found.labels[:2], [1, 0])
        np.testing.assert_allclose(found.boxes[0], [4.5 / 16, 1.5 / 8, 8.5 / 16, 3.5 / 8])
        np.testing.assert_allclose(found.scores[0], 1 / (1 + math.exp(-3)), rtol=1e-6)

    def test_the_background_is_never_chosen(self) -> None:
        for logit in (-1e6, 1e6):
            maps = Maps(torch.full((1, 1, 8, 8), logit), torch.zeros(1, 4, 8, 8))
            _, labels = model.Deployed(maps, 10, 32, 32)(torch.zeros(1, 3, 32, 32))
            self.assertTrue((labels[:, :, 1] < labels[:, :, 0].min()).all())

    def test_onnx(self) -> None:
        torch.manual_seed(1)
        deployed = model.Deployed(model.Detector(3, 4), 300, 64, 96).eval()
        content = export.to_onnx(deployed, 64, 96, CLASSES)
        self.assertEqual(content, export.to_onnx(deployed, 64, 96, CLASSES), "the same weights give the same bytes")
        graph = onnx.load_model_from_string(content)

        def shape(value: Any) -> tuple[str, list[Any]]:
            return value.name, [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]

        self.assertEqual([shape(v) for v in graph.graph.input], [("input", ["batch", 3, 64, 96])])
        self.assertEqual(
            [shape(v) for v in graph.graph.output], [("dets", ["batch", 300, 4]), ("labels", ["batch", 300, 4])]
        )
        self.assertEqual([p.key for p in graph.metadata_props], ["rfdetr_inference"])
        said = json.loads(graph.metadata_props[0].value)
        self.assertEqual(said["input_shape"], [-1, 3, 64, 96])
        self.assertEqual(said["outputs"], {"pred_boxes": "dets", "pred_logits": "labels"})
        self.assertEqual(said["class_id_to_name"], {"0": "circle", "1": "square", "2": "triangle"})
        self.assertEqual((said["num_classes"], said["num_select"], said["resize_antialias"]), (3, 300, False))
        self.assertNotIn(str(HERE).encode(), content)

    def test_losses_are_least_where_they_should_be(self) -> None:
        target = data.targets([Truth(np.array([[0.25, 0.25, 0.5, 0.75]]), np.array([0]), np.array([False]))], 1, 64, 64)
        good = torch.where(target.heat == 1, 9.0, -9.0)
        losses = [model.heat_loss(h, target.heat, target.heat_weight, 1.0) for h in (good, torch.zeros_like(good), -good)]
        self.assertLess(losses[0], losses[1])
        self.assertLess(losses[1], losses[2])
        ys, xs = torch.meshgrid(torch.arange(16) + 0.5, torch.arange(16) + 0.5, indexing="ij")
        exact = torch.stack((xs - 4, ys - 4, 8 - xs, 12 - ys))[None].clamp(min=1e-3).log()
        self.assertAlmostEqual(float(model.box_loss(exact, target.boxes, target.box_weight, 1.0)), 0, places=4)
        self.assertGreater(float(model.box_loss(exact + 1, target.boxes, target.box_weight, 1.0)), 0.5)
        nowhere = torch.zeros_like(target.box_weight)
        self.assertEqual(float(model.box_loss(exact, target.boxes, nowhere, 1.0)), 0)


class CocoMapTest(unittest.TestCase):
    """Small cases worked out by hand."""

    SQUARE = [0, 0, 10, 10]
    AWAY = [50, 50, 60, 60]

    def score(self, truth: list[Any], found: list[Any], crowd: list[bool] | None = None) -> coco_map.Score:
        """Scores one image of one class; found are (box, score)."""
        boxes = np.array(truth, float).reshape(-1, 4)
        truths = Truth(boxes, np.zeros(len(truth), int), np.array(crowd or [False] * len(truth), bool))
        boxes = np.array([b for b, _ in found], float).reshape(-1, 4)
        return coco_map.evaluate(
            [truths], [Found(boxes, np.zeros(len(found), int), np.array([s for _, s in found], float))], 1
        )

    def test_cases(self) -> None:
        square, away = self.SQUARE, self.AWAY
        for name, truth, found, wanted, wanted50 in (
            ("perfect", [square], [(square, 0.1)], 1, 1),
            ("nothing found", [square], [], 0, 0),
            ("nothing to find", [], [(square, 0.9)], None, None),
            ("half of two", [square, away], [(square, 0.9)], 51 / 101, 51 / 101),
            ("a false one first", [square], [(away, 0.9), (square, 0.8)], 0.5, 0.5),
            ("a false one last", [square], [(square, 0.9), (away, 0.8)], 1, 1),
            ("found twice, then the other", [square, away], [(square, 0.9), (square, 0.8), (away, 0.7)],
             (51 + 50 * 2 / 3) / 101, (51 + 50 * 2 / 3) / 101),
            ("IoU .62 is good for three thresholds", [square], [([0, 0, 10, 6.2], 0.9)], 0.3, 1),
        ):  # fmt: skip
            with self.subTest(name):
                score = self.score(truth, found)
                if wanted is None:
                    self.assertEqual(score, (None, None, [None]))
                else:
                    self.assertAlmostEqual(score.map, wanted)
                    self.assertAlmostEqual(score.map50, wanted50)

    def test_what_is_found_in_a_crowd_does_not_count(self) -> None:
        inside = [52, 52, 54, 54]
        score = self.score([self.SQUARE, self.AWAY], [(inside, 0.9), (inside, 0.8), (self.SQUARE, 0.7)], [False, True])
        self.assertEqual(score.map, 1)

    def test_classes_without_truth_do_not_count(self) -> None:
        truth = Truth(np.array([self.SQUARE], float), np.array([1]), np.array([False]))
        found = Found(np.array([self.SQUARE, self.SQUARE], float), np.array([0, 1]), np.array([0.9, 0.8]))
        self.assertEqual(coco_map.evaluate([truth], [found], 3), (1, 1, [None, 1, None]))


class ShapesTest(WithShapes):
    """The drawn dataset."""

    def test_the_same_arguments_give_the_same_bytes(self) -> None:
        trees = []
        for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
            arguments = ["--seed", seed, "--train", "3", "--valid", "2", "--test", "1", "--size", "64x48"]
            self.assertEqual(shapes.main([str(self.folder / name), *arguments]), 0)
            files = sorted(f for f in (self.folder / name).rglob("*") if f.is_file())
            self.assertEqual(len(files), 9)
            trees.append([f.read_bytes() for f in files])
        self.assertEqual(trees[0], trees[1])
        self.assertNotEqual(trees[0], trees[2])

    def test_annotations(self) -> None:
        document = json.loads((self.dataset / "train" / data.ANNOTATIONS).read_text())
        self.assertEqual([a["id"] for a in document["annotations"]], list(range(1, len(document["annotations"]) + 1)))
        for annotation in document["annotations"]:
            x, y, w, h = annotation["bbox"]
            self.assertTrue(0 <= x and 0 <= y and x + w <= 64.01 and y + h <= 48.01 and w > 0 and h > 0)

    def test_it_refuses_a_folder_with_something_in_it(self) -> None:
        (self.folder / "mine").write_text("keep")
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            self.assertEqual(shapes.main([str(self.folder), "--train", "1"]), 1)
        self.assertIn("exists and is not an empty folder", errors.getvalue())
        self.assertEqual([f.name for f in self.folder.iterdir()], ["mine"])
        with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit):
            shapes.main([str(self.folder / "new"), "--size", "1x1"])


if __name__ == "__main__":
    unittest.main()
