"""Keeps a lease alive while a promotion works, on a thread of its own.

Whoever writes asks for `lease` each time; once it was lost, asking raises and the work stops.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serving.core.errors import ChangeRefused, StoreUnavailable
from serving.store.leases import Held, Lease, Leases, Lost

log = logging.getLogger(__name__)

_RENEW_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_PROMOTES = "promote:"


def holder_of(run: str) -> str:
    """What a run that works on promotions is called as the holder of a lease."""
    return f"{_PROMOTES}{run}"


def is_promotion(holder: str | None) -> bool:
    return holder is not None and holder.startswith(_PROMOTES)


class Keeper:
    """Renews one lease every few seconds until told to stop."""

    def __init__(self, leases: Leases, lease: Lease, renew_seconds: float = _RENEW_SECONDS) -> None:
        self._leases = leases
        self._lease: Lease | Lost = lease
        self._renew_seconds = renew_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease-keeper", daemon=True)

    @property
    def lease(self) -> Lease:
        """The lease as renewed last. Raises `ChangeRefused` once somebody else holds it."""
        if isinstance(self._lease, Lost):
            holder = self._lease.holder or "nobody"
            raise ChangeRefused(f"the lease on {self._lease.resource} went to {holder}", holder=holder)
        return self._lease

    @contextmanager
    def working(self) -> Iterator["Keeper"]:
        """Renew during the block, release at its end."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()
            if not isinstance(self._lease, Lost):
                self._leases.release(self._lease)

    def _renew(self) -> None:
        while not self._stop.wait(self._renew_seconds) and not isinstance(self._lease, Lost):
            try:
                self._lease = self._leases.renew(self._lease)
            except StoreUnavailable as error:
                log.warning("lease_not_renewed reason=%s", error)


def take(
    leases: Leases,
    resource: str,
    holder: str,
    is_over: Callable[[], bool],
    pause: Callable[[float], object],
) -> Keeper | Held | None:
    """The lease, or who is alive and holds it, or None when `is_over` says the work is done.

    A holder that shows a new beat is alive. One that shows none for the take-over time is dead, and
    `Leases.acquire` then gives us its lease.
    """
    earlier: Held | None = None
    while isinstance(seen := leases.acquire(resource, holder), Held):
        if is_over():
            return None
        if earlier is not None and _is_alive(earlier, seen):
            return seen
        earlier = seen
        pause(_LOOK_SECONDS)
    return Keeper(leases, seen)


def _is_alive(earlier: Held, now: Held) -> bool:
    """Whether the same holder renewed between two looks: without a new beat the remaining time shrinks."""
    return (now.holder, now.epoch) == (earlier.holder, earlier.epoch) and (
        now.free_in_seconds >= earlier.free_in_seconds
    )
