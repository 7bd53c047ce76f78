"""Descriptions on record: made once in a process of their own, refused in a sentence, never stale."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from flows.catalog.descriptions import Descriptions, described, record, stored
from flows.settings import FlowSettings
from serving.core.errors import ArtifactRefused
from serving.core.model import VersionRef
from serving.store import reports
from serving.store.database import open_engine, upgrade
from serving.store.registry import Registry, connect
from tests import models
from tests.mlflow_double import MlflowDouble

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
REF = VersionRef("digits", "1")


@pytest.fixture
def engine(home: Path) -> Iterator[Engine]:
    url = f"sqlite:///{home / 'signalbox.db'}"
    upgrade(url)
    engine = open_engine(url)
    yield engine
    engine.dispose()


def test_description_is_made_in_a_process_of_its_own(tmp_path: Path) -> None:
    """This one loads neither the model nor its runtime's state."""
    found = described(models.onnx_net(tmp_path))
    assert (found.format, found.parameter_count) == ("onnx", 690)


def test_description_is_refused_in_a_sentence_when_the_version_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(ArtifactRefused, match=r"^'model.onnx' is empty; export"):
        described(tmp_path)


def test_description_is_refused_in_a_sentence_when_it_takes_for_ever(tmp_path: Path) -> None:
    with pytest.raises(ArtifactRefused, match=r"there was no end within 0.01 s"):
        described(models.onnx_net(tmp_path), deadline_seconds=0.01)


def test_version_is_described_once_when_it_was_registered_by_hand(
    home: Path, engine: Engine, double: MlflowDouble, tmp_path: Path
) -> None:
    """The second time it comes from the store; a version born later is another one."""
    double.add("digits", models.onnx_net(tmp_path / "net"))
    settings = FlowSettings(mlflow_url=double.url)
    with connect(settings) as client:
        registry = Registry(client, settings.serves)
        version, descriptions = registry.version(REF), Descriptions(settings, engine, client, registry)
        first = descriptions.of(version, NOW)
        fetched = [call for call in double.seen if "model.onnx" in call]
        assert descriptions.of(version, NOW) == first == stored(engine, version)
        assert [call for call in double.seen if "model.onnx" in call] == fetched != []
        [kept] = reports.recent(engine, "description", "digits")
        assert (kept.version, kept.verdict) == ("1", "described")
        double.models["digits"].created_ms = int((NOW + timedelta(hours=1)).timestamp() * 1000)
        assert stored(engine, registry.version(REF)) is None


def test_record_says_partial_when_something_could_not_be_read(engine: Engine, tmp_path: Path) -> None:
    folder = models.onnx_net(tmp_path)
    (folder / "requirements.txt").write_text("x" * (1 << 17))
    record(engine, REF, described(folder), NOW)
    [kept] = reports.recent(engine, "description", "digits")
    assert kept.verdict == "partial"
