"""Reading the inference log back: windows, limits, versions, and parts that differ or are damaged."""

import random
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from serving.core.clock import ManualClock
from serving.core.model import VersionRef
from serving.store.inference_log import logged_models, parts, read, row_columns
from tests.logged import Record, bundles, floats, part_folder


def _write(folder: Path, clock: ManualClock, *, count: int, version: str = "1", width: int = 1) -> None:
    """One part of `count` rows, a second apart, whose only value is the second."""
    records = []
    for _ in range(count):
        x = np.full((1, width), clock.elapsed_seconds, np.float32)
        records.append(
            Record(clock.now(), VersionRef("m", version), "r", "champion", "ok", 0.001, {"x": x}, {}, 1)
        )
        clock.advance(1)
    part_folder(folder).write(bundles(records))


def _seconds(folder: Path, **which: object) -> list[float]:
    table = read(folder, "m", **which)  # type: ignore[arg-type]
    return list(table["x.0"].to_pylist()) if table.num_rows else []


def test_window_holds_its_rows_when_parts_overlap_its_edges(tmp_path: Path) -> None:
    """From `since` on, up to before `until`, oldest first."""
    clock = ManualClock()
    start = clock.now()
    for _ in range(4):
        _write(tmp_path, clock, count=5)
    since, until = start + timedelta(seconds=3), start + timedelta(seconds=12)
    assert _seconds(tmp_path, since=since, until=until) == list(range(3, 12))


@pytest.mark.parametrize(
    ("oldest", "expected"),
    [pytest.param(False, [17, 18, 19], id="newest"), pytest.param(True, [0, 1, 2], id="oldest")],
)
def test_limit_keeps_rows_of_one_end_when_log_is_longer(
    tmp_path: Path, oldest: bool, expected: list[int]
) -> None:
    """The newest, unless the oldest are asked for."""
    clock = ManualClock()
    for _ in range(20):
        _write(tmp_path, clock, count=1)
    assert _seconds(tmp_path, limit=3, oldest=oldest) == expected


def test_limit_looks_further_back_when_newest_parts_hold_other_versions(tmp_path: Path) -> None:
    """Many parts of another version do not hide the rows asked for."""
    clock = ManualClock()
    _write(tmp_path, clock, count=3, version="1")
    for _ in range(80):
        _write(tmp_path, clock, count=1, version="2")
    assert _seconds(tmp_path, version="1", limit=2) == [1, 2]


def test_sample_is_even_and_repeats_when_window_is_larger(tmp_path: Path) -> None:
    """Fewer rows of the same window, the same ones each time."""
    _write(tmp_path, ManualClock(), count=2000)
    chosen = _seconds(tmp_path, limit=2000, sample=100)
    assert len(chosen) == 100
    assert chosen == _seconds(tmp_path, limit=2000, sample=100)
    assert 800 < sum(chosen) / 100 < 1200


def test_missing_columns_are_null_when_parts_differ(tmp_path: Path) -> None:
    """Versions with other shapes share one table."""
    clock = ManualClock()
    _write(tmp_path, clock, count=1, version="1", width=1)
    _write(tmp_path, clock, count=1, version="2", width=2)
    assert read(tmp_path, "m")["x.1"].to_pylist() == [None, 1.0]


def test_damaged_part_is_left_out_when_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The other rows are still there, and the log says that some are not."""
    clock = ManualClock()
    for _ in range(3):
        _write(tmp_path, clock, count=2)
    damaged = parts(tmp_path, "m")[1].path
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert _seconds(tmp_path) == [0, 1, 4, 5]
    assert "log_parts_left_out model=m parts=1" in caplog.text


def test_nothing_is_read_when_nothing_was_logged(tmp_path: Path) -> None:
    """A model, a window or a folder without rows is an empty table, not an error."""
    assert read(tmp_path / "nowhere", "m").num_rows == 0
    assert logged_models(tmp_path / "nowhere") == []
    _write(tmp_path, ManualClock(), count=2)
    assert read(tmp_path, "m", version="9").num_rows == 0
    assert read(tmp_path, "other", limit=5).num_rows == 0
    assert logged_models(tmp_path) == ["m"]


def test_foreign_files_are_ignored_when_listed(tmp_path: Path) -> None:
    """Only names this layout gives are parts."""
    _write(tmp_path, ManualClock(), count=1)
    day = parts(tmp_path, "m")[0].path.parent
    for name in ("notes.txt", "other.parquet", ".20260101T000000.000000Z-w-1.parquet.tmp"):
        (day / name).write_bytes(b"x")
    assert len(parts(tmp_path, "m")) == 1
    assert read(tmp_path, "m").num_rows == 1


def test_columns_agree_with_rows_when_cases_are_random() -> None:
    """Every element has its own column in C order, for any shape up to the limit."""
    chance = random.Random(7)
    for _ in range(50):
        shape = tuple(chance.randint(1, 4) for _ in range(chance.randint(0, 3)))
        rows = floats(3, *shape)
        columns = row_columns("x", rows)
        assert np.array_equal(np.column_stack(list(columns.values())), rows.reshape(3, -1))
