"""One MIL operation in the course of translation: its inputs as ONNX names or as known values.

A translator takes a Call, adds nodes to `call.graph` and returns the ONNX name of each output.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import types
from onnx import TensorProto

from flows.translation.graph import Graph
from flows.translation.refusal import TranslationRefused, Unsupported
from flows.translation.scope import Scope
from flows.translation.variables import computed_type, dimensions
from serving.core.datatypes import Array

Names = str | Sequence[str]


class Call:
    """`operation` is coremltools' own record; `run` translates one of its nested blocks."""

    def __init__(
        self, operation: Any, graph: Graph, scope: Scope, run: Callable[[Any, Graph, Scope], list[str]]
    ) -> None:
        self.operation = operation
        self.graph = graph
        self.scope = scope
        self.run = run

    @property
    def kind(self) -> str:
        return str(self.operation.op_type)

    @property
    def outputs(self) -> Sequence[Any]:
        """Its output variables, as coremltools describes them."""
        variables: Sequence[Any] = self.operation.outputs
        return variables

    def variable(self, name: str) -> Any:
        """The input variable, a tuple of them, or None where it was left out."""
        return self.operation.inputs.get(name)

    def has(self, name: str) -> bool:
        return self.variable(name) is not None

    def known(self, name: str) -> Any | None:
        """The constant value of an input, or None if it has none or was left out."""
        variable = self.variable(name)
        return None if variable is None else self.scope.constant(variable)

    def value(self, name: str) -> Any:
        """The constant value of an input that the translation cannot do without."""
        value = self.known(name)
        if value is None:
            raise self.refused(f"needs a constant '{name}', and here it is computed at run time")
        return value

    def array(self, name: str) -> Array:
        array: Array = np.asarray(self.value(name))
        return array.astype(np.float32) if array.dtype == np.float16 else array

    def number(self, name: str, default: float | None = None) -> float:
        return float(default) if default is not None and not self.has(name) else float(self.value(name))

    def integer(self, name: str, default: int | None = None) -> int:
        return default if default is not None and not self.has(name) else int(self.value(name))

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.value(name)) if self.has(name) else default

    def text(self, name: str, default: str = "") -> str:
        return str(self.value(name)) if self.has(name) else default

    def integers(self, name: str) -> list[int]:
        """A constant vector; empty where it was left out."""
        return [int(one) for one in np.ravel(self.value(name))] if self.has(name) else []

    def tensor(self, name: str) -> str:
        """The ONNX name of an input's value."""
        return self.scope.name(self.variable(name), self.graph)

    def tensors(self, name: str) -> list[str]:
        return [self.scope.name(variable, self.graph) for variable in self.variable(name)]

    def floats(self, name: str) -> str:
        """An input as float32, cast if it is not."""
        return self._as(name, TensorProto.FLOAT)

    def booleans(self, name: str) -> str:
        return self._as(name, TensorProto.BOOL)

    def longs(self, name: str) -> str:
        """An input as int64, which ONNX asks for wherever it means positions and sizes."""
        known = self.known(name)
        if known is not None:
            return self.graph.constant(np.asarray(known, np.int64), "positions")
        return self._as(name, TensorProto.INT64)

    def shape(self, name: str) -> tuple[int | None, ...]:
        """An input's dimensions, None for those only known at run time."""
        return dimensions(self.variable(name).shape)

    def rank(self, name: str) -> int:
        return len(self.variable(name).shape)

    def axis(self, name: str, default: int, rank: int) -> int:
        """A constant axis counted from the front."""
        axis = self.integer(name, default)
        return axis + rank if axis < 0 else axis

    def is_float(self, name: str) -> bool:
        return bool(types.is_float(self.variable(name).dtype))

    def type_of(self, name: str) -> int:
        return computed_type(self.variable(name).dtype)

    def output_type(self, position: int = 0) -> int:
        return computed_type(self.outputs[position].dtype)

    def output_shape(self, position: int = 0) -> tuple[int | None, ...]:
        return dimensions(self.outputs[position].shape)

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node of one output, named after this operation's output."""
        return self.graph.add(operator, *inputs, hint=self.outputs[0].name, **attributes)

    def cast(self, source: str, kind: int) -> str:
        return self.add("Cast", source, to=kind)

    def scalar(self, value: float, kind: int) -> str:
        """A constant of one element in the given element type."""
        array = {TensorProto.FLOAT: np.float32, TensorProto.INT32: np.int32, TensorProto.BOOL: np.bool_}
        return self.graph.constant(array.get(kind, np.int64)(value), "scalar")

    def refused(self, reason: str) -> TranslationRefused:
        """To be raised: this operation cannot be translated as it is."""
        return TranslationRefused.of([Unsupported(self.kind, str(self.outputs[0].name), reason)])

    def _as(self, name: str, kind: int) -> str:
        source = self.tensor(name)
        return source if self.type_of(name) == kind else self.cast(source, kind)
