"""`signalbox status`: each part's state, restarts and last exit; exit code 0 when all is well."""

from dataclasses import asdict

import typer

from flows.cli.console import AsJson, print_json, print_table, text
from flows.cli.frozen import known, say_frozen
from flows.cli.home import Home
from flows.cli.stack import PartView, view
from flows.cli.supervision import supervisor_process
from flows.settings import FlowSettings

_COLUMNS = ("part", "state", "pid", "restarts", "last exit", "url", "log")


def status(as_json: AsJson = False) -> None:
    """Show what runs for this home; exit code 1 when anything is not well."""
    settings = FlowSettings()
    home = Home(settings.home)
    rows = view(home, settings)
    if as_json:
        supervisor = supervisor_process(home)
        print_json(
            {
                "home": str(home.root),
                "supervisor_pid": supervisor.pid if supervisor is not None else None,
                "parts": [asdict(row) for row in rows],
                "freezes": [freeze.as_json() for freeze in known(settings)],
            }
        )
    else:
        print_table(_COLUMNS, map(_cells, rows), empty="no parts")
        say_frozen(known(settings))
    if not all(row.is_well for row in rows):
        raise typer.Exit(1)


def _cells(row: PartView) -> list[str]:
    return [text(value) for value in asdict(row).values()]
