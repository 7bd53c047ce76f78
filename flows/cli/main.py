"""The `signalbox` console script: one command per row below, every failure one sentence on stderr."""

import importlib
import sys
from typing import Annotated

import httpx
import typer
from pydantic import ValidationError

from flows.cli.alerts import alerts_app
from flows.cli.audit import audit_app
from flows.cli.benchmark import benchmark
from flows.cli.db import db_app
from flows.cli.down import down
from flows.cli.drift import drift
from flows.cli.freeze import freeze
from flows.cli.health import health
from flows.cli.keys import keys_app
from flows.cli.models import models_app
from flows.cli.policies import policies_app
from flows.cli.promote import promote
from flows.cli.register import register_file
from flows.cli.restore_points import restore_points_app
from flows.cli.rollback import rollback
from flows.cli.rollouts import rollouts
from flows.cli.serve import serve
from flows.cli.status import status
from flows.cli.traffic import traffic
from flows.cli.up import up
from flows.cli.validate import validate
from serving.core.errors import SignalboxError

app = typer.Typer(
    help="Follows the aliases of an MLflow registry and swaps model versions under live traffic.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    up,
    down,
    status,
    serve,
    promote,
    rollouts,
    rollback,
    freeze,
    traffic,
    health,
    drift,
    validate,
    benchmark,
):
    app.command()(command)
app.command(name="register")(register_file)
app.add_typer(alerts_app, name="alerts")
app.add_typer(audit_app, name="audit")
app.add_typer(db_app, name="db")
app.add_typer(keys_app, name="keys")
app.add_typer(models_app, name="models")
app.add_typer(policies_app, name="policies")
app.add_typer(restore_points_app, name="restore-points")


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end.")] = False,
) -> None:
    """Play the whole story with live traffic, in a home of its own."""
    # It needs packages that a running system does not.
    played: int = importlib.import_module("flows.cli.demo.run").play(keep=keep)
    raise typer.Exit(played)


def main() -> None:
    """Run the command line; the exit code is 0 only on success."""
    try:
        app()
    except (SignalboxError, httpx.HTTPError) as error:
        _fail(str(error))
    except ValidationError as error:
        _fail(_about_settings(error))


def _fail(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(1)


def _about_settings(error: ValidationError) -> str:
    """Which variable is wrong, without showing its value, which may be a secret."""
    wrong = (
        f"SIGNALBOX_{'_'.join(map(str, found['loc'])).upper()}: {found['msg']}"
        for found in error.errors(include_url=False, include_input=False)
    )
    return f"a setting cannot be used: {'; '.join(wrong)}; correct it in the environment or in .env"


if __name__ == "__main__":
    main()
