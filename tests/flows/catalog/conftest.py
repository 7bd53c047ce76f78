"""A home to register from, with a real store and the session's MLflow server."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest

from serving.store.database import open_engine
from tests.flows.catalog.prepared import Place
from tests.mlflow_server import MlflowServer

_numbers = count(1)


@pytest.fixture
def place(tmp_path: Path, store_template: Path, mlflow_server: MlflowServer) -> Iterator[Place]:
    home = tmp_path / "signalbox"
    (home / "models").mkdir(parents=True)
    (home / "signalbox.db").write_bytes(store_template.read_bytes())
    engine = open_engine(f"sqlite:///{home / 'signalbox.db'}")
    with httpx.Client(base_url=mlflow_server.url, trust_env=False) as client:
        yield Place(home, engine, client)
    engine.dispose()


@pytest.fixture
def name() -> str:
    """A model's name of its own, since tests share their MLflow."""
    return f"taken-{next(_numbers)}"
