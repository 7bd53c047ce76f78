"""What a promotion works with, and what it asks of those who judge a version."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sqlalchemy import Engine

from flows.rollout.evidence import EvidenceSource
from serving.core.clock import Clock
from serving.store.capture import Wanted, make
from serving.store.guard import Guard
from serving.store.registry import Registry
from serving.store.restore_points import Kind
from serving.store.rollouts import Rollout
from serving.store.text import JsonValue


class Evidence(Protocol):
    """What a validation or a benchmark says of a version."""

    @property
    def passed(self) -> bool: ...

    @property
    def reason(self) -> str: ...

    def as_json(self) -> Mapping[str, JsonValue]: ...


class Ending(Protocol):
    """What it takes to end a rollout: the store, and the registry to tell."""

    @property
    def engine(self) -> Engine: ...

    @property
    def registry(self) -> Registry: ...

    @property
    def guard(self) -> Guard: ...

    @property
    def clock(self) -> Clock: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What a promotion works with. `validate` and `benchmark` judge a rollout's version against the present
    champion; the rollout that `benchmark` is given holds the validation as its evidence. `evidence` is what
    live traffic says of a staged one, `settings` what a restore point keeps of this process's.
    """

    engine: Engine
    registry: Registry
    guard: Guard
    clock: Clock
    validate: Callable[[Rollout, str | None], Evidence]
    benchmark: Callable[[Rollout, str | None], Evidence]
    pause: Callable[[float], object] = time.sleep
    evidence: EvidenceSource | None = None
    settings: Mapping[str, JsonValue] = field(default_factory=dict)


def save_point(parts: Parts, rollout: Rollout) -> dict[str, JsonValue]:
    """The way back of a rollout, written before its first change: what its row keeps of that.

    The point has the rollout's own id, so that a run which was killed after writing it writes no other.
    """
    reason = f"before version {rollout.version} was promoted"
    wanted = Wanted(rollout.id, rollout.model, Kind.AUTOMATIC, reason, rollout.requested_by, parts.settings)
    point = make(parts.engine, parts.registry, wanted, parts.clock.now())
    return {"id": point.id, "champion": point.champion}


def on_record(found: Evidence) -> dict[str, JsonValue]:
    """A judgement as the rollout keeps it."""
    return {**found.as_json(), "passed": found.passed, "reason": found.reason}
