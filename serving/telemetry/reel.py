"""Requests that came to their end, kept as packed numbers while they wait to be added up.

A request leaves six numbers behind and no object. One thread adds, another takes: each step of either
is one operation that the interpreter never divides.
"""

from dataclasses import dataclass
from struct import Struct

import numpy as np

from serving.batcher import Timing
from serving.core.datatypes import Array
from serving.core.model import VersionRef

_FIELDS = 6
_NUMBERS = Struct(f"={_FIELDS}d")
_pack = _NUMBERS.pack
# In the place of times that there are not: no execution answered, or another request leads it.
_NONE = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Ended:
    """Requests of one version, variant and outcome; each array is (requests,) float64.

    `times` are seconds since 1970. `queue` is NaN where no execution answered, `compute` and
    `executed_rows` also where another request counts the execution.
    """

    ref: VersionRef
    variant: str
    status: str
    times: Array
    seconds: Array
    rows: Array
    queue: Array
    compute: Array
    executed_rows: Array

    def __len__(self) -> int:
        return len(self.times)

    def of_second(self, second: int) -> "Ended":
        """Those that ended within a second since 1970."""
        chosen = self.times.astype(np.int64) == second
        columns = (self.times, self.seconds, self.rows, self.queue, self.compute, self.executed_rows)
        return Ended(self.ref, self.variant, self.status, *(column[chosen] for column in columns))


class Reel:
    """Requests of one version, variant and outcome that wait. Only one thread adds."""

    __slots__ = ("_content", "ref", "status", "variant")

    def __init__(self, ref: VersionRef, variant: str, status: str) -> None:
        self.ref, self.variant, self.status = ref, variant, status
        self._content = bytearray()

    @property
    def is_empty(self) -> bool:
        return not self._content

    def add(self, at: float, seconds: float, rows: int, timing: Timing | None) -> None:
        """`at` is in seconds since 1970."""
        if timing is None:
            self._content += _pack(at, seconds, rows, _NONE, _NONE, _NONE)
            return
        begun_ns = timing.begun_ns
        queue_ns, compute_ns = begun_ns - timing.asked_ns, timing.done_ns - begun_ns
        if timing.leads:
            self._content += _pack(at, seconds, rows, queue_ns, compute_ns, timing.executed_rows)
        else:
            self._content += _pack(at, seconds, rows, queue_ns, _NONE, _NONE)

    def take(self) -> Ended | None:
        """What is there now, oldest first; None where there is nothing."""
        count = len(self._content) // _NUMBERS.size
        if not count:
            return None
        taken = self._content[: count * _NUMBERS.size]
        del self._content[: len(taken)]
        times, seconds, rows, queue_ns, compute_ns, executed_rows = (
            np.frombuffer(taken).reshape(-1, _FIELDS).T
        )
        queue, compute = _seconds(queue_ns), _seconds(compute_ns)
        return Ended(self.ref, self.variant, self.status, times, seconds, rows, queue, compute, executed_rows)


def _seconds(nanoseconds: Array) -> Array:
    """Not below 0, whatever a late thread stamped; NaN stays."""
    return np.maximum(nanoseconds, 0.0) / 1e9
