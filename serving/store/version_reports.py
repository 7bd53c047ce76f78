"""The newest reports on each version of a model, and what they say in numbers.

Read by model-info and by the commands that compare versions. A report is believed only of the version
it was made of: one older than the version is about a namesake of a deleted model.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from serving.core.difference import Area, Value, VersionFacts
from serving.core.model import Tag
from serving.store import reports
from serving.store.registry import ModelVersion, Run

DESCRIPTION = "description"
BENCHMARK = "benchmark"
VALIDATION = "validation"
KINDS = (DESCRIPTION, BENCHMARK, VALIDATION)
SCORES = ("accuracy", "precision", "recall", "f1", "mae", "rmse", "r2")
QUANTILES = ("p50", "p90", "p95", "p99", "p999")
_NOT_MEASURED, _DECLARED = "not_measured", "declared"
# MLflow and the flows may run on machines whose clocks differ.
_SKEW = timedelta(minutes=5)
# Tags of our own that restate other areas or tell of one rollout.
_NOT_COMPARED = frozenset(
    (
        Tag.DIGEST,
        Tag.SOURCE_DIGEST,
        Tag.ARCHITECTURE,
        Tag.PARAMETERS,
        Tag.SIZE_BYTES,
        Tag.MEMORY_MB,
        Tag.LATENCY_P50_MS,
        Tag.FORMAT,
        Tag.PRODUCER,
        Tag.REQUIRES,
        Tag.HEALTH,
        Tag.TRAFFIC_PERCENT,
        Tag.ROLLOUT,
        Tag.VERDICT,
    )
)


@dataclass(frozen=True, slots=True)
class VersionReports:
    """Bodies of the newest reports; empty where there is none. A benchmark may be one that was declared,
    and was then made at no time.
    """

    description: Mapping[str, Any] = field(default_factory=dict)
    benchmark: Mapping[str, Any] = field(default_factory=dict)
    validation: Mapping[str, Any] = field(default_factory=dict)
    benchmarked_at: datetime | None = None


def read(engine: Engine, model: str, versions: Sequence[ModelVersion]) -> dict[str, VersionReports]:
    """By version number, with few queries whatever the number of versions."""
    return newest(engine, model, {version.ref.version: version.created_ms for version in versions})


def newest(engine: Engine, model: str, created: Mapping[str, int]) -> dict[str, VersionReports]:
    """The same of versions by number; `created` is when each was made, in milliseconds since 1970."""
    found: dict[str, dict[str, reports.Report]] = {number: {} for number in created}
    for kind in KINDS:
        for number, report in _latest(engine, kind, model, list(created)).items():
            if report.created_at + _SKEW >= datetime.fromtimestamp(created[number] / 1000, UTC):
                found[number][kind] = report
    return {number: _version_reports(kinds) for number, kinds in found.items()}


def _latest(engine: Engine, kind: str, model: str, versions: list[str]) -> dict[str, reports.Report]:
    """Of benchmarks those that measured something, and only without one what was declared."""
    if kind != BENCHMARK:
        return reports.latest_of(engine, kind, model, versions)
    found = reports.latest_of(engine, kind, model, versions, skip=(_NOT_MEASURED, _DECLARED))
    missing = [number for number in versions if number not in found]
    return found | reports.latest_of(engine, kind, model, missing, skip=(_NOT_MEASURED,))


def scores(known: VersionReports) -> dict[str, float]:
    """Results on the evaluation set, by the names in `SCORES`."""
    checks = known.validation.get("checks") or ()
    evidence = next((check.get("evidence") or {} for check in checks if check.get("name") == "accuracy"), {})
    found = {name: _number(evidence.get(name)) for name in SCORES}
    if found["accuracy"] is None and evidence.get("metric") == "accuracy":
        found["accuracy"] = _number(evidence.get("candidate"))
    if found["accuracy"] is None:
        found["accuracy"] = _number(known.benchmark.get("accuracy"))
    return {name: value for name, value in found.items() if value is not None}


def latency_ms(known: VersionReports) -> dict[str, float]:
    """`mean` and the names in `QUANTILES`, in milliseconds of a call with one row."""
    measured = known.benchmark.get("latency_ms") or {}
    found = {name: _number(measured.get(name)) for name in ("mean", *QUANTILES)}
    return {name: value for name, value in found.items() if value is not None}


def measured(known: VersionReports, name: str) -> float | None:
    """A number of the benchmark: `throughput_per_second`, `cpu_ratio`, `memory_mb`, ..."""
    value = known.benchmark.get(name)
    return _number(value.get("resident", value.get("load")) if isinstance(value, Mapping) else value)


def facts_of(version: ModelVersion, run: Run | None, known: VersionReports) -> VersionFacts:
    """All that can be compared of a version."""
    areas: dict[Area, dict[str, Value]] = {}
    if known.description:
        areas |= _described(known.description)
    memory = measured(known, "memory_mb")
    if memory is not None:
        areas.setdefault(Area.SIZE, {})["memory_mb"] = memory
    trained = {f"training {name}": value for name, value in run.metrics.items()} if run else {}
    reached: dict[str, Value] = {**scores(known), **trained}
    if reached:
        areas[Area.METRICS] = reached
    if latency := _latency(known):
        areas[Area.LATENCY] = latency
    if run is not None:
        areas[Area.PARAMETERS] = dict(run.params)
    areas[Area.TAGS] = {key: value for key, value in version.tags.items() if key not in _NOT_COMPARED}
    return VersionFacts(version.ref.version, areas)


def _version_reports(kinds: Mapping[str, reports.Report]) -> VersionReports:
    bodies = {kind: report.body for kind, report in kinds.items()}
    benchmark = kinds.get(BENCHMARK)
    is_measured = benchmark is not None and benchmark.verdict != _DECLARED
    return VersionReports(
        description=bodies.get(DESCRIPTION, {}),
        benchmark=bodies.get(BENCHMARK, {}),
        validation=bodies.get(VALIDATION, {}),
        benchmarked_at=benchmark.created_at if benchmark is not None and is_measured else None,
    )


def _described(body: Mapping[str, Any]) -> dict[Area, dict[str, Value]]:
    file = {"format": body.get("format"), "producer": body.get("producer")}
    file |= {f"opset {domain}": number for domain, number in (body.get("opsets") or {}).items()}
    file |= {f"requires {name}": wanted for name, wanted in (body.get("runtimes") or {}).items()}
    size = {name: body.get(name) for name in ("size_bytes", "parameter_count", "layer_count")}
    return {
        Area.SIGNATURE: dict(_signature(body)),
        Area.FILE: {name: value for name, value in file.items() if value is not None},
        Area.SIZE: {name: value for name, value in size.items() if value is not None},
        Area.OPERATORS: dict(body.get("operators") or {}),
    }


def _signature(body: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    """Free axes as -1: what a file calls them is no part of the contract."""
    for role in ("input", "output"):
        for tensor in body.get(f"{role}s") or ():
            shape = tensor.get("shape")
            dims = None if shape is None else [length if isinstance(length, int) else -1 for length in shape]
            told = "of unknown shape" if dims is None else str(dims)
            yield f"{role} {tensor.get('name')}", f"{tensor.get('datatype')} {told}"


def _latency(known: VersionReports) -> dict[str, Value]:
    found: dict[str, Value] = {f"{name}_ms": value for name, value in latency_ms(known).items()}
    for name in ("throughput_per_second", "first_call_ms", "load_seconds"):
        value = measured(known, name)
        if value is not None:
            found[name] = value
    return found


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
