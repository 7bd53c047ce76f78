"""Alias `challenger` set as in MLflow's UI, and what comes of it: followed in Prefect, the store and MLflow.

Every step of the rollout is told as it is reached. Raises `CommandFailed` for any other end than expected.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from flows.cli.demo.progress import news, one_line, present
from flows.cli.demo.runs import FlowRun
from flows.cli.demo.settings import MODEL
from flows.cli.demo.stage import Concluded, Stage
from flows.cli.errors import CommandFailed
from serving.core.clock import SystemClock
from serving.core.model import Alias, Tag, VersionRef
from serving.store import rollouts
from serving.store.database import open_engine
from serving.store.rollouts import Rollout, State

_FLOW = "promote-model"
_RUN_SECONDS = 60.0
# A busy machine takes its time, and a rollout that was held is looked at again within a minute.
_ENDED_SECONDS = 480.0
_TIDY_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Asked:
    """The moment before the alias was set, on the traffic's clock and on everybody else's."""

    version: str
    began: float
    at: datetime

    def seconds(self, moment: datetime | None) -> float:
        return (moment - self.at).total_seconds() if moment is not None else float("nan")

    def on_traffics_clock(self, moment: datetime) -> float:
        return self.began + self.seconds(moment)


@dataclass(frozen=True, slots=True)
class Followed:
    """The run that the alias caused and its rollout, both at their end."""

    run: FlowRun
    rollout: Rollout


def ask(stage: Stage, version: str) -> Asked:
    asked = Asked(version, time.monotonic(), SystemClock().now())
    stage.set_alias(Alias.CHALLENGER, version)
    return asked


def follow(stage: Stage, asked: Asked, wanted: State) -> Followed:
    """Wait for the end that is `wanted`, of rollout and run, and for the alias to be taken away."""
    run = _started(stage, asked)
    rollout = _ended(stage, asked)
    if rollout.state is not wanted:
        ended, due = (state.replace("_", " ") for state in (rollout.state, wanted))
        problem = f"version {asked.version} was {ended} instead of {due}: {one_line(rollout.reason)}"
        raise CommandFailed(problem, next_step=f"see {stage.home.log('worker')}")
    stage.wait(
        lambda: stage.registry_alias(Alias.CHALLENGER) is None,
        _TIDY_SECONDS,
        "alias challenger was not taken away",
    )
    final = stage.runs.follow(run.id, _RUN_SECONDS, stage.tell)
    if final.state.lower() != wanted.replace("_", ""):
        raise CommandFailed(f"run {final.name} ended {final.state}: {one_line(final.message)}")
    return Followed(final, rollout)


def conclude(stage: Stage, asked: Asked, followed: Followed) -> str:
    """Note how it ended for the final table, and say what MLflow shows of it."""
    rollout = followed.rollout
    shown = shown_in_mlflow(stage, rollout)
    seconds = asked.seconds(rollout.finished_at)
    stage.measured.concluded.append(
        Concluded(
            version=asked.version,
            rollout=rollout.id,
            run=followed.run.id,
            verdict=rollout.state.replace("_", " "),
            reason=rollout.reason,
            seconds=seconds,
        )
    )
    return shown


def shown_in_mlflow(stage: Stage, rollout: Rollout) -> str:
    """The version's tags and, of a staged rollout, its report. Raises `CommandFailed` where they deviate."""
    tags, files = stage.version_page(VersionRef(MODEL, rollout.version))
    due = _due_tags(rollout)
    for tag, value in due.items():
        # A tag holds the beginning of a very long reason.
        if not value.startswith(tags.get(tag) or "-"):
            raise CommandFailed(f"MLflow shows '{tags.get(tag)}' as {tag}, not '{one_line(value)}'")
    report = f"signalbox/rollout-{rollout.id}.md"
    is_staged = rollout.status is not None
    if is_staged and report not in files:
        raise CommandFailed(f"the report {report} is not attached to the run of version {rollout.version}")
    told = ", ".join(f"{tag.removeprefix('signalbox.')} {one_line(value, 60)}" for tag, value in due.items())
    return f"on its page in MLflow: {told}{'; on its run: the report' if is_staged else ''}"


def _due_tags(rollout: Rollout) -> dict[str, str]:
    """What the version must be tagged with at the end."""
    due: dict[str, str] = {Tag.ROLLOUT: rollout.id}
    if rollout.status is not None and rollout.spec is not None:
        due[Tag.STAGE] = f"{rollout.status['stage'] + 1} of {len(rollout.spec['stages'])}"
        due[Tag.TRAFFIC_PERCENT] = "100" if rollout.state is State.PROMOTED else "0"
    return due | {Tag.VERDICT: f"{rollout.state}: {rollout.reason}"}


@contextmanager
def store(stage: Stage) -> Iterator[Engine]:
    engine = open_engine(stage.settings.database_url)
    try:
        yield engine
    finally:
        engine.dispose()


def _started(stage: Stage, asked: Asked) -> FlowRun:
    """The run of the event that serving posted, once its process has begun."""
    stage.tell("waiting for the run that the alias causes")
    parameters = {"model": MODEL, "version": asked.version}
    found: list[FlowRun] = []

    def begun() -> bool:
        run = stage.runs.find(_FLOW, parameters, asked.at)
        found[:] = [run] if run is not None and run.started_at is not None else []
        return bool(found)

    stage.wait(begun, _RUN_SECONDS, f"no run of {_FLOW} began")
    stage.announce(f"alias challenger on version {asked.version}: run '{found[0].name}' began")
    return found[0]


def _ended(stage: Stage, asked: Asked) -> Rollout:
    last: list[Rollout] = []

    def ended() -> bool:
        newest = rollouts.recent(engine, MODEL, 1)
        for rollout in newest:
            if rollout.version != asked.version or rollout.created_at < asked.at:
                continue
            for line in news(last[-1] if last else None, rollout):
                stage.announce(line)
            stage.tell(present(rollout))
            last[:] = [rollout]
        return bool(last) and last[0].state.is_terminal

    with store(stage) as engine:
        stage.wait(ended, _ENDED_SECONDS, f"the rollout of version {asked.version} did not end")
    return last[0]
