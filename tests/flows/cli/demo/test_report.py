"""The table at the end of the demonstration."""

import pytest

from flows.cli.demo.records import Record
from flows.cli.demo.report import rows, show_faults
from flows.cli.demo.stage import Measured
from flows.cli.demo.verdict import judge

FAILED = Record(2.0, 2.1, version=None, variant=None, matches=False, status=500, error="it raised")
WRONG = Record(3.0, 3.1, version="1", variant="champion", matches=False, status=200)


def test_table_shows_what_was_measured_when_all_acts_were_played() -> None:
    """Counts, percentiles and seconds, each in its row."""
    measured = Measured([0.2, 0.1, 0.4], 1.0, 2.0, 7.25, 3.0, 120)
    shown = dict(rows(judge([FAILED, WRONG], [], []), measured))
    assert shown["requests sent"].startswith("2,")
    assert shown["failed"] == "1"
    assert shown["answered by a wrong version"] == "1"
    assert shown["swaps, alias write to first new answer"] == "3, p50 0.20 s, p95 0.40 s"
    assert shown["MLflow back after kill -9"] == "7.25 s"
    assert shown["audit rows verified"] == "120"


def test_table_shows_dashes_when_an_act_was_not_played() -> None:
    """A story that broke off claims nothing."""
    shown = dict(rows(judge([], [], []), Measured()))
    assert {shown[name] for name in shown if "after" in name or "swaps" in name or "audit" in name} == {"-"}


def test_faults_are_described_when_there_are_any(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its moment, and only a few of many."""
    show_faults(judge([WRONG, *[FAILED] * 7], [], []), began=1.0)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "failed: at 1.00 s status 500, it raised"
    assert said[5] == "failed: and 2 more"
    assert said[6].startswith("wrong version: at 2.00 s answered as champion by version 1 with outputs that")
