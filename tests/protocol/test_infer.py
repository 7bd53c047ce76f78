"""`POST .../infer` over HTTP: what a client sends, and what it reads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from serving.core.model import TensorSpec
from serving.followed import FollowedModel
from serving.routes import ModelRoutes
from tests.desk import Desk, Hangs, client, open_desk
from tests.story import story
from tests.versions import ScriptedModel, gives, loaded, raises

PATH = "/v2/models/digits/infer"
X = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
REQUEST = {"inputs": [X]}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = open_desk(tmp_path)
    desk.install(loaded("2"), loaded("1"))
    return desk


@pytest.fixture
def hangs() -> Iterator[Hangs]:
    hangs = Hangs()
    yield hangs
    hangs.free.set()


async def post(
    desk: Desk,
    request: object = REQUEST,
    path: str = PATH,
    headers: dict[str, str] | None = None,
    **options: Any,
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers; a `bytes` request is sent as it is."""
    content = request if isinstance(request, bytes) else orjson.dumps(request)
    async with client(desk, **options) as http:
        answer = await http.post(path, content=content, headers=headers)
    return answer.status_code, answer.json(), dict(answer.headers)


@story
async def test_infer_answers_with_outputs_and_who_gave_them(desk: Desk) -> None:
    """Version, alias, variant and health in the body, and again in the headers."""
    status, body, headers = await post(desk)
    assert status == 200
    assert body == {
        "model_name": "digits",
        "model_version": "2",
        "parameters": {"variant": "champion", "health": "healthy", "alias": "champion"},
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [3.0, 4.0, 5.0]}],
    }
    assert (headers["x-model-version"], headers["x-model-variant"]) == ("2", "champion")
    assert headers["content-type"] == "application/json"


@story
async def test_infer_says_fallback_when_previous_answered(desk: Desk) -> None:
    """The version named is the one that gave the answer."""
    desk.install(loaded("2", raises), loaded("1"))
    status, body, headers = await post(desk)
    assert (status, body["model_version"], body["parameters"]["variant"]) == (200, "1", "fallback")
    assert body["parameters"]["alias"] == "champion"
    assert (headers["x-model-version"], headers["x-model-variant"]) == ("1", "fallback")


@story
async def test_infer_keeps_what_the_model_raised_to_itself_when_both_fail(desk: Desk) -> None:
    """500 with a clear sentence, and the id under which the log has the rest."""
    desk.install(loaded("2", raises), loaded("1", raises))
    status, body, headers = await post(desk)
    assert status == 500
    assert body["error"].startswith("version 2 of 'digits' failed on this request")
    assert "secret" not in body["error"]
    assert headers["x-request-id"]


@pytest.mark.parametrize(
    ("path", "version", "variant", "alias"),
    [
        ("/v2/models/digits/versions/2/infer", "2", "direct", None),
        ("/v2/models/digits/versions/champion/infer", "2", "champion", "champion"),
        ("/v2/models/digits/versions/shadow/infer", "3", "direct", "shadow"),
        ("/v2/models/%64igits/versions/%33/infer", "3", "direct", None),
    ],
)
@story
async def test_infer_is_answered_by_the_version_addressed(
    desk: Desk, path: str, version: str, variant: str, alias: str | None
) -> None:
    """By number and by alias."""
    desk.model.served["shadow"] = loaded("3")
    desk.install(loaded("2"), loaded("1"))
    status, body, _ = await post(desk, path=path)
    assert (status, body["model_version"]) == (200, version)
    assert (body["parameters"]["variant"], body["parameters"].get("alias")) == (variant, alias)


@pytest.mark.parametrize("name", ["a b", "naïve", "100%", "with/slash", "模型", "x?y#z"])
@story
async def test_infer_finds_the_model_when_its_name_must_be_quoted(desk: Desk, name: str) -> None:
    """A quoted slash stays inside the name."""
    from urllib.parse import quote

    desk.routes.publish(name, ModelRoutes({"champion": loaded("2", model=name)}))
    status, body, _ = await post(desk, path=f"/v2/models/{quote(name, safe='')}/infer")
    assert (status, body["model_name"]) == (200, name)


@pytest.mark.parametrize(
    ("path", "exists"),
    [
        ("/v2/models/nope/infer", "available: digits"),
        ("/v2/models/digits/versions/9/infer", "available: champion, 2"),
        ("/v2/models/digits/versions/challenger/infer", "available: champion, 2"),
        ("/v2/models/digits/versions/1/infer", "available: champion, 2"),
    ],
)
@story
async def test_infer_names_what_exists_when_the_address_does_not(desk: Desk, path: str, exists: str) -> None:
    """404, with the way out."""
    status, body, _ = await post(desk, path=path)
    assert status == 404
    assert exists in body["error"]


