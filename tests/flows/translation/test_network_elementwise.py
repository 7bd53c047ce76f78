"""Activations, functions, arithmetic, products and normalisations, built one by one, against numpy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special

from serving.core.datatypes import Array
from tests.flows.translation.network_models import built

_RNG = np.random.default_rng(6)
_X = _RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
_Y = _RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
_POSITIVE = np.abs(_X) + 0.5
_INSIDE = np.clip(_X, -0.9, 0.9)
_TOLERANCE = 1e-5


def _answer(add: Callable[[Any], None], *arrays: Array) -> Array:
    feeds = dict(zip("xyzuv", arrays, strict=False))
    return built(add, {name: one.shape for name, one in feeds.items()}, ["out"]).run(**feeds)[0]


_ALPHA, _BETA = np.array([0.3, 0.1, -0.4], np.float32), np.array([0.5, 2.0, 1.0], np.float32)


def _column(values: Array) -> Array:
    return values[:, None, None]


@pytest.mark.parametrize(
    ("kind", "params", "expected"),
    [
        ("RELU", None, lambda x: np.maximum(x, 0)),
        ("LEAKYRELU", [0.2], lambda x: np.where(x > 0, x, 0.2 * x)),
        ("THRESHOLDEDRELU", 0.4, lambda x: np.where(x >= 0.4, x, 0)),
        ("PRELU", _ALPHA, lambda x: np.where(x > 0, x, _column(_ALPHA) * x)),
        ("PRELU", np.array([0.3], np.float32), lambda x: np.where(x > 0, x, 0.3 * x)),
        ("TANH", None, np.tanh),
        ("SCALED_TANH", [1.5, 0.5], lambda x: 1.5 * np.tanh(0.5 * x)),
        ("SIGMOID", None, special.expit),
        ("SIGMOID_HARD", [0.3, 0.4], lambda x: np.clip(0.3 * x + 0.4, 0, 1)),
        ("LINEAR", [2.0, -1.0], lambda x: 2 * x - 1),
        ("ELU", 0.7, lambda x: np.where(x > 0, x, 0.7 * np.expm1(x))),
        ("SOFTSIGN", None, lambda x: x / (1 + np.abs(x))),
        ("SOFTPLUS", None, lambda x: np.log1p(np.exp(x))),
        (
            "PARAMETRICSOFTPLUS",
            [_ALPHA, _BETA],
            lambda x: _column(_ALPHA) * np.log1p(np.exp(_column(_BETA) * x)),
        ),
    ],
)
def test_activation_answers_its_formula_when_translated(
    kind: str, params: Any, expected: Callable[[Array], Array]
) -> None:
    """Every kind of the activation layer, with one number or one for each channel."""
    answer = _answer(lambda builder: builder.add_activation("a", kind, "x", "out", params), _X)
    np.testing.assert_allclose(answer, expected(_X), atol=_TOLERANCE)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("sqrt", np.sqrt),
        ("rsqrt", lambda x: 1 / np.sqrt(x + 0.01)),
        ("inverse", lambda x: 1 / (x + 0.01)),
        ("power", lambda x: x**1.7),
        ("exp", np.exp),
        ("log", np.log),
        ("abs", np.abs),
        ("threshold", lambda x: np.maximum(x, 1.7)),
    ],
)
def test_unary_answers_its_formula_when_scaled_and_shifted(
    mode: str, expected: Callable[[Array], Array]
) -> None:
    """The function applies to scale * x + shift, with its epsilon where it divides."""
    answer = _answer(lambda builder: builder.add_unary("u", "x", "out", mode, 1.7, 0.1, 2.0, 0.01), _POSITIVE)
    np.testing.assert_allclose(answer, expected(2 * _POSITIVE + 0.1), rtol=_TOLERANCE, atol=_TOLERANCE)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("ceil", _X, np.ceil),
        ("floor", _X, np.floor),
        ("round", _X, np.round),
        ("sign", _X, np.sign),
        ("sin", _X, np.sin),
        ("cos", _X, np.cos),
        ("tan", _X, np.tan),
        ("asin", _INSIDE, np.arcsin),
        ("acos", _INSIDE, np.arccos),
        ("atan", _X, np.arctan),
        ("sinh", _X, np.sinh),
        ("cosh", _X, np.cosh),
        ("tanh", _X, np.tanh),
        ("asinh", _X, np.arcsinh),
        ("acosh", _POSITIVE + 1, np.arccosh),
        ("atanh", _INSIDE, np.arctanh),
        ("exp2", _X, np.exp2),
        ("erf", _X, special.erf),
        ("copy", _X, np.array),
    ],
)
def test_function_answers_as_in_numpy_when_translated(
    name: str, given: Array, expected: Callable[[Array], Array]
) -> None:
    """The layers that are one function of each element."""
    answer = _answer(lambda builder: getattr(builder, f"add_{name}")("f", "x", "out"), given)
    np.testing.assert_allclose(answer, expected(given), atol=2e-5, rtol=_TOLERANCE)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("EXACT", lambda x: 0.5 * x * (1 + special.erf(x / np.sqrt(2)))),
        (
            "TANH_APPROXIMATION",
            lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        ),
        ("SIGMOID_APPROXIMATION", lambda x: x * special.expit(1.702 * x)),
    ],
)
def test_gelu_answers_its_formula_when_in_each_mode(mode: str, expected: Callable[[Array], Array]) -> None:
    """Exact, and both approximations."""
    answer = _answer(lambda builder: builder.add_gelu("g", "x", "out", mode), _X)
    np.testing.assert_allclose(answer, expected(_X), atol=_TOLERANCE)


def test_clamps_bound_values_when_translated() -> None:
    """Clip on both sides, and the clamped rectifier with its slope."""
    clipped = _answer(lambda builder: builder.add_clip("c", "x", "out", -0.5, 0.7), _X)
    np.testing.assert_allclose(clipped, np.clip(_X, -0.5, 0.7))
    clamped = _answer(lambda builder: builder.add_clamped_relu("c", "x", "out", 0.2, 0.6), _X)
    np.testing.assert_allclose(clamped, np.minimum(0.6, np.where(_X >= 0, _X, 0.2 * _X)), atol=_TOLERANCE)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("add", np.add),
        ("subtract", np.subtract),
        ("multiply", np.multiply),
        ("divide", np.divide),
        ("max", np.maximum),
        ("min", np.minimum),
        ("floor_div", np.floor_divide),
        ("mod", np.mod),
        ("pow", lambda x, y: np.abs(x) ** y),
    ],
)
def test_arithmetic_broadcasts_as_in_numpy_when_shapes_differ(
    name: str, expected: Callable[[Array, Array], Array]
) -> None:
    """Also of different rank, and with signs of every combination."""
    left, right = (np.abs(_X), _Y[0, :, :1]) if name == "pow" else (_X, _Y[0, :, :1])
    answer = _answer(
        lambda builder: getattr(builder, f"add_{name}_broadcastable")("b", ["x", "y"], "out"), left, right
    )
    np.testing.assert_allclose(answer, expected(left, right), atol=_TOLERANCE, rtol=_TOLERANCE)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("ADD", lambda arrays: sum(arrays)),
        ("MULTIPLY", lambda arrays: arrays[0] * arrays[1] * arrays[2]),
        ("AVE", lambda arrays: sum(arrays) / 3),
        ("MAX", lambda arrays: np.maximum.reduce(arrays)),
        ("MIN", lambda arrays: np.minimum.reduce(arrays)),
    ],
)
def test_arithmetic_takes_many_inputs_when_of_the_first_versions(
    mode: str, expected: Callable[[list[Array]], Array]
) -> None:
    """Three inputs at once."""
    arrays = [_X, _Y, _X - 2 * _Y]
    answer = _answer(lambda builder: builder.add_elementwise("e", ["x", "y", "z"], "out", mode), *arrays)
    np.testing.assert_allclose(answer, expected(arrays), atol=_TOLERANCE)


@pytest.mark.parametrize(("mode", "expected"), [("ADD", _X + 0.3), ("MULTIPLY", _X * 0.3)])
def test_arithmetic_uses_its_stored_number_when_of_one_input(mode: str, expected: Array) -> None:
    """A single input is shifted or scaled."""
    answer = _answer(lambda builder: builder.add_elementwise("e", ["x"], "out", mode, 0.3), _X)
    np.testing.assert_allclose(answer, expected, atol=_TOLERANCE)


_WHOLE = np.round(_X)


@pytest.mark.parametrize(
    ("add", "expected"),
    [
        (lambda b, i, a: b.add_greater_than("c", i, "out", alpha=a), np.greater),
        (lambda b, i, a: b.add_greater_than("c", i, "out", True, a), np.greater_equal),
        (lambda b, i, a: b.add_less_than("c", i, "out", alpha=a), np.less),
        (lambda b, i, a: b.add_less_than("c", i, "out", True, a), np.less_equal),
        (lambda b, i, a: b.add_equal("c", i, "out", a), np.equal),
        (lambda b, i, a: b.add_not_equal("c", i, "out", a), np.not_equal),
    ],
)
def test_comparison_answers_one_or_zero_when_true_or_false(
    add: Callable[[Any, list[str], float], None], expected: Callable[[Any, Any], Array]
) -> None:
    """Against a second input, and against a stored number."""
    two = _answer(lambda builder: add(builder, ["x", "y"], 0.0), _WHOLE, np.round(_Y))
    np.testing.assert_array_equal(two, expected(_WHOLE, np.round(_Y)).astype(np.float32))
    one = _answer(lambda builder: add(builder, ["x"], 1.0), _WHOLE)
    np.testing.assert_array_equal(one, expected(_WHOLE, 1).astype(np.float32))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("AND", np.logical_and), ("OR", np.logical_or), ("XOR", np.logical_xor), ("NOT", None)],
)
def test_logic_takes_anything_but_zero_as_true_when_translated(
    mode: str, expected: Callable[[Array, Array], Array] | None
) -> None:
    """Negative and fractional numbers are true."""
    names = ["x"] if expected is None else ["x", "y"]
    answer = _answer(
        lambda builder: builder.add_logical("l", names, "out", mode), *[_WHOLE, np.round(_Y)][: len(names)]
    )
    wanted = _WHOLE == 0 if expected is None else expected(_WHOLE, np.round(_Y))
    np.testing.assert_array_equal(answer, wanted.astype(np.float32))


def test_choice_takes_the_first_when_true() -> None:
    """The three inputs are the condition, what it chooses, and the other."""
    answer = _answer(
        lambda builder: builder.add_where_broadcastable("w", ["x", "y", "z"], "out"), _WHOLE, _X, _Y[:1]
    )
    np.testing.assert_array_equal(answer, np.where(_WHOLE != 0, _X, _Y[:1]))


@pytest.mark.parametrize(
    ("shape", "width", "expected"),
    [
        ((6,), 6, (5,)),
        ((2, 6), 6, (2, 5)),
        ((2, 3, 6), 6, (2, 3, 5)),
        ((2, 6, 1, 1), 6, (2, 5, 1, 1)),
        ((2, 3, 2, 1), 6, (2, 5, 1, 1)),
        ((2, 3, 1, 2, 3), 6, (2, 3, 5, 1, 1)),
    ],
)
def test_inner_product_flattens_as_specified_when_of_each_rank(
    shape: tuple[int, ...], width: int, expected: tuple[int, ...]
) -> None:
    """Up to rank 3 the last axis counts, from rank 4 on the last three."""
    x = _RNG.standard_normal(shape).astype(np.float32)
    weights = _RNG.standard_normal((5, width)).astype(np.float32)
    bias = _RNG.standard_normal(5).astype(np.float32)
    answer = _answer(
        lambda builder: builder.add_inner_product("i", weights, bias, width, 5, True, "x", "out"), x
    )
    np.testing.assert_allclose(
        answer, (x.reshape(-1, width) @ weights.T + bias).reshape(expected), atol=_TOLERANCE
    )


@pytest.mark.parametrize(
    ("left", "right", "swap_left", "swap_right"),
    [
        ((2, 3, 4), (4, 5), False, False),
        ((2, 4, 3), (2, 5, 4), True, True),
        ((4,), (2, 4, 5), False, False),
        ((2, 3, 4), (4,), False, False),
    ],
)
def test_batched_product_keeps_axes_when_given_vectors(
    left: tuple[int, ...], right: tuple[int, ...], swap_left: bool, swap_right: bool
) -> None:
    """A vector becomes a matrix of one row or column and the result keeps it."""
    x, y = (_RNG.standard_normal(shape).astype(np.float32) for shape in (left, right))
    answer = _answer(
        lambda builder: builder.add_batched_mat_mul("m", ["x", "y"], "out", swap_left, swap_right), x, y
    )
    first = x[None] if x.ndim == 1 else x.swapaxes(-1, -2) if swap_left else x
    second = y[:, None] if y.ndim == 1 else y.swapaxes(-1, -2) if swap_right else y
    np.testing.assert_allclose(answer, first @ second, atol=_TOLERANCE)


def test_batched_product_uses_its_stored_matrix_when_of_one_input() -> None:
    """The matrix is stored column by column."""
    weights, bias = (_RNG.standard_normal(shape).astype(np.float32) for shape in ((5, 6), 6))
    answer = _answer(
        lambda builder: builder.add_batched_mat_mul(
            "m", ["x"], "out", weight_matrix_rows=5, weight_matrix_columns=6, W=weights, bias=bias
        ),
        _X,
    )
    np.testing.assert_allclose(answer, _X @ weights + bias, atol=_TOLERANCE)


@pytest.mark.parametrize("cosine", [False, True])
def test_dot_product_sums_channels_when_plain_or_cosine(cosine: bool) -> None:
    """The other axes stay."""
    answer = _answer(
        lambda builder: builder.add_elementwise("d", ["x", "y"], "out", "COS" if cosine else "DOT"), _X, _Y
    )
    expected = (_X * _Y).sum(1, keepdims=True)
    if cosine:
        lengths = [np.sqrt((one**2).sum(1, keepdims=True)) for one in (_X, _Y)]
        expected = expected / lengths[0] / lengths[1]
    np.testing.assert_allclose(answer, expected, atol=_TOLERANCE)


@pytest.mark.parametrize("shape", [(1,), (3,), (1, 4, 5), (3, 4, 5)])
def test_scale_and_bias_broadcast_when_of_each_stored_shape(shape: tuple[int, ...]) -> None:
    """One number, one for each channel, one for each place, or one for each element."""
    factors, shifts = (_RNG.standard_normal(shape).astype(np.float32) for _ in range(2))

    def wide(values: Array) -> Array:
        return values[:, None, None] if len(shape) == 1 else values

    answer = _answer(
        lambda builder: builder.add_scale(
            "s", factors, shifts, True, "x", "out", shape_scale=list(shape), shape_bias=list(shape)
        ),
        _X,
    )
    np.testing.assert_allclose(answer, _X * wide(factors) + wide(shifts), atol=_TOLERANCE)
    shifted = _answer(lambda builder: builder.add_bias("b", shifts, "x", "out", list(shape)), _X)
    np.testing.assert_allclose(shifted, _X + wide(shifts), atol=_TOLERANCE)


@pytest.mark.parametrize(("across", "variance"), [(True, True), (False, True), (False, False)])
def test_mean_variance_normalises_its_axes_when_in_each_mode(across: bool, variance: bool) -> None:
    """Per channel or over all channels, with or without the deviation."""
    answer = _answer(lambda builder: builder.add_mvn("m", "x", "out", across, variance, 1e-4), _X)
    axes = (1, 2, 3) if across else (2, 3)
    centred = _X - _X.mean(axes, keepdims=True)
    expected = centred / np.sqrt(_X.var(axes, keepdims=True) + 1e-4) if variance else centred
    np.testing.assert_allclose(answer, expected, atol=_TOLERANCE)


def test_lengths_are_normalised_over_all_three_axes_when_translated() -> None:
    """Every batch element on its own."""
    answer = _answer(lambda builder: builder.add_l2_normalize("l", "x", "out", 1e-4), _X)
    lengths = np.sqrt((_X**2).sum((1, 2, 3), keepdims=True) + 1e-4)
    np.testing.assert_allclose(answer, _X / lengths, atol=_TOLERANCE)


def test_local_response_sums_neighbours_when_translated() -> None:
    """As torch's, whose factor is spread over the window, too."""
    x = _RNG.standard_normal((2, 7, 3, 3)).astype(np.float32)
    answer = _answer(lambda builder: builder.add_lrn("l", "x", "out", 0.2, 0.7, 3, 1.5), x)
    expected = torch.nn.functional.local_response_norm(torch.from_numpy(x), 3, 0.2, 0.7, 1.5)
    np.testing.assert_allclose(answer, expected.numpy(), atol=_TOLERANCE)


