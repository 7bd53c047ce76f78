"""The results file, by section: one can be measured again, or at another hour, and all are one table."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.row import Row
from serving.store.durable import write_atomically


@dataclass(frozen=True, slots=True)
class Measured:
    """One section as it was measured last. `load` is the machine's, of one minute, at its beginning."""

    began_at: str
    seconds: float
    load: float
    plan: str
    rows: tuple[Row, ...]

    @property
    def is_whole(self) -> bool:
        return all(row.is_measured for row in self.rows)


def moment() -> tuple[str, float]:
    """Now, and how busy the machine is."""
    return datetime.now(UTC).isoformat(timespec="seconds"), os.getloadavg()[0]


def read(path: Path, known: Sequence[str]) -> dict[str, Measured]:
    """What was measured before, of the sections that exist; empty where the file is none of ours."""
    try:
        told: Any = json.loads(path.read_text())["sections"]
        found = {name: _section(entry) for name, entry in told.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {name: found[name] for name in known if name in found}


def write(path: Path, sections: Mapping[str, Measured]) -> None:
    told = {"machine": _machine(), "sections": {name: asdict(section) for name, section in sections.items()}}
    write_atomically(path, (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode())


def _section(entry: Mapping[str, Any]) -> Measured:
    return Measured(**{**entry, "rows": tuple(Row(**row) for row in entry["rows"])})


def _machine() -> dict[str, str]:
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpus": str(len(psutil.Process().cpu_affinity())),
        "memory_gb": f"{psutil.virtual_memory().total / (1 << 30):.1f}",
    }
