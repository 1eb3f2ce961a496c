"""What torch and Pillow make of images, and NumPy of a model's outputs.

    python3 reference.py tensors FOLDER WIDTH HEIGHT    beside each image of the folder, IMAGE.WAY.f32 for each way
    python3 reference.py boxes FOLDER                   cases of outputs, and the detections
    python3 reference.py tiny ASK                       the detections of a model that trainers/tiny has trained

ASK is a file with the trainer's folder, the checkpoint, the size of the input, the images and a folder for them as PNG.
"""

import json
import random
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms

MEANS, STDS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WAYS = {
    "float32": lambda p, size: F.interpolate(p.float() / 255, size, mode="bilinear", align_corners=False),
    "float32-antialias": lambda p, size: F.interpolate(
        p.float() / 255, size, mode="bilinear", align_corners=False, antialias=True),
    "uint8": lambda p, size: F.interpolate(p.float(), size, mode="bilinear", align_corners=False).round() / 255,
    "uint8-antialias": lambda p, size: pillow(p, size).float() / 255,
}


def normalised(pixels):
    return (pixels - torch.tensor(MEANS)[:, None, None]) / torch.tensor(STDS)[:, None, None]


def pillow(pixels, size):
    image = Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
    return torch.from_numpy(np.array(image.resize(size[::-1], Image.BILINEAR))).permute(2, 0, 1)[None]


def pictures(folder):
    """Odd sizes, tiny and large ones, and each kind of file."""
    random.seed(11)

    def noise(w, h):
        return Image.frombytes("RGB", (w, h), random.randbytes(3 * w * h))

    for w, h in ((1, 1), (1, 9), (2, 3), (7, 5), (31, 33), (32, 24), (33, 25), (96, 72), (101, 203), (640, 480)):
        noise(w, h).save(folder / f"{w}x{h}.png")
    for w, h in ((5000, 3), (3, 5000), (2400, 1800)):
        noise(97, 89).resize((w, h), Image.BICUBIC).save(folder / f"{w}x{h}.jpg")
    picture = noise(60, 50).resize((161, 121), Image.BICUBIC)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "turned.jpg", exif=exif)
    picture.save(folder / "profile.jpg", icc_profile=profile)
    picture.convert("L").save(folder / "grey.jpg")
    picture.convert("L").save(folder / "grey.png")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    picture.convert("P").save(folder / "palette.png")
    picture.convert("1").save(folder / "two.png")
    Image.merge("RGBA", (*picture.split(), picture.getchannel(0))).save(folder / "alpha.png")


def tensors(folder, width, height):
    pictures(folder)
    for file in sorted(folder.glob("*.*g")):
        with Image.open(file) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]
        for way, resize in WAYS.items():
            out = normalised(resize(pixels, (height, width)))
            Path(f"{file}.{way}.f32").write_bytes(out.numpy().astype("<f4").tobytes())


def detections(boxes, logits, select, left_out, width, height, clip):
    """RF-DETR's PostProcess; ties by flat index. left_out has the slots without a class."""
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    scores = scores.astype(np.float32)
    slots = logits.shape[1]
    flat = [i for i in range(scores.size) if i % slots not in left_out]
    order = sorted(flat, key=lambda i: (-scores.flat[i], i))[:select]
    found = []
    for i in order:
        cx, cy, w, h = boxes[i // slots].astype(np.float64)
        w, h = max(w, 0), max(h, 0)
        corners = np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]) * [width, height, width, height]
        if clip:
            corners = np.clip(corners, 0, [width, height, width, height])
        found.append([i % slots, float(scores.flat[i]), *corners.tolist()])
    return found


def cases(folder):
    draw = np.random.default_rng(5)
    made = []
    for queries, slots, select in ((1, 1, 1), (6, 4, 8), (300, 91, 300), (100, 5, 500), (50, 2, 7)):
        for ties in (False, True):
            boxes = draw.normal(0.5, 0.4, (queries, 4)).astype(np.float32)
            logits = draw.normal(-2, 3, (queries, slots)).astype(np.float32)
            if ties:
                logits = logits.round()
            left_out = [slots - 1] if slots > 2 else []
            for clip in (False, True):
                made.append({
                    "boxes": boxes.flatten().tolist(), "logits": logits.flatten().tolist(), "slots": slots,
                    "select": select, "leftOut": left_out, "width": 641, "height": 479, "clip": clip,
                    "want": detections(boxes, logits, select, left_out, 641, 479, clip),
                })
    (folder / "cases.json").write_text(json.dumps(made))


def tiny(ask):
    """Prints the boxes on each image as slot, score and corners. The model runs in PyTorch."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, ask["trainer"])
    from model import Deployed, Detector

    state = torch.load(ask["checkpoint"], weights_only=True)
    best = state["best"]
    classes = len(json.loads(state["classes"]))
    detector = Detector(classes, best["heat.weight"].shape[1] // 3)
    detector.load_state_dict(best)
    width, height = ask["width"], ask["height"]
    model = Deployed(detector, ask["select"], height, width).eval()
    found = {}
    for file in ask["images"]:
        with Image.open(file) as image:
            rgb = image.convert("RGB")
        rgb.save(Path(ask["pngs"]) / f"{Path(file).stem}.png")
        pixels = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            boxes, logits = model(normalised(WAYS["float32"](pixels, (height, width))))
        found[Path(file).name] = detections(boxes[0].numpy(), logits[0].numpy(), ask["select"], [classes], rgb.width,
                                            rgb.height, False)
    print(json.dumps(found))


if sys.argv[1] == "tensors":
    tensors(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
elif sys.argv[1] == "tiny":
    tiny(json.loads(Path(sys.argv[2]).read_text()))
else:
    cases(Path(sys.argv[2]))
