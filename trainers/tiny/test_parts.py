"""Tests of the trainer's parts: `python3 -m unittest discover -s trainers/tiny`."""

from __future__ import annotations

import contextlib
import io
import json
import math
import unittest
from pathlib import Path
from typing import Any

from test_tiny import CLASSES, HERE, WithShapes  # first: it sets up the imports

import numpy as np
import onnx
import torch
from torch import nn

import coco_map
import data
import export
import model
import shapes
import train
from coco_map import Found, Truth


class DatasetTest(WithShapes):
    """Reading, resizing and augmenting images."""

    def coco(self, **changes: Any) -> Path:
        """A split's folder with the annotations of two small images, with changed fields."""
        document = {
            "categories": [{"id": 5, "name": "b"}, {"id": 9, "name": "a"}],
            "images": [{"id": i, "file_name": f"{i}.png", "width": 10, "height": 20} for i in (1, 0)],
            "annotations": [{"id": 0, "image_id": 1, "category_id": 5, "bbox": [1, 2, 4, 4], "iscrowd": 0}],
        }
        document.update(changes)
        (self.folder / data.ANNOTATIONS).write_text(json.dumps(document))
        return self.folder

    def test_categories_are_matched_by_name(self) -> None:
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

    def test_without_augmentation_the_input_is_that_of_the_deployed_model(self) -> None:
        pictures = data.read_split(self.dataset / "train", CLASSES).pictures[:4]
        raw = torch.stack([data.load(p, 64, 64) for p in pictures])
        still = data.Augmentation(hflip=0, vflip=0, zoom=1, color=0)
        images, truths = data.augment(raw, [p.truth for p in pictures], still, np.random.default_rng(1))
        torch.testing.assert_close(images, data.normalised(raw), rtol=0, atol=1e-4)
        for picture, truth in zip(pictures, truths):
            np.testing.assert_allclose(truth.boxes, picture.truth.boxes, atol=1e-9)

    def test_boxes_move_with_their_pixels(self) -> None:
        raw = torch.zeros(64, 3, 96, 128, dtype=torch.uint8)
        raw[:, :, 36:60, 48:80] = 255
        truth = Truth(np.array([[48 / 128, 36 / 96, 80 / 128, 60 / 96]]), np.array([0]), np.array([False]))
        how = data.Augmentation(hflip=0.5, vflip=0.5, zoom=1.5, color=0)
        images, truths = data.augment(raw, [truth] * 64, how, np.random.default_rng(3))
        for image, moved in zip(images, truths):
            ys, xs = np.nonzero(image[0].numpy() > 1)
            bright = [xs.min() / 128, ys.min() / 96, (xs.max() + 1) / 128, (ys.max() + 1) / 96]
            np.testing.assert_allclose(moved.boxes[0], bright, atol=1.5 / 96)

    def test_objects_mostly_out_of_view_are_ignored(self) -> None:
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
        np.testing.assert_allclose(drawn.boxes[0, :, 8, 8], [8, 8, 9, 9])  # the cell belongs to the smaller object
        np.testing.assert_allclose(drawn.boxes[0, :, 8, 10], [4, 4, 12, 12])


