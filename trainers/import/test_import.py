"""Tests: `python3 -m unittest discover -s trainers/import`."""

from __future__ import annotations

import sys

sys.dont_write_bytecode = True

import contextlib
import hashlib
import io
import json
import tempfile
import unittest
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import train


# What RF-DETR's own description may have: its reader in 1.12 refuses other fields.
RFDETR_FIELDS = set(
    "schema_version producer_version format task variant backend input_shape input_layout input_dtype input_name "
    "max_batch_size outputs means stds pixel_scale channel_order resize_interpolation resize_antialias class_names "
    "class_id_to_name num_classes num_select selection_policy box_format num_keypoints_per_class trace_alpha "
    "upsample_masks_to_image_size patch_size num_windows".split()
)


def model(
    width: int = 3, metadata: Any = None, logits: str = "labels", fixed: bool = True, open_queries: bool = False,
    own: Any = None,
) -> bytes:  # fmt: skip
    """A file with RF-DETR's ports, which computes nothing. RF-DETR 1.4 writes the sizes of open_queries."""
    port = helper.make_tensor_value_info
    slots = width if fixed else "n"
    (batch, boxes), (_, scores) = (("a", "b"), ("c", "d")) if open_queries else ((1, 5), (1, 5))
    shapes = {"dets": [batch, boxes, 4], logits: [batch, scores, slots]}
    outputs = [port(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    zero = [helper.make_node("Constant", [], [o.name], value=helper.make_tensor(
        o.name, TensorProto.FLOAT, [1, 5, n], [0.0] * 5 * n)) for o, n in zip(outputs, (4, width))]  # fmt: skip
    graph = helper.make_graph(zero, "g", [port("input", TensorProto.FLOAT, [1, 3, 64, 96])], outputs)
    made = helper.make_model(graph, producer_name="pytorch", producer_version="2.15")
    for key, value in ((train.METADATA, metadata), (train.OWN, own)):
        if value is not None:
            made.metadata_props.add(key=key, value=json.dumps(value))
    return made.SerializeToString()


class ImportTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def run_with(self, data: bytes, classes: list[str], output: str, **args: Any) -> tuple[int, str]:
        """Imports a file; returns the exit status and standard error."""
        file = self.folder / "given.onnx"
        file.write_bytes(data)
        run = {
            "key": "sha256:0", "seed": 1, "dataset": "/none", "output": str(self.folder / output),
            "spec": {"classes": classes, "train": {"with": "import@1", "from": "w", "epochs": 1, "args": args}},
            "weights": {"file": str(file), "sha256": hashlib.sha256(data).hexdigest()},
        }  # fmt: skip
        (self.folder / "run.json").write_text(json.dumps(run))
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            return train.main([str(self.folder / "run.json")]), errors.getvalue()

    def entry(self, output: str, key: str = train.METADATA) -> dict[str, Any]:
        made = onnx.load(str(self.folder / output / "model.onnx"))
        values = [e.value for e in made.metadata_props if e.key == key]
        self.assertLessEqual(len(values), 1)
        return json.loads(values[0]) if values else {}

    def test_slots_of_each_kind_of_export(self) -> None:
        for output, width, slots, want in (
            ("contiguous", 3, ["a", "b", ""], {"0": "a", "1": "b"}),  # since 1.9.2, and flat sets
            ("root", 4, ["", "a", "b", ""], {"1": "a", "2": "b"}),  # 1.5 to 1.9.1: the root category is slot 0
            ("ids", 3, ["", "a", "b"], {"1": "a", "2": "b"}),  # before 1.5: the slot is the category's id
            ("gaps", 5, ["", "a", "", "b", ""], {"1": "a", "3": "b"}),
            ("all", 2, ["a", "b"], {"0": "a", "1": "b"}),  # without a background
        ):
            with self.subTest(output):
                self.assertEqual(self.run_with(model(width), ["b", "a"], output, slots=slots), (0, ""))
                entry = self.entry(output)
                self.assertEqual(entry["class_id_to_name"], want)
                self.assertEqual((entry["num_classes"], entry["num_select"]), (width, 5))
                self.assertEqual(entry["input_shape"], [-1, 3, 64, 96])
                about = json.loads((self.folder / output / "train.json").read_text())
                self.assertEqual((about["imported"], about["producer"]), (True, "pytorch 2.15"))
                self.assertEqual(json.loads((self.folder / output / "status.json").read_text())["phase"], "done")

    def test_a_number_of_queries_that_is_not_fixed(self) -> None:
        """RF-DETR 1.4 leaves it open; it reports 300 boxes at most, or what args say."""
        for output, args, want in (("open", {}, 300), ("select", {"select": 20}, 20)):
            done = self.run_with(model(3, open_queries=True), ["a", "b"], output, slots=["", "a", "b"], **args)
            self.assertEqual(done, (0, ""))
            entry = self.entry(output)
            self.assertEqual((entry["num_classes"], entry["num_select"]), (3, want))

    def test_resize(self) -> None:
        for i, (given, want) in enumerate((
            ({}, (False, None)),
            ({"resize": "float32"}, (False, None)),
            ({"resize": "float32-antialias"}, (True, None)),
            ({"resize": "uint8"}, (False, "uint8")),
            ({"resize": "uint8-antialias"}, (True, "uint8")),
        )):  # fmt: skip
            done = self.run_with(model(3), ["a"], f"resize{i}", slots=["", "a", "b"], **given)
            self.assertEqual(done, (0, ""))
            entry = self.entry(f"resize{i}")
            own = self.entry(f"resize{i}", train.OWN)
            self.assertEqual((entry["resize_antialias"], own.get("resize_dtype")), want)
            self.assertLessEqual(set(entry), RFDETR_FIELDS)
        status, said = self.run_with(model(3), ["a"], "other", slots=["", "a", "b"], resize="bicubic")
        self.assertEqual(status, 1)
        self.assertIn("args.resize: must be one of float32, ", said)

    def test_clip(self) -> None:
        """AOB's own entry says whether boxes are cut to the image; RF-DETR's has no field for it."""
        named = {"class_id_to_name": {"0": "a", "1": "b"}}
        own = {"schema_version": 1, "clip_boxes": True}
        for output, data, args, want in (
            ("plain", model(3), {"slots": ["a", "b", ""]}, {}),
            ("no", model(3), {"slots": ["a", "b", ""], "clip": False}, {}),
            ("yes", model(3), {"slots": ["a", "b", ""], "clip": True}, own),
            ("both", model(3), {"slots": ["a", "b", ""], "clip": True, "resize": "uint8"},
             own | {"resize_dtype": "uint8"}),
            ("one entry", model(3, own={"other": 1}), {"slots": ["a", "b", ""], "clip": True}, own),
            ("described", model(3, named), {"clip": True}, own),
            ("described, no", model(3, named), {"clip": False}, {}),
            ("said", model(3, named, own=own), {"clip": True}, own),
            ("said in theirs", model(3, named | {"clip_boxes": True}), {"clip": True}, {}),
        ):  # fmt: skip
            with self.subTest(output):
                self.assertEqual(self.run_with(data, ["b", "a"], output, **args), (0, ""))
                self.assertEqual(self.entry(output, train.OWN), want)
        for i, (data, clip, want) in enumerate((
            (model(3, named, own=own), False, "args.clip says False, and the file's metadata says True"),
            (model(3, named, own={"schema_version": 1}), True, "args.clip says True, and the file's metadata says"),
            (model(3, named, own=[]), True, "the file's aob_signature metadata is no object"),
            (model(3, named), 1, "spec.train.args.clip: must be true or false"),
        )):  # fmt: skip
            status, said = self.run_with(data, ["a"], f"clip{i}", clip=clip)
            self.assertEqual(status, 1)
            self.assertIn(want, said)

    def test_a_file_with_metadata_stays_as_it_is(self) -> None:
        data = model(3, {"class_id_to_name": {"0": "a", "1": "b"}})
        self.assertEqual(self.run_with(data, ["a"], "out"), (0, ""))
        self.assertEqual((self.folder / "out" / "model.onnx").read_bytes(), data)
        self.assertEqual(self.run_with(data, ["a"], "same", slots=["a", "b"]), (0, ""))
        self.assertEqual((self.folder / "same" / "model.onnx").read_bytes(), data)

    def test_refusals(self) -> None:
        named = {"class_id_to_name": {"0": "a", "1": "b"}}
        for i, (data, args, want) in enumerate((
            (model(3), {}, "so args.slots must name the class of each of its 3 slots"),
            (model(5), {"slots": ["a", "b"]}, "args.slots has 2 names, and output labels has 5 slots"),
            (model(3), {"slots": ["a", "b"]}, 'name each of them, with "" for a slot without a class'),
            (model(2), {"slots": ["a", "b", "c"]}, "args.slots has 3 names, and output labels has 2 slots"),
            (model(3), {"slots": ["a", "c", ""]}, "the file has no class b; its slots are ['a', 'c', '']"),
            (model(3, named), {"slots": ["b", "a"]}, "args.slots says ['b', 'a'], and the file's metadata says"),
            (model(3, {"class_names": ["a"]}), {}, "the file has no class b"),
            (model(2, {"class_id_to_name": {"7": "a"}}), {}, "metadata has class '7', and output labels has 2 slots"),
            (model(3, []), {}, "metadata is no object"),
            (model(3, logits="scores"), {"slots": ["a", "b"]}, "the file has no labels, but dets, scores"),
            (model(3, fixed=False), {"slots": ["a", "b"]}, "has no fixed number of slots"),
            (b"\xff not a model", {"slots": ["a", "b"]}, "the file is no ONNX file"),
        )):  # fmt: skip
            with self.subTest(want):
                status, said = self.run_with(data, ["a", "b"], f"out{i}", **args)
                self.assertEqual(status, 1)
                self.assertIn(want, said)
                self.assertEqual(said.count("\n"), 1)
                self.assertFalse((self.folder / f"out{i}" / "model.onnx").exists())
        status, said = self.run_with(model(3), ["a"], "twice", slots=["a", "a", ""])
        self.assertEqual((status, said), (1, "error: spec.train.args.slots: has an empty name, or a name twice\n"))

    def test_hostile_files(self) -> None:
        """What a file says of itself cannot take the machine's memory, and each refusal is in status.json."""

        def says(width: int, metadata: str = "", queries: int = 5) -> bytes:
            port = helper.make_tensor_value_info
            shapes = {"dets": [1, queries, 4], "labels": [1, queries, width]}
            made = helper.make_model(helper.make_graph([], "g", [port("input", TensorProto.FLOAT, [1, 3, 64, 96])],
                [port(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]))  # fmt: skip
            if metadata:
                made.metadata_props.add(key=train.METADATA, value=metadata)
            return made.SerializeToString()

        for number, (data, want) in enumerate([
            (says(2**40), f"5 queries and {2**40} slots; at most 10000"),
            (says(2**40, '{"class_names": ["a"]}'), "slots; at most 10000"),
            (says(3, queries=2**40), "queries and 3 slots; at most 10000"),
            (says(3, "[" * 100_000 + "]" * 100_000), "metadata: "),
            (says(3, '{"class_names": 5}'), "must have class_id_to_name as an object"),
            (says(3, '{"class_names": "abc"}'), "must have class_id_to_name as an object"),
            (says(3, '{"class_id_to_name": ["a"]}'), "must have class_id_to_name as an object"),
            (says(3, '{"class_id_to_name": {"\u00b2": "a"}}'), "metadata"),
            (says(3, '{"class_id_to_name": {"' + "9" * 5000 + '": "a"}}'), "metadata"),
            (b"\xff" * 100, "no ONNX file"),
        ]):  # fmt: skip
            with self.subTest(want=want, number=number):
                code, errors = self.run_with(data, ["a"], f"hostile{number}", slots=["a", "", ""])
                status = json.loads((self.folder / f"hostile{number}" / "status.json").read_text())
                self.assertEqual((1, "failed"), (code, status["phase"]))
                self.assertIn(want, status["message"])


if __name__ == "__main__":
    unittest.main()
