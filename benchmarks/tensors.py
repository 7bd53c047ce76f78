"""P3: one picture of 3×224×224 per request, as binary tensor and as JSON, beside the bare session."""

import json
from statistics import median
from time import perf_counter

import numpy as np
import onnxruntime

from benchmarks import wrk
from benchmarks.ground import Ground
from benchmarks.models import IMAGE
from benchmarks.row import Row, at_least, at_most
from serving.core.datatypes import Array

_CONNECTIONS = 8


def tensors(place: Ground, *, seconds: float, repeats: int) -> list[Row]:
    model = place.registry.model("image", prefix="image")
    model.point("1")
    picture = np.random.default_rng(7).random((1, *IMAGE), np.float32)
    with place.serving("tensors", model.name) as serving:
        url = f"{serving.url}/v2/models/{model.name}/infer"
        told, binary = _json(picture), _binary(picture)
        rates: dict[str, list[float]] = {"binary": [], "json": []}
        alone: list[float] = []
        for _ in range(repeats):
            for name, (body, headers) in {"binary": binary, "json": told}.items():
                load = wrk.load(url, body, connections=_CONNECTIONS, seconds=seconds, headers=headers)
                rates[name].append(load.requests_per_second)
            alone.append(wrk.load(url, binary[0], connections=1, seconds=2, headers=binary[1]).p50_ms)
    [file] = model.files("1").rglob("*.onnx")
    floor = [_floor_ms(str(file), picture) for _ in range(repeats)]
    what = f"3×224×224, {_CONNECTIONS} connections"
    return [
        at_least("P3", f"{what}: binary against JSON", rates["binary"], rates["json"], 3.0, "req/s"),
        at_most("P3", "3×224×224 alone: against session and copy", alone, floor, 1.5, "ms"),
    ]


def _json(picture: Array) -> tuple[bytes, dict[str, str]]:
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, *IMAGE], "data": picture.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode(), {}


def _binary(picture: Array) -> tuple[bytes, dict[str, str]]:
    parameters = {"binary_data_size": picture.nbytes}
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, *IMAGE], "parameters": parameters}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    return head + picture.tobytes(), headers


def _floor_ms(path: str, picture: Array) -> float:
    """The bare session on one thread, and one copy of the picture."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, sess_options=options, providers=["CPUExecutionProvider"])
    times = []
    for _ in range(200):
        started = perf_counter()
        session.run(None, {"image": np.copy(picture)})
        times.append((perf_counter() - started) * 1000)
    return median(times)
