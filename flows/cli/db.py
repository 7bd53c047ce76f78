"""`signalbox db`: the state store's schema."""

import typer

from flows.cli.console import say
from flows.settings import FlowSettings
from serving.store.database import upgrade

db_app = typer.Typer(help="Look after the state store.", no_args_is_help=True)


@db_app.callback()
def _group() -> None:
    """Keeps `upgrade` a command of its own while it is the only one."""


@db_app.command("upgrade")
def upgrade_store() -> None:
    """Create the state store or bring it to this release's schema."""
    settings = FlowSettings()
    upgrade(settings.database_url)
    say("the state store is at this release's schema")
