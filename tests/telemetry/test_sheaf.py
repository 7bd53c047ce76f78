"""Requests packed into columns: what is taken is what was added, in its order, whoever runs beside."""

import threading

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.core.model import VersionRef
from serving.telemetry.sheaf import Bundle, Condensed, Kept, Sheaf
from tests.logged import DIGITS, Array, floats


def _sheaf(x: Array, y: Array | None = None, rows: int | None = 1) -> Sheaf:
    return Sheaf(DIGITS, "champion", "ok", rows, {"x": x}, {} if y is None else {"y": y})


def _add(sheaf: Sheaf, number: int, x: Array) -> None:
    sheaf.add(float(number), f"r{number}", number / 1000, {"x": x}, {}, 10)


def _rows(kept: Kept) -> Array:
    assert not isinstance(kept, Condensed)
    return np.concatenate(kept)


def _seen(bundle: Bundle) -> list[tuple[str, float, float, float]]:
    """Id, time, latency and value of each request of one row with one element."""
    values = _rows(bundle.inputs["x"]).ravel().tolist()
    return list(zip(bundle.ids, bundle.times.tolist(), bundle.latencies.tolist(), values, strict=True))


@given(steps=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), max_size=20))
def test_bundles_hold_every_request_once_when_taken_between_additions(steps: list[tuple[int, int]]) -> None:
    """However many are added and taken at a time, what came first leaves first."""
    sheaf, added = _sheaf(np.zeros((1, 1), np.float32)), 0
    seen: list[tuple[str, float, float, float]] = []
    for more, most in (*steps, (0, 1000)):
        for number in range(added, added + more):
            _add(sheaf, number, np.full((1, 1), number, np.float32))
        added += more
        bundle = sheaf.take(most)
        if bundle is not None:
            assert 0 < len(bundle) <= most
            assert bundle.size_bytes == 10 * len(bundle)
            seen += _seen(bundle)
    assert seen == [(f"r{n}", float(n), n / 1000, float(n)) for n in range(added)]
    assert sheaf.is_empty


def test_bundles_line_up_when_one_thread_adds_and_another_takes() -> None:
    """A request's id, time and tensors stay together without a lock."""
    sheaf, over, count = _sheaf(np.zeros((1, 1), np.float32)), threading.Event(), 20_000
    seen: list[tuple[str, float, float, float]] = []

    def take() -> None:
        while not (over.is_set() and sheaf.is_empty):
            bundle = sheaf.take(50)
            seen.extend(_seen(bundle) if bundle is not None else ())

    taking = threading.Thread(target=take)
    taking.start()
    for number in range(count):
        _add(sheaf, number, np.full((1, 1), number, np.float32))
    over.set()
    taking.join(30)
    assert seen == [(f"r{n}", float(n), n / 1000, float(n)) for n in range(count)]


@pytest.mark.parametrize(
    "x",
    [
        pytest.param(floats(2, 3), id="packed"),
        pytest.param(floats(2, 3).astype(ml_dtypes.bfloat16), id="bfloat16"),
        pytest.param(floats(2, 3).astype(">f4"), id="of the other byte order"),
        pytest.param(np.array([["a", "b"], ["c", "d"]], object), id="text"),
        pytest.param(floats(2, 10_000), id="large"),
        pytest.param(floats(3, 2).T, id="not in row order"),
    ],
)
def test_tensor_comes_back_as_it_was_when_its_form_is(x: Array) -> None:
    """Whether it was packed or kept."""
    sheaf = _sheaf(x, rows=2)
    for number in range(3):
        _add(sheaf, number, x)
    bundle = sheaf.take(1000)
    assert bundle is not None
    assert len(bundle) == 6
    assert np.array_equal(_rows(bundle.inputs["x"]), np.concatenate([x] * 3))


def test_tensor_stands_in_each_row_when_it_has_no_batch_axis() -> None:
    """Of as many rows as its request has."""
    x, y = floats(2, 1), np.array(4.0)
    sheaf = _sheaf(x, y, rows=2)
    sheaf.add(0.0, "r", 0.0, {"x": x}, {"y": y}, 10)
    bundle = sheaf.take(1000)
    assert bundle is not None
    assert _rows(bundle.outputs["y"]).tolist() == [4.0, 4.0]


X = floats(1, 2)


@pytest.mark.parametrize(
    ("different", "expected"),
    [
        pytest.param({}, True, id="same"),
        pytest.param({"ref": VersionRef("digits", "2")}, True, id="equal version"),
        pytest.param({"ref": VersionRef("digits", "3")}, False, id="other version"),
        pytest.param({"variant": "challenger"}, False, id="variant"),
        pytest.param({"status": "invalid"}, False, id="status"),
        pytest.param({"rows": None}, False, id="rows"),
        pytest.param({"inputs": {"x": floats(1, 3)}}, False, id="shape"),
        pytest.param({"inputs": {"x": X.astype(np.float64)}}, False, id="datatype"),
        pytest.param({"inputs": {"z": X}}, False, id="name"),
        pytest.param({"inputs": {"x": X, "z": X}}, False, id="one more"),
        pytest.param({"outputs": {"y": X}}, False, id="output"),
    ],
)
def test_sheaf_takes_a_request_when_it_is_alike(different: dict[str, object], expected: bool) -> None:
    """In everything that is kept once for all."""
    alike = {
        "ref": DIGITS,
        "variant": "champion",
        "status": "ok",
        "rows": 1,
        "inputs": {"x": X},
        "outputs": {},
    }
    assert _sheaf(X).takes(**(alike | different)) is expected  # type: ignore[arg-type]
