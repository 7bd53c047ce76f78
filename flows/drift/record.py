"""What a drift check leaves behind: its report in the store, a notice once per drift, pages on drift.

The notice comes first: a crash after it tells twice, a crash before it would never tell.
"""

import hashlib
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Engine

from flows.drift.check import Checked
from flows.drift.verdict import Announcement, DriftReport, Verdict, announcement
from serving.store import audit, outbox, reports
from serving.store.audit import AuditEntry
from serving.store.database import writing
from serving.store.inference_log import model_folder
from serving.store.outbox import Notice, Severity
from serving.store.reports import Report
from serving.store.text import JsonValue

KIND = "drift"
_KEPT_PAGES = 20
_NAMED = 20


def record(engine: Engine, home: Path, checked: Checked, actor: str, now: datetime) -> Path | None:
    """Store a check; the path of Evidently's pages where they were written."""
    report = checked.report
    last = reports.latest(engine, KIND, report.model)
    told = last.body.get("announced") if last is not None else None
    due = announcement(report, [str(name) for name in told] if isinstance(told, list) else [])
    if due.is_due:
        _tell(engine, report, actor, now)
    page = _save_page(home, checked, now)
    _save_report(engine, report, due, page, now)
    return page


def _tell(engine: Engine, report: DriftReport, actor: str, now: datetime) -> None:
    names = [column.column for column in report.drifted]
    facts: dict[str, JsonValue] = {
        "message": report.message,
        "columns": names[:_NAMED],
        "drifted": len(names),
        "share": report.share,
    }
    entry = AuditEntry(
        action=KIND, actor=actor, model=report.model, version=report.version, details=facts, at=now
    )
    notice = Notice(
        kind="drifted",
        severity=Severity.WARNING,
        title=f"{report.model} has drifted: {report.message}",
        model=report.model,
        version=report.version,
        facts=facts,
        dedup_key=f"drifted:{report.model}:{_fingerprint(names)}",
    )
    with writing(engine) as connection:
        outbox.enqueue(connection, notice, now)
        audit.append(connection, entry)


def _save_report(
    engine: Engine, report: DriftReport, due: Announcement, page: Path | None, now: datetime
) -> None:
    body = report.as_json() | {"announced": list(due.columns), "page": str(page) if page else None}
    reports.save(
        engine,
        Report(
            id=uuid4().hex,
            kind=KIND,
            model=report.model,
            version=report.version,
            verdict=str(report.verdict),
            created_at=now,
            body=body,
        ),
    )


def _save_page(home: Path, checked: Checked, now: datetime) -> Path | None:
    if checked.save_html is None or checked.report.verdict is not Verdict.DRIFT:
        return None
    folder = model_folder(home / "reports" / KIND, checked.report.model)
    path = folder / f"{now:%Y%m%dT%H%M%S.%fZ}.html"
    checked.save_html(path)
    for old in sorted(folder.glob("*.html"))[:-_KEPT_PAGES]:
        old.unlink(missing_ok=True)
    return path


def _fingerprint(names: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]
