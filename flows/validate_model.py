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
from flows.catalog.policy import ValidationPolicy
from flows.catalog.render import headline, markdown, rows
from flows.catalog.report import ValidationReport, mark, record
from flows.catalog.validate import Validation, run
from flows.publication import artifact_key
from flows.wiring import Wiring, wired
from serving.core.errors import NotServed, SignalboxError
from serving.core.model import VersionRef
from serving.store.rollouts import Rollout

log = logging.getLogger(__name__)


@flow(name="validate-model", flow_run_name="validate {model} {version}")
def validate_model(model: str, version: int | str, requested_by: str | None = None) -> State[Any]:
    """Judge `version` against the present champion; promotes nothing."""
    actor = requested_by or f"unverified:{getpass.getuser()}"
    with wired() as wiring:
        try:
            report = run(Validation(VersionRef(model, str(version).strip())), wiring.settings, wiring.clock)
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
        request = Validation(ref, ValidationPolicy(**rollout.policy), champion)
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


def _publish(report: ValidationReport) -> None:
    key = artifact_key("validation", report.model)
    create_markdown_artifact(key=key, markdown=markdown(report), description=headline(report))
    create_table_artifact(key=f"{key}-checks", table=rows(report), description="validation")
