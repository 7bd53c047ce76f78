"""Flow `detect-drift`: compares what models were asked lately with their references.

Thin: it normalises parameters, checks one model per task and publishes the reports. Runs hourly and
on demand. Its final message says what was checked, also when that was nothing.
"""

from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.drift.verdict import DriftReport, Verdict
from flows.drift_check import DriftDone, asked, check_drift
from flows.publication import artifact_key
from flows.wiring import Wiring, wired
from serving.core.errors import RegistryUnavailable, SignalboxError
from serving.store.inference_log import log_folder, logged_models

# Parameters of an event trigger arrive as text, those of a command line as numbers.
Number = int | str | None


def _run_name() -> str:
    return f"drift of {runtime.flow_run.parameters.get('model') or 'every model'}"


@flow(name="detect-drift", flow_run_name=_run_name)
def detect_drift(model: str | None = None, version: Number = None, rows: Number = None) -> State[Any]:
    """Check `model`, or every registered model with logged rows, over its newest `rows`."""
    named = (model or "").strip()
    try:
        with wired() as wiring:
            models = [named] if named else _logged(wiring)
            folder = log_folder(wiring.settings.home)
    except RegistryUnavailable as error:
        return Failed(name="Unavailable", message=f"nothing was checked: {error}")
    if not models:
        return Completed(name="NothingToCheck", message=f"no registered model has logged rows in {folder}")
    verdicts, said = [], []
    for name in models:
        state: State[Any] = check_one(name, version, rows, return_state=True)
        report = state.result() if state.is_completed() else None
        verdicts.append(report.verdict if report else None)
        said.append(f"{name}: {report.message if report else state.message}")
    return _final_state(verdicts, "; ".join(said))


@task(name="check drift", task_run_name="drift of {model}", cache_policy=NO_CACHE, persist_result=False)
def check_one(model: str, version: Number, rows: Number) -> DriftReport | State[Any]:
    """One model's report; failed, with the reason in a sentence, where it could not be checked."""
    try:
        with wired() as wiring:
            done = check_drift(wiring, asked(wiring.settings, model, version, rows))
    except SignalboxError as error:
        return Failed(message=str(error))
    get_run_logger().info("%s: %s", model, done.report.message)
    publish(done)
    return done.report


def publish(done: DriftDone) -> None:
    """Leave the report where Prefect's users look for it."""
    from flows.drift.render import markdown, rows

    key = artifact_key("drift", done.report.model)
    page = f"\n\nEvidently's pages: `{done.page}`" if done.page else ""
    create_markdown_artifact(key=key, markdown=markdown(done.report) + page, description=done.report.message)
    if done.report.columns:
        create_table_artifact(key=f"{key}-columns", table=rows(done.report), description="columns")


def _logged(wiring: Wiring) -> list[str]:
    """Models with rows in the log; what was deleted from the registry is nobody's concern any more."""
    registered = wiring.registry.registered_models()
    return [name for name in logged_models(log_folder(wiring.settings.home)) if name in registered]


def _final_state(verdicts: list[Verdict | None], message: str) -> State[Any]:
    """Drift is a finding, not a failure; a check that could not be made is one."""
    if None in verdicts or Verdict.NOT_MEASURED in verdicts:
        return Failed(name="NotMeasured", message=message)
    if Verdict.DRIFT in verdicts:
        return Completed(name="Drift", message=message)
    if Verdict.NO_DRIFT in verdicts:
        return Completed(name="NoDrift", message=message)
    return Completed(name="InsufficientData", message=message)
