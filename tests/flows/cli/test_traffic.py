"""`signalbox traffic` as a user runs it: what it shows, what it asks for, what it says when that fails."""

import json
from typing import Any

import pytest

from tests.flows.answers import answering
from tests.flows.cli.test_commands import Run, assert_one_sentence, run
from tests.mlflow_server import free_port

__all__ = ["run"]

SPLIT = {"model": "digits", "champion": "1", "challenger": "2", "percent": 25, "rollout": "r-1"}


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        pytest.param(SPLIT, "75 % to champion 1, 25 % to challenger 2, for rollout r-1", id="split"),
        pytest.param(SPLIT | {"percent": 0, "rollout": None}, "100 % to champion 1, 0 % to", id="nothing"),
        pytest.param(SPLIT | {"challenger": None}, "there is no challenger", id="no-challenger"),
        pytest.param(SPLIT | {"champion": None}, "no champion answers", id="no-champion"),
    ],
)
def test_traffic_shows_the_split_in_a_sentence(run: Run, state: dict[str, Any], sentence: str) -> None:
    with answering(lambda asked: (200, state)) as serving:
        result = run("traffic", "digits", SIGNALBOX_SERVING_URL=serving.url)
    assert result.returncode == 0, result.stderr
    assert sentence in result.stdout
    assert [(asked.method, asked.path) for asked in serving.asked] == [("GET", "/api/v2/traffic/digits")]


def test_traffic_asks_for_a_percent(run: Run) -> None:
    """Of the version named, where one is; the answer is for machines on demand."""
    with answering(lambda asked: (200, SPLIT)) as serving:
        arguments = ("traffic", "digits", "--percent", "25", "--challenger", "2", "--json")
        result = run(*arguments, SIGNALBOX_SERVING_URL=serving.url)
    assert json.loads(result.stdout) == SPLIT
    assert (serving.asked[0].method, serving.asked[0].body) == ("PUT", {"percent": 25, "challenger": "2"})
    assert result.stderr == ""


def test_traffic_warns_when_not_every_server_follows_yet(run: Run) -> None:
    """It was written all the same."""

    with answering(lambda asked: (202, SPLIT)) as serving:
        result = run("traffic", "digits", "--percent", "25", SIGNALBOX_SERVING_URL=serving.url)
    assert (result.returncode, "not every server follows this yet" in result.stderr) == (0, True)


def test_traffic_fails_in_a_sentence_when_it_is_refused(run: Run) -> None:
    """The server's own."""
    with answering(lambda asked: (409, {"error": "rollout r-1 owns the traffic of 'digits'"})) as serving:
        result = run("traffic", "digits", "--percent", "25", SIGNALBOX_SERVING_URL=serving.url)
    assert_one_sentence(result, "rollout r-1 owns")


def test_traffic_fails_in_a_sentence_when_serving_is_away(run: Run) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert_one_sentence(run("traffic", "digits", SIGNALBOX_SERVING_URL=url), url, "signalbox up")


@pytest.mark.parametrize("arguments", [("--percent", "101"), ("--percent", "x"), ("--challenger", "2")])
def test_traffic_is_refused_before_asking_when_it_makes_no_sense(
    run: Run, arguments: tuple[str, ...]
) -> None:
    result = run("traffic", "digits", *arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
