"""Notices as other parts write them, and a fake channel with prepared outcomes."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import Engine

from flows.alerts.notify import Dispatch, Outcome, Sent
from serving.store import outbox
from serving.store.database import writing
from serving.store.outbox import Notice, Severity
from serving.store.text import JsonValue

NOW = datetime(2026, 1, 1, tzinfo=UTC)

FACTS: dict[str, dict[str, JsonValue]] = {
    "promoted": {"from": "1", "to": "2", "strategy": "direct", "actor": "ada", "accuracy": 0.97125},
    "refused": {"alias": "challenger", "reasons": ["accuracy 0.61 is 0.34 below the champion's"]},
    "version_refused": {"alias": "champion", "reason": "it is a pickle", "answering": None},
    "rolled_back": {"from": "4", "to": "2", "strategy": "instant", "actor": "serving", "reason": "5 failed"},
    "out_of_band": {"from": "1", "to": "3"},
    "drifted": {"share": 0.5, "rows": 1200, "columns": [{"column": "pixels.3", "p": 1e-9}, {"column": "b"}]},
    "champion_failing": {"evidence": "7 of 10 requests failed"},
    "champion_orphaned": {"minutes": 10.0},
    "something_new": {"nested": {"a": [1, {"b": None}]}, "flag": True},
}


def make_notice(kind: str = "rolled_back", key: str = "", title: str = "") -> Notice:
    return Notice(
        kind=kind,
        severity=Severity.CRITICAL if kind in ("rolled_back", "champion_failing") else Severity.INFO,
        title=title or f"digits: {kind} happened",
        model="digits",
        version="4",
        facts=FACTS[kind],
        dedup_key=key or kind,
    )


def make_dispatch(kind: str = "rolled_back", *, maybe_duplicate: bool = False) -> Dispatch:
    return Dispatch(7, make_notice(kind), NOW, maybe_duplicate)


def enqueue(engine: Engine, *keys: str, now: datetime = NOW) -> None:
    """One notice per key, titled with it."""
    with writing(engine) as connection:
        for key in keys:
            outbox.enqueue(connection, make_notice(key=key, title=f"notice {key}"), now)


@dataclass(slots=True)
class FakeNotifier:
    """Gives the prepared outcomes in turn, then takes everything."""

    outcomes: list[Outcome | Exception] = field(default_factory=list)
    name: str = "fake"
    sent: list[Dispatch] = field(default_factory=list)

    def send(self, dispatch: Dispatch) -> Outcome:
        self.sent.append(dispatch)
        outcome = self.outcomes.pop(0) if self.outcomes else Sent({"id": str(len(self.sent))})
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def titles(self) -> list[str]:
        return [dispatch.notice.title for dispatch in self.sent]
