"""Keeps one worker in step with its siblings: what one of them laid or loaded by hand, this one follows.

The files they share say what that is. They are looked at many times a second, and at once when a sibling
says so; both ways end in the same comparison, so a lost word costs a moment and nothing else.
"""

import asyncio
import logging
from collections.abc import Mapping

from serving.core.errors import SignalboxError, StoreUnavailable
from serving.core.model import Alias
from serving.fleet.channel import Told
from serving.fleet.siblings import Siblings
from serving.followed import FollowedModel
from serving.follower import Follower
from serving.library import Library
from serving.overrides import Overrides
from serving.shelf import Shelf
from serving.store.record import Record

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.05
_RETRY_SECONDS = 1.0
# A rollback is answered once every worker took it, or after this long: one that hangs is replaced anyway.
_SPREAD_SECONDS = 1.0


class Unison:
    """Confined to the event loop's thread."""

    def __init__(
        self,
        siblings: Siblings,
        models: Mapping[str, FollowedModel],
        overrides: Overrides,
        record: Record,
        library: Library,
        follower: Follower,
        shelf: Shelf,
    ) -> None:
        self._siblings = siblings
        self._models = models
        self._overrides = overrides
        self._record = record
        self._library = library
        self._follower = follower
        self._shelf = shelf
        self._stamp = record.stamp()
        self._looking = asyncio.Lock()
        self._waking: set[asyncio.Task[list[Told]]] = set()

    async def run(self) -> None:
        """Look again and again until cancelled; a server of one worker has nothing to look for."""
        while self._siblings.exist:
            pause_seconds = _LOOK_SECONDS
            try:
                await self.look()
            except SignalboxError as error:  # tried again: what a sibling has, this one should have too
                log.warning("not_in_step reason=%s", error)
                pause_seconds = _RETRY_SECONDS
            except Exception:  # the loop must outlive any single turn
                log.exception("look_failed")
                pause_seconds = _RETRY_SECONDS
            await asyncio.sleep(pause_seconds)

    async def look(self) -> None:
        """Follow what the shared files say by now. Raises what keeps a version loaded by hand from it."""
        async with self._looking:
            if await self._overrides.look():
                await self._turn_back()
            stamp = self._record.stamp()
            if stamp != self._stamp:
                await self._shelf.follow(self._record.read)
                self._stamp = stamp

    async def _turn_back(self) -> None:
        """Answer as the overrides say: from memory at once, whatever else is loading; the rest follows."""
        for model in list(self._models.values()):
            await self._answer_from_memory(model)
            self._follower.pursue(model)
        self._follower.wake()  # the leading worker tells the registry on its next turn: let that be now

    async def _answer_from_memory(self, model: FollowedModel) -> None:
        key = self._follower.wanted(model).get(Alias.CHAMPION)
        loaded = next((version for version in self._library.loaded() if version.key == key), None)
        if loaded is None or model.champion is loaded:
            return
        try:
            with model.keeping(loaded):
                await self._follower.swap_in(model, Alias.CHAMPION, loaded)
        except StoreUnavailable as error:  # the follower's next turn tries again
            log.error("change_not_durable model=%s reason=%s", model.name, error)

    def wake(self) -> None:
        """Have every worker look at the registry now; nobody is waited for."""
        self._follower.wake()
        if self._siblings.exist:
            task = asyncio.create_task(self._siblings.ask("wake"))
            self._waking.add(task)
            task.add_done_callback(self._waking.discard)

    async def close(self) -> None:
        await asyncio.gather(*self._waking, return_exceptions=True)

    async def spread(self) -> None:
        """Have the siblings look, and return once they did."""
        for problem in await self._siblings.problems("look", seconds=_SPREAD_SECONDS):
            log.warning("sibling_not_in_step %s", problem)
