"""A real state store on SQLite in the test's own folder."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from serving.core.clock import ManualClock
from serving.store.database import open_engine, upgrade


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An upgraded store to copy: migrating takes longer than most tests."""
    file = tmp_path_factory.mktemp("store") / "signalbox.db"
    upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture
def store_url(tmp_path: Path, empty_store: Path) -> str:
    """URL of an upgraded, empty store."""
    file = tmp_path / "signalbox.db"
    shutil.copy(empty_store, file)
    return f"sqlite:///{file}"


@pytest.fixture
def engine(store_url: str) -> Iterator[Engine]:
    engine = open_engine(store_url)
    yield engine
    engine.dispose()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
