"""Plain requests: read and written as the ordinary way reads and writes them, or left to it."""

from typing import Any

import numpy as np
import orjson
import pytest

from serving.accounts import Answer
from serving.core.errors import InvalidRequest
from serving.core.health import Status
from serving.core.model import Alias, TensorSpec, Variant
from serving.protocol.answer import answer_parameters, encode_answer
from serving.protocol.plain import Plain, parsed, plain_of
from serving.protocol.request import parse_request
from serving.routes import Route
from tests.versions import ScriptedModel, adds, loaded

NAN, INF = float("nan"), float("inf")


def plain(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...] = ()) -> Plain:
    version = loaded("2")
    version.model = ScriptedModel(adds(1.0), inputs, outputs)
    return Plain(version)


def test_plain_requests_are_looked_at_once_until_the_model_is_another() -> None:
    """A version that slept has a new one, which may no longer be what it was."""
    version = loaded("2")
    first = plain_of(version)
    assert plain_of(version) is first
    version.model = ScriptedModel(adds(1.0))
    assert plain_of(version) is not first


def tensor(**changed: Any) -> dict[str, Any]:
    usual = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1.5, 2, -3.25, 4.0]}
    return {name: value for name, value in (usual | changed).items() if value is not None}


SPEC = TensorSpec("x", "FP32", (-1, 2))
TAKEN = [
    pytest.param({"inputs": [tensor()]}, id="usual"),
    pytest.param({"inputs": [tensor()], "id": "1"}, id="id"),
    pytest.param({"inputs": [tensor(data=[1, 2, 3, 4])]}, id="integers"),
    pytest.param({"inputs": [tensor(shape=[1, 2], data=[0.1, 1e-40])]}, id="rounded"),
    pytest.param({"inputs": [tensor(parameters={"a": 1})]}, id="parameters of a tensor"),
]
LEFT = [
    pytest.param({"inputs": [tensor(data=[True, 2.0, 3.0, 4.0])]}, id="boolean"),
    pytest.param({"inputs": [tensor(data=["1", 2.0, 3.0, 4.0])]}, id="text"),
    pytest.param({"inputs": [tensor(data=[[1.0, 2.0], [3.0, 4.0]])]}, id="nested"),
    pytest.param({"inputs": [tensor(data=[1e39, 2.0, 3.0, 4.0])]}, id="beyond"),
    pytest.param({"inputs": [tensor(data=[10**400 % 2**64, 2.0, 3.0])]}, id="short"),
    pytest.param({"inputs": [tensor(shape=[2.0, 2])]}, id="shape of floats"),
    pytest.param({"inputs": [tensor(shape=[True, 2], data=[1.0, 2.0])]}, id="shape of booleans"),
    pytest.param({"inputs": [tensor(shape=[-2, -2])]}, id="negative"),
    pytest.param({"inputs": [tensor(shape=[4])]}, id="rank"),
    pytest.param({"inputs": [tensor(shape=[4, 1])]}, id="fixed axis"),
    pytest.param({"inputs": [tensor(shape=[0, 2], data=[])]}, id="empty"),
    pytest.param({"inputs": [tensor(shape=None)]}, id="no shape"),
    pytest.param({"inputs": [tensor(datatype="FP64")]}, id="another type"),
    pytest.param({"inputs": [tensor(datatype=["FP32"])]}, id="type of another type"),
    pytest.param({"inputs": [tensor(datatype=None)]}, id="no type"),
    pytest.param({"inputs": [tensor(data=None)]}, id="no data"),
    pytest.param({"inputs": [tensor(name="y")]}, id="another name"),
    pytest.param({"inputs": [tensor(), tensor()]}, id="twice"),
    pytest.param({"inputs": []}, id="none"),
    pytest.param({"inputs": {"x": 1}}, id="no list"),
    pytest.param({"inputs": [7]}, id="no tensor"),
    pytest.param({"inputs": [tensor()], "id": 7}, id="odd id"),
    pytest.param({"inputs": [tensor()], "id": None}, id="null id"),
    pytest.param({"inputs": [tensor()], "strange": "1"}, id="unknown field"),
    pytest.param({"inputs": [tensor()], "parameters": {}}, id="parameters"),
    pytest.param({"inputs": [tensor()], "outputs": [{"name": "y"}]}, id="outputs"),
    pytest.param([1], id="no object"),
]


