"""Artifacts that must not be served: refused by name, told to people, and nobody who asks notices."""

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from serving.store.outbox import Notice
from tests.integration.conftest import StartServing
from tests.mlflow_registry import MlflowRegistry, RegisteredModel
from tests.models import onnx_adder
from tests.serving_process import ServingProcess
from tests.traffic import Traffic, failed

pytestmark = [pytest.mark.integration, pytest.mark.fault("F11")]


@pytest.fixture
def model(registry: MlflowRegistry) -> RegisteredModel:
    model = registry.model("onnx:1", prefix="artifact")
    model.point("1")
    return model


def assert_refused(serving: ServingProcess, model: RegisteredModel, version: str, *words: str) -> None:
    """Under load: the alias names `version`, version 1 answers everything, and the reason is told."""
    with Traffic(serving.url, model.name, rate_per_second=50) as traffic:
        model.point(version)
        serving.wait(lambda: champion_refusals(serving, model), "the outbox holds the refusal")
        answered = traffic.answers_of("1")
        serving.wait(lambda: traffic.answers_of("1") >= answered + 10, "version 1 answers on")
    assert failed(traffic.samples) == []
    assert {(sample.version, sample.added) for sample in traffic.samples} == {("1", 1.0)}

    champion = serving.model(model.name)["aliases"]["champion"]
    assert (champion["wanted"], champion["served"]) == (version, "1")
    [entry] = [e for e in serving.audited("refuse", model.name) if e.details["alias"] == "champion"]
    [notice] = champion_refusals(serving, model)
    assert (entry.version, notice.version) == (version, version)
    for place in (champion["reason"], entry.details["reason"], notice.facts["reason"]):
        assert all(word in str(place) for word in words), place
    serving.assert_nothing_lost()


def champion_refusals(serving: ServingProcess, model: RegisteredModel) -> list[Notice]:
    notices = serving.notices("version_refused", model.name)
    return [notice for notice in notices if notice.facts["alias"] == "champion"]


def truncate(folder: Path, name: str = "model.onnx") -> None:
    payload = folder / name
    payload.write_bytes(payload.read_bytes()[: payload.stat().st_size // 2])


def exchange(folder: Path, name: str, make: Callable[[Path], Path]) -> None:
    """A file of another format in the place of the right one."""
    with TemporaryDirectory() as other:
        [content] = (file.read_bytes() for file in make(Path(other)).rglob("*.onnx"))
    (folder / name).write_bytes(content)


SPOILT: dict[str, tuple[str, Callable[[Path], object], tuple[str, ...]]] = {
    "deleted": ("onnx:11", shutil.rmtree, ("artifact store has no files",)),
    "payload deleted": ("onnx:12", lambda folder: (folder / "model.onnx").unlink(), ("no model files",)),
    "truncated": ("onnx:13", truncate, ("model.onnx",)),
    "text": ("onnx:14", lambda folder: (folder / "model.onnx").write_text("moved\n"), ("a text file",)),
    "empty": ("onnx:15", lambda folder: (folder / "model.onnx").write_bytes(b""), ("empty",)),
    "export truncated": (
        "pt2:17",
        lambda folder: truncate(folder, "data/model.pt2"),
        ("model.pt2", "truncated or damaged archive"),
    ),
    "export deleted": (
        "pt2:18",
        lambda folder: (folder / "data" / "model.pt2").unlink(),
        ("no model files",),
    ),
    "export exchanged": (
        "pt2:19",
        lambda folder: exchange(folder, "data/model.pt2", onnx_adder),
        ("model.pt2", "an ONNX model", "as pytorch"),
    ),
    "Core ML original truncated": (
        "coreml:20",
        lambda folder: truncate(folder, "model.mlmodel"),
        ("model.mlmodel", "truncated or damaged"),
    ),
    "Core ML translation deleted": (
        "coreml:21",
        lambda folder: (folder / "translation.onnx").unlink(),
        ("translation.onnx", "missing"),
    ),
}


@pytest.mark.parametrize("way", SPOILT)
def test_version_is_refused_when_its_artifact_was_spoilt(
    model: RegisteredModel, start_serving: StartServing, way: str
) -> None:
    """Deleted, truncated or replaced in the artifact store before it was ever loaded."""
    recipe, spoil, words = SPOILT[way]
    version = model.add(recipe)
    spoil(model.files(version))
    assert_refused(start_serving(model.name), model, version, *words)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        pytest.param("sklearn", ("sklearn model", "skl2onnx", "mlflow.onnx"), id="sklearn"),
        pytest.param("eager", ("pickled eager PyTorch model", "torch.onnx.export"), id="eager torch"),
        pytest.param("wrong_shape", ("self-test", "y"), id="breaks its own spec"),
    ],
)
def test_version_is_refused_when_it_is_of_a_kind_not_served(
    model: RegisteredModel, start_serving: StartServing, recipe: str, words: tuple[str, ...]
) -> None:
    """Pickles are named with the way to export them; a model that breaks its declaration is found out."""
    version = model.add(recipe)
    assert_refused(start_serving(model.name), model, version, *words)


def test_version_is_refused_when_its_files_changed_since_the_first_load(
    registry: MlflowRegistry, start_serving: StartServing, model: RegisteredModel
) -> None:
    """The digest recorded at the first load holds, also for a replica that never saw the version."""
    version = model.add("onnx:16")
    first = start_serving(model.name)
    model.point(version)
    first.wait_for(model.name, version)
    model.point("1")
    first.wait_for(model.name, "1")
    other = registry.logged["onnx:3"]
    source = registry.server.home / "mlflow" / "artifacts"
    [replacement] = source.rglob(f"{other.model_id}/artifacts/model.onnx")
    shutil.copyfile(replacement, model.files(version) / "model.onnx")
    replica = start_serving(model.name, store_url=first.store_url)
    assert_refused(replica, model, version, "digest", "recorded was")
    # The replica that has the genuine files goes on to serve them.
    first.wait_for(model.name, version)
    assert first.infer(model.name).added == 16.0
