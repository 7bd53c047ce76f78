"""A benchmark from the registry to the report, against a real MLflow server and on the command line."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest

from flows.catalog.baseline import baseline, keep
from flows.catalog.benchmark import Benchmark, run
from flows.catalog.facts import Source
from flows.catalog.limits import BenchmarkPolicy
from flows.catalog.rating import Aspect
from flows.catalog.run_log import PLOT_FILE, leave, log_metrics, log_plot
from flows.catalog.verdict import Verdict
from flows.settings import FlowSettings, part_environment
from flows.wiring import Wiring, wired
from serving.core.errors import NotServed, RegistryUnavailable
from serving.core.model import Tag, VersionRef
from tests.flows.catalog.folders import evaluation_file, one_hot_rows
from tests.flows.catalog.registered import Model
from tests.flows.conftest import SettingsFactory
from tests.mlflow_server import MlflowServer
from tests.models import describe, onnx_adder, onnx_echo, onnx_raises_on_negative, save_torch_script

pytestmark = pytest.mark.integration

# Few calls: these tests ask what is said, not how fast this machine is.
QUICK = BenchmarkPolicy(seconds=0.4, window_seconds=0.02, max_batch=4)
PNG = b"\x89PNG\r\n\x1a\n"
ENDLESS = """\
def forward(self, x: Tensor) -> Tensor:
    while bool((x * 0 == 0).all()):
        x = x + 0
    return x
"""
# About 60 ms, far more than the 5 ms that any version may take longer.
SLOW = """\
def forward(self, x: Tensor) -> Tensor:
    y = x
    for _ in range(40000):
        y = y + 0.0
    return y
"""
HUNGRY = """\
def forward(self, x: Tensor) -> Tensor:
    held = [x]
    while len(held) > 0:
        held.append(x.repeat(1000000, 1))
    return held[0]
"""
PAIR = [("x", "float32", [-1, 3])]


def script(folder: Path, forward: str) -> Path:
    return describe(save_torch_script(folder, forward), inputs=PAIR, outputs=PAIR)


@pytest.fixture
def model(mlflow_server: MlflowServer) -> Iterator[Model]:
    with httpx.Client(base_url=mlflow_server.url, trust_env=False) as client:
        yield Model(client)


@pytest.fixture
def settings(
    make_settings: SettingsFactory, mlflow_server: MlflowServer, store_template: Path
) -> FlowSettings:
    settings = make_settings(mlflow_url=mlflow_server.url)
    settings.home.mkdir(parents=True, exist_ok=True)
    shutil.copy(store_template, settings.home / "signalbox.db")
    return settings


@pytest.fixture
def wiring(settings: FlowSettings) -> Iterator[Wiring]:
    with wired(settings) as wiring:
        yield wiring


def request(model: Model, version: str, policy: BenchmarkPolicy = QUICK, **different: Any) -> Benchmark:
    return Benchmark(VersionRef(model.name, version), policy, **different)


def test_report_holds_both_versions_when_there_is_a_champion(
    model: Model, wiring: Wiring, tmp_path: Path
) -> None:
    """The champion's own cost is measured as the candidate's is; nothing is left of the work."""
    champion, version = model.add(onnx_adder(tmp_path / "one")), model.add(onnx_adder(tmp_path / "two", 2.0))
    model.point(champion)
    steps: list[str] = []
    report = run(request(model, version), wiring.settings, wiring.clock, wiring.engine, steps.append)
    assert report.verdict in (Verdict.PASSED, Verdict.WARNING), report.reasons
    assert report.champion is not None
    assert report.champion.version == champion
    assert report.champion.memory_mb is not None
    assert report.champion.first_call_ms is not None
    assert report.ratios
    assert steps == ["fetching", "measuring", "measuring the other version alone"]
    assert list(wiring.settings.home.glob("benchmark-*")) == []


def test_champions_cost_is_taken_from_its_baseline_when_this_host_measured_it(
    model: Model, wiring: Wiring, tmp_path: Path
) -> None:
    champion, version = model.add(onnx_adder(tmp_path / "one")), model.add(onnx_adder(tmp_path / "two", 2.0))
    model.point(champion)
    alone = run(request(model, champion), wiring.settings, wiring.clock, wiring.engine)
    assert alone.champion is None, "nothing is compared with itself"
    keep(wiring.engine, alone, "anna")
    steps: list[str] = []
    report = run(request(model, version), wiring.settings, wiring.clock, wiring.engine, steps.append)
    assert report.champion is not None
    assert report.champion.memory_mb == alone.candidate.memory_mb
    assert steps == ["fetching", "measuring"]


def test_other_version_is_the_one_named_when_somebody_names_one(
    model: Model, settings: FlowSettings, tmp_path: Path
) -> None:
    """A version's number, an alias, or none; what does not exist is said."""
    one, two = model.add(onnx_echo(tmp_path / "one")), model.add(onnx_echo(tmp_path / "two"))
    model.point(one)
    named = run(request(model, one, against=two), settings)
    assert named.champion is not None
    assert named.champion.version == two
    assert run(request(model, two, against="none"), settings).champion is None
    assert run(request(model, two, against="previous"), settings).champion is None
    with pytest.raises(NotServed, match="no version 9"):
        run(request(model, two, against="9"), settings)
    with pytest.raises(NotServed, match="has no alias 'best' to compare with; available: champion"):
        run(request(model, two, against="best"), settings)


