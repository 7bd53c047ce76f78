"""`benchmark-model` on a real Prefect, and the benchmark inside a promotion, with a real MLflow."""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.benchmark_model import benchmarker
from flows.catalog.baseline import KIND
from flows.catalog.benchmark_report import BenchmarkReport
from flows.catalog.verdict import Verdict
from flows.wiring import Wiring, wired
from serving.core.model import Tag, VersionRef
from serving.store import reports, rollouts
from serving.store.rollouts import Request, Rollout
from tests.flows.catalog.registered import Model
from tests.flows.conftest import SettingsFactory
from tests.mlflow_server import MlflowServer
from tests.models import describe, onnx_adder, save_torch_script
from tests.prefect_server import PrefectServer
from tests.waiting import until

pytestmark = pytest.mark.integration

PNG = b"\x89PNG\r\n\x1a\n"
# About 60 ms, far more than the 5 ms that any version may take longer.
SLOW = """\
def forward(self, x: Tensor) -> Tensor:
    y = x
    for _ in range(40000):
        y = y + 0.0
    return y
"""
_numbers = count(1)


@pytest.fixture
def model(mlflow_server: MlflowServer, tmp_path: Path) -> Iterator[Model]:
    """Two quick versions, of which 1 is the champion, and a slow one."""
    with httpx.Client(base_url=mlflow_server.url, trust_env=False) as client:
        model = Model(client, f"flow-benchmarked-{next(_numbers)}")
        model.add(onnx_adder(tmp_path / "one"))
        model.add(onnx_adder(tmp_path / "two", 2.0))
        pair = [("x", "float32", [-1, 3])]
        model.add(describe(save_torch_script(tmp_path / "three", SLOW), inputs=pair, outputs=pair))
        model.point("1")
        yield model


@pytest.fixture
def wiring(
    make_settings: SettingsFactory, mlflow_server: MlflowServer, store_template: Path
) -> Iterator[Wiring]:
    settings = make_settings(mlflow_url=mlflow_server.url)
    settings.home.mkdir(parents=True, exist_ok=True)
    shutil.copy(store_template, settings.home / "signalbox.db")
    with wired(settings) as wiring:
        yield wiring


def rollout(wiring: Wiring, model: Model, version: str, **policy: Any) -> Rollout:
    """An open rollout of the version."""
    asked = Request(model=model.name, version=version, strategy="direct", requested_by="anna", policy=policy)
    return rollouts.enter(wiring.engine, asked, wiring.clock.now(), wiring.clock.now()).rollout


def validated(rollout: Rollout, report: BenchmarkReport, **evidence: Any) -> Rollout:
    """The rollout with what its validation leaves there: the digest of what it looked at."""
    return replace(rollout, evidence={"digest": report.candidate.digest, "seconds": 1.0, **evidence})


def test_quick_version_passes_when_a_promotion_measures_it(wiring: Wiring, model: Model) -> None:
    """Beside the champion; kept as its baseline, with its tags."""
    found = benchmarker(wiring)(rollout(wiring, model, "2"), "1")
    assert found.passed
    assert found.verdict in (Verdict.PASSED, Verdict.WARNING)
    assert found.champion is not None
    assert found.champion.version == "1"
    kept = reports.latest(wiring.engine, KIND, model.name, "2")
    assert kept is not None
    assert kept.verdict == str(found.verdict)
    tags = wiring.registry.version(VersionRef(model.name, "2")).tags
    assert tags.keys() >= {Tag.MEMORY_MB, Tag.LATENCY_P50_MS}


def test_slow_version_is_refused_when_a_promotion_measures_it(wiring: Wiring, model: Model) -> None:
    """For the reason that people read, and by the limits that the rollout was given."""
    found = benchmarker(wiring)(rollout(wiring, model, "3"), "1")
    assert not found.passed
    assert found.reason.startswith("against champion: p95 is ")


def test_fresh_benchmark_is_taken_up_when_it_is_of_the_same_files(wiring: Wiring, model: Model) -> None:
    """Judged by the limits of this rollout; beside another champion, or of other files, it is none."""
    asked = rollout(wiring, model, "2")
    first = benchmarker(wiring)(asked, "1")

    def again(asked: Rollout, champion: str | None) -> BenchmarkReport:
        return benchmarker(wiring)(asked, champion)

    same = again(validated(asked, first), "1")
    assert same.created_at == first.created_at
    limited = again(replace(validated(asked, first), policy={"max_memory_mb": 0.001}), "1")
    assert (limited.created_at, limited.passed) == (first.created_at, False)
    assert len(reports.recent(wiring.engine, KIND, model.name)) == 1
    assert again(validated(asked, first), "3").created_at > first.created_at
    assert again(validated(asked, first, digest="another"), "1").created_at > first.created_at


