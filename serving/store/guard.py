"""The guarded write of an alias or of the traffic tag: lease, intent, write, read back, outcome.

MLflow's writes have no compare-and-set, no history and no actor; this gives them all three.
Serving uses it after a rollback or an ejection, the flows for every promotion.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from sqlalchemy import Engine

from serving.core.errors import ChangeRefused, NotServed, RegistryUnavailable
from serving.core.model import Tag
from serving.store import changes
from serving.store.changes import ChangeIntent, Outcome, RecordedChange
from serving.store.leases import Held, Lease, Leases, Lost
from serving.store.registry import Registry

log = logging.getLogger(__name__)

NEEDED_LEASE_SECONDS = 10.0
# How long after a take-over a write of the dead holder may still arrive; later it is a hand's choice.
LATE_WRITE = timedelta(seconds=60)


class Verdict(StrEnum):
    APPLIED = "applied"
    ALREADY = "already"
    SUPERSEDED = "superseded"
    LEASE_LOST = "lease_lost"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Move:
    """How a guarded write ended. `seen` is the version, or the tag's text, that the registry showed last."""

    verdict: Verdict
    seen: str | None
    reason: str

    @property
    def is_settled(self) -> bool:
        """Whether another try would be pointless: it is done, or somebody chose otherwise."""
        return self.verdict in (Verdict.APPLIED, Verdict.ALREADY, Verdict.SUPERSEDED)


@dataclass(frozen=True, slots=True)
class Wish:
    """Alias `alias` of `model` shall name `to_version` (None: nothing). See `Guard.move` for `only_from`."""

    model: str
    alias: str
    to_version: str | None
    actor: str
    reason: str
    only_from: frozenset[str | None] | None = None

    def __str__(self) -> str:
        return f"alias {self.alias} of '{self.model}' to {self.to_version or 'nothing'}"


@dataclass(frozen=True, slots=True)
class TrafficWish:
    """The traffic tag of `model` shall hold `to_text` (None: be absent), written by `core.traffic.write_tag`.

    With `only_from`, only while it holds one of those texts.
    """

    model: str
    to_text: str | None
    actor: str
    reason: str
    only_from: frozenset[str | None] | None = None

    def __str__(self) -> str:
        return f"traffic tag of '{self.model}' to {self.to_text or 'nothing'}"


@dataclass(frozen=True, slots=True)
class _Entry:
    """One value that the registry keeps for a model, an alias or a tag, and the wish for it."""

    wish: Wish
    read: Callable[[], str | None]
    write: Callable[[str], None]
    delete: Callable[[], None]


