"""Asks a server as its users do: with tritonclient, KServe's SDK and supervision.

    clients.py URL MODEL VERSION IMAGE [TOKEN]

It prints one line of JSON with what each client has got, for the test beside it.
"""
import asyncio
import base64
import json
import sys
import urllib.request
import warnings

import numpy as np

warnings.filterwarnings("ignore", message="OpenCV")

import tritonclient.http as triton
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
import supervision

url, model, version, image, *token = sys.argv[1:]


def headers():  # a new one for each call, because the clients write into it
    return {"Authorization": "Bearer " + token[0]} if token else {}


result = {}


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())


# Triton's client: binary in and out, JSON in and out, and what is refused.
client = triton.InferenceServerClient(url.removeprefix("http://"))
assert client.is_server_live(headers=headers()) and client.is_server_ready(headers=headers())
assert client.is_model_ready(model, headers=headers()) and client.is_model_ready(model, version, headers=headers())
assert not client.is_model_ready("other", headers=headers())
assert "binary_tensor_data" in client.get_server_metadata(headers=headers())["extensions"]
facts = client.get_model_metadata(model, version, headers=headers())
shape = [1] + facts["inputs"][0]["shape"][1:]
rng = np.random.default_rng(7)
pixels = rng.standard_normal(shape, dtype=np.float32)
name, outputs = facts["inputs"][0]["name"], [o["name"] for o in facts["outputs"]]


def ask(binary_in, asked, data=pixels, **more):
    tensor = triton.InferInput(name, list(data.shape), "FP32")
    tensor.set_data_from_numpy(data, binary_data=binary_in)
    return client.infer(model, [tensor], outputs=asked, headers=headers(), **more)


want = ask(True, None, request_id="seven")
assert want.get_response()["id"] == "seven" and want.get_response()["model_version"] == version
arrays = [want.as_numpy(o) for o in outputs]
for binary_in in (True, False):
    for binary_out in (True, False):
        got = ask(binary_in, [triton.InferRequestedOutput(o, binary_data=binary_out) for o in outputs])
        assert all(same(got.as_numpy(o), a) for o, a in zip(outputs, arrays)), (binary_in, binary_out)
one = ask(True, [triton.InferRequestedOutput(outputs[1])], model_version=version)
assert same(one.as_numpy(outputs[1]), arrays[1]) and one.as_numpy(outputs[0]) is None
tensor = triton.InferInput(name, shape, "FP32").set_data_from_numpy(pixels)
waiting = [client.async_infer(model, [tensor], headers=headers()) for _ in range(4)]
assert all(same(w.get_result().as_numpy(outputs[0]), arrays[0]) for w in waiting)
refused = []
for data, more in ((pixels[:, :, :-1], {}), (pixels, {"sequence_id": 5}),
                   (pixels, {"request_compression_algorithm": "gzip"})):
    try:
        ask(True, None, data, **more)
    except Exception as e:
        refused.append(str(e))
bad = pixels.copy()
bad[0, 0, 0, 0] = np.nan
try:
    ask(True, None, bad)
except Exception as e:
    refused.append(str(e))
result["triton"] = {"shapes": [list(a.shape) for a in arrays], "refused": refused}


# KServe's SDK.
async def kserve():
    async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=60)) as k:
        assert await k.is_server_live(url, headers()) and await k.is_server_ready(url, headers())
        assert await k.is_model_ready(url, model, headers()) and not await k.is_model_ready(url, "other", headers())
        for binary in (True, False):
            tensor = InferInput(name, shape, "FP32")
            tensor.set_data_from_numpy(pixels, binary_data=binary)
            asked = [RequestedOutput(o, {"binary_data": binary}) for o in outputs]
            got = await k.infer(url, InferRequest(model, [tensor], request_outputs=asked), model, headers())
            for o, a in zip(outputs, arrays):
                assert same(next(x for x in got.outputs if x.name == o).as_numpy().reshape(a.shape), a), (binary, o)
        try:
            await k.infer(url, {"inputs": []}, model, headers())
        except Exception as e:
            return {"refused": [str(e)]}

result["kserve"] = asyncio.run(kserve())


# Roboflow's answers, read by supervision.
def post(path, body, kind):
    request = urllib.request.Request(url + path, body, {"Content-Type": kind, **headers()})
    return json.load(urllib.request.urlopen(request))


with open(image, "rb") as f:
    data = f.read()
text = base64.b64encode(data)
body = {"model_id": f"{model}/{version}", "image": {"type": "base64", "value": text.decode()}, "confidence": 0.1}
answer = post("/infer/object_detection", json.dumps(body).encode(), "application/json")
old = post(f"/{model}/{version}?confidence=10", text, "application/x-www-form-urlencoded")
listed = post("/infer/object_detection", json.dumps({**body, "image": [body["image"]] * 2}).encode(),
              "application/json")
plain = post("/v1/detect?confidence=0.1", data, "image/jpeg")
found = supervision.Detections.from_inference(answer)
assert len(listed) == 2
for other in (old, *listed):
    again = supervision.Detections.from_inference(other)
    assert same(again.xyxy, found.xyxy) and same(again.confidence, found.confidence)
    assert list(again.class_id) == list(found.class_id)
assert np.allclose(found.xyxy, [[d["left"], d["top"], d["left"] + d["width"], d["top"] + d["height"]]
                                for d in plain["detections"]], atol=1e-9)
result["supervision"] = {"xyxy": found.xyxy.tolist(), "confidence": found.confidence.tolist(),
                         "class": found.data["class_name"].tolist(), "class_id": found.class_id.tolist()}
print(json.dumps(result))
