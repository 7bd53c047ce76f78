"""The acts that move the alias: swaps, a refusal, a rollback; and the proof of the audit trail.

Each takes the stage, raises `CommandFailed` unless what it promises happens in time, and says what did.
"""

import time
from collections.abc import Sequence

from flows.cli.demo.progress import one_line
from flows.cli.demo.settings import MODEL
from flows.cli.demo.stage import Stage
from flows.cli.demo.verdict import first_stand_in, percentile
from flows.cli.errors import CommandFailed
from serving.core.model import Alias, Variant
from serving.store import audit
from serving.store.audit import AuditEntry, Verdict
from serving.store.database import open_engine

ROUNDS = 10

_SWAP_SECONDS = 60.0
_REFUSAL_SECONDS = 60.0
_ROLLBACK_SECONDS = 60.0
_AUDIT_SECONDS = 15.0
# Half a second and a second of traffic.
_FEW_ANSWERS = 25
_SOME_ANSWERS = 50


def swap_there_and_back(stage: Stage) -> str:
    """`champion` to version 2 and back to 1, again and again."""
    moves = ["2", "1"] * ROUNDS
    for number, version in enumerate(moves, start=1):
        stage.tell(f"move {number} of {len(moves)}")
        stage.swap_to(version, _SWAP_SECONDS)
        stage.wait_for_answers(_FEW_ANSWERS, stage.periods.last.since, _SWAP_SECONDS)
    seconds = stage.measured.swap_seconds
    return f"{len(seconds)} swaps, alias write to first new answer {spread(seconds)}"


def refuse_wrong_outputs(stage: Stage) -> str:
    """`champion` to version 3, which breaks its own output declaration."""
    answering = stage.periods.last.version
    began = stage.write_alias("3")

    def refused() -> bool:
        champion = stage.served_champion()
        return champion["wanted"] == "3" and bool(champion["reason"])

    stage.wait(refused, _REFUSAL_SECONDS, "version 3 was not refused")
    stage.wait_for_answers(_SOME_ANSWERS, began, _REFUSAL_SECONDS)
    champion = stage.served_champion()
    if champion["served"] != answering:
        raise CommandFailed(f"version {champion['served']} answers after the refusal, not {answering}")
    answers = sum(record.version == answering for record in stage.traffic.since(began))
    return f"refused: {one_line(champion['reason'])}\nversion {answering} went on, {answers} answers since"


def roll_back_failing(stage: Stage) -> str:
    """`champion` to version 2, then to 4, which passes its self-test and fails on real scans."""
    stage.swap_to("2", _SWAP_SECONDS)
    stage.wait_for_answers(_FEW_ANSWERS, stage.periods.last.since, _SWAP_SECONDS)
    stage.release_period()
    began = stage.write_alias("4")
    stage.wait(
        lambda: first_stand_in(stage.traffic.since(began), began) is not None,
        _SWAP_SECONDS,
        "version 4 did not become champion, or nobody stood in for it",
    )
    stood_in = first_stand_in(stage.traffic.since(began), began)
    assert stood_in is not None
    first = stage.first_answer("2", stood_in.ended, _ROLLBACK_SECONDS)
    stage.measured.rolled_back_seconds = first.ended - began
    stage.wait(
        lambda: stage.registry_alias(Alias.CHAMPION) == "2", _ROLLBACK_SECONDS, "the alias was not put back"
    )
    stage.measured.alias_back_seconds = time.monotonic() - began
    stage.wait_for_answers(_SOME_ANSWERS, first.ended, _ROLLBACK_SECONDS)
    return _told_of_rollback(stage, began)


def verify_audit(stage: Stage) -> str:
    """Every row of the trail, hash by hash."""
    engine = open_engine(stage.settings.database_url)
    try:
        found = audit.verify(engine)
    finally:
        engine.dispose()
    if found.verdict is Verdict.BROKEN:
        raise CommandFailed(f"the audit trail is broken at row {found.first_broken}: {found.reason}")
    stage.measured.audit_rows = found.rows
    return f"intact: {found.reason}"


def spread(seconds: Sequence[float]) -> str:
    return f"p50 {percentile(seconds, 50):.2f} s, p95 {percentile(seconds, 95):.2f} s"


def _told_of_rollback(stage: Stage, began: float) -> str:
    stood_in = sum(r.variant == Variant.FALLBACK for r in stage.traffic.since(began))
    row = _rollback_row(stage)
    measured = stage.measured
    return (
        f"passed its self-test; {stood_in} failing answers were given by version 2 instead\n"
        f"rolled back by {row.actor} after {measured.rolled_back_seconds:.2f} s "
        f"({one_line(str(row.details['reason']))}), alias put back after {measured.alias_back_seconds:.2f} s"
    )


def _rollback_row(stage: Stage) -> AuditEntry:
    """The trail's word for it; a row may be written a moment after the fact."""
    engine = open_engine(stage.settings.database_url)
    rows: list[AuditEntry] = []

    def is_told() -> bool:
        rows[:] = [row.entry for row in audit.tail(engine, limit=1, model=MODEL, action="roll_back")]
        return bool(rows)

    try:
        stage.wait(is_told, _AUDIT_SECONDS, "the rollback was not written into the audit trail")
    finally:
        engine.dispose()
    return rows[0]
