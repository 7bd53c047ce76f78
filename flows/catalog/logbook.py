"""What the measuring process of a benchmark is told, and where it notes what it found.

Written by one process and read by another, so that a process that dies leaves what it had.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from pydantic import TypeAdapter

from flows.catalog.facts import Side, Step
from flows.catalog.limits import BenchmarkPolicy
from flows.catalog.performance import Findings, Performance


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to measure: folders on this machine. `alone` ends it after what the candidate costs."""

    version: str
    root: Path
    threads: int
    policy: BenchmarkPolicy
    deadline_seconds: float
    memory_bytes: int
    digest: str | None = None
    champion_version: str | None = None
    champion_root: Path | None = None
    champion_problem: str | None = None
    evaluation: Path | None = None
    alone: bool = False


TASKS = TypeAdapter(Task)
FINDINGS = TypeAdapter(Findings)


class Logbook:
    """The findings so far; written whole before every step and at the end."""

    def __init__(self, path: Path, deadline_seconds: float) -> None:
        self._path = path
        self._ends = perf_counter() + deadline_seconds
        self.findings = Findings()

    @property
    def left_seconds(self) -> float:
        return self._ends - perf_counter()

    def begin(self, side: Side, doing: str) -> None:
        self.findings = replace(self.findings, step=Step(side, doing))
        self.write()

    def note(self, side: Side, performance: Performance) -> None:
        if side is Side.CANDIDATE:
            self.findings = replace(self.findings, candidate=performance)
        else:
            self.findings = replace(self.findings, champion=performance)

    def of(self, side: Side) -> Performance:
        """What is known of a side, which is noted as soon as it is loaded."""
        found = self.findings.candidate if side is Side.CANDIDATE else self.findings.champion
        assert found is not None
        return found

    def write(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        temporary.write_bytes(FINDINGS.dump_json(self.findings))
        temporary.replace(self._path)
