"""`signalbox audit`: the trail of who did what, read from the store, and the proof that it is whole."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Engine

from flows.cli.console import AsJson, print_json, print_table, say, text
from flows.cli.errors import CommandFailed
from flows.cli.store import opened_store
from serving.core.errors import StoreUnavailable, StoreUnusable
from serving.store import audit
from serving.store.audit import AuditRow, Verdict, Verification
from serving.store.database import check

audit_app = typer.Typer(help="Show or verify the audit trail.", invoke_without_command=True)

_COLUMNS = ("row", "at", "action", "actor", "model", "version", "details")
_DEFAULT_ROWS = 50

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="How many rows.")]
Model = Annotated[str | None, typer.Option(help="Only rows about this model.")]
Action = Annotated[str | None, typer.Option(help="Only rows with this action.")]


@audit_app.callback()
def _tail_by_default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        tail()


@audit_app.command()
def tail(
    limit: Limit = _DEFAULT_ROWS, model: Model = None, action: Action = None, as_json: AsJson = False
) -> None:
    """Show the last rows, newest last."""
    with opened_store() as engine:
        check(engine)
        rows = audit.tail(engine, limit=limit, model=model, action=action)
    if as_json:
        print_json([_plain(row) for row in rows])
    else:
        print_table(_COLUMNS, map(_cells, rows), empty="no row matches")


@audit_app.command()
def verify(as_json: AsJson = False) -> None:
    """Check the hash chain from the first row; exit code 1 and the first broken row when it is not whole."""
    with opened_store() as engine:
        found = _verified(engine)
    if as_json:
        broken = found.first_broken
        print_json(
            {"verdict": found.verdict, "rows": found.rows, "first_broken": broken, "reason": found.reason}
        )
    elif found.verdict is Verdict.INTACT:
        say(f"intact: {found.reason}")
    if found.verdict is Verdict.BROKEN:
        place = f"row {found.first_broken}" if found.first_broken is not None else "its head"
        step = "compare it with a copy of the store to see what was changed"
        raise CommandFailed(f"the audit trail is broken at {place}: {found.reason}", next_step=step)


def _verified(engine: Engine) -> Verification:
    """The chain's verdict; of a damaged database too, where the trail can still be read."""
    try:
        check(engine)
    except StoreUnusable as unusable:
        if _is_absent(engine):
            # SQLite would create it on reading.
            raise
        try:
            found = audit.verify(engine)
        except StoreUnavailable:
            raise unusable from None
        if found.verdict is Verdict.INTACT:
            raise
        return found
    return audit.verify(engine)


def _is_absent(engine: Engine) -> bool:
    return engine.url.get_backend_name() == "sqlite" and not Path(engine.url.database or "").exists()


def _plain(row: AuditRow) -> dict[str, Any]:
    entry = row.entry
    return {
        "seq": row.seq,
        "at": entry.at.isoformat(),
        "action": entry.action,
        "actor": entry.actor,
        "model": entry.model,
        "version": entry.version,
        "details": dict(entry.details),
        "id": entry.id,
        "hash": row.hash,
    }


def _cells(row: AuditRow) -> list[str]:
    entry = row.entry
    details = ", ".join(f"{name}={_short(value)}" for name, value in entry.details.items())
    cells = [row.seq, entry.at.isoformat(timespec="seconds"), entry.action, entry.actor]
    return [text(cell) for cell in (*cells, entry.model, entry.version, details)]


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