class Maps(nn.Module):
    """Replaces a trained detector: returns the same maps for any image."""

    def __init__(self, heat: torch.Tensor, sides: torch.Tensor) -> None:
        super().__init__()
        self.maps = heat, sides
        self.heat = nn.Conv2d(1, heat.shape[1], 1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return tuple(a.expand(len(images), -1, -1, -1) for a in self.maps)


class ModelTest(unittest.TestCase):
    """The exported graph."""

    def test_peaks_become_queries(self) -> None:
        heat = torch.full((1, 2, 8, 16), -6.0)
        heat[0, 1, 2, 5], heat[0, 1, 2, 6], heat[0, 0, 7, 15] = 3.0, 2.0, 1.0  # the second is next to the first
        sides = torch.zeros(1, 4, 8, 16)
        sides[0, 2, 2, 5] = math.log(3)
        deployed = model.Deployed(Maps(heat, sides), 300, 32, 64)
        dets, labels = deployed(torch.zeros(2, 3, 32, 64))
        self.assertEqual((dets.shape, labels.shape), ((2, 128, 4), (2, 128, 3)))
        first, last = 2 * 16 + 5, 7 * 16 + 15  # there are as many queries as cells
        np.testing.assert_allclose(labels[1, first], [-6, 3, model.BACKGROUND])
        np.testing.assert_allclose(dets[1, first], [6.5 / 16, 2.5 / 8, 4 / 16, 2 / 8])
        self.assertEqual(labels[1, last, 0], 1)
        np.testing.assert_allclose(dets[1, last], [15.25 / 16, 7.25 / 8, 1.5 / 16, 1.5 / 8])  # clipped to the image
        self.assertEqual(labels[1, first + 1, 1], model.LOWEST)
        self.assertEqual(int((labels[1] > 0).sum()), 2)
        found = train.detect(deployed, torch.zeros(1, 3, 32, 64, dtype=torch.uint8))[0]
        np.testing.assert_array_equal(found.labels[:2], [1, 0])
        np.testing.assert_allclose(found.boxes[0], [4.5 / 16, 1.5 / 8, 8.5 / 16, 3.5 / 8])
        np.testing.assert_allclose(found.scores[0], 1 / (1 + math.exp(-3)), rtol=1e-6)

    def test_queries_are_the_best_cells_in_the_order_of_the_grid(self) -> None:
        heat = torch.full((1, 1, 8, 8), -6.0)
        for row, column, logit in ((1, 6, 1.0), (4, 1, 3.0), (6, 6, 2.0), (6, 2, -1.0)):
            heat[0, 0, row, column] = logit
        _, labels = model.Deployed(Maps(heat, torch.zeros(1, 4, 8, 8)), 3, 32, 32)(torch.zeros(1, 3, 32, 32))
        self.assertEqual(labels[0, :, 0].tolist(), [1, 3, 2])

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
        meta = json.loads(graph.metadata_props[0].value)
        self.assertEqual(meta["input_shape"], [-1, 3, 64, 96])
        self.assertEqual(meta["outputs"], {"pred_boxes": "dets", "pred_logits": "labels"})
        self.assertEqual(meta["class_id_to_name"], {"0": "circle", "1": "square", "2": "triangle"})
        self.assertEqual((meta["num_classes"], meta["num_select"], meta["resize_antialias"]), (3, 300, False))
        self.assertNotIn(str(HERE).encode(), content)

    def test_losses_are_lowest_for_correct_outputs(self) -> None:
        target = data.targets([Truth(np.array([[0.25, 0.25, 0.5, 0.75]]), np.array([0]), np.array([False]))], 1, 64, 64)
        good = torch.where(target.heat == 1, 9.0, -9.0)
        maps = (good, torch.zeros_like(good), -good)
        losses = [model.heat_loss(m, target.heat, target.heat_weight, 1.0) for m in maps]
        self.assertLess(losses[0], losses[1])
        self.assertLess(losses[1], losses[2])
        ys, xs = torch.meshgrid(torch.arange(16) + 0.5, torch.arange(16) + 0.5, indexing="ij")
        exact = torch.stack((xs - 4, ys - 4, 8 - xs, 12 - ys))[None].clamp(min=1e-3).log()
        self.assertAlmostEqual(float(model.box_loss(exact, target.boxes, target.box_weight, 1.0)), 0, places=4)
        self.assertGreater(float(model.box_loss(exact + 1, target.boxes, target.box_weight, 1.0)), 0.5)
        nowhere = torch.zeros_like(target.box_weight)
        self.assertEqual(float(model.box_loss(exact, target.boxes, nowhere, 1.0)), 0)


class CocoMapTest(unittest.TestCase):
    """Small cases computed by hand."""

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
            ("a false positive first", [square], [(away, 0.9), (square, 0.8)], 0.5, 0.5),
            ("a false positive last", [square], [(square, 0.9), (away, 0.8)], 1, 1),
            ("found twice, then the other", [square, away], [(square, 0.9), (square, 0.8), (away, 0.7)],
             (51 + 50 * 2 / 3) / 101, (51 + 50 * 2 / 3) / 101),
            ("IoU .62 passes three thresholds", [square], [([0, 0, 10, 6.2], 0.9)], 0.3, 1),
        ):  # fmt: skip
            with self.subTest(name):
                score = self.score(truth, found)
                if wanted is None:
                    self.assertEqual(score, (None, None, [None]))
                else:
                    self.assertAlmostEqual(score.map, wanted)
                    self.assertAlmostEqual(score.map50, wanted50)

    def test_detections_in_a_crowd_are_ignored(self) -> None:
        inside = [52, 52, 54, 54]
        score = self.score([self.SQUARE, self.AWAY], [(inside, 0.9), (inside, 0.8), (self.SQUARE, 0.7)], [False, True])
        self.assertEqual(score.map, 1)

    def test_classes_without_truth_are_not_in_the_mean(self) -> None:
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

    def test_a_folder_that_is_not_empty_is_refused(self) -> None:
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
