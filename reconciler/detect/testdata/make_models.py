#!/usr/bin/python3
"""Makes the models, pictures and expected numbers of package detect's tests.

    apt-get install python3-onnx python3-torch python3-pil
    python3 make_models.py

Same versions, same bytes. Expected numbers come from torch and numpy, never from the code under test.
"""

import json
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

HERE = Path(__file__).parent
H, W, QUERIES, SLOTS = 24, 32, 6, 4
MEANS, STDS = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
METADATA = {
    "schema_version": 1,
    "producer_version": "1.10.1",
    "format": "onnx",
    "task": "detect",
    "variant": "test",
    "input_shape": [-1, 3, H, W],
    "input_layout": "NCHW",
    "input_dtype": "float32",
    "input_name": "input",
    "outputs": {"pred_boxes": "dets", "pred_logits": "labels"},
    "means": MEANS,
    "stds": STDS,
    "pixel_scale": 1 / 255,
    "channel_order": "RGB",
    "resize_interpolation": "bilinear",
    "resize_antialias": False,
    "class_names": ["red", "blue"],
    "class_id_to_name": {"0": "red", "2": "blue"},
    "num_classes": SLOTS - 1,
    "num_select": 8,
    "selection_policy": "all_logits",
    "box_format": "cxcywh_normalized",
    "trace_alpha": 0.2,
    "patch_size": 16,
    "num_windows": 1,
}

