"""Tests with the package itself, on BCCD: `python3 -m unittest discover -s trainers/rfdetr`.

They need the environment of the newest version (`aob trainer install rfdetr@1.11.2`; AOB_RFDETR_PYTHON is the path
of another Python that has the packages), and the shared data (beside the repository, or in AOB_SHARED). The comparison
with AOB's detector needs bin/aob-detect and ONNX Runtime (`make build`). Tests of what is missing are skipped.
"""

from __future__ import annotations

import sys

sys.dont_write_bytecode = True

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
VERSION = "1.11.2"
CLASSES = ["RBC", "WBC", "Platelets"]
EPOCHS = 3
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "aob"


# What rfdetr_inference may have: the reader of RF-DETR 1.12 refuses other fields.
RFDETR_FIELDS = set(
    "schema_version producer_version format task variant backend input_shape input_layout input_dtype input_name "
    "max_batch_size outputs means stds pixel_scale channel_order resize_interpolation resize_antialias class_names "
    "class_id_to_name num_classes num_select selection_policy box_format num_keypoints_per_class trace_alpha "
    "upsample_masks_to_image_size patch_size num_windows".split()
)


def python() -> str | None:
    """The Python that has the packages of the newest version."""
    if given := os.environ.get("AOB_RFDETR_PYTHON"):
        return given
    lock = hashlib.sha256((HERE / "versions" / VERSION / "requirements.txt").read_bytes()).hexdigest()
    found = sorted((CACHE / "environments").glob(f"{lock}-*/bin/python"))
    return str(found[0]) if found else None


PYTHON = python()
DETECT = ROOT / "bin" / "aob-detect"
BCCD = Path(os.environ.get("AOB_SHARED", ROOT.parent / "shared")) / "data" / "bccd"


def run_python(script: str, *args: str) -> str:
    """Runs a script with the packages; returns what it prints."""
    done = subprocess.run([PYTHON, "-W", "ignore", "-c", script, *args], capture_output=True, text=True, cwd=HERE,
                          env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})  # fmt: skip
    if done.returncode:
        raise AssertionError(done.stderr[-4000:])
    return done.stdout


def some_of_bccd(to: Path, **counts: int) -> None:
    """Copies the first images of some splits."""
    for split, count in counts.items():
        document = json.loads((BCCD / split / "_annotations.coco.json").read_text())
        document["images"] = document["images"][:count]
        kept = {image["id"] for image in document["images"]}
        document["annotations"] = [a for a in document["annotations"] if a["image_id"] in kept]
        (to / split).mkdir(parents=True)
        for image in document["images"]:
            shutil.copy(BCCD / split / image["file_name"], to / split)
        (to / split / "_annotations.coco.json").write_text(json.dumps(document))


