"""The overrides in force, as this process sees them: its own from the local file, others' from the store.

An override is on the local disk before `lay` returns, so it holds across a crash of anything.
"""

import asyncio
import logging
from collections.abc import Mapping

from serving.core.clock import Clock
from serving.core.errors import StoreUnavailable
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
        self._unsaved: set[str] = set(self._own)
        self._ending: dict[str, tuple[Override, str]] = {}

    def of(self, model: str) -> list[Override]:
        """The overrides of a model, the latest last, so that it wins."""
        both = [*self._others.values(), *self._own.values()]
        return sorted((o for o in both if o.model == model), key=lambda o: o.laid_at)

    def own(self, model: str) -> list[Override]:
        """Those this process laid: it is the one that tells the registry."""
        return [override for override in self._own.values() if override.model == model]

    def answers(self, model: str, version: str) -> bool:
        """Whether `version` answers because of an override."""
        return any(override.answer_with == version for override in self.of(model))

    def instead_of(self, model: str, role: str, version: str) -> str | None:
        """The version that answers as `role` where `version` would."""
        for override in self.of(model):
            if (override.role, override.not_version) == (role, version):
                return override.answer_with
        return version

    async def lay(self, override: Override) -> None:
        """Make an override durable; the store gets its copy now, or later if it is slow or down."""
        self._own = {o.id: o for o in self._own.values() if not _same_role(o, override)}
        self._own[override.id] = override
        self._unsaved.add(override.id)
        await self._write_file()
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
            self._unsaved.discard(override.id)
            await self._write_file()

    async def refresh(self, registered: Mapping[str, RegisteredModel]) -> None:
        """End what the registry has caught up with, and exchange the rest with the store."""
        for override in [*self._own.values(), *self._others.values()]:
            model = registered.get(override.model)
            if model is not None and has_ended(override, model):
                named = model.aliases.get(override.role) or "nothing"
                await self.end(override, f"{override.role} names {named}")
        try:
            await self._exchange()
        except StoreUnavailable as error:
            log.debug("overrides_not_exchanged reason=%s", error)

    async def _exchange(self) -> None:
        for override, why in list(self._ending.values()):
            await self._ledger.call(lambda engine, o=override, w=why: stored.end(engine, o, w))  # type: ignore[misc]
            del self._ending[override.id]
        for identifier in list(self._unsaved):
            await self._save(self._own[identifier])
        active = await self._ledger.call(stored.active)
        self._others = {o.id: o for o in active if o.id not in self._own and o.id not in self._ending}

    async def _save(self, override: Override) -> None:
        await self._ledger.call(lambda engine: stored.save(engine, override))
        self._unsaved.discard(override.id)

    async def _write_file(self) -> None:
        await asyncio.to_thread(self._file.write, list(self._own.values()))


def _same_role(one: Override, other: Override) -> bool:
    return (one.model, one.role) == (other.model, other.role)
