"""Bodies of all callers together, bounded: what is over is refused, what is given back counts no more."""

import gzip
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from serving.api.access import Access
from serving.api.body import Message, Receive
from serving.api.edge import Edge, Send
from serving.api.intake import Arrival, Intake
from serving.core.errors import Overloaded
from tests.desk import open_access
from tests.story import story


async def _piece() -> Message:
    return {"type": "http.request", "body": b"x" * 6, "more_body": True}


@pytest.mark.parametrize(("size_bytes", "is_taken"), [(9, True), (10, True), (11, False)])
def test_intake_takes_up_to_its_limit(size_bytes: int, is_taken: bool) -> None:
    """To the last byte; a refusal takes nothing."""
    intake = Intake(10)
    if is_taken:
        intake.take(size_bytes)
    else:
        with pytest.raises(Overloaded, match="SIGNALBOX_MAX_INFLIGHT_MB"):
            intake.take(size_bytes)
    assert intake.held_bytes == (size_bytes if is_taken else 0)


@story
async def test_arrival_counts_what_came_and_gives_all_of_it_back() -> None:
    """Also after a refusal in the middle of a body."""
    intake = Intake(10)
    arrival = Arrival(intake, _piece)
    await arrival()
    with pytest.raises(Overloaded):
        await arrival()
    assert intake.held_bytes == 6
    arrival.leave()
    arrival.leave()
    assert intake.held_bytes == 0


class Holds:
    """Says what the intake held while its request was worked on."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self.held: list[int] = []

    async def __call__(self, scope: dict[str, object], receive: Receive, send: Send) -> None:
        self.held.append(self._intake.held_bytes)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def _edge(intake: Intake, behind: Holds, access: Access) -> Edge:
    endpoint = cast(Any, SimpleNamespace(max_body_bytes=1 << 20))
    return Edge(access, intake, endpoint, endpoint, behind, lambda _: True)


@pytest.mark.parametrize("encoding", [None, "gzip"])
@story
async def test_body_counts_until_its_answer_was_sent(encoding: str | None) -> None:
    """As it came and, where it was packed, as it is; the next one finds everything free."""
    intake, body = Intake(1 << 20), b"z" * 1000
    behind = Holds(intake)
    sent = gzip.compress(body) if encoding else body
    headers = {"Content-Encoding": encoding} if encoding else {}
    edge = _edge(intake, behind, open_access())
    transport = httpx.ASGITransport(edge)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        for _ in range(2):
            await http.post("/api/v2/webhooks/mlflow", content=sent, headers=headers)
    assert behind.held == [len(sent) + (len(body) if encoding else 0)] * 2
    assert intake.held_bytes == 0


@story
async def test_body_is_refused_with_a_time_to_come_back_when_others_fill_the_memory() -> None:
    """503: it is not this caller's body that is too large."""
    intake = Intake(100)
    intake.take(60)
    edge = _edge(intake, Holds(intake), open_access())
    transport = httpx.ASGITransport(edge)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        refused = await http.post("/api/v2/webhooks/mlflow", content=b"z" * 50)
        taken = await http.post("/api/v2/webhooks/mlflow", content=b"z" * 40)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "in flight" in refused.json()["error"]
    assert taken.status_code == 200
