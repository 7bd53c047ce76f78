"""The overrides in force, as this process sees them: its own from the local file, others' from the store.

An override is on the local disk before `lay` returns, so it holds across a crash of anything.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from datetime import datetime

from serving.core.clock import Clock
from serving.core.errors import StoreUnavailable
from serving.core.model import Alias, VersionRef
from serving.ledger import Ledger
from serving.reconcile import has_ended
from serving.store import overrides as stored
from serving.store.overrides import Override, OverrideFile
from serving.store.registry import RegisteredModel

log = logging.getLogger(__name__)

_STORE_WAIT_SECONDS = 1.0


class Overrides:
    """Confined to the event loop's thread."""

    def __init__(self, file: OverrideFile, ledger: Ledger, clock: Clock) -> None:
        self._file = file
        self._ledger = ledger
        self._clock = clock
        self._own: dict[str, Override] = {override.id: override for override in file.read()}
        self._others: dict[str, Override] = {}
        self._ending: dict[str, tuple[Override, str]] = {}
        self._writing = asyncio.Lock()

    def of(self, model: str) -> list[Override]:
        """The overrides of a model, the latest last, so that it wins."""
        both = [*self._others.values(), *self._own.values()]
        return sorted((o for o in both if o.model == model), key=lambda o: o.laid_at)

    def own(self, model: str) -> list[Override]:
        """Those this process laid and nobody followed up: it is the one that tells the registry."""
        last = {override.role: override for override in self.of(model)}
        return [override for override in last.values() if override.id in self._own]

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

    async def lay(self, override: Override) -> None:
        """Make an override durable; the store gets its copy now, or later if it is slow or down.

        Raises `StoreUnavailable`, and nothing is laid, when the local disk refuses it.
        """
        async with self._writing:
            try:
                await asyncio.to_thread(self._file.write, list(self._with(override).values()))
            except OSError as error:
                raise StoreUnavailable(f"the override could not be written: {error}") from error
            self._own = self._with(override)
        try:
            async with asyncio.timeout(_STORE_WAIT_SECONDS):
                await self._save(override)
        except (StoreUnavailable, TimeoutError) as error:
            log.warning("override_kept_locally id=%s reason=%r", override.id, error)

    async def end(self, override: Override, why: str) -> None:
        """Stop an override here at once, and in the store as soon as it answers."""
        self._others.pop(override.id, None)
        self._ending[override.id] = (override, why)
        if self._own.pop(override.id, None) is not None:
            await self._write_file()

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
        for override, why in list(self._ending.values()):
            await self._ledger.call(lambda engine, o=override, w=why: stored.end(engine, o, w))  # type: ignore[misc]
            del self._ending[override.id]
        active = await self._ledger.call(stored.active)
        await self._bring(active)
        self._others = {o.id: o for o in active if o.id not in self._own and o.id not in self._ending}

    async def _bring(self, active: Iterable[Override]) -> None:
        """Give the store what it lacks of ours; what it knows as ended or followed up ends here too.

        An explicit promotion ends an override in the store; ours must not outlive it.
        """
        known = {override.id for override in active}
        lacking = [override for override in self._own.values() if override.id not in known]
        over = [override.id for override in lacking if not await self._save(override)]
        if over:
            self._own = {o.id: o for o in self._own.values() if o.id not in over}
            await self._write_file()

    async def _save(self, override: Override) -> bool:
        return await self._ledger.call(lambda engine: stored.save(engine, override))

    def _with(self, override: Override) -> dict[str, Override]:
        kept = {o.id: o for o in self._own.values() if not _same_role(o, override)}
        return kept | {override.id: override}

    async def _write_file(self) -> None:
        async with self._writing:  # in turn, so that an older list never lands last
            await asyncio.to_thread(self._file.write, list(self._own.values()))


def _same_role(one: Override, other: Override) -> bool:
    return (one.model, one.role) == (other.model, other.role)
