"""Flow `promote-model`: a version becomes champion, or the reason why not is told everywhere.

Thin: it normalises parameters, runs the promotion and publishes its outcome. Started by the event
that serving posts when alias `challenger` is set, by `tend`, by the command line, or by hand.
"""

import getpass
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.benchmark_model import benchmarker
from flows.catalog import limits as benchmark
from flows.catalog.policy import limits, policy_of
from flows.promotion_report import mark_run, publish, report_of
from flows.rollout import policy as rollout
from flows.rollout.keeper import holder_of
from flows.rollout.outcome import Outcome, Verdict
from flows.rollout.parts import Parts
from flows.rollout.promotion import Asked, joined, refuse, work
from flows.rollout.render import outcome_markdown
from flows.rollout.succession import recorded
from flows.settings import FlowSettings
from flows.validate_model import validator
from flows.wiring import Wiring, wired
from serving.core.errors import RegistryUnavailable, StoreUnavailable
from serving.store.rollouts import open_rollouts
from serving.store.snapshot import public_settings
from serving.store.text import JsonValue

# Parameters of an event trigger arrive as text, those of a command line as numbers.
Number = float | int | str | None
# The one limit that the benchmark alone knows.
_ONLY_COST = "min_throughput"


@flow(name="promote-model", flow_run_name="promote {model} {version}", validate_parameters=True)
def promote_model(
    model: str,
    version: int | str | None = None,
    strategy: str | None = None,
    requested_by: str | None = None,
    asked_at: str | None = None,
    min_accuracy: Number = None,
    max_accuracy_drop: Number = None,
    max_p95_ms: Number = None,
    max_memory_mb: Number = None,
    allow_signature_change: Number = None,
    replay_rows: Number = None,
    min_throughput: Number = None,
    stages: str | list[int] | None = None,
    stage_seconds: Number = None,
    stage_deadline_seconds: Number = None,
    approve_before: Number = None,
) -> State[Any]:
    """Validate and benchmark `version`, by default the challenger, and make it the champion.

    By stages of live traffic or at once, as `strategy` or else the settings say.
    """
    given = {
        "min_accuracy": min_accuracy,
        "max_accuracy_drop": max_accuracy_drop,
        "max_p95_ms": max_p95_ms,
        "max_memory_mb": max_memory_mb,
        "allow_signature_change": allow_signature_change,
        "replay_rows": replay_rows,
        "min_throughput": min_throughput,
        "stages": stages,
        "stage_seconds": stage_seconds,
        "stage_deadline_seconds": stage_deadline_seconds,
        "approve_before": approve_before,
    }
    try:
        settings = FlowSettings()
    except ValueError as error:
        outcome = Outcome(Verdict.REFUSED, f"a setting cannot be used: {error}")
        publish(outcome, model, outcome_markdown(outcome, model))
        return final_state(outcome)
    problem = asked = None
    try:
        asked = Asked(
            model=model,
            version=_text(version),
            asked_at=_moment(asked_at),
            by=_text(requested_by) or f"unverified:{getpass.getuser()}",
            strategy=_text(strategy) or settings.strategy,
            policy=_typed(given),
            usual=settings.usual_plan,
        )
    except ValueError as error:
        problem = f"a parameter cannot be used: {error}"
    with wired(settings) as wiring:
        try:
            if asked is not None:
                outcome = _promote(wiring, asked)
            else:
                outcome = unusable(wiring, model, _text(version), str(problem))
        except (RegistryUnavailable, StoreUnavailable) as error:
            # What was begun stays open in the store: the next run takes it up.
            outcome = Outcome(Verdict.UNAVAILABLE, str(error))
        publish(outcome, model, report_of(wiring, outcome, model))
    return final_state(outcome)


def _promote(wiring: Wiring, asked: Asked) -> Outcome:
    log = get_run_logger()
    holder = holder_of(runtime.flow_run.id or "local")
    entry = recorded(wiring.engine, wiring.registry, asked, wiring.clock)
    if isinstance(entry, Outcome):
        if entry.verdict is Verdict.REFUSED and entry.rollout is not None:
            return refuse(entry.rollout, entry.reason, wiring, wiring.leases, holder)
        return entry
    mark_run(entry.rollout)
    if entry.rollout.state.is_terminal:
        return joined(entry.rollout)
    log.info("rollout %s %s", entry.rollout.id, "opened" if entry.created else "joined")
    parts = Parts(
        wiring.engine,
        wiring.registry,
        wiring.guard,
        wiring.clock,
        validator(wiring),
        benchmarker(wiring),
        settings=public_settings(wiring.settings),
    )
    return work(entry.rollout, parts, wiring.leases, holder, log.info)


def unusable(wiring: Wiring, model: str, version: str | None, problem: str) -> Outcome:
    """The outcome of parameters that cannot be read; it ends the open rollout whose own they are."""
    for found in open_rollouts(wiring.engine):
        if found.model == model and version in (found.version, None) and not _is_readable(found.policy):
            return refuse(found, problem, wiring, wiring.leases, holder_of(runtime.flow_run.id or "local"))
    return Outcome(Verdict.REFUSED, problem)


def _typed(given: Mapping[str, object]) -> dict[str, JsonValue]:
    """Those limits and settings of the plan that were given, in their own types. Raises `ValueError`."""
    judged = {name: limit for name, limit in given.items() if name not in (*rollout.PLAN, _ONLY_COST)}
    policy = limits(judged)
    policy |= benchmark.limits({_ONLY_COST: given[_ONLY_COST]})
    return policy | rollout.limits(given)


def _is_readable(policy: Mapping[str, Any]) -> bool:
    try:
        policy_of(policy)
        benchmark.policy_of(policy)
        rollout.limits(policy)
    except ValueError:
        return False
    return True


def final_state(outcome: Outcome) -> State[Any]:
    """A run that promoted nothing never looks as if it had."""
    name = outcome.verdict.replace("_", " ").title().replace(" ", "")
    message = "; ".join((outcome.reason, *outcome.warnings))
    is_going_on = outcome.verdict is Verdict.HELD
    if outcome.is_good or is_going_on:
        return Completed(name=name, message=message)
    return Failed(name=name, message=message)


def _text(value: object) -> str | None:
    """Text of a parameter; nothing and blanks are None."""
    text = "" if value is None else str(value).strip()
    return text if text and text.lower() != "none" else None


def _moment(asked_at: str | None) -> datetime:
    """When this was asked: as told, else when the run was due."""
    if (text := _text(asked_at)) is not None:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    due = runtime.flow_run.scheduled_start_time
    return due if due is not None else datetime.now(UTC)
