"""`signalbox models`: which version each alias wants, which one serving answers with, and why not."""

from collections.abc import Iterator, Mapping
from typing import Any

from flows.cli.client import ServingClient
from flows.cli.console import AsJson, print_json, print_table, text
from flows.settings import FlowSettings

_COLUMNS = ("model", "alias", "wanted", "served", "format", "health", "loaded", "note")


def models(as_json: AsJson = False) -> None:
    """Show every followed model: per alias the version wanted and served, its format and health."""
    with ServingClient.of(FlowSettings()) as serving:
        body = serving.get("/api/v2/model-info")
    if as_json:
        print_json(body)
        return
    rows = [row for model in body.get("models", []) for row in rows_of(model)]
    print_table(_COLUMNS, rows, empty="no registered model is followed; give a version the alias 'champion'")


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
