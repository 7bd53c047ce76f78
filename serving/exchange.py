"""Keeps this process and the state store in step, beside the follower's turns.

However long the store takes, aliases are followed meanwhile; one exchange runs at a time.
"""

import asyncio

from serving.ledger import Ledger
from serving.overrides import Overrides


class StoreExchange:
    """Confined to the event loop's thread."""

    def __init__(self, overrides: Overrides, ledger: Ledger) -> None:
        self._overrides = overrides
        self._ledger = ledger
        self._task: asyncio.Task[None] | None = None

    def soon(self) -> None:
        """Start an exchange unless one is under way."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        await self._overrides.exchange()
        await self._ledger.catch_up()
