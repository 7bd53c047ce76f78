"""What a rollback that takes time works with, and how it ends."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Engine

from serving.core.clock import Clock
from serving.store.guard import Guard
from serving.store.registry import Registry
from serving.store.rollbacks import RollbackRecord, State
from serving.store.text import JsonValue


@dataclass(frozen=True, slots=True)
class RetreatParts:
    """`examine` says what is wrong with a target, given the digest that it must have, None where that is not
    known; None where nothing is. `settings` are what a restore point keeps of this process's.
    """

    engine: Engine
    registry: Registry
    guard: Guard
    clock: Clock
    examine: Callable[[RollbackRecord, str | None], str | None]
    pause: Callable[[float], object] = time.sleep
    settings: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ended:
    state: State
    message: str
