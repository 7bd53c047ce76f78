"""`models` and `models diff` as a user runs them: tables, JSON, aliases, and a sentence for every failure."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from serving.store import reports
from serving.store.database import open_engine, upgrade
from tests.mlflow_double import Fault, MlflowDouble
from tests.mlflow_server import free_port
from tests.models import onnx_adder, onnx_net

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[MlflowDouble]:
    """Three versions of digits: two small networks, one with more channels, and something else."""
    with MlflowDouble() as double:
        folders = [onnx_net(tmp_path / "1"), onnx_net(tmp_path / "2", 8), onnx_adder(tmp_path / "3")]
        double.add("digits", *folders)
        double.point("digits", "1")
        double.point("digits", "2", "challenger")
        model = double.models["digits"]
        for number, epochs, loss in (("1", "3", 0.25), ("2", "30", 0.125)):
            model.versions[number].run_id = f"r{number}"
            double.runs[f"r{number}"] = {
                "data": {
                    "params": [{"key": "epochs", "value": epochs}, {"key": "seed", "value": "7"}],
                    "metrics": [{"key": "loss", "value": loss}],
                }
            }
        model.versions["2"].tags["team"] = "vision"
        yield double


@pytest.fixture
def store_url(home: Path) -> str:
    url = f"sqlite:///{home / 'signalbox.db'}"
    upgrade(url)
    return url


@pytest.fixture
def run(home: Path, registry: MlflowDouble, store_url: str) -> Run:
    def signalbox(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        ours = {"PYTHONPATH": str(ROOT), "SIGNALBOX_MLFLOW_URL": registry.url}
        return subprocess.run(
            [sys.executable, "-P", "-m", "flows.cli.main", "models", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, **ours, **variables},
        )

    return signalbox


def keep(store_url: str, kind: str, version: str, body: Mapping[str, Any]) -> None:
    engine = open_engine(store_url)
    reports.save(
        engine,
        reports.Report(
            id=f"{kind}-{version}",
            kind=kind,
            model="digits",
            version=version,
            verdict="passed",
            created_at=NOW,
            body=body,
        ),
    )
    engine.dispose()


def rows(output: str) -> dict[tuple[str, str], list[str]]:
    """Table rows by area and name."""
    cells = [line.split() for line in output.splitlines()]
    return {(row[0], row[1]): row[2:] for row in cells if len(row) > 2}


def test_diff_shows_what_changed_when_versions_are_named_by_alias(run: Run, store_url: str) -> None:
    """Files, measurements, parameters and tags in one table; the rest is counted or named as unknown."""
    for number, p95, accuracy in (("1", 4.0, 0.9), ("2", 6.0, 0.95)):
        keep(store_url, "benchmark", number, {"latency_ms": {"p50": 1.0, "p95": p95}})
        evidence = {"accuracy": accuracy}
        keep(store_url, "validation", number, {"checks": [{"name": "accuracy", "evidence": evidence}]})
    done = run("diff", "digits", "champion", "challenger")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("digits: version 1 → 2, ")
    found = rows(done.stdout)
    assert found["size", "parameter_count"] == ["690", "1,370", "+98.6", "%"]
    assert found["latency", "p95_ms"] == ["4", "6", "+50.0", "%"]
    assert ("latency", "p50_ms") not in found
    assert found["metrics", "accuracy"] == ["0.9", "0.95", "+5.6", "%"]
    assert found["metrics", "training"] == ["loss", "0.25", "0.125", "-50.0", "%"]
    assert found["parameters", "epochs"] == ["3", "30", "changed"]
    assert found["tags", "team"] == ["-", "vision", "new"]
    assert "unchanged: " in done.stdout


def test_diff_shows_signature_and_operators_when_the_network_is_another(run: Run) -> None:
    """An operator that went is there zero times."""
    done = run("diff", "digits", "1", "3")
    assert "FP32 [-1, 1, 8, 8]" in done.stdout
    found = rows(done.stdout)
    assert found["operators", "Conv"] == ["1", "0", "gone"]
    assert found["operators", "Add"] == ["0", "1", "new"]
    assert "latency not compared: version 1 and version 3: never benchmarked" in done.stdout
    assert "parameters not compared: version 3: it has no run" in done.stdout


def test_diff_fetches_nothing_when_descriptions_are_on_record(run: Run, registry: MlflowDouble) -> None:
    """The first comparison leaves them there; `--all` shows what stayed the same too."""
    assert run("diff", "digits", "1", "2").returncode == 0
    seen = len(registry.seen)
    done = run("diff", "digits", "1", "2", "--all")
    assert not [call for call in registry.seen[seen:] if "mlflow-artifacts" in call]
    assert rows(done.stdout)["parameters", "seed"] == ["7", "7"]


def test_diff_prints_json_when_asked(run: Run) -> None:
    """Every compared value, changed or not, and what is unknown."""
    told = json.loads(run("diff", "digits", "1", "2", "--json").stdout)
    assert (told["model"], told["old"], told["new"]) == ("digits", "1", "2")
    assert told["changed"] == sum(row["changed"] for row in told["rows"])
    [epochs] = [row for row in told["rows"] if row["name"] == "epochs"]
    assert (epochs["before"], epochs["after"], epochs["ratio"]) == ("3", "30", None)
    assert told["unknown"]["latency"] == ["1", "2"]


def test_diff_says_so_when_both_names_are_one_version(run: Run) -> None:
    done = run("diff", "digits", "1", "champion")
    assert done.returncode == 0
    assert "nothing that is known differs" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nope", "1", "2"), ("model 'nope'",)),
        (("digits", "1", "9"), ("has no version 9", "available: 1, 2, 3, challenger, champion")),
        (("digits", "previous", "1"), ("has no alias 'previous'", "champion")),
        (("digits", "1.5", "1"), ("has no alias '1.5'",)),
    ],
)
def test_diff_fails_in_a_sentence_when_something_is_not_there(
    run: Run, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    """What there is, is named."""
    done = run("diff", *arguments)
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words), line


def test_diff_fails_in_a_sentence_when_the_registry_is_away(run: Run) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = run("diff", "digits", "1", "2", SIGNALBOX_MLFLOW_URL=url)
    assert done.returncode == 1
    assert url in done.stderr


def test_diff_compares_the_rest_when_the_store_is_away(run: Run, tmp_path: Path) -> None:
    """A missing store is not created by looking; a version that cannot be read leaves its files unknown."""
    missing = tmp_path / "elsewhere.db"
    done = run("diff", "digits", "1", "2", SIGNALBOX_STORE_URL=f"sqlite:///{missing}")
    assert done.returncode == 0
    assert rows(done.stdout)["size", "parameter_count"] == ["690", "1,370", "+98.6", "%"]
    assert "note: nothing measured is known" in done.stdout
    assert not missing.exists()


def test_diff_compares_the_rest_when_files_are_gone(run: Run, registry: MlflowDouble) -> None:
    """The reason is a note."""
    registry.fault = Fault(500, where="mlflow-artifacts")
    done = run("diff", "digits", "1", "2")
    assert done.returncode == 0
    assert rows(done.stdout)["parameters", "epochs"] == ["3", "30", "changed"]
    assert "operators not compared: version 1 and version 2" in done.stdout
    assert "note: files of version 1: " in done.stdout
