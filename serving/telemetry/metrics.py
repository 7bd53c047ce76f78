"""The numbers on `/metrics`, created once in the wiring and passed to whoever counts.

Requests are counted by the recorder, which adds its own families to `registry`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

from serving.core.model import VersionRef

_SECONDS_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_AGE_BUCKETS = (1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0)
_MAX_TALLIES = 1024


@dataclass(frozen=True, slots=True)
class Tally:
    """Answers of one version that were judged, and how many of them were failures of its own."""

    answers: int = 0
    failures: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.answers + other.answers, self.failures + other.failures)

    @property
    def error_ratio(self) -> float | None:
        return self.failures / self.answers if self.answers else None


class Metrics:
    """Counters of one serving process. Thread-safe."""

    def __init__(self) -> None:
        # Answers and failures; counted in place, because every request comes by.
        self._tallies: dict[VersionRef, list[int]] = {}
        self._judged: tuple[VersionRef | None, list[int]] = (None, [])
        self._before_scrape: list[Callable[[], None]] = []
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.swaps = Counter(
            "signalbox_swaps", "Versions swapped in, by alias.", ("model", "alias"), registry=registry
        )
        self.swap_seconds = Histogram(
            "signalbox_swap_seconds",
            "Time from when a new champion was first seen in the registry to its first answer.",
            ("model",),
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        self.load_seconds = Histogram(
            "signalbox_load_seconds",
            "Time to fetch, verify, load and test a version.",
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        self.refusals = Counter(
            "signalbox_refused_versions",
            "Wanted versions that were refused.",
            ("model",),
            registry=registry,
        )
        self.rollbacks = Counter(
            "signalbox_rollbacks", "Rollbacks taken here.", ("model", "strategy"), registry=registry
        )
        self.traffic_percent = Gauge(
            "signalbox_traffic_percent",
            "Percent of requests that go to the challenger.",
            ("model",),
            registry=self.registry,
        )
        self.ejections = Counter(
            "signalbox_ejections", "Challengers ejected here.", ("model",), registry=self.registry
        )
        self.shadow_compared = Counter(
            "signalbox_shadow_compared",
            "Answers compared with another version's.",
            ("model", "role"),
            registry=self.registry,
        )
        self.shadow_disagreeing = Counter(
            "signalbox_shadow_disagreeing",
            "Compared answers that disagreed.",
            ("model", "role"),
            registry=self.registry,
        )
        self.shadow_failed = Counter(
            "signalbox_shadow_failed",
            "Copied requests that their version did not answer.",
            ("model", "role"),
            registry=self.registry,
        )
        self.shadow_dropped = Counter(
            "signalbox_shadow_dropped",
            "Sampled requests that were not copied.",
            ("model", "reason"),
            registry=self.registry,
        )
        self.registry_stale = Gauge(
            "signalbox_registry_stale", "1 while the registry cannot be read.", registry=registry
        )
        self.registry_age = Gauge(
            "signalbox_registry_age_seconds",
            "Time since the registry was last read; NaN before the first time.",
            registry=registry,
        )
        self._declare_memory(registry)
        self._declare_recording(registry)

    def _declare_memory(self, registry: CollectorRegistry) -> None:
        self.memory_budget = Gauge(
            "signalbox_memory_budget_bytes", "Memory that loaded models may take.", registry=registry
        )
        self.memory_held = Gauge(
            "signalbox_memory_held_bytes",
            "Memory that models hold, that is promised to one, or that is being freed.",
            registry=registry,
        )
        self.models_loaded = Gauge(
            "signalbox_versions_loaded", "Versions in memory, those asleep left out.", registry=registry
        )
        self.evictions = Counter(
            "signalbox_evictions", "Versions sent to sleep to save memory.", ("model",), registry=registry
        )
        self.eviction_age = Histogram(
            "signalbox_eviction_age_seconds",
            "Time since a version was last used when it was sent to sleep.",
            buckets=_AGE_BUCKETS,
            registry=registry,
        )
        self.waiting = Gauge(
            "signalbox_queue_requests",
            "Requests that wait for a thread of the model.",
            ("model",),
            registry=registry,
        )
        self.in_use = Gauge(
            "signalbox_requests_in_flight",
            "Requests that wait or are being computed.",
            ("model",),
            registry=registry,
        )

    def _declare_recording(self, registry: CollectorRegistry) -> None:
        self.log_rows = Counter(
            "signalbox_inference_log_rows", "Rows written to the inference log.", registry=registry
        )
        self.log_dropped = Counter(
            "signalbox_inference_log_dropped",
            "Rows missing from the inference log.",
            ("reason",),
            registry=registry,
        )
        self.telemetry_windows = Counter(
            "signalbox_telemetry_windows", "Windows of telemetry written to the store.", registry=registry
        )
        self.telemetry_dropped = Counter(
            "signalbox_telemetry_dropped",
            "Windows missing from the store; with reason buffer_full, requests that were not counted at all.",
            ("reason",),
            registry=registry,
        )
        self.telemetry_waiting = Gauge(
            "signalbox_telemetry_waiting_windows",
            "Windows that wait for a store that does not take them.",
            registry=registry,
        )
        self.labels = Counter(
            "signalbox_feedback_labels",
            "Labels by what became of them.",
            ("outcome",),
            registry=registry,
        )
        self.labels_waiting = Gauge(
            "signalbox_feedback_waiting_labels",
            "Labels whose answer is not in the inference log yet.",
            registry=registry,
        )

    def judged(self, ref: VersionRef, *, failed: bool) -> None:
        """Count an answer for or against the version that was to give it. For the event loop's thread."""
        if self._judged[0] is not ref:  # looked up by name, which takes longer than the rest
            found = self._tallies.get(ref)
            if found is None:
                if len(self._tallies) >= _MAX_TALLIES:
                    del self._tallies[next(iter(self._tallies))]
                found = self._tallies[ref] = [0, 0]
            self._judged = (ref, found)
        tally = self._judged[1]
        tally[0] += 1
        tally[1] += failed

    def tally(self, ref: VersionRef) -> Tally:
        """What this process has counted since it started."""
        return Tally(*self._tallies.get(ref, ()))

    def tallies(self) -> dict[VersionRef, Tally]:
        return {ref: Tally(*counts) for ref, counts in self._tallies.items()}

    def ask_before_scrape(self, look: Callable[[], None]) -> None:
        """Have `look` set gauges just before each scrape, on the event loop's thread."""
        self._before_scrape.append(look)

    def look(self) -> None:
        """Bring the gauges up to date. For the event loop's thread."""
        for look in self._before_scrape:
            look()

    def exposition(self) -> bytes:
        """The Prometheus text format. Takes milliseconds with many series, so not for the event loop."""
        return generate_latest(self.registry)
