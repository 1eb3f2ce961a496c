"""Tests without the package: `python3 -m unittest discover -s trainers/rfdetr`."""

from __future__ import annotations

import sys

sys.dont_write_bytecode = True

import ast
import copy
import hashlib
import json
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import architectures
import checks
import classes as class_map
import contract
import fields
from checks import BadData
from contract import BadRun

CLASSES = ["RBC", "WBC", "Platelets"]
ROOT = [
    {"id": 0, "name": "cells", "supercategory": "none"},
    {"id": 1, "name": "Platelets", "supercategory": "cells"},
    {"id": 2, "name": "RBC", "supercategory": "cells"},
    {"id": 3, "name": "WBC", "supercategory": "cells"},
]


def document(**train: Any) -> dict[str, Any]:
    """The content of a run.json."""
    return {
        "key": "sha256:0",
        "seed": 7,
        "dataset": "/data",
        "output": "/out",
        "spec": {"classes": CLASSES, "train": {"with": "rfdetr@1.11.2", "architecture": "rf-detr-nano", **train}},
    }


class RunTest(unittest.TestCase):
    """run.json."""

    def read(self, content: Any) -> contract.Run:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "run.json"
            file.write_text(json.dumps(content))
            return contract.read_run(file)

    def test_defaults(self) -> None:
        run = self.read(document())
        self.assertEqual((run.version, run.architecture.model, run.resolution), ("1.11.2", "RFDETRNano", 384))
        self.assertEqual((run.epochs, run.batch, run.patience), (100, contract.Batch(16, 16), 0))
        self.assertEqual((run.optimizer.lr, run.optimizer.schedule, run.precision), (1e-4, "cosine", "fp32"))
        self.assertEqual((run.start, run.weights, run.parent, run.args), ("none", None, None, {}))

    def test_refused(self) -> None:
        digest = "a" * 64
        for train, other, want in (
            ({"with": "tiny@1"}, {}, "spec.train.with: must be rfdetr@VERSION, not 'tiny@1'"),
            ({"with": "rfdetr@1.10.0"}, {}, "spec.train.with: 'rfdetr@1.10.0' is unknown; known are rfdetr@1.11.2"),
            ({"architecture": "rf-detr-2xlarge"}, {}, "spec.train.architecture: must be rf-detr-nano or"),
            ({"resolution": 100}, {}, "spec.train.resolution: must be a whole number from 32 to 2048 that is"),
            ({"batch": {"effective": 6, "step": 4}}, {}, "effective (6) must be a multiple of step (4)"),
            ({"optimizer": {"name": "sgd"}}, {}, "spec.train.optimizer.name: must be adamw, not 'sgd'"),
            ({"precision": "int8"}, {}, "spec.train.precision: must be fp32 or amp or fp16 or bf16"),
            ({"args": {"lr": 1}}, {}, "spec.train.args: 'lr' cannot be set: it comes from optimizer.lr"),
            ({"args": {"run_test": True}}, {}, "'run_test' cannot be set: the test split is not there"),
            ({"args": {"layers": 1}}, {}, "spec.train.args: 'layers' is unknown"),
            ({"args": {"dec_layers": 0}}, {}, "spec.train.args: dec_layers must be at least 1, not 0"),
            ({"args": {"dec_layers": True}}, {}, "spec.train.args: dec_layers must be of type integer, not True"),
            ({"args": {"ema_decay": "x"}}, {}, "spec.train.args: ema_decay must be of type number, not 'x'"),
            ({"args": {"ema_decay": 1.5}}, {}, "spec.train.args: ema_decay must be at most 1, not 1.5"),
            ({"args": {"lr_encoder": 0}}, {}, "spec.train.args: lr_encoder must be more than 0, not 0"),
            ({"args": {"multi_scale": "on"}}, {}, "multi_scale must be off or per-batch or per-sample, not 'on'"),
            ({"seed": 1}, {}, "spec.train.seed: unknown field; known are with, architecture"),
            ({"from": "rf-detr-nano"}, {}, "train.from: is 'rf-detr-nano', so weights or parent must name a file"),
            ({}, {"weights": {"file": "/w", "sha256": digest}}, "train.from: is none, so weights and parent must be"),
            ({"from": "x"}, {"weights": {"file": "w", "sha256": digest}}, "weights.file: must be an absolute path"),
            ({"from": "x"}, {"weights": {"file": "/w", "sha256": "a"}}, "weights.sha256: must be a SHA-256"),
            ({"from": "x"}, {"weights": {"file": "/w", "sha256": digest}, "parent": {"checkpoint": "/p"}}, "only one"),
            ({}, {"seed": 2**53}, "seed: must be a whole number from 0 to 9007199254740991"),
            ({}, {"dataset": "data"}, "dataset: must be an absolute path, not 'data'"),
        ):
            with self.subTest(want), self.assertRaises(BadRun) as e:
                self.read({**document(**train), **other})
            self.assertIn(want, str(e.exception))

    def test_identity(self) -> None:
        first = self.read(document()).identity
        weights = {"file": "/w", "sha256": "a" * 64}
        start = self.read({**document(**{"from": "x"}), "weights": weights}).identity
        for change, same in (
            ({**document(), "dataset": "/elsewhere", "output": "/other"}, first),
            ({**document(**{"from": "x"}), "weights": {**weights, "file": "/v"}}, start),
        ):
            self.assertEqual(self.read(change).identity, same)
        for change in (
            {**document(), "seed": 8},
            {**document(), "key": "sha256:1"},
            document(resolution=96),
            document(args={"dec_layers": 1}),
            {**document(**{"from": "x"}), "weights": {**weights, "sha256": "b" * 64}},
        ):
            self.assertNotIn(self.read(change).identity, (first, start))


