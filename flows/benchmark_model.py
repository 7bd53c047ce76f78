"""Flow `benchmark-model`: what a version costs, beside the champion; promotes nothing.

Also the benchmark that `promote-model` works with, which is short and takes up a fresh one of the
same files on the same host. Every benchmark becomes the version's baseline, and tells if it got slower.
"""

import getpass
import logging
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from prefect import flow
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.catalog.baseline import Due, baseline, is_due, keep
from flows.catalog.benchmark import Benchmark, run
from flows.catalog.benchmark_report import BenchmarkReport
from flows.catalog.comparison import check_rows, headline, markdown, rows
from flows.catalog.host import this_host
from flows.catalog.limits import BenchmarkPolicy, limits, policy_of
from flows.catalog.plot import latency_plot
from flows.catalog.run_log import leave
from flows.publication import artifact_key
from flows.wiring import Wiring, wired
from serving.core.errors import NotServed, RegistryUnavailable, SignalboxError
from serving.core.model import Alias, VersionRef
from serving.store.rollouts import Rollout

log = logging.getLogger(__name__)

# A parameter given on a command line is a number, one of an event text.
Number = float | int | str | None

# Validation and benchmark of a promotion take no more than a minute together.
_JUDGING_SECONDS = 60.0
_LEAST_SECONDS = 15.0
_PROMOTION = BenchmarkPolicy(seconds=1.5, window_seconds=0.1, max_batch=16)


@flow(name="benchmark-model", flow_run_name="benchmark {model} {version}")
def benchmark_model(
    model: str,
    version: int | str,
    against: int | str = Alias.CHAMPION,
    requested_by: str | None = None,
    max_p95_ms: Number = None,
    min_throughput: Number = None,
    max_memory_mb: Number = None,
    seconds: Number = None,
) -> State[Any]:
    """Measure `version` beside `against` (an alias, a version or `none`) and keep it as its baseline."""
    try:
        given = {
            "max_p95_ms": max_p95_ms,
            "min_throughput": min_throughput,
            "max_memory_mb": max_memory_mb,
            "seconds": seconds,
        }
        policy = policy_of(limits(given))
    except ValueError as error:
        return Failed(name="Refused", message=f"a parameter cannot be used: {error}")
    request = Benchmark(VersionRef(model, str(version).strip()), policy, str(against).strip())
    with wired() as wiring:
        try:
            report = run(request, wiring.settings, wiring.clock, wiring.engine)
            keep(wiring.engine, report, requested_by or f"unverified:{getpass.getuser()}")
            png = latency_plot(report)
            _publish(report, png, _left_in_mlflow(wiring, report, png))
        except NotServed as error:
            return Failed(name="Refused", message=str(error))
        except SignalboxError as error:
            return Failed(name="Unavailable", message=str(error))
    if report.is_approved:
        return Completed(name="Passed", message=headline(report))
    name = "Refused" if report.reasons else "NotMeasured"
    return Failed(name=name, message=f"{headline(report)}: {report.reason}")


def benchmarker(wiring: Wiring) -> Callable[[Rollout, str | None], BenchmarkReport]:
    """Judges what a rollout's version costs under the rollout's own limits, and keeps the report."""

    def benchmark(rollout: Rollout, champion: str | None) -> BenchmarkReport:
        validation = rollout.evidence or {}
        left_seconds = _JUDGING_SECONDS - float(validation.get("seconds", 0.0))
        usual = replace(_PROMOTION, deadline_seconds=max(_LEAST_SECONDS, left_seconds))
        policy = policy_of(rollout.policy, usual)
        fresh = _fresh(wiring, rollout, champion, validation.get("digest"))
        if fresh is not None:
            return fresh.judged_by(policy)
        ref = VersionRef(rollout.model, rollout.version)
        # The promotion waits for nobody: beside another benchmark the ratio holds too.
        request = Benchmark(ref, policy, champion or "none", patience_seconds=0.0)
        report = run(request, wiring.settings, wiring.clock, wiring.engine)
        keep(wiring.engine, report, rollout.requested_by)
        _left_in_mlflow(wiring, report, None)
        return report

    return benchmark


def _fresh(
    wiring: Wiring, rollout: Rollout, champion: str | None, digest: str | None
) -> BenchmarkReport | None:
    """A benchmark of the same files, on this host, beside the same champion, that needs no repeating."""
    host_id = this_host().id
    known = baseline(wiring.engine, rollout.model, rollout.version, host_id)
    if known is None or is_due(known, host_id, wiring.clock.now()) is not Due.NO:
        return None
    report = known.report()
    if report is None or known.digest is None or known.digest != digest:
        return None
    beside = report.champion
    is_compared = champion is None or (beside is not None and beside.version == champion and report.ratios)
    return report if is_compared else None


def _left_in_mlflow(wiring: Wiring, report: BenchmarkReport, png: bytes | None) -> str | None:
    """Where a browser sees the plot; MLflow being away costs the record there and nothing else."""
    try:
        return leave(wiring.client, wiring.registry, report, png)
    except (RegistryUnavailable, NotServed) as error:
        log.warning("benchmark_not_in_mlflow model=%s reason=%s", report.model, error)
        return None


def _publish(report: BenchmarkReport, png: bytes | None, url: str | None) -> None:
    key = artifact_key("benchmark", report.model)
    said = headline(report)
    create_markdown_artifact(key=key, markdown=markdown(report, url), description=said)
    create_table_artifact(key=f"{key}-figures", table=rows(report), description=said)
    create_table_artifact(key=f"{key}-checks", table=check_rows(report), description="benchmark")
    if png is not None:
        create_image_artifact(key=f"{key}-latency", image_url=url or _inline(png), description=said)


def _inline(png: bytes) -> str:
    """The picture itself as its address, where no run of MLflow could take it."""
    return f"data:image/png;base64,{b64encode(png).decode()}"
