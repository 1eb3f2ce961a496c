"""Reads datasets in COCO layout: checks and resizes them once, and augments one batch at a time.

A split is a folder with `_annotations.coco.json` and the images. Boxes are (x1, y1, x2, y2) in 0..1 of the image. All
random numbers come from the generator that the caller passes.
"""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from coco_map import Truth
from model import COARSEST, MEAN, STD, STRIDE

ANNOTATIONS = "_annotations.coco.json"
MOST_ANNOTATION_BYTES = 1 << 30
MOST_PIXELS = 100_000_000

# An object with a smaller visible share than this is ignored: it is neither an example nor background.
LEAST_VISIBLE = 0.35
# Share of an object's width and height that the Gaussian of its centre covers (TTFNet's alpha).
MIDDLE = 0.54


class BadData(Exception):
    """The dataset cannot be used for training; the message says what is wrong and where."""


@dataclass(frozen=True)
class Picture:
    """One image of a split with its ground truth."""

    path: Path
    width: int
    height: int
    truth: Truth  # boxes in 0..1


@dataclass(frozen=True)
class Split:
    """All images of a split, in the order of their ids, and the number of boxes without area that were left out."""

    pictures: list[Picture]
    dropped: int

    def objects(self, classes: int) -> list[int]:
        """The number of objects of each class, without crowds."""
        labels = [p.truth.labels[~p.truth.crowd] for p in self.pictures]
        return np.bincount(np.concatenate(labels), minlength=classes).tolist()


def read_split(folder: Path, classes: Sequence[str]) -> Split:
    """Reads and checks one split. Raises BadData with the file and the wrong entry."""
    file = folder / ANNOTATIONS
    try:
        size = file.stat().st_size
        if size > MOST_ANNOTATION_BYTES:
            raise BadData(f"{file}: {size} bytes, the maximum is {MOST_ANNOTATION_BYTES}")
        document = json.loads(file.read_bytes())
    except OSError as e:
        raise BadData(f"{file}: {e.strerror}") from None
    except (ValueError, RecursionError) as e:
        raise BadData(f"{file}: not JSON: {e}") from None
    if not isinstance(document, dict):
        raise BadData(f"{file}: not a JSON object")
    try:
        return _split(folder, file, document, classes)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as e:
        raise BadData(f"{file}: not a COCO annotation file: {type(e).__name__}: {e}") from None


def _split(folder: Path, file: Path, document: dict, classes: Sequence[str]) -> Split:
    slot = {name: i for i, name in enumerate(classes)}
    names: dict[int, str] = {}
    for category in document["categories"]:
        if category["id"] in names:
            raise BadData(f"{file}: category id {category['id']} occurs twice")
        names[category["id"]] = category["name"]
    missing = [name for name in classes if name not in names.values()]
    if missing:
        raise BadData(f"{file}: no category named {missing[0]!r}; it has {sorted(map(str, names.values()))}")
    label = {number: slot[name] for number, name in names.items() if name in slot}

    images = {}
    for image in document["images"]:
        number, width, height = image["id"], image["width"], image["height"]
        if number in images:
            raise BadData(f"{file}: image id {number} occurs twice")
        if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
            raise BadData(f"{file}: image {number}: width and height must be whole numbers above 0")
        path = Path(image["file_name"])
        if path.is_absolute() or ".." in path.parts:
            raise BadData(f"{file}: image {number}: file name {str(path)!r} leaves the folder")
        images[number] = (folder / path, width, height)
    if not images:
        raise BadData(f"{file}: no images")

    rows: dict[int, list[tuple[float, float, float, float, int, bool]]] = {number: [] for number in images}
    dropped = 0
    for annotation in document["annotations"]:
        which = f"{file}: annotation {annotation.get('id')}"
        if annotation["image_id"] not in images:
            raise BadData(f"{which}: no image has id {annotation['image_id']}")
        if annotation["category_id"] not in names:
            raise BadData(f"{which}: no category has id {annotation['category_id']}")
        if annotation["category_id"] not in label:
            raise BadData(f"{which}: category {names[annotation['category_id']]!r} is not one of the model's classes")
        _, width, height = images[annotation["image_id"]]
        bbox = annotation["bbox"]
        if not (isinstance(bbox, list) and len(bbox) == 4 and all(_finite(v) for v in bbox)):
            raise BadData(f"{which}: bbox must be four finite numbers, not {bbox!r}")
        x, y, w, h = bbox
        x1, y1 = min(max(x / width, 0.0), 1.0), min(max(y / height, 0.0), 1.0)
        x2, y2 = min(max((x + w) / width, 0.0), 1.0), min(max((y + h) / height, 0.0), 1.0)
        if x2 <= x1 or y2 <= y1:
            dropped += 1
            continue
        crowd = bool(annotation.get("iscrowd", 0))
        rows[annotation["image_id"]].append((x1, y1, x2, y2, label[annotation["category_id"]], crowd))

    pictures = []
    for number in sorted(images):
        path, width, height = images[number]
        table = np.array(rows[number], dtype=np.float64).reshape(-1, 6)
        truth = Truth(table[:, :4], table[:, 4].astype(np.int64), table[:, 5] > 0)
        pictures.append(Picture(path, width, height, truth))
    return Split(pictures, dropped)


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def input_size(pictures: Sequence[Picture], long_side: int, short_side: int | None) -> tuple[int, int]:
    """Height and width of the model's input, both multiples of 32.

    Without a short side, it is the one that is nearest to the median aspect ratio of the images.
    """
    ratio = float(np.median([p.width / p.height for p in pictures]))
    if short_side is None:
        exact = long_side * min(ratio, 1 / ratio)
        short_side = min(max(round(exact / COARSEST) * COARSEST, COARSEST), long_side)
    return (short_side, long_side) if ratio >= 1 else (long_side, short_side)


