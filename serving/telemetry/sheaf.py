"""Answered requests that stack, kept as packed columns while they wait for the inference log.

A request leaves a few numbers and the bytes of its tensors behind, and no object that the garbage
collector would have to walk. One thread adds, another takes: each step of either is one operation that
the interpreter never divides, and the numbers are added last, so what they count is there whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import TypeVar

import numpy as np

from serving.core.datatypes import Array
from serving.core.model import VersionRef

Tensors = Mapping[str, Array]

# Larger ones are kept as they are: copying them would take longer than the request has.
_PACKED_BYTES = 64 << 10
_NUMBERS = Struct("=3d")
_pack = _NUMBERS.pack


@dataclass(frozen=True, slots=True, eq=False)
class Condensed:
    """What is kept of a large tensor: columns (rows,) by what ends their names, and what form it had."""

    form: tuple[int, tuple[int, ...]]
    columns: Mapping[str, Array]


Kept = Sequence[Array] | Condensed


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """Requests taken from a sheaf, oldest first; `times` are seconds since 1970.

    `rows` are those of each request, None where its first axis is no batch: then it is one row. Each
    tensor is in pieces, (rows of some requests, ...); what has no batch axis stands in each row.
    `size_bytes` is what its requests counted for in the log's bounds.
    """

    ref: VersionRef
    variant: str
    status: str
    rows: int | None
    ids: Sequence[str]
    times: Array
    latencies: Array
    inputs: Mapping[str, Kept]
    outputs: Mapping[str, Kept]
    size_bytes: int

    @property
    def rows_each(self) -> int:
        return 1 if self.rows is None else self.rows

    def __len__(self) -> int:
        """All rows."""
        return len(self.ids) * self.rows_each


class Sheaf:
    """Requests of one version, variant and outcome whose tensors have the same names, types and shapes."""

    __slots__ = (
        "_content",
        "_has_text",
        "_ids",
        "_inputs",
        "_kept_inputs",
        "_kept_outputs",
        "_outputs",
        "_packed_inputs",
        "_packed_outputs",
        "_record_bytes",
        "_status",
        "_variant",
        "ref",
        "rows",
        "tensor_bytes",
    )

    def __init__(
        self, ref: VersionRef, variant: str, status: str, rows: int | None, inputs: Tensors, outputs: Tensors
    ) -> None:
        self.ref, self.rows = ref, rows
        self._variant, self._status = variant, status
        self._inputs = [_Column(name, array, rows) for name, array in inputs.items()]
        self._outputs = [_Column(name, array, rows) for name, array in outputs.items()]
        self._packed_inputs = [column.name for column in self._inputs if column.is_packed]
        self._packed_outputs = [column.name for column in self._outputs if column.is_packed]
        self._kept_inputs = [column for column in self._inputs if not column.is_packed]
        self._kept_outputs = [column for column in self._outputs if not column.is_packed]
        self._record_bytes = _NUMBERS.size
        columns = [*self._inputs, *self._outputs]
        for column in columns:
            if column.is_packed:
                column.begins, self._record_bytes = self._record_bytes, self._record_bytes + column.size_bytes
        self._has_text = any(column.dtype.hasobject for column in columns)
        self.tensor_bytes = sum(column.size_bytes for column in columns)
        self._ids: list[str] = []
        # Of each request its time, latency and size, then the bytes of its packed tensors.
        self._content = bytearray()

    @property
    def is_empty(self) -> bool:
        return not self._content

    def takes(
        self, ref: VersionRef, variant: str, status: str, rows: int | None, inputs: Tensors, outputs: Tensors
    ) -> bool:
        """Whether such a request belongs here."""
        if (ref is not self.ref and ref != self.ref) or rows != self.rows:
            return False
        if variant != self._variant or status != self._status:
            return False
        return _stacks(self._inputs, inputs) and _stacks(self._outputs, outputs)

    def repeats(
        self, ref: VersionRef, variant: str, status: str, is_batched: bool, inputs: Tensors, outputs: Tensors
    ) -> bool:
        """Whether such a request belongs here and weighs as much as the first, at a look."""
        if ref is not self.ref or is_batched is (self.rows is None) or self._has_text:
            return False
        if variant != self._variant or status != self._status:
            return False
        return _stacks(self._inputs, inputs) and _stacks(self._outputs, outputs)

    def add(
        self,
        at: float,
        request_id: str,
        latency_seconds: float,
        inputs: Tensors,
        outputs: Tensors,
        size_bytes: int,
    ) -> None:
        """A request that it takes; `at` is in seconds since 1970, `size_bytes` what it counts for."""
        parts = [_pack(at, latency_seconds, size_bytes)]
        for name in self._packed_inputs:
            parts.append(inputs[name].tobytes())
        for name in self._packed_outputs:
            parts.append(outputs[name].tobytes())
        for column in self._kept_inputs:
            column.keep(inputs[column.name])
        for column in self._kept_outputs:
            column.keep(outputs[column.name])
        self._ids.append(request_id)
        self._content += b"".join(parts)

    def take(self, most_rows: int) -> Bundle | None:
        """The oldest requests, of about `most_rows` rows where there are more; None where there are none."""
        count = min(len(self._content) // self._record_bytes, max(1, most_rows // (self.rows or 1)))
        if count < 1:
            return None
        content = _taken(self._content, count * self._record_bytes)
        records = np.frombuffer(content, np.uint8).reshape(count, self._record_bytes)
        numbers = records[:, : _NUMBERS.size].copy().view(np.float64)
        rows = self.rows
        return Bundle(
            self.ref,
            self._variant,
            self._status,
            rows,
            _taken(self._ids, count),
            numbers[:, 0],
            numbers[:, 1],
            {column.name: column.take(records, rows) for column in self._inputs},
            {column.name: column.take(records, rows) for column in self._outputs},
            int(numbers[:, 2].sum()),
        )


class _Column:
    """One tensor of every request of a sheaf: packed in its records from `begins` on, or kept here."""

    __slots__ = ("_arrays", "_has_rows", "begins", "dtype", "is_packed", "name", "shape", "size_bytes")

    def __init__(self, name: str, first: Array, rows: int | None) -> None:
        self.name, self.dtype, self.shape = name, first.dtype, first.shape
        self.size_bytes = first.nbytes
        self._has_rows = rows is not None and first.ndim > 0 and first.shape[0] == rows
        self.is_packed = not first.dtype.hasobject and first.dtype.isnative and first.nbytes <= _PACKED_BYTES
        self.begins = 0
        self._arrays: list[Array] = []

    def keep(self, array: Array) -> None:
        self._arrays.append(array)

    def take(self, records: Array, rows: int | None) -> Sequence[Array]:
        """Pieces of the requests in `records`, (requests, bytes), which are the oldest."""
        count = len(records)
        if not self.is_packed:
            arrays = _taken(self._arrays, count)
            if self._has_rows:
                return arrays
            return [np.broadcast_to(array, (1 if rows is None else rows, *self.shape)) for array in arrays]
        content = records[:, self.begins : self.begins + self.size_bytes].tobytes()
        whole = np.ndarray((count, *self.shape), self.dtype, content)
        if self._has_rows:
            return [whole.reshape(count * self.shape[0], *self.shape[1:])]
        return [whole if rows is None else np.repeat(whole, rows, axis=0)]


def _stacks(columns: Sequence[_Column], tensors: Tensors) -> bool:
    if len(tensors) != len(columns):
        return False
    for column in columns:
        array = tensors.get(column.name)
        if array is None or array.shape != column.shape:
            return False
        if array.dtype is not column.dtype and array.dtype != column.dtype:
            return False
    return True


Held = TypeVar("Held", list[str], list[Array], bytearray)


def _taken(held: Held, count: int) -> Held:
    """The first `count`, which then are there no more."""
    first = held[:count]
    del held[:count]
    return first


def batch_rows(tensors: Tensors) -> int | None:
    """Length of the axis all of them share; None where they share none."""
    if len(tensors) == 1:
        [array] = tensors.values()
        return array.shape[0] if array.ndim else None
    lengths = {array.shape[0] if array.ndim else None for array in tensors.values()}
    return lengths.pop() if len(lengths) == 1 else None


def held_bytes(tensors: Tensors) -> int:
    """What they take in memory, their texts too."""
    return sum(
        [array.nbytes if not array.dtype.hasobject else _text_bytes(array) for array in tensors.values()]
    )


def _text_bytes(array: Array) -> int:
    return array.nbytes + sum(map(len, array.flat))
