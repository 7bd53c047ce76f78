"""Times as people type them: ISO-8601, local where no zone is named, or a span like `2h` from now."""

import re
from datetime import datetime, timedelta

from flows.cli.errors import CommandFailed

_SPAN = re.compile(r"(?P<sign>[+-]?)(?P<number>[0-9]{1,6})(?P<unit>[smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def moment_of(text: str, now: datetime) -> datetime:
    """An aware time. Raises `CommandFailed` for what is none."""
    if (span := _SPAN.fullmatch(text.strip())) is not None:
        seconds = int(span["number"]) * _SECONDS[span["unit"]]
        return now + timedelta(seconds=-seconds if span["sign"] == "-" else seconds)
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        step = "write it as 2026-01-31T12:00+00:00, or as a span like 2h or -30m"
        raise CommandFailed(f"'{text}' is no time", next_step=step) from None
    return moment if moment.tzinfo is not None else moment.astimezone()
