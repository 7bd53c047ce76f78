"""What a drift check leaves behind: report, notice, audit row, pages."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from flows.drift.check import Checked
from flows.drift.record import record
from flows.drift.verdict import ColumnDrift, ColumnState, DriftReport, Verdict
from serving.core.clock import ManualClock
from serving.store import audit, outbox, reports
from serving.store.database import open_engine, upgrade
from serving.store.outbox import Severity


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path / 'signalbox.db'}"
    upgrade(url)
    engine = open_engine(url)
    yield engine
    engine.dispose()


def _checked(verdict: Verdict, *drifted: str) -> Checked:
    columns = tuple(ColumnDrift(name, ColumnState.DRIFTED, distance=0.5) for name in drifted)
    report = DriftReport("digits", None, verdict, f"{len(drifted)} drifted", None, None, columns)
    return Checked(report, _save_page)


def _save_page(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_drift_is_told_once_when_it_lasts(engine: Engine, tmp_path: Path) -> None:
    """Each check is a report; a lasting drift is one notice and one audit row, a spreading one a second."""
    clock = ManualClock()
    told = []
    for verdict, drifted in (
        (Verdict.DRIFT, "a"),
        (Verdict.DRIFT, "a"),
        (Verdict.INSUFFICIENT_DATA, ""),
        (Verdict.DRIFT, "a"),
        (Verdict.DRIFT, "ab"),
        (Verdict.NO_DRIFT, ""),
    ):
        record(engine, tmp_path, _checked(verdict, *drifted), "somebody", clock.now())
        clock.advance(3600)
        told.append(len(outbox.recent(engine)))
    assert told == [1, 1, 1, 1, 2, 2]
    assert len(reports.recent(engine, "drift", "digits")) == 6
    assert [row.entry.actor for row in audit.tail(engine, action="drift")] == ["somebody", "somebody"]
    notice = outbox.recent(engine)[0].notice
    assert (notice.kind, notice.severity, notice.model) == ("drifted", Severity.WARNING, "digits")
    assert notice.facts["columns"] == ["a"]


def test_pages_are_kept_within_bounds_when_drift_lasts(engine: Engine, tmp_path: Path) -> None:
    """The newest twenty per model, and none without drift."""
    clock = ManualClock()
    assert record(engine, tmp_path, _checked(Verdict.NO_DRIFT), "somebody", clock.now()) is None
    for _ in range(23):
        clock.advance(3600)
        page = record(engine, tmp_path, _checked(Verdict.DRIFT, "a"), "somebody", clock.now())
    pages = sorted((tmp_path / "reports" / "drift" / "digits").iterdir())
    assert (len(pages), pages[-1]) == (20, page)
    latest = reports.latest(engine, "drift", "digits")
    assert latest is not None
    assert latest.body["page"] == str(page)
