"""What the measuring process is given and what it leaves: a task and a notebook of facts, both files.

Written by `flows.catalog.validate`, read by `flows.catalog.measure`, and the other way round.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from pydantic import TypeAdapter

from flows.catalog.facts import Facts, Side, Stage, Step
from flows.catalog.policy import ValidationPolicy


@dataclass(frozen=True, slots=True)
class Kin:
    """A version that claims to be the candidate in another format, or in `problem` why it is not there."""

    name: str
    root: Path | None
    digest: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """What to measure: folders on this machine. A `*_problem` says why a part of it is not there."""

    version: str
    root: Path
    threads: int
    deadline_seconds: float
    policy: ValidationPolicy
    memory_mb: float = 4096.0
    silence_seconds: float = 12.0
    digest: str | None = None
    model_type: str | None = None
    champion_version: str | None = None
    champion_root: Path | None = None
    champion_problem: str | None = None
    evaluation: Path | None = None
    evaluation_problem: str | None = None
    kin: tuple[Kin, ...] = ()
    logged: Path | None = None
    logged_problem: str | None = None


TASKS = TypeAdapter(Task)
FACTS = TypeAdapter(Facts)


class Notebook:
    """The facts so far; written whole before every step and at the end. Its file's age says when the
    process was last heard of.
    """

    def __init__(self, path: Path, deadline_seconds: float = 60.0) -> None:
        self._path = path
        self._ends_at = perf_counter() + deadline_seconds
        self.facts = Facts()

    @property
    def left_seconds(self) -> float:
        """Time until whoever waits loses patience."""
        return self._ends_at - perf_counter()

    def begin(self, side: Side, doing: str, stage: Stage = Stage.MAIN) -> None:
        step = Step(side, doing, stage)
        if step != self.facts.step:
            self.facts = replace(self.facts, step=step)
            self.write()
        else:
            os.utime(self._path)

    def write(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        temporary.write_bytes(FACTS.dump_json(self.facts))
        temporary.replace(self._path)
