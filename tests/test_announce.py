"""The announcement of a challenger: noted in the store first, then posted to Prefect, once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine

from serving.announce import EVENT, Announcer
from serving.core.clock import ManualClock
from serving.followed import FollowedModel
from serving.ledger import Ledger
from serving.store import sightings
from serving.store.database import open_engine
from serving.store.journal import Journal
from serving.store.registry import RegisteredModel
from serving.store.trail import Trail
from tests.flows.answers import Answers, Asked, answering
from tests.story import eventually, story


class Room:
    """An announcer over a real store, and what it posted."""

    def __init__(self, announcer: Announcer, engine: Engine, clock: ManualClock, prefect: Answers) -> None:
        self.announcer = announcer
        self.engine = engine
        self.clock = clock
        self._prefect = prefect
        self._model = FollowedModel("digits")

    def look(self, challenger: str | None) -> None:
        """One turn of the follower that finds the alias so."""
        aliases = {"challenger": challenger} if challenger is not None else {}
        self._model.registered = RegisteredModel("digits", 0, aliases, {}, "")
        self.announcer.consider(self._model)

    async def finds(self, challenger: str | None) -> None:
        """Turns until the store shows it."""

        def noted() -> bool:
            self.look(challenger)
            return self.seen() == challenger

        await eventually(noted, f"challenger {challenger} is noted")

    def seen(self) -> str | None:
        sighting = sightings.current(self.engine, "digits", "challenger")
        return sighting.version if sighting is not None else None

    def posted(self) -> list[str]:
        """The versions that Prefect was told of."""
        return [event["payload"]["version"] for event in self.events()]

    def events(self) -> list[dict[str, Any]]:
        return [event for asked in self._prefect.asked for event in asked.body]


@asynccontextmanager
async def room(home: Path, *statuses: int, prefect_url: str | None = None) -> AsyncIterator[Room]:
    """`statuses` are Prefect's first answers, one per request; later ones are 204."""
    clock = ManualClock()
    coming = iter(statuses)

    def accept(_: Asked) -> tuple[int, Any]:
        return next(coming, 204), ""

    engine = open_engine(f"sqlite:///{home / 'signalbox.db'}")
    ledger = Ledger(engine, Trail(engine, Journal(home / "journal.jsonl"), clock), clock)
    with answering(accept) as prefect:
        async with httpx.AsyncClient(base_url=prefect_url or prefect.url, trust_env=False) as client:
            announcer = Announcer(client, ledger, clock)
            try:
                yield Room(announcer, engine, clock, prefect)
            finally:
                await announcer.close()
                ledger.close()
                engine.dispose()


@story
async def test_challenger_is_announced_once_when_it_is_set(home: Path) -> None:
    """However many turns find it so; the event says which model and version, and since when."""
    async with room(home) as here:
        await here.finds("2")
        await eventually(lambda: here.posted() == ["2"], "the event arrives")
        here.clock.advance(60)
        for _ in range(20):
            here.look("2")
        await here.finds(None)
        [event] = here.events()
        assert event["event"] == EVENT
        assert event["resource"]["prefect.resource.id"] == "signalbox.model.digits"
        assert event["payload"] == {"model": "digits", "version": "2"}
        assert datetime.fromisoformat(event["occurred"]) == ManualClock().now()


@story
async def test_challenger_is_announced_again_when_it_is_moved_or_set_anew(home: Path) -> None:
    """Each is a wish of its own."""
    async with room(home) as here:
        for challenger in ("2", "3", None, "3"):
            await here.finds(challenger)
        await eventually(lambda: here.posted() == ["2", "3", "3"], "three events")


@story
async def test_challenger_is_not_announced_when_another_replica_saw_it_first(home: Path) -> None:
    async with room(home) as here:
        sightings.see(here.engine, "digits", "challenger", "2", here.clock.now())
        here.look("2")
        await here.finds(None)
        assert here.posted() == []


@story
async def test_sighting_is_forgotten_when_the_alias_went_while_nobody_looked(home: Path) -> None:
    """A server that starts clears what outlived its alias: set again, that is a new wish."""
    async with room(home) as here:
        sightings.see(here.engine, "digits", "challenger", "2", here.clock.now())
        await here.finds(None)
        here.clock.advance(60)
        await here.finds("2")
        await eventually(lambda: here.posted() == ["2"], "the event arrives")
        sighting = sightings.current(here.engine, "digits", "challenger")
        assert sighting is not None
        assert sighting.seen_at == here.clock.now()


@story
async def test_sighting_is_kept_when_prefect_refuses_the_event(home: Path) -> None:
    """It is only a hint: tend finds the sighting."""
    async with room(home, 500, 500) as here:
        await here.finds("2")
        await eventually(lambda: here.posted() == ["2"], "the event was tried")
        here.look("2")
        await here.finds("3")
        await eventually(lambda: here.posted() == ["2", "3"], "each was tried once")


@story
async def test_event_is_posted_again_when_prefect_is_busy(home: Path) -> None:
    """Under the same id, so that Prefect takes it for one."""
    async with room(home, 503) as here:
        await here.finds("2")
        await eventually(lambda: len(here.events()) == 2, "a second try")
        first, second = here.events()
        assert first == second


@story
async def test_sighting_is_kept_when_prefect_is_not_there(home: Path) -> None:
    async with room(home, prefect_url="http://127.0.0.1:9") as here:
        await here.finds("2")
        await here.finds("3")
        assert here.posted() == []


@story
async def test_challenger_is_announced_late_when_the_store_was_away(home: Path) -> None:
    """Not noted, it is not announced: nobody could tell who was first."""
    store, hidden = home / "signalbox.db", home / "hidden.db"
    store.rename(hidden)
    async with room(home) as here:
        for _ in range(5):
            here.look("2")
        store.unlink(missing_ok=True)
        hidden.rename(store)
        here.engine.dispose()
        await here.finds("2")
        await eventually(lambda: here.posted() == ["2"], "the event arrives")
