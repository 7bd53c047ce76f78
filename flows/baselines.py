"""Benchmarks that are due: champions whose baseline is missing, old, or of another host. Called by `tend`.

One is started at a time, at most once a day for each version and host, so that neither a version that
cannot be measured nor a machine that is never quiet costs more than that. A champion that has just
come is left alone: it is being watched, and what it costs was measured if it was promoted here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.deployments import run_deployment

from flows.catalog.baseline import KIND, Due, baseline, is_due
from flows.catalog.benchmark_report import DECLARED
from flows.catalog.host import this_host
from flows.wiring import Wiring
from serving.core.model import Alias, VersionRef
from serving.store import changes, reports, rollouts
from serving.store.registry import RegisteredModel

SETTLED_AFTER = timedelta(minutes=10)
TRY_AGAIN_AFTER = timedelta(days=1)
_NAME = "benchmark-model"
# Long enough for figures, short enough for a machine that has other things to do.
_SECONDS = 6.0
_UNDER_WAY = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING]


@dataclass(frozen=True, slots=True)
class Orders:
    """Whether a benchmark is under way, and starting one: False where the key has had its run before."""

    is_busy: Callable[[], bool]
    start: Callable[[VersionRef, str], bool]


def kept_fresh(wiring: Wiring, orders: Orders | None = None) -> list[str]:
    """Start the first benchmark that is due; one sentence if one was. Raises `RegistryUnavailable`."""
    orders = orders or Orders(_is_busy, _start)
    host_id, now = this_host().id, wiring.clock.now()
    for model in _settled(wiring, now):
        ref = VersionRef(model.name, model.aliases[Alias.CHAMPION])
        why = is_due(baseline(wiring.engine, ref.model, ref.version, host_id), host_id, now)
        if why is Due.NO or _was_tried(wiring, ref, now):
            continue
        if orders.is_busy():
            return []
        # A number of a model that was deleted and made again is another version.
        key = f"benchmark:{ref}:{model.created_ms}:{host_id}:{now.date().isoformat()}"
        if orders.start(ref, key):
            return [f"{model.name}: benchmark of version {ref.version} asked for, {why}"]
    return []


def _settled(wiring: Wiring, now: datetime) -> list[RegisteredModel]:
    """Models whose champion has been there for a while, with no rollout under way."""
    in_rollout = {rollout.model for rollout in rollouts.open_rollouts(wiring.engine)}
    models = wiring.registry.registered_models()
    return [
        model
        for name, model in sorted(models.items())
        if Alias.CHAMPION in model.aliases and name not in in_rollout and _is_settled(wiring, name, now)
    ]


def _is_settled(wiring: Wiring, model: str, now: datetime) -> bool:
    latest = changes.latest(wiring.engine, model, Alias.CHAMPION)
    return latest is None or now - latest.at >= SETTLED_AFTER


def _was_tried(wiring: Wiring, ref: VersionRef, now: datetime) -> bool:
    """Whether somebody has tried within a day, with whatever success."""
    last = reports.latest(wiring.engine, KIND, ref.model, ref.version)
    is_own = last is not None and last.verdict != DECLARED
    return last is not None and is_own and now - last.created_at < TRY_AGAIN_AFTER


def _is_busy() -> bool:
    under_way = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNDER_WAY)))
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_run_filter=under_way,
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[_NAME])),
            limit=1,
        )
    return bool(found)


def _start(ref: VersionRef, key: str) -> bool:
    run: Any = run_deployment(
        f"{_NAME}/{_NAME}",
        # The version before tells what the machine is worth today.
        parameters={
            "model": ref.model,
            "version": ref.version,
            "against": Alias.PREVIOUS.value,
            "seconds": _SECONDS,
        },
        timeout=0,
        as_subflow=False,
        idempotency_key=key,
    )
    return run.state is None or not run.state.is_final()
