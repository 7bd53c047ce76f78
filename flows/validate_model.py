"""Flow `validate-model`: everything a version must pass before it may be promoted, without promoting it.

Also the validator that `promote-model` works with, so that both judge by the same checks.
"""

import getpass
import logging
from collections.abc import Callable
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.catalog.descriptions import Descriptions
from flows.catalog.policy import ValidationPolicy, policy_of, within_budget
from flows.catalog.render import headline, markdown, rows
from flows.catalog.report import ValidationReport, mark, record
from flows.catalog.validate import Validation, run
from flows.publication import artifact_key
from flows.wiring import Wiring, wired
from serving.core.errors import NotServed, SignalboxError
from serving.core.model import VersionRef
from serving.store.rollouts import Rollout

log = logging.getLogger(__name__)

# Parameters of an event trigger arrive as text, those of a command line as numbers.
Parameter = float | int | str | None


@flow(name="validate-model", flow_run_name="validate {model} {version}")
def validate_model(
    model: str,
    version: int | str,
    requested_by: str | None = None,
    champion: int | str | None = None,
    max_accuracy_drop: Parameter = None,
    max_error_ratio: Parameter = None,
    when_uncertain: str | None = None,
    min_accuracy: Parameter = None,
    max_p95_ms: Parameter = None,
    max_memory_mb: Parameter = None,
    allow_signature_change: Parameter = None,
    replay_rows: Parameter = None,
) -> State[Any]:
    """Judge `version` against the present champion, or the one named; promotes nothing."""
    actor = requested_by or f"unverified:{getpass.getuser()}"
    try:
        policy = policy_of(
            {
                "max_accuracy_drop": max_accuracy_drop,
                "max_error_ratio": max_error_ratio,
                "when_uncertain": when_uncertain,
                "min_accuracy": min_accuracy,
                "max_p95_ms": max_p95_ms,
                "max_memory_mb": max_memory_mb,
                "allow_signature_change": allow_signature_change,
                "replay_rows": replay_rows,
            }
        )
    except ValueError as error:
        return Failed(name="Refused", message=f"a parameter cannot be used: {error}")
    with wired() as wiring:
        ref, rival = VersionRef(model, str(version).strip()), str(champion or "").strip() or None
        try:
            report = run(_request(wiring, ref, policy, rival), wiring.settings, wiring.clock)
            record(wiring.engine, report, actor)
            mark(wiring.registry, report)
            _describe(wiring, VersionRef(report.model, report.version))
        except NotServed as error:
            return Failed(name="Refused", message=str(error))
        except SignalboxError as error:
            return Failed(name="Unavailable", message=str(error))
    _publish(report)
    if report.passed:
        return Completed(name="Passed", message=headline(report))
    return Failed(name="Refused", message=f"{headline(report)}: {report.reason}")


def validator(wiring: Wiring) -> Callable[[Rollout, str | None], ValidationReport]:
    """Judges a rollout's version under the rollout's own policy, and keeps the report."""

    def validate(rollout: Rollout, champion: str | None) -> ValidationReport:
        ref = VersionRef(rollout.model, rollout.version)
        request = _request(wiring, ref, policy_of(rollout.policy), champion)
        report = run(request, wiring.settings, wiring.clock)
        record(wiring.engine, report, rollout.requested_by)
        if report.passed:
            _describe(wiring, ref)
        return report

    return validate


def _describe(wiring: Wiring, ref: VersionRef) -> None:
    """Put a description on record where there is none, as of a version that was registered by hand."""
    descriptions = Descriptions(wiring.settings, wiring.engine, wiring.client, wiring.registry)
    try:
        descriptions.of(wiring.registry.version(ref), wiring.clock.now())
    except SignalboxError as error:
        log.warning("version_not_described version=%s reason=%s", ref, error)


def _request(wiring: Wiring, ref: VersionRef, policy: ValidationPolicy, champion: str | None) -> Validation:
    settings = wiring.settings
    return Validation(
        ref,
        within_budget(policy, settings.memory_mb),
        champion,
        deadline_seconds=settings.validation_seconds,
        memory_mb=settings.validation_memory_mb,
    )


def _publish(report: ValidationReport) -> None:
    key = artifact_key("validation", report.model)
    create_markdown_artifact(key=key, markdown=markdown(report), description=headline(report))
    create_table_artifact(key=f"{key}-checks", table=rows(report), description="validation")
