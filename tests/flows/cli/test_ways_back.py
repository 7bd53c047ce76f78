"""`freeze` and `restore-points` at the command line: set, shown, compared, lifted, refused in a sentence."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from sqlalchemy import Engine
from typer.testing import CliRunner

from flows.cli.errors import CommandFailed
from flows.cli.freeze import freeze
from flows.cli.main import app
from flows.cli.restore_points import restore_points_app
from serving.core.errors import SignalboxError
from serving.store import rollouts
from serving.store.database import open_engine, upgrade
from tests.mlflow_double import MlflowDouble
from tests.store.points import NOW

freeze_app = typer.Typer()
freeze_app.command()(freeze)


@pytest.fixture
def engine(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A store, and a registry whose model `digits` has versions 1 and 2, 1 being champion."""
    with MlflowDouble() as double:
        double.add("digits", tmp_path / "1", tmp_path / "2")
        double.point("digits", "1")
        monkeypatch.setenv("SIGNALBOX_MLFLOW_URL", double.url)
        url = f"sqlite:///{home / 'signalbox.db'}"
        upgrade(url)
        engine = open_engine(url)
        yield engine
        engine.dispose()


def output(command: typer.Typer, *arguments: str) -> str:
    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def failure(command: typer.Typer, *arguments: str) -> str:
    """The sentence of the command's error."""
    result = CliRunner().invoke(command, list(arguments))
    assert isinstance(result.exception, CommandFailed | SignalboxError)
    return str(result.exception)


def test_freeze_is_shown_until_it_is_lifted(engine: Engine) -> None:
    """What was begun before it is named; a list of rollouts tells of it."""
    request = rollouts.Request(model="digits", version="2", strategy="direct", requested_by="bob")
    rollouts.enter(engine, request, NOW, NOW)
    told = output(freeze_app, "digits", "--until", "2h", "--reason", "big sale")
    assert "'digits' is frozen by" in told
    assert "begun before it, and going on: digits version 2" in told
    assert "big sale" in output(freeze_app)
    assert json.loads(output(freeze_app, "other", "--json")) == []
    assert "nothing is promoted" in output(app, "rollouts", "digits")
    assert "lifted:" in output(freeze_app, "digits", "--lift")
    assert "nothing is frozen" in output(freeze_app)
    assert "there is no freeze of 'digits'" in failure(freeze_app, "digits", "--lift")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--until", "soon"), "'soon' is no time; write it as"),
        (("--until", "-1h"), "is over already"),
        (("--until", "2h", "--lift"), "give --until or --lift, not both"),
    ],
)
def test_freeze_is_refused_in_a_sentence(engine: Engine, arguments: tuple[str, ...], sentence: str) -> None:
    assert sentence in failure(freeze_app, *arguments)


def test_restore_point_is_made_shown_and_compared(engine: Engine) -> None:
    """By the beginning of its id, as people type it."""
    made = json.loads(output(restore_points_app, "create", "digits", "--reason", "before lunch", "--json"))
    assert made["champion"] == "1"
    listed = output(restore_points_app, "--model", "digits")
    assert all(cell in listed for cell in (made["id"][:12], "before lunch", "not checked yet", "by hand"))
    assert "model.aliases.champion" in output(restore_points_app, "show", made["id"][:6])
    assert "nothing has changed" in output(restore_points_app, "diff", made["id"])
    later = json.loads(output(restore_points_app, "create", "digits", "--json"))
    assert "nothing has changed" in output(restore_points_app, "diff", made["id"], later["id"])


def test_restore_point_is_refused_in_a_sentence(engine: Engine) -> None:
    assert "no restore point yet" in output(restore_points_app)
    assert "there is no restore point 'nope'" in failure(restore_points_app, "show", "nope")
    assert "nope" in failure(restore_points_app, "create", "nope")
