"""Branches, loops, lists, dynamic shapes and operators of several inputs, built by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from serving.core.datatypes import Array
from tests.flows.translation.parity import quiet
from tests.flows.translation.programs import built, floats, ran, whole

with quiet():
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import get_new_symbol

_RANDOM = np.random.default_rng(4)
X = _RANDOM.normal(size=(2, 3, 4)).astype(np.float32)
Y = _RANDOM.normal(size=(2, 3, 4)).astype(np.float32)


def _answers(body: Callable[..., Any], *inputs: Array, version: int = 15, shapes: Any = None) -> list[Array]:
    named = {f"x{at}": one for at, one in enumerate(inputs)}
    model = built(named, lambda **given: body(*given.values()), version, shapes)
    return ran(model, inputs)


def _same(given: list[Array], *wanted: Array) -> None:
    assert len(given) == len(wanted)
    for one, other in zip(given, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_branch_is_taken_when_its_condition_says_so(sign: float) -> None:
    """Both branches see the values around them."""

    def body(x: Any) -> Any:
        positive = mb.greater(x=mb.reduce_sum(x=x, axes=[0], keep_dims=False), y=0.0)
        return mb.cond(
            pred=positive, _true_fn=lambda: mb.mul(x=x, y=2.0), _false_fn=lambda: mb.add(x=x, y=10.0)
        )

    x = floats([1, 2, 3]) * sign
    _same(_answers(body, x), x * 2 if sign > 0 else x + 10)


@pytest.mark.parametrize("rounds", [0, 1, 5])
def test_loop_goes_round_when_its_condition_holds(rounds: int) -> None:
    """The number of rounds is data; none at all leaves the variables as they were."""

    def body(x: Any, limit: Any) -> Any:
        return mb.while_loop(
            _cond=lambda at, _: mb.less(x=at, y=limit),
            _body=lambda at, total: (mb.add(x=at, y=1), mb.add(x=mb.mul(x=total, y=0.5), y=x)),
            loop_vars=(mb.identity(x=0), x),
        )

    total = X[0]
    for _ in range(rounds):
        total = total * 0.5 + X[0]
    _same(_answers(body, X[0], whole([rounds])), whole(rounds), total)


def test_list_is_read_as_written_when_it_grew() -> None:
    """Writing beyond the end makes a list longer; reading, gathering and its length see that."""

    def body(x: Any, at: Any) -> Any:
        ls = mb.make_list(init_length=2, elem_shape=(3,), dtype="fp32")
        ls = mb.list_write(ls=ls, index=1, value=x)
        ls = mb.list_write(ls=ls, index=mb.squeeze(x=at), value=mb.mul(x=x, y=3.0))
        ls = mb.list_scatter(ls=ls, indices=[0], value=mb.expand_dims(x=x, axes=[0]))
        return mb.list_gather(ls=ls, indices=[3, 0, 1]), mb.list_read(ls=ls, index=3), mb.list_length(ls=ls)

    x = floats([1, 2, 3])
    _same(_answers(body, x, whole([3])), np.stack([x * 3, x, x]), x * 3, whole(4))


def test_tensors_are_joined_when_stacked_or_interleaved() -> None:
    """Concatenation, its interleaved form, stacking and reshaping like others take tuples."""

    def body(x: Any, y: Any) -> Any:
        return (
            mb.concat(values=[x, y], axis=1),
            mb.concat(values=[x, y], axis=1, interleave=True),
            mb.stack(values=[x, y], axis=-1),
            mb.reshape_like(x=x, ref_tensors=(y, y), begins=(1, 0), ends=(2, 1), end_masks=(True, False)),
        )

    given = _answers(body, X, Y, version=16)
    interleaved = np.stack([X, Y], axis=2).reshape(2, 6, 4)
    _same(given, np.concatenate([X, Y], 1), interleaved, np.stack([X, Y], -1), X.reshape(3, 4, 2))


def test_blocks_move_to_the_batch_and_back_when_dilating() -> None:
    """TensorFlow's dilated convolutions are written with these two."""
    image = _RANDOM.normal(size=(1, 2, 4, 6)).astype(np.float32)

    def body(x: Any) -> Any:
        moved = mb.space_to_batch(x=x, block_shape=[2, 3], paddings=[[1, 1], [0, 0]])
        return moved, mb.batch_to_space(x=moved, block_shape=[2, 3], crops=[[1, 1], [0, 0]])

    moved, back = _answers(body, image)
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (0, 0)))
    expected = np.concatenate([padded[:, :, row::2, column::3] for row in range(2) for column in range(3)])
    _same([moved, back], expected, image)


def test_dequantised_values_return_when_quantised() -> None:
    """Quantising and back keeps a value to half a step, per channel too."""

    def body(x: Any) -> Any:
        scale, zero = floats([0.05, 0.02, 0.1]), np.array([1, -2, 3], np.int8)
        small = mb.quantize(input=x, scale=scale, zero_point=zero, axis=1, output_dtype="int8")
        return mb.dequantize(input=small, scale=scale, zero_point=zero, axis=1)

    (given,) = _answers(body, X, version=17)
    steps = floats([0.05, 0.02, 0.1]).reshape(1, 3, 1)
    inside = np.abs(X / steps) < 120
    assert np.all(np.abs(given - X)[inside] <= (np.broadcast_to(steps, X.shape) / 2 + 1e-6)[inside])


def test_shapes_are_computed_when_dimensions_are_dynamic() -> None:
    """Begin, end, sizes, repeats, ranges and pads can all come from the input's shape."""

    def body(x: Any) -> Any:
        rows = mb.slice_by_index(x=mb.shape(x=x), begin=[0], end=[1], squeeze_mask=[True])
        half = mb.floor_div(x=rows, y=2)
        both = mb.concat(values=[half, 2], axis=0)
        return (
            mb.slice_by_index(
                x=x, begin=mb.concat(values=[half, 0], axis=0), end=[0, 3], end_mask=[True, False]
            ),
            mb.slice_by_index(x=x, begin=both, end=[0, 4], squeeze_mask=[True, False]),
            mb.slice_by_size(x=x, begin=[0, 1], size=both),
            mb.tile(x=x, reps=mb.concat(values=[1, half], axis=0)),
            mb.range_1d(start=0, end=rows, step=2),
            mb.fill(shape=both, value=1.5),
            mb.pad(x=x, pad=mb.concat(values=[half, 0, 0, 1], axis=0), mode="constant", constant_val=7.0),
            mb.reshape(x=x, shape=mb.concat(values=[2, rows, 2], axis=0)),
        )

    for rows in (4, 7):
        x = _RANDOM.normal(size=(rows, 4)).astype(np.float32)
        half = rows // 2
        given = _answers(body, x, shapes={"x0": (get_new_symbol(), 4)})
        _same(
            given,
            x[half:, :3],
            x[half, 2:4],
            x[:half, 1:3],
            np.tile(x, (1, half)),
            np.arange(0, rows, 2),
            np.full((half, 2), 1.5),
            np.pad(x, ((half, 0), (0, 1)), constant_values=7.0),
            x.reshape(2, rows, 2),
        )


def test_products_are_summed_when_an_equation_says_how() -> None:
    """Einsum in the forms that Core ML knows."""
    left = _RANDOM.normal(size=(2, 3, 4, 5)).astype(np.float32)
    right = _RANDOM.normal(size=(2, 5, 4, 6)).astype(np.float32)
    equation = "nchw,nwhu->nchu"
    given = _answers(lambda x, y: mb.einsum(values=(x, y), equation=equation), left, right)
    _same(given, np.einsum(equation, left, right))
