"""The whole way of a label: an answer, its label over HTTP, the log, and the version's live accuracy."""

from pathlib import Path

import pytest

from serving.core.clock import ManualClock
from serving.store.inference_log import label_parts, log_folder, parts
from tests.mlflow_double import MlflowDouble
from tests.models import onnx_adder
from tests.station import ADMIN, Station, station
from tests.story import eventually, story


@pytest.fixture
def double(double: MlflowDouble, tmp_path: Path) -> MlflowDouble:
    double.add("m", onnx_adder(tmp_path / "models" / "1"))
    double.point("m", "1")
    return double


@pytest.mark.slow
@story
async def test_label_becomes_live_accuracy_when_its_answer_is_in_the_log(
    home: Path, double: MlflowDouble
) -> None:
    """Of the version that gave the answer; a label that came first waits for the log."""
    clock = ManualClock()
    async with station(home, double, clock=clock) as server:
        await server.serves("1")
        # The adder's largest output is the last: class 2 is right, class 0 is not.
        for number, label in enumerate((2, 0, 2)):
            name = f"asked-{number}"
            assert (await server.infer(1.0, 2.0, 3.0, headers={"X-Request-Id": name})).status_code == 200
            body = {"request_id": name, "label": label}
            given = await server.http.post("/api/v2/feedback", json=body, headers=ADMIN)
            assert given.status_code == 202
        await eventually(lambda: parts(log_folder(home), "m"), "the log is on disk")
        clock.advance(30)
        await eventually(lambda: len(label_parts(log_folder(home), "m")) > 0, "the labels are joined")

        async def seen() -> bool:
            clock.advance(6)
            return (await live(server))["labelled"] == 3

        await eventually(seen, "model-info tells of the labels")
        assert (await live(server))["accuracy"] == pytest.approx(2 / 3)
        text = (await server.http.get("/metrics")).text
        assert 'signalbox_feedback_labels_total{outcome="joined"} 3.0' in text


async def live(server: Station) -> dict[str, float]:
    [entry] = (await server.info())["versions"]
    return dict(entry["live"])
