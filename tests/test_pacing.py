"""The latency of a watched champion, judged from the store: what is asked, when, and what comes of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from sqlalchemy import Engine

from serving.core.clock import ManualClock
from serving.core.comparison import Pair, Role, Tally
from serving.core.latency import LatencyRule
from serving.core.model import Variant, VersionRef
from serving.core.sketch import Sketch
from serving.core.window import WindowStats
from serving.followed import FollowedModel, as_served
from serving.ledger import Ledger
from serving.pacing import Pacing
from serving.store import comparisons, telemetry
from serving.store.comparisons import Minute, minute_of
from serving.store.database import open_engine
from serving.store.journal import Journal
from serving.store.telemetry import Window
from serving.store.trail import Trail
from serving.watch import Slowness
from tests.story import story
from tests.versions import CACHE, loaded

WATCH = timedelta(seconds=300)


@dataclass
class Shown:
    """Keeps who got copies each time that requests were to meet something else."""

    controls: list[str | None] = field(default_factory=list)

    def show(self, model: FollowedModel) -> None:
        targets = [copy for route in [model.routes().main()] if route for copy in route.copies]
        self.controls.append(targets[0].version.ref.version if targets else None)


@dataclass
class Post:
    """A model whose champion became 2 in the place of 1, and what was decided of it."""

    model: FollowedModel
    pacing: Pacing
    engine: Engine
    clock: ManualClock
    shown: Shown
    slow: list[Slowness]
    swapped_at: datetime

    def answered(self, version: str, at: datetime, count: int, ms: float) -> None:
        stats = WindowStats(statuses={"ok": count}, latency=Sketch.of(np.full(count, ms / 1000)))
        second = int(at.timestamp())
        ref = VersionRef("digits", version)
        variant = str(Variant.CHAMPION)
        window = Window(ref=ref, variant=variant, worker="w1", step_seconds=1, start=second, stats=stats)
        telemetry.write(self.engine, [window])

    def copied(self, count: int, before_ms: float, now_ms: float) -> None:
        tally = Tally()
        for _ in range(count):
            tally.add({}, before_ms / 1000, now_ms / 1000)
        pair = Pair("digits", "1", "2", Role.CHALLENGER, is_control=True)
        comparisons.save(self.engine, {Minute(pair, minute_of(self.clock.now()), "w1"): tally})

    async def window(self, count: int, ms: float) -> None:
        """Half a minute of answers of the champion, and the look at its end."""
        self.answered("2", self.clock.now() + timedelta(seconds=15), count, ms)
        self.clock.advance(31.0)
        await self.pacing.look(self.model)

    async def suspected(self) -> None:
        self.clock.advance(12.0)
        await self.window(100, 80.0)
        assert self.model.control is None
        await self.window(100, 80.0)
        assert self.shown.controls == ["1"]

    @property
    def said(self) -> str:
        return self.model.pace.said if self.model.pace is not None else ""


@asynccontextmanager
async def post(home: Path, *, answers_before: int = 200, minutes_before: float = 1) -> AsyncIterator[Post]:
    clock = ManualClock()
    engine = open_engine(f"sqlite:///{home / 'signalbox.db'}")
    ledger = Ledger(engine, Trail(engine, Journal(home / "journal.jsonl"), clock), clock)
    model, shown, slow = FollowedModel("digits"), Shown(), []
    one, two = loaded("1"), loaded("2")
    model.succeed(one, as_served(one, CACHE), None, clock.now(), WATCH)
    model.served["champion"] = one
    clock.advance(3600.0)
    model.succeed(two, as_served(two, CACHE), None, clock.now(), WATCH)
    model.served["champion"] = two
    pacing = Pacing(
        {"digits": model},
        lambda _, slowness: slow.append(slowness),
        shown,
        ledger,
        clock,
        LatencyRule(),
        WATCH,
    )
    made = Post(model, pacing, engine, clock, shown, slow, clock.now())
    made.answered("1", clock.now() - timedelta(minutes=minutes_before), answers_before, 10.0)
    try:
        yield made
    finally:
        ledger.close()
        engine.dispose()


@story
async def test_slow_champion_is_reported_once_the_version_before_was_quicker_on_the_same_requests(
    home: Path,
) -> None:
    """With the figures of both, before and beside each other; the copies then end."""
    async with post(home) as at:
        await at.suspected()
        at.clock.advance(10.0)
        at.copied(50, 10.0, 79.0)
        await at.pacing.look(at.model)
        [slowness] = at.slow
        assert "p95 of version 2 is 79.6 ms against 9.95 ms of version 1" in str(slowness)
        assert "on the same requests p95 of version 2 is " in str(slowness)
        assert at.shown.controls == ["1", None]


@story
async def test_champion_stays_when_the_version_before_is_as_slow_by_now(home: Path) -> None:
    """The machine is busy, or the requests are heavier."""
    async with post(home) as at:
        await at.suspected()
        at.copied(60, 78.0, 80.0)
        at.clock.advance(10.0)
        await at.pacing.look(at.model)
        assert (at.slow, at.shown.controls) == ([], ["1", None])
        assert "but not on the same requests" in at.said


@story
async def test_champion_stays_when_nothing_could_be_copied(home: Path) -> None:
    """After two minutes no copies are asked for any more."""
    async with post(home) as at:
        await at.suspected()
        at.clock.advance(117.0)
        await at.pacing.look(at.model)
        assert "being confirmed" in at.said
        at.clock.advance(2.0)
        await at.pacing.look(at.model)
        assert (at.slow, at.shown.controls) == ([], ["1", None])
        assert "was not confirmed" in at.said


@story
async def test_latency_is_not_judged_when_the_version_before_answered_too_few(home: Path) -> None:
    """And the watch says so. Answers of an hour ago are no baseline."""
    async with post(home, answers_before=49) as at:
        at.clock.advance(12.0)
        for _ in range(3):
            await at.window(100, 80.0)
        assert at.model.control is None
        assert "latency is not judged: 300 answers of version 2 and 49 of version 1" in at.said


@story
async def test_older_answers_of_the_version_before_count_when_the_last_minutes_had_few(home: Path) -> None:
    """A challenger that had all the traffic at the end of its rollout left the champion none."""
    async with post(home, minutes_before=20) as at:
        await at.suspected()


@story
async def test_quick_champion_is_left_alone(home: Path) -> None:
    """Its first, slow answers included."""
    async with post(home) as at:
        at.answered("2", at.swapped_at + timedelta(seconds=5), 100, 500.0)
        at.clock.advance(12.0)
        for _ in range(3):
            await at.window(100, 10.5)
        assert at.shown.controls == []
        assert at.said.startswith("p95 of version 2 is ")


@story
async def test_copies_end_with_the_watch(home: Path) -> None:
    """What was found last is told on; a newer champion is another watch."""
    async with post(home) as at:
        await at.suspected()
        at.clock.advance(300.0)
        await at.pacing.look(at.model)
        assert at.shown.controls == ["1", None]
        assert at.said
        three = loaded("3")
        at.model.succeed(three, as_served(three, CACHE), None, at.clock.now(), WATCH)
        at.model.served["champion"] = three
        await at.pacing.look(at.model)
        assert at.model.pace is not None
        assert (at.model.pace.version, at.model.pace.slow_windows) == ("3", 0)
