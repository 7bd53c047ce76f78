"""Labels meet their answers: late, early, twice, wrong or never, and each counts once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine

from serving.core.clock import ManualClock
from serving.core.labels import Label, LabelValue
from serving.core.model import VersionRef
from serving.core.scored import Scored
from serving.store import labels, telemetry
from serving.store.database import open_engine, upgrade
from serving.store.feedback import FeedbackJournal
from serving.store.inference_log import label_parts, parts, read, read_labels
from serving.store.labels import Joined, Outcome
from serving.telemetry import joiner as joining
from serving.telemetry.columns import Privacy
from serving.telemetry.joiner import Facts, Joiner
from serving.telemetry.label_parts import LabelPartFolder
from serving.telemetry.metrics import Metrics
from tests.logged import DIGITS, Array, counted, inference_log, part_folder

KEPT = timedelta(days=7)
SCORES = np.array([[0.1, 0.9]], np.float32)
CHALLENGER = VersionRef("digits", "3")


@dataclass
class FullDisk:
    """Label parts that cannot be written."""

    told: list[int] = field(default_factory=list)

    def write(self, joined: Sequence[Joined]) -> None:
        self.told.append(len(joined))
        raise OSError(28, "No space left on device")

    def trim(self) -> None:
        pass


class Desk:
    """A log, a journal and a joiner that is turned by hand."""

    def __init__(self, folder: Path, privacy: Privacy | None = None, facts: Facts | None = None) -> None:
        self.folder, self.clock, self.privacy = folder, ManualClock(), privacy
        self.url = f"sqlite:///{folder / 'signalbox.db'}"
        upgrade(self.url)
        self.engine: Engine = open_engine(self.url)
        self.journal = FeedbackJournal(folder / "serving")
        self.facts = facts or Facts()
        self.began = self.clock.now()
        self.start()

    def start(self) -> None:
        """A new joiner, as after a restart."""
        self.metrics = Metrics()
        self.joiner = Joiner(
            self.folder / "log",
            self.journal,
            self.engine,
            LabelPartFolder(self.folder / "log", "w1", self.clock, KEPT),
            lambda ref: self.facts,
            self.metrics,
            self.clock,
            KEPT,
        )

    def answer(
        self,
        request_id: str,
        said: Array = SCORES,
        *,
        ref: VersionRef = DIGITS,
        variant: str = "champion",
        status: str = "ok",
    ) -> None:
        """Log one answered request, on disk at once."""
        folder = part_folder(self.folder / "log", privacy=self.privacy)
        # Every part is written by a worker of its own, so that none takes another's name.
        folder._worker = f"w{len(parts(self.folder / 'log'))}"
        log = inference_log(folder, Metrics(), clock=self.clock)
        log.start()
        inputs: Mapping[str, Array] = {"x": np.zeros((len(said), 2), np.float32)}
        log.record(ref, request_id, variant, status, 0.01, inputs, {"y": said}, True)
        log.close()

    def label(self, request_id: str, label: LabelValue, row: int = 0, model: str | None = None) -> None:
        given = Label(request_id=request_id, row=row, label=label, at=self.clock.now(), model=model)
        self.journal.append([given])

    def turn(self, seconds: float = 20.0) -> None:
        """Long enough for parts to be looked at."""
        self.clock.advance(seconds)
        self.joiner.turn()

    def scored(self, version: str = "2", variant: str | None = None) -> Scored:
        until = self.clock.now() + timedelta(days=1)
        since = self.began - timedelta(minutes=1)
        return telemetry.window(self.engine, "digits", version, variant, since, until).scored

    def outcomes(self) -> dict[str, float]:
        name = "signalbox_feedback_labels_total"
        found = {str(each): counted(self.metrics, name, outcome=each) for each in Outcome}
        return {outcome: count for outcome, count in found.items() if count}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.joiner.close()
    desk.engine.dispose()


def test_label_is_joined_when_it_comes_after_its_answer(desk: Desk) -> None:
    """With the version and variant that gave it, and how late the label was."""
    desk.answer("a")
    desk.clock.advance(3600)
    desk.label("a", 1)
    desk.turn()
    assert (desk.scored().labelled, desk.scored().right) == (1, 1)
    assert desk.scored().delays.quantile(0.5) == pytest.approx(3600, rel=0.01)
    [row] = read_labels(desk.folder / "log", "digits").to_pylist()
    assert (row["request_id"], row["version"], row["variant"], row["label.0"], row["said"]) == (
        "a",
        "2",
        "champion",
        1,
        "1",
    )
    assert desk.outcomes() == {"joined": 1}
    assert desk.journal.waiting() == []


def test_label_waits_when_it_comes_before_its_answer_is_on_disk(desk: Desk) -> None:
    """And is joined when a part brings the answer."""
    desk.label("early", 0)
    desk.turn()
    assert [label.request_id for label in desk.journal.waiting()] == ["early"]
    assert counted(desk.metrics, "signalbox_feedback_waiting_labels") == 1
    desk.answer("other")
    desk.turn()
    desk.answer("early")
    desk.turn()
    assert (desk.scored().labelled, desk.scored().right) == (1, 0)
    assert counted(desk.metrics, "signalbox_feedback_waiting_labels") == 0


def test_rows_of_one_request_are_labelled_apart(desk: Desk) -> None:
    """By their place; one that the request did not have is counted and dropped."""
    desk.answer("a", np.array([[0.9, 0.1], [0.2, 0.8]], np.float32))
    for row, label in ((0, 0), (1, 0), (2, 1)):
        desk.label("a", label, row)
    desk.turn()
    assert (desk.scored().labelled, desk.scored().right) == (2, 1)
    assert desk.outcomes() == {"joined": 2, "no_row": 1}
    assert desk.journal.waiting() == []


def test_last_label_counts_when_there_are_several(desk: Desk) -> None:
    """Before and after the first was joined."""
    desk.answer("a")
    desk.label("a", 0)
    desk.clock.advance(1)
    desk.label("a", 1)
    desk.turn()
    assert (desk.scored().labelled, desk.scored().right) == (1, 1)
    desk.label("a", 0)
    desk.turn()
    assert (desk.scored().labelled, desk.scored().right) == (1, 0)
    assert desk.outcomes() == {"joined": 1, "replaced": 2}
    [row] = read_labels(desk.folder / "log", "digits").to_pylist()
    assert row["label.0"] == 0


def test_shadow_is_labelled_with_the_answer_it_copied(desk: Desk) -> None:
    """Every version that answered the request has its own verdict."""
    desk.answer("a")
    desk.clock.advance(5)
    desk.answer("a", np.array([[0.9, 0.1]], np.float32), ref=CHALLENGER, variant="shadow")
    desk.label("a", 1)
    desk.turn()
    assert (desk.scored("2").right, desk.scored("2").labelled) == (1, 1)
    assert (desk.scored("3", "shadow").right, desk.scored("3", "shadow").labelled) == (0, 1)


def test_label_names_its_model_when_ids_are_shared(desk: Desk) -> None:
    """A pipeline may ask two models under one request id."""
    other = VersionRef("prices", "1")
    desk.answer("a")
    desk.answer("a", np.array([[2.0]], np.float32), ref=other)
    desk.label("a", 3.0, model="prices")
    desk.turn()
    assert desk.scored().labelled == 0
    prices = telemetry.window(desk.engine, "prices", "1", None, desk.began, desk.clock.now())
    assert prices.scored.mae == pytest.approx(1.0)


def test_newest_answer_is_labelled_when_a_caller_asked_twice(desk: Desk) -> None:
    """Under one id: the last answer is the one that was used."""
    desk.answer("a", np.array([[0.9, 0.1]], np.float32))
    desk.clock.advance(1)
    desk.answer("a", np.array([[0.1, 0.9]], np.float32))
    desk.label("a", 1)
    desk.turn()
    assert (desk.scored().labelled, desk.scored().right) == (1, 1)


def test_label_without_a_say_is_counted_and_spoils_nothing(desk: Desk) -> None:
    """Of a request that failed, and of text that nothing names."""
    desk.answer("failed", status="failed")
    desk.answer("text")
    desk.label("failed", 1)
    desk.label("text", "seven")
    desk.turn()
    assert desk.scored().labelled == 0
    assert desk.outcomes() == {"unscorable": 2}


def test_text_labels_are_matched_by_the_names_of_classes(desk: Desk) -> None:
    """As the version's description has them."""
    desk.facts = Facts("classifier", ("zero", "one"))
    desk.answer("a")
    desk.label("a", "one")
    desk.turn()
    assert desk.scored().accuracy == 1.0


