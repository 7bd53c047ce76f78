"""What the server has answered since it started, in the shape Prometheus reads.

Filled by the recorder a batch at a time, off the request path. Series are bounded: beyond the limit the
one that was quiet for longest goes, as one does when its version is long gone.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from serving.core.datatypes import Array
from serving.core.model import VersionRef

SECONDS_BUCKETS = (
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
ROWS_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
_MAX_SERIES = 512


class Buckets:
    """A histogram whose values come many at a time."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = np.array(bounds)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self.sum = 0.0

    def add(self, values: Array) -> None:
        """Count values, (count,) of any real datatype."""
        places = np.searchsorted(self._bounds, values)
        self._counts += np.bincount(places, minlength=len(self._counts))
        self.sum += float(values.sum())

    def cumulative(self) -> list[tuple[str, float]]:
        """Upper bound and count up to it, as Prometheus has them."""
        names = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        return list(zip(names, self._counts.cumsum().astype(float).tolist(), strict=True))


@dataclass(slots=True)
class Series:
    """One version and variant."""

    statuses: dict[str, int] = field(default_factory=dict)
    faults: int = 0
    seconds: Buckets = field(default_factory=lambda: Buckets(SECONDS_BUCKETS))
    queue: Buckets = field(default_factory=lambda: Buckets(SECONDS_BUCKETS))
    compute: Buckets = field(default_factory=lambda: Buckets(SECONDS_BUCKETS))
    rows: Buckets = field(default_factory=lambda: Buckets(ROWS_BUCKETS))


class Totals:
    """By version and variant. Guarded by the recorder's lock."""

    def __init__(self) -> None:
        self._series: dict[tuple[VersionRef, str], Series] = {}

    def of(self, ref: VersionRef, variant: str) -> Series:
        """The series, which is then the one that was active last."""
        found = self._series.pop((ref, variant), None)
        if found is None:
            found = Series()
            if len(self._series) >= _MAX_SERIES:
                del self._series[next(iter(self._series))]
        self._series[ref, variant] = found
        return found

    def families(self) -> Iterator[Metric]:
        """Everything, for one scrape."""
        series = sorted(self._series.items())
        yield _counter(
            "signalbox_inference_requests",
            "Inference requests by outcome, at the version that answered them or failed to.",
            ("model", "version", "variant", "status"),
            (
                ([ref.model, ref.version, variant, status], count)
                for (ref, variant), each in series
                for status, count in sorted(each.statuses.items())
            ),
        )
        yield _counter(
            "signalbox_inference_faults",
            "Failures of a version's own, also where another version answered in its place.",
            ("model", "version", "variant"),
            (([ref.model, ref.version, variant], each.faults) for (ref, variant), each in series),
        )
        for name, told, choice in (
            ("duration_seconds", "Time from routed to answered.", "seconds"),
            ("queue_seconds", "Time an answered request waited for a thread.", "queue"),
            ("execution_seconds", "Time of one execution, of however many requests.", "compute"),
            ("batch_rows", "Rows answered in one execution.", "rows"),
        ):
            family = HistogramMetricFamily(
                f"signalbox_inference_{name}", told, labels=("model", "version", "variant")
            )
            for (ref, variant), each in series:
                buckets: Buckets = getattr(each, choice)
                family.add_metric([ref.model, ref.version, variant], buckets.cumulative(), buckets.sum)
            yield family


def _counter(
    name: str, told: str, labels: Sequence[str], samples: Iterable[tuple[list[str], int]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, told, labels=labels)
    for values, count in samples:
        family.add_metric(values, count)
    return family
