"""Threads that never came back from a model, and versions that are not asked because of it, on `/metrics`."""

from collections.abc import Callable, Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from serving.pool import LoadedVersion


class StuckThreads(Collector):
    """Looks when it is scraped, on the event loop's thread."""

    def __init__(self, versions: Callable[[], list[LoadedVersion]]) -> None:
        self._versions = versions

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return self._families()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        threads, circuits = self._families()
        for version in self._versions():
            labels = (version.ref.model, version.ref.version)
            threads.add_metric(labels, version.breaker.stuck_threads)
            circuits.add_metric(labels, version.breaker.is_open)
        return threads, circuits

    def _families(self) -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        labels = ("model", "version")
        return (
            GaugeMetricFamily("signalbox_stuck_threads", "Threads a model does not return.", labels=labels),
            GaugeMetricFamily(
                "signalbox_circuit_open", "1 while a version is not asked because it is stuck.", labels=labels
            ),
        )
