"""`signalbox models`: which version each alias wants and serves, and what differs between two versions."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Annotated, Any

import typer
from rich.console import Console

from flows.catalog.descriptions import Descriptions
from flows.catalog.difference import Compared, Comparison, cells, remarks
from flows.cli.client import ServingClient
from flows.cli.console import AsJson, print_json, print_table, say, text
from flows.cli.frozen import known, say_frozen
from flows.settings import FlowSettings
from flows.wiring import wired

models_app = typer.Typer(help="Show followed models, or compare two versions.", invoke_without_command=True)

_COLUMNS = ("model", "alias", "wanted", "served", "format", "health", "loaded", "note")

Name = Annotated[str, typer.Argument(help="The registered model.")]
First = Annotated[str, typer.Argument(help="The older version: a number or an alias.")]
Second = Annotated[str, typer.Argument(help="The newer version: a number or an alias.")]
Everything = Annotated[bool, typer.Option("--all", help="Show what stayed the same too.")]


@models_app.callback()
def _list_by_default(context: typer.Context, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        show(as_json)


@models_app.command(name="list")
def show(as_json: AsJson = False) -> None:
    """Show every followed model: per alias the version wanted and served, its format and health."""
    settings = FlowSettings()
    with ServingClient.of(settings) as serving:
        body = serving.get("/api/v2/model-info")
    if as_json:
        print_json(body)
        return
    rows = [row for model in body.get("models", []) for row in rows_of(model)]
    print_table(_COLUMNS, rows, empty="no registered model is followed; give a version the alias 'champion'")
    say_frozen(known(settings))


@models_app.command()
def diff(
    model: Name, first: First, second: Second, everything: Everything = False, as_json: AsJson = False
) -> None:
    """Compare two versions: signature, file, size, operators, metrics, latency, parameters and tags."""
    console = Console(stderr=True)
    with (
        console.status("comparing") if console.is_terminal else nullcontext(),
        wired() as wiring,
    ):
        descriptions = Descriptions(wiring.settings, wiring.engine, wiring.client, wiring.registry)
        comparison = Comparison(wiring.registry, wiring.engine, descriptions)
        compared = comparison.of(model, first, second, wiring.clock.now())
    if as_json:
        print_json(compared.as_json())
    else:
        _print(compared, everything)


def _print(compared: Compared, everything: bool) -> None:
    found = compared.found
    say(f"{compared.model}: version {found.old} → {found.new}, {len(found.changed)} differences")
    columns = ("area", "what", f"version {found.old}", f"version {found.new}", "change")
    print_table(columns, cells(found, everything=everything), empty="nothing that is known differs")
    for line in remarks(compared):
        say(line)


def rows_of(model: Mapping[str, Any]) -> Iterator[list[str]]:
    """One row per alias, then one per version that is loaded without an alias."""
    versions = {str(version["version"]): version for version in model.get("versions") or []}
    aliases: Mapping[str, Mapping[str, Any]] = model.get("aliases") or {}
    for alias, state in sorted(aliases.items()):
        yield _row(model, alias, state, versions)
    named = {
        str(number) for state in aliases.values() for number in (state.get("wanted"), state.get("served"))
    }
    for number in sorted(versions.keys() - named, key=int):
        if versions[number].get("loaded"):
            note = "kept warm, to go back to" if number == model.get("previous") else None
            yield _row(model, None, {"served": number, "reason": note}, versions)


def _row(
    model: Mapping[str, Any],
    alias: str | None,
    state: Mapping[str, Any],
    versions: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    wanted, served = state.get("wanted"), state.get("served")
    version = versions.get(str(served if served is not None else wanted), {})
    cells = [model.get("name"), alias, wanted, served, version.get("format"), version.get("health")]
    cells += [version.get("loaded"), state.get("reason") or model.get("registry_stale")]
    return [text(cell) for cell in cells]
