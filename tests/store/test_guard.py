"""The guarded alias write: every end it can come to, and what is on record afterwards."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from serving.core.clock import ManualClock
from serving.core.errors import ChangeRefused
from serving.core.traffic import Split, write_tag
from serving.store import audit, changes
from serving.store.changes import ChangeIntent, Outcome
from serving.store.guard import Guard, TrafficWish, Verdict, Wish
from serving.store.leases import Leases
from serving.store.registry import Registry, connect
from serving.store.settings import StoreSettings
from tests.mlflow_double import Fault, MlflowDouble

BACK = Wish("digits", "champion", "1", "ann", "it fails", frozenset({"2"}))
MINE = "serving:here:1"


@pytest.fixture
def double(tmp_path: Path) -> Iterator[MlflowDouble]:
    with MlflowDouble() as double:
        double.add("digits", tmp_path, tmp_path, tmp_path)
        double.point("digits", "2")
        yield double


@pytest.fixture
def leases(engine: Engine, clock: ManualClock) -> Leases:
    return Leases(engine, clock)


@pytest.fixture
def registry(double: MlflowDouble, tmp_path: Path) -> Iterator[Registry]:
    with connect(StoreSettings(home=tmp_path, mlflow_url=double.url)) as client:
        yield Registry(client, serves=lambda name: True)


@pytest.fixture
def guard(registry: Registry, engine: Engine, leases: Leases) -> Guard:
    return Guard(registry, engine, leases)


def outcomes(engine: Engine) -> list[Outcome | None]:
    return [change.outcome for change in reversed(changes.recent(engine, "digits"))]


def writes(double: MlflowDouble) -> list[str]:
    return [call for call in double.seen if not call.startswith("GET")]


def test_move_is_applied_and_on_record_when_nothing_is_in_the_way(
    guard: Guard, double: MlflowDouble, engine: Engine
) -> None:
    """Intent before, outcome after, both in the audit trail under the actor's name."""
    with guard.holding("digits", MINE) as lease:
        move = guard.move(BACK, lease)
    assert (move.verdict, move.seen, move.is_settled) == (Verdict.APPLIED, "1", True)
    assert double.named("digits") == "1"
    [change] = changes.recent(engine, "digits")
    assert (change.from_version, change.to_version, change.outcome) == ("2", "1", Outcome.APPLIED)
    assert [(row.entry.actor, row.entry.details["step"]) for row in audit.tail(engine, action="alias")] == [
        ("ann", "intent"),
        ("ann", "outcome"),
    ]


def test_move_deletes_the_alias_when_nothing_shall_be_named(guard: Guard, double: MlflowDouble) -> None:
    """To None: the alias goes."""
    with guard.holding("digits", MINE) as lease:
        assert guard.move(replace(BACK, to_version=None), lease).verdict is Verdict.APPLIED
    assert double.named("digits") is None


def test_traffic_tag_is_written_and_deleted_on_record(
    guard: Guard, double: MlflowDouble, engine: Engine
) -> None:
    """As an alias is; the audit trail calls it traffic."""
    text = write_tag(Split("3", 25, "r-1"))
    with guard.holding("digits", MINE) as lease:
        assert guard.move(TrafficWish("digits", text, "ann", "stage 2"), lease).verdict is Verdict.APPLIED
        assert double.models["digits"].tags == {"signalbox.traffic": text}
        assert guard.move(TrafficWish("digits", text, "ann", "again"), lease).verdict is Verdict.ALREADY
        done = guard.move(TrafficWish("digits", None, "ann", "end", frozenset({text})), lease)
    assert (done.verdict, done.seen) == (Verdict.APPLIED, None)
    assert double.models["digits"].tags == {}
    rows = [(row.alias, row.from_version, row.to_version) for row in changes.recent(engine, "digits")]
    assert rows == [("signalbox.traffic", text, None), ("signalbox.traffic", None, text)]
    details = [row.entry.details["step"] for row in audit.tail(engine, action="traffic")]
    assert details == ["intent", "outcome"] * 2
    assert audit.tail(engine, action="alias") == []


def test_traffic_tag_stays_when_somebody_wrote_another_meanwhile(guard: Guard, double: MlflowDouble) -> None:
    """The hand's choice wins, as with aliases; what cannot be written is a verdict."""
    double.models["digits"].tags["signalbox.traffic"] = "theirs"
    wish = TrafficWish("digits", None, "ann", "end", frozenset({"ours"}))
    with guard.holding("digits", MINE) as lease:
        assert guard.move(wish, lease).verdict is Verdict.SUPERSEDED
        double.fault = Fault(500, where="tag")
        failed = guard.move(replace(wish, only_from=None), lease)
    assert (failed.verdict, failed.seen) == (Verdict.FAILED, "theirs")


