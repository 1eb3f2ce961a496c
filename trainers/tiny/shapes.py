#!/usr/bin/env python3
"""Draws a small detection dataset: `python3 shapes.py OUTDIR --seed 1 --train 160 --valid 48 --test 96 --size 160x120`.

The images contain filled circles, squares and triangles of many sizes and contrasts on a noisy background, some of them
overlapping, and as distractors rings, crosses and outlines. The same arguments give the same bytes. OUTDIR contains
{train,valid,test}/_annotations.coco.json with the images in the same folders. It is created atomically.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("circle", "square", "triangle")
SPLITS = ("train", "valid", "test")
LEAST_VISIBLE = 0.6  # minimum share of an object that stays visible when others are drawn over it


def half_planes(points: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Distance of each pixel inside a convex polygon, given clockwise in image coordinates; negative outside."""
    inside = np.full(xs.shape, np.inf)
    for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, 0)):
        length = np.hypot(x2 - x1, y2 - y1)
        inside = np.minimum(inside, ((x2 - x1) * (ys - y1) - (y2 - y1) * (xs - x1)) / length)
    return inside


def shape(
    kind: str, x: float, y: float, radius: float, turn: float, xs: np.ndarray, ys: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance of each pixel inside a shape (negative outside), and two corners of its bounding box."""
    if kind == "circle":
        return radius - np.hypot(xs - x, ys - y), np.array((x - radius, y - radius)), np.array((x + radius, y + radius))
    corners, first = {"square": (4, np.pi / 4), "triangle": (3, -np.pi / 2)}[kind]
    angles = first + turn + np.arange(corners) * 2 * np.pi / corners
    points = np.stack((x + radius * np.cos(angles), y + radius * np.sin(angles)), 1)
    return half_planes(points, xs, ys), points.min(0), points.max(0)


def background(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A grey gradient with soft spots, [height,width,3] in 0..255."""
    ys, xs = np.mgrid[0:height, 0:width]
    slope = random.uniform(-20, 20, 2)
    grey = random.uniform(90, 165) + slope[0] * (2 * xs / width - 1) + slope[1] * (2 * ys / height - 1)
    for _ in range(6):
        x, y, reach = random.uniform(0, width), random.uniform(0, height), random.uniform(0.08, 0.3) * width
        grey = grey + random.uniform(-20, 20) * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * reach**2))
    return grey[:, :, None] + random.uniform(-12, 12, 3)


def color(random: np.random.Generator, image: np.ndarray, mask: np.ndarray, contrast: float) -> np.ndarray:
    """A colour that is about `contrast` grey levels lighter or darker than the image under the mask."""
    under = (image * mask[:, :, None]).sum((0, 1)) / max(mask.sum(), 1)
    sign = 1 if under.mean() < random.uniform(60, 200) else -1
    return (under + sign * contrast + random.uniform(-25, 25, 3)).clip(0, 255)


