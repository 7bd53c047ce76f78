"""How each part last ended, read from the supervisor's log: it forgets an exit once it restarts the part."""

import re
from datetime import datetime

_STARTED = "supervisord started with pid"
_EXIT = re.compile(
    r"^(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ \w+ exited: (?P<part>\S+) \((?P<how>[^;)]+)", re.MULTILINE
)


def last_exits(log: str) -> dict[str, str]:
    """By part, since the supervisor last started: `terminated by SIGKILL at 2026-01-02T03:04:05+00:00`."""
    of_this_run = log.rpartition(_STARTED)[2]
    return {found["part"]: f"{found['how']} at {_iso(found['at'])}" for found in _EXIT.finditer(of_this_run)}


def _iso(local: str) -> str:
    """The supervisor writes local time without saying so."""
    return datetime.fromisoformat(local).astimezone().isoformat()
