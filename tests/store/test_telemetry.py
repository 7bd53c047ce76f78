"""Windows in the store: counted once, read over any span, and coarser with age without losing a request."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, func, select

from serving.core.clock import ManualClock
from serving.core.errors import ChangeRefused
from serving.core.model import VersionRef
from serving.core.scored import Scored
from serving.core.sketch import Moments, Sketch
from serving.core.window import NOTHING, WindowStats, combined
from serving.store import resources, schema, telemetry
from serving.store.database import reading, writing
from serving.store.downsampling import Kept, downsample
from serving.store.leases import Lease, Leases
from serving.store.resources import Usage
from serving.store.telemetry import EVERYBODY, HOUR, MINUTE, SECOND, Window, second_of

REF = VersionRef("digits", "3")
START = second_of(datetime(2026, 1, 1, tzinfo=UTC))


def stats(ok: int = 1, seconds: float = 0.01, faults: int = 0) -> WindowStats:
    times = np.full(ok, seconds)
    return WindowStats(
        statuses={"ok": ok},
        rows=ok,
        faults=faults,
        latency=Sketch.of(times),
        queue=Moments.of(np.ones(ok)),
        compute=Moments.of(np.ones(ok)),
    )


def window(start: int, given: WindowStats, *, variant: str = "champion", worker: str = "w1") -> Window:
    return Window(ref=REF, variant=variant, worker=worker, step_seconds=SECOND, start=start, stats=given)


def at(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def read(engine: Engine, since: int, until: int, variant: str | None = None) -> WindowStats:
    return telemetry.window(engine, "digits", "3", variant, at(since), at(until))


def steps(engine: Engine) -> dict[int, int]:
    column = schema.telemetry.c.step_seconds
    with reading(engine) as connection:
        rows = connection.execute(select(column, func.count()).group_by(column))
        return {row[0]: row[1] for row in rows}


@pytest.fixture
def lease(engine: Engine, clock: ManualClock) -> Lease:
    lease = Leases(engine, clock).acquire("telemetry", "w1")
    assert isinstance(lease, Lease)
    return lease


def test_window_is_the_sum_of_its_seconds_and_workers(engine: Engine) -> None:
    """Of both ends, the first belongs to it."""
    telemetry.write(engine, [window(START + n, stats(n + 1)) for n in range(5)])
    telemetry.write(engine, [window(START + 1, stats(10), worker="w2")])
    assert read(engine, START + 1, START + 3).answered == 2 + 3 + 10
    assert read(engine, START, START + 5).latency.count == 25
    assert read(engine, START + 5, START + 9) == NOTHING


def test_variants_are_read_apart_and_probes_only_by_name(engine: Engine) -> None:
    """Requests of our own making are no traffic."""
    given = [window(START, stats(n), variant=v) for n, v in ((1, "champion"), (2, "direct"), (4, "probe"))]
    telemetry.write(engine, given)
    assert read(engine, START, START + 1).answered == 3
    assert read(engine, START, START + 1, "direct").answered == 2
    assert read(engine, START, START + 1, "probe").answered == 4
    found = telemetry.by_variant(engine, "digits", at(START), at(START + 1))
    assert {key: each.answered for key, each in found.items()} == {("3", "champion"): 1, ("3", "direct"): 2}


def test_repeated_write_counts_once_and_other_content_is_added(engine: Engine) -> None:
    """A retry whose first try went through after all; a clock that stepped back over the same second."""
    first = [window(START, stats(3))]
    telemetry.write(engine, first)
    telemetry.write(engine, first)
    assert read(engine, START, START + 1).answered == 3
    telemetry.write(engine, [window(START, stats(4))])
    assert read(engine, START, START + 1).answered == 7


def test_series_has_a_point_per_span_in_which_something_happened(engine: Engine) -> None:
    """Ascending, at each span's beginning."""
    telemetry.write(engine, [window(START + n, stats(1)) for n in (0, 1, 59, 125)])
    points = telemetry.series(engine, "digits", None, None, at(START), at(START + 300), MINUTE)
    assert [(point.at, point.stats.answered) for point in points] == [
        (at(START), 3),
        (at(START + 120), 1),
    ]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 7199), st.integers(1, 3)), min_size=1, max_size=25))
def test_reading_gives_the_same_when_seconds_have_become_minutes_and_hours(
    sqlite_engine: Engine, given: list[tuple[int, int]]
) -> None:
    """The merge law: what is read of a whole hour does not depend on how coarse its rows are by now."""
    engine = sqlite_engine
    with writing(engine) as connection:
        for table in (schema.telemetry, schema.leases):
            connection.execute(delete(table))
    lease = Leases(engine, ManualClock()).acquire("telemetry", "w1")
    assert isinstance(lease, Lease)
    for second, ok in given:
        worker = f"w{ok}"
        with writing(engine) as connection:
            telemetry.add(connection, window(START + second, stats(ok, ok / 100), worker=worker))
    fine = [read(engine, START + n * HOUR, START + (n + 1) * HOUR) for n in (0, 1)]
    assert sum(each.answered for each in fine) == sum(ok for _, ok in given)
    downsample(engine, lease, Kept(), at(START) + timedelta(hours=5))
    minutes = [read(engine, START + n * HOUR, START + (n + 1) * HOUR) for n in (0, 1)]
    assert set(steps(engine)) == {MINUTE}
    downsample(engine, lease, Kept(), at(START) + timedelta(days=3))
    hours = [read(engine, START + n * HOUR, START + (n + 1) * HOUR) for n in (0, 1)]
    assert set(steps(engine)) == {HOUR}
    assert fine == minutes == hours


