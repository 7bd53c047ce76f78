"""The table at the end of the demonstration."""

import json

import httpx
import pytest

from flows.cli.demo.records import Record
from flows.cli.demo.report import prefect_pages, rollout_rows, rows, show_faults
from flows.cli.demo.runs import FlowRuns
from flows.cli.demo.stage import Concluded, Drifted, Measured, Promoted
from flows.cli.demo.verdict import judge

FAILED = Record(2.0, 2.1, version=None, variant=None, matches=False, status=500, error="it raised")
REFUSED = Concluded(
    "8", "0123456789abcdef", "run-8", "refused", "accuracy 0.62, the champion's 0.98; at most 0.01", 6.3
)
WRONG = Record(3.0, 3.1, version="1", variant="champion", matches=False, status=200)


def test_table_shows_what_was_measured_when_all_acts_were_played() -> None:
    """Counts, percentiles and seconds, each in its row."""
    measured = Measured(
        swap_seconds=[0.2, 0.1, 0.4],
        promoted=Promoted(3.0, answered_seconds=6.5, ended_seconds=7.7, shares="5.1% at 5 %"),
        drifted=Drifted("run-d", drifted=61, columns=64),
        slack_messages=13,
        mlflow_back_seconds=7.25,
        audit_rows=120,
    )
    shown = dict(rows(judge([FAILED, WRONG], [], []), measured))
    assert shown["requests sent"].startswith("2,")
    assert shown["failed"] == "1"
    assert shown["answered by a wrong version"] == "1"
    assert shown["swaps, alias write to first new answer"] == "3, p50 0.20 s, p95 0.40 s"
    promotion = shown["version 2 promoted by Prefect, from alias challenger"]
    assert promotion == "7.7 s (run began 3.0 s, first answer 6.5 s)"
    assert shown["callers saw of it"] == "5.1% at 5 %"
    assert shown["columns drifted under inverted digits"] == "61 of 64"
    assert shown["Slack messages received"] == "13"
    assert shown["MLflow back after kill -9"] == "7.25 s"
    assert shown["audit rows verified"] == "120"


def test_table_shows_dashes_when_an_act_was_not_played() -> None:
    """A story that broke off claims nothing."""
    shown = dict(rows(judge([], [], []), Measured()))
    told = ("after", "swaps", "audit", "Prefect", "drifted", "Slack")
    assert {shown[name] for name in shown if any(word in name for word in told)} == {"-"}


def test_rollout_is_shown_with_its_reason_when_it_ended() -> None:
    """Enough of the id to ask for it, and the first of several reasons."""
    assert rollout_rows([REFUSED]) == [
        (
            "8",
            "refused",
            "6 s",
            "0123456789ab",
            "accuracy 0.62, the champion's 0.98",
        )
    ]


def test_faults_are_described_when_there_are_any(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its moment, and only a few of many."""
    show_faults(judge([WRONG, *[FAILED] * 7], [], []), began=1.0)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "failed: at 1.00 s status 500, it raised"
    assert said[5] == "failed: and 2 more"
    assert said[6].startswith("wrong version: at 2.00 s answered as champion by version 1 with outputs that")


def test_pages_are_named_when_runs_left_artifacts() -> None:
    """Each run of the story, and each key once."""
    keys = {"run-2": ["promotion-digits"], "run-8": ["promotion-digits"], "run-d": ["drift-digits"]}

    def answer(request: httpx.Request) -> httpx.Response:
        run = json.loads(request.content)["artifacts"]["flow_run_id"]["any_"][0]
        return httpx.Response(200, json=[{"key": key} for key in keys[run]])

    runs = FlowRuns(httpx.Client(base_url="http://prefect/api", transport=httpx.MockTransport(answer)))
    measured = Measured(
        concluded=[Concluded("2", "0123", "run-2", "promoted", "version 1 before", 60.0), REFUSED],
        drifted=Drifted("run-d", 1, 2),
    )
    assert prefect_pages(measured, runs) == [
        ("Prefect", "/"),
        ("version 2", "/runs/flow-run/run-2"),
        ("version 8", "/runs/flow-run/run-8"),
        ("drift", "/runs/flow-run/run-d"),
        ("artifact", "/artifacts/key/drift-digits"),
        ("artifact", "/artifacts/key/promotion-digits"),
    ]
