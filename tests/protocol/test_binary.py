"""`POST .../infer` with binary tensors: what follows the JSON, in either direction."""

from pathlib import Path
from typing import Any

import httpx
import ml_dtypes
import numpy as np
import orjson
import pytest

from serving.core.datatypes import Array
from serving.core.model import TensorSpec
from serving.protocol.raw_data import encode_raw
from tests.desk import Desk, client, open_desk
from tests.story import story
from tests.versions import ScriptedModel, gives, loaded

PATH = "/v2/models/digits/infer"
ROW = np.array([[1.0, 2.0, 3.0]], np.float32)
JSON_X = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = open_desk(tmp_path)
    desk.install(loaded("2"), loaded("1"))
    return desk


def scripted(desk: Desk, *specs: tuple[str, str, tuple[int, ...]]) -> None:
    """A champion that gives back every input under the same name with `_out`."""
    version = loaded("2")
    inputs = tuple(TensorSpec(*spec) for spec in specs)
    outputs = tuple(TensorSpec(f"{spec.name}_out", spec.datatype, spec.dims) for spec in inputs)
    version.model = ScriptedModel(
        lambda arrays: {f"{name}_out": array for name, array in arrays.items()}, inputs, outputs
    )
    desk.install(version)


def binary(name: str, array: Array, datatype: str = "FP32") -> tuple[dict[str, Any], bytes]:
    raw = bytes(encode_raw(name, array))
    tensor = {"name": name, "shape": list(array.shape), "datatype": datatype}
    return tensor | {"parameters": {"binary_data_size": len(raw)}}, raw


async def post(desk: Desk, request: dict[str, Any], *raw: bytes, length: object = None) -> httpx.Response:
    head = orjson.dumps(request)
    headers = {"Inference-Header-Content-Length": str(len(head) if length is None else length)}
    async with client(desk) as http:
        return await http.post(PATH, content=b"".join((head, *raw)), headers=headers)


