"""Exports a model as the installed version of the package would after training on a dataset in Roboflow's layout.

Prints, as JSON, the slot that the version's own dataset code gives to each category with annotations, and the number of
slots of the exported ONNX file: `python export_as.py DATASET FOLDER`. It runs in any version since 1.4.
"""

import contextlib
import importlib
import inspect
import json
import os
import pathlib
import sys
import types

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", CUDA_VISIBLE_DEVICES="")

dataset, folder = sys.argv[1:]
with contextlib.redirect_stdout(sys.stderr):
    import onnx
    import rfdetr
    import torch
    from PIL import Image

    # Old versions do not choose between PyTorch's two exporters, and that of their time is no longer the default.
    exporter = torch.onnx.export
    torch.onnx.export = lambda *args, **options: exporter(*args, **{"dynamo": False, **options})

    coco = importlib.import_module("rfdetr.datasets.coco")
    args = types.SimpleNamespace(dataset_dir=dataset, square_resize_div_64=True, segmentation_head=False, patch_size=16,
                                 multi_scale=False, expanded_scales=False, num_windows=2, aug_config=None)
    train = coco.build_roboflow_from_coco("train", args, 96)
    image = Image.new("RGB", (640, 480))
    names = {c["id"]: c["name"] for c in train.coco.dataset["categories"]}
    slots = {}
    for annotation in train.coco.dataset["annotations"]:
        name = names[annotation["category_id"]]
        if name not in slots:
            _, target = train.prepare(image, {"image_id": 1, "annotations": [annotation]})
            slots[name] = int(target["labels"][0])

    small = dict(resolution=96, dec_layers=1, num_queries=20, num_select=20, group_detr=1, device="cpu",
                 pretrain_weights=None, positional_encoding_size=6)
    if hasattr(rfdetr.RFDETRNano, "train_from_config"):  # before 1.6
        model = rfdetr.RFDETRNano(**small)
        head = len(model._load_classes(dataset)) + 1
        model.model.reinitialize_detection_head(head)
    else:
        model = rfdetr.RFDETRNano(num_classes=rfdetr.RFDETRNano._detect_num_classes_for_training(dataset), **small)
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    old = {"simplify": False} if "simplify" in inspect.signature(rfdetr.RFDETRNano.export).parameters else {}
    model.export(output_dir=folder, verbose=False, **old)
    file = sorted(pathlib.Path(folder).glob("*.onnx"))[0]
    graph = onnx.load(str(file)).graph
    shape = {o.name: [d.dim_value for d in o.type.tensor_type.shape.dim] for o in graph.output}
print(json.dumps({"version": importlib.import_module("importlib.metadata").version("rfdetr"), "file": file.name,
                  "slots": slots, "outputs": shape}))
