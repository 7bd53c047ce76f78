"""`signalbox freeze`: nobody promotes a model, or any model, until a time; rolling back stays possible."""

import getpass
from datetime import UTC, datetime
from typing import Annotated

import typer

from flows.cli.console import AsJson, print_json, print_table, say
from flows.cli.errors import CommandFailed
from flows.cli.moments import moment_of
from flows.cli.store import opened_store
from serving.store import freezes, rollouts
from serving.store.database import check
from serving.store.freezes import Freeze

_COLUMNS = ("model", "until", "by", "since", "reason")


def freeze(
    model: Annotated[str | None, typer.Argument(help="The model; without one, every model.")] = None,
    until: Annotated[str | None, typer.Option(help="When it ends: a time, or a span like 2h.")] = None,
    reason: Annotated[str, typer.Option(help="Why, for whoever is refused.")] = "",
    lift: Annotated[bool, typer.Option("--lift", help="End it now.")] = False,
    as_json: AsJson = False,
) -> None:
    """Freeze promotions until a time, lift a freeze, or show those that hold."""
    if lift and until is not None:
        raise CommandFailed("a freeze is either set or lifted", next_step="give --until or --lift, not both")
    now, actor = datetime.now(UTC), f"unverified:{getpass.getuser()}"
    with opened_store() as engine:
        check(engine)
        if lift:
            lifted = freezes.lift(engine, model, actor, now)
            _tell(lifted, as_json, f"lifted: {lifted}")
        elif until is not None:
            frozen = freezes.freeze(engine, model, moment_of(until, now), actor, reason, now)
            _tell(frozen, as_json, str(frozen))
            begun = [r for r in rollouts.open_rollouts(engine) if model in (None, r.model)]
            if begun and not as_json:
                names = ", ".join(f"{r.model} version {r.version} (rollout {r.id[:12]})" for r in begun)
                say(f"begun before it, and going on: {names}")
        else:
            _show([f for f in freezes.in_force(engine, now) if model in (None, f.model)], as_json)


def _tell(freeze: Freeze, as_json: bool, sentence: str) -> None:
    if as_json:
        print_json(freeze.as_json())
    else:
        say(sentence)


def _show(found: list[Freeze], as_json: bool) -> None:
    if as_json:
        print_json([freeze.as_json() for freeze in found])
        return
    print_table(_COLUMNS, map(_cells, found), empty="nothing is frozen; freeze with --until")


def _cells(freeze: Freeze) -> list[str]:
    until, since = (t.isoformat(timespec="seconds") for t in (freeze.until, freeze.created_at))
    return [freeze.model or "every model", until, freeze.created_by, since, freeze.reason or "-"]