def test_traffic_tag_of_an_environment_has_its_prefix(
    double: MlflowDouble, engine: Engine, leases: Leases, tmp_path: Path
) -> None:
    """Dev, staging and production share one registry."""
    with connect(StoreSettings(home=tmp_path, mlflow_url=double.url)) as client:
        guard = Guard(Registry(client, lambda name: True, "prod"), engine, leases)
        with guard.holding("digits", MINE) as lease:
            assert guard.move(TrafficWish("digits", "x", "ann", "y"), lease).verdict is Verdict.APPLIED
    assert double.models["digits"].tags == {"prod-signalbox.traffic": "x"}


def test_move_is_already_done_when_the_registry_names_it(
    guard: Guard, double: MlflowDouble, engine: Engine
) -> None:
    """No write, no record: nothing was changed."""
    double.point("digits", "1")
    with guard.holding("digits", MINE) as lease:
        move = guard.move(BACK, lease)
    assert (move.verdict, move.is_settled) == (Verdict.ALREADY, True)
    assert writes(double) == []
    assert outcomes(engine) == []


@pytest.mark.parametrize("named", ["3", None])
def test_move_is_superseded_when_a_hand_chose_otherwise(
    guard: Guard, double: MlflowDouble, engine: Engine, named: str | None
) -> None:
    """The hand's choice wins, a deletion too."""
    double.point("digits", named)
    with guard.holding("digits", MINE) as lease:
        move = guard.move(BACK, lease)
    assert (move.verdict, move.seen, move.is_settled) == (Verdict.SUPERSEDED, named, True)
    assert writes(double) == []
    assert outcomes(engine) == []


def test_move_goes_from_anywhere_when_no_origin_is_asked(guard: Guard, double: MlflowDouble) -> None:
    """The copy of `previous` is simply kept right."""
    double.point("digits", "3")
    with guard.holding("digits", MINE) as lease:
        assert guard.move(replace(BACK, only_from=None), lease).verdict is Verdict.APPLIED


def test_move_fails_without_a_write_when_the_registry_cannot_be_read(
    guard: Guard, double: MlflowDouble, engine: Engine
) -> None:
    """Nothing was tried, so nothing is on record; another try may help."""
    double.fault = Fault(500)
    with guard.holding("digits", MINE) as lease:
        move = guard.move(BACK, lease)
    assert (move.verdict, move.seen, move.is_settled) == (Verdict.FAILED, None, False)
    assert outcomes(engine) == []


@pytest.mark.parametrize(
    ("fault", "wish"),
    [
        pytest.param(Fault(500, where="registered-models/alias"), BACK, id="write-refused"),
        pytest.param(None, replace(BACK, to_version="9"), id="version-gone"),
    ],
)
def test_move_fails_when_the_write_did_not_change_anything(
    guard: Guard, double: MlflowDouble, engine: Engine, fault: Fault | None, wish: Wish
) -> None:
    """Told by reading back, not by the write's answer."""
    double.fault = fault
    with guard.holding("digits", MINE) as lease:
        move = guard.move(wish, lease)
    assert (move.verdict, move.seen, move.is_settled) == (Verdict.FAILED, "2", False)
    assert outcomes(engine) == [Outcome.FAILED]


def test_move_is_superseded_when_reading_back_shows_a_third_version(
    guard: Guard, double: MlflowDouble, engine: Engine
) -> None:
    """A hand was quicker than the read."""
    double.fault = Fault(500, where="registered-models/alias")
    with guard.holding("digits", MINE) as lease:
        move = guard.move(replace(BACK, reason="first"), lease)
        assert move.verdict is Verdict.FAILED
        double.fault = None

        def hand() -> None:
            double.point("digits", "3")
            double.fault = Fault(404, where="registered-models/alias")

        double.before_write = hand
        double.models["digits"].versions.pop("1")
        move = guard.move(replace(BACK, to_version="1"), lease)
    assert (move.verdict, move.seen) == (Verdict.SUPERSEDED, "3")
    assert outcomes(engine) == [Outcome.FAILED, Outcome.SUPERSEDED]


def break_after_write(double: MlflowDouble) -> None:
    """The write arrives, and from then on the registry does not answer."""

    def fail() -> None:
        double.fault = Fault(500)

    double.before_write = fail


def test_move_is_unknown_when_it_cannot_be_read_back(
    guard: Guard, double: MlflowDouble, engine: Engine
) -> None:
    """The intent stays open: nobody may claim to know."""
    break_after_write(double)
    with guard.holding("digits", MINE) as lease:
        move = guard.move(BACK, lease)
    assert (move.verdict, move.seen, move.is_settled) == (Verdict.UNKNOWN, None, False)
    assert outcomes(engine) == [None]
    assert double.named("digits") == "1"