def load(picture: Picture, height: int, width: int) -> Tensor:
    """Decodes and resizes one image to uint8 [3,height,width], with the algorithm in the exported model's metadata."""
    try:
        with Image.open(picture.path) as image:
            if image.size != (picture.width, picture.height):
                raise BadData(
                    f"{picture.path}: is {image.size[0]}x{image.size[1]}, annotated as {picture.width}x{picture.height}"
                )
            if image.size[0] * image.size[1] > MOST_PIXELS:
                raise BadData(f"{picture.path}: has more than {MOST_PIXELS} pixels")
            pixels = np.array(image.convert("RGB"))
    except BadData:
        raise
    except Exception as e:  # PIL's decoders raise many types of exceptions on damaged files
        raise BadData(f"{picture.path}: cannot be read as an image: {e}") from None
    exact = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    exact = F.interpolate(exact, (height, width), mode="bilinear", align_corners=False, antialias=False)
    return exact[0].round_().clamp_(0, 255).byte()


class Images:
    """The resized images of a split. The first ones are kept in memory, up to a limit; others are decoded each time."""

    def __init__(
        self,
        pictures: Sequence[Picture],
        height: int,
        width: int,
        most_bytes: int,
        threads: int,
        between: Callable[[], None],
    ) -> None:
        """Decodes the images that fit, on several threads. Calls between() regularly, which may raise to stop it."""
        self.pictures = pictures
        self._size = (height, width)
        self._pool = ThreadPoolExecutor(threads)
        kept = min(len(pictures), max(most_bytes, 0) // (3 * height * width))
        self._memory = torch.empty((kept, 3, height, width), dtype=torch.uint8)
        for start in range(0, kept, 64):
            between()
            some = range(start, min(start + 64, kept))
            for i, image in zip(some, self._pool.map(self._load, some)):
                self._memory[i] = image

    @property
    def bytes(self) -> int:
        """The memory that the kept images take."""
        return self._memory.numel()

    def _load(self, i: int) -> Tensor:
        return load(self.pictures[i], *self._size)

    def take(self, indices: Sequence[int]) -> Tensor:
        """The images at the indices, uint8 [N,3,H,W]."""
        kept = len(self._memory)
        missing = [(row, i) for row, i in enumerate(indices) if i >= kept]
        out = torch.empty((len(indices), *self._memory.shape[1:]), dtype=torch.uint8)
        for row, i in enumerate(indices):
            if i < kept:
                out[row] = self._memory[i]
        for (row, _), image in zip(missing, self._pool.map(self._load, [i for _, i in missing])):
            out[row] = image
        return out


def normalised(images: Tensor) -> Tensor:
    """Converts uint8 or float 0..255 [N,3,H,W] to the network's input."""
    mean = torch.tensor(MEAN).mul(255)[:, None, None]
    std = torch.tensor(STD).mul(255)[:, None, None]
    return ((images.float() - mean) / std).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Augmentation:
    """Probabilities of flips, maximum zoom factor, and strength of colour changes."""

    hflip: float
    vflip: float
    zoom: float
    color: float


def augment(
    images: Tensor, truths: Sequence[Truth], how: Augmentation, random: np.random.Generator
) -> tuple[Tensor, list[Truth]]:
    """Flips, zooms, moves and recolours a batch. Returns the network's input and the transformed ground truth.

    Boxes that are mostly outside the image become crowds, so that they are ignored.
    """
    n = len(images)
    flip = np.where(random.random((n, 2)) < (how.hflip, how.vflip), -1.0, 1.0)
    zoomed = random.random(n) < 0.75
    scale = np.exp(random.uniform(-1, 1, (n, 1)) * math.log(how.zoom))
    scale = scale * np.exp(random.uniform(-0.25, 0.25, (n, 2)) * math.log(how.zoom))
    scale = np.where(zoomed[:, None], scale, 1.0)
    shift = random.uniform(-1, 1, (n, 2)) * np.abs(1 - 1 / scale)
    gain = np.exp(random.uniform(-1, 1, (n, 3, 1, 1, 1)) * how.color).astype(np.float32)
    tint = np.exp(random.uniform(-1, 1, (n, 3, 1, 1)) * how.color / 4).astype(np.float32)

    x = images.float()
    theta = np.zeros((n, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 1, 1] = (flip / scale).T
    theta[:, :, 2] = shift
    grid = F.affine_grid(torch.from_numpy(theta), list(x.shape), align_corners=False)
    if how.color > 0:
        brightness, contrast, saturation = (torch.from_numpy(gain[:, i]) for i in range(3))
        x = x * (brightness * torch.from_numpy(tint))
        mean = x.mean((1, 2, 3), keepdim=True)
        x = mean + (x - mean) * contrast
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * saturation
    # Outside the image, grid_sample returns 0, which is the mean colour after normalisation.
    x = normalised(x.clamp_(0, 255))
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    moved = []
    for i, truth in enumerate(truths):
        corners = (truth.boxes.reshape(-1, 2, 2) * 2 - 1 - shift[i]) * scale[i] * flip[i]
        corners = (np.sort(corners, 1) + 1) / 2
        inside = corners.clip(0, 1)
        visible = (inside[:, 1] - inside[:, 0]).prod(1) / (corners[:, 1] - corners[:, 0]).prod(1).clip(1e-12)
        there = visible > 0
        crowd = truth.crowd | (visible < LEAST_VISIBLE)
        moved.append(Truth(inside.reshape(-1, 4)[there], truth.labels[there], crowd[there]))
    return x.contiguous(memory_format=torch.channels_last), moved


@dataclass(frozen=True)
class Targets:
    """The targets of a batch; see model.heat_loss and model.box_loss for the shapes."""

    heat: Tensor
    heat_weight: Tensor
    boxes: Tensor
    box_weight: Tensor
    objects: float


def targets(truths: Sequence[Truth], classes: int, height: int, width: int) -> Targets:
    """Computes the targets of a batch for images of the given size."""
    n, h, w = len(truths), height // STRIDE, width // STRIDE
    heat = np.zeros((n, classes, h, w), np.float32)
    heat_weight = np.ones((n, classes, h, w), np.float32)
    corners = np.zeros((n, 4, h, w), np.float32)
    box_weight = np.zeros((n, h, w), np.float32)
    ys, xs = np.arange(h), np.arange(w)
    total = 0
    for i, truth in enumerate(truths):
        cells = truth.boxes * (w, h, w, h)
        for box, label in zip(cells[truth.crowd], truth.labels[truth.crowd]):
            x1, y1 = np.floor(box[:2]).astype(int)
            x2, y2 = np.ceil(box[2:]).astype(int)
            heat_weight[i, label, y1:y2, x1:x2] = 0
        cells, labels = cells[~truth.crowd], truth.labels[~truth.crowd]
        total += len(cells)
        if not len(cells):
            continue
        size = cells[:, 2:] - cells[:, :2]
        order = np.argsort(-size.prod(1), kind="stable")  # a cell in several objects belongs to the smallest
        cells, labels, size = cells[order], labels[order], size[order]
        middle = ((cells[:, :2] + cells[:, 2:]) / 2).astype(int).clip(0, (w - 1, h - 1))
        reach = (size / 2 * MIDDLE).astype(int)
        across = _bell(xs, middle[:, 0], reach[:, 0])
        down = _bell(ys, middle[:, 1], reach[:, 1])
        bells = down[:, :, None] * across[:, None, :]
        for label in np.unique(labels):
            heat[i, label] = bells[labels == label].max(0)
        last = len(cells) - 1 - (bells[::-1] > 0).argmax(0)
        owned = np.take_along_axis(bells, last[None], 0)[0]
        corners[i] = cells[last].transpose(2, 0, 1)
        share = np.bincount(last.ravel(), owned.ravel(), len(cells))
        box_weight[i] = owned / np.maximum(share, 1e-9)[last]
    heat_weight[heat > 0] = 1
    return Targets(*map(torch.from_numpy, (heat, heat_weight, corners, box_weight)), float(max(total, 1)))


def _bell(cells: np.ndarray, middle: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """A Gaussian with maximum 1 around each middle, cut off at its reach: [objects, cells]."""
    away = np.abs(cells[None] - middle[:, None])
    sigma = (2 * reach[:, None] + 1) / 6
    return np.where(away <= reach[:, None], np.exp(-((away / sigma) ** 2) / 2), 0).astype(np.float32)


def typical_log_sides(pictures: Sequence[Picture], height: int, width: int) -> Tensor:
    """Initial values for the four sides: the log of half the median object's width and height in cells."""
    half = np.concatenate([(p.truth.boxes[:, 2:] - p.truth.boxes[:, :2])[~p.truth.crowd] for p in pictures])
    cells = np.median(half, 0) / 2 * (width / STRIDE, height / STRIDE)
    return torch.tensor(np.log(np.maximum(np.tile(cells, 2), 0.5)), dtype=torch.float32)
