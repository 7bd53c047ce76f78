"""Layers that move, pick, join, reduce and make elements, built one by one, against numpy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from serving.core.datatypes import Array
from tests.flows.translation.network_models import built

_RNG = np.random.default_rng(8)
_X = _RNG.standard_normal((2, 6, 4, 5)).astype(np.float32)

Add = Callable[[Any], None]


def _answers(add: Add, *arrays: Array, outputs: tuple[str, ...] = ("out",)) -> list[Array]:
    feeds = dict(zip("xyzuv", arrays, strict=False))
    return built(add, {name: one.shape for name, one in feeds.items()}, outputs).run(**feeds)


def _same(actual: Array, expected: Array) -> None:
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert actual.shape == expected.shape


@pytest.mark.parametrize(
    ("add", "expected"),
    [
        (lambda b: b.add_reshape_static("r", "x", "out", (4, -1, 5)), _X.reshape(4, 12, 5)),
        (lambda b: b.add_rank_preserving_reshape("r", "x", "out", (0, 2, -1, 5)), _X.reshape(2, 2, 12, 5)),
        (lambda b: b.add_flatten("f", 0, "x", "out"), _X.reshape(2, 120, 1, 1)),
        (lambda b: b.add_flatten("f", 1, "x", "out"), _X.transpose(0, 2, 3, 1).reshape(2, 120, 1, 1)),
        (lambda b: b.add_flatten_to_2d("f", "x", "out", -2), _X.reshape(12, 20)),
        (lambda b: b.add_flatten_to_2d("f", "x", "out", 0), _X.reshape(1, 240)),
        (lambda b: b.add_transpose("t", [3, 1, 0, 2], "x", "out"), _X.transpose(3, 1, 0, 2)),
        (lambda b: b.add_expand_dims("e", "x", "out", [0, -1]), _X[None, ..., None]),
        (lambda b: b.add_permute("p", (0, 2, 3, 1), "x", "out"), _X.transpose(0, 2, 3, 1)),
        (lambda b: b.add_reverse("r", "x", "out", [False, True, False, True]), _X[:, ::-1, :, ::-1]),
        (lambda b: b.add_tile("t", "x", "out", [2, 3]), np.tile(_X, (2, 3))),
        (lambda b: b.add_get_shape("g", "x", "out"), np.array(_X.shape, np.float32)),
        (lambda b: b.add_slice("s", "x", "out", "channel", 1, -1, 2), _X[:, 1:-1:2]),
        (lambda b: b.add_slice("s", "x", "out", "width", 1, 4, 1), _X[..., 1:4]),
        (lambda b: b.add_fill_like("f", "x", "out", 1.5), np.full(_X.shape, 1.5)),
        (lambda b: b.add_fill_static("f", "out", (2, 3), 1.5), np.full((2, 3), 1.5)),
        (lambda b: b.add_range_static("r", "out", None, 7, 1, 1.5), np.arange(1, 7, 1.5)),
        (lambda b: b.add_lower_triangular("l", "x", "out", 1), np.tril(_X, 1)),
        (lambda b: b.add_upper_triangular("l", "x", "out", -1), np.triu(_X, -1)),
        (lambda b: b.add_matrix_band_part("m", "x", "out", 1, -1), np.triu(_X, -1)),
        (lambda b: b.add_matrix_band_part("m", "x", "out", 1, 2), np.tril(np.triu(_X, -1), 2)),
        (lambda b: b.add_matrix_band_part("m", "x", "out", -1, -1), _X),
        (
            lambda b: b.add_constant_pad("c", ["x"], "out", 0.5, False, [0, 0, 1, 2, 0, 0, 0, 3]),
            np.pad(_X, [(0, 0), (1, 2), (0, 0), (0, 3)], constant_values=0.5),
        ),
        (
            lambda b: b.add_constant_pad("c", ["x"], "out", 0.5, True, [0, 0, 0, 8, 7, 0, 0, 2]),
            np.pad(_X, [(0, 0), (0, 2), (3, 0), (0, 0)], constant_values=0.5),
        ),
        (lambda b: b.add_sliding_windows("s", "x", "out", 1, 3, 2), np.stack([_X[:, 0:3], _X[:, 2:5]], 1)),
        (
            lambda b: b.add_cumsum("c", ["x"], "out", 1, True, True),
            np.flip(np.cumsum(np.flip(_X, 1), 1), 1) - _X,
        ),
        (lambda b: b.add_softmax_nd("s", "x", "out", 1), np.exp(_X) / np.exp(_X).sum(1, keepdims=True)),
        (lambda b: b.add_softmax("s", "x", "out"), np.exp(_X) / np.exp(_X).sum(1, keepdims=True)),
    ],
)
def test_layer_rearranges_as_in_numpy_when_of_one_input(add: Add, expected: Array) -> None:
    """One tensor of four axes in, one out."""
    _same(_answers(add, _X)[0], expected)


_S = {"beginIds": [1, 5, -3, 1], "endIds": [2, 1, -1, 3], "strides": [1, -2, 1, 1]}


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ({}, _X[1:2, 5:1:-2, -3:-1, 1:3]),
        ({"begin_masks": [True, True, False, False]}, _X[:2, :1:-2, -3:-1, 1:3]),
        ({"end_masks": [False, True, True, False]}, _X[1:2, 5::-2, -3:, 1:3]),
        ({"squeeze_masks": [True, False, True, False]}, _X[1, 5:1:-2, -3, 1:3]),
    ],
)
@pytest.mark.parametrize("dynamic", [False, True])
def test_slice_follows_its_masks_when_stored_or_computed(
    masks: dict[str, list[bool]], expected: Array, dynamic: bool
) -> None:
    """Begins and ends from the layer, or from other layers."""
    given = {name: [False] * 4 for name in ("begin_masks", "end_masks", "squeeze_masks")} | masks

    def add(builder: Any) -> None:
        if dynamic:
            names = ["x", "y", "z"]
            builder.add_slice_dynamic("s", names, "out", strides=_S["strides"], **given)
        else:
            builder.add_slice_static("s", "x", "out", _S["beginIds"], _S["endIds"], _S["strides"], **given)

    begins, ends = (np.array(_S[name], np.float32) for name in ("beginIds", "endIds"))
    answer = _answers(add, *((_X, begins, ends) if dynamic else (_X,)))[0]
    np.testing.assert_array_equal(answer, expected)


def test_slice_by_size_starts_where_told_when_computed() -> None:
    """The begin comes from another layer."""
    answer = _answers(
        lambda b: b.add_slice_by_size("s", ["x", "y"], "out", 1, 3), _X, np.array([2], np.float32)
    )[0]
    _same(answer, _X[:, 2:5])


@pytest.mark.parametrize(
    ("shape", "axes", "everything", "expected"),
    [
        ((1, 1, 10, 5), [0, 1], False, (10, 5)),
        ((1, 10, 5, 1), [0, -1], False, (10, 5)),
        ((1, 10, 1), None, True, (10,)),
        ((1,), [0], False, (1,)),
        ((1, 1), None, True, (1,)),
    ],
)
def test_squeeze_keeps_an_axis_when_none_would_be_left(
    shape: tuple[int, ...], axes: list[int] | None, everything: bool, expected: tuple[int, ...]
) -> None:
    """There are no scalars in a network."""
    x = _RNG.standard_normal(shape).astype(np.float32)
    answer = _answers(lambda b: b.add_squeeze("s", "x", "out", axes, everything), x)[0]
    _same(answer, x.reshape(expected))


@pytest.mark.parametrize("interleave", [False, True])
def test_concat_joins_or_interleaves_when_asked(interleave: bool) -> None:
    """Interleaved, elements alternate along the axis."""
    answer = _answers(lambda b: b.add_concat_nd("c", ["x", "y"], "out", 1, interleave), _X, -_X)[0]
    expected = np.stack([_X, -_X], 2).reshape(2, 12, 4, 5) if interleave else np.concatenate([_X, -_X], 1)
    _same(answer, expected)


def test_stack_adds_an_axis_when_it_counts_from_the_end() -> None:
    """The axis is one of the result's."""
    _same(_answers(lambda b: b.add_stack("s", ["x", "y"], "out", -2), _X, -_X)[0], np.stack([_X, -_X], -2))