@pytest.mark.parametrize(
    ("privacy", "expected"),
    [
        pytest.param(Privacy(hash=("request_id",)), {"joined": 1}, id="hashed id is found"),
        pytest.param(Privacy(hash=("y.*",)), {"unscorable": 1}, id="hashed answer is no answer"),
        pytest.param(Privacy(drop=("y.*",)), {"unscorable": 1}, id="dropped answer"),
        pytest.param(Privacy(drop=("request_id",)), {}, id="dropped id is never found"),
    ],
)
def test_privacy_settings_are_kept_when_joining(
    tmp_path: Path, privacy: Privacy, expected: dict[str, int]
) -> None:
    """What the log does not hold is not guessed."""
    desk = Desk(tmp_path, privacy)
    desk.answer("a")
    desk.label("a", 1)
    desk.turn()
    assert desk.outcomes() == expected
    desk.joiner.close()
    desk.engine.dispose()


def test_unknown_ids_expire_with_the_log(desk: Desk) -> None:
    """Counted; until then they wait."""
    desk.label("nobody", 1)
    desk.turn()
    desk.turn(KEPT.total_seconds() - 60)
    assert len(desk.journal.waiting()) == 1
    desk.turn(600)
    assert desk.journal.waiting() == []
    assert desk.outcomes() == {"expired": 1}


