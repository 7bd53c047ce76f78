"""A folder of 40 good and 25 bad files of all formats: registered once, told of once, and then left alone."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.catalog.baseline import baseline
from flows.catalog.description import KIND
from flows.catalog.outcome import NOTICE, Outcome, Result
from flows.catalog.scan import ScanReport
from flows.settings import FlowSettings
from serving.core.model import Tag, VersionRef
from serving.store import audit, outbox, reports
from serving.store.database import open_engine
from serving.store.registry import Registry, connect
from tests.flows.catalog.model_folder import BAD, GOOD
from tests.flows.catalog.take_in import ROOT, Pass, generated, passes, settings_for
from tests.mlflow_server import MlflowServer

pytestmark = [pytest.mark.integration, pytest.mark.slow]

_LOAD_SECONDS = 240


@dataclass(frozen=True, slots=True)
class TakenIn:
    settings: FlowSettings
    made: Mapping[str, Any]
    passes: Iterator[Pass]
    first: ScanReport

    def outcome(self, name: str) -> Outcome:
        return next(one for one in self.first.outcomes if one.path.as_posix().endswith(f"models/{name}"))

    def registry(self, client: httpx.Client) -> Registry:
        return Registry(client, lambda model: True)


@pytest.fixture(scope="module")
def taken_in(
    mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory, store_template: Path
) -> TakenIn:
    """The folder after its first pass."""
    home = tmp_path_factory.mktemp("taken-in")
    (home / "signalbox.db").write_bytes(store_template.read_bytes())
    made = generated(home / "models")
    settings = settings_for(home, mlflow_server.url)
    running = passes(settings)
    return TakenIn(settings, made, running, next(running).report)


@pytest.fixture
def registry(taken_in: TakenIn) -> Iterator[Registry]:
    with connect(taken_in.settings) as client:
        yield taken_in.registry(client)


def test_good_files_are_versions_when_the_first_pass_is_over(taken_in: TakenIn, registry: Registry) -> None:
    """All forty, each once, whatever the format, the folder and the naming of the weights."""
    registered = taken_in.first.of(Result.REGISTERED)
    assert taken_in.first.interrupted is None
    assert len(registered) == GOOD
    assert {one.path.relative_to(taken_in.settings.home / "models").as_posix() for one in registered} == set(
        taken_in.made["good"]
    )
    for one in registered:
        [version] = registry.versions(str(one.model))
        assert version.ref.version == one.version
        assert version.tags[Tag.FORMAT] == one.format
        assert version.tags[Tag.DIGEST] == one.digest
        assert len(version.tags[Tag.SOURCE_DIGEST]) == 64
        assert float(version.tags[Tag.MEMORY_MB]) > 0
        assert "Format" in version.description


def test_bad_files_are_refused_each_for_its_own_reason_when_the_pass_is_over(taken_in: TakenIn) -> None:
    """Twenty-five sentences, no two alike even without the file's name, each with the expected words."""
    refused = taken_in.first.of(Result.REFUSED)
    assert len(refused) == BAD
    for name, words in taken_in.made["bad"].items():
        assert words in str(taken_in.outcome(name).reason), name
    plain = {str(one.reason).replace(one.path.name, "").replace(one.path.stem, "") for one in refused}
    assert len(plain) == BAD


def test_nothing_of_a_bad_file_is_in_the_registry(taken_in: TakenIn, registry: Registry) -> None:
    """Neither a version nor so much as a registered model."""
    names = {Path(name).stem for name in taken_in.made["bad"]}
    assert names & registry.registered_models().keys() == set()


