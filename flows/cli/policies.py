"""`signalbox policies`: limits and thresholds of single models, kept in the store; each change audited.

What is kept goes before policy files and settings; what a promotion names goes before what is kept.
"""

import getpass
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

import typer
from sqlalchemy import Engine

from flows.cli.console import AsJson, print_json, print_table, text
from flows.cli.errors import CommandFailed
from flows.cli.policy_limits import NAMES, read_limits, whole
from flows.cli.store import opened_store
from flows.rollout.policy import kind_of
from flows.wiring import Wiring, wired
from serving.core.model import Tag
from serving.store import policies
from serving.store.database import check
from serving.store.text import JsonValue

Policies = dict[str, dict[str, JsonValue]]

policies_app = typer.Typer(
    help="Show the policies kept for models, set limits of one, or drop them.", invoke_without_command=True
)

Model = Annotated[str, typer.Argument(help="The registered model.")]
OfModel = Annotated[str | None, typer.Option("--model", "-m", help="Only those of this model.")]


@policies_app.callback()
def _list_by_default(context: typer.Context, model: OfModel = None, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        show(model, as_json)


@policies_app.command("list")
def show(model: OfModel = None, as_json: AsJson = False) -> None:
    """Show what is kept; `signalbox promote N V --dry-run` shows what holds in all."""
    with opened_store() as engine:
        check(engine)
        found = policies.listed(engine)
    kept = {name: found[name] for name in sorted(found) if model in (None, name)}
    _tell(kept, as_json)


@policies_app.command("set")
def set_limits(
    model: Model,
    limits: Annotated[list[str], typer.Argument(help="min_accuracy=0.9 judge.min_samples=200 ...")],
    as_json: AsJson = False,
) -> None:
    """Keep limits for a model: LIMIT=VALUE of promotions, judge.LIMIT=VALUE, health.LIMIT=VALUE."""
    given = read_limits(limits)
    with wired() as wiring:
        check(wiring.engine)
        before = policies.of_model(wiring.engine, model)
        after = {name: {**before.get(name, {}), **given.get(name, {})} for name in NAMES}
        _refuse_senseless(wiring, model, after)
        _keep(wiring.engine, model, after)
        _tell({model: policies.of_model(wiring.engine, model)}, as_json)


@policies_app.command()
def drop(
    model: Model,
    limits: Annotated[list[str] | None, typer.Argument(help="Names of limits; without any, all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Keep limits of a model no longer: files and settings hold again."""
    with opened_store() as engine:
        check(engine)
        before = policies.of_model(engine, model)
        _keep(engine, model, _without(before, limits, model))
        _tell({model: policies.of_model(engine, model)}, as_json)


def _without(before: Mapping[str, Mapping[str, JsonValue]], limits: list[str] | None, model: str) -> Policies:
    if limits is None:
        return {name: {} for name in before}
    after = {name: dict(body) for name, body in before.items()}
    for limit in limits:
        policy, _, name = limit.rpartition(".")
        if after.get(policy or policies.PROMOTION, {}).pop(name, None) is None:
            known = ", ".join(label for label, _ in _rows(before)) or "nothing"
            raise CommandFailed(f"no {limit} is kept for '{model}'", next_step=f"kept is: {known}")
    return after


def _refuse_senseless(wiring: Wiring, model: str, after: Mapping[str, Mapping[str, JsonValue]]) -> None:
    """Raises `NotServed` for a model that is not registered, `CommandFailed` for limits that clash."""
    registered = wiring.registry.registered_model(model)
    whole(after, wiring.settings.usual_plan, kind_of(registered.tags.get(Tag.MODEL_TYPE)))


def _keep(engine: Engine, model: str, after: Mapping[str, Mapping[str, JsonValue]]) -> None:
    actor, now = f"unverified:{getpass.getuser()}", datetime.now(UTC)
    for name, body in after.items():
        policies.put(engine, model, name, body or None, actor, now)


def _tell(kept: Mapping[str, Mapping[str, Mapping[str, JsonValue]]], as_json: bool) -> None:
    if as_json:
        print_json(kept)
        return
    rows = [(model, limit, text(value)) for model, bodies in kept.items() for limit, value in _rows(bodies)]
    print_table(("model", "limit", "value"), rows, empty="nothing is kept: policy files and settings hold")


def _rows(bodies: Mapping[str, Mapping[str, JsonValue]]) -> list[tuple[str, object]]:
    """Each limit by the name that `set` and `drop` take."""
    return [
        (limit if policy == policies.PROMOTION else f"{policy}.{limit}", _shown(value))
        for policy, body in bodies.items()
        for limit, value in body.items()
    ]


def _shown(value: JsonValue) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
