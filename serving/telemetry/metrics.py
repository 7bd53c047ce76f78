"""The numbers on `/metrics`, created once in the wiring and passed to whoever counts.

Workers of one server count in files of a common folder, which outlive them: each of them tells the sums,
and none of the sums ever falls.
"""

from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from serving.core.model import VersionRef
from serving.store.durable import exclusive

_SECONDS_BUCKETS = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)


# Held while the workers' files are read, and while those of workers that ended are joined.
COUNTS_LOCK = "counts.lock"


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

    def __init__(self, shared: Path | None = None) -> None:
        """`shared` is the workers' folder, which prometheus_client must have found in its environment."""
        self._shared = shared
        self._tallies: dict[VersionRef, Tally] = {}
        self.registry = CollectorRegistry()
        self._series: dict[tuple[VersionRef, str, str], tuple[Counter, Histogram]] = {}
        self._requests = Counter(
            "signalbox_inference_requests",
            "Inference requests by outcome.",
            ("model", "version", "variant", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "signalbox_inference_duration_seconds",
            "Time from routed to answered.",
            ("model", "version"),
            buckets=_SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.swaps = Counter(
            "signalbox_swaps", "Versions swapped in, by alias.", ("model", "alias"), registry=self.registry
        )
        self.refusals = Counter(
            "signalbox_refused_versions",
            "Wanted versions that were refused.",
            ("model",),
            registry=self.registry,
        )
        self.rollbacks = Counter(
            "signalbox_rollbacks", "Rollbacks taken here.", ("model", "strategy"), registry=self.registry
        )
        self.traffic_percent = Gauge(
            "signalbox_traffic_percent",
            "Percent of requests that go to the challenger.",
            ("model",),
            registry=self.registry,
            multiprocess_mode="livemostrecent",
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
            "signalbox_registry_stale",
            "1 while the registry cannot be read.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.resident_bytes = Gauge(
            "signalbox_resident_bytes",
            "Resident memory of the server's processes that answer.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.model_bytes = Gauge(
            "signalbox_model_bytes",
            "Memory that loaded models are known to take.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.log_rows = Counter(
            "signalbox_inference_log_rows", "Rows written to the inference log.", registry=self.registry
        )
        self.log_dropped = Counter(
            "signalbox_inference_log_dropped",
            "Rows missing from the inference log.",
            ("reason",),
            registry=self.registry,
        )

    def answered(self, ref: VersionRef, variant: str, status: str, seconds: float) -> None:
        """Account one request to the version that answered it, or failed to."""
        marks = (ref, variant, status)
        series = self._series.get(marks)
        if series is None:  # finding a series by its labels costs more than counting
            requests = self._requests.labels(ref.model, ref.version, variant, status)
            series = self._series[marks] = (requests, self._seconds.labels(ref.model, ref.version))
        series[0].inc()
        series[1].observe(seconds)

    def judged(self, ref: VersionRef, *, failed: bool) -> None:
        """Count an answer for or against the version that was to give it. For the event loop's thread."""
        tally = self.tally(ref)
        self._tallies[ref] = Tally(tally.answers + 1, tally.failures + failed)

    def tally(self, ref: VersionRef) -> Tally:
        """What this process has counted since it started."""
        return self._tallies.get(ref, Tally())

    def tallies(self) -> dict[VersionRef, Tally]:
        return dict(self._tallies)

    def exposition(self) -> bytes:
        """The Prometheus text format, of the whole server."""
        if self._shared is None:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together, str(self._shared))  # type: ignore[no-untyped-call]
        with exclusive(self._shared / COUNTS_LOCK):
            return generate_latest(together)
