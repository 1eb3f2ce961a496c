"""Mean average precision as COCO defines it, accurate to about 1e-3: for choosing an epoch, not as evidence.

Boxes are (x1, y1, x2, y2). Area ranges and recall are not implemented. Unmatched detections in a crowd region are
ignored.
"""

from __future__ import annotations

from typing import NamedTuple, Sequence

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST_DETECTIONS = 100


class Truth(NamedTuple):
    """The ground truth of one image: boxes [G,4], labels [G], and which of them are crowds [G]."""

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray


class Found(NamedTuple):
    """The detections in one image: boxes [D,4], labels [D], scores [D]."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


class Score(NamedTuple):
    """mAP over the thresholds .50 to .95 and at .50, and AP per class; None if there is no ground truth."""

    map: float | None
    map50: float | None
    per_class: list[float | None]


def overlaps(found: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU of each detection with each truth, [D,G]; for a crowd, the share of the detection inside it."""
    low = np.maximum(found[:, None, :2], truth[None, :, :2])
    high = np.minimum(found[:, None, 2:], truth[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(2)
    own = (found[:, 2:] - found[:, :2]).prod(1)[:, None]
    union = np.where(crowd[None], own, own + (truth[:, 2:] - truth[:, :2]).prod(1)[None] - common)
    return common / np.maximum(union, 1e-12)


def match(iou: np.ndarray, crowd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matches detections, best first, to truths; returns for each threshold and detection whether it is a true
    positive, and whether it is ignored."""
    detections, truths = iou.shape
    hit = np.zeros((len(THRESHOLDS), detections), bool)
    ignored = np.zeros_like(hit)
    if truths == 0:
        return hit, ignored
    free = np.repeat(~crowd[None], len(THRESHOLDS), 0)
    rows = np.arange(len(THRESHOLDS))
    lowest = np.minimum(THRESHOLDS, 1 - 1e-10)
    in_crowd = (iou[:, crowd].max(1) if crowd.any() else np.zeros(detections))[:, None] >= lowest
    for d in np.flatnonzero(iou.max(1) >= lowest[0]):
        open_iou = np.where(free, iou[d][None], -1.0)
        best = open_iou.argmax(1)
        hit[:, d] = open_iou[rows, best] >= lowest
        free[rows[hit[:, d]], best[hit[:, d]]] = False
        ignored[:, d] = ~hit[:, d] & in_crowd[d]
    return hit, ignored


def average_precision(scores: np.ndarray, hit: np.ndarray, ignored: np.ndarray, truths: int) -> np.ndarray:
    """AP per threshold from all detections of one class: scores [D], hit and ignored [T,D]."""
    order = np.argsort(-scores, kind="stable")
    hit, ignored = hit[:, order], ignored[:, order]
    right = np.cumsum(hit, 1, dtype=float)
    wrong = np.cumsum(~hit & ~ignored, 1, dtype=float)
    precision = right / np.maximum(right + wrong, 1e-12)
    precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    result = np.zeros(len(hit))
    for t, recall in enumerate(right / truths):
        at = np.searchsorted(recall, RECALLS, side="left")
        result[t] = precision[t, at[at < len(recall)]].sum() / len(RECALLS)
    return result


def evaluate(truths: Sequence[Truth], found: Sequence[Found], classes: int) -> Score:
    """Scores the detections of all images. Both sequences have the same order of images."""
    per_class: list[np.ndarray | None] = []
    for c in range(classes):
        scores, hits, ignores, total = [np.zeros(0)], [], [], 0
        for truth, one in zip(truths, found):
            wanted = truth.labels == c
            crowd = truth.crowd[wanted]
            total += int((~crowd).sum())
            mine = np.flatnonzero(one.labels == c)
            if not len(mine):
                continue
            mine = mine[np.argsort(-one.scores[mine], kind="stable")][:MOST_DETECTIONS]
            hit, ignored = match(overlaps(one.boxes[mine], truth.boxes[wanted], crowd), crowd)
            scores.append(one.scores[mine])
            hits.append(hit)
            ignores.append(ignored)
        if total == 0:
            per_class.append(None)
        elif not hits:
            per_class.append(np.zeros(len(THRESHOLDS)))
        else:
            per_class.append(
                average_precision(np.concatenate(scores), np.concatenate(hits, 1), np.concatenate(ignores, 1), total)
            )
    known = [p for p in per_class if p is not None]
    if not known:
        return Score(None, None, [None] * classes)
    return Score(
        float(np.mean(known)),
        float(np.mean([p[0] for p in known])),
        [None if p is None else float(p.mean()) for p in per_class],
    )