@pytest.mark.parametrize("request_id", ["42", "", "ünïcode"])
@story
async def test_infer_echoes_the_bodys_id(desk: Desk, request_id: str) -> None:
    """As it came, and only if it came."""
    _, body, _ = await post(desk, REQUEST | {"id": request_id})
    assert body["id"] == request_id
    _, body, _ = await post(desk)
    assert "id" not in body


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [
        ("abc-1.2_3", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("with space", False),
        ("semi;colon", False),
    ],
)
@story
async def test_request_id_is_the_callers_when_it_is_well_formed(
    desk: Desk, given: str, is_kept: bool
) -> None:
    """Else one is made; never the body's."""
    _, _, headers = await post(desk, REQUEST | {"id": "body"}, headers={"X-Request-Id": given})
    assert (headers["x-request-id"] == given) is is_kept
    assert headers["x-request-id"] not in ("", "body")


@story
async def test_request_id_is_on_every_answer(desk: Desk) -> None:
    """Errors too."""
    _, _, headers = await post(desk, b"{", headers={"X-Request-Id": "mine"})
    assert headers["x-request-id"] == "mine"


def two_outputs() -> ScriptedModel:
    specs = (TensorSpec("y", "FP32", (-1, 3)), TensorSpec("z", "FP32", (-1, 3)))
    return ScriptedModel(lambda inputs: {"y": inputs["x"], "z": inputs["x"] * 2}, outputs=specs)


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        ([], ["y", "z"]),
        ([{"name": "z"}], ["z"]),
        ([{"name": "z"}, {"name": "y"}], ["z", "y"]),
        ({"name": "y"}, ["y"]),
        ([{"name": "y", "parameters": {"binary_data": False}}], ["y"]),
    ],
)
@story
async def test_infer_gives_the_outputs_that_were_asked_for(
    desk: Desk, outputs: object, names: list[str]
) -> None:
    """In the order asked; all of them when none is named."""
    version = loaded("2")
    version.model = two_outputs()
    desk.install(version)
    status, body, _ = await post(desk, REQUEST | {"outputs": outputs})
    assert status == 200
    assert [output["name"] for output in body["outputs"]] == names


@pytest.mark.parametrize(
    ("outputs", "problem"),
    [
        ([{"name": "nope"}], "tensor 'nope': unknown output; the model gives y"),
        ([{"name": "y"}, {"name": "y"}], "tensor 'y': asked for more than once"),
        ([{}], "every entry of 'outputs' must be an object with a 'name'"),
        (["y"], "every entry of 'outputs'"),
        ("y", "every entry of 'outputs'"),
        ([7], "every entry of 'outputs'"),
        ([{"name": None}], "every entry of 'outputs'"),
        ([{"name": "y", "parameters": []}], "tensor 'y': 'parameters' of an output"),
        ([{"name": "y", "parameters": {"binary_data": 1}}], "'binary_data' must be true or false"),
        ([{"name": "y", "parameters": {"classification": "3"}}], "'classification' must be the number"),
        ([{"name": "y", "parameters": {"classification": -1}}], "'classification' must be the number"),
    ],
)
@story
async def test_infer_is_refused_before_execution_when_an_output_cannot_be_given(
    desk: Desk, outputs: object, problem: str
) -> None:
    """The specs can tell, so the model is not asked."""
    status, body, _ = await post(desk, REQUEST | {"outputs": outputs})
    assert status == 400
    assert problem in body["error"]
    assert desk.counted == (0, 0)


@pytest.mark.parametrize(
    ("request_body", "problem"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        ({}, "'inputs' must be an array"),
        ({"inputs": []}, "tensor 'x': missing"),
        ({"inputs": [X, X]}, "tensor 'x': given more than once"),
        ({"inputs": [X | {"name": "w"}]}, "tensor 'w': unknown input; the model takes 'x'"),
        ({"inputs": [X | {"datatype": "FP64"}]}, "tensor 'x': datatype must be FP32"),
        ({"inputs": [X | {"shape": [1, 4]}]}, "tensor 'x': shape [1, 4] does not fit [-1, 3]"),
        ({"inputs": [X | {"shape": [10**9, 3]}]}, "tensor 'x': shape"),
        ({"inputs": [X | {"data": [1, None, 3]}]}, "tensor 'x': data must be numbers, but element 1 is null"),
        ({"inputs": [X | {"data": [1, 2]}]}, "tensor 'x': shape"),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [NaN]}]}', "tensor 'x': data"),
        (REQUEST | {"input": []}, "unknown field 'input'"),
        (REQUEST | {"id": 7}, "'id' must be a string"),
        (REQUEST | {"parameters": []}, "'parameters' must be an object"),
        (REQUEST | {"parameters": None}, "'parameters' must be an object"),
    ],
)
@story
async def test_infer_is_refused_naming_the_culprit_when_the_request_is_malformed(
    desk: Desk, request_body: object, problem: str
) -> None:
    """400, in one sentence, and nothing is held against the version."""
    status, body, _ = await post(desk, request_body)
    assert status == 400
    assert problem in body["error"]
    assert desk.counted == (0, 0)


