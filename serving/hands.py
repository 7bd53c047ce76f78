"""Moves of an alias that nobody announced: a choice made by hand in the registry, which is recorded, or the
late write of a dead process, which is put right.

A change of our own looks like a hand's until its outcome is on record, so the registry is read anew between
two looks at the record: only what neither of them explains is a hand's.
"""

import logging
from enum import StrEnum

from serving.core.errors import StoreUnavailable
from serving.core.model import Alias
from serving.notices import moved_by_hand
from serving.store import changes
from serving.store.guard import Guard, Verdict
from serving.store.registry import RegisteredModel

log = logging.getLogger(__name__)

# `previous` is a copy of serving's own record.
MOVED_BY_HAND = (Alias.CHAMPION, Alias.CHALLENGER, Alias.SHADOW)


class Found(StrEnum):
    """Who moved an alias to where it is."""

    OURS = "ours"
    HAND = "hand"
    UNSETTLED = "unsettled"


def unrecorded(model: RegisteredModel, recorded: dict[str, str | None]) -> list[tuple[Alias, str | None]]:
    """Aliases that are not known to be on record as they are now, with what they name."""
    now = [(alias, model.aliases.get(alias)) for alias in MOVED_BY_HAND]
    return [(alias, named) for alias, named in now if alias not in recorded or recorded[alias] != named]


def explained(guard: Guard, holder: str | None, model: str, alias: Alias, named: str | None) -> Found:
    """Find who had the alias name this version, record it, or undo it. UNSETTLED: look again.

    `holder` is None where another worker is the one that writes to the registry. Raises `StoreUnavailable`,
    `RegistryUnavailable`, `NotServed`, and `ChangeRefused` where a late write has to wait for the holder of
    the lease.
    """
    engine = guard.engine
    latest = changes.latest(engine, model, alias)
    last = latest.to_version if latest is not None else None
    if last == named:
        return Found.HAND if latest is not None and latest.out_of_band else Found.OURS
    if any(intent.to_version == named for intent in changes.open_intents(engine, model, alias)):
        return Found.OURS
    if guard.late_write(model, alias, named) is not None:
        if holder is not None:
            _put_right(guard, holder, model, alias)
        return Found.UNSETTLED
    if guard.named(model, alias) != named:
        return Found.UNSETTLED
    is_told = alias is Alias.CHAMPION and named is None  # by the alert that a champion is missing
    follows_id = latest.id if latest is not None else 0
    notice = None if is_told else moved_by_hand(model, alias, last, named, follows_id)
    is_first = changes.record_out_of_band(engine, model, alias, last, named, follows_id, notice)
    return Found.HAND if is_first else Found.UNSETTLED


def _put_right(guard: Guard, holder: str, model: str, alias: Alias) -> None:
    with guard.holding(model, holder) as lease:
        move = guard.put_right(model, alias, lease)
    if move is not None and move.verdict is not Verdict.APPLIED:
        raise StoreUnavailable(f"a stale write of {alias} of '{model}' not put right: {move.reason}")
