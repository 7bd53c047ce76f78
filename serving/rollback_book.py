"""The rollbacks this server knows: its own at once on its disk, everybody's in the store.

Nothing is lost by a restart or a store that is away: what the store lacks is given to it later, on the
follower's turns. Confined to the event loop's thread.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from serving.core.errors import NotServed, SignalboxError, StoreUnavailable
from serving.core.model import VersionRef
from serving.ledger import Ledger
from serving.notices import rolled_back
from serving.store import rollbacks
from serving.store.outbox import Notice
from serving.store.rollback_file import Kept, RollbackFile
from serving.store.rollbacks import RollbackRecord

log = logging.getLogger(__name__)

_KEPT = 100
_STORE_WAIT_SECONDS = 1.0


class RollbackBook:
    """Reads its file when made."""

    def __init__(self, file: RollbackFile, ledger: Ledger) -> None:
        self._file = file
        self._ledger = ledger
        self._is_behind = any(not kept.is_stored for kept in file.read())
        self._task: asyncio.Task[None] | None = None

    async def note(self, record: RollbackRecord) -> None:
        """Keep a rollback that was just carried out; a disk that refuses costs nothing but its status."""

        def add(kept: list[Kept]) -> list[Kept]:
            # Another worker that took the same way back just before has noted it.
            known = any(each.record.id == record.id for each in kept)
            return (kept if known else [*kept, Kept(record, is_stored=False)])[-_KEPT:]

        await self._change(add)
        self._is_behind = True
        self.consider()

    async def known(self) -> set[str]:
        """The ids of the rollbacks this server has noted."""
        return {kept.record.id for kept in await asyncio.to_thread(self._file.read)}

    def consider(self) -> None:
        """Give the store what it lacks, if nobody is at it."""
        is_busy = self._task is not None and not self._task.done()
        if self._is_behind and not is_busy:
            self._task = asyncio.create_task(self._store())

    async def find(self, rollback_id: str) -> RollbackRecord:
        """As the store has it, else as this server keeps it. Raises `NotServed`."""
        problem: SignalboxError
        try:
            async with asyncio.timeout(_STORE_WAIT_SECONDS):
                return await self._ledger.look(lambda engine: rollbacks.get(engine, rollback_id))
        except (StoreUnavailable, TimeoutError):
            away = "and the store, which knows of all, is away"
            problem = StoreUnavailable(f"this server did not take rollback {rollback_id}, {away}")
        except NotServed as unknown:
            problem = unknown
        kept = await asyncio.to_thread(self._file.read)
        found = next((each.record for each in kept if each.record.id == rollback_id), None)
        if found is None:
            raise problem
        return found

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _store(self) -> None:
        for kept in await asyncio.to_thread(self._file.read):
            if kept.is_stored:
                continue
            record = kept.record
            try:
                await self._ledger.call(lambda engine, r=record: rollbacks.note_taken(engine, r))  # type: ignore[misc]
                await self._ledger.notified(_notice(record))
            except StoreUnavailable as error:
                log.warning("rollback_not_stored id=%s reason=%s", record.id, error)
                return
            await self._change(partial(_stored, record.id))
        self._is_behind = False

    async def _change(self, change: Callable[[list[Kept]], list[Kept]]) -> None:
        try:
            await asyncio.to_thread(self._file.change, change)
        except OSError as error:
            log.error("rollback_not_kept reason=%s", error)


def _notice(record: RollbackRecord) -> Notice:
    left = VersionRef(record.model, record.from_version)
    return rolled_back(left, record.to_version, record.strategy, record.actor, record.reason)


def _stored(rollback_id: str, kept: list[Kept]) -> list[Kept]:
    return [replace(each, is_stored=each.is_stored or each.record.id == rollback_id) for each in kept]
