"""A real state store on SQLite in the test's own folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from serving.core.clock import ManualClock
from serving.store.database import open_engine, upgrade


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    """URL of an upgraded, empty store."""
    url = f"sqlite:///{tmp_path / 'signalbox.db'}"
    upgrade(url)
    return url


@pytest.fixture
def engine(store_url: str) -> Iterator[Engine]:
    engine = open_engine(store_url)
    yield engine
    engine.dispose()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
