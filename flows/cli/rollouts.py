"""`signalbox rollouts`: promotions past and present, and what a person may ask of an open one.

A command is left in the store for whoever works on the rollout; one that rests is started again.
"""

import getpass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from flows.cli.console import AsJson, print_json, print_table, say, text
from flows.cli.errors import CommandFailed
from flows.cli.frozen import in_force, say_frozen
from flows.cli.rollout_run import start
from flows.cli.store import opened_store
from flows.rollout.status import Step
from flows.settings import FlowSettings
from serving.store import rollouts as records
from serving.store.database import check
from serving.store.rollouts import Command, Phase, Rollout, State

_COLUMNS = ("rollout", "model", "version", "state", "step", "asked for by", "began", "ended", "reason")
_DEFAULT_ROWS = 20


def rollouts(
    what: Annotated[
        str | None, typer.Argument(help="A model to show, or: approve, pause, resume, abort.")
    ] = None,
    rollout: Annotated[
        str | None, typer.Argument(help="Of a command: the rollout's id, or its start.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many.")] = _DEFAULT_ROWS,
    as_json: AsJson = False,
) -> None:
    """Show rollouts, newest first; or approve, pause, resume or abort an open one."""
    if rollout is not None:
        _command(what or "", rollout, as_json=as_json)
        return
    with opened_store() as engine:
        check(engine)
        found = records.recent(engine, what, limit)
        frozen = in_force(engine, what)
    if as_json:
        print_json([plain(rollout) for rollout in found])
        return
    nothing = f"no rollout of '{what}' is recorded" if what else "no rollout is recorded"
    print_table(_COLUMNS, map(_cells, found), empty=nothing)
    say_frozen(frozen)


def _command(word: str, prefix: str, *, as_json: bool) -> None:
    if word not in set(Command):
        raise CommandFailed(f"'{word}' is nothing that can be asked", next_step=f"use {', '.join(Command)}")
    settings = FlowSettings()
    with opened_store() as engine:
        check(engine)
        found = records.named(engine, prefix)
        by, now = f"unverified:{getpass.getuser()}", datetime.now(UTC)
        asked = records.ask(engine, found.id, Command(word), by, now)
    if is_resting(asked):
        parameters = {
            "model": asked.model,
            "version": asked.version,
            "strategy": asked.strategy,
            "requested_by": asked.requested_by,
            "asked_at": asked.created_at.isoformat(),
        }
        start(settings, parameters, quiet=as_json)
    if as_json:
        print_json(plain(asked))
    else:
        is_over = asked.state.is_terminal
        where = (
            f"{asked.state.replace('_', ' ')}, {asked.reason}" if is_over else f"it is at {step_of(asked)}"
        )
        say(f"rollout {asked.id}: asked to {word}; {where}")


def is_resting(rollout: Rollout) -> bool:
    """Whether an open rollout waits for a person or for evidence."""
    step = (rollout.status or {}).get("step")
    return rollout.state is State.OPEN and step is not None and Step(step).is_resting


def step_of(rollout: Rollout) -> str:
    """Where a rollout is: its step, and within the stages the percent and why it rests."""
    status = rollout.status
    if status is None or rollout.spec is None or rollout.phase is not Phase.RESTORE_POINT:
        return rollout.phase.replace("_", " ")
    percent = rollout.spec["stages"][status["stage"]]
    reason = f": {status['reason']}" if status["reason"] else ""
    return f"{percent} % {status['step']}{reason}"


def plain(rollout: Rollout) -> dict[str, Any]:
    """A rollout as JSON holds it."""
    return {
        "id": rollout.id,
        "model": rollout.model,
        "version": rollout.version,
        "strategy": rollout.strategy,
        "state": rollout.state,
        "step": rollout.phase,
        "spec": rollout.spec,
        "status": rollout.status,
        "requested_by": rollout.requested_by,
        "reason": rollout.reason,
        "policy": dict(rollout.policy),
        "restore_point": rollout.restore_point,
        "evidence": rollout.evidence,
        "created_at": rollout.created_at.isoformat(),
        "updated_at": rollout.updated_at.isoformat(),
        "finished_at": rollout.finished_at.isoformat() if rollout.finished_at else None,
    }


def _cells(rollout: Rollout) -> list[str]:
    began = rollout.created_at.isoformat(timespec="seconds")
    ended = rollout.finished_at.isoformat(timespec="seconds") if rollout.finished_at else None
    cells: list[str | None] = [rollout.id[:12], rollout.model, rollout.version]
    cells += [rollout.state.replace("_", " "), step_of(rollout), rollout.requested_by]
    cells += [began, ended, rollout.reason]
    return [text(cell) for cell in cells]
