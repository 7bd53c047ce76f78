"""Joins labels with the answers they are about, on a thread of its own, a bounded piece at a time.

One worker at a time joins, the one that holds a lock the kernel frees. New labels are looked for in the
whole log, newest parts first; those not found wait, and every new part is searched for them, until the
log no longer keeps their answer.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from sqlalchemy import Engine

from serving.core.clock import Clock
from serving.core.errors import StoreUnavailable
from serving.core.labels import Label, Verdict, judge
from serving.core.model import VersionRef
from serving.store import labels as store
from serving.store.answers import AnswerIndex, LoggedAnswer, codes_of
from serving.store.durable import exclusive
from serving.store.feedback import FeedbackJournal
from serving.store.inference_log import Part, parts
from serving.store.labels import Joined, Outcome
from serving.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

MAX_WAITING = 100_000
_TURN_SECONDS = 2.0
_RETRY_SECONDS = 10.0
_FORGET_SECONDS = 300.0
_SEARCH_SECONDS = 0.25
_BATCH = 500
# A request's rows of several versions, as a shadow's, reach the disk within one flush of the log.
_FLUSHED_WITHIN = timedelta(seconds=12)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a version beyond the log: what it is for, and the names of its classes."""

    task: str | None = None
    classes: Sequence[str] = ()


class LabelParts(Protocol):
    """Where joined labels are written beside the log: `serving.telemetry.label_parts`."""

    def write(self, joined: Sequence[Joined]) -> None: ...

    def trim(self) -> None: ...


