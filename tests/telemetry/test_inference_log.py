"""The inference log under load and trouble: it never waits, it counts what it loses, and it resumes."""

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from serving.core.model import TensorSpec, VersionRef
from serving.store.inference_log import parts, read
from serving.telemetry.inference_log import Bounds, first_axis_is_batch
from serving.telemetry.metrics import Metrics
from serving.telemetry.sheaf import Bundle
from tests.logged import ask, counted, dropped, floats, inference_log, part_folder
from tests.waiting import until

ROOT = Path(__file__).parents[2]
QUICK = Bounds(flush_seconds=0.02)


class Stuck:
    """A disk that takes nothing until it is freed."""

    def __init__(self) -> None:
        self.is_free = threading.Event()
        self.entered = threading.Event()
        self.rows = 0

    def write(self, bundles: Sequence[Bundle]) -> None:
        self.entered.set()
        self.is_free.wait(30)
        self.rows += sum(map(len, bundles))

    def condensed(self, bundle: Bundle) -> Bundle:
        return bundle

    def prepare(self) -> None:
        """Nothing to import."""

    def trim(self, now: datetime) -> None:
        pass


class Failing:
    """Parts that raise as told, once per entry, then take everything."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.rows = 0

    def write(self, bundles: Sequence[Bundle]) -> None:
        if self._errors:
            raise self._errors.pop(0)
        self.rows += sum(map(len, bundles))

    def condensed(self, bundle: Bundle) -> Bundle:
        return bundle

    def prepare(self) -> None:
        """Nothing to import."""

    def trim(self, now: datetime) -> None:
        raise OSError("cannot list")


def test_rows_are_on_disk_when_interval_has_passed(tmp_path: Path) -> None:
    """A part appears by itself, within the flush interval."""
    metrics = Metrics()
    log = inference_log(part_folder(tmp_path), metrics, bounds=QUICK)
    log.start()
    ask(log, {"x": floats(3, 2)})
    until(lambda: parts(tmp_path, "digits"), "a part of the log")
    assert read(tmp_path, "digits").num_rows == 3
    until(lambda: counted(metrics, "signalbox_inference_log_rows_total") == 3, "rows counted")
    log.close()


def test_rows_are_on_disk_when_enough_came_before_the_interval(tmp_path: Path) -> None:
    """A busy server does not wait for the clock."""
    log = inference_log(part_folder(tmp_path), Metrics(), bounds=Bounds(flush_rows=4, flush_seconds=600))
    log.start()
    ask(log, {"x": floats(4, 2)})
    until(lambda: parts(tmp_path, "digits"), "a part of the log")
    log.close()


def test_every_row_is_on_disk_when_closed(tmp_path: Path) -> None:
    """What was accepted before the end is written, in one part per version."""
    log = inference_log(part_folder(tmp_path), Metrics(), bounds=Bounds(flush_seconds=600))
    log.start()
    for version in ("1", "2"):
        for _ in range(10):
            ask(log, {"x": floats(2, 2)}, ref=VersionRef("digits", version))
    log.close()
    assert read(tmp_path, "digits").num_rows == 40
    assert read(tmp_path, "digits", version="1").num_rows == 20


def test_record_never_waits_when_writer_is_stuck() -> None:
    """With a hanging disk, requests go on at full speed; what does not fit is dropped and counted."""
    stuck, metrics = Stuck(), Metrics()
    log = inference_log(stuck, metrics, bounds=Bounds(rows=500, flush_rows=50, flush_seconds=0.01))
    log.start()
    ask(log, {"x": floats(1, 2)})
    assert stuck.entered.wait(10)
    x, slowest = floats(1, 2), 0.0
    for _ in range(2000):
        started = perf_counter()
        ask(log, {"x": x})
        slowest = max(slowest, perf_counter() - started)
    assert slowest < 1.0
    assert dropped(metrics) == {"buffer_full": 1501}
    stuck.is_free.set()
    log.close()
    assert stuck.rows == 500


def test_buffer_is_bounded_in_bytes_when_tensors_are_large() -> None:
    """Few rows of large tensors, or of long text, do not fill the memory."""
    metrics = Metrics()
    log = inference_log(Stuck(), metrics, bounds=Bounds(size_bytes=1 << 20))
    for _ in range(10):
        ask(log, {"x": np.zeros((1, 100_000), np.float32)})
    assert dropped(metrics) == {"buffer_full": 8}
    ask(log, {"x": np.array([["a" * 900_000]], object)})
    assert dropped(metrics) == {"buffer_full": 9}


def test_closing_gives_up_when_writer_is_stuck() -> None:
    """A hanging disk does not hold up the shutdown."""
    stuck = Stuck()
    log = inference_log(stuck, Metrics(), bounds=QUICK)
    log.start()
    ask(log, {"x": floats(1, 1)})
    assert stuck.entered.wait(10)
    log.close(timeout_seconds=0.05)
    stuck.is_free.set()


def test_trouble_is_told_once_when_writes_keep_failing(caplog: pytest.LogCaptureFixture) -> None:
    """One line and one notice per kind of failure, not one per flush; after it, logging goes on."""
    full, told, metrics = OSError(28, "No space left on device"), list[str](), Metrics()
    failing = Failing(full, full, full, ValueError("odd"))
    log = inference_log(
        failing,
        metrics,
        bounds=Bounds(flush_rows=1, flush_seconds=0.01),
        on_trouble=lambda _, why: told.append(why),
    )
    log.start()
    for _ in range(6):
        ask(log, {"x": floats(2, 1)})
    log.close()
    assert dropped(metrics) == {"disk_full": 6, "failed": 2}
    assert told == ["disk_full: [Errno 28] No space left on device", "failed: odd"]
    assert [record.message for record in caplog.records].count("log_resumed model=digits") <= 1
    assert failing.rows == 4


def test_nothing_is_written_when_sampling_is_off(tmp_path: Path) -> None:
    """A ratio of 0 starts no thread and keeps no array."""
    log = inference_log(part_folder(tmp_path), Metrics(), sampling_ratio=0.0)
    log.start()
    ask(log, {"x": floats(1, 1)})
    log.close()
    assert parts(tmp_path) == []


def test_share_of_requests_is_written_when_sampling(tmp_path: Path) -> None:
    """About the given share, whole requests."""
    log = inference_log(part_folder(tmp_path), Metrics(), sampling_ratio=0.3)
    log.start()
    for _ in range(1000):
        ask(log, {"x": floats(1, 1)})
    log.close()
    assert 250 < read(tmp_path, "digits").num_rows < 350


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        pytest.param([(-1, 3)], True, id="variable"),
        pytest.param([(-1, 3), (-1,)], True, id="all variable"),
        pytest.param([(-1, 3), (3,)], False, id="one fixed"),
        pytest.param([(1, 3)], False, id="fixed"),
        pytest.param([()], False, id="scalar"),
        pytest.param([None], False, id="unknown"),
        pytest.param([], False, id="no input"),
    ],
)
def test_first_axis_is_batch_when_specs_say(dims: list[tuple[int, ...] | None], expected: bool) -> None:
    """Only an axis that varies on every input counts rows."""
    specs = tuple(TensorSpec(f"x{place}", "FP32", shape) for place, shape in enumerate(dims))
    assert first_axis_is_batch(specs) is expected


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param({"a": floats(2, 1), "b": floats(3, 1)}, id="unequal batches"),
        pytest.param({"a": np.array(1.0)}, id="scalar where a batch was declared"),
        pytest.param({}, id="no input"),
    ],
)
def test_request_is_one_row_when_batches_disagree(tmp_path: Path, inputs: dict[str, np.ndarray]) -> None:
    """What does not line up as rows is kept as one."""
    log = inference_log(part_folder(tmp_path), Metrics())
    log.start()
    ask(log, inputs)
    log.close()
    assert read(tmp_path, "digits").num_rows == 1


@contextmanager
def _small_disk(folder: Path) -> Iterator[Callable[[], None]]:
    """A disk of one megabyte under `folder`; yields what makes room on it.

    A real file system where this user may mount one, else the system's limit on the size of a file.
    """
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "signalbox-test", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode == 0:
        ballast = folder / "ballast"
        ballast.write_bytes(b"0" * (1 << 20))
        try:
            yield ballast.unlink
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        return
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.skipif(os.name != "posix", reason="needs limits of POSIX")
def test_log_drops_and_resumes_when_disk_is_full(tmp_path: Path) -> None:
    """Rows are lost and counted while there is no room, and written again as soon as there is."""
    folder = tmp_path / "disk"
    folder.mkdir()
    metrics = Metrics()
    with _small_disk(folder) as make_room:
        log = inference_log(part_folder(folder / "log"), metrics, bounds=QUICK)
        log.start()
        ask(log, {"x": floats(5, 64)})
        until(lambda: dropped(metrics), "rows dropped for want of room")
        make_room()
        ask(log, {"x": floats(3, 64)})
        until(lambda: counted(metrics, "signalbox_inference_log_rows_total") == 3, "rows written again")
        log.close()
        assert sum(dropped(metrics).values()) == 5
        assert read(folder / "log", "digits").num_rows == 3
        assert list((folder / "log").rglob("*.tmp")) == []


def test_server_stays_light_when_it_writes_the_log(tmp_path: Path) -> None:
    """Writing loads Arrow, and neither pandas nor DuckDB; starting loads none of them."""
    program = f"""
import sys
from pathlib import Path
from serving.telemetry.metrics import Metrics
from serving.telemetry.sheaf import Bundle
from tests.logged import ask, floats, inference_log, part_folder
heavy = ("pandas", "duckdb", "pyarrow")
before = [name for name in heavy if name in sys.modules]
log = inference_log(part_folder(Path({str(tmp_path)!r})), Metrics())
log.start()
ask(log, {{"x": floats(2, 300)}}, {{"y": floats(2, 3)}})
log.close()
print(before, [name for name in heavy if name in sys.modules])
"""
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.stdout.strip() == "[] ['pyarrow']", run.stderr


def test_every_row_is_on_disk_when_callers_send_many_shapes(tmp_path: Path) -> None:
    """Forms that came once are forgotten, and their rows are not; what comes back is logged again."""
    log = inference_log(part_folder(tmp_path), Metrics(), bounds=QUICK)
    log.start()
    for turn in range(3):
        for rows in range(1, 100):
            ask(log, {"x": floats(rows, 2)}, request_id=f"{turn}-{rows}")
        until(lambda: log.waiting_rows == 0, "everything written")
    log.close()
    assert read(tmp_path, "digits").num_rows == 3 * sum(range(1, 100))
