"""How far a notice came: stages, times of the next try, and doubt that is never lost."""

from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.alerts import passage
from flows.alerts.notify import Broken, Outcome, Retry, Sent, Unknown
from flows.alerts.passage import Passage, Stage
from tests.flows.alerts.notices import NOW


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


@pytest.mark.parametrize(
    ("outcome", "stage", "at_least", "at_most"),
    [
        pytest.param(Retry("500"), Stage.FAILED, 5, 10, id="backoff of the first attempt"),
        pytest.param(Retry("429", 90), Stage.FAILED, 90, 90, id="the channel's own time"),
        pytest.param(Retry("429", 1), Stage.FAILED, 5, 10, id="backoff outlasts the channel's time"),
        pytest.param(Broken("token"), Stage.FAILED, 60, 60, id="broken"),
        pytest.param(Unknown("timeout"), Stage.UNKNOWN, 120, 120, id="unknown"),
    ],
)
def test_ended_says_when_to_try_again_when_not_sent(
    outcome: Outcome, stage: Stage, at_least: float, at_most: float
) -> None:
    """Each outcome has its own wait."""
    found = passage.ended(passage.begun(None, NOW), outcome, NOW, Random(7))
    assert found.stage is stage
    assert found.retry_at is not None
    assert seconds(at_least) <= found.retry_at - NOW <= seconds(at_most)


def test_ended_keeps_the_receipt_when_sent() -> None:
    """Nothing more is to be tried, and the message can be found again."""
    found = passage.ended(passage.begun(None, NOW), Sent({"ts": "1.2"}), NOW, Random(7))
    assert found == Passage(Stage.SENT, 1, None, False, {"ts": "1.2"})


@pytest.mark.parametrize(
    ("before", "doubtful"),
    [
        pytest.param(None, False, id="never tried"),
        pytest.param(Passage(Stage.FAILED), False, id="turned away"),
        pytest.param(Passage(Stage.SENDING), True, id="sender died"),
        pytest.param(Passage(Stage.UNKNOWN), True, id="no answer"),
        pytest.param(Passage(Stage.FAILED, maybe_duplicate=True), True, id="no answer, then turned away"),
    ],
)
def test_begun_remembers_doubt_when_an_attempt_may_have_arrived(
    before: Passage | None, doubtful: bool
) -> None:
    """A second message is announced as one that may repeat the first."""
    assert passage.begun(before, NOW).maybe_duplicate is doubtful


@pytest.mark.parametrize(
    ("state", "due"),
    [
        pytest.param(None, True, id="never tried"),
        pytest.param(Passage(Stage.SENT), False, id="has it"),
        pytest.param(Passage(Stage.FAILED, retry_at=NOW), True, id="time has come"),
        pytest.param(Passage(Stage.FAILED, retry_at=NOW + seconds(1)), False, id="not yet"),
        pytest.param(Passage(Stage.UNKNOWN, retry_at=NOW + seconds(1)), False, id="doubtful, not yet"),
    ],
)
def test_due_names_the_channel_when_it_lacks_the_notice(state: Passage | None, due: bool) -> None:
    """Only channels that lack it, and only in time."""
    passages = {} if state is None else {"slack": state}
    assert passage.due(passages, ["slack"], NOW) == (["slack"] if due else [])


def test_next_try_is_none_when_every_channel_has_it() -> None:
    """Otherwise it is the earliest of those that lack it; an untried one is due at once."""
    late = Passage(Stage.FAILED, retry_at=NOW + seconds(9))
    later = Passage(Stage.FAILED, retry_at=NOW + seconds(99))
    assert passage.next_try({"a": Passage(Stage.SENT)}, ["a"], NOW) is None
    assert passage.next_try({"a": late, "b": later}, ["a", "b"], NOW) == late.retry_at
    assert passage.next_try({"a": late}, ["a", "b"], NOW) == NOW


@pytest.mark.parametrize(
    ("attempts", "longest"), [(1, 10.0), (2, 20.0), (9, 2560.0), (10, 3600.0), (5000, 3600.0)]
)
def test_backoff_doubles_up_to_an_hour_when_attempts_fail(attempts: int, longest: float) -> None:
    """Jitter takes at most half of it."""
    found = [passage.backoff_seconds(attempts, Random(seed)) for seed in range(50)]
    assert longest / 2 <= min(found) < max(found) <= longest


PASSAGES = st.builds(
    Passage,
    stage=st.sampled_from(Stage),
    attempts=st.integers(0, 9),
    retry_at=st.none() | st.integers(0, 9999).map(lambda count: NOW + seconds(count)),
    maybe_duplicate=st.booleans(),
    receipt=st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3),
)


@given(st.dictionaries(st.text(max_size=8), PASSAGES, max_size=3))
def test_text_is_read_back_when_stored(passages: dict[str, Passage]) -> None:
    """What is stored is what was known."""
    assert passage.read(passage.text(passages)) == passages


@pytest.mark.parametrize("text", [None, "", "plain", "[]", "7", '{"slack": 1}', '{"slack": {"stage": "?"}}'])
def test_read_gives_nothing_when_the_receipt_is_not_ours(text: str | None) -> None:
    """A foreign receipt never stops a delivery."""
    assert passage.read(text) == {}
