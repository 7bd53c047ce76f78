"""The overrides in force, as this process sees them: its server's from a local file, others' from the store.

An override is on the local disk before `lay` returns, so it holds across a crash of anything. Workers of
one server share the file: what one lays, the others see as soon as they look.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from serving.core.clock import Clock
from serving.core.errors import StoreUnavailable
from serving.core.model import Alias, VersionRef
from serving.ledger import Ledger
from serving.reconcile import has_ended
from serving.store import overrides as stored
from serving.store.overrides import Ended, Kept, Override, OverrideFile
from serving.store.registry import RegisteredModel

log = logging.getLogger(__name__)

_STORE_WAIT_SECONDS = 1.0


class Overrides:
    """Confined to the event loop's thread."""

    def __init__(self, file: OverrideFile, ledger: Ledger, clock: Clock) -> None:
        self._file = file
        self._ledger = ledger
        self._clock = clock
        self._stamp = file.stamp()
        self._own: dict[str, Override] = {}
        self._others: dict[str, Override] = {}
        self._ending: dict[str, Ended] = {}
        # An ended override never holds again, whatever a store that was asked earlier still says.
        self._over: set[str] = set()
        self._writing = asyncio.Lock()
        self._take(file.kept())

    def of(self, model: str) -> list[Override]:
        """The overrides of a model, the latest last, so that it wins."""
        both = [*self._others.values(), *self._own.values()]
        return sorted((o for o in both if o.model == model), key=lambda o: o.laid_at)

    def own(self, model: str) -> list[Override]:
        """Those this server laid and nobody followed up: it is the one that tells the registry."""
        last = {override.role: override for override in self.of(model)}
        return [override for override in last.values() if override.id in self._own]

    def all_own(self) -> list[Override]:
        """Every override that this server laid and nobody followed up."""
        return list(self._own.values())

    def laid_for(self, model: str, role: str) -> Override | None:
        """The override in force for a role, if any."""
        return next((o for o in reversed(self.of(model)) if o.role == role), None)

    def left_for(self, model: str, version: str) -> str | None:
        """The champion that `version` answers in place of, by an override in force."""
        override = self.laid_for(model, Alias.CHAMPION)
        return override.not_version if override is not None and override.answer_with == version else None

    async def left_elsewhere(self, left: VersionRef, version: str, *, since: datetime) -> str | None:
        """`left`, if a rollback after `since` led from it to `version` and is over already, by the store."""
        try:
            async with asyncio.timeout(_STORE_WAIT_SECONDS):
                last = await self._ledger.look(
                    lambda engine: stored.last_laid(engine, left.model, Alias.CHAMPION)
                )
        except (StoreUnavailable, TimeoutError) as error:
            log.warning("rollbacks_elsewhere_unknown model=%s reason=%r", left.model, error)
            return None
        is_it = last is not None and (last.not_version, last.answer_with) == (left.version, version)
        return left.version if is_it and last is not None and last.laid_at > since else None

    async def look(self) -> bool:
        """Learn what another worker of this server changed; whether anything was."""
        if self._file.stamp() == self._stamp:
            return False
        async with self._writing:
            before = (self._own, self._ending.keys())
            stamp = self._file.stamp()
            self._take(await asyncio.to_thread(self._file.kept))
            self._stamp = stamp
            return before != (self._own, self._ending.keys())

    async def lay(self, override: Override) -> Override:
        """Make an override durable; the store gets its copy now, or later if it is slow or down.

        Returns the one that holds now: where another worker laid the same just before, that one.
        Raises `StoreUnavailable`, and nothing is laid, when the local disk refuses it.
        """
        try:
            await self._change(lambda kept: _with(kept, override))
        except OSError as error:
            raise StoreUnavailable(f"the override could not be written: {error}") from error
        held = next(o for o in self._own.values() if _same_role(o, override))
        try:
            async with asyncio.timeout(_STORE_WAIT_SECONDS):
                await self._save(held)
        except (StoreUnavailable, TimeoutError) as error:
            log.warning("override_kept_locally id=%s reason=%r", held.id, error)
        return held

    async def end(self, override: Override, why: str) -> None:
        """Stop an override here at once, and in the store as soon as it answers."""
        self._own.pop(override.id, None)
        self._others.pop(override.id, None)
        self._over.add(override.id)
        self._ending[override.id] = Ended(override, why)
        await self._change(lambda kept: _without(kept, Ended(override, why)))

    async def refresh(self, registered: Mapping[str, RegisteredModel]) -> None:
        """End what the registry has caught up with, and exchange the rest with the store."""
        await self.settle(registered)
        await self.exchange()

    async def settle(self, registered: Mapping[str, RegisteredModel]) -> None:
        """End what the registry has caught up with. Asks nobody, so a slow store delays no swap."""
        for override in [*self._own.values(), *self._others.values()]:
            model = registered.get(override.model)
            if model is not None and has_ended(override, model):
                named = model.aliases.get(override.role) or "nothing"
                await self.end(override, f"{override.role} names {named}")

    async def exchange(self) -> None:
        """Bring the store's knowledge of overrides and this process's together, if the store answers."""
        try:
            await self._exchange()
        except StoreUnavailable as error:
            log.debug("overrides_not_exchanged reason=%s", error)

    async def _exchange(self) -> None:
        for ended in list(self._ending.values()):
            await self._save(
                ended.override
            )  # one that was over before the store heard of it is told all the same
            await self._ledger.call(lambda engine, e=ended: stored.end(engine, e.override, e.why))  # type: ignore[misc]
            await self._change(lambda kept, e=ended: _told(kept, e))  # type: ignore[misc]
        active = await self._ledger.call(stored.active)
        await self._bring(active)
        self._others = {o.id: o for o in active if o.id not in self._own and o.id not in self._over}

    async def _bring(self, active: Iterable[Override]) -> None:
        """Give the store what it lacks of ours; what it knows as ended or followed up ends here too.

        An explicit promotion ends an override in the store; ours must not outlive it.
        """
        known = {override.id for override in active}
        lacking = [override for override in self._own.values() if override.id not in known]
        over = [override.id for override in lacking if not await self._save(override)]
        if over:
            self._over.update(over)
            await self._change(lambda kept: _dropping(kept, over))

    async def _save(self, override: Override) -> bool:
        return await self._ledger.call(lambda engine: stored.save(engine, override))

    async def _change(self, change: Callable[[Kept], Kept]) -> None:
        async with self._writing:  # in turn, so that an older state is never taken for the last
            kept = await asyncio.to_thread(self._file.change, change)
            self._take(kept)

    def _take(self, kept: Kept) -> None:
        self._own = {override.id: override for override in kept.overrides}
        self._ending = {ended.override.id: ended for ended in kept.ended}
        self._over.update(self._ending)
        self._others = {o.id: o for o in self._others.values() if o.id not in self._over}


def _with(kept: Kept, override: Override) -> Kept:
    """The same way back, laid by another worker a moment ago, is not laid twice."""
    same = [o for o in kept.overrides if _same_role(o, override)]
    if any((o.not_version, o.answer_with) == (override.not_version, override.answer_with) for o in same):
        return kept
    others = tuple(o for o in kept.overrides if o not in same)
    return replace(kept, overrides=(*others, override))


def _without(kept: Kept, ended: Ended) -> Kept:
    known = [e for e in kept.ended if e.override.id != ended.override.id]
    return replace(_dropping(kept, [ended.override.id]), ended=(*known, ended))


def _dropping(kept: Kept, ids: Sequence[str]) -> Kept:
    return replace(kept, overrides=tuple(o for o in kept.overrides if o.id not in ids))


def _told(kept: Kept, ended: Ended) -> Kept:
    return replace(kept, ended=tuple(e for e in kept.ended if e.override.id != ended.override.id))


def _same_role(one: Override, other: Override) -> bool:
    return (one.model, one.role) == (other.model, other.role)
