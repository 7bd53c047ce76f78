"""The extensions a server may name in its metadata. Source: Triton's `docs/protocol`."""

import gzip
import zlib
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import orjson

from tests.conformance.case import Chapter, NotApplicable, check_refused
from tests.conformance.target import DTYPES, Array, Target, close, raw_of, read_tensor

binary = Chapter("extension_binary_data", 61, "binary_tensor_data")
repository = Chapter("extension_model_repository", 81, "model_repository")
statistics = Chapter("extension_statistics", 86, "statistics")
configuration = Chapter("extension_model_configuration", 91, "model_configuration")
classification = Chapter("extension_classification", 96, "classification")

JSON_BYTES = "Inference-Header-Content-Length"
ALL_BINARY = {"parameters": {"binary_data_output": True}}


def binary_body(target: Target, names: Sequence[str] = (), **more: Any) -> tuple[bytes, int]:
    """A request whose inputs (those of `names`, else all) are bytes, and the length of its JSON."""
    tensors, raw = [], b""
    for name, array in target.arrays().items():
        if names and name not in names:
            tensors.append(target.as_json(name, array))
            continue
        tensor = target.described(name, array)
        content = raw_of(tensor["datatype"], array)
        tensors.append(tensor | {"parameters": {"binary_data_size": len(content)}})
        raw += content
    head = orjson.dumps({"inputs": tensors, **more})
    return head + raw, len(head)


def send(target: Target, body: bytes, json_bytes: int, **headers: str) -> httpx.Response:
    return target.post(body, headers={JSON_BYTES: str(json_bytes), **headers})


def read_binary(answer: httpx.Response) -> dict[str, Array]:
    """Arrays by name from an answer that may hold bytes."""
    assert answer.status_code == 200, f"{answer.status_code} {answer.text[:300]}"
    length = int(answer.headers.get(JSON_BYTES, len(answer.content)))
    at, arrays = length, {}
    for output in orjson.loads(answer.content[:length])["outputs"]:
        size = (output.get("parameters") or {}).get("binary_data_size")
        if size is None:
            arrays[output["name"]] = read_tensor(output)
            continue
        raw, at = answer.content[at : at + size], at + size
        arrays[output["name"]] = _array(output, raw)
    assert at == len(answer.content), f"{len(answer.content) - at} bytes are left"
    return arrays


def _array(output: dict[str, Any], raw: bytes) -> Array:
    if output["datatype"] != "BYTES":
        return np.frombuffer(raw, DTYPES[output["datatype"]]).reshape(output["shape"])
    texts, at = [], 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        texts.append(raw[at + 4 : end].decode())
        at = end
    return np.array(texts, np.object_).reshape(output["shape"])


@binary.case("binary inputs mean what JSON inputs mean", "Binary Tensor Request")
def binary_inputs(target: Target) -> None:
    assert close(read_binary(send(target, *binary_body(target))), target.outputs(target.request()))


@binary.case("all outputs are binary when asked for", "binary_data_output")
def binary_outputs(target: Target) -> None:
    answer = send(target, *binary_body(target, parameters={"binary_data_output": True}))
    assert JSON_BYTES in answer.headers
    assert close(read_binary(answer), target.outputs(target.request()))


@binary.case("one output is binary when it asks", "binary_data")
def binary_output(target: Target) -> None:
    name = target.output_names[0]
    wanted = {"outputs": [{"name": name, "parameters": {"binary_data": True}}]}
    answer = target.post(target.request() | wanted)
    assert JSON_BYTES in answer.headers
    assert read_binary(answer).keys() == {name}


@binary.case("an output's own wish outranks the request's", "binary_data_output")
def own_wish(target: Target) -> None:
    wanted = [{"name": name, "parameters": {"binary_data": False}} for name in target.output_names]
    answer = target.post(target.request() | ALL_BINARY | {"outputs": wanted})
    assert JSON_BYTES not in answer.headers
    assert all("data" in output for output in answer.json()["outputs"])


@binary.case("binary and JSON inputs mix", "Binary Tensor Request")
def mixed(target: Target) -> None:
    if len(target.inputs) < 2:
        raise NotApplicable("the model has one input")
    body = binary_body(target, names=[target.inputs[-1].name])
    assert close(read_binary(send(target, *body)), target.outputs(target.request()))


@binary.case("fewer bytes than announced are refused", "binary_data_size")
def cut_short(target: Target) -> None:
    body, json_bytes = binary_body(target)
    check_refused(send(target, body[:-1], json_bytes))


@binary.case("JSON longer than the body is refused", JSON_BYTES)
def too_long_header(target: Target) -> None:
    body, _ = binary_body(target)
    check_refused(send(target, body, len(body) + 1))
    check_refused(target.post(body, headers={JSON_BYTES: "many"}))


@binary.case("bytes that do not fill the shape are refused", "binary_data_size")
def wrong_size(target: Target) -> None:
    name, array = next(iter(target.arrays().items()))
    tensor = target.described(name, array)
    raw = raw_of(tensor["datatype"], array)[:-1]
    tensors = [tensor | {"parameters": {"binary_data_size": len(raw)}}]
    tensors += [entry for entry in target.request()["inputs"] if entry["name"] != name]
    head = orjson.dumps({"inputs": tensors})
    check_refused(send(target, head + raw, len(head)))


