"""Single operators, most of which no torch model is converted to, against MIL's own numpy or a formula."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from serving.core.datatypes import Array
from tests.flows.translation.programs import Single, answered, expected, floats, whole

_RANDOM = np.random.default_rng(5)


def _noise(*shape: int) -> Array:
    return _RANDOM.normal(size=shape).astype(np.float32)


def _whole(low: int, high: int, *shape: int) -> Array:
    return _RANDOM.integers(low, high, shape).astype(np.int32)


X = _noise(2, 3, 4)
Y = _noise(2, 3, 4)
N = _whole(-9, 9, 2, 3, 4)
M = np.where(_whole(0, 2, 2, 3, 4) > 0, 1, -1).astype(np.int32) * _whole(1, 5, 2, 3, 4)
B = X > 0.1
IMAGE = _noise(1, 4, 4, 6)


def _unary(name: str, x: Array = X, **parameters: Any) -> Single:
    return Single(name, {"x": x}, parameters)


def _torch(function: Any, *arrays: Array, **parameters: Any) -> Array:
    result: Array = function(*(torch.from_numpy(np.asarray(one)) for one in arrays), **parameters).numpy()
    return result


ELEMENTWISE = [
    *(_unary(name) for name in ("abs", "atan", "ceil", "cos", "cosh", "erf", "exp", "exp2", "floor")),
    *(_unary(name) for name in ("round", "sign", "sin", "sinh", "square", "tan", "tanh", "identity")),
    *(_unary(name, np.clip(X, -0.9, 0.9)) for name in ("acos", "asin", "atanh")),
    _unary("sqrt", np.abs(X)),
    _unary("log", np.abs(X), epsilon=1e-3),
    _unary("inverse", np.abs(X) + 1, epsilon=0.25),
    _unary("rsqrt", np.abs(X) + 1, epsilon=0.5),
    _unary("clip", alpha=-0.5, beta=0.25),
    _unary("threshold", alpha=0.25),
    _unary("abs", N),
    _unary("sign", N),
    *(
        Single(name, {"x": X, "y": Y})
        for name in ("add", "sub", "mul", "real_div", "floor_div", "mod", "maximum", "minimum")
    ),
    *(
        Single(name, {"x": N, "y": M}, note="integers")
        for name in ("add", "sub", "mul", "floor_div", "mod", "maximum", "minimum")
    ),
    Single("pow", {"x": np.abs(X), "y": Y}),
    Single("add", {"x": X, "y": _noise(3, 1)}, note="broadcast"),
    *(
        Single(name, {"x": N, "y": M}, note="integers")
        for name in ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")
    ),
    Single("select", {"a": X, "b": Y}, {"cond": B}),
    *(_unary("cast", X * 3, dtype=dtype) for dtype in ("int32", "bool", "fp32", "fp16")),
    _unary("cast", N, dtype="fp32"),
    *(Single("cast", {"x": np.abs(X) * 30}, {"dtype": dtype}, 17) for dtype in ("int8", "uint8", "int16")),
]
ACTIVATIONS = [
    *(_unary(name) for name in ("relu", "relu6", "sigmoid", "softplus", "softsign", "tanh")),
    _unary("clamped_relu", X * 3, alpha=0.25, beta=1.5),
    _unary("elu", alpha=0.5),
    _unary("leaky_relu", alpha=0.125),
    _unary("linear_activation", alpha=0.5, beta=-1.0),
    _unary("prelu", IMAGE, alpha=np.array([0.1, 0.2, 0.3, 0.4], np.float32)),
    _unary("scaled_tanh", alpha=1.5, beta=0.75),
    _unary("sigmoid_hard", alpha=0.25, beta=0.5),
    _unary(
        "softplus_parametric",
        IMAGE,
        alpha=np.array([0.5, 1, 1.5, 2], np.float32),
        beta=np.array([1, 0.5, -1, 2], np.float32),
    ),
    _unary("thresholded_relu", np.array([-1.0, 0.25, 0.5, 3.0], np.float32), alpha=0.25),
    *(_unary("gelu", mode=mode) for mode in ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION")),
    _unary("softmax", axis=1),
    Single("silu", {"x": X}, expected=lambda x: x / (1 + np.exp(-x))),
]
_REDUCTIONS = ("l1_norm", "l2_norm", "log_sum_exp", "max", "mean", "min", "prod", "sum", "sum_square")
REDUCTIONS = [
    *(_unary(f"reduce_{name}", axes=[0, -1], keep_dims=True) for name in _REDUCTIONS),
    *(_unary(f"reduce_{name}", axes=[1], keep_dims=False) for name in _REDUCTIONS),
    _unary("reduce_log_sum", np.abs(X), axes=[2], keep_dims=False),
    _unary("reduce_sum", keep_dims=False),
    *(_unary(f"reduce_{name}", N, axes=[1], keep_dims=False) for name in ("max", "min", "sum", "prod")),
    _unary("reduce_argmax", axis=-1, keep_dims=True),
    _unary("reduce_argmin", axis=1, keep_dims=False),
    _unary("argsort", axis=1, ascending=True),
    _unary("argsort", axis=-1, ascending=False),
    _unary("topk", k=2, axis=1, ascending=True),
    Single("topk", {"x": X}, {"k": 2, "axis": -1, "return_indices": False}, 16, note="values only"),
    Single("topk", {"x": X}, {"k": 2, "axis": -1, "output_indices_dtype": "uint16"}, 17),
    _unary("cumsum", axis=1, exclusive=False, reverse=False),
    _unary("cumsum", axis=2, exclusive=False, reverse=True),
    Single(
        "cumsum",
        {"x": X},
        {"axis": 1, "exclusive": True, "reverse": False},
        expected=lambda x, **_: np.cumsum(x, 1) - x,
        note="exclusive",
    ),
]
SHAPES = [
    _unary("reshape", shape=[4, -1]),
    _unary("reshape", shape=[0, 6, 2]),
    Single(
        "reshape", {"x": X}, {"shape": [1, 0, -1, 0]}, 17, lambda x, shape: x.reshape(1, 2, 3, 4), "right 0"
    ),
    _unary("transpose", perm=[-1, 0, 1]),
    _unary("expand_dims", axes=[0, -1]),
    _unary("squeeze", X[:, :1], axes=[1]),
    _unary("flatten2d", axis=2),
    _unary("flatten2d", axis=-1),
    _unary("tile", reps=[1, 2, 3]),
    _unary("reverse", axes=[0, 2]),
    _unary("reverse"),
    _unary("split", axis=1, split_sizes=[1, 2]),
    _unary("split", axis=2, num_splits=2),
    _unary("slice_by_size", begin=[0, 1, 2], size=[2, -1, 1]),
    _unary("slice_by_size", begin=[-1, -2, 0], size=[1, 2, 4]),
    _unary("slice_by_index", begin=[0, 1, 3], end=[2, 3, 0], stride=[1, 1, -1]),
    _unary(
        "slice_by_index",
        begin=[-1, 0, 2],
        end=[0, 0, 0],
        stride=[1, 1, -1],
        begin_mask=[False, True, False],
        end_mask=[False, True, True],
        squeeze_mask=[True, False, False],
    ),
    _unary("pad", pad=[1, 2, 0, 1], mode="constant", constant_val=0.5),
    _unary("pad", pad=[1, 2], mode="reflect"),
    _unary("pad", pad=[1, 1, 2, 0], mode="replicate"),
    _unary("band_part", lower=1, upper=0),
    _unary("band_part", lower=-1, upper=1),
    _unary("band_part", N, lower=0, upper=-1),
    _unary("shape"),
    Single(
        "fill_like",
        {"ref_tensor": X},
        {"value": 2.5},
        16,
        lambda ref_tensor, value: np.full((2, 3, 4), value),
    ),
    Single(
        "depth_to_space",
        {"x": IMAGE},
        {"block_size": 2},
        expected=lambda x, block_size: (
            x.reshape(1, 2, 2, 1, 4, 6).transpose(0, 3, 4, 1, 5, 2).reshape(1, 1, 8, 12)
        ),
    ),
    Single(
        "space_to_depth",
        {"x": IMAGE},
        {"block_size": 2},
        expected=lambda x, block_size: (
            x.reshape(1, 4, 2, 2, 3, 2).transpose(0, 3, 5, 1, 2, 4).reshape(1, 16, 2, 3)
        ),
    ),
    Single(
        "pixel_shuffle",
        {"x": IMAGE},
        {"upscale_factor": 2},
        expected=lambda x, upscale_factor: _torch(F.pixel_shuffle, x, upscale_factor=2),
    ),
    Single(
        "pixel_unshuffle",
        {"x": IMAGE},
        {"downscale_factor": np.uint32(2)},
        16,
        lambda x, downscale_factor: _torch(F.pixel_unshuffle, x, downscale_factor=2),
    ),
    Single(
        "sliding_windows",
        {"x": _noise(2, 7)},
        {"axis": 1, "size": 3, "stride": 2},
        expected=lambda x, **_: np.stack([x[:, at : at + 3] for at in (0, 2, 4)], axis=1),
    ),
    Single(
        "reverse_sequence",
        {"x": _noise(3, 2, 5)},
        {"lengths": [2, 4], "seq_axis": 2, "batch_axis": 1},
        expected=lambda x, **_: np.stack(
            [np.concatenate([x[:, at, :n][:, ::-1], x[:, at, n:]], 1) for at, n in ((0, 2), (1, 4))], 1
        ),
    ),
    Single(
        "crop",
        {"x": IMAGE},
        {"crop_height": [1, 0], "crop_width": [2, 1]},
        expected=lambda x, **_: x[:, :, 1:, 2:-1],
    ),
    Single(
        "slice_update",
        {"x": X, "update": _noise(2, 2, 2)},
        {"begin": [0, 1, 0], "end": [2, 3, 4], "stride": [1, 1, 2]},
        18,
    ),
]
_AT = np.array([2, 0], np.int32)
_ALONG = _whole(0, 3, 2, 2, 4)
_PAIRS = np.array([[0, 1], [1, 2], [0, 1]], np.int32)


def _added(data: Array, at: Any, updates: Array) -> Array:
    result: Array = data.copy()
    np.add.at(result, at, updates)
    return result


GATHERS = [
    Single("gather", {"x": X}, {"indices": _AT, "axis": 1}),
    Single(
        "gather",
        {"x": X, "indices": _whole(0, 4, 2, 2)},
        {"axis": -1},
        expected=lambda x, indices, axis: x[:, :, indices],
    ),
    Single("gather", {"x": X, "indices": whole([[1, 0], [2, 2]])}, {"axis": 1, "batch_dims": 1}, 16),
    Single(
        "gather",
        {"x": X, "indices": whole([[1, 0], [2, 3]])},
        {"axis": 2, "batch_dims": 1},
        17,
        lambda x, indices, **_: np.stack([x[0][:, indices[0]], x[1][:, indices[1]]]),
        "over a later axis",
    ),
    Single("gather_along_axis", {"x": X, "indices": _ALONG}, {"axis": 1}),
    Single("gather_nd", {"x": X, "indices": _PAIRS}, expected=lambda x, indices: x[tuple(indices.T)]),
    Single(
        "gather_nd",
        {"x": X, "indices": whole([[1], [2]])},
        {"batch_dims": 1},
        16,
        lambda x, indices, batch_dims: np.stack([x[0, 1], x[1, 2]]),
        "by batch",
    ),
    *(
        Single(
            "scatter",
            {"data": X, "indices": _AT, "updates": _noise(2, 2, 4) + 2},
            {"axis": 1, "mode": mode},
            expected=lambda data, indices, updates, mode, **_: _combined(mode, data, indices, updates),
            note=mode,
        )
        for mode in ("update", "add", "sub", "mul", "div", "max", "min")
    ),
    Single(
        "scatter_along_axis",
        {"data": X, "indices": _ALONG, "updates": _noise(2, 2, 4)},
        {"axis": 1, "mode": "add"},
        expected=lambda data, indices, updates, **_: _torch(
            lambda d, i, u: d.scatter_add(1, i.long(), u), data, indices, updates
        ),
    ),
    Single(
        "scatter_nd",
        {"data": X, "indices": _PAIRS, "updates": _noise(3, 4)},
        {"mode": "add"},
        expected=lambda data, indices, updates, mode: _added(data, tuple(indices.T), updates),
    ),
    Single(
        "one_hot",
        {"indices": whole([2, 0, 1])},
        {"one_hot_vector_size": 4, "axis": 0, "on_value": 3.0, "off_value": -1.0},
        expected=lambda indices, **_: np.eye(4, dtype=np.float32)[indices].T * 4 - 1,
    ),
    _unary("non_zero", np.array([[0, 1, 0], [2, 0, 3]], np.float32)),
]


def _combined(mode: str, data: Array, indices: Array, updates: Array) -> Array:
    result: Array = data.copy()
    own = data[:, indices]
    combine = {
        "update": updates,
        "add": own + updates,
        "sub": own - updates,
        "mul": own * updates,
        "div": own / updates,
        "max": np.maximum(own, updates),
        "min": np.minimum(own, updates),
    }
    result[:, indices] = combine[mode]
    return result


LINEAR = [
    Single("linear", {"x": _noise(5, 4)}, {"weight": _noise(3, 4), "bias": _noise(3)}),
    Single("linear", {"x": X}, {"weight": _noise(3, 4)}),
    Single("matmul", {"x": X, "y": _noise(2, 5, 4)}, {"transpose_y": True}),
    Single("matmul", {"x": _noise(4, 3), "y": _noise(4, 2)}, {"transpose_x": True}),
    Single("matmul", {"x": N, "y": _whole(-5, 5, 2, 4, 2)}, note="integers"),
    Single(
        "scaled_dot_product_attention",
        {
            "query": _noise(2, 5, 4),
            "key": _noise(2, 6, 4),
            "value": _noise(2, 6, 3),
            "attn_mask": _noise(5, 6),
        },
        version=18,
    ),
    Single(
        "scaled_dot_product_attention",
        {"query": _noise(2, 5, 4), "key": _noise(2, 6, 4), "value": _noise(2, 6, 3)},
        {"attn_mask": np.tri(5, 6, 1, dtype=bool)},
        18,
        note="mask of booleans",
    ),
    Single("l2_norm", {"x": _noise(2, 3, 4, 5)}, {"epsilon": 0.25}),
    Single("l2_norm", {"x": X}, {"epsilon": 0.25}),
    Single("layer_norm", {"x": X}, {"axes": [1], "gamma": _noise(3), "beta": _noise(3), "epsilon": 0.125}),
    Single(
        "layer_norm",
        {"x": X},
        {"axes": [1, 2], "gamma": _noise(3, 4), "beta": _noise(3, 4), "epsilon": 0.125},
    ),
    Single("layer_norm", {"x": X}, {"axes": [-1], "epsilon": 0.125}),
    Single(
        "local_response_norm",
        {"x": IMAGE},
        {"size": 4, "alpha": 0.5, "beta": 0.75, "k": 2.0},
        expected=lambda x, size, **rest: _torch(F.local_response_norm, x, size=size, **rest),
    ),
    Single(
        "local_response_norm",
        {"x": X},
        {"size": 3, "alpha": 0.5, "beta": 0.75, "k": 1.0},
        expected=lambda x, size, **rest: _torch(F.local_response_norm, x, size=size, **rest),
    ),
    Single(
        "instance_norm",
        {"x": IMAGE},
        {"epsilon": 0.125},
        expected=lambda x, epsilon: _torch(F.instance_norm, x, eps=epsilon),
    ),
    Single(
        "batch_norm",
        {"x": IMAGE},
        {"mean": floats([1, 0, 2, -1]), "variance": floats([1, 2, 3, 4]), "epsilon": 0.5},
        expected=lambda x, mean, variance, epsilon: (
            (x - mean.reshape(-1, 1, 1)) / np.sqrt(variance.reshape(-1, 1, 1) + epsilon)
        ),
    ),
    Single(
        "quantize",
        {"input": X},
        {"scale": np.float32(0.02), "zero_point": np.int8(3), "output_dtype": "int8"},
        17,
    ),
    Single(
        "quantize",
        {"input": X * 9},
        {"scale": floats([0.02, 0.1, 0.5]), "axis": 1, "output_dtype": "uint8"},
        17,
        note="per channel",
    ),
]
CASES = [*ELEMENTWISE, *ACTIVATIONS, *REDUCTIONS, *SHAPES, *GATHERS, *LINEAR]


def _difference(wanted: Sequence[Array], given: Sequence[Array]) -> float:
    scale = max(1.0, *(float(np.abs(one.astype(np.float64)).max()) for one in wanted))
    pairs = zip(wanted, given, strict=True)
    return max(float(np.abs(one.astype(np.float64) - other).max()) for one, other in pairs) / scale


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operator_answers_like_its_definition_when_translated(case: Single) -> None:
    """Every output has the shape and, within 1e-5, the values of the operator's definition."""
    wanted, given = expected(case), answered(case)
    assert [one.shape for one in given] == [one.shape for one in wanted]
    assert _difference(wanted, given) <= 1e-5
