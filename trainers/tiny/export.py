"""Exports the trained detector as an ONNX file whose metadata describes its inputs and outputs."""

from __future__ import annotations

import io
import json
import warnings

import onnx
import torch

from model import MEAN, STD, Deployed

OPSET = 16
INPUT, BOXES, LOGITS = "input", "dets", "labels"


def metadata(model: Deployed, height: int, width: int, classes: list[str]) -> dict:
    """RF-DETR's own description of an exported detector. The last slot has no name, so it is the background."""
    return {
        "schema_version": 1,
        "format": "onnx",
        "task": "detection",
        "variant": "tiny",
        "input_shape": [-1, 3, height, width],
        "input_name": INPUT,
        "outputs": {"pred_boxes": BOXES, "pred_logits": LOGITS},
        "means": list(MEAN),
        "stds": list(STD),
        "pixel_scale": 1 / 255,
        "channel_order": "RGB",
        "resize_interpolation": "bilinear",
        "resize_antialias": False,
        "class_names": classes,
        "class_id_to_name": {str(i): name for i, name in enumerate(classes)},
        "num_classes": len(classes),
        "num_select": model.queries,
        "selection_policy": "all_logits",
        "box_format": "cxcywh_normalized",
    }


def to_onnx(model: Deployed, height: int, width: int, classes: list[str]) -> bytes:
    """Returns the ONNX file's bytes. The same weights give the same bytes."""
    model.eval()
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            torch.zeros(2, 3, height, width),
            buffer,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[BOXES, LOGITS],
            dynamic_axes={name: {0: "batch"} for name in (INPUT, BOXES, LOGITS)},
        )
    graph = onnx.load_model_from_string(buffer.getvalue())
    # The exporter does not set the outputs' fixed sizes.
    for output, last in zip(graph.graph.output, (4, len(classes) + 1)):
        for dimension, size in zip(output.type.tensor_type.shape.dim[1:], (model.queries, last)):
            dimension.dim_value = size
    entry = graph.metadata_props.add()
    entry.key = "rfdetr_inference"
    entry.value = json.dumps(metadata(model, height, width, classes), sort_keys=True)
    onnx.checker.check_model(graph, full_check=True)
    return graph.SerializeToString(deterministic=True)
