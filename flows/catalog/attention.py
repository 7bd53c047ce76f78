"""What a scan has to do about one model file: pure decision from what lies there and what is noted of it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from serving.store.model_files import ModelFile, State


class Attention(StrEnum):
    """`WAIT` restarts or continues the quiet period; `RESUME` takes up a registration that was cut off."""

    WAIT = "wait"
    TAKE = "take"
    RESUME = "resume"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Decision:
    """`since` is when the file was first seen as it is, `wait_seconds` how much longer it has to stay so."""

    attention: Attention
    since: datetime
    wait_seconds: float = 0.0


def attention(fingerprint: str, noted: ModelFile | None, now: datetime, quiet_seconds: float) -> Decision:
    """A file is taken once it stayed unchanged for the quiet period, by our own observation: neither the
    file's times nor another machine's clock are believed.
    """
    if noted is None or noted.fingerprint != fingerprint:
        return _wait(now, quiet_seconds)
    if noted.state in (State.REGISTERED, State.REFUSED):
        return Decision(Attention.LEAVE, noted.since)
    if noted.state is State.REGISTERING:
        return Decision(Attention.RESUME, noted.since)
    stayed = now - noted.since
    if stayed < timedelta(0):  # the clock was put back since
        return _wait(now, quiet_seconds)
    left_seconds = quiet_seconds - stayed.total_seconds()
    if left_seconds <= 0:
        return Decision(Attention.TAKE, noted.since)
    return Decision(Attention.WAIT, noted.since, left_seconds)


class Meaning(StrEnum):
    """What a settled file's bytes mean beside the last outcome noted of its path."""

    NEW = "new"
    AS_BEFORE = "as before"
    DESCRIBED_ANEW = "described anew"


def meaning(source_digest: str, side_digest: str | None, noted: ModelFile | None) -> Meaning:
    """Touched, copied over itself, or only its side file changed: then no new version comes of it.

    A refused file is judged anew with a changed side file, since that may have been the reason.
    """
    if noted is None or noted.source_digest != source_digest:
        return Meaning.NEW
    has_outcome = noted.version is not None or noted.reason is not None
    if has_outcome and noted.side_digest == side_digest:
        return Meaning.AS_BEFORE
    return Meaning.DESCRIBED_ANEW if noted.version is not None else Meaning.NEW


def _wait(now: datetime, quiet_seconds: float) -> Decision:
    return Decision(Attention.TAKE if quiet_seconds <= 0 else Attention.WAIT, now, quiet_seconds)
