"""Present values for `/metrics`, read from the parts that own them just before a scrape."""

from collections.abc import Callable

from serving.core.clock import Clock
from serving.follower import Follower
from serving.memory import Memory
from serving.pool import LoadedVersion
from serving.telemetry.metrics import Metrics


class Gauges:
    """Confined to the event loop's thread, like what it reads."""

    def __init__(self, metrics: Metrics, memory: Memory, follower: Follower, clock: Clock) -> None:
        self._metrics = metrics
        self._memory = memory
        self._follower = follower
        self._clock = clock
        metrics.memory_budget.set(memory.limits.budget_bytes)

    def look(self) -> None:
        """Set every gauge."""
        metrics, versions = self._metrics, self._memory.all()
        metrics.memory_held.set(self._memory.held_bytes())
        metrics.models_loaded.set(sum(version.is_awake for version in versions))
        metrics.waiting.clear()
        metrics.in_use.clear()
        for version in versions:
            metrics.waiting.labels(version.ref.model).inc(version.waiting)
            metrics.in_use.labels(version.ref.model).inc(version.uses)
        read_at = self._follower.registry_read_at
        age = float("nan") if read_at is None else (self._clock.now() - read_at).total_seconds()
        metrics.registry_age.set(age)


def evicted(
    metrics: Metrics, note: Callable[[LoadedVersion], None]
) -> Callable[[LoadedVersion, float], None]:
    """What to do with a version that was sent to sleep: count it, then `note` it."""

    def count(version: LoadedVersion, unused_seconds: float) -> None:
        metrics.evictions.labels(version.ref.model).inc()
        metrics.eviction_age.observe(unused_seconds)
        note(version)

    return count
