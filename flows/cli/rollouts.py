"""`signalbox rollouts`: promotions past and present, read from the store."""

from typing import Annotated, Any

import typer

from flows.cli.console import AsJson, print_json, print_table, text
from flows.cli.store import opened_store
from serving.store import rollouts as records
from serving.store.database import check
from serving.store.rollouts import Rollout

_COLUMNS = ("rollout", "model", "version", "state", "step", "asked for by", "began", "ended", "reason")
_DEFAULT_ROWS = 20


def rollouts(
    model: Annotated[str | None, typer.Argument(help="Only rollouts of this model.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many.")] = _DEFAULT_ROWS,
    as_json: AsJson = False,
) -> None:
    """Show rollouts, newest first."""
    with opened_store() as engine:
        check(engine)
        found = records.recent(engine, model, limit)
    if as_json:
        print_json([plain(rollout) for rollout in found])
        return
    nothing = f"no rollout of '{model}' is recorded" if model else "no rollout is recorded"
    print_table(_COLUMNS, map(_cells, found), empty=nothing)


def plain(rollout: Rollout) -> dict[str, Any]:
    """A rollout as JSON holds it."""
    return {
        "id": rollout.id,
        "model": rollout.model,
        "version": rollout.version,
        "strategy": rollout.strategy,
        "state": rollout.state,
        "step": rollout.phase,
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
    cells += [rollout.state.replace("_", " "), rollout.phase.replace("_", " "), rollout.requested_by]
    cells += [began, ended, rollout.reason]
    return [text(cell) for cell in cells]
