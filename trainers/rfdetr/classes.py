"""Which class each slot of a model's logits is, for every version of the package. Nothing here imports torch.

The package has changed three times how a COCO category becomes a slot:

- before 1.5, the slot is the category's id, and there is one slot more than categories that are in a group;
- from 1.5, categories are sorted by id and numbered from 0; an export of Roboflow has a root category 0 without
  annotations, which gets slot 0;
- from 1.9.2, a category without annotations that is only the group of others gets no slot;
- the weights trained on COCO have 91 slots, and the slot is COCO's own id.

After the classes comes one more slot, which is never trained, except in the weights trained on COCO.
"""

from __future__ import annotations

import re
from typing import Any, Iterable, Mapping, Sequence

COCO_SLOTS = 91
_NO_GROUP = (None, "", "none", "null")


class Disagree(Exception):
    """Names and slots do not fit; the message says how."""


def of_dataset(version: str, categories: Sequence[Mapping[str, Any]], annotated: Iterable[int]) -> list[str | None]:
    """The class of each slot of a model that this version trained on a dataset in Roboflow's layout.

    categories are those of the training split, and annotated are the ids of those with annotations. None is a slot
    without a class.
    """
    ordered = sorted(categories, key=lambda c: int(c["id"]))
    ids = [int(c["id"]) for c in ordered]
    if not ids or len(set(ids)) < len(ids) or ids[0] < 0:
        raise Disagree(f"category ids must be different whole numbers from 0, not {ids}")
    number = _number(version)
    if number < (1, 5):
        # The head has one slot more than there are categories that are in a group.
        slots: list[str | None] = [None] * (1 + sum(c.get("supercategory") != "none" for c in ordered))
        for category in ordered:
            if int(category["id"]) >= len(slots):
                raise Disagree(f"category {category['id']} ({category['name']}) has no slot: rfdetr {version} makes "
                               f"{len(slots)} slots of this dataset")  # fmt: skip
            slots[int(category["id"])] = category["name"]
        return slots
    if number >= (1, 9, 2):
        ordered = _without_groups(ordered, set(annotated))
    return [*(c["name"] for c in ordered), None]


def _without_groups(ordered: list[Mapping[str, Any]], annotated: set[int]) -> list[Mapping[str, Any]]:
    groups = {
        c.get("supercategory")
        for c in ordered
        if c.get("supercategory") not in _NO_GROUP and c.get("supercategory") != c["name"]
    }
    return [c for c in ordered if c["name"] not in groups or int(c["id"]) in annotated] or ordered


def _number(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    if not match:
        raise Disagree(f"{version!r} is not a version of the package")
    return tuple(int(part) for part in match.group().split("."))


def check(names: Sequence[str | None], slots: int, classes: Sequence[str]) -> dict[int, str]:
    """The name of each slot that is a class of the model. Raises Disagree where names and slots do not fit.

    names are the classes of the slots, as of_dataset or a checkpoint gives them, without or with the last, untrained
    slot; slots is the size of the model's logits.
    """
    if len(names) == slots - 1 and None not in names:
        names = [*names, None]
    if len(names) != slots:
        raise Disagree(f"there are {len(names)} names, and the model has {slots} slots: {', '.join(map(str, names))}")
    found = {i: name for i, name in enumerate(names) if name in classes}
    for name in classes:
        if list(found.values()).count(name) != 1:
            raise Disagree(f"{name!r} is not the name of exactly one slot: {', '.join(map(str, names))}")
    return found
