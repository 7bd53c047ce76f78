"""The outermost application: one door for every request, one answer for every error."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from serving.api.access import ANONYMOUS
from serving.api.body import Message, Receive
from serving.api.edge import DRAWN, Edge, Send
from serving.core.errors import NotServed
from serving.core.traffic import Split, goes_to_challenger
from tests.desk import Desk, client, edge, open_desk
from tests.story import story
from tests.versions import loaded


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return open_desk(tmp_path)


class Echo:
    """Answers with the body it read and notes what it was told."""

    def __init__(self) -> None:
        self.state: object = None

    async def __call__(self, scope: dict[str, object], receive: Receive, send: Send) -> None:
        self.state = scope["state"]
        message = await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": message["body"]})


class Fails:
    """Raises, before or after its answer began."""

    def __init__(self, error: Exception, *messages: Message) -> None:
        self._error = error
        self._messages = messages

    async def __call__(self, scope: dict[str, object], receive: Receive, send: Send) -> None:
        for message in self._messages:
            await send(message)
        raise self._error


@story
async def test_request_goes_on_with_its_actor_and_id(desk: Desk) -> None:
    """And the answer carries the id."""
    behind = Echo()
    async with client(desk, behind=behind) as http:
        answer = await http.post("/v2/repository/index", content=b"body", headers={"X-Request-Id": "r-1"})
    assert (answer.status_code, answer.content) == (200, b"body")
    assert answer.headers["x-request-id"] == "r-1"
    assert behind.state == {"actor": "anonymous", "caller": ANONYMOUS, "request_id": "r-1"}


@story
async def test_every_answer_tells_browsers_to_keep_off(desk: Desk) -> None:
    """Of the framework as of the door."""
    async with client(desk, behind=Echo()) as http:
        for answer in (
            await http.post("/v2/repository/index", content=b""),
            await http.get("/v2/models/digits/infer"),
        ):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert "access-control-allow-origin" not in answer.headers


@story
async def test_every_body_has_the_same_limit(desk: Desk) -> None:
    """An endpoint that needs no key must not be a way to fill the memory."""
    async with client(desk, behind=Echo(), max_body_bytes=10) as http:
        assert (await http.post("/api/v2/webhooks/mlflow", content=b"x" * 10)).status_code == 200
        answer = await http.post("/api/v2/webhooks/mlflow", content=b"x" * 11)
    assert answer.status_code == 413
    assert answer.json() == {"error": "the body is larger than the limit of 10 bytes"}


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (NotServed("no such thing", exists=["a"]), 404, "no such thing; available: a"),
        (ValueError("secret"), 500, "internal error"),
    ],
)
@story
async def test_error_becomes_its_answer(desk: Desk, error: Exception, status: int, message: str) -> None:
    """Whatever escaped."""
    async with client(desk, behind=Fails(error)) as http:
        answer = await http.get("/v2")
    assert answer.status_code == status
    assert answer.json()["error"].startswith(message)


@story
async def test_answer_that_began_is_not_followed_by_another(desk: Desk) -> None:
    """A framework that answers an error and raises it again has answered."""
    start: Message = {"type": "http.response.start", "status": 404, "headers": []}
    body: Message = {"type": "http.response.body", "body": b"first"}
    async with client(desk, behind=Fails(ValueError("again"), start, body)) as http:
        answer = await http.get("/v2")
    assert (answer.status_code, answer.content) == (404, b"first")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@story
async def test_inference_is_only_posted(desk: Desk, method: str) -> None:
    """Another method is not allowed there, which is not the same as no such path."""
    async with client(desk) as http:
        answer = await http.request(method, "/v2/models/digits/infer")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(("host", "status"), [("localhost", 200), ("evil.example", 403)])
@story
async def test_host_is_checked_before_anything_else(desk: Desk, host: str, status: int) -> None:
    """Health probes included."""
    async with client(desk, behind=Echo()) as http:
        assert (await http.get("/v2/health/live", headers={"Host": host})).status_code == status


@pytest.mark.parametrize(
    ("count", "value", "status"),
    [(90, "x", 200), (101, "x", 431), (2, "x" * 17_000, 431), (1, "x" * 31_000, 200)],
)
@story
async def test_headers_are_bounded_in_number_and_size(
    desk: Desk, count: int, value: str, status: int
) -> None:
    """Before anything is done for them."""
    async with client(desk, behind=Echo()) as http:
        given = {f"x-{number}": value for number in range(count)}
        answer = await http.get("/v2/health/live", headers=given)
    assert answer.status_code == status
    assert status == 200 or "headers are too many" in answer.json()["error"]


_QUESTION = orjson.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1.0, 2.0, 3.0]}]}
)


def _scope() -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": "/v2/models/digits/infer",
        "raw_path": b"/v2/models/digits/infer",
        "query_string": b"",
        "headers": [(b"host", b"localhost:8080")],
        "client": ("127.0.0.1", 5),
    }


async def _answering_version(app: Edge, scope: dict[str, Any]) -> str:
    """Who answers the question on the long way."""
    said: list[bytes] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": _QUESTION, "more_body": False}

    async def send(message: Message) -> None:
        said.append(bytes(message.get("body", b"")))

    await app(scope, receive, send)
    return str(orjson.loads(b"".join(said))["model_version"])


@story
async def test_request_keeps_its_part_of_a_split_when_it_takes_the_long_way_after_all(desk: Desk) -> None:
    """Drawn a second time, all that the challenger did not get at once would be offered to it again."""
    desk.model.served["challenger"] = loaded("3")
    desk.model.split = Split("3", 50)
    desk.install(loaded("2"))
    app = edge(desk)
    await _answering_version(app, _scope())  # a head that is known may be answered at once
    drawn, answered = [], []
    for _ in range(40):
        scope = _scope()
        assert app.at_once(scope, _QUESTION) is None
        _, key = scope[DRAWN]
        drawn.append("3" if goes_to_challenger("digits", key, 50) else "2")
        answered.append(await _answering_version(app, scope))
    assert answered == drawn
    assert set(drawn) == {"2", "3"}
