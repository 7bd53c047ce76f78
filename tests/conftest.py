"""Fixtures every test may use."""

from collections.abc import Iterator

import pytest

from tests.mlflow_server import MlflowServer


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """One MLflow server for the session; use model names of your own, and start again what you stop."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow-home"))
    server.start()
    try:
        yield server
    finally:
        server.stop()
