"""Labels over HTTP: on disk before they are acknowledged, and seen in model-info once joined."""

import asyncio
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from serving.core.errors import Overloaded, StoreUnavailable
from serving.core.labels import Label
from serving.feedback import Feedback
from serving.store import labels
from serving.store.database import writing
from serving.store.feedback import FeedbackJournal
from serving.store.observed import ENOUGH_LABELS
from serving.store.telemetry import add
from tests.mlflow_double import MlflowDouble
from tests.models import onnx_adder, onnx_raises_on_negative
from tests.station import ADMIN, Station, station
from tests.store.test_labels import joined
from tests.store.test_telemetry import stats, window
from tests.story import eventually, story

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def double(double: MlflowDouble, tmp_path: Path) -> MlflowDouble:
    double.add("m", onnx_adder(tmp_path / "models" / "1"), onnx_raises_on_negative(tmp_path / "models" / "2"))
    double.point("m", "1")
    return double


def label(request_id: str = "r", row: int = 0) -> Label:
    return Label(request_id=request_id, row=row, label=1, at=NOW)


async def give(server: Station, body: object) -> tuple[int, dict[str, Any]]:
    answer = await server.http.post("/api/v2/feedback", json=body, headers=ADMIN)
    return answer.status_code, answer.json()


def kept(home: Path) -> list[Label]:
    """All labels on disk that wait for their answer."""
    journal = FeedbackJournal(home / "serving")
    return [*journal.waiting(), *journal.take(journal.waiting())]


@story
async def test_label_is_on_disk_when_it_is_acknowledged(home: Path, double: MlflowDouble) -> None:
    """One or a list, typed as it was sent."""
    async with station(home, double) as server:
        assert await give(server, {"request_id": "a", "label": 3}) == (202, {"accepted": 1})
        many = [
            {"request_id": "b", "row": 1, "label": "cat", "model": "m"},
            {"request_id": "b", "row": 2, "label": True},
            {"request_id": "b", "row": 3, "label": 2.5},
            {"request_id": "b", "row": 4, "label": [1, 2.5]},
        ]
        assert await give(server, many) == (202, {"accepted": 4})
    found = {(each.request_id, each.row): each.label for each in kept(home)}
    assert found == {
        ("a", 0): 3,
        ("b", 1): "cat",
        ("b", 2): True,
        ("b", 3): 2.5,
        ("b", 4): [1.0, 2.5],
    }
    assert [type(value) for value in found.values()] == [int, str, bool, float, list]


@pytest.mark.parametrize(
    ("body", "part"),
    [
        pytest.param([], "1 to 10000 labels, not 0", id="none"),
        pytest.param([{"request_id": "r", "label": 1}] * 10_001, "not 10001", id="too many"),
        pytest.param("r", "label 0: must be an object", id="no object"),
        pytest.param({"request_id": "r"}, "must be an object with", id="no label"),
        pytest.param({"label": 1}, "must be an object with", id="no id"),
        pytest.param({"request_id": "r", "label": 1, "x": 2}, "unknown field 'x'", id="unknown field"),
        pytest.param({"request_id": "r/../x", "label": 1}, "'request_id'", id="bad id"),
        pytest.param({"request_id": 7, "label": 1}, "'request_id'", id="number as id"),
        pytest.param({"request_id": "r", "row": -1, "label": 1}, "'row'", id="negative row"),
        pytest.param({"request_id": "r", "row": True, "label": 1}, "'row'", id="true as row"),
        pytest.param({"request_id": "r", "label": None}, "'label' must be", id="null"),
        pytest.param({"request_id": "r", "label": {}}, "'label' must be", id="object"),
        pytest.param({"request_id": "r", "label": []}, "'label' must be", id="empty list"),
        pytest.param({"request_id": "r", "label": ["a"]}, "'label' must be", id="list of text"),
        pytest.param({"request_id": "r", "label": [1] * 257}, "'label' must be", id="long list"),
        pytest.param({"request_id": "r", "label": "x" * 1001}, "'label' must be", id="long text"),
        pytest.param({"request_id": "r", "label": 1 << 63}, "'label' must be", id="huge number"),
        pytest.param({"request_id": "r", "label": 1, "model": 3}, "'model'", id="number as model"),
        pytest.param(
            [{"request_id": "r", "label": 1}, {"request_id": "r", "label": None}], "label 1:", id="second"
        ),
    ],
)
@story
async def test_labels_are_refused_whole_and_the_first_wrong_one_is_named(
    home: Path, double: MlflowDouble, body: object, part: str
) -> None:
    """Nothing of a refused list is kept."""
    async with station(home, double) as server:
        status, told = await give(server, body)
        assert (status, part in told["error"]) == (400, True), told
    assert kept(home) == []


