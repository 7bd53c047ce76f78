"""How values are written as text: canonical JSON and UTC times, the same on every database.

Called by every module that stores something. Equal values give equal text, so text can be hashed,
compared and sorted.
"""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"


def json_text(value: object) -> str:
    """Compact JSON in ASCII with sorted keys.

    Never refuses: what JSON cannot hold (a path, a time, NaN) is written as its text, because
    these records are made while something is already failing.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def time_text(moment: datetime) -> str:
    """ISO-8601 in UTC with microseconds and offset; the order of texts is the order of times."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone; pass an aware datetime")
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def read_time(text: str) -> datetime:
    """The aware UTC time that `time_text` wrote."""
    return datetime.fromisoformat(text)


def read_optional_time(text: str | None) -> datetime | None:
    return None if text is None else read_time(text)


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return time_text(value) if isinstance(value, datetime) and value.tzinfo else str(value)
