"""Prefect as the commands meet it: recognised or not, reached or not, always in one sentence."""

from typing import Any

import pytest

from flows.cli.decision import Action, Answer, decide
from flows.cli.deployments import fault_in, prefect_file
from flows.cli.errors import CommandFailed
from flows.cli.orchestration import orchestration
from flows.cli.parts import PARTS, facts_about
from flows.cli.probe import probe_prefect
from flows.cli.worker import worker_is_ready, worker_name
from flows.settings import part_environment
from tests.flows.answers import Asked, answering
from tests.flows.conftest import SettingsFactory
from tests.mlflow_server import free_port

PREFECT = next(part for part in PARTS if part.name == "prefect")
WORKER = next(part for part in PARTS if part.name == "worker")
DEPLOYMENT = "promote-model/promote-model"


@pytest.mark.parametrize(
    ("health", "pools", "answer"),
    [
        pytest.param((200, True), (200, []), Answer.HEALTHY, id="Prefect"),
        pytest.param((200, True), (401, {}), Answer.UNAUTHORISED, id="wrong auth string"),
        pytest.param((200, True), (403, {}), Answer.UNAUTHORISED, id="key without rights"),
        pytest.param((200, True), (503, {}), Answer.UNHEALTHY, id="its database is down"),
        pytest.param((500, {}), (200, []), Answer.UNHEALTHY, id="unwell"),
        pytest.param((200, "hello"), (200, []), Answer.FOREIGN, id="some web page"),
        pytest.param((404, {}), (404, {}), Answer.FOREIGN, id="some server"),
    ],
)
def test_prefect_is_recognised_when_it_answers(
    make_settings: SettingsFactory, health: tuple[int, Any], pools: tuple[int, Any], answer: Answer
) -> None:
    """Health alone is open to everybody: it must let us read its work pools too."""

    def respond(asked: Asked) -> tuple[int, Any]:
        return health if asked.path == "/api/health" else pools

    with answering(respond) as server:
        assert probe_prefect(make_settings(prefect_api_url=f"{server.url}/api")).answer is answer


@pytest.mark.parametrize(
    ("credentials", "header"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"prefect_api_key": "pnu_1"}, "Bearer pnu_1", id="API key"),
        pytest.param({"prefect_api_auth_string": "admin:pass"}, "Basic YWRtaW46cGFzcw==", id="auth string"),
    ],
)
def test_credentials_are_sent_when_set(
    make_settings: SettingsFactory, credentials: dict[str, str], header: str | None
) -> None:
    """In the form that Prefect's own client uses."""
    with answering(lambda _: (200, [])) as server:
        with orchestration(make_settings(prefect_api_url=f"{server.url}/api", **credentials)) as prefect:
            assert prefect.pool() is None
        assert server.asked[0].headers.get("Authorization") == header


