"""`signalbox down`: stops what was started from this home, and nothing else."""

from flows.cli.console import say
from flows.cli.decision import Action
from flows.cli.home import Home
from flows.cli.stack import read_record, stop
from flows.settings import FlowSettings


def down() -> None:
    """Stop everything that was started from this home."""
    home = Home(FlowSettings().home)
    attached = [name for name, entry in read_record(home).items() if entry.action is Action.ATTACH]
    stopped = stop(home)
    say(f"stopped {', '.join(stopped)}" if stopped else f"nothing was running from {home.root}")
    if attached:
        say(f"left alone, as it was not started here: {', '.join(attached)}")
