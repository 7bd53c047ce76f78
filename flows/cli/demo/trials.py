"""The acts in which live traffic finds out what no check before it could: faint scans, and who fails on them.

Half of what callers send is faint, as from a scanner set up too dark; the evaluation set holds none of it.
Each version passes validation and benchmark, gets a few percent of the traffic, and is taken back.
"""

import time

from flows.cli.demo import challenge
from flows.cli.demo.challenge import Asked, Followed, store
from flows.cli.demo.progress import failed_metrics, one_line
from flows.cli.demo.settings import MODEL
from flows.cli.demo.stage import Stage
from flows.cli.errors import CommandFailed
from serving.core.model import Alias, Variant
from serving.store import audit
from serving.store.rollouts import State

_ANSWER_SECONDS = 60.0
_AUDIT_SECONDS = 15.0
_SOME_ANSWERS = 50


def roll_back_slow(stage: Stage) -> str:
    """`challenger` on version 5, which answers as version 2 does and takes its time over faint scans."""
    return _judged(stage, "5", "latency")


def eject_raising(stage: Stage) -> str:
    """`challenger` on version 6, which raises on faint scans: serving itself sends it away."""
    asked, followed = _taken_back(stage, "6")
    reason = _ejection(stage, asked)
    stood_in = sum(r.variant == Variant.FALLBACK for r in stage.traffic.since(asked.began))
    if not stood_in:
        raise CommandFailed("version 6 was ejected, and nobody was answered in its place")
    told = f"ejected by serving itself: {reason}; {stood_in} callers were answered by version 2 in its place"
    return f"{told}\n{_ended(stage, asked, followed)}"


def roll_back_shifted(stage: Stage) -> str:
    """`challenger` on version 7, which takes faint scans for blank paper: other answers, no error."""
    return _judged(stage, "7", "predictions")


def _judged(stage: Stage, version: str, metric: str) -> str:
    asked, followed = _taken_back(stage, version)
    if metric not in (failed := failed_metrics(followed.rollout)):
        said = f"by {', '.join(failed) or 'nothing'}: {one_line(followed.rollout.reason)}"
        raise CommandFailed(f"version {version} was rolled back not by {metric} but {said}")
    return f"rolled back on the evidence of its {metric}; {_ended(stage, asked, followed)}"


def _taken_back(stage: Stage, version: str) -> tuple[Asked, Followed]:
    """To the end of the rollout; from then on the champion answers everybody again."""
    champion = stage.periods.last.version
    stage.share_with(version)
    asked = challenge.ask(stage, version)
    followed = challenge.follow(stage, asked, State.ROLLED_BACK)
    stage.settle_on(champion)
    stage.wait_for_answers(_SOME_ANSWERS, time.monotonic(), _ANSWER_SECONDS)
    if (named := stage.registry_alias(Alias.CHAMPION)) != champion:
        raise CommandFailed(f"after the rollback alias champion names version {named}, not {champion}")
    return asked, followed


def _ended(stage: Stage, asked: Asked, followed: Followed) -> str:
    records = stage.traffic.since(asked.began)
    tried = sum(r.version == asked.version for r in records)
    failed = sum(not r.is_answered for r in records)
    return (
        f"taken back after {asked.seconds(followed.rollout.finished_at):.1f} s; of {len(records)} requests "
        f"meanwhile {tried} were answered by version {asked.version}, {failed} failed\n"
        f"{challenge.conclude(stage, asked, followed)}"
    )


def _ejection(stage: Stage, asked: Asked) -> str:
    """The trail's word for it; a row may be written a moment after the fact."""
    rows: list[audit.AuditEntry] = []
    with store(stage) as engine:

        def is_told() -> bool:
            found = audit.tail(engine, limit=1, model=MODEL, action="eject")
            rows[:] = [row.entry for row in found if row.entry.version == asked.version]
            return bool(rows)

        stage.wait(is_told, _AUDIT_SECONDS, f"no ejection of version {asked.version} was recorded")
    return str(rows[0].details["reason"])
