"""Answered requests that stack, kept as packed columns while they wait for the inference log.

A request leaves a few numbers and the bytes of its tensors behind, and no object that the garbage
collector would have to walk. One thread adds, another takes: each step of either is one operation that
the interpreter never divides, and the times are added last, so what they count is there whole.
"""

from array import array as packed_array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from serving.core.datatypes import Array
from serving.core.model import VersionRef

Tensors = Mapping[str, Array]

# Larger ones are kept as they are: copying them would take longer than the request has.
_PACKED_BYTES = 64 << 10


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
        "_ids",
        "_inputs",
        "_latencies",
        "_outputs",
        "_rows",
        "_sizes",
        "_status",
        "_times",
        "_variant",
        "ref",
    )

    def __init__(
        self, ref: VersionRef, variant: str, status: str, rows: int | None, inputs: Tensors, outputs: Tensors
    ) -> None:
        self.ref = ref
        self._variant, self._status, self._rows = variant, status, rows
        self._inputs = [_Column(name, array, rows) for name, array in inputs.items()]
        self._outputs = [_Column(name, array, rows) for name, array in outputs.items()]
        self._ids: list[str] = []
        self._latencies, self._sizes = packed_array("d"), packed_array("d")
        self._times = packed_array("d")

    @property
    def is_empty(self) -> bool:
        return not self._times

    def takes(
        self, ref: VersionRef, variant: str, status: str, rows: int | None, inputs: Tensors, outputs: Tensors
    ) -> bool:
        """Whether such a request belongs here."""
        if ref is not self.ref and ref != self.ref:
            return False
        if variant != self._variant or status != self._status or rows != self._rows:
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
        for column in self._inputs:
            column.add(inputs[column.name])
        for column in self._outputs:
            column.add(outputs[column.name])
        self._ids.append(request_id)
        self._latencies.append(latency_seconds)
        self._sizes.append(size_bytes)
        self._times.append(at)

    def take(self, most_rows: int) -> Bundle | None:
        """The oldest requests, of about `most_rows` rows where there are more; None where there are none."""
        count = min(len(self._times), max(1, most_rows // (self._rows or 1)))
        if count < 1:
            return None
        rows = self._rows
        return Bundle(
            self.ref,
            self._variant,
            self._status,
            rows,
            _taken(self._ids, count),
            np.array(_taken(self._times, count)),
            np.array(_taken(self._latencies, count)),
            {column.name: column.take(count, rows) for column in self._inputs},
            {column.name: column.take(count, rows) for column in self._outputs},
            int(sum(_taken(self._sizes, count))),
        )


class _Column:
    """One tensor of every request of a sheaf."""

    __slots__ = ("_arrays", "_content", "_has_rows", "_size_bytes", "dtype", "name", "shape")

    def __init__(self, name: str, first: Array, rows: int | None) -> None:
        self.name, self.dtype, self.shape = name, first.dtype, first.shape
        self._size_bytes = first.nbytes
        self._has_rows = rows is not None and first.ndim > 0 and first.shape[0] == rows
        is_packed = not first.dtype.hasobject and first.dtype.isnative and first.nbytes <= _PACKED_BYTES
        self._content = bytearray() if is_packed else None
        self._arrays: list[Array] = []

    def add(self, array: Array) -> None:
        if self._content is None:
            self._arrays.append(array)
        else:
            self._content += array.tobytes()

    def take(self, count: int, rows: int | None) -> Sequence[Array]:
        """Pieces of the oldest `count` requests."""
        if self._content is None:
            arrays = _taken(self._arrays, count)
            if self._has_rows:
                return arrays
            return [np.broadcast_to(array, (1 if rows is None else rows, *self.shape)) for array in arrays]
        content = _taken(self._content, count * self._size_bytes)
        whole = np.ndarray((count, *self.shape), self.dtype, content)
        if self._has_rows:
            return [whole.reshape(count * self.shape[0], *self.shape[1:])]
        return [whole if rows is None else np.repeat(whole, rows, axis=0)]


def _stacks(columns: Sequence[_Column], tensors: Tensors) -> bool:
    if len(tensors) != len(columns):
        return False
    for column in columns:
        array = tensors.get(column.name)
        if array is None or array.shape != column.shape or array.dtype != column.dtype:
            return False
    return True


Held = TypeVar("Held", list[str], list[Array], bytearray, "packed_array[float]")


def _taken(held: Held, count: int) -> Held:
    """The first `count`, which then are there no more."""
    first = held[:count]
    del held[:count]
    return first
