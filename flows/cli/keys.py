"""`signalbox keys`: who may call serving. A key is shown once, when it is made; only its digest is kept."""

import getpass
import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import uuid4

import typer

from flows.cli.console import AsJson, print_json, print_table, say, text, warn
from flows.cli.errors import CommandFailed
from flows.cli.store import opened_store
from serving.core.keys import GRANTABLE, Key, Scope, digest_of, read_scopes
from serving.store import keys as stored
from serving.store.database import check

keys_app = typer.Typer(help="Create, list and revoke access keys.", no_args_is_help=True)

_COLUMNS = ("name", "scopes", "models", "requests/s", "made by", "made", "expires", "state")
_KEY_BYTES = 32
_NAME_LENGTH = 128

Scopes = Annotated[
    list[str],
    typer.Option("--scope", "-s", help=f"What it may do: {', '.join(GRANTABLE)}. Give it several times."),
]
Models = Annotated[
    list[str] | None, typer.Option("--model", "-m", help="Only for models of this name or glob; repeatable.")
]
Rate = Annotated[float | None, typer.Option("--rate", min=0.01, help="Requests a second it may make.")]
Days = Annotated[float | None, typer.Option("--days", min=0.0001, help="How long it is valid.")]


@keys_app.command()
def create(
    name: Annotated[str, typer.Argument(help="Who or what it is for; the audit trail shows it.")],
    scope: Scopes,
    model: Models = None,
    rate: Rate = None,
    days: Days = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and show it, this once. Servers know it within two seconds."""
    now = datetime.now(UTC)
    secret = secrets.token_urlsafe(_KEY_BYTES)
    key = Key(
        id=uuid4().hex,
        name=_checked(name),
        digest=digest_of(secret),
        scopes=_scopes(scope),
        models=tuple(model or ()),
        requests_per_second=rate,
        created_at=now,
        created_by=_actor(),
        expires_at=now + timedelta(days=days) if days is not None else None,
    )
    with opened_store() as engine:
        check(engine)
        stored.create(engine, key)
    if as_json:
        print_json(_plain(key, now) | {"key": secret})
        return
    say(secret)
    warn(f"this is the only time that key '{name}' is shown; send it as X-API-Key or Authorization: Bearer")


@keys_app.command("list")
def list_keys(
    every: Annotated[bool, typer.Option("--all", help="Also revoked and expired ones.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show keys, oldest first, without their secrets."""
    now = datetime.now(UTC)
    with opened_store() as engine:
        check(engine)
        found = [key for key in stored.listed(engine) if every or _state(key, now) == "in force"]
    if as_json:
        print_json([_plain(key, now) for key in found])
        return
    print_table(_COLUMNS, (_cells(key, now) for key in found), empty="no key but admin.key of the home")


@keys_app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The key's name, as `signalbox keys list` shows it.")],
) -> None:
    """Withdraw a key. No server takes it any more after five seconds."""
    with opened_store() as engine:
        check(engine)
        stored.revoke(engine, name, _actor(), datetime.now(UTC))
    say(f"key '{name}' is revoked; no server takes it any more after five seconds")


def _checked(name: str) -> str:
    if not name.strip() or len(name) > _NAME_LENGTH or not name.isprintable():
        problem = f"a key's name has 1 to {_NAME_LENGTH} printable characters"
        raise CommandFailed(problem, next_step="choose another name")
    if name == "admin":
        raise CommandFailed("'admin' is the key in admin.key of the home", next_step="choose another name")
    return name


def _scopes(names: list[str]) -> frozenset[Scope]:
    try:
        return read_scopes(names)
    except ValueError as error:
        raise CommandFailed(str(error), next_step="give --scope") from None


def _actor() -> str:
    return f"unverified:{getpass.getuser()}"


def _state(key: Key, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.is_expired(now) else "in force"


def _plain(key: Key, now: datetime) -> dict[str, Any]:
    told = stored.as_json(key) | {"state": _state(key, now)}
    del told["digest"]
    return told


def _cells(key: Key, now: datetime) -> list[str]:
    cells: list[Any] = [key.name, ", ".join(sorted(key.scopes)), ", ".join(key.models) or "all"]
    cells += [key.requests_per_second, key.created_by, key.created_at.isoformat(timespec="seconds")]
    cells += [key.expires_at.isoformat(timespec="seconds") if key.expires_at else None, _state(key, now)]
    return [text(cell) for cell in cells]
