"""Brings the stack of a home up: decide on every part, start what is to be started, wait for each.

Called by `up` and the demonstration. All decisions are made before anything starts, and a start
that fails or is interrupted is undone.
"""

import time
from dataclasses import dataclass
from subprocess import Popen

from flows.cli.console import say, warn
from flows.cli.decision import Action, decide
from flows.cli.deployments import apply_deployments
from flows.cli.errors import CommandFailed
from flows.cli.home import Home, prepare, starting
from flows.cli.parts import PARTS, Part, facts_about
from flows.cli.sessions import read_leader
from flows.cli.stack import Placed, log_end, read_record, stop, write_record
from flows.cli.supervision import part_states, start_part, start_supervisor, supervisor_process
from flows.cli.waiting import wait_until
from flows.cli.webhook import register_webhook
from flows.settings import FlowSettings
from serving.store.database import upgrade

_LOG_LINES = 15
# A part that was started this often while it was awaited has a fault that waiting does not cure.
_STARTS_TO_DOUBT = 4


@dataclass(frozen=True, slots=True)
class Stack:
    """What is up. `supervisor` is this process's child where this call started it."""

    home: Home
    placed: dict[str, Placed]
    supervisor: Popen[bytes] | None


def raise_stack(settings: FlowSettings) -> Stack:
    """Bring everything up for this home, or say what already runs."""
    home = prepare(settings)
    with starting(home):
        if supervisor_process(home) is not None:
            return _join(home, settings)
        placed = _place(home, settings)
        try:
            supervisor = _supervise(home, placed, settings)
            began = time.monotonic()
            for part in PARTS:
                _bring_up(home, part, placed[part.name], settings, began if part.early else time.monotonic())
            apply_deployments(home, settings)
        except BaseException:
            stop(home)
            raise
        _announce_webhook(settings)
    return Stack(home, placed, supervisor)


def _join(home: Home, settings: FlowSettings) -> Stack:
    """A second `up`: complete what runs, unless the settings now ask for something else."""
    placed = read_record(home)
    for part in PARTS:
        entry = placed.get(part.name)
        if entry is None or entry.url != part.url(settings):
            at = f"with {part.title} at {entry.url}" if entry else f"without {part.title}"
            problem = f"a stack already runs from {home.root} {at}, not at {part.url(settings)}"
            raise CommandFailed(problem, next_step="run 'signalbox down' first")
    say(f"already running from {home.root}")
    for part in PARTS:
        _bring_up(home, part, placed[part.name], settings)
    apply_deployments(home, settings)
    _announce_webhook(settings)
    return Stack(home, placed, None)


def _place(home: Home, settings: FlowSettings) -> dict[str, Placed]:
    """Decide on every part, and write down what was decided."""
    # What a supervisor left behind when it was killed must not be taken for somebody else's.
    stop(home)
    decisions = {part.name: decide(facts_about(part, settings)) for part in PARTS}
    refusals = [found.sentence for found in decisions.values() if found.action is Action.REFUSE]
    if refusals:
        raise CommandFailed(refusals[0])
    upgrade(settings.database_url)
    placed = {part.name: Placed(decisions[part.name].action, part.url(settings)) for part in PARTS}
    write_record(home, placed)
    return placed


def _supervise(home: Home, placed: dict[str, Placed], settings: FlowSettings) -> Popen[bytes] | None:
    """Start the supervisor if there is anything for it to supervise."""
    parts = [part for part in PARTS if placed[part.name].action is Action.START]
    if not parts:
        return None
    supervisor = start_supervisor(home, parts, settings)
    for part in parts:
        if part.early:
            start_part(home, part.name)
    return supervisor


def _bring_up(
    home: Home, part: Part, placed: Placed, settings: FlowSettings, began: float | None = None
) -> None:
    """One part to readiness, with one line of progress. `began` tells since when this `up` starts it."""
    if placed.action is Action.ATTACH:
        say(f"{part.name:<9}attached to the one at {placed.url}")
        return
    state = (part_states(home) or {}).get(part.name)
    pid = state.pid if state is not None else None
    if began is None and pid is not None and part.ready(settings, placed.url):
        say(f"{part.name:<9}runs at {placed.url} (pid {pid})")
        return
    say(f"{part.name:<9}starting at {placed.url} ... ", end="")
    began = began or time.monotonic()
    start_part(home, part.name)
    fault = _await_ready(home, part, placed.url, settings)
    if fault:
        say("failed")
        for line in log_end(home.log(part.name), _LOG_LINES):
            warn(f"{part.name}: {line}")
        raise CommandFailed(f"{part.title} {fault}", next_step=f"its log is {home.log(part.name)}")
    say(f"ready after {time.monotonic() - began:.1f} s")


def _await_ready(home: Home, part: Part, url: str, settings: FlowSettings) -> str:
    """What went wrong, or nothing."""
    before = _starts(home, part)

    def settled() -> bool:
        return part.ready(settings, url) or _starts(home, part) - before >= _STARTS_TO_DOUBT

    if not wait_until(settled, settings.start_seconds):
        return f"was not ready within {settings.start_seconds:.0f} s"
    return "" if part.ready(settings, url) else "ended again each time it was started"


def _starts(home: Home, part: Part) -> int:
    leader = read_leader(home.pid_file(part.name))
    return leader.starts if leader is not None else 0


def _announce_webhook(settings: FlowSettings) -> None:
    problem = register_webhook(settings)
    if problem:
        warn(f"MLflow will not announce alias changes ({problem}); polling continues and finds them")
    else:
        say(f"{'webhook':<9}registered, MLflow announces alias changes to serving")
