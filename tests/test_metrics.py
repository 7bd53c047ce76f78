"""`/metrics` of a whole server: what it tells, that Prometheus takes it, and that it stays bounded."""

import re
from pathlib import Path

import pytest

from tests.mlflow_double import MlflowDouble
from tests.models import onnx_adder, onnx_raises_on_negative
from tests.promtool import complaints
from tests.station import Station, station
from tests.story import eventually, story


@pytest.fixture
def double(double: MlflowDouble, tmp_path: Path) -> MlflowDouble:
    models = tmp_path / "models"
    double.add("m", onnx_adder(models / "1"), onnx_adder(models / "2", 2.0))
    double.add("m", onnx_raises_on_negative(models / "3"))
    double.point("m", "1")
    return double


async def scraped(server: Station) -> str:
    answer = await server.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return answer.text


def value(text: str, name: str) -> float | None:
    """Of one sample, named with its labels as they stand in the text."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


async def busy(server: Station, double: MlflowDouble) -> str:
    """A scrape after answers, a swap, failures and a refused request."""
    await server.serves("1")
    double.point("m", "2")
    await server.serves("2")
    double.point("m", "3", "challenger")
    await server.serves("3", address="challenger")
    assert (await server.infer(-1.0, 1.0, 1.0, address="challenger")).status_code == 500

    async def measured() -> bool:
        return value(await scraped(server), 'signalbox_swap_seconds_count{model="m"}') == 1

    await eventually(measured, "the swap is measured")
    return await scraped(server)


@story
async def test_metrics_pass_prometheus_own_check_when_the_server_was_busy(
    home: Path, double: MlflowDouble
) -> None:
    """Names, units, types and help texts."""
    async with station(home, double) as server:
        text = await busy(server, double)
        assert complaints(text) == ""


@story
async def test_metrics_tell_of_answers_swaps_memory_and_registry(home: Path, double: MlflowDouble) -> None:
    """What an operator's first dashboard asks for."""
    async with station(home, double, memory_mb=512) as server:
        text = await busy(server, double)
        marks = 'model="m",variant="champion",version="2"'
        seconds = f"signalbox_inference_duration_seconds_count{{{marks}}}"
        assert (value(text, seconds) or 0) >= 1
        assert (value(text, f"signalbox_inference_batch_rows_count{{{marks}}}") or 0) >= 1
        marks = 'model="m",status="failed",variant="challenger",version="3"'
        assert value(text, f"signalbox_inference_requests_total{{{marks}}}") == 1
        assert value(text, 'signalbox_swaps_total{alias="champion",model="m"}') == 2
        assert 0 < (value(text, 'signalbox_swap_seconds_sum{model="m"}') or 0) < 20
        assert (value(text, "signalbox_load_seconds_count") or 0) >= 3
        assert value(text, "signalbox_memory_budget_bytes") == 512 << 20
        assert (value(text, "signalbox_memory_held_bytes") or 0) > 0
        assert value(text, "signalbox_versions_loaded") == 3
        assert value(text, 'signalbox_queue_requests{model="m"}') == 0
        assert 0 <= (value(text, "signalbox_registry_age_seconds") or -1) < 20
        assert value(text, "signalbox_registry_stale") == 0
        assert (value(text, "process_resident_memory_bytes") or 0) > 1e6


@story
async def test_labels_name_nothing_that_callers_choose(home: Path, double: MlflowDouble) -> None:
    """Made-up models, request ids and paths leave no series behind."""
    async with station(home, double) as server:
        await server.serves("1")
        for number in range(20):
            await server.infer(model=f"made-up-{number}", headers={"X-Request-Id": f"chosen-{number}"})
            await server.http.get(f"/no/such/path-{number}")
        text = await scraped(server)
        assert "made-up" not in text
        assert "chosen" not in text
        assert "path-" not in text
        labels = {name for names in re.findall(r"\{(.*?)\}", text) for name in re.findall(r"(\w+)=", names)}
        ours = {"model", "version", "variant", "status", "alias", "strategy", "reason", "outcome", "le"}
        assert labels <= ours
