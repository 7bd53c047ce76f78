"""The numbers on `/metrics`, created once in the wiring and passed to whoever counts."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from serving.core.model import VersionRef

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


@dataclass(frozen=True, slots=True)
class Tally:
    """Answers of one version that were judged, and how many of them were failures of its own."""

    answers: int = 0
    failures: int = 0

    @property
    def error_ratio(self) -> float | None:
        return self.failures / self.answers if self.answers else None


class Metrics:
    """Counters of one serving process. Thread-safe."""

    def __init__(self) -> None:
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
            "signalbox_registry_stale", "1 while the registry cannot be read.", registry=self.registry
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

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)
