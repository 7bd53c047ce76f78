"""A real state store for each test: on SQLite in the test's own folder, and on PostgreSQL in ours.

What takes `engine` or `store_url` is the store's contract and runs on both; what takes `sqlite_url` or
`sqlite_engine` is about the file.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from serving.core.clock import ManualClock
from serving.store.database import open_engine, upgrade
from tests.postgres import PostgresServer


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An upgraded store to copy: migrating takes longer than most tests."""
    file = tmp_path_factory.mktemp("store") / "signalbox.db"
    upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture
def sqlite_url(tmp_path: Path, empty_store: Path) -> str:
    """URL of an upgraded, empty store in the file `signalbox.db` of the test's folder."""
    file = tmp_path / "signalbox.db"
    shutil.copy(empty_store, file)
    return f"sqlite:///{file}"


@pytest.fixture
def sqlite_engine(sqlite_url: str) -> Iterator[Engine]:
    engine = open_engine(sqlite_url)
    yield engine
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """URL of an upgraded, empty store."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_url"))
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.store()


@pytest.fixture(params=["sqlite", "postgresql"])
def blank_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a store that was never upgraded: no file, or a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'late' / 'signalbox.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.blank()


@pytest.fixture
def engine(store_url: str) -> Iterator[Engine]:
    engine = open_engine(store_url)
    yield engine
    engine.dispose()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
