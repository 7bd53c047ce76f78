"""How far one notice has come in each channel, and when a channel should be tried again.

Pure. Kept as JSON in the outbox's `receipt`, written before each attempt: a notice found in stage
`sending` belongs to a delivery that died, so it may have arrived.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random
from typing import Any

from flows.alerts.notify import Broken, Outcome, Retry, Sent, Unknown
from serving.store.text import json_text, read_optional_time

# Longer than the slowest attempt, so that a claim never runs out under a sender that is alive.
UNKNOWN_SECONDS = 120.0
BROKEN_SECONDS = 60.0
_FIRST_SECONDS = 10.0
_LONGEST_SECONDS = 3600.0


class Stage(StrEnum):
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Passage:
    """One notice in one channel. `receipt` is the channel's own name for the message."""

    stage: Stage
    attempts: int = 0
    retry_at: datetime | None = None
    maybe_duplicate: bool = False
    receipt: Mapping[str, str] = field(default_factory=dict)


Passages = Mapping[str, Passage]


def read(text: str | None) -> dict[str, Passage]:
    """Passages by channel; a receipt that is not ours reads as none."""
    try:
        found = json.loads(text or "{}")
        return {str(name): _passage(state) for name, state in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def text(passages: Passages) -> str:
    return json_text({name: _plain(passage) for name, passage in passages.items()})


def due(passages: Passages, channels: Iterable[str], now: datetime) -> list[str]:
    """Which of the channels should get the notice now."""
    return [name for name in channels if name not in passages or _is_due(passages[name], now)]


def begun(passage: Passage | None, now: datetime) -> Passage:
    """The passage as it must be stored before the channel is called."""
    before = passage or Passage(Stage.FAILED)
    doubtful = before.maybe_duplicate or before.stage in (Stage.SENDING, Stage.UNKNOWN)
    retry_at = now + timedelta(seconds=UNKNOWN_SECONDS)
    return Passage(Stage.SENDING, before.attempts + 1, retry_at, doubtful)


def ended(passage: Passage, outcome: Outcome, now: datetime, chance: Random) -> Passage:
    """The passage after an attempt."""
    if isinstance(outcome, Sent):
        return replace(passage, stage=Stage.SENT, retry_at=None, receipt=dict(outcome.receipt))
    retry_at = now + timedelta(seconds=_wait_seconds(passage.attempts, outcome, chance))
    if isinstance(outcome, Unknown):
        return replace(passage, stage=Stage.UNKNOWN, retry_at=retry_at, maybe_duplicate=True)
    return replace(passage, stage=Stage.FAILED, retry_at=retry_at)


def next_try(passages: Passages, channels: Iterable[str], now: datetime) -> datetime | None:
    """When the first of the channels that lack the notice should be tried; None when all have it."""
    lacking = [passages.get(name) for name in channels if not _has(passages.get(name))]
    return min(((passage and passage.retry_at) or now for passage in lacking), default=None)


def backoff_seconds(attempts: int, chance: Random) -> float:
    """Doubles from 10 s to an hour; a random half of it, so that senders do not come back together."""
    longest = min(_FIRST_SECONDS * 2.0 ** min(attempts - 1, 20), _LONGEST_SECONDS)
    return longest * chance.uniform(0.5, 1.0)


def _wait_seconds(attempts: int, outcome: Retry | Broken | Unknown, chance: Random) -> float:
    if isinstance(outcome, Unknown):
        return UNKNOWN_SECONDS
    if isinstance(outcome, Broken):
        return BROKEN_SECONDS
    return max(outcome.after_seconds or 0.0, backoff_seconds(attempts, chance))


def _has(passage: Passage | None) -> bool:
    return passage is not None and passage.stage is Stage.SENT


def _is_due(passage: Passage, now: datetime) -> bool:
    return not _has(passage) and (passage.retry_at is None or passage.retry_at <= now)


def _plain(passage: Passage) -> dict[str, Any]:
    return {
        "stage": str(passage.stage),
        "attempts": passage.attempts,
        "retry_at": passage.retry_at,
        "maybe_duplicate": passage.maybe_duplicate,
        "receipt": dict(passage.receipt),
    }


def _passage(state: Mapping[str, Any]) -> Passage:
    return Passage(
        stage=Stage(state["stage"]),
        attempts=int(state["attempts"]),
        retry_at=read_optional_time(state["retry_at"]),
        maybe_duplicate=bool(state["maybe_duplicate"]),
        receipt={str(key): str(value) for key, value in state["receipt"].items()},
    )
