"""Wire tensors: what is accepted comes back unchanged, what is not is refused by name."""

import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from serving.core.datatypes import DTYPES, FLOATS, Array, datatype_of
from serving.core.errors import InvalidRequest
from serving.core.model import TensorSpec
from serving.protocol.json_data import ONLY_BINARY, decode_list, encode_json, first_non_finite
from serving.protocol.raw_data import encode_raw
from serving.protocol.tensors import check_request_inputs, decode, parse_body

INTEGERS = [name for name in DTYPES if name.startswith(("INT", "UINT"))]


def wire(name: str, array: Array) -> dict[str, Any]:
    return parse_body(orjson.dumps(encode_json(name, array), option=orjson.OPT_SERIALIZE_NUMPY))


def decoded(datatype: str, shape: list[Any], data: object) -> Array:
    if datatype in ONLY_BINARY and isinstance(data, list):  # as `/invocations` reads its numbers
        return decode_list(data, datatype, tuple(shape), "x")
    spec = TensorSpec("x", datatype, None)
    return decode({"name": "x", "datatype": datatype, "shape": shape, "data": data}, spec)


def refusal(datatype: str, shape: list[Any], data: object) -> str:
    with pytest.raises(InvalidRequest) as caught:
        decoded(datatype, shape, data)
    assert caught.value.tensor == "x"
    return str(caught.value)


@st.composite
def arrays(draw: st.DrawFn, without: frozenset[str] = frozenset()) -> Array:
    """An array of any datatype the protocol has, finite, of any small shape."""
    datatype = draw(st.sampled_from(sorted(set(DTYPES) - without)))
    shape = draw(npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    if datatype == "BYTES":
        texts = draw(st.lists(st.text(max_size=5), min_size=math.prod(shape), max_size=math.prod(shape)))
        return np.array(texts, dtype=np.object_).reshape(shape)
    if datatype == "BF16":
        halves = draw(npst.arrays(np.uint16, shape))
        array = halves.view(DTYPES["BF16"])
        with np.errstate(invalid="ignore"):
            return np.where(np.isfinite(array), array, np.zeros_like(array))
    elements = {"allow_nan": False, "allow_infinity": False} if datatype in FLOATS else None
    return draw(npst.arrays(DTYPES[datatype], shape, elements=elements))


@given(arrays(without=ONLY_BINARY))
@settings(max_examples=300, deadline=None)
def test_tensor_comes_back_identical_when_sent_as_json(array: Array) -> None:
    """Encoding, JSON text and decoding together change nothing, in any datatype JSON may carry."""
    tensor = wire("x", array)
    back = decode(tensor, TensorSpec("x", tensor["datatype"], array.shape))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("datatype", sorted(ONLY_BINARY))
def test_half_is_refused_when_it_is_json(datatype: str) -> None:
    """In either direction, with the client's own option as the way out."""
    tensor = {"name": "x", "datatype": datatype, "shape": [1], "data": [1.0]}
    with pytest.raises(InvalidRequest, match=r"'x': .* binary tensors only.*binary_data=True"):
        decode(tensor, TensorSpec("x", datatype, None))
    with pytest.raises(InvalidRequest, match=r"'y': .* binary tensors only"):
        encode_json("y", np.zeros(1, DTYPES[datatype]))


@given(arrays())
@settings(max_examples=300, deadline=None)
def test_tensor_comes_back_identical_when_sent_as_bytes(array: Array) -> None:
    """In any datatype, and at any offset in the body it came in."""
    raw = bytes(encode_raw("x", array))
    spec = TensorSpec("x", datatype_of(array.dtype) or "", array.shape)
    for offset in (0, 1, 4):
        body = memoryview(b" " * offset + raw)
        tensor = {"name": "x", "datatype": spec.datatype, "shape": list(array.shape)}
        back = decode(tensor | {"data": body[offset:]}, spec)
        assert back.dtype == array.dtype
        assert back.flags.aligned
        np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "problem"),
    [
        ("FP32", [2], b"1234567", "takes 8 bytes, not 7"),
        ("FP32", [2], b"123456789", "takes 8 bytes, not 9"),
        ("FP32", [10**30], b"1234", "takes"),
        ("FP32", [0, 10**30], b"", "too large"),
        ("UINT8", [0], b"1", "takes 0 bytes, not 1"),
        ("BOOL", [2], b"\x00\x02", "must be 0 or 1"),
        ("BYTES", [1], b"\x02\x00\x00\x00a", "end before all elements"),
        ("BYTES", [2], b"\x01\x00\x00\x00a", "end before all elements"),
        ("BYTES", [2], b"\x04\x00\x00\x00abcd", "end before all elements"),
        ("BYTES", [10**12], b"\x01\x00\x00\x00a", "end before all elements"),
        ("BYTES", [1], b"\x01\x00\x00\x00ab", "1 bytes are left"),
        ("BYTES", [1], b"\xff\xff\xff\xffab", "end before all elements"),
        ("BYTES", [1], b"\x01\x00\x00\x00\xff", "element 0 is not UTF-8"),
    ],
)
def test_tensor_is_refused_when_its_bytes_do_not_fill_its_shape(
    datatype: str, shape: list[int], data: bytes, problem: str
) -> None:
    """To the byte, and before anything is allocated for a declared shape."""
    assert problem in refusal(datatype, shape, data)


