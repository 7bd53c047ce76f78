"""The rules of drift: which columns, what verdict, when people are told."""

import json
from datetime import UTC, datetime

import numpy as np
import pytest

from flows.drift.verdict import (
    Announcement,
    ColumnDrift,
    ColumnState,
    DriftReport,
    Score,
    Verdict,
    Window,
    announcement,
    decide,
    holm,
    insufficient,
    judge,
    sentence,
)

_DRIFTED, _STABLE, _NOT_MEASURED = ColumnState.DRIFTED, ColumnState.STABLE, ColumnState.NOT_MEASURED


def _score(column: str, p_value: float, *, failed: bool = True) -> Score:
    return Score(column, "ks", p_value, 0.05, failed, p_value, 0.3, 0.1)


def _report(verdict: Verdict, *drifted: str) -> DriftReport:
    columns = tuple(ColumnDrift(name, _DRIFTED, distance=0.5) for name in drifted)
    return DriftReport("m", None, verdict, "", None, None, columns)


@pytest.mark.parametrize(
    ("reference", "current", "refused"),
    [(100, 100, False), (99, 100, True), (100, 99, True), (0, 0, True)],
)
def test_windows_are_insufficient_when_either_is_short(reference: int, current: int, refused: bool) -> None:
    """The sentence names the rows there are and the rows needed."""
    problem = insufficient(reference, current, 100)
    assert (problem is not None) is refused
    if problem:
        assert f"{current} rows in the current" in problem
        assert "100 needed" in problem


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param([], [], id="none"),
        pytest.param([0.04], [0.04], id="one is unchanged"),
        pytest.param([0.01, 0.04], [0.02, 0.04], id="smallest times all"),
        pytest.param([0.04, 0.04], [0.08, 0.08], id="never falls with rank"),
        pytest.param([0.9, 0.8], [1.0, 1.0], id="at most one"),
    ],
)
def test_holm_adjusts_when_tabulated(given: list[float], expected: list[float]) -> None:
    """The textbook's step-down values, in the order given."""
    adjusted = holm({str(place): value for place, value in enumerate(given)})
    assert [adjusted[str(place)] for place in range(len(given))] == pytest.approx(expected)


def test_false_alarms_stay_rare_when_many_columns_are_equal() -> None:
    """Of many checks of 64 columns without drift, about one in twenty names any column."""
    rng = np.random.default_rng(7)
    checks = [
        judge([_score(str(place), p, failed=p < 0.05) for place, p in enumerate(rng.random(64))])
        for _ in range(400)
    ]
    assert sum(decide(columns) is Verdict.DRIFT for columns in checks) <= 400 * 0.08


@pytest.mark.parametrize(
    ("failed", "p_value", "state"),
    [
        pytest.param(True, 0.001, _DRIFTED, id="both say so"),
        pytest.param(True, 0.04, _STABLE, id="chance explains it among two columns"),
        pytest.param(False, 1e-9, _STABLE, id="certain but too small to matter"),
    ],
)
def test_column_drifts_when_test_and_chance_agree(failed: bool, p_value: float, state: ColumnState) -> None:
    """The test's own status and the adjusted p-value are both needed."""
    first, _ = judge([_score("a", p_value, failed=failed), _score("b", 1.0, failed=False)])
    assert first.state is state


@pytest.mark.parametrize(
    ("states", "verdict"),
    [
        ([_DRIFTED, _STABLE], Verdict.DRIFT),
        ([_STABLE, _NOT_MEASURED], Verdict.NO_DRIFT),
        ([_NOT_MEASURED], Verdict.NOT_MEASURED),
        ([], Verdict.NOT_MEASURED),
    ],
)
def test_verdict_follows_columns_when_tabulated(states: list[ColumnState], verdict: Verdict) -> None:
    """One drifted column is drift; nothing measured is no verdict."""
    assert decide([ColumnDrift(str(place), state) for place, state in enumerate(states)]) is verdict


def test_sentence_names_the_furthest_columns_when_drifted() -> None:
    """With their direction, and how many could not be measured."""
    columns = [
        ColumnDrift("near", _DRIFTED, distance=0.2, shift=-0.25),
        ColumnDrift("far", _DRIFTED, distance=0.9, shift=1.0),
        ColumnDrift("same", _STABLE),
        ColumnDrift("gone", _NOT_MEASURED),
    ]
    said = "2 of 3 measured columns drifted, furthest far (+1), near (-0.25); 1 could not be measured"
    assert sentence(columns) == said


@pytest.mark.parametrize(
    ("report", "announced", "expected"),
    [
        pytest.param(_report(Verdict.DRIFT, "a"), [], Announcement(True, ("a",)), id="first"),
        pytest.param(_report(Verdict.DRIFT, "a"), ["a"], Announcement(False, ("a",)), id="told"),
        pytest.param(_report(Verdict.DRIFT, "a"), ["a", "b"], Announcement(False, ("a", "b")), id="shrunk"),
        pytest.param(_report(Verdict.DRIFT, "a", "b"), ["a"], Announcement(True, ("a", "b")), id="spread"),
        pytest.param(_report(Verdict.NO_DRIFT), ["a"], Announcement(False, ()), id="over"),
        pytest.param(
            _report(Verdict.INSUFFICIENT_DATA), ["a"], Announcement(False, ("a",)), id="not known to be over"
        ),
    ],
)
def test_people_are_told_once_when_drift_lasts(
    report: DriftReport, announced: list[str], expected: Announcement
) -> None:
    """Again only when other columns join, or after it was over."""
    assert announcement(report, announced) == expected


def test_report_is_json_when_stored() -> None:
    """Times, enums and derived figures are plain values."""
    window = Window("newest rows", 5, datetime(2026, 1, 1, tzinfo=UTC), None)
    columns = (ColumnDrift("a", _DRIFTED, distance=0.5), ColumnDrift("b", _STABLE))
    report = DriftReport("m", "2", Verdict.DRIFT, "said", window, window, columns, ("c",))
    body = json.loads(json.dumps(report.as_json()))
    assert (body["verdict"], body["share"], body["drifted"]) == ("drift", 0.5, ["a"])
    assert body["current"]["since"] == "2026-01-01T00:00:00+00:00"
    assert body["columns"][0]["state"] == "drifted"