def test_recent_seconds_stay_when_older_ones_become_a_minute(engine: Engine, lease: Lease) -> None:
    """Only whole minutes, at their age; the sum of all workers takes their place."""
    telemetry.write(engine, [window(START + n, stats(1), worker=f"w{n % 2}") for n in range(130)])
    downsample(engine, lease, Kept(), at(START) + timedelta(hours=2, seconds=119))
    assert steps(engine) == {MINUTE: 1, SECOND: 70}
    downsample(engine, lease, Kept(), at(START) + timedelta(hours=2, seconds=120))
    assert steps(engine) == {MINUTE: 2, SECOND: 10}
    with reading(engine) as connection:
        rows = connection.execute(select(schema.telemetry).where(schema.telemetry.c.step_seconds == MINUTE))
        assert {(row.worker, row.requests, row.answered_rows) for row in rows} == {(EVERYBODY, 60, 60)}


def test_late_seconds_are_added_to_a_minute_that_was_made(engine: Engine, lease: Lease) -> None:
    """A worker may catch up hours later."""
    later = at(START) + timedelta(hours=3)
    telemetry.write(engine, [window(START, stats(1))])
    downsample(engine, lease, Kept(), later)
    telemetry.write(engine, [window(START + 1, stats(2), worker="w2")])
    downsample(engine, lease, Kept(), later)
    assert steps(engine) == {MINUTE: 1}
    assert read(engine, START, START + 60).answered == 3


def test_one_pass_is_bounded_and_the_next_goes_on(engine: Engine, lease: Lease) -> None:
    """After days without a pass the store is not held up by one that makes up for all of it."""
    telemetry.write(engine, [window(START + n, stats(1)) for n in range(700)])
    later = at(START) + timedelta(hours=3)
    assert 0 < downsample(engine, lease, Kept(), later, max_rows=300) < 700
    assert read(engine, START, START + 700).answered == 700
    while downsample(engine, lease, Kept(), later, max_rows=300):
        assert read(engine, START, START + 700).answered == 700
    assert steps(engine) == {MINUTE: 12}


def test_old_hours_are_forgotten(engine: Engine, lease: Lease) -> None:
    """At the age that is set, and not before."""
    telemetry.write(engine, [window(START, stats(1))])
    downsample(engine, lease, Kept(), at(START) + timedelta(days=90))
    assert steps(engine) == {HOUR: 1}
    downsample(engine, lease, Kept(), at(START) + timedelta(days=90, seconds=1))
    assert steps(engine) == {}


def test_nothing_is_done_when_the_lease_is_lost(engine: Engine, lease: Lease, clock: ManualClock) -> None:
    """Two who fold the same rows would count them twice."""
    telemetry.write(engine, [window(START, stats(1))])
    Leases(engine, clock).preempt("telemetry", "w2")
    with pytest.raises(ChangeRefused):
        downsample(engine, lease, Kept(), at(START) + timedelta(hours=3))
    assert steps(engine) == {SECOND: 1}


def test_live_tells_labels_beside_all_answered_rows(engine: Engine) -> None:
    """By version; a version without labels has answers and no accuracy."""
    labels = WindowStats(scored=Scored(classified=4, right=3))
    telemetry.write(engine, [window(START + n, stats(5)) for n in range(4)])
    with writing(engine) as connection:
        telemetry.add(connection, window(START, labels, worker="labels"))
        telemetry.add(connection, window(START, labels, worker="labels"))
    found = telemetry.live(engine, "digits", at(START), at(START + 60))["3"]
    assert (found.stats.scored.labelled, found.stats.scored.accuracy) == (8, 0.75)
    assert (found.answered_rows, found.coverage) == (20, 0.4)
    assert telemetry.live(engine, "digits", at(START + 60), at(START + 90)) == {}


def test_resources_are_summed_per_span(engine: Engine, lease: Lease) -> None:
    """By figure, of one worker or all, also once their rows are coarser."""

    def usage(worker: str, second: int, value: float) -> Usage:
        return Usage(worker, SECOND, START + second, {"rss_bytes": Moments.of(np.array([value]))})

    resources.write(engine, [usage("w1", 0, 100), usage("w1", 10, 300), usage("w2", 0, 50)])
    resources.write(engine, [usage("w1", 0, 100)])

    def mean(worker: str | None) -> float | None:
        [figures] = resources.read(engine, at(START), at(START + 60), MINUTE, worker).values()
        return figures["rss_bytes"].mean

    assert (mean("w1"), mean("w2"), mean(None)) == (200, 50, 150)
    downsample(engine, lease, Kept(), at(START) + timedelta(hours=3))
    assert (mean("w1"), mean("w2"), mean(None)) == (200, 50, 150)


def test_parts_of_a_minute_are_the_minute() -> None:
    """The same law without a store."""
    seconds = [window(START + n, stats(n + 1, (n + 1) / 1000)) for n in range(60)]
    [minute] = telemetry.merged(seconds, MINUTE)
    assert minute.stats == combined(each.stats for each in seconds)
    assert (minute.start, minute.step_seconds, minute.worker) == (START, MINUTE, EVERYBODY)