@binary.case("body without JSON is the only input", "Raw Binary Request")
def raw_binary(target: Target) -> None:
    if len(target.inputs) != 1 or target.inputs[0].shape.count(-1) > 1:
        raise NotApplicable("needs a model with one input and at most one free axis")
    [array] = target.arrays().values()
    if target.inputs[0].datatype == "BYTES":
        raise NotApplicable("needs a numeric input")
    answer = send(target, array.tobytes(), 0)
    assert JSON_BYTES in answer.headers
    assert close(read_binary(answer), target.outputs(target.request()))


@binary.case("compressed requests are read", "Compression")
def compressed_request(target: Target) -> None:
    body, json_bytes = binary_body(target)
    for encoding, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
        answer = send(target, packed, json_bytes, **{"Content-Encoding": encoding})
        assert close(read_binary(answer), target.outputs(target.request())), encoding


@binary.case("body that is not what its encoding says is refused", "Compression")
def broken_compression(target: Target) -> None:
    body, json_bytes = binary_body(target)
    check_refused(send(target, body, json_bytes, **{"Content-Encoding": "gzip"}))


@repository.case("index lists the model and its state", "Index")
def index(target: Target) -> None:
    answer = target.http.post("/v2/repository/index")
    assert answer.status_code == 200, answer.status_code
    states = {entry["state"] for entry in answer.json() if entry["name"] == target.model}
    assert "READY" in states, states


@repository.case("index can be limited to what is ready", "Index, ready")
def ready_index(target: Target) -> None:
    answer = target.http.post("/v2/repository/index", json={"ready": True})
    assert {entry.get("state", "READY") for entry in answer.json()} == {"READY"}


@repository.case("load of a loaded model leaves it ready", "Load")
def load(target: Target) -> None:
    answer = target.http.post(f"/v2/repository/models/{target.model}/load", json={})
    if answer.status_code in (401, 403):
        raise NotApplicable("the server wants a key for it: give --key")
    assert answer.status_code == 200, f"{answer.status_code} {answer.text[:200]}"
    assert target.http.get(f"{target.path}/ready").status_code == 200


@repository.case("load of an unknown model is refused", "Load")
def load_unknown(target: Target) -> None:
    answer = target.http.post("/v2/repository/models/no-such-model-8f3a/load", json={})
    check_refused(answer)


def counted(target: Target, place: str = "") -> dict[str, int]:
    """Successes by version."""
    answer = target.http.get(f"{target.path}{place}/stats")
    assert answer.status_code == 200, answer.status_code
    return {
        entry["version"]: int(entry["inference_stats"]["success"]["count"])
        for entry in answer.json()["model_stats"]
        if entry["name"] == target.model
    }


@statistics.case("an answer is counted once", "Statistics Response JSON Object")
def one_more(target: Target) -> None:
    version = str(target.infer(target.request()).get("model_version", target.versions[-1]))
    before = counted(target)[version]
    target.infer(target.request())
    # Servers probe themselves; the count may have grown by more, never by less.
    assert counted(target)[version] > before


@statistics.case("statistics are given by version and of all", "Statistics, URL")
def every_place(target: Target) -> None:
    for version in target.versions:
        assert counted(target, f"/versions/{version}").keys() == {version}
    answer = target.http.get("/v2/models/stats")
    assert target.model in {entry["name"] for entry in answer.json()["model_stats"]}


@statistics.case("times are counts and nanoseconds", "duration_stat")
def durations(target: Target) -> None:
    for entry in target.http.get(f"{target.path}/stats").json()["model_stats"]:
        for part in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
            assert entry["inference_stats"][part].keys() == {"count", "ns"}, part
        assert isinstance(entry["last_inference"], int)


@configuration.case("configuration names tensors and their types", "Model Configuration")
def config(target: Target) -> None:
    told = target.http.get(f"{target.path}/config").json()
    assert told["name"] == target.model
    assert isinstance(told["max_batch_size"], int)
    names = {entry["name"] for entry in told["input"]}
    assert names == {tensor.name for tensor in target.inputs}
    for tensor in [*told["input"], *told["output"]]:
        assert tensor["data_type"].startswith("TYPE_"), tensor


@configuration.case("configuration agrees with the metadata", "max_batch_size, dims")
def config_agrees(target: Target) -> None:
    told = target.http.get(f"{target.path}/config").json()
    batch = [-1] if told["max_batch_size"] > 0 else []
    declared = {entry["name"]: entry["shape"] for entry in target.metadata["inputs"]}
    for entry in told["input"]:
        assert batch + [int(length) for length in entry["dims"]] == declared[entry["name"]], entry


@classification.case("classes are ranked, best first", "Classification Request")
def classes(target: Target) -> None:
    whole = target.outputs(target.request())
    name = target.output_names[0]
    if whole[name].dtype == np.object_ or whole[name].size < 2:
        raise NotApplicable("the first output has nothing to rank")
    wanted = {"outputs": [{"name": name, "parameters": {"classification": 2}}]}
    [output] = target.infer(target.request() | wanted)["outputs"]
    assert output["datatype"] == "BYTES"
    values = [float(text.split(":")[0]) for text in np.ravel(output["data"])[:2]]
    assert values == sorted(values, reverse=True), output["data"]
    first, index_ = np.ravel(output["data"])[0].split(":")[:2]
    row = whole[name].reshape(whole[name].shape[0], -1)[0] if whole[name].ndim > 1 else whole[name]
    assert abs(float(first) - float(row[int(index_)])) < 1e-3


CHAPTERS = (binary, repository, statistics, configuration, classification)
