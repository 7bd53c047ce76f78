"""A request whose version took alias `challenger` from one that is still being promoted.

The older rollout sees that at its next look and ends; the newer request waits for it, instead of leaving
its version to the minutely flow.
"""

import time
from collections.abc import Callable

from sqlalchemy import Engine

from flows.rollout.outcome import Outcome, Verdict
from flows.rollout.promotion import Asked, record
from serving.core.clock import Clock
from serving.core.model import Alias
from serving.store.registry import Registry
from serving.store.rollouts import Entry

# A validation and a benchmark that are under way are let finish.
PATIENCE_SECONDS = 90.0
_LOOK_SECONDS = 1.0


def recorded(
    engine: Engine,
    registry: Registry,
    asked: Asked,
    clock: Clock,
    pause: Callable[[float], object] = time.sleep,
) -> Entry | Outcome:
    """`record`, once a rollout that it supersedes has ended. Raises `RegistryUnavailable`."""
    deadline = clock.monotonic() + PATIENCE_SECONDS
    while True:
        entry = record(engine, registry, asked, clock)
        if not _supersedes(entry, registry, asked) or clock.monotonic() >= deadline:
            return entry
        pause(_LOOK_SECONDS)


def _supersedes(entry: Entry | Outcome, registry: Registry, asked: Asked) -> bool:
    """Whether the one in the way is of a version that lost the alias to this one."""
    if isinstance(entry, Entry) or entry.verdict is not Verdict.BUSY or entry.rollout is None:
        return False
    named = registry.alias(asked.model, Alias.CHALLENGER)
    is_ours = named is not None and asked.version in (named, None)
    return is_ours and entry.rollout.version != named
