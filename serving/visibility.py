"""A change of a model becomes durable, then visible; in that order, one at a time."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from serving.core.errors import StoreUnavailable
from serving.core.traffic import Split
from serving.followed import FollowedModel, Standing
from serving.routes import Routes
from serving.store.record import ModelRecord, Record

# What a common record had of a model, and what this process has now, to what it is to have.
Merged = Callable[[ModelRecord, ModelRecord], ModelRecord]


class Visibility:
    """Makes a change of any model durable, then visible; in that order, one at a time.

    A record that other workers of this server write too is changed in one entry only.
    """

    def __init__(
        self,
        models: Mapping[str, FollowedModel],
        record: Record,
        routes: Routes,
        cache_folder: Path,
        *,
        is_shared: bool = False,
    ) -> None:
        self._models = models
        self._record = record
        self._routes = routes
        self._cache_folder = cache_folder
        self._is_shared = is_shared
        self._writing = asyncio.Lock()
        self._on_split: Callable[[FollowedModel, Split | None], None] = lambda model, before: None

    def tell(self, on_split: Callable[[FollowedModel, Split | None], None]) -> None:
        """Have `on_split` called with a model whose split became another one, and the one before."""
        self._on_split = on_split

    async def publish(self, model: FollowedModel) -> None:
        """Call with the model's lock held. Raises `StoreUnavailable` when the disk refuses; nothing shows."""
        await self._publish(model, lambda before, now: replace(now, by_hand=before.by_hand))

    async def publish_or_put_back(self, model: FollowedModel, before: Standing) -> None:
        """The same; `model` stands as `before` where the disk refuses."""
        try:
            await self.publish(model)
        except StoreUnavailable:
            model.put_back(before)
            raise

    async def publish_by_hand(self, model: FollowedModel) -> None:
        """The same after a change of what is loaded by number, which nothing else changes in the record."""
        await self._publish(model, lambda _, now: now)

    async def _publish(self, model: FollowedModel, merged: Merged) -> None:
        async with self._writing:
            try:
                await asyncio.to_thread(self._write(model, merged))
            except OSError as error:
                raise StoreUnavailable(f"the local record could not be written: {error}") from error
        self.show(model)

    def _write(self, model: FollowedModel, merged: Merged) -> Callable[[], None]:
        """The write, with what is to be written fixed now, on the event loop's thread."""
        if not self._is_shared:
            answering = [m for m in self._models.values() if m.served or m.by_hand]
            records = {m.name: m.record(self._cache_folder) for m in answering}
            return lambda: self._record.write(records)
        now = model.record(self._cache_folder)

        def change(before: ModelRecord) -> ModelRecord | None:
            after = merged(before, now)
            return after if after.aliases or after.by_hand else None

        return lambda: self._record.merge(model.name, change)

    def show(self, model: FollowedModel) -> None:
        """Publish what the record already holds."""
        routes = model.routes()
        self._routes.publish(model.name, routes)
        model.is_answering = model.champion is not None
        before, model.shown_split = model.shown_split, routes.split
        if before != routes.split:
            self._on_split(model, before)
