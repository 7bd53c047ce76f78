"""A change is applied once every live worker proved it since the write."""

from datetime import UTC, datetime, timedelta

import pytest

from flows.rollout.verify import Verdict, applied, split_applied, withdrawn
from serving.core.traffic import Split
from serving.store.workers import Beat, Proof, WorkerModel

WRITTEN = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def beat(
    worker: str = "a",
    *,
    champion: str | None = "2",
    proven_at: datetime | None = WRITTEN,
    refused: dict[str, str] | None = None,
    beat_at: datetime = WRITTEN,
) -> Beat:
    proof = Proof("2", "d" * 64, proven_at) if proven_at is not None else None
    model = WorkerModel(champion, proof, refused or {})
    return Beat(worker, "http://127.0.0.1:8080", WRITTEN, beat_at, {"digits": model})


STRANGER = Beat("c", "http://127.0.0.1:8082", WRITTEN, WRITTEN, {})


@pytest.mark.parametrize(
    ("beats", "expected"),
    [
        pytest.param([], Verdict.NO_WORKERS, id="nobody"),
        pytest.param([beat()], Verdict.APPLIED, id="proven at the moment of the write"),
        pytest.param([beat(proven_at=WRITTEN - TICK)], Verdict.WAITING, id="proven before the write"),
        pytest.param([beat(proven_at=None)], Verdict.WAITING, id="never proven"),
        pytest.param([beat(champion="1")], Verdict.WAITING, id="answers with the old one"),
        pytest.param([beat(champion=None)], Verdict.WAITING, id="answers with nothing"),
        pytest.param([beat(), beat("b", champion="1")], Verdict.WAITING, id="one of two lags"),
        pytest.param([beat(), STRANGER], Verdict.WAITING, id="one does not know the model"),
        pytest.param([beat(), beat("b", refused={"2": "broken"})], Verdict.REFUSED, id="one of two refuses"),
        pytest.param(
            [beat(champion="1", refused={"2": "broken"}, beat_at=WRITTEN - TICK)],
            Verdict.WAITING,
            id="refused before the write",
        ),
        pytest.param([beat(refused={"3": "broken"})], Verdict.APPLIED, id="another version was refused"),
        pytest.param(
            [beat("a", champion="1"), beat("b", refused={"2": "broken"})], Verdict.REFUSED, id="worst wins"
        ),
    ],
)
def test_applied(beats: list[Beat], expected: Verdict) -> None:
    """Both sides of every boundary."""
    assert applied(beats, "digits", "2", WRITTEN).verdict is expected


def test_applied_names_every_worker_and_what_it_said() -> None:
    seen = applied([beat("a"), beat("b", refused={"2": "wrong shape"})], "digits", "2", WRITTEN)
    assert "a: answered a probe" in str(seen)
    assert "b: refused version 2: wrong shape" in str(seen)


QUARTER = Split("3", 25, "r-1")


def split_beat(
    worker: str = "a",
    *,
    challenger: str | None = "3",
    percent: int = 25,
    rollout: str | None = "r-1",
    proven_at: datetime | None = WRITTEN,
    refused: dict[str, str] | None = None,
    beat_at: datetime = WRITTEN,
) -> Beat:
    model = WorkerModel(
        "2",
        None,
        {},
        challenger,
        percent,
        rollout,
        Proof("3", "d" * 64, proven_at) if proven_at is not None else None,
        refused or {},
    )
    return Beat(worker, "http://127.0.0.1:8080", WRITTEN, beat_at, {"digits": model})


@pytest.mark.parametrize(
    ("beats", "expected"),
    [
        pytest.param([], Verdict.NO_WORKERS, id="nobody"),
        pytest.param([split_beat()], Verdict.APPLIED, id="proven at the moment of the write"),
        pytest.param([split_beat(proven_at=WRITTEN - TICK)], Verdict.WAITING, id="proven before the write"),
        pytest.param([split_beat(proven_at=None)], Verdict.WAITING, id="never proven"),
        pytest.param([split_beat(percent=5)], Verdict.WAITING, id="at the stage before"),
        pytest.param([split_beat(rollout="r-0")], Verdict.WAITING, id="of another rollout"),
        pytest.param([split_beat(challenger="4")], Verdict.WAITING, id="of another challenger"),
        pytest.param([split_beat(challenger=None, percent=0)], Verdict.WAITING, id="no challenger yet"),
        pytest.param([split_beat(), STRANGER], Verdict.WAITING, id="one does not know the model"),
        pytest.param([split_beat(), split_beat("b", percent=5)], Verdict.WAITING, id="one of two lags"),
        pytest.param([split_beat(refused={"3": "broken"})], Verdict.REFUSED, id="refused"),
        pytest.param(
            [split_beat(challenger=None, refused={"3": "broken"}, beat_at=WRITTEN - TICK)],
            Verdict.WAITING,
            id="refused before the write",
        ),
        pytest.param([split_beat(refused={"4": "broken"})], Verdict.APPLIED, id="another was refused"),
    ],
)
def test_split_applied(beats: list[Beat], expected: Verdict) -> None:
    """Percent, challenger and rollout as written, and a probe of the challenger since."""
    assert split_applied(beats, "digits", QUARTER, WRITTEN).verdict is expected


SHADOW = Split("3", 0, "r-1")


@pytest.mark.parametrize(
    ("beats", "is_gone"),
    [
        pytest.param([], True, id="nobody"),
        pytest.param([split_beat()], False, id="still splits"),
        pytest.param([split_beat(percent=0)], False, id="still copies"),
        pytest.param([split_beat(challenger=None, percent=0, rollout=None)], True, id="no split"),
        pytest.param([split_beat(rollout="r-2")], True, id="splits for another"),
        pytest.param([split_beat(rollout="r-2"), split_beat("b")], False, id="one"),
    ],
)
def test_split_is_withdrawn_when_nobody_splits_or_copies(beats: list[Beat], is_gone: bool) -> None:
    assert withdrawn(beats, "digits", "r-1") is is_gone


def test_shadow_stage_is_applied_when_the_challenger_answered_a_probe() -> None:
    """At 0 percent too it must be loaded and proven, or copies would tell nothing."""
    assert split_applied([split_beat(percent=0)], "digits", SHADOW, WRITTEN).verdict is Verdict.APPLIED
    unproven = [split_beat(percent=0, proven_at=None)]
    assert split_applied(unproven, "digits", SHADOW, WRITTEN).verdict is Verdict.WAITING