def test_bytes_are_those_of_a_row_major_array_when_the_array_is_not() -> None:
    """Little-endian, whatever it was."""
    array = np.arange(6, dtype=">f4").reshape(2, 3).T
    assert bytes(encode_raw("y", array)) == np.array([0, 3, 1, 4, 2, 5], "<f4").tobytes()


def test_bytes_keep_what_is_no_number_when_json_could_not() -> None:
    """NaN and the infinities pass."""
    array = np.array([np.nan, np.inf, -np.inf], np.float32)
    back = decoded("FP32", [3], bytes(encode_raw("y", array)))
    np.testing.assert_array_equal(back, array)


@given(arrays(without=ONLY_BINARY))
@settings(max_examples=100, deadline=None)
def test_tensor_decodes_alike_when_nested_instead_of_flat(array: Array) -> None:
    """Nested data means the same as flat data."""
    tensor = wire("x", array)
    nested = np.array(tensor["data"], dtype=np.object_).reshape(array.shape).tolist()
    tensor["data"] = nested if isinstance(nested, list) else [nested]
    back = decode(tensor, TensorSpec("x", tensor["datatype"], array.shape))
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("datatype", INTEGERS)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_integer_is_refused_when_out_of_range(datatype: str, data: st.DataObject) -> None:
    """Beyond either end of the datatype's range nothing wraps around."""
    limits = np.iinfo(DTYPES[datatype])
    above = st.integers(min_value=int(limits.max) + 1, max_value=2**80)
    below = st.integers(min_value=-(2**80), max_value=int(limits.min) - 1)
    number = data.draw(above | below)
    # As a float, a number just beyond the end may round to one that is still within.
    rounds_out = not limits.min <= int(float(number)) <= limits.max
    as_float = rounds_out and data.draw(st.booleans())
    assert "beyond the range" in refusal(datatype, [2], [0, float(number) if as_float else number])


@pytest.mark.parametrize(
    ("datatype", "number"),
    [
        ("FP16", 70000),
        ("FP16", -65520.0),
        ("FP32", 1e39),
        ("FP32", -3.5e38),
        ("BF16", 3.4e38),
        ("BF16", 1e99),
    ],
)
def test_float_is_refused_when_out_of_range(datatype: str, number: float) -> None:
    """A number that would become infinite is refused, naming element and value."""
    assert f"element 1 ({number}) is beyond the range of {datatype}" in refusal(datatype, [2], [0.5, number])