def test_refusals_are_told_once_when_passes_go_on(taken_in: TakenIn) -> None:
    """One notice and one audit row each; a second pass finds nothing to do."""
    second = next(taken_in.passes).report
    assert (second.outcomes, second.unchanged) == ([], GOOD + BAD)
    engine = open_engine(taken_in.settings.database_url)
    try:
        rows = [row.entry for row in audit.tail(engine, limit=500, action="register")]
        waiting = outbox.waiting(engine)
        verified = audit.verify(engine)
    finally:
        engine.dispose()
    results = [row.details["result"] for row in rows]
    assert (results.count("registered"), results.count("refused")) == (GOOD, BAD)
    assert waiting == BAD
    assert verified.verdict is audit.Verdict.INTACT


def test_notice_says_what_is_wrong_when_it_is_read(taken_in: TakenIn) -> None:
    engine = open_engine(taken_in.settings.database_url)
    try:
        notices = [queued.notice for queued in outbox.pending(engine, datetime.now(UTC), 100)]
    finally:
        engine.dispose()
    assert {notice.kind for notice in notices} == {NOTICE}
    [future] = [notice for notice in notices if "future.onnx" in notice.title]
    assert "was not registered: 'future.onnx' uses opset 999" in future.title
    assert future.severity is outbox.Severity.WARNING


def test_everything_said_is_in_mlflow_when_a_side_file_says_it(taken_in: TakenIn, registry: Registry) -> None:
    """Model tags, version tags, description, metrics and params of the run, dataset, labels."""
    model = registry.registered_model("described")
    version = registry.version(VersionRef("described", "1"))
    run = registry.run(version.run_id)
    assert model.tags[Tag.MODEL_TYPE] == "classifier"
    assert (model.tags[Tag.OWNER], model.tags[Tag.CRITICAL]) == ("vision", "true")
    assert model.tags[Tag.EVALUATION_SET].startswith("mlflow-artifacts:/")
    assert version.tags["stage"] == "test"
    assert version.tags[Tag.AUTHOR] == "A. Maker"
    assert version.tags[Tag.TRAINING_DATASET] == "toy"
    assert (version.tags[Tag.LATENCY_P50_MS], version.tags[Tag.MEMORY_MB]) == ("1.5", "12")
    assert "Says what it is given." in version.description
    assert run.metrics["accuracy"] == 0.9
    assert run.metrics["baseline_latency_p50_ms"] == 1.5
    assert run.params["epochs"] == "3"
    assert run.params["opset ai.onnx"] == "17"
    assert run.datasets == ("toy",)


def test_description_is_kept_for_comparisons_when_a_version_is_registered(taken_in: TakenIn) -> None:
    engine = open_engine(taken_in.settings.database_url)
    try:
        kept = reports.latest(engine, KIND, "described", "1")
    finally:
        engine.dispose()
    assert kept is not None
    assert kept.body["operators"] == {"Add": 1}


def test_declared_baseline_is_kept_when_a_side_file_names_one(taken_in: TakenIn) -> None:
    """Until somebody measures the version here."""
    engine = open_engine(taken_in.settings.database_url)
    try:
        found = baseline(engine, "described", "1")
    finally:
        engine.dispose()
    assert found is not None
    assert (found.is_measured, found.latency_ms["p50"], found.memory_mb["resident"]) == (False, 1.5, 12.0)


def test_every_version_answers_as_recorded_when_mlflow_loads_it(
    taken_in: TakenIn, mlflow_server: MlflowServer
) -> None:
    """`mlflow.pyfunc.load_model` takes all four formats, and they answer what serving's loader did."""
    names = [str(one.model) for one in taken_in.first.of(Result.REGISTERED)]
    run = subprocess.run(
        [sys.executable, "-m", "tests.flows.catalog.predict_all", mlflow_server.url, *names],
        cwd=ROOT,
        env={**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"},
        capture_output=True,
        text=True,
        timeout=_LOAD_SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found: dict[str, float | None] = json.loads(run.stdout.splitlines()[-1])
    assert found.keys() == set(names)
    measured = [value for value in found.values() if value is not None]
    assert len(measured) >= GOOD - 6, "only the scripts without an example have nothing to compare with"
    assert max(measured) < 1e-5
