"""The protocol itself. Source: Open Inference Protocol v2, `inference_rest.md`."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tests.conformance.case import Chapter, NotApplicable, check_refused
from tests.conformance.target import DATATYPES, Target, close, read_outputs

health = Chapter("OIP REST, Health", 1)
metadata = Chapter("OIP REST, Metadata", 11)
inference = Chapter("OIP REST, Inference", 21)

NOWHERE = "/v2/models/no-such-model-8f3a"


@health.case("server is live", "Server Live API")
def live(target: Target) -> None:
    answer = target.http.get("/v2/health/live")
    assert answer.status_code == 200, answer.status_code


@health.case("server is ready", "Server Ready API")
def ready(target: Target) -> None:
    answer = target.http.get("/v2/health/ready")
    assert answer.status_code == 200, answer.status_code


@health.case("live and ready answer in JSON", "Server Live Response JSON Object")
def health_in_json(target: Target) -> None:
    assert target.http.get("/v2/health/live").json().get("live") is True
    told = target.http.get("/v2/health/ready").json()
    assert told.get("ready", told.get("live")) is True, told


@health.case("model is ready", "Model Ready API")
def model_ready(target: Target) -> None:
    answer = target.http.get(f"{target.path}/ready")
    assert answer.status_code == 200, answer.status_code
    for version in target.versions:
        answer = target.http.get(f"{target.path}/versions/{version}/ready")
        assert answer.status_code == 200, f"version {version}: {answer.status_code}"


@health.case("model ready names the model", "Model Ready Response JSON Object")
def model_ready_in_json(target: Target) -> None:
    told = target.http.get(f"{target.path}/ready").json()
    assert (told["name"], told["ready"]) == (target.model, True)


@health.case("unknown model is not ready", "Model Ready API")
def unknown_not_ready(target: Target) -> None:
    assert target.http.get(f"{NOWHERE}/ready").status_code != 200


@metadata.case("server tells name, version and extensions", "Server Metadata Response JSON Object")
def server(target: Target) -> None:
    told = target.http.get("/v2").json()
    assert isinstance(told["name"], str)
    assert isinstance(told["version"], str)
    assert all(isinstance(name, str) for name in told["extensions"])


@metadata.case("server metadata with a last slash", "open_inference_rest.yaml, path /v2/")
def server_with_slash(target: Target) -> None:
    answer = target.http.get("/v2/", follow_redirects=True)
    assert answer.status_code == 200, answer.status_code
    assert answer.json()["name"] == target.http.get("/v2").json()["name"]


@metadata.case("model tells name, platform, inputs and outputs", "Model Metadata Response JSON Object")
def model(target: Target) -> None:
    told = target.metadata
    assert told["name"] == target.model
    assert isinstance(told["platform"], str)
    assert told["inputs"], "no inputs"
    assert told["outputs"], "no outputs"


@metadata.case("tensors have a known datatype and a shape of integers", "Tensor Metadata")
def tensors(target: Target) -> None:
    for tensor in [*target.metadata["inputs"], *target.metadata["outputs"]]:
        assert isinstance(tensor["name"], str), tensor
        assert tensor["datatype"] in DATATYPES, tensor
        assert all(type(length) is int and length >= -1 for length in tensor["shape"]), tensor


@metadata.case("every listed version has metadata", "Model Metadata API")
def versions(target: Target) -> None:
    if not target.versions:
        raise NotApplicable("the server lists no versions")
    for version in target.versions:
        answer = target.http.get(f"{target.path}/versions/{version}")
        assert answer.status_code == 200, f"version {version}: {answer.status_code}"
        assert answer.json()["name"] == target.model


@metadata.case("unknown model is an error object", "Model Metadata Response JSON Error Object")
def unknown_metadata(target: Target) -> None:
    check_refused(target.http.get(NOWHERE))


@inference.case("request is answered with its outputs", "Inference Response JSON Object")
def infer(target: Target) -> None:
    answer = target.post(target.request())
    assert answer.status_code == 200, f"{answer.status_code} {answer.text[:200]}"
    assert answer.headers["content-type"].startswith("application/json")
    told = answer.json()
    assert told["model_name"] == target.model
    assert isinstance(told.get("model_version", ""), str)
    for output in told["outputs"]:
        assert output["datatype"] in DATATYPES, output
        assert np.asarray(output["data"], np.object_).size == int(np.prod(output["shape"])), output


@inference.case("outputs are those of the metadata", "Model Metadata and Inference Response")
def outputs_as_declared(target: Target) -> None:
    declared = {entry["name"]: entry for entry in target.metadata["outputs"]}
    for output in target.infer(target.request())["outputs"]:
        entry = declared[output["name"]]
        assert output["datatype"] == entry["datatype"], output["name"]
        fits = [want in (-1, got) for want, got in zip(entry["shape"], output["shape"], strict=True)]
        assert all(fits), (output["name"], output["shape"], entry["shape"])


@inference.case("nested data means what flat data means", "Tensor Data")
def nested(target: Target) -> None:
    assert close(target.outputs(target.request(nested=True)), target.outputs(target.request()))


@inference.case("id is echoed", "Inference Response JSON Object, id")
def request_id(target: Target) -> None:
    told = target.infer(target.request() | {"id": "conformance-42"})
    assert told.get("id") == "conformance-42", told.get("id")


@inference.case("only requested outputs are given", "Inference Request JSON Object, outputs")
def requested_outputs(target: Target) -> None:
    whole = target.outputs(target.request())
    for name in target.output_names:
        asked = target.outputs(target.request() | {"outputs": [{"name": name}]})
        assert close(asked, {name: whole[name]}), name


@inference.case("unknown parameters do no harm", "Parameters")
def parameters(target: Target) -> None:
    extra = {"parameters": {"a_string": "x", "a_number": 1, "a_boolean": True}}
    assert close(target.outputs(target.request() | extra), target.outputs(target.request()))


@inference.case("every listed version answers for itself", "Inference, versions")
def by_version(target: Target) -> None:
    if not target.versions:
        raise NotApplicable("the server lists no versions")
    for version in target.versions:
        told = target.infer(target.request(), version=version)
        assert told.get("model_version", version) == version, told.get("model_version")


@inference.case("same request has the same answer", "Inference")
def repeated(target: Target) -> None:
    assert close(target.outputs(target.request(seed=3)), target.outputs(target.request(seed=3)))


@inference.case("a batch is its rows", "Inference, first axis")
def batch(target: Target) -> None:
    if not target.has_batch:
        raise NotApplicable("the model has no free first axis")
    arrays = target.arrays(seed=2, rows=3)
    whole = target.outputs({"inputs": [target.as_json(name, array) for name, array in arrays.items()]})
    rows = []
    for at in range(3):
        tensors = [target.as_json(name, array[at : at + 1]) for name, array in arrays.items()]
        rows.append(target.outputs({"inputs": tensors}))
    joined = {name: np.concatenate([row[name] for row in rows]) for name in whole}
    assert close(whole, joined)


@inference.case("requests at once get their own answers", "Inference")
def concurrent(target: Target) -> None:
    wanted = {seed: target.outputs(target.request(seed=seed)) for seed in range(8)}
    with ThreadPoolExecutor(8) as threads:
        seeds = [seed for seed in range(8) for _ in range(4)]
        answers = threads.map(lambda seed: (seed, target.outputs(target.request(seed=seed))), seeds)
        assert all(close(outputs, wanted[seed]) for seed, outputs in answers)


def changed(target: Target, **changes: Any) -> dict[str, Any]:
    """A good request whose first input was changed."""
    request = target.request()
    request["inputs"][0] |= changes
    return request


@inference.case("unknown model is refused", "Inference Response JSON Error Object")
def unknown_model(target: Target) -> None:
    check_refused(target.http.post(f"{NOWHERE}/infer", json=target.request()))


@inference.case("unknown version is refused", "Inference Response JSON Error Object")
def unknown_version(target: Target) -> None:
    check_refused(target.post(target.request(), version="987654"))


@inference.case("missing input is refused", "Inference Request JSON Object, inputs")
def missing_input(target: Target) -> None:
    request = target.request()
    check_refused(target.post({"inputs": request["inputs"][1:]}))


@inference.case("unknown input is refused", "Inference Request JSON Object, inputs")
def unknown_input(target: Target) -> None:
    check_refused(target.post(changed(target, name="no-such-input")))


@inference.case("unknown output is refused", "Inference Request JSON Object, outputs")
def unknown_output(target: Target) -> None:
    check_refused(target.post(target.request() | {"outputs": [{"name": "no-such-output"}]}))


@inference.case("data that does not fill its shape is refused", "Tensor Data")
def short_data(target: Target) -> None:
    data = target.request()["inputs"][0]["data"]
    check_refused(target.post(changed(target, data=data[:-1])))
    check_refused(target.post(changed(target, data=[*data, data[0]])))


@inference.case("shape the model cannot take is refused", "Request Input, shape")
def wrong_shape(target: Target) -> None:
    shape = target.request()["inputs"][0]["shape"]
    check_refused(target.post(changed(target, shape=[*shape, 1, 1])))


@inference.case("unknown datatype is refused", "Request Input, datatype")
def unknown_datatype(target: Target) -> None:
    check_refused(target.post(changed(target, datatype="FP31")))


@inference.case("negative length is refused", "Request Input, shape")
def negative_length(target: Target) -> None:
    shape = target.request()["inputs"][0]["shape"]
    check_refused(target.post(changed(target, shape=[-1, *shape[1:]])))


@inference.case("text in a numeric tensor is refused", "Tensor Data")
def text_for_numbers(target: Target) -> None:
    if target.inputs[0].datatype == "BYTES":
        raise NotApplicable("the first input is text")
    data = target.request()["inputs"][0]["data"]
    check_refused(target.post(changed(target, data=["not a number", *data[1:]])))


@inference.case("null in a tensor is refused", "Tensor Data")
def null_in_data(target: Target) -> None:
    data = target.request()["inputs"][0]["data"]
    check_refused(target.post(changed(target, data=[None, *data[1:]])))


@inference.case("body without inputs is refused", "Inference Request JSON Object")
def no_inputs(target: Target) -> None:
    check_refused(target.post({}))


@inference.case("body that is no JSON is refused", "Inference Request JSON Object")
def no_json(target: Target) -> None:
    for body in (b"", b"{", b"[]", b"\xff", b"[" * 5000):
        check_refused(target.post(body, headers={"Content-Type": "application/json"}))


@inference.case("wrong method is refused", "Inference, POST")
def wrong_method(target: Target) -> None:
    answer = target.http.get(f"{target.path}/infer")
    assert 400 <= answer.status_code < 500, answer.status_code


@inference.case("server still answers after all of this", "Health")
def still_answers(target: Target) -> None:
    assert read_outputs(target.infer(target.request()))


CHAPTERS = (health, metadata, inference)
