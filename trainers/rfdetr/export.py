"""Exports a trained model as an ONNX file whose metadata describes its inputs and outputs."""

from __future__ import annotations

import contextlib
import io
import json
import re
import warnings
from pathlib import Path
from typing import Any

import onnx

import classes as class_map

OPSET = 17
INPUT, BOXES, LOGITS = "input", "dets", "labels"
METADATA, OWN = "rfdetr_inference", "aob_signature"


def metadata(
    detector: Any, variant: str, sizes: tuple[int, int], names: dict[int, str], version: str
) -> dict[str, Any]:
    """RF-DETR's own description of an exported detector; what its predict() does before and after the graph.

    RF-DETR reads it since 1.12, and refuses fields that it does not know; own_metadata() has AOB's.
    """
    config = detector.model_config
    return {
        "schema_version": 1,
        "producer_version": version,
        "format": "onnx",
        "task": "detect",
        "variant": variant,
        "input_shape": [-1, 3, config.resolution, config.resolution],
        "input_layout": "NCHW",
        "input_name": INPUT,
        "outputs": {"pred_boxes": BOXES, "pred_logits": LOGITS},
        "means": list(detector.means),
        "stds": list(detector.stds),
        "pixel_scale": 1 / 255,
        "channel_order": "RGB",
        "resize_interpolation": "bilinear",
        "resize_antialias": False,
        "class_names": [names[i] for i in sorted(names)],
        "class_id_to_name": {str(i): name for i, name in sorted(names.items())},
        "num_classes": sizes[1],
        "num_select": min(config.num_select, sizes[0] * sizes[1]),
        "selection_policy": "all_logits",
        "box_format": "cxcywh_normalized",
        "patch_size": config.patch_size,
        "num_windows": config.num_windows,
    }


def own_metadata(version: str) -> dict[str, Any]:
    """What RF-DETR's description has no field for: since 1.8.3, its predict() cuts boxes to the image."""
    numbers = [int(n) for n in re.findall(r"\d+", version)[:3]]
    return {"schema_version": 1, "clip_boxes": numbers >= [1, 8, 3]}


def to_onnx(detector: Any, variant: str, classes: list[str], version: str, folder: Path) -> bytes:
    """Returns the ONNX file's bytes. Raises classes.Disagree where its slots are not the model's classes."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        file = detector.export(
            output_dir=str(folder), opset_version=OPSET, dynamic_batch=True, verbose=False, output_name="exported"
        )
    graph = onnx.load(str(file))
    boxes, logits = (sizes(graph, name) for name in (BOXES, LOGITS))
    if [i.name for i in graph.graph.input] != [INPUT]:
        raise class_map.Disagree(f"the exported graph's inputs are {[i.name for i in graph.graph.input]}")
    # The model looks for at most as many objects as it has tokens. The exporter may leave out sizes that are fixed.
    queries, slots = boxes[0] or detector.model_config.num_queries, len(classes) + 1
    for name, got, want in ((BOXES, boxes, [queries, 4]), (LOGITS, logits, [queries, slots])):
        if len(got) != 2 or any(g not in (None, w) for g, w in zip(got, want)):
            raise class_map.Disagree(f"output {name} of the exported graph has the sizes {got}, want {want}")
        set_sizes(graph, name, want)
    names = class_map.check(list(classes), slots, classes)
    for entry in [e for e in graph.metadata_props if e.key in (METADATA, OWN)]:
        graph.metadata_props.remove(entry)
    described = metadata(detector, variant, (queries, slots), names, version)
    for key, value in ((METADATA, described), (OWN, own_metadata(version))):
        graph.metadata_props.add(key=key, value=json.dumps(value, sort_keys=True))
    onnx.checker.check_model(graph)
    return graph.SerializeToString(deterministic=True)


def _output(graph: onnx.ModelProto, name: str) -> Any:
    for output in graph.graph.output:
        if output.name == name:
            return output.type.tensor_type.shape.dim
    raise class_map.Disagree(f"the exported graph has no output {name}: {[o.name for o in graph.graph.output]}")


def sizes(graph: onnx.ModelProto, name: str) -> list[int | None]:
    """The sizes of an output after the batch; None for one that is not fixed."""
    return [d.dim_value if d.HasField("dim_value") else None for d in _output(graph, name)[1:]]


def set_sizes(graph: onnx.ModelProto, name: str, fixed: list[int]) -> None:
    """Sets the sizes of an output after the batch."""
    for dimension, size in zip(_output(graph, name)[1:], fixed):
        dimension.dim_value = size
