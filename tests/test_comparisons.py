"""Sums of compared answers: by minute, written to the store beside the traffic, nothing counted twice."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine

from serving.comparisons import KEPT_DAYS, Comparisons
from serving.core.clock import ManualClock
from serving.core.comparison import MAX_EXAMPLES, Pair, Role, Tally
from serving.core.datatypes import Array
from serving.ledger import Ledger
from serving.shadow import Copied, Given
from serving.store import comparisons as stored
from serving.store.database import open_engine
from serving.store.journal import Journal
from serving.store.trail import Trail
from serving.telemetry.metrics import Metrics
from tests.logged import counted
from tests.mlflow_double import MlflowDouble
from tests.models import onnx_adder
from tests.station import Station, station
from tests.story import eventually, story
from tests.versions import loaded

PAIR = Pair("digits", "2", "3", Role.CHALLENGER)
WORKER = "serving:here:1"


@dataclass
class Place:
    comparisons: Comparisons
    engine: Engine
    clock: ManualClock
    metrics: Metrics

    async def compare(
        self,
        champion: float,
        other: float,
        *,
        pair: Pair = PAIR,
        request_id: str = "r-1",
        seconds: tuple[float, float] = (0.001, 0.002),
    ) -> None:
        """One pair of answers, as the champion and the other version gave them."""
        sides: list[tuple[Array, float]] = [
            (np.array([value], np.float32), taken)
            for value, taken in zip((champion, other), seconds, strict=True)
        ]
        (given, given_seconds), (copied, copied_seconds) = sides[::-1] if pair.is_control else sides
        answer = Given(loaded("2"), {}, {"y": given}, given_seconds, lambda model: {}, request_id)
        now = self.clock.now()
        await self.comparisons.add(Copied(pair, answer, {"y": copied}, copied_seconds, "", now))

    async def fail(self) -> None:
        answer = Given(loaded("2"), {}, {}, 0.001, lambda model: {}, "r-1")
        now = self.clock.now()
        await self.comparisons.add(Copied(PAIR, answer, None, 0.0, "RuntimeError: broken", now))

    def found(self, minutes: float = 10) -> dict[Pair, Tally]:
        until = self.clock.now() + timedelta(minutes=1)
        return stored.window(self.engine, "digits", until - timedelta(minutes=minutes), until)

    def counted(self, what: str) -> float:
        name = f"signalbox_shadow_{what}_total"
        return counted(self.metrics, name, model="digits", role="challenger")


@asynccontextmanager
async def place(home: Path) -> AsyncIterator[Place]:
    clock, metrics = ManualClock(), Metrics()
    engine = open_engine(f"sqlite:///{home / 'signalbox.db'}")
    ledger = Ledger(engine, Trail(engine, Journal(home / "journal.jsonl"), clock), clock)
    comparisons = Comparisons(ledger, metrics, clock, WORKER)
    try:
        yield Place(comparisons, engine, clock, metrics)
    finally:
        await comparisons.close()
        ledger.close()
        engine.dispose()


@story
async def test_sums_are_in_the_store_after_a_flush(home: Path) -> None:
    """And a second flush of the same minute takes the place of the first."""
    async with place(home) as at:
        await at.compare(1.0, 1.0)
        await at.compare(1.0, 3.0, request_id="r-2")
        await at.comparisons.flush()
        [tally] = at.found().values()
        assert (tally.pairs, tally.disagreeing) == (2, 1)
        await at.compare(1.0, 1.0)
        await at.comparisons.flush()
        await at.comparisons.flush()
        [(pair, tally)] = at.found().items()
        assert (pair, tally.pairs, tally.disagreeing) == (PAIR, 3, 1)
        assert tally.outputs["y"].difference_max == 2.0
        assert [(e.request_id, e.summary) for e in tally.examples] == [
            ("r-2", "y: differs by 2 on average, 2 at most")
        ]
        assert (at.counted("compared"), at.counted("disagreeing")) == (3, 1)


@pytest.mark.parametrize("is_control", [False, True])
@story
async def test_differences_and_times_are_the_champions_and_the_others_whoever_answered(
    home: Path, is_control: bool
) -> None:
    """The direction is part of the key, not of the sums."""
    async with place(home) as at:
        await at.compare(10.0, 14.0, pair=replace(PAIR, is_control=is_control), seconds=(0.001, 0.004))
        await at.comparisons.flush()
        [(pair, tally)] = at.found().items()
        assert pair.is_control is is_control
        assert tally.outputs["y"].champion.median == pytest.approx(10, rel=0.03)
        assert (tally.champion_seconds, tally.other_seconds) == (0.001, 0.004)
        assert stored.both_ways(at.found(), "2", "3", Role.CHALLENGER).pairs == 1
        assert stored.both_ways(at.found(), "2", "3", Role.SHADOW).pairs == 0


@story
async def test_failed_copy_is_counted_beside_the_pairs(home: Path) -> None:
    """It is no pair: nothing was compared."""
    async with place(home) as at:
        await at.fail()
        await at.comparisons.flush()
        [tally] = at.found().values()
        assert (tally.pairs, tally.failed, at.counted("failed")) == (0, 1, 1)
        assert tally.examples[0].summary == "version 3: RuntimeError: broken"


@story
async def test_examples_are_few_however_many_disagree(home: Path) -> None:
    async with place(home) as at:
        for number in range(20):
            await at.compare(1.0, 9.0, request_id=f"r-{number}")
        await at.comparisons.flush()
        [tally] = at.found().values()
        assert (len(tally.examples), at.counted("disagreeing")) == (MAX_EXAMPLES, 20)


@story
async def test_window_counts_whole_minutes_between_its_moments(home: Path) -> None:
    """The minute it begins in, not the one it ends before."""
    async with place(home) as at:
        begin = at.clock.now()
        for _ in range(3):
            await at.compare(1.0, 1.0)
            at.clock.advance(60)
        await at.comparisons.flush()

        def pairs(since_seconds: float, until_seconds: float) -> int:
            since, until = (begin + timedelta(seconds=s) for s in (since_seconds, until_seconds))
            found = stored.window(at.engine, "digits", since, until)
            return sum(tally.pairs for tally in found.values())

        assert [pairs(0, 180), pairs(59, 180), pairs(60, 180), pairs(0, 120), pairs(0, 60)] == [3, 3, 2, 2, 1]
        assert stored.window(at.engine, "other", begin, at.clock.now()) == {}
        assert stored.window(at.engine, "digits", begin, at.clock.now(), other="9") == {}
        assert len(stored.window(at.engine, "digits", begin, at.clock.now(), other="3")) == 1


@story
async def test_nothing_is_lost_or_counted_twice_while_the_store_is_away(home: Path) -> None:
    """What could not be written is written later, whole."""
    store, away = home / "signalbox.db", home / "away.db"
    async with place(home) as at:
        await at.compare(1.0, 1.0)
        await at.comparisons.flush()
        store.rename(away)
        at.engine.dispose()
        store.mkdir()
        await at.compare(1.0, 1.0)
        await at.comparisons.flush()
        at.clock.advance(60)
        await at.compare(1.0, 1.0)
        await at.comparisons.flush()
        store.rmdir()
        away.rename(store)
        await at.comparisons.flush()
        assert sum(tally.pairs for tally in at.found().values()) == 3


@story
async def test_clock_that_steps_back_overwrites_nothing(home: Path) -> None:
    """Minutes let go of before the step stay as they were written."""
    async with place(home) as at:
        for seconds in (300, -300, 0):
            await at.compare(1.0, 1.0)
            await at.comparisons.flush()
            if seconds > 0:
                at.clock.advance(seconds)
            at.clock.step_wall(min(seconds, 0))
        assert sum(tally.pairs for tally in at.found().values()) == 2
        at.clock.step_wall(300)
        assert sum(tally.pairs for tally in at.found().values()) == 3


@story
async def test_old_minutes_are_forgotten(home: Path) -> None:
    """Growth is bounded."""
    async with place(home) as at:
        await at.compare(1.0, 1.0)
        await at.comparisons.flush()
        at.clock.advance(KEPT_DAYS * 86400 + 120)
        await at.comparisons.flush()
        assert at.found(minutes=60 * 24 * 30) == {}


@story
async def test_server_compares_its_shadow_with_its_champion(
    home: Path, double: MlflowDouble, tmp_path: Path
) -> None:
    """From the request to the row in the store, written at the latest when the server stops."""
    double.add("m", *[onnx_adder(tmp_path / "models" / str(n), float(n)) for n in (1, 3)])
    double.point("m", "1")
    double.point("m", "2", "shadow")
    async with station(home, double, shadow_ratio=1.0) as server:
        await server.serves("2", address="shadow")
        await server.serves("1")

        async def compared() -> bool:
            await server.infer(1.0, 2.0, 3.0)
            return await compared_so_far(server) > 0

        await eventually(compared, "copies are compared")
    engine = open_engine(f"sqlite:///{home / 'signalbox.db'}")
    try:
        now = datetime.now(UTC)
        found = stored.window(engine, "m", now - timedelta(minutes=5), now + timedelta(minutes=1))
    finally:
        engine.dispose()
    assert list(found) == [Pair("m", "1", "2", Role.SHADOW)]
    tally = stored.both_ways(found, "1", "2", Role.SHADOW)
    assert tally.outputs["y"].far_elements == 3 * tally.pairs >= 3
    assert tally.outputs["y"].differences.median == pytest.approx(2.0, rel=0.03)
    assert tally.other_seconds > 0 < tally.champion_seconds


async def compared_so_far(server: Station) -> float:
    lines = (await server.http.get("/metrics")).text.splitlines()
    counts = [line.rsplit(" ", 1)[1] for line in lines if line.startswith("signalbox_shadow_compared_total{")]
    return sum(map(float, counts))
