"""Makes a variant of a trained model, as `variant` in run.json asks.

It writes `model.onnx`, and `variant.json` with how far the variant's outputs are from the model's. Both models take and
give FP32, and have the same metadata.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Iterator, Sequence

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from PIL import Image

import checks
import contract
from checks import BadData
from contract import Run
from export import BOXES, INPUT, LOGITS, METADATA

CALIBRATION_IMAGES = 100
PARITY_IMAGES = 32
LEAST_SCORE, SAME_BOX = 0.05, 0.5


def make(run: Run) -> None:
    """Writes the variant and its comparison with the model."""
    kind, source = run.variant.name, run.variant.model
    try:
        model = onnx.load(str(source))
    except Exception as e:
        raise BadData(f"{source}: not a model: {e}") from None
    about = json.loads(next((p.value for p in model.metadata_props if p.key == METADATA), "null"))
    if about is None:
        raise BadData(f"{source}: it has no {METADATA} metadata")
    details: dict[str, Any] = {}
    if kind == "fp16":
        variant = to_fp16(model)
    else:
        files = image_files(run.dataset / "train", run.classes)
        # A fixed choice, so that the same run gives the same variant.
        chosen = np.random.default_rng(run.seed).permutation(len(files))[:CALIBRATION_IMAGES]
        variant, excluded = to_int8(source, [files[i] for i in sorted(chosen)], about)
        details = {"calibrationImages": len(chosen), "calibrationSplit": "train", "excludedNodes": excluded}
    del variant.metadata_props[:]
    variant.metadata_props.extend(model.metadata_props)
    variant.ir_version = model.ir_version  # newer tools write newer versions, which older runtimes do not read
    onnx.checker.check_model(variant)
    content = variant.SerializeToString(deterministic=True)
    valid = image_files(run.dataset / "valid", run.classes)[:PARITY_IMAGES]
    report = {
        "variant": kind,
        "bytes": len(content),
        "ofBytes": source.stat().st_size,
        **details,
        "parity": parity(source.read_bytes(), content, valid, about),
    }
    contract.replace(run.output / "model.onnx", content)
    contract.replace(run.output / "variant.json", (json.dumps(report, indent=1) + "\n").encode())


def image_files(folder: Path, classes: Sequence[str]) -> list[Path]:
    """The images of a split, in the order of its annotation file."""
    names = (i["file_name"].removeprefix("images/") for i in checks.read_split(folder, classes).document["images"])
    return [folder / name for name in names]


def tensor(file: Path, about: dict[str, Any]) -> np.ndarray:
    """One image as the model takes it."""
    with Image.open(file) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float() / 255
    pixels = F.interpolate(pixels, tuple(about["input_shape"][2:]), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(about[k]).view(1, 3, 1, 1) for k in ("means", "stds"))
    return ((pixels - mean) / std).numpy()


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with FP16 tensors: their types are in the file, so every runtime computes in the same ones."""
    from onnxconverter_common import float16

    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise BadData("the model is quantised already")
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    variant = float16.convert_float_to_float16(copy, keep_io_types=False)
    graph = variant.graph
    half = {v.name for v in graph.value_info if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    half |= {o.name for o in graph.output}
    # The converter leaves casts to FP32 whose result it says is FP16.
    for node in graph.node:
        if node.op_type == "Cast" and node.output[0] in half:
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = TensorProto.FLOAT16
    del graph.value_info[:]
    # Casts at the input and the outputs keep the contract's FP32.
    inner = f"{INPUT}_fp16"
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == INPUT:
                node.input[i] = inner
    casts = [helper.make_node("Cast", [INPUT], [inner], name="input_to_fp16", to=TensorProto.FLOAT16)]
    for name in (BOXES, LOGITS):
        for node in graph.node:
            for names in (node.input, node.output):
                for i, one in enumerate(names):
                    if one == name:
                        names[i] = f"{name}_fp16"
    last = [
        helper.make_node("Cast", [f"{name}_fp16"], [name], name=f"{name}_to_fp32", to=TensorProto.FLOAT)
        for name in (BOXES, LOGITS)
    ]
    nodes = [*casts, *graph.node, *last]
    del graph.node[:]
    graph.node.extend(nodes)
    for port in (*graph.input, *graph.output):
        port.type.tensor_type.elem_type = TensorProto.FLOAT
    return variant


def to_int8(source: Path, images: list[Path], about: dict[str, Any]) -> tuple[onnx.ModelProto, int]:
    """The model with INT8 weights and inputs in MatMul and Gemm, except in attention and the heads."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._images: Iterator[Path] = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            file = next(self._images, None)
            return None if file is None else {INPUT: tensor(file, about)}

    with tempfile.TemporaryDirectory() as folder:
        prepared, quantised = str(Path(folder) / "prepared.onnx"), str(Path(folder) / "int8.onnx")
        quant_pre_process(str(source), prepared, skip_symbolic_shape=True)
        excluded = fragile(onnx.load(prepared))
        quantize_static(
            prepared,
            quantised,
            Reader(),
            quant_format=QuantFormat.QDQ,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=excluded,
            per_channel=False,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={
                "ActivationSymmetric": False,
                "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
            },
        )
        return onnx.load(quantised), len(excluded)


def fragile(model: onnx.ModelProto) -> list[str]:
    """The nodes that lose too much in INT8: products of attention, and the last layer before each output.

    Those of attention are the MatMuls of two activations before a Softmax, behind steps with a constant operand. The
    last layers are the first MatMul or Gemm on each path back from an output, at most ten steps away.
    """
    by_output = {name: node for node in model.graph.node for name in node.output}
    constant = {i.name for i in model.graph.initializer}
    constant |= {n.output[0] for n in model.graph.node if n.op_type == "Constant"}
    found: set[str] = set()
    for node in model.graph.node:
        if node.op_type != "Softmax":
            continue
        before = by_output.get(node.input[0])
        while before is not None and before.op_type in ("Div", "Mul", "Add", "Sub"):
            changing = [name for name in before.input if name not in constant]
            before = by_output.get(changing[0]) if len(changing) == 1 else None
        if before is not None and before.op_type == "MatMul" and not any(n in constant for n in before.input):
            found.add(before.name)
    for output in model.graph.output:
        level = {output.name}
        for _ in range(10):
            nodes = [by_output[name] for name in level if name in by_output]
            last = [n for n in nodes if n.op_type in ("MatMul", "Gemm")]
            found |= {n.name for n in last}
            level = {name for n in nodes if n not in last and n.op_type != "Conv" for name in n.input}
    return sorted(found)


def parity(model: bytes, variant: bytes, files: list[Path], about: dict[str, Any]) -> dict[str, Any]:
    """How far a variant's outputs are from the model's: of the tensors, and of the boxes that are made of them."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    sessions = [onnxruntime.InferenceSession(m, options, providers=["CPUExecutionProvider"]) for m in (model, variant)]
    cosine, largest = {BOXES: 1.0, LOGITS: 1.0}, {BOXES: 0.0, LOGITS: 0.0}
    matched = left = right = 0
    scores = []
    for file in files:
        image = tensor(file, about)
        outputs = [s.run([BOXES, LOGITS], {INPUT: image}) for s in sessions]
        for name, a, b in zip((BOXES, LOGITS), *outputs):
            a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
            if not np.isfinite(b).all():
                raise BadData(f"{file}: the variant's output {name} is not finite")
            cosine[name] = min(cosine[name], float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12)))
            largest[name] = max(largest[name], float(np.abs(a - b).max()))
        mine, theirs = (decode(boxes[0], logits[0], about) for boxes, logits in outputs)
        pairs = match(mine, theirs)
        matched, left, right = matched + len(pairs), left + len(mine), right + len(theirs)
        scores += pairs
    f1 = 2 * matched / (left + right) if left + right else None
    return {
        "images": len(files),
        "cosine": {k: round(v, 6) for k, v in cosine.items()},
        "largest": {k: round(v, 6) for k, v in largest.items()},
        "boxes": {"score": LEAST_SCORE, "iou": SAME_BOX, "model": left, "variant": right, "f1": f1,
                  "scoreShift": round(float(np.mean(scores)), 6) if scores else None},  # fmt: skip
    }


