"""P3: one picture of 3×224×224 per request, as binary tensor and as JSON, beside the bare session.

Twice: with a picture network as people serve them, which is what the target means; and with one that
computes next to nothing, where all that is left is what carrying a picture costs.
"""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
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
# What a version has on a session of one thread: so many executions go on at once.
_THREADS = 2
_FLOOR_RUNS = 200


def tensors(place: Ground, *, seconds: float, repeats: int) -> list[Row]:
    real = _of(place, "mobilenet", "MobileNet", seconds, repeats)
    empty = _of(place, "image", "a network that computes almost nothing", seconds, repeats)
    return [*real, *empty]


def _of(place: Ground, recipe: str, name: str, seconds: float, repeats: int) -> list[Row]:
    model = place.registry.model(recipe, prefix=recipe)
    model.point("1")
    picture = np.random.default_rng(7).random((1, *IMAGE), np.float32)
    [file] = model.files("1").rglob("*.onnx")
    session = _session(str(file))
    found: dict[str, list[float]] = {"binary": [], "json": [], "alone": [], "bare": [], "bare alone": []}
    with place.serving(f"tensors-{recipe}", model.name) as serving:
        url = f"{serving.url}/v2/models/{model.name}/infer"
        ways = {"binary": _binary(picture), "json": _json(picture)}
        for _ in range(repeats):
            for way, (body, headers) in ways.items():
                load = wrk.load(url, body, connections=_CONNECTIONS, seconds=seconds, headers=headers)
                found[way].append(_answered(load).requests_per_second)
            found["bare"].append(_bare_ms(session, picture, _THREADS))
            body, headers = ways["binary"]
            alone = wrk.load(url, body, connections=1, seconds=seconds, headers=headers)
            found["alone"].append(_answered(alone).p50_ms)
            found["bare alone"].append(_bare_ms(session, picture, 1))
    return _rows(f"3×224×224, {name}", found)


def _rows(what: str, found: Mapping[str, list[float]]) -> list[Row]:
    each_ms = [1000 / rate for rate in found["binary"]]
    busy, floor = f"{what}, {_CONNECTIONS} connections", "against session and copy on"
    return [
        at_least("P3", f"{busy}: binary against JSON", found["binary"], found["json"], 3.0, "req/s"),
        at_most("P3", f"{busy}: time each, {floor} {_THREADS} threads", each_ms, found["bare"], 1.5, "ms"),
        at_most(
            "P3", f"{what}, alone: p50, {floor} one thread", found["alone"], found["bare alone"], 1.5, "ms"
        ),
    ]


def _answered(load: wrk.Load) -> wrk.Load:
    if load.failed:
        raise RuntimeError(f"{load.failed} requests failed")
    return load


def _json(picture: Array) -> tuple[bytes, dict[str, str]]:
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, *IMAGE], "data": picture.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode(), {}


def _binary(picture: Array) -> tuple[bytes, dict[str, str]]:
    parameters = {"binary_data_size": picture.nbytes}
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, *IMAGE], "parameters": parameters}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    return head + picture.tobytes(), headers


def _session(path: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, sess_options=options, providers=["CPUExecutionProvider"])


def _bare_ms(session: onnxruntime.InferenceSession, picture: Array, threads: int) -> float:
    """The time from one answer to the next where each takes an execution and one copy of the picture."""

    def run(_: int) -> float:
        started = perf_counter()
        session.run(None, {"image": np.copy(picture)})
        return (perf_counter() - started) * 1000

    with ThreadPoolExecutor(threads) as pool:
        return median(pool.map(run, range(_FLOOR_RUNS * threads))) / threads