draw = np.random.default_rng(1)
CELLS = 3 * (H // 8) * (W // 8)
WEIGHTS = {
    "to_dets": draw.normal(0, 0.4, (CELLS, QUERIES * 4)).astype(np.float32),
    "to_labels": draw.normal(0, 0.6, (CELLS, QUERIES * SLOTS)).astype(np.float32),
}
SHAPES = {
    "flat": np.array([0, CELLS], np.int64),
    "as_dets": np.array([0, QUERIES, 4], np.int64),
    "as_labels": np.array([0, QUERIES, SLOTS], np.int64),
}


def nodes(dets="dets", labels="labels"):
    """A means of 8 x 8 cells, then a linear layer for each output."""
    node = helper.make_node
    return [
        node("AveragePool", ["input"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
        node("Reshape", ["cells", "flat"], ["row"]),
        node("MatMul", ["row", "to_dets"], ["d"]),
        node("Sigmoid", ["d"], ["ds"]),
        node("Reshape", ["ds", "as_dets"], [dets]),
        node("MatMul", ["row", "to_labels"], ["l"]),
        node("Reshape", ["l", "as_labels"], [labels]),
    ]


def model(
    graph_nodes,
    dets="dets",
    labels="labels",
    metadata=METADATA,
    extra=(),
    batch="batch",
    queries=QUERIES,
    slots=SLOTS,
    weights=None,
):
    value = helper.make_tensor_value_info
    shapes = {**SHAPES, "as_labels": np.array([0, QUERIES, slots], np.int64)}
    of_dets, of_labels = (queries, queries) if queries else ("dets_queries", "labels_queries")
    graph = helper.make_graph(
        graph_nodes,
        "detector",
        [value("input", TensorProto.FLOAT, [batch, 3, H, W])],
        [value(dets, TensorProto.FLOAT, [batch, of_dets, 4]), value(labels, TensorProto.FLOAT, [batch, of_labels, slots])],
        [numpy_helper.from_array(v, k) for k, v in {**WEIGHTS, **(weights or {}), **shapes}.items()] + list(extra),
    )
    made = helper.make_model(graph, producer_name="", opset_imports=[helper.make_opsetid("", 16)])
    made.ir_version = 8
    if metadata is not None:
        entry = made.metadata_props.add()
        entry.key, entry.value = "rfdetr_inference", json.dumps(metadata, sort_keys=True)
    return made


def save(name, made):
    (HERE / name).write_bytes(made if isinstance(made, bytes) else made.SerializeToString(deterministic=True))


def constant(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def hindered(extra_nodes, extra):
    """The valid model with something added to dets that costs dearly."""
    return model(nodes(dets="plain") + extra_nodes + [helper.make_node("Add", ["plain", "cost"], ["dets"])], extra=extra)


def models():
    valid = model(nodes())
    onnx.checker.check_model(valid, full_check=True)
    save("detector.onnx", valid)
    save("static.onnx", model(nodes(), batch=1))  # as older RF-DETR exports it
    # The same graph with other weights, as after another training.
    again = np.random.default_rng(2)
    other = {name: again.normal(0, w.std(), w.shape).astype(np.float32) for name, w in WEIGHTS.items()}
    save("same_graph.onnx", model(nodes(), weights=other))
    save("no_metadata.onnx", model(nodes(), metadata=None))
    save("wrong_outputs.onnx", model(nodes(dets="boxes"), dets="boxes"))
    save("wrong_slots.onnx", model(nodes(), metadata={**METADATA, "num_classes": 7}))
    raw = bytearray(valid.SerializeToString(deterministic=True))
    raw[20:24] = b"\xff\xff\xff\xff"
    save("malformed.onnx", bytes(raw))

    node = helper.make_node
    # The logarithm of a negative number.
    save("nan.onnx", hindered([node("Neg", ["plain"], ["minus"]), node("Log", ["minus"], ["cost"])], []))
    save("random.onnx", hindered([node("RandomNormal", [], ["cost"], shape=[1, QUERIES, 4])], []))
    # 8 GiB, made from the input, so that it is made when the model runs.
    save(
        "large.onnx",
        hindered(
            [
                node("ReduceMean", ["input"], ["mean"], axes=[0, 1, 2, 3], keepdims=1),
                node("Expand", ["mean", "wide"], ["much"]),
                node("ReduceMean", ["much"], ["cost"], keepdims=0),
            ],
            [constant("wide", np.array([1, 2, 1 << 15, 1 << 15], np.int64))],
        ),
    )
    # A loop that ends in some thousand years.
    body = helper.make_graph(
        [node("Identity", ["go"], ["still"]), node("Sin", ["v"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    save(
        "endless.onnx",
        hindered(
            [node("Loop", ["turns", "yes", "plain"], ["cost"], body=body)],
            [constant("turns", np.int64(1 << 60)), constant("yes", np.array(True))],
        ),
    )
    # Weights in a file beside the model, or wherever it says.
    outside = model(nodes())
    for tensor in outside.graph.initializer:
        if tensor.name == "to_dets":
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            place = tensor.external_data.add()
            place.key, place.value = "location", "make_models.py"
    save("external.onnx", outside)
    slot_models()


def slot_models():
    """Exports without metadata, as versions of RF-DETR make them, and models whose number of queries is not fixed."""
    save("open.onnx", model(nodes(), metadata=None, queries=None))  # before 1.5
    five = np.concatenate([np.zeros((CELLS, QUERIES, 1)), WEIGHTS["to_labels"].reshape(CELLS, QUERIES, SLOTS)], axis=2)
    save(
        "five.onnx",  # 1.5 to 1.9.1, trained on an export of Roboflow
        model(nodes(), metadata=None, batch=1, slots=5, weights={"to_labels": five.astype(np.float32).reshape(CELLS, -1)}),
    )
    node = helper.make_node

    def counted(count, extra):
        """The valid model with as many queries as the tensor count says."""
        cut = [
            node("Concat", ["dets0"] * 20, ["dets1"], axis=1),
            node("Concat", ["labels0"] * 20, ["labels1"], axis=1),
            node("Slice", ["dets1", "zero", "count", "one"], ["dets"]),
            node("Slice", ["labels1", "zero", "count", "one"], ["labels"]),
        ]
        return model(
            nodes("dets0", "labels0") + count + cut,
            queries=None,
            extra=[constant("zero", np.array([0])), constant("one", np.array([1])), *extra],
        )

    # As many queries as the mean of the input says: none for a dark picture.
    save(
        "varying.onnx",
        counted(
            [
                node("ReduceMean", ["input"], ["mean"], axes=[0, 1, 2, 3], keepdims=0),
                node("Mul", ["mean", "scale"], ["scaled"]),
                node("Relu", ["scaled"], ["positive"]),
                node("Cast", ["positive"], ["whole"], to=TensorProto.INT64),
                node("Unsqueeze", ["whole", "zero"], ["count"]),
            ],
            [constant("scale", np.float32(40))],
        ),
    )
    # 16 GiB of boxes.
    save(
        "huge.onnx",
        model(
            nodes("dets0", "labels0")
            + [
                node("ReduceMean", ["dets0"], ["d1"], axes=[1], keepdims=1),
                node("ReduceMean", ["labels0"], ["l1"], axes=[1], keepdims=1),
                node("ReduceMax", ["d1"], ["most"], axes=[0, 1, 2], keepdims=0),
                node("Ceil", ["most"], ["up"]),  # 1, which is not known before the model runs
                node("Cast", ["up"], ["times"], to=TensorProto.INT64),
                node("Mul", ["times", "sizes"], ["much"]),
                node("Expand", ["d1", "much"], ["dets"]),
                node("Expand", ["l1", "much"], ["labels"]),
            ],
            queries=None,
            extra=[constant("sizes", np.array([1, 1 << 30, 4], np.int64))],
        ),
    )


def picture():
    """A scene with edges and noise, of a size that divides by nothing."""
    y, x = np.mgrid[0:51, 0:67]
    rgb = np.stack([x * 3 + y, 255 - x * 2, (x * y) % 256], axis=-1) + draw.integers(-20, 20, (51, 67, 3))
    rgb[10:30, 20:45] = [220, 30, 40]
    return np.clip(rgb, 0, 255).astype(np.uint8)


def tensor(rgb):
    """As torchvision's to_tensor, resize(antialias=False) and normalize."""
    t = torch.from_numpy(rgb).permute(2, 0, 1).to(torch.float32).div(255)[None]
    t = torch.nn.functional.interpolate(t, size=(H, W), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(v, dtype=torch.float32).view(1, 3, 1, 1) for v in (MEANS, STDS))
    return t.sub(mean).div(std)


def detections(rgb):
    """The valid model and RF-DETR's PostProcess, in torch."""
    t = torch.nn.functional.avg_pool2d(tensor(rgb), 8).reshape(1, CELLS)
    dets = (t @ torch.from_numpy(WEIGHTS["to_dets"])).sigmoid().reshape(QUERIES, 4)
    prob = (t @ torch.from_numpy(WEIGHTS["to_labels"])).reshape(QUERIES, SLOTS).sigmoid()
    for slot in (1, 3):
        prob[:, slot] = -1
    score, index = prob.flatten().topk(METADATA["num_select"])
    cx, cy, w, h = dets[index // SLOTS].T
    height, width = rgb.shape[:2]
    boxes = torch.stack([(cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height], dim=1)
    names = {0: "red", 2: "blue"}
    return [
        {"class": names[int(i) % SLOTS], "score": float(s), "x": b[0], "y": b[1], "w": b[2], "h": b[3]}
        for s, i, b in zip(score, index, boxes.tolist())
    ]


def main():
    models()
    rgb = picture()
    Image.fromarray(rgb).save(HERE / "picture.png")
    Image.fromarray(rgb).save(HERE / "picture.jpg", quality=95)
    Image.fromarray(rgb).save(HERE / "whole.jpg", quality=95, subsampling=0)  # colour at full size
    Image.fromarray(rgb).save(HERE / "wide.jpg", quality=95, subsampling=1)  # at half the width
    grey = Image.fromarray(rgb).convert("L")
    grey.save(HERE / "grey.png")
    alpha = Image.fromarray(np.dstack([rgb, np.full(rgb.shape[:2], 77, np.uint8)]))
    alpha.save(HERE / "alpha.png")
    palette = Image.fromarray(rgb).quantize(16)
    palette.save(HERE / "palette.png")
    small = rgb[:5, :7]
    Image.fromarray(small).save(HERE / "small.png")  # grows

    inputs = {
        "picture.png": rgb,
        "alpha.png": rgb,
        "grey.png": np.array(grey.convert("RGB")),
        "palette.png": np.array(palette.convert("RGB")),
        "small.png": small,
        "picture.jpg": np.array(Image.open(HERE / "picture.jpg").convert("RGB")),
        "wide.jpg": np.array(Image.open(HERE / "wide.jpg").convert("RGB")),
        "whole.jpg": np.array(Image.open(HERE / "whole.jpg").convert("RGB")),
    }
    lists = {name: [round(float(v), 6) for v in tensor(pixels).flatten()] for name, pixels in inputs.items()}
    (HERE / "tensors.json").write_text(json.dumps(lists, separators=(",", ":")) + "\n")
    (HERE / "detections.json").write_text(json.dumps(detections(rgb), indent=1) + "\n")


main()
