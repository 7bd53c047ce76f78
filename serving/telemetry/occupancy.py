"""On `/metrics`: how busy each version is, how many of its threads never came back, whether it is asked."""

from collections.abc import Callable, Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from serving.pool import LoadedVersion


class Occupancy(Collector):
    """Looks when it is scraped, on the event loop's thread."""

    def __init__(self, versions: Callable[[], list[LoadedVersion]]) -> None:
        self._versions = versions

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return self._families()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        uses, threads, circuits = self._families()
        for version in self._versions():
            labels = (version.ref.model, version.ref.version)
            uses.add_metric(labels, version.uses)
            threads.add_metric(labels, version.breaker.stuck_threads)
            circuits.add_metric(labels, version.breaker.is_open)
        return uses, threads, circuits

    def _families(self) -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
        labels = ("model", "version")
        return (
            GaugeMetricFamily("signalbox_requests_in_use", "Requests computed or waiting.", labels=labels),
            GaugeMetricFamily("signalbox_stuck_threads", "Threads a model does not return.", labels=labels),
            GaugeMetricFamily(
                "signalbox_circuit_open", "1 while a version is not asked because it is stuck.", labels=labels
            ),
        )
