"""What to do with the workers of a server: pure decisions over what their parent knows of each.

A slot is a place among the workers, with a listening socket that outlives whoever fills it. Usually one
worker fills a slot; two while one replaces the other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

# A worker whose loop gives no answer for so long hangs, and whoever waits for it waits in vain.
HUNG_SECONDS = 10.0
# Reading a large registry and loading its models may take a while; only a start that hangs takes longer.
START_SECONDS = 300.0
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 30.0
# Growth is judged once a worker has settled, so that a tiny allowance replaces no worker for starting.
SETTLED_SECONDS = 5.0


class Care(StrEnum):
    """What a worker needs."""

    NOTHING = "nothing"
    KILL = "kill"
    TRIM = "trim"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class Standing:
    """One worker as its parent knows it. Times are moments of the monotonic clock.

    `unaccounted_bytes` is resident memory beyond what its models take, `settled_bytes` the same when it
    had settled; None before. `pid` is unique among the living.
    """

    slot: int
    pid: int
    started_at: float
    heard_at: float | None = None
    ready_at: float | None = None
    unaccounted_bytes: int = 0
    settled_bytes: int | None = None
    was_trimmed: bool = False
    is_leaving: bool = False

    @property
    def grown_bytes(self) -> int:
        """By how much it takes more than when it had settled, its models apart."""
        return 0 if self.settled_bytes is None else self.unaccounted_bytes - self.settled_bytes


def care(worker: Standing, allowance_bytes: int, now: float) -> Care:
    """What one worker needs now. A worker that grew is trimmed once, and replaced when that did not help."""
    silent_seconds = now - (worker.heard_at if worker.heard_at is not None else worker.started_at)
    if silent_seconds > (HUNG_SECONDS if worker.heard_at is not None else START_SECONDS):
        return Care.KILL
    if worker.is_leaving or worker.grown_bytes <= allowance_bytes:
        return Care.NOTHING
    return Care.REPLACE if worker.was_trimmed else Care.TRIM


def listeners(workers: Iterable[Standing], slots: Iterable[int]) -> Mapping[int, frozenset[int]]:
    """By pid, the slots on whose sockets each worker accepts: every slot has somebody while anybody is there.

    A slot belongs to its newest ready worker. One without such is taken over by the first ready worker,
    and while none is ready yet, by its own, which then says so to whoever asks.
    """
    staying = [worker for worker in workers if not worker.is_leaving and worker.heard_at is not None]
    ready = sorted((w for w in staying if w.ready_at is not None), key=lambda w: (w.slot, w.started_at))
    taken: dict[int, set[int]] = {worker.pid: set() for worker in staying}
    for slot in slots:
        own = [worker for worker in (ready or staying) if worker.slot == slot]
        chosen = own[-1] if own else next(iter(ready or staying), None)
        if chosen is not None:
            taken[chosen.pid].add(slot)
    return {pid: frozenset(slots) for pid, slots in taken.items()}


def outdated(workers: Iterable[Standing]) -> list[Standing]:
    """Workers whose replacement is ready: they may leave."""
    staying = [worker for worker in workers if not worker.is_leaving]
    return [
        worker
        for worker in staying
        if any(
            other.slot == worker.slot and other.ready_at is not None and other.started_at > worker.started_at
            for other in staying
        )
    ]


def vacant(workers: Iterable[Standing], slots: Iterable[int]) -> list[int]:
    """Slots that nobody fills or is about to."""
    filled = {worker.slot for worker in workers if not worker.is_leaving}
    return [slot for slot in slots if slot not in filled]


def may_replace(workers: Iterable[Standing], slots: Iterable[int]) -> bool:
    """One replacement at a time, and none while a worker is missing: memory is what is short."""
    staying = [worker for worker in workers if not worker.is_leaving]
    filled = {worker.slot for worker in staying}
    return len(staying) == len(filled) == len(set(slots)) and all(w.ready_at is not None for w in staying)


def pause_seconds(failures: int) -> float:
    """How long to wait before starting a worker again after so many ended in a row."""
    if failures <= 1:
        return 0.0
    return min(_FIRST_PAUSE_SECONDS * float(2 ** min(failures, 20)), _LONGEST_PAUSE_SECONDS)
