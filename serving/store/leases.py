"""Who may change a model's registry entries now: one holder per resource, told apart by an epoch.

The holder renews its beat; a contender takes over after seeing one beat for 30 s on its own clock,
so no two machines' clocks are ever compared. Every write is compare-and-set, and the epoch only
grows, release or not: whoever holds an old one is refused by `fence`.
"""

import threading
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, select, update

from serving.core.clock import Clock
from serving.core.errors import ChangeRefused
from serving.store import schema
from serving.store.database import insert_new, writing
from serving.store.text import read_time, time_text

_FREE = ""
_table = schema.leases


@dataclass(frozen=True, slots=True)
class Lease:
    """A right to change. `renewed_monotonic` is on the holder's clock, from before the last beat."""

    resource: str
    holder: str
    epoch: int
    beat: int
    renewed_monotonic: float


@dataclass(frozen=True, slots=True)
class Held:
    """Somebody else has it; unless they renew, it can be taken over in `free_in_seconds`."""

    resource: str
    holder: str
    epoch: int
    since: datetime
    free_in_seconds: float


@dataclass(frozen=True, slots=True)
class Lost:
    """The lease was taken over or released; `holder` is who has it now, None if nobody."""

    resource: str
    holder: str | None
    epoch: int


@dataclass(frozen=True, slots=True)
class _Sighting:
    holder: str
    epoch: int
    beat: int
    first_seen: float


class Leases:
    """Thread-safe. A holder's name must be unique to one undertaking: an equal name is a contender too."""

    def __init__(self, engine: Engine, clock: Clock, takeover_seconds: float = 30.0) -> None:
        self._engine = engine
        self.clock = clock
        self._takeover_seconds = takeover_seconds
        self._lock = threading.Lock()
        self._sightings: dict[str, _Sighting] = {}

    def acquire(self, resource: str, holder: str) -> Lease | Held:
        """Take a lease that is free or abandoned; otherwise note its beat and say who holds it."""
        started = self.clock.monotonic()
        with writing(self._engine) as connection:
            if self._create(connection, resource, holder):
                return Lease(resource, holder, 1, 0, started)
            row = _locked_row(connection, resource)
            waited = float("inf") if row.holder == _FREE else self._seen_seconds(row, started)
            if waited >= self._takeover_seconds and self._take(connection, row, holder):
                return Lease(resource, holder, row.epoch + 1, 0, started)
        left = max(self._takeover_seconds - waited, 0.0)
        return Held(resource, row.holder, row.epoch, read_time(row.since), left)

    def renew(self, lease: Lease) -> Lease | Lost:
        """Show that the holder lives."""
        started = self.clock.monotonic()
        with writing(self._engine) as connection:
            beaten = connection.execute(
                update(_table).where(*_is_current(lease)).values(beat=_table.c.beat + 1)
            )
            row = connection.execute(_row_query(lease.resource)).one_or_none()
        if row is None:
            return Lost(lease.resource, None, 0)
        if beaten.rowcount == 1:
            return replace(lease, beat=row.beat, renewed_monotonic=started)
        return Lost(lease.resource, row.holder or None, row.epoch)

    def release(self, lease: Lease) -> None:
        """Free the lease if it is still this one; the epoch stays for the next holder to exceed."""
        with writing(self._engine) as connection:
            connection.execute(update(_table).where(*_is_current(lease)).values(holder=_FREE))

    def preempt(self, resource: str, holder: str) -> Lease:
        """Take the lease from whoever has it, by raising the epoch."""
        started = self.clock.monotonic()
        with writing(self._engine) as connection:
            if self._create(connection, resource, holder):
                return Lease(resource, holder, 1, 0, started)
            row = _locked_row(connection, resource)
            self._take(connection, row, holder)
        return Lease(resource, holder, row.epoch + 1, 0, started)

    def seconds_left(self, lease: Lease) -> float:
        """How long no contender can have taken the lease over; a pre-emption shows only in `fence`."""
        return self._takeover_seconds - (self.clock.monotonic() - lease.renewed_monotonic)

    def _create(self, connection: Connection, resource: str, holder: str) -> bool:
        since = time_text(self.clock.now())
        values = {"resource": resource, "holder": holder, "epoch": 1, "beat": 0, "since": since}
        return insert_new(connection, _table, values)

    def _take(self, connection: Connection, seen: Row[Any], holder: str) -> bool:
        unchanged = (
            _table.c.resource == seen.resource,
            _table.c.holder == seen.holder,
            _table.c.epoch == seen.epoch,
            _table.c.beat == seen.beat,
        )
        values = {"holder": holder, "epoch": seen.epoch + 1, "beat": 0, "since": time_text(self.clock.now())}
        return connection.execute(update(_table).where(*unchanged).values(values)).rowcount == 1

    def _seen_seconds(self, row: Row[Any], started: float) -> float:
        """How long this contender has certainly seen the same beat: from after the first read to
        before this one."""
        with self._lock:
            seen = self._sightings.get(row.resource)
            if seen is not None and (seen.holder, seen.epoch, seen.beat) == (row.holder, row.epoch, row.beat):
                return started - seen.first_seen
            now = self.clock.monotonic()
            self._sightings[row.resource] = _Sighting(row.holder, row.epoch, row.beat, now)
            return 0.0


def fence(connection: Connection, lease: Lease) -> None:
    """Refuse the caller's transaction unless the lease is current; keeps it current until the commit."""
    row = connection.execute(_row_query(lease.resource)).one_or_none()
    if row is not None and (row.holder, row.epoch) == (lease.holder, lease.epoch):
        return
    holder = row.holder or None if row is not None else None
    now = f"now held by '{holder}'" if holder else "no longer held by anybody"
    raise ChangeRefused(
        f"'{lease.holder}' may not change {lease.resource}: its lease is {now}; "
        "look at the present state and start again if the change is still wanted",
        holder=holder,
    )


def hold(connection: Connection, resource: str) -> None:
    """Let nobody take a lease of this resource, or write under one, until the commit."""
    connection.execute(_row_query(resource)).one_or_none()


def _is_current(lease: Lease) -> tuple[Any, Any, Any]:
    return (
        _table.c.resource == lease.resource,
        _table.c.holder == lease.holder,
        _table.c.epoch == lease.epoch,
    )


def _row_query(resource: str) -> Any:
    return select(_table).where(_table.c.resource == resource).with_for_update()


def _locked_row(connection: Connection, resource: str) -> Row[Any]:
    row: Row[Any] = connection.execute(_row_query(resource)).one()
    return row
