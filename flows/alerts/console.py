"""Notices as lines of text: on a terminal, or in the log of the run that delivers them.

The channel of last resort, used when no other is configured; a line that was written counts as
delivered.
"""

from collections.abc import Callable
from dataclasses import dataclass

from flows.alerts.notify import Dispatch, Outcome, Sent
from serving.store.outbox import Severity


@dataclass(frozen=True, slots=True)
class Console:
    """Hands each notice to `write` as one line with its severity."""

    write: Callable[[Severity, str], None]
    name: str = "log"

    def send(self, dispatch: Dispatch) -> Outcome:
        self.write(dispatch.notice.severity, line(dispatch))
        return Sent()


def line(dispatch: Dispatch) -> str:
    """`critical: digits was rolled back (notice 7, 2026-01-01T00:00:00+00:00)`"""
    notice = dispatch.notice
    again = ", maybe a duplicate" if dispatch.maybe_duplicate else ""
    title = " ".join(notice.title.split())
    made_at = dispatch.created_at.isoformat(timespec="seconds")
    return f"{notice.severity}: {title} (notice {dispatch.id}, {made_at}{again})"