@pytest.mark.parametrize("given", TAKEN)
def test_inputs_are_those_of_the_ordinary_way_when_the_request_is_plain(given: dict[str, Any]) -> None:
    """To the last bit."""
    read = plain((SPEC,)).read(given)
    usual = parse_request(orjson.dumps(given), None).read((SPEC,))
    assert read is not None
    assert read["x"].tobytes() == usual["x"].tobytes()
    assert (read["x"].shape, read["x"].dtype) == (usual["x"].shape, usual["x"].dtype)


@pytest.mark.parametrize("given", LEFT)
def test_request_is_left_to_the_ordinary_way_when_it_is_not_plain(given: object) -> None:
    """Which may take it, or say what is wrong."""
    assert plain((SPEC,)).read(given) is None


@pytest.mark.parametrize("raw", [b"", b"{", b'{"inputs": NaN}', b"\xff"])
def test_body_that_is_no_json_is_none(raw: bytes) -> None:
    """The ordinary way says what is wrong with it."""
    assert plain((SPEC,)).read(parsed(raw)) is None


def test_version_has_no_plain_requests_when_an_input_is_no_float() -> None:
    """Its bodies need not be parsed twice."""
    assert plain((SPEC,)).is_answerable
    assert not plain((SPEC, TensorSpec("n", "INT64", (-1,)))).is_answerable


def route(variant: Variant = Variant.CHAMPION, alias: str | None = Alias.CHAMPION) -> Route:
    return Route(loaded("2"), None, variant, alias)


OUTPUTS = [
    {"y": np.array([[1.5, -2.25]], np.float32)},
    {"y": np.array([[1e-9, 1e300]]), "label": np.array([3], np.int64)},
    {"b": np.array([True, False]), "é": np.zeros((0, 2), np.uint8)},
    {"scalar": np.array(2.5, np.float32), "turned": np.arange(6, dtype=np.int32).reshape(2, 3).T},
]


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("own_id", [None, 'a"b'])
@pytest.mark.parametrize(("variant", "alias"), [(Variant.CHAMPION, Alias.CHAMPION), (Variant.DIRECT, None)])
def test_answer_is_that_of_the_ordinary_way(
    outputs: dict[str, Any], own_id: str | None, variant: Variant, alias: str | None
) -> None:
    """To the last byte, also when its form is known already."""
    shape, where = plain((SPEC,)), route(variant, alias)
    tensors: dict[str, Any] = {"inputs": [tensor()]} | ({} if own_id is None else {"id": own_id})
    request = parse_request(orjson.dumps(tensors), None)
    answer = Answer(outputs, where.version, variant, alias)
    told = answer_parameters(variant, alias, Status.HEALTHY)
    usual = encode_answer("digits", request, answer, told).content
    for _ in range(2):
        assert shape.write(where, Status.HEALTHY, outputs, own_id) == usual


@pytest.mark.parametrize("odd", [NAN, INF, -INF])
def test_answer_is_left_to_the_ordinary_way_when_a_number_is_not_finite(odd: float) -> None:
    """Whose fault that is takes a second opinion; the next answer may be plain again."""
    shape = plain((SPEC,))
    for dtype in (np.float32, np.float64):
        assert shape.write(route(), Status.HEALTHY, {"y": np.array([1.0, odd], dtype)}, None) is None
    assert shape.write(route(), Status.HEALTHY, {"y": np.array([1.0])}, None) is not None
    assert shape.is_answerable


def test_answer_is_left_to_the_ordinary_way_when_it_is_not_as_declared() -> None:
    """Also when one that was right came before."""
    shape = plain((SPEC,), (TensorSpec("y", "FP32", (-1, 2)),))
    good, bad = {"y": np.zeros((1, 2), np.float32)}, {"y": np.zeros((1, 3), np.float32)}
    assert shape.write(route(), Status.HEALTHY, good, None) is not None
    assert shape.write(route(), Status.HEALTHY, bad, None) is None
    assert shape.write(route(), Status.HEALTHY, {"z": good["y"]}, None) is None
    assert shape.is_answerable


@pytest.mark.parametrize("output", [np.array(["a"], np.object_), np.zeros(2, np.float16)])
def test_version_has_no_plain_requests_when_an_output_is_no_plain_number(output: Any) -> None:
    """Or each of them would be asked twice."""
    shape = plain((SPEC,))
    assert shape.write(route(), Status.HEALTHY, {"y": output}, None) is None
    assert not shape.is_answerable


def test_wrong_request_is_wrong_the_ordinary_way() -> None:
    """What is left is refused where it must be."""
    with pytest.raises(InvalidRequest, match="beyond the range"):
        parse_request(orjson.dumps({"inputs": [tensor(data=[1e39, 2.0, 3.0, 4.0])]}), None).read((SPEC,))
