"""The form of the server's log: lines for people, or one JSON object a line for machines.

Every call of ours logs `event key=%s ...`: the event's name, then named values. The JSON form keeps the
values apart and typed instead of reading them back out of the text. Nothing secret leaves in either.
"""

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

from serving.core.model import VersionRef

_TEXT = "%(asctime)s %(levelname)s {who}%(name)s %(message)s"
_PLACE = re.compile(r"(?:(?P<name>\w+)=)?%(?P<form>[-#0 +]*\d*(?:\.\d+)?[a-zA-Z%])")
_EVENT = re.compile(r"[a-z][a-z0-9_]*")
_OTHER = "message"

# What must not be written whoever logs it: credentials in addresses, in headers and by their name.
_SECRETS = (
    (re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"), "***"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), r"\1 ***"),
    (
        re.compile(
            r"(?i)\b([\w-]*(?:api[_-]?key|password|passwd|secret|token))(['\"]?\s*[=:]\s*['\"]?)[^\s'\",}]+"
        ),
        r"\1\2***",
    ),
)

bound_request: ContextVar[str | None] = ContextVar("bound_request", default=None)
"""The id of the request that is being answered, for every line that is logged meanwhile."""


def set_up(level: str, form: Literal["text", "json"], worker: int | None = None) -> None:
    """Log to the standard error stream from now on, as this one of several workers."""
    handler = logging.StreamHandler(sys.stderr)
    who = "" if worker is None else f"worker-{worker} "
    handler.setFormatter(JsonLines(worker) if form == "json" else TextLines(_TEXT.format(who=who)))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)


class TextLines(logging.Formatter):
    """One line, and a traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        request_id = bound_request.get()
        if request_id is not None and "request_id=" not in text:
            first, *rest = text.split("\n", 1)
            text = "\n".join([f"{first} request_id={request_id}", *rest])
        return redacted(text)


class JsonLines(logging.Formatter):
    """`at`, `level`, `logger`, `event`, the named values, `detail` for what has no name, `traceback`."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if self._worker is not None:
            told["worker"] = self._worker
        request_id = bound_request.get()
        if request_id is not None:
            told["request_id"] = request_id
        told |= _named(record)
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps({name: _plain(value) for name, value in told.items()}, ensure_ascii=False)


def redacted(text: str) -> str:
    """The text with what looks like a credential taken out."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


def _named(record: logging.LogRecord) -> dict[str, Any]:
    """Event and values of one of our lines; of any other line its text."""
    text = record.getMessage()
    event = text.split(maxsplit=1)[0] if text.strip() else ""
    is_ours = record.name.startswith("serving")
    if not is_ours or not _EVENT.fullmatch(event) or isinstance(record.args, dict):
        return {"event": _OTHER, "detail": text}
    told: dict[str, Any] = {"event": event}
    unnamed = []
    for name, value in _values(str(record.msg), record.args or ()):
        if name is None:
            unnamed.append(str(value))
        elif isinstance(value, VersionRef):
            told |= {"model": value.model, "version": value.version}
        else:
            told[name] = value
    detail = "\n".join(part for part in unnamed if part and part not in event)
    return told | ({"detail": detail} if detail else {})


def _values(template: str, arguments: Any) -> Iterator[tuple[str | None, Any]]:
    left = list(arguments)
    for place in _PLACE.finditer(template):
        if place["form"] != "%" and left:
            value = left.pop(0)
            yield place["name"], repr(value) if place["form"].endswith("r") else value


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    return redacted(str(value))
