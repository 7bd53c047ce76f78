"""`signalbox health`: the status of each served model on its four levels; exit code 1 on critical.

With `--now` the functional level is measured first, instead of within the minute.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from flows.cli.client import ServingClient
from flows.cli.console import AsJson, print_json, print_table, say, text
from flows.cli.health_check import check_now, shown
from flows.settings import FlowSettings
from serving.core.health import Level, Status

_COLUMNS = ("model", "version", "alias", "status", *Level, "message")


def health(
    model: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    now: Annotated[bool, typer.Option("--now", help="Run the health check first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the health of the served models; exit code 1 when one is critical."""
    with ServingClient.of(FlowSettings()) as serving:
        said, measured = check_now(model) if now else ([], {})
        body = shown(serving, model, measured)
    if as_json:
        print_json(body | {"checked": said} if now else body)
    else:
        for sentence in said:
            say(f"checked {sentence}")
        print_table(_COLUMNS, map(row_of, body.get("models", [])), empty="no model is served")
    if body.get("status") == Status.CRITICAL:
        raise typer.Exit(1)


def row_of(model: Mapping[str, Any]) -> list[str]:
    """Statuses by level, and the messages of those levels that are not healthy."""
    levels: Mapping[str, Mapping[str, Any]] = model.get("levels") or {}
    complaints = [
        f"{level}: {report.get('message')}"
        for level, report in levels.items()
        if report.get("status") in (Status.WARNING, Status.CRITICAL)
    ]
    cells = [model.get(name) for name in ("model", "version", "alias", "status")]
    cells += [levels.get(level, {}).get("status") for level in Level]
    return [text(cell) for cell in (*cells, "; ".join([*complaints, *(model.get("recommendations") or [])]))]
