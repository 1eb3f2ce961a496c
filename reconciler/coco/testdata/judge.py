#!/usr/bin/env python3
"""Let pycocotools judge cases, and say what it answers.

    judge.py DIR…           one JSON object a line, in the order of the folders
    judge.py --write DIR…   DIR/expected.json instead

Each folder holds gt.json and dt.json in COCO format, and may hold params.json with max_dets. The numbers are at
full double precision: the twelve, those of each class at the last limit on detections, and sums over the whole
precision, recall and scores arrays.
"""
import contextlib, io, json, os, sys

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split()


def mean(cells):
    cells = cells[cells > -1]
    return float(np.mean(cells)) if cells.size else -1.0


def judge(folder):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(os.path.join(folder, "gt.json"))
        with open(os.path.join(folder, "dt.json")) as f:
            found = json.load(f)
        detections = truth.loadRes(found) if found else COCO()
        if not found:
            detections.dataset = {"images": truth.dataset["images"], "annotations": [], "categories": truth.dataset["categories"]}
            detections.createIndex()
        e = COCOeval(truth, detections, "bbox")
        params = os.path.join(folder, "params.json")
        if os.path.exists(params):
            with open(params) as f:
                e.params.maxDets = json.load(f)["max_dets"]
        e.evaluate()
        e.accumulate()
        e.summarize()
    p, r, s = e.eval["precision"], e.eval["recall"], e.eval["scores"]
    return {
        "evaluator": "pycocotools COCOeval bbox",
        "stats": dict(zip(NAMES, map(float, e.stats))),
        "per_class": [
            {"category_id": int(c), "AP": mean(p[:, :, k, 0, -1]), "AP50": mean(p[0, :, k, 0, -1]), "AP75": mean(p[5, :, k, 0, -1]), "AR100": mean(r[:, k, 0, -1])}
            for k, c in enumerate(e.params.catIds)
        ],
        "precision_sum": float(p.sum()), "recall_sum": float(r.sum()), "scores_sum": float(s.sum()),
    }


write = sys.argv[1:2] == ["--write"]
for folder in sys.argv[1 + write:]:
    answer = judge(folder)
    if write:
        with open(os.path.join(folder, "expected.json"), "w") as f:
            json.dump(answer, f, indent=1)
            f.write("\n")
    else:
        print(json.dumps(answer), flush=True)