@unittest.skipUnless(PYTHON, f"no Python with rfdetr {VERSION}: aob trainer install rfdetr@{VERSION}")
class PackageTest(unittest.TestCase):
    """What the lists of this folder say of the installed package."""

    def test_description_is_that_of_the_package(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([PYTHON, HERE / "train.py", "--describe", folder], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            for name in ("schema.json", "defaults.json"):
                mine = (HERE / "versions" / VERSION / name).read_text()
                self.assertEqual((Path(folder) / name).read_text(), mine, f"write it anew: train.py --describe; {name}")

    def test_fields_and_architectures(self) -> None:
        found = json.loads(run_python(
            "import inspect, json, architectures, torch, rfdetr.config as c\n"
            "configs = {n: getattr(c, a.model + 'Config') for n, a in architectures.KNOWN.items()}\n"
            "fields = {f for k in (c.TrainConfig, *configs.values()) for f in k.model_fields}\n"
            "value = lambda k, f: k.model_fields[f].default\n"
            "sizes = {n: [value(k, 'resolution'), value(k, 'patch_size') * value(k, 'num_windows'),"
            " value(k, 'license')] for n, k in configs.items()}\n"
            "members = {'optimizer_kwargs': list(inspect.signature(torch.optim.AdamW).parameters),"
            " 'lr_scheduler_kwargs': sorted(c._MANAGED_SCHEDULER_KWARGS)}\n"
            "print(json.dumps([sorted(fields), sizes, members]))"
        ))  # fmt: skip
        sys.path.insert(0, str(HERE))
        import architectures
        import fields

        named = set(fields.SPEC) | set(fields.ARGS) | set(fields.PINNED)
        self.assertEqual(set(found[0]), named, "a field of the package has no source in fields.py, or it is gone")
        self.assertEqual(found[1], {n: [a.resolution, a.block, a.licence] for n, a in architectures.KNOWN.items()})
        for name, members in found[2].items():
            self.assertLessEqual(set(fields.ARGS[name].rules["properties"]), set(members), name)


@unittest.skipUnless(PYTHON, f"no Python with rfdetr {VERSION}: aob trainer install rfdetr@{VERSION}")
@unittest.skipUnless(BCCD.is_dir(), f"no data in {BCCD}: set AOB_SHARED")
class RunTest(unittest.TestCase):
    """Runs of a small model: 15 steps of 4 images at 96 pixels, which prove the path and not the accuracy."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        some_of_bccd(cls.folder / "bccd", train=16, valid=8)
        cls.errors = cls.finish(cls.document("whole"))

    @classmethod
    def document(cls, output: str, **train: Any) -> dict[str, Any]:
        """The content of run.json."""
        fields = {
            "with": f"rfdetr@{VERSION}",
            "architecture": "rf-detr-nano",
            "resolution": 96,
            "epochs": EPOCHS,
            "batch": {"effective": 4, "step": 2},
            "args": {"dec_layers": 1, "num_queries": 20, "num_select": 20, "group_detr": 1, "num_workers": 0},
        }
        return {
            "key": "sha256:0",
            "seed": 7,
            "dataset": str(cls.folder / "bccd"),
            "output": str(cls.folder / output),
            "spec": {"classes": CLASSES, "train": {**fields, **train}},
        }

    @classmethod
    def start(cls, document: dict[str, Any]) -> subprocess.Popen[str]:
        """Starts the trainer as a process."""
        file = cls.folder / "run.json"
        file.write_text(json.dumps(document))
        return subprocess.Popen([PYTHON, HERE / "train.py", file], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})  # fmt: skip

    @classmethod
    def finish(cls, document: dict[str, Any]) -> tuple[int, str]:
        """Runs the trainer; returns its exit status and standard error."""
        process = cls.start(document)
        errors = process.communicate()[1]
        return process.returncode, errors

    def stop_in_epoch(self, document: dict[str, Any], epoch: int, number: int) -> tuple[int, str]:
        """Runs the trainer until its status says that it is in an epoch, and sends a signal."""
        process = self.start(document)
        status = Path(document["output"]) / "status.json"
        end = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < end:
            now = json.loads(status.read_text()) if status.exists() else {"epoch": 0, "batch": 0}
            if now["epoch"] == epoch - 1 and now["batch"] > 1:
                break
            time.sleep(0.05)
        process.send_signal(number)
        errors = process.communicate()[1]
        return process.returncode, errors

    def read(self, name: str, output: str = "whole") -> Any:
        return json.loads((self.folder / output / name).read_text())

    def metrics(self, output: str) -> list[dict[str, Any]]:
        lines = (self.folder / output / "metrics.jsonl").read_text().splitlines()
        return [{**json.loads(line), "seconds": 0} for line in lines]

    def test_output_files(self) -> None:
        self.assertEqual(self.errors, (0, ""))
        names = {f.name for f in (self.folder / "whole").iterdir()}
        self.assertEqual(names, {"status.json", "metrics.jsonl", "checkpoint", "identity", "model.onnx", "train.json",
                                 "log.txt"})  # fmt: skip
        status = self.read("status.json")
        self.assertEqual((status["phase"], status["epoch"], status["epochs"]), ("done", EPOCHS, EPOCHS))
        self.assertRegex(status["heartbeat"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z$")
        rows = self.metrics("whole")
        self.assertEqual([row["epoch"] for row in rows], [1, 2, 3])
        columns = {"epoch", "loss", "lr", "val_map", "val_map50", "val_map75", "val_mar", "seconds"}
        self.assertEqual(set(rows[0]), columns)
        summary = self.read("train.json")
        self.assertEqual((summary["trainer"], summary["seed"], summary["resumed"]), (f"rfdetr@{VERSION}", 7, 0))
        self.assertEqual(summary["bestValMap"], max(row["val_map"] for row in rows))
        self.assertLess(len(json.dumps(summary)), 64 << 10, "AOB reads no more")
        used = summary["configuration"]["train"]
        self.assertEqual((used["grad_accum_steps"], used["batch_size"], used["amp_dtype"]), (2, 2, None))
        self.assertNotIn(str(self.folder), json.dumps(summary), "a path of this machine")
        before = {f: (f.stat().st_size, f.stat().st_mtime_ns) for f in (self.folder / "whole").iterdir()}
        self.assertEqual(self.finish(self.document("whole")), (0, ""))
        after = {f: (f.stat().st_size, f.stat().st_mtime_ns) for f in (self.folder / "whole").iterdir()}
        self.assertEqual(after, before, "a second start after the end must change nothing")
        code, errors = self.finish({**self.document("whole"), "seed": 8})
        self.assertEqual((code, "contains another run" in errors), (1, True), errors)

    def test_a_resumed_run_gives_the_same_result(self) -> None:
        document = self.document("resumed")
        self.assertEqual(self.stop_in_epoch(document, 2, signal.SIGKILL), (-9, ""))
        self.assertEqual(self.stop_in_epoch(document, 3, signal.SIGTERM), (143, ""))
        self.assertEqual(self.finish(document), (0, ""))
        self.assertEqual(self.read("train.json", "resumed")["resumed"], 2)
        self.assertEqual(self.metrics("resumed"), self.metrics("whole"))
        models = [(self.folder / name / "model.onnx").read_bytes() for name in ("whole", "resumed")]
        self.assertTrue(models[0] == models[1], "the resumed run's model differs")

    def test_exported_graph(self) -> None:
        found = json.loads(run_python(
            "import json, sys, onnxruntime\n"
            "s = onnxruntime.InferenceSession(sys.argv[1])\n"
            "print(json.dumps([[[p.name, p.type, p.shape[1:]] for p in (*s.get_inputs(), *s.get_outputs())],"
            " *(json.loads(s.get_modelmeta().custom_metadata_map[k]) for k in ('rfdetr_inference', 'aob_signature'))]))",
            str(self.folder / "whole" / "model.onnx"),
        ))  # fmt: skip
        self.assertEqual(found[0], [["input", "tensor(float)", [3, 96, 96]], ["dets", "tensor(float)", [20, 4]],
                                    ["labels", "tensor(float)", [20, 4]]])  # fmt: skip
        self.assertEqual(found[1]["class_id_to_name"], {"0": "RBC", "1": "WBC", "2": "Platelets"})
        self.assertEqual((found[1]["resize_antialias"], found[1]["num_classes"]), (False, 4))
        self.assertLessEqual(set(found[1]), RFDETR_FIELDS)
        self.assertEqual(found[2], {"schema_version": 1, "clip_boxes": True})

    def test_a_parents_classes_are_found_by_name(self) -> None:
        document = self.document("child", **{"from": "release", "epochs": 1})
        document["parent"] = {"checkpoint": str(self.folder / "whole" / "checkpoint"), "release": "bccd@1.0.0"}
        document["spec"]["classes"] = ["Platelets", "RBC"]
        document["spec"]["train"]["args"].update(wandb=True, project="bccd", run="child")
        self.assertEqual(self.finish(document), (0, ""))
        logged = list((self.folder / "child" / "package" / "wandb").glob("offline-run-*/run-*.wandb"))
        self.assertEqual(len(logged), 1, "W&B has no offline run")
        self.assertIn("classes kept from the parent: Platelets, RBC\n", (self.folder / "child" / "log.txt").read_text())
        self.assertEqual(self.read("train.json", "child")["from"], "release")

    def test_base_weights_and_early_stopping(self) -> None:
        file = self.folder / "whole" / "checkpoint"
        document = self.document("early", **{"from": "rf-detr-nano", "epochs": 6, "earlyStopping": {"patience": 1}})
        document["spec"]["train"]["args"]["early_stopping_min_delta"] = 1
        document["weights"] = {"file": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        self.assertEqual(self.finish(document), (0, ""))
        status = self.read("status.json", "early")
        self.assertEqual((status["phase"], status["epoch"], status["epochs"]), ("done", 2, 6))
        configuration = self.read("train.json", "early")["configuration"]
        self.assertEqual(configuration["model"]["pretrain_weights"], "sha256:" + document["weights"]["sha256"])
        document["weights"]["sha256"] = "0" * 64
        document["output"] = str(self.folder / "other")
        code, errors = self.finish(document)
        self.assertEqual((code, "the weights have SHA-256" in errors), (1, True), errors)

    def test_a_failure_is_one_line(self) -> None:
        for name, change, want in (
            ("value", {"args": {"lr_scheduler_kwargs": {"warm": 1}}}, "unknown key(s): warm."),
        ):
            with self.subTest(name):
                code, errors = self.finish(self.document(name, **change))
                self.assertEqual((code, errors.count("\n")), (1, 1), errors)
                self.assertIn(want, errors)
                self.assertEqual(self.read("status.json", name)["phase"], "failed")

    def test_variants(self) -> None:
        model = self.folder / "whole" / "model.onnx"
        size = model.stat().st_size
        for kind, share, cosine in (("fp16", 0.51, 0.999), ("int8", 0.35, 0.9)):
            with self.subTest(kind):
                document = self.document(kind) | {"variant": {"name": kind, "model": str(model)}}
                self.assertEqual(self.finish(document), (0, ""))
                report = self.read("variant.json", kind)
                self.assertLess(report["bytes"], share * size)
                self.assertGreater(report["parity"]["cosine"]["labels"], cosine)
                self.assertEqual(self.read("status.json", kind)["phase"], "done")
                if DETECT.exists():  # which has an older ONNX Runtime
                    inspected = subprocess.run([DETECT, "inspect", self.folder / kind / "model.onnx"],
                                               capture_output=True, text=True)  # fmt: skip
                    self.assertEqual(inspected.returncode, 0, inspected.stdout)
                    self.assertIn('"slots":["RBC","WBC","Platelets",""]', inspected.stdout)
        self.assertEqual(self.read("variant.json", "int8")["calibrationSplit"], "train")

    def test_predict_and_aob_detect_agree(self) -> None:
        library = CACHE / "onnxruntime-1.24.3" / "libonnxruntime.so.1"
        if not DETECT.exists() or not library.exists():
            self.skipTest("no bin/aob-detect or no ONNX Runtime: make tools build")
        # Both get the same pixels, because programs decode JPEG differently.
        predicted = json.loads(run_python(PREDICT, str(self.folder / "whole" / "checkpoint"), str(BCCD / "test"),
                                          str(self.folder / "png")))  # fmt: skip
        self.assertEqual(len(predicted), 50)
        model = str(self.folder / "whole" / "model.onnx")
        inspected = subprocess.run([DETECT, "inspect", model], capture_output=True, text=True, check=True).stdout
        rows = [json.loads(line) for line in inspected.splitlines()]
        signature = next(r["inspected"]["signature"] for r in rows if "inspected" in r)
        lines = [json.dumps({"model": model, "signature": signature, "images": len(predicted)})]
        lines += [json.dumps({"id": i + 1, "path": path}) for i, path in enumerate(predicted)]
        done = subprocess.run([DETECT, "evaluate"], input="\n".join(lines) + "\n", capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        found = {r["image"]["id"]: r["image"]["boxes"] for r in rows if "image" in r}
        worst_iou, worst_score, compared = 1.0, 0.0, 0
        for i, boxes in enumerate(predicted.values()):
            for name, score, box in boxes:
                best = max(((iou(box, to_corners(d[2:])), -abs(d[1] - score)) for d in found[i + 1]
                            if signature["slots"][d[0]] == name), default=(0, -1))  # fmt: skip
                worst_iou, worst_score = min(worst_iou, best[0]), max(worst_score, -best[1])
                compared += 1
        print(f"predict() and aob-detect: {compared} boxes on 50 images, IoU >= {worst_iou:.6f}, "
              f"scores within {worst_score:.1e}", file=sys.stderr)  # fmt: skip
        self.assertGreater(compared, 500)
        self.assertGreaterEqual(worst_iou, 0.99)
        self.assertLessEqual(worst_score, 1e-3)


class EpochsTest(unittest.TestCase):
    """The classes of slots, by a real export of each version in which they have changed."""

    def test_slots_of_a_real_export(self) -> None:
        sys.path.insert(0, str(HERE))
        import classes as class_map

        if not BCCD.is_dir():
            self.skipTest(f"no data in {BCCD}: set AOB_SHARED")
        known = {"1.11.2": PYTHON}
        for lock in sorted((HERE / "test_epochs").glob("*.txt")):
            digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
            file = CACHE / f"rfdetr-{lock.stem}-{digest}" / "bin" / "python"
            known[lock.stem] = str(file) if file.exists() else None
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        some_of_bccd(folder / "root", train=4, valid=1)
        file = folder / "root" / "train" / "_annotations.coco.json"
        root = json.loads(file.read_text())
        shutil.copytree(folder / "root", folder / "grouped")
        grouped = {**root, "categories": [c for c in root["categories"] if c["supercategory"] != "none"]}
        for one in grouped["categories"]:
            one["id"] -= 1
        grouped["annotations"] = [{**a, "category_id": a["category_id"] - 1} for a in root["annotations"]]
        (folder / "grouped" / "train" / file.name).write_text(json.dumps(grouped))
        missing = []
        for version, program in known.items():
            if program is None:
                missing.append(version)
                continue
            for kind, document in (("root", json.loads(file.read_text())), ("grouped", grouped)):
                with self.subTest(version=version, kind=kind):
                    script, to = HERE / "test_epochs" / "export_as.py", folder / f"{version}-{kind}"
                    command = [program, "-W", "ignore", script, folder / kind, to]
                    done = subprocess.run(command, capture_output=True, text=True)
                    self.assertEqual(done.returncode, 0, done.stderr[-2000:])
                    found = json.loads(done.stdout)
                    annotated = {a["category_id"] for a in document["annotations"]}
                    names = class_map.of_dataset(version, document["categories"], annotated)
                    self.assertEqual(found["outputs"]["labels"][-1], len(names))
                    self.assertEqual({i: n for n, i in found["slots"].items()},
                                     class_map.check(names, len(names), CLASSES))  # fmt: skip
        if missing:
            self.skipTest(f"no environment of rfdetr {', '.join(missing)}: make rfdetr-epochs")


def to_corners(box: list[float]) -> list[float]:
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def iou(a: list[float], b: list[float]) -> float:
    """The overlap of two boxes given by their corners."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


PREDICT = """
import json, os, pathlib, sys
os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")
from PIL import Image
from rfdetr import RFDETR
model = RFDETR.from_checkpoint(sys.argv[1])
to = pathlib.Path(sys.argv[3])
to.mkdir()
found = {}
for file in sorted(pathlib.Path(sys.argv[2]).glob("*.jpg"))[:50]:
    image = Image.open(file).convert("RGB")
    image.save(to / (file.stem + ".png"))
    d = model.predict(image, threshold=0.002)
    names = d.data["class_name"] if "class_name" in d.data else [model.class_names[i] for i in d.class_id]
    found[str(to / (file.stem + ".png"))] = [[str(n), float(s), [float(v) for v in b]]
        for n, s, b in zip(names, d.confidence, d.xyxy) if n in ("RBC", "WBC", "Platelets")]
print(json.dumps(found))
"""


if __name__ == "__main__":
    unittest.main()
