"""The outbox: a notice exists exactly when its fact does, and one per key waits."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from serving.store import outbox
from serving.store.database import writing
from serving.store.outbox import Notice, Severity

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOTICE = Notice(
    kind="rolled_back",
    severity=Severity.CRITICAL,
    title="digits was rolled back",
    model="digits",
    version="4",
    facts={"to": "2", "errors": [1, None]},
    dedup_key="digits:4",
)


def enqueue(engine: Engine, *notices: Notice) -> None:
    with writing(engine) as connection:
        for notice in notices:
            outbox.enqueue(connection, notice, NOW)


def test_enqueue_queues_the_whole_notice_when_it_is_new(engine: Engine) -> None:
    """Due at once, never tried."""
    enqueue(engine, NOTICE)
    [queued] = outbox.pending(engine, NOW)
    assert queued.notice == NOTICE
    assert (queued.created_at, queued.next_try_at, queued.attempts) == (NOW, NOW, 0)
    assert (queued.last_error, queued.delivered_at, queued.receipt) == (None, None, None)


def test_enqueue_queues_nothing_when_the_transaction_fails(engine: Engine) -> None:
    """No notice of what did not happen."""

    def fail_after_enqueue() -> None:
        with writing(engine) as connection:
            outbox.enqueue(connection, NOTICE, NOW)
            raise LookupError

    with pytest.raises(LookupError):
        fail_after_enqueue()
    assert outbox.recent(engine) == []


def test_enqueue_ignores_a_second_when_one_with_its_key_waits(engine: Engine) -> None:
    """Until that is delivered: then the fact is news again."""
    enqueue(engine, NOTICE, replace(NOTICE, title="again"), replace(NOTICE, dedup_key="other"))
    assert [queued.notice.dedup_key for queued in outbox.recent(engine)] == ["digits:4", "other"]
    outbox.delivered(engine, outbox.recent(engine)[0].id, "receipt", NOW)
    enqueue(engine, NOTICE)
    assert [queued.notice.dedup_key for queued in outbox.recent(engine)] == ["digits:4", "other", "digits:4"]


def test_delivered_keeps_the_first_receipt_when_called_twice(engine: Engine) -> None:
    """Delivery is noted once."""
    enqueue(engine, NOTICE)
    [queued] = outbox.pending(engine, NOW)
    outbox.delivered(engine, queued.id, "first", NOW)
    outbox.delivered(engine, queued.id, "second", NOW + timedelta(seconds=1))
    outbox.failed(engine, queued.id, "too late", NOW)
    [found] = outbox.recent(engine)
    assert (found.receipt, found.delivered_at, found.attempts) == ("first", NOW, 1)
    assert outbox.pending(engine, NOW) == []


@pytest.mark.parametrize(("seconds", "due"), [(59, False), (60, True)])
def test_failed_postpones_when_there_is_a_time_to_retry(engine: Engine, seconds: int, due: bool) -> None:
    """The error is kept and the notice comes back in time."""
    enqueue(engine, NOTICE)
    outbox.failed(engine, outbox.recent(engine)[0].id, "timed out", NOW + timedelta(seconds=60))
    assert bool(outbox.pending(engine, NOW + timedelta(seconds=seconds))) is due
    [found] = outbox.recent(engine)
    assert (found.last_error, found.attempts) == ("timed out", 1)


def test_pending_gives_the_oldest_when_limited(engine: Engine) -> None:
    """Delivery is in order; `recent` shows the newest."""
    enqueue(engine, *(replace(NOTICE, dedup_key=str(number)) for number in range(4)))
    assert [queued.notice.dedup_key for queued in outbox.pending(engine, NOW, 2)] == ["0", "1"]
    assert [queued.notice.dedup_key for queued in outbox.recent(engine, 2)] == ["2", "3"]