@pytest.mark.parametrize(
    ("parameters", "headers", "problem"),
    [
        ({"timeout": -1}, {}, "parameter 'timeout' must be a whole number of microseconds"),
        ({"timeout": 1.5}, {}, "parameter 'timeout'"),
        ({"timeout": "1"}, {}, "parameter 'timeout'"),
        ({"timeout": True}, {}, "parameter 'timeout'"),
        ({}, {"X-Request-Timeout": "soon"}, "X-Request-Timeout must be a number of seconds"),
        ({}, {"X-Request-Timeout": ""}, "X-Request-Timeout must be a number of seconds"),
        ({}, {"X-Request-Timeout": "0"}, "X-Request-Timeout must be more than 0"),
        ({}, {"X-Request-Timeout": "-1"}, "X-Request-Timeout must be more than 0"),
        ({}, {"X-Request-Timeout": "nan"}, "X-Request-Timeout must be more than 0"),
    ],
)
@story
async def test_infer_is_refused_when_a_timeout_is_no_time(
    desk: Desk, parameters: dict[str, object], headers: dict[str, str], problem: str
) -> None:
    """Silently ignoring it would surprise at the worst moment."""
    status, body, _ = await post(desk, REQUEST | {"parameters": parameters}, headers=headers)
    assert status == 400
    assert problem in body["error"]


@pytest.mark.parametrize(
    ("parameters", "headers", "server_seconds"),
    [
        pytest.param({"timeout": 50_000}, {}, 20.0, id="parameter"),
        pytest.param({}, {"X-Request-Timeout": "0.05"}, 20.0, id="header"),
        pytest.param({"timeout": 10_000_000}, {"X-Request-Timeout": "0.05"}, 20.0, id="header-is-smaller"),
        pytest.param({"timeout": 50_000}, {"X-Request-Timeout": "10"}, 20.0, id="parameter-is-smaller"),
        pytest.param({}, {}, 0.05, id="server"),
        pytest.param({"timeout": 0}, {"X-Request-Timeout": "inf"}, 0.05, id="nothing-beyond-the-servers"),
    ],
)
@story
async def test_infer_ends_at_the_smallest_timeout(
    desk: Desk,
    hangs: Hangs,
    parameters: dict[str, object],
    headers: dict[str, str],
    server_seconds: float,
) -> None:
    """504, well before the others would have ended it."""
    desk.install(loaded("2", hangs))
    request = REQUEST | {"parameters": parameters}
    status, body, _ = await post(desk, request, headers=headers, timeout_seconds=server_seconds)
    assert status == 504
    assert "did not answer before the deadline" in body["error"]


@story
async def test_infer_is_refused_naming_the_output_when_it_is_not_finite(desk: Desk) -> None:
    """JSON has no way to write it."""
    desk.install(loaded("2", gives(np.full((1, 3), np.inf, np.float32))))
    status, body, _ = await post(desk)
    assert status == 400
    assert "output 'y' is not finite" in body["error"]


@story
async def test_infer_is_refused_when_the_body_is_too_large(desk: Desk) -> None:
    """One byte beyond the limit."""
    raw = orjson.dumps(REQUEST)
    status, _, _ = await post(desk, raw, max_body_bytes=len(raw))
    assert status == 200
    status, body, _ = await post(desk, raw + b" ", max_body_bytes=len(raw))
    assert status == 413
    assert str(len(raw)) in body["error"]


@story
async def test_infer_needs_a_key_when_the_settings_say_so(desk: Desk) -> None:
    """On loopback too."""
    status, body, headers = await post(desk, require_infer_key=True)
    assert status == 401
    assert "key" in body["error"]
    assert headers["www-authenticate"] == "Bearer"


@story
async def test_infer_is_refused_when_the_host_is_not_this_machines(desk: Desk) -> None:
    """A page that points its own name here."""
    status, body, _ = await post(desk, headers={"Host": "evil.example"})
    assert status == 403
    assert "evil.example" in body["error"]


def test_desk_serves_one_model(desk: Desk) -> None:
    """What the paths above rely on."""
    assert isinstance(desk.model, FollowedModel)
    assert desk.routes.names() == ["digits"]