def test_next_move_settles_an_open_intent_by_reading_when_the_first_was_applied(
    guard: Guard, double: MlflowDouble, engine: Engine
) -> None:
    """What came of it is read from the registry; the second try then has nothing to do."""
    break_after_write(double)
    with guard.holding("digits", MINE) as lease:
        guard.move(BACK, lease)
    double.fault = double.before_write = None
    with guard.holding("digits", MINE) as lease:
        assert guard.move(BACK, lease).verdict is Verdict.ALREADY
    assert outcomes(engine) == [Outcome.APPLIED]


def test_next_move_gives_up_an_open_intent_when_the_registry_names_another(
    guard: Guard, engine: Engine, leases: Leases
) -> None:
    """A process died between its intent and its write."""
    lease = leases.preempt("model:digits", "dead")
    changes.intend(engine, ChangeIntent("digits", "champion", "2", "3", lease.epoch, "dead", "x"), lease)
    with guard.holding("digits", MINE, preempt=True) as mine:
        assert guard.move(BACK, mine).verdict is Verdict.APPLIED
    assert outcomes(engine) == [Outcome.ABANDONED, Outcome.APPLIED]


@contextmanager
def write_under_way(
    double: MlflowDouble, engine: Engine, leases: Leases, registry: Registry
) -> Iterator[None]:
    """A process that dies with its write to 3 on the way, which arrives at the end of the block."""
    sent, arrives = threading.Event(), threading.Event()

    def delayed() -> None:
        double.before_write = None
        sent.set()
        arrives.wait(4)

    lease = leases.preempt("model:digits", "dead")
    changes.intend(engine, ChangeIntent("digits", "champion", "2", "3", lease.epoch, "dead", "x"), lease)
    double.before_write = delayed
    writer = threading.Thread(target=registry.set_alias, args=("digits", "champion", "3"))
    writer.start()
    assert sent.wait(4)
    yield
    arrives.set()
    writer.join()
    assert double.named("digits") == "3"


@pytest.mark.fault("F9")
@pytest.mark.parametrize(("seconds", "is_stale"), [(0, True), (59.9, True), (60.1, False)])
def test_late_write_of_a_dead_process_is_put_right_within_a_minute_of_the_take_over(
    guard: Guard,
    double: MlflowDouble,
    engine: Engine,
    leases: Leases,
    registry: Registry,
    clock: ManualClock,
    seconds: float,
    is_stale: bool,
) -> None:
    """Later it is a hand's choice."""
    with write_under_way(double, engine, leases, registry):
        with guard.holding("digits", MINE, preempt=True) as mine:
            assert guard.move(BACK, mine).verdict is Verdict.APPLIED
        clock.advance(seconds)
    assert (guard.late_write("digits", "champion", "3") is not None) is is_stale
    with guard.holding("digits", MINE) as lease:
        move = guard.put_right("digits", "champion", lease)
    if not is_stale:
        assert (move, double.named("digits")) == (None, "3")
        return
    assert (move is not None and move.verdict, double.named("digits")) == (Verdict.APPLIED, "1")
    assert outcomes(engine) == [Outcome.SUPERSEDED, Outcome.APPLIED, Outcome.APPLIED]
    written, late = audit.tail(engine, action="alias")[-2:]
    assert "it came after the take-over" in str(late.entry.details["evidence"])
    assert (written.entry.actor, late.entry.details["step"]) == (MINE, "late")
    assert "stale write of change 1 by dead put right" in changes.recent(engine, "digits")[0].reason


@pytest.mark.fault("F9")
@pytest.mark.parametrize(
    ("to_version", "verdict", "named"),
    [("1", Verdict.ALREADY, "1"), ("2", Verdict.APPLIED, "2"), ("3", Verdict.APPLIED, "3")],
)
def test_move_goes_from_what_was_there_before_a_late_write(
    guard: Guard,
    double: MlflowDouble,
    engine: Engine,
    leases: Leases,
    registry: Registry,
    to_version: str,
    verdict: Verdict,
    named: str,
) -> None:
    """Put right on the way; where it is what is wanted, it is recorded as the wish's own."""
    with (
        write_under_way(double, engine, leases, registry),
        guard.holding("digits", MINE, preempt=True) as mine,
    ):
        guard.move(BACK, mine)
    with guard.holding("digits", MINE) as lease:
        move = guard.move(Wish("digits", "champion", to_version, "ann", "x", frozenset({"1"})), lease)
    assert (move.verdict, double.named("digits")) == (verdict, named)
    latest = changes.latest(engine, "digits", "champion")
    assert (latest.to_version if latest else None) == named
    assert guard.late_write("digits", "champion", named) is None


