"""Joining and parting: every row comes back to whoever sent it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.core.batch import form_of, join, part, rows_of
from serving.core.datatypes import DTYPES, Array


def array(*shape: int, dtype: str = "FP32") -> Array:
    return np.zeros(shape, DTYPES[dtype])


@pytest.mark.parametrize(
    ("inputs", "rows"),
    [
        ({"a": array(2, 3), "b": array(2)}, 2),
        ({"a": array(0, 3)}, 0),
        ({"a": array(2, 3), "b": array(3)}, None),
        ({"a": array(2), "b": array()}, None),
        ({"a": array()}, None),
    ],
)
def test_rows_are_counted_when_all_inputs_agree(inputs: dict[str, Array], rows: int | None) -> None:
    """A scalar has no rows."""
    assert rows_of(inputs) == rows


def test_form_tells_apart_what_cannot_be_joined() -> None:
    """Names, types and inner axes; not the number of rows, and not the order of names."""
    form = form_of({"a": array(2, 3), "b": array(2)})
    assert form == form_of({"b": array(5), "a": array(5, 3)})
    assert form != form_of({"a": array(2, 4), "b": array(2)})
    assert form != form_of({"a": array(2, 3, dtype="FP64"), "b": array(2)})
    assert form != form_of({"a": array(2, 3)})


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(0, 1000))
def test_part_undoes_join_whatever_came_together(rows: list[int], start: int) -> None:
    """A model that marks its rows marks each caller's own."""
    numbers = iter(range(start, start + sum(rows)))
    requests = [{"x": np.array([[next(numbers)] for _ in range(count)], np.int64)} for count in rows]
    joined = join(requests)
    parted = part({"y": joined["x"] * 10}, rows)
    assert parted is not None
    for request, answer in zip(requests, parted, strict=True):
        assert answer["y"].tolist() == (request["x"] * 10).tolist()


@pytest.mark.parametrize(
    "outputs", [{"y": array(4)}, {"y": array(3), "z": array()}, {"y": array(3), "z": array(2)}]
)
def test_part_gives_nothing_when_rows_are_not_rows(outputs: dict[str, Array]) -> None:
    """An output of another length belongs to nobody."""
    assert part(outputs, [1, 2]) is None


def test_join_copies_nothing_when_alone() -> None:
    """The usual case costs nothing."""
    x = array(2, 3)
    assert join([{"x": x}])["x"] is x