@pytest.mark.parametrize("datatype", sorted(DTYPES))
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_tensor_is_refused_when_it_holds_a_non_finite_number(datatype: str, number: float) -> None:
    """No datatype takes NaN or an infinity from JSON, however it got here."""
    refusal(datatype, [1], [number])


@pytest.mark.parametrize("datatype", sorted(set(DTYPES) - {"BYTES"}))
@pytest.mark.parametrize("strange", [None, "1", "", [1], {"a": 1}])
def test_numbers_are_refused_when_an_element_is_something_else(datatype: str, strange: object) -> None:
    """null, text, arrays and objects are no numbers."""
    assert "element 1 is" in refusal(datatype, [2], [True if datatype == "BOOL" else 1, strange])


@pytest.mark.parametrize("datatype", [*INTEGERS, *sorted(FLOATS), "BYTES"])
def test_boolean_is_refused_when_the_datatype_is_not_bool(datatype: str) -> None:
    """true is not 1."""
    first = "a" if datatype == "BYTES" else 1
    assert "element 1 is a boolean" in refusal(datatype, [2], [first, True])


@pytest.mark.parametrize("strange", [1, 0, 1.0, "true"])
def test_bool_is_refused_when_it_is_not_a_boolean(strange: object) -> None:
    """1 and "true" are not true."""
    assert "booleans" in refusal("BOOL", [2], [True, strange])


@pytest.mark.parametrize(
    ("datatype", "data", "want"),
    [
        ("INT32", [1.0, 2], [1, 2]),
        ("UINT8", [255.0], [255]),
        ("INT64", [2**53 + 1, 1.0], [2**53 + 1, 1]),
        ("UINT64", [2**64 - 1], [2**64 - 1]),
        ("FP32", [1, 2.5], [1.0, 2.5]),
        ("FP32", [2**64 - 1], [float(2**64)]),
        ("BF16", [2**64 - 1], [float(2**64)]),
        ("BYTES", ["", "ü"], ["", "ü"]),
    ],
)
def test_number_is_accepted_when_its_value_fits_exactly(
    datatype: str, data: list[Any], want: list[Any]
) -> None:
    """Whole floats are integers, and integers are floats; large ones lose nothing."""
    assert decoded(datatype, [len(data)], data).tolist() == want


def test_integer_is_refused_when_it_has_a_fraction() -> None:
    """1.5 is not rounded."""
    assert "1.5 is not a whole number" in refusal("INT32", [2], [1, 1.5])


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2, 2], [1.0, 2.0, 3.0]),
        ([2, 2], [[1.0, 2.0], [3.0]]),
        ([2, 2], [[1.0, 2.0, 3.0, 4.0]]),
        ([2, 2], [[1.0, 2.0], 3.0]),
        ([2, 2], [[[1.0], [2.0]], [[3.0], [4.0]]]),
        ([4], [[1.0, 2.0], [3.0, 4.0]]),
        ([1, 2], [1.0, [2.0]]),
        ([], []),
        ([1_000_000_000], [1.0]),
        ([10**30], [1.0]),
        ([0, 10**30], []),
        ([-1], [1.0]),
        ([1.0], [1.0]),
        ([True], [1.0]),
        (["1"], [1.0]),
        ([1] * 33, [1.0]),
        (None, [1.0]),
        ([1], None),
        ([1], 1.0),
        ([1], "1.0"),
        ([1], {"0": 1.0}),
    ],
    ids=str,
)
def test_tensor_is_refused_when_data_and_shape_disagree(shape: Any, data: object) -> None:
    """Ragged, short, absurd or mistyped: refused by name, and nothing is allocated for the shape."""
    refusal("FP32", shape, data)


def test_flat_list_is_accepted_when_shape_has_zero_elements() -> None:
    """An empty batch is a valid tensor."""
    assert decoded("FP32", [0, 3], []).shape == (0, 3)


def spec(name: str = "x", dims: tuple[int, ...] | None = (-1, 2)) -> TensorSpec:
    return TensorSpec(name, "FP32", dims)


def tensor(name: str = "x", **changes: object) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]} | changes


