"""The acts in which Prefect promotes and refuses: alias `challenger` on a better, a worse, a broken version.

Nobody calls a flow: the alias is set as in MLflow's UI, and everything after it is waited for.
"""

import time
from datetime import datetime

from flows.cli.demo import challenge
from flows.cli.demo.challenge import Asked
from flows.cli.demo.stage import Promoted, Stage
from flows.cli.demo.verdict import Share
from flows.cli.errors import CommandFailed
from serving.core.model import Alias
from serving.store.rollouts import Rollout, State

_SWAP_SECONDS = 60.0
# Half a second and a second of traffic.
_FEW_ANSWERS = 25
_SOME_ANSWERS = 50


def promote_better(stage: Stage) -> str:
    """Version 1 is champion by hand again, then `challenger` is set on version 2: every stage to the end."""
    stage.swap_to("1", _SWAP_SECONDS)
    stage.traffic.turn_to("mixed")
    stage.wait_for_answers(_FEW_ANSWERS, stage.periods.last.since, _SWAP_SECONDS)
    stage.share_with("2")
    asked = challenge.ask(stage, "2")
    followed = challenge.follow(stage, asked, State.PROMOTED)
    first = stage.first_answer("2", asked.began, _SWAP_SECONDS)
    stage.wait_for_answers(_SOME_ANSWERS, first.ended, _SWAP_SECONDS)
    if (named := stage.registry_alias(Alias.CHAMPION)) != "2":
        raise CommandFailed(f"after the promotion alias champion names version {named}, not 2")
    promoted = Promoted(
        run_started_seconds=asked.seconds(followed.run.started_at),
        answered_seconds=first.ended - asked.began,
        ended_seconds=asked.seconds(followed.rollout.finished_at),
        shares=_shares(stage, asked, followed.rollout),
    )
    stage.measured.promoted = promoted
    return (
        f"promoted after {promoted.ended_seconds:.1f} s, version 2 answers everybody; alias challenger "
        f"taken away\ncallers saw of version 2: {promoted.shares}\n"
        f"{challenge.conclude(stage, asked, followed)}"
    )


def refuse_worse(stage: Stage) -> str:
    """`challenger` on version 8, which answers well-formed and often wrongly."""
    return _refused(stage, "8")


def refuse_broken(stage: Stage) -> str:
    """`challenger` on version 3, which breaks its own output declaration."""
    return _refused(stage, "3")


def _refused(stage: Stage, version: str) -> str:
    champion = stage.periods.last.version
    asked = challenge.ask(stage, version)
    followed = challenge.follow(stage, asked, State.REFUSED)
    stage.wait_for_answers(_FEW_ANSWERS, time.monotonic(), _SWAP_SECONDS)
    if (named := stage.registry_alias(Alias.CHAMPION)) != champion:
        raise CommandFailed(f"after the refusal alias champion names version {named}, not {champion}")
    shown = challenge.conclude(stage, asked, followed)
    answers = sum(record.version == champion for record in stage.traffic.since(asked.began))
    return (
        f"refused after {asked.seconds(followed.rollout.finished_at):.1f} s, alias challenger taken away; "
        f"version {champion} went on, {answers} answers since\n{shown}"
    )


def _shares(stage: Stage, asked: Asked, rollout: Rollout) -> str:
    """How much of their traffic the callers saw answered by the challenger, stage by stage."""
    records = stage.traffic.since(asked.began)
    told = []
    for passed in (rollout.status or {})["passed"]:
        since, until = (
            asked.on_traffics_clock(datetime.fromisoformat(passed[edge])) for edge in ("since", "until")
        )
        share = Share.of(records, asked.version, since, until)
        if not share.is_about(passed["percent"]):
            raise CommandFailed(f"at {passed['percent']} % callers saw {share} of version {asked.version}")
        told.append(f"{share} at {passed['percent']} %")
    if len(told) != len((rollout.spec or {})["stages"]):
        raise CommandFailed(f"version {asked.version} went through {len(told)} stages only")
    return ", ".join(told)