def test_waiting_labels_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes; a caller with made-up ids cannot fill the memory."""
    monkeypatch.setattr(joining, "MAX_WAITING", 3)
    for number in range(5):
        desk.label(f"nobody-{number}", 1)
    desk.turn()
    assert desk.outcomes() == {"expired": 2}
    desk.turn()
    desk.label("nobody-5", 1)
    desk.turn()
    assert [label.request_id for label in desk.journal.waiting()][-1] == "nobody-5"


def test_waiting_labels_are_taken_up_when_the_server_starts_again(desk: Desk) -> None:
    """Also those that were claimed and not yet looked for."""
    desk.label("a", 1)
    desk.turn()
    desk.joiner.close()
    desk.answer("a")
    desk.start()
    desk.turn()
    assert desk.scored().labelled == 1


def test_label_counts_once_when_the_joiner_died_before_it_forgot(desk: Desk) -> None:
    """The store has it, the file still waits: the next joiner finds it repeated."""
    desk.answer("a")
    desk.label("a", 1)
    desk.turn()
    [joined] = labels.recent(desk.engine, "digits")
    desk.joiner.close()
    desk.journal.keep([joined.label])
    desk.start()
    desk.turn()
    assert (desk.scored().labelled, desk.outcomes(), desk.journal.waiting()) == (1, {"repeated": 1}, [])
    assert read_labels(desk.folder / "log", "digits").num_rows == 1


def test_one_worker_joins_at_a_time(desk: Desk) -> None:
    """The other takes over when the first is gone."""
    desk.answer("a")
    desk.label("a", 1)
    first = desk.joiner
    first.turn()
    desk.start()
    desk.turn()
    assert desk.scored().labelled == 0
    first.close()
    desk.turn()
    assert desk.scored().labelled == 1


def test_labels_wait_for_a_store_that_is_away(desk: Desk) -> None:
    """And are found again when it is back, though every part was looked at before."""
    desk.answer("a")
    desk.label("a", 1)
    file = desk.folder / "signalbox.db"
    desk.engine.dispose()
    file.rename(file.with_suffix(".away"))
    desk.turn()
    assert desk.joiner.problem is not None
    assert len(desk.journal.waiting()) == 1
    desk.engine.dispose()
    for name in ("signalbox.db", "signalbox.db-wal", "signalbox.db-shm"):
        (desk.folder / name).unlink(missing_ok=True)
    file.with_suffix(".away").rename(file)
    desk.turn()
    assert (desk.scored().labelled, desk.journal.waiting()) == (1, [])


def test_sums_are_right_when_label_parts_cannot_be_written(desk: Desk) -> None:
    """They are a copy for readers; the store decides."""
    full = FullDisk()
    desk.joiner._label_parts = full
    desk.answer("a")
    desk.label("a", 1)
    desk.turn()
    assert (full.told, desk.scored().labelled, desk.journal.waiting()) == ([1], 1, [])


def test_damaged_part_keeps_no_other_label_from_its_answer(desk: Desk) -> None:
    """It is left out, and said in the log."""
    desk.answer("a")
    [part] = parts(desk.folder / "log")
    desk.answer("b")
    part.path.write_bytes(b"PAR1 no more")
    desk.label("a", 1)
    desk.label("b", 1)
    desk.turn()
    assert desk.scored().labelled == 1
    assert [label.request_id for label in desk.journal.waiting()] == ["a"]


def test_long_search_goes_on_in_the_next_turn(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bounded time each, and new labels wait for its end on disk."""
    for number in range(4):
        desk.answer(f"r{number}")
        desk.clock.advance(1)
    monkeypatch.setattr(joining, "_SEARCH_SECONDS", -1.0)
    desk.label("r0", 1)
    desk.turn()
    desk.turn()
    assert desk.scored().labelled == 0
    monkeypatch.setattr(joining, "_SEARCH_SECONDS", 1.0)
    desk.label("r1", 1)
    desk.turn()
    assert desk.scored().labelled == 1
    desk.turn()
    assert desk.scored().labelled == 2


