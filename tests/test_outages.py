"""A whole server whose store or disk fails: inference goes on, losses are counted, the rest catches up."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from serving.store import audit, telemetry
from serving.store.audit import Verdict
from serving.store.inference_log import log_folder, read
from tests.homes import locked
from tests.mlflow_double import MlflowDouble
from tests.models import onnx_adder
from tests.postgres import PostgresServer
from tests.small_disk import needs_small_disk, small_disk
from tests.station import ADMIN, Station, station
from tests.story import eventually, story

EPOCH, FAR = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


@pytest.fixture
def double(double: MlflowDouble, tmp_path: Path) -> MlflowDouble:
    double.add("m", onnx_adder(tmp_path / "models" / "1"), onnx_adder(tmp_path / "models" / "2", 2.0))
    double.point("m", "1")
    return double


@contextmanager
def read_only(url: str) -> Iterator[None]:
    """PostgreSQL takes no write, as a standby that was promoted to nothing."""
    name = make_url(url).database

    def switch(value: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(
                f'ALTER DATABASE "{name}" SET default_transaction_read_only = {value}'.encode()
            )
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    switch("on")
    try:
        yield
    finally:
        switch("off")


@asynccontextmanager
async def outage(kind: str, home: Path, url: str | None) -> AsyncIterator[None]:
    injected = locked(home) if kind == "locked" else read_only(str(url))
    with injected:
        yield


@pytest.mark.slow
@pytest.mark.fault("F3")
@pytest.mark.parametrize("kind", ["locked", "read-only"])
@story
async def test_server_answers_on_when_its_store_cannot_be_written(
    kind: str, home: Path, double: MlflowDouble, request: pytest.FixtureRequest
) -> None:
    """Ready, with feedback on disk and rollback at hand; telemetry, labels and the trail catch up."""
    url = None
    if kind == "read-only":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = await asyncio.to_thread(postgres.store)
    async with station(home, double, store_url=url) as server:
        await server.serves("1")
        double.point("m", "2")
        await server.serves("2")
        asked = 0
        async with outage(kind, home, url):

            async def missed() -> bool:
                nonlocal asked
                answer = await server.infer(headers={"X-Request-Id": f"out-{asked}"})
                assert (answer.status_code, answer.json()["model_version"]) == (200, "2")
                asked += 1
                return "signalbox_telemetry_waiting_windows 0.0" not in (await metrics(server))

            await eventually(missed, "telemetry waits for the store")
            assert (await server.http.get("/v2/health/ready")).status_code == 200
            label = {"request_id": "out-0", "label": 4.0}
            given = await server.http.post("/api/v2/feedback", json=label, headers=ADMIN)
            assert given.status_code == 202
            rolled_back = await server.roll_back(strategy="emergency", reason="store is out")
            assert rolled_back.status_code == 202
            await server.serves("1")

        async def caught_up() -> bool:
            return requests(server) >= asked

        await eventually(caught_up, "telemetry of the outage is in the store")
        await eventually(lambda: roll_backs(server) == 1, "the rollback is in the trail")
        assert audit.verify(server.engine).verdict is Verdict.INTACT
        text = await metrics(server)
        assert 'signalbox_telemetry_dropped_total{reason="store_away"} 0.0' in text
        assert 'signalbox_telemetry_dropped_total{reason="failed"} 0.0' in text


async def metrics(server: Station) -> str:
    return (await server.http.get("/metrics")).text


def requests(server: Station) -> int:
    found = telemetry.by_variant(server.engine, "m", EPOCH, FAR)
    return sum(stats.requests for (version, _), stats in found.items() if version == "2")


def roll_backs(server: Station) -> int:
    return len(audit.tail(server.engine, 100, "m", "roll_back"))


@pytest.mark.slow
@needs_small_disk
@story
async def test_server_answers_on_when_the_disk_of_its_log_is_full(home: Path, double: MlflowDouble) -> None:
    """Rows are dropped, counted and told of; logging resumes by itself when there is room."""
    with small_disk(log_folder(home)) as disk:
        async with station(home, double) as server:
            await server.serves("1")
            disk.fill()
            for number in range(5):
                answer = await server.infer(headers={"X-Request-Id": f"full-{number}"})
                assert answer.status_code == 200

            async def dropped() -> bool:
                text = await metrics(server)
                return 'signalbox_inference_log_dropped_total{reason="disk_full"} 0.0' not in text

            await eventually(dropped, "rows are dropped and counted")
            await eventually(lambda: "log_dropping" in server.notices(), "an alert tells of it")
            assert (await server.http.get("/v2/health/ready")).status_code == 200
            disk.make_room()
            after = await server.infer(headers={"X-Request-Id": "room-1"})
            assert after.status_code == 200
            await eventually(lambda: "room-1" in logged(home), "rows are written again")


def logged(home: Path) -> list[str]:
    table = read(log_folder(home), "m")
    return table.column("request_id").to_pylist() if table.num_rows else []
