"""Flow `detect-drift`: compares what models were asked lately with their references.

Thin: it normalises parameters, checks one model per task and publishes the reports. Runs hourly and
on demand. Its final message says what was checked, also when that was nothing.
"""

import re
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.drift.verdict import DriftReport, Verdict
from flows.drift_check import DriftDone, asked, check_drift
from flows.settings import FlowSettings
from flows.wiring import wired
from serving.core.errors import SignalboxError
from serving.store.inference_log import log_folder, logged_models


@flow(name="detect-drift", flow_run_name="drift of {model}")
def detect_drift(
    model: str | None = None, version: int | str | None = None, rows: int | str | None = None
) -> State[Any]:
    """Check `model`, or every model with logged rows, over its newest `rows`."""
    settings = FlowSettings()
    folder = log_folder(settings.home)
    named = (model or "").strip()
    models = [named] if named else [name for name in logged_models(folder) if settings.serves(name)]
    if not models:
        return Completed(name="NothingToCheck", message=f"no model has logged rows yet in {folder}")
    outcomes = [_outcome(name, version, rows) for name in models]
    message = "; ".join(
        f"{name}: {said}" for name, said in zip(models, (o[1] for o in outcomes), strict=True)
    )
    return _final_state([outcome[0] for outcome in outcomes], message)


@task(name="check drift", task_run_name="drift of {model}", cache_policy=NO_CACHE, persist_result=False)
def check_one(model: str, version: int | str | None, rows: int | str | None) -> DriftReport:
    with wired() as wiring:
        done = check_drift(wiring, asked(wiring.settings, model, version, rows))
    get_run_logger().info("%s: %s", model, done.report.message)
    publish(done)
    return done.report


def publish(done: DriftDone) -> None:
    """Leave the report where Prefect's users look for it."""
    from flows.drift.render import markdown, rows

    key = re.sub(r"[^a-z0-9]+", "-", done.report.model.lower()).strip("-") or "model"
    page = f"\n\nEvidently's pages: `{done.page}`" if done.page else ""
    create_markdown_artifact(
        key=f"drift-{key}", markdown=markdown(done.report) + page, description=done.report.message
    )
    if done.report.columns:
        create_table_artifact(key=f"drift-{key}-columns", table=rows(done.report), description="columns")


def _outcome(model: str, version: int | str | None, rows: int | str | None) -> tuple[Verdict | None, str]:
    """A model's verdict and sentence; None where it could not be checked, which stops no other model."""
    try:
        report = check_one(model, version, rows)
    except SignalboxError as error:
        return None, str(error)
    return report.verdict, report.message


def _final_state(verdicts: list[Verdict | None], message: str) -> State[Any]:
    """Drift is a finding, not a failure; a check that could not be made is one."""
    if None in verdicts or Verdict.NOT_MEASURED in verdicts:
        return Failed(name="NotMeasured", message=message)
    if Verdict.DRIFT in verdicts:
        return Completed(name="Drift", message=message)
    if Verdict.NO_DRIFT in verdicts:
        return Completed(name="NoDrift", message=message)
    return Completed(name="InsufficientData", message=message)
