"""Serving and its state store: on PostgreSQL, with the database gone, and in front of a damaged file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.store.database import upgrade
from tests.integration.conftest import StartServing
from tests.mlflow_registry import MlflowRegistry
from tests.postgres import PostgresServer, binaries
from tests.serving_process import ServingProcess
from tests.traffic import Traffic, failed, wrong

pytestmark = pytest.mark.integration


@pytest.fixture
def own_postgres(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A cluster that the test may stop; `postgres` skips or fails first where there is none to be had."""
    bin_folder = binaries()
    assert bin_folder is not None
    server = PostgresServer(bin_folder)
    server.start()
    yield server
    server.remove()


@pytest.mark.fault("F3")
def test_serving_swaps_on_when_postgresql_stops_and_keeps_the_trail_when_it_is_back(
    registry: MlflowRegistry, start_serving: StartServing, own_postgres: PostgresServer
) -> None:
    """Without its database serving follows aliases and stays ready; what happened then is merged later."""
    model = registry.model("onnx:1", "onnx:2", prefix="postgres")
    model.point("1")
    serving = start_serving(model.name, store_url=own_postgres.store())
    with Traffic(serving.url, model.name, rate_per_second=50) as traffic:
        serving.wait(lambda: serving.audited("swap", model.name), "the first swap is in PostgreSQL")
        own_postgres.stop()
        model.point("2")
        serving.wait(lambda: traffic.answers_of("2") >= 20, "version 2 answers without the store")
        assert serving.call("GET", "/v2/health/ready").status_code == 200
        own_postgres.go_on()
        serving.wait(
            lambda: [entry.version for entry in serving.audited("swap", model.name)] == ["1", "2"],
            "the swap made without the store is in its trail",
            seconds=60,
        )
    assert failed(traffic.samples) == []
    assert wrong(traffic.samples, model.constants) == []
    serving.assert_nothing_lost()


@pytest.mark.fault("F21")
def test_serving_refuses_to_start_when_a_page_of_its_store_is_damaged(home: Path) -> None:
    """It says how to repair it, and leaves every byte as it is."""
    upgrade(f"sqlite:///{home / 'signalbox.db'}")
    file = home / "signalbox.db"
    content = bytearray(file.read_bytes())
    content[4096 : 3 * 4096] = b"\xff" * (2 * 4096)
    file.write_bytes(content)
    serving = ServingProcess(home, "http://127.0.0.1:9", "none")
    try:
        with pytest.raises(AssertionError, match="serving ended while waiting"):
            serving.start_ready()
    finally:
        serving.kill()
    assert "serving cannot start" in serving.explain()
    assert "stop Signalbox and put back a copy of the database" in serving.explain()
    assert file.read_bytes() == bytes(content)
