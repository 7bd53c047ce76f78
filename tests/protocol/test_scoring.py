"""`POST /invocations`: MLflow's forms in, MLflow's shapes out, and its refusals in our one form."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from serving.core.datatypes import Array
from serving.core.model import Format, TensorSpec
from serving.formats.artifact import Artifact
from serving.pool import LoadedVersion
from tests.desk import Desk, client, open_desk
from tests.story import story
from tests.versions import ScriptedModel, gives, loaded

ROWS = [[1, 2, 3], [4, 5, 6]]
SPLIT = {"columns": ["a", "b", "c"], "data": ROWS}
RECORDS = [{"a": 1, "b": 2, "c": 3}, {"c": 6, "a": 4, "b": 5}]
SUMS = [[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]]
CSV = "a,b,c\n1,2,3\n4.0,5,6e0\n"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = open_desk(tmp_path)
    desk.install(version())
    return desk


def version(format: Format = Format.ONNX, *, signed: bool = True) -> LoadedVersion:
    """Adds 2 to each of three numbers a row."""
    found = loaded("2")
    root = found.artifact.root
    signature = found.model.inputs if signed else None
    found.artifact = Artifact(root, format, root / "model", signature_inputs=signature)
    return found


def taking(*specs: tuple[str, str, tuple[int, ...] | None]) -> LoadedVersion:
    """Gives back every input under its own name."""
    found = version()
    tensors = tuple(TensorSpec(*spec) for spec in specs)
    found.model = ScriptedModel(lambda inputs: dict(inputs), tensors, tensors)
    return found


async def ask(
    desk: Desk, body: object, content_type: str = "application/json", path: str = "/invocations"
) -> httpx.Response:
    content = body.encode() if isinstance(body, str) else orjson.dumps(body)
    headers = {"Content-Type": content_type} if content_type else {}
    async with client(desk) as http:
        return await http.post(path, content=content, headers=headers)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ({"inputs": ROWS}, "application/json"),
        ({"inputs": ROWS}, "application/json; charset=UTF-8"),
        ({"inputs": ROWS}, ""),
        ({"inputs": {"x": ROWS}}, "application/json"),
        ({"instances": ROWS}, "application/json"),
        ({"instances": [{"x": row} for row in ROWS]}, "application/json"),
        ({"dataframe_split": SPLIT}, "application/json"),
        ({"dataframe_split": SPLIT | {"index": [7, 9]}}, "application/json"),
        ({"dataframe_split": {"data": ROWS}}, "application/json"),
        ({"dataframe_split": {"columns": ["x"], "data": [[row] for row in ROWS]}}, "application/json"),
        ({"dataframe_records": RECORDS}, "application/json"),
        ({"inputs": {"a": [1, 4], "b": [2, 5], "c": [3, 6]}}, "application/json"),
        ({"instances": RECORDS}, "application/json"),
        ({"inputs": ROWS, "params": {"temperature": 1}, "else": None}, "application/json"),
        (CSV, "text/csv"),
        ("﻿" + CSV, "text/csv; charset=utf-8"),
    ],
)
@story
async def test_every_form_means_the_same_rows(desk: Desk, body: object, content_type: str) -> None:
    """Whatever else the body holds is left alone, as MLflow leaves it."""
    answer = await ask(desk, body, content_type)
    assert (answer.status_code, answer.json()) == (200, {"predictions": {"y": SUMS}})
    assert answer.headers["x-model-version"] == "2"
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("format", "signed", "body", "want"),
    [
        (Format.ONNX, True, {"inputs": ROWS}, {"y": SUMS}),
        (Format.ONNX, True, {"dataframe_split": SPLIT}, {"y": SUMS}),
        (Format.ONNX, False, {"inputs": ROWS}, {"y": SUMS}),
        (Format.ONNX, False, {"dataframe_split": SPLIT}, [{"y": n} for n in (3.0, 4.0, 5.0, 6.0, 7.0, 8.0)]),
        (Format.TORCHSCRIPT, True, {"inputs": ROWS}, SUMS),
        (Format.TORCHSCRIPT, True, {"dataframe_records": RECORDS}, SUMS),
        (Format.TORCHSCRIPT, False, {"instances": ROWS}, SUMS),
        (
            Format.TORCHSCRIPT,
            False,
            {"dataframe_split": SPLIT},
            [{"0": 3.0, "1": 4.0, "2": 5.0}, {"0": 6.0, "1": 7.0, "2": 8.0}],
        ),
        (
            Format.TORCHSCRIPT,
            False,
            {"inputs": {"a": [1], "b": [2], "c": [3]}},
            [{"0": 3.0, "1": 4.0, "2": 5.0}],
        ),
    ],
)
@story
async def test_predictions_have_the_shape_of_the_flavour(
    desk: Desk, format: Format, signed: bool, body: object, want: object
) -> None:
    """By output name for ONNX, bare for TorchScript, records for a table to a model without signature."""
    desk.install(version(format, signed=signed))
    assert (await ask(desk, body)).json() == {"predictions": want}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ({"inputs": {"n": [1, 2], "s": ["p", "q"], "m": [[1.0], [2.0]]}}, "application/json"),
        ({"instances": [{"n": 1, "s": "p", "m": [1]}, {"m": [2], "n": 2, "s": "q"}]}, "application/json"),
        (
            {"dataframe_split": {"columns": ["s", "n", "m", "z"], "data": [["p", 1, 1, 0], ["q", 2, 2, 0]]}},
            "application/json",
        ),
        ("z,m,s,n\n0,1.0,p,1\n0,2.0,q,2\n", "text/csv"),
    ],
)
@story
async def test_columns_go_to_the_inputs_of_their_names(desk: Desk, body: object, content_type: str) -> None:
    """Each in its own datatype and shape; a column too many is left alone."""
    desk.install(taking(("n", "INT64", (-1,)), ("s", "BYTES", (-1,)), ("m", "FP32", (-1, 1))))
    answer = await ask(desk, body, content_type)
    assert answer.json() == {"predictions": {"n": [1, 2], "s": ["p", "q"], "m": [[1.0], [2.0]]}}


@pytest.mark.parametrize(
    ("datatype", "sent", "want"),
    [
        ("BOOL", [True, False], [True, False]),
        ("FP16", [0.5, 2], [0.5, 2.0]),
        ("BF16", [0.5, 2], [0.5, 2.0]),
        ("UINT64", [2**64 - 1, 0], [2**64 - 1, 0]),
        ("INT8", [1.0, -2], [1, -2]),
        ("FP64", [0.1, 1e300], [0.1, 1e300]),
        ("BYTES", ["ü", ""], ["ü", ""]),
    ],
)
@story
async def test_every_datatype_is_read_and_told(desk: Desk, datatype: str, sent: Any, want: Any) -> None:
    """Numbers are taken for what the model says they are, half precision too."""
    desk.install(taking(("t", datatype, (-1,))))
    assert (await ask(desk, {"inputs": sent})).json() == {"predictions": {"t": want}}


@pytest.mark.parametrize(
    ("array", "want"),
    [
        (np.float32(1.5).reshape(()), 1.5),
        (np.zeros((0, 3), np.float32), []),
        (np.arange(4, dtype=np.int32).reshape(2, 2).T, [[0, 2], [1, 3]]),
        (np.array([["a", b"b"]], np.object_), [["a", "b"]]),
    ],
)
@story
async def test_output_of_any_layout_is_nested_lists(desk: Desk, array: Array, want: object) -> None:
    """Scalars, nothing, transposed, text."""
    found = version(Format.TORCHSCRIPT)
    found.model = ScriptedModel(gives(array), found.model.inputs, ())
    desk.install(found)
    assert (await ask(desk, {"inputs": ROWS})).json() == {"predictions": want}


@pytest.mark.parametrize(
    ("body", "content_type", "status", "problem"),
    [
        ({}, "application/json", 400, "exactly one of inputs, instances, dataframe_split"),
        ({"inputs": ROWS, "instances": ROWS}, "application/json", 400, "not inputs and instances"),
        (ROWS, "application/json", 400, "must be a JSON object"),
        ("{", "application/json", 400, "not valid JSON"),
        ("", "application/json", 400, "not valid JSON"),
        ('{"inputs": [[NaN, 2, 3]]}', "application/json", 400, "not valid JSON"),
        ({"inputs": [[None, 2, 3]]}, "application/json", 400, "tensor 'x': data must be numbers"),
        ({"inputs": [["a", 2, 3]]}, "application/json", 400, "tensor 'x': data must be numbers"),
        ({"inputs": [[1, 2], [1, 2, 3]]}, "application/json", 400, "tensor 'x': shape [2, 2] does not fit"),
        ({"inputs": [[1, 2, 3], [1, 2]]}, "application/json", 400, "tensor 'x': nested data"),
        ({"inputs": [1, 2, 3]}, "application/json", 400, "tensor 'x': shape [3] does not fit [-1, 3]"),
        ({"inputs": 1}, "application/json", 400, "tensor 'x': shape [] does not fit"),
        ({"inputs": None}, "application/json", 400, "tensor 'x': shape [] does not fit"),
        ({"inputs": []}, "application/json", 400, "tensor 'x': shape [0] does not fit"),
        ({"inputs": {"q": 1}}, "application/json", 400, "tensor 'q': unknown input"),
        ({"instances": {"x": 1}}, "application/json", 400, "'instances' must be an array"),
        ({"instances": [{"x": [1]}, {}]}, "application/json", 400, "row 1 and the first row"),
        ({"instances": [{"x": [1]}, 7]}, "application/json", 400, "array of objects"),
        ({"dataframe_split": [1]}, "application/json", 400, "'dataframe_split' must be an object"),
        ({"dataframe_split": {"data": [1]}}, "application/json", 400, "array of rows"),
        ({"dataframe_split": {"columns": "abc", "data": ROWS}}, "application/json", 400, "array of names"),
        (
            {"dataframe_split": {"columns": ["a", "b"], "data": ROWS}},
            "application/json",
            400,
            "row 0 has 3 cells for 2 columns",
        ),
        ({"dataframe_records": {"a": 1}}, "application/json", 400, "array of objects"),
        ({"dataframe_records": [{"a": 1}, {"b": 1}]}, "application/json", 400, "do not both have 'a'"),
        ("", "text/csv", 400, "no header"),
        ("a,b,c\n1,2\n", "text/csv", 400, "row 0 has 2 cells for 3 columns"),
        ("a,b,c\n1,,3\n", "text/csv", 400, "tensor 'x': '' is not a number"),
        ("a,b,c\n1,nan,3\n", "text/csv", 400, "beyond the range"),
        ("x", "text/plain", 415, "'text/plain' is not read here; known are application/json and text/csv"),
        ("x", "application/vnd.apache.parquet", 415, "not read here"),
        ("{}", "application/json; charset=latin-1", 415, "only UTF-8"),
        ("{}", "application/json; format=pandas-split", 415, "'format' is not known"),
    ],
)
@story
async def test_request_is_refused_in_one_sentence(
    desk: Desk, body: object, content_type: str, status: int, problem: str
) -> None:
    """And is nobody's evidence."""
    answer = await ask(desk, body, content_type)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert problem in answer.json()["error"]
    assert desk.counted == (0, 0)


