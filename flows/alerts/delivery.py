"""Takes due notices out of the outbox and through the channels; called by process-alerts, safe at any time.

Each notice is claimed before it is sent, so that two deliveries at once send it once, and what a
crash leaves behind is known to be doubtful. A channel that fails rests for the remainder of the pass.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

from sqlalchemy import Engine

from flows.alerts import condition, passage
from flows.alerts.condition import Condition, Verdict
from flows.alerts.notify import Broken, Dispatch, Notifier, Outcome, Retry, Sent, Unknown
from flows.alerts.passage import Passage
from serving.core.clock import Clock
from serving.store import outbox
from serving.store.outbox import QueuedNotice

_log = logging.getLogger(__name__)
_LONGEST_PASS_SECONDS = 45.0


@dataclass(frozen=True, slots=True)
class Delivered:
    """What one pass did. `kept` counts every notice still undelivered, `troubles` says why by channel.

    `news` are sentences to say now: each tells of a channel that broke or works again, once.
    """

    sent: Mapping[str, int]
    notices: int
    kept: int
    doubtful: int
    troubles: Mapping[str, str]
    news: Sequence[str]

    def sentence(self) -> str:
        """What the run's message says, also when there was nothing to do."""
        channels = ", ".join(f"{name} {count}" for name, count in sorted(self.sent.items()))
        told = f"delivered {self.notices} ({channels})" if channels else "delivered none"
        if self.doubtful:
            told += f", {self.doubtful} of them maybe twice"
        if not self.kept:
            return f"{told}; no notice waits" if channels else "no notice was waiting"
        why = "; ".join(f"{name}: {reason}" for name, reason in sorted(self.troubles.items()))
        return f"{told}; kept {self.kept}" + (f" ({why})" if why else " for a later pass")


def deliver(
    engine: Engine,
    notifiers: Sequence[Notifier],
    clock: Clock,
    chance: Random | None = None,
    *,
    limit: int = 500,
) -> Delivered:
    """One pass over the notices that are due, oldest first. Raises StoreUnavailable."""
    work = _Pass(engine, notifiers, clock, chance or Random())
    ends_at = clock.monotonic() + _LONGEST_PASS_SECONDS
    for queued in outbox.pending(engine, clock.now(), limit):
        if not work.open or clock.monotonic() >= ends_at:
            break
        work.forward(queued)
    return work.result()


@dataclass(slots=True)
class _Tally:
    sent: Counter[str] = field(default_factory=Counter)
    notices: int = 0
    doubtful: int = 0
    troubles: dict[str, str] = field(default_factory=dict)
    news: list[str] = field(default_factory=list)


class _Pass:
    """One pass: the channels still in use, and what was done so far."""

    def __init__(self, engine: Engine, notifiers: Sequence[Notifier], clock: Clock, chance: Random) -> None:
        self._engine = engine
        self._clock = clock
        self._chance = chance
        self._notifiers = {notifier.name: notifier for notifier in notifiers}
        self._known = {name: condition.current(engine, name) for name in self._notifiers}
        self._tally = _Tally()
        now = clock.now()
        self.open = [name for name, known in self._known.items() if condition.is_open(known, now)]
        for name in self._notifiers.keys() - set(self.open):
            known = self._known[name]
            self._tally.troubles[name] = known.reason if known else ""

    def forward(self, queued: QueuedNotice) -> None:
        """Give the notice to each open channel that lacks it, and write down how far it came."""
        now = self._clock.now()
        passages = passage.read(queued.receipt)
        names = passage.due(passages, self.open, now)
        begun = {name: passage.begun(passages.get(name), now) for name in names}
        until = now + timedelta(seconds=passage.UNKNOWN_SECONDS)
        taking = passages | begun
        if not names or not outbox.claim(self._engine, queued, until, passage.text(taking)):
            return
        outcomes = {name: self._send(name, queued, started) for name, started in begun.items()}
        self._settle(queued, taking, outcomes)
        for name, outcome in outcomes.items():
            self._note(name, outcome)

    def result(self) -> Delivered:
        tally, kept = self._tally, outbox.waiting(self._engine)
        for name, known in self._known.items():
            if kept and known is not None and known.verdict is Verdict.BROKEN:
                tally.troubles.setdefault(name, known.reason)
        return Delivered(dict(tally.sent), tally.notices, kept, tally.doubtful, tally.troubles, tally.news)

    def _send(self, name: str, queued: QueuedNotice, started: Passage) -> Outcome:
        dispatch = Dispatch(queued.id, queued.notice, queued.created_at, started.maybe_duplicate)
        try:
            return self._notifiers[name].send(dispatch)
        except Exception as error:
            _log.exception("notice_send_failed channel=%s notice=%s", name, queued.id)
            return Unknown(f"the {name} notifier failed: {type(error).__name__}")

    def _settle(
        self, queued: QueuedNotice, taking: Mapping[str, Passage], outcomes: Mapping[str, Outcome]
    ) -> None:
        now = self._clock.now()
        ended = {
            name: passage.ended(taking[name], outcome, now, self._chance)
            for name, outcome in outcomes.items()
        }
        passages = {**taking, **ended}
        receipt = passage.text(passages)
        retry_at = passage.next_try(passages, self._notifiers, now)
        if retry_at is not None:
            outbox.failed(self._engine, queued.id, _said(outcomes, passages), retry_at, receipt)
            return
        outbox.delivered(self._engine, queued.id, receipt, now)
        self._tally.notices += 1
        self._tally.doubtful += any(found.maybe_duplicate for found in passages.values())

    def _note(self, name: str, outcome: Outcome) -> None:
        known = self._known[name]
        if isinstance(outcome, Sent):
            self._tally.sent[name] += 1
            if known is not None and known.verdict is Verdict.BROKEN:
                self._change(name, Condition(Verdict.WORKING, "", self._clock.now()))
                self._tally.news.append(f"{name} works again")
            return
        self.open.remove(name)
        self._tally.troubles[name] = _reason(outcome)
        now = self._clock.now()
        if isinstance(outcome, Retry) and outcome.after_seconds:
            until = now + timedelta(seconds=outcome.after_seconds)
            self._change(name, Condition(Verdict.HELD, outcome.reason, now, until))
        elif isinstance(outcome, Broken) and condition.is_news(known, outcome.reason, now):
            self._change(name, Condition(Verdict.BROKEN, outcome.reason, now))
            self._tally.news.append(f"{name} takes no notices, they are kept: {outcome.reason}")

    def _change(self, name: str, changed: Condition) -> None:
        condition.note(self._engine, name, changed)
        self._known[name] = changed


def _said(outcomes: Mapping[str, Outcome], passages: Mapping[str, Passage]) -> str:
    """What the outbox shows as the last error."""
    said = []
    for name, outcome in outcomes.items():
        if not isinstance(outcome, Sent):
            doubt = " (may have arrived)" if passages[name].maybe_duplicate else ""
            said.append(f"{name}: {_reason(outcome)}{doubt}")
    return "; ".join(said) or "waiting for the other channels"


def _reason(outcome: Retry | Broken | Unknown) -> str:
    return f"outcome unknown: {outcome.reason}" if isinstance(outcome, Unknown) else outcome.reason
