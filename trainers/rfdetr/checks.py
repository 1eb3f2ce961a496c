"""What is checked before the heavy import, so before a GPU is paid for: dataset, weights, memory, disk, package.

The dataset that the package reads is written anew into the output folder: the same images, with annotation files whose
categories are the model's classes, in their order, with ids from 0. Every version of the package then gives class i of
the model slot i, whatever it does with category ids (classes.py).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Sequence

from contract import BadRun, Run, replace

ANNOTATIONS = "_annotations.coco.json"
MOST_ANNOTATION_BYTES = 1 << 30
GIB = 1 << 30

# A run of the smallest model at 96 pixels needs 1.9 GiB of memory. Its checkpoint has 0.5 GiB, and a new one is
# complete before the old one goes; the export needs the model three times.
LEAST_MEMORY = 2.5 * GIB
LEAST_DISK = 2 * GIB


class BadData(Exception):
    """The dataset or the machine cannot be used for training; the message says what is wrong and where."""


@dataclass(frozen=True)
class Split:
    """What is in one split: the content of its new annotation file, and the number of boxes that were left out."""

    document: dict[str, Any]
    dropped: int

    def objects(self) -> list[int]:
        """The number of objects of each class, without crowds."""
        counts = [0] * len(self.document["categories"])
        for annotation in self.document["annotations"]:
            counts[annotation["category_id"]] += not annotation["iscrowd"]
        return counts


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
    slots = class_slots(file, document["categories"], classes)
    images, sizes = [], {}
    for image in document["images"]:
        number, width, height, name = image["id"], image["width"], image["height"], image["file_name"]
        if number in sizes:
            raise BadData(f"{file}: image id {number} occurs twice")
        if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
            raise BadData(f"{file}: image {number}: width and height must be whole numbers above 0")
        path = Path(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name:
            raise BadData(f"{file}: image {number}: file name {name!r} leaves the folder")
        if not (folder / path).is_file():
            raise BadData(f"{folder / path}: missing; it is image {number} of {file}")
        sizes[number] = width, height
        images.append({"id": len(images) + 1, "file_name": f"images/{name}", "width": width, "height": height})
    if not images:
        raise BadData(f"{file}: no images")
    order = {number: i + 1 for i, number in enumerate(sizes)}

    annotations, dropped = [], 0
    for annotation in document["annotations"]:
        which = f"{file}: annotation {annotation.get('id')}"
        number, category = annotation["image_id"], annotation["category_id"]
        if number not in sizes:
            raise BadData(f"{which}: there is no image {number}")
        if category not in slots:
            raise BadData(f"{which}: there is no category {category}")
        if slots[category] is None:
            continue
        box = annotation["bbox"]
        if len(box) != 4 or not all(_finite(v) for v in box):
            raise BadData(f"{which}: bbox must be four numbers, not {box!r}")
        (x, y, w, h), (width, height) = box, sizes[number]
        left, top = min(max(x, 0), width), min(max(y, 0), height)
        w, h = min(max(x + w, 0), width) - left, min(max(y + h, 0), height) - top
        if w <= 0 or h <= 0:
            dropped += 1
            continue
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": order[number],
                "category_id": slots[category],
                "bbox": [left, top, w, h],
                "area": w * h,
                "iscrowd": int(bool(annotation.get("iscrowd", 0))),
                "segmentation": [],
            }
        )
    categories = [{"id": i, "name": name, "supercategory": "none"} for i, name in enumerate(classes)]
    return Split({"images": images, "annotations": annotations, "categories": categories}, dropped)


def class_slots(file: Path, categories: Any, classes: Sequence[str]) -> dict[Any, int | None]:
    """The slot of each category id, found by the category's name; None for a category that is no class of the model."""
    slot = {name: i for i, name in enumerate(classes)}
    names: dict[Any, Any] = {}
    for category in categories:
        if category["id"] in names:
            raise BadData(f"{file}: category id {category['id']} occurs twice")
        names[category["id"]] = category["name"]
    for name in classes:
        ids = [number for number, other in names.items() if other == name]
        if not ids:
            raise BadData(f"{file}: no category named {name!r}; it has {sorted(map(str, names.values()))}")
        if len(ids) > 1:
            raise BadData(f"{file}: categories {ids[0]} and {ids[1]} are both named {name!r}")
    return {number: slot.get(name) for number, name in names.items()}


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def prepare(run: Run, log: Any) -> tuple[Path, int]:
    """Writes the dataset for the package; returns its folder and the number of training images."""
    splits = {}
    for name in ("train", "valid"):
        split = splits[name] = read_split(run.dataset / name, run.classes)
        counts = ", ".join(f"{c} {n}" for c, n in zip(run.classes, split.objects()))
        log(f"{name}: {len(split.document['images'])} images; {counts}; {split.dropped} boxes without area left out")
    if not any(splits["train"].objects()):
        raise BadData(f"{run.dataset / 'train'}: no annotations to learn from")
    if not any(splits["valid"].objects()):
        raise BadData(f"{run.dataset / 'valid'}: no annotations to validate on, so no epoch would be the best one")
    folder = run.output / "dataset"
    shutil.rmtree(folder, ignore_errors=True)
    for name, split in splits.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "images").symlink_to(run.dataset / name, target_is_directory=True)
        replace(folder / name / ANNOTATIONS, json.dumps(split.document).encode())
    return folder, len(splits["train"].document["images"])


def package(run: Run) -> None:
    """Checks that the version of the package that the model names is the one that is installed."""
    try:
        installed = importlib.metadata.version("rfdetr")
    except importlib.metadata.PackageNotFoundError:
        raise BadData(
            f"the package rfdetr is not installed for this Python; install versions/{run.version}/requirements.txt "
            "into an environment of its own"
        ) from None
    if installed != run.version:
        raise BadData(f"the model asks for rfdetr {run.version}, and rfdetr {installed} is installed for this Python")


def weights(run: Run) -> None:
    """Checks the file of weights against its digest."""
    if run.parent and not run.parent.is_file():
        raise BadData(f"{run.parent}: the parent's checkpoint is missing")
    if not run.weights:
        return
    file = run.weights.file
    try:
        with open(file, "rb") as f:
            found = hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        raise BadData(f"{file}: the weights cannot be read: {e.strerror}") from None
    if found != run.weights.sha256:
        raise BadData(f"{file}: the weights have SHA-256 {found}, and the configuration says {run.weights.sha256}")


def machine(output: Path) -> None:
    """Checks free memory and disk."""
    free = free_memory()
    if free < LEAST_MEMORY:
        raise BadData(f"{free / GIB:.1f} GiB of memory are free, and a training needs {LEAST_MEMORY / GIB:.1f} GiB")
    free = shutil.disk_usage(output).free
    if free < LEAST_DISK:
        need = f"a training needs {LEAST_DISK / GIB:.1f} GiB"
        raise BadData(f"{output}: {free / GIB:.1f} GiB of disk are free, and {need}")


def free_memory() -> float:
    """The memory that this process may still use: the machine's, or that of its control group if that is less."""
    free = math.inf
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) << 10
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text().strip()
        if limit.isdigit():
            free = min(free, int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError, IndexError):
        pass  # no control group of version 2
    return free
