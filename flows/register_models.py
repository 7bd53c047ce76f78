"""Flow `register-models`: every new and sound file of the model folders becomes a registered version.

Every five minutes and on demand. Thin: it wires the pass, and publishes what came of it. A bad file is
reported once and keeps the run Completed; an MLflow or store that is away makes it Failed "Unavailable",
and what was not reached is tried again by the next run.
"""

import time
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.catalog.intake import markdown, rows
from flows.catalog.register import actor
from flows.catalog.scan import ScanReport, Watch, scan
from flows.registering import means_of
from flows.wiring import wired
from serving.core.errors import SignalboxError

ARTIFACT = "registration"


@flow(name="register-models")
def register_models(requested_by: str | None = None) -> State[Any]:
    """Look through the configured folders once."""
    log = get_run_logger()
    with wired() as wiring:
        settings = wiring.settings
        folders = settings.model_folder_paths
        watch = Watch(settings.model_quiet_seconds, time.sleep)
        try:
            with means_of(wiring, requested_by or actor()) as means:
                report = scan(folders, means, watch, wiring.engine)
        except SignalboxError as error:
            return Failed(name="Unavailable", message=str(error))
    for outcome in report.outcomes:
        log.info("%s", outcome.sentence)
    _publish(report)
    if report.interrupted is not None:
        said = f"{report.interrupted}; so far: {report.sentence}; the rest is tried again by the next run"
        return Failed(name="Unavailable", message=said)
    return Completed(message=report.sentence)


def _publish(report: ScanReport) -> None:
    """Nothing is published of a pass that found nothing new: there would be one every five minutes."""
    if not report.outcomes:
        return
    create_table_artifact(key=ARTIFACT, table=rows(report), description=report.sentence)
    create_markdown_artifact(key=f"{ARTIFACT}-report", markdown=markdown(report), description=report.sentence)
