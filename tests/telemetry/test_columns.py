"""Records as columns of a part: names, types, rows, and what privacy settings do to them."""

import hashlib
import io
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.telemetry.columns import Privacy, condensed, parquet
from tests.logged import DIGITS, Array, Record, bundles, floats

_AT = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


def _record(
    inputs: dict[str, Array], outputs: dict[str, Array] | None = None, rows: int | None = 1
) -> Record:
    return Record(_AT, DIGITS, "r1", "champion", "ok", 0.0015, inputs, outputs or {}, rows)


def _table(*records: Record, privacy: Privacy | None = None, raw_ratio: float = 0.0) -> dict[str, list[Any]]:
    content = parquet(bundles(records), privacy or Privacy(), raw_ratio, Random(7))
    columns: dict[str, list[Any]] = pq.read_table(io.BytesIO(content)).to_pydict()
    return columns


def test_part_holds_one_row_per_batch_row_when_written() -> None:
    """Each row carries the request's facts, its own index, and one column per element."""
    x = floats(2, 1, 3)
    table = _table(_record({"x": x}, {"y": floats(2, 2)}, rows=2))
    assert list(table) == [
        *("time", "request_id", "row", "model", "version", "variant", "status", "latency_ms"),
        *("x.0", "x.1", "x.2", "y.0", "y.1"),
    ]
    assert table["time"] == [_AT, _AT]
    assert table["row"] == [0, 1]
    assert (table["model"], table["version"]) == (["digits"] * 2, ["2"] * 2)
    assert (table["request_id"], table["variant"], table["status"]) == (
        ["r1"] * 2,
        ["champion"] * 2,
        ["ok"] * 2,
    )
    assert table["latency_ms"] == [1.5, 1.5]
    assert table["x.1"] == x[:, 0, 1].tolist()


@given(batches=st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_part_keeps_every_row_when_batches_vary(batches: list[int]) -> None:
    """Batch rows in are rows out, with the values they came with."""
    arrays = [floats(rows, 2, seed=place) for place, rows in enumerate(batches)]
    table = _table(*(_record({"x": array}, rows=len(array)) for array in arrays))
    assert np.array_equal(np.column_stack([table["x.0"], table["x.1"]]), np.concatenate(arrays))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        pytest.param(np.array([[1.5]], np.float16), 1.5, id="half as single"),
        pytest.param(np.array([[1.5]], ml_dtypes.bfloat16), 1.5, id="bfloat16 as single"),
        pytest.param(np.array([[-3]], np.int8), -3, id="int8"),
        pytest.param(np.array([[2**64 - 1]], np.uint64), 2**64 - 1, id="largest uint64"),
        pytest.param(np.array([[True]]), True, id="bool"),
        pytest.param(np.array([["é\ud800"]], object), "é\\ud800", id="text with a lone surrogate"),
        pytest.param(np.array([[b"\xff1"]], object), "\\xff1", id="bytes that are no text"),
        pytest.param(np.array([[np.inf]], np.float32), np.inf, id="infinity"),
    ],
)
def test_column_keeps_value_when_datatype_is(array: Array, expected: object) -> None:
    """Every datatype of the protocol has a column type."""
    assert _table(_record({"x": array}))["x.0"] == [expected]


def test_whole_request_is_one_row_when_first_axis_is_no_batch() -> None:
    """A fixed first axis counts elements, not rows."""
    table = _table(_record({"x": floats(2, 3)}, rows=None))
    assert table["row"] == [0]
    assert "x.5" in table


def test_output_stands_in_each_row_when_it_has_no_batch_axis() -> None:
    """What is one value per request is not lost, and does not change the number of rows."""
    table = _table(_record({"x": floats(2, 1)}, {"total": np.array(4.0)}, rows=2))
    assert table["total.0"] == [4.0, 4.0]


def test_output_is_prefixed_when_an_input_has_its_name() -> None:
    """Neither overwrites the other."""
    table = _table(_record({"x": np.zeros((1, 1), np.float32)}, {"x": np.ones((1, 1), np.float32)}))
    assert (table["x.0"], table["output.x.0"]) == ([0.0], [1.0])


def test_shapes_share_a_part_when_lengths_vary() -> None:
    """Shorter rows are null where longer ones have elements."""
    table = _table(_record({"x": floats(1, 1)}), _record({"x": floats(1, 3)}))
    assert [value is None for value in table["x.2"]] == [True, False]


@pytest.mark.parametrize(("elements", "is_whole"), [(256, True), (257, False)])
def test_tensor_is_summarised_when_larger_than_the_limit(elements: int, is_whole: bool) -> None:
    """Up to 256 elements per row are columns; beyond, four figures."""
    table = _table(_record({"x": floats(2, elements)}, rows=2))
    names = [name for name in table if name.startswith("x.")]
    assert (len(names) == elements) is is_whole
    if not is_whole:
        assert names == ["x.mean", "x.std", "x.min", "x.max"]
        assert table["x.max"] == pytest.approx(floats(2, elements).max(axis=1).tolist())


def test_raw_tensor_reads_back_when_sampled() -> None:
    """The sampled binary carries its own shape and datatype."""
    x = floats(1, 30, 10)
    [raw] = _table(_record({"x": x}), raw_ratio=1.0)["x.raw"]
    assert np.array_equal(np.load(io.BytesIO(raw), allow_pickle=False), x[0])


def test_raw_column_is_binary_when_no_row_was_sampled() -> None:
    """Parts agree on types whatever chance chose."""
    content = parquet(bundles([_record({"x": floats(1, 300)})]), Privacy(), 1e-12, Random(7))
    assert str(pq.read_table(io.BytesIO(content)).schema.field("x.raw").type) == "binary"


def test_columns_are_left_out_or_hashed_when_privacy_says_so() -> None:
    """Globs choose columns; what readers select by stays."""
    privacy = Privacy(drop=("secret.*", "model"), hash=("name.*", "request_id"))
    inputs = {"secret": floats(1, 2), "name": np.array([["ann"]], object), "x": floats(1, 1)}
    table = _table(_record(inputs), privacy=privacy)
    assert not any(name.startswith("secret") for name in table)
    assert table["name.0"] == [hashlib.sha256(b"ann").hexdigest()]
    assert table["request_id"] == [hashlib.sha256(b"r1").hexdigest()]
    assert table["model"] == ["digits"]


@given(
    rows=st.integers(1, 3),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    shift=st.sampled_from([0.0, -3.0, 1e4]),
)
def test_figures_are_numpys_when_tensor_is_large(rows: int, scale: float, shift: float) -> None:
    """However far the values lie from zero beside their spread."""
    x = (floats(rows, 300) * scale + shift).astype(np.float32)
    table, wide = _table(_record({"x": x}, rows=rows)), x.astype(np.float64)
    for name in ("mean", "std", "min", "max"):
        expected = getattr(wide, name)(axis=1)
        assert table[f"x.{name}"] == pytest.approx(expected.tolist(), rel=1e-9, abs=1e-9 * scale)


def test_large_tensor_is_let_go_when_condensed() -> None:
    """What it counted for is free again, and the part is the same."""
    record = _record({"x": floats(2, 300)}, {"y": floats(2, 3)}, rows=2)
    [bundle] = bundles([record])
    small = condensed(replace(bundle, size_bytes=2 * 300 * 4 + 100), 0.0, Random(7))
    assert small.size_bytes == 100
    content = parquet([small], Privacy(), 0.0, Random(7))
    assert pq.read_table(io.BytesIO(content)).to_pydict() == _table(record)
