"""`signalbox policies`: limits are typed, checked, kept, shown and dropped; a plan goes by them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli.errors import CommandFailed
from flows.cli.policy_limits import read_limits, whole
from flows.rollout.policy import Usual
from serving.store import audit, policies
from serving.store.database import open_engine, upgrade
from tests.mlflow_double import MlflowDouble

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (["min_accuracy=0.9"], {"promotion": {"min_accuracy": 0.9}}),
        (["stages=10,100", "stage_seconds=30"], {"promotion": {"stages": [10, 100], "stage_seconds": 30.0}}),
        (["min_throughput=200"], {"promotion": {"min_throughput": 200.0}}),
        (["allow_signature_change=true"], {"promotion": {"allow_signature_change": True}}),
        (["approve_before=50"], {"promotion": {"approve_before": 50}}),
        (["judge.min_samples=200"], {"judge": {"min_samples": 200}}),
        (["judge.required=error_rate,latency"], {"judge": {"required": ["error_rate", "latency"]}}),
        (["judge.max_latency_ratio=1.5"], {"judge": {"max_latency_ratio": 1.5}}),
        (["health.min_functional_accuracy=0.7"], {"health": {"min_functional_accuracy": 0.7}}),
    ],
)
def test_limits_are_read_in_their_own_types(typed: list[str], kept: object) -> None:
    assert read_limits(typed) == kept


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("min_accuracy", "'min_accuracy' gives no value; write LIMIT=VALUE"),
        ("min_accuracy=", "gives no value"),
        ("speed=3", "there is no limit 'speed'; known are max_accuracy_drop"),
        ("judge.speed=3", "there is no limit 'judge.speed'; known are required, min_samples"),
        ("jury.size=12", "there is no limit 'jury.size'; parts are promotion, judge, health"),
        ("min_accuracy=1.5", "min_accuracy is a share between 0 and 1"),
        ("min_accuracy=high", "a limit cannot be kept: min_accuracy"),
        ("stages=50,20", "stages must rise"),
        ("judge.min_samples=0", "min_samples: Input should be greater than or equal to 1"),
        ("judge.required=charm", "required.0: Input should be"),
        ("health.min_functional_accuracy=2", "a share between 0 and 1, not 2"),
        ("health.min_functional_accuracy=low", "must be a number, not 'low'"),
    ],
)
def test_limit_is_refused_in_a_sentence_when_nobody_could_go_by_it(typed: str, sentence: str) -> None:
    with pytest.raises(CommandFailed) as refused:
        read_limits([typed])
    assert sentence in str(refused.value)


def test_limits_are_refused_together_when_they_clash() -> None:
    """Each is well on its own."""
    kept = {"promotion": {"stage_seconds": 60.0, "stage_deadline_seconds": 10.0}}
    with pytest.raises(CommandFailed, match="stage_deadline_seconds 10 is shorter than stage_seconds 60"):
        whole(kept, Usual(), None)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[MlflowDouble]:
    with MlflowDouble() as double:
        double.add("digits", tmp_path / "1", tmp_path / "2")
        yield double


def test_plan_goes_by_what_is_kept_until_it_is_dropped(home: Path, registry: MlflowDouble) -> None:
    """Set, shown, in the plan of a promotion, audited; what a command names goes before it; dropped."""
    store_url = f"sqlite:///{home / 'signalbox.db'}"
    upgrade(store_url)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "SIGNALBOX_MLFLOW_URL": registry.url}
        command = (sys.executable, "-P", "-m", "flows.cli.main", *arguments)
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env=environment
        )

    given = ("stages=10,100", "judge.min_samples=7", "min_accuracy=0.9")
    kept = run("policies", "set", "digits", *given, "--json")
    assert kept.returncode == 0, kept.stderr
    shown = run("policies")
    assert all(name in shown.stdout for name in ("stages", "10, 100", "judge.min_samples", "min_accuracy"))
    promotion = ("promote", "digits", "2", "--strategy", "staged", "--dry-run", "--json")
    plan = json.loads(run(*promotion).stdout)["plan"]
    assert (plan["stages"], plan["policy"]["min_samples"]) == ([10, 100], 7)
    assert json.loads(run(*promotion, "--stages", "100").stdout)["plan"]["stages"] == [100]
    unknown = run("policies", "set", "nope", "min_accuracy=0.9")
    assert (unknown.returncode, "nope" in unknown.stderr) == (1, True)
    never = run("policies", "drop", "digits", "max_p95_ms")
    assert "no max_p95_ms is kept for 'digits'; kept is: judge.min_samples" in never.stderr
    assert run("policies", "drop", "digits", "stages").returncode == 0
    assert json.loads(run(*promotion).stdout)["plan"]["stages"] == [5, 25, 50, 100]
    assert run("policies", "drop", "digits").returncode == 0
    assert "nothing is kept" in run("policies", "--model", "digits").stdout
    engine = open_engine(store_url)
    try:
        assert policies.of_model(engine, "digits") == {}
        changed = [row.entry.details["policy"] for row in audit.tail(engine, 20, action="policy")]
        assert sorted(map(str, changed)) == ["judge", "judge", "promotion", "promotion", "promotion"]
    finally:
        engine.dispose()
