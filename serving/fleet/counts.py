"""The files in which workers count, for `/metrics`: what a worker counted stays when it has ended.

prometheus_client gives every process files of its own. Those of the dead are joined into one per kind, so
that a server which replaced a thousand workers still reads a handful.
"""

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

from prometheus_client import mmap_dict

from serving.store.durable import exclusive
from serving.telemetry.metrics import COUNTS_LOCK

_JOINED_KINDS = ("counter", "histogram")
_MAX_DEAD_FILES = 8
_Counts: Any = mmap_dict.MmapedDict  # has no types
# No process has this number; files under it hold the counts of all that ended.
_NOBODY = 0


def forget_gauges(folder: Path, pid: int) -> None:
    """Of a process that ended; what it counted stays, what it measured holds no more."""
    for file in folder.glob(f"gauge_*_{pid}.db"):
        file.unlink(missing_ok=True)


def join_dead(folder: Path, living: Collection[int]) -> None:
    """Join the files of processes that ended where they have become many."""
    for kind in _JOINED_KINDS:
        dead = [file for file in folder.glob(f"{kind}_*.db") if _pid(file) not in living]
        if len(dead) > _MAX_DEAD_FILES:
            _join(folder, kind, dead)


def _join(folder: Path, kind: str, dead: Collection[Path]) -> None:
    sums: dict[str, float] = defaultdict(float)
    for file in dead:
        for key, value, _, _ in _Counts.read_all_values_from_file(str(file)):
            sums[key] += value
    joined = folder / f"{kind}.joined"
    joined.unlink(missing_ok=True)
    written = _Counts(str(joined))
    for key, value in sums.items():
        written.write_value(key, value, 0.0)
    written.close()
    with exclusive(folder / COUNTS_LOCK):  # nobody may read both, or neither
        for file in dead:
            file.unlink()
        joined.rename(folder / f"{kind}_{_NOBODY}.db")


def _pid(file: Path) -> int:
    return int(file.stem.rpartition("_")[2])