@story
async def test_several_inputs_must_be_named(desk: Desk) -> None:
    """Each missing one is named too."""
    desk.install(taking(("a", "FP32", (-1,)), ("b", "FP32", (-1,))))
    for body, problem in (
        ({"inputs": [1, 2]}, "the model takes 'a', 'b': give the data of each by its name"),
        ({"inputs": {"a": [1]}}, "tensor 'b': missing"),
        ({"dataframe_split": {"columns": ["a"], "data": [[1]]}}, "tensor 'b': no such column"),
    ):
        answer = await ask(desk, body)
        assert (answer.status_code, problem in answer.json()["error"]) == (400, True)


@story
async def test_one_of_several_models_must_be_named(desk: Desk) -> None:
    """400 tells the ways; the named way works, for a version too; none at all is 404."""
    desk.routes.publish("other", desk.model.routes())
    answer = await ask(desk, {"inputs": ROWS})
    assert answer.status_code == 400
    assert "/models/digits/invocations, /models/other/invocations" in answer.json()["error"]
    for path in ("/models/digits/invocations", "/models/%64igits/versions/2/invocations"):
        assert (await ask(desk, {"inputs": ROWS}, path=path)).json() == {"predictions": {"y": SUMS}}
    assert (await ask(desk, {"inputs": ROWS}, path="/models/nope/invocations")).status_code == 404
    for name in desk.routes.names():
        desk.routes.publish(name, type(desk.model.routes())())
    assert (await ask(desk, {"inputs": ROWS})).status_code == 404


@story
async def test_non_finite_prediction_is_refused(desk: Desk) -> None:
    """MLflow writes NaN, which is no JSON."""
    desk.install(loaded("2", gives(np.full((1, 3), np.nan, np.float32))))
    answer = await ask(desk, {"inputs": ROWS[:1]})
    assert (answer.status_code, "'y' is not finite" in answer.json()["error"]) == (400, True)


@pytest.mark.parametrize("method", ["GET", "PUT"])
@story
async def test_predictions_are_only_posted(desk: Desk, method: str) -> None:
    """As inference is."""
    async with client(desk) as http:
        assert (await http.request(method, "/invocations")).status_code == 405