class Joiner:
    """Everything happens on its thread, or in `turn` for who has no thread."""

    def __init__(
        self,
        folder: Path,
        journal: FeedbackJournal,
        engine: Engine,
        label_parts: LabelParts,
        facts_of: Callable[[VersionRef], Facts],
        metrics: Metrics,
        clock: Clock,
        kept: timedelta,
    ) -> None:
        self._folder = folder
        self._journal = journal
        self._engine = engine
        self._label_parts = label_parts
        self._facts_of = facts_of
        self._clock = clock
        self._kept = kept
        self._outcomes = {outcome: metrics.labels.labels(str(outcome)) for outcome in Outcome}
        self._gauge = metrics.labels_waiting
        self._index = AnswerIndex()
        self._lock = ExitStack()
        self._is_holder = False
        self._waiting: dict[tuple[str, int], Label] = {}
        self._fresh: set[str] = set()
        self._todo: deque[Part] = deque()
        self._known: set[Path] = set()
        self._try_at = float("-inf")
        self._forget_at = float("-inf")
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="labels", daemon=True)
        self.problem: str | None = None

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout_seconds: float = 10.0) -> None:
        """Stop; labels that wait are on disk already."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)
        self._lock.close()

    def turn(self) -> None:
        """Take in what came, look for a bounded piece of it, and count what was found."""
        if not self._hold() or self._clock.monotonic() < self._try_at:
            return
        listed = self._flushed()
        self._take_in(listed)
        if self._waiting:
            found = self._search(listed)
            try:
                self._settle(found)
            except StoreUnavailable as error:
                self._put_off(error, found, listed)
                return
        self.problem = None
        self._forget()
        self._gauge.set(len(self._waiting))

    def _run(self) -> None:
        while not self._wake.wait(_TURN_SECONDS):
            try:
                self.turn()
            except Exception as error:  # one odd turn must not end the thread
                log.exception("labels_turn_failed")
                self.problem = repr(error)

    def _hold(self) -> bool:
        """Whether this worker is the one that joins; at first, take up what another left waiting."""
        if self._is_holder:
            return True
        self._is_holder = self._lock.enter_context(exclusive(self._journal.join_lock, wait=False))
        if not self._is_holder:
            self._lock.close()
            return False
        listed = self._flushed()
        self._known = {part.path for part in listed}
        self._admit(self._journal.waiting(), listed)
        return True

    def _flushed(self) -> list[Part]:
        """Parts, oldest first, whose requests' other rows are on disk by now too."""
        now = self._clock.now()
        return [part for part in parts(self._folder) if not now - _FLUSHED_WITHIN < part.newest_at <= now]

    def _take_in(self, listed: Sequence[Part]) -> None:
        """New labels, unless a search over the whole log is still under way."""
        if not self._fresh:
            self._admit(self._journal.take(self._waiting.values()), listed)

    def _admit(self, labels: Sequence[Label], listed: Sequence[Part]) -> None:
        """Of several labels of one row the last counts; nobody has seen the others."""
        for label in labels:
            key = (label.request_id, label.row)
            earlier = self._waiting.pop(key, None)
            if earlier is not None and earlier != label:
                self._outcomes[Outcome.REPLACED].inc()
            self._waiting[key] = label if earlier is None or earlier.at <= label.at else earlier
            self._fresh.add(label.request_id)
        while len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
            self._outcomes[Outcome.EXPIRED].inc()
        if labels:
            self._todo = deque(listed)

    def _search(self, listed: Sequence[Part]) -> list[LoggedAnswer]:
        """Rows of requests with labels: of new parts for all labels, of all parts for fresh ones."""
        new = [part for part in listed if part.path not in self._known]
        self._known = {part.path for part in listed}
        found: list[LoggedAnswer] = []
        if new:
            found += self._in_parts(new, {request_id for request_id, _ in self._waiting})
        deadline = self._clock.monotonic() + _SEARCH_SECONDS
        sought = self._fresh - {answer.request_id for answer in found}
        codes = codes_of(sought)
        while self._todo and sought and self._clock.monotonic() < deadline:
            part = self._todo.pop()
            if self._index.may_hold(part, codes):
                found += self._index.answers(part, sought)
                sought -= {answer.request_id for answer in found}
        self._fresh = sought if self._todo else set()
        return found + self._siblings(found)

    def _in_parts(self, chosen: Iterable[Part], request_ids: set[str]) -> list[LoggedAnswer]:
        codes = codes_of(request_ids)
        holding = [part for part in chosen if self._index.may_hold(part, codes)]
        return [answer for part in holding for answer in self._index.answers(part, request_ids)]

    def _siblings(self, found: Sequence[LoggedAnswer]) -> list[LoggedAnswer]:
        """Rows of the same requests that other versions of the model answered, as a shadow does."""
        siblings: list[LoggedAnswer] = []
        for model in {answer.ref.model for answer in found}:
            answers = [answer for answer in found if answer.ref.model == model]
            since = min(answer.at for answer in answers) - _FLUSHED_WITHIN
            until = max(answer.at for answer in answers) + _FLUSHED_WITHIN
            near = [part for part in parts(self._folder, model) if since <= part.newest_at <= until]
            siblings += self._in_parts(near, {answer.request_id for answer in answers})
        return siblings

    def _settle(self, found: Sequence[LoggedAnswer]) -> None:
        """Count labels whose answer was found; they wait no more once that is in the store."""
        newest: dict[object, tuple[Label, LoggedAnswer]] = {}
        for answer in sorted(found, key=lambda answer: answer.at):
            label = self._waiting.get((answer.request_id, answer.row))
            if label is not None and label.model in (None, answer.ref.model):
                newest[answer.request_id, answer.row, answer.ref, answer.variant] = (label, answer)
        joined = [self._judged(label, answer) for label, answer in newest.values()]
        for start in range(0, len(joined), _BATCH):
            batch = joined[start : start + _BATCH]
            for outcome in store.count(self._engine, batch):
                self._outcomes[outcome].inc()
            self._write(batch)
        gone = {(each.label.request_id, each.label.row) for each in joined} | self._without_row(found)
        if gone:
            self._waiting = {key: label for key, label in self._waiting.items() if key not in gone}
            self._journal.keep(self._waiting.values())

    def _judged(self, label: Label, answer: LoggedAnswer) -> Joined:
        facts = self._facts_of(answer.ref)
        verdict = judge(
            label.label,
            answer.outputs,
            task=facts.task,
            classes=facts.classes,
            delay_seconds=(label.at - answer.at).total_seconds(),
        )
        joined = Joined(label=label, ref=answer.ref, variant=answer.variant, answered_at=answer.at)
        if isinstance(verdict, Verdict):
            return replace(joined, said=verdict.said, scored=verdict.scored)
        log.info("label_says_nothing version=%s reason=%s", answer.ref, verdict.reason)
        return joined

    def _without_row(self, found: Iterable[LoggedAnswer]) -> set[tuple[str, int]]:
        """Labels of rows that their request did not have."""
        rows = {answer.request_id: answer.rows for answer in found}
        gone = {
            (request_id, row)
            for request_id, row in self._waiting
            if request_id in rows and row >= rows[request_id]
        }
        self._outcomes[Outcome.NO_ROW].inc(len(gone))
        return gone

    def _write(self, joined: Sequence[Joined]) -> None:
        """Beside the log, for whoever reads them together; the sums in the store do not depend on it."""
        try:
            self._label_parts.write(joined)
        except OSError as error:
            log.error("labels_not_written rows=%d error=%r", len(joined), error)
            self.problem = str(error)

    def _put_off(
        self, error: StoreUnavailable, found: Sequence[LoggedAnswer], listed: Sequence[Part]
    ) -> None:
        """Look for the same labels again later."""
        if self.problem is None:
            log.warning("labels_wait reason=%s", error)
        self.problem = str(error)
        self._try_at = self._clock.monotonic() + _RETRY_SECONDS
        self._fresh |= {answer.request_id for answer in found}
        self._todo = deque(listed)

    def _forget(self) -> None:
        """Let go of labels whose answer the log keeps no more."""
        if self._clock.monotonic() < self._forget_at:
            return
        self._forget_at = self._clock.monotonic() + _FORGET_SECONDS
        now = self._clock.now()
        old = [key for key, label in self._waiting.items() if label.at < now - self._kept]
        for key in old:
            del self._waiting[key]
        if old:
            self._outcomes[Outcome.EXPIRED].inc(len(old))
            self._journal.keep(self._waiting.values())
        try:
            store.forget(self._engine, now, self._kept)
            self._label_parts.trim()
        except (StoreUnavailable, OSError) as error:
            log.warning("labels_not_trimmed reason=%s", error)
