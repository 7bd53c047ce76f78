"""ONNX nodes written one after another, with the shape of every tensor known as it appears.

Core ML's layers speak of the last three axes of whatever comes in, so each needs its input's rank,
and many its sizes; ONNX's own inference answers for one node at a time. Every tensor is float32
unless a layer asked otherwise: Core ML's networks know no other type. A dimension is a number, or
a name where only the run will tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from flows.translation.graph import OPSET, Graph

Dim: TypeAlias = int | str
_OPSETS = [helper.make_opsetid("", OPSET)]
_KNOWN_VALUES = 64  # constants up to this many integers may decide a shape


class UnknownRank(Exception):
    """ONNX's inference cannot tell how many axes a result has, and the layer did not say."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value of the graph; `dtype` is ONNX's number of it."""

    name: str
    shape: tuple[Dim, ...]
    dtype: int = TensorProto.FLOAT

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def count(self) -> int | None:
        """How many elements, or None while a dimension is open."""
        sizes = [dim for dim in self.shape if isinstance(dim, int)]
        return int(np.prod(sizes, dtype=np.int64)) if len(sizes) == self.rank else None

    def sizes(self, first: int = 0, last: int | None = None) -> tuple[int, ...] | None:
        """The dimensions from `first` up to `last` as numbers, or None where one is open."""
        dims = self.shape[first:last]
        return None if any(isinstance(dim, str) for dim in dims) else tuple(int(dim) for dim in dims)


@dataclass(frozen=True, slots=True)
class Size:
    """An open dimension and the tensor, int64 of shape (1,), that holds it at run time."""

    dim: str
    value: Tensor


class Tape:
    """Writes to `graph`; the tape of a loop's or branch's body knows its parent's constants."""

    def __init__(self, graph: Graph, parent: "Tape | None" = None) -> None:
        self.graph = graph
        self._parent = parent
        self._root: Tape = parent._root if parent is not None else self
        self._values: dict[str, onnx.TensorProto] = {} if parent is None else dict(parent._values)
        self._folded: dict[str, Tensor] = {} if parent is None else dict(parent._folded)
        self._open = 0

    def open_dim(self) -> str:
        """A name for a dimension that nothing else shares."""
        self._root._open += 1
        return f"dim_{self._root._open}"

    def add(self, operator: str, *inputs: Tensor | None, **attributes: Any) -> Tensor:
        """One node with one output; None stands for an input left out."""
        return self.add_many(operator, *inputs, outputs=1, **attributes)[0]

    def add_many(
        self, operator: str, *inputs: Tensor | None, outputs: int, **attributes: Any
    ) -> tuple[Tensor, ...]:
        given = ["" if tensor is None else tensor.name for tensor in inputs]
        names = self.graph.add_many(operator, *given, outputs=outputs, **attributes)
        types = self._infer(operator, [tensor for tensor in inputs if tensor], given, names, attributes)
        return tuple(self._typed(name, types.get(name)) for name in names)

    def _infer(
        self,
        operator: str,
        inputs: Sequence[Tensor],
        given: Sequence[str],
        names: Sequence[str],
        attributes: dict[str, Any],
    ) -> dict[str, onnx.TypeProto]:
        kept = {name: value for name, value in attributes.items() if value is not None}
        node = helper.make_node(operator, list(given), list(names), **kept)
        return dict(
            shape_inference.infer_node_outputs(
                onnx.defs.get_schema(operator, OPSET, ""),
                node,
                {one.name: helper.make_tensor_type_proto(one.dtype, list(one.shape)) for one in inputs},
                {one.name: self._values[one.name] for one in inputs if one.name in self._values},
                opset_imports=_OPSETS,
            )
        )

    def _typed(self, name: str, inferred: onnx.TypeProto | None) -> Tensor:
        if inferred is None or not inferred.tensor_type.HasField("shape"):
            raise UnknownRank(f"gives '{name}', whose rank only the run would tell")
        dims = inferred.tensor_type.shape.dim
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or self.open_dim() for dim in dims
        )
        return Tensor(name, shape, inferred.tensor_type.elem_type)

    def shaped(
        self,
        operator: str,
        *inputs: Tensor | None,
        shape: Sequence[Dim],
        dtype: int = TensorProto.FLOAT,
        **attributes: Any,
    ) -> Tensor:
        """One node whose result has a shape that inference cannot see."""
        names = ["" if tensor is None else tensor.name for tensor in inputs]
        return Tensor(self.graph.add(operator, *names, **attributes), tuple(shape), dtype)

    def constant(self, value: Any, hint: str = "constant") -> Tensor:
        """A stored array; float64 becomes float32, float16 is widened where it is used."""
        array = np.asarray(value)
        stored = array.astype(np.float32) if array.dtype == np.float64 else array
        name = self.graph.constant(stored, hint)
        kind = np.dtype(np.float32) if stored.dtype == np.float16 else stored.dtype
        if kind == np.int64 and stored.size <= _KNOWN_VALUES:
            self._values[name] = numpy_helper.from_array(stored, name)
        return Tensor(name, stored.shape, helper.np_dtype_to_tensor_dtype(kind))

    def ints(self, *values: int) -> Tensor:
        return self.constant(np.array(values, np.int64), "ints")

    def number(self, value: float) -> Tensor:
        return self.constant(np.float32(value), "number")

    def cast(self, tensor: Tensor, dtype: int) -> Tensor:
        return tensor if tensor.dtype == dtype else self.add("Cast", tensor, to=dtype)

    def floats(self, tensor: Tensor) -> Tensor:
        return self.cast(tensor, TensorProto.FLOAT)

    def integers(self, tensor: Tensor) -> Tensor:
        """Whole numbers that Core ML carries as floats, as int64."""
        return self.cast(tensor, TensorProto.INT64)

    def truth(self, tensor: Tensor) -> Tensor:
        """Core ML's truth, "not zero", as a boolean."""
        return self.cast(tensor, TensorProto.BOOL)

    def size(self, tensor: Tensor, axis: int) -> int | Size:
        dim = tensor.shape[axis]
        if isinstance(dim, int):
            return dim
        at = axis % tensor.rank
        return Size(dim, self.add("Shape", tensor, start=at, end=at + 1))

    def extent(self, tensor: Tensor, axis: int) -> Tensor:
        """The size of an axis as int64 of shape (1,), whether known or not."""
        size = self.size(tensor, axis)
        return self.ints(size) if isinstance(size, int) else size.value

    def reshape(self, tensor: Tensor, dims: Sequence[int | Size]) -> Tensor:
        """`dims` may hold one -1; an open dimension is written as -1 where that is possible."""
        dims = tuple(dims)
        shape = tuple(dim if isinstance(dim, int) else dim.dim for dim in dims)
        opened = [place for place, dim in enumerate(dims) if isinstance(dim, Size)]
        if not opened or (len(opened) == 1 and -1 not in dims):
            static = [dim if isinstance(dim, int) else -1 for dim in dims]
            done = self.shaped("Reshape", tensor, self.ints(*static), shape=shape, dtype=tensor.dtype)
        else:
            parts = [self.ints(dim) if isinstance(dim, int) else dim.value for dim in dims]
            target = self.add("Concat", *parts, axis=0)
            done = self.shaped("Reshape", tensor, target, shape=shape, dtype=tensor.dtype)
        return Tensor(done.name, self._without_wildcard(tensor, shape), tensor.dtype)

    def _without_wildcard(self, tensor: Tensor, shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
        if -1 not in shape:
            return shape
        others = [dim for dim in shape if isinstance(dim, int) and dim != -1]
        product = int(np.prod(others, dtype=np.int64))
        known = tensor.count is not None and len(others) == len(shape) - 1 and product > 0
        rest: Dim = tensor.count // product if known and tensor.count is not None else self.open_dim()
        return tuple(rest if dim == -1 else dim for dim in shape)

    def unsqueeze(self, tensor: Tensor, *axes: int) -> Tensor:
        return self.add("Unsqueeze", tensor, self.ints(*axes)) if axes else tensor

    def squeeze(self, tensor: Tensor, *axes: int) -> Tensor:
        return self.add("Squeeze", tensor, self.ints(*axes)) if axes else tensor

    def transpose(self, tensor: Tensor, order: Sequence[int]) -> Tensor:
        if list(order) == list(range(tensor.rank)):
            return tensor
        return self.add("Transpose", tensor, perm=list(order))

    def fold(self, tensor: Tensor) -> Tensor:
        """(..., C, H, W) of any rank from 3 up as (N, C, H, W), which is all ONNX's 2-D layers take."""
        if tensor.name in self._folded:
            return self._folded[tensor.name]
        spare = tensor.rank - 4
        if spare == 0:
            return tensor
        if spare < 0:
            return self.unsqueeze(tensor, 0)
        if all(dim == 1 for dim in tensor.shape[:spare]):
            return self.squeeze(tensor, *range(spare))
        return self.reshape(tensor, [-1, *(self.size(tensor, axis) for axis in (-3, -2, -1))])

    def unfold(self, folded: Tensor, like: Tensor) -> Tensor:
        """The inverse of `fold`: the leading axes of `like` before the last three of `folded`."""
        spare = like.rank - 4
        if spare == 0:
            return folded
        if spare < 0:
            return self._remember(self.squeeze(folded, 0), folded)
        if all(dim == 1 for dim in like.shape[:spare]):
            return self._remember(self.unsqueeze(folded, *range(spare)), folded)
        leading = [self.size(like, axis) for axis in range(like.rank - 3)]
        rest = [self.size(folded, axis) for axis in (1, 2, 3)]
        return self._remember(self.reshape(folded, [*leading, *rest]), folded)

    def _remember(self, unfolded: Tensor, folded: Tensor) -> Tensor:
        self._folded[unfolded.name] = folded
        return unfolded
