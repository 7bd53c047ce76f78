"""Delivery: each notice once where that can be had, none lost, a broken channel told of once."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import Engine

from flows.alerts import passage
from flows.alerts.delivery import Delivered, deliver
from flows.alerts.notify import Broken, Dispatch, Notifier, Outcome, Retry, Sent, Unknown
from flows.alerts.passage import Stage
from flows.alerts.slack import SlackAccess, SlackBot
from flows.cli.demo.slack_receiver import SlackReceiver, taken_then_silent
from serving.core.clock import ManualClock
from serving.store import outbox
from serving.store.outbox import QueuedNotice
from tests.flows.alerts.notices import NOW, FakeNotifier, enqueue

ROOT = Path(__file__).parents[3]


def run(engine: Engine, clock: ManualClock, *notifiers: Notifier) -> Delivered:
    return deliver(engine, notifiers, clock, Random(7))


def only(engine: Engine) -> QueuedNotice:
    [queued] = outbox.recent(engine)
    return queued


def test_deliver_sends_in_order_and_once_when_all_is_well(engine: Engine, clock: ManualClock) -> None:
    """The receipt is kept with the notice; a second pass has nothing to do."""
    enqueue(engine, "a", "b", "c")
    fake = FakeNotifier()
    done = run(engine, clock, fake)
    assert fake.titles() == ["notice a", "notice b", "notice c"]
    assert (done.sent, done.notices, done.kept) == ({"fake": 3}, 3, 0)
    assert done.sentence() == "delivered 3 (fake 3); no notice waits"
    state = passage.read(outbox.recent(engine)[0].receipt)["fake"]
    assert (state.stage, state.receipt) == (Stage.SENT, {"id": "1"})
    assert run(engine, clock, fake).sentence() == "no notice was waiting"
    assert len(fake.sent) == 3


def test_deliver_keeps_and_comes_back_when_turned_away(engine: Engine, clock: ManualClock) -> None:
    """Backoff between attempts; attempts and the last error are in the outbox."""
    enqueue(engine, "a")
    fake = FakeNotifier([Retry("status 500"), Retry("status 503")])
    assert run(engine, clock, fake).sentence() == "delivered none; kept 1 (fake: status 500)"
    assert run(engine, clock, fake).sentence() == "delivered none; kept 1 for a later pass"
    assert len(fake.sent) == 1
    clock.advance(10)
    run(engine, clock, fake)
    assert (only(engine).attempts, only(engine).last_error) == (2, "fake: status 503")
    clock.advance(20)
    assert run(engine, clock, fake).notices == 1
    assert [dispatch.maybe_duplicate for dispatch in fake.sent] == [False, False, False]


def test_deliver_rests_a_channel_when_it_fails(engine: Engine, clock: ManualClock) -> None:
    """One refusal a pass, not one per waiting notice; the next pass goes on with the next notice."""
    enqueue(engine, "a", "b", "c")
    fake = FakeNotifier([Retry("status 500")])
    run(engine, clock, fake)
    assert fake.titles() == ["notice a"]
    run(engine, clock, fake)
    assert fake.titles() == ["notice a", "notice b", "notice c"]


def test_deliver_waits_as_long_as_told_when_rate_limited(engine: Engine, clock: ManualClock) -> None:
    """Notices that come in between wait too, and other processes know."""
    enqueue(engine, "a", "b")
    fake = FakeNotifier([Retry("rate limit", 90)])
    run(engine, clock, fake)
    clock.advance(89)
    assert run(engine, clock, fake).sentence() == "delivered none; kept 2 (fake: rate limit)"
    assert len(fake.sent) == 1
    clock.advance(1)
    assert run(engine, clock, fake).notices == 2


@pytest.mark.parametrize("failure", [Unknown("no answer"), OSError("lost")])
def test_deliver_marks_the_next_attempt_when_the_outcome_is_unknown(
    engine: Engine, clock: ManualClock, failure: Outcome | Exception
) -> None:
    """Not blindly again: after a delay, and announced as perhaps a duplicate, also after a refusal."""
    enqueue(engine, "a")
    fake = FakeNotifier([failure, Retry("status 500")])
    done = run(engine, clock, fake)
    assert done.troubles["fake"].startswith("outcome unknown: ")
    assert "(may have arrived)" in str(only(engine).last_error)
    clock.advance(119)
    run(engine, clock, fake)
    assert len(fake.sent) == 1
    clock.advance(1)
    run(engine, clock, fake)
    clock.advance(3600)
    assert run(engine, clock, fake).sentence() == (
        "delivered 1 (fake 1), 1 of them maybe twice; no notice waits"
    )
    assert [dispatch.maybe_duplicate for dispatch in fake.sent] == [False, True, True]


def test_deliver_speaks_once_an_hour_when_a_channel_is_broken(engine: Engine, clock: ManualClock) -> None:
    """The outbox is kept, every notice goes out once the settings are right, and that is told too."""
    enqueue(engine, "a", "b")
    broken = Broken("Slack answered invalid_auth")
    fake = FakeNotifier([broken] * 62)
    told: list[int] = []
    for minute in range(62):
        done = run(engine, clock, fake)
        told += [minute] * len(done.news)
        assert done.kept == 2
        assert "invalid_auth" in done.sentence()
        clock.advance(60)
    assert told == [0, 60]
    assert len(fake.sent) == 62
    done = run(engine, clock, fake)
    assert (done.notices, done.news) == (2, ["fake works again"])
    enqueue(engine, "c")
    assert run(engine, clock, fake).news == []


def test_deliver_repeats_why_in_its_message_when_nothing_is_due_yet(
    engine: Engine, clock: ManualClock
) -> None:
    """Silence is for warnings; a run's message always says why something is kept."""
    enqueue(engine, "a")
    fake = FakeNotifier([Broken("invalid_auth")])
    for _ in range(2):
        assert run(engine, clock, fake).sentence() == "delivered none; kept 1 (fake: invalid_auth)"
    assert len(fake.sent) == 1