def draw(random: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, list[tuple[int, list[float]]]]:
    """Draws one image, uint8 [height,width,3], with its objects: class index and bbox (x, y, w, h) in pixels."""
    ys, xs = np.mgrid[0:height, 0:width] + 0.5
    image = background(random, height, width)
    objects: list[tuple[int, list[float]]] = []
    visible: list[np.ndarray] = []  # masks of the visible parts of the objects drawn so far
    areas: list[float] = []
    unit = min(height, width)
    wanted = 0 if random.random() < 0.05 else int(random.integers(2, 9))
    items = ["object"] * wanted + ["distractor"] * int(random.integers(0, 4))
    for item in [items[i] for i in random.permutation(len(items))]:
        label = int(random.integers(len(CLASSES)))
        radius = unit * float(np.exp(random.uniform(np.log(0.06), np.log(0.24))))
        x, y = random.uniform(radius * 0.7, width - radius * 0.7), random.uniform(radius * 0.7, height - radius * 0.7)
        inside, low, high = shape(CLASSES[label], x, y, radius, random.uniform(-0.4, 0.4), xs, ys)
        if item == "distractor":
            line = max(1.0, radius * random.uniform(0.08, 0.16))
            if random.random() < 0.5:
                inside = np.minimum(inside, line - inside)  # an outline
            else:  # a cross
                turn = random.uniform(0, np.pi)
                along = np.abs((xs - x) * np.cos(turn) + (ys - y) * np.sin(turn))
                aside = np.abs((xs - x) * np.sin(turn) - (ys - y) * np.cos(turn))
                inside = np.minimum(line - np.minimum(along, aside), radius - np.maximum(along, aside))
        mask = (inside + 0.5).clip(0, 1)
        left = [part * (1 - mask) for part in visible]
        contrast = float(np.exp(random.uniform(np.log(35), np.log(110))))
        fill = color(random, image, mask, contrast)
        if any(part.sum() < LEAST_VISIBLE * area for part, area in zip(left, areas)):
            continue
        visible = left
        image = image + mask[:, :, None] * (fill - image)
        if item == "object":
            low, high = low.clip(0, (width, height)), high.clip(0, (width, height))
            visible.append(mask)
            areas.append(float(mask.sum()))
            objects.append((label, [round(float(v), 2) for v in (*low, *(high - low))]))
    noise = random.normal(size=image.shape) * random.uniform(4, 14)
    return (image + noise).round().clip(0, 255).astype(np.uint8), objects


def write_split(folder: Path, split: str, seed: int, count: int, height: int, width: int) -> None:
    """Writes one split's images and annotations."""
    folder.mkdir()
    images, annotations = [], []
    for number in range(1, count + 1):
        pixels, objects = draw(np.random.default_rng((seed, SPLITS.index(split), number)), height, width)
        name = f"shapes-{seed}-{split}-{number:05d}.png"
        Image.fromarray(pixels).save(folder / name, optimize=False)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for label, (x, y, w, h) in objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label + 1,
                    "bbox": [x, y, w, h],
                    "area": round(w * h, 2),
                    "iscrowd": 0,
                }
            )
    document = {
        "info": {"description": f"shapes, seed {seed}, {split}"},
        "licenses": [],
        "categories": [{"id": i + 1, "name": name, "supercategory": "shape"} for i, name in enumerate(CLASSES)],
        "images": images,
        "annotations": annotations,
    }
    (folder / "_annotations.coco.json").write_text(json.dumps(document, indent=1) + "\n")


def size(text: str) -> tuple[int, int]:
    """Parses WIDTHxHEIGHT."""
    try:
        width, height = (int(part) for part in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT, not {text!r}") from None
    if not (32 <= width <= 4096 and 32 <= height <= 4096):
        raise argparse.ArgumentTypeError(f"both sides must be from 32 to 4096 pixels, not {text}")
    return width, height


def count(text: str) -> int:
    """Parses a number of images."""
    if not text.isdigit() or not 0 < int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 100000, not {text!r}")
    return int(text)


def seed(text: str) -> int:
    """Parses a seed."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 up, not {text!r}")
    return int(text)


def main(arguments: list[str]) -> int:
    """Writes the dataset; returns the exit status."""
    parser = argparse.ArgumentParser(description="Draws a small detection dataset in COCO layout.")
    parser.add_argument("outdir", type=Path)
    parser.add_argument("--seed", type=seed, default=1)
    for split, default in zip(SPLITS, (160, 48, 96)):
        parser.add_argument(f"--{split}", type=count, default=default, help="number of images")
    parser.add_argument("--size", type=size, default=(160, 120), help="WIDTHxHEIGHT of the images in pixels")
    options = parser.parse_args(arguments)
    target = options.outdir.absolute()
    width, height = options.size
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise FileExistsError(f"{target} exists and is not an empty folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            for split in SPLITS:
                write_split(part / split, split, options.seed, getattr(options, split), height, width)
            part.chmod(0o755)
            os.rename(part, target)  # fails if the target is not empty any more
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    except OSError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