def test_credentials_reach_the_parts_when_set(
    make_settings: SettingsFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server of ours demands what our clients send; what the user has for another server stays out."""
    monkeypatch.setenv("PREFECT_API_KEY", "of another server")
    monkeypatch.setenv("PREFECT_PROFILE", "work")
    monkeypatch.setenv("PREFECT_WORKER_QUERY_SECONDS", "5")
    settings = make_settings(
        prefect_api_auth_string="admin:pass", prefect_api_url="http://127.0.0.1:4321/api"
    )
    found = part_environment(settings)
    assert found["PREFECT_API_AUTH_STRING"] == found["PREFECT_SERVER_API_AUTH_STRING"] == "admin:pass"
    assert found["PREFECT_API_URL"] == "http://127.0.0.1:4321/api"
    assert found["PREFECT_HOME"] == str(settings.home / "prefect")
    assert "PREFECT_API_KEY" not in found
    assert "PREFECT_PROFILE" not in found
    assert found["PREFECT_WORKER_QUERY_SECONDS"] == "5", "how Prefect behaves is the user's to say"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(
            (401, {}), ("refuses our credentials", "SIGNALBOX_PREFECT_API_AUTH_STRING"), id="closed"
        ),
        pytest.param((404, {}), (f"no deployment {DEPLOYMENT}", "signalbox up"), id="not deployed"),
        pytest.param((500, {"detail": "locked"}), ("answered 500", "locked"), id="its fault"),
    ],
)
def test_refusal_is_a_sentence_when_a_run_is_asked_for(
    make_settings: SettingsFactory, answer: tuple[int, Any], words: tuple[str, ...]
) -> None:
    """What Prefect said and what to do about it."""
    with (
        answering(lambda _: answer) as server,
        orchestration(make_settings(prefect_api_url=f"{server.url}/api")) as prefect,
        pytest.raises(CommandFailed) as refused,
    ):
        prefect.start_run(DEPLOYMENT, {})
    assert all(word in str(refused.value) for word in words), str(refused.value)


def test_silence_is_a_sentence_when_nobody_listens(make_settings: SettingsFactory) -> None:
    """A worker is not ready then, and a command says where it looked."""
    url = f"http://127.0.0.1:{free_port()}/api"
    settings = make_settings(prefect_api_url=url)
    assert probe_prefect(settings).answer is Answer.NOTHING
    assert not worker_is_ready(settings)
    with orchestration(settings) as prefect, pytest.raises(CommandFailed, match="cannot be reached"):
        prefect.pool()


@pytest.mark.parametrize(
    ("url", "action"),
    [
        pytest.param("http://127.0.0.1:{port}/api", Action.START, id="ours to start"),
        pytest.param("http://127.0.0.1:{port}", Action.REFUSE, id="no API there"),
        pytest.param("https://127.0.0.1:{port}/api", Action.REFUSE, id="we speak no TLS"),
        pytest.param("http://prefect.invalid:{port}/api", Action.REFUSE, id="another machine"),
    ],
)
def test_server_is_started_only_where_it_can_be_when_nobody_answers(
    make_settings: SettingsFactory, url: str, action: Action
) -> None:
    """A server of ours answers under /api on a loopback address."""
    settings = make_settings(prefect_api_url=url.format(port=free_port()))
    decision = decide(facts_about(PREFECT, settings))
    assert decision.action is action
    assert action is Action.START or "SIGNALBOX_PREFECT_API_URL" in decision.sentence


def test_worker_is_started_when_prefect_is_somebody_elses(make_settings: SettingsFactory) -> None:
    """It has no port, and no other home's worker does its work."""
    with answering(lambda _: (200, True)) as server:
        facts = facts_about(WORKER, make_settings(prefect_api_url=f"{server.url}/api"))
        assert decide(facts).action is Action.START
    remote = make_settings(prefect_api_url="https://api.prefect.invalid/api/accounts/1/workspaces/2")
    assert decide(facts_about(WORKER, remote)).action is Action.START


def test_worker_names_differ_when_homes_do(make_settings: SettingsFactory) -> None:
    """Two homes may share a server."""
    here = worker_name(make_settings(home="/srv/a"))
    assert here == worker_name(make_settings(home="/srv/a"))
    assert here != worker_name(make_settings(home="/srv/b"))


@pytest.mark.parametrize(
    ("output", "fault"),
    [
        (
            "Traceback:\n  File x\nModuleNotFoundError: No module named 'x'\n\nAn exception occurred.\n",
            "No module",
        ),
        ("│ Deployment created │\nprefect.exceptions.PrefectHTTPStatusError: 500", "500"),
        ("something happened\n", "something happened"),
        ("", "no reason was given"),
    ],
)
def test_fault_is_one_line_when_deploying_fails(output: str, fault: str) -> None:
    """The last error says why; a traceback would not."""
    assert fault in fault_in(output)
    assert "\n" not in fault_in(output)


def test_file_of_the_checkout_is_deployed_when_there_is_one() -> None:
    """An installed package has a copy instead."""
    assert prefect_file().name == "prefect.yaml"
