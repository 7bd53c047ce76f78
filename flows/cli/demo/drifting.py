"""The act in which the world changes: callers send inverted digits, and a drift check says so.

The server stays right all the while: every answer is still compared with what the version's file says.
"""

import time
from datetime import datetime
from typing import Any

from flows.cli.demo.runs import FlowRun
from flows.cli.demo.settings import MODEL
from flows.cli.demo.stage import Drifted, Stage
from flows.cli.errors import CommandFailed
from serving.core.clock import SystemClock
from serving.store import reports
from serving.store.database import open_engine
from serving.store.inference_log import log_folder, parts

_DEPLOYMENT = "detect-drift/detect-drift"
_SENT_SECONDS = 60.0
_LOGGED_SECONDS = 30.0
_RUN_SECONDS = 120.0
_ANSWER_SECONDS = 60.0
_FEW_ANSWERS = 25
# One hourly run may be under way, and two at once are not allowed: the second is cancelled.
_TRIES = 3


def detect_drift(stage: Stage) -> str:
    """Inverted digits until the newest rows of the log are all of them; then the check, through Prefect."""
    began = time.monotonic()
    stage.traffic.turn_to("inverted")
    logged_seconds = _log_inverted(stage, began)
    asked_at = SystemClock().now()
    asked = time.monotonic()
    run = _checked(stage)
    run_seconds = time.monotonic() - asked
    report = _report(stage, asked_at)
    rows = stage.inverted_rows(began)
    stage.traffic.turn_to("plain")
    stage.wait_for_answers(_FEW_ANSWERS, time.monotonic(), _ANSWER_SECONDS)
    drifted = Drifted(run.id, len(report["drifted"]), len(report["columns"]))
    stage.measured.drifted = drifted
    if report["verdict"] != "drift":
        raise CommandFailed(f"the drift check saw none: {report['message']}")
    return (
        f"{rows} inverted digits answered, each as the version's file says; in the log after "
        f"{logged_seconds:.1f} s\n"
        f"run '{run.name}' ended {run.state} after {run_seconds:.1f} s: {report['message']}"
    )


def _log_inverted(stage: Stage, began: float) -> float:
    """Wait until as many inverted digits are logged as the check looks at; in seconds since `began`."""
    needed = stage.settings.drift_rows

    def sent() -> bool:
        rows = stage.inverted_rows(began)
        stage.tell(f"{rows} inverted digits answered")
        return rows >= needed

    stage.wait(sent, _SENT_SECONDS, f"{needed} inverted digits were not answered")
    since = SystemClock().now()
    stage.tell("waiting for the inference log")

    def logged() -> bool:
        found = parts(log_folder(stage.settings.home), MODEL)
        return bool(found) and found[-1].newest_at >= since

    stage.wait(logged, _LOGGED_SECONDS, "the inference log was not written")
    return time.monotonic() - began


def _checked(stage: Stage) -> FlowRun:
    """A run of the check that was carried out."""
    for _ in range(_TRIES):
        run = stage.runs.start(_DEPLOYMENT, {"model": MODEL})
        last = stage.runs.follow(run, _RUN_SECONDS, stage.tell)
        if last.kind != "CANCELLED":
            break
    if last.kind != "COMPLETED":
        raise CommandFailed(f"run {last.name} ended {last.state}: {last.message}")
    return last


def _report(stage: Stage, asked_at: datetime) -> dict[str, Any]:
    """What the run left in the store."""
    engine = open_engine(stage.settings.database_url)
    try:
        report = reports.latest(engine, "drift", MODEL)
    finally:
        engine.dispose()
    if report is None or report.created_at < asked_at:
        raise CommandFailed("the drift check left no report in the store")
    return dict(report.body)
