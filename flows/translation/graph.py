"""An ONNX graph under construction: fresh names, constants stored once, nodes in order.

Half-precision constants are stored as such and widened where they are used: ONNX Runtime folds
that cast when it loads the file, computes in float32 on every CPU, and the file stays half as large.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from flows.translation.refusal import TranslationRefused
from serving.core.datatypes import Array

OPSET = 20
_IR_VERSION = 9  # the first that carries opset 20
_MAX_BYTES = 2_000_000_000  # protobuf's limit is 2 GiB for the file as a whole
_SHARED_BYTES = 4096  # equal constants up to this size are stored once


class Graph:
    """A main graph, or with `parent` the body of a loop or branch, which sees its parent's names."""

    def __init__(self, parent: "Graph | None" = None) -> None:
        self._root: Graph = parent._root if parent is not None else self
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._weight_bytes = 0
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._taken: set[str] = set()

    def fresh(self, hint: str) -> str:
        """A name nothing else has, as close to `hint` as possible."""
        taken = self._root._taken
        name, count = hint, 1
        while name in taken:
            name, count = f"{hint}_{count}", count + 1
        taken.add(name)
        return name

    def input(self, name: str, dtype: int, shape: Sequence[int | str] | None) -> str:
        """Declare an input under exactly `name`; a string in `shape` names a dynamic dimension."""
        self._root._taken.add(name)
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, name: str, source: str, dtype: int, shape: Sequence[int | str] | None) -> None:
        """Declare an output under exactly `name`, which `reserve` kept free, with the value of `source`."""
        self._nodes.append(helper.make_node("Identity", [source], [name], name=self.fresh(f"{name}_output")))
        self._outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def reserve(self, name: str) -> None:
        """Keep a name for `output`; call it before any node is added."""
        self._root._taken.add(name)

    def add(self, operator: str, *inputs: str, hint: str = "", **attributes: Any) -> str:
        """One node with one output, whose name is returned; "" stands for an input left out."""
        return self.add_many(operator, *inputs, outputs=1, hint=hint, **attributes)[0]

    def add_many(
        self, operator: str, *inputs: str, outputs: int, hint: str = "", **attributes: Any
    ) -> tuple[str, ...]:
        """One node with several outputs. Attributes that are None are left out."""
        names = tuple(self.fresh(hint or operator.lower()) for _ in range(outputs))
        given = {name: value for name, value in attributes.items() if value is not None}
        node = helper.make_node(operator, list(inputs), list(names), name=names[0], **given)
        self._nodes.append(node)
        return names

    def constant(self, value: Any, hint: str = "constant") -> str:
        """A stored array under its numpy dtype; float16 is widened to float32 for its users."""
        self.check_room(np.asarray(value).nbytes)
        array = np.ascontiguousarray(value).reshape(np.shape(value))  # ascontiguousarray makes scalars 1-D
        if array.nbytes > _SHARED_BYTES:
            return self._root._store(array, hint)
        key = (str(array.dtype), array.shape, repr(array.tolist()).encode())
        if key not in self._root._shared:
            self._root._shared[key] = self._root._store(array, hint)
        return self._root._shared[key]

    def ints(self, *values: int) -> str:
        """A 1-D int64 constant: axes, shapes, pads."""
        return self.constant(np.array(values, np.int64), "ints")

    def integer(self, value: int) -> str:
        """An int64 scalar."""
        return self.constant(np.int64(value), "integer")

    def number(self, value: float) -> str:
        """A float32 scalar."""
        return self.constant(np.float32(value), "number")

    def check_room(self, size_bytes: int) -> None:
        """Raise TranslationRefused if that many more bytes of weights do not fit into one file."""
        if self._root._weight_bytes + size_bytes > _MAX_BYTES:
            raise TranslationRefused(
                f"its weights take more than the {_MAX_BYTES:,} bytes that one ONNX file can hold",
                next_step="compress the weights to float16, or export the original model to ONNX",
            )

    def _store(self, array: Array, hint: str) -> str:
        self._weight_bytes += array.nbytes
        name = self.fresh(hint)
        kept = array.astype(object) if array.dtype.kind == "U" else array
        self._weights.append(numpy_helper.from_array(kept, name))
        if array.dtype != np.float16:
            return name
        return self.add("Cast", name, hint=f"{name}_wide", to=TensorProto.FLOAT)

    def build(self, name: str) -> onnx.GraphProto:
        """The finished graph; a body's constants lie in the main graph."""
        return helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._weights)

    def model(self, name: str, producer: str, description: str = "") -> onnx.ModelProto:
        model = helper.make_model(
            self.build(name),
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name=producer,
            doc_string=description,
        )
        model.ir_version = _IR_VERSION
        return model
