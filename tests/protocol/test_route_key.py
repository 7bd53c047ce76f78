"""By what a request belongs to a split, over every transport."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from serving.core.traffic import goes_to_challenger
from serving.protocol.route_key import route_key
from serving.rpc.generated import inference_pb2 as pb
from tests.mlflow_double import MlflowDouble
from tests.models import onnx_adder
from tests.rpc.line import Line, line_to
from tests.station import Station, station
from tests.story import eventually, story

TAG = json.dumps({"challenger": "2", "percent": 50})
KEYS = [str(n) for n in range(20)]
EXPECTED = ["2" if goes_to_challenger("m", key, 50) else "1" for key in KEYS]


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        pytest.param({"x-request-key": "user-7"}, "user-7", id="the-callers"),
        pytest.param({"x-request-key": "user-7", "x-request-id": "abc"}, "user-7", id="before-the-id"),
        pytest.param({}, "made-here", id="our-own-id"),
        pytest.param({"x-request-key": ""}, "made-here", id="empty"),
    ],
)
def test_key_is_the_callers_or_an_id_of_our_own(headers: dict[str, str], key: str) -> None:
    assert route_key(headers, "made-here") == key


def test_key_is_new_each_time_when_the_caller_sets_the_request_id() -> None:
    """A client that sends one id for all would send all one way."""
    keys = {route_key({"x-request-id": "same"}, "same") for _ in range(10)}
    assert len(keys) == 10
    assert "same" not in keys


async def over_rest(server: Station, line: Line, key: str) -> str:
    answer = await server.infer(headers={"x-request-key": key})
    return str(answer.headers["x-model-version"])


async def over_scoring(server: Station, line: Line, key: str) -> str:
    body = {"inputs": [[1.0, 2.0, 3.0]]}
    answer = await server.http.post("/invocations", json=body, headers={"x-request-key": key})
    return str(answer.headers["x-model-version"])


def message() -> pb.ModelInferRequest:
    contents = pb.InferTensorContents(fp32_contents=[1.0, 2.0, 3.0])
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 3], contents=contents)
    return pb.ModelInferRequest(model_name="m", inputs=[tensor])


async def over_grpc(server: Station, line: Line, key: str) -> str:
    answer = await line.send("ModelInfer", message(), (("x-request-key", key),))
    return str(answer.model_version)


async def over_grpc_stream(server: Station, line: Line, key: str) -> str:
    """Every message of a stream has the stream's key."""
    answers = await line.stream([message(), message()], (("x-request-key", key),))
    [version] = {str(answer.infer_response.model_version) for answer in answers}
    return version


@pytest.mark.parametrize("ask", [over_rest, over_scoring, over_grpc, over_grpc_stream])
@story
async def test_every_transport_splits_by_the_same_key(
    home: Path,
    double: MlflowDouble,
    tmp_path: Path,
    ask: Callable[[Station, Line, str], Awaitable[str]],
) -> None:
    """A user meets one version whichever client is used."""
    double.add("m", *[onnx_adder(tmp_path / "models" / str(n), float(n)) for n in (1, 2)])
    double.point("m", "1")
    double.point("m", "2", "challenger")
    double.models["m"].tags["signalbox.traffic"] = TAG
    async with station(home, double) as server, line_to(server) as line:

        async def is_divided() -> bool:
            answer = await server.infer(headers={"x-request-key": KEYS[EXPECTED.index("2")]})
            return bool(answer.headers.get("x-model-version") == "2")

        await eventually(is_divided, "the split")
        assert [await ask(server, line, key) for key in KEYS] == EXPECTED
