"""The acts that kill: MLflow, then the only server. Nobody but the supervisor brings them back."""

import time

from flows.cli.demo.stage import Stage
from flows.cli.demo.verdict import Gap
from flows.cli.errors import CommandFailed
from flows.cli.sessions import read_leader
from flows.cli.stack import view

_BACK_SECONDS = 120.0
_ANSWER_SECONDS = 60.0
_SOME_ANSWERS = 50


def kill_mlflow(stage: Stage) -> str:
    """The registry dies under traffic: answering goes on, and MLflow comes back."""
    before = _starts(stage, "mlflow")
    killed = stage.kill("mlflow")
    stage.wait(lambda: _is_back(stage, "mlflow", before), _BACK_SECONDS, "MLflow did not come back")
    stage.measured.mlflow_back_seconds = time.monotonic() - killed
    records = stage.wait_for_answers(_SOME_ANSWERS, killed, _ANSWER_SECONDS)
    failed = sum(not record.is_answered for record in records)
    if failed:
        raise CommandFailed(f"{failed} of {len(records)} requests failed while MLflow was away")
    return (
        f"back by itself after {stage.measured.mlflow_back_seconds:.1f} s; "
        f"{len(records)} requests meanwhile, 0 failed"
    )


def kill_serving(stage: Stage) -> str:
    """The only server dies: what fails in the gap is counted apart, and the same version comes back."""
    expected = stage.periods.last.version
    before = _starts(stage, "serving")
    killed = stage.kill("serving")
    stage.gaps.append(Gap(killed))
    records = stage.wait_for_answers(1, killed, _BACK_SECONDS)
    first = min((record for record in records if record.is_answered), key=lambda record: record.ended)
    stage.gaps[-1] = Gap(killed, first.ended)
    stage.measured.serving_back_seconds = first.ended - killed
    if first.version != expected:
        raise CommandFailed(f"serving came back with version {first.version}, not with {expected}")
    stage.wait_for_answers(_SOME_ANSWERS, first.ended, _ANSWER_SECONDS)
    stage.wait(lambda: _is_back(stage, "serving", before), _BACK_SECONDS, "serving did not become ready")
    return f"back by itself after {stage.measured.serving_back_seconds:.1f} s, with version {expected}"


def swap_once_more(stage: Stage) -> str:
    """After all that, the alias still moves."""
    seconds = stage.swap_to("1", _ANSWER_SECONDS)
    stage.wait_for_answers(_SOME_ANSWERS, stage.periods.last.since, _ANSWER_SECONDS)
    return f"version 1 answers after {seconds:.2f} s"


def _starts(stage: Stage, part: str) -> int:
    leader = read_leader(stage.home.pid_file(part))
    return leader.starts if leader is not None else 0


def _is_back(stage: Stage, part: str, starts_before: int) -> bool:
    """Started anew since, and ready: not what a killed process left behind."""
    if _starts(stage, part) <= starts_before:
        return False
    return any(row.part == part and row.state == "running" for row in view(stage.home, stage.settings))
