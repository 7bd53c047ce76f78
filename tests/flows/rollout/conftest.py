"""A line to promote on: model `digits` with four versions, of which 1 is the champion."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from serving.core.clock import ManualClock
from serving.store.database import open_engine
from serving.store.registry import connect
from serving.store.settings import StoreSettings
from tests.flows.rollout.line import MODEL, Line, registry_of
from tests.flows.rollout.registrar import Registrar


@pytest.fixture
def registrar(tmp_path: Path) -> Iterator[Registrar]:
    with Registrar() as registrar:
        registrar.add(MODEL, tmp_path, tmp_path, tmp_path, tmp_path)
        registrar.point(MODEL, "1")
        yield registrar


@pytest.fixture
def store_url(tmp_path: Path, store_template: Path) -> str:
    file = tmp_path / "signalbox.db"
    shutil.copy(store_template, file)
    return f"sqlite:///{file}"


@pytest.fixture
def engine(store_url: str) -> Iterator[Engine]:
    engine = open_engine(store_url)
    yield engine
    engine.dispose()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def line(engine: Engine, registrar: Registrar, clock: ManualClock, tmp_path: Path) -> Iterator[Line]:
    with connect(StoreSettings(home=tmp_path, mlflow_url=registrar.url)) as client:
        yield Line(engine, registry_of(client), clock)
