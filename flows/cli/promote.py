"""`signalbox promote`: records a rollout and has Prefect work on it; `--wait` follows it to its end.

The rollout is in the store before Prefect is asked: with Prefect down the request is not lost, the
minutely flow takes it up.
"""

import getpass
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer
from sqlalchemy import Engine

from flows.cli.console import AsJson, print_json, say, warn
from flows.cli.errors import CommandFailed
from flows.cli.rollout_plan import print_plan
from flows.cli.rollout_run import start
from flows.cli.rollouts import is_resting, plain, step_of
from flows.cli.waiting import wait_until
from flows.rollout.policy import limits as plan_limits
from flows.rollout.promotion import Asked, record
from flows.settings import FlowSettings
from flows.wiring import wired
from serving.store import policies, rollouts
from serving.store.database import check
from serving.store.rollouts import Entry, Rollout, State
from serving.store.text import JsonValue

_STILL_OPEN = 2


class Strategy(StrEnum):
    DIRECT = "direct"
    STAGED = "staged"


def promote(
    model: Annotated[str, typer.Argument(help="The registered model.")],
    version: Annotated[str, typer.Argument(help="The version to make champion.")],
    strategy: Annotated[
        Strategy | None, typer.Option(help="By stages or at once; else as SIGNALBOX_STRATEGY says.")
    ] = None,
    stages: Annotated[
        str | None,
        typer.Option(help="Percents of a staged rollout, like 5,25,50,100; shadow first for copies only."),
    ] = None,
    stage_seconds: Annotated[float | None, typer.Option(help="Least time of a stage.")] = None,
    stage_deadline_seconds: Annotated[float | None, typer.Option(help="Longest time of a stage.")] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="Refuse a version below this.")] = None,
    max_accuracy_drop: Annotated[float | None, typer.Option(help="Refuse one worse by more.")] = None,
    max_p95_ms: Annotated[float | None, typer.Option(help="Refuse a version slower than this.")] = None,
    max_memory_mb: Annotated[float | None, typer.Option(help="Refuse a version larger than this.")] = None,
    min_throughput: Annotated[
        float | None, typer.Option(help="Refuse one with fewer rows per second.")
    ] = None,
    allow_signature_change: Annotated[
        bool, typer.Option("--allow-signature-change", help="Let names, types and ranks change.")
    ] = False,
    replay: Annotated[int, typer.Option(min=0, help="Ask this many recent inputs of the log again.")] = 0,
    approve_before: Annotated[
        int | None, typer.Option(min=1, max=100, help="Ask for approval before this percent.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the plan and its limits.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the rollout to its end.")] = False,
    wait_seconds: Annotated[float, typer.Option(min=0, help="How long --wait waits.")] = 14_400.0,
    as_json: AsJson = False,
) -> None:
    """Validate a version and make it champion. With --wait: 0 promoted, 1 not, 2 held or still open."""
    settings = FlowSettings()
    by_stages = {
        "stages": stages,
        "stage_seconds": stage_seconds,
        "stage_deadline_seconds": stage_deadline_seconds,
        "approve_before": approve_before,
    }
    chosen = strategy or Strategy(settings.strategy)
    limits = {
        "min_accuracy": min_accuracy,
        "max_accuracy_drop": max_accuracy_drop,
        "max_p95_ms": max_p95_ms,
        "max_memory_mb": max_memory_mb,
        "min_throughput": min_throughput,
    }
    policy: dict[str, JsonValue] = {name: limit for name, limit in limits.items() if limit is not None}
    policy |= {"allow_signature_change": True} if allow_signature_change else {}
    policy |= {"replay_rows": replay} if replay else {}
    policy |= _plan(by_stages, chosen)
    with wired(settings) as wiring:
        check(wiring.engine)
        asked = Asked(
            model=model,
            version=version,
            asked_at=wiring.clock.now(),
            by=f"unverified:{getpass.getuser()}",
            strategy=chosen.value,
            policy=policy,
            usual=settings.usual_plan,
        )
        if dry_run:
            kept = policies.of_model(wiring.engine, model)
            print_plan(asked, wiring.registry, kept, as_json=as_json)
            return
        entry = record(wiring.engine, wiring.registry, asked, wiring.clock)
        if not isinstance(entry, Entry):
            raise CommandFailed(entry.reason)
        if not as_json:
            how = "recorded" if entry.created else f"joined, {entry.rollout.strategy}"
            say(f"rollout {entry.rollout.id} {how}")
        _start(settings, asked, policy, quiet=as_json)
        found = entry.rollout
        if wait:
            found = _followed(wiring.engine, found, wait_seconds, quiet=as_json)
    if as_json:
        print_json(plain(found))
    if wait:
        _conclude(found, wait_seconds, quiet=as_json)


def _plan(given: Mapping[str, object], strategy: Strategy) -> dict[str, JsonValue]:
    """The plan's settings that were given, in their own types."""
    try:
        found = plan_limits(given)
    except ValueError as error:
        raise CommandFailed(f"the rollout cannot be planned: {error}") from None
    if found and strategy is Strategy.DIRECT:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in found)
        raise CommandFailed(
            f"a direct promotion has no stages for {named}", next_step="use --strategy staged"
        )
    return found


def _start(settings: FlowSettings, asked: Asked, policy: Mapping[str, JsonValue], *, quiet: bool) -> None:
    """Have Prefect run the flow; without Prefect the recorded rollout waits for the minutely flow."""
    parameters = {
        "model": asked.model,
        "version": asked.version,
        "strategy": asked.strategy,
        "asked_at": asked.asked_at.isoformat(),
        "requested_by": asked.by,
        **policy,
    }
    start(settings, parameters, quiet=quiet)


def _followed(engine: Engine, rollout: Rollout, seconds: float, *, quiet: bool) -> Rollout:
    """The rollout at its end or at rest, or as it is when time is up; one line for each step it takes."""
    seen: list[str] = []
    last = rollout

    def ended() -> bool:
        nonlocal last
        last = rollouts.get(engine, rollout.id)
        step = step_of(last)
        if not quiet and step not in seen:
            seen.append(step)
            say(f"{_clock(last.updated_at)} {step}")
        return last.state.is_terminal or is_resting(last)

    wait_until(ended, seconds)
    return last


def _conclude(rollout: Rollout, seconds: float, *, quiet: bool) -> None:
    """Say how it ended, in words and in the exit code."""
    subject = f"version {rollout.version} of {rollout.model}"
    if rollout.state is State.PROMOTED:
        if not quiet:
            say(f"{subject} is the champion: {rollout.reason}")
    elif is_resting(rollout):
        warn(f"the rollout of {subject} is at rest: {step_of(rollout)}; see 'signalbox rollouts'")
        raise typer.Exit(_STILL_OPEN)
    elif rollout.state is State.OPEN:
        warn(f"the rollout of {subject} is still at {rollout.phase} after {seconds:.0f} s and goes on")
        raise typer.Exit(_STILL_OPEN)
    else:
        ended = rollout.state.replace("_", " ")
        raise CommandFailed(f"{subject} was not promoted ({ended}): {rollout.reason}")


def _clock(moment: datetime) -> str:
    return moment.astimezone().strftime("%H:%M:%S")
