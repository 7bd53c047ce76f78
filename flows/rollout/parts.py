"""What a promotion works with, and what it asks of those who judge a version."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Engine

from serving.core.clock import Clock
from serving.store.guard import Guard
from serving.store.registry import Registry
from serving.store.rollouts import Rollout
from serving.store.text import JsonValue


class Evidence(Protocol):
    """What a validation or a benchmark says of a version."""

    @property
    def passed(self) -> bool: ...

    @property
    def reason(self) -> str: ...

    def as_json(self) -> Mapping[str, JsonValue]: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What a promotion works with. `validate` and `benchmark` judge a rollout's version against the present
    champion; the rollout that `benchmark` is given holds the validation as its evidence.
    """

    engine: Engine
    registry: Registry
    guard: Guard
    clock: Clock
    validate: Callable[[Rollout, str | None], Evidence]
    benchmark: Callable[[Rollout, str | None], Evidence]
    pause: Callable[[float], object] = time.sleep


def on_record(found: Evidence) -> dict[str, JsonValue]:
    """A judgement as the rollout keeps it."""
    return {**found.as_json(), "passed": found.passed, "reason": found.reason}