class Guard:
    """Makes intended changes of aliases and traffic tags, one holder at a time per model."""

    def __init__(self, registry: Registry, engine: Engine, leases: Leases) -> None:
        self._registry = registry
        self.engine = engine
        self._leases = leases

    @contextmanager
    def holding(self, model: str, holder: str, *, preempt: bool = False) -> Iterator[Lease]:
        """The model's lease. Raises `ChangeRefused` naming who holds it; `preempt` takes it from anybody."""
        resource = f"model:{model}"
        if preempt:
            lease = self._leases.preempt(resource, holder)
        else:
            got = self._leases.acquire(resource, holder)
            if isinstance(got, Held):
                raise ChangeRefused(f"'{model}' is being changed by {got.holder}", holder=got.holder)
            lease = got
        try:
            yield lease
        finally:
            self._leases.release(lease)

    def move(self, wish: Wish | TrafficWish, lease: Lease) -> Move:
        """Write once. With `only_from`, do so only while the registry shows one of those values.

        Raises `ChangeRefused` naming who pre-empted the lease, or `StoreUnavailable` where the store fails:
        before the write, or after it, which leaves the intent open. A registry that fails is a verdict:
        FAILED when nothing changed, UNKNOWN when that cannot be told; the intent then stays open too.
        The next guarded write of this entry settles an open intent by reading.
        """
        entry = self._alias_of(wish) if isinstance(wish, Wish) else self._tag_of(wish)
        return self._change(entry, lease)

    def has_open(self, model: str) -> bool:
        """Whether an intent waits for its outcome: somebody is at it, or died."""
        return bool(changes.open_intents(self.engine, model))

    def settle(self, model: str) -> None:
        """Give what dead processes left open the outcome the registry shows.

        Hold the model's lease: then nobody is between an intent and its outcome. Raises
        `RegistryUnavailable` or `NotServed` where it cannot be read.
        """
        for intent in changes.open_intents(self.engine, model):
            is_tag = intent.alias == Tag.TRAFFIC
            named = (
                self._registry.tag(model, Tag.TRAFFIC)
                if is_tag
                else self._registry.alias(model, intent.alias)
            )
            self._conclude(intent, named)

    def named(self, model: str, alias: str) -> str | None:
        """What an alias names now. Raises `RegistryUnavailable` or `NotServed`."""
        return self._registry.alias(model, alias)

    def late_write(self, model: str, alias: str, seen: str | None) -> RecordedChange | None:
        """The intent of a dead process whose write came after a take-over, where that is what is seen."""
        latest = changes.latest(self.engine, model, alias)
        if latest is not None and latest.to_version == seen:
            return None
        since = self._leases.clock.now() - LATE_WRITE
        return changes.abandoned(self.engine, model, alias, seen, since)

    def put_right(self, model: str, alias: str, lease: Lease) -> Move | None:
        """Undo a late write of a dead process that the registry shows; None where it shows none.

        Raises as `move` does.
        """
        entry = self._alias_of(Wish(model, alias, None, lease.holder, ""))
        try:
            seen = entry.read()
        except (RegistryUnavailable, NotServed) as error:
            return Move(Verdict.FAILED, None, str(error))
        late = self.late_write(model, alias, seen)
        return None if late is None else self._undo(entry, late, lease)

    def _alias_of(self, wish: Wish) -> _Entry:
        model, alias = wish.model, wish.alias
        return _Entry(
            wish,
            read=lambda: self._registry.alias(model, alias),
            write=lambda version: self._registry.set_alias(model, alias, version),
            delete=lambda: self._registry.delete_alias(model, alias),
        )

    def _tag_of(self, wish: TrafficWish) -> _Entry:
        model, tag = wish.model, Tag.TRAFFIC
        return _Entry(
            Wish(model, tag, wish.to_text, wish.actor, wish.reason, wish.only_from),
            read=lambda: self._registry.tag(model, tag),
            write=lambda text: self._registry.set_tag(model, tag, text),
            delete=lambda: self._registry.delete_tag(model, tag),
        )

    def _change(self, entry: _Entry, lease: Lease) -> Move:
        wish = entry.wish
        try:
            seen = entry.read()
        except (RegistryUnavailable, NotServed) as error:
            return Move(Verdict.FAILED, None, str(error))
        renewed = self._with_time(lease)
        if renewed is None:
            return Move(Verdict.LEASE_LOST, seen, "somebody took over the lease")
        self._settle_open(wish, seen)
        if (late := self.late_write(wish.model, wish.alias, seen)) is not None:
            if seen == wish.to_version:  # wanted after all, and from now on recorded as ours
                return self._write(entry, seen, renewed)
            undone = self._undo(entry, late, renewed)
            if undone.verdict is not Verdict.APPLIED:
                return undone
            seen = undone.seen
        if seen == wish.to_version:
            return Move(Verdict.ALREADY, seen, "the registry names it already")
        if wish.only_from is not None and seen not in wish.only_from:
            return Move(Verdict.SUPERSEDED, seen, f"the registry names {seen or 'nothing'} by now")
        return self._write(entry, seen, renewed)

    def _with_time(self, lease: Lease) -> Lease | None:
        """The lease with enough time left for a write and its reading back; None when it is lost."""
        if self._leases.seconds_left(lease) >= NEEDED_LEASE_SECONDS:
            return lease
        renewed = self._leases.renew(lease)
        return None if isinstance(renewed, Lost) else renewed

    def _write(self, entry: _Entry, seen: str | None, lease: Lease) -> Move:
        wish = entry.wish
        intent = ChangeIntent(
            wish.model, wish.alias, seen, wish.to_version, lease.epoch, wish.actor, wish.reason
        )
        change_id = changes.intend(self.engine, intent, lease)
        problem = _attempt(entry)
        try:
            now_named = entry.read()
        except (RegistryUnavailable, NotServed) as error:
            return Move(Verdict.UNKNOWN, None, f"could not read back: {error}")
        if now_named == wish.to_version:
            if (newer := changes.after(self.engine, change_id)) is not None:
                return self._put_back(entry, change_id, newer)
            changes.settle(self.engine, change_id, Outcome.APPLIED, "read back")
            return Move(Verdict.APPLIED, now_named, wish.reason)
        outcome = Outcome.FAILED if now_named == seen else Outcome.SUPERSEDED
        evidence = problem or f"the registry names {now_named or 'nothing'} after the write"
        changes.settle(self.engine, change_id, outcome, evidence)
        return Move(Verdict(outcome.value), now_named, evidence)

    def _put_back(self, entry: _Entry, change_id: int, newer: RecordedChange) -> Move:
        """Undo a write that came too late: after its intent somebody else changed the entry, on record."""
        wish = entry.wish
        restoring = replace(entry, wish=replace(wish, to_version=newer.to_version))
        problem = _attempt(restoring)
        reason = f"it came after change {newer.id} to {newer.to_version or 'nothing'}, which was put back"
        if problem is not None:
            reason = f"it came after change {newer.id}, which could not be put back: {problem}"
        log.warning("late_write wish=%s reason=%s", wish, reason)
        changes.settle_late(self.engine, change_id, reason)
        return Move(Verdict.SUPERSEDED if problem is None else Verdict.UNKNOWN, newer.to_version, reason)

    def _undo(self, entry: _Entry, late: RecordedChange, lease: Lease) -> Move:
        """Write back what was applied last, and the late write's end into its own record."""
        latest = changes.latest(self.engine, late.model, late.alias)
        back = latest.to_version if latest is not None else late.from_version
        reason = f"stale write of change {late.id} by {late.actor} put right"
        wish = Wish(late.model, late.alias, back, lease.holder, reason)
        move = self._write(replace(entry, wish=wish), late.to_version, lease)
        log.warning("stale_write wish=%s verdict=%s", wish, move.verdict)
        if move.verdict is Verdict.APPLIED:
            written = f"it came after the take-over; {back or 'nothing'} was written back"
            changes.settle_late(self.engine, late.id, written)
        return move

    def _settle_open(self, wish: Wish, seen: str | None) -> None:
        """Give intents that a dead process left open the outcome the registry shows."""
        for intent in changes.open_intents(self.engine, wish.model, wish.alias):
            self._conclude(intent, seen)

    def _conclude(self, intent: RecordedChange, seen: str | None) -> None:
        outcome = Outcome.APPLIED if seen == intent.to_version else Outcome.ABANDONED
        log.warning("intent_settled_late id=%d outcome=%s", intent.id, outcome)
        evidence = f"found open; the registry names {seen}"
        changes.settle(self.engine, intent.id, outcome, evidence, now=self._leases.clock.now())


def _attempt(entry: _Entry) -> str | None:
    """Write once; what went wrong, as far as the write itself told."""
    try:
        if entry.wish.to_version is None:
            entry.delete()
        else:
            entry.write(entry.wish.to_version)
    except (RegistryUnavailable, NotServed) as error:
        return str(error)
    return None
