"""The acts in which Prefect promotes: alias `challenger` on a better, a worse and a broken version.

Nobody calls a flow: the alias is set as in MLflow's UI, and everything after it is waited for.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from flows.cli.demo.acts import one_line
from flows.cli.demo.runs import FlowRun
from flows.cli.demo.settings import MODEL
from flows.cli.demo.stage import Promoted, Refused, Stage
from flows.cli.errors import CommandFailed
from serving.core.clock import SystemClock
from serving.core.model import Alias, Tag, VersionRef
from serving.store import rollouts
from serving.store.database import open_engine
from serving.store.rollouts import Rollout, State

_FLOW = "promote-model"
_SWAP_SECONDS = 60.0
_RUN_SECONDS = 60.0
_ENDED_SECONDS = 120.0
_TIDY_SECONDS = 15.0
# Half a second and a second of traffic.
_FEW_ANSWERS = 25
_SOME_ANSWERS = 50


@dataclass(frozen=True, slots=True)
class _Asked:
    """The moment before the alias was set, on the traffic's clock and on everybody else's."""

    version: str
    began: float
    at: datetime


def promote_better(stage: Stage) -> str:
    """Version 1 is champion by hand again, then `challenger` is set on version 2."""
    stage.swap_to("1", _SWAP_SECONDS)
    stage.wait_for_answers(_FEW_ANSWERS, stage.periods[-1].since, _SWAP_SECONDS)
    stage.release_period()
    asked = _ask(stage, "2")
    run, rollout = _followed(stage, asked, State.PROMOTED)
    first = stage.first_answer("2", asked.began, _SWAP_SECONDS)
    stage.wait_for_answers(_SOME_ANSWERS, first.ended, _SWAP_SECONDS)
    if (named := stage.registry_alias(Alias.CHAMPION)) != "2":
        raise CommandFailed(f"after the promotion alias champion names version {named}, not 2")
    promoted = Promoted(
        run=run.id,
        run_started_seconds=_seconds(asked, run.started_at),
        answered_seconds=first.ended - asked.began,
        ended_seconds=_seconds(asked, rollout.finished_at),
    )
    stage.measured.promoted = promoted
    return (
        f"run '{run.name}' began after {promoted.run_started_seconds:.1f} s, "
        f"version 2 answered after {promoted.answered_seconds:.1f} s, "
        f"promoted after {promoted.ended_seconds:.1f} s\n"
        f"{_checks(rollout)}; alias challenger taken away"
    )


def refuse_worse(stage: Stage) -> str:
    """`challenger` on version 5, which answers well-formed and often wrongly."""
    return _refused(stage, "5")


def refuse_broken(stage: Stage) -> str:
    """`challenger` on version 3, which breaks its own output declaration."""
    return _refused(stage, "3")


def _refused(stage: Stage, version: str) -> str:
    champion = stage.periods[-1].version
    asked = _ask(stage, version)
    run, rollout = _followed(stage, asked, State.REFUSED)
    after = time.monotonic()
    stage.wait_for_answers(_FEW_ANSWERS, after, _SWAP_SECONDS)
    if (named := stage.registry_alias(Alias.CHAMPION)) != champion:
        raise CommandFailed(f"after the refusal alias champion names version {named}, not {champion}")
    verdict = stage.version_tag(VersionRef(MODEL, version), Tag.VERDICT)
    if rollout.reason not in verdict:
        raise CommandFailed(f"MLflow was not told why version {version} was refused, but: '{verdict}'")
    refused = Refused(version, run.id, rollout.reason, _seconds(asked, rollout.finished_at))
    stage.measured.refused.append(refused)
    answers = sum(record.version == champion for record in stage.traffic.since(asked.began))
    return (
        f"refused after {refused.seconds:.1f} s: {one_line(rollout.reason)}\n"
        f"alias challenger taken away, the reason left on the version in MLflow\n"
        f"version {champion} went on, {answers} answers since"
    )


def _ask(stage: Stage, version: str) -> _Asked:
    asked = _Asked(version, time.monotonic(), SystemClock().now())
    stage.set_alias(Alias.CHALLENGER, version)
    return asked


def _followed(stage: Stage, asked: _Asked, wanted: State) -> tuple[FlowRun, Rollout]:
    """The run that the alias caused and its rollout, both at the end that was `wanted`."""
    run = _started(stage, asked)
    rollout = _ended(stage, asked)
    if rollout.state is not wanted:
        ended = rollout.state.replace("_", " ")
        problem = f"version {asked.version} was {ended} instead of {wanted}: {one_line(rollout.reason)}"
        raise CommandFailed(problem, next_step=f"see {stage.home.log('worker')}")
    stage.wait(
        lambda: stage.registry_alias(Alias.CHALLENGER) is None,
        _TIDY_SECONDS,
        "alias challenger was not taken away",
    )
    final = stage.runs.follow(run.id, _ENDED_SECONDS, stage.tell)
    if final.state.lower() != wanted:
        raise CommandFailed(f"run {final.name} ended {final.state}: {one_line(final.message)}")
    return final, rollout


def _started(stage: Stage, asked: _Asked) -> FlowRun:
    """The run of the event that serving posted, once its process has begun."""
    stage.tell("waiting for the run that the alias causes")
    parameters = {"model": MODEL, "version": asked.version}
    found: list[FlowRun] = []

    def begun() -> bool:
        run = stage.runs.find(_FLOW, parameters, asked.at)
        found[:] = [run] if run is not None and run.started_at is not None else []
        return bool(found)

    stage.wait(begun, _RUN_SECONDS, f"no run of {_FLOW} began")
    return found[0]


def _ended(stage: Stage, asked: _Asked) -> Rollout:
    found: list[Rollout] = []

    def ended() -> bool:
        newest = rollouts.recent(engine, MODEL, 1)
        found[:] = [r for r in newest if r.version == asked.version and r.created_at >= asked.at]
        for rollout in found:
            stage.tell(f"rollout of version {rollout.version}: {rollout.phase.replace('_', ' ')}")
        return bool(found) and found[0].state.is_terminal

    with _store(stage) as engine:
        stage.wait(ended, _ENDED_SECONDS, f"the rollout of version {asked.version} did not end")
    return found[0]


def _checks(rollout: Rollout) -> str:
    checks = (rollout.evidence or {}).get("checks", [])
    passed = sum(check.get("verdict") == "passed" for check in checks)
    return f"{passed} checks passed, every serving worker answered a probe with it"


def _seconds(asked: _Asked, moment: datetime | None) -> float:
    return (moment - asked.at).total_seconds() if moment is not None else float("nan")


@contextmanager
def _store(stage: Stage) -> Iterator[Engine]:
    engine = open_engine(stage.settings.database_url)
    try:
        yield engine
    finally:
        engine.dispose()
