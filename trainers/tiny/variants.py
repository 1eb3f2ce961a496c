"""Makes the FP16 variant of a trained model, with onnx alone."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from contract import BadRun


def to_fp16(source: bytes) -> tuple[bytes, int]:
    """Returns the model with a network of FP16 tensors, and how many nodes that is.

    The network is what the convolutions and all before them compute. What follows it selects cells by their number,
    which FP16 cannot count, and stays FP32, as do the input and the outputs. The types are in the file, so every
    runtime computes in the same ones.
    """
    try:
        model = onnx.load_model_from_string(source)
        graph = model.graph
        made_by = {name: node for node in graph.node for name in node.output}
    except Exception as e:
        raise BadRun(f"variant.model: not an ONNX file: {e}") from None
    network: dict[int, onnx.NodeProto] = {}
    todo = [node for node in graph.node if node.op_type == "Conv"]
    while todo:
        node = todo.pop()
        if id(node) not in network:
            network[id(node)] = node
            todo += [made_by[name] for name in node.input if name in made_by]
    if not network:
        raise BadRun("variant.model: it has no convolution")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *graph.input, *graph.output)}
    kinds |= {i.name: i.data_type for i in graph.initializer}
    initial = {i.name: i for i in graph.initializer}
    half: dict[str, str] = {}  # names of FP32 tensors, and of the same in FP16
    added: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def cast(name: str, to: str, kind: int) -> str:
        nodes.append(helper.make_node("Cast", [name], [to], name=f"cast_{to}", to=kind))
        return to

    produced: set[str] = set()  # FP16 tensors of the network, under their old names
    single: dict[str, str] = {}
    for node in graph.node:
        inside = id(node) in network
        if inside and node.op_type == "Constant":
            inside = False  # it is cast where it is used, and folded when the model is loaded
        for i, name in enumerate(node.input):
            if kinds.get(name) != TensorProto.FLOAT or inside and node.op_type == "Resize" and i > 0:
                continue  # sizes and scales keep their types
            if not inside:
                if name in produced:
                    single.setdefault(name, "")
                    single[name] = single[name] or cast(name, f"{name}_fp32", TensorProto.FLOAT)
                    node.input[i] = single[name]
            elif name not in produced:
                if name not in half and name in initial:
                    value = numpy_helper.to_array(initial[name]).astype(np.float16)
                    added.append(numpy_helper.from_array(value, f"{name}_fp16"))
                    half[name] = f"{name}_fp16"
                elif name not in half:
                    half[name] = cast(name, f"{name}_fp16", TensorProto.FLOAT16)
                node.input[i] = half[name]
        if inside:
            produced |= {name for name in node.output if kinds.get(name) == TensorProto.FLOAT}
        nodes.append(node)
    if produced & {o.name for o in graph.output}:
        raise BadRun("variant.model: an output is that of a convolution, and must be FP32")
    used = {name for node in nodes for name in node.input}
    kept = [i for i in (*graph.initializer, *added) if i.name in used]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(copies)
    graph.initializer.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True), len(network)
