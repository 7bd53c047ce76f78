"""Becomes a part of the stack: `python -m flows.cli.part --pid-file FILE -- COMMAND...`.

The supervisor starts every part through this. What a killed predecessor left behind is ended first,
so that nothing else holds the part's port; then this process leads a session and turns into the part.
"""

import os
import sys
from pathlib import Path

import psutil

from flows.cli.sessions import Leader, end_session, lead_session, read_leader, started_seconds, write_leader


def main(arguments: list[str]) -> None:
    match arguments:
        case ["--pid-file", path, "--", program, *rest]:
            become(Path(path), [program, *rest])
        case _:
            sys.exit("usage: python -m flows.cli.part --pid-file FILE -- COMMAND [ARGUMENT...]")


def become(pid_file: Path, command: list[str]) -> None:
    """End the previous session, record this process in its place and run `command` as it."""
    previous = read_leader(pid_file)
    if previous is not None:
        end_session(previous)
    lead_session()
    starts = previous.starts + 1 if previous is not None else 1
    write_leader(pid_file, Leader(os.getpid(), started_seconds(psutil.Process()), starts))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