@pytest.mark.parametrize(
    ("add", "sizes"),
    [
        (lambda b: b.add_split("s", "x", ["a", "b"]), [3]),
        (lambda b: b.add_split_nd("s", "x", ["a", "b"], 1, 2), [3]),
        (lambda b: b.add_split_nd("s", "x", ["a", "b"], -3, 2, [4, 2]), [4]),
    ],
)
def test_split_gives_its_parts_when_equal_or_not(add: Add, sizes: list[int]) -> None:
    """The number of outputs decides, or the stored sizes."""
    parts = _answers(add, _X, outputs=("a", "b"))
    for actual, expected in zip(parts, np.split(_X, sizes, 1), strict=True):
        _same(actual, expected)


@pytest.mark.parametrize(
    ("add", "second", "expected"),
    [
        (lambda b: b.add_reshape_like("r", ["x", "y"], "out"), np.zeros((12, 20)), _X.reshape(12, 20)),
        (lambda b: b.add_reshape_dynamic("r", ["x", "y"], "out"), np.array([12, -1]), _X.reshape(12, 20)),
        (
            lambda b: b.add_broadcast_to_like("r", ["x", "y"], "out"),
            np.zeros((3, 2, 6, 4, 5)),
            np.broadcast_to(_X, (3, 2, 6, 4, 5)),
        ),
        (
            lambda b: b.add_broadcast_to_dynamic("r", ["x", "y"], "out"),
            np.array([3, 2, 6, 4, 5]),
            np.broadcast_to(_X, (3, 2, 6, 4, 5)),
        ),
        (lambda b: b.add_tile("t", ["x", "y"], "out"), np.array([1, 2, 1, 3]), np.tile(_X, (1, 2, 1, 3))),
        (
            lambda b: b.add_constant_pad("c", ["x", "y"], "out", 0.5),
            np.array([0, 1, 2, 0, 0, 0, 1, 1]),
            np.pad(_X, [(0, 1), (2, 0), (0, 0), (1, 1)], constant_values=0.5),
        ),
        (
            lambda b: b.add_gather("g", ["x", "y"], "out", -3),
            np.array([[5, -1], [0, 2]]),
            np.take(_X, [[5, 5], [0, 2]], 1),
        ),
        (
            lambda b: b.add_gather_nd("g", ["x", "y"], "out"),
            np.array([[1, 5], [0, 2], [1, 0]]),
            _X[[1, 0, 1], [5, 2, 0]],
        ),
        (
            lambda b: b.add_reverse_sequence("r", ["x", "y"], "out", 0, 2),
            np.array([3, 2]),
            np.stack([_X[0][:, [2, 1, 0, 3]], _X[1][:, [1, 0, 2, 3]]]),
        ),
        (lambda b: b.add_fill_dynamic("f", "y", "out", 2.5), np.array([2, 3]), np.full((2, 3), 2.5)),
    ],
)
def test_layer_rearranges_as_in_numpy_when_of_two_inputs(add: Add, second: Array, expected: Array) -> None:
    """The second input tells a shape, places, amounts or lengths."""
    _same(_answers(add, _X, second.astype(np.float32))[0], np.asarray(expected, np.float32))


