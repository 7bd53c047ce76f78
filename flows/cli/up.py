"""`signalbox up`: raises the stack, then leaves it (`--detach`) or shows its changes until Ctrl-C."""

import time
from contextlib import suppress
from typing import Annotated

import typer

from flows.cli.console import say
from flows.cli.errors import CommandFailed
from flows.cli.interruption import go_undisturbed, interruptible, undisturbed
from flows.cli.launch import Stack, raise_stack
from flows.cli.parts import PARTS
from flows.cli.stack import PartView, read_record, stop, view
from flows.settings import FlowSettings

_TURN_SECONDS = 1.0


def up(
    detach: Annotated[bool, typer.Option("--detach", help="Return once every part is ready.")] = False,
) -> None:
    """Start MLflow, Prefect, serving and a worker, or attach to those that run, and wait for each."""
    settings = FlowSettings()
    with interruptible():
        stack = raise_stack(settings)
        _show_addresses(stack, settings)
        if detach or stack.supervisor is None:
            return
        try:
            with undisturbed():
                say("\nCtrl-C stops what was started.")
            _watch(stack, settings)
        except KeyboardInterrupt:
            _stop_undisturbed(stack)


def _show_addresses(stack: Stack, settings: FlowSettings) -> None:
    say("")
    for part in PARTS:
        if part.listens:
            say(f"{part.title:<11}{stack.placed[part.name].url.removesuffix('/api')}")
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
                with undisturbed():
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
    go_undisturbed()
    # With a lost terminal nobody can be told, which must not keep the stack running.
    with suppress(OSError):
        say("\nstopping ...")
    stopped = stop(stack.home)
    with suppress(OSError):
        say(f"stopped {', '.join(stopped) or 'nothing'}")
