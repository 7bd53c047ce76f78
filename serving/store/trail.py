"""Where the rest of the code records what was done: the audit trail, or the journal while it is away.

Recording never stops the action it records: a rollback must not wait for a database.
"""

import logging
import threading

from sqlalchemy import Engine

from serving.core.clock import Clock
from serving.core.errors import StoreUnavailable
from serving.store import audit
from serving.store.audit import AuditEntry
from serving.store.database import writing
from serving.store.journal import Journal
from serving.store.text import JsonValue

_PAUSE_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Trail:
    """Thread-safe. `engine` is None where no state store could be opened at all.

    After a failure the store is left alone for 5 s, so that a database that hangs delays one
    record and not each.
    """

    def __init__(self, engine: Engine | None, journal: Journal, clock: Clock) -> None:
        self._engine = engine
        self._journal = journal
        self._clock = clock
        self._lock = threading.Lock()
        self._away_until = float("-inf")

    def record(
        self,
        action: str,
        *,
        actor: str,
        model: str | None = None,
        version: str | None = None,
        **details: JsonValue,
    ) -> None:
        """Record one fact, durably in one of the two places when this returns. Raises nothing."""
        now = self._clock.now()
        entry = AuditEntry(action=action, actor=actor, model=model, version=version, details=details, at=now)
        if not self._stored(entry):
            self._keep(entry)

    def merge(self) -> int:
        """Move journalled entries into the store; how many, 0 while it is still away."""
        if self._engine is None or self._journal.is_empty():
            return 0
        try:
            merged = self._journal.merge(self._engine)
        except StoreUnavailable as error:
            _log.warning("journal_merge_postponed error=%s", error)
            return 0
        self._leave_alone_until(float("-inf"))
        return merged

    def _stored(self, entry: AuditEntry) -> bool:
        if self._engine is None or self._is_away():
            return False
        try:
            with writing(self._engine) as connection:
                audit.append(connection, entry)
        except StoreUnavailable as error:
            _log.warning("audit_entry_journalled action=%s error=%s", entry.action, error)
            self._leave_alone_until(self._clock.monotonic() + _PAUSE_SECONDS)
            return False
        return True

    def _keep(self, entry: AuditEntry) -> None:
        try:
            self._journal.append(entry)
        except OSError as error:
            # Store and disk both refuse: the log is the last place, and the action must go on.
            _log.error("audit_entry_lost error=%s entry=%s", error, audit.entry_text(entry))

    def _is_away(self) -> bool:
        with self._lock:
            return self._clock.monotonic() < self._away_until

    def _leave_alone_until(self, moment: float) -> None:
        with self._lock:
            self._away_until = moment