@pytest.mark.parametrize("axes", [(0, 2, 3), (2, 3), None])
def test_batch_normalisation_uses_the_right_statistics_when_in_each_mode(
    axes: tuple[int, ...] | None,
) -> None:
    """Of the batch, of each instance, or the stored ones."""
    gamma, beta, mean = (_RNG.standard_normal(3).astype(np.float32) for _ in range(3))
    variance = np.abs(mean) + 0.5

    def add(builder: Any) -> None:
        numbers = (gamma, beta, mean, variance)
        layer = builder.add_batchnorm("b", 3, *numbers, "x", "out", epsilon=1e-3)
        layer.batchnorm.computeMeanVar = axes is not None
        layer.batchnorm.instanceNormalization = axes == (2, 3)

    answer = _answer(add, _X)
    middle = _column(mean) if axes is None else _X.mean(axes, keepdims=True)
    spread = _column(variance) if axes is None else _X.var(axes, keepdims=True)
    expected = (_X - middle) / np.sqrt(spread + 1e-3) * _column(gamma) + _column(beta)
    np.testing.assert_allclose(answer, expected, atol=_TOLERANCE)


@pytest.mark.parametrize("shape", [(5,), (4, 5)])
def test_layer_normalisation_covers_the_last_axes_when_translated(shape: tuple[int, ...]) -> None:
    """As many as its numbers have."""
    gamma, beta = (_RNG.standard_normal(shape).astype(np.float32) for _ in range(2))
    answer = _answer(
        lambda builder: builder.add_layer_normalization("n", "x", "out", shape, gamma, beta, 1e-4), _X
    )
    expected = torch.nn.functional.layer_norm(
        torch.from_numpy(_X), shape, torch.from_numpy(gamma), torch.from_numpy(beta), 1e-4
    )
    np.testing.assert_allclose(answer, expected.numpy(), atol=_TOLERANCE)


def test_embeddings_look_up_their_rows_when_translated() -> None:
    """The older layer takes (S, B, 1, 1, 1), the newer any rank with a last axis of 1."""
    table, bias = _RNG.standard_normal((3, 7)).astype(np.float32), np.array([1, 2, 3], np.float32)
    places = np.array([[1, 6], [0, 3]], np.float32)
    newer = _answer(
        lambda builder: builder.add_embedding_nd("e", "x", "out", 7, 3, table, bias), places[..., None]
    )
    np.testing.assert_allclose(newer, table.T[places.astype(int)] + bias, atol=_TOLERANCE)
    older = _answer(
        lambda builder: builder.add_embedding("e", table, None, 7, 3, False, "x", "out"),
        places[..., None, None, None],
    )
    np.testing.assert_allclose(older[..., 0, 0], table.T[places.astype(int)], atol=_TOLERANCE)
