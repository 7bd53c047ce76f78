"""The port to a channel that tells people, and the four things that can come of one attempt.

Called by delivery. A notifier never raises for what its channel does: it says what came of it, and
`Unknown` when nobody can say whether the message was taken.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeAlias

from serving.store.outbox import Notice


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One notice as it is handed to a channel. `maybe_duplicate`: an earlier attempt may have arrived."""

    id: int
    notice: Notice
    created_at: datetime
    maybe_duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """The channel took it; `receipt` is how it names the message."""

    receipt: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Retry:
    """It was not taken and may be later; no sooner than `after_seconds` where the channel said so."""

    reason: str
    after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """The channel takes nothing until somebody corrects its settings."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """It was sent, and no usable answer came back."""

    reason: str


Outcome: TypeAlias = Sent | Retry | Broken | Unknown


class Notifier(Protocol):
    """One channel. Its name is kept with every notice, so it must stay the same."""

    @property
    def name(self) -> str: ...

    def send(self, dispatch: Dispatch) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """Stands in for a channel whose settings are incomplete: it keeps every notice and says why."""

    name: str
    reason: str

    def send(self, dispatch: Dispatch) -> Outcome:
        return Broken(self.reason)
