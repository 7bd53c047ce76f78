"""Figures on whoever answers: read in the background, told to those who ask, in every transport."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Engine

from serving.analytics import Analytics, health_score
from serving.core.clock import ManualClock
from serving.core.errors import StoreUnavailable
from serving.core.health import Status
from serving.core.model import Variant, VersionRef
from serving.core.sketch import Sketch
from serving.core.window import OK, WindowStats
from serving.followed import FollowedModel
from serving.store import reports, telemetry, version_reports
from serving.store.database import open_engine
from serving.store.reports import Report
from serving.store.telemetry import SECOND, Window
from serving.telemetry.metrics import Metrics
from tests.mlflow_double import MlflowDouble
from tests.models import onnx_adder
from tests.rpc.line import line_to
from tests.station import Station, station
from tests.story import eventually, story
from tests.versions import loaded

TENSOR = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1.0, 2.0, 3.0]}
FIGURES = {"p95_ms", "error_rate", "accuracy", "health_score"}
REF = VersionRef("digits", "2")


class Store:
    """Counts who looks into the store."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.looks = 0
        self.is_away = False

    async def look(self, work: Callable[[Engine], Any]) -> Any:
        self.looks += 1
        if self.is_away:
            raise StoreUnavailable("locked")
        return work(self.engine)


@pytest.fixture
def store(tmp_path: Path, store_template: Path) -> Store:
    file = tmp_path / "signalbox.db"
    file.write_bytes(store_template.read_bytes())
    return Store(open_engine(f"sqlite:///{file}"))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def analytics(store: Store, clock: ManualClock, metrics: Metrics) -> Analytics:
    """Of a model whose champion is 2, and which is healthy."""
    model = FollowedModel("digits")
    model.served["champion"] = loaded("2", lambda given: {"y": given["x"]})
    return Analytics({"digits": model}, metrics, lambda _: Status.HEALTHY, cast(Any, store), clock)


def answered(store: Store, clock: ManualClock, seconds: float = 0.02) -> None:
    """Twenty answers of the last second, one of them a failure."""
    sketch = Sketch()
    for _ in range(19):
        sketch.add(seconds)
    stats = WindowStats(statuses={OK: 19}, rows=19, faults=1, latency=sketch)
    start = int(clock.now().timestamp()) - 1
    telemetry.write(
        store.engine,
        [
            Window(
                ref=REF, variant=Variant.CHAMPION, step_seconds=SECOND, start=start, worker="w1", stats=stats
            )
        ],
    )


@pytest.mark.parametrize(
    ("status", "error_rate", "score"),
    [
        (Status.HEALTHY, None, 1.0),
        (Status.HEALTHY, 0.0, 1.0),
        (Status.HEALTHY, 0.25, 0.75),
        (Status.UNKNOWN, 0.0, 0.75),
        (Status.WARNING, 0.5, 0.25),
        (Status.CRITICAL, 0.0, 0.0),
        (Status.HEALTHY, 1.0, 0.0),
    ],
)
def test_health_score_is_what_health_is_worth_less_the_failures(
    status: Status, error_rate: float | None, score: float
) -> None:
    assert health_score(status, error_rate) == score


@story
async def test_figures_are_those_of_the_last_look(
    analytics: Analytics, store: Store, clock: ManualClock
) -> None:
    """Asking never looks; a store that is away leaves the last ones."""
    assert analytics.of(REF) == {"p95_ms": None, "error_rate": None, "accuracy": None, "health_score": 1.0}
    assert store.looks == 0
    answered(store, clock)
    await analytics.turn()
    known = analytics.of(REF)
    assert known["p95_ms"] == pytest.approx(20.0, rel=0.01)
    assert (known["error_rate"], known["health_score"]) == (0.05, 0.95)
    store.is_away = True
    clock.advance(30)
    analytics.of(REF)
    await analytics.turn()
    assert (store.looks, analytics.of(REF)) == (2, known)


@story
async def test_failures_counted_here_stand_in_until_the_store_has_them(
    analytics: Analytics, metrics: Metrics
) -> None:
    for failed in (True, False, False, False):
        metrics.judged(REF, failed=failed)
    assert analytics.of(REF)["error_rate"] == 0.25


@story
async def test_store_is_looked_into_as_often_as_somebody_cares(
    analytics: Analytics, store: Store, clock: ManualClock, metrics: Metrics
) -> None:
    """Never where nothing answers, once a minute where nobody asks, else every five seconds."""

    async def looks_in(seconds: int) -> int:
        before = store.looks
        for _ in range(seconds):
            clock.advance(1)
            await analytics.turn()
        return store.looks - before

    assert await looks_in(100) == 0
    metrics.judged(REF, failed=False)
    answered(store, clock)
    assert await looks_in(1) == 1
    assert await looks_in(100) == 0
    for expected in (1, 0):
        metrics.judged(REF, failed=False)
        assert await looks_in(30) == expected
    answered(store, clock)
    await looks_in(30)
    analytics.of(REF)
    assert await looks_in(10) == 2


@pytest.fixture
def double(double: MlflowDouble, tmp_path: Path) -> MlflowDouble:
    double.add("m", onnx_adder(tmp_path / "models" / "1"))
    double.point("m", "1")
    return double


async def told(server: Station, **parameters: object) -> tuple[int, dict[str, Any]]:
    body = {"inputs": [TENSOR], "parameters": parameters}
    answer = await server.http.post("/v2/models/m/infer", json=body)
    return answer.status_code, answer.json().get("parameters", {})


@story
async def test_answer_has_figures_where_the_request_asks_for_them(home: Path, double: MlflowDouble) -> None:
    """What is not known is null over HTTP and left out over gRPC; who does not ask is told none."""
    async with station(home, double) as server, line_to(server) as line:
        await server.serves("1")
        assert FIGURES.isdisjoint((await told(server))[1])
        assert FIGURES.isdisjoint((await told(server, analytics=False))[1])
        assert (await told(server, analytics="yes"))[0] == 400

        async def measured() -> bool:
            status, parameters = await told(server, analytics=True)
            assert status == 200
            assert parameters.keys() > FIGURES
            return parameters["p95_ms"] is not None

        await eventually(measured, "the latency of the last minutes is known")
        _, parameters = await told(server, analytics=True)
        assert parameters["p95_ms"] > 0
        assert (parameters["error_rate"], parameters["accuracy"]) == (0.0, None)
        assert parameters["health_score"] == (1.0 if parameters["health"] == "healthy" else 0.5)
        body = Report(
            id="b1",
            kind=version_reports.BENCHMARK,
            model="m",
            version="1",
            verdict="passed",
            created_at=datetime.now(UTC),
            body={"accuracy": 0.9},
        )
        reports.save(server.engine, body)

        async def evaluated() -> bool:
            return bool((await told(server, analytics=True))[1]["accuracy"] == 0.9)

        await eventually(evaluated, "the accuracy is known")
        tensor = {
            "name": "x",
            "datatype": "FP32",
            "shape": [1, 3],
            "contents": {"fp32_contents": TENSOR["data"]},
        }
        asked = {"analytics": {"bool_param": True}}
        answer = await line.call("ModelInfer", model_name="m", inputs=[tensor], parameters=asked)
        assert answer.parameters["accuracy"].double_param == 0.9
        assert answer.parameters["p95_ms"].double_param > 0
        assert answer.parameters["health"].string_param
        plain = await line.call("ModelInfer", model_name="m", inputs=[tensor])
        assert FIGURES.isdisjoint(plain.parameters)