def decode(boxes: np.ndarray, logits: np.ndarray, about: dict[str, Any]) -> list[tuple[float, int, np.ndarray]]:
    """The detections above a low score: score, slot and corners, best first."""
    scores = 1 / (1 + np.exp(-logits[:, :-1].astype(np.float64)))
    flat = np.argsort(-scores, axis=None, kind="stable")[: about["num_select"]]
    found = []
    for index in flat:
        query, slot = divmod(int(index), scores.shape[1])
        if scores[query, slot] < LEAST_SCORE:
            break
        x, y, w, h = boxes[query].astype(np.float64)
        found.append((float(scores[query, slot]), slot, np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])))
    return found


def match(mine: list, theirs: list) -> list[float]:
    """Pairs detections of one class that overlap, best first; returns how far each pair's scores differ."""
    free, shifts = list(theirs), []
    for score, slot, box in mine:
        best = max(((iou(box, f[2]), i) for i, f in enumerate(free) if f[1] == slot), default=(0.0, -1))
        if best[0] >= SAME_BOX:
            shifts.append(abs(score - free.pop(best[1])[0]))
    return shifts


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """The overlap of two boxes given by their corners."""
    size = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if (size <= 0).any():
        return 0.0
    inner = float(size.prod())
    return inner / float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner)