@story
async def test_labels_are_refused_when_they_are_no_json(home: Path, double: MlflowDouble) -> None:
    """With the place in the text."""
    async with station(home, double) as server:
        answer = await server.http.post("/api/v2/feedback", content=b"{", headers=ADMIN)
        assert (answer.status_code, "not JSON" in answer.json()["error"]) == (400, True)


@story
async def test_labels_need_a_key(home: Path, double: MlflowDouble) -> None:
    """Of scope infer, also on loopback: who may label may move an accuracy."""
    async with station(home, double) as server:
        answer = await server.http.post("/api/v2/feedback", json={"request_id": "r", "label": 1})
        assert answer.status_code == 401


@story
async def test_labels_are_503_when_the_disk_refuses_them(home: Path, double: MlflowDouble) -> None:
    """And are not acknowledged; sent again, they are taken."""
    async with station(home, double) as server:
        blocker = home / "serving" / "feedback.jsonl"
        blocker.mkdir()
        status, told = await give(server, {"request_id": "r", "label": 1})
        assert (status, "send them again later" in told["error"]) == (503, True)
        blocker.rmdir()
        assert (await give(server, {"request_id": "r", "label": 1}))[0] == 202


@story
async def test_labels_are_refused_when_nobody_takes_them_from_the_journal(tmp_path: Path) -> None:
    """The disk is not filled with labels that are never joined."""
    feedback = Feedback(FeedbackJournal(tmp_path, max_bytes=100))
    await feedback.accept([label(), label("s")])
    with pytest.raises(Overloaded, match="wait to be joined"):
        await feedback.accept([label("t")])


class SlowJournal(FeedbackJournal):
    """Writes when it is let go."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.free = threading.Event()
        self.writes: list[int] = []

    def append(self, labels: Any) -> None:
        self.free.wait(20)
        self.writes.append(len(labels))
        super().append(labels)


@story
async def test_labels_of_many_callers_share_a_write(tmp_path: Path) -> None:
    """What comes while the disk is busy goes with the next; each is acknowledged after its own write."""
    journal = SlowJournal(tmp_path)
    feedback = Feedback(journal)
    callers = [asyncio.create_task(feedback.accept([label(f"r{n}")])) for n in range(10)]
    await asyncio.sleep(0)
    assert not any(caller.done() for caller in callers)
    journal.free.set()
    await asyncio.gather(*callers)
    assert sum(journal.writes) == 10
    assert len(journal.writes) <= 2
    assert {each.request_id for each in journal.take([])} == {f"r{n}" for n in range(10)}
    await feedback.close()


@story
async def test_caller_who_left_spoils_no_other(tmp_path: Path) -> None:
    """A label that was written is kept, whoever still waits for the answer."""
    journal = SlowJournal(tmp_path)
    feedback = Feedback(journal)
    leaving = asyncio.create_task(feedback.accept([label("a")]))
    staying = asyncio.create_task(feedback.accept([label("b")]))
    await asyncio.sleep(0)
    leaving.cancel()
    journal.free.set()
    await staying
    await feedback.close()
    assert {each.request_id for each in journal.take([])} == {"a", "b"}


def test_torn_line_is_left_out_and_the_next_is_whole(tmp_path: Path) -> None:
    """A crash in the middle of a write loses the label that nobody was told of."""
    journal = FeedbackJournal(tmp_path)
    journal.append([label("a")])
    with (tmp_path / "feedback.jsonl").open("ab") as file:
        file.write(b'{"id":"torn","row":0,"la')
    journal.append([label("b")])
    assert [each.request_id for each in journal.take([])] == ["a", "b"]


def test_labels_are_taken_again_when_a_crash_came_between(tmp_path: Path) -> None:
    """Claimed and kept, but not yet removed: they are there twice and none is lost."""
    journal = FeedbackJournal(tmp_path)
    journal.append([label("a")])
    (tmp_path / "feedback.jsonl").rename(tmp_path / "feedback.claimed.jsonl")
    journal.append([label("b")])
    assert [each.request_id for each in journal.take([])] == ["a"]
    assert [each.request_id for each in journal.take(journal.waiting())] == ["b"]
    assert [each.request_id for each in journal.waiting()] == ["a", "b"]


def test_disk_error_is_told_as_such(tmp_path: Path) -> None:
    """Not as the caller's fault."""
    (tmp_path / "feedback.jsonl").mkdir()
    problem = Feedback(FeedbackJournal(tmp_path))._append([label()])
    assert isinstance(problem, StoreUnavailable)


