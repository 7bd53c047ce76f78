"""What ONNX needs to know of a MIL variable: element type, shape, and its value where it is constant.

MIL computes in many widths; the graph computes in four. fp16 becomes float32 and the short integers
become int32, so every kernel of ONNX Runtime's CPU provider applies and no intermediate overflows.
The program's declared widths come back at its inputs and outputs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.types.symbolic import is_symbolic
from onnx import TensorProto

from serving.core.datatypes import Array

_DECLARED = {
    types.fp16: TensorProto.FLOAT16,
    types.fp32: TensorProto.FLOAT,
    types.fp64: TensorProto.DOUBLE,
    types.bool: TensorProto.BOOL,
    types.str: TensorProto.STRING,
    types.int8: TensorProto.INT8,
    types.uint8: TensorProto.UINT8,
    types.int16: TensorProto.INT16,
    types.uint16: TensorProto.UINT16,
    types.int32: TensorProto.INT32,
    types.uint32: TensorProto.UINT32,
    types.int64: TensorProto.INT64,
    types.uint64: TensorProto.UINT64,
}
_WIDE_INTEGERS = (types.uint32, types.int64, types.uint64)
_ARRAYS = {TensorProto.INT32: np.int32, TensorProto.INT64: np.int64, TensorProto.BOOL: np.bool_}
CONSTANT_PREFIX = "constexpr_"


def declared_type(dtype: Any) -> int | None:
    """The element type that says the same as a MIL dtype at the edge of the graph; None if none does."""
    return _DECLARED.get(dtype)


def computed_type(dtype: Any) -> int:
    """The element type that stands for a MIL dtype inside the graph."""
    if dtype in (types.bool, types.str):
        return int(_DECLARED[dtype])
    if types.is_float(dtype):
        return int(TensorProto.FLOAT)
    return int(TensorProto.INT64 if dtype in _WIDE_INTEGERS else TensorProto.INT32)


def dimensions(shape: Sequence[Any]) -> tuple[int | None, ...]:
    """A MIL shape with None for every dimension that is only known at run time."""
    return tuple(None if is_symbolic(size) else int(size) for size in shape)


def constant_of(variable: Any) -> Any | None:
    """A variable's value (array or string) if it never changes, compressed weights unpacked; else None."""
    if variable.val is not None:
        return variable.val
    operation = variable.op
    if operation is None or not operation.op_type.startswith(CONSTANT_PREFIX):
        return None
    values = operation.materialized_val_inference()
    return values[_position(variable)] if isinstance(values, tuple) else values


def _position(variable: Any) -> int:
    return next(at for at, output in enumerate(variable.op.outputs) if output is variable)


def stored(value: Any, dtype: Any) -> Array:
    """A constant as the graph keeps it: fp16 stays half as large, everything else has its computed type."""
    array: Array = np.asarray(value)
    if types.is_float(dtype):
        return array.astype(np.float16 if dtype == types.fp16 else np.float32)
    kind = computed_type(dtype)
    return array.astype(str) if kind == TensorProto.STRING else array.astype(_ARRAYS[kind])
