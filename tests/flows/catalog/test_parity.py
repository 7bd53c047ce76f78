"""Siblings in other formats: the same network, or one that only claims to be."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from flows.catalog.facts import Kinship, Side, Source
from flows.catalog.parity import beside
from flows.catalog.subject import Subject, bring_in
from flows.catalog.task import Kin
from tests.flows.catalog.folders import onnx_row_sum
from tests.models import describe, onnx_adder, onnx_graph, save_onnx, torch_adder

X = np.linspace(-2, 2, 24, dtype=np.float32).reshape(8, 3)
PAIR = [("x", "float32", [-1, 3])]
OUT = [("", "float32", [-1, 3])]


def ignore(side: Side, doing: str) -> None:
    """Nobody waits for these steps."""


def compared(candidate: Path, sibling: Path) -> Kinship:
    subject = bring_in(Side.CANDIDATE, candidate, "2", 1, None)
    assert isinstance(subject, Subject)
    return beside(Kin("digits/3", sibling), subject, {Source.EVALUATION: {"x": X}}, 1, ignore)


def script(folder: Path, constant: float = 1.0) -> Path:
    return describe(torch_adder(folder, constant), inputs=PAIR, outputs=OUT)


def half(folder: Path) -> Path:
    """`y = x + 1` in half precision."""
    node = helper.make_node("Add", ["x", "one"], ["y"])
    one = helper.make_tensor("one", TensorProto.FLOAT16, [1], [1.0])
    return save_onnx(folder, onnx_graph([node], weights=[one], elem_type=TensorProto.FLOAT16))


def test_siblings_are_alike_when_only_the_format_differs(tmp_path: Path) -> None:
    """Other names of outputs are the format's, not the network's."""
    found = compared(onnx_adder(tmp_path / "onnx"), script(tmp_path / "script"))
    assert (found.problem, found.differs, found.format, found.rows) == (None, None, "torchscript", 8)
    assert found.largest < 1e-6
    assert found.tolerance == 1e-3


def test_siblings_are_alike_when_one_computes_in_half_precision(tmp_path: Path) -> None:
    """The wider tolerance holds for the pair; types of inputs follow the sibling's."""
    found = compared(onnx_adder(tmp_path / "onnx"), half(tmp_path / "half"))
    assert (found.problem, found.differs, found.tolerance) == (None, None, 1e-2)
    assert found.largest > 0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(lambda folder: script(folder, 1.01), "differs by up to 0.01", id="other weights"),
        pytest.param(onnx_row_sum, "is FP64 [8, 3] once and FP64 [8, 1] once", id="other output"),
        pytest.param(
            lambda folder: onnx_adder(folder, width=4), "takes input 'x' in shape [-1, 4]", id="width"
        ),
    ],
)
def test_siblings_differ_when_they_are_other_networks(tmp_path: Path, make: object, said: str) -> None:
    """What differs is said; a name is no proof."""
    assert callable(make)
    found = compared(onnx_adder(tmp_path / "onnx"), make(tmp_path / "other"))
    assert found.problem is None
    assert said in (found.differs or "")


def test_sibling_with_a_fixed_batch_is_asked_so_many_rows(tmp_path: Path) -> None:
    """As many rows as it takes at once."""
    node = helper.make_node("Add", ["x", "constant"], ["y"])
    one = helper.make_tensor("constant", TensorProto.FLOAT, [1], [1.0])
    fixed = save_onnx(tmp_path / "fixed", onnx_graph([node], x=(2, 3), y=(2, 3), weights=[one]))
    found = compared(onnx_adder(tmp_path / "onnx"), fixed)
    assert (found.problem, found.differs, found.rows) == (None, None, 2)


def test_sibling_that_cannot_be_loaded_is_told_when_compared(tmp_path: Path) -> None:
    """It proves nothing either way."""
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no model files" in (compared(onnx_adder(tmp_path / "onnx"), empty).problem or "")
