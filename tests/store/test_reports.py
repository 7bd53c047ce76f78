"""Reports are found by kind, model and version, the newest first."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from serving.store import reports
from serving.store.reports import Report

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def report(identifier: str, minutes: int, *, version: str = "1", kind: str = "drift") -> Report:
    return Report(
        id=identifier,
        kind=kind,
        model="digits",
        version=version,
        verdict="drift",
        created_at=NOW + timedelta(minutes=minutes),
        body={"columns": ["image.3"], "share": 0.25},
    )


def test_latest_returns_the_newest_report_whole(engine: Engine) -> None:
    for each in (report("a", 0), report("b", 2), report("c", 1)):
        reports.save(engine, each)
    assert reports.latest(engine, "drift", "digits") == report("b", 2)
    assert [found.id for found in reports.recent(engine, "drift", "digits")] == ["b", "c", "a"]


def test_latest_is_of_one_version_when_it_is_named(engine: Engine) -> None:
    reports.save(engine, report("a", 0, version="1"))
    reports.save(engine, report("b", 1, version="2"))
    assert reports.latest(engine, "drift", "digits", "1") == report("a", 0, version="1")


def test_latest_is_none_when_the_kind_was_never_reported(engine: Engine) -> None:
    reports.save(engine, report("a", 0))
    assert reports.latest(engine, "functional", "digits") is None


def test_latest_of_finds_each_versions_newest_in_one_go(engine: Engine) -> None:
    """Versions without a report are missing; verdicts that count for nothing are skipped."""
    for each in (report("a", 0), report("b", 2), report("c", 1), report("d", 5, version="2")):
        reports.save(engine, each)
    reports.save(engine, report("e", 9, kind="validation"))
    found = reports.latest_of(engine, "drift", "digits", ["1", "2", "3"])
    assert {number: each.id for number, each in found.items()} == {"1": "b", "2": "d"}
    assert reports.latest_of(engine, "drift", "digits", ["1"], skip=["drift"]) == {}
    assert reports.latest_of(engine, "drift", "digits", []) == {}