def run(prefect: PrefectServer, model: str, **parameters: object) -> Mapping[str, Any]:
    """The flow from Prefect's own command line, to its end."""
    given = {"model": model, **parameters}
    options = [option for name, value in given.items() for option in ("-p", f"{name}={value}")]
    asked = prefect.command("deployment", "run", "benchmark-model/benchmark-model", *options)
    assert asked.returncode == 0, asked.stderr
    return prefect.ended("benchmark-model", model=model)


def test_flow_leaves_its_artifacts_when_run(prefect_server: PrefectServer, model: Model) -> None:
    """Figures side by side, checks, the whole report, and the plot at an address that shows it."""
    found = run(prefect_server, model.name, version=2, seconds=0.4)
    assert (found["state_type"], found["state_name"]) == ("COMPLETED", "Passed"), found["state"]
    key = f"benchmark-{model.name}"
    [report] = prefect_server.artifacts(key)
    assert report["type"] == "markdown"
    assert f"{model.name} version 2 passed its benchmark" in report["data"]
    [figures] = prefect_server.artifacts(f"{key}-figures")
    assert figures["type"] == "table"
    assert "version 1" in figures["data"]
    [checks] = prefect_server.artifacts(f"{key}-checks")
    assert "against champion" in checks["data"]
    [plot] = prefect_server.artifacts(f"{key}-latency")
    assert plot["type"] == "image"
    shown = httpx.get(plot["data"], trust_env=False)
    assert shown.content.startswith(PNG)
    assert shown.headers["content-type"] == "image/png"


def test_flow_fails_with_its_reason_when_a_limit_is_broken(
    prefect_server: PrefectServer, model: Model
) -> None:
    """Limits may come as text; the artifacts are there all the same."""
    found = run(prefect_server, model.name, version="2", seconds="0.4", max_memory_mb="0.001")
    assert (found["state_type"], found["state_name"]) == ("FAILED", "Refused")
    assert "at most 0.001 MB are allowed" in found["state"]["message"]
    assert prefect_server.artifacts(f"benchmark-{model.name}")


def test_flow_is_refused_in_a_sentence_when_it_cannot_be_meant(
    prefect_server: PrefectServer, model: Model
) -> None:
    unknown = run(prefect_server, model.name, version=99)
    assert (unknown["state_name"], unknown["state_type"]) == ("Refused", "FAILED")
    assert "no version 99" in unknown["state"]["message"]
    senseless = run(prefect_server, model.name, version=2, max_p95_ms="soon")
    assert senseless["state"]["message"] == (
        "a parameter cannot be used: max_p95_ms must be a number, not 'soon'"
    )


# A call of tend's step, with everything it finds by itself: the server, the store and the registry.
STEP = """
from flows.baselines import kept_fresh
from flows.wiring import wired

with wired() as wiring:
    print("said", kept_fresh(wiring))
"""


def tended(prefect: PrefectServer) -> str:
    step = subprocess.run(
        [sys.executable, "-P", "-c", STEP],
        cwd=prefect.home,
        env=prefect.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert step.returncode == 0, step.stderr
    return step.stdout


def test_benchmark_that_is_due_runs_once_when_tend_asks(
    prefect_server: PrefectServer, mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    """A champion nobody measured; first of the names, so that none of another test is before it."""
    with httpx.Client(base_url=mlflow_server.url, trust_env=False) as client:
        model = Model(client, f"flow-0-unmeasured-{next(_numbers)}")
        model.add(onnx_adder(tmp_path))
        model.point("1")
    until(
        # By this call, unless a scheduled tend came first; a benchmark of another test may be under way.
        lambda: (
            model.name in tended(prefect_server) or prefect_server.runs("benchmark-model", model=model.name)
        ),
        "the benchmark is asked for",
        seconds=120.0,
        context=prefect_server.explain,
    )
    run = prefect_server.ended("benchmark-model", model=model.name)
    assert run["state_name"] == "Passed", run["state"]
    assert run["parameters"] == {"model": model.name, "version": "1", "against": "previous", "seconds": 6.0}
    assert model.name not in tended(prefect_server)
    assert len(prefect_server.runs("benchmark-model", model=model.name)) == 1
