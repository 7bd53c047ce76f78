"""What is asked of the examining process, and what it answers: records alone, cheap to import.

Written by `flows.catalog.examine` in that process, read by whoever registers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from serving.formats.limits import FileLimits
from serving.formats.told import Told


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to examine and where to lay it out. Paths are on this machine; `told` is from the side file."""

    source: Path
    root: Path
    threads: int
    limits: FileLimits
    evaluation: Path | None = None
    example: Path | None = None
    told: Told = field(default_factory=Told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What came of it. `members` are the weight files that belong to the file, also of a refused one.

    `digest` is of the folder as it will be registered, `source_digest` of the bytes that were read.
    """

    problem: str | None = None
    next_step: str = ""
    lacked_memory: bool = False
    members: tuple[str, ...] = ()
    format: str | None = None
    source_digest: str | None = None
    digest: str | None = None
    description: Mapping[str, Any] = field(default_factory=dict)
    golden: str | None = None
    self_test: str | None = None
    load_seconds: float = 0.0
    call_ms: float = 0.0
    grown_bytes: int = 0
    notes: tuple[str, ...] = ()


class Cut(StrEnum):
    """The limit at which a child was ended."""

    TIME = "time"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Order:
    task: Path
    result: Path
    suffix: str
    deadline_seconds: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended; `exit_code` is negative for a signal."""

    exit_code: int
    cut: Cut | None
    peak_bytes: int


TASKS = TypeAdapter(Task)
EXAMINED = TypeAdapter(Examined)
ORDERS = TypeAdapter(Order)
ENDINGS = TypeAdapter(Ending)