@pytest.mark.fault("F9")
@pytest.mark.parametrize("choice", ["3", None])
@pytest.mark.parametrize("has_lease", [True, False])
def test_late_write_is_put_right_when_others_went_on_meanwhile(
    guard: Guard, double: MlflowDouble, engine: Engine, leases: Leases, choice: str | None, has_lease: bool
) -> None:
    """A run that stood still between its intent and its write: the hand's choice, on record, comes back."""

    def go_on() -> None:
        double.before_write = None
        double.point("digits", choice)
        if not has_lease:
            leases.preempt("model:digits", "another")
        latest = changes.latest(engine, "digits", "champion")
        follows_id = latest.id if latest else 0
        changes.record_out_of_band(engine, "digits", "champion", "2", choice, follows_id, None)

    with guard.holding("digits", MINE) as lease:
        double.before_write = go_on
        move = guard.move(BACK, lease)
    assert (move.verdict, move.seen, move.is_settled) == (Verdict.SUPERSEDED, choice, True)
    assert double.named("digits") == choice
    assert outcomes(engine) == [Outcome.SUPERSEDED, Outcome.APPLIED]
    steps = [row.entry.details["step"] for row in audit.tail(engine, action="alias")]
    assert steps == ["intent", "observed", "late"]


@pytest.mark.fault("F9")
def test_late_write_is_told_when_the_hands_choice_is_gone_by_then(
    guard: Guard, double: MlflowDouble, engine: Engine
) -> None:
    """Not settled: whoever looks next decides."""

    def go_on() -> None:
        double.before_write = None
        changes.record_out_of_band(engine, "digits", "champion", "2", "3", 0, None)
        del double.models["digits"].versions["3"]

    with guard.holding("digits", MINE) as lease:
        double.before_write = go_on
        move = guard.move(BACK, lease)
    assert (move.verdict, move.is_settled) == (Verdict.UNKNOWN, False)
    assert "could not be put back" in move.reason


def test_holding_is_refused_naming_the_holder_when_another_has_the_lease(
    guard: Guard, leases: Leases
) -> None:
    """Who wants to know asks the holder."""
    leases.acquire("model:digits", "flow:promote")
    with (
        pytest.raises(ChangeRefused, match="being changed by flow:promote") as refusal,
        guard.holding("digits", MINE),
    ):
        pass
    assert refusal.value.holder == "flow:promote"


def test_holding_takes_the_lease_from_anybody_when_it_preempts(
    guard: Guard, leases: Leases, double: MlflowDouble
) -> None:
    """A rollback does not wait for a promotion, whose next write is then refused."""
    with (
        guard.holding("digits", "flow:promote") as theirs,
        guard.holding("digits", MINE, preempt=True) as lease,
    ):
        assert lease.epoch == theirs.epoch + 1
        with pytest.raises(ChangeRefused, match=f"now held by '{MINE}'"):
            guard.move(replace(BACK, to_version="3"), theirs)
        assert guard.move(BACK, lease).verdict is Verdict.APPLIED
    assert double.named("digits") == "1"


def test_holding_frees_the_lease_when_the_block_raises(guard: Guard) -> None:
    """The next holder does not wait for a take-over."""
    with pytest.raises(RuntimeError), guard.holding("digits", MINE):
        raise RuntimeError
    with guard.holding("digits", "other") as lease:
        assert lease.holder == "other"


@pytest.mark.parametrize(
    ("seconds", "beats"), [pytest.param(20.0, 0, id="enough"), pytest.param(20.1, 1, id="too-little")]
)
def test_move_renews_the_lease_when_less_than_ten_seconds_are_left(
    guard: Guard, leases: Leases, clock: ManualClock, seconds: float, beats: int
) -> None:
    """A write and its reading back must fit into what is left."""
    with guard.holding("digits", MINE) as lease:
        clock.advance(seconds)
        assert guard.move(BACK, lease).verdict is Verdict.APPLIED
        renewed = leases.renew(lease)
    assert getattr(renewed, "beat", None) == beats + 1


def test_move_is_lost_without_a_write_when_the_lease_ran_out_and_was_taken(
    guard: Guard, leases: Leases, clock: ManualClock, double: MlflowDouble
) -> None:
    """Somebody took over: what we meant may be wrong by now."""
    with guard.holding("digits", MINE) as lease:
        clock.advance(25)
        leases.preempt("model:digits", "other")
        move = guard.move(BACK, lease)
    assert (move.verdict, move.is_settled) == (Verdict.LEASE_LOST, False)
    assert writes(double) == []
