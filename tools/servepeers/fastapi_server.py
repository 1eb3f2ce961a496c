"""The usual Python detection service: FastAPI and uvicorn, Pillow, NumPy and ONNX Runtime.

    python fastapi_server.py BUNDLE PORT THREADS
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, Request
from PIL import Image
from starlette.concurrency import run_in_threadpool

bundle, port, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
signature = json.loads((bundle / "signature.json").read_text())
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(bundle / "model.onnx", options, providers=["CPUExecutionProvider"])
means = np.array(signature["means"], np.float32)
stds = np.array(signature["stds"], np.float32)
slots = signature["slots"]
app = FastAPI()


def detect(body: bytes, confidence: float):
    image = Image.open(io.BytesIO(body)).convert("RGB")
    width, height = image.size
    small = image.resize((signature["width"], signature["height"]), Image.BILINEAR)
    pixels = (np.asarray(small, np.float32) / 255 - means) / stds
    outputs = session.run([signature["boxes"], signature["logits"]],
                          {signature["input"]: np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])})
    boxes, logits = outputs[0][0], outputs[1][0]
    scores = 1 / (1 + np.exp(-logits))
    flat = scores.ravel()
    found = []
    for i in np.argsort(-flat, kind="stable")[: signature["select"]]:
        if flat[i] < confidence:
            break
        query, slot = divmod(int(i), len(slots))
        if slot == signature["background"] or not slots[slot]:
            continue
        cx, cy, w, h = boxes[query].tolist()
        found.append({"class": slots[slot], "score": float(flat[i]), "x": (cx - w / 2) * width,
                      "y": (cy - h / 2) * height, "w": w * width, "h": h * height})
    return {"width": width, "height": height, "boxes": found}


@app.post("/v1/detect")
async def endpoint(request: Request, confidence: float = 0.4):
    body = await request.body()
    return await run_in_threadpool(detect, body, confidence)


@app.get("/readyz")
def ready():
    return {"ok": True}


uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)
