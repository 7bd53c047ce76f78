"""The digits network in four formats: registered as anybody would, one contract, the same numbers."""

import itertools
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from serving.core.datatypes import Array
from serving.core.model import Format, Tag
from serving.formats.artifact import inspect_artifact
from serving.formats.loader import load
from serving.store.artifacts import ArtifactCache
from serving.store.registry import ModelVersion, Registry
from tests.mlflow_server import MlflowServer

EXPORT = Path(__file__).parents[2] / "examples" / "digits" / "export.py"
MODEL = "digits-exported"
_EXPORT_SECONDS = 290

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@dataclass(frozen=True, slots=True)
class Exported:
    """The four versions by format, what each answers to the held-out scans, and the right labels."""

    versions: Mapping[str, ModelVersion]
    answers: Mapping[str, Array]
    contracts: frozenset[tuple[str, str, str, str]]
    labels: Array
    said: str


@pytest.fixture(scope="module")
def exported(
    mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory, store_template: Path
) -> Exported:
    """Exported and registered by the script as a person would run it, then fetched as serving does."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("models")
    (home / "signalbox.db").write_bytes(store_template.read_bytes())
    ours = {"SIGNALBOX_HOME": str(home), "SIGNALBOX_MLFLOW_URL": mlflow_server.url}
    run = subprocess.run(
        [sys.executable, EXPORT, "--folder", folder, "--model-name", MODEL, "--epochs", "2", "--register"],
        env={**os.environ, **ours, "PYTHONPATH": str(EXPORT.parents[2])},
        capture_output=True,
        text=True,
        timeout=_EXPORT_SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    with np.load(folder / "digits.evaluation.npz") as stored:
        scans, labels = stored["input:image"], stored["labels"]
    answers, contracts = {}, set()
    with httpx.Client(base_url=mlflow_server.url, trust_env=False) as client:
        registry = Registry(client, lambda model: True)
        versions = {version.tags[Tag.FORMAT]: version for version in registry.versions(MODEL)}
        cache = ArtifactCache(home / "cache", client, registry, limit_bytes=0)
        for format, version in versions.items():
            model = load(inspect_artifact(cache.fetch(version).root), 1)
            [takes], [gives] = model.inputs, model.outputs
            contracts.add((takes.name, takes.datatype, gives.name, gives.datatype))
            answers[format] = model.predict({takes.name: scans})[gives.name]
            model.close()
    return Exported(versions, answers, frozenset(contracts), labels, run.stdout)


def test_every_format_is_a_version_when_the_script_has_run(exported: Exported) -> None:
    """Four files, four versions, each told of by its number."""
    assert exported.versions.keys() == set(Format)
    for version in exported.versions.values():
        assert f"is version {version.ref.version} of {MODEL}" in exported.said
        assert version.tags[Tag.SIBLING] == f"{MODEL} of 2 epochs"
        assert version.tags[Tag.LABELS] == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"


def test_contract_is_one_when_the_formats_differ(exported: Exported) -> None:
    """A caller need not know which format answers."""
    assert exported.contracts == {("image", "FP32", "OUTPUT__0", "FP32")}


def test_answers_are_the_same_when_the_formats_differ(
    exported: Exported, capsys: pytest.CaptureFixture[str]
) -> None:
    """To within rounding, over all held-out scans; the largest difference of each pair is printed."""
    pairs = list(itertools.combinations(sorted(exported.answers), 2))
    answers = exported.answers
    found = {pair: float(np.abs(answers[pair[0]] - answers[pair[1]]).max()) for pair in pairs}
    with capsys.disabled():
        print()
        for (one, other), difference in found.items():
            print(f"digits: {one:<12} {other:<12} largest difference {difference:.2e}")
    assert max(found.values()) < 1e-4
    right = [(answer.argmax(1) == exported.labels).mean() for answer in answers.values()]
    assert min(right) > 0.5
