"""Tells Prefect what cannot wait for the minutely flow: a challenger that was set, a critical notice.

Only hints: sighting and notice are in the store, and the minutely flow finds what this failed to announce.
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
from serving.store.outbox import Notice

log = logging.getLogger(__name__)

EVENT = "signalbox.challenger.set"
ALERT_EVENT = "signalbox.alert.critical"
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
        self._alerts: set[asyncio.Task[None]] = set()

    def consider(self, model: FollowedModel) -> None:
        """Note a challenger that was set, moved or deleted since the last turn."""
        named = model.registered.aliases.get(Alias.CHALLENGER) if model.registered else None
        task = self._tasks.get(model.name)
        # At first also a challenger that is not set: the sighting of an earlier one may have outlived it.
        is_noted = model.name in self._noted and self._noted[model.name] == named
        if is_noted or (task is not None and not task.done()):
            return
        self._tasks[model.name] = asyncio.create_task(self._note(model.name, named))

    def alert(self, notice: Notice) -> None:
        """Have a critical notice delivered now."""
        task = asyncio.create_task(self._post(alert_event(notice, self._clock.now())))
        self._alerts.add(task)
        task.add_done_callback(self._alerts.discard)

    async def close(self) -> None:
        tasks = [*self._tasks.values(), *self._alerts]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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
    """Alias `challenger` names `version` now."""
    return _event(EVENT, model, now, {"model": model, "version": version})


def alert_event(notice: Notice, now: datetime) -> dict[str, Any]:
    """A critical notice waits in the outbox."""
    payload = {"kind": notice.kind, "title": notice.title}
    return _event(ALERT_EVENT, notice.model or "none", now, payload)


def _event(name: str, model: str, now: datetime, payload: dict[str, str]) -> dict[str, Any]:
    """In the form of Prefect's `POST /events`."""
    return {
        "id": str(uuid4()),
        "occurred": now.isoformat(),
        "event": name,
        "resource": {"prefect.resource.id": f"signalbox.model.{model}", "prefect.resource.name": model},
        "payload": payload,
    }