def test_broadcast_reaches_its_shape_when_stored() -> None:
    """Leading axes are added."""
    answer = _answers(lambda b: b.add_broadcast_to_static("r", "x", "out", (3, 2, 6, 4, 5)), _X)[0]
    _same(answer, np.broadcast_to(_X, (3, 2, 6, 4, 5)))


@pytest.mark.parametrize("axis", [1, -1])
def test_gather_along_an_axis_takes_by_element_when_translated(axis: int) -> None:
    """As numpy's take_along_axis."""
    shape = list(_X.shape)
    shape[axis] = 3
    places = _RNG.integers(0, _X.shape[axis], shape)
    answer = _answers(
        lambda b: b.add_gather_along_axis("g", ["x", "y"], "out", axis), _X, places.astype(np.float32)
    )[0]
    _same(answer, np.take_along_axis(_X, places, axis))


_SCATTERED: dict[str, Callable[[Any, Any, Any], None]] = {
    "UPDATE": lambda data, at, new: data.__setitem__(at, new),
    "ADD": np.add.at,
    "SUB": np.subtract.at,
    "MUL": np.multiply.at,
    "DIV": np.divide.at,
    "MAX": np.maximum.at,
    "MIN": np.minimum.at,
}


@pytest.mark.parametrize("mode", _SCATTERED)
def test_scatter_accumulates_when_in_each_mode(mode: str) -> None:
    """Along an axis by slice, by element, and by point."""
    updates = _RNG.uniform(0.5, 2, (2, 3, 4, 5)).astype(np.float32)
    places = np.array([4, 0, 2])
    answer = _answers(
        lambda b: b.add_scatter("s", ["x", "y", "z"], "out", 1, mode), _X, places.astype(np.float32), updates
    )[0]
    expected = _X.copy()
    _SCATTERED[mode](expected, (slice(None), places), updates)
    _same(answer, expected)
    points = np.array([[0, 1], [1, 5]])
    answer = _answers(
        lambda b: b.add_scatter_nd("s", ["x", "y", "z"], "out", mode),
        _X,
        points.astype(np.float32),
        updates[0, :2],
    )[0]
    expected = _X.copy()
    _SCATTERED[mode](expected, tuple(points.T), updates[0, :2])
    _same(answer, expected)
    wide = np.broadcast_to(places[:, None, None], (2, 3, 4, 5))
    answer = _answers(
        lambda b: b.add_scatter_along_axis("s", ["x", "y", "z"], "out", 1, mode),
        _X,
        wide.astype(np.float32),
        updates,
    )[0]
    expected = _X.copy()
    _SCATTERED[mode](expected, (slice(None), places), updates)
    _same(answer, expected)


