"""Where a rollback goes: a version, a restore point, or what answered at a moment; never to nowhere.

Asked by the API before it starts anything. Says a version always, and the restore point that shows the
rest of that time where there is one; who names only a version wants nothing else back.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from serving.core.errors import ChangeRefused, InvalidRequest, NotServed
from serving.core.model import Alias
from serving.store import changes, restore_points
from serving.store.restore_points import RestorePoint, Verdict, refuse_damaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """At most one of the three; none means the last good version."""

    restore_point: str | None = None
    version: str | None = None
    at: datetime | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.restore_point, self.version, self.at)) > 1:
            raise InvalidRequest("name one of restore_point, version and at, not several")


@dataclass(frozen=True, slots=True)
class Destination:
    version: str
    point: RestorePoint | None


def resolve(engine: Engine, model: str, wanted: Wanted) -> Destination | None:
    """None where nothing was named.

    Raises:
        NotServed: there is no such point, or nothing is on record of that time.
        ChangeRefused: the point is another model's, damaged, or known to be unusable.
    """
    if wanted.restore_point is not None:
        return _of_point(model, restore_points.get(engine, wanted.restore_point))
    if wanted.version is not None:
        return Destination(wanted.version, None)
    return None if wanted.at is None else _at(engine, model, wanted.at)


def _of_point(model: str, point: RestorePoint) -> Destination:
    if point.model != model:
        raise ChangeRefused(f"restore point {point.id} is one of '{point.model}', not of '{model}'")
    refuse_damaged(point)
    if point.verdict is Verdict.UNUSABLE:
        raise ChangeRefused(f"restore point {point.id} cannot be restored: {point.verdict_reason}")
    assert point.champion is not None
    return Destination(point.champion, point)


def _at(engine: Engine, model: str, moment: datetime) -> Destination:
    """The champion by the record of changes, which knows moves by hand too; else by the points."""
    when = moment.isoformat(timespec="seconds")
    change = changes.named_at(engine, model, Alias.CHAMPION, moment)
    version = change.to_version if change is not None else _before_all(engine, model, moment)
    if version is None:
        raise NotServed(
            f"nothing is on record of what answered for '{model}' at {when}; "
            "see 'signalbox restore-points', or name a version"
        )
    return Destination(version, restore_points.nearest(engine, model, version, moment))


def _before_all(engine: Engine, model: str, moment: datetime) -> str | None:
    """What the first change since then moved away from."""
    later = [c for c in changes.recent(engine, model, 1000) if c.alias == Alias.CHAMPION and c.at >= moment]
    took_place = [c for c in later if c.outcome is changes.Outcome.APPLIED]
    return took_place[-1].from_version if took_place else None
