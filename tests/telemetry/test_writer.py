"""Telemetry on its way to the store: caught up after an outage, bounded meanwhile, coarser with age."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, func, select

from serving.core.clock import ManualClock
from serving.core.model import VersionRef
from serving.store import failures, resources, schema, telemetry
from serving.store.database import open_engine, reading, upgrade
from serving.store.downsampling import Kept
from serving.store.leases import Leases
from serving.telemetry import writer as writing
from serving.telemetry.machine import Machine, gpu_figures
from serving.telemetry.metrics import Metrics
from serving.telemetry.recorder import Recorder
from serving.telemetry.writer import LEASE, TelemetryWriter
from tests.logged import counted
from tests.telemetry.test_recorder import REF, cause
from tests.waiting import until


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path / 'signalbox.db'}"
    upgrade(url)
    engine = open_engine(url)
    yield engine
    engine.dispose()


class Desk:
    """A writer that is turned by hand."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.clock, self.metrics = engine, ManualClock(), Metrics()
        self.began = self.clock.now()
        self.recorder = Recorder(self.metrics, self.clock, worker="w1")
        self.writer = TelemetryWriter(
            self.recorder, engine, Machine(), self.metrics, self.clock, "w1", Kept()
        )

    def answer(self, count: int = 1, *, ref: VersionRef = REF) -> None:
        for _ in range(count):
            self.recorder.answered(ref, "champion", "ok", 0.01, 1, None)

    def turn(self, seconds: float = 1.0) -> None:
        self.clock.advance(seconds)
        self.writer.turn()

    def stored(self) -> int:
        until = self.clock.now() + timedelta(days=1)
        return telemetry.window(self.engine, "digits", "3", None, self.began, until).answered

    def dropped(self, reason: str) -> float:
        return counted(self.metrics, "signalbox_telemetry_dropped_total", reason=reason)


@pytest.fixture
def desk(store: Engine) -> Desk:
    return Desk(store)


class Away:
    """A store whose file is gone from under a server, as with an unmounted disk, until it comes back."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._file = Path(str(engine.url.database))
        engine.dispose()
        self._file.rename(self._file.with_suffix(".away"))

    def comes_back(self) -> None:
        self._engine.dispose()
        for name in ("signalbox.db", "signalbox.db-wal", "signalbox.db-shm"):
            self._file.with_name(name).unlink(missing_ok=True)
        self._file.with_suffix(".away").rename(self._file)


def test_second_is_in_the_store_when_it_is_over(desk: Desk) -> None:
    """With what the worker used."""
    desk.answer(3)
    desk.writer.turn()
    assert desk.stored() == 0
    desk.turn()
    assert desk.stored() == 3
    assert counted(desk.metrics, "signalbox_telemetry_windows_total") == 1
    [figures] = resources.read(desk.engine, desk.began, desk.clock.now(), 60).values()
    assert (figures["rss_bytes"].mean or 0) > 1e6
    assert (figures["threads"].count, "cpu_ratio" in figures) == (1, False)


def test_cause_of_failures_is_in_the_store(desk: Desk) -> None:
    """Counted over turns."""
    for _ in range(2):
        desk.recorder.failed(cause(at=desk.clock.now()), "champion")
        desk.turn()
    [stored] = failures.recent(desk.engine, "digits")
    assert (stored.fingerprint, stored.times) == ("abc", 2)


def test_windows_wait_for_a_store_that_is_away_and_are_all_written(desk: Desk) -> None:
    """It is asked again every few seconds, not at every turn."""
    away = Away(desk.engine)
    desk.answer(2)
    desk.turn()
    assert desk.writer.problem is not None
    desk.answer(3)
    desk.turn()
    away.comes_back()
    desk.turn()
    assert desk.writer.problem is not None
    desk.turn(5)
    problem: str | None = desk.writer.problem
    assert (problem, desk.stored()) == (None, 5)
    assert [desk.dropped(reason) for reason in ("store_away", "failed")] == [0, 0]


def test_oldest_windows_are_dropped_and_counted_when_the_store_stays_away(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded; what is recent is worth more."""
    monkeypatch.setattr(writing, "_MAX_WINDOWS", 3)
    away = Away(desk.engine)
    for _ in range(5):
        desk.answer()
        desk.turn()
    assert desk.dropped("store_away") == 2
    away.comes_back()
    desk.turn(6)
    assert desk.stored() == 3


