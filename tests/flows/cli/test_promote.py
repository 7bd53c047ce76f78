"""`promote` and `rollouts` as a user runs them, with Prefect away: recorded, joined, followed, refused."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from serving.store import rollouts
from serving.store.database import open_engine, upgrade
from serving.store.rollouts import State
from tests.mlflow_double import MlflowDouble
from tests.mlflow_server import free_port

ROOT = Path(__file__).parents[3]
COMMAND = (sys.executable, "-P", "-m", "flows.cli.main")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[MlflowDouble]:
    """Versions 1 and 2 of digits."""
    with MlflowDouble() as double:
        double.add("digits", tmp_path / "1", tmp_path / "2")
        yield double


@pytest.fixture
def store_url(home: Path) -> str:
    url = f"sqlite:///{home / 'signalbox.db'}"
    upgrade(url)
    return url


@pytest.fixture
def environment(home: Path, registry: MlflowDouble, store_url: str) -> dict[str, str]:
    """That registry, and a Prefect that is not there."""
    ours = {
        "PYTHONPATH": str(ROOT),
        "SIGNALBOX_MLFLOW_URL": registry.url,
        "SIGNALBOX_PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api",
    }
    return {**os.environ, **ours}


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """Run `signalbox` to its end."""

    def signalbox(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment | variables,
        )

    return signalbox


def recorded(store_url: str) -> list[rollouts.Rollout]:
    engine = open_engine(store_url)
    try:
        return rollouts.recent(engine)
    finally:
        engine.dispose()


def finish(store_url: str, state: State, reason: str) -> None:
    engine = open_engine(store_url)
    try:
        [rollout] = rollouts.open_rollouts(engine)
        rollouts.finish(engine, rollout, state, reason, "test", datetime.now(UTC), None)
    finally:
        engine.dispose()


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 1, result.stdout + result.stderr
    [line] = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--strategy", "direct", "--stages", "5,100"), "a direct promotion has no stages for --stages"),
        (("--stages", "100,5"), "stages must rise to 100, from shadow (0) or more, not 100,5"),
        (("--stage-seconds", "0"), "stage_seconds must be more than 0"),
        (("--stage-seconds", "60", "--stage-deadline-seconds", "9"), "is shorter than stage_seconds 60"),
    ],
)
def test_promote_refuses_when_its_stages_cannot_be(
    run: Run, store_url: str, options: tuple[str, ...], words: str
) -> None:
    """Said in a sentence, and nothing is recorded."""
    assert_refused(run("promote", "digits", "2", *options), words)
    assert recorded(store_url) == []


def test_promote_refuses_when_the_policy_cannot_be_read(run: Run, store_url: str, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text("[default]\nmin_samples = 'many'\n")
    refused = run("promote", "digits", "2", SIGNALBOX_ROLLOUT_POLICY=str(own))
    assert_refused(refused, str(own), "table default: min_samples: ")
    assert recorded(store_url) == []


def test_dry_run_prints_the_plan_and_records_nothing(
    run: Run, store_url: str, registry: MlflowDouble
) -> None:
    """Stages, times, gate and every limit, for people and for machines."""
    registry.point("digits", "1")
    options = ("promote", "digits", "2", "--dry-run", "--stages", "10,100", "--approve-before", "100")
    shown = run(*options)
    assert shown.returncode == 0, shown.stderr
    assert "digits: version 2 in the place of 1, staged" in shown.stdout
    assert "approval first" in shown.stdout
    assert "max_latency_ratio" in shown.stdout
    plan = json.loads(run(*options, "--json").stdout)["plan"]
    assert (plan["stages"], plan["stage_seconds"], plan["stage_deadline_seconds"]) == ([10, 100], 60.0, 900.0)
    assert recorded(store_url) == []


def test_command_is_left_for_the_rollout_when_a_person_gives_it(run: Run, store_url: str) -> None:
    """By the beginning of its id; an unknown command or rollout is refused in a sentence."""
    run("promote", "digits", "2")
    [rollout] = recorded(store_url)
    asked = run("rollouts", "abort", rollout.id[:8])
    assert asked.returncode == 0, asked.stderr
    assert f"rollout {rollout.id}: asked to abort" in asked.stdout
    [rollout] = recorded(store_url)
    assert rollout.asked is not None
    assert (rollout.asked.command, rollout.asked.by[:11]) == ("abort", "unverified:")
    assert_refused(run("rollouts", "hurry", rollout.id), "use approve, pause, resume, abort")
    assert_refused(run("rollouts", "abort", "f00"), "no rollout begins with 'f00'")


@pytest.mark.parametrize(
    ("model", "version", "words"),
    [
        pytest.param("digits", "9", ("no version 9 of 'digits'", "versions 1, 2"), id="version"),
        pytest.param("nope", "1", ("no version 1 of 'nope'", "digits"), id="model"),
    ],
)
def test_promote_refuses_when_there_is_no_such_version(
    run: Run, store_url: str, model: str, version: str, words: tuple[str, ...]
) -> None:
    """The sentence names what exists."""
    assert_refused(run("promote", model, version), *words)
    assert recorded(store_url) == []


def test_promote_fails_in_a_sentence_when_mlflow_is_away(run: Run) -> None:
    """Whether the version exists cannot be known then."""
    url = f"http://127.0.0.1:{free_port()}"
    assert_refused(run("promote", "digits", "2", SIGNALBOX_MLFLOW_URL=url), url)


def test_promote_records_rollout_when_prefect_is_away(run: Run, store_url: str) -> None:
    """The request is not lost: a second one joins it, another version has to wait."""
    first = run("promote", "digits", "2", "--min-accuracy", "0.9")
    assert first.returncode == 0, first.stderr
    assert "the rollout is recorded and starts when Prefect is back" in first.stderr
    [rollout] = recorded(store_url)
    assert rollout.id in first.stdout
    assert (rollout.version, rollout.state) == ("2", State.OPEN)
    assert rollout.requested_by.startswith("unverified:")
    assert rollout.policy == {"min_accuracy": 0.9}
    second = run("promote", "digits", "2")
    assert second.returncode == 0
    assert f"rollout {rollout.id} joined" in second.stdout
    assert_refused(run("promote", "digits", "1"), "version 2 of 'digits' is being promoted by unverified:")
    assert len(recorded(store_url)) == 1


@pytest.mark.parametrize(
    ("state", "code"),
    [
        pytest.param(State.PROMOTED, 0, id="promoted"),
        pytest.param(State.REFUSED, 1, id="refused"),
        pytest.param(State.ROLLED_BACK, 1, id="rolled back"),
        pytest.param(State.SUPERSEDED, 1, id="superseded"),
        pytest.param(State.FAILED, 1, id="failed"),
    ],
)
def test_waiting_ends_with_the_verdict_when_there_is_one(
    environment: dict[str, str], store_url: str, state: State, code: int
) -> None:
    """The exit code and the last line tell how it ended."""
    command = [*COMMAND, "promote", "digits", "2", "--wait"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        said = [next(line for line in process.stdout if line.endswith(" requested\n"))]
        finish(store_url, state, "because of this")
        said += process.stdout
    assert process.returncode == code, said
    assert "version 2 of digits" in said[-1]
    assert "because of this" in said[-1]


def test_waiting_ends_with_its_own_code_when_time_is_up(run: Run) -> None:
    """A rollout that is still open has neither succeeded nor failed."""
    result = run("promote", "digits", "2", "--wait", "--wait-seconds", "0")
    assert result.returncode == 2
    assert "still at requested" in result.stderr


def test_rollouts_are_listed_when_recorded(run: Run) -> None:
    """As a table, as JSON, of one model or of all; none is said so."""
    assert "no rollout is recorded" in run("rollouts").stdout
    run("promote", "digits", "2")
    assert "digits" in run("rollouts").stdout
    [found] = json.loads(run("rollouts", "digits", "--json").stdout)
    assert {"model": "digits", "version": "2", "state": "open", "step": "requested"}.items() <= found.items()
    assert "no rollout of 'other' is recorded" in run("rollouts", "other").stdout
    nothing: list[Any] = json.loads(run("rollouts", "other", "--json").stdout)
    assert nothing == []
