"""The rollbacks this server knows: its own at once on its disk, everybody's in the store.

Nothing is lost by a restart or a store that is away: what the store lacks is given to it later, on the
follower's turns. Confined to the event loop's thread.
"""

import asyncio
import logging

from serving.core.errors import NotServed, StoreUnavailable
from serving.ledger import Ledger
from serving.store import rollbacks
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
        self._kept = {kept.record.id: kept for kept in file.read()}
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def note(self, record: RollbackRecord) -> None:
        """Keep a rollback that was just carried out; a disk that refuses costs nothing but its status."""
        self._kept[record.id] = Kept(record, is_stored=False)
        for old in list(self._kept)[:-_KEPT]:
            del self._kept[old]
        await self._write()
        self.consider()

    def consider(self) -> None:
        """Give the store what it lacks, if nobody is at it."""
        is_busy = self._task is not None and not self._task.done()
        if not is_busy and any(not kept.is_stored for kept in self._kept.values()):
            self._task = asyncio.create_task(self._store())

    async def find(self, rollback_id: str) -> RollbackRecord:
        """As the store has it, else as this server keeps it. Raises `NotServed`."""
        try:
            async with asyncio.timeout(_STORE_WAIT_SECONDS):
                return await self._ledger.look(lambda engine: rollbacks.get(engine, rollback_id))
        except (NotServed, StoreUnavailable, TimeoutError) as error:
            if (kept := self._kept.get(rollback_id)) is not None:
                return kept.record
            if isinstance(error, NotServed):
                raise
        raise StoreUnavailable(f"this server did not take rollback {rollback_id}, and the store is away")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _store(self) -> None:
        for kept in [kept for kept in self._kept.values() if not kept.is_stored]:
            record = kept.record
            try:
                await self._ledger.call(lambda engine, r=record: rollbacks.note_taken(engine, r))  # type: ignore[misc]
            except StoreUnavailable as error:
                log.warning("rollback_not_stored id=%s reason=%s", record.id, error)
                return
            self._kept[record.id] = Kept(record, is_stored=True)
            await self._write()

    async def _write(self) -> None:
        async with self._writing:  # in turn, so that an older list never lands last
            try:
                await asyncio.to_thread(self._file.write, list(self._kept.values()))
            except OSError as error:
                log.error("rollback_not_kept reason=%s", error)