def test_store_that_cannot_be_written_loses_nothing_else(tmp_path: Path, store: Engine) -> None:
    """A read-only store is one that is away; it is noticed, and passes."""
    readonly = create_engine(f"sqlite:///file:{store.url.database}?mode=ro&uri=true")
    desk = Desk(readonly)
    desk.answer()
    desk.turn()
    assert "readonly" in (desk.writer.problem or "")
    readonly.dispose()


def test_recorder_overflow_is_counted(desk: Desk) -> None:
    """Requests that were not counted at all are told apart from windows that were not written."""
    desk.recorder.dropped = 7
    desk.turn()
    desk.turn()
    assert desk.dropped("buffer_full") == 7


def test_old_windows_become_coarser_by_one_worker_alone(desk: Desk) -> None:
    """Once a minute, by whoever gets the lease; another's is left to it."""
    desk.answer()
    desk.turn()
    elsewhere = Leases(desk.engine, desk.clock).preempt(LEASE, "w2")
    desk.turn(3 * 3600)
    assert steps(desk.engine) == {1}
    Leases(desk.engine, desk.clock).release(elsewhere)
    desk.turn(59)
    assert steps(desk.engine) == {1}
    desk.turn(1)
    assert steps(desk.engine) == {60}
    assert desk.stored() == 1


def test_everything_is_written_when_the_server_stops(store: Engine) -> None:
    """Also of the second that is not over."""
    desk = Desk(store)
    desk.writer.start()
    desk.answer(4)
    desk.writer.close()
    assert desk.stored() == 4
    assert not any(thread.name == "telemetry" for thread in threading.enumerate())


def test_thread_writes_by_itself(store: Engine) -> None:
    """Without anybody's turn."""
    desk = Desk(store)
    desk.writer.start()
    desk.answer(2)
    desk.clock.advance(2)
    until(lambda: desk.stored() == 2, "written by the thread")
    desk.writer.close()


def steps(engine: Engine) -> set[int]:
    column = schema.telemetry.c.step_seconds
    with reading(engine) as connection:
        return set(connection.scalars(select(column).group_by(column).having(func.count() > 0)))


class Nvml:
    """Answers as NVML does for two GPUs."""

    class _Memory:
        used, total = 100, 400

    class _Rates:
        gpu = 30

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> object:
        return self._Memory

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> object:
        return self._Rates


class NoNvml:
    """A GPU that fell off the bus."""

    def nvmlDeviceGetCount(self) -> int:
        raise RuntimeError("Unknown Error")


def test_gpus_are_summed_and_absent_ones_left_out() -> None:
    """Where NVML gives nothing there are no figures, instead of zeros."""
    assert gpu_figures(Nvml()) == {
        "gpu_memory_used_bytes": 200.0,
        "gpu_memory_total_bytes": 800.0,
        "gpu_use_ratio": 0.3,
    }
    assert gpu_figures(NoNvml()) == {}
    assert "gpu_use_ratio" not in Machine(gpus=dict).sample()


def test_machine_tells_its_use_from_the_second_sample_on() -> None:
    """The first says nothing about CPU, which is a rate."""
    machine = Machine(gpus=lambda: {"gpu_use_ratio": 0.5})
    assert "cpu_ratio" not in machine.sample()
    second = machine.sample()
    assert second["cpu_ratio"] >= 0
    assert 0 < second["machine_memory_used_bytes"] < second["machine_memory_total_bytes"]
    assert second["gpu_use_ratio"] == 0.5
