"""The contract between a champion's callers and its successor: what may change and what may not."""

import numpy as np
import pytest

from flows.catalog.contract import compatibility, off_contract
from flows.catalog.facts import Loaded
from serving.core.model import TensorSpec

Dims = tuple[int, ...] | None


def version(*, x: Dims = (-1, 3), y: Dims = (-1, 10), datatype: str = "FP32", **renamed: str) -> Loaded:
    inputs = (TensorSpec(renamed.get("x_name", "x"), datatype, x),)
    outputs = (TensorSpec(renamed.get("y_name", "y"), renamed.get("y_type", "FP32"), y),)
    return Loaded("2", inputs=inputs, outputs=outputs)


CHAMPION = version()


@pytest.mark.parametrize(
    ("candidate", "champion", "breaks"),
    [
        pytest.param(version(), CHAMPION, "", id="the same"),
        pytest.param(version(x=(-1, -1)), CHAMPION, "", id="takes more"),
        pytest.param(version(y=(-1, -1)), CHAMPION, "", id="a free output axis"),
        pytest.param(version(x=(1, 3)), version(x=(1, 3)), "", id="the same fixed batch"),
        pytest.param(
            version(x=(1, 3)), CHAMPION, "axis 0 of input 'x' takes only length 1", id="fixed batch"
        ),
        pytest.param(version(x=(-1, 4)), CHAMPION, "axis 1 of input 'x' takes only length 4", id="width"),
        pytest.param(version(x=(-1, 3, 1)), CHAMPION, "input 'x' has shape [-1, 3, 1]", id="rank"),
        pytest.param(version(datatype="FP64"), CHAMPION, "input 'x' is FP64", id="input type"),
        pytest.param(
            version(x_name="z"), CHAMPION, "input 'x' of the champion is not taken", id="input name"
        ),
        pytest.param(version(x_name="z"), CHAMPION, "input 'z' is new", id="new input"),
        pytest.param(
            version(y_name="z"), CHAMPION, "output 'y' of the champion is missing", id="output name"
        ),
        pytest.param(version(y_type="INT64"), CHAMPION, "output 'y' is INT64", id="output type"),
        pytest.param(version(y=(-1, 9)), CHAMPION, "axis 1 of output 'y' has length 9", id="fewer classes"),
        pytest.param(version(y=(-1,)), CHAMPION, "output 'y' has shape [-1]", id="output rank"),
    ],
)
def test_contract_names_what_callers_would_miss_when_tabulated(
    candidate: Loaded, champion: Loaded, breaks: str
) -> None:
    """Each conflict is a sentence that names the tensor; what is compatible leaves none."""
    found = compatibility(candidate, champion)
    assert found.open == ()
    assert bool(found.breaks) == bool(breaks)
    assert breaks in "; ".join(found.breaks)


def test_contract_welcomes_an_output_when_it_is_new() -> None:
    """More outputs than the champion's harm nobody."""
    more = Loaded(
        "2", inputs=CHAMPION.inputs, outputs=(*CHAMPION.outputs, TensorSpec("extra", "FP32", (-1,)))
    )
    assert compatibility(more, CHAMPION).breaks == ()


@pytest.mark.parametrize("unknown", [version(x=None), version(x=None, datatype="INT64")])
def test_contract_leaves_open_when_a_shape_is_not_declared(unknown: Loaded) -> None:
    """A script without signature declares nothing, so neither its shape nor its guessed type conflicts."""
    for candidate, champion in ((unknown, CHAMPION), (CHAMPION, unknown)):
        found = compatibility(candidate, champion)
        assert found.breaks == ()
        assert "input 'x' is not declared" in found.open[0]


@pytest.mark.parametrize(
    ("outputs", "problem"),
    [
        pytest.param({"y": np.zeros((2, 10), np.float32)}, None, id="as promised"),
        pytest.param({"y": np.zeros((2, 10), np.float32), "z": np.zeros(1)}, None, id="and more"),
        pytest.param({"y": np.zeros((2, 9), np.float32)}, "has shape [2, 9]", id="other shape"),
        pytest.param({"y": np.zeros((2, 10))}, "is FP64", id="other type"),
        pytest.param({"z": np.zeros((2, 10), np.float32)}, "output 'y' is missing", id="other name"),
    ],
)
def test_answer_is_held_against_the_champions_promise_when_given(
    outputs: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]], problem: str | None
) -> None:
    """Whatever a candidate declares of itself, its real answers must be what callers expect."""
    found = off_contract(CHAMPION.outputs, outputs)
    assert (found is None) == (problem is None)
    assert (problem or "") in (found or "")