@story
async def test_info_prefers_live_numbers_when_there_are_enough_labels(
    home: Path, double: MlflowDouble
) -> None:
    """And says so; with fewer it shows them beside the evaluation's."""
    async with station(home, double) as server:
        await server.serves("1")
        ref, now = joined(1).ref, datetime.now(UTC)
        given = [joined(n % 4 != 0, request_id=f"r{n}") for n in range(ENOUGH_LABELS)]
        moved = [_moved(each, now) for each in given]
        labels.count(server.engine, moved[:-1])
        with writing(server.engine) as connection:
            add(connection, _answered(ref, now))
        entry = await told(server)
        assert (entry["statistics"]["accuracy"], entry["statistics"]["source"]) == (None, None)
        assert entry["live"]["labelled"] == ENOUGH_LABELS - 1
        labels.count(server.engine, moved[-1:])
    async with station(home, double) as server:  # what was remembered for some seconds is asked anew
        await server.serves("1")
        entry = await told(server)
        assert entry["statistics"]["source"] == "live"
        assert entry["statistics"]["accuracy"] == entry["live"]["accuracy"]
        assert 0.7 < entry["live"]["accuracy"] < 0.8
        assert entry["live"]["coverage"] == pytest.approx(0.1, rel=0.05)
        assert entry["live"]["label_delay_seconds"]["p50"] == pytest.approx(60, rel=0.01)


def _moved(each: labels.Joined, now: datetime) -> labels.Joined:
    return labels.Joined(
        label=each.label,
        ref=type(each.ref)("m", "1"),
        variant="champion",
        answered_at=now,
        said=each.said,
        scored=each.scored,
    )


def _answered(ref: Any, now: datetime) -> Any:
    found = window(int(now.timestamp()) - 60, stats(10 * ENOUGH_LABELS))
    return type(found)(
        ref=type(ref)("m", "1"),
        variant="champion",
        worker="w1",
        step_seconds=1,
        start=found.start,
        stats=found.stats,
    )


async def told(server: Station) -> dict[str, Any]:
    [entry] = [each for each in (await server.info())["versions"] if each["version"] == "1"]
    return dict(entry)


@story
async def test_failures_are_told_by_cause(home: Path, double: MlflowDouble) -> None:
    """Briefly in model-info, in full to who may read."""
    double.point("m", "2")
    async with station(home, double) as server:
        await server.serves("2")
        for _ in range(3):
            assert (await server.infer(-1.0, 1.0, 1.0)).status_code == 500

        async def stored() -> bool:
            answer = await server.http.get("/api/v2/errors", params={"model": "m"}, headers=ADMIN)
            return bool(answer.json()["errors"])

        await eventually(stored, "the cause is in the store")
        answer = await server.http.get("/api/v2/errors", params={"model": "m"}, headers=ADMIN)
        [cause] = answer.json()["errors"]
        assert (cause["model"], cause["version"]) == ("m", "2")
        assert "Traceback" in cause["traceback"]
        assert (await server.http.get("/api/v2/errors")).status_code == 401
        none = await server.http.get("/api/v2/errors", params={"model": "n"}, headers=ADMIN)
        assert none.json() == {"errors": []}
        limit = await server.http.get("/api/v2/errors", params={"limit": 0}, headers=ADMIN)
        assert limit.status_code == 400
        [entry] = [each for each in (await server.info())["versions"] if each["version"] == "2"]
        assert [each["fingerprint"] for each in entry["errors"]] == [cause["fingerprint"]]
        assert "traceback" not in entry["errors"][0]