def test_label_parts_are_typed_and_no_part_of_the_log(desk: Desk) -> None:
    """Numbers stay numbers, text text; the log's readers do not see them."""
    given: list[tuple[LabelValue, Array]] = [
        (1, SCORES),
        (True, SCORES),
        ("1", SCORES),
        (2.5, np.array([[2.0]], np.float32)),
    ]
    for number, (label, said) in enumerate(given):
        desk.answer(f"r{number}", said)
        desk.label(f"r{number}", label)
    desk.turn()
    assert read(desk.folder / "log", "digits").num_rows == len(given)
    assert len(parts(desk.folder / "log")) == len(given)
    written = label_parts(desk.folder / "log", "digits")
    assert len(written) == len(given)
    assert label_parts(desk.folder / "log") == written
    desk.turn(KEPT.total_seconds() + 600)
    assert label_parts(desk.folder / "log") == []


def at(desk: Desk, seconds: float) -> datetime:
    return desk.began + timedelta(seconds=seconds)


def test_labels_are_read_within_a_span(desk: Desk) -> None:
    """By when they came."""
    for number in range(3):
        desk.answer(f"r{number}")
        desk.label(f"r{number}", [1.0, 2.0] if number == 2 else number)
        desk.clock.advance(10)
    desk.facts = Facts("predictor")
    desk.turn()
    found = read_labels(desk.folder / "log", "digits", at(desk, 10), at(desk, 30)).to_pylist()
    assert [row["request_id"] for row in found] == ["r1", "r2"]
    assert found[1]["label.1"] == 2.0
    assert read_labels(desk.folder / "log", "prices").num_rows == 0
