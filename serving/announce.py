"""Tells Prefect that somebody set alias `challenger`, so that the promotion starts within seconds.

Only a hint: the sighting is in the store, and the minutely flow starts what this failed to announce.
"""

import asyncio
import logging
from datetime import datetime
from typing import Any
from uuid import uuid4

import httpx

from serving.core.clock import Clock
from serving.core.errors import StoreUnavailable
from serving.core.model import Alias
from serving.followed import FollowedModel
from serving.ledger import Ledger
from serving.store import sightings

log = logging.getLogger(__name__)

EVENT = "signalbox.challenger.set"
# Prefect on SQLite answers so to what comes at the same moment as another write; the event's id makes
# posting it again harmless.
_BUSY = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)
_RETRY_SECONDS = (0.2, 1.0, 3.0)


class Announcer:
    """Confined to the event loop's thread. Posts to Prefect's HTTP API; needs no Prefect installed."""

    def __init__(self, client: httpx.AsyncClient, ledger: Ledger, clock: Clock) -> None:
        self._client = client
        self._ledger = ledger
        self._clock = clock
        self._noted: dict[str, str | None] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def consider(self, model: FollowedModel) -> None:
        """Note a challenger that was set, moved or deleted since the last turn."""
        named = model.registered.aliases.get(Alias.CHALLENGER) if model.registered else None
        task = self._tasks.get(model.name)
        # At first also a challenger that is not set: the sighting of an earlier one may have outlived it.
        is_noted = model.name in self._noted and self._noted[model.name] == named
        if is_noted or (task is not None and not task.done()):
            return
        self._tasks[model.name] = asyncio.create_task(self._note(model.name, named))

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _note(self, model: str, named: str | None) -> None:
        now = self._clock.now()
        try:
            first = await self._ledger.call(
                lambda engine: sightings.see(engine, model, Alias.CHALLENGER, named, now)
            )
        except StoreUnavailable as error:
            log.warning("challenger_not_noted model=%s reason=%s", model, error)
            return
        self._noted[model] = named
        if first is not None:
            await self._post(challenger_event(model, first.version, now))

    async def _post(self, event: dict[str, Any]) -> None:
        try:
            response = await self._client.post("/events", json=[event])
            for wait_seconds in _RETRY_SECONDS:
                if response.status_code not in _BUSY:
                    break
                await asyncio.sleep(wait_seconds)
                response = await self._client.post("/events", json=[event])
            response.raise_for_status()
        except httpx.HTTPError as error:
            log.warning("event_not_posted event=%s reason=%r", event["event"], error)


def challenger_event(model: str, version: str, now: datetime) -> dict[str, Any]:
    """The event in the form of Prefect's `POST /events`."""
    return {
        "id": str(uuid4()),
        "occurred": now.isoformat(),
        "event": EVENT,
        "resource": {"prefect.resource.id": f"signalbox.model.{model}", "prefect.resource.name": model},
        "payload": {"model": model, "version": version},
    }
