"""`signalbox up`: raises the stack, then leaves it (`--detach`) or shows its changes until Ctrl-C."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Never

import typer

from flows.cli.console import say
from flows.cli.errors import CommandFailed
from flows.cli.launch import Stack, raise_stack
from flows.cli.parts import PARTS
from flows.cli.stack import PartView, read_record, stop, view
from flows.settings import FlowSettings

_TURN_SECONDS = 1.0


def up(
    detach: Annotated[bool, typer.Option("--detach", help="Return once every part is ready.")] = False,
) -> None:
    """Start MLflow and serving, or attach to those that run, and wait until each is ready."""
    settings = FlowSettings()
    with _interrupted_by_signals():
        stack = raise_stack(settings)
        _show_addresses(stack, settings)
        if detach or stack.supervisor is None:
            return
        say("\nCtrl-C stops what was started.")
        try:
            _watch(stack, settings)
        except KeyboardInterrupt:
            _stop_undisturbed(stack)


def _show_addresses(stack: Stack, settings: FlowSettings) -> None:
    say("")
    for part in PARTS:
        say(f"{part.title:<11}{stack.placed[part.name].url}")
    say(f"{'API':<11}{settings.serving_url}/docs")
    say(f"{'metrics':<11}{settings.serving_url}/metrics")
    say(f"{'admin key':<11}{settings.admin_key_file}")
    say(f"{'logs':<11}{stack.home.logs}")


def _watch(stack: Stack, settings: FlowSettings) -> None:
    """Show every change of state for as long as the supervisor runs."""
    shown = {row.part: row for row in view(stack.home, settings)}
    while stack.supervisor is not None and stack.supervisor.poll() is None:
        for row in view(stack.home, settings):
            if _is_news(shown[row.part], row):
                say(_news(row))
            shown[row.part] = row
        time.sleep(_TURN_SECONDS)
    if read_record(stack.home):
        stop(stack.home)
        problem = "the supervisor was killed, and what it ran has been stopped"
        raise CommandFailed(problem, next_step="run 'signalbox up' again")
    say("stopped by 'signalbox down'")


def _is_news(before: PartView, now: PartView) -> bool:
    return (before.state, before.restarts) != (now.state, now.restarts)


def _news(row: PartView) -> str:
    restarts = f", restarts {row.restarts}" if row.restarts else ""
    ended = f", last exit: {row.last_exit}" if row.last_exit else ""
    return f"{row.part:<9}{row.state}{restarts}{ended}"


def _stop_undisturbed(stack: Stack) -> None:
    """A second Ctrl-C must not leave half of the stack running."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    say("\nstopping ...")
    say(f"stopped {', '.join(stop(stack.home)) or 'nothing'}")


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Being asked to end and losing the terminal count as Ctrl-C does, except under `nohup`."""

    def interrupt(_number: int, _frame: FrameType | None) -> Never:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if number != signal.SIGHUP or handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