def test_inputs_are_returned_by_name_when_they_fit() -> None:
    """Order in the request does not matter."""
    arrays = check_request_inputs([tensor("b"), tensor("a")], [spec("a"), spec("b")])
    assert {name: array.tolist() for name, array in arrays.items()} == {"a": [[1, 2]], "b": [[1, 2]]}


@pytest.mark.parametrize(
    ("tensors", "culprit", "problem"),
    [
        ([tensor("z")], "z", "unknown input; the model takes 'x'"),
        ([tensor(), tensor()], "x", "more than once"),
        ([], "x", "missing; the model takes 'x'"),
        ([tensor(datatype="INT64")], "x", "datatype must be FP32, not 'INT64'"),
        ([tensor(datatype=None)], "x", "datatype must be FP32, not None"),
        ([tensor(shape=[2])], "x", "shape [2] does not fit [-1, 2]"),
        ([tensor(shape=[1, 3])], "x", "shape [1, 3] does not fit [-1, 2]"),
        (None, None, "'inputs' must be an array"),
        ({"x": 1}, None, "'inputs' must be an array"),
        ([1], None, "every entry of 'inputs'"),
        ([{"data": []}], None, "every entry of 'inputs'"),
    ],
)
def test_inputs_are_refused_when_they_do_not_fit_the_model(
    tensors: object, culprit: str | None, problem: str
) -> None:
    """The refusal names the tensor and says what would fit."""
    with pytest.raises(InvalidRequest) as caught:
        check_request_inputs(tensors, [spec()])
    assert caught.value.tensor == culprit
    assert problem in str(caught.value)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400", b"[1.0, NaN]"])
def test_body_is_refused_naming_the_tensor_when_it_holds_a_non_finite_number(number: bytes) -> None:
    """Although such a body is no JSON, the caller learns which tensor it was."""
    body = b'{"inputs": [{"name": "good", "data": [1]}, {"name": "bad", "data": [1, %s]}]}' % number
    with pytest.raises(InvalidRequest) as caught:
        parse_body(body)
    assert caught.value.tensor == "bad"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"inputs": NaN}',
        b'{"inputs": [1, NaN]}',
        b'{"NaN": ',
        b"[" * 100_000,
        b'{"inputs": [{"data": NaN' + b"[" * 100_000,
        b'{"a": "\\ud800"}',
    ],
    ids=lambda body: str(body[:20]),
)
def test_body_is_refused_when_it_is_not_a_json_object(body: bytes) -> None:
    """Malformed, too deep or of the wrong kind: one clear refusal."""
    with pytest.raises(InvalidRequest) as caught:
        parse_body(body)
    assert caught.value.tensor is None


def test_encoding_is_row_major_when_the_array_is_not() -> None:
    """A transposed view is sent in the order its shape declares."""
    array = np.arange(6, dtype=">f4").reshape(2, 3).T
    assert wire("y", array)["data"] == [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]


def test_encoding_turns_bytes_into_text_when_they_are_utf8() -> None:
    """JSON carries BYTES as text."""
    assert wire("y", np.array([b"\xc3\xbc", "a"], dtype=np.object_))["data"] == ["ü", "a"]


@pytest.mark.parametrize("array", [np.array([b"\xff"], dtype=np.object_), np.zeros(1, dtype=np.complex64)])
def test_encoding_refuses_when_json_cannot_carry_the_output(array: Array) -> None:
    """The refusal names the output."""
    with pytest.raises(InvalidRequest, match="tensor 'y'"):
        encode_json("y", array)


def test_first_non_finite_names_the_first_culprit_when_there_is_one() -> None:
    """Integers and text are passed over."""
    outputs: dict[str, Array] = {
        "label": np.array(["a"], dtype=np.object_),
        "count": np.array([1]),
        "good": np.array([1.0]),
    }
    assert first_non_finite(outputs) is None
    assert first_non_finite(outputs | {"bad": np.array([1.0, np.nan])}) == "bad"
