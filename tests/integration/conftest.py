"""Fixtures of the tests that start real processes: an MLflow server, serving replicas, live traffic."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from playwright.sync_api import Page

from tests.browser import opened_page, required
from tests.mlflow_registry import MlflowRegistry, log_models
from tests.mlflow_server import MlflowServer
from tests.serving_process import ServingProcess

GOOD = ("onnx:1", "onnx:2", "onnx:3", "torch:1", "torch:2", "slow:1", "raises", "wrong_shape")
TO_BE_SPOILT = (
    *(f"onnx:{constant}" for constant in range(11, 17)),
    *("pt2:17", "pt2:18", "pt2:19", "coreml:20", "coreml:21"),
)
ECHOES = ("echo:8", "echo:10")  # text and half precision
PICKLED = ("sklearn", "eager")


class StartServing(Protocol):
    """Starts a replica that ends with the test."""

    def __call__(
        self, models: str, *, mlflow_url: str | None = None, **settings: object
    ) -> ServingProcess: ...


@pytest.fixture(scope="session")
def logged_once(mlflow_server: MlflowServer) -> MlflowRegistry:
    return MlflowRegistry(mlflow_server, log_models(mlflow_server, *GOOD, *TO_BE_SPOILT, *ECHOES, *PICKLED))


@pytest.fixture
def registry(logged_once: MlflowRegistry) -> Iterator[MlflowRegistry]:
    """The session's registry, with MLflow running before and after the test."""
    logged_once.server.start()
    yield logged_once
    logged_once.server.start()


@pytest.fixture
def start_serving(mlflow_server: MlflowServer, tmp_path: Path) -> Iterator[StartServing]:
    replicas: list[ServingProcess] = []

    def start(models: str, *, mlflow_url: str | None = None, **settings: object) -> ServingProcess:
        home = tmp_path / f"replica-{len(replicas) + 1}"
        replica = ServingProcess(home, mlflow_url or mlflow_server.url, models, settings)
        replicas.append(replica)
        replica.start_ready()
        return replica

    yield start
    for replica in replicas:
        replica.kill()


@pytest.fixture
def page() -> Iterator[Page]:
    """A browser's page, one per test; a test that uses it may run no event loop of its own."""
    with opened_page(required()) as opened:
        yield opened
