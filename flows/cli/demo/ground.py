"""The folder the demonstration plays in: one at a time, empty at the start, stopped before it is emptied."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flows.cli.console import say
from flows.cli.errors import CommandFailed
from flows.cli.home import Home
from flows.cli.stack import stop
from serving.store.durable import exclusive

_LOCK = "demo.lock"


@contextmanager
def cleared(root: Path) -> Iterator[None]:
    """The home is empty, and ours to the end. Raises `CommandFailed` while another demonstration has it."""
    with ExitStack() as held:
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            got = held.enter_context(exclusive(root / _LOCK, wait=False))
            if not got:
                step = "wait for its end, or start this one in another folder"
                raise CommandFailed(f"a demo already plays in {root}", next_step=step)
            if stopped := stop(Home(root)):
                say(f"stopped what an earlier demo left running: {', '.join(stopped)}")
            _empty(root)
        except OSError as error:
            problem = f"the demo's folder {root} cannot be used: {error.strerror or error} ({error.filename})"
            raise CommandFailed(problem, next_step="start the demo in a folder you may write") from None
        yield


def _empty(root: Path) -> None:
    for entry in root.iterdir():
        if entry.name == _LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