def test_deliver_is_silent_when_another_has_told_of_the_fault(engine: Engine, clock: ManualClock) -> None:
    """What was said is kept in the store, so it is known to every process."""
    enqueue(engine, "a")
    first, second = FakeNotifier([Broken("token")]), FakeNotifier([Broken("token")])
    assert len(run(engine, clock, first).news) == 1
    clock.advance(60)
    assert run(engine, clock, second).news == []


def test_deliver_leaves_other_channels_alone_when_one_fails(engine: Engine, clock: ManualClock) -> None:
    """A notice that one channel has is not sent there again while the other catches up."""
    enqueue(engine, "a", "b")
    mail, chat = FakeNotifier(name="mail"), FakeNotifier([Broken("token")], name="chat")
    done = run(engine, clock, mail, chat)
    assert (done.sent, done.notices, done.kept) == ({"mail": 2}, 0, 2)
    clock.advance(60)
    assert run(engine, clock, mail, chat).notices == 2
    assert mail.titles() == ["notice a", "notice b"]
    assert chat.titles() == ["notice a", "notice a", "notice b"]


class Rival:
    """A channel during whose send another delivery runs."""

    name = "fake"

    def __init__(self, engine: Engine, clock: ManualClock, inner: Notifier) -> None:
        self._engine = engine
        self._clock = clock
        self._inner = inner

    def send(self, dispatch: Dispatch) -> Outcome:
        run(self._engine, self._clock, self._inner)
        return self._inner.send(dispatch)


def test_deliver_sends_each_once_when_two_deliveries_run(engine: Engine, clock: ManualClock) -> None:
    """What one has claimed the other leaves alone."""
    enqueue(engine, "a", "b", "c")
    fake = FakeNotifier()
    run(engine, clock, Rival(engine, clock, fake))
    assert sorted(fake.titles()) == ["notice a", "notice b", "notice c"]
    assert outbox.waiting(engine) == 0