class FieldsTest(unittest.TestCase):
    """Where each field of the package comes from."""

    def test_every_field_has_one_source(self) -> None:
        sources = [fields.SPEC, fields.ARGS, fields.PINNED]
        for i, one in enumerate(sources):
            for other in sources[i + 1 :]:
                self.assertEqual(set(one) & set(other), set())
        for file in sorted((HERE / "versions").glob("*/defaults.json")):
            version = file.parent.name
            named = {name for part in json.loads(file.read_text()).values() for name in part} | {"device"}
            self.assertEqual(named, set().union(*sources), f"rfdetr {version}: a field has no source in fields.py")

    def test_schema_has_the_args(self) -> None:
        for file in (HERE / "versions").glob("*/schema.json"):
            self.assertEqual(set(json.loads(file.read_text())["properties"]), set(fields.ARGS))

    def test_trainer_yaml(self) -> None:
        text = (HERE / "trainer.yaml").read_text()
        for name in architectures.KNOWN:
            self.assertIn(name, text)
        for folder in (HERE / "versions").iterdir():
            self.assertIn(f'"{folder.name}"', text)
            lock = (folder / "requirements.txt").read_text()
            self.assertIn(f"\nrfdetr=={folder.name} \\\n", lock)
            self.assertNotIn("://", lock)

    def test_parts_that_are_as_in_tiny(self) -> None:
        """A trainer is a folder of its own, so both have a copy; a mended fault must be mended in both."""

        def definitions(folder: Path) -> dict[str, str]:
            body = ast.parse((folder / "contract.py").read_text()).body
            return {n.name: ast.dump(n) for n in body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}

        mine, theirs = definitions(HERE), definitions(HERE.parent / "tiny")
        for name in ("BadRun", "_Fields", "_text", "_folder", "_one_of", "_whole", "_number", "_classes", "read_run",
                     "claim", "Status", "_now"):  # fmt: skip
            self.assertEqual(mine[name], theirs[name], name)


class ClassesTest(unittest.TestCase):
    """The classes of slots, for every version."""

    def test_slots(self) -> None:
        """The cases are also those of aob import, whose rules must be the same."""
        table = json.loads((HERE / "test_epochs" / "slots.json").read_text())
        for case in table["cases"]:
            with self.subTest(**case):
                given = (case["version"], table["sets"][case["set"]], set(case["annotated"]))
                if "refused" not in case:
                    self.assertEqual(class_map.of_dataset(*given), case["slots"])
                    continue
                with self.assertRaises(class_map.Disagree) as e:
                    class_map.of_dataset(*given)
                self.assertIn(case["refused"], str(e.exception))

    def test_check(self) -> None:
        for names, slots, want in (
            (["RBC", "WBC", "Platelets"], 4, {0: "RBC", 1: "WBC", 2: "Platelets"}),
            (["Platelets", "RBC", "WBC", None], 4, {0: "Platelets", 1: "RBC", 2: "WBC"}),
            (["cells", "Platelets", "RBC", "WBC"], 5, {1: "Platelets", 2: "RBC", 3: "WBC"}),
        ):
            self.assertEqual(class_map.check(names, slots, CLASSES), want)
        for names, slots, want in (
            (["RBC", "WBC", "Platelets"], 91, "there are 3 names, and the model has 91 slots"),
            (["RBC", "WBC", "Platelets"], 5, "there are 3 names, and the model has 5 slots"),
            (["RBC", "WBC", "platelets"], 4, "'Platelets' is not the name of exactly one slot"),
            (["RBC", "WBC", "WBC", "Platelets"], 5, "'WBC' is not the name of exactly one slot"),
        ):
            with self.subTest(want), self.assertRaises(class_map.Disagree) as e:
                class_map.check(names, slots, CLASSES)
            self.assertIn(want, str(e.exception))


