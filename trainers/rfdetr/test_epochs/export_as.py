"""Exports a model as the installed version of the package would after training on a dataset in Roboflow's layout.

Prints, as JSON, the slot that the version's own dataset code gives to each category with annotations, and the number of
slots of the exported ONNX file: `python export_as.py DATASET FOLDER [ASK]`. It runs in any version since 1.4.

ASK is a JSON file. Its `weights` is the checkpoint of a training by trainers/rfdetr with the settings below, whose
weights the model gets: each class in the slot that this version gives it, and all queries alike. A model that has hardly
learned rates its tokens nearly alike, so rounding decides which query begins at which token; then that makes no
difference. With `images` and `pngs`, what the version's
own predict() finds on each image is printed too, and the folder gets the pixels of the images as PNG files.
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

dataset, folder = sys.argv[1:3]
ask = json.loads(pathlib.Path(sys.argv[3]).read_text()) if len(sys.argv) > 3 else {}
found = {}
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

    small = dict(resolution=128, dec_layers=1, num_queries=64, num_select=64, group_detr=1, device="cpu",
                 pretrain_weights=None, positional_encoding_size=8)
    if hasattr(rfdetr.RFDETRNano, "train_from_config"):  # before 1.6
        model = rfdetr.RFDETRNano(**small)
        head = len(model._load_classes(dataset)) + 1
        model.model.reinitialize_detection_head(head)
    else:
        model = rfdetr.RFDETRNano(num_classes=rfdetr.RFDETRNano._detect_num_classes_for_training(dataset), **small)
    if ask:
        trained = torch.load(ask["weights"], map_location="cpu", weights_only=True)
        rows, order = model.model.model.state_dict(), trained["args"]["class_names"]
        for name, value in trained["model"].items():
            if "class_embed" in name:  # the rows of the classes, and the untrained one in every other slot
                head = value[-1:].repeat(rows[name].shape[0], *[1] * (value.dim() - 1))
                for one, slot in slots.items():
                    head[slot] = value[order.index(one)]
                trained["model"][name] = head
            elif name in ("query_feat.weight", "refpoint_embed.weight"):
                trained["model"][name] = value.mean(0, keepdim=True).repeat(rows[name].shape[0], 1)
        apart = model.model.model.load_state_dict(trained["model"], strict=False)
        if apart.missing_keys or set(apart.unexpected_keys) - {"_kp_active_mask"}:  # which old versions do not have
            raise SystemExit(f"the weights are of another model: {apart}")
        # Else the slots without a class would take the places of boxes, which AOB leaves out before it selects.
        model.model.postprocess.num_select = small["num_queries"] * rows["class_embed.bias"].shape[0]
    for file in ask.get("images", []):
        pixels = Image.open(file).convert("RGB")
        pixels.save(pathlib.Path(ask["pngs"]) / (pathlib.Path(file).stem + ".png"))
        some = model.predict(pixels, threshold=0.001)
        found[pathlib.Path(file).name] = [[int(slot), float(score), *map(float, box)] for slot, score, box in
                                          zip(some.class_id, some.confidence, some.xyxy)]
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    old = {"simplify": False} if "simplify" in inspect.signature(rfdetr.RFDETRNano.export).parameters else {}
    model.export(output_dir=folder, verbose=False, **old)
    file = sorted(pathlib.Path(folder).glob("*.onnx"))[0]
    graph = onnx.load(str(file)).graph
    shape = {o.name: [d.dim_value for d in o.type.tensor_type.shape.dim] for o in graph.output}
print(json.dumps({"version": importlib.import_module("importlib.metadata").version("rfdetr"), "file": file.name,
                  "slots": slots, "outputs": shape, "found": found}))
