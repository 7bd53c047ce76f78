"""Files of the inference log: written whole, removed by age and size."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from serving.core.clock import ManualClock
from serving.core.model import VersionRef
from serving.store.inference_log import parts, read
from serving.telemetry.parts import Keeping
from tests.logged import DIGITS, Record, bundles, floats, part_folder


def _record(clock: ManualClock, ref: VersionRef = DIGITS) -> Record:
    return Record(clock.now(), ref, "r", "champion", "ok", 0.001, {"x": floats(1, 2)}, {}, 1)


def test_part_is_filed_by_model_and_day_when_written(tmp_path: Path) -> None:
    """A model's name is one path component, whatever it holds."""
    clock = ManualClock()
    for model in ("digits", "team/digits v2", "..", ".hidden"):
        part_folder(tmp_path).write(bundles([_record(clock, VersionRef(model, "1"))]))
        assert read(tmp_path, model).num_rows == 1
    assert sorted(path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*.parquet")) == [
        ("%2E.", "2026-01-01"),
        ("%2Ehidden", "2026-01-01"),
        ("digits", "2026-01-01"),
        ("team%2Fdigits%20v2", "2026-01-01"),
    ]


def test_no_file_is_left_when_writing_fails(tmp_path: Path) -> None:
    """A part that could not be put in place leaves nothing behind."""
    clock = ManualClock()
    folder = part_folder(tmp_path)
    taken = tmp_path / "digits" / "2026-01-01"
    (taken / "20260101T000000.000000Z-worker-1-1.parquet").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        folder.write(bundles([_record(clock)]))
    assert [path.name for path in taken.iterdir() if path.is_file()] == []


def test_old_parts_go_when_trimmed(tmp_path: Path) -> None:
    """By the age of their newest row; empty days go with them."""
    clock = ManualClock()
    folder = part_folder(tmp_path, keeping=Keeping(days=7, max_bytes=1 << 30))
    for _ in range(10):
        folder.write(bundles([_record(clock)]))
        clock.advance(timedelta(days=1).total_seconds())
    folder.trim(clock.now())
    assert len(parts(tmp_path)) == 7
    assert sorted(day.name for day in (tmp_path / "digits").iterdir())[0] == "2026-01-04"


def test_oldest_parts_go_when_log_is_too_large(tmp_path: Path) -> None:
    """Over all models, until the rest fits."""
    clock = ManualClock()
    for place in range(6):
        part_folder(tmp_path).write(bundles([_record(clock, VersionRef(f"model{place % 2}", "1"))]))
        clock.advance(1)
    found = parts(tmp_path)
    part_folder(tmp_path, keeping=Keeping(days=7, max_bytes=found[0].size_bytes * 2)).trim(clock.now())
    assert parts(tmp_path) == found[-2:]


def test_abandoned_files_go_when_trimmed(tmp_path: Path) -> None:
    """What a killed process left half written goes after an hour; a file being written stays."""
    day = tmp_path / "digits" / "2026-01-01"
    day.mkdir(parents=True)
    for name, age_seconds in ((".old.parquet.tmp", 7200), (".new.parquet.tmp", 0)):
        (day / name).write_bytes(b"half")
        stamp = (day / name).stat().st_mtime - age_seconds
        os.utime(day / name, (stamp, stamp))
    part_folder(tmp_path).trim(ManualClock().now())
    assert [path.name for path in day.iterdir()] == [".new.parquet.tmp"]