class ChecksTest(unittest.TestCase):
    """What is checked before the package is loaded."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.folder / "a.png").write_bytes(b"")
        self.document: dict[str, Any] = {
            "images": [{"id": 5, "file_name": "a.png", "width": 10, "height": 8}],
            "annotations": [
                {"id": 1, "image_id": 5, "category_id": 2, "bbox": [-1, 2, 4, 20]},
                {"id": 2, "image_id": 5, "category_id": 0, "bbox": [0, 0, 4, 4]},
                {"id": 3, "image_id": 5, "category_id": 3, "bbox": [11, 2, 4, 4]},
                {"id": 4, "image_id": 5, "category_id": 3, "bbox": [1, 2, 4, 4], "iscrowd": 1},
            ],
            "categories": copy.deepcopy(ROOT),
        }

    def read(self) -> checks.Split:
        (self.folder / checks.ANNOTATIONS).write_text(json.dumps(self.document))
        return checks.read_split(self.folder, CLASSES)

    def test_split(self) -> None:
        split = self.read()
        names = [(c["id"], c["name"], c["supercategory"]) for c in split.document["categories"]]
        self.assertEqual(names, [(0, "RBC", "none"), (1, "WBC", "none"), (2, "Platelets", "none")])
        boxes = [(a["image_id"], a["category_id"], a["bbox"], a["iscrowd"]) for a in split.document["annotations"]]
        self.assertEqual(boxes, [(1, 0, [0, 2, 3, 6], 0), (1, 1, [1, 2, 4, 4], 1)])
        self.assertEqual((split.dropped, split.objects()), (1, [1, 0, 0]))
        self.assertEqual(split.document["images"][0]["file_name"], "images/a.png")
        for version in ("1.5.0", "1.9.1", "1.9.2", "1.11.2"):
            slots = class_map.of_dataset(version, split.document["categories"], {0})
            self.assertEqual(slots, [*CLASSES, None], f"what is written must give {version} the model's own order")

    def test_refused(self) -> None:
        def image(**change: Any) -> Any:
            return lambda d: d["images"][0].update(change)

        for change, want in (
            (lambda d: d["categories"].pop(), "no category named 'WBC'; it has ['Platelets', 'RBC', 'cells']"),
            (lambda d: d["categories"][0].update(name="RBC"), "categories 0 and 2 are both named 'RBC'"),
            (lambda d: d["categories"][0].update(id=1), "category id 1 occurs twice"),
            (lambda d: d["images"].clear(), "no images"),
            (lambda d: d["images"].append(d["images"][0]), "image id 5 occurs twice"),
            (image(width=0), "image 5: width and height must be whole numbers above 0"),
            (image(file_name="../a.png"), "file name '../a.png' leaves the folder"),
            (image(file_name="/a.png"), "file name '/a.png' leaves the folder"),
            (image(file_name="b.png"), "b.png: missing; it is image 5 of"),
            (image(file_name=3), "not a COCO annotation file"),
            (lambda d: d["annotations"][0].update(image_id=6), "annotation 1: there is no image 6"),
            (lambda d: d["annotations"][0].update(category_id=9), "annotation 1: there is no category 9"),
            (lambda d: d["annotations"][0].update(bbox=[1, 2, 3]), "annotation 1: bbox must be four numbers"),
            (lambda d: d["annotations"][0].update(bbox=[1, 2, 3, float("nan")]), "bbox must be four numbers"),
            (lambda d: d.pop("images"), "not a COCO annotation file: KeyError: 'images'"),
        ):
            good = copy.deepcopy(self.document)
            change(self.document)
            with self.subTest(want), self.assertRaises(BadData) as e:
                self.read()
            self.assertIn(want, str(e.exception))
            self.document = good
        (self.folder / checks.ANNOTATIONS).write_text("[")
        with self.assertRaises(BadData):
            checks.read_split(self.folder, CLASSES)

    def test_machine(self) -> None:
        checks.machine(self.folder)
        with mock.patch.object(checks, "free_memory", lambda: 1e9), self.assertRaises(BadData) as e:
            checks.machine(self.folder)
        self.assertEqual(str(e.exception), "0.9 GiB of memory are free, and a training needs 2.5 GiB")
        with mock.patch.object(checks, "LEAST_DISK", 1 << 60), self.assertRaises(BadData) as e:
            checks.machine(self.folder)
        self.assertIn("GiB of disk are free, and a training needs", str(e.exception))

    def test_weights(self) -> None:
        file = self.folder / "a.png"
        run = mock.Mock(parent=None, weights=contract.Weights(file, hashlib.sha256(b"").hexdigest()))
        checks.weights(run)
        file.write_bytes(b"other")
        with self.assertRaises(BadData) as e:
            checks.weights(run)
        self.assertIn("the weights have SHA-256 d9298a10", str(e.exception))
        file.unlink()
        with self.assertRaises(BadData) as e:
            checks.weights(run)
        self.assertIn("the weights cannot be read", str(e.exception))

    def test_package(self) -> None:
        run = mock.Mock(version="1.11.2")
        with mock.patch("importlib.metadata.version", lambda _: "1.10.0"), self.assertRaises(BadData) as e:
            checks.package(run)
        self.assertIn("asks for rfdetr 1.11.2, and rfdetr 1.10.0 is installed", str(e.exception))


if __name__ == "__main__":
    unittest.main()
