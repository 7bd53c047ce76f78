"""The commands as a user runs them: output, exit codes, and one sentence for every failure."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text as sql

from serving.store import audit, database
from tests.flows.answers import Answers, Asked, answering
from tests.mlflow_server import free_port

ROOT = Path(__file__).parents[3]
Run = Callable[..., subprocess.CompletedProcess[str]]

MODELS = {
    "models": [
        {
            "name": "digits",
            "aliases": {
                "champion": {"wanted": "3", "served": "2", "reason": "version 3 returns the wrong shape"},
                "previous": {"wanted": "1", "served": "1", "reason": None},
            },
            "previous": "1",
            "versions": [
                {"version": "1", "format": "torchscript", "loaded": True, "health": None},
                {"version": "2", "format": "onnx", "loaded": True, "health": "healthy"},
                {"version": "3", "format": None, "loaded": False, "health": None},
            ],
        }
    ]
}


@pytest.fixture
def run(home: Path) -> Run:
    """Run `signalbox` in a process of its own, with the test's home."""

    def signalbox(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "flows.cli.main", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        )

    return signalbox


def assert_one_sentence(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 1
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert all(word in lines[0] for word in words), lines[0]


@pytest.mark.parametrize(
    "command", [("models",), ("health",), ("rollback", "digits"), ("rollback", "digits", "--json")]
)
def test_command_fails_in_a_sentence_when_serving_is_away(run: Run, command: tuple[str, ...]) -> None:
    """The URL and the next step are named, without a traceback."""
    url = f"http://127.0.0.1:{free_port()}"
    assert_one_sentence(run(*command, SIGNALBOX_SERVING_URL=url), url, "signalbox up")


def test_command_fails_in_a_sentence_when_a_setting_is_wrong(run: Run) -> None:
    """The variable is named, its value is not shown."""
    result = run("status", SIGNALBOX_PORT="s3cret")
    assert_one_sentence(result, "SIGNALBOX_PORT")
    assert "s3cret" not in result.stderr


def test_command_passes_on_the_servers_sentence_when_refused(run: Run) -> None:
    """An error body of serving reaches the user, with a step for a wrong key."""
    with answering(lambda _: (401, {"error": "the key is not valid"})) as serving:
        result = run("models", SIGNALBOX_SERVING_URL=serving.url)
    assert_one_sentence(result, "the key is not valid", "admin.key")


def test_command_fails_in_a_sentence_when_a_stranger_answers(run: Run) -> None:
    """A page of some other server is not taken for an answer."""
    with answering(lambda _: (200, "<html>")) as serving:
        assert_one_sentence(run("health", SIGNALBOX_SERVING_URL=serving.url), "SIGNALBOX_SERVING_URL")


def test_models_shows_wanted_and_served_apart_when_a_version_was_refused(run: Run) -> None:
    """One row per alias, and why the wanted version does not answer."""
    with answering(lambda _: (200, MODELS)) as serving:
        table = run("models", SIGNALBOX_SERVING_URL=serving.url)
        plain = run("models", "--json", SIGNALBOX_SERVING_URL=serving.url)
    rows = [line.split() for line in table.stdout.splitlines()]
    assert rows[1][:7] == ["digits", "champion", "3", "2", "onnx", "healthy", "yes"]
    assert "version 3 returns the wrong shape" in table.stdout
    assert rows[2][:4] == ["digits", "previous", "1", "1"]
    assert json.loads(plain.stdout) == MODELS


@pytest.mark.parametrize(
    ("status", "code"), [("healthy", 0), ("warning", 0), ("unknown", 0), ("critical", 1)]
)
def test_health_exit_code_is_one_when_critical(run: Run, status: str, code: int) -> None:
    """Only a critical model makes the command fail, and its message is shown."""
    level = {"status": status, "message": "told you so", "checked_at": None}
    model = {"model": "m", "version": "1", "alias": "champion", "status": status, "levels": {"basic": level}}
    with answering(lambda _: (200, {"status": status, "models": [model]})) as serving:
        result = run("health", "m", SIGNALBOX_SERVING_URL=serving.url)
    assert result.returncode == code
    assert status in result.stdout
    assert serving.asked[0].path == "/api/v2/model-health?model=m"


def rollback_server(*, registry: str = "settled", success: bool = True) -> Callable[[Asked], tuple[int, Any]]:
    def respond(asked: Asked) -> tuple[int, Any]:
        if asked.method == "POST":
            return 202, {"rollback_id": "r1", "status_url": "/api/v2/rollback/r1", "from": "2", "to": "1"}
        return 200, {"state": "completed", "success": success, "registry": registry, "message": "because"}

    return respond


def test_rollback_shows_the_way_when_done(run: Run) -> None:
    """The wish is posted with the home's key, and from and to are printed."""
    with answering(rollback_server()) as serving:
        result = run("rollback", "digits", "--version", "1", SIGNALBOX_SERVING_URL=serving.url)
    assert result.returncode == 0, result.stderr
    assert "digits: version 2 → 1" in result.stdout
    assert serving.asked[0].body == {"model": "digits", "strategy": "instant", "version": "1"}
    assert serving.asked[1].path == "/api/v2/rollback/r1"


def test_rollback_fails_in_a_sentence_when_it_did_not_succeed(run: Run) -> None:
    """The reason is the server's."""
    with answering(rollback_server(success=False)) as serving:
        assert_one_sentence(run("rollback", "digits", SIGNALBOX_SERVING_URL=serving.url), "because")


def emergency(run: Run, first: Answers, replicas: str) -> subprocess.CompletedProcess[str]:
    return run(
        "rollback", "digits", "--strategy", "emergency",
        SIGNALBOX_SERVING_URL=first.url, SIGNALBOX_REPLICA_URLS=replicas,
    )  # fmt: skip


def test_emergency_rollback_reaches_all_when_one_replica_is_away(run: Run) -> None:
    """Every replica is tried, the one that cannot be reached is named, and the command does not succeed."""
    away = f"http://127.0.0.1:{free_port()}"
    with answering(rollback_server(registry="pending")) as first, answering(rollback_server()) as last:
        result = emergency(run, first, f"{away},{last.url}")
    assert result.returncode == 1
    assert result.stdout.count("version 2 → 1") == 2
    assert last.asked[0].body == {"model": "digits", "strategy": "emergency"}
    assert away in result.stderr
    assert "MLflow's alias still names version 2" in result.stderr


def test_emergency_rollback_succeeds_when_every_replica_went_back(run: Run) -> None:
    """MLflow's alias may follow later."""
    with answering(rollback_server(registry="pending")) as first, answering(rollback_server()) as last:
        assert emergency(run, first, last.url).returncode == 0


def recorded(home: Path, rows: int) -> str:
    """A store with some audit rows; its URL."""
    home.mkdir(exist_ok=True)
    url = f"sqlite:///{home / 'signalbox.db'}"
    database.upgrade(url)
    engine = database.open_engine(url)
    try:
        with database.writing(engine) as connection:
            for number in range(rows):
                at = datetime(2026, 1, 2, tzinfo=UTC)
                audit.append(
                    connection, audit.AuditEntry(action=f"act{number}", actor="me", model="m", at=at)
                )
    finally:
        engine.dispose()
    return url


def test_audit_shows_last_rows_when_asked(run: Run, home: Path) -> None:
    """`audit` alone is `audit tail`; times carry their offset; rows are newest last."""
    recorded(home, rows=3)
    assert "act0" in run("audit").stdout
    listed = json.loads(run("audit", "tail", "-n", "2", "--json").stdout)
    assert [row["action"] for row in listed] == ["act1", "act2"]
    assert listed[0]["at"] == "2026-01-02T00:00:00+00:00"


def test_audit_verify_names_row_when_one_byte_changed(run: Run, home: Path) -> None:
    """An untouched trail passes; a changed one fails and the row is named."""
    url = recorded(home, rows=3)
    assert run("audit", "verify").returncode == 0
    engine = database.open_engine(url)
    with database.writing(engine) as connection:
        connection.execute(sql("UPDATE audit SET text = replace(text, 'act1', 'acz1')"))
    engine.dispose()
    assert_one_sentence(run("audit", "verify"), "row 2")
    found = run("audit", "verify", "--json")
    assert (found.returncode, json.loads(found.stdout)["first_broken"]) == (1, 2)


def test_audit_fails_in_a_sentence_when_there_is_no_store(run: Run, home: Path) -> None:
    """Reading creates nothing."""
    home.mkdir()
    assert_one_sentence(run("audit", "verify"), "signalbox db upgrade")
    assert not (home / "signalbox.db").exists()


def test_db_upgrade_creates_store_when_missing(run: Run, home: Path) -> None:
    """Afterwards the store can be read."""
    assert run("db", "upgrade").returncode == 0
    assert run("audit", "verify").returncode == 0


def test_status_and_down_say_so_when_nothing_runs(run: Run, home: Path) -> None:
    """Both work in a home that was never used; status does not call that well."""
    result = run("status", "--json")
    assert result.returncode == 1
    assert [part["state"] for part in json.loads(result.stdout)["parts"]] == ["stopped"] * 4
    stopped = run("down")
    assert stopped.returncode == 0
    assert "nothing was running" in stopped.stdout
    assert not home.exists()


def test_up_refuses_in_a_sentence_when_a_port_is_held(run: Run, home: Path) -> None:
    """The port's server is named; nothing is left running and no store was made."""
    with answering(lambda _: (404, "no")) as stranger:
        result = run("up", "--detach", SIGNALBOX_MLFLOW_URL=stranger.url)
    assert_one_sentence(result, str(stranger.port), f"pid {os.getpid()}", "SIGNALBOX_MLFLOW_URL")
    assert not (home / "signalbox.db").exists()
    assert not (home / "run" / "stack.json").exists()


def test_up_refuses_in_a_sentence_when_mlflow_is_missing_elsewhere(run: Run) -> None:
    """What is not this machine's is not started here."""
    result = run("up", SIGNALBOX_MLFLOW_URL="http://mlflow.invalid:5000")
    assert_one_sentence(result, "http://mlflow.invalid:5000", "SIGNALBOX_MLFLOW_URL")