def outputs_of(answer: httpx.Response) -> dict[str, bytes]:
    """The bytes of each output, as a client cuts them."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers["inference-header-content-length"])
    at, found = length, {}
    for output in orjson.loads(answer.content[:length])["outputs"]:
        assert "data" not in output
        size = output["parameters"]["binary_data_size"]
        found[output["name"]] = answer.content[at : at + size]
        at += size
    assert at == len(answer.content)
    return found


@story
async def test_infer_reads_and_gives_bytes_when_asked(desk: Desk) -> None:
    """The same numbers as in JSON."""
    tensor, raw = binary("x", ROW)
    answer = await post(desk, {"inputs": [tensor], "parameters": {"binary_data_output": True}}, raw)
    assert np.frombuffer(outputs_of(answer)["y"], np.float32).tolist() == [3.0, 4.0, 5.0]


@story
async def test_infer_answers_json_when_only_the_input_was_binary(desk: Desk) -> None:
    """And the other way round; each side is asked for on its own."""
    tensor, raw = binary("x", ROW)
    answer = await post(desk, {"inputs": [tensor]}, raw)
    assert answer.json()["outputs"][0]["data"] == [3.0, 4.0, 5.0]
    assert "inference-header-content-length" not in answer.headers
    async with client(desk) as http:
        wanted = [{"name": "y", "parameters": {"binary_data": True}}]
        answer = await http.post(PATH, json={"inputs": [JSON_X], "outputs": wanted})
    assert np.frombuffer(outputs_of(answer)["y"], np.float32).tolist() == [3.0, 4.0, 5.0]


@story
async def test_tensors_follow_in_the_order_of_the_json(desk: Desk) -> None:
    """Whatever order the model names them in; what is JSON takes no bytes."""
    scripted(desk, ("a", "FP32", (-1,)), ("b", "INT64", (-1,)), ("c", "BYTES", (-1,)))
    a = {"name": "a", "shape": [1], "datatype": "FP32", "data": [0.5]}
    b, b_raw = binary("b", np.array([7, 8]), "INT64")
    c, c_raw = binary("c", np.array(["ü", ""], np.object_), "BYTES")
    wanted = [
        {"name": "c_out"},
        {"name": "a_out", "parameters": {"binary_data": False}},
        {"name": "b_out", "parameters": {"binary_data": True}},
    ]
    request = {"inputs": [c, a, b], "outputs": wanted, "parameters": {"binary_data_output": True}}
    answer = await post(desk, request, c_raw, b_raw)
    length = int(answer.headers["inference-header-content-length"])
    told = orjson.loads(answer.content[:length])["outputs"]
    assert [output["name"] for output in told] == ["c_out", "a_out", "b_out"]
    assert (told[1]["data"], "parameters" in told[1]) == ([0.5], False)
    assert answer.content[length:] == c_raw + b_raw


@pytest.mark.parametrize(
    ("datatype", "array"),
    [
        ("BOOL", np.array([True, False])),
        ("UINT8", np.array([0, 255], np.uint8)),
        ("UINT16", np.array([0, 65535], np.uint16)),
        ("UINT32", np.array([0, 2**32 - 1], np.uint32)),
        ("UINT64", np.array([0, 2**64 - 1], np.uint64)),
        ("INT8", np.array([-128, 127], np.int8)),
        ("INT16", np.array([-(2**15), 2**15 - 1], np.int16)),
        ("INT32", np.array([-(2**31), 2**31 - 1], np.int32)),
        ("INT64", np.array([-(2**63), 2**63 - 1], np.int64)),
        ("FP16", np.array([0.5, np.inf], np.float16)),
        ("FP32", np.array([0.5, np.nan], np.float32)),
        ("FP64", np.array([0.5, -np.inf], np.float64)),
        ("BF16", np.array([0.5, 3e38], ml_dtypes.bfloat16)),
        ("BYTES", np.array(["", "naïve"], np.object_)),
        ("FP32", np.empty((0,), np.float32)),
    ],
)
@story
async def test_every_datatype_passes_unchanged_as_bytes(desk: Desk, datatype: str, array: Array) -> None:
    """NaN and infinities included, and an empty tensor."""
    scripted(desk, ("t", datatype, (-1,)))
    tensor, raw = binary("t", array, datatype)
    answer = await post(desk, {"inputs": [tensor], "parameters": {"binary_data_output": True}}, raw)
    assert outputs_of(answer) == {"t_out": raw}


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
@story
async def test_half_precision_is_refused_before_execution_when_it_would_be_json(
    desk: Desk, datatype: str
) -> None:
    """As input and as output, naming the tensor and the way out."""
    scripted(desk, ("t", datatype, (-1,)))
    as_json = {"name": "t", "shape": [1], "datatype": datatype, "data": [1.0]}
    answer = await post(desk, {"inputs": [as_json], "parameters": {"binary_data_output": True}})
    assert (answer.status_code, "tensor 't': " in answer.json()["error"]) == (400, True)
    tensor, raw = binary("t", np.zeros(1, ml_dtypes.bfloat16), datatype)
    answer = await post(desk, {"inputs": [tensor]}, raw)
    assert answer.status_code == 400
    assert "tensor 't_out': " in answer.json()["error"]
    assert "binary tensors only" in answer.json()["error"]
    assert desk.counted == (0, 0)


@pytest.mark.parametrize(("asked", "status"), [(True, 200), (False, 400)])
@story
async def test_infinity_passes_in_bytes_and_not_in_json(desk: Desk, asked: bool, status: int) -> None:
    """Nobody is to blame where the caller can take it."""
    desk.install(loaded("2", gives(np.full((1, 3), np.inf, np.float32))))
    tensor, raw = binary("x", ROW)
    wanted = [{"name": "y", "parameters": {"binary_data": asked}}]
    assert (await post(desk, {"inputs": [tensor], "outputs": wanted}, raw)).status_code == status


GOOD, GOOD_RAW = binary("x", ROW)


@pytest.mark.parametrize(
    ("tensors", "raw", "length", "problem"),
    [
        pytest.param([GOOD], GOOD_RAW[:-1], None, "binary_data_size is 12, but 11 bytes", id="short"),
        pytest.param([GOOD], GOOD_RAW + b"x", None, "1 bytes follow the last binary tensor", id="long"),
        pytest.param([JSON_X], b"x", None, "1 bytes follow the last binary tensor", id="nobody-takes-it"),
        pytest.param([GOOD], GOOD_RAW, "-1", "must be a number of bytes", id="negative-header"),
        pytest.param([GOOD], GOOD_RAW, "ten", "must be a number of bytes", id="header-in-words"),
        pytest.param([GOOD], GOOD_RAW, "²", "must be a number of bytes", id="header-superscript"),
        pytest.param([GOOD], GOOD_RAW, "9" * 40, "but the body has", id="header-beyond-the-body"),
        pytest.param([GOOD], GOOD_RAW, "3", "not valid JSON", id="header-cuts-the-json"),
        pytest.param([GOOD | {"data": [1, 2, 3]}], GOOD_RAW, None, "send one of them", id="both"),
        pytest.param([GOOD | {"shape": [2, 3]}], GOOD_RAW, None, "takes 24 bytes, not 12", id="shape"),
        pytest.param([GOOD | {"shape": [10**12, 3]}], GOOD_RAW, None, "not 12", id="declared-only"),
        pytest.param(
            [GOOD | {"parameters": {"binary_data_size": -12}}], GOOD_RAW, None, "number of bytes", id="below"
        ),
        pytest.param(
            [GOOD | {"parameters": {"binary_data_size": 12.0}}], GOOD_RAW, None, "number of bytes", id="float"
        ),
        pytest.param(
            [GOOD | {"parameters": {"shared_memory_region": "r"}}], b"", None, "shared memory", id="shm"
        ),
    ],
)
@story
async def test_infer_is_refused_when_bytes_and_json_disagree(
    desk: Desk, tensors: list[Any], raw: bytes, length: str | None, problem: str
) -> None:
    """400, in one sentence."""
    head = orjson.dumps({"inputs": tensors})
    said = (str(len(head)) if length is None else length).encode()
    async with client(desk) as http:
        answer = await http.post(PATH, content=head + raw, headers={b"Inference-Header-Content-Length": said})
    assert answer.status_code == 400
    assert problem in answer.json()["error"]
    assert desk.counted == (0, 0)


@story
async def test_infer_is_refused_when_the_header_is_missing(desk: Desk) -> None:
    """The sentence names it."""
    async with client(desk) as http:
        answer = await http.post(PATH, json={"inputs": [GOOD]})
    assert answer.status_code == 400
    assert "needs the header Inference-Header-Content-Length" in answer.json()["error"]


@pytest.mark.parametrize(
    ("dims", "datatype", "raw", "shape"),
    [
        pytest.param((-1, 3), "FP32", b"\0" * 12, [1, 3], id="one-row"),
        pytest.param((-1, 3), "FP32", b"\0" * 24, [2, 3], id="two-rows"),
        pytest.param((2, 3), "UINT8", b"\0" * 6, [2, 3], id="fixed"),
        pytest.param((-1, -1), "INT16", b"\0" * 8, [1, 4], id="batch-of-one"),
        pytest.param((-1,), "BYTES", b"\xc3\xbc", [1], id="text"),
        pytest.param((-1, 1), "BYTES", b"", [1, 1], id="no-text"),
    ],
)
@story
async def test_body_without_json_is_the_one_input(
    desk: Desk, dims: tuple[int, ...], datatype: str, raw: bytes, shape: list[int]
) -> None:
    """Its shape follows from its size, and every output comes back as bytes."""
    scripted(desk, ("t", datatype, dims))
    async with client(desk) as http:
        answer = await http.post(PATH, content=raw, headers={"Inference-Header-Content-Length": "0"})
    assert outputs_of(answer)["t_out"].endswith(raw)
    length = int(answer.headers["inference-header-content-length"])
    assert orjson.loads(answer.content[:length])["outputs"][0]["shape"] == shape


@pytest.mark.parametrize(
    ("specs", "raw", "problem"),
    [
        ([("a", "FP32", (-1,)), ("b", "FP32", (-1,))], b"", "needs a model with one input"),
        ([("t", "FP32", (-1, 3))], b"\0" * 13, "takes 12 bytes, not 13"),
        ([("t", "FP32", (-1, 3))], b"\0" * 16, "takes 12 bytes, not 16"),
        ([("t", "FP32", (2, -1, -1))], b"\0" * 16, "cannot be told"),
        ([("t", "FP32", (-1, -1, -1))], b"\0" * 16, "cannot be told"),
        ([("t", "BYTES", (-1, 3))], b"abc", "one BYTES element"),
    ],
)
@story
async def test_body_without_json_is_refused_when_it_leaves_a_question_open(
    desk: Desk, specs: list[tuple[str, str, tuple[int, ...]]], raw: bytes, problem: str
) -> None:
    """400, in one sentence."""
    scripted(desk, *specs)
    async with client(desk) as http:
        answer = await http.post(PATH, content=raw, headers={"Inference-Header-Content-Length": "0"})
    assert answer.status_code == 400
    assert problem in answer.json()["error"]


@pytest.mark.parametrize(
    ("classes", "array", "want"),
    [
        (2, np.array([[0.5, 2.0, -1.0]], np.float32), [[1, 2], ["2.000000:1", "0.500000:0"]]),
        (1, np.array([[0.5, 2.0, 0.0], [3, 3, 1]], np.float32), [[2, 1], ["2.000000:1", "3.000000:0"]]),
        (9, np.array([[1.0, 2.0, 3.0]], np.float32), [[1, 3], ["3.000000:2", "2.000000:1", "1.000000:0"]]),
    ],
)
@story
async def test_output_is_ranked_when_its_classes_are_asked_for(
    desk: Desk, classes: int, array: Array, want: list[Any]
) -> None:
    """Best first, ties by index, never more than there are."""
    desk.install(loaded("2", gives(array)))
    tensor, raw = binary("x", ROW)
    wanted = [{"name": "y", "parameters": {"classification": classes}}]
    answer = await post(desk, {"inputs": [tensor], "outputs": wanted}, raw)
    [output] = answer.json()["outputs"]
    assert (output["datatype"], [output["shape"], output["data"]]) == ("BYTES", want)


@story
async def test_whole_numbers_are_ranked_as_such_and_text_not_at_all(desk: Desk) -> None:
    """As bytes too; without a batch axis over the whole output."""
    scripted(desk, ("n", "INT32", (3,)), ("s", "BYTES", (1,)))
    n, n_raw = binary("n", np.array([5, 9, 5], np.int32), "INT32")
    s, s_raw = binary("s", np.array(["a"], np.object_), "BYTES")
    wanted = {"name": "n_out", "parameters": {"classification": 2, "binary_data": True}}
    answer = await post(desk, {"inputs": [n, s], "outputs": [wanted]}, n_raw, s_raw)
    assert outputs_of(answer)["n_out"] == b"\x03\0\0\x009:1\x03\0\0\x005:0"
    text = {"name": "s_out", "parameters": {"classification": 1}}
    answer = await post(desk, {"inputs": [n, s], "outputs": [text]}, n_raw, s_raw)
    assert (answer.status_code, "no classes" in answer.json()["error"]) == (400, True)


@pytest.mark.parametrize(
    "asked",
    [
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]},
    ],
)
@story
async def test_stand_in_answers_in_binary_when_only_the_champion_is_not_finite(
    desk: Desk, asked: dict[str, Any]
) -> None:
    """NaN can be carried, but is the champion's fault; where both give it, it is passed through."""
    nan = np.full((1, 3), np.nan, np.float32)
    desk.install(loaded("2", gives(nan)), loaded("1"))
    answer = await post(desk, {"inputs": [JSON_X], **asked})
    assert np.frombuffer(outputs_of(answer)["y"], np.float32).tolist() == [2.0, 3.0, 4.0]
    assert answer.headers["x-model-variant"] == "fallback"
    assert desk.counted == (1, 1)
    desk.install(loaded("3", gives(nan)), loaded("1", gives(nan)))
    answer = await post(desk, {"inputs": [JSON_X], **asked})
    assert np.isnan(np.frombuffer(outputs_of(answer)["y"], np.float32)).all()
    assert answer.headers["x-model-variant"] == "champion"
    assert desk.counted == (2, 1)