def test_claim_fails_when_the_notice_was_claimed_or_delivered(engine: Engine, clock: ManualClock) -> None:
    """Decided by the store, not by what was read before."""
    enqueue(engine, "a")
    queued = only(engine)
    until = NOW + timedelta(seconds=120)
    assert outbox.claim(engine, queued, until, "{}")
    assert not outbox.claim(engine, queued, until, "{}")
    claimed = only(engine)
    assert (claimed.next_try_at, claimed.attempts) == (until, 0)
    outbox.delivered(engine, queued.id, "{}", NOW)
    assert not outbox.claim(engine, claimed, until + timedelta(seconds=1), "{}")
    assert outbox.waiting(engine) == 0


class SlowNotifier:
    """Every send takes 20 seconds of the clock."""

    name = "slow"

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    def send(self, dispatch: Dispatch) -> Outcome:
        self._clock.advance(20)
        return Sent()


def test_deliver_ends_in_time_when_sends_are_slow(engine: Engine, clock: ManualClock) -> None:
    """A pass fits into the minute between two runs; the rest waits for the next."""
    enqueue(engine, "a", "b", "c", "d", "e")
    done = run(engine, clock, SlowNotifier(clock))
    assert done.sentence() == "delivered 3 (slow 3); kept 2 for a later pass"


def test_deliver_ignores_a_receipt_when_it_is_not_ours(engine: Engine, clock: ManualClock) -> None:
    """A foreign receipt counts as never tried."""
    enqueue(engine, "a")
    outbox.failed(engine, only(engine).id, "?", NOW, "not json")
    assert run(engine, clock, FakeNotifier()).notices == 1


def test_slack_shows_each_notice_when_delivered(
    engine: Engine, clock: ManualClock, slack: SlackReceiver, bot_access: SlackAccess
) -> None:
    """Outbox to channel through the real SDK, with what is needed to edit each message."""
    enqueue(engine, "a", "b")
    assert run(engine, clock, SlackBot(bot_access)).sentence() == "delivered 2 (slack 2); no notice waits"
    assert [posted.blocks[1]["text"]["text"] for posted in slack.messages] == ["notice a", "notice b"]
    receipts = [passage.read(queued.receipt)["slack"].receipt for queued in outbox.recent(engine)]
    assert receipts == [{"channel": slack.channel, "ts": posted.ts} for posted in slack.messages]


def wait_dead(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(10)


CHILD = """
import sys
from flows.alerts.delivery import deliver
from flows.alerts.slack import SlackAccess, SlackBot
from serving.core.clock import SystemClock
from serving.store.database import open_engine
url, token, channel, api_url = sys.argv[1:]
bot = SlackBot(SlackAccess(bot_token=token, channel=channel, api_url=api_url, timeout_seconds=60))
deliver(open_engine(url), [bot], SystemClock())
"""


def child(arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", CHILD, *arguments], cwd=ROOT)


@pytest.mark.integration
def test_notice_is_delivered_when_the_sender_was_killed(
    engine: Engine, store_url: str, slack: SlackReceiver, bot_access: SlackAccess
) -> None:
    """Killed after Slack took it and before that was known: sent again, as perhaps a duplicate."""
    started_at = datetime.now(UTC)
    enqueue(engine, "a", now=started_at)
    slack.mishaps.append(taken_then_silent())
    process = child([store_url, slack.token, slack.channel, slack.api_url])
    try:
        assert slack.wait_for(1, 30)
    finally:
        wait_dead(process)
    enqueue(engine, "b", now=started_at)
    clock = ManualClock(wall=datetime.now(UTC))
    assert (
        run(engine, clock, SlackBot(bot_access)).sentence()
        == "delivered 1 (slack 1); kept 1 for a later pass"
    )
    clock.advance(120)
    run(engine, clock, SlackBot(bot_access))
    assert [posted.text.removeprefix(":rewind: ") for posted in slack.messages] == [
        "notice a",
        "notice b",
        "notice a (maybe a duplicate)",
    ]