def test_slow_version_fails_when_the_champion_is_quick(
    model: Model, settings: FlowSettings, tmp_path: Path
) -> None:
    """Beyond ratio and milliseconds, for certain."""
    champion, version = model.add(onnx_adder(tmp_path / "one")), model.add(script(tmp_path / "two", SLOW))
    model.point(champion)
    report = run(request(model, version), settings)
    assert report.verdict is Verdict.FAILED
    assert [reason.split(":")[0] for reason in report.reasons] == ["against champion"]
    assert f"times that of version {champion}" in report.reason
    assert not report.passed


def test_hanging_version_is_not_measured_when_the_time_is_up(
    model: Model, settings: FlowSettings, tmp_path: Path
) -> None:
    """Which is no approval, and a refusal where a limit was set; a champion that hangs is left out."""
    endless = model.add(script(tmp_path / "one", ENDLESS))
    limited = replace(QUICK, deadline_seconds=6.0, max_p95_ms=100.0)
    report = run(request(model, endless, replace(limited, max_p95_ms=None)), settings)
    assert (report.verdict, report.is_approved, report.passed) == (Verdict.NOT_MEASURED, False, True)
    measured = next(check for check in report.checks if check.name is Aspect.MEASURED)
    assert measured.message == (
        "there was no end within 6 s while the candidate was answering its first calls"
    )
    assert run(request(model, endless, limited), settings).verdict is Verdict.FAILED
    good = model.add(onnx_adder(tmp_path / "two"))
    beside = run(request(model, good, replace(limited, deadline_seconds=12.0), against=endless), settings)
    assert beside.passed
    assert beside.candidate.latency_ms is not None
    assert beside.champion is not None
    assert "no end within 12 s while it was answering its first calls" in (beside.champion.problem or "")


def test_hungry_version_fails_when_it_goes_beyond_the_ceiling(
    model: Model, settings: FlowSettings, tmp_path: Path
) -> None:
    """The process is ended before the machine suffers."""
    hungry = model.add(script(tmp_path, HUNGRY))
    report = run(request(model, hungry, replace(QUICK, memory_ceiling_mb=900.0)), settings)
    assert report.verdict is Verdict.FAILED
    assert "the process held more than the limit of 900 MB" in report.reason


