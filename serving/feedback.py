"""Takes labels in: acknowledged once they are on disk, many callers' labels with one write.

What waits while one write is under way goes with the next, so that a slow disk costs callers time and
not each of them a turn. Confined to the event loop's thread; the writing is done on others.
"""

import asyncio
from collections.abc import Sequence

from serving.core.errors import Overloaded, StoreUnavailable
from serving.core.labels import Label
from serving.store.feedback import FeedbackJournal, JournalFull

_RETRY_SECONDS = 5.0
_MAX_PENDING = 100_000


class Feedback:
    def __init__(self, journal: FeedbackJournal) -> None:
        self._journal = journal
        self._pending: list[tuple[Sequence[Label], asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def accept(self, labels: Sequence[Label]) -> None:
        """Return once the labels are on disk.

        Raises:
            StoreUnavailable: the disk refuses them.
            Overloaded: too many wait to be written or joined already.
        """
        if sum(len(waiting) for waiting, _ in self._pending) + len(labels) > _MAX_PENDING:
            raise Overloaded("too many labels wait to be written already", retry_after_seconds=_RETRY_SECONDS)
        written = asyncio.get_running_loop().create_future()
        self._pending.append((labels, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await written

    async def close(self) -> None:
        """Wait for what is being written."""
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)

    async def _write(self) -> None:
        while self._pending:
            batch, self._pending = self._pending, []
            labels = [label for waiting, _ in batch for label in waiting]
            problem = await asyncio.to_thread(self._append, labels)
            for _, written in batch:
                if written.done():  # its caller left; the labels are kept all the same
                    continue
                if problem is None:
                    written.set_result(None)
                else:
                    written.set_exception(problem)

    def _append(self, labels: Sequence[Label]) -> Exception | None:
        try:
            self._journal.append(labels)
        except JournalFull as error:
            return Overloaded(str(error), retry_after_seconds=_RETRY_SECONDS)
        except OSError as error:
            return StoreUnavailable(f"labels cannot be written: {error}; send them again later")
        return None
