"""When a model file is taken: tables with both sides of every boundary."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flows.catalog.attention import Attention, Decision, Meaning, attention, meaning
from serving.store.model_files import ModelFile, State

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
QUIET = 10.0


def noted(state: State = State.CHANGING, *, age_seconds: float = 0.0, fingerprint: str = "same") -> ModelFile:
    since = NOW - timedelta(seconds=age_seconds)
    return ModelFile(path="/m/a.onnx", fingerprint=fingerprint, since=since, state=state)


@pytest.mark.parametrize(
    ("before", "expected", "wait_seconds"),
    [
        pytest.param(None, Attention.WAIT, QUIET, id="never seen"),
        pytest.param(noted(age_seconds=9.999), Attention.WAIT, 0.001, id="just before the quiet period ends"),
        pytest.param(noted(age_seconds=10.0), Attention.TAKE, 0.0, id="quiet for exactly as long"),
        pytest.param(noted(age_seconds=1e6), Attention.TAKE, 0.0, id="quiet for days"),
        pytest.param(noted(age_seconds=60, fingerprint="other"), Attention.WAIT, QUIET, id="changed since"),
        pytest.param(noted(age_seconds=-1), Attention.WAIT, QUIET, id="clock put back"),
        pytest.param(noted(State.REGISTERED, age_seconds=60), Attention.LEAVE, 0.0, id="registered"),
        pytest.param(noted(State.REFUSED), Attention.LEAVE, 0.0, id="refused"),
        pytest.param(noted(State.REGISTERING), Attention.RESUME, 0.0, id="cut off"),
        pytest.param(
            noted(State.REGISTERED, fingerprint="other"), Attention.WAIT, QUIET, id="registered, then changed"
        ),
        pytest.param(
            noted(State.REFUSED, fingerprint="other"), Attention.WAIT, QUIET, id="refused, then changed"
        ),
        pytest.param(
            noted(State.REGISTERING, fingerprint="other"), Attention.WAIT, QUIET, id="cut off, then changed"
        ),
    ],
)
def test_file_gets_attention_when_it_has_settled(
    before: ModelFile | None, expected: Attention, wait_seconds: float
) -> None:
    """Unchanged for the whole quiet period, by our own observation, and not before."""
    found = attention("same", before, NOW, QUIET)
    assert found.attention is expected
    assert found.wait_seconds == pytest.approx(wait_seconds)


def test_quiet_period_starts_anew_when_a_file_changes() -> None:
    """What was observed of the old content does not count for the new."""
    assert attention("new", noted(age_seconds=60), NOW, QUIET).since == NOW


def test_quiet_period_goes_on_when_nothing_changes() -> None:
    before = noted(age_seconds=4)
    assert attention("same", before, NOW, QUIET) == Decision(Attention.WAIT, before.since, 6.0)


def test_file_is_taken_at_once_when_no_quiet_period_is_wanted() -> None:
    assert attention("new", None, NOW, 0.0).attention is Attention.TAKE


REGISTERED = replace(noted(), source_digest="bytes", side_digest="side", version="3", model="digits")
REFUSED = replace(noted(), source_digest="bytes", side_digest="side", reason="it is empty")


@pytest.mark.parametrize(
    ("before", "digest", "side", "expected"),
    [
        pytest.param(None, "bytes", "side", Meaning.NEW, id="never seen"),
        pytest.param(REGISTERED, "bytes", "side", Meaning.AS_BEFORE, id="touched"),
        pytest.param(REGISTERED, "other", "side", Meaning.NEW, id="other bytes"),
        pytest.param(REGISTERED, "bytes", "other", Meaning.DESCRIBED_ANEW, id="other side file"),
        pytest.param(REGISTERED, "bytes", None, Meaning.DESCRIBED_ANEW, id="side file taken away"),
        pytest.param(REFUSED, "bytes", "side", Meaning.AS_BEFORE, id="refused, touched"),
        pytest.param(REFUSED, "bytes", "other", Meaning.NEW, id="refused, side file corrected"),
        pytest.param(REFUSED, "other", "side", Meaning.NEW, id="refused, file corrected"),
        pytest.param(noted(), "bytes", "side", Meaning.NEW, id="seen, never taken"),
        pytest.param(
            replace(noted(), source_digest="bytes", side_digest="side"),
            "bytes",
            "side",
            Meaning.NEW,
            id="cut off before its end",
        ),
    ],
)
def test_meaning_follows_from_bytes_and_side_file(
    before: ModelFile | None, digest: str, side: str | None, expected: Meaning
) -> None:
    """Only other bytes make a new version; only what was refused is judged anew for its side file."""
    assert meaning(digest, side, before) is expected
