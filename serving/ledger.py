"""Serving's writes to the state store: in order, on one thread, never on the request path.

A store that is down costs nothing but time: audit entries go to the local journal, notices wait
here, and both are delivered when the store answers again.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Engine

from serving.core.clock import Clock
from serving.core.errors import StoreUnavailable
from serving.store import outbox
from serving.store.database import writing
from serving.store.outbox import Notice, Severity
from serving.store.trail import Trail

log = logging.getLogger(__name__)

Result = TypeVar("Result")
_MAX_WAITING_NOTICES = 1000


class Ledger:
    """Audit, notices and any other store call of the serving process."""

    def __init__(self, engine: Engine, trail: Trail, clock: Clock, worker: int | None = None) -> None:
        """`worker` marks the audit entries of one worker of several, each of which does what it audits."""
        self._engine = engine
        self._trail = trail
        self._clock = clock
        self._origin: dict[str, Any] = {} if worker is None else {"worker": worker}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._waiting: deque[Notice] = deque(maxlen=_MAX_WAITING_NOTICES)
        self._on_critical: Callable[[Notice], None] = lambda _: None
        self.problem: str | None = None

    def audit(
        self, action: str, *, actor: str, model: str, version: str | None = None, **details: Any
    ) -> None:
        """Record what happened; returns at once."""
        self._thread.submit(
            self._guarded,
            lambda: self._trail.record(
                action, actor=actor, model=model, version=version, **details, **self._origin
            ),
        )

    def tell(self, on_critical: Callable[[Notice], None]) -> None:
        """Have `on_critical` called, on the ledger's thread, once a critical notice is in the outbox."""
        self._on_critical = on_critical

    def notify(self, notice: Notice) -> None:
        """Put a notice into the outbox; returns at once."""
        self._thread.submit(self._guarded, lambda: self._enqueue(notice))

    async def notified(self, notice: Notice) -> None:
        """Put a notice into the outbox before going on. Raises `StoreUnavailable`, and nothing is kept."""
        await asyncio.wrap_future(self._thread.submit(self._write, notice))

    async def call(self, work: Callable[[Engine], Result]) -> Result:
        """The result of a store call made in turn. Raises `StoreUnavailable`."""
        result = await asyncio.wrap_future(self._thread.submit(work, self._engine))
        self.problem = None
        return result

    async def look(self, work: Callable[[Engine], Result]) -> Result:
        """The result of a read, made beside the queue of writes, for who cannot wait its turn."""
        return await asyncio.to_thread(work, self._engine)

    async def catch_up(self) -> None:
        """Deliver what had to wait for the store, if it answers."""
        await asyncio.wrap_future(self._thread.submit(self._guarded, self._deliver))

    def close(self) -> None:
        """Finish what was accepted."""
        self._thread.shutdown(wait=True)

    def _deliver(self) -> None:
        self._trail.merge()
        while self._waiting:
            self._write(self._waiting[0])
            self._waiting.popleft()
        self.problem = None

    def _enqueue(self, notice: Notice) -> None:
        try:
            self._write(notice)
        except StoreUnavailable:
            self._waiting.append(notice)
            raise

    def _write(self, notice: Notice) -> None:
        with writing(self._engine) as connection:
            outbox.enqueue(connection, notice, self._clock.now())
        if notice.severity is Severity.CRITICAL:
            self._on_critical(notice)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except StoreUnavailable as error:
            if self.problem is None:
                log.warning("store_unavailable reason=%s", error)
            self.problem = str(error)
        except Exception as error:  # one failed write must not end the thread that makes all of them
            log.exception("store_write_failed")
            self.problem = repr(error)