def test_version_fails_when_its_files_are_gone(model: Model, settings: FlowSettings, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    report = run(request(model, model.add(empty)), settings)
    assert (report.verdict, report.candidate.load_seconds) == (Verdict.FAILED, None)


def test_evaluation_rows_are_asked_when_nothing_else_is_recorded(
    model: Model, settings: FlowSettings, tmp_path: Path
) -> None:
    """The declared set is fetched for that alone; one that is gone is the validation's finding."""
    version = model.add(onnx_adder(tmp_path / "one"))
    described = model.add(describe(onnx_adder(tmp_path / "two"), flavor="onnx", example=[[1.0, 2.0, 3.0]]))
    file = evaluation_file(tmp_path / "set", {"x": one_hot_rows(60)}, np.arange(60) % 3)
    model.upload(file, f"{model.name}/own.npz")
    model.declare(f"mlflow-artifacts:/{model.name}/own.npz")
    assert run(request(model, version), settings).source is Source.EVALUATION
    assert run(request(model, described), settings).source is Source.EXAMPLE
    model.declare("mlflow-artifacts:/nowhere/at-all.npz")
    assert run(request(model, version), settings).source is Source.ZEROS


def test_benchmark_raises_when_there_is_nothing_to_measure(
    model: Model, make_settings: SettingsFactory, settings: FlowSettings
) -> None:
    """An unknown version and an unreachable registry are errors, no verdicts."""
    with pytest.raises(NotServed, match="no version 7"):
        run(request(model, "7"), settings)
    with pytest.raises(RegistryUnavailable):
        run(request(model, "1"), make_settings(mlflow_url="http://127.0.0.1:9"))


def test_version_carries_its_figures_when_left_in_mlflow(
    model: Model, wiring: Wiring, tmp_path: Path
) -> None:
    """Tags on the version, a few metrics and the plot on its run, at the address that is told."""
    version = model.add(onnx_adder(tmp_path))
    report = run(request(model, version), wiring.settings, wiring.clock)
    url = leave(wiring.client, wiring.registry, report, PNG + b"picture")
    assert url is not None
    assert httpx.get(url, trust_env=False).content == PNG + b"picture"
    tags = wiring.registry.version(VersionRef(model.name, version)).tags
    assert report.candidate.memory_mb is not None
    assert float(tags[Tag.MEMORY_MB]) == pytest.approx(report.candidate.memory_mb.resident, abs=0.1)
    assert float(tags[Tag.LATENCY_P50_MS]) > 0
    run_id = wiring.registry.version(VersionRef(model.name, version)).run_id
    metrics = wiring.registry.run(run_id).metrics
    assert metrics["benchmark_latency_p50_ms"] == pytest.approx(float(tags[Tag.LATENCY_P50_MS]), rel=0.01)
    assert metrics.keys() >= {"benchmark_throughput_per_second", "benchmark_memory_mb"}
    assert urlencode({"path": PLOT_FILE}) in url


def test_what_cannot_be_left_is_said_when_mlflow_does_not_take_it(model: Model, wiring: Wiring) -> None:
    """A run that is gone, and an artifact store that the server does not proxy."""
    with pytest.raises(RegistryUnavailable, match="did not take the file"):
        log_metrics(wiring.client, "nothing", {"benchmark_memory_mb": 1.0}, 0)
    elsewhere = model.post(
        "experiments/create", {"name": f"{model.name}-s3", "artifact_location": "s3://bucket/there"}
    )
    foreign = model.post("runs/create", {"experiment_id": elsewhere["experiment_id"]})["run"]["info"]
    with pytest.raises(RegistryUnavailable, match="keeps its artifacts at 's3:'"):
        log_plot(wiring.client, foreign["run_id"], PNG)


def _command(settings: FlowSettings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "flows.cli.main", "benchmark", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=part_environment(settings),
    )


def test_command_shows_both_versions_when_run(
    model: Model, settings: FlowSettings, wiring: Wiring, tmp_path: Path
) -> None:
    """Side by side with ratios, the plot as a file, the baseline kept, and 0."""
    champion, version = model.add(onnx_adder(tmp_path / "one")), model.add(onnx_adder(tmp_path / "two", 2.0))
    model.point(champion)
    plot = tmp_path / "plot.png"
    shown = _command(settings, model.name, version, "--seconds", "0.4", "--plot", str(plot))
    assert (shown.returncode, shown.stderr) == (0, "")
    heading = next(line for line in shown.stdout.splitlines() if line.startswith("figure"))
    assert heading.split() == ["figure", "version", version, "version", champion, "ratio"]
    assert "latency p95, ms" in shown.stdout
    assert plot.read_bytes().startswith(PNG)
    known = baseline(wiring.engine, model.name, version)
    assert known is not None
    assert known.is_measured
    assert model.tags(version).keys() >= {str(Tag.MEMORY_MB), str(Tag.LATENCY_P50_MS)}


def test_command_fails_when_a_limit_is_broken(model: Model, settings: FlowSettings, tmp_path: Path) -> None:
    """1 and the reason in JSON; a limit that makes no sense is refused before anything is measured."""
    version = model.add(onnx_adder(tmp_path))
    failed = _command(settings, model.name, version, "--seconds", "0.4", "--max-p95-ms", "0.00001", "--json")
    assert failed.returncode == 1
    found = json.loads(failed.stdout)
    assert found["verdict"] == "failed"
    assert found["latency_ms"]["p95"] > 0.00001
    senseless = _command(settings, model.name, version, "--max-memory-mb", "-5")
    assert senseless.returncode == 2
    assert "max_memory_mb must be a number of at least 0" in senseless.stderr
    missing = _command(settings, model.name, "99")
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: the registry")


def test_command_warns_when_it_can_leave_nothing(
    model: Model, settings: FlowSettings, tmp_path: Path
) -> None:
    """Without a store the figures are shown all the same; a version that raises leaves no plot, and 1."""
    (settings.home / "signalbox.db").unlink()
    bad = describe(onnx_raises_on_negative(tmp_path), flavor="onnx", example=[[-1.0, 0.0, 0.0]])
    shown = _command(settings, model.name, model.add(bad), "--plot", str(tmp_path / "plot.png"))
    assert shown.returncode == 1
    assert "warning: the benchmark is not recorded, and knows no earlier one" in shown.stderr
    assert "was not written" in shown.stderr
    assert "failed its benchmark" in shown.stdout
