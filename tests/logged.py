"""An inference log as serving writes it, for tests that write, break or read one."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry

from serving.core.clock import Clock, SystemClock
from serving.core.model import VersionRef
from serving.telemetry.columns import Privacy
from serving.telemetry.inference_log import Bounds, InferenceLog, Parts
from serving.telemetry.metrics import Metrics
from serving.telemetry.parts import Keeping, PartFolder
from serving.telemetry.sheaf import Bundle, Sheaf

Array = npt.NDArray[Any]


class Record(NamedTuple):
    """One answered request. `rows` is None where the first axis is no batch: then it is one row."""

    at: datetime
    ref: VersionRef
    request_id: str
    variant: str
    status: str
    latency_seconds: float
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    rows: int | None


ROOMY = Keeping(days=7, max_bytes=1 << 30)
DIGITS = VersionRef("digits", "2")


def part_folder(
    folder: Path, *, keeping: Keeping = ROOMY, privacy: Privacy | None = None, raw_ratio: float = 0.0
) -> PartFolder:
    return PartFolder(
        folder, "worker-1", keeping, privacy or Privacy(), raw_ratio=raw_ratio, chance=Random(7)
    )


def inference_log(
    parts: Parts,
    metrics: Metrics,
    *,
    clock: Clock | None = None,
    sampling_ratio: float = 1.0,
    bounds: Bounds | None = None,
    on_trouble: Callable[[str, str], None] | None = None,
) -> InferenceLog:
    return InferenceLog(
        parts,
        metrics,
        clock or SystemClock(),
        sampling_ratio=sampling_ratio,
        chance=Random(7),
        on_trouble=on_trouble or (lambda model, reason: None),
        bounds=bounds,
    )


def ask(
    log: InferenceLog,
    inputs: Mapping[str, Array],
    outputs: Mapping[str, Array] | None = None,
    *,
    ref: VersionRef = DIGITS,
    request_id: str = "r",
    batch: bool = True,
) -> None:
    """Record one answered request."""
    log.record(ref, request_id, "champion", "ok", 0.002, inputs, outputs or {}, batch)


def bundles(records: Iterable[Record]) -> list[Bundle]:
    """Each record as a bundle of one."""
    made = []
    for record in records:
        sheaf = Sheaf(record.ref, record.variant, record.status, record.rows, record.inputs, record.outputs)
        sheaf.add(
            record.at.timestamp(), record.request_id, record.latency_seconds, record.inputs, record.outputs, 0
        )
        made += [bundle for bundle in (sheaf.take(1000),) if bundle is not None]
    return made


def write_log(
    folder: Path, rows: Mapping[str, Array], *, ref: VersionRef = DIGITS, clock: Clock | None = None
) -> None:
    """Log one request per row of arrays that share their first axis."""
    log = inference_log(part_folder(folder), Metrics(), clock=clock)
    log.start()
    for index in range(len(next(iter(rows.values())))):
        ask(
            log,
            {name: array[index : index + 1] for name, array in rows.items()},
            ref=ref,
            request_id=f"{index:06d}",
        )
    log.close()


def counted(metrics: Metrics, name: str, **labels: str) -> float:
    registry: CollectorRegistry = metrics.registry
    return registry.get_sample_value(name, labels) or 0.0


def dropped(metrics: Metrics) -> dict[str, float]:
    """Dropped rows by reason, without the reasons that dropped none."""
    name = "signalbox_inference_log_dropped_total"
    reasons = ("buffer_full", "disk_full", "failed")
    found = {reason: counted(metrics, name, reason=reason) for reason in reasons}
    return {reason: count for reason, count in found.items() if count}


def floats(*shape: int, seed: int = 7) -> Array:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)