def test_scatter_takes_places_of_higher_rank_when_updates_have_as_many_axes() -> None:
    """Two axes of places stand where the scattered axis stands."""
    places = np.array([[0, 5], [3, 1]])
    updates = _RNG.standard_normal((2, 2, 2, 4, 5)).astype(np.float32)
    answer = _answers(
        lambda b: b.add_scatter("s", ["x", "y", "z"], "out", 1, "ADD"), _X, places.astype(np.float32), updates
    )[0]
    expected = _X.copy()
    _SCATTERED["ADD"](expected, (slice(None), places.ravel()), updates.reshape(2, 4, 4, 5))
    _same(answer, expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sum", lambda x, **k: x.sum(**k)),
        ("prod", lambda x, **k: x.prod(**k)),
        ("mean", lambda x, **k: x.mean(**k)),
        ("max", lambda x, **k: x.max(**k)),
        ("min", lambda x, **k: x.min(**k)),
        ("l1", lambda x, **k: np.abs(x).sum(**k)),
        ("l2", lambda x, **k: np.sqrt((x**2).sum(**k))),
        ("sumsquare", lambda x, **k: (x**2).sum(**k)),
        ("logsum", lambda x, **k: np.log(x.sum(**k))),
        ("logsumexp", lambda x, **k: np.log(np.exp(x).sum(**k))),
    ],
)
def test_reduction_covers_its_axes_when_some_or_all(name: str, expected: Callable[..., Array]) -> None:
    """With and without keeping the axes; over all, one element is left."""
    x = np.abs(_X[:, :3]) + 0.1
    for axes, keep, everything in (([1, -1], True, False), ([2], False, False), (None, False, True)):

        def add(builder: Any, given: Any = (axes, keep, everything)) -> None:
            getattr(builder, f"add_reduce_{name}")("r", "x", "out", *given)

        answer = _answers(add, x)[0]
        over = None if axes is None else tuple(axes)
        wanted = np.atleast_1d(expected(x, axis=over, keepdims=keep))
        np.testing.assert_allclose(answer, wanted, rtol=1e-5)
        assert answer.shape == wanted.shape


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("sum", lambda x, **k: x.sum(**k)),
        ("avg", lambda x, **k: x.mean(**k)),
        ("prod", lambda x, **k: x.prod(**k)),
        ("logsum", lambda x, **k: np.log(x + 1e-3).sum(**k)),
        ("sumsquare", lambda x, **k: (x**2).sum(**k)),
        ("L1", lambda x, **k: np.abs(x).sum(**k)),
        ("L2", lambda x, **k: np.sqrt((x**2).sum(**k))),
        ("max", lambda x, **k: x.max(**k)),
        ("min", lambda x, **k: x.min(**k)),
    ],
)
@pytest.mark.parametrize(
    ("axis", "axes"), [("CHW", (1, 2, 3)), ("HW", (2, 3)), ("C", (1,)), ("H", (2,)), ("W", (3,))]
)
def test_reduction_of_the_first_versions_keeps_axes_when_reduced(
    mode: str, expected: Callable[..., Array], axis: str, axes: tuple[int, ...]
) -> None:
    """The older layer names its axes by what they mean in an image."""
    x = np.abs(_X[:, :3, :2, :2]) + 0.1
    answer = _answers(lambda b: b.add_reduce("r", "x", "out", axis, mode, 1e-3), x)[0]
    np.testing.assert_allclose(answer, expected(x, axis=axes, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_places_of_extremes_are_found_when_kept_or_dropped(name: str, keep: bool) -> None:
    """As whole numbers in float32, like everything in a network."""
    answer = _answers(lambda b: getattr(b, f"add_{name}")("a", "x", "out", -2, keep), _X)[0]
    np.testing.assert_array_equal(answer, getattr(np, name)(_X, -2, keepdims=keep))
    assert answer.dtype == np.float32


def test_places_of_extremes_keep_an_axis_when_none_would_be_left() -> None:
    """Of a vector, and with the layer of the first versions."""
    line = _answers(lambda b: b.add_argmax("a", "x", "out", 0, False), _X[0, 0, 0])[0]
    assert line.tolist() == [float(_X[0, 0, 0].argmax())]
    older = _answers(lambda b: b.add_reduce("r", "x", "out", "C", "argmax"), _X)[0]
    np.testing.assert_array_equal(older, _X.argmax(1, keepdims=True))


@pytest.mark.parametrize("bottom", [False, True])
@pytest.mark.parametrize("computed", [False, True])
def test_best_values_come_in_order_when_counted_or_told(bottom: bool, computed: bool) -> None:
    """Values and their places, the number stored or from another layer."""
    names = ["x", "y"] if computed else ["x"]
    arrays = [_X, np.array([3], np.float32)][: len(names)]
    values, places = _answers(
        lambda b: b.add_topk("t", names, ["a", "b"], 3, 1, bottom), *arrays, outputs=("a", "b")
    )
    order = np.argsort(_X if bottom else -_X, 1)[:, :3]
    _same(values, np.take_along_axis(_X, order, 1))
    np.testing.assert_array_equal(places, order)


@pytest.mark.parametrize("descending", [False, True])
def test_sorting_gives_places_when_up_or_down(descending: bool) -> None:
    """Along the named axis."""
    answer = _answers(lambda b: b.add_argsort("a", "x", "out", 1, descending), _X)[0]
    np.testing.assert_array_equal(answer, np.argsort(-_X if descending else _X, 1))


@pytest.mark.parametrize("names", [["x"], ["x", "y"]])
def test_one_hot_leaves_vectors_off_when_places_lie_outside(names: list[str]) -> None:
    """A negative place does not count from the end; the length may be computed."""
    arrays = [np.array([2, 0, -1, 7], np.float32), np.array([4], np.float32)][: len(names)]
    answer = _answers(lambda b: b.add_one_hot("o", names, "out", 4, -1, 5.0, -1.0), *arrays)[0]
    expected = np.full((4, 4), -1.0)
    expected[0, 2] = expected[1, 0] = 5
    _same(answer, expected)


@pytest.mark.parametrize("names", ["x", "xy", "xyz"])
def test_range_counts_as_in_numpy_when_computed(names: str) -> None:
    """End, start and step come from other layers, or the last two are stored."""
    numbers = [np.array([value], np.float32) for value in (7, 1, 1.5)][: len(names)]
    answer = _answers(lambda b: b.add_range_dynamic("r", list(names), "out", 1, 1.5), *numbers)[0]
    _same(answer, np.arange(1, 7, 1.5))


def test_places_of_nonzero_elements_are_rows_when_found() -> None:
    """One row for each, one column for each axis."""
    x = np.array([[1, 0, 3], [0, 0, 2]], np.float32)
    answer = _answers(lambda b: b.add_where_nonzero("w", "x", "out"), x)[0]
    np.testing.assert_array_equal(answer, np.argwhere(x))


def test_constants_are_given_when_stored() -> None:
    """Of any shape, and the older layer's with five axes."""
    value = _RNG.standard_normal((2, 3, 4)).astype(np.float32)
    newer = _answers(lambda b: b.add_load_constant_nd("c", "out", value, (2, 3, 4)), _X)[0]
    _same(newer, value)
    older = _answers(lambda b: b.add_load_constant("c", "out", value, [2, 3, 4]), _X)[0]
    _same(older, value[None, None])
